/*
 * error_report.c
 *		bulk_action_error_report: the failed rows of an action as CSV, to be
 *		corrected and submitted again.
 *
 * The header was kept when the file was read (sources.header), and each failed
 * row with its text (errors.record); pure/error_report.c makes CSV of them.
 * Rows are fetched through a cursor, in pieces, and each is copied once, into
 * the buffer that becomes the result: what is needed beyond the result is one
 * row.  All statements use the snapshot of the query that called, so a report
 * is of one moment, also while the action runs, and two in one query are equal.
 *
 * The result is one value, which PostgreSQL limits to 1 GB; after_line and
 * max_rows divide what is larger.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "api/action_id.h"
#include "base/compat.h"
#include "pure/error_report.h"
#include "service/bookkeeping.h"
#include "service/visibility.h"

BULK_ACTION_FUNCTION(bulk_action_error_report);

#define ROWS_AT_A_TIME 1000

/* A value's limit, less what the message to the client has around it. */
#define MAX_REPORT_BYTES (MaxAllocSize - 1024)

#define FIRST_BYTES 8192

static Statement action_read = {
	.sql = "SELECT a.action_no, a.submitted_role, a.account_id, a.state, s.header"
		   " FROM bulk_action_internal.actions AS a"
		   " LEFT JOIN bulk_action_internal.sources AS s ON s.action_no = a.action_no"
		   " WHERE a.id = $1",
	.argtypes = {UUIDOID, InvalidOid},
};

static Statement errors_read = {
	.sql = "SELECT e.line::text, e.error_code, e.error_column, e.error_message, e.record, "
		   "e.record_altered"
		   " FROM bulk_action_internal.errors AS e WHERE e.action_no = $1 AND e.line > $2"
		   " ORDER BY e.line LIMIT $3",
	.argtypes = {INT8OID, INT8OID, INT8OID, InvalidOid},
};

/* ---- arguments ---- */

static void
check_arguments(FunctionCallInfo fcinfo)
{
	static const char *const names[] = {"action_id", "neutralize", "after_line"};

	for (int i = 0; i < lengthof(names); i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", names[i]),
					 errdetail("Only max_rows may be null: all rows."),
					 i == 0 ? errhint("Give the id that bulk_action_submit returned.") :
							  errhint("Leave the argument out to have its default.")));
	if (!PG_ARGISNULL(3) && PG_GETARG_INT64(3) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("max_rows must not be negative"),
				 errdetail("It is %lld.", (long long) PG_GETARG_INT64(3)),
				 errhint("Leave the argument out to have all rows.")));
}

/* ---- the report ---- */

static void *
buffer_realloc(void *pointer, size_t size)
{
	return repalloc_huge(pointer, size);
}

static void
check_size(const RowBuffer *out)
{
	if (out->len > MAX_REPORT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the error report is larger than 1 GB"),
				 errdetail("A value in PostgreSQL cannot be larger."),
				 errhint("Fetch it in parts: max_rows => 100000 for the first one, and after_line => the "
						 "last _line of a part for the next.")));
}

/* Waiting for it would be no use if the action has ended. */
static void
no_header(const pg_uuid_t *id, const char *state)
{
	bool ended = strcmp(state, "completed") == 0 || strcmp(state, "cancelled") == 0 ||
				 strcmp(state, "failed") == 0;

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("bulk action \"%s\" has no error report", action_id_text(id)),
			 errdetail("Its state is \"%s\", and nothing of its file has been read.", state),
			 ended ? errhint("No row failed; the view bulk_action.bulk_actions says why the action ended.") :
					 errhint("Call this again when rows have been read; bulk_action_stat() tells.")));
}

/* A text of the present result as a cell; the value is where it was fetched, or detoasted. */
static CsvField
cell_of(uint64 row, int column)
{
	CsvField cell = {"", 0, true};
	Datum    value;

	value = statement_value(row, column, &cell.is_null);
	if (!cell.is_null)
	{
		text *content = DatumGetTextPP(value);

		cell.data = VARDATA_ANY(content);
		cell.len = VARSIZE_ANY_EXHDR(content);
	}
	return cell;
}

/* Writes the header; returns the number of the action. */
static int64
begin_report(ErrorReport *report, const pg_uuid_t *id, Oid user)
{
	Datum    values[1] = {UUIDPGetDatum(id)};
	Portal   portal = statement_open(&action_read, values, NULL);
	CsvField header;
	int64    action_no;

	if (statement_fetch(portal, 1) == 0 ||
		!visibility_may_see(user, DatumGetObjectId(statement_value(0, 2, NULL)), statement_value(0, 3, NULL)))
		action_unknown(id);
	action_no = DatumGetInt64(statement_value(0, 1, NULL));
	header = cell_of(0, 5);
	if (header.is_null)
		no_header(id, statement_text(0, 4));
	if (error_report_header(report, header.data, header.len) != ERROR_REPORT_OK)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the header of bulk action \"%s\" is malformed", action_id_text(id))));
	SPI_freetuptable(SPI_tuptable);
	SPI_cursor_close(portal);
	return action_no;
}

static void
add_row(ErrorReport *report, uint64 row)
{
	CsvField       record = cell_of(row, 5);
	ErrorReportRow failed = {
		.record = record.data,
		.record_len = record.len,
		.altered = DatumGetBool(statement_value(row, 6, NULL)),
		.line = cell_of(row, 1),
		.code = cell_of(row, 2),
		.column = cell_of(row, 3),
		.message = cell_of(row, 4),
	};

	/* memory is not what it can fail for: buffer_realloc raises an error then */
	(void) error_report_row(report, &failed);
	check_size(report->out);
}

static void
add_rows(ErrorReport *report, Datum *values, const char *nulls)
{
	Portal        portal = statement_open(&errors_read, values, nulls);
	MemoryContext row_context =
		AllocSetContextCreate(CurrentMemoryContext, "error report row", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(row_context);
	uint64        n;

	while ((n = statement_fetch(portal, ROWS_AT_A_TIME)) > 0)
	{
		for (uint64 i = 0; i < n; i++)
		{
			add_row(report, i);
			MemoryContextReset(row_context);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(row_context);
}

Datum
bulk_action_error_report(PG_FUNCTION_ARGS)
{
	Oid         user = GetUserId();
	RowBuffer   out = {.realloc_fn = buffer_realloc};
	ErrorReport report = {.out = &out};
	Bookkeeping bookkeeping;
	Datum       values[3];

	check_arguments(fcinfo);
	report.neutralize = PG_GETARG_BOOL(1);
	values[1] = PG_GETARG_DATUM(2);
	values[2] = PG_ARGISNULL(3) ? (Datum) 0 : PG_GETARG_DATUM(3);

	/* The buffer becomes the result: it begins with room for the length of a text value. */
	out.data = palloc(FIRST_BYTES);
	out.cap = FIRST_BYTES;
	out.len = VARHDRSZ;

	SPI_connect();
	bookkeeping_enter(&bookkeeping);
	values[0] = Int64GetDatum(begin_report(&report, PG_GETARG_UUID_P(0), user));
	add_rows(&report, values, PG_ARGISNULL(3) ? "  n" : "   ");
	bookkeeping_leave(&bookkeeping);
	SPI_finish();

	SET_VARSIZE(out.data, out.len);
	PG_RETURN_TEXT_P((text *) out.data);
}
