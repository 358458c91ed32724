/*
 * wait.c
 *		The procedure bulk_action_wait: waits until an action has ended and
 *		shows its progress.
 *
 * An action can take hours, and a snapshot held that long would keep vacuum
 * from cleaning up after the very updates that are waited for.  So every look
 * at the tables is a transaction of its own: it is committed, which lets go of
 * the snapshot, before the process sleeps.  That takes a procedure called
 * outside of any transaction block, without a SET clause.
 *
 * The first commit would also commit what the caller's own transaction has
 * written so far, in a DO block say.  That would be a surprise, and without it
 * an action submitted there would never start; both are refused.
 *
 * The wait polls.  Looks begin 20 ms apart, so that a small action is not
 * waited for longer than it takes, and slow down to 250 ms.  Progress is told
 * at most once a second, and so not at all of an action that is over before.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "utils/wait_event.h"

#include "api/action_id.h"
#include "base/compat.h"
#include "base/error_codes.h"
#include "service/bookkeeping.h"
#include "service/clean_text.h"
#include "service/visibility.h"

BULK_ACTION_FUNCTION(bulk_action_wait);

#define FIRST_PAUSE_MS     20
#define LONGEST_PAUSE_MS   250
#define NOTICE_INTERVAL_MS 1000
#define COST_FACTOR        10 /* a pause is at least so many times as long as the look before it */

/* One look at an action.  Strings live in the context given to look(). */
typedef struct Look
{
	char *state;
	bool  ended;
	bool  dry_run;
	bool  counted; /* there are counts */
	int64 total;
	int64 success;
	int64 failed;
	int64 not_found;
	int64 superseded;
	int64 unprocessed;
	char *percent;
	char *rows_per_second; /* NULL: not started */
	char *error_code;
	char *error_message;
	char *error_detail;
	char *error_hint;
} Look;

/*
 * The same sources as in the view action_statistics, which cannot be used
 * here: it asks for the current user, and that is the owner of our tables
 * while this runs.
 */
static Statement action_look = {
	.sql = "SELECT a.submitted_role, a.account_id, a.state, n.total, n.success, n.failed, n.not_found,"
		   " n.superseded, n.unprocessed, n.percent,"
		   " pg_catalog.round((n.total - n.unprocessed) / nullif(extract(epoch FROM"
		   "  coalesce(a.finished_at, pg_catalog.clock_timestamp()) - a.started_at), 0), 0),"
		   " a.error_code, a.error_message, a.error_detail, a.error_hint,"
		   " a.options @> '{\"dry_run\": true}'"
		   " FROM bulk_action_internal.actions AS a LEFT JOIN LATERAL ("
		   "  SELECT c.total, c.updated + c.inserted + c.deleted + c.unchanged AS success, "
		   "c.failed,"
		   "   c.not_found, c.superseded, c.unprocessed, c.percent"
		   "  FROM bulk_action_internal.counts AS c"
		   "  WHERE c.action_no = a.action_no AND a.state IN ('queued', 'running', 'paused')"
		   "  UNION ALL"
		   "  SELECT s.total, s.updated + s.inserted + s.deleted + s.unchanged, s.failed,"
		   "   s.not_found, s.superseded, s.unprocessed, s.percent"
		   "  FROM bulk_action_internal.stats AS s"
		   "  WHERE s.action_no = a.action_no AND a.state IN ('completed', 'cancelled', 'failed')"
		   " ) AS n ON true"
		   " WHERE a.id = $1",
	.argtypes = {UUIDOID, InvalidOid},
};

/* ---- what is refused ---- */

static void
check_context(FunctionCallInfo fcinfo)
{
	CallContext *call = (CallContext *) fcinfo->context;

	/* in a block with EXCEPTION there is a subtransaction, which cannot be committed either */
	if (call == NULL || !IsA(call, CallContext) || call->atomic || IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("bulk_action_wait cannot run inside a transaction block or a function"),
				 errdetail("It would hold a snapshot for as long as it waits."),
				 errhint("CALL it on its own, after COMMIT, or poll bulk_action_stat() instead.")));

	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("bulk_action_wait cannot run in a transaction that has written"),
				 errdetail("An action does not start before the transaction that submitted it "
						   "commits."),
				 errhint("COMMIT first, then CALL bulk_action_wait.")));
}

