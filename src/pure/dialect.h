/*
 * dialect.h
 *	  How a file is written: compression, encoding, delimiter, quote, header.
 *
 * Part of it is said in the action's options, the rest is found in the first
 * bytes of the file:
 *
 * - Compression by the file's magic number, never by its name.
 * - Encoding by the byte order mark; without one it is UTF-8.
 * - The delimiter by the first record, the header: of comma, semicolon, tab and
 *   | the one that stands in it most often outside of quotes; of those that do
 *   so equally often the first of these four.  None there at all: comma.
 *
 * Lengths are bytes.
 */
#ifndef BULK_ACTION_DIALECT_H
#define BULK_ACTION_DIALECT_H

#include "pure/decoder.h"
#include "pure/row_codec.h"

#define DIALECT_MAX_SKIP_LINES 10000

/* What the options say; all zero: nothing. */
typedef struct DialectOptions
{
	char        delimiter; /* '\0': to be guessed */
	char        quote;     /* '\0': " */
	bool        no_quote;  /* quotes are characters like any other */
	bool        no_header; /* the first record is a row */
	char        comment;   /* lines that begin with it are no records; '\0': there are none */
	int         skip_lines;
	bool        pad;      /* missing cells at the end are empty, and empty ones too many are dropped */
	const char *encoding; /* NULL: to be found */
} DialectOptions;

typedef struct Dialect
{
	Compression compression;
	const char *encoding; /* constant, or that of the options */
} Dialect;

typedef enum DialectStatus
{
	DIALECT_OK,
	DIALECT_FOREIGN,   /* no text: see dialect_foreign() */
	DIALECT_NO_MEMORY, /* or an encoding that does not exist */
} DialectStatus;

/*
 * From the first bytes of a file, and whether these are all of it, to how its
 * text is had.  What is damaged there shows when it is read.
 */
extern DialectStatus dialect_detect(const DialectOptions *options, const char *head, size_t len, bool is_whole,
									Dialect *found);

/* ---- the parts of it, for who reads on ---- */

extern Compression dialect_compression(const char *head, size_t len);

/*
 * What kind of file it is, if one that is certainly no text, compressed or not:
 * "a ZIP archive or a spreadsheet (XLSX, ODS)"; else NULL.
 */
extern const char *dialect_foreign(const char *head, size_t len);

/*
 * The encoding of a file that begins so (decompressed); never NULL.  An encoding
 * of the options that leaves the order of its bytes open (UTF-16) gets that of
 * the byte order mark, or else little endian.
 */
extern const char *dialect_encoding(const char *given, const char *head, size_t len);

/* From text in UTF-8, from the beginning of the file. */
extern char dialect_delimiter(const DialectOptions *options, const char *text, size_t len);

/* Can a file's records stay as they stand in it to be rows of a chunk? */
extern bool dialect_is_plain(const DialectOptions *options, char delimiter);

/* What a reader has to know. */
extern void dialect_reader(const DialectOptions *options, char delimiter, CsvDialect *reader);

/*
 * Appends a header such that a file that begins with it is read as CSV with
 * commas without options: cells with something that could be a delimiter are
 * quoted.  False when there is no memory.
 */
extern bool dialect_append_header(RowBuffer *buffer, const CsvField *cells, int ncells);

#endif /* BULK_ACTION_DIALECT_H */
