/*
 * recruiting.c
 *		Starts workers where tasks wait for one.
 *
 * Workers belong to a session user.  Which of them may have how many is
 * decided on the board (board_groups.c); here the coordinator counts what is
 * missing, starts it, and notices a session user whose workers never come up.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "process/background.h"
#include "process/recruiting.h"
#include "service/board.h"
#include "stage/assignment.h"

#define SLOT_DELAY_MS       2000 /* until another try to start a worker */
#define STARTS_WITHOUT_LIFE 3

/* A session user whose workers are started. */
typedef struct UserGroup
{
	Oid session_user;
	int starts; /* since a worker of the group last asked for a task */

	TimestampTz added_since;
	int         added; /* to workers that are there, since then */
} UserGroup;

static UserGroup groups[BOARD_MAX_ACTIONS];
static int       ngroups = 0;

static UserGroup *
find_group(Oid session_user)
{
	for (int i = 0; i < ngroups; i++)
		if (groups[i].session_user == session_user)
			return &groups[i];
	if (ngroups == lengthof(groups))
		ngroups = 0; /* only counters of failed starts are lost */
	groups[ngroups].session_user = session_user;
	groups[ngroups].starts = 0;
	groups[ngroups].added_since = 0;
	groups[ngroups].added = 0;
	return &groups[ngroups++];
}

/*
 * A session user who may not log in any more, or has a connection limit, keeps
 * the workers he has; others die as soon as they are started.  They are missed
 * at once, but not started again at once.
 */
static bool
may_add(UserGroup *group)
{
	TimestampTz now = GetCurrentTimestamp();

	if (TimestampDifferenceExceeds(group->added_since, now, SLOT_DELAY_MS))
	{
		group->added_since = now;
		group->added = 0;
	}
	return group->added < bulk_action_max_workers;
}

long
recruit_workers(Oid database, void (*give_up)(Oid session_user))
{
	GroupDemand demand[BOARD_MAX_ACTIONS];
	int         n = board_demand(database, demand, lengthof(demand));
	bool        starved = false;
	long        timeout_ms = -1;

	group_retain_wants(database, demand, n);
	for (int i = 0; i < n; i++)
	{
		GroupDemand *d = &demand[i];
		UserGroup   *group = find_group(d->session_user);
		int          missing = d->tasks - d->idle;

		if (d->alive > 0)
			group->starts = 0;
		if (group->starts >= STARTS_WITHOUT_LIFE && d->workers == 0)
		{
			group->starts = 0;
			give_up(d->session_user);
			continue;
		}
		while (missing > 0 && (d->workers == 0 || may_add(group)) &&
			   group_may_start(database, d->session_user) &&
			   background_launch(PROCESS_WORKER, database, d->session_user))
		{
			missing--;
			if (d->workers++ == 0)
				group->starts++;
			else
				group->added++;
		}
		if (d->tasks > 0 && d->idle > 0)
			board_wake_idle(database, d->session_user, d->tasks);
		group_want_worker(database, d->session_user, d->tasks > 0 && d->workers == 0);
		if (d->tasks > 0 && d->workers == 0)
		{
			starved = true;
			timeout_ms = SLOT_DELAY_MS;
		}
		if (d->next_due != 0)
		{
			long due = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), d->next_due) + 1;

			timeout_ms = timeout_ms < 0 ? due : Min(timeout_ms, due);
		}
	}
	database_set_starved(database, starved);
	assignment_refresh(database);
	return timeout_ms;
}
