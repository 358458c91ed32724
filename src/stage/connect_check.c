/*
 * connect_check.c
 *		Whether a worker could connect as the session user of an action.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "utils/acl.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "stage/connect_check.h"

bool
connect_check(Oid role, Oid database, Failure *failure)
{
	HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool      login = false;
	char     *name = NULL;

	memset(failure, 0, sizeof(*failure));
	failure->code = "28000";
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_authid form = (Form_pg_authid) GETSTRUCT(tuple);

		login = form->rolcanlogin;
		name = pstrdup(NameStr(form->rolname));
		ReleaseSysCache(tuple);
	}
	if (name == NULL)
		failure->message = psprintf("role with OID %u, which submitted the action, does not exist any more", role);
	else if (!login)
		failure->message = psprintf("role \"%s\" is not permitted to log in", name);
	else if (database_aclcheck(database, role, ACL_CONNECT) != ACLCHECK_OK)
		failure->message =
			psprintf("role \"%s\" may not connect to database \"%s\"", name, get_database_name(database));
	else
		return true;
	failure->hint = "Workers connect as the session user who submitted the action, who needs LOGIN and CONNECT.";
	return false;
}
