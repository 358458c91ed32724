/*
 * error_budget.c
 *	  How many rows of an action may fail before it is given up.
 */
#include "pure/error_budget.h"

#include <stddef.h>

#define ALL      1000000 /* 100% in millionths */
#define PERCENT  (ALL / 100)
#define DECIMALS 4 /* what is left of a millionth of 1 is 0.0001% */

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

bool
error_budget_parse_share(const char *text, ErrorBudget *budget)
{
	int32_t millionths = 0;
	int32_t unit = PERCENT;

	if (text == NULL || !is_digit(*text))
		return false;
	for (; is_digit(*text); text++)
	{
		millionths = millionths * 10 + (*text - '0') * PERCENT;
		if (millionths > ALL)
			return false;
	}
	if (*text == '.')
	{
		text++;
		if (!is_digit(*text))
			return false;
		for (int i = 0; is_digit(*text); text++, i++)
		{
			if (i == DECIMALS)
				return false;
			unit /= 10;
			millionths += (*text - '0') * unit;
		}
	}
	if (text[0] != '%' || text[1] != '\0' || millionths > ALL)
		return false;
	budget->is_share = true;
	budget->rows = 0;
	budget->millionths = millionths;
	return true;
}

/* Whole numbers, so up to nine billion rows this is exact. */
static bool
above(int64_t failed, int64_t tried, const ErrorBudget *budget)
{
	return (double) failed * ALL > (double) tried * budget->millionths;
}

bool
error_budget_exceeded(const ErrorBudget *budget, const FailureCounts *counts, bool at_end)
{
	int64_t records = counts->read - counts->unreadable;
	int64_t unreadable = counts->unreadable;

	if (!budget->is_share)
		return unreadable + counts->applied_failed > budget->rows;

	/* However the rows fare that are applied, they can add to the share of these only. */
	if ((at_end || counts->read >= ERROR_BUDGET_MIN_TRIED) && above(unreadable, counts->read, budget))
		return true;
	if (!at_end && counts->applied < ERROR_BUDGET_MIN_TRIED)
		return false;
	if (!at_end && records > 0)
		unreadable = (int64_t) ((double) unreadable * (double) counts->applied / (double) records);
	return above(unreadable + counts->applied_failed, unreadable + counts->applied, budget);
}
