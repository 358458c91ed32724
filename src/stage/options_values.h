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

/* A value that is a string, palloc'd. */
extern char *options_string(const JsonbValue *value);

/* Errors (22023): a value of another type; one that does not go with another option. */
extern void options_wrong_value(const char *what, const JsonbValue *value, const char *right) pg_attribute_noreturn();
extern void options_contradict(const char *message, const char *detail, const char *hint) pg_attribute_noreturn();

/* The index of value in the words, which end with NULL; errors (22023) with the nearest one as hint. */
extern int options_find_word(const char *what, const char *const *words, const char *value);

/* Readers of an option each; errors (22023). */
extern void options_read_columns(const char *name, const JsonbValue *value, ActionOptions *options);
extern void options_read_match(const char *name, const JsonbValue *value, ActionOptions *options);

#endif /* BULK_ACTION_OPTIONS_VALUES_H */
