/*
 * test_row_codec.c
 *	  Rows written as payload and read back; payloads that are damaged.
 */
#include "pure/row_codec.h"
#include "unit.h"

#include <stdlib.h>

#define MAX_CELLS 12

static RowBuffer
new_buffer(void)
{
	RowBuffer buffer = {NULL, 0, 0, realloc};

	return buffer;
}

static CsvField
cell(const char *data, size_t len)
{
	CsvField field = {data, len, false};

	return field;
}

static CsvField
null_cell(void)
{
	CsvField field = {"", 0, true};

	return field;
}

static void
check_cells(const CsvField *actual, int nactual, const CsvField *expected, int nexpected)
{
	if (!CHECK_INT(nactual, nexpected))
		return;
	for (int i = 0; i < nexpected; i++)
	{
		CHECK_INT(actual[i].is_null, expected[i].is_null);
		CHECK_MEM(actual[i].data, actual[i].len, expected[i].data, expected[i].len);
	}
}

/* --- what is written, byte by byte --- */

typedef struct CellExample
{
	const char *data; /* NULL: NULL */
	const char *expected;
} CellExample;

static const CellExample cell_examples[] = {
	{NULL, ""},
	{"", "\"\""},
	{"a", "a"},
	{" a\t", " a\t"},
	{"\\.", "\"\\.\""},
	{"\\.x", "\\.x"},
	{"\\", "\\"},
	{".", "."},
	{"a,b", "\"a,b\""},
	{"a\nb", "\"a\nb\""},
	{"a\rb", "\"a\rb\""},
	{"\"", "\"\"\"\""},
	{"\"\"", "\"\"\"\"\"\""},
	{"a\"b", "\"a\"\"b\""},
	{"\"a", "\"\"\"a\""},
	{"a\"", "\"a\"\"\""},
	{"it's; ok|", "it's; ok|"},
	{"\xC3\xA9\xFF", "\xC3\xA9\xFF"},
	{",", "\",\""},
	{"NULL", "NULL"},
};

static void
test_cells(void)
{
	RowBuffer buffer = new_buffer();

	for (size_t i = 0; i < sizeof(cell_examples) / sizeof(cell_examples[0]); i++)
	{
		const CellExample *e = &cell_examples[i];
		CsvField           field = e->data ? cell(e->data, strlen(e->data)) : null_cell();

		buffer.len = 0;
		CHECK(row_codec_append_cell(&buffer, &field));
		if (buffer.len > 0 || e->expected[0])
			CHECK_MEM(buffer.data, buffer.len, e->expected, strlen(e->expected));
		CHECK_UINT(buffer.len, strlen(e->expected));
	}
	free(buffer.data);
}

static void
test_rows(void)
{
	RowBuffer         buffer = new_buffer();
	CsvField          cells[3] = {null_cell(), cell("", 0), cell("x,y", 3)};
	static const char expected[] =
		"1,,\"\",\"x,y\"\n"
		"18446744073709551615,\n"
		"10,\"\"\n"
		"9,a,\"b\nc\",\n"
		"99,,\n";

	CHECK(row_codec_append(&buffer, 1, cells, 3));
	CHECK_UINT(row_codec_size(1, cells, 3), buffer.len);
	CHECK(row_codec_append(&buffer, UINT64_MAX, cells, 1));
	CHECK(row_codec_append(&buffer, 10, cells + 1, 1));
	CHECK(row_codec_append_raw(&buffer, 9, "a,\"b\nc\",", 8));
	CHECK_UINT(row_codec_raw_size(9, 8), 11);
	CHECK(row_codec_append_raw(&buffer, 99, ",", 1));
	CHECK_MEM(buffer.data, buffer.len, expected, strlen(expected));
	free(buffer.data);
}

/* --- what is read --- */

