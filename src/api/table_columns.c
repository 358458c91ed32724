/*
 * table_columns.c
 *		Looks at the columns of a target table, as register and submit do.
 *
 * Everything comes from the system caches, without a lock: submit must not
 * wait behind an ALTER TABLE, and what changes after it looked is found when
 * the action runs.  So each function copes with a table that is just gone.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "api/table_columns.h"
#include "base/compat.h"
#include "service/near_match.h"

static void
column_describe(Form_pg_attribute attribute, TableColumn *column)
{
	column->number = attribute->attnum;
	column->name = attribute->attname;
	if (attribute->attnum < 0)
		column->why_fixed = "it is a system column";
	else if (attribute->attgenerated != '\0')
		column->why_fixed = "it is a generated column";
	else if (attribute->attidentity == ATTRIBUTE_IDENTITY_ALWAYS)
		column->why_fixed = "it is an identity column defined as GENERATED ALWAYS";
	else
		column->why_fixed = NULL;
}

int
table_column_count(Oid table)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	int       count;

	if (!HeapTupleIsValid(tuple))
		return 0;
	count = ((Form_pg_class) GETSTRUCT(tuple))->relnatts;
	ReleaseSysCache(tuple);
	return count;
}

bool
table_column_at(Oid table, AttrNumber number, TableColumn *column)
{
	HeapTuple tuple =
		SearchSysCache2(ATTNUM, ObjectIdGetDatum(table), Int16GetDatum(number));
	bool found = false;

	if (!HeapTupleIsValid(tuple))
		return false;
	if (!((Form_pg_attribute) GETSTRUCT(tuple))->attisdropped)
	{
		column_describe((Form_pg_attribute) GETSTRUCT(tuple), column);
		found = true;
	}
	ReleaseSysCache(tuple);
	return found;
}

bool
table_column_named(Oid table, const char *name, TableColumn *column)
{
	HeapTuple tuple = SearchSysCacheAttName(table, name);

	if (!HeapTupleIsValid(tuple))
		return false;
	column_describe((Form_pg_attribute) GETSTRUCT(tuple), column);
	ReleaseSysCache(tuple);
	return true;
}

char *
table_column_near(Oid table, const char *name)
{
	int       count = table_column_count(table);
	NearMatch match;

	near_match_start(&match, name);
	for (AttrNumber number = 1; number <= count; number++)
	{
		TableColumn column;

		if (table_column_at(table, number, &column))
			near_match_offer(&match, pstrdup(NameStr(column.name)));
	}
	return (char *) match.best;
}

char **
column_list_read(Datum array, Oid element_type, int *count)
{
	ArrayType *list = DatumGetArrayTypeP(array);
	Datum     *elements;
	bool      *nulls;
	char     **names;
	int        n;

	Assert(element_type == TEXTOID || element_type == NAMEOID);
	if (ARR_NDIM(list) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("list of columns must be an array of one dimension"),
				 errdetail("It has %d dimensions.", ARR_NDIM(list)),
				 errhint("Write it like ARRAY['first', 'second'].")));

	if (element_type == TEXTOID)
		deconstruct_array(list, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	else
		deconstruct_array(list, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR, &elements, &nulls, &n);

	names = palloc(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("list of columns must not contain nulls"),
					 errdetail("Element %d is null.", i + 1),
					 errhint("Write it like ARRAY['first', 'second'].")));
		names[i] = element_type == TEXTOID ?
					   TextDatumGetCString(elements[i]) :
					   pstrdup(NameStr(*DatumGetName(elements[i])));
	}
	*count = n;
	return names;
}
