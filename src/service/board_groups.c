/*
 * board_groups.c
 *		Shared memory: the workers of a group, and room between groups.
 *
 * A group is one session user in one database: its workers are connected as
 * him and take only his tasks.  Groups share max_workers and the server's
 * slots; one that has no worker at all says so, and the others make room.
 */
#include "postgres.h"

#include "service/board_private.h"

/* ---- workers ---- */

/* Slots of a group's workers; returns how many. */
static int
workers_of(Oid database, Oid session_user, int *slots, int max)
{
	int n = 0;

	board_lock();
	for (int i = 0; i < board->nslots && n < max; i++)
	{
		ProcessInfo *info = &board->slots[i].info;

		if (info->kind == PROCESS_WORKER && info->database == database &&
			info->session_user == session_user)
			slots[n++] = i;
	}
	board_unlock();
	return n;
}

void
board_assign(Oid database, LaneAssigner assigner)
{
	for (int i = 0; i < BOARD_MAX_ACTIONS; i++)
	{
		BoardAction *action = &board->actions[i];
		int64        action_no;
		Oid          session_user;
		int          lanes;
		int          slots[BOARD_MAX_WORKERS];
		int          nslots;
		int16        owners[MAX_LANES];

		board_lock();
		action_no = action->database == database ? action->action_no : 0;
		session_user = action->session_user;
		lanes = action->progress.lanes;
		board_unlock();
		if (action_no == 0 || lanes == 0)
			continue;
		nslots = workers_of(database, session_user, slots, lengthof(slots));
		if (nslots == 0)
			continue;
		assigner(action_no, lanes, slots, nslots, owners);
		board_lock();
		if (action->action_no == action_no && action->database == database)
			memcpy(action->preferred, owners, lanes * sizeof(int16));
		board_unlock();
	}
}

/* ---- room ---- */

static void
retain_wants(Oid database, const GroupDemand *groups, int n)
{
	int kept = 0;

	for (int i = 0; i < board->nwants; i++)
	{
		bool keep = board->wants[i].database != database;

		for (int g = 0; g < n; g++)
			keep |= board->wants[i].session_user == groups[g].session_user;
		if (keep)
			board->wants[kept++] = board->wants[i];
	}
	board->nwants = kept;
}

void
board_drop_wants(Oid database)
{
	retain_wants(database, NULL, 0);
}

void
group_retain_wants(Oid database, const GroupDemand *groups, int n)
{
	board_lock();
	retain_wants(database, groups, n);
	board_unlock();
}

/* Wants are served in the order in which they came. */
void
group_want_worker(Oid database, Oid session_user, bool wanted)
{
	int found = -1;

	board_lock();
	for (int i = 0; i < board->nwants; i++)
		if (board->wants[i].database == database && board->wants[i].session_user == session_user)
			found = i;
	if (wanted && found < 0 && board->nwants < BOARD_MAX_WANTS)
	{
		board->wants[board->nwants].database = database;
		board->wants[board->nwants++].session_user = session_user;

		/* Idle workers of others look whether they should leave. */
		for (int i = 0; i < board->nslots; i++)
			if (board->slots[i].info.kind == PROCESS_WORKER && !board->slots[i].busy)
				board_wake_slot(i);
	}
	else if (!wanted && found >= 0)
	{
		board->nwants--;
		for (int i = found; i < board->nwants; i++)
			board->wants[i] = board->wants[i + 1];
	}
	board_unlock();
}

bool
group_may_start(Oid database, Oid session_user)
{
	bool may;

	board_lock();
	may = board->nwants == 0 ||
		  (board->wants[0].database == database && board->wants[0].session_user == session_user);
	board_unlock();
	return may;
}

bool
group_should_yield(Oid database, Oid session_user, bool idle)
{
	int wanting = 0;
	int own = 0;
	int workers = 0;

	board_lock();
	for (int i = 0; i < board->nwants; i++)
		if (board->wants[i].database != database || board->wants[i].session_user != session_user)
			wanting++;
	for (int i = 0; wanting > 0 && i < board->nslots; i++)
	{
		ProcessInfo *info = &board->slots[i].info;

		if (info->kind != PROCESS_WORKER)
			continue;
		workers++;
		if (info->database == database && info->session_user == session_user)
			own++;
	}
	board_unlock();

	/*
	 * An equal share leaves this group and each waiting one the same number.
	 * Where there are fewer workers than groups, they take turns chunk by
	 * chunk.
	 */
	return wanting > 0 && (idle || workers <= wanting || own > Max(1, workers / (wanting + 1)));
}
