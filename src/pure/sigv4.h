/*
 * sigv4.h
 *		AWS Signature Version 4 for S3 requests that carry no body.
 *
 * Source of the algorithm: "Signature Calculations for the Authorization
 * Header: Transferring Payload in a Single Chunk", Amazon S3 API Reference
 * (API/sig-v4-header-based-auth.html).  S3 differs from other AWS services in
 * that the path is encoded once and never normalised.
 *
 * Pure C11 and OpenSSL's libcrypto.  Nothing is allocated for the caller, no
 * function keeps state, all are safe to call from several threads.
 */
#ifndef BULK_ACTION_SIGV4_H
#define BULK_ACTION_SIGV4_H

#include <stddef.h>
#include <time.h>

/* SHA-256 of nothing, the x-amz-content-sha256 of every GET and HEAD. */
#define SIGV4_EMPTY_SHA256 \
	"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

/* Sizes in bytes, terminating zero included. */
#define SIGV4_DATE_SIZE          17 /* 20130524T000000Z */
#define SIGV4_SIGNATURE_SIZE     65 /* hexadecimal SHA-256 */
#define SIGV4_AUTHORIZATION_SIZE 1024

/* More headers or query parameters than this are SIGV4_TOO_LONG. */
#define SIGV4_MAX_PAIRS 16

typedef enum SigV4Status
{
	SIGV4_OK = 0,
	SIGV4_TOO_LONG,     /* an output or a limit does not suffice */
	SIGV4_BAD_ARGUMENT, /* no host header, malformed date, ... */
	SIGV4_CRYPTO_FAILED /* OpenSSL refused, e.g. for want of memory */
} SigV4Status;

/* A header or a query parameter, neither of them encoded. */
typedef struct SigV4Pair
{
	const char *name;
	const char *value; /* "" where there is none, never NULL */
} SigV4Pair;

typedef struct SigV4Credentials
{
	const char *access_key_id;
	const char *secret_access_key;
	const char *region; /* e.g. us-east-1 */
} SigV4Credentials;

typedef struct SigV4Request
{
	const char      *method;  /* GET, HEAD */
	const char      *path;    /* encoded, as it goes over the wire; "/" at
								 * least */
	const char      *query;   /* from sigv4_query_string(), or "" */
	const SigV4Pair *headers; /* all that are to be signed, in any order;
								 * must contain host, x-amz-date and
								 * x-amz-content-sha256; a session token goes
								 * here as x-amz-security-token */
	size_t           nheaders;
} SigV4Request;

/* Writes the moment `now` (seconds since 1970, UTC) as x-amz-date. */
extern SigV4Status sigv4_format_date(time_t now, char out[SIGV4_DATE_SIZE]);

/*
 * Encodes and sorts query parameters.  The result is both the canonical query
 * that is signed and the query that goes over the wire, without the `?`.
 */
extern SigV4Status sigv4_query_string(const SigV4Pair *parameters,
									  size_t           nparameters,
									  char *out, size_t out_size);

/*
 * Signs a request.  `signature` receives the bare signature and may be NULL;
 * `authorization` the value of the Authorization header.
 */
extern SigV4Status sigv4_sign(const SigV4Request     *request,
							  const SigV4Credentials *credentials,
							  char                    signature[SIGV4_SIGNATURE_SIZE],
							  char *authorization, size_t authorization_size);

/* The status as text for an error message. */
extern const char *sigv4_status_text(SigV4Status status);

#endif /* BULK_ACTION_SIGV4_H */
