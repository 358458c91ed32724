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
	STATEMENT_UPDATE,       /* rows that are there, and whose values differ if unchanged ones are skipped */
	STATEMENT_DELETE,       /* rows that are there and match */
	STATEMENT_DIFFERS,      /* rows whose key is in the table, but that do not match: their numbers */
	STATEMENT_INSERT,       /* all rows */
	STATEMENT_INSERT_ABSENT /* those whose key is not there */
} StatementKind;

#define STATEMENT_KINDS 6

/*
 * The fields whose values a statement takes as arrays, one parameter each, for
 * rows that set these fields; returns how many.  One more parameter follows
 * them, an array of int4, if statement_numbers_rows().
 */
extern int statement_fields(const Target *target, StatementKind kind, const bool *set, int *fields);

/* Whether it returns the numbers of the rows that it found. */
extern bool statement_numbers_rows(const Target *target, StatementKind kind);

/* The statement for these n fields; palloc'd. */
extern char *statement_build(const Target *target, StatementKind kind, const int *fields, int n);

#endif /* BULK_ACTION_STATEMENTS_H */
