/*
 * target_formats.h
 *		The format in which a file writes the values of a column.
 */
#ifndef BULK_ACTION_TARGET_FORMATS_H
#define BULK_ACTION_TARGET_FORMATS_H

#include "postgres.h"

#include "stage/target.h"

/* Decides the column's format; an error (42804) if it is of another type. */
extern void target_choose_format(TargetColumn *column, const ActionOptions *options, const ColumnRule *rule);

/* A cell of a column that has a format, as its input function takes it; errors if it does not fit. */
extern char *target_normalise(const TargetColumn *column, const char *cell);

#endif /* BULK_ACTION_TARGET_FORMATS_H */
