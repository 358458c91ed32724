/*
 * s3_validator.c
 *		Checks the options of servers and user mappings of bulk_action_s3.
 *
 * The server calls this with all options at once, also when ALTER SERVER
 * changes but one of them, so rules that connect options can be checked here.
 * What is found wrong now would otherwise be found by a worker, in the middle
 * of the night.  Values of a user mapping are secret and stay out of messages.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "api/option_rules.h"
#include "base/compat.h"
#include "pure/s3_uri.h"
#include "service/clean_text.h"
#include "service/s3_options.h"

BULK_ACTION_FUNCTION(bulk_action_s3_validator);

#define MAX_REGION_LENGTH 63

static void check_endpoint(const char *name, const char *value);
static void check_region(const char *name, const char *value);
static void check_bucket(const char *name, const char *value);
static void check_addressing(const char *name, const char *value);
static void check_credential(const char *name, const char *value);

static const OptionRule option_rules[] = {
	{"endpoint", ForeignServerRelationId, check_endpoint},
	{"region", ForeignServerRelationId, check_region},
	{"bucket", ForeignServerRelationId, check_bucket},
	{"prefix", ForeignServerRelationId, option_check_text},
	{"addressing", ForeignServerRelationId, check_addressing},
	{"ca_file", ForeignServerRelationId, option_check_ca_file},
	{"allow_http", ForeignServerRelationId, option_check_boolean},
	{"allow_private_address", ForeignServerRelationId, option_check_boolean},
	{"access_key_id", UserMappingRelationId, check_credential},
	{"secret_access_key", UserMappingRelationId, check_credential},
	{"session_token", UserMappingRelationId, check_credential},
};

static void
check_endpoint(const char *name, const char *value)
{
	S3Endpoint endpoint;
	char       error[S3_URI_ERROR_SIZE];

	/* a password may stand there, so that such a value is not repeated */
	if (strchr(value, '@') != NULL)
		option_refuse(name, "It contains a user name or password.",
					  "Write it like https://s3.example.com:9000; credentials belong into CREATE "
					  "USER MAPPING.");
	if (!s3_endpoint_parse(value, &endpoint, error, sizeof(error)))
		option_refuse(name, psprintf("\"%s\": %s.", value, error),
					  "Write it like https://s3.example.com:9000, without bucket or path.");
}

/* It becomes part of a host name and of what is signed. */
static void
check_region(const char *name, const char *value)
{
	size_t length = strspn(value, "abcdefghijklmnopqrstuvwxyz"
								  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");

	if (length == 0 || length > MAX_REGION_LENGTH || value[length] != '\0')
		option_refuse(name,
					  psprintf("\"%s\": a region has 1 to %d letters, digits and hyphens.", value,
							   MAX_REGION_LENGTH),
					  "Write it like us-east-1.");
}

static void
check_bucket(const char *name, const char *value)
{
	char error[S3_URI_ERROR_SIZE];

	if (!s3_bucket_check(value, error, sizeof(error)))
		option_refuse(name, psprintf("\"%s\": %s.", value, error),
					  "Give the name of the bucket alone, or leave the option out to serve any "
					  "bucket.");
}

static void
check_addressing(const char *name, const char *value)
{
	if (strcmp(value, "path") != 0 && strcmp(value, "virtual") != 0)
		option_refuse(name, psprintf("\"%s\" is neither of the two ways.", value),
					  "Use \"path\" (endpoint/bucket/key) or \"virtual\" (bucket.endpoint/key).");
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
			option_refuse(name, "It contains a blank, a line break or a character that is not "
								"ASCII.",
						  "Copy it again, without blanks or line breaks around it.");
	}
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
		option_refuse("addressing", psprintf("Endpoint \"%s\": %s.", text, error),
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
	List *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid   catalog = PG_GETARG_OID(1);

	option_rules_apply(option_rules, lengthof(option_rules), options, catalog,
					   catalog == ForeignServerRelationId ?
						   "Credentials belong into CREATE USER MAPPING." :
						   "Endpoint, region and bucket belong into CREATE SERVER.");
	if (catalog == ForeignServerRelationId)
		check_server_options(options);
	else if (catalog == UserMappingRelationId)
		check_mapping_options(options);
	PG_RETURN_VOID();
}
