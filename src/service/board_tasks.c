/*
 * board_tasks.c
 *		Shared memory: the tasks of the actions, and who is doing them.
 *
 * A task handed out is marked with the worker's slot, so that two workers do
 * not collide; that mark is a courtesy, the row lock on the cursor (or source)
 * is what decides.  So a mark that was lost, or a count that is behind, costs
 * an empty look at the tables and nothing else.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "pure/retry.h"
#include "service/board_private.h"

#define DEATH_BASE_MS 100
#define DEATH_CAP_MS  30000

/* ---- with the lock held ---- */

/*
 * An action that has failed so often that its tasks may be in each other's way
 * (deadlocks, memory): one at a time.
 */
static bool
needs_calm(const BoardAction *action)
{
	int attempts = action->chunking_attempts;

	for (int lane = 0; lane < action->progress.lanes; lane++)
		attempts = Max(attempts, action->lane_attempts[lane]);
	return attempts >= (bulk_action_max_attempts + 1) / 2;
}

bool
board_wants_chunking(const BoardAction *action)
{
	return !action->closed && !action->progress.at_end && action->chunking_by == NOBODY &&
		   board_queued_chunks(action) < bulk_action_max_queued_chunks;
}

/*
 * The worker that chunked the segment before goes on as long as it lives: it has
 * the source open.  While it is inside another task somebody else may, unless he
 * would have to decode the source from the beginning.  With NOBODY: is there, or
 * may there come, a worker that is free for it?
 */
bool
board_may_chunk(const BoardAction *action, int slot)
{
	if (action->chunker == NOBODY || action->chunker == slot)
		return true;
	if (board->slots[action->chunker].busy)
		return !action->chunker_keeps;
	return slot == NOBODY;
}

bool
board_wants_applying(const BoardAction *action, int lane)
{
	return !action->closed && action->lane_by[lane] == NOBODY &&
		   action->progress.next[lane] < action->progress.produced[lane];
}

/*
 * A worker that dies inside a task has tried it: user code can end the process
 * that it runs in (pg_terminate_backend), and would do so for ever.
 */
static void
count_death(BoardAction *action, int *deaths, TimestampTz *due)
{
	DatabaseEntry *entry = board_find_database(action->database, false);
	TimestampTz    now = GetCurrentTimestamp();

	if (entry != NULL && entry->blocked_by != 0)
		return; /* it was we who ended it */
	(*deaths)++;
	*due = TimestampTzPlusMilliseconds(now, retry_delay_ms(*deaths, DEATH_BASE_MS, DEATH_CAP_MS, (uint64) now));
}

void
board_drop_holder(int slot)
{
	ProcessSlot *s = &board->slots[slot];

	s->busy = false;
	for (int i = 0; i < BOARD_MAX_ACTIONS; i++)
	{
		BoardAction *action = &board->actions[i];

		if (action->action_no == 0)
			continue;
		if (s->alive && action->database == s->info.database &&
			action->session_user == s->info.session_user)
			action->worker_seen = true;
		if (action->chunking_by == slot)
		{
			action->chunking_by = NOBODY;
			count_death(action, &action->chunking_deaths, &action->chunking_due);
		}
		if (action->chunker == slot)
		{
			action->chunker = NOBODY;
			if (board_wants_chunking(action))
				board_wake_idle_workers(action->database, action->session_user, 1);
		}
		for (int lane = 0; lane < MAX_LANES; lane++)
		{
			if (action->lane_by[lane] == slot)
			{
				action->lane_by[lane] = NOBODY;
				count_death(action, &action->lane_deaths[lane], &action->lane_due[lane]);
			}
			if (action->preferred[lane] == slot)
				action->preferred[lane] = NOBODY;
		}
	}
}

/* ---- for the worker ---- */

bool
board_wants_no_more(const Task *task)
{
	const BoardAction *action = &board->actions[task->entry];
	bool               no_more;

	board_lock();
	no_more = action->action_no != task->action_no || action->closed || board->slots[task->slot].interrupted;
	board_unlock();
	return no_more;
}

