/*
 * preview_document.h
 *		The JSON document that bulk_action_preview returns.
 */
#ifndef BULK_ACTION_PREVIEW_DOCUMENT_H
#define BULK_ACTION_PREVIEW_DOCUMENT_H

#include "postgres.h"

#include "lib/stringinfo.h"

#include "api/preview_source.h"
#include "stage/target.h"

/* In the current memory context. */
typedef struct PreviewDocument
{
	StringInfoData columns;
	StringInfoData rows;
	StringInfoData problems;
	bool           more_rows; /* the file goes on after those that are shown */
} PreviewDocument;

extern void preview_document_begin(PreviewDocument *document);

typedef struct PreviewProblem
{
	int         code;   /* SQLSTATE */
	int64       line;   /* of the file; 0: not of a row */
	const char *column; /* of the table, or of the header; NULL: none */
	const char *message;
	const char *detail; /* may be NULL */
	const char *hint;   /* may be NULL */
} PreviewProblem;

extern void preview_document_problem(PreviewDocument *document, const PreviewProblem *problem);

/* The same of an error that was caught; without a column it is the error's. */
extern void preview_document_error(PreviewDocument *document, const ErrorData *error, int64 line, const char *column);

/* What each field of the header is for, as far as the target is known (NULL: not at all). */
extern void preview_document_columns(PreviewDocument *document, const Target *target,
									 const CsvField *header, int nfields);

/* ---- rows ---- */

typedef struct PreviewCell
{
	const char *column;
	bool        is_empty; /* in the file, and not quoted */
	const char *text;     /* as it stands in the file */
	bool        is_kept;  /* the column is left alone */
	char       *value;    /* what it becomes; NULL: SQL NULL, if it is not kept and has no error */
	int         code;     /* SQLSTATE; 0: it is good */
	const char *message;
} PreviewCell;

extern void preview_document_begin_row(PreviewDocument *document, int64 line);
extern void preview_document_cell(PreviewDocument *document, const PreviewCell *cell);
extern void preview_document_end_row(PreviewDocument *document);

/* A row that has no cells, because it cannot be read. */
extern void preview_document_bad_row(PreviewDocument *document, int64 line, int code, const char *message);

/* The document as jsonb, in the given memory context. */
extern Datum preview_document_end(PreviewDocument *document, const Action *action, const PreviewSource *source,
								  MemoryContext context);

#endif /* BULK_ACTION_PREVIEW_DOCUMENT_H */
