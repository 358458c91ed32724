/*
 * source_text.h
 *		The text of a source: how the file is written, its text in pieces, and
 *		its header.
 */
#ifndef BULK_ACTION_SOURCE_TEXT_H
#define BULK_ACTION_SOURCE_TEXT_H

#include "postgres.h"

#include "pure/dialect.h"
#include "service/source_stream.h"
#include "stage/action_session.h"
#include "stage/jobs.h"
#include "stage/segment.h"

/* Text from the source's next_offset on. */
typedef struct SourceText
{
	char         *data; /* belongs to the caller */
	int64         size; /* of data */
	int64         length;
	bool          is_final; /* the source ends with it */
	SourceStream *stream;   /* NULL: the text is the file as it stands */
} SourceText;

/* How a file that begins so is written; an error if it is no text. */
extern void source_text_form(const DialectOptions *options, const char *data, int64 length, bool is_whole,
							 Dialect *found);

/* The columns of a file without a header, by option columns. */
extern CsvField *source_text_names(const ActionOptions *options);

/* Must the file be decompressed or converted? */
extern bool source_text_is_decoded(const SourceState *state);

/*
 * Reads text, and first of all finds out how the file is written.  Called without
 * a transaction; an error if it is no text.
 */
extern void source_text_read(const ActionSession *session, SourceState *state, SourceText *text);

/* The reader for the file's records; it stays until the next call.  Finds the delimiter if it is not known. */
extern CsvReader *source_text_reader(const ActionSession *session, SourceState *state, const SourceText *text);

/*
 * Takes the header: the first record of the reader's input, or option columns.
 * What is kept of it is CSV with commas.
 */
extern void source_text_header(ActionSession *session, SegmentParse *parse, SourceState *state);

/* Notes where the text of the next segment is in the file, which begins at this offset. */
extern void source_text_note_place(const SourceText *text, SourceState *state, int64 next_offset);

/* The segment is committed: the stream is kept for the next one, or closed at the end. */
extern void source_text_keep(SourceText *text, const SourceState *state);

#endif /* BULK_ACTION_SOURCE_TEXT_H */
