/*
 * test_error_budget.c
 *	  Shares as text, and where the border is of what may fail.
 */
#include "pure/error_budget.h"
#include "unit.h"

static void
test_shares(void)
{
	static const struct
	{
		const char *text;
		int         millionths; /* -1: no share */
	} cases[] = {
		{"0%", 0},
		{"5%", 50000},
		{"0.5%", 5000},
		{"00.5%", 5000},
		{"12.25%", 122500},
		{"0.0001%", 1},
		{"99.9999%", 999999},
		{"100%", 1000000},
		{"100.0000%", 1000000},
		{"100.0001%", -1},
		{"101%", -1},
		{"99999999999999999999%", -1},
		{"0.00001%", -1},
		{"", -1},
		{"%", -1},
		{"5", -1},
		{"5 %", -1},
		{" 5%", -1},
		{"5% ", -1},
		{"5%%", -1},
		{".5%", -1},
		{"5.%", -1},
		{"-5%", -1},
		{"+5%", -1},
		{"1e1%", -1},
		{"five%", -1},
		{NULL, -1},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		ErrorBudget budget = {.millionths = -1};
		bool        ok = error_budget_parse_share(cases[i].text, &budget);

		if (!CHECK(ok == (cases[i].millionths >= 0) && budget.millionths == cases[i].millionths))
			printf("  %s\n", cases[i].text ? cases[i].text : "NULL");
	}
}

static bool
exceeded(ErrorBudget budget, int64_t read, int64_t unreadable, int64_t applied, int64_t failed, bool at_end)
{
	FailureCounts counts = {
		.read = read, .unreadable = unreadable, .applied = applied, .applied_failed = failed};

	return error_budget_exceeded(&budget, &counts, at_end);
}

static ErrorBudget
share(const char *text)
{
	ErrorBudget budget = {0};

	CHECK(error_budget_parse_share(text, &budget));
	return budget;
}

static void
test_rows(void)
{
	ErrorBudget none = {.rows = 0};
	ErrorBudget ten = {.rows = 10};

	CHECK(!exceeded(none, 0, 0, 0, 0, true));
	CHECK(!exceeded(none, 5, 0, 5, 0, true));
	CHECK(exceeded(none, 5, 0, 1, 1, false));
	CHECK(exceeded(none, 5, 1, 0, 0, false));
	for (int at_end = 0; at_end < 2; at_end++)
	{
		CHECK(!exceeded(ten, 50, 4, 46, 6, at_end));
		CHECK(exceeded(ten, 50, 4, 46, 7, at_end));
		CHECK(exceeded(ten, 50, 5, 45, 6, at_end));
	}
}

static void
test_share_of_applied(void)
{
	/* not judged before the thousandth row, but at the end */
	CHECK(!exceeded(share("5%"), 5000, 0, 999, 999, false));
	CHECK(exceeded(share("5%"), 999, 0, 999, 50, true));
	CHECK(!exceeded(share("5%"), 1000, 0, 1000, 50, false));
	CHECK(exceeded(share("5%"), 1000, 0, 1000, 51, false));
	CHECK(!exceeded(share("5%"), 1000, 0, 1000, 50, true));
	CHECK(exceeded(share("5%"), 1000, 0, 1000, 51, true));
	CHECK(!exceeded(share("5%"), 20, 0, 20, 1, true));
	CHECK(exceeded(share("5%"), 19, 0, 19, 1, true));

	CHECK(!exceeded(share("0%"), 5000, 0, 5000, 0, true));
	CHECK(exceeded(share("0%"), 5000, 0, 5000, 1, true));
	CHECK(!exceeded(share("100%"), 5000, 0, 5000, 5000, true));
	CHECK(!exceeded(share("0%"), 0, 0, 0, 0, true));

	/* exact with many rows too */
	CHECK(!exceeded(share("0.0001%"), 3000000000, 0, 3000000000, 3000, true));
	CHECK(exceeded(share("0.0001%"), 3000000000, 0, 3000000000, 3001, true));
	CHECK(exceeded(share("0.0001%"), 2999999999, 0, 2999999999, 3000, true));
}

static void
test_share_of_unreadable(void)
{
	/* read ahead: 5% of the file, not all of the first rows that are done */
	CHECK(!exceeded(share("5%"), 100000, 5000, 0, 0, false));
	CHECK(!exceeded(share("5%"), 100000, 5000, 1000, 0, false));
	CHECK(!exceeded(share("5%"), 100000, 5000, 95000, 0, true));
	CHECK(exceeded(share("5%"), 100000, 5001, 0, 0, false));
	CHECK(exceeded(share("5%"), 100000, 5001, 1000, 0, false));
	CHECK(exceeded(share("5%"), 100000, 5001, 94999, 0, true));
	CHECK(!exceeded(share("5%"), 999, 999, 0, 0, false));
	CHECK(exceeded(share("5%"), 1000, 1000, 0, 0, false));
	CHECK(exceeded(share("5%"), 999, 999, 0, 0, true));
	CHECK(!exceeded(share("100%"), 2000, 2000, 0, 0, true));

	/* both together: half of 2% unreadable, 1% of the rest */
	CHECK(!exceeded(share("3%"), 100000, 2000, 9800, 98, false));
	CHECK(!exceeded(share("3%"), 100000, 2000, 98000, 1000, true));
	CHECK(exceeded(share("3%"), 100000, 2000, 98000, 1001, true));
	CHECK(exceeded(share("2.9%"), 100000, 2000, 9800, 98, false));
}

/* Once everything has been tried, it makes no difference whether that is known to be the end. */
static void
test_end(void)
{
	uint64_t seed = 11;

	for (int i = 0; i < 20000; i++)
	{
		int64_t     unreadable = (int64_t) unit_random_below(&seed, 3000);
		int64_t     applied = ERROR_BUDGET_MIN_TRIED + (int64_t) unit_random_below(&seed, 3000);
		int64_t     failed = (int64_t) unit_random_below(&seed, (uint32_t) applied + 1);
		int64_t     read = unreadable + applied;
		ErrorBudget budget = {.is_share = true};

		budget.millionths = (int32_t) ((failed + unreadable) * 1000000 / read);
		budget.millionths += (int32_t) unit_random_below(&seed, 3) - 1;
		if (budget.millionths < 0)
			continue;
		CHECK_INT(exceeded(budget, read, unreadable, applied, failed, false),
				  exceeded(budget, read, unreadable, applied, failed, true));
		CHECK_INT(exceeded(budget, read, unreadable, applied, failed, true),
				  (failed + unreadable) * 1000000 > budget.millionths * read);
	}
}

int
main(void)
{
	test_shares();
	test_rows();
	test_share_of_applied();
	test_share_of_unreadable();
	test_end();
	return unit_report();
}