/*
 * Which lane is a slot's next: its own first, and of these the one that it is
 * in, as long as that has chunks.  Lanes of a file that is sorted by key all go
 * through the same pages of the table.  The old versions of rows that a lane
 * leaves there have been forgotten by everybody when the next lane comes after
 * a whole segment, so that new ones fit into their place (HOT) and no index is
 * touched; they have not when it comes after one chunk.
 */
static int
rank_of_lane(const BoardAction *action, int lane, int slot)
{
	const ProcessSlot *s = &board->slots[slot];

	return (action->preferred[lane] == slot ? 2 : 0) +
		   (s->last_action == action->action_no && s->last_lane == lane ? 1 : 0);
}

/* One action's best task for a slot: chunking first, then lanes; only suspects, or none of them. */
static bool
pick_task(BoardAction *action, int slot, TimestampTz now, BoardTurn turn, Task *task, TimestampTz *next_due)
{
	int best = -1;
	int best_rank = 0;

	if (needs_calm(action) && board_action_is_busy(action))
		return false;
	task->alone = turn == TURN_SUSPECT;
	task->durable = board_has_suspects(action);
	if (board_wants_chunking(action) && (!task->alone || board_segment_is_suspect(action)))
	{
		if (action->chunking_due > now)
		{
			if (*next_due == 0 || action->chunking_due < *next_due)
				*next_due = action->chunking_due;
		}
		else if (!task->alone && !board_segment_is_suspect(action) && !board_may_chunk(action, slot))
		{
			if (!board->slots[action->chunker].busy)
				board_wake_slot(action->chunker);
		}
		else if (task->alone == board_segment_is_suspect(action))
		{
			task->kind = TASK_CHUNK;
			task->lane = 0;
			task->available = 0;
			task->attempt = action->chunking_attempts;
			task->deaths = action->chunking_deaths;
			return true;
		}
	}
	for (int lane = 0; lane < action->progress.lanes; lane++)
	{
		TimestampTz due = board_lane_due(action, lane);
		int         rank = rank_of_lane(action, lane, slot);

		if (!board_wants_applying(action, lane) || (task->alone && !board_lane_is_suspect(action, lane)))
			continue;
		if (due > now)
		{
			if (*next_due == 0 || due < *next_due)
				*next_due = due;
			continue;
		}
		if (task->alone != board_lane_is_suspect(action, lane))
			continue;
		if (best < 0 || rank > best_rank ||
			(rank == best_rank && action->progress.next[lane] < action->progress.next[best]))
		{
			best = lane;
			best_rank = rank;
		}
	}
	if (best < 0)
		return false;
	task->kind = TASK_APPLY;
	task->lane = best;
	task->available = action->progress.produced[best];
	task->attempt = action->lane_attempts[best];
	task->deaths = action->lane_deaths[best];
	return true;
}

bool
board_take(int slot, Oid database, Oid session_user, Task *task, TimestampTz *next_due)
{
	BoardAction *best = NULL;
	TimestampTz  now = GetCurrentTimestamp();
	BoardTurn    turn;
	int          suspect = NOBODY;

	*next_due = 0;
	board_lock();
	turn = board_whose_turn(now);
	for (int i = 0; i < BOARD_MAX_ACTIONS && (turn == TURN_ALL || turn == TURN_SUSPECT); i++)
	{
		BoardAction *action = &board->actions[i];
		Task         candidate;

		if (action->action_no == 0 || action->database != database ||
			action->session_user != session_user)
			continue;
		if (!pick_task(action, slot, now, turn, &candidate, next_due))
			continue;
		if (best == NULL || action->priority > best->priority ||
			(action->priority == best->priority && action->last_served < best->last_served))
		{
			best = action;
			*task = candidate;
			task->entry = i;
			task->slot = slot;
			task->action_no = action->action_no;
		}
	}
	if (best != NULL)
	{
		best->last_served = ++board->served;
		if (!task->alone)
			suspect = board_suspect_slot();
		if (task->kind == TASK_CHUNK)
			best->chunking_by = slot;
		else
		{
			best->lane_by[task->lane] = slot;
			board->slots[slot].last_action = best->action_no;
			board->slots[slot].last_lane = task->lane;
			board_charge_chunk(best, now);
		}
	}
	board->slots[slot].busy = best != NULL;
	board->slots[slot].interrupted = false;
	board->slots[slot].alive = true;
	board_unlock();
	if (suspect != NOBODY)
		markers_not_alone(suspect);
	return best != NULL;
}

