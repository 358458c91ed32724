/*
 * action_type.h
 *		What can be done with the rows of a file: the list of action types.
 */
#ifndef BULK_ACTION_ACTION_TYPE_H
#define BULK_ACTION_ACTION_TYPE_H

#include "postgres.h"

typedef enum ActionType
{
	ACTION_UPDATE,
	ACTION_INSERT,
	ACTION_UPSERT,
	ACTION_DELETE
} ActionType;

/* Their names, in the order of the enum; NULL comes last. */
extern const char *const action_types[];

/* An error (22023) if there is no such type. */
extern ActionType action_type_parse(const char *name);

#endif /* BULK_ACTION_ACTION_TYPE_H */
