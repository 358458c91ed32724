/*
 * s3.h
 *		Reads objects from S3: what is there, and byte ranges of it.
 *
 * Every error is an ereport(ERROR).  Trouble that may pass (timeouts, dropped
 * connections, 5xx, 429) has been retried by then and has SQLSTATE class 08;
 * what will not pass has class BA (base/error_codes.h).  Both functions wait
 * on MyLatch and check for interrupts, and both may be called with no
 * transaction open.
 */
#ifndef BULK_ACTION_S3_H
#define BULK_ACTION_S3_H

#include "postgres.h"

typedef struct S3Config
{
	const char *endpoint; /* NULL: https://s3.<region>.amazonaws.com */
	const char *region;
	const char *bucket;
	const char *prefix;       /* keys must begin with it; NULL: any key */
	bool        virtual_host; /* bucket.endpoint instead of endpoint/bucket */
	const char *ca_file;      /* PEM; NULL: the system's */
	bool        allow_http;
	bool        allow_private_address;
	const char *access_key_id; /* NULL or empty: anonymous, not signed */
	const char *secret_access_key;
	const char *session_token; /* NULL or empty: none */
} S3Config;

/* What a HEAD says.  Also the pin that later reads hold on to. */
typedef struct S3Object
{
	int64 size;       /* bytes */
	char *etag;       /* as sent, with its quotes */
	char *version_id; /* NULL where the bucket has no versions */

	/* NULL where there is none; aws-chunked, which tells of the upload, is left out */
	char *content_encoding;
	char *content_type; /* NULL where there is none */
} S3Object;

typedef struct S3Client S3Client;

/*
 * Makes a client that lives until `parent` is reset or deleted.  The config is
 * copied.  No network is used yet.
 */
extern S3Client *s3_client_create(MemoryContext parent, const S3Config *config);

/*
 * Finds out size and identity of an object.  The strings of `out` are
 * allocated in CurrentMemoryContext.
 */
extern void s3_head(S3Client *client, const char *key, S3Object *out);

/*
 * Reads exactly `length` bytes from `offset` of the pinned object into
 * `buffer` and returns `length`.  The range must lie within the object.
 */
extern size_t s3_read_range(S3Client *client, const char *key,
							const S3Object *pin, int64 offset, size_t length,
							char *buffer);

#endif /* BULK_ACTION_S3_H */
