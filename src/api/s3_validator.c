/*
 * s3_validator.c
 *		Checks the options of servers and user mappings of bulk_action_s3.
 *
 * The server calls this with all options at once, also when ALTER SERVER
 * changes but one of them, so rules that connect options can be checked here.
 * What is found wrong now would otherwise be found by a worker, in the middle
 * of the night.  Values of a user mapping are secret and stay out of messages.
 *
 * A CA file is opened by the server with its own rights, and what is wrong
 * with its contents would be told: only who may read the server's files may
 * name one.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "pure/s3_uri.h"
#include "service/clean_text.h"
#include "service/near_match.h"
#include "service/s3_options.h"

BULK_ACTION_FUNCTION(bulk_action_s3_validator);

#define MAX_REGION_LENGTH 63

static void check_text(const char *name, const char *value);
static void check_endpoint(const char *name, const char *value);
static void check_region(const char *name, const char *value);
static void check_bucket(const char *name, const char *value);
static void check_addressing(const char *name, const char *value);
static void check_ca_file(const char *name, const char *value);
static void check_boolean(const char *name, const char *value);
static void check_credential(const char *name, const char *value);

typedef struct OptionRule
{
	const char *name;
	Oid         catalog; /* of what it is an option */
	void (*check)(const char *name, const char *value);
} OptionRule;

static const OptionRule option_rules[] = {
	{"endpoint", ForeignServerRelationId, check_endpoint},
	{"region", ForeignServerRelationId, check_region},
	{"bucket", ForeignServerRelationId, check_bucket},
	{"prefix", ForeignServerRelationId, check_text},
	{"addressing", ForeignServerRelationId, check_addressing},
	{"ca_file", ForeignServerRelationId, check_ca_file},
	{"allow_http", ForeignServerRelationId, check_boolean},
	{"allow_private_address", ForeignServerRelationId, check_boolean},
	{"access_key_id", UserMappingRelationId, check_credential},
	{"secret_access_key", UserMappingRelationId, check_credential},
	{"session_token", UserMappingRelationId, check_credential},
};

/* One error for every bad value. */
static void
refuse_value(const char *name, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\"", name), errdetail("%s", detail),
			 errhint("%s", hint)));
}

static void
check_text(const char *name, const char *value)
{
	if (value[0] == '\0')
		refuse_value(name, "It is empty.", "Leave the option out, or give it a value.");
}

static void
check_endpoint(const char *name, const char *value)
{
	S3Endpoint endpoint;
	char       error[S3_URI_ERROR_SIZE];

	/* a password may stand there, so that such a value is not repeated */
	if (strchr(value, '@') != NULL)
		refuse_value(name, "It contains a user name or password.",
					 "Write it like https://s3.example.com:9000; credentials belong into CREATE "
					 "USER MAPPING.");
	if (!s3_endpoint_parse(value, &endpoint, error, sizeof(error)))
		refuse_value(name, psprintf("\"%s\": %s.", value, error),
					 "Write it like https://s3.example.com:9000, without bucket or path.");
}

/* It becomes part of a host name and of what is signed. */
static void
check_region(const char *name, const char *value)
{
	size_t length = strspn(value, "abcdefghijklmnopqrstuvwxyz"
								  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");

	if (length == 0 || length > MAX_REGION_LENGTH || value[length] != '\0')
		refuse_value(name,
					 psprintf("\"%s\": a region has 1 to %d letters, digits and hyphens.", value,
							  MAX_REGION_LENGTH),
					 "Write it like us-east-1.");
}

static void
check_bucket(const char *name, const char *value)
{
	char error[S3_URI_ERROR_SIZE];

	if (!s3_bucket_check(value, error, sizeof(error)))
		refuse_value(name, psprintf("\"%s\": %s.", value, error),
					 "Give the name of the bucket alone, or leave the option out to serve any "
					 "bucket.");
}

static void
check_addressing(const char *name, const char *value)
{
	if (strcmp(value, "path") != 0 && strcmp(value, "virtual") != 0)
		refuse_value(name, psprintf("\"%s\" is neither of the two ways.", value),
					 "Use \"path\" (endpoint/bucket/key) or \"virtual\" (bucket.endpoint/key).");
}

static void
check_ca_file(const char *name, const char *value)
{
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", name),
				 errdetail("Only members of role \"pg_read_server_files\" may name a file of the "
						   "server."),
				 errhint("Have the server created or altered by such a role, or leave the option "
						 "out to trust the system's certificates.")));
	if (!is_absolute_path(value))
		refuse_value(name, psprintf("\"%s\" is not an absolute path.", clean_text(value)),
					 "Give the path of a PEM file on the server, beginning with a slash.");
}

static void
check_boolean(const char *name, const char *value)
{
	bool result;

	if (!parse_bool(value, &result))
		refuse_value(name, psprintf("\"%s\" is not a boolean.", value), "Use \"true\" or "
																		"\"false\".");
}

