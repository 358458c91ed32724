/*
 * target_columns.h
 *		Which field of a file goes to which column of the target.
 */
#ifndef BULK_ACTION_TARGET_COLUMNS_H
#define BULK_ACTION_TARGET_COLUMNS_H

#include "postgres.h"

#include "utils/rel.h"

#include "stage/target.h"

/* Position among the key columns; -1: it is none. */
extern int target_key_position(const Action *action, const char *name);

/* Matches the header with the table's columns; errors for what does not match. */
extern void target_map_header(const Action *action, Target *target, Relation rel, const CsvField *header);

#endif /* BULK_ACTION_TARGET_COLUMNS_H */
