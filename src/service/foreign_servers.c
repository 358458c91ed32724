/*
 * foreign_servers.c
 *		Servers of our foreign-data wrappers: which there are, who may use them,
 *		and what their options say.
 *
 * USAGE on the server is the right to read through it.  GetUserMapping() and
 * GetForeignServer() check no privilege at all, so it is checked here, both
 * when an action is submitted and when its worker starts to read: it may have
 * been revoked in between.  Messages list only servers that the caller may use.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_foreign_server.h"
#include "commands/defrem.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "service/clean_text.h"
#include "service/foreign_servers.h"
#include "service/near_match.h"

char *
server_option(List *options, const char *name)
{
	ListCell *cell;

	foreach(cell, options)
	{
		DefElem *option = (DefElem *) lfirst(cell);

		if (strcmp(option->defname, name) == 0)
		{
			char *value = defGetString(option);

			return value[0] != '\0' ? value : NULL;
		}
	}
	return NULL;
}

bool
server_option_is_true(List *options, const char *name)
{
	const char *value = server_option(options, name);
	bool        result = false;

	/* the validator lets only booleans in */
	return value != NULL && parse_bool(value, &result) && result;
}

/* There is no index by wrapper, and there are never many servers. */
List *
servers_usable(const Wrapper *wrapper, Oid user)
{
	Oid         oid = get_foreign_data_wrapper_oid(wrapper->name, true);
	Relation    rel = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan;
	HeapTuple   tuple;
	List       *servers = NIL;

	scan = systable_beginscan(rel, ForeignServerNameIndexId, true, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_server form = (Form_pg_foreign_server) GETSTRUCT(tuple);

		if (form->srvfdw == oid && server_aclcheck(form->oid, user, ACL_USAGE) == ACLCHECK_OK)
			servers = lappend(servers, GetForeignServer(form->oid));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return servers;
}

char *
servers_names(List *servers)
{
	StringInfoData names;
	ListCell      *cell;

	initStringInfo(&names);
	foreach(cell, servers)
		appendStringInfo(&names, "%s\"%s\"", names.len > 0 ? ", " : "",
						 ((ForeignServer *) lfirst(cell))->servername);
	return names.data;
}

ForeignServer *
server_named(const Wrapper *wrapper, const char *name, Oid user)
{
	ForeignServer *server = GetForeignServerByName(name, true);

	if (server == NULL)
	{
		NearMatch match;
		ListCell *cell;

		near_match_start(&match, name);
		foreach(cell, servers_usable(wrapper, user))
			near_match_offer(&match, ((ForeignServer *) lfirst(cell))->servername);
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("server \"%s\" does not exist", clean_text(name)),
				 errdetail("%s are read through a server of foreign-data wrapper \"%s\".", wrapper->sources,
						   wrapper->name),
				 match.best != NULL ?
					 errhint("Perhaps you meant \"%s\".", match.best) :
					 errhint("CREATE SERVER %s FOREIGN DATA WRAPPER %s OPTIONS (...)",
							 clean_text(quote_identifier(name)), wrapper->name)));
	}

	if (server->fdwid != get_foreign_data_wrapper_oid(wrapper->name, true))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a %s", clean_text(name), wrapper->server),
				 errdetail("It belongs to another foreign-data wrapper than \"%s\".",
						   wrapper->name),
				 errhint("Name a server of foreign-data wrapper \"%s\".", wrapper->name)));

	if (server_aclcheck(server->serverid, user, ACL_USAGE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server %s", clean_text(name)),
				 errdetail("Role \"%s\" lacks USAGE on it, which is the right to read %s.",
						   GetUserNameFromId(user, false), wrapper->object),
				 errhint("GRANT USAGE ON FOREIGN SERVER %s TO %s.", clean_text(quote_identifier(name)),
						 quote_identifier(GetUserNameFromId(user, false)))));
	return server;
}
