/*
 * options.h
 *		The options of an action: the JSON object given to submit.
 */
#ifndef BULK_ACTION_OPTIONS_H
#define BULK_ACTION_OPTIONS_H

#include "postgres.h"

#include "utils/jsonb.h"

#include "pure/cell_format.h"
#include "pure/dialect.h"
#include "pure/error_budget.h"
#include "stage/action_type.h"

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

/* What an empty cell, unquoted, means. */
typedef enum EmptyCell
{
	EMPTY_KEEP, /* the column is not set: it keeps its value, or gets its default in a new row */
	EMPTY_NULL,
	EMPTY_VALUE /* the empty string, which for most types is no value */
} EmptyCell;

/* What becomes of a row whose key is not in the table. */
typedef enum OnMissing
{
	MISSING_REPORT, /* counted as not_found */
	MISSING_INSERT,
	MISSING_ERROR
} OnMissing;

/* What becomes of a row that is to be inserted and whose key is in the table. */
typedef enum OnConflict
{
	CONFLICT_ERROR,
	CONFLICT_SKIP, /* counted as unchanged */
	CONFLICT_UPDATE
} OnConflict;

typedef enum UnknownColumns
{
	UNKNOWN_ERROR,
	UNKNOWN_IGNORE
} UnknownColumns;

/* When a column of a row that is in the table is set. */
typedef enum Overwrite
{
	OVERWRITE_ALWAYS,
	OVERWRITE_IF_EMPTY, /* if it is NULL, or the empty string */
	OVERWRITE_NEVER     /* only in new rows */
} Overwrite;

/* How a file writes the values of a column. */
typedef struct ColumnFormat
{
	CellFormat cell;      /* its kind is CELL_FORMAT_NONE where nothing is said */
	bool       own_rules; /* those of the type, whatever is said for all columns of it */
	char      *text;      /* for messages */
} ColumnFormat;

/* What option columns says of one column of the file. */
typedef struct ColumnRule
{
	char     *header; /* its name in the file */
	char     *column; /* of the table; NULL: the field is ignored */
	Overwrite overwrite;

	ColumnFormat format;
} ColumnRule;

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
	EmptyCell      empty;
	char          *null_token; /* a cell that is this is NULL; NULL: none is */
	OnMissing      on_missing;
	OnConflict     on_conflict;
	bool           rewrite_unchanged; /* option skip_unchanged is false */
	UnknownColumns unknown_columns;
	bool           fold_header; /* names of columns match regardless of case and blanks around them */
	bool           dry_run;
	int            ncolumns;
	ColumnRule    *columns;
	int            nnames;
	char         **names; /* columns of a file without a header; NULL: ignored */
	DialectOptions file;
	ColumnFormat   date_format; /* option formats, by the type of a column */
	ColumnFormat   timestamp_format;
	ColumnFormat   number_format;
	ColumnFormat   boolean_format;
	int            nmatch;
	char         **match; /* bulk_delete: columns that must have the value in the file */
	uint64         given; /* which options were given, a bit per rule (options.c) */
} ActionOptions;

/*
 * Reads the options; errors (22023) for what is not an object, for keys that
 * do not exist and for values of the wrong type.  Strings are palloc'd.
 */
extern void options_parse(Jsonb *json, ActionOptions *options);

/* What it comes to with these options: updating and inserting is an upsert, however it is called. */
extern ActionType options_effective_type(ActionType type, const ActionOptions *options);

/* Errors (22023) for options that do not go with the type, or with each other. */
extern void options_check(ActionType type, const ActionOptions *options);

#endif /* BULK_ACTION_OPTIONS_H */
