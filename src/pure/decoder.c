/*
 * decoder.c
 *	  Turns the bytes of a file as it is stored into text in UTF-8, piece by
 *	  piece: decompresses, then converts from the file's encoding.
 *
 * What goes to iconv() passes through a buffer of our own, because iconv() takes
 * whole characters only and the rest of one has to wait for the next piece.
 *
 * zlib and zstd keep output that has found no room, so each is called again,
 * without input, until it gives no more.
 */
#include "pure/decoder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <iconv.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define RAW_BYTES  ((size_t) 65536)
#define NAME_BYTES 64
#define NO_ICONV   ((iconv_t) -1)

struct Decoder
{
	Compression compression;
	z_stream    gzip;
	bool        gzip_ready;
	ZSTD_DCtx  *zstd;
	bool        between; /* a member or frame has ended, and no other has begun */
	bool        stuck;   /* had room for more, and gave none */
	uint64_t    parts;   /* members or frames that have ended */
	uint64_t    taken;   /* of the file */
	uint64_t    unpacked;

	iconv_t      conversion; /* NO_ICONV: nothing to convert */
	bool         can_restart;
	size_t       unit; /* bytes that are bad together */
	char        *raw;  /* to be converted */
	size_t       raw_len;
	bool         raw_final;
	DecoderError error;
};

const char *
decoder_error_message(DecoderError error)
{
	switch (error)
	{
		case DECODER_ERROR_NONE:
			return NULL;
		case DECODER_ERROR_TRUNCATED:
			return "the file ends inside its compressed data";
		case DECODER_ERROR_GARBAGE:
			return "the file has something else after its compressed data";
		case DECODER_ERROR_CORRUPT:
			return "the file's compressed data is damaged";
		case DECODER_ERROR_RATIO:
			return "the file becomes too large when it is decompressed";
		case DECODER_ERROR_WINDOW:
			return "the file was compressed with too large a window";
	}
	return "unknown error";
}

/* ---- encodings ---- */

/* Would iconv() take it for a plain name?  After a slash it takes options. */
static bool
is_name(const char *encoding)
{
	size_t len = strlen(encoding);

	if (len == 0 || len >= NAME_BYTES)
		return false;
	return strspn(encoding, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:+()") == len;
}

bool
decoder_knows_encoding(const char *encoding)
{
	iconv_t conversion;

	if (!is_name(encoding))
		return false;
	conversion = iconv_open("UTF-8", encoding);
	if (conversion == NO_ICONV)
		return false;
	iconv_close(conversion);
	return true;
}

bool
decoder_is_utf8(const char *encoding)
{
	return strcasecmp(encoding, "UTF-8") == 0 || strcasecmp(encoding, "UTF8") == 0;
}

/* Does every character mean the same wherever it stands?  Only what is known to be so. */
static bool
is_stateless(const char *encoding)
{
	static const char *const whole[] = {
		"UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE", "UCS-2LE", "UCS-2BE", "UCS-4LE", "UCS-4BE",
		"ASCII", "US-ASCII", "KOI8-R", "KOI8-U", "MACINTOSH", "CP1250", "CP1251", "CP1252", "CP1253", "CP1254",
		"CP1256", "CP1257", "WINDOWS-1250", "WINDOWS-1251", "WINDOWS-1252", "WINDOWS-1253", "WINDOWS-1254",
		"WINDOWS-1256", "WINDOWS-1257", "CP437", "CP850", "CP852", "CP866"};
	static const char *const beginnings[] = {"ISO-8859-", "ISO8859-", "ISO_8859-", "LATIN"};

	for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++)
		if (strcasecmp(encoding, whole[i]) == 0)
			return true;
	for (size_t i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++)
		if (strncasecmp(encoding, beginnings[i], strlen(beginnings[i])) == 0)
			return true;
	return false;
}

/* How many bytes of this encoding text takes; 0 where that cannot be told. */
static size_t
encoded_length(const char *encoding, char *text)
{
	iconv_t conversion = iconv_open(encoding, "UTF-8");
	char    out[64];
	char   *to = out;
	size_t  left = sizeof(out);
	size_t  len = strlen(text);
	bool    done;

	if (conversion == NO_ICONV)
		return 0;
	done = iconv(conversion, &text, &len, &to, &left) != (size_t) -1;
	iconv_close(conversion);
	return done ? sizeof(out) - left : 0;
}

