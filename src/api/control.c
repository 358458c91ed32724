/*
 * control.c
 *		bulk_action_cancel, _pause, _resume, _retry and _purge: what becomes of
 *		an action after it was submitted.
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
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "api/action_id.h"
#include "base/compat.h"
#include "service/bookkeeping.h"
#include "service/visibility.h"
#include "service/wake.h"
#include "stage/jobs.h"
#include "stage/options.h"

BULK_ACTION_FUNCTION(bulk_action_cancel);
BULK_ACTION_FUNCTION(bulk_action_pause);
BULK_ACTION_FUNCTION(bulk_action_resume);
BULK_ACTION_FUNCTION(bulk_action_retry);
BULK_ACTION_FUNCTION(bulk_action_purge);

static Statement action_read = {
	.sql = "SELECT a.action_no, a.submitted_role, a.account_id, a.state, a.options, (SELECT e.kind"
		   " FROM bulk_action_internal.events AS e WHERE e.action_no = a.action_no"
		   " AND e.kind IN ('cancel', 'pause', 'resume', 'retry') ORDER BY e.event_no DESC LIMIT 1),"
		   " a.origin <> bulk_action_internal.this_database() AND NOT EXISTS (SELECT"
		   "  FROM bulk_action_internal.events AS e WHERE e.action_no = a.action_no AND e.kind = 'adopt')"
		   " FROM bulk_action_internal.actions AS a WHERE a.id = $1",
	.argtypes = {UUIDOID, InvalidOid},
};

static Statement request_insert = {
	.sql = "INSERT INTO bulk_action_internal.events (action_no, kind, options) VALUES ($1, $2, $3)",
	.argtypes = {INT8OID, TEXTOID, JSONBOID, InvalidOid},
};

/* What a request finds when it is made. */
typedef struct Standing
{
	int64  action_no;
	char  *state;
	Jsonb *options;
	char  *pending; /* the last request that has not been acted upon; NULL: none */
	bool   copied;  /* it belongs to the database that this one was copied from */
} Standing;

static bool
is(const char *one, const char *other)
{
	return one != NULL && strcmp(one, other) == 0;
}

static bool
has_ended(const char *state)
{
	return is(state, "completed") || is(state, "cancelled") || is(state, "failed");
}

/* Errors for an action that does not exist, or not for the caller. */
static void
read_standing(const pg_uuid_t *id, Oid user, Standing *standing)
{
	Datum values[1] = {UUIDPGetDatum(id)};

	if (statement_run(&action_read, values, NULL) == 0 ||
		!visibility_may_see(user, DatumGetObjectId(statement_value(0, 2, NULL)), statement_value(0, 3, NULL)))
		action_unknown(id);
	standing->action_no = DatumGetInt64(statement_value(0, 1, NULL));
	standing->state = statement_text(0, 4);
	standing->options = DatumGetJsonbPCopy(statement_value(0, 5, NULL));
	standing->pending = statement_text(0, 6);
	standing->copied = DatumGetBool(statement_value(0, 7, NULL));
}

static void
refuse(const char *what, const char *state, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a bulk action that is %s cannot be %s", state, what),
			 errhint("%s", hint)));
}

static void
refuse_copied(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a bulk action of another database cannot be %s", what),
			 errdetail("It was submitted in the database that this one was copied from."),
			 errhint("bulk_action_adopt() makes all such actions this database's own.")));
}

/* Whether there is something to ask for; errors where it makes no sense. */
static bool
is_wanted(const char *kind, const Standing *standing)
{
	const char *state = standing->state;
	bool        ended = has_ended(state);

	if (is(kind, "cancel"))
		return !ended || is(standing->pending, "retry");
	if (is(kind, "pause"))
	{
		if (ended)
			refuse("paused", state, "There is nothing left to do for it.");
		return !is(state, "paused") || is(standing->pending, "resume");
	}
	if (is(kind, "resume"))
	{
		if (is(state, "failed"))
			refuse("resumed", state, "bulk_action_retry() takes up what a failed action has left.");
		else if (ended)
			refuse("resumed", state, "Submit the file again.");
		if (standing->copied)
			refuse_copied("resumed");
		return is(state, "paused") || is(standing->pending, "pause");
	}
	if (is(state, "completed"))
		refuse("retried", state, "All its rows were tried; bulk_action_error_report() has those that failed.");
	else if (is(state, "cancelled"))
		refuse("retried", state, "Submit the file again.");
	if (standing->copied)
		refuse_copied("retried");
	return ended;
}

static bool
request(const pg_uuid_t *id, const char *kind, Jsonb *max_errors)
{
	Oid         user = GetUserId();
	Bookkeeping bookkeeping;
	Standing    standing;
	bool        wanted;

	SPI_connect();
	bookkeeping_enter(&bookkeeping);
	read_standing(id, user, &standing);
	wanted = is_wanted(kind, &standing);
	if (wanted && !is(standing.pending, kind))
	{
		Datum values[3] = {Int64GetDatum(standing.action_no), CStringGetTextDatum(kind), (Datum) 0};

		if (max_errors != NULL)
		{
			ActionOptions checked;

			values[2] = DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(standing.options),
											JsonbPGetDatum(max_errors));
			options_parse(DatumGetJsonbP(values[2]), &checked);
			values[2] = JsonbPGetDatum(max_errors);
		}
		statement_run(&request_insert, values, max_errors != NULL ? "   " : "  n");
	}
	bookkeeping_leave(&bookkeeping);
	SPI_finish();

	if (wanted)
		wake_after_commit();
	return wanted;
}

Datum
bulk_action_cancel(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("bulk_action_cancel()");
	PG_RETURN_BOOL(request(PG_GETARG_UUID_P(0), "cancel", NULL));
}

Datum
bulk_action_pause(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("bulk_action_pause()");
	PG_RETURN_BOOL(request(PG_GETARG_UUID_P(0), "pause", NULL));
}

Datum
bulk_action_resume(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("bulk_action_resume()");
	PG_RETURN_BOOL(request(PG_GETARG_UUID_P(0), "resume", NULL));
}

/* {"max_errors": value} */
static Jsonb *
as_option(Jsonb *value)
{
	char *text = JsonbToCString(NULL, &value->root, VARSIZE(value));

	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(psprintf("{\"max_errors\": %s}", text))));
}

Datum
bulk_action_retry(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("bulk_action_retry()");
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_BOOL(request(PG_GETARG_UUID_P(0), "retry", PG_ARGISNULL(1) ? NULL : as_option(PG_GETARG_JSONB_P(1))));
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
