/*
 * error_report.h
 *	  Error reports: CSV with the failed rows of a file and what is wrong with
 *	  each, made so that it can be corrected and submitted again as it is.
 *
 * Columns are those of the file, in its order, then the four of
 * error_report_is_column().  A file that is a report itself has these already;
 * they are left out, so that a report of a report has the same columns.
 *
 * The first record is the header.  Records are separated by LF; none follows
 * the last one.  Lengths are bytes.  Errors are values.
 */
#ifndef BULK_ACTION_ERROR_REPORT_H
#define BULK_ACTION_ERROR_REPORT_H

#include "pure/row_codec.h"

#define ERROR_REPORT_MAX_FIELDS CSV_READER_DEFAULT_MAX_FIELDS

/* Is it one of _line, _error_code, _error_column, _error_message? */
extern bool error_report_is_column(const char *name, size_t len);

/*
 * Is it the name of a column that a file without a header has and that is
 * ignored, like _ignored_3?
 */
extern bool error_report_is_ignored(const char *name, size_t len);

/* What such names begin with; the number of the field follows. */
#define ERROR_REPORT_IGNORED "_ignored_"

/* A cell as it stands in its record, quotes included. */
typedef struct RawCell
{
	const char *data;
	size_t      len;
} RawCell;

/*
 * Cuts a record, without its line end, into cells.  Their number; 0 if it is no
 * record that a CSV reader with delimiter comma and quote " takes for a good
 * one, or if it has more than max_cells.
 */
extern int error_report_split(const char *raw, size_t len, RawCell *cells, int max_cells);

/* Belongs to the caller, who sets out and neutralize before the header. */
typedef struct ErrorReport
{
	RowBuffer *out;

	/*
	 * Puts an apostrophe before each cell that a spreadsheet could take for a
	 * formula: that begins with = + - @, a tab or a CR.
	 */
	bool neutralize;

	/* private */
	int     nfields;
	bool    left_out[ERROR_REPORT_MAX_FIELDS]; /* fields of the file that are columns of a report */
	RawCell cells[ERROR_REPORT_MAX_FIELDS];
} ErrorReport;

typedef struct ErrorReportRow
{
	const char *record; /* without its line end */
	size_t      record_len;

	/*
	 * The record is not what stands in the file, so its cells must not be taken
	 * for those of the row.
	 */
	bool     altered;
	CsvField line;
	CsvField code;
	CsvField column;
	CsvField message;
} ErrorReportRow;

typedef enum ErrorReportStatus
{
	ERROR_REPORT_OK,
	ERROR_REPORT_NO_MEMORY, /* out is as it was before the call */
	ERROR_REPORT_NO_HEADER  /* the header is no record */
} ErrorReportStatus;

/* Appends the header, given as it stands in the file, without a byte order mark. */
extern ErrorReportStatus error_report_header(ErrorReport *report, const char *header, size_t len);

/*
 * Appends a row: its cells as they stand.  A record that has not as many as the
 * header stands whole in the first column.
 */
extern ErrorReportStatus error_report_row(ErrorReport *report, const ErrorReportRow *row);

#endif /* BULK_ACTION_ERROR_REPORT_H */
