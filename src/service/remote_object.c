/*
 * remote_object.c
 *		Reads a file over HTTP: what is there, and byte ranges of it.
 *
 * An object is pinned once, and every later GET carries the ETag of the pin as
 * If-Match, and its version if it has one: an object that is replaced while it
 * is being read is an error, never a mixture of two.  For servers that ignore
 * If-Match, ETag and total size of every answer are compared as well.
 *
 * In S3 the pin is a HEAD.  A presigned URL is good for GET only, so there it
 * is a GET of the first byte; and since nothing is known of the server, it has
 * to show by the answer that it serves ranges and tells versions apart.
 *
 * What may pass is tried again after a pause, a GET from the byte it has
 * reached.  Attempts are counted from the last byte that arrived, so a bad line
 * slows a transfer down but does not end it as long as it moves.
 */
#include "postgres.h"

#include "base/compat.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pure/retry.h"
#include "pure/sigv4.h"
#include "service/remote_object.h"
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
#define VERSION_QUERY_SIZE (16 + 3 * HTTP_VERSION_ID_SIZE)

struct RemoteObject
{
	RemoteAddress address;
	HttpClient   *http;
	MemoryContext request_context; /* reset before each request */
	HttpResponse  response;        /* of the latest request; too large for the stack */
};

/* One request, before it becomes HTTP. */
typedef struct ObjectRequest
{
	HttpMethod       method;
	const SourcePin *pin;    /* NULL: whatever is there */
	int64            offset; /* with length > 0: ask for that range */
	size_t           length;
	char            *body; /* room for length bytes */
} ObjectRequest;

RemoteObject *
remote_object_create(MemoryContext parent, const RemoteAddress *address, const HttpOptions *options)
{
	RemoteObject *object = MemoryContextAllocZero(parent, sizeof(RemoteObject));
	HttpOptions   timed = *options;

	timed.connect_timeout_ms = CONNECT_TIMEOUT_MS;
	timed.low_speed_bytes = LOW_SPEED_BYTES;
	timed.low_speed_seconds = LOW_SPEED_SECONDS;
	object->address = *address;
	object->request_context = AllocSetContextCreate(parent, "bulk_action request", ALLOCSET_SMALL_SIZES);
	object->http = http_client_create(parent, &timed);
	return object;
}

/* The query of a request, the pinned version in it. */
static const char *
query_for(const RemoteObject *object, const SourcePin *pin)
{
	const char *given = object->address.query;
	SigV4Pair   version = {"versionId", pin != NULL ? pin->version_id : NULL};
	char       *query;

	if (version.value == NULL)
		return given;
	Assert(given[0] == '\0');
	query = palloc(VERSION_QUERY_SIZE);
	if (sigv4_query_string(&version, 1, query, VERSION_QUERY_SIZE) != SIGV4_OK)
		source_report_bad_answer(object->address.kind, object->address.uri, "The version id is too long.");
	return query;
}

/* Sends one request and waits for its answer, in object->response. */
static bool
perform(RemoteObject *object, const ObjectRequest *request)
{
	const RemoteAddress *address = &object->address;
	MemoryContext        old;
	HttpHeader           headers[HTTP_MAX_HEADERS];
	int                  n = 0;
	const char          *query;
	HttpRequest          http = {.method = request->method};
	bool                 answered;

	MemoryContextReset(object->request_context);
	old = MemoryContextSwitchTo(object->request_context);
	query = query_for(object, request->pin);
	if (request->length > 0)
		headers[n++] = (HttpHeader){
			"range", psprintf("bytes=" INT64_FORMAT "-" INT64_FORMAT, request->offset,
							  request->offset + (int64) request->length - 1)};
	if (request->pin != NULL)
		headers[n++] = (HttpHeader){"if-match", request->pin->etag};
	if (address->sign != NULL)
		address->sign(address->credentials, request->method, address->authority, address->path, query,
					  headers, &n);

	http.scheme = address->scheme;
	http.authority = address->authority;
	http.path = psprintf("%s%s%s", address->path, query[0] != '\0' ? "?" : "", query);
	http.headers = headers;
	http.nheaders = n;
	http.body = request->body;
	http.body_size = request->length;
	answered = http_request(object->http, &http, &object->response);
	MemoryContextSwitchTo(old);
	return answered;
}

static bool
is_transient(const RemoteObject *object)
{
	return source_is_transient(&object->response);
}

static void
bad_answer(const RemoteObject *object, const char *detail)
{
	source_report_bad_answer(object->address.kind, object->address.uri, detail);
}

