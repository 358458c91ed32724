/*
 * submit_checks.h
 *		May this role submit, and may it change that table?
 */
#ifndef BULK_ACTION_SUBMIT_CHECKS_H
#define BULK_ACTION_SUBMIT_CHECKS_H

#include "postgres.h"

#include "stage/options.h"

/* What an entity's row says of its table. */
typedef struct EntityTarget
{
	const char *entity_type;
	Oid         table;
	const char *schema;
	const char *name;
	char      **key_columns;
	int         key_count;
	char      **update_columns;
	int         update_count; /* -1: every column that can be updated */
} EntityTarget;

/* The server, the database and the two roles; errors if no action can be submitted. */
extern void submitter_check(Oid user, Oid session_user);

/* The table is still what was registered, and the user may change it. */
extern void entity_target_check(const EntityTarget *target, ActionType type, const ActionOptions *options, Oid user);

#endif /* BULK_ACTION_SUBMIT_CHECKS_H */
