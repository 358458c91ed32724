/*
 * test_decoder.c
 *	  Files as they are stored become UTF-8, however they are cut into pieces;
 *	  compared with what zlib, zstd and iconv make of them in one go.
 */
#include "pure/decoder.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include <iconv.h>
#include <zlib.h>
#include <zstd.h>

#define MAX_OUT ((size_t) 4 * 1024 * 1024)

typedef struct Bytes
{
	char  *data;
	size_t len;
} Bytes;

static Bytes
bytes_new(size_t len)
{
	Bytes bytes = {malloc(len > 0 ? len : 1), len};

	return bytes;
}

static Bytes
bytes_of(const char *data, size_t len)
{
	Bytes bytes = bytes_new(len);

	memcpy(bytes.data, data, len);
	return bytes;
}

static Bytes
joined(Bytes first, Bytes second)
{
	Bytes bytes = bytes_new(first.len + second.len);

	memcpy(bytes.data, first.data, first.len);
	memcpy(bytes.data + first.len, second.data, second.len);
	free(first.data);
	free(second.data);
	return bytes;
}

/* ---- making files ---- */

static Bytes
gzipped(const char *data, size_t len)
{
	z_stream stream = {0};
	Bytes    bytes = bytes_new(len + len / 2 + 1024);

	deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
	stream.next_in = (Bytef *) (uintptr_t) data;
	stream.avail_in = (uInt) len;
	stream.next_out = (Bytef *) bytes.data;
	stream.avail_out = (uInt) bytes.len;
	CHECK_INT(deflate(&stream, Z_FINISH), Z_STREAM_END);
	bytes.len = stream.total_out;
	deflateEnd(&stream);
	return bytes;
}

static Bytes
zstd_of(const char *data, size_t len)
{
	Bytes bytes = bytes_new(ZSTD_compressBound(len));

	bytes.len = ZSTD_compress(bytes.data, bytes.len, data, len, 3);
	return bytes;
}

static Bytes
converted(const char *to, const char *data, size_t len)
{
	iconv_t conversion = iconv_open(to, "UTF-8");
	Bytes   bytes = bytes_new(4 * len + 16);
	char   *in = (char *) (uintptr_t) data;
	char   *out = bytes.data;
	size_t  in_left = len;
	size_t  out_left = bytes.len;

	CHECK(iconv(conversion, &in, &in_left, &out, &out_left) != (size_t) -1);
	CHECK(iconv(conversion, NULL, NULL, &out, &out_left) != (size_t) -1);
	iconv_close(conversion);
	bytes.len -= out_left;
	return bytes;
}

/* Text of several lines with characters of one to four bytes. */
static Bytes
some_text(uint64_t *seed, size_t len, bool latin)
{
	static const char *const any[] = {"a", ",", "\n", "\"", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "word "};
	static const char *const narrow[] = {"a", ",", "\n", "\"", "\xC3\xA9", "\xC3\xBC", "b", "word "};
	Bytes                    bytes = bytes_new(len + 8);
	size_t                   at = 0;

	while (at < len)
	{
		const char *piece = (latin ? narrow : any)[unit_random_below(seed, 8)];

		memcpy(bytes.data + at, piece, strlen(piece));
		at += strlen(piece);
	}
	bytes.len = at;
	return bytes;
}

/* ---- reading them ---- */

typedef struct Result
{
	Bytes         text;
	DecoderStatus status;
	DecoderError  error;
	uint64_t      restart_in; /* somewhere on the way */
	size_t        restart_out;
	bool          can_restart;
} Result;

/* Pieces of random sizes go in, and come out; with a seed of 0 all at once. */
static Result
decode(Compression compression, const char *encoding, const char *data, size_t len, uint64_t seed)
{
	Decoder *decoder = decoder_create(compression, encoding);
	Result   result = {.status = DECODER_OK};
	Bytes    out = bytes_new(MAX_OUT);
	size_t   given = 0;
	size_t   used = 0;
	size_t   produced = 0;
	bool     random = seed != 0;

	CHECK(decoder != NULL);
	while (decoder != NULL && result.status == DECODER_OK)
	{
		size_t         in = random ? unit_random_magnitude(&seed, 14) : len;
		size_t         room = random ? DECODER_ROOM + unit_random_magnitude(&seed, 14) : MAX_OUT;
		DecoderBuffers buffers;

		given = in < len - used ? used + in : len;
		if (room > MAX_OUT - produced)
			room = MAX_OUT - produced;
		buffers = (DecoderBuffers){data + used, given - used, given == len, out.data + produced, room};
		result.status = decoder_run(decoder, &buffers);
		used = given - buffers.in_len;
		produced += room - buffers.out_len;
		if (result.status == DECODER_OK)
		{
			if (!CHECK(buffers.in_len == 0 || buffers.out_len < DECODER_ROOM) || produced == MAX_OUT)
				break;
			if (random && unit_random_below(&seed, 4) == 0)
			{
				result.can_restart = decoder_can_restart(decoder, &result.restart_in);
				result.restart_out = produced;
			}
		}
	}
	if (decoder != NULL)
	{
		uint64_t offset;

		result.error = decoder_error(decoder, &offset);
		CHECK(offset <= len);
	}
	decoder_free(decoder);
	out.len = produced;
	result.text = out;
	return result;
}

