/*
 * control.c
 *		bulk_action_cancel and bulk_action_purge: what becomes of an action
 *		after it was submitted.
 *
 * Only the coordinator changes an action's state.  A caller who would do so
 * himself, and then leave his transaction open, would have everybody wait for
 * his row lock; so he inserts an event instead, which the coordinator sees
 * once it is committed.
 *
 * Purge deletes rows that are final, which the coordinator does not touch any
 * more, and passes over those that somebody else has locked.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "api/action_id.h"
#include "base/compat.h"
#include "service/bookkeeping.h"
#include "service/wake.h"
#include "stage/jobs.h"

BULK_ACTION_FUNCTION(bulk_action_cancel);
BULK_ACTION_FUNCTION(bulk_action_purge);

static Statement action_read = {
	.sql = "SELECT action_no, submitted_role, state IN ('completed', 'cancelled', 'failed')"
		   " FROM bulk_action_internal.actions WHERE id = $1",
	.argtypes = {UUIDOID, InvalidOid},
};

static Statement cancel_insert = {
	.sql = "INSERT INTO bulk_action_internal.events (action_no, kind)"
		   " SELECT $1, 'cancel' WHERE NOT EXISTS (SELECT FROM bulk_action_internal.events AS e"
		   " WHERE e.action_no = $1 AND e.kind = 'cancel')",
	.argtypes = {INT8OID, InvalidOid},
};

/* Asks for it; false if the action has ended. */
static bool
request_cancel(const pg_uuid_t *id, Oid user)
{
	Datum values[1] = {UUIDPGetDatum(id)};

	if (statement_run(&action_read, values, NULL) == 0 ||
		!has_privs_of_role(user, DatumGetObjectId(statement_value(0, 2, NULL))))
		action_unknown(id);
	if (DatumGetBool(statement_value(0, 3, NULL)))
		return false;

	values[0] = statement_value(0, 1, NULL);
	statement_run(&cancel_insert, values, NULL);
	return true;
}

Datum
bulk_action_cancel(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id = PG_GETARG_UUID_P(0);
	Oid         user = GetUserId();
	Bookkeeping bookkeeping;
	bool        requested;

	PreventCommandIfReadOnly("bulk_action_cancel()");
	SPI_connect();
	bookkeeping_enter(&bookkeeping);
	requested = request_cancel(id, user);
	bookkeeping_leave(&bookkeeping);
	SPI_finish();

	if (requested)
		wake_after_commit();
	PG_RETURN_BOOL(requested);
}

Datum
bulk_action_purge(PG_FUNCTION_ARGS)
{
	Interval   *older_than = PG_GETARG_INTERVAL_P(0);
	Interval    zero = {0};
	Oid         user = GetUserId();
	Bookkeeping bookkeeping;
	int64       purged;

	PreventCommandIfReadOnly("bulk_action_purge()");
	if (DatumGetBool(DirectFunctionCall2(interval_lt, IntervalPGetDatum(older_than),
										 IntervalPGetDatum(&zero))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("older_than must not be "
																  "negative"),
				 errdetail("It is \"%s\".", DatumGetCString(DirectFunctionCall1(
												interval_out, IntervalPGetDatum(older_than)))),
				 errhint("Give an age like '30 days', or '0' to purge all actions that have "
						 "ended.")));

	SPI_connect();
	bookkeeping_enter(&bookkeeping);
	purged = jobs_purge(user, older_than);
	bookkeeping_leave(&bookkeeping);
	SPI_finish();
	PG_RETURN_INT64(purged);
}
