/*
 * permission.h
 *		Which role may run which type of action on which entity.
 */
#ifndef BULK_ACTION_PERMISSION_H
#define BULK_ACTION_PERMISSION_H

#include "postgres.h"

#include "stage/jobs.h"

/* All inside bookkeeping, as in jobs.h. */

/*
 * An error unless the user owns the table or has been granted this; a table
 * that is gone is somebody else's to report.
 */
extern void permission_check(const char *entity_type, const char *action_type, Oid table, Oid user);

/* The same for an action that has been submitted. */
extern void permission_check_action(const Action *action);

/* Grants, or revokes, one action type; InvalidOid stands for everybody. */
extern void permission_grant(const char *entity_type, Oid grantee, const char *action_type, const char *granted_by);
extern void permission_revoke(const char *entity_type, Oid grantee, const char *action_type);

/* All that was granted on an entity type. */
extern void permission_forget(const char *entity_type);

/*
 * What was granted to roles that have been dropped, so that no later role with
 * the same oid inherits it; passes over rows that somebody has locked.
 */
extern void permission_forget_dropped(void);

#endif /* BULK_ACTION_PERMISSION_H */