static void
check_text(Compression compression, const char *encoding, Bytes file, const char *text, size_t len, bool restart)
{
	for (uint64_t seed = 0; seed < 6; seed++)
	{
		Result result = decode(compression, encoding, file.data, file.len, seed);

		CHECK_INT(result.status, DECODER_END);
		CHECK_MEM(result.text.data, result.text.len, text, len);
		if (result.restart_out > 0)
			CHECK_INT(result.can_restart, restart);
		if (result.can_restart)
		{
			Result rest = decode(compression, encoding, file.data + result.restart_in,
								 file.len - (size_t) result.restart_in, seed);

			CHECK_INT(rest.status, DECODER_END);
			CHECK_MEM(rest.text.data, rest.text.len, text + result.restart_out, len - result.restart_out);
			free(rest.text.data);
		}
		free(result.text.data);
	}
}

static void
check_error(Compression compression, const char *encoding, const char *data, size_t len, DecoderError error)
{
	for (uint64_t seed = 0; seed < 6; seed++)
	{
		Result result = decode(compression, encoding, data, len, seed);

		CHECK_INT(result.status, DECODER_ERROR);
		CHECK_INT(result.error, error);
		CHECK(decoder_error_message(result.error) != NULL);
		free(result.text.data);
	}
}

/* ---- tests ---- */

static void
test_encodings(void)
{
	static const struct
	{
		const char *name;
		bool        latin;
		bool        restart;
	} encodings[] = {
		{"UTF-8", false, true},
		{"utf8", false, true},
		{"UTF-16LE", false, true},
		{"UTF-16BE", false, true},
		{"UTF-32LE", false, true},
		{"UTF-32BE", false, true},
		{"ISO-8859-1", true, true},
		{"latin1", true, true},
		{"WINDOWS-1252", true, true},
		{"CP850", true, true},
		{"GB18030", false, false},
		{"UTF-7", false, false},
		{"ISO-2022-JP-2", true, false},
		{"CP1258", true, false},
	};
	uint64_t seed = 1;

	for (size_t i = 0; i < sizeof(encodings) / sizeof(encodings[0]); i++)
		for (size_t len = 1; len < 300000; len = len * 7 + 3)
		{
			Bytes text = some_text(&seed, len, encodings[i].latin);
			Bytes file = converted(encodings[i].name, text.data, text.len);
			Bytes packed = gzipped(file.data, file.len);

			check_text(COMPRESSION_NONE, encodings[i].name, file, text.data, text.len, encodings[i].restart);
			check_text(COMPRESSION_GZIP, encodings[i].name, packed, text.data, text.len, false);
			free(text.data);
			free(file.data);
			free(packed.data);
		}
}