/*
 * The bytes that are passed over where there is no character: 2 or 4 for
 * encodings of such units, so that the next one is seen where it begins.  They
 * have many names: the library is asked what a digit more takes.
 */
static size_t
unit_of(const char *encoding)
{
	char   one[] = "1";
	char   two[] = "11";
	size_t shorter = encoded_length(encoding, one);
	size_t longer = encoded_length(encoding, two);

	return shorter > 0 && longer > shorter ? longer - shorter : 1;
}

int
decoder_bad_byte(const char *text, size_t len)
{
	unsigned char first = len >= 2 ? (unsigned char) text[0] : 0;
	unsigned char second = len >= 2 ? (unsigned char) text[1] : 0;

	if (first < 0xFC || (second & 0xC0) != 0x80)
		return -1;
	return ((first & 0x03) << 6) | (second & 0x3F);
}

/* ---- life ---- */

Decoder *
decoder_create(Compression compression, const char *encoding)
{
	Decoder *decoder = calloc(1, sizeof(Decoder));
	bool     ready = true;

	if (decoder == NULL)
		return NULL;
	decoder->compression = compression;
	decoder->conversion = NO_ICONV;
	decoder->unit = 1;
	if (!decoder_is_utf8(encoding))
	{
		decoder->unit = is_name(encoding) ? unit_of(encoding) : 1;
		decoder->can_restart = compression == COMPRESSION_NONE && is_stateless(encoding);
		decoder->raw = malloc(RAW_BYTES);
		decoder->conversion = is_name(encoding) ? iconv_open("UTF-8", encoding) : NO_ICONV;
		ready = decoder->raw != NULL && decoder->conversion != NO_ICONV;
	}
	else
		decoder->can_restart = compression == COMPRESSION_NONE;
	if (compression == COMPRESSION_GZIP)
		ready &= decoder->gzip_ready = inflateInit2(&decoder->gzip, 15 + 16) == Z_OK;
	else if (compression == COMPRESSION_ZSTD)
		ready &= (decoder->zstd = ZSTD_createDCtx()) != NULL &&
				 !ZSTD_isError(ZSTD_DCtx_setParameter(decoder->zstd, ZSTD_d_windowLogMax, DECODER_ZSTD_WINDOW_LOG));
	if (ready)
		return decoder;
	decoder_free(decoder);
	return NULL;
}

void
decoder_free(Decoder *decoder)
{
	if (decoder == NULL)
		return;
	if (decoder->gzip_ready)
		inflateEnd(&decoder->gzip);
	ZSTD_freeDCtx(decoder->zstd);
	if (decoder->conversion != NO_ICONV)
		iconv_close(decoder->conversion);
	free(decoder->raw);
	free(decoder);
}

size_t
decoder_memory(const Decoder *decoder)
{
	size_t size = sizeof(Decoder);

	if (decoder->raw != NULL)
		size += RAW_BYTES;
	if (decoder->gzip_ready)
		size += 48 * 1024; /* zlib says so */
	if (decoder->zstd != NULL)
		size += ZSTD_sizeof_DCtx(decoder->zstd);
	return size;
}

DecoderError
decoder_error(const Decoder *decoder, uint64_t *offset)
{
	*offset = decoder->taken;
	return decoder->error;
}

bool
decoder_can_restart(const Decoder *decoder, uint64_t *in_offset)
{
	*in_offset = decoder->can_restart ? decoder->taken - decoder->raw_len : 0;
	return decoder->can_restart;
}

/* ---- decompression ---- */

static DecoderStatus
fail(Decoder *decoder, DecoderError error)
{
	decoder->error = error;
	return DECODER_ERROR;
}

/* Can it be the first byte of another member or frame (which can also be one to be skipped)? */
static bool
may_begin(const Decoder *decoder, unsigned char first)
{
	if (decoder->compression == COMPRESSION_GZIP)
		return first == 0x1F;
	return first == 0x28 || (first & 0xF0) == 0x50;
}

