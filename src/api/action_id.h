/*
 * action_id.h
 *		What is said about an action that does not exist, or not for the caller.
 */
#ifndef BULK_ACTION_ACTION_ID_H
#define BULK_ACTION_ACTION_ID_H

#include "postgres.h"

#include "utils/uuid.h"

extern char *action_id_text(const pg_uuid_t *id);

/*
 * Raises 42704.  One error for both, word for word: nobody shall find out by
 * trying which ids there are.
 */
extern _Noreturn void action_unknown(const pg_uuid_t *id);

#endif /* BULK_ACTION_ACTION_ID_H */
