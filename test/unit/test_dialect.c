/*
 * test_dialect.c
 *	  How a file is written: what is found in its first bytes.
 */
#include "pure/dialect.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#define LITERAL(text) text, sizeof(text) - 1

static void
check_delimiter(const char *text, char expected)
{
	DialectOptions options = {0};

	if (!CHECK_INT(dialect_delimiter(&options, text, strlen(text)), expected))
		printf("in %s\n", text);
}

static void
test_delimiters(void)
{
	DialectOptions options = {0};

	check_delimiter("", ',');
	check_delimiter("id", ',');
	check_delimiter("id\nx;y;z", ',');
	check_delimiter("id,name", ',');
	check_delimiter("id;name", ';');
	check_delimiter("id\tname", '\t');
	check_delimiter("id|name", '|');
	check_delimiter("a,b;c", ',');
	check_delimiter("a;b,c", ',');
	check_delimiter("a;b\tc|d", ';');
	check_delimiter("a|b\tc", '\t');
	check_delimiter("a;b;c,d", ';');
	check_delimiter("\"a,b,c,d\";e", ';');
	check_delimiter("\"a\n,b,c,d\"\";;\";e\tf\tg", '\t');
	check_delimiter("\xEF\xBB\xBF\"a,b\";c", ';');
	check_delimiter("\n\r\n\r;a,b,c\n", ',');
	check_delimiter("\n\r\n\r;a;b,c\n", ';');
	check_delimiter("\"a;b;c;d", ',');

	options.delimiter = ':';
	CHECK_INT(dialect_delimiter(&options, LITERAL("a;b")), ':');
	options.delimiter = '\0';
	options.quote = '\'';
	CHECK_INT(dialect_delimiter(&options, LITERAL("'a,b,c';d")), ';');
	CHECK_INT(dialect_delimiter(&options, LITERAL("\"a,b,c\";d")), ',');
	options.quote = '\0';
	options.no_quote = true;
	CHECK_INT(dialect_delimiter(&options, LITERAL("\"a,b,c\";d")), ',');
	options.skip_lines = 2;
	CHECK_INT(dialect_delimiter(&options, LITERAL("a,b,c\r\n\"\rid;name\n")), ';');
	CHECK_INT(dialect_delimiter(&options, LITERAL("a;b\n")), ',');
	options.comment = '#';
	CHECK_INT(dialect_delimiter(&options, LITERAL("\n\n# , , ,\n\n#,\nid|name\n")), '|');
	options.comment = ',';
	CHECK_INT(dialect_delimiter(&options, LITERAL("\n\na,b,c;d\n")), ';');
}

static void
check_encoding(const char *given, const char *head, size_t len, const char *expected)
{
	CHECK_STR(dialect_encoding(given, head, len), expected);
}

static void
test_encodings(void)
{
	check_encoding(NULL, LITERAL(""), "UTF-8");
	check_encoding(NULL, LITERAL("a\0b"), "UTF-8");
	check_encoding(NULL, LITERAL("\xEF\xBB\xBF"), "UTF-8");
	check_encoding(NULL, LITERAL("\xFF\xFE"), "UTF-16LE");
	check_encoding(NULL, LITERAL("\xFF\xFE\0a"), "UTF-16LE");
	check_encoding(NULL, LITERAL("\xFF\xFE\0\0"), "UTF-32LE");
	check_encoding(NULL, LITERAL("\xFE\xFF\0a"), "UTF-16BE");
	check_encoding(NULL, LITERAL("\0\0\xFE\xFF"), "UTF-32BE");
	check_encoding("utf8", LITERAL("\xFF\xFE"), "UTF-8");
	check_encoding("utf-16", LITERAL("\xFE\xFF"), "UTF-16BE");
	check_encoding("UTF-16", LITERAL("a\0"), "UTF-16LE");
	check_encoding("UTF-32", LITERAL("\0\0\xFE\xFF"), "UTF-32BE");
	check_encoding("UTF-32", LITERAL(""), "UTF-32LE");
	check_encoding("latin1", LITERAL("\xFF\xFE"), "latin1");
}

