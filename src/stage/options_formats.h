/*
 * options_formats.h
 *		How a file writes its dates, numbers and truth values.
 */
#ifndef BULK_ACTION_OPTIONS_FORMATS_H
#define BULK_ACTION_OPTIONS_FORMATS_H

#include "postgres.h"

#include "utils/jsonb.h"

#include "stage/options.h"

typedef enum BooleanWords
{
	BOOLEAN_NOT_SAID,
	BOOLEAN_STRICT,
	BOOLEAN_LENIENT
} BooleanWords;

/* What an object of the options says of formats, key by key. */
typedef struct FormatWords
{
	char        *date; /* a pattern; NULL: not said, likewise below */
	char        *decimal;
	char        *grouping;
	BooleanWords boolean;
} FormatWords;

/* The value of "format", "date" or "timestamp". */
extern char *options_read_pattern(const char *what, const JsonbValue *value);

/* "decimal", "grouping", "boolean"; false: the key is another one. */
extern bool options_read_format_key(FormatWords *words, const char *what, const char *key, const JsonbValue *value);

/* The format of one column; errors (22023) if it has two of different kinds. */
extern void options_make_format(const char *what, const FormatWords *words, ColumnFormat *format);

/* Reads option formats. */
extern void options_read_formats(const char *name, const JsonbValue *value, ActionOptions *options);

#endif /* BULK_ACTION_OPTIONS_FORMATS_H */
