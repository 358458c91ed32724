/*
 * row_batch.h
 *		The rows of a chunk, decoded and converted.
 */
#ifndef BULK_ACTION_ROW_BATCH_H
#define BULK_ACTION_ROW_BATCH_H

#include "postgres.h"

#include "stage/target.h"

typedef struct BatchRow
{
	int64       line;
	const char *raw; /* original cells, in the payload */
	size_t      raw_length;
	Datum      *values;     /* one per field; set where the column set has the field */
	Datum      *keys;       /* one per key column */
	int         column_set; /* index into the batch's sets */
	bool        failed;     /* does not convert: its error is in errors */
} BatchRow;

typedef struct RowBatch
{
	Target   *target;
	int       nrows;
	BatchRow *rows;
	int       nsets;
	bool    **sets; /* which fields a row sets; keys are in none */
	int       nerrors;
	RowError *errors; /* room for one per row */
} RowBatch;

/*
 * Decodes a payload of row_count rows and converts their cells, as the
 * submitter.  Rows that do not convert get all their errors at once.  Whatever
 * is allocated lives in the current memory context.
 */
extern RowBatch *row_batch_decode(Target *target, const char *payload, size_t length, int row_count);

/* Records the error of a row. */
extern void row_batch_fail(RowBatch *batch, int row, const RowError *error);

#endif /* BULK_ACTION_ROW_BATCH_H */