static TimestampTz
read_deadline(FunctionCallInfo fcinfo)
{
	Interval *timeout = PG_GETARG_INTERVAL_P(1);
	Interval  zero = {0};

	if (DatumGetBool(DirectFunctionCall2(interval_lt, IntervalPGetDatum(timeout),
										 IntervalPGetDatum(&zero))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("timeout must not be negative"),
				 errdetail("It is \"%s\".", DatumGetCString(DirectFunctionCall1(
												interval_out, IntervalPGetDatum(timeout)))),
				 errhint("Give a time like '5 minutes'.")));
	return DatumGetTimestampTz(
		DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(GetCurrentTimestamp()),
							IntervalPGetDatum(timeout)));
}

/* ---- looking ---- */

static int64
count_at(int column, bool *counted)
{
	bool  isnull;
	Datum value = statement_value(0, column, &isnull);

	*counted = !isnull;
	return isnull ? 0 : DatumGetInt64(value);
}

/* Reads the present result into `found`, strings into `context`. */
static void
keep_look(Look *found, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);

	found->state = statement_text(0, 3);
	found->ended = strcmp(found->state, "completed") == 0 ||
				   strcmp(found->state, "cancelled") == 0 || strcmp(found->state, "failed") == 0;
	found->total = count_at(4, &found->counted);
	found->success = count_at(5, &found->counted);
	found->failed = count_at(6, &found->counted);
	found->not_found = count_at(7, &found->counted);
	found->superseded = count_at(8, &found->counted);
	found->unprocessed = count_at(9, &found->counted);
	found->percent = statement_text(0, 10);
	found->rows_per_second = statement_text(0, 11);
	found->error_code = statement_text(0, 12);
	found->error_message = statement_text(0, 13);
	found->error_detail = statement_text(0, 14);
	found->error_hint = statement_text(0, 15);
	found->dry_run = DatumGetBool(statement_value(0, 16, NULL));
	MemoryContextSwitchTo(old);
}

/* One look, in a transaction that is over, and its snapshot with it, on return. */
static void
look(const pg_uuid_t *id, Look *found, MemoryContext context)
{
	Oid         user = GetUserId();
	Datum       values[1] = {UUIDPGetDatum(id)};
	Bookkeeping bookkeeping;

	bookkeeping_enter(&bookkeeping);
	if (statement_run(&action_look, values, NULL) == 0 ||
		!visibility_may_see(user, DatumGetObjectId(statement_value(0, 1, NULL)), statement_value(0, 2, NULL)))
		action_unknown(id);
	keep_look(found, context);
	SPI_freetuptable(SPI_tuptable);
	bookkeeping_leave(&bookkeeping);
	SPI_commit();
}

/* ---- telling ---- */

static void
tell_progress(const Look *found)
{
	if (!found->counted || found->total == 0)
		ereport(NOTICE, (errmsg("bulk action %s", found->state)));
	else
		ereport(NOTICE,
				(errmsg("bulk action %s: %s %%, %lld of %lld rows read so far are done, %s rows/s",
						found->state, found->percent,
						(long long) (found->total - found->unprocessed), (long long) found->total,
						found->rows_per_second != NULL ? found->rows_per_second : "0")));
}

static bool
same_progress(const Look *a, const Look *b)
{
	return strcmp(a->state, b->state) == 0 && a->counted == b->counted && a->total == b->total &&
		   a->unprocessed == b->unprocessed &&
		   (!a->counted || strcmp(a->percent, b->percent) == 0);
}

