/*
 * admin.h
 *		Who may decide for others.
 */
#ifndef BULK_ACTION_ADMIN_H
#define BULK_ACTION_ADMIN_H

#include "postgres.h"

/* Superusers may. */
extern bool is_admin(Oid role);

/* An error 42501 for everybody else; "what" completes "permission denied to". */
extern void admin_check(Oid role, const char *what);

#endif /* BULK_ACTION_ADMIN_H */
