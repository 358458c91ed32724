/*
 * fuzz_decoder.c
 *	  The decoder on arbitrary bytes, all at once and cut into pieces.
 *
 * Input: one byte that says how they are to be read, one that seeds the cuts,
 * then the file.  Both readings must end alike, with the same text unless in an
 * error, and where reading can begin anew the rest must be the same.
 */
#include "pure/decoder.h"

#include <stdlib.h>
#include <string.h>

#define MAX_OUT ((size_t) 1024 * 1024)

static const char *const encodings[] = {
	"UTF-8", "UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE", "WINDOWS-1252", "ISO-8859-1", "KOI8-R",
	"SHIFT_JIS", "EUC-JP", "GB18030", "BIG5", "UTF-7", "ISO-2022-JP", "CP1258", "UTF-16"};

#define ENCODINGS (sizeof(encodings) / sizeof(encodings[0]))

static void
require(bool condition)
{
	if (!condition)
		abort();
}

typedef struct Reading
{
	char         *text;
	size_t        len;
	DecoderStatus status; /* DECODER_OK: given up */
	DecoderError  error;
	bool          can_restart;
	uint64_t      restart_in;
	size_t        restart_out;
} Reading;

static Reading
read_all(Compression compression, const char *encoding, const char *data, size_t len, unsigned steps)
{
	Decoder *decoder = decoder_create(compression, encoding);
	Reading  reading = {.text = malloc(MAX_OUT)};
	size_t   at = 0;
	uint64_t offset;

	require(decoder != NULL && reading.text != NULL);
	while (reading.status == DECODER_OK && MAX_OUT - reading.len >= DECODER_ROOM)
	{
		size_t         in = len - at;
		size_t         room = MAX_OUT - reading.len;
		char          *piece;
		DecoderBuffers buffers;

		if (steps > 0)
		{
			steps = steps * 1103515245 + 12345;
			in = in < (steps >> 16) % 40 ? in : (steps >> 16) % 40;
			room = room < DECODER_ROOM + (steps >> 20) % 50 ? room : DECODER_ROOM + (steps >> 20) % 50;
		}
		/* exactly as long as it is said to be */
		piece = malloc(in > 0 ? in : 1);
		require(piece != NULL);
		if (in > 0)
			memcpy(piece, data + at, in);
		buffers = (DecoderBuffers){piece, in, at + in == len, reading.text + reading.len, room};
		reading.status = decoder_run(decoder, &buffers);
		require(buffers.in_len <= in && buffers.out_len <= room);
		at += in - buffers.in_len;
		reading.len += room - buffers.out_len;
		if (reading.status == DECODER_OK)
		{
			require(buffers.in_len == 0 || buffers.out_len < DECODER_ROOM);
			if (reading.restart_out == 0)
			{
				reading.can_restart = decoder_can_restart(decoder, &reading.restart_in);
				reading.restart_out = reading.len;
				require(reading.restart_in <= at);
			}
		}
		free(piece);
	}
	reading.error = decoder_error(decoder, &offset);
	require(offset <= len && reading.status != DECODER_NO_MEMORY);
	require((reading.error != DECODER_ERROR_NONE) == (reading.status == DECODER_ERROR));
	decoder_free(decoder);
	return reading;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *file = (const char *) data + 2;
	const char *encoding;
	Compression compression;
	Reading     whole;
	Reading     pieces;

	if (size < 2)
		return 0;
	encoding = encodings[data[0] % ENCODINGS];
	compression = (Compression) (data[0] / ENCODINGS % 3);
	whole = read_all(compression, encoding, file, size - 2, 0);
	pieces = read_all(compression, encoding, file, size - 2, data[1] + 1U);
	require(whole.status == pieces.status && whole.error == pieces.error);
	if (whole.status == DECODER_END)
		require(whole.len == pieces.len && memcmp(whole.text, pieces.text, whole.len) == 0);
	if (pieces.can_restart && pieces.status == DECODER_END)
	{
		Reading rest = read_all(compression, encoding, file + pieces.restart_in,
								size - 2 - (size_t) pieces.restart_in, data[1]);

		require(rest.status == DECODER_END && rest.len == pieces.len - pieces.restart_out);
		require(memcmp(rest.text, pieces.text + pieces.restart_out, rest.len) == 0);
		free(rest.text);
	}
	free(whole.text);
	free(pieces.text);
	return 0;
}
