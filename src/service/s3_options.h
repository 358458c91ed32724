/*
 * s3_options.h
 *		Which server of foreign-data wrapper bulk_action_s3 a user reads a
 *		bucket through, and what its options say.
 *
 * All of it needs a transaction, and every refusal is an ereport(ERROR).
 */
#ifndef BULK_ACTION_S3_OPTIONS_H
#define BULK_ACTION_S3_OPTIONS_H

#include "postgres.h"

#include "service/s3.h"

#define S3_WRAPPER_NAME   "bulk_action_s3"
#define S3_DEFAULT_REGION "us-east-1"

/*
 * The server through which `user` reads s3://bucket/key: the wanted one, or,
 * where that is NULL, the only one that the user may use and that serves the
 * bucket.  Checks USAGE, the server's bucket and prefix, and that there is a
 * user mapping; the name returned is palloc'd.
 */
extern char *s3_server_for(const char *bucket, const char *key, const char *wanted_server,
						   Oid user);

/*
 * What server and user mapping say, palloc'd in CurrentMemoryContext.  Checks
 * USAGE again.  bucket is NULL where the server has no such option: it is then
 * the source's that counts.
 */
extern S3Config *s3_config_load(const char *server_name, Oid user);

#endif /* BULK_ACTION_S3_OPTIONS_H */
