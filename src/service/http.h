/*
 * http.h
 *		A small HTTP/1.1 client for backends and background workers: one
 *		request at a time, interruptible, without redirects.
 *
 * A client keeps its connections open between requests.  It may be created
 * once and used for the life of the process; an ereport(ERROR) out of a
 * request (statement cancel, for one) leaves it usable.
 */
#ifndef BULK_ACTION_HTTP_H
#define BULK_ACTION_HTTP_H

#include "postgres.h"

/* Sizes in bytes, terminating zero included where it is text. */
#define HTTP_ERROR_BODY_SIZE   16384
#define HTTP_FAILURE_TEXT_SIZE 512
#define HTTP_HEADER_SIZE       256
#define HTTP_VERSION_ID_SIZE   1025

/* The most request headers that http_request() takes. */
#define HTTP_MAX_HEADERS 16

typedef struct HttpClient HttpClient;

typedef struct HttpOptions
{
	const char *ca_file;               /* PEM; NULL: the system's */
	bool        allow_http;            /* else https only */
	bool        allow_private_address; /* else no loopback, link-local,
										 * private, multicast addresses */
	int         connect_timeout_ms;    /* name resolution, TCP and TLS together */
	int         low_speed_bytes;       /* bytes per second below which a transfer
									 * counts as stalled */
	int         low_speed_seconds;     /* give up after so long below that */
} HttpOptions;

typedef enum HttpMethod
{
	HTTP_GET,
	HTTP_HEAD
} HttpMethod;

typedef struct HttpHeader
{
	const char *name;
	const char *value;
} HttpHeader;

typedef struct HttpRequest
{
	HttpMethod        method;
	const char       *scheme;    /* http or https */
	const char       *authority; /* host or [IPv6], and :port unless it is the
								 * scheme's own; goes out as Host header */
	const char       *path;      /* encoded, begins with a slash, may have a
								 * query */
	const HttpHeader *headers;   /* besides Host */
	int               nheaders;
	char             *body;      /* receives the body of a 2xx answer */
	size_t            body_size; /* bytes; a longer body is a failure */
} HttpRequest;

/* Why there was no complete answer. */
typedef enum HttpFailure
{
	HTTP_NO_FAILURE,
	HTTP_FAILURE_RESOLVE,         /* host name unknown, or no name server */
	HTTP_FAILURE_CONNECT,         /* refused, unreachable */
	HTTP_FAILURE_TLS,             /* handshake failed */
	HTTP_FAILURE_TLS_VERIFY,      /* certificate not trusted, or CA file bad */
	HTTP_FAILURE_RESET,           /* connection ended before the answer did */
	HTTP_FAILURE_TIMEOUT,         /* connect timeout, or stalled */
	HTTP_FAILURE_REFUSED_ADDRESS, /* allow_private_address is needed */
	HTTP_FAILURE_TOO_LONG,        /* body, header or headers beyond their limit */
	HTTP_FAILURE_OTHER
} HttpFailure;

/*
 * Texts are empty where the answer has no such header, numbers -1.  Header
 * texts are printable ASCII (other bytes are replaced by a question mark).
 */
typedef struct HttpResponse
{
	HttpFailure failure;
	char        failure_text[HTTP_FAILURE_TEXT_SIZE]; /* a sentence without full stop */

	/* 0 if the connection failed before it came; valid also if the body then broke off */
	int status;

	/* bytes of the request's body buffer that are filled; valid also after a failure */
	size_t body_length;

	int64 content_length;
	int64 range_first; /* Content-Range: bytes first-last/total */
	int64 range_last;
	int64 range_total;
	int   retry_after_seconds;
	char  etag[HTTP_HEADER_SIZE];
	char  request_id[HTTP_HEADER_SIZE];     /* x-amz-request-id */
	char  bucket_region[HTTP_HEADER_SIZE];  /* x-amz-bucket-region */
	char  version_id[HTTP_VERSION_ID_SIZE]; /* x-amz-version-id */

	/* the body of an answer that is not 2xx, its beginning at least; not ended by a zero */
	char   error_body[HTTP_ERROR_BODY_SIZE];
	size_t error_body_length;
} HttpResponse;

/*
 * Makes a client that lives until `parent` is reset or deleted.  The options
 * are copied.
 */
extern HttpClient *http_client_create(MemoryContext      parent,
									  const HttpOptions *options);

/*
 * Performs one request and waits for the end of its answer.  Returns whether
 * an answer came, whatever its status; if not, response->failure says why.
 * Raises an error only for interrupts, want of memory and misuse of curl.
 */
extern bool http_request(HttpClient *client, const HttpRequest *request,
						 HttpResponse *response);

#endif /* BULK_ACTION_HTTP_H */
