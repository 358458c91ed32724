/*
 * jobs_actions.c
 *		Statements on actions, events and statistics.
 *
 * Only the coordinator changes rows of actions and stats, so nothing here
 * waits for a lock that a client could hold; where an owner of the extension
 * holds one by hand, SKIP LOCKED passes over the row until the next time.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "service/bookkeeping.h"
#include "stage/jobs.h"

static char **
name_array(Datum value, Oid element_type, int16 length, char align, int *n)
{
	Datum *elements;
	char **names;

	deconstruct_array(DatumGetArrayTypeP(value), element_type, length, false, align,
					  &elements, NULL, n);
	names = palloc(sizeof(char *) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		names[i] = element_type == NAMEOID ? pstrdup(NameStr(*DatumGetName(elements[i]))) :
											 TextDatumGetCString(elements[i]);
	return names;
}

Action *
jobs_load_action(int64 action_no, MemoryContext context)
{
	static Statement statement = {
		"SELECT id, source, server, submitted_role, session_role, settings,"
		" target::oid, target_schema, target_name, key_columns, update_columns, options, action_type, entity_type,"
		" source_query"
		" FROM bulk_action_internal.actions WHERE action_no = $1 AND state = 'running'"
		" AND origin = bulk_action_internal.this_database()",
		{INT8OID}};
	Datum         values[] = {Int64GetDatum(action_no)};
	MemoryContext old;
	Action       *action;
	Datum         value;
	bool          isnull;
	char        **settings;
	int           n;

	if (statement_run(&statement, values, NULL) == 0)
		return NULL;

	old = MemoryContextSwitchTo(context);
	action = palloc0(sizeof(Action));
	action->action_no = action_no;
	action->id = statement_text(0, 1);
	action->source.uri = statement_text(0, 2);
	action->source.server = statement_text(0, 3);
	action->source.query = statement_text(0, 15);
	action->submitter.role = DatumGetObjectId(statement_value(0, 4, NULL));
	action->submitter.session_role = DatumGetObjectId(statement_value(0, 5, NULL));
	settings = name_array(statement_value(0, 6, NULL), TEXTOID, -1, TYPALIGN_INT, &n);
	action->submitter.nsettings = n / 2;
	action->submitter.names = palloc(sizeof(char *) * (n / 2 + 1));
	action->submitter.values = palloc(sizeof(char *) * (n / 2 + 1));
	for (int i = 0; i < n / 2; i++)
	{
		action->submitter.names[i] = settings[2 * i];
		action->submitter.values[i] = settings[2 * i + 1];
	}
	action->target = DatumGetObjectId(statement_value(0, 7, NULL));
	action->target_schema = statement_text(0, 8);
	action->target_name = statement_text(0, 9);
	action->key_columns = name_array(statement_value(0, 10, NULL), NAMEOID, NAMEDATALEN, TYPALIGN_CHAR,
									 &action->nkeys);
	value = statement_value(0, 11, &isnull);
	if (isnull)
		action->nupdates = -1;
	else
		action->update_columns = name_array(value, NAMEOID, NAMEDATALEN, TYPALIGN_CHAR,
											&action->nupdates);
	options_parse(DatumGetJsonbP(statement_value(0, 12, NULL)), &action->options);
	action->type = action_type_parse(statement_text(0, 13));
	action->entity_type = statement_text(0, 14);
	MemoryContextSwitchTo(old);
	return action;
}

void
jobs_position_actions(void)
{
	static Statement statement = {
		"UPDATE bulk_action_internal.actions AS a SET stream_position = placed.position"
		" FROM (SELECT fresh.action_no,"
		"  pg_catalog.nextval('bulk_action_internal.stream_positions') AS position"
		"  FROM (SELECT action_no FROM bulk_action_internal.actions"
		"   WHERE state IN ('queued', 'running', 'paused') AND stream_position IS NULL"
		"   ORDER BY action_no FOR NO KEY UPDATE SKIP LOCKED) AS fresh) AS placed"
		" WHERE a.action_no = placed.action_no",
		{InvalidOid}};

	(void) statement_run(&statement, NULL, NULL);
}

void
jobs_start_action(int64 action_no)
{
	static Statement statement = {
		"UPDATE bulk_action_internal.actions SET state = 'running',"
		" started_at = coalesce(started_at, pg_catalog.clock_timestamp())"
		" WHERE action_no = $1 AND state = 'queued'",
		{INT8OID}};
	Datum values[] = {Int64GetDatum(action_no)};

	(void) statement_run(&statement, values, NULL);
}

void
jobs_read_progress(int64 action_no, ActionProgress *progress)
{
	static Statement cursors = {
		"SELECT lane, next_chunk FROM bulk_action_internal.cursors WHERE action_no = $1 AND lane < 32",
		{INT8OID}};
	Datum       values[] = {Int64GetDatum(action_no)};
	SourceState source;
	uint64      n;

	memset(progress, 0, sizeof(*progress));
	jobs_read_suspects(action_no, progress);
	if (!jobs_read_source(action_no, &source))
		return;
	progress->at_end = source.at_end;
	progress->lanes = source.lanes;
	memcpy(progress->produced, source.lane_chunks, sizeof(progress->produced));
	n = statement_run(&cursors, values, NULL);
	for (uint64 i = 0; i < n; i++)
		progress->next[DatumGetInt16(statement_value(i, 1, NULL))] =
			DatumGetInt32(statement_value(i, 2, NULL));
}

void
jobs_record_stats(int64 action_no)
{
	static Statement statement = {
		"INSERT INTO bulk_action_internal.stats AS s (action_no, total, total_is_final, updated, inserted,"
		"  deleted, unchanged, not_found, superseded, failed, unprocessed, percent)"
		" SELECT action_no, total, total_is_final, updated, inserted, deleted, unchanged, not_found,"
		"  superseded, failed, unprocessed, percent"
		" FROM bulk_action_internal.counts WHERE action_no = $1"
		" ON CONFLICT (action_no) DO UPDATE SET total = excluded.total,"
		"  total_is_final = excluded.total_is_final, updated = excluded.updated,"
		"  inserted = excluded.inserted, deleted = excluded.deleted, unchanged = excluded.unchanged,"
		"  not_found = excluded.not_found, superseded = excluded.superseded, failed = excluded.failed,"
		"  unprocessed = excluded.unprocessed, percent = excluded.percent,"
		"  recorded_at = excluded.recorded_at",
		{INT8OID}};
	Datum values[] = {Int64GetDatum(action_no)};

	(void) statement_run(&statement, values, NULL);
}

char *
jobs_audit(int64 action_no, bool at_end)
{
	static Statement statement = {
		"SELECT s.total, s.updated + s.inserted + s.deleted + s.unchanged + s.not_found + s.superseded"
		"  + s.failed + s.unprocessed, s.failed,"
		" (SELECT pg_catalog.count(*) FROM bulk_action_internal.errors AS e WHERE e.action_no = $1),"
		" s.superseded,"
		" (SELECT pg_catalog.count(*) FROM bulk_action_internal.superseded AS e WHERE e.action_no = $1),"
		" s.unprocessed - (SELECT coalesce(pg_catalog.sum(e.row_count), 0)"
		"  FROM bulk_action_internal.dead_letters AS e WHERE e.action_no = $1)::bigint, s.total_is_final"
		" FROM bulk_action_internal.stats AS s WHERE s.action_no = $1",
		{INT8OID}};
	Datum          values[] = {Int64GetDatum(action_no)};
	int64          n[7];
	StringInfoData findings;

	if (statement_run(&statement, values, NULL) == 0)
		return pstrdup("There are no counts.");
	for (int i = 0; i < lengthof(n); i++)
		n[i] = DatumGetInt64(statement_value(0, i + 1, NULL));

	initStringInfo(&findings);
	if (n[0] != n[1])
		appendStringInfo(&findings, "The file has %lld rows, their outcomes are %lld. ", (long long) n[0],
						 (long long) n[1]);
	if (n[2] != n[3])
		appendStringInfo(&findings, "%lld rows are counted as failed, %lld errors are recorded. ",
						 (long long) n[2], (long long) n[3]);
	if (n[4] != n[5])
		appendStringInfo(&findings, "%lld rows are counted as superseded, %lld are recorded. ",
						 (long long) n[4], (long long) n[5]);
	if (at_end && (n[6] != 0 || !DatumGetBool(statement_value(0, 8, NULL))))
		appendStringInfo(&findings, "%lld rows are unprocessed%s. ", (long long) n[6],
						 DatumGetBool(statement_value(0, 8, NULL)) ? "" : ", and the file was not read to its end");
	if (findings.len == 0)
		return NULL;
	findings.data[--findings.len] = '\0';
	return findings.data;
}

static Datum
text_or_null(const char *text, char *null)
{
	*null = text == NULL ? 'n' : ' ';
	return text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

/* Parameters from first on: code, message, detail and hint, or nulls. */
static void
bind_failure(const Failure *failure, Datum *values, char *nulls, int first)
{
	values[first] = text_or_null(failure->code, &nulls[first]);
	values[first + 1] = text_or_null(failure->message, &nulls[first + 1]);
	values[first + 2] = text_or_null(failure->detail, &nulls[first + 2]);
	values[first + 3] = text_or_null(failure->hint, &nulls[first + 3]);
}