static void
test_decoding(void)
{
	static const char payload[] = "7,,\"\",a b\n18446744073709551615,\"x\r\ny\"\"\"\n0,\n";
	RowDecoder       *decoder = row_decoder_create(0, NULL);
	DecodedRow        row;
	CsvField          first[3] = {null_cell(), cell("", 0), cell("a b", 3)};
	CsvField          second[1] = {cell("x\r\ny\"", 5)};
	CsvField          third[1] = {null_cell()};

	CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_END);
	row_decoder_set_payload(decoder, payload, sizeof(payload) - 1);
	CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_ROW);
	CHECK_UINT(row.line, 7);
	CHECK_UINT(row.offset, 0);
	CHECK_MEM(row.raw, row.raw_len, ",\"\",a b", 7);
	check_cells(row.cells, row.ncells, first, 3);
	CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_ROW);
	CHECK_UINT(row.line, UINT64_MAX);
	CHECK_UINT(row.offset, 10);
	CHECK_MEM(row.raw, row.raw_len, "\"x\r\ny\"\"\"", 8);
	check_cells(row.cells, row.ncells, second, 1);
	CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_ROW);
	CHECK_UINT(row.line, 0);
	CHECK_UINT(row.raw_len, 0);
	check_cells(row.cells, row.ncells, third, 1);
	CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_END);
	CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_END);
	CHECK_UINT(row.offset, sizeof(payload) - 1);
	row_decoder_free(decoder);
	row_decoder_free(NULL);
}

typedef struct BadPayload
{
	const char *payload;
	size_t      len;
	int         good_rows; /* before the damage */
	size_t      offset;    /* of the damage */
} BadPayload;

#define BYTES(s) s, sizeof(s) - 1

static const BadPayload bad_payloads[] = {
	{BYTES("\n"), 0, 0},
	{BYTES("1,a\n\n2,b\n"), 1, 4},
	{BYTES("1,a\n\n"), 1, 4},
	{BYTES("\r\n1,a\n"), 0, 0},
	{BYTES("1,a"), 0, 0},
	{BYTES("1,a\n2,b"), 1, 4},
	{BYTES("1,a\r\n"), 0, 0},
	{BYTES("1,a\r2,b\n"), 0, 0},
	{BYTES("1\n"), 0, 0},
	{BYTES("1"), 0, 0},
	{BYTES(",a\n"), 0, 0},
	{BYTES("a,a\n"), 0, 0},
	{BYTES("-1,a\n"), 0, 0},
	{BYTES("+1,a\n"), 0, 0},
	{BYTES(" 1,a\n"), 0, 0},
	{BYTES("1 ,a\n"), 0, 0},
	{BYTES("01,a\n"), 0, 0},
	{BYTES("00,a\n"), 0, 0},
	{BYTES("\"1\",a\n"), 0, 0},
	{BYTES("18446744073709551616,a\n"), 0, 0},
	{BYTES("99999999999999999999,a\n"), 0, 0},
	{BYTES("100000000000000000000,a\n"), 0, 0},
	{BYTES("1,a\n2,\"b\n3,c\n"), 1, 4},
	{BYTES("1,a\n2,b\"b\n3,c\n"), 1, 4},
	{BYTES("1,a\n2,\"b\"b\n3,c\n"), 1, 4},
	{BYTES("1,a\n2,b\0\n3,c\n"), 1, 4},
	{BYTES("1,a\n2,a,b,c,d,e\n"), 1, 4},
	{BYTES("\xEF\xBB\xBF"
		   "1,a\n"),
	 0, 0},
};

static void
test_damage(void)
{
	RowDecoder *decoder = row_decoder_create(4, NULL);
	DecodedRow  row;

	for (size_t i = 0; i < sizeof(bad_payloads) / sizeof(bad_payloads[0]); i++)
	{
		const BadPayload *bad = &bad_payloads[i];
		int               rows = 0;

		row_decoder_set_payload(decoder, bad->payload, bad->len);
		while (row_decoder_next(decoder, &row) == ROW_DECODER_ROW)
			rows++;
		CHECK_INT(rows, bad->good_rows);
		for (int j = 0; j < 2; j++)
		{
			if (!CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_MALFORMED))
				printf("  payload %zu\n", i);
			CHECK_UINT(row.offset, bad->offset);
			CHECK(row.message != NULL && row.cells == NULL && row.raw == NULL);
		}
	}
	row_decoder_set_payload(decoder, "5,a,b,c,d\n", 10);
	CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_ROW);
	CHECK_INT(row.ncells, 4);
	row_decoder_free(decoder);
}

