/*
 * table_columns.h
 *		Looks at the columns of a target table, as register and submit do.
 */
#ifndef BULK_ACTION_TABLE_COLUMNS_H
#define BULK_ACTION_TABLE_COLUMNS_H

#include "postgres.h"

#include "access/attnum.h"

typedef struct TableColumn
{
	AttrNumber  number;
	NameData    name;
	const char *why_fixed; /* why no UPDATE can set it; NULL: it can */
} TableColumn;

/* Columns, dropped ones included; 0 if the table is gone. */
extern int table_column_count(Oid table);

/* By number, from 1; false for a dropped column. */
extern bool table_column_at(Oid table, AttrNumber number, TableColumn *column);

/* By name; false if there is none. */
extern bool table_column_named(Oid table, const char *name, TableColumn *column);

/* The column whose name is nearest, palloc'd; NULL if none is near. */
extern char *table_column_near(Oid table, const char *name);

/* Texts of a one-dimensional array of type name[] or text[] without nulls. */
extern char **column_list_read(Datum array, Oid element_type, int *count);

#endif /* BULK_ACTION_TABLE_COLUMNS_H */
