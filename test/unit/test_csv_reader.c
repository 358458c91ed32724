/*
 * test_csv_reader.c
 *	  The CSV reader against written-out expectations and against a model.
 *
 * What a reader gives out is turned into text, one line per record:
 *
 *		R <offset>-<end offset> L<line>-<end line> <field>|<field>|...
 *		B <error> <offset>-<end offset> L<line>-<end line> <raw>
 *		E <offset> L<line>
 *
 * with NULL as ~ and control characters escaped.  The end of a record that is
 * too long is left out where it depends on the buffer.
 */
#include "pure/csv_reader.h"
#include "unit.h"

#include <stdarg.h>
#include <stdlib.h>

/* A growing text with the place where each of its lines starts. */
typedef struct Text
{
	char  *data;
	size_t len;
	size_t cap;
	size_t starts[4096];
	int    nlines;
} Text;

static void
text_append(Text *text, const char *data, size_t len)
{
	if (text->len + len + 1 > text->cap)
	{
		text->cap = (text->len + len + 1) * 2;
		text->data = realloc(text->data, text->cap);
		if (text->data == NULL)
			abort();
	}
	memcpy(text->data + text->len, data, len);
	text->len += len;
	text->data[text->len] = '\0';
}

static void
text_format(Text *text, const char *format, ...)
{
	char    piece[256];
	va_list args;

	va_start(args, format);
	vsnprintf(piece, sizeof(piece), format, args);
	va_end(args);
	text_append(text, piece, strlen(piece));
}

static void
text_escape(Text *text, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) data[i];

		if (c == '\r')
			text_append(text, "\\r", 2);
		else if (c == '\n')
			text_append(text, "\\n", 2);
		else if (c < 0x20 || c > 0x7e || c == '\\' || c == '|' || c == '~')
			text_format(text, "\\x%02x", c);
		else
			text_append(text, data + i, 1);
	}
}

static void
text_begin_line(Text *text)
{
	if (text->nlines == (int) (sizeof(text->starts) / sizeof(text->starts[0])))
		abort();
	text->starts[text->nlines++] = text->len;
}

static void
text_clear(Text *text)
{
	text->len = 0;
	text->nlines = 0;
	text_append(text, "", 0);
}

static const char *
error_name(CsvReaderError error)
{
	switch (error)
	{
		case CSV_READER_ERROR_NONE:
			return "none";
		case CSV_READER_ERROR_UNTERMINATED_QUOTE:
			return "unterminated";
		case CSV_READER_ERROR_STRAY_QUOTE:
			return "stray";
		case CSV_READER_ERROR_TOO_LONG:
			return "long";
		case CSV_READER_ERROR_TOO_MANY_FIELDS:
			return "fields";
		case CSV_READER_ERROR_NUL_BYTE:
			return "nul";
	}
	return "?";
}

static void
text_add_field(Text *text, bool is_first, bool is_null, const char *data, size_t len)
{
	if (!is_first)
		text_append(text, "|", 1);
	if (is_null)
		text_append(text, "~", 1);
	else
		text_escape(text, data, len);
}

static void
text_add_bad(Text *text, CsvReaderError error, bool end_is_known,
			 uint64_t offset, uint64_t end, uint64_t line, uint64_t end_line,
			 const char *raw, size_t raw_len)
{
	text_begin_line(text);
	text_format(text, "B %s %" PRIu64, error_name(error), offset);
	if (end_is_known)
		text_format(text, "-%" PRIu64 " L%" PRIu64 "-%" PRIu64 " ", end, line, end_line);
	else
		text_format(text, " L%" PRIu64 " ", line);
	text_escape(text, raw, raw_len);
	text_append(text, "\n", 1);
}

static void
text_add_end(Text *text, uint64_t offset, uint64_t line)
{
	text_begin_line(text);
	text_format(text, "E %" PRIu64 " L%" PRIu64 "\n", offset, line);
}

/* --- the model: RFC 4180 byte at a time, over the whole stream at once --- */

typedef struct Model
{
	const char *s;
	size_t      n;
	char        delimiter;
	char        quote;
	size_t      max_record;
	int         max_fields;
} Model;

typedef enum ModelState
{
	FIELD_START,
	IN_PLAIN,
	IN_QUOTES,
	AFTER_QUOTE
} ModelState;

static size_t
model_line_end(const Model *m, size_t i)
{
	while (i < m->n && m->s[i] != '\r' && m->s[i] != '\n')
		i++;
	return i;
}

static size_t
model_after_line_end(const Model *m, size_t i)
{
	if (i == m->n)
		return i;
	if (m->s[i] == '\r' && i + 1 < m->n && m->s[i + 1] == '\n')
		return i + 2;
	return i + 1;
}

static bool
model_has_nul(const Model *m, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
	{
		if (m->s[i] == '\0')
			return true;
	}
	return false;
}

