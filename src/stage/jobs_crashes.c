/*
 * jobs_crashes.c
 *		Statements on what was in flight when the server crashed: suspects, and
 *		the dead letters that some of them become.
 *
 * A suspect's row says how often the server has crashed while it ran alone.
 * Nothing clears it when it succeeds: it is a suspect only as long as the
 * action stands exactly there, and no segment and no chunk is done twice.
 *
 * A chunk that has crashed the server max_attempts times is set aside and its
 * lane goes on behind it.  Where the order of all rows counts nothing may go on,
 * and without the keys of a lane or a segment of the file nothing can: then the
 * action fails, and what is left stays where it is for a retry.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "pure/row_codec.h"
#include "service/bookkeeping.h"
#include "stage/jobs.h"

static const char *const kind_names[] = {
	[MARKER_SEGMENT] = "segment",
	[MARKER_KEYS] = "keys",
	[MARKER_CHUNK] = "chunk"};

#define CRASH_CODE "57P02"
#define CRASH_HINT \
	"The server's log says what crashed; look at triggers and functions of the target table first. " \
	"bulk_action_retry() takes up what is left."

static MarkerKind
kind_of(const char *name)
{
	for (MarkerKind kind = MARKER_SEGMENT; kind <= MARKER_CHUNK; kind++)
		if (strcmp(kind_names[kind], name) == 0)
			return kind;
	elog(ERROR, "unknown kind of suspect \"%s\"", name);
}

void
jobs_note_crash(const Marker *marker)
{
	static Statement statement = {
		"INSERT INTO bulk_action_internal.suspects AS s (action_no, kind, lane, number, crashes)"
		" SELECT a.action_no, $2, $3, $4, $5 FROM bulk_action_internal.actions AS a"
		"  WHERE a.action_no = $1 AND a.state IN ('queued', 'running', 'paused')"
		" ON CONFLICT (action_no, kind, lane) DO UPDATE SET number = excluded.number, crashes ="
		"  CASE WHEN s.number = excluded.number THEN s.crashes ELSE 0 END + excluded.crashes",
		{INT8OID, TEXTOID, INT2OID, INT4OID, INT4OID}};
	Datum values[5];

	if (marker->kind < MARKER_SEGMENT || marker->kind > MARKER_CHUNK)
		return; /* not a record of ours, whatever it is */
	values[0] = Int64GetDatum(marker->action_no);
	values[1] = CStringGetTextDatum(kind_names[marker->kind]);
	values[2] = Int16GetDatum(marker->lane);
	values[3] = Int32GetDatum(marker->number);
	values[4] = Int32GetDatum(marker->alone ? 1 : 0);
	(void) statement_run(&statement, values, NULL);
}

typedef struct Suspect
{
	MarkerKind kind;
	int        lane;
	int        number;
	int        crashes;
	int        ahead;    /* 0: the action stands there; else it will get there */
	bool       in_order; /* nothing may be applied before it */
} Suspect;

/* Those that the action has not got past, with that many crashes at least. */
static int
read_suspects(int64 action_no, int crashes, Suspect **suspects)
{
	static Statement statement = {
		"SELECT s.kind, s.lane, s.number, s.crashes, a.options ->> 'order' IS NOT DISTINCT FROM 'file',"
		" CASE s.kind WHEN 'segment' THEN s.number - coalesce(f.next_segment, 0)"
		"  WHEN 'keys' THEN CASE WHEN c.lane IS NULL THEN 1 ELSE 0 END"
		"  ELSE s.number - coalesce(c.next_chunk, 0) + CASE WHEN c.lane IS NULL THEN 1 ELSE 0 END END"
		" FROM bulk_action_internal.suspects AS s"
		" JOIN bulk_action_internal.actions AS a ON a.action_no = s.action_no"
		" LEFT JOIN bulk_action_internal.sources AS f ON f.action_no = s.action_no"
		" LEFT JOIN bulk_action_internal.cursors AS c ON c.action_no = s.action_no AND c.lane = s.lane"
		" WHERE s.action_no = $1 AND s.crashes >= $2 AND CASE s.kind"
		"  WHEN 'segment' THEN s.number >= coalesce(f.next_segment, 0)"
		"  WHEN 'keys' THEN NOT coalesce(c.keys_compared, false) ELSE s.number >= coalesce(c.next_chunk, 0) END"
		" ORDER BY s.kind, s.lane",
		{INT8OID, INT4OID}};
	Datum values[] = {Int64GetDatum(action_no), Int32GetDatum(crashes)};
	int   n = (int) statement_run(&statement, values, NULL);

	*suspects = palloc(sizeof(Suspect) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		Suspect *suspect = &(*suspects)[i];

		suspect->kind = kind_of(statement_text(i, 1));
		suspect->lane = DatumGetInt16(statement_value(i, 2, NULL));
		suspect->number = DatumGetInt32(statement_value(i, 3, NULL));
		suspect->crashes = DatumGetInt32(statement_value(i, 4, NULL));
		suspect->in_order = DatumGetBool(statement_value(i, 5, NULL));
		suspect->ahead = DatumGetInt32(statement_value(i, 6, NULL));
	}
	return n;
}

