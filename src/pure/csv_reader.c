/*
 * csv_reader.c
 *	  Reads CSV records, with their place in the stream, out of byte buffers.
 *
 * libcsv does the parsing but tells no offsets.  So it is fed one physical line
 * at a time, line end included: when its row callback fires, the record ends
 * with that line; when not, a quote is open and the next line belongs to the
 * record too.  It is fed complete lines only, from a fresh state at each record
 * start, which makes the result independent of how the stream was cut.
 *
 * A record that is one line without a quote has nothing to parse: it is copied
 * whole and cut at its delimiters, with the same outcome (fuzz_csv_reader.c
 * compares) in a third of the time or less.
 *
 * What can go wrong:
 *
 * - Strict mode stops at a stray quote.  The bad record goes to the end of the
 *   physical line; the next one begins with a fresh parser.
 *
 * - A quote that is never closed would swallow the file.  After max_record
 *   bytes, or at the end of the input, only the record's first line is given up
 *   and the second is read as the start of a record.  That is not quadratic: as
 *   the quote stayed open at the end of each line passed over, each of these
 *   has an even number of quotes, and so none of them leaves a quote open when
 *   it is read again by itself.
 *
 * - A line longer than max_record, which may be longer than any buffer, is
 *   reported at once and passed over up to its end, in later buffers if need
 *   be.  That state is the caller's (skip_to_line_end), as offset and line are.
 *
 * Facts about libcsv 3.0.3 that this file relies on (libcsv.c): blanks around
 * fields are dropped unless a space function says that nothing is a blank;
 * after an error it must be set up again; its first realloc passes NULL; it
 * grows its buffer by a fixed block, so the block is enlarged here; a row is
 * reported at its CR, and the LF that follows is taken for a blank line.
 */
#include "pure/csv_reader.h"

#include <stdlib.h>
#include <string.h>

#include <csv.h>

#define PARSER_OPTIONS (CSV_STRICT | CSV_STRICT_FINI | CSV_EMPTY_IS_NULL)

/* Initial sizes, in bytes: of libcsv's field buffer, and of our record buffer. */
#define PARSER_BLOCK    ((size_t) 4096)
#define RECORD_CAPACITY ((size_t) 8192)

/* Where a byte occurs next in the input: its position + 1, or 0 when unknown. */
typedef size_t NextByte;

struct CsvReader
{
	CsvDialect        dialect;
	CsvAllocator      allocator;
	struct csv_parser parser;
	size_t            parser_block;

	/* the input, and the place up to which it is used */
	const char *buf;
	size_t      len;
	bool        is_final;
	uint64_t    buf_offset;
	size_t      pos;
	uint64_t    line;
	bool        skip_to_line_end;
	NextByte    next_cr;
	NextByte    next_lf;
	NextByte    next_nul;
	NextByte    next_quote;

	/* the record being parsed; its fields stand one after the other in text */
	CsvField *fields;
	int       nfields;
	char     *text;
	size_t    text_len;
	size_t    text_cap;
	bool      row_done;
	bool      too_many_fields;
};

/* A physical line of the input: [start, end) and, after its line end, next. */
typedef struct PhysicalLine
{
	size_t start;
	size_t end;
	size_t next;
} PhysicalLine;

static int
never_space(unsigned char c)
{
	(void) c;
	return 0;
}

bool
csv_dialect_is_valid(const CsvDialect *dialect)
{
	char delimiter = dialect->delimiter ? dialect->delimiter : ',';
	char quote = dialect->quote ? dialect->quote : '"';

	return (delimiter != quote || dialect->no_quote) &&
		   delimiter != '\r' && delimiter != '\n' &&
		   quote != '\r' && quote != '\n' &&
		   dialect->comment != '\r' && dialect->comment != '\n' && dialect->comment != delimiter &&
		   (dialect->comment != quote || dialect->no_quote) &&
		   dialect->max_fields >= 0;
}

