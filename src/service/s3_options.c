/*
 * s3_options.c
 *		Which server of foreign-data wrapper bulk_action_s3 a user reads a
 *		bucket through, and what its options say.
 *
 * Messages never have a value of a user mapping in them.
 */
#include "postgres.h"

#include "catalog/pg_user_mapping.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "service/clean_text.h"
#include "service/foreign_servers.h"
#include "service/s3_options.h"

static const Wrapper s3_wrapper = {
	.name = S3_WRAPPER_NAME,
	.sources = "Sources in S3",
	.server = "server for S3",
	.object = "its bucket"};

static bool
has_prefix(const char *key, const char *prefix)
{
	return prefix == NULL || strncmp(key, prefix, strlen(prefix)) == 0;
}

/* A server without the option serves any bucket. */
static bool
serves_bucket(ForeignServer *server, const char *bucket)
{
	const char *served = server_option(server->options, "bucket");

	return served == NULL || strcmp(served, bucket) == 0;
}

static void
check_serves(ForeignServer *server, const char *bucket, const char *key)
{
	const char *prefix = server_option(server->options, "prefix");

	if (!serves_bucket(server, bucket))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("server \"%s\" does not serve bucket \"%s\"", server->servername, bucket),
				 errdetail("Its option \"bucket\" is \"%s\".",
						   server_option(server->options, "bucket")),
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
						  servers_names(wrong_prefix));
	else
		detail = psprintf("These serve other buckets: %s.", servers_names(usable));

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
	List     *usable = servers_usable(&s3_wrapper, user);
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
		if (!has_prefix(key, server_option(server->options, "prefix")))
			wrong_prefix = lappend(wrong_prefix, server);
		else if (server_option(server->options, "bucket") != NULL)
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
				 errdetail("You may use these: %s.", servers_names(found)),
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
		server = server_named(&s3_wrapper, wanted_server, user);
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
	ForeignServer *server = server_named(&s3_wrapper, server_name, user);
	S3Config      *config = palloc0(sizeof(S3Config));
	List          *credentials;
	const char    *addressing;

	check_user_mapping(server, user);
	credentials = GetUserMapping(user, server->serverid)->options;
	addressing = server_option(server->options, "addressing");

	config->endpoint = server_option(server->options, "endpoint");
	config->region = server_option(server->options, "region");
	if (config->region == NULL)
		config->region = S3_DEFAULT_REGION;
	config->bucket = server_option(server->options, "bucket");
	config->prefix = server_option(server->options, "prefix");
	config->virtual_host = addressing != NULL && strcmp(addressing, "virtual") == 0;
	config->ca_file = server_option(server->options, "ca_file");
	config->allow_http = server_option_is_true(server->options, "allow_http");
	config->allow_private_address = server_option_is_true(server->options, "allow_private_address");
	config->access_key_id = server_option(credentials, "access_key_id");
	config->secret_access_key = server_option(credentials, "secret_access_key");
	config->session_token = server_option(credentials, "session_token");
	return config;
}
