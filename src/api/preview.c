/*
 * preview.c
 *		bulk_action_preview: what would become of the first rows of a file.
 *
 * What submit checks of roles, entity, permission, privileges, options and
 * source is checked, and raised; account, limits, captured settings and what
 * only submit has as an argument are not looked at.  What is wrong with the file
 * comes back as part of the answer, as much of it as can be found at once: a
 * column of the header that stands for nothing is noted, left out, and the next
 * one looked for.
 *
 * Cells are converted as they will be, by the caller and under the settings of
 * his session, which are those that submit would record.  No statement is run on
 * the table, so what its constraints, triggers and policies say is for a dry
 * run.  The checks of domains are user code, however: all is done in a
 * subtransaction that is rolled back in the end, so nothing is left behind.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "api/preview_document.h"
#include "api/preview_source.h"
#include "api/submission.h"
#include "base/compat.h"
#include "stage/failure.h"
#include "stage/source_text.h"
#include "stage/target.h"

BULK_ACTION_FUNCTION(bulk_action_preview);

#define MAX_ROWS 1000

/* A row that is shown, for looking for others with its key. */
typedef struct ShownKey
{
	int64 line;
	Datum values[INDEX_MAX_KEYS];
} ShownKey;

typedef struct Preview
{
	MemoryContext   context;
	Action         *action;
	PreviewSource   source;
	int             nfields; /* 0: the header cannot be read */
	CsvField       *header;
	Target         *target;         /* as far as it was found; NULL: not at all */
	MemoryContext   target_context; /* of the present try to find it */
	bool            can_convert;
	PreviewDocument document;
	int             nkeys;
	ShownKey       *keys;
} Preview;

/* ---- the header ---- */

static bool
read_header(Preview *preview)
{
	const ActionOptions *options = &preview->action->options;
	CsvRecord            record;
	CsvReaderStatus      status;
	bool                 good;

	if (options->file.no_header)
	{
		preview->nfields = options->nnames;
		preview->header = source_text_names(options);
		return true;
	}
	status = csv_reader_next(preview->source.reader, &record);
	good = status == CSV_READER_RECORD && pg_verifymbstr(record.raw, (int) record.raw_len, true);

	if (!good)
	{
		PreviewProblem problem = {
			.code = ERRCODE_BAD_COPY_FILE_FORMAT,
			.line = 1,
			.message = status == CSV_READER_END ? "the file is empty" : "the header of the file cannot be read",
			.detail = status == CSV_READER_BAD_RECORD ? record.message : NULL,
			.hint = "The first line must name the columns, with a comma between them."};

		preview_document_problem(&preview->document, &problem);
		return false;
	}
	preview->nfields = options->file.pad ? segment_trimmed(record.fields, record.nfields) : record.nfields;
	preview->header = palloc0(sizeof(CsvField) * record.nfields);
	for (int i = 0; i < preview->nfields; i++)
	{
		preview->header[i].data = pnstrdup(record.fields[i].data, record.fields[i].len);
		preview->header[i].len = record.fields[i].len;
	}
	return true;
}

/* From now on the column of the file is ignored, whatever the options say of it. */
static void
leave_out(Action *action, const char *header)
{
	ActionOptions *options = &action->options;
	ColumnRule    *rules = palloc0(sizeof(ColumnRule) * (options->ncolumns + 1));

	rules[0].header = pstrdup(header);
	if (options->ncolumns > 0)
		memcpy(rules + 1, options->columns, sizeof(ColumnRule) * options->ncolumns);
	if (options->columns != NULL)
		pfree(options->columns);
	options->columns = rules;
	options->ncolumns++;
}

/* Tries to match the header with the table; what stands in the way, or NULL. */
static ErrorData *
try_target(Preview *preview)
{
	Subtransaction frame;

	subtransaction_begin(&frame, preview->target_context);
	PG_TRY();
	{
		(void) target_open_at(&preview->target, preview->action, preview->header, preview->nfields,
							  AccessShareLock);
		subtransaction_end(&frame, true);
	}
	PG_CATCH();
	{
		return failure_catch_row_error(&frame);
	}
	PG_END_TRY();
	return NULL;
}