const char *
csv_reader_error_message(CsvReaderError error)
{
	switch (error)
	{
		case CSV_READER_ERROR_NONE:
			return NULL;
		case CSV_READER_ERROR_UNTERMINATED_QUOTE:
			return "quoted field does not end";
		case CSV_READER_ERROR_STRAY_QUOTE:
			return "quote inside an unquoted field, or text after a closing quote";
		case CSV_READER_ERROR_TOO_LONG:
			return "record is too long";
		case CSV_READER_ERROR_TOO_MANY_FIELDS:
			return "record has too many fields";
		case CSV_READER_ERROR_NUL_BYTE:
			return "record contains a NUL byte";
	}
	return "unknown error";
}

static void
parser_start(CsvReader *reader)
{
	struct csv_parser *parser = &reader->parser;

	csv_init(parser, PARSER_OPTIONS);
	csv_set_delim(parser, (unsigned char) reader->dialect.delimiter);
	csv_set_quote(parser, (unsigned char) reader->dialect.quote);
	csv_set_space_func(parser, never_space);
	csv_set_realloc_func(parser, reader->allocator.realloc_fn);
	csv_set_free_func(parser, reader->allocator.free_fn);
	csv_set_blk_size(parser, PARSER_BLOCK);
	reader->parser_block = PARSER_BLOCK;
}

static void
parser_restart(CsvReader *reader)
{
	csv_free(&reader->parser);
	parser_start(reader);
}

CsvReader *
csv_reader_create(const CsvDialect *dialect, const CsvAllocator *allocator)
{
	CsvAllocator memory = {realloc, free};
	CsvDialect   settings = {0};
	CsvReader   *reader;

	if (dialect != NULL)
		settings = *dialect;
	if (!csv_dialect_is_valid(&settings))
		return NULL;
	if (settings.delimiter == 0)
		settings.delimiter = ',';
	if (settings.quote == 0)
		settings.quote = '"';
	if (settings.max_record == 0)
		settings.max_record = CSV_READER_DEFAULT_MAX_RECORD;
	if (settings.max_fields == 0)
		settings.max_fields = CSV_READER_DEFAULT_MAX_FIELDS;
	if (allocator != NULL)
		memory = *allocator;

	if ((size_t) settings.max_fields > SIZE_MAX / sizeof(CsvField))
		return NULL;
	reader = memory.realloc_fn(NULL, sizeof(CsvReader));
	if (reader == NULL)
		return NULL;
	memset(reader, 0, sizeof(CsvReader));
	reader->dialect = settings;
	reader->allocator = memory;
	parser_start(reader);
	reader->fields = memory.realloc_fn(NULL, (size_t) settings.max_fields * sizeof(CsvField));
	reader->text = memory.realloc_fn(NULL, RECORD_CAPACITY);
	reader->text_cap = RECORD_CAPACITY;
	if (reader->fields == NULL || reader->text == NULL)
	{
		csv_reader_free(reader);
		return NULL;
	}
	csv_reader_set_input(reader, "", 0, false, 0, 1, false);
	return reader;
}

void
csv_reader_free(CsvReader *reader)
{
	CsvAllocator memory;

	if (reader == NULL)
		return;
	memory = reader->allocator;
	csv_free(&reader->parser);
	if (reader->fields != NULL)
		memory.free_fn(reader->fields);
	if (reader->text != NULL)
		memory.free_fn(reader->text);
	memory.free_fn(reader);
}

void
csv_reader_set_input(CsvReader *reader, const char *buf, size_t len,
					 bool is_final, uint64_t offset, uint64_t line,
					 bool skip_to_line_end)
{
	reader->buf = buf;
	reader->len = len;
	reader->is_final = is_final;
	reader->buf_offset = offset;
	reader->pos = 0;
	reader->line = line;
	reader->skip_to_line_end = skip_to_line_end;
	reader->next_cr = 0;
	reader->next_lf = 0;
	reader->next_nul = 0;
	reader->next_quote = 0;
}

