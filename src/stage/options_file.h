/*
 * options_file.h
 *		Options that say how the file is written.
 */
#ifndef BULK_ACTION_OPTIONS_FILE_H
#define BULK_ACTION_OPTIONS_FILE_H

#include "postgres.h"

#include "stage/options.h"

/* Readers of an option each; errors (22023). */
extern void options_read_delimiter(const char *name, const JsonbValue *value, ActionOptions *options);
extern void options_read_quote(const char *name, const JsonbValue *value, ActionOptions *options);
extern void options_read_comment(const char *name, const JsonbValue *value, ActionOptions *options);
extern void options_read_header(const char *name, const JsonbValue *value, ActionOptions *options);
extern void options_read_ragged(const char *name, const JsonbValue *value, ActionOptions *options);
extern void options_read_encoding(const char *name, const JsonbValue *value, ActionOptions *options);

/* Errors (22023) for those that do not go with each other. */
extern void options_check_file(const ActionOptions *options);

#endif /* BULK_ACTION_OPTIONS_FILE_H */
