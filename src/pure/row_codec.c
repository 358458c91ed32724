/*
 * row_codec.c
 *	  The payload of a chunk: rows as normalised CSV, written and read back.
 *
 * Writing measures first, reserves once and then writes, so that running out of
 * memory leaves the buffer as it was.
 *
 * Reading uses the CSV reader that also reads the sources, with no limit on a
 * record's length: the payload is in memory already, and a record that came
 * from another dialect may have grown when it was quoted.  A payload is our own
 * writing, so whatever differs from it is damage and must not pass as fewer
 * rows: blank lines, other line ends, a missing last line end, a bad record, a
 * line number that is none.
 */
#include "pure/row_codec.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Decimal digits of UINT64_MAX. */
#define MAX_LINE_DIGITS 20

/* The smallest memory that a buffer asks for, in bytes. */
#define MIN_CAPACITY ((size_t) 1024)

struct RowDecoder
{
	CsvReader   *reader;
	CsvAllocator allocator;
	int          max_cells;
	const char  *payload;
	size_t       len;
	size_t       pos;
	const char  *malformed; /* why; from then on */
};

static size_t
line_digits(uint64_t line)
{
	size_t digits = 1;

	while (line >= 10)
	{
		line /= 10;
		digits++;
	}
	return digits;
}

/*
 * Whether a cell needs quotes; if so, *doubled is how many quotes it holds.
 */
static bool
must_quote(const CsvField *cell, size_t *doubled)
{
	bool special = false;

	*doubled = 0;
	if (cell->is_null)
		return false;
	if (cell->len == 0)
		return true;
	if (cell->len == 2 && memcmp(cell->data, "\\.", 2) == 0)
		return true;
	for (size_t i = 0; i < cell->len; i++)
	{
		switch (cell->data[i])
		{
			case '"':
				(*doubled)++;
				special = true;
				break;
			case ',':
			case '\r':
			case '\n':
				special = true;
				break;
			default:
				break;
		}
	}
	return special;
}

static size_t
cell_size(const CsvField *cell)
{
	size_t doubled;

	if (cell->is_null)
		return 0;
	if (must_quote(cell, &doubled))
		return cell->len + doubled + 2;
	return cell->len;
}

size_t
row_codec_size(uint64_t line, const CsvField *cells, int ncells)
{
	size_t size = line_digits(line) + (size_t) ncells + 1;

	for (int i = 0; i < ncells; i++)
		size += cell_size(&cells[i]);
	return size;
}

size_t
row_codec_raw_size(uint64_t line, size_t raw_len)
{
	return line_digits(line) + 1 + raw_len + 1;
}

/* Room for more bytes, the capacity growing geometrically. */
static bool
reserve(RowBuffer *buffer, size_t more)
{
	size_t needed;
	size_t cap;
	char  *data;

	if (more <= buffer->cap - buffer->len)
		return true;
	if (more > SIZE_MAX / 2 - buffer->len)
		return false;
	needed = buffer->len + more;
	cap = buffer->cap < MIN_CAPACITY ? MIN_CAPACITY : buffer->cap;
	while (cap < needed)
		cap *= 2;
	data = buffer->realloc_fn(buffer->data, cap);
	if (data == NULL)
		return false;
	buffer->data = data;
	buffer->cap = cap;
	return true;
}

static char *
write_bytes(char *out, const char *data, size_t len)
{
	if (len > 0)
		memcpy(out, data, len);
	return out + len;
}

bool
row_buffer_append(RowBuffer *buffer, const char *data, size_t len)
{
	if (!reserve(buffer, len))
		return false;
	if (len > 0)
		memcpy(buffer->data + buffer->len, data, len);
	buffer->len += len;
	return true;
}

static char *
write_line(char *out, uint64_t line)
{
	size_t digits = line_digits(line);

	for (size_t i = digits; i > 0; i--)
	{
		out[i - 1] = (char) ('0' + line % 10);
		line /= 10;
	}
	return out + digits;
}