/*
 * One record from position p in line *line; returns the position after it.
 * Fields are kept in cell, one after the other, and written when all is known.
 */
static size_t
model_record(const Model *m, size_t p, uint64_t *line, Text *out)
{
	static char    cell[1 << 16];
	static Text    fields;
	size_t         first_end = model_line_end(m, p);
	size_t         first_next = model_after_line_end(m, first_end);
	size_t         cell_len = 0;
	size_t         i = p;
	size_t         line_end = first_end;
	uint64_t       at = *line;
	int            nfields = 0;
	bool           quoted = false;
	ModelState     state = FIELD_START;
	CsvReaderError error = CSV_READER_ERROR_NONE;
	size_t         end;
	size_t         next;

	text_clear(&fields);
	if (first_end - p > m->max_record)
	{
		size_t kept = m->max_record < 1024 ? m->max_record : 1024;

		error = model_has_nul(m, p, p + kept) ?
					CSV_READER_ERROR_NUL_BYTE :
					CSV_READER_ERROR_TOO_LONG;
		text_add_bad(out, error, false, p, 0, *line, 0, m->s + p, kept);
		*line += first_next > first_end;
		return first_next;
	}
	for (;;)
	{
		bool at_end = i == m->n;
		char c = at_end ? '\n' : m->s[i];
		bool is_break = c == '\r' || c == '\n';

		if (state == IN_QUOTES && (at_end || is_break))
		{
			size_t next_line = model_after_line_end(m, i);

			/* the next line must exist and fit */
			line_end = model_line_end(m, next_line);
			if (next_line == m->n || line_end - p > m->max_record)
			{
				error = CSV_READER_ERROR_UNTERMINATED_QUOTE;
				break;
			}
			while (i < next_line)
				cell[cell_len++] = m->s[i++];
			at++;
			continue;
		}
		if ((state == FIELD_START || state == IN_PLAIN || state == AFTER_QUOTE) &&
			(is_break || c == m->delimiter))
		{
			if (nfields < m->max_fields)
				text_add_field(&fields, nfields == 0, cell_len == 0 && !quoted, cell, cell_len);
			nfields++;
			cell_len = 0;
			quoted = false;
			state = FIELD_START;
			if (is_break)
				break;
		}
		else if (state == FIELD_START && c == m->quote)
		{
			quoted = true;
			state = IN_QUOTES;
		}
		else if (state == IN_QUOTES && c == m->quote)
			state = AFTER_QUOTE;
		else if (state == AFTER_QUOTE && c == m->quote)
		{
			cell[cell_len++] = c;
			state = IN_QUOTES;
		}
		else if (state == AFTER_QUOTE || (state == IN_PLAIN && c == m->quote))
		{
			error = CSV_READER_ERROR_STRAY_QUOTE;
			break;
		}
		else
		{
			if (state == FIELD_START)
				state = IN_PLAIN;
			cell[cell_len++] = c;
		}
		i++;
	}

	if (error == CSV_READER_ERROR_UNTERMINATED_QUOTE)
	{
		end = first_end;
		at = *line;
	}
	else
		end = line_end;
	next = model_after_line_end(m, end);
	at += next > end;
	if (model_has_nul(m, p, end))
		error = CSV_READER_ERROR_NUL_BYTE;
	else if (error == CSV_READER_ERROR_NONE && nfields > m->max_fields)
		error = CSV_READER_ERROR_TOO_MANY_FIELDS;
	if (error != CSV_READER_ERROR_NONE)
		text_add_bad(out, error, true, p, next, *line, at, m->s + p, end - p);
	else
	{
		text_begin_line(out);
		text_format(out, "R %zu-%zu L%" PRIu64 "-%" PRIu64 " ", p, next, *line, at);
		text_append(out, fields.data, fields.len);
		text_append(out, "\n", 1);
	}
	*line = at;
	return next;
}

static void
model_run(const Model *m, Text *out)
{
	size_t   p = 0;
	uint64_t line = 1;

	text_clear(out);
	while (p < m->n)
	{
		if (m->s[p] == '\r' || m->s[p] == '\n')
		{
			p = model_after_line_end(m, p);
			line++;
		}
		else
			p = model_record(m, p, &line, out);
	}
	text_add_end(out, p, line);
}

/* --- the reader under test --- */

static CsvDialect
dialect_of(const Model *m)
{
	CsvDialect dialect = {.delimiter = m->delimiter, .quote = m->quote};

	dialect.max_record = m->max_record;
	dialect.max_fields = m->max_fields;
	return dialect;
}