void
jobs_finish_action(int64 action_no, const char *state, const Failure *failure)
{
	static Statement finish = {
		"UPDATE bulk_action_internal.actions SET state = $2,"
		" finished_at = pg_catalog.clock_timestamp(),"
		" error_code = $3, error_message = $4, error_detail = $5, error_hint = $6,"
		" source_query = CASE WHEN $2 = 'failed' THEN source_query END"
		" WHERE action_no = $1",
		{INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID}};
	static Statement always[] = {
		{"DELETE FROM bulk_action_internal.events WHERE action_no = $1", {INT8OID}},
		{"DELETE FROM bulk_action_internal.suspects WHERE action_no = $1", {INT8OID}},
	};
	static Statement queue[] = {
		{"DELETE FROM bulk_action_internal.cursors WHERE action_no = $1", {INT8OID}},
		{"DELETE FROM bulk_action_internal.segments WHERE action_no = $1", {INT8OID}},
		{"DELETE FROM bulk_action_internal.keys WHERE action_no = $1", {INT8OID}},
		{"DELETE FROM bulk_action_internal.duplicates WHERE action_no = $1", {INT8OID}},
		{"DELETE FROM bulk_action_internal.parked WHERE action_no = $1", {INT8OID}},
	};
	Datum values[6];
	char  nulls[7] = "      ";

	values[0] = Int64GetDatum(action_no);
	values[1] = CStringGetTextDatum(state);
	bind_failure(failure, values, nulls, 2);
	(void) statement_run(&finish, values, nulls);
	for (int i = 0; i < lengthof(always); i++)
		(void) statement_run(&always[i], values, NULL);

	/*
	 * A failed action keeps its place, to be taken up again from there.  The
	 * source's row stays in any case: error reports need the header.
	 */
	if (strcmp(state, "failed") != 0)
		for (int i = 0; i < lengthof(queue); i++)
			(void) statement_run(&queue[i], values, NULL);
}

