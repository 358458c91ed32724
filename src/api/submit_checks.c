/*
 * submit_checks.c
 *		May this role submit, and may it change that table?
 *
 * Nothing here protects anything: a worker acts with the submitter's own
 * privileges, and the server checks them for every statement.  It is there so
 * that who forgot a GRANT is told so at once, in the session that can be
 * answered, and not minutes later by the state of an action.
 *
 * The roles are the exception.  A worker connects as the session user and
 * then does SET ROLE; an action must not be accepted from a role that could
 * not be taken on that way (inside a SECURITY DEFINER function, for one),
 * because the worker would be refused too.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "commands/dbcommands.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "api/submit_checks.h"
#include "api/table_columns.h"
#include "base/compat.h"
#include "service/board.h"

static void
check_server(void)
{
	if (!board_available())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("bulk actions are not running on this server"),
				 errdetail("The library \"bulk_action\" was not loaded when the server started."),
				 errhint("Add bulk_action to shared_preload_libraries and restart the server.")));

	if (GetDatabaseEncoding() != PG_UTF8)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("bulk actions need a database with encoding UTF8"),
				 errdetail("The encoding of this database is %s.", GetDatabaseEncodingName()),
				 errhint("Create a database with ENCODING 'UTF8'.")));

	if (InSecurityRestrictedOperation())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot submit a bulk action within a security-restricted operation"),
				 errdetail("Index expressions and the queries of materialized views run as one."),
				 errhint("Submit from a statement of your own.")));
}

static bool
may_log_in(Oid role)
{
	HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool      result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	return result;
}

void
submitter_check(Oid user, Oid session_user)
{
	const char *user_name = GetUserNameFromId(user, false);
	const char *session_name = GetUserNameFromId(session_user, false);

	check_server();

	if (user != session_user && !can_set_role(session_user, user))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to submit as role \"%s\"", user_name),
				 errdetail("Session user \"%s\" may not SET ROLE to it, as the workers will have "
						   "to.",
						   session_name),
				 errhint("Submit outside SECURITY DEFINER functions, or GRANT %s TO %s.",
						 quote_identifier(user_name), quote_identifier(session_name))));

	if (!may_log_in(session_user))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" cannot submit bulk actions", session_name),
				 errdetail("Workers connect as the session user, and this one may not log in."),
				 errhint("ALTER ROLE %s LOGIN, or connect as another role.",
						 quote_identifier(session_name))));

	if (database_aclcheck(MyDatabaseId, session_user, ACL_CONNECT) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" cannot submit bulk actions", session_name),
				 errdetail("Workers connect as the session user, and this one lacks CONNECT on "
						   "the database."),
				 errhint("GRANT CONNECT ON DATABASE %s TO %s.",
						 quote_identifier(get_database_name(MyDatabaseId)),
						 quote_identifier(session_name))));
}

/* Dropped and made anew, renamed or moved, it may no longer be what its owner registered. */
static void
check_unchanged(const EntityTarget *target)
{
	char *name = get_rel_name(target->table);
	char *schema =
		name != NULL ? get_namespace_name(get_rel_namespace(target->table)) : NULL;
	char relkind = name != NULL ? get_rel_relkind(target->table) : '\0';

	if (schema == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the table of entity type \"%s\" does not exist", target->entity_type),
				 errdetail("It was registered as %s.",
						   quote_qualified_identifier(target->schema, target->name)),
				 errhint("Have the entity type registered again.")));

	if (strcmp(name, target->name) != 0 || strcmp(schema, target->schema) != 0 ||
		(relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the table of entity type \"%s\" is not the one that was registered",
						target->entity_type),
				 errdetail("It was registered as %s, and is %s now.",
						   quote_qualified_identifier(target->schema, target->name),
						   quote_qualified_identifier(schema, name)),
				 errhint("Have the entity type registered again.")));
}

static bool
may_access(Oid table, AttrNumber column, Oid user, AclMode mode)
{
	return pg_class_aclcheck(table, user, mode) == ACLCHECK_OK ||
		   pg_attribute_aclcheck(table, column, user, mode) == ACLCHECK_OK;
}

static void
privilege_missing(const EntityTarget *target, Oid user, const char *missing, const char *grant)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for entity type \"%s\"", target->entity_type),
			 errdetail("Role \"%s\" lacks %s.", GetUserNameFromId(user, false), missing),
			 errhint("GRANT %s TO %s.", grant, quote_identifier(GetUserNameFromId(user, false)))));
}

