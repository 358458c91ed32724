/*
 * update_plan.h
 *		The set-wise statements that apply rows, and their plans.
 */
#ifndef BULK_ACTION_UPDATE_PLAN_H
#define BULK_ACTION_UPDATE_PLAN_H

#include "postgres.h"

#include "stage/row_batch.h"

/*
 * Updates the target with rows of a batch that set the same columns, no two
 * with the same key; returns how many were found.  Rows that set nothing are
 * only looked for.  Run as the submitter, SPI connected.
 */
extern uint64 update_plan_run(const RowBatch *batch, int column_set, const int *rows, int n);

/*
 * Makes plans for rows of a batch.  What goes wrong here is wrong with the
 * table or the statement, not with a row.
 */
extern void update_plan_prepare(const RowBatch *batch);

/* Forgets all plans; for a change of identity. */
extern void update_plan_forget(void);

#endif /* BULK_ACTION_UPDATE_PLAN_H */