bool
jobs_read_event(ActionEvent *event, int64 after)
{
	static Statement statement = {
		"SELECT e.event_no, e.action_no, e.kind, e.error_code, e.error_message, e.error_detail,"
		" e.error_hint, a.id, e.options"
		" FROM bulk_action_internal.events AS e"
		" LEFT JOIN bulk_action_internal.actions AS a"
		"  ON a.action_no = e.action_no AND a.state IN ('queued', 'running', 'paused')"
		" WHERE e.event_no > $1 ORDER BY e.event_no LIMIT 1",
		{INT8OID}};
	Datum values[] = {Int64GetDatum(after)};

	if (statement_run(&statement, values, NULL) == 0)
		return false;
	event->event_no = DatumGetInt64(statement_value(0, 1, NULL));
	event->action_no = DatumGetInt64(statement_value(0, 2, NULL));
	event->kind = statement_text(0, 3);
	event->failure.code = statement_text(0, 4);
	event->failure.message = statement_text(0, 5);
	event->failure.detail = statement_text(0, 6);
	event->failure.hint = statement_text(0, 7);
	event->action_id = statement_text(0, 8);
	event->options = statement_value(0, 9, &event->options_null);
	return true;
}

/* Clients lock rows of actions that have ended (purge), and with them those of their events. */
bool
jobs_hold_action(int64 action_no)
{
	static Statement lock = {
		"SELECT 1 FROM bulk_action_internal.actions WHERE action_no = $1 FOR NO KEY UPDATE SKIP LOCKED",
		{INT8OID}};
	static Statement look = {
		"SELECT 1 FROM bulk_action_internal.actions WHERE action_no = $1",
		{INT8OID}};
	Datum values[] = {Int64GetDatum(action_no)};

	return statement_run(&lock, values, NULL) > 0 || statement_run(&look, values, NULL) == 0;
}

