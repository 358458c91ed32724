/*
 * csv_fields.c
 *	  The fields of one CSV record, from its lines.
 *
 * libcsv parses.  A record that is one line without a quote has nothing to
 * parse: it is copied whole and cut at its delimiters, with the same outcome
 * (fuzz_csv_reader.c compares) in a third of the time or less.
 *
 * Facts about libcsv 3.0.3 that this file relies on (libcsv.c): blanks around
 * fields are dropped unless a space function says that nothing is a blank;
 * after an error it must be set up again; its first realloc passes NULL; it
 * grows its buffer by a fixed block, so the block is enlarged here; a row is
 * reported at its CR, and the LF that follows is taken for a blank line.
 */
#include "pure/csv_fields.h"

#include <string.h>

#define PARSER_OPTIONS (CSV_STRICT | CSV_STRICT_FINI | CSV_EMPTY_IS_NULL)

/* Initial sizes, in bytes: of libcsv's field buffer, and of our record buffer. */
#define PARSER_BLOCK    ((size_t) 4096)
#define RECORD_CAPACITY ((size_t) 8192)

static int
never_space(unsigned char c)
{
	(void) c;
	return 0;
}

static void
parser_start(CsvFields *fields)
{
	struct csv_parser *parser = &fields->parser;

	csv_init(parser, PARSER_OPTIONS);
	csv_set_delim(parser, (unsigned char) fields->dialect.delimiter);
	csv_set_quote(parser, (unsigned char) fields->dialect.quote);
	csv_set_space_func(parser, never_space);
	csv_set_realloc_func(parser, fields->allocator.realloc_fn);
	csv_set_free_func(parser, fields->allocator.free_fn);
	csv_set_blk_size(parser, PARSER_BLOCK);
	fields->parser_block = PARSER_BLOCK;
}

bool
csv_fields_init(CsvFields *fields, const CsvDialect *dialect, const CsvAllocator *allocator)
{
	memset(fields, 0, sizeof(*fields));
	fields->dialect = *dialect;
	fields->allocator = *allocator;
	parser_start(fields);
	fields->fields = allocator->realloc_fn(NULL, (size_t) dialect->max_fields * sizeof(CsvField));
	fields->text = allocator->realloc_fn(NULL, RECORD_CAPACITY);
	fields->text_cap = RECORD_CAPACITY;
	if (fields->fields != NULL && fields->text != NULL)
		return true;
	csv_fields_free(fields);
	return false;
}

void
csv_fields_free(CsvFields *fields)
{
	csv_free(&fields->parser);
	if (fields->fields != NULL)
		fields->allocator.free_fn(fields->fields);
	if (fields->text != NULL)
		fields->allocator.free_fn(fields->text);
}

void
csv_fields_begin(CsvFields *fields)
{
	fields->n = 0;
	fields->text_len = 0;
	fields->row_done = false;
	fields->too_many = false;
}

void
csv_fields_restart(CsvFields *fields)
{
	csv_free(&fields->parser);
	parser_start(fields);
}

/*
 * A field needs its text and a NUL; it has taken at least its text and a
 * delimiter or line end, but for the last one of a file without line end.
 */
bool
csv_fields_reserve(CsvFields *fields, size_t parsed)
{
	size_t needed = parsed + 1;
	size_t cap = fields->text_cap;
	char  *text;

	if (parsed > fields->parser_block)
	{
		csv_set_blk_size(&fields->parser, parsed);
		fields->parser_block = parsed;
	}
	if (needed <= cap)
		return true;
	if (needed > SIZE_MAX / 2)
		return false;
	while (cap < needed)
		cap *= 2;
	text = fields->allocator.realloc_fn(fields->text, cap);
	if (text == NULL)
		return false;
	fields->text = text;
	fields->text_cap = cap;
	for (int i = 0; i < fields->n; i++)
	{
		fields->fields[i].data = text;
		text += fields->fields[i].len + 1;
	}
	return true;
}

/* The next field; NULL: there are too many. */
static inline CsvField *
next_field(CsvFields *fields)
{
	if (fields->n < fields->dialect.max_fields)
		return &fields->fields[fields->n++];
	fields->too_many = true;
	return NULL;
}

void
csv_fields_split(CsvFields *fields, const char *line, size_t len)
{
	char *text = fields->text;
	char *end = text + len;

	memcpy(text, line, len);
	*end = '\0';
	for (;;)
	{
		char     *delimiter = memchr(text, fields->dialect.delimiter, (size_t) (end - text));
		char     *field_end = delimiter != NULL ? delimiter : end;
		CsvField *field = next_field(fields);

		if (field == NULL)
			return;
		*field_end = '\0';
		field->data = text;
		field->len = (size_t) (field_end - text);
		field->is_null = field->len == 0;
		if (delimiter == NULL)
			return;
		text = delimiter + 1;
	}
}

static void
on_field(void *data, size_t len, void *arg)
{
	CsvFields *fields = arg;
	CsvField  *field = next_field(fields);
	char      *text = fields->text + fields->text_len;

	if (field == NULL)
		return;
	if (len > 0)
		memcpy(text, data, len);
	text[len] = '\0';
	field->data = text;
	field->len = len;
	field->is_null = data == NULL;
	fields->text_len += len + 1;
}

static void
on_row(int end, void *arg)
{
	CsvFields *fields = arg;

	(void) end;
	fields->row_done = true;
}

CsvParsed
csv_fields_parse(CsvFields *fields, const char *line, size_t len)
{
	if (csv_parse(&fields->parser, line, len, on_field, on_row, fields) == len)
		return CSV_PARSED;
	if (csv_error(&fields->parser) != CSV_EPARSE)
		return CSV_PARSED_NO_MEMORY;
	csv_fields_restart(fields);
	return CSV_PARSED_STRAY_QUOTE;
}

bool
csv_fields_end(CsvFields *fields)
{
	return csv_fini(&fields->parser, on_field, on_row, fields) == 0;
}