static void
test_magic(void)
{
	CHECK_INT(dialect_compression(LITERAL("\x1F\x8B\x08")), COMPRESSION_GZIP);
	CHECK_INT(dialect_compression(LITERAL("\x1F\x8B")), COMPRESSION_NONE);
	CHECK_INT(dialect_compression(LITERAL("\x28\xB5\x2F\xFD")), COMPRESSION_ZSTD);
	CHECK_INT(dialect_compression(LITERAL("\x5F\x2A\x4D\x18")), COMPRESSION_ZSTD);
	CHECK_INT(dialect_compression(LITERAL("id,name")), COMPRESSION_NONE);
	CHECK(dialect_foreign("PK\x03\x04", 4) != NULL);
	CHECK(dialect_foreign("\xFD"
						  "7zXZ\0",
						  6) != NULL);
	CHECK(dialect_foreign("BZh91AY&SY", 10) != NULL);
	CHECK(dialect_foreign("BZh9,name", 9) == NULL);
	CHECK(dialect_foreign("PK,name", 7) == NULL);
	CHECK(dialect_foreign("\x1F\x8B\x08", 3) == NULL);
	CHECK(dialect_foreign("", 0) == NULL);
}

static void
test_detection(void)
{
	static const char utf16[] = "\xFE\xFF\0i\0d\0;\0n\0\n";
	DialectOptions    options = {0};
	Dialect           found;
	Bytef             packed[256];
	z_stream          stream = {0};
	size_t            len;

	CHECK_INT(dialect_detect(&options, "id,name\n", 8, true, &found), DIALECT_OK);
	CHECK_INT(found.compression, COMPRESSION_NONE);
	CHECK_STR(found.encoding, "UTF-8");

	deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
	stream.next_in = (Bytef *) (uintptr_t) utf16;
	stream.avail_in = sizeof(utf16) - 1;
	stream.next_out = packed;
	stream.avail_out = sizeof(packed);
	deflate(&stream, Z_FINISH);
	len = stream.total_out;
	deflateEnd(&stream);
	CHECK_INT(dialect_detect(&options, (char *) packed, len, true, &found), DIALECT_OK);
	CHECK_INT(found.compression, COMPRESSION_GZIP);
	CHECK_STR(found.encoding, "UTF-16BE");
	/* what is damaged shows when it is read */
	CHECK_INT(dialect_detect(&options, (char *) packed, len - 9, true, &found), DIALECT_OK);
	CHECK_STR(found.encoding, "UTF-16BE");
	CHECK_INT(dialect_detect(&options, (char *) packed, 3, true, &found), DIALECT_OK);
	CHECK_STR(found.encoding, "UTF-8");
	CHECK_INT(dialect_detect(&options, "PK\x03\x04", 4, false, &found), DIALECT_FOREIGN);
	options.encoding = "no-such-encoding";
	CHECK_INT(dialect_detect(&options, "id", 2, true, &found), DIALECT_NO_MEMORY);
}

/* A header is read back with its delimiter guessed. */
static void
test_headers(void)
{
	static const char *const names[] = {"id", "a;b;c;d", "e\tf\t\t\t\t\t", "|", "\"q\"", "x,y", "", "\n"};
	int                      n = (int) (sizeof(names) / sizeof(names[0]));
	CsvField                 cells[8];
	RowBuffer                buffer = {.realloc_fn = realloc};
	DialectOptions           options = {0};

	for (int i = 0; i < n; i++)
		cells[i] = (CsvField){names[i], strlen(names[i]), false};
	for (int first = 0; first < n; first++)
	{
		CsvReader *reader = csv_reader_create(NULL, NULL);
		CsvRecord  record;

		buffer.len = 0;
		CHECK(dialect_append_header(&buffer, cells + first, n - first));
		CHECK_INT(dialect_delimiter(&options, buffer.data, buffer.len), ',');
		csv_reader_set_input(reader, buffer.data, buffer.len, true, 0, 1, false);
		CHECK_INT(csv_reader_next(reader, &record), CSV_READER_RECORD);
		CHECK_INT(record.nfields, n - first);
		for (int i = first; i < n && i - first < record.nfields; i++)
			CHECK_MEM(record.fields[i - first].data, record.fields[i - first].len, names[i], strlen(names[i]));
		csv_reader_free(reader);
	}
	free(buffer.data);
}

