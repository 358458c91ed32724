/*
 * cell_format.c
 *	  Dates, numbers and truth values as people write them.
 *
 * PostgreSQL reads dates by the setting DateStyle, which decides for a whole
 * session, and to_date() takes what does not fit its pattern: 1/2-24 for
 * DD.MM.YYYY is a day of the year 24.  A file that says how it writes its dates
 * is better taken at its word.
 */
#include "pure/cell_format.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

const char *const cell_format_true[] = {"1", "t", "true", "y", "yes", "on", "x", "j", "ja", "oui", "si", NULL};
const char *const cell_format_false[] = {"0", "f", "false", "n", "no", "off", "nein", "non", NULL};

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* ---- patterns ---- */

/* If text begins with the word, passes it. */
static bool
skip(const char **text, const char *word)
{
	size_t length = strlen(word);

	if (strncmp(*text, word, length) != 0)
		return false;
	*text += length;
	return true;
}

static bool
parse_parts(const char **pattern, CellFormat *format)
{
	static const char *const parts[][3] = {
		[CELL_DATE_DMY] = {"DD", "MM", "YYYY"},
		[CELL_DATE_MDY] = {"MM", "DD", "YYYY"},
		[CELL_DATE_YMD] = {"YYYY", "MM", "DD"},
	};

	for (int order = CELL_DATE_DMY; order <= CELL_DATE_YMD; order++)
	{
		const char *at = *pattern;
		char        separator[2] = "";

		if (!skip(&at, parts[order][0]))
			continue;
		if (*at == '.' || *at == '/' || *at == '-')
			separator[0] = *at;
		if (!skip(&at, separator) || !skip(&at, parts[order][1]) || !skip(&at, separator) ||
			!skip(&at, parts[order][2]))
			continue;
		format->order = (CellDateOrder) order;
		format->separator = separator[0];
		*pattern = at;
		return true;
	}
	return false;
}

bool
cell_format_parse_date(const char *pattern, CellFormat *format)
{
	memset(format, 0, sizeof(*format));
	format->kind = CELL_FORMAT_DATE;
	if (!parse_parts(&pattern, format))
		return false;
	if (*pattern == '\0')
		return true;
	if (*pattern != ' ' && *pattern != 'T')
		return false;
	format->time_sign = *pattern++;
	if (!skip(&pattern, "HH24:MI"))
		return false;
	if (skip(&pattern, "[:SS]"))
		format->seconds = CELL_SECONDS_OPTIONAL;
	else if (skip(&pattern, ":SS"))
		format->seconds = CELL_SECONDS_REQUIRED;
	return *pattern == '\0';
}

bool
cell_format_parse_number(const char *decimal, const char *grouping, CellFormat *format)
{
	memset(format, 0, sizeof(*format));
	format->kind = CELL_FORMAT_NUMBER;
	if (strcmp(decimal, ".") != 0 && strcmp(decimal, ",") != 0)
		return false;
	format->decimal = decimal[0];
	if (grouping == NULL)
		return true;
	if (strlen(grouping) != 1 || strchr(".,' ", grouping[0]) == NULL || grouping[0] == decimal[0])
		return false;
	format->grouping = grouping[0];
	return true;
}

/* ---- dates ---- */

/* Reads min to max digits; -1 if they are not there, or more follow. */
static int
read_number(const char **at, const char *end, int min, int max)
{
	int value = 0;
	int n = 0;

	while (*at < end && is_digit(**at) && n < max)
	{
		value = value * 10 + (**at - '0');
		(*at)++;
		n++;
	}
	return n < min ? -1 : value;
}

static bool
read_sign(const char **at, const char *end, char sign)
{
	if (sign == '\0')
		return true;
	if (*at == end || **at != sign)
		return false;
	(*at)++;
	return true;
}

static int
days_in(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool             leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return month == 2 && leap ? 29 : days[month - 1];
}

static CellFormatStatus
apply_date(const CellFormat *format, const char *cell, size_t length, char *out)
{
	static const char order[][3] = {
		[CELL_DATE_DMY] = {'D', 'M', 'Y'},
		[CELL_DATE_MDY] = {'M', 'D', 'Y'},
		[CELL_DATE_YMD] = {'Y', 'M', 'D'},
	};
	const char *at = cell;
	const char *end = cell + length;
	int         least = format->separator == '\0' ? 2 : 1;
	int         year = 0;
	int         month = 0;
	int         day = 0;
	int         hour = 0;
	int         minute = 0;
	int         second = 0;

	for (int i = 0; i < 3; i++)
	{
		char part = order[format->order][i];
		int  value;

		if (i > 0 && !read_sign(&at, end, format->separator))
			return CELL_FORMAT_MISFIT;
		value = part == 'Y' ? read_number(&at, end, 4, 4) : read_number(&at, end, least, 2);
		if (value < 0)
			return CELL_FORMAT_MISFIT;
		*(part == 'Y' ? &year : part == 'M' ? &month :
											  &day) = value;
	}
	if (format->time_sign != '\0')
	{
		if (!read_sign(&at, end, format->time_sign) || (hour = read_number(&at, end, 1, 2)) < 0 ||
			!read_sign(&at, end, ':') || (minute = read_number(&at, end, 2, 2)) < 0)
			return CELL_FORMAT_MISFIT;
		if (format->seconds == CELL_SECONDS_REQUIRED || (format->seconds == CELL_SECONDS_OPTIONAL && at < end))
		{
			if (!read_sign(&at, end, ':') || (second = read_number(&at, end, 2, 2)) < 0)
				return CELL_FORMAT_MISFIT;
		}
	}
	if (at != end)
		return CELL_FORMAT_MISFIT;
	if (year == 0 || month < 1 || month > 12 || day < 1 || day > days_in(year, month) || hour > 23 || minute > 59 ||
		second > 59)
		return CELL_FORMAT_NO_DATE;
	if (format->time_sign == '\0')
		snprintf(out, CELL_FORMAT_SIZE(length), "%04d-%02d-%02d", year, month, day);
	else
		snprintf(out, CELL_FORMAT_SIZE(length), "%04d-%02d-%02d %02d:%02d:%02d", year, month, day, hour,
				 minute, second);
	return CELL_FORMAT_OK;
}

