/*
 * https_validator.c
 *		Checks the options of servers of bulk_action_https.
 *
 * The server calls this with all options at once, also when ALTER SERVER
 * changes but one of them.  User mappings have no options: what the other side
 * asks for is in the URL.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "catalog/pg_foreign_server.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "api/option_rules.h"
#include "base/compat.h"
#include "pure/https_url.h"
#include "service/https_options.h"

BULK_ACTION_FUNCTION(bulk_action_https_validator);

static void check_host(const char *name, const char *value);
static void check_port(const char *name, const char *value);
static void check_prefix(const char *name, const char *value);

static const OptionRule option_rules[] = {
	{"host", ForeignServerRelationId, check_host},
	{"port", ForeignServerRelationId, check_port},
	{"prefix", ForeignServerRelationId, check_prefix},
	{"ca_file", ForeignServerRelationId, option_check_ca_file},
	{"allow_private_address", ForeignServerRelationId, option_check_boolean},
};

/* Whether this is a URL with nothing but that host, or that port, in it. */
static bool
makes_url(const char *format, const char *value)
{
	HttpsUrl url;
	char     error[S3_URI_ERROR_SIZE];

	return strpbrk(value, "/?\\#@") == NULL && https_url_parse(psprintf(format, value), &url, error, sizeof(error));
}

static void
check_host(const char *name, const char *value)
{
	/* an IPv6 address stands here without the brackets that a URL has */
	bool valid = strchr(value, ':') != NULL ? strpbrk(value, "[]") == NULL && makes_url("https://[%s]/", value) :
											  makes_url("https://%s/", value);

	if (strchr(value, '*') != NULL)
		option_refuse(name, psprintf("\"%s\" has a wildcard; it must be one host.", value),
					  "Create a server for each host.");
	if (!valid)
		option_refuse(name, psprintf("\"%s\" is not the name of a host.", value),
					  "Write it like files.example.com, without scheme, port or path.");
}

static void
check_port(const char *name, const char *value)
{
	if (value[0] == '\0' || !makes_url("https://host:%s/", value))
		option_refuse(name, psprintf("\"%s\" is not a number from 1 to 65535.", value),
					  "Leave the option out for port 443.");
}

static void
check_prefix(const char *name, const char *value)
{
	char error[S3_URI_ERROR_SIZE];

	if (!https_prefix_check(value, error, sizeof(error)))
		option_refuse(name, psprintf("\"%s\": %s.", value, error),
					  "Write it like /exports/, percent-encoded as in the URLs.");
}

Datum
bulk_action_https_validator(PG_FUNCTION_ARGS)
{
	List *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid   catalog = PG_GETARG_OID(1);

	option_rules_apply(option_rules, lengthof(option_rules), options, catalog,
					   "Servers have options for the host; users need no user mapping.");
	if (catalog == ForeignServerRelationId && option_value(options, "host") == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED), errmsg("option \"host\" is required"),
				 errdetail("A server of foreign-data wrapper \"%s\" allows files of one host.", HTTPS_WRAPPER_NAME),
				 errhint("CREATE SERVER ... OPTIONS (host 'files.example.com')")));
	PG_RETURN_VOID();
}