static void
add_record(const Model *m, const CsvRecord *record, CsvReaderStatus status, Text *out)
{
	CHECK(memcmp(record->raw, m->s + record->offset, record->raw_len) == 0);
	if (status == CSV_READER_BAD_RECORD)
	{
		bool is_long = record->raw_len < record->end_offset - record->offset &&
					   record->raw[record->raw_len] != '\r' && record->raw[record->raw_len] != '\n';

		/* raw is cut off, or the line's end is unknown */
		is_long = is_long || record->error == CSV_READER_ERROR_TOO_LONG;
		CHECK(record->message != NULL && record->fields == NULL && record->nfields == 0);
		text_add_bad(out, record->error, !is_long, record->offset, record->end_offset,
					 record->line, record->end_line, record->raw, record->raw_len);
		return;
	}
	CHECK(record->message == NULL && record->error == CSV_READER_ERROR_NONE);
	CHECK(!record->skip_to_line_end);
	text_begin_line(out);
	text_format(out, "R %" PRIu64 "-%" PRIu64 " L%" PRIu64 "-%" PRIu64 " ",
				record->offset, record->end_offset, record->line, record->end_line);
	for (int i = 0; i < record->nfields; i++)
	{
		const CsvField *field = &record->fields[i];

		CHECK(field->data != NULL && field->data[field->len] == '\0');
		CHECK(!field->is_null || field->len == 0);
		text_add_field(out, i == 0, field->is_null, field->data, field->len);
	}
	text_append(out, "\n", 1);
}

/*
 * Reads the stream from a place on, its bytes arriving up to one cut after the
 * other and, last, up to its end.  Each buffer is a block of its own, exactly
 * as large as it must be, so that reading over its end is found.  NO_MEMORY is
 * answered by trying again.
 */
static void
read_cut(CsvReader *reader, const Model *m, const size_t *cuts, int ncuts,
		 uint64_t offset, uint64_t line, bool skip, Text *out)
{
	CsvRecord       record;
	CsvReaderStatus status = CSV_READER_NEED_MORE;

	for (int i = 0; i <= ncuts; i++)
	{
		size_t upto = i < ncuts ? cuts[i] : m->n;
		size_t len;
		char  *window;

		if (upto < offset)
			continue;
		len = upto - (size_t) offset;
		window = malloc(len > 0 ? len : 1);
		if (window == NULL)
			abort();
		memcpy(window, m->s + offset, len);
		csv_reader_set_input(reader, window, len, i == ncuts, offset, line, skip);
		for (;;)
		{
			status = csv_reader_next(reader, &record);
			if (status == CSV_READER_NEED_MORE || status == CSV_READER_END)
				break;
			CHECK(i < ncuts || !record.skip_to_line_end);
			if (status != CSV_READER_NO_MEMORY)
				add_record(m, &record, status, out);
		}
		CHECK_UINT(record.offset, record.end_offset);
		CHECK_UINT(record.line, record.end_line);
		CHECK((status == CSV_READER_END) == (i == ncuts));
		offset = record.offset;
		line = record.line;
		skip = record.skip_to_line_end;
		if (status == CSV_READER_NEED_MORE)
		{
			size_t rest = upto - (size_t) offset;

			/* promised: no more than this is ever needed */
			CHECK(rest < m->max_record + CSV_READER_LOOKAHEAD);
			CHECK(!skip || rest <= 1);
		}
		free(window);
	}
	text_add_end(out, offset, line);
}

/* The same answer for every cut into two, and byte by byte. */
static void
check_cuts(const Model *m, const Text *expected)
{
	static Text actual;
	CsvDialect  dialect = dialect_of(m);
	CsvReader  *reader = csv_reader_create(&dialect, NULL);
	size_t     *all = malloc((m->n + 1) * sizeof(size_t));

	if (reader == NULL || all == NULL)
		abort();
	for (size_t cut = 0; cut <= m->n; cut++)
	{
		all[cut] = cut;
		text_clear(&actual);
		read_cut(reader, m, &cut, 1, 0, 1, false, &actual);
		if (!CHECK_STR(actual.data, expected->data))
			printf("  cut at %zu\n", cut);
	}
	text_clear(&actual);
	read_cut(reader, m, all, (int) m->n + 1, 0, 1, false, &actual);
	CHECK_STR(actual.data, expected->data);
	free(all);
	csv_reader_free(reader);
}