/*
 * Ends a task with the lock held; NULL if the action has left the board.  The
 * coordinator is woken where it has something to decide: the action is being
 * closed, or this was the last of it.
 */
static BoardAction *
end_task(const Task *task)
{
	BoardAction *action = &board->actions[task->entry];
	int         *holder;

	if (action->action_no != task->action_no || action->database != MyDatabaseId)
		return NULL;
	holder = task->kind == TASK_CHUNK ? &action->chunking_by : &action->lane_by[task->lane];
	if (*holder != task->slot)
		return NULL; /* it was ended before */
	board->slots[*holder].busy = false;
	*holder = NOBODY;
	return action;
}

static void
after_task(const BoardAction *action, const Task *task)
{
	board_end_turn(task->alone);
	if ((action->closed || (action->progress.at_end && board_queued_chunks(action) == 0)) &&
		!board_action_is_busy(action))
		board_wake_coordinator(action->database);
}

void
board_chunked(const Task *task, int lanes, const int32 *produced, bool at_end, bool keeps_decoder)
{
	BoardAction *action;

	board_lock();
	action = end_task(task);
	if (action != NULL)
	{
		bool first = action->progress.lanes == 0;

		action->progress.suspect_segment = Max(action->progress.suspect_segment - 1, 0);
		action->chunking_attempts = 0;
		action->chunking_deaths = 0;
		action->chunking_due = 0;
		action->chunker = task->slot;
		action->chunker_keeps = keeps_decoder;
		action->progress.lanes = Max(action->progress.lanes, lanes);
		for (int lane = 0; lane < lanes; lane++)
			action->progress.produced[lane] = Max(action->progress.produced[lane], produced[lane]);
		action->progress.at_end |= at_end;
		board_wake_idle_workers(action->database, action->session_user, lanes);
		/* More lanes than workers: the coordinator may start some. */
		if (first || lanes > 1)
			board_wake_coordinator(action->database);
		after_task(action, task);
	}
	board_unlock();
}

void
board_applied(const Task *task, int32 next_chunk, int rows)
{
	BoardAction *action;

	board_lock();
	action = end_task(task);
	if (action != NULL)
	{
		bool wanted = board_wants_chunking(action);
		bool needed_calm = needs_calm(action);

		board_correct_charge(action, rows);
		action->lane_attempts[task->lane] = 0;
		action->lane_deaths[task->lane] = 0;
		action->lane_due[task->lane] = 0;
		action->progress.next[task->lane] = Max(action->progress.next[task->lane], next_chunk);
		if (!wanted && board_wants_chunking(action))
			board_wake_idle_workers(action->database, action->session_user, 1);
		if (needed_calm)
			board_wake_idle_workers(action->database, action->session_user, MAX_LANES);
		after_task(action, task);
	}
	board_unlock();
}

static void
put_off(const Task *task, TimestampTz not_before, int attempts)
{
	BoardAction *action;

	board_lock();
	action = end_task(task);
	if (action != NULL)
	{
		if (task->kind == TASK_CHUNK)
		{
			action->chunking_attempts += attempts;
			action->chunking_due = not_before;
		}
		else
		{
			action->lane_attempts[task->lane] += attempts;
			action->lane_due[task->lane] = not_before;
			/* not begun; one that was broken off may have had some of its rows applied */
			if (attempts == 0 && !action->closed && !board->slots[task->slot].interrupted)
				board_correct_charge(action, 0);
		}
		after_task(action, task);
	}
	board_unlock();
}

void
board_failed(const Task *task, TimestampTz not_before)
{
	put_off(task, not_before, 1);
}

void
board_give_back(const Task *task, TimestampTz not_before)
{
	put_off(task, not_before, 0);
}