static void
test_compression(void)
{
	uint64_t seed = 2;

	for (size_t len = 0; len < 1000000; len = len * 5 + 1)
	{
		Bytes text = some_text(&seed, len, false);
		Bytes gzip = gzipped(text.data, text.len);
		Bytes zstd = zstd_of(text.data, text.len);
		Bytes twice = bytes_new(2 * text.len);

		check_text(COMPRESSION_GZIP, "UTF-8", gzip, text.data, text.len, false);
		check_text(COMPRESSION_ZSTD, "UTF-8", zstd, text.data, text.len, false);
		memcpy(twice.data, text.data, text.len);
		memcpy(twice.data + text.len, text.data, text.len);
		gzip = joined(gzip, gzipped(text.data, text.len));
		zstd = joined(zstd, bytes_of("\x50\x2A\x4D\x18\x03\x00\x00\x00xyz", 11));
		zstd = joined(zstd, zstd_of(text.data, text.len));
		check_text(COMPRESSION_GZIP, "UTF-8", gzip, twice.data, twice.len, false);
		check_text(COMPRESSION_ZSTD, "UTF-8", zstd, twice.data, twice.len, false);

		/* cut off, damaged, or with something behind it */
		check_error(COMPRESSION_GZIP, "UTF-8", gzip.data, gzip.len - 1, DECODER_ERROR_TRUNCATED);
		check_error(COMPRESSION_ZSTD, "UTF-8", zstd.data, zstd.len - 1, DECODER_ERROR_TRUNCATED);
		check_error(COMPRESSION_GZIP, "UTF-16LE", gzip.data, 12, DECODER_ERROR_TRUNCATED);
		check_error(COMPRESSION_ZSTD, "UTF-8", zstd.data, 5, DECODER_ERROR_TRUNCATED);
		gzip = joined(gzip, bytes_of("\n", 1));
		zstd = joined(zstd, bytes_of("\0", 1));
		check_error(COMPRESSION_GZIP, "UTF-8", gzip.data, gzip.len, DECODER_ERROR_GARBAGE);
		check_error(COMPRESSION_ZSTD, "UTF-8", zstd.data, zstd.len, DECODER_ERROR_GARBAGE);
		gzip.data[gzip.len - 1] = '\x1F';
		zstd.data[zstd.len - 1] = '\x28';
		gzip = joined(gzip, bytes_of("no member", 9));
		zstd = joined(zstd, bytes_of("no frame", 8));
		check_error(COMPRESSION_GZIP, "UTF-8", gzip.data, gzip.len, DECODER_ERROR_GARBAGE);
		check_error(COMPRESSION_ZSTD, "UTF-8", zstd.data, zstd.len, DECODER_ERROR_GARBAGE);
		free(gzip.data);
		gzip = gzipped(text.data, text.len);
		gzip.data[gzip.len - 6] ^= 0x55; /* its checksum */
		check_error(COMPRESSION_GZIP, "UTF-8", gzip.data, gzip.len, DECODER_ERROR_CORRUPT);
		free(text.data);
		free(twice.data);
		free(gzip.data);
		free(zstd.data);
	}
	check_error(COMPRESSION_GZIP, "UTF-8", "\x1F\x8B\x08\x00\x00\x00\x00\x00\x00\x03\xFF\xFF\xFF", 13,
				DECODER_ERROR_CORRUPT);
}

/* What is none in the encoding: each byte comes out as two that are no UTF-8. */
static void
check_bad(const char *encoding, const char *data, size_t len, const char *expected)
{
	for (uint64_t seed = 0; seed < 8; seed++)
	{
		Result result = decode(COMPRESSION_NONE, encoding, data, len, seed);
		char   shown[256];
		size_t n = 0;

		CHECK_INT(result.status, DECODER_END);
		for (size_t i = 0; i < result.text.len && n < sizeof(shown) - 8; i++)
		{
			int bad = decoder_bad_byte(result.text.data + i, result.text.len - i);

			if (bad >= 0)
			{
				n += (size_t) snprintf(shown + n, 8, "<%02X>", (unsigned) bad);
				i++;
			}
			else
				shown[n++] = result.text.data[i];
		}
		CHECK_MEM(shown, n, expected, strlen(expected));
		free(result.text.data);
	}
}

static void
test_bad_bytes(void)
{
	/* lone surrogates whose bytes are a line feed and a quote */
	check_bad("UTF-16LE", "a\0\x0A\xD8,\0\x22\xDC"
						  "b\0",
			  10, "a<0A><D8>,<22><DC>b");
	check_bad("UTF-16BE", "\0a\xD8\x0A\0,\xDC\x22\0b", 10, "a<D8><0A>,<DC><22>b");
	check_bad("UTF-16LE", "a\0b", 3, "a<62>");
	check_bad("UTF-16LE", "a\0\x3D\xD8", 4, "a<3D><D8>");
	check_bad("UTF-16LE", "a\0\x3D\xD8\x00", 5, "a<3D><D8><00>");
	check_bad("UTF-32LE", "a\0\0\0\x0A\x00\x11\x00"
						  "b\0\0\0c\0",
			  14, "a<0A><00><11><00>b<63><00>");
	check_bad("WINDOWS-1252", "a\x81\n\x9D", 4, "a<81>\n<9D>");
	check_bad("SHIFT_JIS", "a\x85\n\x82", 4, "a<85>\n<82>");
	check_bad("ASCII", "\xFF", 1, "<FF>");
	check_bad("UTF-16LE", "", 0, "");
	CHECK_INT(decoder_bad_byte("\xFC\x80", 2), 0);
	CHECK_INT(decoder_bad_byte("\xFF\xBF", 2), 255);
	CHECK_INT(decoder_bad_byte("\xFF\xBF", 1), -1);
	CHECK_INT(decoder_bad_byte("\xFF\xFF", 2), -1);
	CHECK_INT(decoder_bad_byte("\xC3\xA9", 2), -1);
}