typedef struct RawExample
{
	const char *raw;
	size_t      len;
	int         ncells; /* 0: malformed */
} RawExample;

static const RawExample raw_examples[] = {
	{BYTES(""), 1},
	{BYTES("a"), 1},
	{BYTES(","), 2},
	{BYTES("\"a\nb\",c"), 2},
	{BYTES("a,b,c,d"), 4},
	{BYTES("a,b,c,d,e"), 0},
	{BYTES("a,b,c,d,e,f"), 0},
	{BYTES("a\n"), 0},
	{BYTES("a\r\n"), 0},
	{BYTES("\na"), 0},
	{BYTES("a\nb"), 0},
	{BYTES("\n"), 0},
	{BYTES("\""), 0},
	{BYTES("a\"b"), 0},
	{BYTES("a\0"), 0},
	{BYTES("\"a\nb"), 0},
	{BYTES("\xEF\xBB\xBF"), 1},
};

static void
test_raw(void)
{
	RowDecoder *decoder = row_decoder_create(4, NULL);
	DecodedRow  row;

	for (size_t i = 0; i < sizeof(raw_examples) / sizeof(raw_examples[0]); i++)
	{
		const RawExample *e = &raw_examples[i];
		RowDecoderStatus  status = row_decoder_raw(decoder, e->raw, e->len, &row);

		CHECK_INT(status, e->ncells > 0 ? ROW_DECODER_ROW : ROW_DECODER_MALFORMED);
		CHECK_INT(row.ncells, e->ncells);
		CHECK((row.message != NULL) == (e->ncells == 0));
		if (e->ncells > 0)
			CHECK_MEM(row.raw, row.raw_len, e->raw, e->len);
		if (i == 0)
			CHECK(row.cells[0].is_null);
		CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_END);
	}
	row_decoder_free(decoder);
}

/* --- round trips --- */

/* Random cells; their bytes go to text, which has room for MAX_CELLS * 12. */
static int
random_cells(uint64_t *seed, CsvField *cells, char *text)
{
	static const char letters[] = "ab,\"\"\n\r \\.\xC3\xA9";
	int               ncells = 1 + (int) unit_random_below(seed, MAX_CELLS);

	for (int i = 0; i < ncells; i++)
	{
		size_t len = unit_random_below(seed, 3) == 0 ? 0 : unit_random_below(seed, 12);

		for (size_t j = 0; j < len; j++)
			text[j] = letters[unit_random_below(seed, sizeof(letters) - 1)];
		cells[i] = cell(text, len);
		if (len == 0 && unit_random_below(seed, 2) == 0)
			cells[i] = null_cell();
		if (unit_random_below(seed, 40) == 0)
			cells[i] = cell("\\.", 2);
		text += len;
	}
	return ncells;
}

/* An independent reading of one written cell; returns the byte after it. */
static const char *
read_cell(const char *at, char *data, CsvField *field)
{
	size_t len = 0;

	field->data = data;
	field->is_null = *at == ',' || *at == '\n';
	if (*at != '"')
	{
		while (*at != ',' && *at != '\n')
			data[len++] = *at++;
	}
	else
	{
		for (at++; at[0] != '"' || at[1] == '"'; at++)
		{
			if (*at == '"')
				at++;
			data[len++] = *at;
		}
		at++;
	}
	field->len = len;
	return at;
}

