/*
 * test_error_report.c
 *	  Error reports: which cells stand in them, byte by byte; that they are
 *	  rectangular CSV whatever is in the rows.
 */
#include "pure/error_report.h"
#include "unit.h"

#include <stdlib.h>

#define FOUR ",_line,_error_code,_error_column,_error_message"

static RowBuffer   buffer = {NULL, 0, 0, realloc};
static ErrorReport report;

static void
begin(bool neutralize)
{
	buffer.len = 0;
	report.out = &buffer;
	report.neutralize = neutralize;
}

static CsvField
cell(const char *text)
{
	CsvField field = {text == NULL ? "" : text, text == NULL ? 0 : strlen(text), text == NULL};

	return field;
}

static ErrorReportRow
row_of(const char *record, const char *line, const char *column, const char *message)
{
	ErrorReportRow row = {record, strlen(record), false, cell(line), cell("22P02"), cell(column),
						  cell(message)};

	return row;
}

/* A report of one row; expected is what follows the header. */
static void
check_row(const char *header, ErrorReportRow row, bool neutralize, const char *expected)
{
	size_t header_len;

	begin(neutralize);
	CHECK_INT(error_report_header(&report, header, strlen(header)), ERROR_REPORT_OK);
	header_len = buffer.len;
	CHECK_INT(error_report_row(&report, &row), ERROR_REPORT_OK);
	CHECK_MEM(buffer.data + header_len, buffer.len - header_len, expected, strlen(expected));
}

static void
check_record(const char *header, const char *record, const char *expected)
{
	char whole[400];

	snprintf(whole, sizeof(whole), "\n%s,7,22P02,b,no", expected);
	check_row(header, row_of(record, "7", "b", "no"), false, whole);
}

static void
test_names(void)
{
	CHECK(error_report_is_column("_line", 5));
	CHECK(error_report_is_column("_error_code", 11));
	CHECK(error_report_is_column("_error_column", 13));
	CHECK(error_report_is_column("_error_message", 14));
	CHECK(!error_report_is_column("_line", 4));
	CHECK(!error_report_is_column("_lines", 6));
	CHECK(!error_report_is_column("line", 4));
	CHECK(!error_report_is_column("_LINE", 5));
	CHECK(!error_report_is_column("", 0));
}

/* --- splitting --- */

typedef struct SplitExample
{
	const char *raw;
	int         ncells;
	const char *cells; /* with | between them */
} SplitExample;

static const SplitExample split_examples[] = {
	{"", 1, ""},
	{"a", 1, "a"},
	{",", 2, "|"},
	{"a,b,c", 3, "a|b|c"},
	{",,", 3, "||"},
	{"\"\"", 1, "\"\""},
	{"\"\",", 2, "\"\"|"},
	{"\"a,b\",c", 2, "\"a,b\"|c"},
	{"\"a\"\"b\",c", 2, "\"a\"\"b\"|c"},
	{"\"\"\"\",c", 2, "\"\"\"\"|c"},
	{"\"a\r\nb\nc\",\"\r\"", 2, "\"a\r\nb\nc\"|\"\r\""},
	{" a , b", 2, " a | b"},
	{"caf\xC3\xA9,\xF0\x9F\x98\x80", 2, "caf\xC3\xA9|\xF0\x9F\x98\x80"},
	{"\\N,'x,y'", 3, "\\N|'x|y'"},
	{"\"", 0, NULL},
	{"a,\"", 0, NULL},
	{"\"a", 0, NULL},
	{"\"a\"b", 0, NULL},
	{"\"a\" ,b", 0, NULL},
	{" \"a\",b", 0, NULL},
	{"a\"b", 0, NULL},
	{"a,b\"", 0, NULL},
	{"\"\"\"", 0, NULL},
	{"a\nb", 0, NULL},
	{"a\rb", 0, NULL},
	{"a\n", 0, NULL},
};

static void
test_split(void)
{
	RawCell cells[10];
	char    joined[100];

	for (size_t i = 0; i < sizeof(split_examples) / sizeof(split_examples[0]); i++)
	{
		const SplitExample *example = &split_examples[i];
		size_t              len = 0;
		int                 n = error_report_split(example->raw, strlen(example->raw), cells, 10);

		CHECK_INT(n, example->ncells);
		for (int c = 0; c < n; c++)
		{
			if (c > 0)
				joined[len++] = '|';
			memcpy(joined + len, cells[c].data, cells[c].len);
			len += cells[c].len;
		}
		joined[len] = '\0';
		if (n > 0)
			CHECK_STR(joined, example->cells);
	}
	CHECK_INT(error_report_split("a\0b", 3, cells, 10), 0);
	CHECK_INT(error_report_split("\"a\0b\"", 5, cells, 10), 0);
	CHECK_INT(error_report_split("a,b,c", 5, cells, 3), 3);
	CHECK_INT(error_report_split("a,b,c", 5, cells, 2), 0);
	CHECK_INT(error_report_split("a,b,", 4, cells, 2), 0);
}

