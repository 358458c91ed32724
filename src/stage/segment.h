/*
 * segment.h
 *		The records of one segment of a source: found, checked, and hashed by key.
 */
#ifndef BULK_ACTION_SEGMENT_H
#define BULK_ACTION_SEGMENT_H

#include "postgres.h"

#include "pure/csv_reader.h"
#include "pure/row_codec.h"
#include "stage/jobs.h"
#include "stage/target.h"

/* Records of one segment at most, and bytes of those that are written anew. */
#define SEGMENT_ROWS       131072
#define SEGMENT_TEXT_BYTES ((size_t) 4 * 1024 * 1024)

typedef struct SegmentRow
{
	uint32 offset; /* of its text: in the window, in text, or in keys */
	uint32 length;
	int64  line;
	uint64 hash;
} SegmentRow;

/* One segment while it is being parsed; in memory, so that it outlives a longjmp. */
typedef struct SegmentParse
{
	MemoryContext context;
	Target       *target;
	CsvReader    *reader;
	CsvRecord     record;    /* the last one read */
	bool          in_record; /* record is a good one whose key is being converted */
	bool          keys_only; /* rows are keys, and nothing is an error */
	bool          plain;     /* rows are CSV with commas as they stand in the window */
	bool          pad;       /* option ragged */
	const char   *encoding;  /* of the file, if what is in the window was converted from it; else NULL */
	const char   *window;
	CsvField     *padded;           /* for the record being read */
	RowBuffer     text;             /* rows that are written anew as CSV with commas */
	int64         row_limit_offset; /* records that begin here or later are the next segment's */
	int           seen;             /* records, bad ones included */
	SegmentRow   *rows;
	int           nrows;
	int           max_rows;
	RowBuffer     keys; /* with keys_only: rows as row_codec.h has them, of the key columns */
	RowError     *errors;
	int           nerrors;
	int           max_errors;
	bool          ended; /* the source ends in the segment */
} SegmentParse;

/* Everything is allocated in the current memory context. */
extern SegmentParse *segment_create(CsvReader *reader, bool keys_only);

/* With option ragged: fields at the end that are empty do not count. */
extern int segment_trimmed(const CsvField *fields, int nfields);

/*
 * Gives the record as many fields as are wanted, if only empty ones are too
 * many or too few.  *padded, NULL at first, is memory for it.
 */
extern void segment_pad(CsvRecord *record, int wanted, CsvField **padded);

/*
 * The SQLSTATE for a record that the reader gave with this status and that
 * cannot be read, and *message why; 0 if it can.  The encoding is the file's.
 */
extern int segment_unreadable(CsvReaderStatus status, const CsvRecord *record, const char *encoding,
							  const char **message);

/* The text of a row: CSV with commas. */
extern const char *segment_row_text(const SegmentParse *parse, const SegmentRow *row);

/* Reads records until the segment is full or its bytes are used up; as the submitter. */
extern void segment_parse(SegmentParse *parse);

/* For RowBuffer: memory in the current context. */
extern void *segment_buffer_realloc(void *pointer, size_t size);

#endif /* BULK_ACTION_SEGMENT_H */