/*
 * The position of a byte at or after from, or the input's length.  Each byte of
 * the input is looked at once per kind as long as from does not go back; who
 * goes back calls reader_rewind().
 */
static inline size_t
find_byte(const CsvReader *reader, NextByte *next, int byte, size_t from)
{
	if (*next <= from)
	{
		const char *found = NULL;

		if (from < reader->len)
			found = memchr(reader->buf + from, byte, reader->len - from);
		*next = (found != NULL ? (size_t) (found - reader->buf) : reader->len) + 1;
	}
	return *next - 1;
}

/* Forgets a record begun, so that parsing can start anywhere before it ends. */
static void
reader_rewind(CsvReader *reader)
{
	parser_restart(reader);
	reader->next_cr = 0;
	reader->next_lf = 0;
	reader->next_nul = 0;
	reader->next_quote = 0;
}

/*
 * Whether the line end at a position cannot be told yet: a CR at the end of the
 * buffer may be the first half of a CRLF.
 */
static inline bool
line_end_is_undecided(const CsvReader *reader, size_t end)
{
	return !reader->is_final && end + 1 == reader->len && reader->buf[end] == '\r';
}

/* The position after the line end that stands at end < len. */
static inline size_t
pass_line_end(const CsvReader *reader, size_t end)
{
	if (reader->buf[end] == '\r' && end + 1 < reader->len && reader->buf[end + 1] == '\n')
		return end + 2;
	return end + 1;
}

/* The line that starts there, up to its end or to that of the buffer. */
static inline PhysicalLine
line_at(CsvReader *reader, size_t start)
{
	size_t       cr = find_byte(reader, &reader->next_cr, '\r', start);
	size_t       lf = find_byte(reader, &reader->next_lf, '\n', start);
	PhysicalLine line;

	line.start = start;
	line.end = cr < lf ? cr : lf;
	line.next = line.end < reader->len ? pass_line_end(reader, line.end) : line.end;
	return line;
}

static void
on_field(void *data, size_t len, void *arg)
{
	CsvReader *reader = arg;
	CsvField  *field;
	char      *text;

	if (reader->nfields == reader->dialect.max_fields)
	{
		reader->too_many_fields = true;
		return;
	}
	field = &reader->fields[reader->nfields++];
	text = reader->text + reader->text_len;
	if (len > 0)
		memcpy(text, data, len);
	text[len] = '\0';
	field->data = text;
	field->len = len;
	field->is_null = data == NULL;
	reader->text_len += len + 1;
}

static void
on_row(int end, void *arg)
{
	CsvReader *reader = arg;

	(void) end;
	reader->row_done = true;
}

/*
 * Makes room for the fields of a record of which so many bytes will have been
 * parsed.  A field needs its text and a NUL; it has taken at least its text and
 * a delimiter or line end, but for the last one of a file without line end.
 */
static bool
reserve(CsvReader *reader, size_t parsed)
{
	size_t needed = parsed + 1;
	size_t cap = reader->text_cap;
	char  *text;

	if (parsed > reader->parser_block)
	{
		csv_set_blk_size(&reader->parser, parsed);
		reader->parser_block = parsed;
	}
	if (needed <= cap)
		return true;
	if (needed > SIZE_MAX / 2)
		return false;
	while (cap < needed)
		cap *= 2;
	text = reader->allocator.realloc_fn(reader->text, cap);
	if (text == NULL)
		return false;
	reader->text = text;
	reader->text_cap = cap;
	for (int i = 0; i < reader->nfields; i++)
	{
		reader->fields[i].data = text;
		text += reader->fields[i].len + 1;
	}
	return true;
}

/* Moves the reader on, and fills in what every status carries. */
static CsvReaderStatus
finish(CsvReader *reader, CsvRecord *record, CsvReaderStatus status,
	   size_t pos, uint64_t line)
{
	reader->pos = pos;
	reader->line = line;
	record->end_offset = reader->buf_offset + pos;
	record->end_line = line;
	record->skip_to_line_end = reader->skip_to_line_end;
	return status;
}

