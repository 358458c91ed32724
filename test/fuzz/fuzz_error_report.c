/*
 * fuzz_error_report.c
 *	  Error reports of any header and any rows.
 *
 * Input: one byte of settings, the header up to a byte 1, then records with a
 * byte 1 after each.  Splitting must agree with the CSV reader on every record;
 * the report must be CSV with one record more than there are rows, each with as
 * many fields as the first; and unless neutralised, cells that were good must
 * read as before.
 */
#include "pure/error_report.h"

#include <stdlib.h>
#include <string.h>

#define MAX_ROWS 64

static void
require(bool condition)
{
	if (!condition)
		abort();
}

/* The next piece of the input. */
static size_t
take(const char *data, size_t len)
{
	const char *end = memchr(data, 1, len);

	return end == NULL ? len : (size_t) (end - data);
}

static int
split(RowDecoder *decoder, const char *raw, size_t len)
{
	static RawCell cells[ERROR_REPORT_MAX_FIELDS];
	DecodedRow     row;
	int            n = error_report_split(raw, len, cells, ERROR_REPORT_MAX_FIELDS);
	bool           good = row_decoder_raw(decoder, raw, len, &row) == ROW_DECODER_ROW;

	require(good == (n > 0));
	if (!good)
		return 0;
	require(n == row.ncells);
	for (int i = 0; i < n; i++)
	{
		require(cells[i].data >= raw && cells[i].data + cells[i].len <= raw + len);
		require((cells[i].len == 0) == row.cells[i].is_null);
		if (cells[i].len > 0 && cells[i].data[0] == '"')
			require(cells[i].len >= row.cells[i].len + 2);
		else
			require(cells[i].len == row.cells[i].len &&
					memcmp(cells[i].data, row.cells[i].data, cells[i].len) == 0);
	}
	return n;
}

static void
read_report(const RowBuffer *out, int rows, const char *first_good, size_t first_good_len)
{
	CsvReader *reader = csv_reader_create(NULL, NULL);
	CsvRecord  record;
	int        nfields = 0;
	int        records = 0;

	require(reader != NULL);
	csv_reader_set_input(reader, out->data, out->len, true, 0, 1, false);
	while (csv_reader_next(reader, &record) == CSV_READER_RECORD)
	{
		require(records == 0 || record.nfields == nfields);
		nfields = record.nfields;
		if (records == 1 && first_good != NULL)
			require(record.raw_len > first_good_len && memcmp(record.raw, first_good, first_good_len) == 0 &&
					record.raw[first_good_len] == ',');
		records++;
	}
	require(records == rows + 1);
	require(record.end_offset == out->len);
	csv_reader_free(reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static ErrorReport report;
	RowBuffer          out = {NULL, 0, 0, realloc};
	RowDecoder        *decoder = row_decoder_create(0, NULL);
	const char        *at = (const char *) data + 1;
	const char        *end = (const char *) data + size;
	const char        *good = NULL;
	size_t             good_len = 0;
	size_t             len;
	int                header_fields;
	int                rows = 0;
	bool               plain = true;

	require(decoder != NULL);
	if (size < 1)
		goto done;
	memset(&report, 0, sizeof(report));
	report.out = &out;
	report.neutralize = data[0] & 1;

	len = take(at, (size_t) (end - at));
	header_fields = split(decoder, at, len);
	require((error_report_header(&report, at, len) == ERROR_REPORT_OK) == (header_fields > 0));
	if (header_fields == 0 || out.len > CSV_READER_DEFAULT_MAX_RECORD || header_fields > 1000)
		goto done;
	for (int i = 0; i < header_fields; i++)
		plain &= !report.left_out[i];
	for (at += len; at < end && rows < MAX_ROWS; at += len, rows++)
	{
		ErrorReportRow row = {0};

		at++;
		len = take(at, (size_t) (end - at));
		row.record = at;
		row.record_len = len;
		row.altered = data[0] & 2;
		row.line = row.code = (CsvField){"1", 1, false};
		row.column = (CsvField){"", 0, true};
		row.message = (CsvField){at, memchr(at, '\0', len) == NULL ? len : 0, false};
		if (memchr(at, '\0', len) != NULL)
			row.record_len = 0;
		if (rows == 0 && plain && !report.neutralize && !row.altered && row.record_len > 0 &&
			split(decoder, at, row.record_len) == header_fields)
		{
			good = at;
			good_len = row.record_len;
		}
		require(error_report_row(&report, &row) == ERROR_REPORT_OK);
	}
	read_report(&out, rows, good, good_len);

done:
	row_decoder_free(decoder);
	free(out.data);
	return 0;
}
