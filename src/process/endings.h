/*
 * endings.h
 *		How an action ends, or is put to rest, in the tables.
 */
#ifndef BULK_ACTION_ENDINGS_H
#define BULK_ACTION_ENDINGS_H

#include "postgres.h"

#include "stage/jobs.h"

/* A state that the action can leave again by itself: paused. */
extern bool ending_is_rest(const char *state);

/*
 * Inside a transaction: ends an action that nobody is inside of.  Before that
 * its books are audited: an action whose rows are not all accounted for has
 * failed, whatever it was about to be; so has one with dead letters, or with
 * too many errors.  False if that has to wait, because the chunks of a failed
 * action cannot be parked at this moment.
 */
extern bool ending_write(int64 action_no, const char *id, const char *state, const Failure *failure);

/* Inside a transaction: puts an action to rest that nobody is inside of.  False if that has to wait. */
extern bool ending_pause(int64 action_no, const char *id, const Failure *reason, int64 event_no);

/* Tells those who listen of what has ended or paused; inside a transaction of its own. */
extern bool ending_to_notify(void);
extern void ending_notify(void);

#endif /* BULK_ACTION_ENDINGS_H */
