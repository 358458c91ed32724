/*
 * statements.h
 *		The text of the set-wise statements that apply rows.
 */
#ifndef BULK_ACTION_STATEMENTS_H
#define BULK_ACTION_STATEMENTS_H

#include "postgres.h"

#include "stage/target.h"

typedef enum StatementKind
{
	STATEMENT_FIND,         /* rows whose key is in the table: their numbers */
	STATEMENT_SAME,         /* rows that are there and have these values already: their numbers */
	STATEMENT_UPDATE,       /* rows that are there, and whose values differ if unchanged ones are skipped */
	STATEMENT_DELETE,       /* rows that are there and match */
	STATEMENT_DIFFERS,      /* rows whose key is in the table, but that do not match: their numbers */
	STATEMENT_INSERT,       /* all rows */
	STATEMENT_INSERT_ABSENT /* those whose key is not there */
} StatementKind;

#define STATEMENT_KINDS 7

/*
 * The relation that the rows are in: n, their number, then v1, v2, ..., which
 * TargetColumn.place numbers.
 */
#define STATEMENT_ROWS "bulk_action_rows"

/* The fields that a statement needs of rows that set these; returns how many. */
extern int statement_fields(const Target *target, StatementKind kind, const bool *set, int *fields);

/* Whether it returns the numbers of the rows that it found. */
extern bool statement_numbers_rows(const Target *target, StatementKind kind);

/*
 * Whether STATEMENT_SAME can be asked, for these n fields of STATEMENT_UPDATE, which rows need not be
 * updated: if that is wanted and the columns can be compared.
 */
extern bool statement_can_compare(const Target *target, const int *fields, int n);

/* The statement for these n fields; palloc'd. */
extern char *statement_build(const Target *target, StatementKind kind, const int *fields, int n);

#endif /* BULK_ACTION_STATEMENTS_H */
