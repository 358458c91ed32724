/*
 * jobs_budget.c
 *		Statements on the error budget: have more rows failed than may?
 *
 * Asked by a worker in the transaction of each chunk or segment in which rows
 * failed, which sees what others have committed and its own, but not what is in
 * flight elsewhere; so what goes beyond the budget is bounded by what workers
 * have at hand.  Asked once more by the coordinator before an action is
 * completed, because two chunks may have stayed within it each by itself, and
 * because a share of few rows is judged only then.
 *
 * The option is read each time: an action that is tried again may have been
 * given another budget, and a worker remembers actions.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/jsonb.h"

#include "base/error_codes.h"
#include "pure/error_budget.h"
#include "service/bookkeeping.h"
#include "stage/jobs.h"

/* In the current memory context. */
static void
describe(const char *option, const FailureCounts *counts, Failure *failure)
{
	long long failed = counts->unreadable + counts->applied_failed;
	long long tried = counts->unreadable + counts->applied;

	memset(failure, 0, sizeof(*failure));
	failure->code = pstrdup(unpack_sql_state(ERRCODE_BULK_ACTION_TOO_MANY_ERRORS));
	failure->message = psprintf("%lld of %lld rows failed, which is more than may", failed, tried);
	if (option != NULL)
		failure->detail = psprintf("Option \"max_errors\" of the action is %s.", option);
	else
		failure->detail = psprintf("Without an option \"max_errors\" %d may.", MAX_ERRORS_DEFAULT);
	failure->hint = "bulk_action_errors says what is wrong with them, bulk_action_error_report() gives them as a "
					"file to be corrected; to go on in spite of them give a larger \"max_errors\".";
}

bool
jobs_budget_exceeded(int64 action_no, bool at_end, Failure *failure)
{
	static Statement statement = {
		"SELECT a.options, s.rows_read, s.parse_errors,"
		" coalesce(pg_catalog.sum(c.updated + c.inserted + c.deleted + c.unchanged + c.not_found"
		"  + c.superseded + c.failed), 0)::bigint,"
		" coalesce(pg_catalog.sum(c.failed), 0)::bigint, a.options ->> 'max_errors'"
		" FROM bulk_action_internal.actions AS a"
		" JOIN bulk_action_internal.sources AS s ON s.action_no = a.action_no"
		" LEFT JOIN bulk_action_internal.cursors AS c ON c.action_no = a.action_no"
		" WHERE a.action_no = $1 GROUP BY a.action_no, s.action_no",
		{INT8OID}};
	Datum         values[] = {Int64GetDatum(action_no)};
	ActionOptions options;
	FailureCounts counts;

	if (statement_run(&statement, values, NULL) == 0)
		return false;
	counts.read = DatumGetInt64(statement_value(0, 2, NULL));
	counts.unreadable = DatumGetInt64(statement_value(0, 3, NULL));
	counts.applied = DatumGetInt64(statement_value(0, 4, NULL));
	counts.applied_failed = DatumGetInt64(statement_value(0, 5, NULL));
	options_parse(DatumGetJsonbP(statement_value(0, 1, NULL)), &options);
	if (!error_budget_exceeded(&options.max_errors, &counts, at_end))
		return false;
	describe(statement_text(0, 6), &counts, failure);
	return true;
}