static void
test_round_trips(void)
{
	uint64_t    seed = 42;
	RowBuffer   buffer = new_buffer();
	RowDecoder *decoder = row_decoder_create(0, NULL);
	DecodedRow  row;
	CsvField    cells[4][MAX_CELLS];
	int         ncells[4];
	uint64_t    lines[4];
	size_t      starts[5];
	char        text[4][MAX_CELLS * 12];
	char        data[64];

	for (int i = 0; i < 2000; i++)
	{
		int nrows = 1 + (int) unit_random_below(&seed, 4);

		buffer.len = 0;
		for (int r = 0; r < nrows; r++)
		{
			ncells[r] = random_cells(&seed, cells[r], text[r]);
			lines[r] = unit_random_magnitude(&seed, 64);
			starts[r] = buffer.len;
			CHECK(row_codec_append(&buffer, lines[r], cells[r], ncells[r]));
			CHECK_UINT(buffer.len - starts[r], row_codec_size(lines[r], cells[r], ncells[r]));
		}
		starts[nrows] = buffer.len;

		/* by hand */
		for (int r = 0; r < nrows; r++)
		{
			char       *at;
			const char *rest;

			CHECK_UINT(strtoull(buffer.data + starts[r], &at, 10), lines[r]);
			rest = at;
			for (int c = 0; c < ncells[r]; c++)
			{
				CsvField field;

				CHECK_INT(*rest, ',');
				rest = read_cell(rest + 1, data, &field);
				check_cells(&field, 1, &cells[r][c], 1);
			}
			CHECK_INT(*rest, '\n');
			CHECK_UINT(rest + 1 - buffer.data, starts[r + 1]);
		}

		/*
		 * By the decoder, cut off anywhere: the rows that are whole, then an
		 * error unless the cut is between rows.
		 */
		for (size_t cut = i % 20 == 0 ? 0 : buffer.len; cut <= buffer.len; cut++)
		{
			char            *payload = malloc(cut > 0 ? cut : 1);
			RowDecoderStatus status;
			int              r = 0;

			memcpy(payload, buffer.data, cut);
			row_decoder_set_payload(decoder, payload, cut);
			while ((status = row_decoder_next(decoder, &row)) == ROW_DECODER_ROW && r < nrows)
			{
				CHECK_UINT(row.line, lines[r]);
				CHECK_UINT(row.offset, starts[r]);
				CHECK(row.raw + row.raw_len + 1 == payload + starts[r + 1]);
				check_cells(row.cells, row.ncells, cells[r], ncells[r]);
				r++;
			}
			CHECK_UINT(row.offset, starts[r]);
			CHECK_INT(status, cut == starts[r] ? ROW_DECODER_END : ROW_DECODER_MALFORMED);
			CHECK(r == nrows || cut < starts[r + 1]);
			free(payload);
		}
	}
	row_decoder_free(decoder);
	free(buffer.data);
}

/* What a reader accepts may be stored as it is and reads back the same. */
static void
test_raw_records(void)
{
	static const char letters[] = "a,\"\"\n\r\\. ";
	uint64_t          seed = 7;
	CsvReader        *reader = csv_reader_create(NULL, NULL);
	RowDecoder       *decoder = row_decoder_create(0, NULL);
	RowBuffer         raw = new_buffer();
	RowBuffer         split = new_buffer();
	CsvRecord         record;
	DecodedRow        row;
	CsvReaderStatus   status;
	long              good = 0;

	for (int i = 0; i < 10000; i++)
	{
		char   input[40];
		size_t len = unit_random_below(&seed, sizeof(input) + 1);

		for (size_t j = 0; j < len; j++)
			input[j] = letters[unit_random_below(&seed, sizeof(letters) - 1)];
		csv_reader_set_input(reader, input, len, true, 0, 1, false);
		while ((status = csv_reader_next(reader, &record)) != CSV_READER_END)
		{
			if (status != CSV_READER_RECORD)
				continue;
			good++;
			raw.len = split.len = 0;
			CHECK(row_codec_append_raw(&raw, record.line, record.raw, record.raw_len));
			CHECK_UINT(raw.len, row_codec_raw_size(record.line, record.raw_len));
			row_decoder_set_payload(decoder, raw.data, raw.len);
			CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_ROW);
			CHECK_UINT(row.line, record.line);
			CHECK_MEM(row.raw, row.raw_len, record.raw, record.raw_len);
			check_cells(row.cells, row.ncells, record.fields, record.nfields);
			CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_END);
			CHECK_INT(row_decoder_raw(decoder, record.raw, record.raw_len, &row), ROW_DECODER_ROW);
			check_cells(row.cells, row.ncells, record.fields, record.nfields);

			CHECK(row_codec_append(&split, record.line, record.fields, record.nfields));
			row_decoder_set_payload(decoder, split.data, split.len);
			CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_ROW);
			check_cells(row.cells, row.ncells, record.fields, record.nfields);
			CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_END);
		}
	}
	CHECK(good > 10000);
	csv_reader_free(reader);
	row_decoder_free(decoder);
	free(raw.data);
	free(split.data);
}

