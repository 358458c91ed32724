/*
 * decoder.h
 *	  Turns the bytes of a file as it is stored into text in UTF-8, piece by
 *	  piece: decompresses, then converts from the file's encoding.
 *
 * However the file is cut into pieces, the same bytes come out.  Memory is
 * fixed: 64 kB of a buffer, and the window of the compression.
 *
 * Bytes that are none in the file's encoding do not stop it.  Each comes out as
 * two bytes that occur in no UTF-8 (decoder_bad_byte), so that the row is found
 * to be bad, and only that row: among them is never a line end, a delimiter or a
 * quote.
 *
 * Lengths and offsets are bytes.  Errors are values.
 */
#ifndef BULK_ACTION_DECODER_H
#define BULK_ACTION_DECODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum Compression
{
	COMPRESSION_NONE,
	COMPRESSION_GZIP, /* members, one after the other */
	COMPRESSION_ZSTD  /* frames, one after the other */
} Compression;

/* A frame of zstd may look back so far; the command line reaches more only with --ultra or --long. */
#define DECODER_ZSTD_WINDOW_LOG 23

/* So much may come out whatever went in; beyond, at most DECODER_RATIO times what went in. */
#define DECODER_FREE_BYTES ((uint64_t) 64 * 1024 * 1024)
#define DECODER_RATIO      1000

/* With less room than this, output counts as full. */
#define DECODER_ROOM ((size_t) 16)

typedef enum DecoderError
{
	DECODER_ERROR_NONE = 0,
	DECODER_ERROR_TRUNCATED, /* the file ends inside compressed data */
	DECODER_ERROR_GARBAGE,   /* something else follows the compressed data */
	DECODER_ERROR_CORRUPT,
	DECODER_ERROR_RATIO, /* more comes out than may */
	DECODER_ERROR_WINDOW /* zstd: larger than DECODER_ZSTD_WINDOW_LOG */
} DecoderError;

typedef enum DecoderStatus
{
	DECODER_OK,  /* all input is taken, or the output is full */
	DECODER_END, /* the final input is used up, and all of it has come out */
	DECODER_ERROR,
	DECODER_NO_MEMORY
} DecoderStatus;

/* decoder_run() moves all but is_final on. */
typedef struct DecoderBuffers
{
	const char *in;
	size_t      in_len;
	bool        is_final; /* nothing comes after in */
	char       *out;
	size_t      out_len; /* room */
} DecoderBuffers;

typedef struct Decoder Decoder;

/* Is it the name of an encoding that can be converted to UTF-8? */
extern bool decoder_knows_encoding(const char *encoding);

/* Does nothing have to be converted? */
extern bool decoder_is_utf8(const char *encoding);

/* NULL when there is no memory, or the encoding is not known. */
extern Decoder *decoder_create(Compression compression, const char *encoding);

/* After an error or the end it must not be called again. */
extern DecoderStatus decoder_run(Decoder *decoder, DecoderBuffers *buffers);

/* What DECODER_ERROR was; with it, the offset in the file where decoding stopped. */
extern DecoderError decoder_error(const Decoder *decoder, uint64_t *offset);

/* In English: what the file is, as in "the file ends inside its compressed data". */
extern const char *decoder_error_message(DecoderError error);

/*
 * Where a decoder of the same kind can start: at this offset of the file it
 * gives what this one gives from now on.  False if only at the beginning:
 * compressed files, and encodings that shift or look back.
 */
extern bool decoder_can_restart(const Decoder *decoder, uint64_t *in_offset);

extern size_t decoder_memory(const Decoder *decoder);
extern void   decoder_free(Decoder *decoder);

/* The byte of the file that these two bytes of output stand for; -1 if they are ordinary text. */
extern int decoder_bad_byte(const char *text, size_t len);

#endif /* BULK_ACTION_DECODER_H */