/* From the end of each record another reader goes on as this one would. */
static void
check_resuming(const Model *m, const size_t *cuts, int ncuts, const Text *expected)
{
	static Text actual;
	CsvDialect  dialect = dialect_of(m);
	uint64_t    offset = 0;
	uint64_t    line = 1;
	bool        skip = false;

	for (int i = 0; i < expected->nlines; i++)
	{
		CsvReader      *reader = csv_reader_create(&dialect, NULL);
		CsvRecord       record;
		size_t          upto = ncuts > 0 ? (size_t) offset : m->n;
		CsvReaderStatus status;

		text_clear(&actual);
		read_cut(reader, m, cuts, ncuts, offset, line, skip, &actual);
		if (!CHECK_STR(actual.data, expected->data + expected->starts[i]))
			printf("  resumed at %" PRIu64 "\n", offset);

		/* to the next record's end: out of as few bytes as will do, or of all */
		do
		{
			csv_reader_set_input(reader, m->s + offset, upto - (size_t) offset,
								 upto == m->n, offset, line, skip);
			status = csv_reader_next(reader, &record);
			upto++;
		} while (status == CSV_READER_NEED_MORE && upto <= m->n);
		offset = record.end_offset;
		line = record.end_line;
		skip = record.skip_to_line_end;
		csv_reader_free(reader);
	}
}

static void
check_model(const Model *m, const size_t *cuts, int ncuts)
{
	static Text expected;
	static Text actual;
	CsvDialect  dialect = dialect_of(m);
	CsvReader  *reader = csv_reader_create(&dialect, NULL);

	model_run(m, &expected);
	text_clear(&actual);
	read_cut(reader, m, cuts, ncuts, 0, 1, false, &actual);
	if (!CHECK_STR(actual.data, expected.data))
	{
		printf("  input ");
		unit_print_bytes(m->s, m->n);
		printf(" max_record %zu max_fields %d\n", m->max_record, m->max_fields);
	}
	csv_reader_free(reader);
}

/* --- written-out expectations --- */

typedef struct Example
{
	const char *input;
	size_t      len;
	size_t      max_record;
	const char *expected;
} Example;

#define BYTES(s) s, sizeof(s) - 1

static const Example examples[] = {
	/* ends of rows, blank lines, the last line */
	{BYTES(""), 0, "E 0 L1\n"},
	{BYTES("a"), 0, "R 0-1 L1-1 a\nE 1 L1\n"},
	{BYTES("a\n"), 0, "R 0-2 L1-2 a\nE 2 L2\n"},
	{BYTES("a\r"), 0, "R 0-2 L1-2 a\nE 2 L2\n"},
	{BYTES("a\r\n"), 0, "R 0-3 L1-2 a\nE 3 L2\n"},
	{BYTES("a\rb\nc\r\nd"), 0,
	 "R 0-2 L1-2 a\nR 2-4 L2-3 b\nR 4-7 L3-4 c\nR 7-8 L4-4 d\nE 8 L4\n"},
	{BYTES("\n\r\r\n\n a \n\n"), 0, "R 5-9 L5-6  a \nE 10 L7\n"},
	{BYTES("\r\n\n\r"), 0, "E 4 L4\n"},

	/* NULL, empty, quotes, blanks */
	{BYTES(",\"\",\n"), 0, "R 0-5 L1-2 ~||~\nE 5 L2\n"},
	{BYTES("\"\""), 0, "R 0-2 L1-1 \nE 2 L1\n"},
	{BYTES(","), 0, "R 0-1 L1-1 ~|~\nE 1 L1\n"},
	{BYTES(" a , \"b\""), 0, "B stray 0-8 L1-1  a , \"b\"\nE 8 L1\n"},
	{BYTES("\" a \",\t"), 0, "R 0-7 L1-1  a |\\x09\nE 7 L1\n"},
	{BYTES("\"a\"\"b\",\"\"\"\""), 0, "R 0-11 L1-1 a\"b|\"\nE 11 L1\n"},
	{BYTES("\"a,b\r\nc\rd\ne\",f\r\ng\n"), 0,
	 "R 0-16 L1-5 a,b\\r\\nc\\rd\\ne|f\nR 16-18 L5-6 g\nE 18 L6\n"},

	/* stray quotes end with their line */
	{BYTES("a\"b,c\nd\n"), 0, "B stray 0-6 L1-2 a\"b,c\nR 6-8 L2-3 d\nE 8 L3\n"},
	{BYTES("\"a\"b\r\nd"), 0, "B stray 0-6 L1-2 \"a\"b\nR 6-7 L2-2 d\nE 7 L2\n"},
	{BYTES("\"a\" ,b\nd"), 0, "B stray 0-7 L1-2 \"a\" ,b\nR 7-8 L2-2 d\nE 8 L2\n"},
	{BYTES("x,\"a\nb\"c\nd"), 0, "B stray 0-9 L1-3 x,\"a\\nb\"c\nR 9-10 L3-3 d\nE 10 L3\n"},
	{BYTES("a\"\nb\"\nc"), 0, "B stray 0-3 L1-2 a\"\nB stray 3-6 L2-3 b\"\nR 6-7 L3-3 c\nE 7 L3\n"},

	/* a quote left open costs its line, not the file */
	{BYTES("\""), 0, "B unterminated 0-1 L1-1 \"\nE 1 L1\n"},
	{BYTES("a,\"b\nc,d\n"), 0, "B unterminated 0-5 L1-2 a,\"b\nR 5-9 L2-3 c|d\nE 9 L3\n"},
	{BYTES("a,\"b\r\n\r\nc\r"), 0, "B unterminated 0-6 L1-2 a,\"b\nR 8-10 L3-4 c\nE 10 L4\n"},
	{BYTES("\"a\"\"\nb\n"), 0, "B unterminated 0-5 L1-2 \"a\"\"\nR 5-7 L2-3 b\nE 7 L3\n"},
	{BYTES("\"abc\nd\nef\ngh\n"), 8,
	 "B unterminated 0-5 L1-2 \"abc\nR 5-7 L2-3 d\nR 7-10 L3-4 ef\nR 10-13 L4-5 gh\nE 13 L5\n"},
	{BYTES("\"abc\nde\"\nf"), 8, "R 0-9 L1-3 abc\\nde\nR 9-10 L3-3 f\nE 10 L3\n"},
	{BYTES("\"abc\ndef\"\nf"), 8,
	 "B unterminated 0-5 L1-2 \"abc\nB stray 5-10 L2-3 def\"\nR 10-11 L3-3 f\nE 11 L3\n"},

	/* too long */
	{BYTES("12345678\n123456789\r\n1\n"), 8,
	 "R 0-9 L1-2 12345678\nB long 9 L2 12345678\nR 20-22 L3-4 1\nE 22 L4\n"},
	{BYTES("12345678\r\n123456789"), 8, "R 0-10 L1-2 12345678\nB long 10 L2 12345678\nE 19 L2\n"},
	{BYTES("\"23456789\n1\""), 8, "B long 0 L1 \"2345678\nB stray 10-12 L2-2 1\"\nE 12 L2\n"},
	{BYTES("123456789012345678901234567890\r\r\nx"), 8,
	 "B long 0 L1 12345678\nR 33-34 L3-3 x\nE 34 L3\n"},

	/* NUL bytes, which win over other errors, and a byte order mark */
	{BYTES("a\0b,c\nd"), 0, "B nul 0-6 L1-2 a\\x00b,c\nR 6-7 L2-2 d\nE 7 L2\n"},
	{BYTES("\0\n\"\0\n\"\n\"x\0\"y\n\""), 0,
	 "B nul 0-2 L1-2 \\x00\nB nul 2-7 L2-4 \"\\x00\\n\"\nB nul 7-13 L4-5 \"x\\x00\"y\n"
	 "B unterminated 13-14 L5-5 \"\nE 14 L5\n"},
	{BYTES("\"\0\nb\n"), 0, "B nul 0-3 L1-2 \"\\x00\nR 3-5 L2-3 b\nE 5 L3\n"},
	{BYTES("\xEF\xBB\xBF\"a\""), 0, "B stray 0-6 L1-1 \\xef\\xbb\\xbf\"a\"\nE 6 L1\n"},
	{BYTES("\xff\xfe,\xc3\xa9\x80"), 0, "R 0-6 L1-1 \\xff\\xfe|\\xc3\\xa9\\x80\nE 6 L1\n"},
};

