/*
 * duplicates.h
 *		Which rows of a lane are not applied because others have the same key.
 */
#ifndef BULK_ACTION_DUPLICATES_H
#define BULK_ACTION_DUPLICATES_H

#include "postgres.h"

#include "stage/jobs.h"
#include "stage/target.h"

/*
 * Compares the keys of a lane, whose cursor the caller has locked, and writes
 * down the duplicates among them.  Inside a transaction, neither in bookkeeping
 * nor as the submitter; what is allocated lives in the current memory context.
 */
extern void duplicates_find(const Action *action, Target *target, int lane);

#endif /* BULK_ACTION_DUPLICATES_H */
