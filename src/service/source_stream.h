/*
 * source_stream.h
 *		The text of a file that has to be decompressed or converted first.
 */
#ifndef BULK_ACTION_SOURCE_STREAM_H
#define BULK_ACTION_SOURCE_STREAM_H

#include "postgres.h"

#include "pure/decoder.h"
#include "service/source.h"

/* Where decoding can begin: an offset in the text, and the same place in the file as it is stored. */
typedef struct StreamPlace
{
	int64 offset;
	int64 raw_offset;
} StreamPlace;

/* What a stream is of. */
typedef struct StreamSource
{
	int64       action_no;
	Source     *source;
	SourcePin   pin;
	Compression compression;
	const char *encoding;
} StreamSource;

typedef struct SourceStream SourceStream;

/*
 * Reads text from an offset into a buffer of so many bytes; how many there are,
 * and whether the text ends with them.  Goes on with a stream that was kept at
 * this offset, or else begins anew at a place before it.  May be called without a
 * transaction; waits for the network, in pieces.  Until it is kept the stream
 * is good for nothing but the next two calls.
 */
extern SourceStream *source_stream_read(const StreamSource *of, int64 offset, const StreamPlace *restart,
										char *buffer, int64 size, int64 *length, bool *is_final);

/* The best place to begin anew to read from an offset inside what was read. */
extern StreamPlace source_stream_place(const SourceStream *stream, int64 offset);

/* Bytes of the file, as it is stored, that have been needed so far. */
extern int64 source_stream_raw_offset(const SourceStream *stream);

/* To be gone on with at an offset inside what was read, which stands in the buffer still. */
extern void source_stream_keep(SourceStream *stream, int64 offset, const char *buffer);

extern void source_stream_close(SourceStream *stream);

/* Closes those that are kept. */
extern void source_streams_close_all(void);

#endif /* BULK_ACTION_SOURCE_STREAM_H */
