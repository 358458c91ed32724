/*
 * s3.c
 *		Reads objects from S3: what is there, and byte ranges of it.
 *
 * An object is pinned once, by HEAD, and every later GET carries the ETag of
 * the pin as If-Match, and its version if it has one: an object that is
 * replaced while it is being read is an error, never a mixture of two.  For
 * servers that ignore If-Match, ETag and total size of every answer are
 * compared as well.
 *
 * What may pass is tried again after a pause, a GET from the byte it has
 * reached.  Attempts are counted from the last byte that arrived, so a bad line
 * slows a transfer down but does not end it as long as it moves.
 */
#include "postgres.h"

#include <time.h>

#include "base/compat.h"
#include "base/error_codes.h"
#include "common/pg_prng.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pure/retry.h"
#include "pure/s3_uri.h"
#include "pure/sigv4.h"
#include "service/clean_text.h"
#include "service/http.h"
#include "service/s3.h"
#include "service/s3_report.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define CONNECT_TIMEOUT_MS 10000

/* A transfer below 1 KiB/s for half a minute is given up and begun anew. */
#define LOW_SPEED_BYTES   1024
#define LOW_SPEED_SECONDS 30

/*
 * Attempts without a byte of progress.  Pauses of 250 ms, doubling, make about
 * eight seconds in all: what lasts longer is for the caller's own, slower
 * retries.
 */
#define MAX_ATTEMPTS  6
#define RETRY_BASE_MS 250
#define RETRY_CAP_MS  10000

/* A server's wish (Retry-After) is followed so far. */
#define RETRY_AFTER_CAP_MS 30000

/* `versionId=` and a version id of up to 1024 bytes, encoded. */
#define QUERY_SIZE (16 + 3 * HTTP_VERSION_ID_SIZE)

struct S3Client
{
	HttpClient      *http;
	S3Endpoint       endpoint;
	S3Addressing     addressing;
	const char      *bucket;
	const char      *prefix;        /* "" where any key will do */
	SigV4Credentials credentials;   /* access_key_id NULL: anonymous */
	const char      *session_token; /* NULL: none */
	HttpResponse     response;      /* of the latest request; too large for the
								 * stack */
};

/* One request for an object, before it becomes HTTP. */
typedef struct ObjectRequest
{
	HttpMethod      method;
	const char     *key;
	const S3Object *pin;    /* NULL: whatever is there */
	int64           offset; /* with length > 0: ask for that range */
	size_t          length;
	char           *body; /* room for length bytes */
} ObjectRequest;

static bool
is_given(const char *text)
{
	return text != NULL && text[0] != '\0';
}

static char *
copy_text(MemoryContext context, const char *text)
{
	return MemoryContextStrdup(context, text != NULL ? text : "");
}

/* AWS's own endpoint of a region; China's are a partition of their own. */
static char *
default_endpoint(const char *region)
{
	return psprintf("https://s3.%s.amazonaws.com%s", region,
					strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
}

static void
set_endpoint(S3Client *client, const S3Config *config)
{
	char  problem[S3_URI_ERROR_SIZE];
	char *url = is_given(config->endpoint) ? pstrdup(config->endpoint) :
											 default_endpoint(config->region);

	if (!s3_endpoint_parse(url, &client->endpoint, problem, sizeof(problem)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid S3 endpoint \"%s\": %s", url, problem)));
	if (!client->endpoint.tls && !config->allow_http)
		ereport(ERROR,
				(errcode(ERRCODE_BULK_ACTION_HTTP_REFUSED),
				 errmsg("S3 endpoint \"%s\" is not encrypted", url),
				 errhint("Use an https endpoint, or set the option \"allow_http\" of the "
						 "foreign server.")));
	pfree(url);
}

S3Client *
s3_client_create(MemoryContext parent, const S3Config *config)
{
	MemoryContext context;
	S3Client     *client;
	HttpOptions   options = {
		  .ca_file = config->ca_file,
		  .allow_http = config->allow_http,
		  .allow_private_address = config->allow_private_address,
		  .connect_timeout_ms = CONNECT_TIMEOUT_MS,
		  .low_speed_bytes = LOW_SPEED_BYTES,
		  .low_speed_seconds = LOW_SPEED_SECONDS};

	context = AllocSetContextCreate(parent, "bulk_action S3 client",
									ALLOCSET_SMALL_SIZES);
	client = MemoryContextAllocZero(context, sizeof(S3Client));
	set_endpoint(client, config);
	client->addressing = config->virtual_host ? S3_ADDRESSING_VIRTUAL : S3_ADDRESSING_PATH;
	client->bucket = copy_text(context, config->bucket);
	client->prefix = copy_text(context, config->prefix);
	client->credentials.region = copy_text(context, config->region);
	if (is_given(config->access_key_id))
	{
		client->credentials.access_key_id = copy_text(context, config->access_key_id);
		client->credentials.secret_access_key = copy_text(context, config->secret_access_key);
		if (is_given(config->session_token))
			client->session_token = copy_text(context, config->session_token);
	}
	client->http = http_client_create(context, &options);
	return client;
}