static void
test_examples(void)
{
	for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++)
	{
		const Example *e = &examples[i];
		Model          m = {e->input, e->len, ',', '"', e->max_record, 1600};
		static Text    expected;
		static Text    modelled;

		if (m.max_record == 0)
			m.max_record = CSV_READER_DEFAULT_MAX_RECORD;
		text_clear(&expected);
		for (const char *at = e->expected; *at; at = strchr(at, '\n') + 1)
		{
			text_begin_line(&expected);
			text_append(&expected, at, (size_t) (strchr(at, '\n') + 1 - at));
		}
		model_run(&m, &modelled);
		CHECK_STR(modelled.data, expected.data);
		check_cuts(&m, &expected);
		check_resuming(&m, NULL, 0, &expected);
	}
}

static void
test_dialects(void)
{
	static Text actual;
	const char *input = "a\t b \t'it''s'\t'x\ty'\t\"q\"\t\n";
	Model       m = {input, strlen(input), '\t', '\'', 1000, 10};
	CsvDialect  dialect = dialect_of(&m);
	CsvDialect  bad[] = {
		 {.delimiter = '"'},
		 {.quote = ','},
		 {.delimiter = '\n'},
		 {.quote = '\r'},
		 {.max_fields = -1},
    };
	CsvReader *reader = csv_reader_create(&dialect, NULL);

	text_clear(&actual);
	read_cut(reader, &m, NULL, 0, 0, 1, false, &actual);
	CHECK_STR(actual.data, "R 0-25 L1-2 a| b |it's|x\\x09y|\"q\"|~\nE 25 L2\n");
	csv_reader_free(reader);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		CHECK(!csv_dialect_is_valid(&bad[i]));
		CHECK(csv_reader_create(&bad[i], NULL) == NULL);
	}
	csv_reader_free(NULL);
}

