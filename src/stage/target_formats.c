/*
 * target_formats.c
 *		The format in which a file writes the values of a column.
 *
 * A format makes text of text, before the type's input function sees it, and is
 * part of target_convert, so that keys are hashed, compared and applied by what
 * they mean: 1.2.2024 and 01.02.2024 are one day.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "stage/target_formats.h"

/* The kind of format that goes with a type. */
static CellFormatKind
kind_of_type(Oid type)
{
	switch (type)
	{
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return CELL_FORMAT_DATE;
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
		case FLOAT4OID:
		case FLOAT8OID:
			return CELL_FORMAT_NUMBER;
		case BOOLOID:
			return CELL_FORMAT_BOOLEAN;
		default:
			return CELL_FORMAT_NONE;
	}
}

static void
format_mismatch(const TargetColumn *column, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("option \"columns\" gives column \"%s\" a format that it cannot have", column->name),
			 errdetail("The format is: %s. The column is of type %s. %s", column->format->text,
					   format_type_be(column->type), detail),
			 errhint("Correct the option, or leave the format out: then cells are read by the type's own rules.")));
}

void
target_choose_format(TargetColumn *column, const ActionOptions *options, const ColumnRule *rule)
{
	Oid            type = getBaseType(column->type);
	CellFormatKind kind = kind_of_type(type);

	if (rule != NULL && rule->format.cell.kind != CELL_FORMAT_NONE)
	{
		column->format = &rule->format;
		if (rule->format.cell.kind != kind)
			format_mismatch(column, "\"format\" is for date and timestamp, \"decimal\" and \"grouping\" are for "
									"integer, numeric and floating point, \"boolean\" is for boolean columns.");
		if (type == DATEOID && rule->format.cell.time_sign != '\0')
			format_mismatch(column, "The time would be lost.");
	}
	else
		column->format = type == DATEOID             ? &options->date_format :
						 kind == CELL_FORMAT_DATE    ? &options->timestamp_format :
						 kind == CELL_FORMAT_NUMBER  ? &options->number_format :
						 kind == CELL_FORMAT_BOOLEAN ? &options->boolean_format :
													   NULL;
	if (column->format != NULL && (column->format->own_rules || column->format->cell.kind == CELL_FORMAT_NONE))
		column->format = NULL;
}

static char *
list_words(void)
{
	StringInfoData list;

	initStringInfo(&list);
	for (const char *const *word = cell_format_true; *word != NULL; word++)
		appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", *word);
	appendStringInfoString(&list, " are true; ");
	for (const char *const *word = cell_format_false; *word != NULL; word++)
		appendStringInfo(&list, "%s%s", word != cell_format_false ? ", " : "", *word);
	appendStringInfoString(&list, " are false");
	return list.data;
}

char *
target_normalise(const TargetColumn *column, const char *cell)
{
	const ColumnFormat *format = column->format;
	size_t              length = strlen(cell);
	char               *out = palloc(CELL_FORMAT_SIZE(length));
	CellFormatStatus    status = cell_format_apply(&format->cell, cell, length, out);

	if (status == CELL_FORMAT_OK)
		return out;
	if (status == CELL_FORMAT_NO_DATE)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_FIELD_OVERFLOW),
				 errmsg("date/time field value out of range: \"%s\"", cell),
				 errdetail("There is no such day or time in the format \"%s\".", format->text)));
	switch (format->cell.kind)
	{
		case CELL_FORMAT_DATE:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_DATETIME_FORMAT),
					 errmsg("invalid input for the format \"%s\": \"%s\"", format->text, cell)));
			break;
		case CELL_FORMAT_NUMBER:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
					 errmsg("invalid input for a number with %s: \"%s\"", format->text, cell)));
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
					 errmsg("invalid input for a boolean: \"%s\"", cell),
					 errdetail("%s.", list_words())));
	}
	return NULL;
}
