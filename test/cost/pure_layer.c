/*
 * pure_layer.c
 *		The way of a file's rows through the pure layer, for callgrind to count.
 *
 *	pure_layer N
 *
 * Makes a file of N rows of five cells in memory; then take_rows() reads it, gives
 * each row to a lane, writes the rows as a chunk and decodes that.  Always the same
 * for the same N, so the instructions that N + M rows take beyond those of N are
 * what M rows cost.  test/t/500_cost.t runs it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "pure/csv_reader.h"
#include "pure/lane_assignment.h"
#include "pure/row_codec.h"

#define LANES 32
#define CELLS 5

static _Noreturn void
fail(const char *what)
{
	fprintf(stderr, "pure_layer: %s\n", what);
	exit(1);
}

/* What is counted. */
static __attribute__((noinline)) void
take_rows(const char *file, size_t length, long rows)
{
	CsvReader      *reader = csv_reader_create(NULL, NULL);
	RowDecoder     *decoder = row_decoder_create(0, NULL);
	RowBuffer       chunk = {.realloc_fn = realloc};
	CsvRecord       record;
	CsvReaderStatus status;
	DecodedRow      row;
	long            in_lane[LANES] = {0};
	long            ndecoded = 0;

	if (reader == NULL || decoder == NULL)
		fail("out of memory");
	csv_reader_set_input(reader, file, length, true, 0, 1, false);
	while ((status = csv_reader_next(reader, &record)) == CSV_READER_RECORD)
	{
		in_lane[lane_of_hash(lane_mix64(record.line), LANES)]++;
		if (!row_codec_append_raw(&chunk, record.line, record.raw, record.raw_len))
			fail("out of memory");
	}
	if (status != CSV_READER_END)
		fail("the file could not be read");

	row_decoder_set_payload(decoder, chunk.data, chunk.len);
	while (row_decoder_next(decoder, &row) == ROW_DECODER_ROW)
		if (row.ncells == CELLS)
			ndecoded++;
	for (int lane = 1; lane < LANES; lane++)
		in_lane[0] += in_lane[lane];
	if (ndecoded != rows || in_lane[0] != rows)
		fail("rows are missing");
	row_decoder_free(decoder);
	csv_reader_free(reader);
	free(chunk.data);
}

int
main(int argc, char **argv)
{
	long   rows = argc > 1 ? atol(argv[1]) : 0;
	size_t room = (size_t) rows * 100 + 1;
	size_t length = 0;
	char  *file = malloc(room);

	if (file == NULL)
		fail("out of memory");
	for (long i = 1; i <= rows; i++)
	{
		const char *quote = i % 10 ? "" : "\"";

		length += (size_t) snprintf(file + length, room - length, "%ld,Given%ld,%s+44-%07ld%s,%ld,%ld.25\n", i,
									i % 5000, quote, i % 8999999, quote, 20 + i % 60, i % 9999);
	}
	take_rows(file, length, rows);
	free(file);
	printf("%ld rows\n", rows);
	return 0;
}
