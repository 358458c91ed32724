/*
 * remote_object.h
 *		Reads a file over HTTP: what is there, and byte ranges of it.
 *
 * Every error is an ereport(ERROR).  Trouble that may pass (timeouts, dropped
 * connections, 5xx, 429) has been retried by then and has SQLSTATE class 08;
 * what will not pass has class BA (base/error_codes.h).  Both functions wait
 * on MyLatch and check for interrupts, and both may be called with no
 * transaction open.
 */
#ifndef BULK_ACTION_REMOTE_OBJECT_H
#define BULK_ACTION_REMOTE_OBJECT_H

#include "postgres.h"

#include "service/http.h"
#include "service/source.h"
#include "service/source_report.h"

/*
 * Adds to a request what proves who makes it: headers[*nheaders] and so on, up
 * to HTTP_MAX_HEADERS.  path and query are encoded, query may be empty.  What
 * is allocated in the current memory context lives as long as the request.
 */
typedef void (*RequestSigner)(const void *credentials, HttpMethod method, const char *authority,
							  const char *path, const char *query, HttpHeader *headers, int *nheaders);

/* Where an object is; all of it lives as long as the RemoteObject. */
typedef struct RemoteAddress
{
	SourceKind    kind;
	const char   *uri;       /* for messages: nothing secret is in it */
	const char   *scheme;    /* http or https */
	const char   *authority; /* see HttpRequest */
	const char   *path;      /* encoded */
	const char   *query;     /* encoded; "" if there is none */
	RequestSigner sign;      /* NULL: requests go out as they are */
	const void   *credentials;
} RemoteAddress;

typedef struct RemoteObject RemoteObject;

/*
 * Makes a reader that lives until `parent` is reset or deleted.  No network is
 * used yet.  Timeouts of the options are set here.
 */
extern RemoteObject *remote_object_create(MemoryContext parent, const RemoteAddress *address,
										  const HttpOptions *options);

/* Finds out size and identity.  Strings are allocated in CurrentMemoryContext. */
extern void remote_object_pin(RemoteObject *object, SourcePin *pin);

/*
 * Reads exactly `length` bytes from `offset` of what is pinned into `buffer`.
 * The range must lie within it.
 */
extern void remote_object_read(RemoteObject *object, const SourcePin *pin, int64 offset, size_t length,
							   char *buffer);

#endif /* BULK_ACTION_REMOTE_OBJECT_H */