void
jobs_delete_rest_events(int64 action_no, int64 event_no)
{
	static Statement statement = {
		"DELETE FROM bulk_action_internal.events WHERE action_no = $1 AND event_no <= $2"
		" AND kind IN ('pause', 'resume', 'trouble')",
		{INT8OID, INT8OID}};
	Datum values[] = {Int64GetDatum(action_no), Int64GetDatum(event_no)};

	(void) statement_run(&statement, values, NULL);
}

void
jobs_pause_action(int64 action_no, const Failure *reason)
{
	static Statement statement = {
		"UPDATE bulk_action_internal.actions SET state = 'paused',"
		" error_code = $2, error_message = $3, error_detail = $4, error_hint = $5"
		" WHERE action_no = $1 AND state IN ('queued', 'running')",
		{INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID}};
	Datum values[5];
	char  nulls[6] = "     ";

	values[0] = Int64GetDatum(action_no);
	bind_failure(reason, values, nulls, 1);
	(void) statement_run(&statement, values, nulls);
}

void
jobs_resume_action(int64 action_no)
{
	static Statement statement = {
		"UPDATE bulk_action_internal.actions SET state = 'queued', error_code = NULL,"
		" error_message = NULL, error_detail = NULL, error_hint = NULL"
		" WHERE action_no = $1 AND state = 'paused'"
		" AND origin = bulk_action_internal.this_database()",
		{INT8OID}};
	Datum values[] = {Int64GetDatum(action_no)};

	(void) statement_run(&statement, values, NULL);
}

void
jobs_retry_action(int64 action_no, Datum options, bool options_null)
{
	static Statement statement = {
		"UPDATE bulk_action_internal.actions SET state = 'queued', stream_position = NULL,"
		" finished_at = NULL, error_code = NULL, error_message = NULL, error_detail = NULL,"
		" error_hint = NULL, options = options OPERATOR(pg_catalog.||) coalesce($2, '{}')"
		" WHERE action_no = $1 AND state = 'failed'"
		" AND origin = bulk_action_internal.this_database()",
		{INT8OID, JSONBOID}};
	Datum values[] = {Int64GetDatum(action_no), options};

	if (statement_run(&statement, values, options_null ? " n" : "  ") > 0)
		jobs_requeue_dead_letters(action_no);
}

void
jobs_delete_event(int64 event_no)
{
	static Statement statement = {
		"DELETE FROM bulk_action_internal.events WHERE event_no = $1",
		{INT8OID}};
	Datum values[] = {Int64GetDatum(event_no)};

	(void) statement_run(&statement, values, NULL);
}

void
jobs_report_failure(int64 action_no, const Failure *failure, bool trouble)
{
	static Statement statement = {
		"INSERT INTO bulk_action_internal.events"
		" (action_no, kind, error_code, error_message, error_detail, error_hint, created_by)"
		" VALUES ($1, $7, $2, $3, $4, $5, pg_catalog.pg_get_userbyid($6))",
		{INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, OIDOID, TEXTOID}};
	Datum values[7];
	char  nulls[8] = "       ";

	values[0] = Int64GetDatum(action_no);
	bind_failure(failure, values, nulls, 1);
	/* not session_user, which fails if that role was dropped: that may be what is to be told */
	values[5] = ObjectIdGetDatum(GetSessionUserId());
	values[6] = CStringGetTextDatum(trouble ? "trouble" : "failed");
	(void) statement_run(&statement, values, nulls);
}

void
jobs_notify(int64 action_no)
{
	static Statement statement = {
		"SELECT pg_catalog.pg_notify('bulk_action', CASE WHEN a.options @> '{\"dry_run\": true}'"
		" THEN pg_catalog.json_build_object('id', a.id, 'state', a.state, 'dry_run', true)"
		" ELSE pg_catalog.json_build_object('id', a.id, 'state', a.state) END::text)"
		" FROM bulk_action_internal.actions AS a WHERE a.action_no = $1",
		{INT8OID}};
	Datum values[] = {Int64GetDatum(action_no)};

	(void) statement_run(&statement, values, NULL);
}
