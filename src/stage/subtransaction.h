/*
 * subtransaction.h
 *		A subtransaction around user code.
 */
#ifndef BULK_ACTION_SUBTRANSACTION_H
#define BULK_ACTION_SUBTRANSACTION_H

#include "postgres.h"

#include "utils/resowner.h"

typedef struct Subtransaction
{
	MemoryContext context; /* the one to be in, before and after */
	ResourceOwner owner;
} Subtransaction;

extern void subtransaction_begin(Subtransaction *frame, MemoryContext context);

/* Ends it; what was done in it is kept, or undone. */
extern void subtransaction_end(const Subtransaction *frame, bool keep);

/*
 * To be called first in the PG_CATCH of a subtransaction: undoes it, and copies
 * the error into its context.
 */
extern ErrorData *subtransaction_catch(const Subtransaction *frame);

/* Runs what is deferred to the commit, which will find nothing; raises its errors. */
extern void subtransaction_fire_deferred(void);

#endif /* BULK_ACTION_SUBTRANSACTION_H */
