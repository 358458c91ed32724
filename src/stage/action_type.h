/*
 * action_type.h
 *		What can be done with the rows of a file: the list of action types.
 */
#ifndef BULK_ACTION_ACTION_TYPE_H
#define BULK_ACTION_ACTION_TYPE_H

#include "postgres.h"

/* All of them; NULL comes last. */
extern const char *const action_types[];

/* An error if there is no such type. */
extern void action_type_check(const char *name);

#endif /* BULK_ACTION_ACTION_TYPE_H */
