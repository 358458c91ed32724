/*
 * ddl_hook.h
 *		Stops our processes in a database before a command that they would be
 *		in the way of, and lets them in again afterwards.
 */
#ifndef BULK_ACTION_DDL_HOOK_H
#define BULK_ACTION_DDL_HOOK_H

#include "postgres.h"

/* Hooks into ProcessUtility; called once, from _PG_init. */
extern void ddl_hook_install(void);

#endif /* BULK_ACTION_DDL_HOOK_H */