/* Before the first buffer, and after the last, the answers are sane too. */
static void
test_without_input(void)
{
	CsvReader *reader = csv_reader_create(NULL, NULL);
	CsvRecord  record;

	CHECK_INT(csv_reader_next(reader, &record), CSV_READER_NEED_MORE);
	CHECK_UINT(record.offset, 0);
	CHECK_UINT(record.line, 1);
	csv_reader_set_input(reader, "a\n\"b", 4, false, UINT64_C(1) << 40, 77, false);
	CHECK_INT(csv_reader_next(reader, &record), CSV_READER_RECORD);
	CHECK_UINT(record.offset, UINT64_C(1) << 40);
	CHECK_UINT(record.line, 77);
	for (int i = 0; i < 3; i++)
	{
		CHECK_INT(csv_reader_next(reader, &record), CSV_READER_NEED_MORE);
		CHECK_UINT(record.offset, (UINT64_C(1) << 40) + 2);
		CHECK_UINT(record.line, 78);
	}
	csv_reader_set_input(reader, "b\n", 2, true, 0, 1, false);
	CHECK_INT(csv_reader_next(reader, &record), CSV_READER_RECORD);
	for (int i = 0; i < 3; i++)
		CHECK_INT(csv_reader_next(reader, &record), CSV_READER_END);
	csv_reader_free(reader);
}

static void
test_field_limit(void)
{
	char       input[4000];
	size_t     len = 0;
	CsvReader *reader = csv_reader_create(NULL, NULL);
	CsvRecord  record;

	for (int i = 0; i < 1599; i++)
		input[len++] = ',';
	input[len++] = '\n';
	for (int i = 0; i < 1600; i++)
		input[len++] = ',';
	memcpy(input + len, "\n\"x\"\n", 5);
	len += 5;
	csv_reader_set_input(reader, input, len, true, 0, 1, false);
	CHECK_INT(csv_reader_next(reader, &record), CSV_READER_RECORD);
	CHECK_INT(record.nfields, 1600);
	CHECK(record.fields[0].is_null && record.fields[1599].is_null);
	CHECK_INT(csv_reader_next(reader, &record), CSV_READER_BAD_RECORD);
	CHECK_INT(record.error, CSV_READER_ERROR_TOO_MANY_FIELDS);
	CHECK_UINT(record.raw_len, 1600);
	CHECK_INT(csv_reader_next(reader, &record), CSV_READER_RECORD);
	CHECK_MEM(record.fields[0].data, record.fields[0].len, "x", 1);
	csv_reader_free(reader);
}

/* Fields must survive the growth of the memory they are in. */
static void
test_large_record(void)
{
	size_t     line_len = 1000;
	size_t     nlines = 1000;
	size_t     len = 0;
	char      *input = malloc(nlines * (line_len + 20) + 100);
	CsvReader *reader = csv_reader_create(NULL, NULL);
	CsvRecord  record;

	len += (size_t) sprintf(input, "first,,\"\",\"");
	for (size_t i = 0; i < nlines; i++)
	{
		memset(input + len, 'a' + (int) (i % 26), line_len);
		len += line_len;
		memcpy(input + len, "\"\"\",\"\r\n", 7);
		len += 7;
	}
	len += (size_t) sprintf(input + len, "\",last\n");
	csv_reader_set_input(reader, input, len, true, 0, 1, false);
	if (CHECK_INT(csv_reader_next(reader, &record), CSV_READER_RECORD))
	{
		CHECK_INT(record.nfields, (int) nlines + 5);
		CHECK_STR(record.fields[0].data, "first");
		CHECK(record.fields[1].is_null);
		CHECK(!record.fields[2].is_null && record.fields[2].len == 0);
		CHECK_UINT(record.fields[3].len, line_len + 1);
		CHECK(record.fields[3].data[0] == 'a' && record.fields[3].data[line_len] == '"');
		for (size_t i = 1; i < nlines; i++)
		{
			const CsvField *field = &record.fields[3 + i];

			CHECK_UINT(field->len, line_len + 3);
			CHECK(memcmp(field->data, "\r\n", 2) == 0);
			CHECK(field->data[2] == 'a' + (int) (i % 26));
			CHECK(field->data[line_len + 2] == '"');
		}
		CHECK_STR(record.fields[nlines + 3].data, "\r\n");
		CHECK_STR(record.fields[nlines + 4].data, "last");
		CHECK_UINT(record.end_line, nlines + 2);
	}
	csv_reader_free(reader);
	free(input);
}

/*
 * A last record without line end needs a byte more than it has, for the NUL:
 * tried at every size around those at which memory grows.
 */
