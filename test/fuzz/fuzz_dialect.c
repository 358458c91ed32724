/*
 * fuzz_dialect.c
 *	  What is found in the first bytes of arbitrary files.
 *
 * Input: five bytes of options, then the file.  The answer must be one that
 * there is; the first record, read with it and written as the header of a
 * report, must come back without options.
 */
#include "pure/dialect.h"

#include <stdlib.h>
#include <string.h>

static void
require(bool condition)
{
	if (!condition)
		abort();
}

static void
check_header(const DialectOptions *options, char delimiter, const char *text, size_t len)
{
	CsvDialect     dialect;
	CsvReader     *reader;
	CsvReader     *again;
	CsvRecord      record;
	CsvRecord      back;
	DialectOptions none = {0};
	RowBuffer      buffer = {.realloc_fn = realloc};
	size_t         skip = csv_skip_bom(text, len);

	dialect_reader(options, delimiter, &dialect);
	if (!csv_dialect_is_valid(&dialect))
		return;
	reader = csv_reader_create(&dialect, NULL);
	again = csv_reader_create(NULL, NULL);
	require(reader != NULL && again != NULL);
	csv_reader_set_input(reader, text + skip, len - skip, true, 0, 1, false);
	require(csv_reader_skip_lines(reader, options->skip_lines));
	if (csv_reader_next(reader, &record) == CSV_READER_RECORD && (record.nfields > 1 || record.fields[0].len > 0))
	{
		require(dialect_append_header(&buffer, record.fields, record.nfields));
		require(dialect_delimiter(&none, buffer.data, buffer.len) == ',');
		csv_reader_set_input(again, buffer.data, buffer.len, true, 0, 1, false);
		require(csv_reader_next(again, &back) == CSV_READER_RECORD && back.nfields == record.nfields);
		for (int i = 0; i < record.nfields; i++)
			require(back.fields[i].len == record.fields[i].len &&
					memcmp(back.fields[i].data, record.fields[i].data, record.fields[i].len) == 0);
	}
	free(buffer.data);
	csv_reader_free(reader);
	csv_reader_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const encodings[] = {NULL, "UTF-16", "UTF-32", "latin1"};
	DialectOptions           options = {0};
	Dialect                  found;
	char                     delimiter;

	if (size < 5)
		return 0;
	options.delimiter = data[0] < 128 ? '\0' : (char) (data[0] - 128);
	options.quote = data[1] < 128 ? '\0' : (char) (data[1] - 128);
	options.comment = data[2] < 128 ? '\0' : (char) (data[2] - 128);
	options.no_quote = data[3] & 1;
	options.pad = data[3] & 2;
	options.skip_lines = data[3] >> 5;
	options.encoding = encodings[data[4] % 4];
	data += 5;
	size -= 5;
	switch (dialect_detect(&options, (const char *) data, size, true, &found))
	{
		case DIALECT_OK:
			break;
		case DIALECT_FOREIGN:
			return 0;
		case DIALECT_NO_MEMORY:
			require(false);
	}
	require(decoder_knows_encoding(found.encoding));
	delimiter = dialect_delimiter(&options, (const char *) data, size);
	require(delimiter == options.delimiter || (options.delimiter == '\0' && strchr(",;\t|", delimiter) != NULL));
	if (found.compression == COMPRESSION_NONE && strcmp(found.encoding, "UTF-8") == 0)
		check_header(&options, delimiter, (const char *) data, size);
	return 0;
}
