/*
 * transaction.h
 *		The order of calls around user code, kept in one place.
 *
 * See transaction.c for what each step is for.
 */
#ifndef BULK_ACTION_TRANSACTION_H
#define BULK_ACTION_TRANSACTION_H

#include "postgres.h"

/* Who submitted an action, and the settings in force at that moment. */
typedef struct Submitter
{
	Oid    role;         /* current_user at submit */
	Oid    session_role; /* session_user at submit */
	int    nsettings;
	char **names;
	char **values;
} Submitter;

typedef struct SubmitterFrame
{
	int guc_level;
} SubmitterFrame;

/* Once per process. */
extern void transaction_install(void);

/* Step 1: a fresh READ COMMITTED transaction, SPI connected, a snapshot pushed. */
extern void transaction_start(void);

/* The name of a role that acts; an error if it was dropped, even in the middle of the transaction. */
extern const char *submitter_name(Oid role);

/* Steps 3 and 5: what is between runs as the submitter. */
extern void submitter_enter(const Submitter *submitter, SubmitterFrame *frame);
extern void submitter_leave(const SubmitterFrame *frame);

/*
 * Step 7.  With a submitter, deferred user code at commit runs as him;
 * NULL where the transaction ran no user code.
 */
extern void transaction_commit(const Submitter *submitter, bool synchronous);

/* After an ERROR that the caller caught: back to no transaction. */
extern void transaction_abort(void);

/* Between identities: what DISCARD ALL does.  After an error the session is not fit for another. */
extern void session_discard(void);

#endif /* BULK_ACTION_TRANSACTION_H */
