/*
 * dry_run.c
 *		Applies rows and takes it all back.
 *
 * With option dry_run all user code of a step runs in a subtransaction that is
 * rolled back before the books are written: conversions (the check of a domain
 * may be a function that writes), statements, triggers, and what they deferred.
 * What is known of the rows by then (errors, counts) lies in memory that was
 * allocated outside, and is committed with the cursor as ever.  So a dry run is
 * cut into steps, isolates bad rows and goes on after a kill like a real one.
 *
 * What user code deferred once more would be run by the commit, and could fail
 * there; here it is run before the rollback, and its failure is treated alike.
 *
 * Outside of transactions are sequences, session-level advisory locks and
 * whatever a trigger does elsewhere.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"

#include "stage/dry_run.h"

void
dry_run_begin(DryRun *run)
{
	run->context = CurrentMemoryContext;
	run->owner = CurrentResourceOwner;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(run->context);
}

/*
 * As CommitTransaction does it.  It frees the list of events, but none was in
 * it when the subtransaction began (our own tables have no triggers), so the
 * rollback finds what it expects.
 */
void
dry_run_fire_deferred(void)
{
	AfterTriggerFireDeferred();
}

void
dry_run_undo(const DryRun *run)
{
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(run->context);
	CurrentResourceOwner = run->owner;
}
