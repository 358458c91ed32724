/*
 * jobs_copies.c
 *		Statements on actions that came here with a copy of their database.
 *
 * An action is worked on in the database that it was submitted in (column
 * origin); every statement that begins or goes on with one asks for that, so
 * nothing here has to come first for a copied action to be left alone.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "base/error_codes.h"
#include "service/bookkeeping.h"
#include "stage/jobs.h"

int
jobs_read_copied(CopiedAction **actions)
{
	static Statement statement = {
		"SELECT action_no, id, origin FROM bulk_action_internal.actions"
		" WHERE state IN ('queued', 'running') AND origin <> bulk_action_internal.this_database()"
		" ORDER BY action_no",
		{InvalidOid}};
	int n = (int) statement_run(&statement, NULL, NULL);

	*actions = palloc(sizeof(CopiedAction) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		(*actions)[i].action_no = DatumGetInt64(statement_value(i, 1, NULL));
		(*actions)[i].id = statement_text(i, 2);
		(*actions)[i].origin = statement_text(i, 3);
	}
	return n;
}

int64
jobs_request_adoption(void)
{
	static Statement statement = {
		"INSERT INTO bulk_action_internal.events (action_no, kind)"
		" SELECT a.action_no, 'adopt' FROM bulk_action_internal.actions AS a"
		" WHERE a.state IN ('queued', 'running', 'paused', 'failed')"
		" AND a.origin <> bulk_action_internal.this_database()"
		" AND NOT EXISTS (SELECT FROM bulk_action_internal.events AS e"
		"  WHERE e.action_no = a.action_no AND e.kind = 'adopt')"
		" ORDER BY a.action_no",
		{InvalidOid}};

	return (int64) statement_run(&statement, NULL, NULL);
}

/*
 * In its stream there may be newer actions at work by now: it gets a place
 * behind them.  What was paused before the copy was made stays paused.
 */
void
jobs_adopt_action(int64 action_no)
{
	static Statement statement = {
		"UPDATE bulk_action_internal.actions AS a SET origin = bulk_action_internal.this_database(),"
		" stream_position = NULL,"
		" state = CASE WHEN rested.for_that THEN 'queued' ELSE a.state END,"
		" error_code = CASE WHEN NOT rested.for_that THEN a.error_code END,"
		" error_message = CASE WHEN NOT rested.for_that THEN a.error_message END,"
		" error_detail = CASE WHEN NOT rested.for_that THEN a.error_detail END,"
		" error_hint = CASE WHEN NOT rested.for_that THEN a.error_hint END"
		" FROM (SELECT s.action_no, s.state IN ('queued', 'running')"
		"   OR s.state = 'paused' AND coalesce(s.error_code = $2, false) AS for_that"
		"  FROM bulk_action_internal.actions AS s WHERE s.action_no = $1) AS rested"
		" WHERE a.action_no = rested.action_no AND a.origin <> bulk_action_internal.this_database()",
		{INT8OID, TEXTOID}};
	Datum values[] = {Int64GetDatum(action_no),
					  CStringGetTextDatum(unpack_sql_state(ERRCODE_BULK_ACTION_COPIED))};

	(void) statement_run(&statement, values, NULL);
}