static void
test_exact_sizes(void)
{
	char *input = malloc(33000);

	memset(input, 'x', 33000);
	for (size_t power = 1024; power <= 32768; power *= 2)
	{
		for (size_t len = power - 4; len <= power + 4; len++)
		{
			CsvReader *reader = csv_reader_create(NULL, NULL);
			CsvRecord  record;

			csv_reader_set_input(reader, input, len, true, 0, 1, false);
			CHECK_INT(csv_reader_next(reader, &record), CSV_READER_RECORD);
			CHECK_MEM(record.fields[0].data, record.fields[0].len, input, len);
			CHECK_INT(record.fields[0].data[len], 0);
			csv_reader_free(reader);
		}
	}
	free(input);
}

/* The default limit, in a stream that comes in pieces. */
static void
test_default_limit(void)
{
	size_t     limit = CSV_READER_DEFAULT_MAX_RECORD;
	size_t     len = 4 * limit;
	char      *input = malloc(len);
	CsvReader *reader = csv_reader_create(NULL, NULL);
	CsvRecord  record;

	/* a record of exactly 1 MiB, then a line of 2 MiB and its CRLF, then x */
	memset(input, 'a', len);
	input[limit] = '\n';
	memcpy(input + 3 * limit + 1, "\r\nx", 3);
	csv_reader_set_input(reader, input, limit + 1, false, 0, 1, false);
	CHECK_INT(csv_reader_next(reader, &record), CSV_READER_RECORD);
	CHECK_UINT(record.fields[0].len, limit);
	csv_reader_set_input(reader, input + limit + 1, limit, false, limit + 1, 2, false);
	CHECK_INT(csv_reader_next(reader, &record), CSV_READER_NEED_MORE);
	csv_reader_set_input(reader, input + limit + 1, limit + 1, false, limit + 1, 2, false);
	CHECK_INT(csv_reader_next(reader, &record), CSV_READER_BAD_RECORD);
	CHECK_INT(record.error, CSV_READER_ERROR_TOO_LONG);
	CHECK_UINT(record.raw_len, CSV_READER_TOO_LONG_RAW);
	CHECK_UINT(record.end_offset, 2 * limit + 2);
	CHECK_UINT(record.end_line, 2);
	CHECK(record.skip_to_line_end);
	csv_reader_set_input(reader, input + 2 * limit + 2, limit, false,
						 record.end_offset, record.end_line, true);
	CHECK_INT(csv_reader_next(reader, &record), CSV_READER_NEED_MORE);
	CHECK_UINT(record.offset, 3 * limit + 1);
	CHECK(record.skip_to_line_end);
	csv_reader_set_input(reader, input + 3 * limit + 1, 3, true, record.offset, record.line, true);
	CHECK_INT(csv_reader_next(reader, &record), CSV_READER_RECORD);
	CHECK_STR(record.fields[0].data, "x");
	CHECK_UINT(record.line, 3);
	csv_reader_free(reader);
	free(input);
}

/* A quote left open at the top of a large file costs one row. */
static void
test_open_quote_in_large_file(void)
{
	size_t          cap = 3 * CSV_READER_DEFAULT_MAX_RECORD;
	char           *input = malloc(cap + 100);
	size_t          len;
	uint64_t        rows = 0;
	uint64_t        good = 0;
	uint64_t        bad = 0;
	CsvReader      *reader = csv_reader_create(NULL, NULL);
	CsvRecord       record;
	CsvReaderStatus status;

	len = (size_t) sprintf(input, "0,\"open\n");
	while (len < cap)
		len += (size_t) sprintf(input + len, "%" PRIu64 ",some text\n", ++rows);
	csv_reader_set_input(reader, input, len, true, 0, 1, false);
	while ((status = csv_reader_next(reader, &record)) != CSV_READER_END)
	{
		if (status == CSV_READER_RECORD)
			CHECK_UINT(record.line, ++good + 1);
		else
			bad++;
	}
	CHECK_UINT(good, rows);
	CHECK_UINT(bad, 1);
	csv_reader_free(reader);
	free(input);
}

static size_t
random_input(uint64_t *seed, char *input, size_t max_len)
{
	static const char letters[] = "ab,\"\n\r,\"\n\" \xC3;";
	size_t            len = unit_random_below(seed, max_len + 1);
	bool              quiet = unit_random_below(seed, 2) == 0;

	for (size_t i = 0; i < len; i++)
	{
		input[i] = letters[unit_random_below(seed, sizeof(letters) - 1)];
		if (quiet && input[i] == '"' && unit_random_below(seed, 4) > 0)
			input[i] = 'c';
		if (unit_random_below(seed, 150) == 0)
			input[i] = '\0';
	}
	return len;
}