/* ---- what the reader makes of it ---- */

/* Records as "line:cell|cell ", bad ones as "line!". */
static void
check_records(const CsvDialect *dialect, int skip, const char *text, size_t len, const char *expected)
{
	CsvReader      *reader = csv_reader_create(dialect, NULL);
	CsvRecord       record;
	CsvReaderStatus status;
	char            shown[512] = "";
	size_t          n = 0;

	if (!CHECK(reader != NULL))
		return;
	csv_reader_set_input(reader, text, len, true, 0, 1, false);
	CHECK(csv_reader_skip_lines(reader, skip));
	while ((status = csv_reader_next(reader, &record)) != CSV_READER_END && n < 400)
	{
		n += (size_t) snprintf(shown + n, 16, "%s%d%s", n > 0 ? " " : "", (int) record.line,
							   status == CSV_READER_RECORD ? ":" : "!");
		for (int i = 0; status == CSV_READER_RECORD && i < record.nfields; i++)
			n += (size_t) snprintf(shown + n, 32, "%s%s", i > 0 ? "/" : "", record.fields[i].data);
	}
	CHECK_STR(shown, expected);
	csv_reader_free(reader);
}

static void
test_reader(void)
{
	CsvDialect dialect = {.comment = '#'};

	check_records(&dialect, 0, LITERAL("#x\na,b\n#\"\n\n#\r\nc,\"\n#d\"\n #e\n#"), "2:a/b 6:c/\n#d 8: #e");
	check_records(&dialect, 2, LITERAL("\"\r\n#\ra"), "3:a");
	check_records(&dialect, 9, LITERAL("a\nb"), "");
	dialect.no_quote = true;
	check_records(&dialect, 0, LITERAL("\"a,b\"\n\"\n#\nc\0,d\ne,\0\nf"), "1:\"a/b\" 2:\" 4! 5! 6:f");
	dialect = (CsvDialect){.delimiter = ';', .quote = '\''};
	check_records(&dialect, 0, LITERAL("'a;b';\"c,d\"\n'e''f'\n"), "1:a;b/\"c,d\" 2:e'f");
	dialect.comment = ';';
	CHECK(csv_reader_create(&dialect, NULL) == NULL);
	dialect.comment = '\'';
	CHECK(csv_reader_create(&dialect, NULL) == NULL);
	dialect.no_quote = true;
	CHECK(csv_dialect_is_valid(&dialect));

	/* not all of the lines are there yet */
	{
		CsvReader *reader = csv_reader_create(NULL, NULL);

		csv_reader_set_input(reader, "a\nb\r", 4, false, 0, 1, false);
		CHECK(!csv_reader_skip_lines(reader, 2));
		csv_reader_set_input(reader, "a\nb\r", 4, false, 0, 1, false);
		CHECK(csv_reader_skip_lines(reader, 1));
		csv_reader_free(reader);
	}
	/* a comment longer than the buffer */
	{
		CsvDialect comment = {.comment = '#'};
		CsvReader *reader = csv_reader_create(&comment, NULL);
		CsvRecord  record;

		csv_reader_set_input(reader, "#aaaa", 5, false, 0, 1, false);
		CHECK_INT(csv_reader_next(reader, &record), CSV_READER_NEED_MORE);
		CHECK(record.skip_to_line_end);
		CHECK_UINT(record.end_offset, 5);
		csv_reader_set_input(reader, "a,b\nc,d\n", 8, true, 5, record.end_line, true);
		CHECK_INT(csv_reader_next(reader, &record), CSV_READER_RECORD);
		CHECK_UINT(record.line, 2);
		CHECK_STR(record.fields[0].data, "c");
		csv_reader_free(reader);
	}
}

int
main(void)
{
	test_delimiters();
	test_encodings();
	test_magic();
	test_detection();
	test_headers();
	test_reader();
	return unit_report();
}
