/*
 * jobs_rows.c
 *		Statements on single rows of a file: errors, superseded ones, and the
 *		keys by which duplicates are found.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "service/bookkeeping.h"
#include "stage/jobs.h"

/* ---- outcomes ---- */

static Datum
int8_array(Datum *elements, int n)
{
	return PointerGetDatum(construct_array(elements, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

void
jobs_insert_errors(int64 action_no, const RowError *errors, int n)
{
	static Statement statement = {
		"INSERT INTO bulk_action_internal.errors"
		" (action_no, line, error_code, error_column, error_message, record, record_altered)"
		" SELECT $1, e.line, e.code, e.column_name, e.message, e.record, e.altered"
		" FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),"
		"  pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7))"
		"  AS e (line, code, column_name, message, record, altered)",
		{INT8OID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, BOOLARRAYOID}};
	Datum *lines;
	Datum *texts[4];
	Datum *altered;
	bool  *nulls;
	Datum  values[7];

	if (n == 0)
		return;
	lines = palloc(sizeof(Datum) * n);
	altered = palloc(sizeof(Datum) * n);
	nulls = palloc0(sizeof(bool) * n);
	for (int i = 0; i < 4; i++)
		texts[i] = palloc0(sizeof(Datum) * n);
	for (int i = 0; i < n; i++)
	{
		lines[i] = Int64GetDatum(errors[i].line);
		texts[0][i] = CStringGetTextDatum(errors[i].code);
		nulls[i] = errors[i].column == NULL;
		if (!nulls[i])
			texts[1][i] = CStringGetTextDatum(errors[i].column);
		texts[2][i] = CStringGetTextDatum(errors[i].message);
		texts[3][i] = PointerGetDatum(cstring_to_text_with_len(errors[i].record,
															   (int) errors[i].record_length));
		altered[i] = BoolGetDatum(errors[i].record_altered);
	}
	values[0] = Int64GetDatum(action_no);
	values[1] = int8_array(lines, n);
	for (int i = 0; i < 4; i++)
	{
		int dims[1] = {n};
		int lower[1] = {1};

		values[2 + i] = PointerGetDatum(construct_md_array(texts[i], i == 1 ? nulls : NULL, 1, dims,
														   lower, TEXTOID, -1, false, TYPALIGN_INT));
	}
	values[6] = PointerGetDatum(construct_array(altered, n, BOOLOID, sizeof(bool), true, TYPALIGN_CHAR));
	(void) statement_run(&statement, values, NULL);
}

void
jobs_insert_superseded(int64 action_no, const SupersededRow *rows, int n)
{
	static Statement statement = {
		"INSERT INTO bulk_action_internal.superseded (action_no, line, superseded_by, record)"
		" SELECT $1, s.line, s.superseded_by, s.record"
		" FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4))"
		"  AS s (line, superseded_by, record)",
		{INT8OID, INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID}};
	Datum *lines = palloc(sizeof(Datum) * Max(n, 1));
	Datum *winners = palloc(sizeof(Datum) * Max(n, 1));
	Datum *records = palloc(sizeof(Datum) * Max(n, 1));
	Datum  values[4];

	if (n == 0)
		return;
	for (int i = 0; i < n; i++)
	{
		lines[i] = Int64GetDatum(rows[i].row.line);
		winners[i] = Int64GetDatum(rows[i].row.other_line);
		records[i] = PointerGetDatum(cstring_to_text_with_len(rows[i].record, (int) rows[i].record_length));
	}
	values[0] = Int64GetDatum(action_no);
	values[1] = int8_array(lines, n);
	values[2] = int8_array(winners, n);
	values[3] = PointerGetDatum(construct_array(records, n, TEXTOID, -1, false, TYPALIGN_INT));
	(void) statement_run(&statement, values, NULL);
}

/* ---- keys and duplicates ---- */

void
jobs_insert_keys(int64 action_no, int lane, int segment_no, int row_count, const char *payload,
				 size_t length)
{
	static Statement statement = {
		"INSERT INTO bulk_action_internal.keys (action_no, lane, segment_no, row_count, payload)"
		" VALUES ($1, $2, $3, $4, $5)",
		{INT8OID, INT2OID, INT4OID, INT4OID, TEXTOID}};
	Datum values[] = {
		Int64GetDatum(action_no),
		Int16GetDatum(lane),
		Int32GetDatum(segment_no),
		Int32GetDatum(row_count),
		PointerGetDatum(cstring_to_text_with_len(payload, (int) length))};

	(void) statement_run(&statement, values, NULL);
	pfree(DatumGetPointer(values[4]));
}

bool
jobs_next_keys(int64 action_no, int lane, int *segment_no, int *row_count, char **payload, size_t *length)
{
	static Statement statement = {
		"SELECT segment_no, row_count, payload FROM bulk_action_internal.keys"
		" WHERE action_no = $1 AND lane = $2 AND segment_no > $3 ORDER BY segment_no LIMIT 1",
		{INT8OID, INT2OID, INT4OID}};
	Datum values[] = {Int64GetDatum(action_no), Int16GetDatum(lane), Int32GetDatum(*segment_no)};
	text *value;

	if (statement_run(&statement, values, NULL) == 0)
		return false;
	*segment_no = DatumGetInt32(statement_value(0, 1, NULL));
	*row_count = DatumGetInt32(statement_value(0, 2, NULL));
	value = DatumGetTextPCopy(statement_value(0, 3, NULL));
	SPI_freetuptable(SPI_tuptable); /* there may be thousands of segments in one transaction */
	*length = VARSIZE_ANY_EXHDR(value);
	*payload = VARDATA_ANY(value);
	return true;
}

void
jobs_insert_duplicates(int64 action_no, int lane, const Duplicate *rows, int n)
{
	static Statement statement = {
		"INSERT INTO bulk_action_internal.duplicates (action_no, lane, last_line, lines, other_lines)"
		" VALUES ($1, $2, $3, $4, $5)",
		{INT8OID, INT2OID, INT8OID, INT8ARRAYOID, INT8ARRAYOID}};
	Datum *lines = palloc(sizeof(Datum) * n);
	Datum *others = palloc(sizeof(Datum) * n);
	Datum  values[5];

	Assert(n > 0);
	for (int i = 0; i < n; i++)
	{
		lines[i] = Int64GetDatum(rows[i].line);
		others[i] = Int64GetDatum(rows[i].other_line);
	}
	values[0] = Int64GetDatum(action_no);
	values[1] = Int16GetDatum(lane);
	values[2] = Int64GetDatum(rows[n - 1].line);
	values[3] = int8_array(lines, n);
	values[4] = int8_array(others, n);
	(void) statement_run(&statement, values, NULL);
	pfree(DatumGetPointer(values[3]));
	pfree(DatumGetPointer(values[4]));
	pfree(lines);
	pfree(others);
}

int
jobs_read_duplicates(int64 action_no, int lane, int64 from_line, Duplicate **rows)
{
	/* All blocks but the last have DUPLICATES_BLOCK rows, so two hold those of a chunk. */
	static Statement statement = {
		"SELECT lines, other_lines FROM bulk_action_internal.duplicates"
		" WHERE action_no = $1 AND lane = $2 AND last_line >= $3 ORDER BY last_line LIMIT 2",
		{INT8OID, INT2OID, INT8OID}};
	Datum  values[] = {Int64GetDatum(action_no), Int16GetDatum(lane), Int64GetDatum(from_line)};
	uint64 blocks = statement_run(&statement, values, NULL);
	int    n = 0;

	*rows = palloc(sizeof(Duplicate) * Max(blocks, 1) * DUPLICATES_BLOCK);
	for (uint64 block = 0; block < blocks; block++)
	{
		Datum *lines;
		Datum *others;
		int    count;
		int    other_count;

		deconstruct_array(DatumGetArrayTypeP(statement_value(block, 1, NULL)), INT8OID, sizeof(int64),
						  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &lines, NULL, &count);
		deconstruct_array(DatumGetArrayTypeP(statement_value(block, 2, NULL)), INT8OID, sizeof(int64),
						  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &others, NULL, &other_count);
		if (count > DUPLICATES_BLOCK || count != other_count)
			elog(ERROR, "duplicates of action number %lld are malformed", (long long) action_no);
		for (int i = 0; i < count; i++)
		{
			if (DatumGetInt64(lines[i]) < from_line)
				continue;
			(*rows)[n].line = DatumGetInt64(lines[i]);
			(*rows)[n++].other_line = DatumGetInt64(others[i]);
		}
	}
	return n;
}

void
jobs_finish_keys(int64 action_no, int lane)
{
	static Statement forget = {
		"DELETE FROM bulk_action_internal.keys WHERE action_no = $1 AND lane = $2",
		{INT8OID, INT2OID}};
	static Statement note = {
		"UPDATE bulk_action_internal.cursors SET keys_compared = true WHERE action_no = $1 AND lane = $2",
		{INT8OID, INT2OID}};
	Datum values[] = {Int64GetDatum(action_no), Int16GetDatum(lane)};

	(void) statement_run(&forget, values, NULL);
	(void) statement_run(&note, values, NULL);
}
