/*
 * entity.c
 *		bulk_action_register_entity and bulk_action_unregister_entity.
 *
 * Registering says which table is meant by an entity type, how a row is found
 * in it, and what a file may set.  It gives nobody a privilege: every row is
 * applied with those of whoever submitted the action.  But it decides what
 * table other people's files go to, so only the owner of a table may register
 * it, and only the owner of the table that a type stands for at present may
 * point the type elsewhere.
 *
 * The key must be backed by a unique index that holds for every row at every
 * moment: with a partial, deferrable or invalid one, two rows might answer to
 * one key, and the result of an action would depend on chance.
 *
 * Two sessions may register one type at the same time.  The row is locked
 * before its owner is judged, and an insert that meets another's row begins
 * anew, so that no table is replaced by someone who does not own it.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "api/entity_type.h"
#include "api/table_columns.h"
#include "base/compat.h"
#include "pure/error_report.h"
#include "service/bookkeeping.h"
#include "service/clean_text.h"
#include "stage/permission.h"

BULK_ACTION_FUNCTION(bulk_action_register_entity);
BULK_ACTION_FUNCTION(bulk_action_unregister_entity);

static Statement entity_lock = {
	.sql = "SELECT target FROM bulk_action_internal.entities WHERE entity_type = $1 FOR UPDATE",
	.argtypes = {TEXTOID, InvalidOid},
};

static Statement entity_insert = {
	.sql = "INSERT INTO bulk_action_internal.entities"
		   " (entity_type, target, target_schema, target_name, key_columns, update_columns)"
		   " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (entity_type) DO NOTHING",
	.argtypes = {TEXTOID, REGCLASSOID, NAMEOID, NAMEOID, NAMEARRAYOID, NAMEARRAYOID, InvalidOid},
};

static Statement entity_update = {
	.sql = "UPDATE bulk_action_internal.entities"
		   " SET target = $2, target_schema = $3, target_name = $4, key_columns = $5,"
		   " update_columns = $6, registered_at = pg_catalog.now()"
		   " WHERE entity_type = $1",
	.argtypes = {TEXTOID, REGCLASSOID, NAMEOID, NAMEOID, NAMEARRAYOID, NAMEARRAYOID, InvalidOid},
};

static Statement entity_delete = {
	.sql = "DELETE FROM bulk_action_internal.entities WHERE entity_type = $1",
	.argtypes = {TEXTOID, InvalidOid},
};

static void
check_present(FunctionCallInfo fcinfo, int argument, const char *name)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name),
				 errdetail("An entity type, a target table and its key columns are all needed."),
				 errhint("Call bulk_action_register_entity('contact', 'public.contacts', "
						 "ARRAY['id']).")));
}

/* What kind of relation it is, where that kind cannot be a target. */
static const char *
kind_refused(char relkind)
{
	switch (relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
			return NULL;
		case RELKIND_VIEW:
			return "It is a view.";
		case RELKIND_MATVIEW:
			return "It is a materialized view.";
		case RELKIND_FOREIGN_TABLE:
			return "It is a foreign table.";
		case RELKIND_INDEX:
		case RELKIND_PARTITIONED_INDEX:
			return "It is an index.";
		case RELKIND_SEQUENCE:
			return "It is a sequence.";
		default:
			return "It is not a table.";
	}
}

static void
check_target(Relation target)
{
	Oid         relid = RelationGetRelid(target);
	const char *name = RelationGetRelationName(target);
	const char *refused = kind_refused(target->rd_rel->relkind);

	if (refused != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" cannot be a target", name),
				 errdetail("%s", refused), errhint("Register a table or a partitioned table.")));

	if (IsSystemRelation(target))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("\"%s\" cannot be a target", name),
				 errdetail("It is a system catalog."), errhint("Register a table of your own.")));

	if (getExtensionOfObject(RelationRelationId, relid) == get_extension_oid("bulk_action", false))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("\"%s\" cannot be a target", name),
				 errdetail("It belongs to the extension \"bulk_action\" itself."),
				 errhint("Register a table of your own.")));

	if (target->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" cannot be a target", name),
				 errdetail("It is a temporary table, which only this session can use."),
				 errhint("Register a permanent table.")));

	if (!relation_ownercheck(relid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("must be owner of table %s", name),
				 errdetail("Registering a table decides what other roles' files may set in it."),
				 errhint("Have the table's owner register it.")));
}