/* However an encoding is called: after what is no character the next one is seen where it begins. */
static void
test_units(void)
{
	static const char *const two_bytes[] = {"UTF16LE", "utf-16le", "UCS-2LE", "UCS2", "UCS-2", "UNICODE",
											"UNICODELITTLE"};
	static const char *const four_bytes[] = {"UTF32LE", "UCS-4LE", "WCHAR_T", "UTF-32LE"};
	static const char *const one_byte[] = {"latin1", "UTF8", "SHIFT_JIS", "IBM037"};

	for (size_t i = 0; i < sizeof(two_bytes) / sizeof(two_bytes[0]); i++)
	{
		check_bad(two_bytes[i], "a\0\x0A\xDC,\0b\0", 8, "a<0A><DC>,b");
		check_bad(two_bytes[i], "a\0b\0\x0A", 5, "ab<0A>");
	}
	for (size_t i = 0; i < sizeof(four_bytes) / sizeof(four_bytes[0]); i++)
		check_bad(four_bytes[i], "a\0\0\0\x0A\0\0\xFF,\0\0\0b\0\0\0", 16, "a<0A><00><00><FF>,b");
	for (size_t i = 0; i < sizeof(one_byte) / sizeof(one_byte[0]); i++)
	{
		Bytes file = converted(one_byte[i], "ab\n", 3);

		check_text(COMPRESSION_NONE, one_byte[i], file, "ab\n", 3, false);
		CHECK_INT(file.len, 3);
		free(file.data);
	}
}

static void
test_bombs(void)
{
	/* a run of zstd's costs 4 bytes and gives 128 kB; zlib does not get beyond 1032 to 1 */
	static const char head[] = "\x28\xB5\x2F\xFD\x00\x38";
	Bytes             bomb = bytes_new(sizeof(head) - 1 + 4 * 2000);
	Decoder          *decoder = decoder_create(COMPRESSION_ZSTD, "UTF-8");
	char             *out = malloc(1024 * 1024);
	DecoderStatus     status = DECODER_OK;
	DecoderBuffers    buffers = {bomb.data, bomb.len, true, NULL, 0};
	uint64_t          produced = 0;
	uint64_t          offset;

	memcpy(bomb.data, head, sizeof(head) - 1);
	for (size_t i = 0; i < 2000; i++)
		memcpy(bomb.data + sizeof(head) - 1 + 4 * i, "\x02\x00\x10\n", 4); /* 131072 line feeds */
	while (status == DECODER_OK)
	{
		buffers.out = out;
		buffers.out_len = 1024 * 1024;
		status = decoder_run(decoder, &buffers);
		produced += 1024 * 1024 - buffers.out_len;
	}
	CHECK_INT(status, DECODER_ERROR);
	CHECK_INT(decoder_error(decoder, &offset), DECODER_ERROR_RATIO);
	CHECK(produced >= DECODER_FREE_BYTES && produced < DECODER_FREE_BYTES + 1024 * 1024);
	CHECK(decoder_memory(decoder) < 20 * 1024 * 1024);
	decoder_free(decoder);
	free(bomb.data);

	/* 16 MiB of window */
	check_error(COMPRESSION_ZSTD, "UTF-8", "\x28\xB5\x2F\xFD\x00\x70\x01\x00\x00", 9, DECODER_ERROR_WINDOW);
	free(out);
}

static void
test_names(void)
{
	CHECK(decoder_knows_encoding("latin1"));
	CHECK(decoder_knows_encoding("WINDOWS-1252"));
	CHECK(decoder_knows_encoding("UTF-8"));
	CHECK(!decoder_knows_encoding(""));
	CHECK(!decoder_knows_encoding("latin1//IGNORE"));
	CHECK(!decoder_knows_encoding("no-such-encoding"));
	CHECK(!decoder_knows_encoding("../../etc/passwd"));
	CHECK(!decoder_knows_encoding("a-name-of-more-than-63-characters-that-no-encoding-on-earth-has-ever-had"));
	CHECK(decoder_create(COMPRESSION_NONE, "no-such-encoding") == NULL);
}

int
main(void)
{
	test_encodings();
	test_compression();
	test_bad_bytes();
	test_units();
	test_bombs();
	test_names();
	return unit_report();
}
