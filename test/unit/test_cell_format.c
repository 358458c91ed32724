/*
 * test_cell_format.c
 *	  Dates, numbers and truth values as people write them.
 *
 * Days are checked against a calendar that is counted day by day, numbers
 * against ones that are written with grouping here.
 */
#include "pure/cell_format.h"
#include "unit.h"

#include <stdlib.h>

typedef struct Case
{
	const char *cell;
	const char *result; /* NULL: a misfit; "": no such day or time */
} Case;

static void
check_cell(const CellFormat *format, const char *cell, const char *expected)
{
	size_t           length = strlen(cell);
	char            *out = malloc(CELL_FORMAT_SIZE(length)); /* of exactly the size that is promised */
	CellFormatStatus status = cell_format_apply(format, cell, length, out);

	CHECK_INT(status, expected == NULL ? CELL_FORMAT_MISFIT : *expected == '\0' ? CELL_FORMAT_NO_DATE :
																				  CELL_FORMAT_OK);
	if (status == CELL_FORMAT_OK)
	{
		CHECK_STR(out, expected);
		CHECK(strlen(out) < CELL_FORMAT_SIZE(length));
	}
	free(out);
}

static void
check_date(const char *pattern, const Case *cases)
{
	CellFormat format;

	if (!CHECK(cell_format_parse_date(pattern, &format)))
		return;
	for (; cases->cell != NULL; cases++)
		check_cell(&format, cases->cell, cases->result);
}

static void
test_patterns(void)
{
	static const char *const good[] = {
		"DD.MM.YYYY", "DD/MM/YYYY", "DD-MM-YYYY", "DDMMYYYY", "MM/DD/YYYY", "MM.DD.YYYY", "MMDDYYYY", "YYYYMMDD",
		"YYYY-MM-DD", "YYYY/MM/DD", "DD.MM.YYYY HH24:MI", "DD.MM.YYYY HH24:MI:SS", "DD.MM.YYYY HH24:MI[:SS]",
		"YYYY-MM-DDTHH24:MI:SS", "YYYYMMDDTHH24:MI", NULL};
	static const char *const bad[] = {
		"", "DD", "DD.MM", "DD.MM.", "DD.MM.YY", "DD.MM/YYYY", "DD MM YYYY", "dd.mm.yyyy", "YYYY.DD.MM", "MM.YYYY",
		"DD.MM.YYYY ", "DD.MM.YYYY HH:MI", "DD.MM.YYYY HH24", "DD.MM.YYYY HH24:MI:SS[:SS]", "DD.MM.YYYY  HH24:MI",
		"DD.MM.YYYY HH24:MI[:SS", "DD.MM.YYYY HH24:MI:SS.MS", "DD.MM.YYYYHH24:MI", "DD..MM.YYYY", " DD.MM.YYYY",
		"HH24:MI", "DD.MM.YYYY,HH24:MI", "DD_MM_YYYY", NULL};
	CellFormat format;

	for (int i = 0; good[i] != NULL; i++)
		CHECK(cell_format_parse_date(good[i], &format) && format.kind == CELL_FORMAT_DATE);
	for (int i = 0; bad[i] != NULL; i++)
		CHECK(!cell_format_parse_date(bad[i], &format));

	CHECK(cell_format_parse_number(",", NULL, &format));
	CHECK(cell_format_parse_number(",", ".", &format));
	CHECK(cell_format_parse_number(".", ",", &format));
	CHECK(cell_format_parse_number(".", " ", &format));
	CHECK(cell_format_parse_number(",", "'", &format));
	CHECK(!cell_format_parse_number(",", ",", &format));
	CHECK(!cell_format_parse_number(".", ".", &format));
	CHECK(!cell_format_parse_number(";", NULL, &format));
	CHECK(!cell_format_parse_number("", NULL, &format));
	CHECK(!cell_format_parse_number(".,", NULL, &format));
	CHECK(!cell_format_parse_number(",", "", &format));
	CHECK(!cell_format_parse_number(",", "..", &format));
	CHECK(!cell_format_parse_number(",", "_", &format));
}

