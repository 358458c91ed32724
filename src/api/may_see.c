/*
 * may_see.c
 *		The rule of visibility as SQL functions, for views, policies and purge.
 *
 * A view checks privileges on its tables as its owner, but functions in it run
 * as the caller: the current user is the one whose view it is.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "base/compat.h"
#include "service/visibility.h"

BULK_ACTION_FUNCTION(bulk_action_may_see);
BULK_ACTION_FUNCTION(bulk_action_may_be_seen_by);
BULK_ACTION_FUNCTION(bulk_action_is_admin);

Datum
bulk_action_may_see(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(visibility_may_see(GetUserId(), PG_GETARG_OID(0), PG_GETARG_DATUM(1)));
}

Datum
bulk_action_may_be_seen_by(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(visibility_may_see(PG_GETARG_OID(0), PG_GETARG_OID(1), PG_GETARG_DATUM(2)));
}

Datum
bulk_action_is_admin(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(visibility_is_admin(GetUserId()));
}
