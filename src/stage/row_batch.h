/*
 * row_batch.h
 *		The rows of a chunk, decoded and converted.
 */
#ifndef BULK_ACTION_ROW_BATCH_H
#define BULK_ACTION_ROW_BATCH_H

#include "postgres.h"

#include "access/tupdesc.h"

#include "stage/target.h"

typedef struct BatchRow
{
	int64       line;
	const char *raw; /* original cells, in the payload */
	size_t      raw_length;
	Datum      *values;     /* one per field; set where the column set has the field */
	bool       *nulls;      /* likewise */
	bool        has_key;    /* false: to be inserted with a key of the table's making */
	Datum      *keys;       /* one per key column, if it has one */
	int         column_set; /* index into the batch's sets */
	bool        skipped;    /* failed, its error is in errors; or superseded */
} BatchRow;

typedef struct RowBatch
{
	Target              *target;
	int                  nrows;
	BatchRow            *rows;
	int                  nsets;
	bool               **sets;     /* which fields a row gives a value, its key included */
	struct PreparedSet **prepared; /* STATEMENT_KINDS for each of them; row_plans.c fills it */
	TupleDesc            desc;     /* of STATEMENT_ROWS; likewise */
	int                  nerrors;
	RowError            *errors; /* room for one per row */

	/* Rows that are not applied because others of the file have their key. */
	const Duplicate *duplicates; /* of this chunk and beyond, in the order of lines */
	int              nduplicates;
	bool             duplicates_fail; /* else they are superseded */
	int              nsuperseded;
	SupersededRow   *superseded; /* in the order of rows */
} RowBatch;

/* An empty batch with room for row_count rows, in the current memory context. */
extern RowBatch *row_batch_create(Target *target, int row_count);

/*
 * Decodes a payload of row_count rows and converts their cells, as the
 * submitter.  Rows that do not convert get all their errors at once; those that
 * are among the duplicates are not converted.
 */
extern void row_batch_decode(RowBatch *batch, const char *payload, size_t length, int row_count);

/* Records the error of a row. */
extern void row_batch_fail(RowBatch *batch, int row, int sqlerrcode, const char *column, const char *message);

#endif /* BULK_ACTION_ROW_BATCH_H */
