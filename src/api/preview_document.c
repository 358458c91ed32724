/*
 * preview_document.c
 *		The JSON document that bulk_action_preview returns.
 *
 * Written as text, in the order in which things are found, and made into jsonb
 * at the end.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"

#include "api/preview_document.h"

/* ---- pieces of JSON ---- */

/* A comma, unless this is the first of an object or array. */
static void
append_comma(StringInfo json)
{
	if (json->len > 0 && strchr("{[", json->data[json->len - 1]) == NULL)
		appendStringInfoChar(json, ',');
}

static void
append_key(StringInfo json, const char *key)
{
	append_comma(json);
	escape_json(json, key);
	appendStringInfoChar(json, ':');
}

/* Leaves the key out where there is no text. */
static void
append_text(StringInfo json, const char *key, const char *text)
{
	if (text == NULL)
		return;
	append_key(json, key);
	escape_json(json, text);
}

static void
append_number(StringInfo json, const char *key, int64 number)
{
	append_key(json, key);
	appendStringInfo(json, INT64_FORMAT, number);
}

static void
append_boolean(StringInfo json, const char *key, bool value)
{
	append_key(json, key);
	appendStringInfoString(json, value ? "true" : "false");
}

static void
append_null(StringInfo json, const char *key)
{
	append_key(json, key);
	appendStringInfoString(json, "null");
}

static void
append_json(StringInfo json, const char *key, const StringInfoData *value, const char *end)
{
	append_key(json, key);
	appendBinaryStringInfo(json, value->data, value->len);
	appendStringInfoString(json, end);
}

/* {"code": ..., "message": ...} */
static void
append_error(StringInfo json, int code, const char *message)
{
	append_key(json, "error");
	appendStringInfoChar(json, '{');
	append_text(json, "code", unpack_sql_state(code));
	append_text(json, "message", message);
	appendStringInfoChar(json, '}');
}

/* ---- problems ---- */

void
preview_document_begin(PreviewDocument *document)
{
	memset(document, 0, sizeof(*document));
	initStringInfo(&document->columns);
	initStringInfo(&document->rows);
	initStringInfo(&document->problems);
	appendStringInfoChar(&document->columns, '[');
	appendStringInfoChar(&document->rows, '[');
	appendStringInfoChar(&document->problems, '[');
}

void
preview_document_problem(PreviewDocument *document, const PreviewProblem *problem)
{
	StringInfo json = &document->problems;

	append_comma(json);
	appendStringInfoChar(json, '{');
	if (problem->line > 0)
		append_number(json, "line", problem->line);
	append_text(json, "column", problem->column);
	append_text(json, "code", unpack_sql_state(problem->code));
	append_text(json, "message", problem->message);
	append_text(json, "detail", problem->detail);
	append_text(json, "hint", problem->hint);
	appendStringInfoChar(json, '}');
}

void
preview_document_error(PreviewDocument *document, const ErrorData *error, int64 line, const char *column)
{
	PreviewProblem problem = {
		.code = error->sqlerrcode,
		.line = line,
		.column = column != NULL ? column : error->column_name,
		.message = error->message != NULL ? error->message : "",
		.detail = error->detail,
		.hint = error->hint};

	preview_document_problem(document, &problem);
}

/* ---- columns ---- */

static void
append_column(StringInfo json, const TargetColumn *column)
{
	static const char *const overwrite[] = {
		[OVERWRITE_ALWAYS] = "always", [OVERWRITE_IF_EMPTY] = "only_if_empty", [OVERWRITE_NEVER] = "never"};

	append_text(json, "column", column->name);
	append_text(json, "type", format_type_with_typemod(column->type, column->typmod));
	append_boolean(json, "key", column->is_key);
	if (!column->is_key)
		append_text(json, "overwrite", overwrite[column->overwrite]);
	if (column->format != NULL)
		append_text(json, "format", column->format->text);
}

void
preview_document_columns(PreviewDocument *document, const Target *target,
						 const CsvField *header, int nfields)
{
	StringInfo json = &document->columns;

	for (int f = 0; f < nfields; f++)
	{
		const TargetColumn *column = target != NULL && target->columns != NULL ? &target->columns[f] : NULL;

		append_comma(json);
		appendStringInfoChar(json, '{');
		append_text(json, "header", header[f].data);
		if (column != NULL && column->attnum != 0)
			append_column(json, column);
		else
		{
			bool known = column != NULL && column->ignored != NULL;

			append_null(json, "column");
			append_text(json, "ignored", known ? column->ignored : "it was not come to, see problems");
		}
		appendStringInfoChar(json, '}');
	}
}

/* ---- rows ---- */

static void
begin_row(PreviewDocument *document, int64 line)
{
	append_comma(&document->rows);
	appendStringInfoChar(&document->rows, '{');
	append_number(&document->rows, "line", line);
}

void
preview_document_begin_row(PreviewDocument *document, int64 line)
{
	begin_row(document, line);
	append_key(&document->rows, "cells");
	appendStringInfoChar(&document->rows, '{');
}

void
preview_document_cell(PreviewDocument *document, const PreviewCell *cell)
{
	StringInfo json = &document->rows;

	append_key(json, cell->column);
	appendStringInfoChar(json, '{');
	if (cell->is_empty)
		append_null(json, "cell");
	else
		append_text(json, "cell", cell->text);
	if (cell->code != 0)
		append_error(json, cell->code, cell->message);
	else if (cell->is_kept)
		append_boolean(json, "kept", true);
	else if (cell->value == NULL)
		append_null(json, "value");
	else
		append_text(json, "value", cell->value);
	appendStringInfoChar(json, '}');
}

void
preview_document_end_row(PreviewDocument *document)
{
	appendStringInfoString(&document->rows, "}}");
}

void
preview_document_bad_row(PreviewDocument *document, int64 line, int code, const char *message)
{
	begin_row(document, line);
	append_error(&document->rows, code, message);
	appendStringInfoChar(&document->rows, '}');
}

/* ---- the whole ---- */

static void
append_source(StringInfo json, const PreviewSource *source)
{
	char delimiter[2] = {source->delimiter, '\0'};
	char quote[2] = {source->quote, '\0'};

	append_number(json, "bytes", source->size);
	append_text(json, "compression", source->compression);
	append_text(json, "encoding", source->encoding);
	append_boolean(json, "byte_order_mark", source->byte_order_mark);
	append_text(json, "delimiter", delimiter);
	append_text(json, "quote", source->quote != '\0' ? quote : NULL);
}

Datum
preview_document_end(PreviewDocument *document, const Action *action, const PreviewSource *source,
					 MemoryContext context)
{
	StringInfoData json;
	MemoryContext  old;
	Datum          result;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	append_source(&json, source);
	append_text(&json, "table", quote_qualified_identifier(action->target_schema, action->target_name));
	append_json(&json, "columns", &document->columns, "]");
	append_json(&json, "rows", &document->rows, "]");
	append_boolean(&json, "more_rows", document->more_rows);
	append_json(&json, "problems", &document->problems, "]");
	appendStringInfoChar(&json, '}');

	old = MemoryContextSwitchTo(context);
	result = DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
	MemoryContextSwitchTo(old);
	return result;
}