/*
 * Credentials go into HTTP headers: printable ASCII without blanks.  An empty
 * value is as good as none.
 */
static void
check_credential(const char *name, const char *value)
{
	for (const char *c = value; *c != '\0'; c++)
	{
		if (*c <= ' ' || *c > '~')
			refuse_value(name, "It contains a blank, a line break or a character that is not "
							   "ASCII.",
						 "Copy it again, without blanks or line breaks around it.");
	}
}

static const OptionRule *
rule_find(const char *name, Oid catalog)
{
	NearMatch      match;
	StringInfoData valid;

	near_match_start(&match, name);
	initStringInfo(&valid);
	for (int i = 0; i < lengthof(option_rules); i++)
	{
		const OptionRule *rule = &option_rules[i];

		if (rule->catalog != catalog)
			continue;
		if (strcmp(rule->name, name) == 0)
			return rule;
		near_match_offer(&match, rule->name);
		appendStringInfo(&valid, "%s\"%s\"", valid.len > 0 ? ", " : "", rule->name);
	}

	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("invalid option \"%s\"", clean_text(name)),
			 valid.len > 0 ?
				 errdetail("The options here are: %s.", valid.data) :
				 errdetail("There are no options here."),
			 match.best != NULL ?
				 errhint("Perhaps you meant \"%s\".", match.best) :
				 errhint("%s", catalog == ForeignServerRelationId ?
								   "Credentials belong into CREATE USER MAPPING." :
								   "Endpoint, region and bucket belong into CREATE SERVER.")));
}

static const char *
option_value(List *options, const char *name)
{
	ListCell *cell;

	foreach(cell, options)
	{
		DefElem *option = (DefElem *) lfirst(cell);

		if (strcmp(option->defname, name) == 0)
			return defGetString(option);
	}
	return NULL;
}

static bool
option_is_true(List *options, const char *name)
{
	const char *value = option_value(options, name);
	bool        result = false;

	return value != NULL && parse_bool(value, &result) && result;
}

/* Endpoint, allow_http and addressing must agree. */
static void
check_server_options(List *options)
{
	const char *text = option_value(options, "endpoint");
	const char *addressing = option_value(options, "addressing");
	const char *bucket = option_value(options, "bucket");
	S3Endpoint  endpoint;
	S3Target    target;
	char        error[S3_URI_ERROR_SIZE];

	if (text == NULL || !s3_endpoint_parse(text, &endpoint, error, sizeof(error)))
		return;

	if (!endpoint.tls && !option_is_true(options, "allow_http"))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("endpoint \"%s\" is not encrypted", clean_text(text)),
				 errdetail("Without TLS, data and session tokens can be read on their way."),
				 errhint("Use an https:// endpoint, or add the option allow_http 'true'.")));

	if (addressing != NULL && strcmp(addressing, "virtual") == 0 &&
		!s3_target_build(&endpoint, S3_ADDRESSING_VIRTUAL, bucket != NULL ? bucket : "bucket",
						 "key",
						 &target, error, sizeof(error)))
		refuse_value("addressing", psprintf("Endpoint \"%s\": %s.", clean_text(text), error),
					 "Use addressing 'path' with this endpoint.");
}

/* A key without its secret, or the reverse, can sign nothing. */
static void
check_mapping_options(List *options)
{
	const char *key = option_value(options, "access_key_id");
	const char *secret = option_value(options, "secret_access_key");
	const char *token = option_value(options, "session_token");
	bool        has_key = key != NULL && key[0] != '\0';
	bool        has_secret = secret != NULL && secret[0] != '\0';

	if (has_key != has_secret)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 errmsg("option \"%s\" is required with \"%s\"",
						has_key ? "secret_access_key" : "access_key_id",
						has_key ? "access_key_id" : "secret_access_key"),
				 errdetail("Requests are signed with both together."),
				 errhint("Give both, or neither to read a public bucket without signing.")));

	if (token != NULL && token[0] != '\0' && !has_key)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 errmsg("option \"access_key_id\" is required with \"session_token\""),
				 errdetail("A session token belongs to temporary credentials and is of no use "
						   "alone."),
				 errhint("Give access_key_id, secret_access_key and session_token together.")));
}

Datum
bulk_action_s3_validator(PG_FUNCTION_ARGS)
{
	List     *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid       catalog = PG_GETARG_OID(1);
	ListCell *cell;

	foreach(cell, options)
	{
		DefElem          *option = (DefElem *) lfirst(cell);
		const OptionRule *rule = rule_find(option->defname, catalog);

		rule->check(rule->name, defGetString(option));
	}

	if (catalog == ForeignServerRelationId)
		check_server_options(options);
	else if (catalog == UserMappingRelationId)
		check_mapping_options(options);
	PG_RETURN_VOID();
}
