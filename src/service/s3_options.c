/*
 * s3_options.c
 *		Which server of foreign-data wrapper bulk_action_s3 a user reads a
 *		bucket through, and what its options say.
 *
 * USAGE on the server is the right to read from its bucket.  GetUserMapping()
 * and GetForeignServer() check no privilege at all, so it is checked here,
 * both when an action is submitted and when its worker starts to read: it may
 * have been revoked in between.  Messages list only servers that the caller
 * may use, and never a value of a user mapping.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "service/clean_text.h"
#include "service/near_match.h"
#include "service/s3_options.h"

/* The value of an option, NULL if it is not set or empty. */
static char *
option_get(List *options, const char *name)
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

static bool
option_get_bool(List *options, const char *name)
{
	const char *value = option_get(options, name);
	bool        result = false;

	/* the validator lets only booleans in */
	return value != NULL && parse_bool(value, &result) && result;
}

/*
 * The servers of our wrapper that the user may use, by name.  There is no
 * index by wrapper, and there are never many servers.
 */
static List *
usable_servers(Oid user)
{
	Oid         wrapper = get_foreign_data_wrapper_oid(S3_WRAPPER_NAME, true);
	Relation    rel = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan;
	HeapTuple   tuple;
	List       *servers = NIL;

	scan = systable_beginscan(rel, ForeignServerNameIndexId, true, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_server form = (Form_pg_foreign_server) GETSTRUCT(tuple);

		if (form->srvfdw == wrapper && server_aclcheck(form->oid, user, ACL_USAGE) == ACLCHECK_OK)
			servers = lappend(servers, GetForeignServer(form->oid));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return servers;
}

static char *
server_names(List *servers)
{
	StringInfoData names;
	ListCell      *cell;

	initStringInfo(&names);
	foreach(cell, servers)
		appendStringInfo(&names, "%s\"%s\"", names.len > 0 ? ", " : "",
						 ((ForeignServer *) lfirst(cell))->servername);
	return names.data;
}

/* The server of that name, which must be of our wrapper and open to the user. */
static ForeignServer *
server_named(const char *name, Oid user)
{
	ForeignServer *server = GetForeignServerByName(name, true);

	if (server == NULL)
	{
		NearMatch match;
		ListCell *cell;

		near_match_start(&match, name);
		foreach(cell, usable_servers(user))
			near_match_offer(&match, ((ForeignServer *) lfirst(cell))->servername);
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("server \"%s\" does not exist", clean_text(name)),
				 errdetail("Sources in S3 are read through a server of foreign-data wrapper "
						   "\"%s\".",
						   S3_WRAPPER_NAME),
				 match.best != NULL ?
					 errhint("Perhaps you meant \"%s\".", match.best) :
					 errhint("CREATE SERVER %s FOREIGN DATA WRAPPER %s OPTIONS (...)",
							 clean_text(quote_identifier(name)), S3_WRAPPER_NAME)));
	}

	if (server->fdwid != get_foreign_data_wrapper_oid(S3_WRAPPER_NAME, true))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a server for S3", clean_text(name)),
				 errdetail("It belongs to another foreign-data wrapper than \"%s\".",
						   S3_WRAPPER_NAME),
				 errhint("Name a server of foreign-data wrapper \"%s\".", S3_WRAPPER_NAME)));

	if (server_aclcheck(server->serverid, user, ACL_USAGE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server %s", clean_text(name)),
				 errdetail("Role \"%s\" lacks USAGE on it, which is the right to read its bucket.",
						   GetUserNameFromId(user, false)),
				 errhint("GRANT USAGE ON FOREIGN SERVER %s TO %s.", clean_text(quote_identifier(name)),
						 quote_identifier(GetUserNameFromId(user, false)))));
	return server;
}

static bool
has_prefix(const char *key, const char *prefix)
{
	return prefix == NULL || strncmp(key, prefix, strlen(prefix)) == 0;
}

/* A server without the option serves any bucket. */
static bool
serves_bucket(ForeignServer *server, const char *bucket)
{
	const char *served = option_get(server->options, "bucket");

	return served == NULL || strcmp(served, bucket) == 0;
}

static void
check_serves(ForeignServer *server, const char *bucket, const char *key)
{
	const char *prefix = option_get(server->options, "prefix");

	if (!serves_bucket(server, bucket))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("server \"%s\" does not serve bucket \"%s\"", server->servername, bucket),
				 errdetail("Its option \"bucket\" is \"%s\".",
						   option_get(server->options, "bucket")),
				 errhint("Name a server that serves the bucket in option \"server\".")));

	if (!has_prefix(key, prefix))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("server \"%s\" does not serve key \"%s\"", server->servername, clean_text(key)),
				 errdetail("Keys must begin with \"%s\", its option \"prefix\".", prefix),
				 errhint("Put the object below that prefix, or name another server in option "
						 "\"server\".")));
}

