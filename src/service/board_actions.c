/*
 * board_actions.c
 *		Shared memory: the actions that are being worked on, as the coordinator
 *		sees them.
 *
 * The coordinator publishes the actions at the head of their streams, closes
 * them when they are to end, and takes them off the board.  Workers take tasks
 * of them (board_tasks.c); what they bring back is newer than what the
 * coordinator read, and stays.
 */
#include "postgres.h"

#include <signal.h>

#include "utils/timestamp.h"

#include "service/board_private.h"

/* ---- with the lock held ---- */

BoardAction *
board_find_action(Oid database, int64 action_no)
{
	for (int i = 0; i < BOARD_MAX_ACTIONS; i++)
		if (board->actions[i].action_no == action_no && board->actions[i].database == database)
			return &board->actions[i];
	return NULL;
}

int
board_queued_chunks(const BoardAction *action)
{
	int n = 0;

	for (int lane = 0; lane < action->progress.lanes; lane++)
		n += action->progress.produced[lane] - action->progress.next[lane];
	return n;
}

bool
board_action_is_busy(const BoardAction *action)
{
	if (action->chunking_by != NOBODY)
		return true;
	for (int lane = 0; lane < MAX_LANES; lane++)
		if (action->lane_by[lane] != NOBODY)
			return true;
	return false;
}

void
board_wake_coordinator(Oid database)
{
	int coordinator = board_find_coordinator(database);

	if (coordinator >= 0)
		board_wake_slot(coordinator);
	else
		board_wake_launcher();
}

/* Wakes idle workers of a group, as many as there are new tasks. */
void
board_wake_idle_workers(Oid database, Oid session_user, int tasks)
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
			  const Pace *paces, const ActionProgress *progress)
{
	BoardAction *action;
	bool         found;
	int          held = 0;

	board_lock();
	action = board_find_action(database, action_no);
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
		action->progress.suspect_segment = progress->suspect_segment;
		memcpy(action->progress.suspect_chunk, progress->suspect_chunk, sizeof(progress->suspect_chunk));
		action->chunking_by = action->chunker = NOBODY;
		for (int lane = 0; lane < MAX_LANES; lane++)
			action->lane_by[lane] = action->preferred[lane] = NOBODY;
		break;
	}
	if (action != NULL)
	{
		ActionProgress *known = &action->progress;

		/* What workers brought meanwhile is newer than what the coordinator read. */
		action->closed = false;
		board_assign_paces(action, paces);
		known->lanes = Max(known->lanes, progress->lanes);
		known->at_end |= progress->at_end;
		for (int lane = 0; lane < progress->lanes; lane++)
		{
			known->produced[lane] = Max(known->produced[lane], progress->produced[lane]);
			known->next[lane] = Max(known->next[lane], progress->next[lane]);
		}
		if (!found)
			board_wake_idle_workers(database, session_user, 1 + progress->lanes);
	}
	board_unlock();
	return action != NULL;
}

void
board_close(Oid database, int64 action_no, bool interrupt)
{
	BoardAction *action;

	board_lock();
	action = board_find_action(database, action_no);
	if (action != NULL)
	{
		action->closed = true;
		for (int i = 0; interrupt && i < board->nslots; i++)
		{
			bool inside = action->chunking_by == i;

			for (int lane = 0; lane < MAX_LANES; lane++)
				inside |= action->lane_by[lane] == i;
			if (inside && board->slots[i].info.kind == PROCESS_WORKER && board->slots[i].info.pid != 0)
			{
				board->slots[i].interrupted = true;
				kill(board->slots[i].info.pid, SIGINT);
			}
		}
	}
	board_unlock();
}

void
board_reopen(Oid database, int64 action_no)
{
	BoardAction *action;

	board_lock();
	action = board_find_action(database, action_no);
	if (action != NULL)
	{
		action->closed = false;
		board_wake_idle_workers(database, action->session_user, 1 + action->progress.lanes);
	}
	board_unlock();
}

bool
board_is_busy(Oid database, int64 action_no)
{
	BoardAction *action;
	bool         busy;

	board_lock();
	action = board_find_action(database, action_no);
	busy = action != NULL && board_action_is_busy(action);
	board_unlock();
	return busy;
}

void
board_remove(Oid database, int64 action_no)
{
	BoardAction *action;

	board_lock();
	action = board_find_action(database, action_no);
	if (action != NULL)
		memset(action, 0, sizeof(*action));
	board_unlock();
}

void
board_sweep(Oid database)
{
	board_lock();
	for (int i = 0; i < BOARD_MAX_ACTIONS; i++)
		if (board->actions[i].database == database && !board_action_is_busy(&board->actions[i]))
			memset(&board->actions[i], 0, sizeof(BoardAction));
	board_unlock();
}

bool
board_is_done(Oid database, int64 action_no)
{
	BoardAction *action;
	bool         done;

	board_lock();
	action = board_find_action(database, action_no);
	done = action != NULL && action->progress.at_end && board_queued_chunks(action) == 0 &&
		   !board_action_is_busy(action);
	board_unlock();
	return done;
}

/* Is a worker to be there for it? */
static int
may_begin(BoardTurn turn, bool suspect)
{
	return turn == TURN_ALL || (suspect && turn != TURN_NOBODY) ? 1 : 0;
}

int
board_demand(Oid database, GroupDemand *groups, int max)
{
	int         n = 0;
	TimestampTz now = GetCurrentTimestamp();
	BoardTurn   turn;

	board_lock();
	turn = board_whose_turn(now);
	for (int i = 0; i < BOARD_MAX_ACTIONS; i++)
	{
		BoardAction *action = &board->actions[i];
		GroupDemand *group = NULL;
		int          ready = 0;

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
		if (board_wants_chunking(action) && board_may_chunk(action, NOBODY))
		{
			if (action->chunking_due <= now)
				group->tasks += may_begin(turn, board_segment_is_suspect(action));
			else if (group->next_due == 0 || action->chunking_due < group->next_due)
				group->next_due = action->chunking_due;
		}
		for (int lane = 0; lane < action->progress.lanes; lane++)
		{
			TimestampTz due = board_lane_due(action, lane);

			if (!board_wants_applying(action, lane))
				continue;
			if (due <= now)
				ready += may_begin(turn, board_lane_is_suspect(action, lane));
			else if (group->next_due == 0 || due < group->next_due)
				group->next_due = due;
		}
		/* after one of them the others of a limited account have to wait */
		group->tasks += board_is_paced(action) ? Min(ready, 1) : ready;
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
	board_wake_idle_workers(database, session_user, tasks);
	board_unlock();
}
