/*
 * options.h
 *		The options of an action: the JSON object given to submit.
 */
#ifndef BULK_ACTION_OPTIONS_H
#define BULK_ACTION_OPTIONS_H

#include "postgres.h"

#include "utils/jsonb.h"

#include "pure/error_budget.h"

/* What becomes of rows of a file that have the same key. */
typedef enum DuplicatesMode
{
	DUPLICATES_ALL, /* each is applied, in the order of the file */
	DUPLICATES_LAST,
	DUPLICATES_FIRST,
	DUPLICATES_ERROR /* all of them fail */
} DuplicatesMode;

typedef enum RowOrder
{
	ORDER_KEY, /* rows with the same key in the order of the file */
	ORDER_FILE /* all rows */
} RowOrder;

/* Rows that may fail unless the option says something else; it bounds the table of errors. */
#define MAX_ERRORS_DEFAULT 1000000

#define PRIORITY_MIN (-100)
#define PRIORITY_MAX 100

typedef struct ActionOptions
{
	char          *server; /* name of a server of bulk_action_s3; NULL: find it by the bucket */
	DuplicatesMode duplicates;
	RowOrder       order;
	int            priority; /* between streams, the greater first */
	ErrorBudget    max_errors;
} ActionOptions;

/*
 * Reads the options; errors (22023) for what is not an object, for keys that
 * do not exist and for values of the wrong type.  Strings are palloc'd.
 */
extern void options_parse(Jsonb *json, ActionOptions *options);

#endif /* BULK_ACTION_OPTIONS_H */
