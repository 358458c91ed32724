/*
 * source.h
 *		Where files come from: one interface over S3, web servers and local
 *		files.
 */
#ifndef BULK_ACTION_SOURCE_H
#define BULK_ACTION_SOURCE_H

#include "postgres.h"

typedef struct Source Source;

/* The version of the file that an action reads, all of it. */
typedef struct SourcePin
{
	int64 size; /* bytes */
	char *etag;
	char *version_id; /* NULL where there are no versions */
} SourcePin;

/* What was submitted. */
typedef struct SourceAddress
{
	const char *uri;    /* may be shown: of a URL without its query */
	const char *query;  /* of a URL, a credential; NULL: none */
	const char *server; /* the foreign server to read through; NULL for file:// */
} SourceAddress;

/*
 * Opens a source for a role.  Checks what submit checked once more: USAGE on
 * the server or the right to read files.  Inside a transaction, as the
 * submitter; the source lives as long as the context, across transactions.
 */
extern Source *source_open(const SourceAddress *address, Oid role, MemoryContext context);

/* Only checks whether the role may read it still. */
extern void source_check(const SourceAddress *address, Oid role);

/* Both may be called without a transaction; they wait for the network. */
extern void source_pin(Source *source, SourcePin *pin);
extern void source_read(Source *source, const SourcePin *pin, int64 offset, size_t length, char *buffer);

#endif /* BULK_ACTION_SOURCE_H */