static void
find_target(Preview *preview)
{
	preview->target_context = AllocSetContextCreate(preview->context, "bulk_action preview target",
													ALLOCSET_DEFAULT_SIZES);
	for (int left_out = 0; left_out <= preview->nfields; left_out++)
	{
		ErrorData *error;

		CHECK_FOR_INTERRUPTS();
		/* what the try before has found: there may be as many tries as columns */
		preview->target = NULL;
		MemoryContextReset(preview->target_context);
		error = try_target(preview);
		MemoryContextSwitchTo(preview->context);
		if (error == NULL)
		{
			preview->can_convert = true;
			return;
		}
		preview_document_error(&preview->document, error, 0, NULL);
		if (error->sqlerrcode != ERRCODE_UNDEFINED_COLUMN || error->column_name == NULL)
			return;
		leave_out(preview->action, error->column_name);
	}
}

/* ---- rows ---- */

/* Converts a cell, and shows what comes out; what stands in the way, or NULL. */
static ErrorData *
try_cell(Preview *preview, TargetColumn *column, const char *cell, Datum *value, char **shown)
{
	Subtransaction frame;

	subtransaction_begin(&frame, preview->context);
	PG_TRY();
	{
		*value = target_convert(column, cell);
		if (cell != NULL)
		{
			Oid  output;
			bool is_varlena;

			getTypeOutputInfo(column->type, &output, &is_varlena);
			*shown = OidOutputFunctionCall(output, *value);
		}
		subtransaction_end(&frame, true);
	}
	PG_CATCH();
	{
		return failure_catch_row_error(&frame);
	}
	PG_END_TRY();
	return NULL;
}

static void
bad_row(Preview *preview, int64 line, int code, const char *message)
{
	PreviewProblem problem = {.code = code, .line = line, .message = message};

	preview_document_problem(&preview->document, &problem);
	preview_document_bad_row(&preview->document, line, code, message);
}

/* True if the cell has a value; NULL where there is none to be compared. */
static bool
show_cell(Preview *preview, int64 line, int field, const CsvField *cell, Datum *value)
{
	TargetColumn *column = &preview->target->columns[field];
	CellMeaning   meaning = target_cell_meaning(preview->target, column, cell);
	bool          empty_key = column->is_key && (meaning == CELL_NULL ||
                                        (meaning == CELL_NOTHING && preview->target->found != FOUND_ERROR));
	PreviewCell   show = {.column = column->name, .is_empty = cell->is_null, .text = cell->data};
	ErrorData    *error = NULL;

	if (empty_key)
	{
		PreviewProblem problem = {
			.code = ERRCODE_NOT_NULL_VIOLATION,
			.line = line,
			.column = column->name,
			.message = "the key is empty"};

		preview_document_problem(&preview->document, &problem);
		show.code = problem.code;
		show.message = problem.message;
	}
	else if (meaning == CELL_NOTHING)
		show.is_kept = true;
	else
		error = try_cell(preview, column, meaning == CELL_NULL ? NULL : cell->data, value, &show.value);
	if (error != NULL)
	{
		preview_document_error(&preview->document, error, line, column->name);
		show.code = error->sqlerrcode;
		show.message = failure_text(error);
	}
	preview_document_cell(&preview->document, &show);
	return show.value != NULL && error == NULL;
}

/* Looks for a row above with the same key. */
static void
note_key(Preview *preview, int64 line, const Datum *values, const bool *is_set)
{
	Target   *target = preview->target;
	ShownKey *key = &preview->keys[preview->nkeys];

	key->line = line;
	for (int i = 0; i < target->nkeys; i++)
	{
		if (target->keys[i].field < 0 || !is_set[target->keys[i].field])
			return;
		key->values[i] = values[target->keys[i].field];
	}
	for (int i = preview->nkeys - 1; i >= 0; i--)
		if (target_compare_keys(target, preview->keys[i].values, key->values) == 0)
		{
			PreviewProblem problem = {
				.code = ERRCODE_CARDINALITY_VIOLATION,
				.line = line,
				.column = target_key_names(target),
				.message = psprintf("the key occurs more than once in the file: also in line %lld",
									(long long) preview->keys[i].line),
				.hint = "Option \"duplicates\" says what becomes of such rows."};

			preview_document_problem(&preview->document, &problem);
			break;
		}
	preview->nkeys++;
}