/* ---- numbers ---- */

/* The length of the grouping sign at this place; 0: there is none. */
static size_t
grouping_at(const CellFormat *format, const char *at, const char *end)
{
	/* no-break space, narrow no-break space, right single quotation mark */
	static const char *const blanks[] = {"\xC2\xA0", "\xE2\x80\xAF", NULL};
	static const char *const quotes[] = {"\xE2\x80\x99", NULL};
	const char *const       *also = NULL;

	if (format->grouping == '\0' || at == end)
		return 0;
	if (*at == format->grouping)
		return 1;
	if (format->grouping == ' ')
		also = blanks;
	else if (format->grouping == '\'')
		also = quotes;
	for (; also != NULL && *also != NULL; also++)
	{
		size_t length = strlen(*also);

		if ((size_t) (end - at) >= length && memcmp(at, *also, length) == 0)
			return length;
	}
	return 0;
}

/* Copies digits; returns how many. */
static size_t
copy_digits(const char **at, const char *end, char **out)
{
	size_t n = 0;

	while (*at < end && is_digit(**at))
	{
		*(*out)++ = *(*at)++;
		n++;
	}
	return n;
}

/* The digits before the decimal sign; false if their groups are not whole. */
static bool
copy_whole_part(const CellFormat *format, const char **at, const char *end, char **out)
{
	const char *first = *at;
	size_t      n = copy_digits(at, end, out);
	size_t      sign = grouping_at(format, *at, end);
	size_t      same = sign;
	const char *mark = *at;

	/* 0.123 with a point for grouping is more likely a number of another format */
	if (sign > 0 && (n == 0 || n > 3 || *first == '0'))
		return false;
	while (sign > 0)
	{
		if (sign != same || memcmp(*at, mark, sign) != 0)
			return false; /* two kinds of blanks in one number */
		*at += sign;
		if (copy_digits(at, end, out) != 3)
			return false;
		sign = grouping_at(format, *at, end);
	}
	return true;
}

static CellFormatStatus
apply_number(const CellFormat *format, const char *cell, size_t length, char *out)
{
	const char *at = cell;
	const char *end = cell + length;
	const char *first;

	if (at < end && (*at == '-' || *at == '+'))
		*out++ = *at++;
	first = at;
	if (!copy_whole_part(format, &at, end, &out))
		return CELL_FORMAT_MISFIT;
	if (at < end && *at == format->decimal)
	{
		at++;
		*out++ = '.';
		if (copy_digits(&at, end, &out) == 0)
			return CELL_FORMAT_MISFIT;
	}
	else if (at == first)
		return CELL_FORMAT_MISFIT;
	if (at < end && (*at == 'e' || *at == 'E'))
	{
		*out++ = *at++;
		if (at < end && (*at == '-' || *at == '+'))
			*out++ = *at++;
		if (copy_digits(&at, end, &out) == 0)
			return CELL_FORMAT_MISFIT;
	}
	*out = '\0';
	return at == end ? CELL_FORMAT_OK : CELL_FORMAT_MISFIT;
}

/* ---- booleans ---- */

static bool
is_one_of(const char *const *words, const char *cell, size_t length)
{
	for (; *words != NULL; words++)
	{
		size_t i = 0;

		while (i < length && (*words)[i] != '\0' &&
			   (*words)[i] == (cell[i] >= 'A' && cell[i] <= 'Z' ? cell[i] - 'A' + 'a' : cell[i]))
			i++;
		if (i == length && (*words)[i] == '\0')
			return true;
	}
	return false;
}

CellFormatStatus
cell_format_apply(const CellFormat *format, const char *cell, size_t length, char *out)
{
	switch (format->kind)
	{
		case CELL_FORMAT_NONE:
			memcpy(out, cell, length);
			out[length] = '\0';
			return CELL_FORMAT_OK;
		case CELL_FORMAT_DATE:
			return apply_date(format, cell, length, out);
		case CELL_FORMAT_NUMBER:
			return apply_number(format, cell, length, out);
		case CELL_FORMAT_BOOLEAN:
			if (is_one_of(cell_format_true, cell, length))
				strcpy(out, "true");
			else if (is_one_of(cell_format_false, cell, length))
				strcpy(out, "false");
			else
				return CELL_FORMAT_MISFIT;
			return CELL_FORMAT_OK;
	}
	return CELL_FORMAT_MISFIT;
}
