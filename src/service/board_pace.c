/*
 * board_pace.c
 *		Shared memory: how fast the rows of an account or a role may be applied.
 *
 * Nobody sleeps for it.  A chunk is charged when it is handed out, as if it
 * were full, and the next one of the same account or role is not handed out
 * before the time that so many rows may take has passed; when the chunk is done
 * the charge is corrected to what it had (one that failed has had its turn, one
 * that was not begun has not).  So chunks go out one at a time at even distances,
 * however many workers there are, and all rows but those of the last chunk have
 * had their time.  Time in which nothing is applied is not saved up.
 *
 * The account of time outlives the actions that it is for, or many small files
 * would escape it.  It is forgotten when its place is needed and its time has
 * come; there are always more places than actions on the board can refer to.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "service/board_private.h"

static BoardPace *
pace_of(const BoardAction *action, int i)
{
	return action->paces[i] == 0 ? NULL : &board->paces[action->paces[i] - 1];
}

static bool
is_referred_to(int number)
{
	for (int i = 0; i < BOARD_MAX_ACTIONS; i++)
		for (int j = 0; j < PACES_PER_ACTION; j++)
			if (board->actions[i].action_no != 0 && board->actions[i].paces[j] == number)
				return true;
	return false;
}

/* The number of the place for a subject, its index plus one. */
static int
find_place(Oid database, uint64 subject)
{
	int best = -1;

	for (int i = 0; i < BOARD_MAX_PACES; i++)
		if (board->paces[i].database == database && board->paces[i].subject == subject)
			return i + 1;
	for (int i = 0; i < BOARD_MAX_PACES; i++)
		if ((best < 0 || board->paces[i].due < board->paces[best].due) && !is_referred_to(i + 1))
			best = i;
	board->paces[best].database = database;
	board->paces[best].subject = subject;
	board->paces[best].rows_per_second = 0;
	board->paces[best].due = 0;
	return best + 1;
}

/* What is left to wait lasts longer or shorter with another pace. */
static void
change_pace(BoardPace *pace, int rows_per_second)
{
	TimestampTz now = GetCurrentTimestamp();

	if (pace->rows_per_second == rows_per_second)
		return;
	if (pace->due > now)
		pace->due = now + (TimestampTz) ((double) (pace->due - now) * pace->rows_per_second / rows_per_second);
	pace->rows_per_second = rows_per_second;
}

void
board_assign_paces(BoardAction *action, const Pace *paces)
{
	for (int i = 0; i < PACES_PER_ACTION; i++)
	{
		action->paces[i] = 0;
		if (paces[i].rows_per_second == 0)
			continue;
		action->paces[i] = find_place(action->database, paces[i].subject);
		change_pace(pace_of(action, i), paces[i].rows_per_second);
	}
}

bool
board_is_paced(const BoardAction *action)
{
	for (int i = 0; i < PACES_PER_ACTION; i++)
		if (action->paces[i] != 0)
			return true;
	return false;
}

TimestampTz
board_lane_due(const BoardAction *action, int lane)
{
	TimestampTz due = action->lane_due[lane];

	for (int i = 0; i < PACES_PER_ACTION; i++)
		if (action->paces[i] != 0)
			due = Max(due, pace_of(action, i)->due);
	return due;
}

static TimestampTz
time_for(const BoardPace *pace, int rows)
{
	return (TimestampTz) rows * USECS_PER_SEC / pace->rows_per_second;
}

void
board_charge_chunk(BoardAction *action, TimestampTz now)
{
	for (int i = 0; i < PACES_PER_ACTION; i++)
	{
		BoardPace *pace = pace_of(action, i);

		if (pace != NULL)
			pace->due = Max(pace->due, now) + time_for(pace, MAX_CHUNK_ROWS);
	}
}

void
board_correct_charge(BoardAction *action, int rows)
{
	for (int i = 0; i < PACES_PER_ACTION; i++)
	{
		BoardPace *pace = pace_of(action, i);

		if (pace != NULL)
			pace->due -= time_for(pace, MAX_CHUNK_ROWS - rows);
	}
}

/* ---- for the coordinator ---- */

void
board_set_paces(Oid database, int64 action_no, const Pace *paces)
{
	BoardAction *action;

	board_lock();
	action = board_find_action(database, action_no);
	if (action != NULL)
	{
		board_assign_paces(action, paces);
		board_wake_idle_workers(database, action->session_user, 1);
	}
	board_unlock();
}
