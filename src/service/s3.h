/*
 * s3.h
 *		Objects in S3: where they are, and how requests for them are signed.
 */
#ifndef BULK_ACTION_S3_H
#define BULK_ACTION_S3_H

#include "postgres.h"

#include "service/remote_object.h"

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

/*
 * Makes a reader of one object that lives until `parent` is reset or deleted.
 * The config is copied.  No network is used yet.
 */
extern RemoteObject *s3_open(MemoryContext parent, const S3Config *config, const char *key);

#endif /* BULK_ACTION_S3_H */
