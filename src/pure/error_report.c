/*
 * error_report.c
 *	  Error reports: CSV with the failed rows of a file and what is wrong with
 *	  each, made so that it can be corrected and submitted again as it is.
 *
 * Cells are copied with their quotes, not read and written anew: "" is the
 * empty string and nothing is no value, and a person who compares the report
 * with the file should find what stands there.
 *
 * error_report_split() decides by itself what a good record is, in the same way
 * as csv_reader.c (the unit test and the fuzz target compare them), but without
 * copying anything.  A record that is none cannot have its cells in columns; as
 * one cell it is quoted, and so cannot swallow the rows after it.
 */
#include "pure/error_report.h"

#include <string.h>

static const char *const report_columns[] = {"_line", "_error_code", "_error_column", "_error_message"};

#define REPORT_COLUMNS ((int) (sizeof(report_columns) / sizeof(report_columns[0])))

bool
error_report_is_column(const char *name, size_t len)
{
	for (int i = 0; i < REPORT_COLUMNS; i++)
		if (len == strlen(report_columns[i]) && memcmp(name, report_columns[i], len) == 0)
			return true;
	return false;
}

bool
error_report_is_ignored(const char *name, size_t len)
{
	size_t start = strlen(ERROR_REPORT_IGNORED);

	if (len <= start || memcmp(name, ERROR_REPORT_IGNORED, start) != 0)
		return false;
	for (size_t i = start; i < len; i++)
		if (name[i] < '0' || name[i] > '9')
			return false;
	return true;
}

/* The end of the cell that begins there; NULL if it is none. */
static const char *
end_of_cell(const char *at, const char *end)
{
	if (at < end && *at == '"')
	{
		for (at++; at < end; at++)
		{
			if (*at == '\0')
				return NULL;
			if (*at != '"')
				continue;
			if (at + 1 < end && at[1] == '"')
				at++;
			else
				return at + 1 == end || at[1] == ',' ? at + 1 : NULL;
		}
		return NULL;
	}
	for (; at < end && *at != ','; at++)
		if (*at == '"' || *at == '\r' || *at == '\n' || *at == '\0')
			return NULL;
	return at;
}

int
error_report_split(const char *raw, size_t len, RawCell *cells, int max_cells)
{
	const char *end = raw + len;
	const char *at = raw;

	for (int n = 0; n < max_cells; n++)
	{
		const char *cell_end = end_of_cell(at, end);

		if (cell_end == NULL)
			return 0;
		cells[n].data = at;
		cells[n].len = (size_t) (cell_end - at);
		if (cell_end == end)
			return n + 1;
		at = cell_end + 1;
	}
	return 0;
}

/* ---- writing ---- */

static bool
is_formula(char first)
{
	return first == '=' || first == '+' || first == '-' || first == '@' || first == '\t' || first == '\r';
}

/*
 * Neutralises the cell that has just been written, from start on: no character
 * that would need quotes is added, so what is quoted stays so.
 */
static bool
neutralize(RowBuffer *out, size_t start)
{
	if (start < out->len && out->data[start] == '"')
		start++;
	if (start == out->len || !is_formula(out->data[start]))
		return true;
	if (!row_buffer_append(out, "'", 1))
		return false;
	memmove(out->data + start + 1, out->data + start, out->len - 1 - start);
	out->data[start] = '\'';
	return true;
}

static bool
append_raw_cell(const ErrorReport *report, const RawCell *cell)
{
	size_t start = report->out->len;

	return row_buffer_append(report->out, cell->data, cell->len) &&
		   (!report->neutralize || neutralize(report->out, start));
}

static bool
append_cell(const ErrorReport *report, const CsvField *cell)
{
	size_t start = report->out->len;

	return row_codec_append_cell(report->out, cell) &&
		   (!report->neutralize || neutralize(report->out, start));
}

static bool
append_cells(const ErrorReport *report)
{
	bool first = true;

	for (int i = 0; i < report->nfields; i++)
	{
		if (report->left_out[i])
			continue;
		if (!first && !row_buffer_append(report->out, ",", 1))
			return false;
		if (!append_raw_cell(report, &report->cells[i]))
			return false;
		first = false;
	}
	return true;
}

/* The whole record in the first column, the others empty. */
static bool
append_whole(const ErrorReport *report, const ErrorReportRow *row)
{
	CsvField whole = {row->record, row->record_len, false};
	bool     first = true;

	for (int i = 0; i < report->nfields; i++)
	{
		if (report->left_out[i])
			continue;
		if (!(first ? append_cell(report, &whole) : row_buffer_append(report->out, ",", 1)))
			return false;
		first = false;
	}
	return true;
}

/* ---- records ---- */

/* Is the cell of the header the name of a report's column?  None of these holds a quote. */
static bool
is_report_cell(const RawCell *cell)
{
	if (cell->len >= 2 && cell->data[0] == '"')
		return error_report_is_column(cell->data + 1, cell->len - 2);
	return error_report_is_column(cell->data, cell->len);
}

static bool
append_header(const ErrorReport *report)
{
	if (!append_cells(report))
		return false;
	for (int i = 0; i < REPORT_COLUMNS; i++)
		if (!row_buffer_append(report->out, ",", 1) ||
			!row_buffer_append(report->out, report_columns[i], strlen(report_columns[i])))
			return false;
	return true;
}

static bool
append_row(ErrorReport *report, const ErrorReportRow *row)
{
	const CsvField *added[] = {&row->line, &row->code, &row->column, &row->message};
	bool            split = !row->altered &&
				 error_report_split(row->record, row->record_len, report->cells,
									ERROR_REPORT_MAX_FIELDS) == report->nfields;

	if (!row_buffer_append(report->out, "\n", 1))
		return false;
	if (!(split ? append_cells(report) : append_whole(report, row)))
		return false;
	for (int i = 0; i < REPORT_COLUMNS; i++)
		if (!row_buffer_append(report->out, ",", 1) || !append_cell(report, added[i]))
			return false;
	return true;
}

/* All of it or nothing. */
static ErrorReportStatus
done(const ErrorReport *report, size_t start, bool complete)
{
	if (complete)
		return ERROR_REPORT_OK;
	report->out->len = start;
	return ERROR_REPORT_NO_MEMORY;
}

ErrorReportStatus
error_report_header(ErrorReport *report, const char *header, size_t len)
{
	size_t start = report->out->len;

	report->nfields = error_report_split(header, len, report->cells, ERROR_REPORT_MAX_FIELDS);
	if (report->nfields == 0)
		return ERROR_REPORT_NO_HEADER;
	for (int i = 0; i < report->nfields; i++)
		report->left_out[i] = is_report_cell(&report->cells[i]);
	return done(report, start, append_header(report));
}

ErrorReportStatus
error_report_row(ErrorReport *report, const ErrorReportRow *row)
{
	size_t start = report->out->len;

	return done(report, start, append_row(report, row));
}
