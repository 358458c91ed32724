/*
 * jobs_queue.c
 *		Statements on the ingestion queue: sources, segments, chunks, cursors.
 *
 * Chunks are a log in three generations.  Chunking writes to the present one;
 * when that has grown, the next one is emptied (what is still live in it is
 * copied forward) and takes over.  TRUNCATE is not MVCC-safe, so whoever looks
 * for a chunk locks a generation before the snapshot with which he looks; and
 * since a chunk may be on the move from the oldest to the present generation,
 * only a search with all three locked can say that it is not there.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "service/bookkeeping.h"
#include "stage/jobs.h"

#define GENERATIONS 3

/* A generation is left for the next one at this size; a matter of taste between 8 and 100 MiB. */
#define GENERATION_BYTES (32 * 1024 * 1024)

/* Live chunks that are copied forward at most; with more, the generation waits. */
#define COPY_FORWARD_MAX 128

#define SOURCE_COLUMNS \
	"SELECT size, etag, version_id, header, next_segment, next_offset, next_line, at_end, lane_chunks," \
	" in_skipped_line, scanning, rows_read, parse_errors, key_signature," \
	" compression, encoding, delimiter, raw_offset, restart_offset, restart_raw_offset" \
	" FROM bulk_action_internal.sources WHERE action_no = $1"

static bool
fetch_source(Statement *statement, int64 action_no, SourceState *source)
{
	Datum  values[] = {Int64GetDatum(action_no)};
	Datum *elements;
	char  *delimiter;

	memset(source, 0, sizeof(*source));
	if (statement_run(statement, values, NULL) == 0)
		return false;
	source->size = DatumGetInt64(statement_value(0, 1, NULL));
	source->etag = statement_text(0, 2);
	source->version_id = statement_text(0, 3);
	source->header = statement_text(0, 4);
	source->next_segment = DatumGetInt32(statement_value(0, 5, NULL));
	source->next_offset = DatumGetInt64(statement_value(0, 6, NULL));
	source->next_line = DatumGetInt64(statement_value(0, 7, NULL));
	source->at_end = DatumGetBool(statement_value(0, 8, NULL));
	deconstruct_array(DatumGetArrayTypeP(statement_value(0, 9, NULL)), INT4OID, sizeof(int32), true,
					  TYPALIGN_INT, &elements, NULL, &source->lanes);
	source->in_skipped_line = DatumGetBool(statement_value(0, 10, NULL));
	source->scanning = DatumGetBool(statement_value(0, 11, NULL));
	source->rows_read = DatumGetInt64(statement_value(0, 12, NULL));
	source->parse_errors = DatumGetInt64(statement_value(0, 13, NULL));
	source->key_signature = statement_text(0, 14);
	source->compression = (Compression) DatumGetInt16(statement_value(0, 15, NULL));
	source->encoding = statement_text(0, 16);
	source->delimiter = (delimiter = statement_text(0, 17)) != NULL ? delimiter[0] : '\0';
	source->raw_offset = DatumGetInt64(statement_value(0, 18, NULL));
	source->restart.offset = DatumGetInt64(statement_value(0, 19, NULL));
	source->restart.raw_offset = DatumGetInt64(statement_value(0, 20, NULL));
	if (source->lanes > MAX_LANES)
		elog(ERROR, "action number %lld has %d lanes", (long long) action_no, source->lanes);
	for (int i = 0; i < source->lanes; i++)
		source->lane_chunks[i] = DatumGetInt32(elements[i]);
	return true;
}

bool
jobs_read_source(int64 action_no, SourceState *source)
{
	static Statement statement = {SOURCE_COLUMNS, {INT8OID}};

	return fetch_source(&statement, action_no, source);
}

bool
jobs_lock_source(int64 action_no, SourceState *source)
{
	static Statement statement = {SOURCE_COLUMNS " FOR NO KEY UPDATE SKIP LOCKED", {INT8OID}};

	return fetch_source(&statement, action_no, source);
}

