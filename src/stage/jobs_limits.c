/*
 * jobs_limits.c
 *		Statements on the limits that a file has to keep.
 *
 * Asked by a worker when the file is pinned, which is when its size is known,
 * and before each segment is written.  A segment that goes beyond the limit is
 * not written, so rows beyond it are never in the queue: neither to be applied
 * before the action has ended, nor when it is tried again.  The limits are
 * those of that moment.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "base/error_codes.h"
#include "service/bookkeeping.h"
#include "stage/jobs.h"

/* In the current memory context. */
static void
describe(const char *kind, const char *name, int64 limit, const char *unit, int64 value, bool at_least,
		 Failure *failure)
{
	memset(failure, 0, sizeof(*failure));
	failure->code = pstrdup(unpack_sql_state(ERRCODE_BULK_ACTION_FILE_TOO_LARGE));
	failure->message = psprintf("the file has more %s than may", unit);
	failure->detail = psprintf("%s \"%s\" may submit files of %lld %s; this one has %s%lld.",
							   strcmp(kind, "role") == 0 ? "Role" : "Account", name, (long long) limit, unit,
							   at_least ? "at least " : "", (long long) value);
	failure->hint = "Split the file, or have the limit raised; then bulk_action_retry() goes on with this action.";
}

bool
jobs_file_exceeds(int64 action_no, int64 bytes, int64 rows, Failure *failure)
{
	static Statement statement = {
		"SELECT s.kind, s.name, l.max_bytes, l.max_rows"
		" FROM bulk_action_internal.actions AS a"
		" CROSS JOIN LATERAL (VALUES ('account', a.account_id),"
		"  ('role', pg_catalog.pg_get_userbyid(a.submitted_role)::text)) AS s (kind, name)"
		" CROSS JOIN LATERAL bulk_action_internal.limits_of(s.kind, s.name) AS l"
		" WHERE a.action_no = $1 AND (l.max_bytes < $2 OR l.max_rows < $3) ORDER BY s.kind LIMIT 1",
		{INT8OID, INT8OID, INT8OID}};
	Datum values[] = {Int64GetDatum(action_no), Int64GetDatum(bytes), Int64GetDatum(rows)};
	Datum limit;
	bool  isnull;

	if (statement_run(&statement, values, NULL) == 0)
		return false;
	limit = statement_value(0, 3, &isnull);
	if (!isnull && DatumGetInt64(limit) < bytes)
		describe(statement_text(0, 1), statement_text(0, 2), DatumGetInt64(limit), "bytes", bytes, false, failure);
	else
		describe(statement_text(0, 1), statement_text(0, 2), DatumGetInt64(statement_value(0, 4, NULL)), "rows",
				 rows, true, failure);
	return true;
}
