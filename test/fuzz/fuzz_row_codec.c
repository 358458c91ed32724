/*
 * fuzz_row_codec.c
 *	  The row decoder on arbitrary bytes, and what it read written again.
 *
 * Rows that were decoded, written from their cells or from their raw text, must
 * decode to the same cells; and the rows given out must be the whole payload
 * up to the place that is said to be malformed.
 */
#include "pure/row_codec.h"

#include <stdlib.h>
#include <string.h>

#define MAX_CELLS 50

static void
require(bool condition)
{
	if (!condition)
		abort();
}

static void
require_same(const DecodedRow *a, const DecodedRow *b)
{
	require(a->ncells == b->ncells);
	for (int i = 0; i < a->ncells; i++)
	{
		require(a->cells[i].is_null == b->cells[i].is_null);
		require(a->cells[i].len == b->cells[i].len);
		require(memcmp(a->cells[i].data, b->cells[i].data, a->cells[i].len + 1) == 0);
	}
}

/* Writes a row both ways, and reads it back. */
static void
write_again(const DecodedRow *row, RowDecoder *decoder, RowBuffer *buffer)
{
	DecodedRow again;

	buffer->len = 0;
	require(row_codec_append(buffer, row->line, row->cells, row->ncells));
	require(buffer->len == row_codec_size(row->line, row->cells, row->ncells));
	row_decoder_set_payload(decoder, buffer->data, buffer->len);
	require(row_decoder_next(decoder, &again) == ROW_DECODER_ROW);
	require(again.line == row->line);
	require_same(row, &again);
	require(row_decoder_next(decoder, &again) == ROW_DECODER_END);

	buffer->len = 0;
	require(row_codec_append_raw(buffer, row->line, row->raw, row->raw_len));
	require(buffer->len == row_codec_raw_size(row->line, row->raw_len));
	row_decoder_set_payload(decoder, buffer->data, buffer->len);
	require(row_decoder_next(decoder, &again) == ROW_DECODER_ROW);
	require(again.line == row->line);
	require_same(row, &again);
	require(row_decoder_next(decoder, &again) == ROW_DECODER_END);

	require(row_decoder_raw(decoder, row->raw, row->raw_len, &again) == ROW_DECODER_ROW);
	require_same(row, &again);
}

static void
read_payload(const char *payload, size_t len, RowDecoder *decoder,
			 RowDecoder *other, RowBuffer *buffer)
{
	DecodedRow       row;
	RowDecoderStatus status;
	size_t           end = 0;

	row_decoder_set_payload(decoder, payload, len);
	while ((status = row_decoder_next(decoder, &row)) == ROW_DECODER_ROW)
	{
		require(row.offset == end);
		require(row.ncells >= 1 && row.ncells <= MAX_CELLS);
		end = (size_t) (row.raw + row.raw_len - payload) + 1;
		require(end <= len && payload[end - 1] == '\n');
		write_again(&row, other, buffer);
	}
	require(row.offset == end);
	require(status == ROW_DECODER_MALFORMED || (status == ROW_DECODER_END && end == len));
	require((row.message != NULL) == (status == ROW_DECODER_MALFORMED));
	require(row_decoder_next(decoder, &row) == status);
}

/* A stored record alone: either an error, or a row that can be written. */
static void
read_raw(const char *raw, size_t len, RowDecoder *decoder,
		 RowDecoder *other, RowBuffer *buffer)
{
	DecodedRow       row;
	RowDecoderStatus status = row_decoder_raw(decoder, raw, len, &row);

	require(status == ROW_DECODER_ROW || status == ROW_DECODER_MALFORMED);
	if (status == ROW_DECODER_ROW)
	{
		require(row.raw == raw && row.raw_len == len && row.line == 0);
		write_again(&row, other, buffer);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	RowDecoder *decoder = row_decoder_create(MAX_CELLS, NULL);
	RowDecoder *other = row_decoder_create(MAX_CELLS, NULL);
	RowBuffer   buffer = {NULL, 0, 0, realloc};

	require(decoder != NULL && other != NULL);
	read_payload((const char *) data, size, decoder, other, &buffer);
	read_raw((const char *) data, size, decoder, other, &buffer);
	row_decoder_free(decoder);
	row_decoder_free(other);
	free(buffer.data);
	return 0;
}