/* What follows a complete member or frame and does not even begin like one was never one. */
static DecoderStatus
fail_bad_data(Decoder *decoder, bool at_its_start)
{
	return fail(decoder, at_its_start && decoder->parts > 0 ? DECODER_ERROR_GARBAGE : DECODER_ERROR_CORRUPT);
}

static DecoderStatus
run_gzip(Decoder *decoder, DecoderBuffers *b)
{
	z_stream *gzip = &decoder->gzip;
	int       status;

	gzip->next_in = (Bytef *) (uintptr_t) b->in;
	gzip->avail_in = b->in_len > RAW_BYTES ? (uInt) RAW_BYTES : (uInt) b->in_len;
	gzip->next_out = (Bytef *) b->out;
	gzip->avail_out = b->out_len > RAW_BYTES ? (uInt) RAW_BYTES : (uInt) b->out_len;
	status = inflate(gzip, Z_NO_FLUSH);
	b->in_len -= (size_t) ((const char *) gzip->next_in - b->in);
	b->in = (const char *) gzip->next_in;
	b->out_len -= (size_t) ((char *) gzip->next_out - b->out);
	b->out = (char *) gzip->next_out;
	if (status == Z_MEM_ERROR)
		return DECODER_NO_MEMORY;
	if (status != Z_OK && status != Z_BUF_ERROR && status != Z_STREAM_END)
		return fail_bad_data(decoder, gzip->total_out == 0 && gzip->total_in <= 10);
	decoder->between = status == Z_STREAM_END;
	return DECODER_OK;
}

static DecoderStatus
run_zstd(Decoder *decoder, DecoderBuffers *b)
{
	ZSTD_inBuffer  in = {b->in, b->in_len > RAW_BYTES ? RAW_BYTES : b->in_len, 0};
	ZSTD_outBuffer out = {b->out, b->out_len > RAW_BYTES ? RAW_BYTES : b->out_len, 0};
	size_t         status = ZSTD_decompressStream(decoder->zstd, &out, &in);

	b->in += in.pos;
	b->in_len -= in.pos;
	b->out += out.pos;
	b->out_len -= out.pos;
	if (ZSTD_isError(status))
	{
		switch (ZSTD_getErrorCode(status))
		{
			case ZSTD_error_memory_allocation:
				return DECODER_NO_MEMORY;
			case ZSTD_error_frameParameter_windowTooLarge:
				return fail(decoder, DECODER_ERROR_WINDOW);
			case ZSTD_error_prefix_unknown:
				return fail_bad_data(decoder, true);
			default:
				return fail_bad_data(decoder, false);
		}
	}
	decoder->between = status == 0;
	return DECODER_OK;
}

/* One step.  True through *ended: all input has come out. */
static DecoderStatus
unpack(Decoder *decoder, DecoderBuffers *b, bool *ended)
{
	size_t        in_len = b->in_len;
	size_t        out_len = b->out_len;
	DecoderStatus status = DECODER_OK;

	*ended = false;
	if (decoder->compression == COMPRESSION_NONE)
	{
		size_t n = in_len < out_len ? in_len : out_len;

		if (n > 0)
			memcpy(b->out, b->in, n);
		b->in += n;
		b->in_len -= n;
		b->out += n;
		b->out_len -= n;
		decoder->taken += n;
		*ended = b->is_final && b->in_len == 0;
		return DECODER_OK;
	}
	if (decoder->between)
	{
		if (in_len == 0)
		{
			*ended = b->is_final;
			return DECODER_OK;
		}
		if (!may_begin(decoder, (unsigned char) b->in[0]))
			return fail(decoder, DECODER_ERROR_GARBAGE);
		if (decoder->compression == COMPRESSION_GZIP)
			(void) inflateReset(&decoder->gzip);
		decoder->between = false;
	}
	status = decoder->compression == COMPRESSION_GZIP ? run_gzip(decoder, b) : run_zstd(decoder, b);
	decoder->taken += in_len - b->in_len;
	decoder->unpacked += out_len - b->out_len;
	decoder->stuck = b->out_len > 0 && b->in_len == in_len && b->out_len == out_len;
	if (status != DECODER_OK)
		return status;
	if (decoder->stuck && in_len > 0)
		return fail(decoder, DECODER_ERROR_CORRUPT);
	if (decoder->unpacked > DECODER_FREE_BYTES && decoder->unpacked / DECODER_RATIO > decoder->taken)
		return fail(decoder, DECODER_ERROR_RATIO);
	if (decoder->between)
		decoder->parts++;
	else if (decoder->stuck && b->is_final && b->in_len == 0)
		return fail(decoder, DECODER_ERROR_TRUNCATED);
	*ended = decoder->between && b->is_final && b->in_len == 0;
	return DECODER_OK;
}