static void
show_record(Preview *preview, const CsvRecord *record)
{
	Target *target = preview->target;
	Datum  *values = palloc0(sizeof(Datum) * target->nfields);
	bool   *is_set = palloc0(sizeof(bool) * target->nfields);

	preview_document_begin_row(&preview->document, (int64) record->line);
	for (int f = 0; f < target->nfields; f++)
		if (target->columns[f].attnum != 0)
			is_set[f] = show_cell(preview, (int64) record->line, f, &record->fields[f], &values[f]);
	preview_document_end_row(&preview->document);
	note_key(preview, (int64) record->line, values, is_set);
}

/* True if there are more rows than the preview has room for. */
static bool
show_rows(Preview *preview, int max_rows)
{
	CsvRecord   record;
	CsvField   *padded = NULL;
	const char *message;
	int         code;

	preview->keys = palloc(sizeof(ShownKey) * (max_rows + 1));
	for (int n = 0;; n++)
	{
		CsvReaderStatus status = csv_reader_next(preview->source.reader, &record);

		CHECK_FOR_INTERRUPTS();
		if (status == CSV_READER_NO_MEMORY)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
		if (status == CSV_READER_END)
			return false;
		if (status == CSV_READER_NEED_MORE || n == max_rows)
			return true;
		if (!preview->can_convert)
			continue;
		if (status == CSV_READER_RECORD && preview->action->options.file.pad)
			segment_pad(&record, preview->nfields, &padded);
		code = segment_unreadable(status, &record, preview->source.encoding, &message);
		if (code != 0)
			bad_row(preview, (int64) record.line, code, message);
		else if (record.nfields != preview->nfields)
			bad_row(preview, (int64) record.line, ERRCODE_BAD_COPY_FILE_FORMAT,
					psprintf("the row has %d fields, the header has %d", record.nfields, preview->nfields));
		else
			show_record(preview, &record);
	}
}

/*
 * The check of a domain is user code: it becomes nobody else here either, though
 * by a cast in this session it might.  Undone with the subtransaction.
 */
static void
stay_oneself(void)
{
	Oid user;
	int context;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(user, context | SECURITY_LOCAL_USERID_CHANGE);
}

/* Everything that runs user code, or could. */
static void
look_at_file(Preview *preview, int max_rows)
{
	Subtransaction frame;

	subtransaction_begin(&frame, preview->context);
	stay_oneself();
	PG_TRY();
	{
		if (read_header(preview))
		{
			find_target(preview);
			preview_document_columns(&preview->document, preview->target, preview->header, preview->nfields);
			preview->document.more_rows = show_rows(preview, max_rows);
		}
		subtransaction_end(&frame, false);
	}
	PG_CATCH();
	{
		ReThrowError(subtransaction_catch(&frame));
	}
	PG_END_TRY();
}

static int
read_rows(FunctionCallInfo fcinfo)
{
	int rows = PG_ARGISNULL(4) ? -1 : PG_GETARG_INT32(4);

	if (rows < 0 || rows > MAX_ROWS)
		ereport(ERROR,
				(errcode(PG_ARGISNULL(4) ? ERRCODE_NULL_VALUE_NOT_ALLOWED : ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("rows must not be %s", PG_ARGISNULL(4) ? "null" : psprintf("%d", rows)),
				 errdetail("It can be a number from 0 to %d.", MAX_ROWS),
				 errhint("Leave the argument out to have 20.")));
	return rows;
}

Datum
bulk_action_preview(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	Preview       preview = {0};
	int           rows = read_rows(fcinfo);
	Datum         result;

	preview.context = AllocSetContextCreate(caller, "bulk_action preview", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(preview.context);
	preview.action = submission_for_preview(fcinfo);
	preview_document_begin(&preview.document);
	preview_source_read(preview.action, &preview.source);
	look_at_file(&preview, rows);
	result = preview_document_end(&preview.document, preview.action, &preview.source, caller);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(preview.context);
	return result;
}
