/*
 * fuzz_csv_reader.c
 *	  The CSV reader on arbitrary bytes, cut into buffers in two ways.
 *
 * Input: one byte of settings, one byte that seeds the cuts, then the stream.
 * Both readings must give the same records, and together the records, the blank
 * lines between them and the skipped lines must be the whole stream.  The fields
 * of each good record must be those that libcsv finds in its text, which the
 * reader cuts up itself where there is no quote in it.
 */
#include "pure/csv_reader.h"

#include <stdlib.h>
#include <string.h>

#include <csv.h>

#define MAX_STREAM 8192

typedef struct Stream
{
	const char *data;
	size_t      len;
	CsvDialect  dialect;
} Stream;

/* One reading of the stream, going on step by step. */
typedef struct Reading
{
	const Stream *stream;
	CsvReader    *reader;
	char         *window;
	size_t        arrived;
	unsigned      steps; /* pseudo-random sizes of what arrives; 0: all */
	uint64_t      offset;
	uint64_t      line;
	bool          skip;
} Reading;

static void
require(bool condition)
{
	if (!condition)
		abort();
}

/* Gives the reader a buffer of exactly the bytes that have arrived so far. */
static void
set_window(Reading *reading)
{
	size_t len = reading->arrived - (size_t) reading->offset;

	free(reading->window);
	reading->window = malloc(len > 0 ? len : 1);
	require(reading->window != NULL);
	memcpy(reading->window, reading->stream->data + reading->offset, len);
	csv_reader_set_input(reading->reader, reading->window, len,
						 reading->arrived == reading->stream->len,
						 reading->offset, reading->line, reading->skip);
}

static void
arrive(Reading *reading)
{
	size_t left = reading->stream->len - reading->arrived;
	size_t step = left;

	if (reading->steps > 0)
	{
		reading->steps = reading->steps * 1103515245u + 12345u;
		step = 1 + (reading->steps >> 16) % 40;
	}
	reading->arrived += step < left ? step : left;
	set_window(reading);
}

static Reading
start(const Stream *stream, unsigned steps)
{
	Reading reading = {stream, NULL, NULL, 0, steps, 0, 1, false};

	reading.reader = csv_reader_create(&stream->dialect, NULL);
	require(reading.reader != NULL);
	arrive(&reading);
	return reading;
}

static void
stop(Reading *reading)
{
	csv_reader_free(reading->reader);
	free(reading->window);
}

static CsvReaderStatus
next_record(Reading *reading, CsvRecord *record)
{
	for (;;)
	{
		CsvReaderStatus status = csv_reader_next(reading->reader, record);

		require(record->offset >= reading->offset && record->line >= reading->line);
		require(record->end_offset >= record->offset && record->end_line >= record->line);
		require(record->end_offset <= reading->arrived);
		require(status != CSV_READER_NO_MEMORY);
		reading->offset = record->end_offset;
		reading->line = record->end_line;
		reading->skip = record->skip_to_line_end;
		if (status != CSV_READER_NEED_MORE)
			return status;
		require(reading->arrived < reading->stream->len);
		require(reading->arrived - reading->offset <
				reading->stream->dialect.max_record + CSV_READER_LOOKAHEAD);
		arrive(reading);
	}
}

static void
require_same(const CsvRecord *a, const CsvRecord *b)
{
	require(a->offset == b->offset && a->line == b->line && a->error == b->error);
	require(a->raw_len == b->raw_len && a->nfields == b->nfields);
	require(a->raw_len == 0 || memcmp(a->raw, b->raw, a->raw_len) == 0);
	if (!a->skip_to_line_end && !b->skip_to_line_end)
		require(a->end_offset == b->end_offset && a->end_line == b->end_line);
	for (int i = 0; i < a->nfields; i++)
	{
		require(a->fields[i].len == b->fields[i].len);
		require(a->fields[i].is_null == b->fields[i].is_null);
		require(memcmp(a->fields[i].data, b->fields[i].data, a->fields[i].len + 1) == 0);
	}
}

