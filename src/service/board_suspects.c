/*
 * board_suspects.c
 *		Shared memory: what may have crashed the server, and runs alone.
 *
 * Each segment or chunk that was in flight when the server crashed is a
 * suspect.  It is handed out only when no worker of any database is inside a
 * task, and nothing is handed out beside it; so if the server crashes again
 * meanwhile, it was that one.  Suspects go first, or the others would never let
 * one of them be alone; while one waits for another try, or for a coordinator,
 * without which there may never be a worker for it, the others go on.
 *
 * What was in flight is known from the markers (markers.c), which the postmaster
 * reads when it sets up shared memory.  The coordinator of the database writes
 * them into the tables and publishes each action with its suspects.  One that
 * the action has got past is none any more.
 *
 * What is slow, or is waited for by the slow, must not keep everybody back for
 * ever: after TURN_SECONDS the others have as long a turn themselves.  A suspect
 * that is running then is not alone any more, and its marker says so.
 *
 * Commits are asynchronous, so after a crash an action may stand before its
 * suspect, or have no lanes yet.  Would it be so after each crash, the suspect
 * would never be there to be charged: while there is one ahead, the action's
 * commits are synchronous.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "service/board_private.h"

/* How long suspects keep others back, and others suspects, at a time. */
#define TURN_SECONDS 60

/* ---- with the lock held ---- */

bool
board_segment_is_suspect(const BoardAction *action)
{
	return action->progress.suspect_segment == 1;
}

bool
board_lane_is_suspect(const BoardAction *action, int lane)
{
	return action->progress.suspect_chunk[lane] == action->progress.next[lane] + 1;
}

bool
board_has_suspects(const BoardAction *action)
{
	for (int lane = 0; lane < MAX_LANES; lane++)
		if (action->progress.suspect_chunk[lane] > action->progress.next[lane])
			return true;
	return action->progress.suspect_segment > 0;
}

static bool
suspect_is_due(const BoardAction *action, TimestampTz now)
{
	if (board_find_coordinator(action->database) < 0)
		return false;
	if (board_segment_is_suspect(action) && board_wants_chunking(action) && action->chunking_due <= now)
		return true;
	for (int lane = 0; lane < action->progress.lanes; lane++)
		if (board_lane_is_suspect(action, lane) && board_wants_applying(action, lane) &&
			board_lane_due(action, lane) <= now)
			return true;
	return false;
}

static int
slot_inside_suspect(const BoardAction *action)
{
	if (board_segment_is_suspect(action) && action->chunking_by != NOBODY)
		return action->chunking_by;
	for (int lane = 0; lane < action->progress.lanes; lane++)
		if (board_lane_is_suspect(action, lane) && action->lane_by[lane] != NOBODY)
			return action->lane_by[lane];
	return NOBODY;
}

int
board_suspect_slot(void)
{
	int slot = NOBODY;

	for (int i = 0; i < BOARD_MAX_ACTIONS && slot == NOBODY; i++)
		if (board->actions[i].action_no != 0)
			slot = slot_inside_suspect(&board->actions[i]);
	return slot;
}

static BoardTurn
turn_by_suspects(TimestampTz now)
{
	bool due = false;
	bool busy = false;

	for (int i = 0; i < BOARD_MAX_ACTIONS; i++)
	{
		const BoardAction *action = &board->actions[i];

		if (action->action_no == 0)
			continue;
		if (slot_inside_suspect(action) != NOBODY)
			return TURN_NOBODY;
		due |= suspect_is_due(action, now);
		busy |= board_action_is_busy(action);
	}
	if (!due)
		return TURN_ALL;
	return busy ? TURN_SUSPECT_NEXT : TURN_SUSPECT;
}

BoardTurn
board_whose_turn(TimestampTz now)
{
	BoardTurn turn = turn_by_suspects(now);

	if (turn == TURN_ALL)
	{
		board->turn_since = 0;
		return TURN_ALL;
	}
	if (board->turn_since == 0)
		board->turn_since = now;
	return (now - board->turn_since) / (TURN_SECONDS * USECS_PER_SEC) % 2 == 0 ? turn : TURN_ALL;
}

/* A task has ended: if others had to wait for that, or a suspect had, they look again. */
void
board_end_turn(bool was_suspect)
{
	if (!was_suspect && board_whose_turn(GetCurrentTimestamp()) != TURN_SUSPECT)
		return;
	for (int i = 0; i < board->nslots; i++)
		if (!board->slots[i].busy)
			board_wake_slot(i);
}

/* ---- for the coordinator ---- */

int
crashed_find(Oid database, Marker *found)
{
	int n = 0;

	board_lock();
	for (int i = 0; i < MARKERS_MAX; i++)
		if (board->crashed[i].kind != MARKER_NONE && board->crashed[i].database == database)
			found[n++] = board->crashed[i];
	board_unlock();
	return n;
}

void
crashed_forget(Oid database)
{
	for (int i = 0; i < MARKERS_MAX; i++)
	{
		bool found;

		board_lock();
		found = board->crashed[i].kind != MARKER_NONE && board->crashed[i].database == database;
		if (found)
			board->crashed[i].kind = MARKER_NONE;
		board_unlock();
		if (found)
			markers_forget(i);
	}
}
