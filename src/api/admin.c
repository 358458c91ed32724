/*
 * admin.c
 *		Who may decide for others.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "api/admin.h"

bool
is_admin(Oid role)
{
	return superuser_arg(role);
}

void
admin_check(Oid role, const char *what)
{
	if (!is_admin(role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to %s", what),
				 errdetail("Role \"%s\" is not a superuser.", GetUserNameFromId(role, false)),
				 errhint("Ask an administrator of the database.")));
}