/* The same verdict as the reader's, and the same cells, on whatever it is given. */
static void
test_split_agrees(void)
{
	static const char letters[] = "a,\",\"\n\r =";
	RowDecoder       *decoder = row_decoder_create(0, NULL);
	uint64_t          state = 220;
	int               good = 0;

	for (int round = 0; round < 200000; round++)
	{
		char             raw[16];
		size_t           len = unit_random_below(&state, 13);
		RawCell          cells[16];
		DecodedRow       row;
		RowDecoderStatus status;
		int              n;

		for (size_t i = 0; i < len; i++)
			raw[i] = letters[unit_random_below(&state, sizeof(letters) - 1)];
		n = error_report_split(raw, len, cells, 16);
		status = row_decoder_raw(decoder, raw, len, &row);
		CHECK((n > 0) == (status == ROW_DECODER_ROW));
		if (n == 0 || status != ROW_DECODER_ROW)
			continue;
		good++;
		CHECK_INT(n, row.ncells);
		for (int c = 0; c < n; c++)
		{
			/* a raw cell begins with a quote exactly where the reader took one off */
			bool quoted = cells[c].len > 0 && cells[c].data[0] == '"';

			CHECK_INT(row.cells[c].is_null, cells[c].len == 0);
			if (!quoted)
				CHECK_MEM(cells[c].data, cells[c].len, row.cells[c].data, row.cells[c].len);
		}
	}
	CHECK(good > 10000);
	row_decoder_free(decoder);
}

/* --- headers --- */

static void
check_header(const char *header, bool neutralize, const char *expected)
{
	begin(neutralize);
	CHECK_INT(error_report_header(&report, header, strlen(header)), ERROR_REPORT_OK);
	CHECK_MEM(buffer.data, buffer.len, expected, strlen(expected));
}

static void
test_headers(void)
{
	check_header("id,name", false, "id,name" FOUR);
	check_header("\"id\",\"a \"\"name\"\"\",b", false, "\"id\",\"a \"\"name\"\"\",b" FOUR);
	check_header("id,_line,name,_error_code,_error_column,_error_message", false, "id,name" FOUR);
	check_header("_line,id,\"_error_code\",name", false, "id,name" FOUR);
	check_header("id,_lines,\"_line \"", false, "id,_lines,\"_line \"" FOUR);
	check_header("=id,\"+a\"\"\",b", false, "=id,\"+a\"\"\",b" FOUR);
	check_header("=id,\"+a\"\"\",b", true, "'=id,\"'+a\"\"\",b" FOUR);
	begin(false);
	CHECK_INT(error_report_header(&report, "a\"b", 3), ERROR_REPORT_NO_HEADER);
	CHECK_UINT(buffer.len, 0);
}

/* --- rows --- */

static void
test_rows(void)
{
	check_record("a,b", "1,2", "1,2");
	check_record("a,b", "\"1\",\"\"", "\"1\",\"\"");
	check_record("a,b", ",", ",");
	check_record("a,b", "\"x\r\ny\",\"a,\"\"b\"\"\"", "\"x\r\ny\",\"a,\"\"b\"\"\"");
	check_record("a,b", "=1+1,@x", "=1+1,@x");

	/* not as many cells as the header, or no record */
	check_record("a,b,c", "1,2", "\"1,2\",,");
	check_record("a,b", "1,2,3", "\"1,2,3\",");
	check_record("a,b", "1", "1,");
	check_record("a,b", "1,\"2", "\"1,\"\"2\",");
	check_record("a,b", "1\",2", "\"1\"\",2\",");
	check_record("a,b", "\"x\ny,\"1\"", "\"\"\"x\ny,\"\"1\"\"\",");
	check_record("a,b", "\\.", "\"\\.\",");

	/* a file that is a report */
	check_record("a,_line,b,_error_code,_error_column,_error_message", "1,9,2,22P02,b,\"x,y\"", "1,2");
	check_record("_error_message,a,_line,b", "\"x\ny\",1,9,\"2\"", "1,\"2\"");
	check_record("_line,a,b", "9,1,2,3", "\"9,1,2,3\",");

	/* the columns that are added */
	check_row("a,b", row_of("1,2", "12", NULL, "a, \"b\"\nc"), false, "\n1,2,12,22P02,,\"a, \"\"b\"\"\nc\"");
	check_row("a,b", row_of("1,2", "12", "x, y", ""), false, "\n1,2,12,22P02,\"x, y\",\"\"");
}

static void
test_altered(void)
{
	ErrorReportRow row = row_of("1,x\\x00", "3", NULL, "no");

	row.altered = true;
	check_row("a,b", row, false, "\n\"1,x\\x00\",,3,22P02,,no");
	check_row("_line,a,b", row, false, "\n\"1,x\\x00\",,3,22P02,,no");
}

