/*
 * launcher.c
 *		The one process that is always there: starts coordinators.
 *
 * Life: started by the postmaster once the server accepts writes (so on a
 * standby at promotion), restarted by it 5 seconds after it ends, never ends by
 * itself.  Connected to no database; reads pg_database only.
 *
 * It looks at every database once at its start and then at long intervals (for
 * wake-ups that were lost), by starting a coordinator, which leaves at once if
 * there is nothing to do.  In between a commit of submit marks its database.
 * Where there are more databases than places for them on the board, it goes through
 * them in the order of their OIDs, and on when a place has become free.
 *
 * Coordinators are started one at a time: while one has work but no worker yet,
 * another would only take away the slot that the worker needs.  While
 * bulk_action.enabled is off it starts nothing.
 *
 * When the launcher dies, coordinators and workers go on; its successor finds
 * them by their slots.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/injection.h"
#include "process/background.h"

#define ATTACH_LIMIT_MS  30000 /* a process that has not come up by then never will */
#define NO_SLOT_DELAY_MS 5000  /* until another try where the server has no slot free */

/* Templates are not to be connected to, and some databases cannot be. */
static bool
is_served(Form_pg_database database)
{
	return database->datallowconn && !database->datistemplate &&
		   database->datconnlimit != COMPAT_INVALID_DATABASE;
}

/* It is going through all databases, and those after this one are still to be marked. */
static bool going_through = false;
static Oid  marked_up_to = InvalidOid;

/* In the order of their OIDs; in the present memory context. */
static List *
served_databases(void)
{
	Relation      rel = table_open(DatabaseRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(rel, 0, NULL);
	HeapTuple     tuple;
	List         *databases = NIL;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (is_served(database))
			databases = lappend_oid(databases, database->oid);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	list_sort(databases, list_oid_cmp);
	return databases;
}

/* Marks the databases that could have something to do, as many more of them as there is a place for. */
static void
mark_databases(void)
{
	ListCell *cell;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	going_through = false;
	foreach(cell, served_databases())
	{
		if (lfirst_oid(cell) <= marked_up_to)
			continue;
		if (!database_want(lfirst_oid(cell)))
		{
			going_through = true;
			break;
		}
		marked_up_to = lfirst_oid(cell);
	}
	CommitTransactionCommand();
}

static bool
may_connect_to(Oid database)
{
	HeapTuple tuple;
	bool      result;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	result = HeapTupleIsValid(tuple) && is_served((Form_pg_database) GETSTRUCT(tuple));
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	CommitTransactionCommand();
	return result;
}

/* Starts what can be started; returns for how long there is nothing to do, in ms. */
static long
start_coordinators(long timeout_ms)
{
	TimestampTz next_due;

	while (!database_any_starved())
	{
		Oid database = database_next_unserved(&next_due);

		if (!OidIsValid(database))
		{
			if (next_due != 0)
				timeout_ms = Min(timeout_ms,
								 TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next_due) + 1);
			return timeout_ms;
		}
		if (!may_connect_to(database))
			database_forget(database);
		else if (!background_launch(PROCESS_COORDINATOR, database, InvalidOid))
			return Min(timeout_ms, NO_SLOT_DELAY_MS);
	}
	return Min(timeout_ms, NO_SLOT_DELAY_MS);
}

void
bulk_action_launcher_main(Datum arg)
{
	TimestampTz last_scan = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	launcher_attach();
	pgstat_report_activity(STATE_IDLE, NULL);

	for (;;)
	{
		long timeout_ms;

		if (!bulk_action_enabled)
		{
			last_scan = 0; /* everything is looked at once it is switched on again */
			background_wait(-1);
			continue;
		}
		(void) slot_reclaim(ATTACH_LIMIT_MS);
		/* Not begun anew before it has been through, or the last ones would never have their turn. */
		if (!going_through &&
			(database_take_overflow() || last_scan == 0 ||
			 TimestampDifferenceExceeds(last_scan, GetCurrentTimestamp(), bulk_action_rescan_interval * 1000)))
		{
			last_scan = GetCurrentTimestamp();
			marked_up_to = InvalidOid;
			going_through = true;
		}
		if (going_through)
			mark_databases();
		INJECTION("launcher-round");
		timeout_ms = start_coordinators(bulk_action_rescan_interval * 1000L);
		background_wait(timeout_ms);
	}
}
