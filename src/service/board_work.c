/*
 * board_work.c
 *		Shared memory: what there is to do, and who is doing it.
 *
 * The coordinator publishes the actions at the head of their streams; workers
 * take tasks and bring back what the tables said when they were done.  A task
 * handed out is marked with the worker's slot, so that two workers do not
 * collide; that mark is a courtesy, the row lock on the cursor (or source) is
 * what decides.  So a mark that was lost, or a count that is behind, costs an
 * empty look at the tables and nothing else.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "pure/retry.h"
#include "service/board_private.h"

#define DEATH_BASE_MS 100
#define DEATH_CAP_MS  30000

/* ---- with the lock held ---- */

static BoardAction *
find_action(Oid database, int64 action_no)
{
	for (int i = 0; i < BOARD_MAX_ACTIONS; i++)
		if (board->actions[i].action_no == action_no && board->actions[i].database == database)
			return &board->actions[i];
	return NULL;
}

static int
queued_chunks(const BoardAction *action)
{
	int n = 0;

	for (int lane = 0; lane < action->progress.lanes; lane++)
		n += action->progress.produced[lane] - action->progress.next[lane];
	return n;
}

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

static bool
wants_chunking(const BoardAction *action)
{
	return !action->closed && !action->progress.at_end && action->chunking_by == NOBODY &&
		   queued_chunks(action) < bulk_action_max_queued_chunks;
}

static bool
wants_applying(const BoardAction *action, int lane)
{
	return !action->closed && action->lane_by[lane] == NOBODY &&
		   action->progress.next[lane] < action->progress.produced[lane];
}

static bool
is_busy(const BoardAction *action)
{
	if (action->chunking_by != NOBODY)
		return true;
	for (int lane = 0; lane < MAX_LANES; lane++)
		if (action->lane_by[lane] != NOBODY)
			return true;
	return false;
}

static void
wake_coordinator(Oid database)
{
	int coordinator = board_find_coordinator(database);

	if (coordinator >= 0)
		board_wake_slot(coordinator);
	else
		board_wake_launcher();
}