static void
column_missing(Relation target, const char *name)
{
	const char *near = table_column_near(RelationGetRelid(target), name);

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of relation \"%s\" does not exist", clean_text(name),
					RelationGetRelationName(target)),
			 errdetail("Names are compared as they are, upper and lower case included."),
			 near != NULL ?
				 errhint("Perhaps you meant \"%s\".", near) :
				 errhint("Name columns of the target table.")));
}

/* Looks each column up and returns their numbers; an error for what occurs twice. */
static Bitmapset *
columns_find(Relation target, char **names, int count, const char *what)
{
	Bitmapset *numbers = NULL;

	for (int i = 0; i < count; i++)
	{
		TableColumn column;

		if (!table_column_named(RelationGetRelid(target), names[i], &column))
			column_missing(target, names[i]);
		if (column.number < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					 errmsg("system column \"%s\" cannot be among the %s", names[i], what),
					 errdetail("System columns are maintained by the server."),
					 errhint("Name ordinary columns of the target table.")));
		if (error_report_is_column(names[i], strlen(names[i])))
			ereport(ERROR,
					(errcode(ERRCODE_RESERVED_NAME),
					 errmsg("column \"%s\" cannot be among the %s", names[i], what),
					 errdetail("In files a column of this name is one of an error report, and is ignored."),
					 errhint("Rename the column of the table.")));
		if (bms_is_member(column.number, numbers))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 errmsg("column \"%s\" occurs twice among the %s", names[i], what),
					 errdetail("Each column counts once."), errhint("Name it once.")));
		numbers = bms_add_member(numbers, column.number);
	}
	return numbers;
}

/* Whether the index's own columns, those of INCLUDE left aside, are exactly these. */
static bool
index_is_over(Relation index, Bitmapset *columns)
{
	Bitmapset *found = NULL;

	for (int i = 0; i < index->rd_index->indnkeyatts; i++)
	{
		AttrNumber number = index->rd_index->indkey.values[i];

		/* 0 stands for an expression */
		if (number <= 0)
			return false;
		found = bms_add_member(found, number);
	}
	return bms_equal(found, columns);
}

/* Whether it compares as the columns do themselves, which is how a statement compares. */
static bool
has_own_collations(Relation index, Relation target)
{
	for (int i = 0; i < index->rd_index->indnkeyatts; i++)
	{
		AttrNumber number = index->rd_index->indkey.values[i];

		if (index->rd_indcollation[i] !=
			TupleDescAttr(RelationGetDescr(target), number - 1)->attcollation)
			return false;
	}
	return true;
}

/* What keeps an index over the right columns from backing the key; NULL: nothing. */
static const char *
index_unfit(Relation index, Relation target)
{
	if (!index->rd_index->indisunique)
		return "is not unique";
	if (!index->rd_index->indisvalid || !index->rd_index->indisready || !index->rd_index->indislive)
		return "is not valid";
	if (index->rd_rel->relam != BTREE_AM_OID)
		return "is not a B-tree";
	if (!index->rd_index->indimmediate)
		return "belongs to a deferrable constraint";
	if (RelationGetIndexPredicate(index) != NIL)
		return "is partial";
	if (!has_own_collations(index, target))
		return "has another collation than its columns";
	return NULL;
}

