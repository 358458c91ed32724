/*
 * copies.h
 *		Puts actions to rest that came here with a copy of their database.
 */
#ifndef BULK_ACTION_COPIES_H
#define BULK_ACTION_COPIES_H

#include "postgres.h"

/* Inside a transaction of the coordinator's; false: some could not be, for now. */
extern bool copies_put_to_rest(void);

#endif /* BULK_ACTION_COPIES_H */