static char *
write_cell(char *out, const CsvField *cell)
{
	size_t      doubled;
	const char *from = cell->data;
	const char *end;

	if (cell->is_null)
		return out;
	if (!must_quote(cell, &doubled))
		return write_bytes(out, cell->data, cell->len);

	end = cell->data + cell->len;
	*out++ = '"';
	for (; doubled > 0; doubled--)
	{
		const char *quote = memchr(from, '"', (size_t) (end - from));

		out = write_bytes(out, from, (size_t) (quote + 1 - from));
		*out++ = '"';
		from = quote + 1;
	}
	out = write_bytes(out, from, (size_t) (end - from));
	*out++ = '"';
	return out;
}

bool
row_codec_append(RowBuffer *buffer, uint64_t line,
				 const CsvField *cells, int ncells)
{
	char *out;

	if (!reserve(buffer, row_codec_size(line, cells, ncells)))
		return false;
	out = write_line(buffer->data + buffer->len, line);
	for (int i = 0; i < ncells; i++)
	{
		*out++ = ',';
		out = write_cell(out, &cells[i]);
	}
	*out++ = '\n';
	buffer->len = (size_t) (out - buffer->data);
	return true;
}

bool
row_codec_append_raw(RowBuffer *buffer, uint64_t line,
					 const char *raw, size_t raw_len)
{
	char *out;

	if (raw_len > SIZE_MAX / 2 ||
		!reserve(buffer, row_codec_raw_size(line, raw_len)))
		return false;
	out = write_line(buffer->data + buffer->len, line);
	*out++ = ',';
	out = write_bytes(out, raw, raw_len);
	*out++ = '\n';
	buffer->len = (size_t) (out - buffer->data);
	return true;
}

bool
row_codec_append_cell(RowBuffer *buffer, const CsvField *cell)
{
	size_t size = cell_size(cell);
	char  *out;

	if (size == 0)
		return true;
	if (!reserve(buffer, size))
		return false;
	out = buffer->data + buffer->len;
	buffer->len += (size_t) (write_cell(out, cell) - out);
	return true;
}

RowDecoder *
row_decoder_create(int max_cells, const CsvAllocator *allocator)
{
	CsvAllocator memory = {realloc, free};
	CsvDialect   dialect = {0};
	RowDecoder  *decoder;

	if (allocator != NULL)
		memory = *allocator;
	if (max_cells <= 0)
		max_cells = CSV_READER_DEFAULT_MAX_FIELDS;
	decoder = memory.realloc_fn(NULL, sizeof(RowDecoder));
	if (decoder == NULL)
		return NULL;
	memset(decoder, 0, sizeof(RowDecoder));
	decoder->allocator = memory;
	decoder->max_cells = max_cells;
	dialect.max_record = SIZE_MAX;
	dialect.max_fields = max_cells < INT_MAX ? max_cells + 1 : max_cells;
	decoder->reader = csv_reader_create(&dialect, &memory);
	if (decoder->reader == NULL)
	{
		memory.free_fn(decoder);
		return NULL;
	}
	row_decoder_set_payload(decoder, "", 0);
	return decoder;
}

void
row_decoder_free(RowDecoder *decoder)
{
	if (decoder == NULL)
		return;
	csv_reader_free(decoder->reader);
	decoder->allocator.free_fn(decoder);
}

void
row_decoder_set_payload(RowDecoder *decoder, const char *payload, size_t len)
{
	decoder->payload = payload;
	decoder->len = len;
	decoder->pos = 0;
	decoder->malformed = NULL;
	csv_reader_set_input(decoder->reader, payload, len, true, 0, 1, false);
}

static RowDecoderStatus
malformed(DecodedRow *row, size_t offset, const char *message)
{
	memset(row, 0, sizeof(*row));
	row->offset = offset;
	row->message = message;
	return ROW_DECODER_MALFORMED;
}