/* A row longer than any record of a source: quotes double, limits do not apply. */
static void
test_large_row(void)
{
	size_t      len = 3 * CSV_READER_DEFAULT_MAX_RECORD / 2;
	char       *data = malloc(len);
	CsvField    cells[2];
	RowBuffer   buffer = new_buffer();
	RowDecoder *decoder = row_decoder_create(0, NULL);
	DecodedRow  row;

	for (size_t i = 0; i < len; i++)
		data[i] = i % 3 == 0 ? '"' : i % 3 == 1 ? '\n' :
												  'x';
	cells[0] = cell(data, len);
	cells[1] = null_cell();
	CHECK(row_codec_append(&buffer, 3, cells, 2));
	CHECK_UINT(buffer.len, 1 + 1 + len + len / 3 + 2 + 1 + 1);
	CHECK(buffer.len <= buffer.cap && buffer.cap < 2 * buffer.len);
	row_decoder_set_payload(decoder, buffer.data, buffer.len);
	CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_ROW);
	check_cells(row.cells, row.ncells, cells, 2);
	CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_END);
	row_decoder_free(decoder);
	free(buffer.data);
	free(data);
}

/* --- memory --- */

static long allowed_requests;

static void *
limited_realloc(void *ptr, size_t size)
{
	if (allowed_requests-- <= 0)
		return NULL;
	return realloc(ptr, size);
}

static void
test_no_memory(void)
{
	RowBuffer    buffer = {NULL, 0, 0, limited_realloc};
	CsvAllocator allocator = {limited_realloc, free};
	CsvField     cells[2] = {cell("a,b", 3), null_cell()};
	RowDecoder  *decoder = NULL;
	DecodedRow   row;
	size_t       rows = 0;

	allowed_requests = 0;
	CHECK(!row_codec_append(&buffer, 1, cells, 2));
	CHECK(!row_codec_append_raw(&buffer, 1, "x", 1));
	CHECK(!row_codec_append_cell(&buffer, &cells[0]));
	CHECK(buffer.data == NULL && buffer.len == 0 && buffer.cap == 0);
	allowed_requests = 1;
	while (row_codec_append(&buffer, 1, cells, 2))
		rows++;
	CHECK_UINT(buffer.len, rows * 9);
	CHECK(rows > 0 && buffer.len + 9 > buffer.cap);
	CHECK(!row_codec_append_raw(&buffer, 1, "x", SIZE_MAX - 2));
	CHECK(!row_codec_append_raw(&buffer, 1, "x", SIZE_MAX / 2));

	for (int requests = 0; decoder == NULL && requests < 20; requests++)
	{
		allowed_requests = requests;
		decoder = row_decoder_create(0, &allocator);
		CHECK((decoder != NULL) == (requests == 4));
	}
	row_decoder_set_payload(decoder, buffer.data, buffer.len);
	CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_NO_MEMORY);
	CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_NO_MEMORY);
	allowed_requests = 100;
	while (row_decoder_next(decoder, &row) == ROW_DECODER_ROW)
		rows--;
	CHECK_UINT(rows, 0);
	CHECK_INT(row_decoder_next(decoder, &row), ROW_DECODER_END);
	row_decoder_free(decoder);
	free(buffer.data);
}

int
main(void)
{
	test_cells();
	test_rows();
	test_decoding();
	test_damage();
	test_raw();
	test_round_trips();
	test_raw_records();
	test_large_row();
	test_no_memory();
	return unit_report();
}
