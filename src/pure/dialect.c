/*
 * dialect.c
 *	  How a file is written: compression, encoding, delimiter, quote, header.
 */
#include "pure/dialect.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char delimiters[] = {',', ';', '\t', '|'};

#define DELIMITERS ((int) sizeof(delimiters))

static bool
begins_with(const char *head, size_t len, const char *magic, size_t magic_len)
{
	return len >= magic_len && memcmp(head, magic, magic_len) == 0;
}

#define BEGINS_WITH(head, len, magic) begins_with(head, len, magic, sizeof(magic) - 1)

/* ---- the file as it is stored ---- */

Compression
dialect_compression(const char *head, size_t len)
{
	if (BEGINS_WITH(head, len, "\x1F\x8B\x08"))
		return COMPRESSION_GZIP;
	if (BEGINS_WITH(head, len, "\x28\xB5\x2F\xFD"))
		return COMPRESSION_ZSTD;
	/* a frame to be skipped, as some programs write first */
	if (len >= 4 && ((unsigned char) head[0] & 0xF0) == 0x50 && memcmp(head + 1, "\x2A\x4D\x18", 3) == 0)
		return COMPRESSION_ZSTD;
	return COMPRESSION_NONE;
}

const char *
dialect_foreign(const char *head, size_t len)
{
	if (BEGINS_WITH(head, len, "PK\x03\x04") || BEGINS_WITH(head, len, "PK\x05\x06"))
		return "a ZIP archive or a spreadsheet (XLSX, ODS)";
	if (BEGINS_WITH(head, len, "\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"))
		return "a spreadsheet or document (XLS, DOC)";
	if (BEGINS_WITH(head, len, "\xFD"
							   "7zXZ\x00"))
		return "compressed by xz";
	if (BEGINS_WITH(head, len, "BZh") && len >= 10 && memcmp(head + 4, "1AY&SY", 6) == 0)
		return "compressed by bzip2";
	if (BEGINS_WITH(head, len, "7z\xBC\xAF\x27\x1C"))
		return "a 7z archive";
	if (BEGINS_WITH(head, len, "\x04\x22\x4D\x18"))
		return "compressed by lz4";
	if (BEGINS_WITH(head, len, "%PDF-"))
		return "a PDF document";
	if (BEGINS_WITH(head, len, "PAR1\x15"))
		return "a Parquet file";
	return NULL;
}

const char *
dialect_encoding(const char *given, const char *head, size_t len)
{
	bool big = BEGINS_WITH(head, len, "\xFE\xFF") || BEGINS_WITH(head, len, "\x00\x00\xFE\xFF");

	if (given == NULL)
	{
		if (BEGINS_WITH(head, len, "\xFF\xFE\x00\x00"))
			return "UTF-32LE";
		if (BEGINS_WITH(head, len, "\x00\x00\xFE\xFF"))
			return "UTF-32BE";
		if (BEGINS_WITH(head, len, "\xFF\xFE"))
			return "UTF-16LE";
		return BEGINS_WITH(head, len, "\xFE\xFF") ? "UTF-16BE" : "UTF-8";
	}
	if (strcasecmp(given, "UTF-16") == 0 || strcasecmp(given, "UTF16") == 0)
		return big ? "UTF-16BE" : "UTF-16LE";
	if (strcasecmp(given, "UTF-32") == 0 || strcasecmp(given, "UTF32") == 0)
		return big ? "UTF-32BE" : "UTF-32LE";
	return decoder_is_utf8(given) ? "UTF-8" : given;
}

/* ---- its records ---- */

static size_t
line_end(const char *text, size_t len, size_t at)
{
	while (at < len && text[at] != '\r' && text[at] != '\n')
		at++;
	return at;
}

/* Past the line end that stands there, if one does. */
static size_t
pass_line_end(const char *text, size_t len, size_t at)
{
	if (at < len && text[at] == '\r')
		return at + 1 < len && text[at + 1] == '\n' ? at + 2 : at + 1;
	return at < len ? at + 1 : at;
}