/* Line ends, and comments where lines begin. */
static void
require_blank(const Stream *stream, uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++)
	{
		bool begins = i == 0 || stream->data[i - 1] == '\r' || stream->data[i - 1] == '\n';

		if (begins && stream->dialect.comment != '\0' && stream->data[i] == stream->dialect.comment)
			while (i < to && stream->data[i] != '\r' && stream->data[i] != '\n')
				i++;
		require(i == to || stream->data[i] == '\r' || stream->data[i] == '\n');
	}
}

/* The fields of a record that libcsv has still to find. */
typedef struct Expected
{
	const CsvRecord *record;
	int              nfields;
	int              nrows;
} Expected;

static void
expect_field(void *data, size_t len, void *arg)
{
	Expected       *expected = arg;
	const CsvField *field = &expected->record->fields[expected->nfields++];

	require(expected->nfields <= expected->record->nfields);
	require(field->is_null == (data == NULL) && field->len == len);
	require(field->data[len] == '\0' && (len == 0 || memcmp(field->data, data, len) == 0));
}

static void
expect_row(int end, void *arg)
{
	Expected *expected = arg;

	(void) end;
	expected->nrows++;
}

static int
never_space(unsigned char c)
{
	(void) c;
	return 0;
}

static void
compare_with_libcsv(const CsvDialect *dialect, const CsvRecord *record)
{
	struct csv_parser parser;
	Expected          expected = {record, 0, 0};

	csv_init(&parser, CSV_STRICT | CSV_STRICT_FINI | CSV_EMPTY_IS_NULL);
	csv_set_delim(&parser, (unsigned char) dialect->delimiter);
	/* a good record has no NUL byte */
	csv_set_quote(&parser, dialect->no_quote ? '\0' : (unsigned char) dialect->quote);
	csv_set_space_func(&parser, never_space);
	require(csv_parse(&parser, record->raw, record->raw_len, expect_field, expect_row, &expected) == record->raw_len);
	require(csv_fini(&parser, expect_field, expect_row, &expected) == 0);
	require(expected.nfields == record->nfields && expected.nrows == 1);
	csv_free(&parser);
}

static void
compare(const Stream *stream, unsigned seed)
{
	Reading   whole = start(stream, 0);
	Reading   cut = start(stream, seed);
	CsvRecord a;
	CsvRecord b;
	uint64_t  end = 0;

	for (;;)
	{
		CsvReaderStatus status = next_record(&whole, &a);

		require(next_record(&cut, &b) == status);
		require_same(&a, &b);
		require(!a.skip_to_line_end);
		require_blank(stream, end, a.offset);
		end = a.end_offset;
		if (status == CSV_READER_END)
			break;
		require(a.end_offset > a.offset);
		require(memcmp(a.raw, stream->data + a.offset, a.raw_len) == 0);
		require(status == CSV_READER_RECORD ? a.nfields > 0 : a.nfields == 0);
		require((a.error == CSV_READER_ERROR_NONE) == (status == CSV_READER_RECORD));
		if (status == CSV_READER_RECORD)
		{
			require_blank(stream, a.offset + a.raw_len, a.end_offset);
			require(a.raw_len <= stream->dialect.max_record);
			compare_with_libcsv(&stream->dialect, &a);
		}
		/* a process that resumes here has nothing but these three */
		set_window(&cut);
	}
	require(end == stream->len);
	stop(&whole);
	stop(&cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const size_t limits[] = {1, 7, 40, 300};
	Stream              stream = {.data = NULL};

	if (size < 2 || size > MAX_STREAM)
		return 0;
	stream.data = (const char *) data + 2;
	stream.len = size - 2;
	stream.dialect.max_record = limits[data[0] & 3];
	stream.dialect.max_fields = data[0] & 4 ? 3 : 0;
	stream.dialect.delimiter = data[0] & 8 ? '\t' : ',';
	stream.dialect.quote = data[0] & 16 ? '\'' : '"';
	stream.dialect.no_quote = data[0] & 32;
	stream.dialect.comment = data[0] & 64 ? '#' : '\0';
	compare(&stream, data[1] + 1u);
	return 0;
}