void
jobs_read_suspects(int64 action_no, ActionProgress *progress)
{
	Suspect *suspects;
	int      n = read_suspects(action_no, 0, &suspects);

	for (int i = 0; i < n; i++)
	{
		const Suspect *suspect = &suspects[i];

		if (suspect->kind == MARKER_SEGMENT)
			progress->suspect_segment = suspect->ahead + 1;
		else if (suspect->lane < MAX_LANES)
		{
			int32 *chunk = &progress->suspect_chunk[suspect->lane];

			/* of the keys of a lane and a chunk of it what comes first */
			*chunk = *chunk == 0 ? suspect->number + 1 : Min(*chunk, suspect->number + 1);
		}
	}
}

/* ---- dead letters ---- */

/* The rows of a chunk without the first few, which are done. */
static char *
rows_from(char *payload, size_t *length, int row_offset)
{
	RowDecoder *decoder = row_decoder_create(0, NULL);
	DecodedRow  row = {.offset = *length};

	if (decoder == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	row_decoder_set_payload(decoder, payload, *length);
	for (int i = 0; i <= row_offset; i++)
	{
		if (row_decoder_next(decoder, &row) == ROW_DECODER_ROW)
			continue;
		row_decoder_free(decoder);
		elog(ERROR, "a chunk has no row %d", i + 1);
	}
	row_decoder_free(decoder);
	*length -= row.offset;
	return payload + row.offset;
}

/* False if somebody is in the way. */
static bool
set_aside(int64 action_no, const Suspect *suspect)
{
	static Statement statement = {
		"INSERT INTO bulk_action_internal.dead_letters (action_no, lane, chunk_no, row_count, payload, attempts)"
		" VALUES ($1, $2, $3, $4, $5, $6)",
		{INT8OID, INT2OID, INT4OID, INT4OID, TEXTOID, INT4OID}};
	Datum    values[6];
	Outcomes nothing = {0};
	Cursor   cursor;
	char    *payload;
	size_t   length;
	int      row_count;

	if (!jobs_hold_generations() || !jobs_lock_cursor(action_no, suspect->lane, &cursor))
		return false;
	payload = jobs_read_chunk(action_no, suspect->lane, suspect->number, &row_count, &length);
	if (cursor.row_offset > 0)
		payload = rows_from(payload, &length, cursor.row_offset);

	values[0] = Int64GetDatum(action_no);
	values[1] = Int16GetDatum(suspect->lane);
	values[2] = Int32GetDatum(suspect->number);
	values[3] = Int32GetDatum(row_count - cursor.row_offset);
	values[4] = PointerGetDatum(cstring_to_text_with_len(payload, (int) length));
	values[5] = Int32GetDatum(suspect->crashes);
	(void) statement_run(&statement, values, NULL);

	cursor.next_chunk++;
	cursor.row_offset = 0;
	jobs_move_cursor(action_no, suspect->lane, &cursor, &nothing);
	return true;
}

SuspectVerdict
jobs_judge_suspects(int64 action_no, int max_attempts, Failure *failure)
{
	Suspect *suspects;
	int      n = read_suspects(action_no, max_attempts, &suspects);

	memset(failure, 0, sizeof(*failure));
	for (int i = 0; i < n; i++)
	{
		if (suspects[i].ahead > 0)
			continue;
		if (suspects[i].kind == MARKER_CHUNK && !suspects[i].in_order)
		{
			if (!set_aside(action_no, &suspects[i]))
				return SUSPECTS_WAIT;
			continue;
		}
		failure->code = CRASH_CODE;
		failure->message = psprintf("the server crashed %d times while a piece of this action was worked on alone",
									suspects[i].crashes);
		failure->detail = suspects[i].kind == MARKER_SEGMENT ?
							  psprintf("It was segment %d of the file.", suspects[i].number) :
						  suspects[i].kind == MARKER_KEYS ?
							  psprintf("It was comparing the keys of lane %d.", suspects[i].lane) :
							  psprintf("It was chunk %d of lane %d.", suspects[i].number, suspects[i].lane);
		failure->hint = CRASH_HINT;
		return SUSPECTS_END;
	}
	return SUSPECTS_GO_ON;
}

bool
jobs_has_dead_letters(int64 action_no, Failure *failure)
{
	static Statement statement = {
		"SELECT pg_catalog.count(*), coalesce(pg_catalog.sum(row_count), 0)::bigint"
		" FROM bulk_action_internal.dead_letters WHERE action_no = $1",
		{INT8OID}};
	Datum values[] = {Int64GetDatum(action_no)};
	int64 n;

	(void) statement_run(&statement, values, NULL);
	n = DatumGetInt64(statement_value(0, 1, NULL));
	memset(failure, 0, sizeof(*failure));
	if (n == 0)
		return false;
	failure->code = CRASH_CODE;
	failure->message = psprintf("%lld of its chunks crashed the server each time they were applied", (long long) n);
	failure->detail = psprintf("%lld rows are left in bulk_action_dead_letters; all others were tried.",
							   (long long) DatumGetInt64(statement_value(0, 2, NULL)));
	failure->hint = CRASH_HINT;
	return true;
}

/*
 * Each comes back as the last chunk of its lane.  A segment without rows of its
 * own lists them, so that they are counted where all chunks are.
 */
void
jobs_requeue_dead_letters(int64 action_no)
{
	static Statement read = {
		"SELECT lane, chunk_no, row_count FROM bulk_action_internal.dead_letters WHERE action_no = $1"
		" ORDER BY lane, chunk_no",
		{INT8OID}};
	static Statement requeue = {
		"WITH dead AS (DELETE FROM bulk_action_internal.dead_letters"
		"  WHERE action_no = $1 AND lane = $2 AND chunk_no = $3 RETURNING row_count, payload)"
		" INSERT INTO bulk_action_internal.parked (action_no, lane, chunk_no, segment_no, row_count, payload)"
		" SELECT $1, $2, $4, $5, row_count, payload FROM dead",
		{INT8OID, INT2OID, INT4OID, INT4OID, INT4OID}};
	Datum       values[] = {Int64GetDatum(action_no), (Datum) 0, (Datum) 0, (Datum) 0, (Datum) 0};
	int         n = (int) statement_run(&read, values, NULL);
	int32      *old_numbers = palloc(sizeof(int32) * Max(n, 1));
	Segment     segment = {.nchunks = n};
	SourceState source;

	if (n == 0)
		return;
	segment.chunk_lanes = palloc(sizeof(int16) * n);
	segment.chunk_numbers = palloc(sizeof(int32) * n);
	segment.chunk_rows = palloc(sizeof(int32) * n);
	for (int i = 0; i < n; i++)
	{
		segment.chunk_lanes[i] = DatumGetInt16(statement_value(i, 1, NULL));
		old_numbers[i] = DatumGetInt32(statement_value(i, 2, NULL));
		segment.chunk_rows[i] = DatumGetInt32(statement_value(i, 3, NULL));
	}

	if (!jobs_read_source(action_no, &source))
		elog(ERROR, "source of action number %lld is missing", (long long) action_no);
	segment.segment_no = source.next_segment++;
	segment.start_offset = segment.end_offset = source.next_offset;
	segment.first_line = source.next_line;
	for (int i = 0; i < n; i++)
	{
		segment.chunk_numbers[i] = source.lane_chunks[segment.chunk_lanes[i]]++;
		values[1] = Int16GetDatum(segment.chunk_lanes[i]);
		values[2] = Int32GetDatum(old_numbers[i]);
		values[3] = Int32GetDatum(segment.chunk_numbers[i]);
		values[4] = Int32GetDatum(segment.segment_no);
		(void) statement_run(&requeue, values, NULL);
	}
	jobs_insert_segment(action_no, &segment);
	jobs_write_source(action_no, &source);
}
