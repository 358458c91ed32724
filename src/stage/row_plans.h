/*
 * row_plans.h
 *		Plans of the statements that apply rows, and running them.
 */
#ifndef BULK_ACTION_ROW_PLANS_H
#define BULK_ACTION_ROW_PLANS_H

#include "postgres.h"

#include "utils/snapshot.h"

#include "stage/row_batch.h"
#include "stage/statements.h"

/*
 * Runs a statement on rows of a batch that set the same columns, no two with
 * the same key; returns how many rows of the table it found, changed or made.
 * If it numbers rows, it sets hit for those.  InvalidSnapshot: what others have
 * committed by now is seen.  Run as the submitter, SPI connected.
 */
extern uint64 row_plans_run(RowBatch *batch, StatementKind kind, int column_set, const int *rows, int n,
							bool *hit, Snapshot snapshot);

/* Whether rows with this set of columns have something to set where they are there. */
extern bool row_plans_sets_anything(const RowBatch *batch, int column_set);

/* Whether those that are as they would be can be left out before (statement_can_compare). */
extern bool row_plans_compares(const RowBatch *batch, int column_set);

/*
 * Makes plans for rows of a batch.  What goes wrong here is wrong with the
 * table or the statement, not with a row.
 */
extern void row_plans_prepare(RowBatch *batch, StatementKind kind);

/* Forgets all plans; for a change of identity. */
extern void row_plans_forget(void);

#endif /* BULK_ACTION_ROW_PLANS_H */
