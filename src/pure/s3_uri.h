/*
 * s3_uri.h
 *		The addresses of S3: s3://bucket/key, endpoint URLs, and the request
 *		target that both make together.
 *
 * Sources: "Bucket naming rules" and "Naming Amazon S3 objects" in the Amazon
 * S3 User Guide; UriEncode() in the S3 API Reference, "Signature Calculations
 * for the Authorization Header".
 *
 * Pure C11.  Functions that return bool return false on failure and then have
 * written one line of text, lower case and without full stop, to `error`; it
 * is truncated rather than overflowed.
 */
#ifndef BULK_ACTION_S3_URI_H
#define BULK_ACTION_S3_URI_H

#include <stdbool.h>
#include <stddef.h>

/* Limits of S3 in bytes, without the terminating zero. */
#define S3_BUCKET_MAX 63
#define S3_KEY_MAX    1024
#define S3_HOST_MAX   253 /* RFC 1035, a name without its final dot */

/* Large enough for every message of this module. */
#define S3_URI_ERROR_SIZE 256

typedef struct S3Uri
{
	char bucket[S3_BUCKET_MAX + 1];
	char key[S3_KEY_MAX + 1]; /* literal, not encoded */
} S3Uri;

typedef struct S3Endpoint
{
	bool tls;                   /* https */
	bool ipv6;                  /* host is an IPv6 address, without brackets */
	int  port;                  /* the scheme's own where none was given */
	char host[S3_HOST_MAX + 1]; /* lower case */
} S3Endpoint;

typedef enum S3Addressing
{
	S3_ADDRESSING_PATH,   /* endpoint/bucket/key */
	S3_ADDRESSING_VIRTUAL /* bucket.endpoint/key */
} S3Addressing;

/* Where a request for one object goes. */
typedef struct S3Target
{
	/* host, in brackets if IPv6, and port unless it is the scheme's own */
	char authority[S3_BUCKET_MAX + 1 + S3_HOST_MAX + 8 + 1];

	/* encoded, begins with a slash */
	char path[1 + S3_BUCKET_MAX + 1 + 3 * S3_KEY_MAX + 1];
} S3Target;

/* Parses s3://bucket/key; the key is everything after the bucket's slash. */
extern bool s3_uri_parse(const char *text, S3Uri *uri,
						 char *error, size_t error_size);

/* Checks a bucket name: 3 to 63 of a-z, 0-9, dot, hyphen, and no IP address. */
extern bool s3_bucket_check(const char *bucket,
							char *error, size_t error_size);

/*
 * Checks a key: 1 to 1024 bytes, no segment that is "." or "..".  Those are
 * legal in S3, but gateways and proxies that normalise paths would take such a
 * request to another key, or out of the bucket.
 */
extern bool s3_key_check(const char *key, char *error, size_t error_size);

/*
 * Parses an endpoint: http:// or https://, host, optional port, optional final
 * slash; no path, query, fragment or user name.
 */
extern bool s3_endpoint_parse(const char *text, S3Endpoint *endpoint,
							  char *error, size_t error_size);

/* Joins endpoint, bucket and key to what a request needs. */
extern bool s3_target_build(const S3Endpoint *endpoint,
							S3Addressing      addressing,
							const char *bucket, const char *key,
							S3Target *target,
							char *error, size_t error_size);

/*
 * Percent-encodes each byte but A-Z a-z 0-9 - . _ ~ and those in `keep` ("/"
 * for paths, "" for query parameters).  Returns the length written, or
 * (size_t) -1 if it does not fit; `out` ends with a zero either way, unless
 * out_size is 0.
 */
extern size_t s3_uri_encode(const char *text, const char *keep,
							char *out, size_t out_size);

#endif /* BULK_ACTION_S3_URI_H */