/* Where the first record begins. */
static size_t
first_record(const DialectOptions *options, const char *text, size_t len)
{
	size_t at = csv_skip_bom(text, len);

	for (int i = 0; i < options->skip_lines; i++)
		at = pass_line_end(text, len, line_end(text, len, at));
	while (at < len && (text[at] == '\r' || text[at] == '\n' ||
						(options->comment != '\0' && text[at] == options->comment)))
		at = pass_line_end(text, len, line_end(text, len, at));
	return at;
}

char
dialect_delimiter(const DialectOptions *options, const char *text, size_t len)
{
	char   quote = options->quote != '\0' ? options->quote : '"';
	size_t counts[DELIMITERS] = {0};
	bool   quoted = false;
	int    best = 0;

	if (options->delimiter != '\0')
		return options->delimiter;
	for (size_t at = first_record(options, text, len); at < len; at++)
	{
		if (!options->no_quote && text[at] == quote)
			quoted = !quoted;
		else if (quoted)
			continue;
		else if (text[at] == '\r' || text[at] == '\n')
			break;
		else
			for (int i = 0; i < DELIMITERS; i++)
				counts[i] += text[at] == delimiters[i] && text[at] != options->comment;
	}
	for (int i = 1; i < DELIMITERS; i++)
		if (counts[i] > counts[best])
			best = i;
	return delimiters[best];
}

bool
dialect_is_plain(const DialectOptions *options, char delimiter)
{
	return delimiter == ',' && !options->no_quote && (options->quote == '\0' || options->quote == '"') && !options->pad;
}

void
dialect_reader(const DialectOptions *options, char delimiter, CsvDialect *reader)
{
	memset(reader, 0, sizeof(*reader));
	reader->delimiter = delimiter;
	reader->quote = options->quote;
	reader->no_quote = options->no_quote;
	reader->comment = options->comment;
}

static bool
could_be_split(const CsvField *cell)
{
	for (int i = 0; i < DELIMITERS; i++)
		if (memchr(cell->data, delimiters[i], cell->len) != NULL)
			return true;
	return false;
}

bool
dialect_append_header(RowBuffer *buffer, const CsvField *cells, int ncells)
{
	size_t start = buffer->len;

	for (int i = 0; i < ncells; i++)
	{
		size_t cell_start;
		bool   done = i == 0 || row_buffer_append(buffer, ",", 1);

		cell_start = buffer->len;
		done = done && row_codec_append_cell(buffer, &cells[i]);
		/* without quotes so far, so none is in it */
		if (done && could_be_split(&cells[i]) && buffer->data[cell_start] != '"')
		{
			buffer->len = cell_start;
			done = row_buffer_append(buffer, "\"", 1) && row_buffer_append(buffer, cells[i].data, cells[i].len) &&
				   row_buffer_append(buffer, "\"", 1);
		}
		if (!done)
		{
			buffer->len = start;
			return false;
		}
	}
	return true;
}

/* ---- all of it ---- */

/* The encoding of a compressed file: the byte order mark is inside; NULL when there is no memory. */
static const char *
encoding_inside(const DialectOptions *options, Compression compression, const char *head, size_t len, bool is_whole)
{
	char           text[4 * DECODER_ROOM] = {0};
	Decoder       *decoder = decoder_create(compression, "UTF-8");
	DecoderBuffers buffers = {head, len, is_whole, text, sizeof(text)};

	if (decoder == NULL || decoder_run(decoder, &buffers) == DECODER_NO_MEMORY)
	{
		decoder_free(decoder);
		return NULL;
	}
	decoder_free(decoder);
	return dialect_encoding(options->encoding, text, sizeof(text) - buffers.out_len);
}

DialectStatus
dialect_detect(const DialectOptions *options, const char *head, size_t len, bool is_whole, Dialect *found)
{
	if (dialect_foreign(head, len) != NULL)
		return DIALECT_FOREIGN;
	found->compression = dialect_compression(head, len);
	if (found->compression == COMPRESSION_NONE)
		found->encoding = dialect_encoding(options->encoding, head, len);
	else
		found->encoding = encoding_inside(options, found->compression, head, len, is_whole);
	return found->encoding != NULL && decoder_knows_encoding(found->encoding) ? DIALECT_OK : DIALECT_NO_MEMORY;
}
