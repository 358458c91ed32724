/*
 * action_id.c
 *		What is said about an action that does not exist, or not for the caller.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/fmgrprotos.h"

#include "api/action_id.h"

char *
action_id_text(const pg_uuid_t *id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)));
}

void
action_unknown(const pg_uuid_t *id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("bulk action \"%s\" does not exist", action_id_text(id)),
			 errdetail("There is no such action, or it is not one that you may see."),
			 errhint("The view bulk_action.bulk_actions lists your actions.")));
	pg_unreachable();
}