/* No record: what is left begins at pos. */
static CsvReaderStatus
finish_without(CsvReader *reader, CsvRecord *record, CsvReaderStatus status,
			   size_t pos)
{
	record->offset = reader->buf_offset + pos;
	record->line = reader->line;
	return finish(reader, record, status, pos, reader->line);
}

/*
 * A record whose text is [reader->pos, end), with its error if it has one; the
 * next one begins at next, which is in the line-th line.
 */
static CsvReaderStatus
finish_record(CsvReader *reader, CsvRecord *record, CsvReaderError error,
			  size_t end, size_t next, uint64_t line)
{
	size_t start = reader->pos;

	record->raw = reader->buf + start;
	record->raw_len = end - start;
	record->offset = reader->buf_offset + start;
	record->line = reader->line;
	if (find_byte(reader, &reader->next_nul, '\0', start) < end)
		error = CSV_READER_ERROR_NUL_BYTE;
	else if (error == CSV_READER_ERROR_NONE && reader->too_many_fields)
		error = CSV_READER_ERROR_TOO_MANY_FIELDS;
	if (error == CSV_READER_ERROR_NONE)
	{
		record->fields = reader->fields;
		record->nfields = reader->nfields;
		return finish(reader, record, CSV_READER_RECORD, next, line);
	}
	record->error = error;
	record->message = csv_reader_error_message(error);
	return finish(reader, record, CSV_READER_BAD_RECORD, next, line);
}

/* The record at reader->pos begins with a line longer than max_record. */
static CsvReaderStatus
finish_too_long(CsvReader *reader, CsvRecord *record, PhysicalLine line)
{
	size_t   kept = reader->dialect.max_record;
	uint64_t next_line = reader->line + 1;

	if (kept > CSV_READER_TOO_LONG_RAW)
		kept = CSV_READER_TOO_LONG_RAW;
	if (line.end == reader->len || line_end_is_undecided(reader, line.end))
	{
		reader->skip_to_line_end = !reader->is_final;
		line.next = line.end;
		next_line = reader->line;
	}
	return finish_record(reader, record, CSV_READER_ERROR_TOO_LONG,
						 line.start + kept, line.next, next_line);
}

/* A quote is open where it may not be: give up the record's first line only. */
static CsvReaderStatus
finish_unterminated(CsvReader *reader, CsvRecord *record, PhysicalLine first)
{
	uint64_t next_line = reader->line + (first.next > first.end ? 1 : 0);

	reader_rewind(reader);
	return finish_record(reader, record, CSV_READER_ERROR_UNTERMINATED_QUOTE,
						 first.end, first.next, next_line);
}

/*
 * Passes the rest of a line that was too long, if any, blank lines, and
 * comments.  False when the input ends, or may end, within those.
 */
static bool
pass_to_record(CsvReader *reader)
{
	const char *buf = reader->buf;

	while (reader->pos < reader->len)
	{
		size_t end = reader->pos;

		if (!reader->skip_to_line_end && reader->dialect.comment != '\0' && buf[end] == reader->dialect.comment)
			reader->skip_to_line_end = true;
		if (reader->skip_to_line_end)
			end = line_at(reader, reader->pos).end;
		else if (buf[end] != '\r' && buf[end] != '\n')
			return true;

		if (end == reader->len || line_end_is_undecided(reader, end))
		{
			reader->pos = end;
			break;
		}
		reader->pos = pass_line_end(reader, end);
		reader->line++;
		reader->skip_to_line_end = false;
	}
	return false;
}

bool
csv_reader_skip_lines(CsvReader *reader, int n)
{
	while (n-- > 0)
	{
		PhysicalLine line = line_at(reader, reader->pos);

		if (!reader->is_final && (line.end == reader->len || line_end_is_undecided(reader, line.end)))
			return false;
		reader->pos = line.next;
		reader->line += line.next > line.end ? 1 : 0;
	}
	return true;
}