static void
tell_end(const pg_uuid_t *id, const Look *found)
{
	ereport(NOTICE,
			(errmsg("bulk action %s%s: %lld rows, %lld succeeded, %lld failed, %lld not found, "
					"%lld superseded, %lld unprocessed",
					found->state, found->dry_run ? " (dry run, nothing was changed)" : "",
					(long long) found->total, (long long) found->success,
					(long long) found->failed, (long long) found->not_found,
					(long long) found->superseded, (long long) found->unprocessed)));

	if (strcmp(found->state, "failed") == 0)
	{
		const char *code = found->error_code;

		ereport(WARNING,
				(errcode(code != NULL && strlen(code) == 5 ?
							 MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4]) :
							 ERRCODE_WARNING),
				 errmsg("bulk action \"%s\" failed: %s", action_id_text(id),
						found->error_message != NULL ? clean_text(found->error_message) : "no reason recorded"),
				 found->error_detail != NULL ? errdetail("%s", clean_text(found->error_detail)) : 0,
				 found->error_hint != NULL ? errhint("%s", clean_text(found->error_hint)) : 0));
	}
}

static void
give_up(const pg_uuid_t *id, const Look *found)
{
	ereport(ERROR,
			(errcode(ERRCODE_BULK_ACTION_WAIT_TIMEOUT),
			 errmsg("bulk action \"%s\" has not ended within the timeout", action_id_text(id)),
			 errdetail("It is %s, %s %% done.", found->state,
					   found->percent != NULL ? found->percent : "0"),
			 errhint("It goes on; wait again, look at bulk_action_stat(), or call "
					 "bulk_action_cancel().")));
}

/* ---- waiting ---- */

static void
pause_ms(long pause)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, pause,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Two contexts take turns, so that a look can be compared with the one that
 * was told last.
 */
static void
wait_for_end(const pg_uuid_t *id, TimestampTz deadline, MemoryContext *contexts)
{
	Look        told = {0};
	TimestampTz told_at = GetCurrentTimestamp();
	long        pause = FIRST_PAUSE_MS;
	long        costly;
	int         turn = 0;

	for (;;)
	{
		Look        found = {0};
		TimestampTz began = GetCurrentTimestamp();
		TimestampTz now;

		MemoryContextReset(contexts[turn]);
		look(id, &found, contexts[turn]);
		if (found.ended)
		{
			tell_end(id, &found);
			return;
		}

		now = GetCurrentTimestamp();
		if (now >= deadline)
			give_up(id, &found);
		if (TimestampDifferenceExceeds(told_at, now, NOTICE_INTERVAL_MS) &&
			(told.state == NULL || !same_progress(&told, &found)))
		{
			tell_progress(&found);
			told = found;
			told_at = now;
			turn = 1 - turn;
		}

		/* counting takes longer the larger the file; most of the time belongs to the action */
		costly = COST_FACTOR * TimestampDifferenceMilliseconds(began, now);
		pause_ms(Min(Max(pause, costly), Max(TimestampDifferenceMilliseconds(now, deadline), 1)));
		pause = Min(pause * 2, LONGEST_PAUSE_MS);
	}
}

Datum
bulk_action_wait(PG_FUNCTION_ARGS)
{
	pg_uuid_t     id;
	TimestampTz   deadline;
	MemoryContext contexts[2];

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", PG_ARGISNULL(0) ? "action_id" : "timeout"),
				 errdetail("bulk_action_wait needs the id of an action and a timeout."),
				 errhint("Give the id that bulk_action_submit returned; the timeout may be left "
						 "out.")));
	check_context(fcinfo);
	id = *PG_GETARG_UUID_P(0);
	deadline = read_deadline(fcinfo);

	/* PortalContext outlives the transactions that come and go in here */
	for (int i = 0; i < lengthof(contexts); i++)
		contexts[i] =
			AllocSetContextCreate(PortalContext, "bulk_action_wait", ALLOCSET_SMALL_SIZES);

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	wait_for_end(&id, deadline, contexts);
	SPI_finish();

	for (int i = 0; i < lengthof(contexts); i++)
		MemoryContextDelete(contexts[i]);
	PG_RETURN_VOID();
}
