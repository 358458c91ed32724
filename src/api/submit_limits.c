/*
 * submit_limits.c
 *		Do the limits of account and role allow another action?
 *
 * What has been submitted is counted in the table of actions itself, so what
 * was rolled back was never counted, and nothing can get out of step with it.
 * For the count to be right, nobody may be about to add to it: where there are
 * limits, submitters of one account (or role) go one after the other, from here
 * to the end of their transactions, and count what is committed by then and
 * what they have inserted themselves, with a snapshot taken after the wait
 * (REPEATABLE READ included).
 *
 * What they wait for is a lock of the lock manager, named by the table of
 * limits as if that were a class of objects, the hash of the name and a number
 * for account or role.  A row lock would not do: the row with the limits for
 * all others would have accounts wait for each other that have nothing to do
 * with each other.  Nor would an advisory lock, because any client can take
 * such a one by its number, and so stop all others; of this kind no command
 * takes one.  Two names with the same hash wait for each other needlessly, and
 * that is all.  Account comes before role, so two submissions never wait for
 * each other crosswise; transactions that submit for several accounts can, and
 * the deadlock detector sees that.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "api/submit_limits.h"
#include "base/error_codes.h"
#include "service/bookkeeping.h"
#include "service/clean_text.h"

/*
 * Not a code of ours: PostgREST makes an HTTP answer of it, with the body from
 * the message, status and headers from the detail.
 */
#define ERRCODE_POSTGREST_ANSWER MAKE_SQLSTATE('P', 'G', 'R', 'S', 'T')

#define WINDOW_S 60

/* Guesses of when an action that waits will have begun, in seconds. */
#define GUESS_UNKNOWN 30 /* none has ended so far */
#define GUESS_MOST    3600

static Statement limits_read = {
	.sql = "SELECT s.kind, s.name, l.submissions_per_minute, l.queued_actions,"
		   " 'bulk_action_internal.limits'::pg_catalog.regclass::pg_catalog.oid"
		   " FROM (VALUES ('account', $1), ('role', $2)) AS s (kind, name)"
		   " CROSS JOIN LATERAL bulk_action_internal.limits_of(s.kind, s.name) AS l"
		   " WHERE l.submissions_per_minute IS NOT NULL OR l.queued_actions IS NOT NULL"
		   " ORDER BY s.kind",
	.argtypes = {TEXTOID, TEXTOID, InvalidOid},
};

/* What is counted, by a column that says whose it is. */
typedef struct Counting
{
	Statement nth_last;  /* the submission so many before the next one, if it is that recent */
	Statement waiting;   /* how many wait, up to a number */
	Statement mean_time; /* seconds that the last ones took */
} Counting;

#define COUNTING(column, type) \
	{ \
		.nth_last = { \
			.sql = "SELECT submitted_at FROM bulk_action_internal.actions" \
				   " WHERE " column " = $1 AND submitted_at > $2" \
				   " ORDER BY submitted_at DESC OFFSET $3 - 1 LIMIT 1", \
			.argtypes = {type, TIMESTAMPTZOID, INT4OID, InvalidOid}, \
		}, \
		.waiting = { \
			.sql = "SELECT pg_catalog.count(*) FROM (SELECT FROM bulk_action_internal.actions" \
				   " WHERE " column " = $1 AND state IN ('queued', 'paused')" \
				   " AND origin = bulk_action_internal.this_database() LIMIT $2) AS w", \
			.argtypes = {type, INT4OID, InvalidOid}, \
		}, \
		.mean_time = { \
			.sql = "SELECT pg_catalog.avg(extract(epoch FROM finished_at - started_at))::float8" \
				   " FROM (SELECT started_at, finished_at FROM bulk_action_internal.actions" \
				   " WHERE " column " = $1 ORDER BY submitted_at DESC OFFSET $2 LIMIT 10) AS a", \
			.argtypes = {type, INT4OID, InvalidOid}, \
		}, \
	}

static Counting by_account = COUNTING("account_id", TEXTOID);
static Counting by_role = COUNTING("submitted_role", OIDOID);

static bool
is_role(const SubmitSubject *subject)
{
	return strcmp(subject->kind, "role") == 0;
}

static Counting *
counting_of(const SubmitSubject *subject)
{
	return is_role(subject) ? &by_role : &by_account;
}