static inline bool
has_quote(CsvReader *reader, PhysicalLine line)
{
	return !reader->dialect.no_quote &&
		   find_byte(reader, &reader->next_quote, reader->dialect.quote, line.start) < line.end;
}

/* The fields of a line without quotes; there is room for its text. */
static void
split_line(CsvReader *reader, PhysicalLine line)
{
	size_t len = line.end - line.start;
	char  *text = reader->text;
	char  *end = text + len;

	memcpy(text, reader->buf + line.start, len);
	*end = '\0';
	for (;;)
	{
		char     *delimiter = memchr(text, reader->dialect.delimiter, (size_t) (end - text));
		char     *field_end = delimiter != NULL ? delimiter : end;
		CsvField *field;

		if (reader->nfields == reader->dialect.max_fields)
		{
			reader->too_many_fields = true;
			return;
		}
		*field_end = '\0';
		field = &reader->fields[reader->nfields++];
		field->data = text;
		field->len = (size_t) (field_end - text);
		field->is_null = field->len == 0;
		if (delimiter == NULL)
			return;
		text = delimiter + 1;
	}
}

/* Parses the record at reader->pos, line by line. */
static CsvReaderStatus
parse_record(CsvReader *reader, CsvRecord *record)
{
	size_t       start = reader->pos;
	size_t       max_record = reader->dialect.max_record;
	uint64_t     next_line = reader->line;
	PhysicalLine line = line_at(reader, start);
	PhysicalLine first = line;

	for (;; line = line_at(reader, line.next))
	{
		size_t size = line.next - line.start;

		if (line.end - start > max_record)
		{
			if (line.start == start)
				return finish_too_long(reader, record, line);
			return finish_unterminated(reader, record, first);
		}
		if (!reader->is_final &&
			(line.end == reader->len || line_end_is_undecided(reader, line.end)))
		{
			if (line.start > start)
				reader_rewind(reader);
			return finish_without(reader, record, CSV_READER_NEED_MORE, start);
		}

		next_line += line.next > line.end ? 1 : 0;
		if (!reserve(reader, line.next - start))
			break;
		if (line.start == start && !has_quote(reader, line))
		{
			split_line(reader, line);
			return finish_record(reader, record, CSV_READER_ERROR_NONE, line.end, line.next, next_line);
		}
		if (csv_parse(&reader->parser, reader->buf + line.start, size,
					  on_field, on_row, reader) < size)
		{
			if (csv_error(&reader->parser) != CSV_EPARSE)
				break;
			parser_restart(reader);
			return finish_record(reader, record, CSV_READER_ERROR_STRAY_QUOTE,
								 line.end, line.next, next_line);
		}
		/* at the end of the input csv_fini() fails when a quote is open */
		if (!reader->row_done && line.next == reader->len && reader->is_final &&
			csv_fini(&reader->parser, on_field, on_row, reader) != 0)
			return finish_unterminated(reader, record, first);
		if (reader->row_done)
			return finish_record(reader, record, CSV_READER_ERROR_NONE,
								 line.end, line.next, next_line);
	}

	reader_rewind(reader);
	return finish_without(reader, record, CSV_READER_NO_MEMORY, start);
}

CsvReaderStatus
csv_reader_next(CsvReader *reader, CsvRecord *record)
{
	memset(record, 0, sizeof(*record));
	reader->nfields = 0;
	reader->text_len = 0;
	reader->row_done = false;
	reader->too_many_fields = false;

	if (pass_to_record(reader))
		return parse_record(reader, record);
	if (!reader->is_final)
		return finish_without(reader, record, CSV_READER_NEED_MORE, reader->pos);
	reader->skip_to_line_end = false;
	return finish_without(reader, record, CSV_READER_END, reader->pos);
}

size_t
csv_skip_bom(const char *data, size_t len)
{
	return len >= 3 && memcmp(data, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
}