static void
check_key_index(Relation target, char **names, int count, Bitmapset *columns)
{
	List          *indexes = RelationGetIndexList(target);
	StringInfoData nearly;
	StringInfoData key;
	ListCell      *cell;

	initStringInfo(&nearly);
	foreach(cell, indexes)
	{
		Relation    index = relation_open(lfirst_oid(cell), AccessShareLock);
		const char *unfit = NULL;
		bool        fits = false;

		if (index_is_over(index, columns))
		{
			unfit = index_unfit(index, target);
			fits = unfit == NULL;
		}
		if (unfit != NULL && nearly.len == 0)
			appendStringInfo(&nearly, "Index \"%s\" is over these columns, but it %s.",
							 RelationGetRelationName(index), unfit);
		relation_close(index, AccessShareLock);
		if (fits)
			return;
	}
	if (nearly.len == 0)
		appendStringInfoString(&nearly, "There is no index over exactly these columns.");

	initStringInfo(&key);
	for (int i = 0; i < count; i++)
		appendStringInfo(&key, "%s%s", i > 0 ? ", " : "", quote_identifier(names[i]));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
			 errmsg("no unique index of \"%s\" backs the key (%s)", RelationGetRelationName(target),
					key.data),
			 errdetail("%s", nearly.data),
			 errhint("A key needs a unique index that is valid, not partial, not deferrable and "
					 "without expressions: CREATE UNIQUE INDEX ON %s (%s).",
					 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(target)),
												RelationGetRelationName(target)),
					 key.data)));
}

static void
check_update_columns(Relation target, char **names, int count, Bitmapset *key)
{
	(void) columns_find(target, names, count, "update columns");
	for (int i = 0; i < count; i++)
	{
		TableColumn column;

		if (!table_column_named(RelationGetRelid(target), names[i], &column))
			column_missing(target, names[i]);
		if (bms_is_member(column.number, key))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					 errmsg("column \"%s\" cannot be updated", names[i]),
					 errdetail("It is part of the key, by which rows are found."),
					 errhint("Leave it out of the update columns.")));
		if (column.why_fixed != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					 errmsg("column \"%s\" cannot be updated", names[i]),
					 errdetail("Because %s.", column.why_fixed),
					 errhint("Leave it out of the update columns.")));
	}
}

/* For NULL as the list: at least one column must be left to set. */
static void
check_any_updatable(Relation target, Bitmapset *key)
{
	int count = table_column_count(RelationGetRelid(target));

	for (AttrNumber number = 1; number <= count; number++)
	{
		TableColumn column;

		if (table_column_at(RelationGetRelid(target), number, &column) &&
			column.why_fixed == NULL && !bms_is_member(number, key))
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
			 errmsg("table \"%s\" has no column to update", RelationGetRelationName(target)),
			 errdetail("Every column is part of the key, generated, or an identity column defined "
					   "as GENERATED ALWAYS."),
			 errhint("Choose a smaller key, or another table.")));
}

static void
check_count(int count, const char *what)
{
	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("there are no %s", what),
				 errdetail("The array is empty."),
				 errhint("Name at least one column; NULL as update columns stands for all that "
						 "can be updated.")));
}

static Datum
name_array(char **names, int count)
{
	Datum *elements = palloc(sizeof(Datum) * count);

	for (int i = 0; i < count; i++)
	{
		Name name = palloc0(sizeof(NameData));

		namestrcpy(name, names[i]);
		elements[i] = NameGetDatum(name);
	}
	return PointerGetDatum(
		construct_array(elements, count, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR));
}

/*
 * Locks the entity's row if there is one, and refuses whoever does not own the
 * table that it stands for at present.  A table that is gone has no owner any
 * more.
 */
static bool
entity_claim(const char *entity_type, Oid user, Oid *target)
{
	Datum values[1] = {CStringGetTextDatum(entity_type)};

	if (statement_run(&entity_lock, values, NULL) == 0)
		return false;
	*target = DatumGetObjectId(statement_value(0, 1, NULL));
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(*target)) &&
		!relation_ownercheck(*target, user))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for entity type \"%s\"", entity_type),
				 errdetail("It stands for a table that is not yours."),
				 errhint("Choose another entity type, or have the owner of that table unregister "
						 "it.")));
	return true;
}

