/*
 * subtransaction.c
 *		A subtransaction around user code.
 *
 * What it does can be undone when it fails, and what it does in a dry run is
 * undone in any case, before the books are written: conversions (the check of a
 * domain may be a function that writes), statements, triggers, and what they
 * deferred.  What is known of the rows by then (errors, counts) lies in memory
 * that was allocated outside, and is committed with the cursor as ever.  So a
 * dry run is cut into steps, isolates bad rows and goes on after a kill like a
 * real one.
 *
 * What user code deferred once more would be run by the commit, and could fail
 * there; in a dry run it is run before the end, and its failure is treated alike.
 *
 * Outside of transactions are sequences, session-level advisory locks and
 * whatever a trigger does elsewhere.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"

#include "stage/subtransaction.h"

void
subtransaction_begin(Subtransaction *frame, MemoryContext context)
{
	frame->context = context;
	frame->owner = CurrentResourceOwner;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
}

static void
go_back(const Subtransaction *frame)
{
	MemoryContextSwitchTo(frame->context);
	CurrentResourceOwner = frame->owner;
}

void
subtransaction_end(const Subtransaction *frame, bool keep)
{
	if (keep)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	go_back(frame);
}

ErrorData *
subtransaction_catch(const Subtransaction *frame)
{
	ErrorData *error;

	MemoryContextSwitchTo(frame->context);
	error = CopyErrorData();
	FlushErrorState();
	subtransaction_end(frame, false);
	return error;
}

/*
 * As CommitTransaction does it.  It frees the list of events, but none was in
 * it when the subtransaction began (our own tables have no triggers), so the
 * rollback finds what it expects.
 */
void
subtransaction_fire_deferred(void)
{
	AfterTriggerFireDeferred();
}
