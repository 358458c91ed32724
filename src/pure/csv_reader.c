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
 */
#include "pure/csv_reader.h"

#include <stdlib.h>
#include <string.h>

#include "pure/csv_fields.h"
#include "pure/csv_lines.h"

struct CsvReader
{
	CsvDialect   dialect;
	CsvAllocator allocator;

	/* the input, and the place up to which it is used */
	CsvLines lines;
	uint64_t buf_offset;
	size_t   pos;
	uint64_t line;
	bool     skip_to_line_end;

	CsvFields fields; /* of the record being parsed */
};

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
	if (!csv_fields_init(&reader->fields, &settings, &memory))
	{
		memory.free_fn(reader);
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
	csv_fields_free(&reader->fields);
	memory = reader->allocator;
	memory.free_fn(reader);
}

void
csv_reader_set_input(CsvReader *reader, const char *buf, size_t len,
					 bool is_final, uint64_t offset, uint64_t line,
					 bool skip_to_line_end)
{
	csv_lines_set(&reader->lines, buf, len, is_final);
	reader->buf_offset = offset;
	reader->pos = 0;
	reader->line = line;
	reader->skip_to_line_end = skip_to_line_end;
}

/* Forgets a record begun, so that parsing can start anywhere before it ends. */
static void
reader_rewind(CsvReader *reader)
{
	csv_fields_restart(&reader->fields);
	csv_lines_rewind(&reader->lines);
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

	record->raw = reader->lines.buf + start;
	record->raw_len = end - start;
	record->offset = reader->buf_offset + start;
	record->line = reader->line;
	if (csv_lines_find(&reader->lines, &reader->lines.next_nul, '\0', start) < end)
		error = CSV_READER_ERROR_NUL_BYTE;
	else if (error == CSV_READER_ERROR_NONE && reader->fields.too_many)
		error = CSV_READER_ERROR_TOO_MANY_FIELDS;
	if (error == CSV_READER_ERROR_NONE)
	{
		record->fields = reader->fields.fields;
		record->nfields = reader->fields.n;
		return finish(reader, record, CSV_READER_RECORD, next, line);
	}
	record->error = error;
	record->message = csv_reader_error_message(error);
	return finish(reader, record, CSV_READER_BAD_RECORD, next, line);
}

/* The record at reader->pos begins with a line longer than max_record. */
static CsvReaderStatus
finish_too_long(CsvReader *reader, CsvRecord *record, CsvLine line)
{
	size_t   kept = reader->dialect.max_record;
	uint64_t next_line = reader->line + 1;

	if (kept > CSV_READER_TOO_LONG_RAW)
		kept = CSV_READER_TOO_LONG_RAW;
	if (line.end == reader->lines.len || csv_line_end_is_undecided(&reader->lines, line.end))
	{
		reader->skip_to_line_end = !reader->lines.is_final;
		line.next = line.end;
		next_line = reader->line;
	}
	return finish_record(reader, record, CSV_READER_ERROR_TOO_LONG,
						 line.start + kept, line.next, next_line);
}

/* A quote is open where it may not be: give up the record's first line only. */
static CsvReaderStatus
finish_unterminated(CsvReader *reader, CsvRecord *record, CsvLine first)
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
	const char *buf = reader->lines.buf;

	while (reader->pos < reader->lines.len)
	{
		size_t end = reader->pos;

		if (!reader->skip_to_line_end && reader->dialect.comment != '\0' && buf[end] == reader->dialect.comment)
			reader->skip_to_line_end = true;
		if (reader->skip_to_line_end)
			end = csv_line_at(&reader->lines, reader->pos).end;
		else if (buf[end] != '\r' && buf[end] != '\n')
			return true;

		if (end == reader->lines.len || csv_line_end_is_undecided(&reader->lines, end))
		{
			reader->pos = end;
			break;
		}
		reader->pos = csv_lines_pass_end(&reader->lines, end);
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
		CsvLine line = csv_line_at(&reader->lines, reader->pos);

		if (!reader->lines.is_final &&
			(line.end == reader->lines.len || csv_line_end_is_undecided(&reader->lines, line.end)))
			return false;
		reader->pos = line.next;
		reader->line += line.next > line.end ? 1 : 0;
	}
	return true;
}

static inline bool
has_quote(CsvReader *reader, CsvLine line)
{
	CsvLines *lines = &reader->lines;

	return !reader->dialect.no_quote &&
		   csv_lines_find(lines, &lines->next_quote, reader->dialect.quote, line.start) < line.end;
}

/* Parses the record at reader->pos, line by line. */
static CsvReaderStatus
parse_record(CsvReader *reader, CsvRecord *record)
{
	size_t     start = reader->pos;
	size_t     max_record = reader->dialect.max_record;
	uint64_t   next_line = reader->line;
	CsvFields *fields = &reader->fields;
	CsvLine    line = csv_line_at(&reader->lines, start);
	CsvLine    first = line;

	for (;; line = csv_line_at(&reader->lines, line.next))
	{
		CsvParsed parsed;

		if (line.end - start > max_record)
		{
			if (line.start == start)
				return finish_too_long(reader, record, line);
			return finish_unterminated(reader, record, first);
		}
		if (!reader->lines.is_final &&
			(line.end == reader->lines.len || csv_line_end_is_undecided(&reader->lines, line.end)))
		{
			if (line.start > start)
				reader_rewind(reader);
			return finish_without(reader, record, CSV_READER_NEED_MORE, start);
		}

		next_line += line.next > line.end ? 1 : 0;
		if (!csv_fields_reserve(fields, line.next - start))
			break;
		if (line.start == start && !has_quote(reader, line))
		{
			csv_fields_split(fields, reader->lines.buf + start, line.end - start);
			return finish_record(reader, record, CSV_READER_ERROR_NONE, line.end, line.next, next_line);
		}
		parsed = csv_fields_parse(fields, reader->lines.buf + line.start, line.next - line.start);
		if (parsed == CSV_PARSED_NO_MEMORY)
			break;
		if (parsed == CSV_PARSED_STRAY_QUOTE)
			return finish_record(reader, record, CSV_READER_ERROR_STRAY_QUOTE,
								 line.end, line.next, next_line);
		if (!fields->row_done && line.next == reader->lines.len && reader->lines.is_final &&
			!csv_fields_end(fields))
			return finish_unterminated(reader, record, first);
		if (fields->row_done)
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
	csv_fields_begin(&reader->fields);

	if (pass_to_record(reader))
		return parse_record(reader, record);
	if (!reader->lines.is_final)
		return finish_without(reader, record, CSV_READER_NEED_MORE, reader->pos);
	reader->skip_to_line_end = false;
	return finish_without(reader, record, CSV_READER_END, reader->pos);
}

size_t
csv_skip_bom(const char *data, size_t len)
{
	return len >= 3 && memcmp(data, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
}
