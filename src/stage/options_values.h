/*
 * options_values.h
 *		Values of options that are more than a word or a number.
 */
#ifndef BULK_ACTION_OPTIONS_VALUES_H
#define BULK_ACTION_OPTIONS_VALUES_H

#include "postgres.h"

#include "stage/options.h"

/* "a string", "a number" ... */
extern const char *options_type_name(enum jbvType type);

/* The index of value in the words, which end with NULL; errors (22023) with the nearest one as hint. */
extern int options_find_word(const char *what, const char *const *words, const char *value);

/* Readers of an option each; errors (22023). */
extern void options_read_columns(const char *name, const JsonbValue *value, ActionOptions *options);
extern void options_read_match(const char *name, const JsonbValue *value, ActionOptions *options);

#endif /* BULK_ACTION_OPTIONS_VALUES_H */
