/*
 * s3.c
 *		Objects in S3: where they are, and how requests for them are signed.
 *
 * Reading itself is remote_object.c's.  Every request is signed anew, with
 * Signature Version 4, all its headers included.
 */
#include "postgres.h"

#include <time.h>

#include "base/error_codes.h"
#include "mb/pg_wchar.h"
#include "pure/s3_uri.h"
#include "pure/sigv4.h"
#include "service/clean_text.h"
#include "service/s3.h"
#include "utils/memutils.h"

typedef struct S3Credentials
{
	SigV4Credentials key;           /* access_key_id NULL: anonymous */
	const char      *session_token; /* NULL: none */
} S3Credentials;

static bool
is_given(const char *text)
{
	return text != NULL && text[0] != '\0';
}

/* AWS's own endpoint of a region; China's are a partition of their own. */
static char *
default_endpoint(const char *region)
{
	return psprintf("https://s3.%s.amazonaws.com%s", region,
					strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
}

static void
parse_endpoint(const S3Config *config, S3Endpoint *endpoint)
{
	char        problem[S3_URI_ERROR_SIZE];
	const char *url = is_given(config->endpoint) ? config->endpoint : default_endpoint(config->region);

	if (!s3_endpoint_parse(url, endpoint, problem, sizeof(problem)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid S3 endpoint \"%s\": %s", clean_text(url), problem)));
	if (!endpoint->tls && !config->allow_http)
		ereport(ERROR,
				(errcode(ERRCODE_BULK_ACTION_HTTP_REFUSED),
				 errmsg("S3 endpoint \"%s\" is not encrypted", clean_text(url)),
				 errhint("Use an https endpoint, or set the option \"allow_http\" of the "
						 "foreign server.")));
}

/* The server's options allow its users some keys; the others are not theirs. */
static void
check_prefix(const S3Config *config, const char *uri, const char *key)
{
	if (is_given(config->prefix) && strncmp(key, config->prefix, strlen(config->prefix)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("may not read \"%s\"", uri),
				 errdetail("Keys must begin with \"%s\", the prefix of the foreign server.",
						   config->prefix)));
}

static void
build_target(const S3Config *config, const S3Endpoint *endpoint, const char *uri, const char *key,
			 S3Target *target)
{
	char  problem[S3_URI_ERROR_SIZE];
	char *utf8 = pg_server_to_any(key, (int) strlen(key), PG_UTF8);

	if (!s3_target_build(endpoint, config->virtual_host ? S3_ADDRESSING_VIRTUAL : S3_ADDRESSING_PATH,
						 config->bucket, utf8, target, problem, sizeof(problem)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid S3 object \"%s\": %s", uri, problem)));
}

static void
check_sigv4(SigV4Status status)
{
	if (status != SIGV4_OK)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not sign an S3 request: %s", sigv4_status_text(status))));
}

static void
sign(const void *arg, HttpMethod method, const char *authority, const char *path, const char *query,
	 HttpHeader *headers, int *nheaders)
{
	const S3Credentials *credentials = arg;
	SigV4Pair            to_sign[HTTP_MAX_HEADERS + 1];
	SigV4Request         request = {
				.method = method == HTTP_HEAD ? "HEAD" : "GET",
				.path = path,
				.query = query,
				.headers = to_sign};
	char *date = palloc(SIGV4_DATE_SIZE);
	char *authorization = palloc(SIGV4_AUTHORIZATION_SIZE);

	check_sigv4(sigv4_format_date(time(NULL), date));
	headers[(*nheaders)++] = (HttpHeader){"x-amz-date", date};
	headers[(*nheaders)++] = (HttpHeader){"x-amz-content-sha256", SIGV4_EMPTY_SHA256};
	if (credentials->session_token != NULL)
		headers[(*nheaders)++] = (HttpHeader){"x-amz-security-token", credentials->session_token};

	/* curl makes the Host header itself, from the authority */
	to_sign[request.nheaders++] = (SigV4Pair){"host", authority};
	for (int i = 0; i < *nheaders; i++)
		to_sign[request.nheaders++] = (SigV4Pair){headers[i].name, headers[i].value};
	check_sigv4(sigv4_sign(&request, &credentials->key, NULL, authorization, SIGV4_AUTHORIZATION_SIZE));
	headers[(*nheaders)++] = (HttpHeader){"authorization", authorization};
}

RemoteObject *
s3_open(MemoryContext parent, const S3Config *config, const char *key)
{
	MemoryContext  context = AllocSetContextCreate(parent, "bulk_action S3 object", ALLOCSET_SMALL_SIZES);
	MemoryContext  old = MemoryContextSwitchTo(context);
	S3Endpoint     endpoint;
	S3Target      *target = palloc(sizeof(S3Target));
	S3Credentials *credentials = palloc0(sizeof(S3Credentials));
	RemoteAddress  address = {.kind = SOURCE_S3, .query = ""};
	HttpOptions    options = {
		   .ca_file = config->ca_file,
		   .allow_http = config->allow_http,
		   .allow_private_address = config->allow_private_address};
	RemoteObject *object;

	parse_endpoint(config, &endpoint);
	address.uri = psprintf("s3://%s/%s", config->bucket, clean_text(key));
	check_prefix(config, address.uri, key);
	build_target(config, &endpoint, address.uri, key, target);
	address.scheme = endpoint.tls ? "https" : "http";
	address.authority = target->authority;
	address.path = target->path;
	if (is_given(config->access_key_id))
	{
		credentials->key.region = pstrdup(config->region);
		credentials->key.access_key_id = pstrdup(config->access_key_id);
		credentials->key.secret_access_key =
			pstrdup(config->secret_access_key != NULL ? config->secret_access_key : "");
		if (is_given(config->session_token))
			credentials->session_token = pstrdup(config->session_token);
		address.sign = sign;
		address.credentials = credentials;
	}
	object = remote_object_create(context, &address, &options);
	MemoryContextSwitchTo(old);
	return object;
}
