/*
 * visibility.h
 *		Who sees an action, and may control it.
 */
#ifndef BULK_ACTION_VISIBILITY_H
#define BULK_ACTION_VISIBILITY_H

#include "postgres.h"

/* Members of this role see and control the actions of all; empty: only superusers do. */
extern char *bulk_action_admin_role;

/* A superuser, or one with the privileges of the admin role. */
extern bool visibility_is_admin(Oid user);

/* The one rule; account_id is a text. */
extern bool visibility_may_see(Oid user, Oid submitted_role, Datum account_id);

#endif /* BULK_ACTION_VISIBILITY_H */