static void
test_dates(void)
{
	static const Case dotted[] = {
		{"31.01.2024", "2024-01-31"},
		{"1.2.2024", "2024-02-01"},
		{"01.2.0001", "0001-02-01"},
		{"29.02.2024", "2024-02-29"},
		{"29.02.2023", ""},
		{"29.02.1900", ""},
		{"29.02.2000", "2000-02-29"},
		{"31.02.2024", ""},
		{"31.04.2024", ""},
		{"00.01.2024", ""},
		{"01.13.2024", ""},
		{"01.00.2024", ""},
		{"01.01.0000", ""},
		{"01.01.24", NULL},
		{"01.01.20245", NULL},
		{"001.01.2024", NULL},
		{"01/01/2024", NULL},
		{"2024-01-01", NULL},
		{"01.01.2024 ", NULL},
		{" 01.01.2024", NULL},
		{"01.01.2024 10:00", NULL},
		{"-1.01.2024", NULL},
		{".01.2024", NULL},
		{"01..2024", NULL},
		{"", NULL},
		{"today", NULL},
		{0},
	};
	static const Case american[] = {
		{"02/01/2024", "2024-02-01"},
		{"31/01/2024", ""},
		{"2/1/2024", "2024-02-01"},
		{0},
	};
	static const Case compact[] = {
		{"20240229", "2024-02-29"},
		{"2024229", NULL},
		{"20230229", ""},
		{"202402290", NULL},
		{"2024-02-29", NULL},
		{0},
	};
	static const Case minutes[] = {
		{"1.2.2024 7:05", "2024-02-01 07:05:00"},
		{"01.02.2024 23:59", "2024-02-01 23:59:00"},
		{"01.02.2024 24:00", ""},
		{"01.02.2024 12:60", ""},
		{"01.02.2024", NULL},
		{"01.02.2024 12:5", NULL},
		{"01.02.2024 12:05:00", NULL},
		{"01.02.2024T12:05", NULL},
		{0},
	};
	static const Case optional_seconds[] = {
		{"2024-02-01T12:05", "2024-02-01 12:05:00"},
		{"2024-02-01T12:05:09", "2024-02-01 12:05:09"},
		{"2024-02-01T12:05:60", ""},
		{"2024-02-01T12:05:", NULL},
		{"2024-02-01T12:05:09Z", NULL},
		{0},
	};
	static const Case seconds[] = {
		{"01022024 01:02:03", "2024-02-01 01:02:03"},
		{"01022024 01:02", NULL},
		{0},
	};

	check_date("DD.MM.YYYY", dotted);
	check_date("MM/DD/YYYY", american);
	check_date("YYYYMMDD", compact);
	check_date("DD.MM.YYYY HH24:MI", minutes);
	check_date("YYYY-MM-DDTHH24:MI[:SS]", optional_seconds);
	check_date("DDMMYYYY HH24:MI:SS", seconds);
}

/* Every day of two thousand and five hundred years, and the one after each month. */
static void
test_calendar(void)
{
	CellFormat format;
	int        year = 1;
	int        month = 1;
	int        day = 1;
	int        to_leap = 3; /* years until the next that can be divided by 4 */
	long       n = 0;
	long       wrong = 0;
	char       cell[64];
	char       expected[64];
	char       out[CELL_FORMAT_SIZE(64)];

	CHECK(cell_format_parse_date("DD/MM/YYYY", &format));
	while (year <= 2500)
	{
		bool leap = to_leap == 0 && (year % 100 != 0 || year == 400 || year == 800 || year == 1200 || year == 1600 ||
									 year == 2000 || year == 2400);
		bool last;

		snprintf(cell, sizeof(cell), "%02d/%02d/%04d", day, month, year);
		snprintf(expected, sizeof(expected), "%04d-%02d-%02d", year, month, day);
		wrong += cell_format_apply(&format, cell, strlen(cell), out) != CELL_FORMAT_OK || strcmp(out, expected) != 0;
		n++;
		if (month == 2)
			last = day == (leap ? 29 : 28);
		else if (month == 4 || month == 6 || month == 9 || month == 11)
			last = day == 30;
		else
			last = day == 31;
		if (!last)
		{
			day++;
			continue;
		}
		snprintf(cell, sizeof(cell), "%02d/%02d/%04d", day + 1, month, year);
		wrong += cell_format_apply(&format, cell, strlen(cell), out) != CELL_FORMAT_NO_DATE;
		day = 1;
		if (++month > 12)
		{
			month = 1;
			year++;
			to_leap = to_leap == 0 ? 3 : to_leap - 1;
		}
	}
	CHECK_INT(wrong, 0);
	CHECK_INT(n, 913106); /* days from 0001-01-01 to 2500-12-31 */
}

static void
check_number(const char *decimal, const char *grouping, const Case *cases)
{
	CellFormat format;

	if (!CHECK(cell_format_parse_number(decimal, grouping, &format)))
		return;
	for (; cases->cell != NULL; cases++)
		check_cell(&format, cases->cell, cases->result);
}