static void
column_gone(const EntityTarget *target, const char *column)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of entity type \"%s\" does not exist", column,
					target->entity_type),
			 errdetail("Table %s had it when it was registered.",
					   quote_qualified_identifier(target->schema, target->name)),
			 errhint("Have the entity type registered again.")));
}

/* Every row is looked up by its key, which takes SELECT on all of its columns. */
static void
check_key(const EntityTarget *target, Oid user)
{
	StringInfoData missing;

	initStringInfo(&missing);
	for (int i = 0; i < target->key_count; i++)
	{
		TableColumn column;

		if (!table_column_named(target->table, target->key_columns[i], &column))
			column_gone(target, target->key_columns[i]);
		if (!may_access(target->table, column.number, user, ACL_SELECT))
			appendStringInfo(&missing, "%s%s", missing.len > 0 ? ", " : "",
							 quote_identifier(target->key_columns[i]));
	}
	if (missing.len > 0)
		privilege_missing(target, user,
						  psprintf("SELECT on the key (%s) of table %s", missing.data,
								   quote_qualified_identifier(target->schema, target->name)),
						  psprintf("SELECT (%s) ON %s", missing.data,
								   quote_qualified_identifier(target->schema, target->name)));
}

static bool
is_key_column(const EntityTarget *target, const char *name)
{
	for (int i = 0; i < target->key_count; i++)
	{
		if (strcmp(target->key_columns[i], name) == 0)
			return true;
	}
	return false;
}

/* The registered columns that exist and can be set; all such columns where none were named. */
static bool
next_updatable(const EntityTarget *target, int *position, TableColumn *column)
{
	if (target->update_count >= 0)
	{
		while (*position < target->update_count)
		{
			if (table_column_named(target->table, target->update_columns[(*position)++], column) &&
				column->why_fixed == NULL)
				return true;
		}
		return false;
	}

	while (*position < table_column_count(target->table))
	{
		if (table_column_at(target->table, ++(*position), column) && column->why_fixed == NULL &&
			!is_key_column(target, NameStr(column->name)))
			return true;
	}
	return false;
}

/*
 * Which columns a file sets is not known before it is read; one at least must
 * be allowed.
 */
static void
check_any_column(const EntityTarget *target, Oid user, AclMode mode, const char *name)
{
	TableColumn column;
	int         position = 0;
	bool        any = false;

	while (next_updatable(target, &position, &column))
	{
		if (may_access(target->table, column.number, user, mode))
			return;
		any = true;
	}
	/* A table may have nothing but its key, of which rows can be inserted. */
	for (int i = 0; mode == ACL_INSERT && i < target->key_count; i++)
		if (table_column_named(target->table, target->key_columns[i], &column))
		{
			if (may_access(target->table, column.number, user, mode))
				return;
			any = true;
		}

	if (!any)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("entity type \"%s\" has no column left to update", target->entity_type),
				 errdetail("The columns registered for table %s have been dropped or are "
						   "generated now.",
						   quote_qualified_identifier(target->schema, target->name)),
				 errhint("Have the entity type registered again.")));
	privilege_missing(target, user,
					  psprintf("%s on every registered column of table %s", name,
							   quote_qualified_identifier(target->schema, target->name)),
					  psprintf("%s ON %s", name, quote_qualified_identifier(target->schema, target->name)));
}

void
entity_target_check(const EntityTarget *target, ActionType type, const ActionOptions *options, Oid user)
{
	ActionType effective = options_effective_type(type, options);
	bool       inserts = effective == ACTION_INSERT || effective == ACTION_UPSERT;
	bool       updates = effective == ACTION_UPDATE || effective == ACTION_UPSERT;

	check_unchanged(target);
	if (namespace_aclcheck(get_rel_namespace(target->table), user, ACL_USAGE) != ACLCHECK_OK)
		privilege_missing(target, user,
						  psprintf("USAGE on schema %s", quote_identifier(target->schema)),
						  psprintf("USAGE ON SCHEMA %s", quote_identifier(target->schema)));
	if (type != ACTION_INSERT || options->on_conflict != CONFLICT_ERROR)
		check_key(target, user);
	if (updates)
		check_any_column(target, user, ACL_UPDATE, "UPDATE");
	if (inserts)
		check_any_column(target, user, ACL_INSERT, "INSERT");
	if (type == ACTION_DELETE && pg_class_aclcheck(target->table, user, ACL_DELETE) != ACLCHECK_OK)
		privilege_missing(target, user,
						  psprintf("DELETE on table %s", quote_qualified_identifier(target->schema, target->name)),
						  psprintf("DELETE ON %s", quote_qualified_identifier(target->schema, target->name)));
}
