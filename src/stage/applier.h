/*
 * applier.h
 *		Processing: applies the next chunk of a lane.
 */
#ifndef BULK_ACTION_APPLIER_H
#define BULK_ACTION_APPLIER_H

#include "postgres.h"

#include "pure/csv_reader.h"
#include "stage/jobs.h"

/*
 * Runs a processing task to its end, in one transaction or a few, with no
 * transaction open before and after, and tells the board.  False if the board
 * was not told, because more rows have failed than may: that is reported, and
 * the action must be closed.  Errors that are not a row's are raised, with the
 * transaction still open; applier_is_hopeless says whether the last one came
 * from preparing (the table, its columns, a privilege), so that trying again is
 * of no use.
 */
extern bool applier_run(const Action *action, const CsvField *header, int nfields, const Task *task);
extern bool applier_is_hopeless(void);

/*
 * True when the process should end and another one go on, because the columns
 * of a table that it has changed rows of are of other types than they were.
 */
extern bool applier_needs_new_session(void);

#endif /* BULK_ACTION_APPLIER_H */