static void
check_user_mapping(ForeignServer *server, Oid user)
{
	if (!SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(user),
							   ObjectIdGetDatum(server->serverid)) &&
		!SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
							   ObjectIdGetDatum(server->serverid)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no user mapping for role \"%s\" on server \"%s\"",
						GetUserNameFromId(user, false), server->servername),
				 errdetail("The mapping holds the credentials; there is none for PUBLIC either."),
				 errhint("CREATE USER MAPPING FOR %s SERVER %s OPTIONS (access_key_id '...', "
						 "secret_access_key '...')",
						 quote_identifier(GetUserNameFromId(user, false)),
						 quote_identifier(server->servername))));
}

static void
no_server_for(const char *bucket, const char *key, List *usable, List *wrong_prefix)
{
	char *detail;

	if (usable == NIL)
		detail = psprintf("You may not use any server of foreign-data wrapper \"%s\".",
						  S3_WRAPPER_NAME);
	else if (wrong_prefix != NIL)
		detail = psprintf("These serve the bucket, but their prefix excludes the key: %s.",
						  server_names(wrong_prefix));
	else
		detail = psprintf("These serve other buckets: %s.", server_names(usable));

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("no server that you may use serves \"s3://%s/%s\"", bucket, clean_text(key)),
			 errdetail("%s", detail),
			 errhint("Have a server created for the bucket (CREATE SERVER ... FOREIGN DATA "
					 "WRAPPER %s OPTIONS (bucket %s)), or USAGE on one granted.",
					 S3_WRAPPER_NAME, quote_literal_cstr(bucket))));
}

/*
 * The one usable server for the object.  A server made for the bucket counts
 * more than one for all buckets.
 */
static ForeignServer *
server_by_bucket(const char *bucket, const char *key, Oid user)
{
	List     *usable = usable_servers(user);
	List     *made_for = NIL;
	List     *open = NIL;
	List     *wrong_prefix = NIL;
	List     *found;
	ListCell *cell;

	foreach(cell, usable)
	{
		ForeignServer *server = (ForeignServer *) lfirst(cell);

		if (!serves_bucket(server, bucket))
			continue;
		if (!has_prefix(key, option_get(server->options, "prefix")))
			wrong_prefix = lappend(wrong_prefix, server);
		else if (option_get(server->options, "bucket") != NULL)
			made_for = lappend(made_for, server);
		else
			open = lappend(open, server);
	}
	found = made_for != NIL ? made_for : open;

	if (list_length(found) == 1)
		return (ForeignServer *) linitial(found);

	if (list_length(found) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("more than one server serves bucket \"%s\"", bucket),
				 errdetail("You may use these: %s.", server_names(found)),
				 errhint("Name one of them in option \"server\".")));

	if (list_length(wrong_prefix) == 1)
		check_serves((ForeignServer *) linitial(wrong_prefix), bucket, key);
	no_server_for(bucket, key, usable, wrong_prefix);
	return NULL;
}

char *
s3_server_for(const char *bucket, const char *key, const char *wanted_server, Oid user)
{
	ForeignServer *server;

	if (wanted_server != NULL)
	{
		server = server_named(wanted_server, user);
		check_serves(server, bucket, key);
	}
	else
		server = server_by_bucket(bucket, key, user);

	check_user_mapping(server, user);
	return pstrdup(server->servername);
}

S3Config *
s3_config_load(const char *server_name, Oid user)
{
	ForeignServer *server = server_named(server_name, user);
	S3Config      *config = palloc0(sizeof(S3Config));
	List          *credentials;
	const char    *addressing;

	check_user_mapping(server, user);
	credentials = GetUserMapping(user, server->serverid)->options;
	addressing = option_get(server->options, "addressing");

	config->endpoint = option_get(server->options, "endpoint");
	config->region = option_get(server->options, "region");
	if (config->region == NULL)
		config->region = S3_DEFAULT_REGION;
	config->bucket = option_get(server->options, "bucket");
	config->prefix = option_get(server->options, "prefix");
	config->virtual_host = addressing != NULL && strcmp(addressing, "virtual") == 0;
	config->ca_file = option_get(server->options, "ca_file");
	config->allow_http = option_get_bool(server->options, "allow_http");
	config->allow_private_address = option_get_bool(server->options, "allow_private_address");
	config->access_key_id = option_get(credentials, "access_key_id");
	config->secret_access_key = option_get(credentials, "secret_access_key");
	config->session_token = option_get(credentials, "session_token");
	return config;
}