static void
test_neutralize(void)
{
	static const char formulas[] = "=+-@\t\r";
	char              record[20];
	char              expected[60];

	for (size_t i = 0; i < sizeof(formulas) - 1; i++)
	{
		char c = formulas[i];

		if (c != '\r')
		{
			snprintf(record, sizeof(record), "%cx,1%cx", c, c);
			snprintf(expected, sizeof(expected), "\n'%cx,1%cx,3,22P02,,no", c, c);
			check_row("a,b", row_of(record, "3", NULL, "no"), true, expected);
			snprintf(expected, sizeof(expected), "\n%cx,1%cx,3,22P02,,no", c, c);
			check_row("a,b", row_of(record, "3", NULL, "no"), false, expected);
		}
		snprintf(record, sizeof(record), "\"%cx,\",\"\"\"%c\"", c, c);
		snprintf(expected, sizeof(expected), "\n\"'%cx,\",\"\"\"%c\",3,22P02,,no", c, c);
		check_row("a,b", row_of(record, "3", NULL, "no"), true, expected);
	}
	check_row("a,b", row_of("=,-", "3", "-b", "@no"), true, "\n'=,'-,3,22P02,'-b,'@no");
	check_row("a,b", row_of("\"\",", "3", "+a, b", "=\"x\""), true, "\n\"\",,3,22P02,\"'+a, b\",\"'=\"\"x\"\"\"");
	check_row("a,b", row_of("=1", "3", NULL, "no"), true, "\n'=1,,3,22P02,,no");
	check_row("a,b", row_of("=1,2,3", "3", NULL, "no"), true, "\n\"'=1,2,3\",,3,22P02,,no");
	check_row("a,b", row_of("\xEF\xBC\x9D,'=", "3", NULL, "no"), true, "\n\xEF\xBC\x9D,'=,3,22P02,,no");
}

/* Rows of any bytes make a report of as many records, each with all columns. */
static void
test_rectangular(void)
{
	static const char letters[] = "a,\",\"\n\r=+";
	static const char header[] = "a,_line,\"b\",c";
	uint64_t          state = 221;
	CsvReader        *reader = csv_reader_create(NULL, NULL);

	for (int round = 0; round < 2000; round++)
	{
		CsvRecord record;
		int       rows = (int) unit_random_below(&state, 8);
		int       records = 0;

		begin(round % 2 == 0);
		CHECK_INT(error_report_header(&report, header, strlen(header)), ERROR_REPORT_OK);
		for (int i = 0; i < rows; i++)
		{
			char           raw[16] = "";
			size_t         len = 1 + unit_random_below(&state, 14);
			ErrorReportRow row;

			for (size_t j = 0; j < len; j++)
				raw[j] = letters[unit_random_below(&state, sizeof(letters) - 1)];
			row = row_of(raw, "5", i % 2 == 0 ? NULL : raw, raw);
			row.altered = unit_random_below(&state, 4) == 0;
			CHECK_INT(error_report_row(&report, &row), ERROR_REPORT_OK);
		}
		csv_reader_set_input(reader, buffer.data, buffer.len, true, 0, 1, false);
		while (csv_reader_next(reader, &record) == CSV_READER_RECORD)
		{
			CHECK_INT(record.nfields, 3 + 4);
			CHECK_STR(record.nfields == 7 ? record.fields[3].data : NULL, records == 0 ? "_line" : "5");
			records++;
		}
		CHECK_INT(records, rows + 1);
		CHECK_UINT(record.end_offset, buffer.len);
	}
	csv_reader_free(reader);
}

/* --- memory --- */

static long allowed_bytes;

static void *
limited_realloc(void *ptr, size_t size)
{
	return size > (size_t) allowed_bytes ? NULL : realloc(ptr, size);
}

static void
test_no_memory(void)
{
	RowBuffer      small = {NULL, 0, 0, limited_realloc};
	ErrorReportRow row = row_of("=1,\"2\"", "3", "a", "=no");
	size_t         rows = 0;
	size_t         before;

	begin(true);
	report.out = &small;
	allowed_bytes = 0;
	CHECK_INT(error_report_header(&report, "a,b", 3), ERROR_REPORT_NO_MEMORY);
	CHECK_UINT(small.len, 0);
	allowed_bytes = 1024;
	CHECK_INT(error_report_header(&report, "a,b", 3), ERROR_REPORT_OK);
	before = small.len;
	while (error_report_row(&report, &row) == ERROR_REPORT_OK)
		rows++;
	CHECK(rows > 10);
	CHECK_UINT(small.len, before + rows * strlen("\n'=1,\"2\",3,22P02,a,'=no"));
	allowed_bytes = 4096;
	CHECK_INT(error_report_row(&report, &row), ERROR_REPORT_OK);
	CHECK_UINT(small.len, before + (rows + 1) * strlen("\n'=1,\"2\",3,22P02,a,'=no"));
	free(small.data);
}

int
main(void)
{
	test_names();
	test_split();
	test_split_agrees();
	test_headers();
	test_rows();
	test_altered();
	test_neutralize();
	test_rectangular();
	test_no_memory();
	free(buffer.data);
	return unit_report();
}
