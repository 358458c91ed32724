/*
 * wake.h
 *		Tells the coordinator of this database, after commit, that there is
 *		something to do.
 */
#ifndef BULK_ACTION_WAKE_H
#define BULK_ACTION_WAKE_H

#include "postgres.h"

/*
 * To be called by whoever has written an action or an event in the present
 * transaction.  Nothing happens if that transaction does not commit; PREPARE
 * TRANSACTION is refused from now on.
 */
extern void wake_after_commit(void);

#endif /* BULK_ACTION_WAKE_H */
