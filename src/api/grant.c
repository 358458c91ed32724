/*
 * grant.c
 *		bulk_action_grant and bulk_action_revoke: who may run what on an entity.
 *
 * Both are for the owner of the entity's table.  Its row is locked while they
 * look, so that it cannot be pointed at somebody else's table meanwhile.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "api/entity_type.h"
#include "base/compat.h"
#include "service/bookkeeping.h"
#include "service/clean_text.h"
#include "stage/action_type.h"
#include "stage/permission.h"

BULK_ACTION_FUNCTION(bulk_action_grant);
BULK_ACTION_FUNCTION(bulk_action_revoke);

#define EVERYBODY "public"

static Statement entity_lock = {
	.sql = "SELECT target FROM bulk_action_internal.entities WHERE entity_type = $1 FOR SHARE",
	.argtypes = {TEXTOID, InvalidOid},
};

typedef struct Grant
{
	const char  *entity_type;
	Oid          grantee; /* InvalidOid: everybody */
	const char **types;
	int          count;
} Grant;

static char *
read_text(FunctionCallInfo fcinfo, int argument, const char *name)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name),
				 errdetail("An entity type and a grantee are needed; only action_types may be null: all of them."),
				 errhint("Call it like bulk_action_grant('contact', 'web_user').")));
	return text_to_cstring(PG_GETARG_TEXT_PP(argument));
}

static Oid
role_named(const char *name)
{
	Oid role;

	if (strcmp(name, EVERYBODY) == 0)
		return InvalidOid;
	role = get_role_oid(name, true);
	if (!OidIsValid(role))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("role \"%s\" does not exist", clean_text(name)),
				 errdetail("Names are compared as they are, upper and lower case included."),
				 errhint("Name a role, or '%s' for everybody.", EVERYBODY)));
	return role;
}

static void
all_types(Grant *grant)
{
	while (action_types[grant->count] != NULL)
		grant->count++;
	grant->types = palloc(sizeof(char *) * grant->count);
	memcpy(grant->types, action_types, sizeof(char *) * grant->count);
}

static void
named_types(Grant *grant, ArrayType *array)
{
	Datum *elements;
	bool  *nulls;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &grant->count);
	if (grant->count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("there are no action types"),
				 errdetail("The array is empty."),
				 errhint("Name at least one; NULL stands for all of them.")));
	grant->types = palloc(sizeof(char *) * grant->count);
	for (int i = 0; i < grant->count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("an action type must not be null"),
					 errdetail("Element %d of action_types is null.", i + 1),
					 errhint("NULL in place of the array stands for all of them.")));
		grant->types[i] = TextDatumGetCString(elements[i]);
		(void) action_type_parse(grant->types[i]);
	}
}

static Grant
read_arguments(FunctionCallInfo fcinfo)
{
	Grant grant = {0};

	grant.entity_type = read_text(fcinfo, 0, "entity_type");
	grant.grantee = role_named(read_text(fcinfo, 1, "grantee"));
	if (PG_ARGISNULL(2))
		all_types(&grant);
	else
		named_types(&grant, PG_GETARG_ARRAYTYPE_P(2));
	return grant;
}

static void
check_owner(const char *entity_type, Oid user)
{
	Datum values[1] = {CStringGetTextDatum(entity_type)};
	Oid   target;

	if (statement_run(&entity_lock, values, NULL) == 0)
		entity_type_unknown(entity_type);
	target = DatumGetObjectId(statement_value(0, 1, NULL));
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(target)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the table of entity type \"%s\" does not exist", entity_type),
				 errdetail("It has been dropped."), errhint("Have the entity type registered again.")));
	if (!relation_ownercheck(target, user))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for entity type \"%s\"", entity_type),
				 errdetail("It stands for a table that is not yours."),
				 errhint("Have the owner of that table grant or revoke.")));
}

static void
change_permissions(FunctionCallInfo fcinfo, bool give)
{
	Oid         user = GetUserId();
	Grant       grant;
	Bookkeeping bookkeeping;

	PreventCommandIfReadOnly(give ? "bulk_action_grant()" : "bulk_action_revoke()");
	grant = read_arguments(fcinfo);
	SPI_connect();
	bookkeeping_enter(&bookkeeping);
	check_owner(grant.entity_type, user);
	permission_forget_dropped();
	for (int i = 0; i < grant.count; i++)
	{
		if (give)
			permission_grant(grant.entity_type, grant.grantee, grant.types[i], GetUserNameFromId(user, false));
		else
			permission_revoke(grant.entity_type, grant.grantee, grant.types[i]);
	}
	bookkeeping_leave(&bookkeeping);
	SPI_finish();
}

Datum
bulk_action_grant(PG_FUNCTION_ARGS)
{
	change_permissions(fcinfo, true);
	PG_RETURN_VOID();
}

Datum
bulk_action_revoke(PG_FUNCTION_ARGS)
{
	change_permissions(fcinfo, false);
	PG_RETURN_VOID();
}