/* Wakes idle workers of a group, as many as there are new tasks. */
static void
wake_idle_workers(Oid database, Oid session_user, int tasks)
{
	for (int i = 0; i < board->nslots && tasks > 0; i++)
	{
		ProcessSlot *s = &board->slots[i];

		if (s->info.kind == PROCESS_WORKER && s->info.pid != 0 && !s->busy &&
			s->info.database == database && s->info.session_user == session_user)
		{
			board_wake_slot(i);
			tasks--;
		}
	}
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

void
board_forget_database_actions(Oid database)
{
	for (int i = 0; i < BOARD_MAX_ACTIONS; i++)
		if (board->actions[i].database == database)
			memset(&board->actions[i], 0, sizeof(BoardAction));
}

/* ---- for the coordinator ---- */

bool
board_publish(Oid database, Oid session_user, int64 action_no, int priority,
			  const ActionProgress *progress)
{
	BoardAction *action;
	bool         found;
	int          held = 0;

	board_lock();
	action = find_action(database, action_no);
	found = action != NULL;
	for (int i = 0; !found && i < BOARD_MAX_ACTIONS; i++)
		if (board->actions[i].action_no != 0 && board->actions[i].session_user == session_user)
			held++;
	for (int i = 0; !found && held < BOARD_MAX_SHARE && i < BOARD_MAX_ACTIONS; i++)
	{
		if (board->actions[i].action_no != 0)
			continue;
		action = &board->actions[i];
		memset(action, 0, sizeof(*action));
		action->action_no = action_no;
		action->database = database;
		action->session_user = session_user;
		action->priority = priority;
		action->chunking_by = NOBODY;
		for (int lane = 0; lane < MAX_LANES; lane++)
			action->lane_by[lane] = action->preferred[lane] = NOBODY;
		break;
	}
	if (action != NULL)
	{
		ActionProgress *known = &action->progress;

		/* What workers brought meanwhile is newer than what the coordinator read. */
		action->closed = false;
		known->lanes = Max(known->lanes, progress->lanes);
		known->at_end |= progress->at_end;
		for (int lane = 0; lane < progress->lanes; lane++)
		{
			known->produced[lane] = Max(known->produced[lane], progress->produced[lane]);
			known->next[lane] = Max(known->next[lane], progress->next[lane]);
		}
		if (!found)
			wake_idle_workers(database, session_user, 1 + progress->lanes);
	}
	board_unlock();
	return action != NULL;
}

void
board_close(Oid database, int64 action_no, bool interrupt)
{
	BoardAction *action;

	board_lock();
	action = find_action(database, action_no);
	if (action != NULL)
	{
		action->closed = true;
		for (int i = 0; interrupt && i < board->nslots; i++)
		{
			bool inside = action->chunking_by == i;

			for (int lane = 0; lane < MAX_LANES; lane++)
				inside |= action->lane_by[lane] == i;
			if (inside && board->slots[i].info.kind == PROCESS_WORKER && board->slots[i].info.pid != 0)
				kill(board->slots[i].info.pid, SIGINT);
		}
	}
	board_unlock();
}

void
board_reopen(Oid database, int64 action_no)
{
	BoardAction *action;

	board_lock();
	action = find_action(database, action_no);
	if (action != NULL)
	{
		action->closed = false;
		wake_idle_workers(database, action->session_user, 1 + action->progress.lanes);
	}
	board_unlock();
}

bool
board_is_busy(Oid database, int64 action_no)
{
	BoardAction *action;
	bool         busy;

	board_lock();
	action = find_action(database, action_no);
	busy = action != NULL && is_busy(action);
	board_unlock();
	return busy;
}

int64
board_chunks_passed(Oid database, int64 action_no)
{
	BoardAction *action;
	int64        passed = 0;

	board_lock();
	action = find_action(database, action_no);
	if (action != NULL)
		passed = action->segments;
	for (int lane = 0; action != NULL && lane < action->progress.lanes; lane++)
		passed += (int64) action->progress.produced[lane] + action->progress.next[lane];
	board_unlock();
	return passed;
}

bool
board_is_closed(int entry, int64 action_no)
{
	bool closed;

	board_lock();
	closed = board->actions[entry].action_no != action_no || board->actions[entry].closed;
	board_unlock();
	return closed;
}

void
board_remove(Oid database, int64 action_no)
{
	BoardAction *action;

	board_lock();
	action = find_action(database, action_no);
	if (action != NULL)
		memset(action, 0, sizeof(*action));
	board_unlock();
}

void
board_sweep(Oid database)
{
	board_lock();
	for (int i = 0; i < BOARD_MAX_ACTIONS; i++)
		if (board->actions[i].database == database && !is_busy(&board->actions[i]))
			memset(&board->actions[i], 0, sizeof(BoardAction));
	board_unlock();
}

bool
board_is_done(Oid database, int64 action_no)
{
	BoardAction *action;
	bool         done;

	board_lock();
	action = find_action(database, action_no);
	done = action != NULL && action->progress.at_end && queued_chunks(action) == 0 && !is_busy(action);
	board_unlock();
	return done;
}

int
board_demand(Oid database, GroupDemand *groups, int max)
{
	int         n = 0;
	TimestampTz now = GetCurrentTimestamp();

	board_lock();
	for (int i = 0; i < BOARD_MAX_ACTIONS; i++)
	{
		BoardAction *action = &board->actions[i];
		GroupDemand *group = NULL;

		if (action->action_no == 0 || action->database != database || action->closed)
			continue;
		for (int g = 0; g < n; g++)
			if (groups[g].session_user == action->session_user)
				group = &groups[g];
		if (group == NULL)
		{
			if (n == max)
				continue;
			group = &groups[n++];
			memset(group, 0, sizeof(*group));
			group->session_user = action->session_user;
		}
		if (action->worker_seen)
			group->alive++;
		action->worker_seen = false;
		if (wants_chunking(action))
		{
			if (action->chunking_due <= now)
				group->tasks++;
			else if (group->next_due == 0 || action->chunking_due < group->next_due)
				group->next_due = action->chunking_due;
		}
		for (int lane = 0; lane < action->progress.lanes; lane++)
		{
			if (!wants_applying(action, lane))
				continue;
			if (action->lane_due[lane] <= now)
				group->tasks++;
			else if (group->next_due == 0 || action->lane_due[lane] < group->next_due)
				group->next_due = action->lane_due[lane];
		}
	}
	for (int i = 0; i < board->nslots; i++)
	{
		ProcessSlot *s = &board->slots[i];

		if (s->info.kind != PROCESS_WORKER || s->info.database != database)
			continue;
		for (int g = 0; g < n; g++)
			if (groups[g].session_user == s->info.session_user)
			{
				groups[g].workers++;
				if (!s->busy)
					groups[g].idle++;
				if (s->alive)
					groups[g].alive++;
			}
	}
	board_unlock();
	return n;
}

void
board_wake_idle(Oid database, Oid session_user, int tasks)
{
	board_lock();
	wake_idle_workers(database, session_user, tasks);
	board_unlock();
}

/* ---- for the worker ---- */

/* One action's best task for a slot: chunking first, own lanes, then any lane. */
static bool
pick_task(BoardAction *action, int slot, TimestampTz now, Task *task, TimestampTz *next_due)
{
	int best = -1;

	if (needs_calm(action) && is_busy(action))
		return false;
	if (wants_chunking(action))
	{
		if (action->chunking_due <= now)
		{
			task->kind = TASK_CHUNK;
			task->lane = 0;
			task->available = 0;
			task->attempt = action->chunking_attempts;
			task->deaths = action->chunking_deaths;
			return true;
		}
		if (*next_due == 0 || action->chunking_due < *next_due)
			*next_due = action->chunking_due;
	}
	for (int lane = 0; lane < action->progress.lanes; lane++)
	{
		if (!wants_applying(action, lane))
			continue;
		if (action->lane_due[lane] > now)
		{
			if (*next_due == 0 || action->lane_due[lane] < *next_due)
				*next_due = action->lane_due[lane];
			continue;
		}
		if (best < 0 ||
			(action->preferred[lane] == slot && action->preferred[best] != slot) ||
			((action->preferred[lane] == slot) == (action->preferred[best] == slot) &&
			 action->progress.next[lane] < action->progress.next[best]))
			best = lane;
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

	*next_due = 0;
	board_lock();
	for (int i = 0; i < BOARD_MAX_ACTIONS; i++)
	{
		BoardAction *action = &board->actions[i];
		Task         candidate;

		if (action->action_no == 0 || action->database != database ||
			action->session_user != session_user)
			continue;
		if (!pick_task(action, slot, now, &candidate, next_due))
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
		if (task->kind == TASK_CHUNK)
			best->chunking_by = slot;
		else
			best->lane_by[task->lane] = slot;
	}
	board->slots[slot].busy = best != NULL;
	board->slots[slot].alive = true;
	board_unlock();
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
wake_coordinator_if_over(const BoardAction *action)
{
	if ((action->closed || (action->progress.at_end && queued_chunks(action) == 0)) &&
		!is_busy(action))
		wake_coordinator(action->database);
}

void
board_chunked(const Task *task, int lanes, const int32 *produced, bool at_end)
{
	BoardAction *action;

	board_lock();
	action = end_task(task);
	if (action != NULL)
	{
		bool first = action->progress.lanes == 0;

		action->segments++;
		action->chunking_attempts = 0;
		action->chunking_deaths = 0;
		action->chunking_due = 0;
		action->progress.lanes = Max(action->progress.lanes, lanes);
		for (int lane = 0; lane < lanes; lane++)
			action->progress.produced[lane] = Max(action->progress.produced[lane], produced[lane]);
		action->progress.at_end |= at_end;
		wake_idle_workers(action->database, action->session_user, lanes);
		/* More lanes than workers: the coordinator may start some. */
		if (first || lanes > 1)
			wake_coordinator(action->database);
		wake_coordinator_if_over(action);
	}
	board_unlock();
}

void
board_applied(const Task *task, int32 next_chunk)
{
	BoardAction *action;

	board_lock();
	action = end_task(task);
	if (action != NULL)
	{
		bool wanted = wants_chunking(action);
		bool needed_calm = needs_calm(action);

		action->lane_attempts[task->lane] = 0;
		action->lane_deaths[task->lane] = 0;
		action->lane_due[task->lane] = 0;
		action->progress.next[task->lane] = Max(action->progress.next[task->lane], next_chunk);
		if (!wanted && wants_chunking(action))
			wake_idle_workers(action->database, action->session_user, 1);
		if (needed_calm)
			wake_idle_workers(action->database, action->session_user, MAX_LANES);
		wake_coordinator_if_over(action);
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
		}
		wake_coordinator_if_over(action);
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
