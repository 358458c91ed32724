/*
 * jobs_retention.c
 *		Statements that forget actions, with everything that belongs to them.
 *
 * A caller who purges wants them gone when he is told so: one statement.  What
 * is old goes by itself in small pieces: the action disappears first, for all
 * at once, and its number is noted in the table forgotten until its rows have
 * been deleted, so many in each transaction.  Rows that somebody has locked are
 * passed over until the next time.
 *
 * Purge keeps what a limit of submissions per minute has to count, or purging
 * would be a way round it.
 *
 * Chunks are not deleted: without a running action they are dead, and go with
 * their generation (jobs_rotate).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/timestamp.h"

#include "service/bookkeeping.h"
#include "stage/jobs.h"

/* Actions that disappear in one transaction, and rows of them that are deleted in one, at most. */
#define FORGET_ACTIONS 100
#define FORGET_ROWS    10000

/* Every table that has rows of an action, but for its chunks. */
#define TABLES_OF_ACTIONS(X) \
	X(stats) \
	X(errors) \
	X(superseded) \
	X(parked) \
	X(suspects) \
	X(dead_letters) \
	X(keys) \
	X(duplicates) \
	X(segments) \
	X(cursors) \
	X(sources) \
	X(events)

#define PURGE_TABLE(name) \
	", " #name " AS (DELETE FROM bulk_action_internal." #name " AS t USING purged AS p" \
	" WHERE t.action_no = p.action_no)"

#define FORGET_TABLE(name) \
	{"DELETE FROM bulk_action_internal." #name " WHERE ctid = ANY (ARRAY(" \
	 "SELECT t.ctid FROM bulk_action_internal." #name " AS t WHERE t.action_no = $1" \
	 " LIMIT $2 FOR UPDATE SKIP LOCKED))", \
	 {INT8OID, INT4OID}},

#define NOTHING_LEFT_IN(name) \
	" AND NOT EXISTS (SELECT FROM bulk_action_internal." #name " AS t WHERE t.action_no = $1)"

int64
jobs_purge(Oid user, const Interval *older_than)
{
	static Statement statement = {
		"WITH purged AS ("
		"  DELETE FROM bulk_action_internal.actions AS a WHERE a.action_no IN ("
		"   SELECT f.action_no FROM bulk_action_internal.actions AS f"
		"   WHERE f.state IN ('completed', 'cancelled', 'failed')"
		"   AND f.finished_at < pg_catalog.now() - $2"
		"   AND bulk_action_internal.may_see($1, f.submitted_role, f.account_id)"
		"   AND (f.submitted_at < pg_catalog.clock_timestamp() - interval '1 minute'"
		"    OR NOT EXISTS (SELECT FROM bulk_action_internal.limits AS l"
		"     WHERE l.submissions_per_minute IS NOT NULL))"
		"   FOR UPDATE SKIP LOCKED)"
		"  RETURNING a.action_no)" TABLES_OF_ACTIONS(PURGE_TABLE) " SELECT pg_catalog.count(*) FROM purged",
		{OIDOID, INTERVALOID}};
	Datum values[] = {ObjectIdGetDatum(user), IntervalPGetDatum(older_than)};

	(void) statement_run(&statement, values, NULL);
	return DatumGetInt64(statement_value(0, 1, NULL));
}

/* Deletes at most max rows of an action that is forgotten; returns how many. */
static int
forget_rows(int64 action_no, int max)
{
	static Statement tables[] = {TABLES_OF_ACTIONS(FORGET_TABLE)};
	static Statement done = {
		"DELETE FROM bulk_action_internal.forgotten WHERE action_no = $1" TABLES_OF_ACTIONS(NOTHING_LEFT_IN),
		{INT8OID}};
	int n = 0;

	for (int i = 0; i < lengthof(tables) && n < max; i++)
	{
		Datum values[] = {Int64GetDatum(action_no), Int32GetDatum(max - n)};

		n += (int) statement_run(&tables[i], values, NULL);
	}
	if (n < max)
	{
		Datum values[] = {Int64GetDatum(action_no)};

		(void) statement_run(&done, values, NULL);
	}
	return n;
}

bool
jobs_forget_old(int older_than_minutes)
{
	static Statement disappear = {
		"WITH due AS ("
		"  DELETE FROM bulk_action_internal.actions AS a WHERE a.action_no IN ("
		"   SELECT f.action_no FROM bulk_action_internal.actions AS f"
		"   WHERE f.state IN ('completed', 'cancelled', 'failed')"
		"   AND f.finished_at < pg_catalog.now() - pg_catalog.make_interval(mins => $1)"
		"   LIMIT $2 FOR UPDATE SKIP LOCKED)"
		"  RETURNING a.action_no)"
		" INSERT INTO bulk_action_internal.forgotten (action_no) SELECT action_no FROM due",
		{INT4OID, INT4OID}};
	static Statement next = {
		"SELECT action_no FROM bulk_action_internal.forgotten WHERE action_no > $1"
		" ORDER BY action_no LIMIT 1",
		{INT8OID}};
	Datum values[] = {Int32GetDatum(older_than_minutes), Int32GetDatum(FORGET_ACTIONS)};
	Datum after[] = {Int64GetDatum(0)};
	bool  more = statement_run(&disappear, values, NULL) == FORGET_ACTIONS;
	int   n = 0;

	while (n < FORGET_ROWS && statement_run(&next, after, NULL) > 0)
	{
		int64 action_no = DatumGetInt64(statement_value(0, 1, NULL));

		n += forget_rows(action_no, FORGET_ROWS - n);
		after[0] = Int64GetDatum(action_no);
	}
	return more || n == FORGET_ROWS;
}