/*
 * Reads the line number and the comma after it; the number of bytes taken, or 0
 * when that is not what row_codec_append() writes.
 */
static size_t
read_line_number(const char *text, size_t len, uint64_t *line)
{
	uint64_t value = 0;
	size_t   i;

	for (i = 0; i < len && i < MAX_LINE_DIGITS && text[i] >= '0' && text[i] <= '9'; i++)
	{
		uint64_t digit = (uint64_t) (text[i] - '0');

		if (value > (UINT64_MAX - digit) / 10)
			return 0;
		value = value * 10 + digit;
	}
	if (i == 0 || i == len || text[i] != ',' || (text[0] == '0' && i > 1))
		return 0;
	*line = value;
	return i + 1;
}

/*
 * What is wrong with a record as a row of the payload, or NULL; else takes its
 * line number off.
 */
static const char *
read_row(const RowDecoder *decoder, const CsvRecord *record, DecodedRow *row)
{
	size_t end = (size_t) record->end_offset;
	size_t prefix;

	if (record->error != CSV_READER_ERROR_NONE)
		return record->message;
	if (end != decoder->pos + record->raw_len + 1 || decoder->payload[end - 1] != '\n')
		return "row does not end with a line feed";
	prefix = read_line_number(record->raw, record->raw_len, &row->line);
	if (prefix == 0)
		return "row does not begin with a line number";
	row->cells = record->fields + 1;
	row->ncells = record->nfields - 1;
	row->raw = record->raw + prefix;
	row->raw_len = record->raw_len - prefix;
	return NULL;
}

RowDecoderStatus
row_decoder_next(RowDecoder *decoder, DecodedRow *row)
{
	CsvRecord       record;
	CsvReaderStatus status;

	memset(row, 0, sizeof(*row));
	row->offset = decoder->pos;
	if (decoder->malformed == NULL)
	{
		status = csv_reader_next(decoder->reader, &record);
		if (record.offset != decoder->pos)
			decoder->malformed = "blank line";
		else if (status == CSV_READER_NO_MEMORY)
			return ROW_DECODER_NO_MEMORY;
		else if (status == CSV_READER_END)
			return ROW_DECODER_END;
		else
			decoder->malformed = read_row(decoder, &record, row);
	}
	if (decoder->malformed != NULL)
		return malformed(row, decoder->pos, decoder->malformed);
	decoder->pos = (size_t) record.end_offset;
	return ROW_DECODER_ROW;
}

RowDecoderStatus
row_decoder_raw(RowDecoder *decoder, const char *raw, size_t len, DecodedRow *row)
{
	static const CsvField null_cell = {"", 0, true};
	CsvRecord             record;
	CsvReaderStatus       status;

	row_decoder_set_payload(decoder, raw, len);
	memset(row, 0, sizeof(*row));
	row->raw = raw;
	row->raw_len = len;
	if (len == 0)
	{
		row->cells = &null_cell;
		row->ncells = 1;
		return ROW_DECODER_ROW;
	}

	status = csv_reader_next(decoder->reader, &record);
	row_decoder_set_payload(decoder, "", 0);
	switch (status)
	{
		case CSV_READER_RECORD:
			break;
		case CSV_READER_NO_MEMORY:
			return ROW_DECODER_NO_MEMORY;
		case CSV_READER_BAD_RECORD:
			return malformed(row, 0, record.message);
		default:
			return malformed(row, 0, "not exactly one row");
	}
	if (record.raw_len != len)
		return malformed(row, 0, "not exactly one row");
	if (record.nfields > decoder->max_cells)
		return malformed(row, 0, csv_reader_error_message(CSV_READER_ERROR_TOO_MANY_FIELDS));
	row->cells = record.fields;
	row->ncells = record.nfields;
	return ROW_DECODER_ROW;
}
