/*
 * fuzz_cell_format.c
 *	  Any pattern, any cell.
 *
 * Input: one byte that chooses, then a pattern up to a NUL byte, then the cell.
 * The result has to be in the shape that PostgreSQL's input functions read in
 * one way only, and a number must have kept its digits.
 */
#include "pure/cell_format.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void
require(bool condition)
{
	if (!condition)
		abort();
}

static void
check_date(const char *out)
{
	static const char shape[] = "0000-00-00 00:00:00";
	size_t            length = strlen(out);

	require(length == 10 || length == 19);
	for (size_t i = 0; i < length; i++)
		require(shape[i] == '0' ? out[i] >= '0' && out[i] <= '9' : out[i] == shape[i]);
}

static void
check_number(const char *cell, size_t length, const char *out)
{
	size_t at = 0;

	require(strspn(out, "0123456789+-.eE") == strlen(out));
	for (size_t i = 0; i < length; i++)
		if (cell[i] >= '0' && cell[i] <= '9')
		{
			at += strcspn(out + at, "0123456789");
			require(out[at++] == cell[i]);
		}
	require(strcspn(out + at, "0123456789") == strlen(out + at));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const decimals[] = {".", ","};
	static const char *const groupings[] = {NULL, ".", ",", " ", "'"};
	CellFormat               format = {.kind = CELL_FORMAT_BOOLEAN};
	const char              *text = (const char *) data + 1;
	const char              *zero;
	char                    *out;

	if (size < 2 || (zero = memchr(text, '\0', size - 1)) == NULL)
		return 0;
	size -= (size_t) (zero + 1 - (const char *) data);
	if (data[0] % 3 == 0)
	{
		if (!cell_format_parse_date(text, &format))
			return 0;
	}
	else if (data[0] % 3 == 1 &&
			 !cell_format_parse_number(decimals[data[0] / 3 % 2], groupings[data[0] / 6 % 5], &format))
		return 0;

	out = malloc(CELL_FORMAT_SIZE(size));
	if (cell_format_apply(&format, zero + 1, size, out) == CELL_FORMAT_OK)
	{
		require(strlen(out) < CELL_FORMAT_SIZE(size));
		if (format.kind == CELL_FORMAT_DATE)
			check_date(out);
		else if (format.kind == CELL_FORMAT_NUMBER)
			check_number(zero + 1, size, out);
		else
			require(strcmp(out, "true") == 0 || strcmp(out, "false") == 0);
	}
	free(out);
	return 0;
}