static void
test_random(void)
{
	uint64_t seed = 20240611;
	char     input[120];

	for (int i = 0; i < 20000; i++)
	{
		size_t cuts[8];
		int    ncuts = (int) unit_random_below(&seed, 9);
		Model  m = {input, 0, ',', '"', 1000, 1600};

		m.n = random_input(&seed, input, i % 3 == 0 ? 20 : sizeof(input));
		if (unit_random_below(&seed, 2) == 0)
			m.max_record = 1 + unit_random_below(&seed, 30);
		if (unit_random_below(&seed, 4) == 0)
			m.max_fields = 1 + (int) unit_random_below(&seed, 4);
		if (unit_random_below(&seed, 8) == 0)
			m.delimiter = ';';
		if (unit_random_below(&seed, 8) == 0)
			m.quote = 'b';
		for (int j = 0; j < ncuts; j++)
		{
			size_t cut = unit_random_below(&seed, m.n + 1);
			int    place = j;

			for (; place > 0 && cuts[place - 1] > cut; place--)
				cuts[place] = cuts[place - 1];
			cuts[place] = cut;
		}
		check_model(&m, cuts, ncuts);
		if (i % 50 == 0)
		{
			static Text expected;

			model_run(&m, &expected);
			check_cuts(&m, &expected);
			check_resuming(&m, cuts, ncuts, &expected);
		}
	}
}

/* --- an allocator that fails from the n-th request on, for some requests --- */

static long requests_until_failure;
static long failures;
static long blocks;

static void *
failing_realloc(void *ptr, size_t size)
{
	void *result;

	if (requests_until_failure > 0 && --requests_until_failure == 0 && failures-- > 0)
	{
		requests_until_failure = 1;
		return NULL;
	}
	result = realloc(ptr, size);
	blocks += ptr == NULL && result != NULL;
	return result;
}

static void
counting_free(void *ptr)
{
	blocks -= ptr != NULL;
	free(ptr);
}

static void
test_no_memory(void)
{
	CsvAllocator allocator = {failing_realloc, counting_free};
	char        *input = malloc(40000);
	size_t       len;
	long         n;
	static Text  expected;
	static Text  actual;

	len = (size_t) sprintf(input, "a,b\nc,\"");
	memset(input + len, 'x', 30000);
	len += 30000;
	len += (size_t) sprintf(input + len, "\ny\",z\nbad\"\n\"open\nlast");
	{
		Model m = {input, len, ',', '"', CSV_READER_DEFAULT_MAX_RECORD, 1600};

		model_run(&m, &expected);
		for (n = 1; n < 100; n++)
		{
			CsvReader *reader;
			long       allowed = n % 2 == 0 ? 1 : 40;

			/* more than once: libcsv asks again, for less */
			requests_until_failure = n;
			failures = allowed;
			reader = csv_reader_create(NULL, &allocator);
			CHECK((reader == NULL) == (n <= 3));
			if (reader != NULL)
			{
				text_clear(&actual);
				read_cut(reader, &m, NULL, 0, 0, 1, false, &actual);
				CHECK_STR(actual.data, expected.data);
				csv_reader_free(reader);
			}
			CHECK_INT(blocks, 0);
			if (failures == allowed)
				break;
		}
		CHECK(n > 6 && n < 100);
	}

	/* all of libcsv's attempts fail: the caller learns of it and may go on */
	{
		CsvReader *reader;
		CsvRecord  record;

		requests_until_failure = 0;
		reader = csv_reader_create(NULL, &allocator);
		csv_reader_set_input(reader, "\n\n\"x\",y\n", 8, true, 100, 7, false);
		requests_until_failure = 1;
		failures = 1000;
		CHECK_INT(csv_reader_next(reader, &record), CSV_READER_NO_MEMORY);
		CHECK_UINT(record.offset, 102);
		CHECK_UINT(record.line, 9);
		requests_until_failure = 0;
		CHECK_INT(csv_reader_next(reader, &record), CSV_READER_RECORD);
		CHECK_UINT(record.offset, 102);
		CHECK_INT(record.nfields, 2);
		csv_reader_free(reader);
		CHECK_INT(blocks, 0);
	}
	free(input);
}

static void
test_skip_bom(void)
{
	CHECK_UINT(csv_skip_bom("\xEF\xBB\xBFx", 4), 3);
	CHECK_UINT(csv_skip_bom("\xEF\xBB\xBF", 3), 3);
	CHECK_UINT(csv_skip_bom("\xEF\xBB", 2), 0);
	CHECK_UINT(csv_skip_bom("\xEF\xBB\xBE", 3), 0);
	CHECK_UINT(csv_skip_bom("", 0), 0);
}

int
main(void)
{
	test_examples();
	test_dialects();
	test_without_input();
	test_field_limit();
	test_large_record();
	test_exact_sizes();
	test_default_limit();
	test_open_quote_in_large_file();
	test_random();
	test_no_memory();
	test_skip_bom();
	return unit_report();
}
