/*
 * wake.c
 *		Tells the coordinator of this database, after commit, that there is
 *		something to do.
 *
 * A wake-up before commit would find nothing and be lost, so it waits for the
 * transaction's end.  A wake-up that is lost all the same (this process dies
 * between its commit record and the callback) is made up for by the
 * launcher's rescan.  A prepared transaction would be committed by another
 * process, perhaps after a restart, which knows nothing of the wake-up and
 * would run rows of the queue under a session that is long gone: PREPARE is
 * refused.
 *
 * A rolled-back savepoint leaves the wake-up standing: one look in vain, and
 * a PREPARE refused that would have done no harm, is what that costs.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "service/board.h"
#include "service/wake.h"

static bool callback_registered = false;
static bool wake_wanted = false;

static void
wake_at_end(XactEvent event, void *arg)
{
	if (!wake_wanted)
		return;

	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has submitted or cancelled a bulk "
							"action"),
					 errdetail("The processes that apply bulk actions are told of them when the "
							   "transaction commits."),
					 errhint("Use COMMIT instead of PREPARE TRANSACTION.")));
			break;

		case XACT_EVENT_COMMIT:
			wake_wanted = false;
			database_wake(MyDatabaseId);
			break;

		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			wake_wanted = false;
			break;

		default:
			break;
	}
}

void
wake_after_commit(void)
{
	if (!board_available())
		return;
	if (!callback_registered)
	{
		RegisterXactCallback(wake_at_end, NULL);
		callback_registered = true;
	}
	wake_wanted = true;
}
