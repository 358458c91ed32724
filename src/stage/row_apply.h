/*
 * row_apply.h
 *		Applies rows of a batch to the target, a set of them at a time.
 */
#ifndef BULK_ACTION_ROW_APPLY_H
#define BULK_ACTION_ROW_APPLY_H

#include "postgres.h"

#include "stage/row_batch.h"

/* Why a row fails although no statement raised an error; it has changed nothing. */
typedef enum Refusal
{
	REFUSED_MISSING, /* its key is not in the table */
	REFUSED_DIFFERS  /* columns that must match do not */
} Refusal;

typedef struct RefusedRow
{
	int     row; /* of the batch */
	Refusal why;
} RefusedRow;

/* What became of some rows. */
typedef struct RowResults
{
	Outcomes    outcomes; /* but for failed and superseded */
	int         nrefused;
	RefusedRow *refused;
} RowResults;

/*
 * Applies rows that have converted, as the submitter.  Any error of a statement
 * is raised: then nothing of the call counts.  results, allocated in the
 * current memory context, starts empty.
 */
extern void rows_apply(RowBatch *batch, const int *rows, int n, RowResults *results);

/* Makes the plans, so that what is wrong with the table shows before a row is tried. */
extern void rows_prepare(RowBatch *batch);

/* Records the error of a row that was refused. */
extern void rows_fail_refused(RowBatch *batch, const RefusedRow *refused);

#endif /* BULK_ACTION_ROW_APPLY_H */
