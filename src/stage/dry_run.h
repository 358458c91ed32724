/*
 * dry_run.h
 *		Applies rows and takes it all back.
 */
#ifndef BULK_ACTION_DRY_RUN_H
#define BULK_ACTION_DRY_RUN_H

#include "postgres.h"

#include "utils/resowner.h"

typedef struct DryRun
{
	MemoryContext context;
	ResourceOwner owner;
} DryRun;

/*
 * What is done between these two, as the submitter, is undone.  An error in
 * between needs no dry_run_undo: transaction_abort ends all levels.
 */
extern void dry_run_begin(DryRun *run);

/* Runs what is deferred to the commit, which will find nothing; raises its errors. */
extern void dry_run_fire_deferred(void);
extern void dry_run_undo(const DryRun *run);

#endif /* BULK_ACTION_DRY_RUN_H */
