/*
 * error_budget.h
 *	  How many rows of an action may fail before it is given up.
 */
#ifndef BULK_ACTION_ERROR_BUDGET_H
#define BULK_ACTION_ERROR_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

/* A number of rows, or a share of the rows tried. */
typedef struct ErrorBudget
{
	bool    is_share;
	int64_t rows;       /* unless is_share */
	int32_t millionths; /* of the rows tried; 1000000: all of them */
} ErrorBudget;

/* A share is judged once this many rows have been tried, and at the end. */
#define ERROR_BUDGET_MIN_TRIED 1000

/* What is known of an action's rows. */
typedef struct FailureCounts
{
	int64_t read;           /* from the file; those that are no records included */
	int64_t unreadable;     /* of these, those that are no records: failed before they are applied */
	int64_t applied;        /* rows that have been tried, whatever came of it */
	int64_t applied_failed; /* of these, those that failed */
} FailureCounts;

/*
 * Reads a share like "5%" or "0.25%": digits, up to four of them behind a
 * point, a percent sign, nothing else; from 0% to 100%.  False if it is not
 * such a text.
 */
extern bool error_budget_parse_share(const char *text, ErrorBudget *budget);

/*
 * True if more rows failed than the budget allows.  A file is read ahead of the
 * rows that are applied; so that the share of its unreadable rows is not taken
 * of too few rows, only as many of them count as belong to the part of the
 * rows that has been tried.  At the end that is all of them.
 */
extern bool error_budget_exceeded(const ErrorBudget *budget, const FailureCounts *counts, bool at_end);

#endif /* BULK_ACTION_ERROR_BUDGET_H */
