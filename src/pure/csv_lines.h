/*
 * csv_lines.h
 *	  The physical lines of a buffer of CSV: where they begin and end.
 *
 * A line ends with CR, LF or CRLF.  Each byte of the buffer is looked at once
 * per kind that is searched for, with memchr(), as long as searches go forward;
 * who goes back calls csv_lines_rewind().
 */
#ifndef BULK_ACTION_CSV_LINES_H
#define BULK_ACTION_CSV_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Where a byte occurs next in the buffer: its position + 1, or 0 when unknown. */
typedef size_t NextByte;

typedef struct CsvLines
{
	const char *buf;
	size_t      len;
	bool        is_final; /* nothing comes after it */
	NextByte    next_cr;
	NextByte    next_lf;
	NextByte    next_nul;
	NextByte    next_quote;
} CsvLines;

/* A line: [start, end) and, after its line end, next. */
typedef struct CsvLine
{
	size_t start;
	size_t end;
	size_t next;
} CsvLine;

static inline void
csv_lines_rewind(CsvLines *lines)
{
	lines->next_cr = 0;
	lines->next_lf = 0;
	lines->next_nul = 0;
	lines->next_quote = 0;
}

static inline void
csv_lines_set(CsvLines *lines, const char *buf, size_t len, bool is_final)
{
	lines->buf = buf;
	lines->len = len;
	lines->is_final = is_final;
	csv_lines_rewind(lines);
}

/* The position of a byte at or after from, or the buffer's length; next is the member for that byte. */
static inline size_t
csv_lines_find(const CsvLines *lines, NextByte *next, int byte, size_t from)
{
	if (*next <= from)
	{
		const char *found = NULL;

		if (from < lines->len)
			found = memchr(lines->buf + from, byte, lines->len - from);
		*next = (found != NULL ? (size_t) (found - lines->buf) : lines->len) + 1;
	}
	return *next - 1;
}

/*
 * Whether the line end at a position cannot be told yet: a CR at the end of the
 * buffer may be the first half of a CRLF.
 */
static inline bool
csv_line_end_is_undecided(const CsvLines *lines, size_t end)
{
	return !lines->is_final && end + 1 == lines->len && lines->buf[end] == '\r';
}

/* The position after the line end that stands at end < len. */
static inline size_t
csv_lines_pass_end(const CsvLines *lines, size_t end)
{
	if (lines->buf[end] == '\r' && end + 1 < lines->len && lines->buf[end + 1] == '\n')
		return end + 2;
	return end + 1;
}

/* The line that starts there, up to its end or to that of the buffer. */
static inline CsvLine
csv_line_at(CsvLines *lines, size_t start)
{
	size_t  cr = csv_lines_find(lines, &lines->next_cr, '\r', start);
	size_t  lf = csv_lines_find(lines, &lines->next_lf, '\n', start);
	CsvLine line;

	line.start = start;
	line.end = cr < lf ? cr : lf;
	line.next = line.end < lines->len ? csv_lines_pass_end(lines, line.end) : line.end;
	return line;
}

#endif /* BULK_ACTION_CSV_LINES_H */