static char *
object_uri(const S3Client *client, const char *key)
{
	return psprintf("s3://%s/%s", client->bucket, clean_text(key));
}

/* The server's options allow its users some keys; the others are not theirs. */
static void
check_prefix(const S3Client *client, const char *key)
{
	if (strncmp(key, client->prefix, strlen(client->prefix)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("may not read \"%s\"", object_uri(client, key)),
				 errdetail("Keys must begin with \"%s\", the prefix of the foreign server.",
						   client->prefix)));
}

static void
build_target(const S3Client *client, const char *key, S3Target *target)
{
	char  problem[S3_URI_ERROR_SIZE];
	char *utf8 = pg_server_to_any(key, (int) strlen(key), PG_UTF8);

	if (!s3_target_build(&client->endpoint, client->addressing, client->bucket,
						 utf8, target, problem, sizeof(problem)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid S3 object \"%s\": %s", object_uri(client, key), problem)));
	if (utf8 != key)
		pfree(utf8);
}

static void
check_sigv4(SigV4Status status)
{
	if (status != SIGV4_OK)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not sign an S3 request: %s", sigv4_status_text(status))));
}

/* Sends one request and waits for its answer, in client->response. */
static bool
perform(S3Client *client, const ObjectRequest *request)
{
	SigV4Pair   headers[HTTP_MAX_HEADERS]; /* host first */
	HttpHeader  http_headers[HTTP_MAX_HEADERS];
	int         n = 0;
	int         nhttp = 0;
	S3Target    target;
	char        date[SIGV4_DATE_SIZE];
	char        range[64];
	char        query[QUERY_SIZE] = "";
	char        authorization[SIGV4_AUTHORIZATION_SIZE];
	char       *path;
	HttpRequest http = {.method = request->method};
	bool        answered;

	build_target(client, request->key, &target);
	if (request->pin != NULL && request->pin->version_id != NULL)
	{
		SigV4Pair version = {"versionId", request->pin->version_id};

		check_sigv4(sigv4_query_string(&version, 1, query, sizeof(query)));
	}

	headers[n++] = (SigV4Pair){"host", target.authority};
	if (request->length > 0)
	{
		snprintf(range, sizeof(range), "bytes=" INT64_FORMAT "-" INT64_FORMAT,
				 request->offset, request->offset + (int64) request->length - 1);
		headers[n++] = (SigV4Pair){"range", range};
	}
	if (request->pin != NULL)
		headers[n++] = (SigV4Pair){"if-match", request->pin->etag};
	if (client->credentials.access_key_id != NULL)
	{
		check_sigv4(sigv4_format_date(time(NULL), date));
		headers[n++] = (SigV4Pair){"x-amz-date", date};
		headers[n++] = (SigV4Pair){"x-amz-content-sha256", SIGV4_EMPTY_SHA256};
		if (client->session_token != NULL)
			headers[n++] = (SigV4Pair){"x-amz-security-token", client->session_token};
	}

	/* curl makes the Host header itself, from the authority */
	for (int i = 1; i < n; i++)
		http_headers[nhttp++] = (HttpHeader){headers[i].name, headers[i].value};
	if (client->credentials.access_key_id != NULL)
	{
		SigV4Request to_sign = {
			.method = request->method == HTTP_HEAD ? "HEAD" : "GET",
			.path = target.path,
			.query = query,
			.headers = headers,
			.nheaders = (size_t) n};

		check_sigv4(sigv4_sign(&to_sign, &client->credentials, NULL,
							   authorization, sizeof(authorization)));
		http_headers[nhttp++] = (HttpHeader){"authorization", authorization};
	}

	path = psprintf("%s%s%s", target.path, query[0] != '\0' ? "?" : "", query);
	http.scheme = client->endpoint.tls ? "https" : "http";
	http.authority = target.authority;
	http.path = path;
	http.headers = http_headers;
	http.nheaders = nhttp;
	http.body = request->body;
	http.body_size = request->length;
	answered = http_request(client->http, &http, &client->response);
	pfree(path);
	return answered;
}

/* Pauses before the next attempt; `failures` counts from 1. */
static void
pause_before_retry(const S3Client *client, int failures)
{
	int64       delay_ms = retry_delay_ms(failures, RETRY_BASE_MS, RETRY_CAP_MS,
										  pg_prng_uint64(&pg_global_prng_state));
	TimestampTz end;

	if (client->response.retry_after_seconds > 0)
		delay_ms = Max(delay_ms, Min((int64) client->response.retry_after_seconds * 1000,
									 RETRY_AFTER_CAP_MS));
	end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay_ms);
	for (;;)
	{
		long left_ms;

		CHECK_FOR_INTERRUPTS();
		left_ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);
		if (left_ms <= 0)
			return;
		/* a clock that is set back must not prolong the pause */
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(left_ms, (long) delay_ms), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

static char *
text_or_null(const char *text)
{
	return text[0] != '\0' ? pstrdup(text) : NULL;
}