static Datum
int4_array(const int32 *numbers, int n)
{
	Datum *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = Int32GetDatum(numbers[i]);
	return PointerGetDatum(construct_array(elements, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

void
jobs_insert_source(int64 action_no, const SourceState *source)
{
	static Statement statement = {
		"INSERT INTO bulk_action_internal.sources (action_no, size, etag, version_id, scanning)"
		" VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
		{INT8OID, INT8OID, TEXTOID, TEXTOID, BOOLOID}};
	Datum values[] = {
		Int64GetDatum(action_no),
		Int64GetDatum(source->size),
		CStringGetTextDatum(source->etag),
		source->version_id ? CStringGetTextDatum(source->version_id) : (Datum) 0,
		BoolGetDatum(source->scanning)};

	(void) statement_run(&statement, values, source->version_id ? "     " : "   n ");
}

void
jobs_write_source(int64 action_no, const SourceState *source)
{
	static Statement statement = {
		"UPDATE bulk_action_internal.sources SET header = $2, next_segment = $3, next_offset = $4,"
		" next_line = $5, at_end = $6, lane_chunks = $7, in_skipped_line = $8, scanning = $9, rows_read = $10,"
		" parse_errors = $11, key_signature = $12, compression = $13, encoding = $14, delimiter = $15,"
		" raw_offset = $16, restart_offset = $17, restart_raw_offset = $18"
		" WHERE action_no = $1",
		{INT8OID, TEXTOID, INT4OID, INT8OID, INT8OID, BOOLOID, INT4ARRAYOID, BOOLOID, BOOLOID, INT8OID,
		 INT8OID, TEXTOID, INT2OID, TEXTOID, TEXTOID, INT8OID, INT8OID, INT8OID}};
	char  delimiter[] = {source->delimiter, '\0'};
	Datum values[] = {
		Int64GetDatum(action_no),
		CStringGetTextDatum(source->header),
		Int32GetDatum(source->next_segment),
		Int64GetDatum(source->next_offset),
		Int64GetDatum(source->next_line),
		BoolGetDatum(source->at_end),
		int4_array(source->lane_chunks, source->lanes),
		BoolGetDatum(source->in_skipped_line),
		BoolGetDatum(source->scanning),
		Int64GetDatum(source->rows_read),
		Int64GetDatum(source->parse_errors),
		CStringGetTextDatum(source->key_signature),
		Int16GetDatum(source->compression),
		CStringGetTextDatum(source->encoding),
		CStringGetTextDatum(delimiter),
		Int64GetDatum(source->raw_offset),
		Int64GetDatum(source->restart.offset),
		Int64GetDatum(source->restart.raw_offset)};

	(void) statement_run(&statement, values, NULL);
}

void
jobs_create_cursors(int64 action_no, int lanes)
{
	static Statement statement = {
		"INSERT INTO bulk_action_internal.cursors (action_no, lane)"
		" SELECT $1, lane FROM pg_catalog.generate_series(0, $2 - 1) AS lane",
		{INT8OID, INT4OID}};
	Datum values[] = {Int64GetDatum(action_no), Int32GetDatum(lanes)};

	(void) statement_run(&statement, values, NULL);
}

void
jobs_insert_segment(int64 action_no, const Segment *segment)
{
	static Statement statement = {
		"INSERT INTO bulk_action_internal.segments (action_no, segment_no, start_offset, end_offset,"
		" first_line, row_count, parse_errors, chunk_lanes, chunk_numbers, chunk_rows)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
		{INT8OID, INT4OID, INT8OID, INT8OID, INT8OID, INT4OID, INT4OID, INT2ARRAYOID, INT4ARRAYOID,
		 INT4ARRAYOID}};
	Datum *lanes = palloc(sizeof(Datum) * Max(segment->nchunks, 1));
	Datum  values[10];

	for (int i = 0; i < segment->nchunks; i++)
		lanes[i] = Int16GetDatum(segment->chunk_lanes[i]);
	values[0] = Int64GetDatum(action_no);
	values[1] = Int32GetDatum(segment->segment_no);
	values[2] = Int64GetDatum(segment->start_offset);
	values[3] = Int64GetDatum(segment->end_offset);
	values[4] = Int64GetDatum(segment->first_line);
	values[5] = Int32GetDatum(segment->row_count);
	values[6] = Int32GetDatum(segment->parse_errors);
	values[7] = PointerGetDatum(construct_array(lanes, segment->nchunks, INT2OID, sizeof(int16), true,
												TYPALIGN_SHORT));
	values[8] = int4_array(segment->chunk_numbers, segment->nchunks);
	values[9] = int4_array(segment->chunk_rows, segment->nchunks);
	(void) statement_run(&statement, values, NULL);
}

/* ---- chunks ---- */

static Oid
generation_oid(int generation)
{
	char name[NAMEDATALEN];
	Oid  oid;

	snprintf(name, sizeof(name), "bulk_action_jobs_%d", generation);
	oid = get_relname_relid(name, get_namespace_oid("bulk_action_internal", false));
	if (!OidIsValid(oid))
		elog(ERROR, "table \"%s\" is missing", name);
	return oid;
}

int
jobs_write_generation(void)
{
	static Statement statement = {
		"SELECT generation FROM bulk_action_internal.rotation",
		{InvalidOid}};

	if (statement_run(&statement, NULL, NULL) != 1)
		elog(ERROR, "table \"rotation\" does not have one row");
	return DatumGetInt16(statement_value(0, 1, NULL));
}

#define INSERT_CHUNK(generation) \
	{ \
		"INSERT INTO bulk_action_internal.bulk_action_jobs_" #generation \
		" (generation, action_no, lane, chunk_no, segment_no, row_count, payload)" \
		" VALUES (" #generation ", $1, $2, $3, $4, $5, $6)", \
		{ \
			INT8OID, INT2OID, INT4OID, INT4OID, INT4OID, TEXTOID \
		} \
	}

void
jobs_insert_chunk(int generation, int64 action_no, int lane, int chunk_no, int segment_no,
				  int row_count, const char *payload, size_t length)
{
	static Statement statements[GENERATIONS] = {INSERT_CHUNK(0), INSERT_CHUNK(1), INSERT_CHUNK(2)};
	Datum            values[] = {
				   Int64GetDatum(action_no),
				   Int16GetDatum(lane),
				   Int32GetDatum(chunk_no),
				   Int32GetDatum(segment_no),
				   Int32GetDatum(row_count),
				   PointerGetDatum(cstring_to_text_with_len(payload, (int) length))};

	(void) statement_run(&statements[generation], values, NULL);
	pfree(DatumGetPointer(values[5]));
}

#define SELECT_CHUNK(generation) \
	{ \
		"SELECT row_count, payload FROM bulk_action_internal.bulk_action_jobs_" #generation \
		" WHERE action_no = $1 AND lane = $2 AND chunk_no = $3", \
		{ \
			INT8OID, INT2OID, INT4OID \
		} \
	}

static Statement select_chunk[GENERATIONS] = {SELECT_CHUNK(0), SELECT_CHUNK(1), SELECT_CHUNK(2)};

char *
jobs_read_chunk(int64 action_no, int lane, int chunk_no, int *row_count, size_t *length)
{
	static int last_found = 0;
	Datum      values[] = {
			 Int64GetDatum(action_no), Int16GetDatum(lane), Int32GetDatum(chunk_no)};

	for (int all_locked = 0; all_locked < 2; all_locked++)
	{
		for (int i = 0; i < GENERATIONS; i++)
		{
			/* Where the last chunk was, then onwards: to newer generations first. */
			int   generation = (last_found + i) % GENERATIONS;
			text *payload;

			/* The statement takes its snapshot after this. */
			LockRelationOid(generation_oid(generation), AccessShareLock);
			if (statement_run(&select_chunk[generation], values, NULL) == 0)
				continue;
			last_found = generation;
			*row_count = DatumGetInt32(statement_value(0, 1, NULL));
			payload = DatumGetTextPP(statement_value(0, 2, NULL));
			*length = VARSIZE_ANY_EXHDR(payload);
			return VARDATA_ANY(payload);
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("chunk %d of lane %d of bulk action number %lld is missing", chunk_no, lane,
					(long long) action_no)));
}

/* Bytes of a generation with its TOAST table; -1 if somebody has it for himself. */
static int64
generation_size(int generation)
{
	Oid      oid = generation_oid(generation);
	Relation rel;
	int64    blocks;

	if (!ConditionalLockRelationOid(oid, AccessShareLock))
		return -1;
	rel = table_open(oid, NoLock);
	blocks = RelationGetNumberOfBlocks(rel);
	if (OidIsValid(rel->rd_rel->reltoastrelid))
	{
		Relation toast = table_open(rel->rd_rel->reltoastrelid, AccessShareLock);

		blocks += RelationGetNumberOfBlocks(toast);
		table_close(toast, AccessShareLock);
	}
	table_close(rel, NoLock);
	return blocks * BLCKSZ;
}

#define LIVE_CHUNKS(generation) \
	" FROM bulk_action_internal.bulk_action_jobs_" #generation " AS j" \
	" JOIN bulk_action_internal.cursors AS c" \
	"  ON c.action_no = j.action_no AND c.lane = j.lane AND c.next_chunk <= j.chunk_no" \
	" JOIN bulk_action_internal.actions AS a" \
	"  ON a.action_no = j.action_no AND a.state IN ('queued', 'running')"

#define COUNT_LIVE(generation) \
	{ \
		"SELECT 1" LIVE_CHUNKS(generation) " LIMIT $1", \
		{ \
			INT4OID \
		} \
	}

#define COPY_LIVE(generation) \
	{ \
		"INSERT INTO bulk_action_internal.bulk_action_jobs" \
		" SELECT $1, j.action_no, j.lane, j.chunk_no, j.segment_no, j.row_count, j.payload" LIVE_CHUNKS(generation), \
		{ \
			INT2OID \
		} \
	}

#define EMPTY(generation) \
	{ \
		"TRUNCATE bulk_action_internal.bulk_action_jobs_" #generation, \
		{ \
			InvalidOid \
		} \
	}

/* Empties a generation after copying at most max live chunks to the present one. */
static bool
empty_generation(int generation, int present, int max)
{
	static Statement count_live[GENERATIONS] = {COUNT_LIVE(0), COUNT_LIVE(1), COUNT_LIVE(2)};
	static Statement copy_live[GENERATIONS] = {COPY_LIVE(0), COPY_LIVE(1), COPY_LIVE(2)};
	static Statement empty[GENERATIONS] = {EMPTY(0), EMPTY(1), EMPTY(2)};
	Datum            limit[] = {Int32GetDatum(max + 1)};
	Datum            target[] = {Int16GetDatum(present)};
	int              live;
	int64            size = generation_size(generation);

	if (size <= 0)
		return size == 0;
	/* Anyone inside, pg_dump for one, puts it off. */
	if (!ConditionalLockRelationOid(generation_oid(generation), AccessExclusiveLock))
		return false;
	live = (int) statement_run(&count_live[generation], limit, NULL);
	if (live > max)
		return false;
	if (live > 0)
		(void) statement_run(&copy_live[generation], target, NULL);
	(void) statement_run(&empty[generation], NULL, NULL);
	return true;
}

void
jobs_rotate(bool all)
{
	static Statement lock = {
		"SELECT generation FROM bulk_action_internal.rotation FOR NO KEY UPDATE SKIP LOCKED",
		{InvalidOid}};
	static Statement advance = {
		"UPDATE bulk_action_internal.rotation SET generation = $1",
		{INT2OID}};
	int   present;
	int   next;
	int64 size = 0;

	for (int i = 0; all && i < GENERATIONS; i++)
		size += Max(generation_size(i), 0);
	if (all && size == 0)
		return;
	if (statement_run(&lock, NULL, NULL) == 0)
		return;
	present = DatumGetInt16(statement_value(0, 1, NULL));
	next = (present + 1) % GENERATIONS;

	if (all)
	{
		for (int i = 0; i < GENERATIONS; i++)
			(void) empty_generation(i, present, 0);
	}
	else if (generation_size(present) >= GENERATION_BYTES &&
			 empty_generation(next, present, COPY_FORWARD_MAX))
	{
		Datum values[] = {Int16GetDatum(next)};

		(void) statement_run(&advance, values, NULL);
	}
}

/* ---- rest ---- */

/* More than one event may put an action to rest in one transaction. */
#define PARK(generation) \
	{ \
		"INSERT INTO bulk_action_internal.parked" \
		" SELECT j.action_no, j.lane, j.chunk_no, j.segment_no, j.row_count, j.payload" \
		" FROM bulk_action_internal.bulk_action_jobs_" #generation " AS j" \
		" JOIN bulk_action_internal.cursors AS c" \
		"  ON c.action_no = j.action_no AND c.lane = j.lane AND c.next_chunk <= j.chunk_no" \
		" WHERE j.action_no = $1 ON CONFLICT DO NOTHING", \
		{ \
			INT8OID \
		} \
	}

bool
jobs_hold_generations(void)
{
	for (int i = 0; i < GENERATIONS; i++)
		if (!ConditionalLockRelationOid(generation_oid(i), AccessShareLock))
			return false;
	return true;
}

bool
jobs_park(int64 action_no)
{
	static Statement park[GENERATIONS] = {PARK(0), PARK(1), PARK(2)};
	Datum            values[] = {Int64GetDatum(action_no)};

	if (!jobs_hold_generations())
		return false;
	for (int i = 0; i < GENERATIONS; i++)
		(void) statement_run(&park[i], values, NULL);
	return true;
}

#define NOT_THERE(generation) \
	" NOT EXISTS (SELECT FROM bulk_action_internal.bulk_action_jobs_" #generation " AS j" \
	"  WHERE j.action_no = b.action_no AND j.lane = b.lane AND j.chunk_no = b.chunk_no)"

bool
jobs_unpark(int64 action_no)
{
	static Statement any = {
		"SELECT 1 FROM bulk_action_internal.parked WHERE action_no = $1 LIMIT 1",
		{INT8OID}};
	/* The chunks of a short rest have not been swept away yet. */
	static Statement unpark = {
		"WITH back AS (DELETE FROM bulk_action_internal.parked WHERE action_no = $1"
		"  RETURNING action_no, lane, chunk_no, segment_no, row_count, payload)"
		" INSERT INTO bulk_action_internal.bulk_action_jobs"
		" SELECT $2, b.action_no, b.lane, b.chunk_no, b.segment_no, b.row_count, b.payload"
		" FROM back AS b WHERE" NOT_THERE(0) " AND" NOT_THERE(1) " AND" NOT_THERE(2),
		{INT8OID, INT2OID}};
	Datum values[] = {Int64GetDatum(action_no), (Datum) 0};

	if (statement_run(&any, values, NULL) == 0)
		return true;
	if (!jobs_hold_generations())
		return false;
	values[1] = Int16GetDatum(jobs_write_generation());
	(void) statement_run(&unpark, values, NULL);
	return true;
}

/* ---- cursors ---- */

bool
jobs_lock_cursor(int64 action_no, int lane, Cursor *cursor)
{
	static Statement statement = {
		"SELECT next_chunk, row_offset, keys_compared FROM bulk_action_internal.cursors"
		" WHERE action_no = $1 AND lane = $2 FOR NO KEY UPDATE SKIP LOCKED",
		{INT8OID, INT2OID}};
	Datum values[] = {Int64GetDatum(action_no), Int16GetDatum(lane)};

	if (statement_run(&statement, values, NULL) == 0)
		return false;
	cursor->next_chunk = DatumGetInt32(statement_value(0, 1, NULL));
	cursor->row_offset = DatumGetInt32(statement_value(0, 2, NULL));
	cursor->keys_compared = DatumGetBool(statement_value(0, 3, NULL));
	return true;
}

void
jobs_move_cursor(int64 action_no, int lane, const Cursor *cursor, const Outcomes *outcomes)
{
	static Statement statement = {
		"UPDATE bulk_action_internal.cursors SET next_chunk = $3, row_offset = $4,"
		" updated = updated + $5, unchanged = unchanged + $6, not_found = not_found + $7,"
		" failed = failed + $8, superseded = superseded + $9, inserted = inserted + $10, deleted = deleted + $11"
		" WHERE action_no = $1 AND lane = $2",
		{INT8OID, INT2OID, INT4OID, INT4OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID}};
	Datum values[] = {
		Int64GetDatum(action_no),
		Int16GetDatum(lane),
		Int32GetDatum(cursor->next_chunk),
		Int32GetDatum(cursor->row_offset),
		Int64GetDatum(outcomes->updated),
		Int64GetDatum(outcomes->unchanged),
		Int64GetDatum(outcomes->not_found),
		Int64GetDatum(outcomes->failed),
		Int64GetDatum(outcomes->superseded),
		Int64GetDatum(outcomes->inserted),
		Int64GetDatum(outcomes->deleted)};

	if (statement_run(&statement, values, NULL) != 1)
		elog(ERROR, "cursor of lane %d of action number %lld is missing", lane, (long long) action_no);
}
