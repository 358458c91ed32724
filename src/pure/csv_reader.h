/*
 * csv_reader.h
 *	  Reads CSV records, with their place in the stream, out of byte buffers.
 *
 * The stream may be cut into buffers anywhere: records, line numbers, offsets
 * and errors come out the same.  A buffer begins at a record boundary (or in
 * the middle of a line that is being skipped, see below), so the caller keeps
 * the bytes that csv_reader_next() could not use and puts them in front of the
 * next ones:
 *
 *		csv_reader_set_input(r, buf, len, eof, offset, line, skip);
 *		while ((status = csv_reader_next(r, &rec)) is a record, good or bad)
 *			use rec;
 *		on CSV_READER_NEED_MORE: move the bytes from rec.offset on to the front,
 *			append at least one byte (or learn that there is none), and call
 *			csv_reader_set_input() with rec.offset, rec.line, rec.skip_to_line_end
 *
 * A buffer of max_record + CSV_READER_LOOKAHEAD bytes from a record's start is
 * always enough: then csv_reader_next() does not ask for more.
 *
 * Rows end with CR, LF or CRLF.  Blank lines and comments are no records but
 * count as lines.
 * Nothing is trimmed.
 *
 * Units: offsets and lengths are bytes, lines are physical lines from 1; a CR,
 * LF or CRLF inside quotes begins a new line too.
 *
 * Errors are values: nothing here exits or jumps.  A caller may longjmp() away
 * between calls; the reader stays usable and must be freed by someone.
 */
#ifndef BULK_ACTION_CSV_READER_H
#define BULK_ACTION_CSV_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CSV_READER_DEFAULT_MAX_RECORD ((size_t) 1024 * 1024)
#define CSV_READER_DEFAULT_MAX_FIELDS 1600 /* PostgreSQL's MaxHeapAttributeNumber */

/* How far past max_record the reader may have to look: for a CR and its LF. */
#define CSV_READER_LOOKAHEAD ((size_t) 2)

/* What is kept of the raw text of a record that is too long. */
#define CSV_READER_TOO_LONG_RAW ((size_t) 1024)

/* Members that are zero take their defaults. */
typedef struct CsvDialect
{
	char   delimiter;  /* default , */
	char   quote;      /* default "; doubled it stands for itself */
	bool   no_quote;   /* there is none: every line is a record */
	char   comment;    /* lines that begin with it, outside of records, are none; '\0': there are none */
	size_t max_record; /* bytes of a record without its line end */
	int    max_fields;
} CsvDialect;

/*
 * Memory for the reader.  realloc_fn is called with NULL for new memory, and
 * returns NULL when there is none; neither may longjmp().  There is no context
 * argument because libcsv, which gets the same functions, passes none.
 */
typedef struct CsvAllocator
{
	void *(*realloc_fn)(void *ptr, size_t size);
	void (*free_fn)(void *ptr);
} CsvAllocator;

typedef struct CsvField
{
	const char *data; /* never NULL; a NUL byte follows data[len - 1] */
	size_t      len;
	bool        is_null; /* empty and not quoted */
} CsvField;

typedef enum CsvReaderStatus
{
	CSV_READER_RECORD,     /* a good record */
	CSV_READER_BAD_RECORD, /* see error; reading can go on */
	CSV_READER_NEED_MORE,  /* no complete record in the rest of the buffer */
	CSV_READER_END,        /* the final buffer is used up */
	CSV_READER_NO_MEMORY   /* the same call can be made again */
} CsvReaderStatus;

/* What is wrong with a bad record, and how far such a record goes. */
typedef enum CsvReaderError
{
	CSV_READER_ERROR_NONE = 0,

	/*
	 * A quote opened and the record, of several lines, did not end within
	 * max_record bytes or before the end of the input.  The bad record is its
	 * first physical line; reading goes on at the second.
	 */
	CSV_READER_ERROR_UNTERMINATED_QUOTE,

	/*
	 * A quote inside an unquoted field, or something else than a delimiter or
	 * a line end after a closing quote.  The bad record ends with the physical
	 * line in which that stands.
	 */
	CSV_READER_ERROR_STRAY_QUOTE,

	/*
	 * The record's first physical line alone is longer than max_record.  The
	 * bad record is that line; raw holds its first CSV_READER_TOO_LONG_RAW
	 * bytes.
	 */
	CSV_READER_ERROR_TOO_LONG,

	/* More than max_fields; the bad record ends where a good one would. */
	CSV_READER_ERROR_TOO_MANY_FIELDS,

	/*
	 * raw has a NUL byte.  Said of a record that would be good without it, and
	 * instead of any other error, whose extent it then keeps.
	 */
	CSV_READER_ERROR_NUL_BYTE
} CsvReaderError;

/*
 * fields live in the reader until its next call, raw in the input buffer.
 *
 * offset, line, end_offset, end_line and skip_to_line_end are set with every
 * status; with NEED_MORE, END and NO_MEMORY offset equals end_offset and is
 * the place to go on from, blank lines being passed already.
 */
typedef struct CsvRecord
{
	const CsvField *fields;  /* NULL unless CSV_READER_RECORD */
	int             nfields; /* 0 unless CSV_READER_RECORD */
	const char     *raw;     /* without the line end; may hold any byte */
	size_t          raw_len;
	uint64_t        offset;     /* of raw in the stream */
	uint64_t        line;       /* where raw begins */
	uint64_t        end_offset; /* of the next byte, after the line end */
	uint64_t        end_line;   /* in which that byte stands */

	/*
	 * end_offset lies inside a line that was too long, or a comment, and whose end
	 * is not in the buffer.  Reading on from there, in this or another process, needs
	 * csv_reader_set_input(..., skip_to_line_end = true): no record comes of
	 * the rest of that line.
	 */
	bool           skip_to_line_end;
	CsvReaderError error;
	const char    *message; /* of error, in English; NULL when none */
} CsvRecord;

typedef struct CsvReader CsvReader;

/*
 * NULL when there is no memory or the dialect is invalid.  dialect and
 * allocator may be NULL: the defaults, malloc().  Both are copied.
 */
extern CsvReader *csv_reader_create(const CsvDialect   *dialect,
									const CsvAllocator *allocator);

/*
 * Delimiter, quote and comment differ from each other, from CR and LF; limits
 * are not negative.
 */
extern bool csv_dialect_is_valid(const CsvDialect *dialect);

/*
 * Gives the reader its next buffer, which must stay unchanged until the next
 * call of this function.  offset and line are those of buf[0].  is_final: the
 * stream ends with this buffer.
 */
extern void csv_reader_set_input(CsvReader *reader, const char *buf, size_t len,
								 bool is_final, uint64_t offset, uint64_t line,
								 bool skip_to_line_end);

/*
 * Passes so many physical lines, whatever is in them; before the first record.
 * False if the buffer ends before they do and is not the final one.
 */
extern bool csv_reader_skip_lines(CsvReader *reader, int n);

extern CsvReaderStatus csv_reader_next(CsvReader *reader, CsvRecord *record);

extern void csv_reader_free(CsvReader *reader);

extern const char *csv_reader_error_message(CsvReaderError error);

/* Bytes to pass at the start of a stream: 3 for a UTF-8 byte order mark, or 0. */
extern size_t csv_skip_bom(const char *data, size_t len);

#endif /* BULK_ACTION_CSV_READER_H */