/*
 * A list of encodings without aws-chunked: that is how the object came to S3,
 * and Ceph remembers it.  NULL if nothing else is left.
 */
static char *
stored_encoding(const char *list)
{
	StringInfoData stored;

	initStringInfo(&stored);
	for (;;)
	{
		size_t length;

		list += strspn(list, ", ");
		length = strcspn(list, ", ");
		if (length == 0)
			break;
		if (length != strlen("aws-chunked") || pg_strncasecmp(list, "aws-chunked", length) != 0)
		{
			if (stored.len > 0)
				appendStringInfoString(&stored, ", ");
			appendBinaryStringInfo(&stored, list, (int) length);
		}
		list += length;
	}
	return stored.len > 0 ? stored.data : NULL;
}

/* Makes a pin of the latest response. */
static void
take_object(const S3Client *client, const char *uri, S3Object *out)
{
	const HttpResponse *response = &client->response;

	memset(out, 0, sizeof(*out));
	out->size = response->status == 206 ? response->range_total : response->content_length;
	if (out->size < 0)
		s3_report_bad_answer(uri, "The answer does not tell the size of the object.");
	if (response->etag[0] == '\0')
		s3_report_bad_answer(uri, "The answer has no ETag.");
	out->etag = pstrdup(response->etag);
	/* objects from before versioning was switched on have the version "null" */
	out->version_id = text_or_null(response->version_id);
	out->content_type = text_or_null(response->content_type);
	out->content_encoding = stored_encoding(response->content_encoding);
}

void
s3_head(S3Client *client, const char *key, S3Object *out)
{
	char         *uri = object_uri(client, key);
	ObjectRequest head = {.method = HTTP_HEAD, .key = key};
	char          first_byte;
	ObjectRequest probe = {.method = HTTP_GET, .key = key, .length = 1, .body = &first_byte};

	check_prefix(client, key);
	for (int attempt = 1;; attempt++)
	{
		bool answered = perform(client, &head);

		if (answered && client->response.status == 200)
			break;

		/* an error's reason is in its body, which the answer to HEAD lacks */
		if (answered && (attempt == MAX_ATTEMPTS || !s3_is_transient(&client->response)))
		{
			answered = perform(client, &probe);
			if (answered && client->response.status == 206)
				break;
		}
		if (attempt == MAX_ATTEMPTS || !s3_is_transient(&client->response))
			s3_report_error(uri, &client->response);
		pause_before_retry(client, attempt);
	}
	take_object(client, uri, out);
	pfree(uri);
}

/*
 * Checks that the latest response, a 206 whose body may have broken off, is
 * about the pinned object and begins where it was asked to.
 */
static void
check_part(const S3Client *client, const char *uri, const S3Object *pin,
		   const ObjectRequest *request)
{
	const HttpResponse *response = &client->response;

	if (response->range_first < 0 || response->range_last < 0)
		s3_report_bad_answer(uri, "The answer has no Content-Range.");
	if (response->range_total >= 0 && response->range_total != pin->size)
		s3_report_replaced(uri);
	if (response->etag[0] != '\0' && strcmp(response->etag, pin->etag) != 0)
		s3_report_replaced(uri);
	if (response->range_total < 0 ||
		response->range_first != request->offset ||
		response->range_last < response->range_first ||
		response->range_last >= request->offset + (int64) request->length)
		s3_report_bad_answer(uri, "The answer's Content-Range is not the one asked for.");
	if (response->body_length > (size_t) (response->range_last - response->range_first + 1))
		s3_report_bad_answer(uri, "The answer's body is longer than its Content-Range.");
}

size_t
s3_read_range(S3Client *client, const char *key, const S3Object *pin,
			  int64 offset, size_t length, char *buffer)
{
	char         *uri = object_uri(client, key);
	ObjectRequest request = {.method = HTTP_GET, .key = key, .pin = pin};
	size_t        done = 0;
	int           failures = 0;

	if (offset < 0 || offset > pin->size || length > (uint64) (pin->size - offset))
		elog(ERROR, "range of %zu bytes at " INT64_FORMAT " exceeds an object of " INT64_FORMAT,
			 length, offset, pin->size);
	check_prefix(client, key);

	while (done < length)
	{
		const HttpResponse *response = &client->response;
		bool                answered;
		bool                is_part;

		request.offset = offset + (int64) done;
		request.length = length - done;
		request.body = buffer + done;
		answered = perform(client, &request);

		is_part = response->status == 206 && (answered || s3_is_transient(response));
		if (is_part)
		{
			check_part(client, uri, pin, &request);
			done += response->body_length;
			if (done == length)
				break;
			if (response->body_length > 0)
				failures = 0;
		}
		if (!is_part && !s3_is_transient(response))
			s3_report_error(uri, response);
		if (++failures == MAX_ATTEMPTS)
		{
			if (answered && is_part)
				s3_report_bad_answer(uri, "The answer has no body.");
			s3_report_error(uri, response);
		}
		pause_before_retry(client, failures);
	}
	pfree(uri);
	return length;
}