static int
limit_or_zero(uint64 row, int column)
{
	bool  isnull;
	Datum value = statement_value(row, column, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

bool
submit_limits_lock(Oid user, const char *account_id, SubmitLimits *limits)
{
	Datum values[2] = {
		CStringGetTextDatum(account_id),
		CStringGetTextDatum(GetUserNameFromId(user, false))};
	LOCKTAG tags[lengthof(limits->subjects)];

	limits->n = (int) statement_run(&limits_read, values, NULL);
	for (int i = 0; i < limits->n; i++)
	{
		SubmitSubject *subject = &limits->subjects[i];

		subject->kind = statement_text(i, 1);
		subject->name = statement_text(i, 2);
		subject->submissions_per_minute = limit_or_zero(i, 3);
		subject->queued_actions = limit_or_zero(i, 4);
		subject->key = is_role(subject) ? ObjectIdGetDatum(user) : CStringGetTextDatum(account_id);
		SET_LOCKTAG_OBJECT(tags[i], MyDatabaseId, DatumGetObjectId(statement_value(i, 5, NULL)),
						   hash_bytes((const unsigned char *) subject->name, (int) strlen(subject->name)),
						   is_role(subject) ? 2 : 1);
	}
	for (int i = 0; i < limits->n; i++)
		(void) LockAcquire(&tags[i], ExclusiveLock, false, false);
	return limits->n > 0;
}

/* ---- refusals ---- */

typedef struct Refusal
{
	int         wait_s; /* 0: none */
	const char *message;
	const char *detail;
	const char *hint;
} Refusal;

/* Of several reasons the one that lasts longest is told. */
static void
keep_longest(Refusal *refusal, const Refusal *other)
{
	if (other->wait_s > refusal->wait_s)
		*refusal = *other;
}

static void
check_submissions(const SubmitSubject *subject, Refusal *refusal)
{
	TimestampTz now = GetCurrentTimestamp();
	Datum       values[3] = {
			  subject->key,
			  TimestampTzGetDatum(now - WINDOW_S * USECS_PER_SEC),
			  Int32GetDatum(subject->submissions_per_minute)};
	TimestampTz oldest;
	Refusal     found;

	if (subject->submissions_per_minute == 0 ||
		statement_run_latest(&counting_of(subject)->nth_last, values, NULL) == 0)
		return;
	oldest = DatumGetTimestampTz(statement_value(0, 1, NULL));
	found.wait_s = (int) Max((oldest - now + (WINDOW_S + 1) * USECS_PER_SEC - 1) / USECS_PER_SEC, 1);
	found.message =
		psprintf("too many bulk actions are submitted by %s \"%s\"", subject->kind, clean_text(subject->name));
	found.detail = psprintf("It may submit %d in a minute, and has done so.", subject->submissions_per_minute);
	found.hint = psprintf("Try again in %d s.", found.wait_s);
	keep_longest(refusal, &found);
}

/* An action more begins about as often as one ends. */
static int
guess_wait(const SubmitSubject *subject, int waiting)
{
	Datum  values[2] = {subject->key, Int32GetDatum(waiting)};
	bool   isnull = true;
	double seconds = 0;

	if (statement_run_latest(&counting_of(subject)->mean_time, values, NULL) > 0)
	{
		Datum value = statement_value(0, 1, &isnull);

		seconds = isnull ? 0 : DatumGetFloat8(value);
	}
	return isnull ? GUESS_UNKNOWN : (int) Min(Max(seconds + 1, 1), GUESS_MOST);
}

static void
check_queue(const SubmitSubject *subject, Refusal *refusal)
{
	Datum   values[2] = {subject->key, Int32GetDatum(subject->queued_actions)};
	Refusal found;

	if (subject->queued_actions == 0)
		return;
	(void) statement_run_latest(&counting_of(subject)->waiting, values, NULL);
	if (DatumGetInt64(statement_value(0, 1, NULL)) < subject->queued_actions)
		return;
	found.wait_s = guess_wait(subject, subject->queued_actions);
	found.message =
		psprintf("too many bulk actions of %s \"%s\" are waiting", subject->kind, clean_text(subject->name));
	found.detail = psprintf("It may have %d that are queued or paused, and has them.", subject->queued_actions);
	found.hint = psprintf("Try again when one of them has begun, in about %d s, or cancel one.", found.wait_s);
	keep_longest(refusal, &found);
}

/* ---- telling ---- */

static void
append_member(StringInfo json, const char *name, const char *value)
{
	appendStringInfo(json, "%s\"%s\": ", json->len > 1 ? ", " : "", name);
	escape_json(json, value);
}

static void
refuse_over_http(const Refusal *refusal)
{
	StringInfoData body;

	initStringInfo(&body);
	appendStringInfoChar(&body, '{');
	append_member(&body, "code", unpack_sql_state(ERRCODE_BULK_ACTION_TOO_MANY));
	append_member(&body, "message", refusal->message);
	append_member(&body, "details", refusal->detail);
	append_member(&body, "hint", refusal->hint);
	appendStringInfoChar(&body, '}');
	ereport(ERROR,
			(errcode(ERRCODE_POSTGREST_ANSWER), errmsg_internal("%s", body.data),
			 errdetail_internal("{\"status\": 429, \"headers\": {\"Retry-After\": \"%d\"}}", refusal->wait_s),
			 errhint("%s", refusal->hint)));
}

static bool
is_request(void)
{
	const char *method = GetConfigOption("request.method", true, false);

	return method != NULL && method[0] != '\0';
}

void
submit_limits_check(const SubmitLimits *limits)
{
	Refusal refusal = {0};

	for (int i = 0; i < limits->n; i++)
	{
		check_submissions(&limits->subjects[i], &refusal);
		check_queue(&limits->subjects[i], &refusal);
	}
	if (refusal.wait_s == 0)
		return;
	if (is_request())
		refuse_over_http(&refusal);
	ereport(ERROR,
			(errcode(ERRCODE_BULK_ACTION_TOO_MANY), errmsg_internal("%s", refusal.message),
			 errdetail_internal("%s", refusal.detail), errhint("%s", refusal.hint)));
}
