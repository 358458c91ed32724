/*
 * retention.h
 *		Forgets actions that ended long ago.
 */
#ifndef BULK_ACTION_RETENTION_H
#define BULK_ACTION_RETENTION_H

#include "postgres.h"

/*
 * A bounded piece of that work, if it is time for it, in a transaction of its
 * own; true if there is more of it.  Called by the coordinator in every round.
 */
extern bool retention_round(void);

#endif /* BULK_ACTION_RETENTION_H */