static void
test_numbers(void)
{
	static const Case german[] = {
		{"1.234,56", "1234.56"},
		{"1234,56", "1234.56"},
		{"1.234.567", "1234567"},
		{"-1.234,5", "-1234.5"},
		{"+12", "+12"},
		{"0,5", "0.5"},
		{",5", ".5"},
		{"0", "0"},
		{"007", "007"},
		{"1,5E+03", "1.5E+03"},
		{"1e3", "1e3"},
		{"123.456", "123456"},
		{"0.123", NULL},
		{"5,", NULL},
		{"1.23", NULL},
		{"1.2345", NULL},
		{"1234.567", NULL},
		{"12.34.567", NULL},
		{"1..234", NULL},
		{".234", NULL},
		{"1.234.", NULL},
		{"1,234,567", NULL},
		{"1,234.567", NULL},
		{"1.234,567.8", NULL},
		{"1 234", NULL},
		{"", NULL},
		{"-", NULL},
		{",", NULL},
		{"--1", NULL},
		{"1-", NULL},
		{" 1", NULL},
		{"1 ", NULL},
		{"1e", NULL},
		{"e5", NULL},
		{"1e1,5", NULL},
		{"NaN", NULL},
		{"12 EUR", NULL},
		{"\xE2\x82\xAC"
		 "12",
		 NULL},
		{0},
	};
	static const Case no_grouping[] = {
		{"1234,5", "1234.5"},
		{"1.234", NULL},
		{"1.234,5", NULL},
		{0},
	};
	static const Case english[] = {
		{"1,234.5", "1234.5"},
		{"1.5", "1.5"},
		{"1.234,5", NULL},
		{0},
	};
	static const Case blanks[] = {
		{"1 234 567,8", "1234567.8"},
		{"1\xC2\xA0"
		 "234,8",
		 "1234.8"},
		{"1\xE2\x80\xAF"
		 "234\xE2\x80\xAF"
		 "567",
		 "1234567"},
		{"1 234\xC2\xA0"
		 "567",
		 NULL},
		{"1  234", NULL},
		{"1\xC2", NULL},
		{0},
	};
	static const Case swiss[] = {
		{"1'234.5", "1234.5"},
		{"1\xE2\x80\x99"
		 "234",
		 "1234"},
		{"1'234'5", NULL},
		{0},
	};

	check_number(",", ".", german);
	check_number(",", NULL, no_grouping);
	check_number(".", ",", english);
	check_number(",", " ", blanks);
	check_number(".", "'", swiss);
}

/* Numbers written with grouping here; then with one sign moved, which none may pass. */
static void
test_random_numbers(void)
{
	uint64_t   state = 17;
	CellFormat format;

	CHECK(cell_format_parse_number(",", ".", &format));
	for (int round = 0; round < 20000; round++)
	{
		char     digits[32];
		char     cell[64];
		char     out[CELL_FORMAT_SIZE(64)];
		size_t   n;
		size_t   length = 0;
		uint64_t number = unit_random_magnitude(&state, 60) + 1000;
		char    *sign;

		snprintf(digits, sizeof(digits), "%" PRIu64, number);
		n = strlen(digits);
		for (size_t i = 0; i < n; i++)
		{
			if (i > 0 && (n - i) % 3 == 0)
				cell[length++] = '.';
			cell[length++] = digits[i];
		}
		cell[length] = '\0';
		CHECK(cell_format_apply(&format, cell, length, out) == CELL_FORMAT_OK && strcmp(out, digits) == 0);

		sign = strrchr(cell, '.');
		sign[0] = sign[1];
		sign[1] = '.';
		CHECK(cell_format_apply(&format, cell, length, out) == CELL_FORMAT_MISFIT);
	}
}

static void
test_booleans(void)
{
	CellFormat format = {.kind = CELL_FORMAT_BOOLEAN};

	for (int i = 0; cell_format_true[i] != NULL; i++)
		check_cell(&format, cell_format_true[i], "true");
	for (int i = 0; cell_format_false[i] != NULL; i++)
		check_cell(&format, cell_format_false[i], "false");
	check_cell(&format, "JA", "true");
	check_cell(&format, "Nein", "false");
	check_cell(&format, "X", "true");
	check_cell(&format, "tr", NULL);
	check_cell(&format, "yess", NULL);
	check_cell(&format, " yes", NULL);
	check_cell(&format, "", NULL);
	check_cell(&format, "2", NULL);
	check_cell(&format, "o", NULL);
	CHECK_INT(cell_format_apply(&format, "yes\0", 4, (char[64]){0}), CELL_FORMAT_MISFIT);
}

int
main(void)
{
	CellFormat none = {0};

	test_patterns();
	test_dates();
	test_calendar();
	test_numbers();
	test_random_numbers();
	test_booleans();
	check_cell(&none, "as it is", "as it is");
	return unit_report();
}