/* ---- conversion ---- */

/* The first of the bytes to be converted are none: as many as are bad together. */
static bool
pass_bad_bytes(DecoderBuffers *b, const char *bad, size_t n)
{
	if (b->out_len < 2 * n)
		return false;
	for (size_t i = 0; i < n; i++)
	{
		unsigned char byte = (unsigned char) bad[i];

		*b->out++ = (char) (0xFC | (byte >> 6));
		*b->out++ = (char) (0x80 | (byte & 0x3F));
	}
	b->out_len -= 2 * n;
	return true;
}

/* Converts what is in raw, up to a character that is not complete or has no room. */
static void
convert(Decoder *decoder, DecoderBuffers *b)
{
	char  *at = decoder->raw;
	size_t left = decoder->raw_len;

	while (left > 0 && b->out_len >= DECODER_ROOM)
	{
		size_t n;

		errno = 0;
		if (iconv(decoder->conversion, &at, &left, &b->out, &b->out_len) != (size_t) -1 || left == 0)
			continue;
		if (errno == E2BIG || (errno == EINVAL && !decoder->raw_final))
			break;
		n = errno == EINVAL ? left : left < decoder->unit ? left :
															decoder->unit;
		if (n > DECODER_ROOM / 2)
			n = DECODER_ROOM / 2;
		if (!pass_bad_bytes(b, at, n))
			break;
		at += n;
		left -= n;
	}
	memmove(decoder->raw, at, left);
	decoder->raw_len = left;
}

/* Some encodings keep a character back that the next one may be joined with. */
static DecoderStatus
flush(Decoder *decoder, DecoderBuffers *b)
{
	if (b->out_len < DECODER_ROOM)
		return DECODER_OK;
	(void) iconv(decoder->conversion, NULL, NULL, &b->out, &b->out_len);
	return DECODER_END;
}

DecoderStatus
decoder_run(Decoder *decoder, DecoderBuffers *b)
{
	if (decoder->conversion == NO_ICONV)
	{
		do
		{
			bool          ended;
			DecoderStatus status = unpack(decoder, b, &ended);

			if (status != DECODER_OK || ended)
				return status != DECODER_OK ? status : DECODER_END;
		} while (b->out_len > 0 && (b->in_len > 0 || !(decoder->between || decoder->stuck ||
													   decoder->compression == COMPRESSION_NONE)));
		return DECODER_OK;
	}

	while (b->out_len >= DECODER_ROOM)
	{
		DecoderBuffers inner = {b->in, b->in_len, b->is_final, decoder->raw + decoder->raw_len,
								RAW_BYTES - decoder->raw_len};
		size_t         before = b->in_len + b->out_len;
		size_t         raw_before = decoder->raw_len;
		bool           grown;

		if (!decoder->raw_final)
		{
			DecoderStatus status = unpack(decoder, &inner, &decoder->raw_final);

			if (status != DECODER_OK)
				return status;
			decoder->raw_len = RAW_BYTES - inner.out_len;
			b->in = inner.in;
			b->in_len = inner.in_len;
		}
		grown = decoder->raw_len > raw_before;
		raw_before = decoder->raw_len;
		convert(decoder, b);
		if (decoder->raw_final && decoder->raw_len == 0)
			return flush(decoder, b);
		if (!grown && decoder->raw_len == raw_before && b->in_len + b->out_len == before)
			break;
	}
	return DECODER_OK;
}
