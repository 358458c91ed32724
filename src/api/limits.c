/*
 * limits.c
 *		bulk_action_set_limits and bulk_action_clear_limits.
 *
 * A call says all limits of an account or a role: those that it does not name
 * are none.  So what is in force can be read in one row, and does not depend on
 * what was called before.  A row without any limit is one that exempts from
 * those for all others.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "service/bookkeeping.h"
#include "service/clean_text.h"
#include "service/visibility.h"
#include "service/wake.h"

BULK_ACTION_FUNCTION(bulk_action_set_limits);
BULK_ACTION_FUNCTION(bulk_action_clear_limits);

#define MAX_NAME_BYTES 255

/* The arguments after kind and name; the order of the columns. */
static const char *const limit_names[] = {
	"submissions_per_minute",
	"concurrent_actions",
	"queued_actions",
	"rows_per_second",
	"max_bytes",
	"max_rows",
};

#define FIRST_LIMIT  2
#define FIRST_BIGINT 4 /* in limit_names */

static Statement limits_write = {
	.sql = "INSERT INTO bulk_action_internal.limits AS l (kind, name, submissions_per_minute,"
		   " concurrent_actions, queued_actions, rows_per_second, max_bytes, max_rows)"
		   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
		   " ON CONFLICT (kind, name) DO UPDATE SET"
		   " submissions_per_minute = excluded.submissions_per_minute,"
		   " concurrent_actions = excluded.concurrent_actions, queued_actions = excluded.queued_actions,"
		   " rows_per_second = excluded.rows_per_second, max_bytes = excluded.max_bytes,"
		   " max_rows = excluded.max_rows",
	.argtypes = {TEXTOID, TEXTOID, INT4OID, INT4OID, INT4OID, INT4OID, INT8OID, INT8OID, InvalidOid},
};

static Statement limits_delete = {
	.sql = "DELETE FROM bulk_action_internal.limits WHERE kind = $1 AND name IS NOT DISTINCT FROM $2",
	.argtypes = {TEXTOID, TEXTOID, InvalidOid},
};

static void
check_admin(void)
{
	if (!visibility_is_admin(GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set limits for bulk actions"),
				 errdetail("Role \"%s\" is neither a superuser nor has it the role that bulk_action.admin_role says.",
						   GetUserNameFromId(GetUserId(), false)),
				 errhint("Ask an administrator of bulk actions.")));
}

static void
refuse_argument(const char *name, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid value for %s", name),
			 errdetail_internal("%s", detail), errhint("%s", hint)));
}

/* The first two arguments; returns the name if they stand for a role, else NULL. */
static char *
check_subject(FunctionCallInfo fcinfo)
{
	char *kind;
	char *name = NULL;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("kind must not be null"),
				 errdetail("It says what the limits are for."),
				 errhint("Give 'account' or 'role'.")));
	kind = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (strcmp(kind, "account") != 0 && strcmp(kind, "role") != 0)
		refuse_argument("kind", psprintf("It is \"%s\".", clean_text(kind)), "Give 'account' or 'role'.");
	if (!PG_ARGISNULL(1))
	{
		name = text_to_cstring(PG_GETARG_TEXT_PP(1));
		if (name[0] == '\0' || strlen(name) > MAX_NAME_BYTES)
			refuse_argument("name", psprintf("It has %zu bytes.", strlen(name)),
							"Give the name of an account or role, or leave it out for all that have no "
							"limits of their own.");
	}
	return strcmp(kind, "role") == 0 ? name : NULL;
}

static void
check_role(const char *name)
{
	if (!OidIsValid(get_role_oid(name, true)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("role \"%s\" does not exist", clean_text(name)),
				 errdetail("Limits of a role go by its name."),
				 errhint("Give the name of an existing role, as it is in pg_roles.")));
}

static void
check_limit(FunctionCallInfo fcinfo, int i)
{
	int64 value;

	if (PG_ARGISNULL(FIRST_LIMIT + i))
		return;
	value = i < FIRST_BIGINT ? PG_GETARG_INT32(FIRST_LIMIT + i) : PG_GETARG_INT64(FIRST_LIMIT + i);
	if (value <= 0)
		refuse_argument(limit_names[i], psprintf("It is %lld.", (long long) value),
						"Give a number from 1, or leave it out for no limit. To keep a role from "
						"submitting, REVOKE EXECUTE ON FUNCTION bulk_action.bulk_action_submit from it.");
}

/* Runs a statement of which the arguments are those of the function. */
static uint64
run(FunctionCallInfo fcinfo, Statement *statement)
{
	Datum       values[FIRST_LIMIT + lengthof(limit_names)];
	char        nulls[lengthof(values)];
	Bookkeeping bookkeeping;
	uint64      n;

	for (int i = 0; i < PG_NARGS(); i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	SPI_connect();
	bookkeeping_enter(&bookkeeping);
	n = statement_run(statement, values, nulls);
	bookkeeping_leave(&bookkeeping);
	SPI_finish();

	/* so that those for what is running or waits are in force at once */
	wake_after_commit();
	return n;
}

Datum
bulk_action_set_limits(PG_FUNCTION_ARGS)
{
	char *role;

	PreventCommandIfReadOnly("bulk_action_set_limits()");
	check_admin();
	role = check_subject(fcinfo);
	if (role != NULL)
		check_role(role);
	for (int i = 0; i < lengthof(limit_names); i++)
		check_limit(fcinfo, i);
	(void) run(fcinfo, &limits_write);
	PG_RETURN_VOID();
}

Datum
bulk_action_clear_limits(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("bulk_action_clear_limits()");
	check_admin();
	(void) check_subject(fcinfo);
	PG_RETURN_BOOL(run(fcinfo, &limits_delete) > 0);
}
