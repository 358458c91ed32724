/*
 * preview_source.h
 *		The beginning of a file, read in the caller's session.
 */
#ifndef BULK_ACTION_PREVIEW_SOURCE_H
#define BULK_ACTION_PREVIEW_SOURCE_H

#include "postgres.h"

#include "pure/csv_reader.h"
#include "stage/jobs.h"

typedef struct PreviewSource
{
	int64       size; /* of the whole file, bytes */
	char       *head; /* its first bytes */
	size_t      length;
	bool        is_whole; /* head is all of it */
	const char *compression;
	const char *encoding;
	bool        byte_order_mark;
	char        delimiter;
	char        quote;  /* '\0': none */
	CsvReader  *reader; /* at the header, or where it would be; freed with the memory context */
} PreviewSource;

/*
 * Reads the beginning of the file of an action as the current user, and finds
 * out how it is written.  Waits for the network no longer than PREVIEW_SECONDS,
 * can be cancelled, and raises what reading the file raises in an action.
 * Everything is in the current memory context.
 */
#define PREVIEW_SECONDS 30
extern void preview_source_read(const Action *action, PreviewSource *source);

#endif /* BULK_ACTION_PREVIEW_SOURCE_H */