/* Pauses before the next attempt; `failures` counts from 1. */
static void
pause_before_retry(const RemoteObject *object, int failures)
{
	int64       delay_ms = retry_delay_ms(failures, RETRY_BASE_MS, RETRY_CAP_MS,
										  pg_prng_uint64(&pg_global_prng_state));
	TimestampTz end;

	if (object->response.retry_after_seconds > 0)
		delay_ms = Max(delay_ms, Min((int64) object->response.retry_after_seconds * 1000,
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

/* ---- the pin ---- */

/* Makes a pin of the latest response. */
static void
take_pin(const RemoteObject *object, SourcePin *pin)
{
	const HttpResponse *response = &object->response;

	memset(pin, 0, sizeof(*pin));
	pin->size = response->status == 200 ? response->content_length : response->range_total;
	if (pin->size < 0)
		bad_answer(object, "The answer does not tell the size of the object.");
	if (response->etag[0] == '\0')
		bad_answer(object, "The answer has no ETag.");
	/* S3's are always strong; others say by it that equal ones may differ byte by byte */
	if (object->address.kind == SOURCE_HTTPS && response->etag[0] != '"')
		bad_answer(object, "The answer's ETag is a weak one, by which a changed file cannot be noticed.");
	pin->etag = pstrdup(response->etag);
	/* objects from before versioning was switched on have the version "null" */
	if (object->address.kind == SOURCE_S3 && response->version_id[0] != '\0')
		pin->version_id = pstrdup(response->version_id);
}

/*
 * A server that does not know ranges sends the whole file, of which no more
 * was taken than asked for.
 */
static void
check_range_was_heard(const RemoteObject *object)
{
	if (object->address.kind == SOURCE_HTTPS && object->response.status == 200)
		bad_answer(object, "Asked for a part of the file (Range), the server sent all of it.");
}

/* Nothing has no first byte (RFC 9110, 15.5.17). */
static bool
is_empty(const RemoteObject *object)
{
	return object->address.kind == SOURCE_HTTPS && object->response.status == 416;
}

void
remote_object_pin(RemoteObject *object, SourcePin *pin)
{
	bool          by_head = object->address.kind == SOURCE_S3;
	char          first_byte;
	ObjectRequest head = {.method = HTTP_HEAD};
	ObjectRequest probe = {.method = HTTP_GET, .length = 1, .body = &first_byte};

	for (int attempt = 1;; attempt++)
	{
		bool answered = perform(object, by_head ? &head : &probe);

		if (answered && object->response.status == (by_head ? 200 : 206))
			break;
		check_range_was_heard(object);
		if (answered && is_empty(object))
		{
			memset(pin, 0, sizeof(*pin));
			pin->etag = pstrdup(object->response.etag);
			return;
		}

		/* an error's reason is in its body, which the answer to HEAD lacks */
		if (by_head && answered && (attempt == MAX_ATTEMPTS || !is_transient(object)))
		{
			answered = perform(object, &probe);
			if (answered && object->response.status == 206)
				break;
		}
		if (attempt == MAX_ATTEMPTS || !is_transient(object))
			source_report_error(object->address.kind, object->address.uri, &object->response);
		pause_before_retry(object, attempt);
	}
	take_pin(object, pin);
}

/* ---- ranges ---- */

/*
 * Checks that the latest response, a 206 whose body may have broken off, is
 * about the pinned object and begins where it was asked to.
 */
static void
check_part(const RemoteObject *object, const ObjectRequest *request)
{
	const HttpResponse *response = &object->response;
	const SourcePin    *pin = request->pin;

	if (response->range_first < 0 || response->range_last < 0)
		bad_answer(object, "The answer has no Content-Range.");
	if ((response->range_total >= 0 && response->range_total != pin->size) ||
		(response->etag[0] != '\0' && strcmp(response->etag, pin->etag) != 0))
		source_report_replaced(object->address.kind, object->address.uri);
	if (response->range_total < 0 ||
		response->range_first != request->offset ||
		response->range_last < response->range_first ||
		response->range_last >= request->offset + (int64) request->length)
		bad_answer(object, "The answer's Content-Range is not the one asked for.");
	if (response->body_length > (size_t) (response->range_last - response->range_first + 1))
		bad_answer(object, "The answer's body is longer than its Content-Range.");
}

void
remote_object_read(RemoteObject *object, const SourcePin *pin, int64 offset, size_t length, char *buffer)
{
	const HttpResponse *response = &object->response;
	ObjectRequest       request = {.method = HTTP_GET, .pin = pin};
	size_t              done = 0;
	int                 failures = 0;

	if (offset < 0 || offset > pin->size || length > (uint64) (pin->size - offset))
		elog(ERROR, "range of %zu bytes at " INT64_FORMAT " exceeds an object of " INT64_FORMAT,
			 length, offset, pin->size);

	while (done < length)
	{
		bool answered;
		bool is_part;

		request.offset = offset + (int64) done;
		request.length = length - done;
		request.body = buffer + done;
		answered = perform(object, &request);

		check_range_was_heard(object);
		is_part = response->status == 206 && (answered || is_transient(object));
		if (is_part)
		{
			check_part(object, &request);
			done += response->body_length;
			if (done == length)
				break;
			if (response->body_length > 0)
				failures = 0;
		}
		if (!is_part && !is_transient(object))
			source_report_error(object->address.kind, object->address.uri, response);
		if (++failures == MAX_ATTEMPTS)
		{
			if (answered && is_part)
				bad_answer(object, "The answer has no body.");
			source_report_error(object->address.kind, object->address.uri, response);
		}
		pause_before_retry(object, failures);
	}
}
