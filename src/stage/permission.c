/*
 * permission.c
 *		Which role may run which type of action on which entity.
 *
 * A gate before the privileges on the table, not in place of them: rows are
 * applied with the submitter's own privileges in any case.  The owner of the
 * table (and a superuser) needs no permission.
 *
 * It is looked at when an action is submitted and again before each segment
 * and each chunk, so that revoking it ends what is waiting or running.  At run
 * time it counts only while the entity stands for the table that the action
 * was submitted for: what the owner of another table has granted since, under
 * the same name, says nothing about this one.
 *
 * A grantee is kept as its oid, in the type regrole: it follows renaming, and
 * pg_dump writes its name.  A role that was dropped has no privileges, and its
 * rows are deleted when one comes by.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "service/bookkeeping.h"
#include "service/transaction.h"
#include "stage/permission.h"

static bool
is_granted(const char *entity_type, const char *action_type, Oid table, Oid user)
{
	static Statement statement = {
		"SELECT FROM bulk_action_internal.permissions AS p"
		" JOIN bulk_action_internal.entities AS e ON e.entity_type = p.entity_type"
		" WHERE p.entity_type = $1 AND p.action_type = $2 AND e.target::oid = $3"
		" AND (p.grantee::oid = 0 OR EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = p.grantee::oid)"
		"  AND pg_catalog.pg_has_role($4, p.grantee::oid, 'USAGE')) LIMIT 1",
		{TEXTOID, TEXTOID, OIDOID, OIDOID}};
	Datum values[] = {CStringGetTextDatum(entity_type), CStringGetTextDatum(action_type),
					  ObjectIdGetDatum(table), ObjectIdGetDatum(user)};

	return statement_run(&statement, values, NULL) > 0;
}

void
permission_check(const char *entity_type, const char *action_type, Oid table, Oid user)
{
	const char *name;

	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(table)) || relation_ownercheck(table, user) ||
		is_granted(entity_type, action_type, table, user))
		return;
	name = submitter_name(user);
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for entity type \"%s\"", entity_type),
			 errdetail("Role \"%s\" does not own its table, and has not been granted \"%s\" on it.", name, action_type),
			 errhint("Have the owner of the table call bulk_action_grant('%s', %s, ARRAY['%s']).", entity_type,
					 quote_literal_cstr(name), action_type)));
}

void
permission_check_action(const Action *action)
{
	const char *type = action_types[options_effective_type(action->type, &action->options)];

	permission_check(action->entity_type, type, action->target, action->submitter.role);
}

void
permission_grant(const char *entity_type, Oid grantee, const char *action_type, const char *granted_by)
{
	static Statement statement = {
		"INSERT INTO bulk_action_internal.permissions (entity_type, grantee, action_type, granted_by)"
		" VALUES ($1, $2, $3, $4) ON CONFLICT (entity_type, grantee, action_type) DO NOTHING",
		{TEXTOID, OIDOID, TEXTOID, TEXTOID}};
	Datum values[] = {CStringGetTextDatum(entity_type), ObjectIdGetDatum(grantee), CStringGetTextDatum(action_type),
					  CStringGetTextDatum(granted_by)};

	(void) statement_run(&statement, values, NULL);
}

void
permission_revoke(const char *entity_type, Oid grantee, const char *action_type)
{
	static Statement statement = {
		"DELETE FROM bulk_action_internal.permissions"
		" WHERE entity_type = $1 AND grantee::oid = $2 AND action_type = $3",
		{TEXTOID, OIDOID, TEXTOID}};
	Datum values[] = {CStringGetTextDatum(entity_type), ObjectIdGetDatum(grantee), CStringGetTextDatum(action_type)};

	(void) statement_run(&statement, values, NULL);
}

void
permission_forget(const char *entity_type)
{
	static Statement statement = {"DELETE FROM bulk_action_internal.permissions WHERE entity_type = $1", {TEXTOID}};
	Datum            values[] = {CStringGetTextDatum(entity_type)};

	(void) statement_run(&statement, values, NULL);
}

void
permission_forget_dropped(void)
{
	static Statement statement = {
		"DELETE FROM bulk_action_internal.permissions WHERE ctid = ANY (ARRAY("
		" SELECT p.ctid FROM bulk_action_internal.permissions AS p WHERE p.grantee::oid <> 0"
		" AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = p.grantee::oid)"
		" FOR UPDATE OF p SKIP LOCKED))",
		{InvalidOid}};

	(void) statement_run(&statement, NULL, NULL);
}