static void
entity_store(const char *entity_type, Relation target, Datum key_columns, Datum update_columns,
			 bool all_updatable)
{
	Oid         user = GetUserId();
	Oid         relid = RelationGetRelid(target);
	Oid         standing;
	NameData    schema;
	NameData    name;
	Datum       values[6];
	char        nulls[7] = "      ";
	Bookkeeping bookkeeping;

	namestrcpy(&schema, get_namespace_name(RelationGetNamespace(target)));
	namestrcpy(&name, RelationGetRelationName(target));
	values[0] = CStringGetTextDatum(entity_type);
	values[1] = ObjectIdGetDatum(relid);
	values[2] = NameGetDatum(&schema);
	values[3] = NameGetDatum(&name);
	values[4] = key_columns;
	values[5] = update_columns;
	nulls[5] = all_updatable ? 'n' : ' ';

	SPI_connect();
	bookkeeping_enter(&bookkeeping);
	for (;;)
	{
		if (entity_claim(entity_type, user, &standing))
		{
			/* what was granted on another table says nothing about this one */
			if (standing != relid)
				permission_forget(entity_type);
			statement_run(&entity_update, values, nulls);
			break;
		}
		if (statement_run(&entity_insert, values, nulls) == 1)
			break;
		CHECK_FOR_INTERRUPTS();
	}
	bookkeeping_leave(&bookkeeping);
	SPI_finish();
}

Datum
bulk_action_register_entity(PG_FUNCTION_ARGS)
{
	char      *entity_type;
	Relation   target;
	char     **key_names;
	char     **update_names = NULL;
	int        key_count;
	int        update_count = 0;
	Bitmapset *key;
	bool       all_updatable = PG_ARGISNULL(3);

	PreventCommandIfReadOnly("bulk_action_register_entity()");
	check_present(fcinfo, 0, "entity_type");
	check_present(fcinfo, 1, "target");
	check_present(fcinfo, 2, "key_columns");
	entity_type = text_to_cstring(PG_GETARG_TEXT_PP(0));
	entity_type_check(entity_type);

	/* the lock stays to the end of the transaction: what was checked remains so */
	target = try_relation_open(PG_GETARG_OID(1), AccessShareLock);
	if (target == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", PG_GETARG_OID(1)),
				 errdetail("It may have been dropped just now."),
				 errhint("Name an existing table.")));
	check_target(target);

	key_names = column_list_read(PG_GETARG_DATUM(2), TEXTOID, &key_count);
	check_count(key_count, "key columns");
	key = columns_find(target, key_names, key_count, "key columns");
	check_key_index(target, key_names, key_count, key);

	if (all_updatable)
		check_any_updatable(target, key);
	else
	{
		update_names = column_list_read(PG_GETARG_DATUM(3), TEXTOID, &update_count);
		check_count(update_count, "update columns");
		check_update_columns(target, update_names, update_count, key);
	}

	entity_store(entity_type, target, name_array(key_names, key_count),
				 all_updatable ? (Datum) 0 : name_array(update_names, update_count), all_updatable);
	relation_close(target, NoLock);
	PG_RETURN_VOID();
}

Datum
bulk_action_unregister_entity(PG_FUNCTION_ARGS)
{
	char       *entity_type = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Oid         user = GetUserId();
	Oid         standing;
	Datum       values[1] = {CStringGetTextDatum(entity_type)};
	Bookkeeping bookkeeping;

	PreventCommandIfReadOnly("bulk_action_unregister_entity()");
	SPI_connect();
	bookkeeping_enter(&bookkeeping);
	if (!entity_claim(entity_type, user, &standing))
		entity_type_unknown(entity_type);
	permission_forget(entity_type);
	statement_run(&entity_delete, values, NULL);
	bookkeeping_leave(&bookkeeping);
	SPI_finish();
	PG_RETURN_VOID();
}
