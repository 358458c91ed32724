/*
 * row_codec.h
 *	  The payload of a chunk: rows as normalised CSV, written and read back.
 *
 * Each row is "<source line>,<cell>,...,<cell>\n": delimiter comma, quote ",
 * at least one cell, NULL as an unquoted empty cell, the empty string as "".
 * Cells with comma, quote, CR or LF are quoted, and a cell that is exactly \.
 * (which ends the data of COPY).  A row that came from a source of the same
 * dialect may stand there as it stood in the source.  Cells hold no NUL bytes.
 *
 * Lengths are bytes.  Errors are values.
 */
#ifndef BULK_ACTION_ROW_CODEC_H
#define BULK_ACTION_ROW_CODEC_H

#include "pure/csv_reader.h"

/*
 * A growing buffer that belongs to the caller.  Start with all zero but
 * realloc_fn, which is called with NULL for the first memory.  It returns NULL
 * or does not return at all when there is none; the buffer is then as it was.
 * Set len to 0 to use the memory again.
 */
typedef struct RowBuffer
{
	char  *data;
	size_t len;
	size_t cap;
	void *(*realloc_fn)(void *ptr, size_t size);
} RowBuffer;

/* Exactly the bytes that row_codec_append() / _append_raw() will add. */
extern size_t row_codec_size(uint64_t line, const CsvField *cells, int ncells);
extern size_t row_codec_raw_size(uint64_t line, size_t raw_len);

/* These return false, with the buffer unchanged, when there is no memory. */

/* Bytes as they are. */
extern bool row_buffer_append(RowBuffer *buffer, const char *data, size_t len);

/* One row; ncells > 0. */
extern bool row_codec_append(RowBuffer *buffer, uint64_t line,
							 const CsvField *cells, int ncells);

/*
 * One row from the raw text of a good record that a reader with delimiter
 * comma and quote " gave out: no need to split and quote it again.
 */
extern bool row_codec_append_raw(RowBuffer *buffer, uint64_t line,
								 const char *raw, size_t raw_len);

/* One cell, quoted where needed, with nothing before or after it. */
extern bool row_codec_append_cell(RowBuffer *buffer, const CsvField *cell);

typedef enum RowDecoderStatus
{
	ROW_DECODER_ROW,
	ROW_DECODER_END,
	ROW_DECODER_MALFORMED, /* not what row_codec_append() writes */
	ROW_DECODER_NO_MEMORY
} RowDecoderStatus;

typedef struct DecodedRow
{
	uint64_t        line;  /* in the source; 0 from row_decoder_raw() */
	const CsvField *cells; /* valid until the decoder's next call */
	int             ncells;
	const char     *raw; /* the cells' text, inside the payload */
	size_t          raw_len;
	size_t          offset;  /* of the row, of what is malformed, or of the end */
	const char     *message; /* what is malformed; else NULL */
} DecodedRow;

typedef struct RowDecoder RowDecoder;

/* NULL when there is no memory.  max_cells 0: CSV_READER_DEFAULT_MAX_FIELDS. */
extern RowDecoder *row_decoder_create(int max_cells, const CsvAllocator *allocator);

/* The payload must stay unchanged while its rows are read. */
extern void row_decoder_set_payload(RowDecoder *decoder,
									const char *payload, size_t len);

/*
 * The next row.  Every byte of the payload belongs to a row that was given
 * out, or the answer is ROW_DECODER_MALFORMED, from then on always.
 */
extern RowDecoderStatus row_decoder_next(RowDecoder *decoder, DecodedRow *row);

/*
 * Decodes the text of one row's cells alone (DecodedRow.raw, stored somewhere).
 * Empty text is one NULL cell.  ROW_DECODER_ROW or an error.  The payload of
 * row_decoder_set_payload() is forgotten.
 */
extern RowDecoderStatus row_decoder_raw(RowDecoder *decoder,
										const char *raw, size_t len,
										DecodedRow *row);

extern void row_decoder_free(RowDecoder *decoder);

#endif /* BULK_ACTION_ROW_CODEC_H */
