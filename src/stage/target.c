/*
 * target.c
 *		The target table as one file sees it.
 *
 * Built anew in every transaction from the catalogs: columns may have been
 * dropped, added or retyped and privileges revoked since the chunk before.
 * That costs a few cache look-ups per thousand rows.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_am.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_type.h"
#include "optimizer/optimizer.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "pure/lane_assignment.h"
#include "stage/target.h"
#include "stage/target_columns.h"

/*
 * Which rows have the same key, and so which lane each is in, has been decided
 * with the first segment.  If that is no longer what the table says, rows of one
 * key may be in different lanes.
 */
static void
check_key_signature(const Action *action, Target *target, Relation rel)
{
	StringInfoData signature;

	initStringInfo(&signature);
	for (int i = 0; i < target->nkeys; i++)
	{
		AttrNumber       number = get_attnum(RelationGetRelid(rel), action->key_columns[i]);
		const TargetKey *key = &target->keys[i];

		/* Integers of all sizes compare and hash alike: a column may be widened. */
		appendStringInfo(&signature, "%s%u/%u/%u%s", i > 0 ? " " : "", key->family,
						 key->family == INTEGER_BTREE_FAM_OID ?
							 InvalidOid :
							 getBaseType(TupleDescAttr(RelationGetDescr(rel), number - 1)->atttypid),
						 key->collation, key->hashable ? "" : "/-");
	}
	target->key_signature = signature.data;
	if (action->key_signature != NULL && strcmp(action->key_signature, signature.data) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("the key of %s was changed while the file was being read", target->qualified_name),
				 errdetail("Its type, collation or index compares in another way than at the beginning of the file."),
				 errhint("Submit the file again.")));
}

/*
 * The index that makes the key unique, and how it compares.  Its operators
 * decide what "the same key" means.
 */
static void
describe_key(const Action *action, Target *target, Relation rel)
{
	List     *indexes = RelationGetIndexList(rel);
	ListCell *cell;

	target->nkeys = action->nkeys;
	target->keys = palloc0(sizeof(TargetKey) * action->nkeys);
	target->hashable = true;
	for (int i = 0; i < target->nkeys; i++)
		target->keys[i].field = -1;

	foreach(cell, indexes)
	{
		Relation      index = index_open(lfirst_oid(cell), AccessShareLock);
		Form_pg_index form = index->rd_index;
		bool          seen[INDEX_MAX_KEYS] = {false};
		bool          match = form->indisunique && form->indisvalid && form->indimmediate &&
					 form->indnkeyatts == action->nkeys && index->rd_rel->relam == BTREE_AM_OID &&
					 heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL) &&
					 heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL);

		/*
		 * Each key column once (an index may list a column twice), and with
		 * the column's own collation, by which the statement compares.
		 */
		for (int i = 0; match && i < form->indnkeyatts; i++)
		{
			AttrNumber  number = form->indkey.values[i];
			const char *name = get_attname(RelationGetRelid(rel), number, true);
			int         position = name != NULL ? target_key_position(action, name) : -1;

			match = position >= 0 && !seen[position] &&
					index->rd_indcollation[i] == TupleDescAttr(RelationGetDescr(rel), number - 1)->attcollation;
			if (position >= 0)
				seen[position] = true;
		}
		for (int i = 0; match && i < form->indnkeyatts; i++)
		{
			Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), form->indkey.values[i] - 1);
			TargetKey        *key = &target->keys[target_key_position(action, NameStr(attribute->attname))];
			Oid               family = index->rd_opfamily[i];
			Oid               type = index->rd_opcintype[i];
			TypeCacheEntry   *entry;

			key->name = pstrdup(NameStr(attribute->attname));
			key->family = family;
			key->equality = get_opfamily_member(family, type, type, BTEqualStrategyNumber);
			key->less = get_opfamily_member(family, type, type, BTLessStrategyNumber);
			key->collation = index->rd_indcollation[i];
			key->order = (SortSupportData){.ssup_cxt = CurrentMemoryContext, .ssup_collation = key->collation};
			PrepareSortSupportFromOrderingOp(key->less, &key->order);
			entry = lookup_type_cache(getBaseType(attribute->atttypid),
									  TYPECACHE_EQ_OPR | TYPECACHE_HASH_EXTENDED_PROC |
										  TYPECACHE_HASH_EXTENDED_PROC_FINFO);
			key->hashable = OidIsValid(entry->hash_extended_proc) && entry->eq_opr == key->equality;
			if (key->hashable)
				fmgr_info_copy(&key->hash, &entry->hash_extended_proc_finfo, CurrentMemoryContext);
			target->hashable &= key->hashable;
		}
		index_close(index, NoLock);
		if (match)
		{
			check_key_signature(action, target, rel);
			return;
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
			 errmsg("the key of entity table %s is no longer unique", target->qualified_name),
			 errdetail("No unique index that is valid, immediate and not partial is over exactly these columns."),
			 errhint("Create the index and register the entity again.")));
}

void
target_check_name(const Action *action)
{
	/* As a statement of the submitter's would look it up, USAGE on the schema included. */
	Oid schema = LookupExplicitNamespace(action->target_schema, true);

	if (!OidIsValid(schema) || get_relname_relid(action->target_name, schema) != action->target)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("target table %s is not the one that was registered",
						quote_qualified_identifier(action->target_schema, action->target_name)),
				 errdetail("It was dropped, renamed or replaced after the action was submitted."),
				 errhint("Register the entity again and submit the file again.")));
}

/*
 * Whether rows of the file may feel each other although their keys differ: by
 * user code (triggers, foreign keys among them, policies, checks that are not
 * immutable) or by a unique index over something that is set.
 */
static bool
rows_may_depend(const Target *target, Relation rel)
{
	TupleConstr *constraints = RelationGetDescr(rel)->constr;
	List        *indexes;
	ListCell    *cell;
	bool         depend = target->partitioned || rel->trigdesc != NULL ||
				  rel->rd_rel->relrowsecurity || (constraints != NULL && constraints->has_generated_stored);

	for (int i = 0; !depend && constraints != NULL && i < constraints->num_check; i++)
		depend = contain_mutable_functions(stringToNode(constraints->check[i].ccbin));
	if (depend)
		return true;

	indexes = RelationGetIndexList(rel);
	foreach(cell, indexes)
	{
		Relation      index = index_open(lfirst_oid(cell), AccessShareLock);
		Form_pg_index form = index->rd_index;

		if (form->indisunique || form->indisexclusion)
		{
			depend |= !heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL) ||
					  !heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL);
			for (int i = 0; i < form->indnkeyatts; i++)
				for (int f = 0; f < target->nfields; f++)
					depend |= target->columns[f].attnum == form->indkey.values[i] && !target->columns[f].is_key;
		}
		index_close(index, NoLock);
	}
	return depend;
}

/* What is done with rows that are there, and with those that are not. */
static void
decide_treatment(const Action *action, Target *target)
{
	const ActionOptions *options = &action->options;

	target->on_missing = options->on_missing;
	switch (options_effective_type(action->type, options))
	{
		case ACTION_UPDATE:
			target->found = FOUND_UPDATE;
			break;
		case ACTION_UPSERT:
			target->found = FOUND_UPDATE;
			target->on_missing = MISSING_INSERT;
			break;
		case ACTION_INSERT:
			target->found = options->on_conflict == CONFLICT_SKIP ? FOUND_SKIP : FOUND_ERROR;
			target->on_missing = MISSING_INSERT;
			break;
		case ACTION_DELETE:
			target->found = FOUND_DELETE;
			break;
	}
	target->dry_run = options->dry_run;
	target->skip_unchanged = !options->rewrite_unchanged;
	target->empty = action->type == ACTION_DELETE ? EMPTY_NULL : options->empty;
	target->null_token = options->null_token;
}

static uint64
row_shape(TupleDesc desc)
{
	uint64 shape = desc->natts;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		shape = lane_mix64(shape ^ attribute->atttypid) + (uint32) attribute->atttypmod + attribute->attisdropped;
	}
	return shape;
}

Target *
target_open(const Action *action, const CsvField *header, int nfields, LOCKMODE lock)
{
	Target *target;

	return target_open_at(&target, action, header, nfields, lock);
}

Target *
target_open_at(Target **place, const Action *action, const CsvField *header, int nfields, LOCKMODE lock)
{
	Target  *target = palloc0(sizeof(Target));
	Relation rel;

	*place = target;
	target->qualified_name = quote_qualified_identifier(action->target_schema, action->target_name);

	target_check_name(action);
	target->relid = action->target;
	rel = try_relation_open(target->relid, lock);
	/* Whoever had the lock before may have dropped it, or given its name to another. */
	target_check_name(action);
	if (rel->rd_rel->relkind != RELKIND_RELATION && rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is not a table", target->qualified_name)));

	if (rel->rd_rules != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table %s has rules", target->qualified_name),
				 errdetail("What a rule makes of an update cannot be accounted for."),
				 errhint("Use a trigger in place of the rule.")));
	target->partitioned = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;
	target->row_security = check_enable_rls(target->relid, InvalidOid, true) == RLS_ENABLED;
	target->fires_per_statement = rel->trigdesc != NULL && (rel->trigdesc->trig_update_before_statement ||
															rel->trigdesc->trig_update_after_statement);
	target->nfields = nfields;
	decide_treatment(action, target);
	describe_key(action, target, rel);
	target_map_header(action, target, rel, header);
	target->row_shape = row_shape(RelationGetDescr(rel));
	target->row_by_row = action->options.order == ORDER_FILE && rows_may_depend(target, rel);
	relation_close(rel, NoLock);
	target_check_privileges(target);
	return target;
}

/* The only element of an array of column numbers; 0 if it has more, or none. */
static AttrNumber
only_column(HeapTuple constraint, int field)
{
	bool       isnull;
	Datum      columns = SysCacheGetAttr(CONSTROID, constraint, field, &isnull);
	ArrayType *array;

	if (isnull)
		return 0;
	array = DatumGetArrayTypeP(columns);
	return ARR_NDIM(array) == 1 && ARR_DIMS(array)[0] == 1 ? ((int16 *) ARR_DATA_PTR(array))[0] : 0;
}

/* The same for a unique index that belongs to no constraint. */
static AttrNumber
column_of_index(Oid index)
{
	HeapTuple  tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	AttrNumber number = 0;

	if (!HeapTupleIsValid(tuple))
		return 0;
	if (((Form_pg_index) GETSTRUCT(tuple))->indnkeyatts == 1)
		number = ((Form_pg_index) GETSTRUCT(tuple))->indkey.values[0];
	ReleaseSysCache(tuple);
	return number;
}

/* The target, or one of its partitions. */
static bool
is_target(const Target *target, Oid relid)
{
	return relid == target->relid ||
		   (target->partitioned && OidIsValid(relid) && get_rel_relispartition(relid) &&
			list_member_oid(get_partition_ancestors(relid), target->relid));
}

/*
 * The column of a constraint that an error names; of one over several columns
 * none.  A foreign key of another table may be violated by what it refers to.
 */
static char *
column_of_constraint(const Target *target, Oid relid, Oid schema, const char *name)
{
	Oid                constraint = get_relation_constraint_oid(relid, name, true);
	HeapTuple          tuple;
	Form_pg_constraint form;
	AttrNumber         number = 0;
	Oid                of = relid;

	if (!OidIsValid(constraint))
	{
		if (is_target(target, relid))
			number = column_of_index(get_relname_relid(name, schema));
		return number > 0 ? get_attname(relid, number, true) : NULL;
	}
	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	if (!HeapTupleIsValid(tuple))
		return NULL;
	form = (Form_pg_constraint) GETSTRUCT(tuple);
	if (is_target(target, relid))
		number = only_column(tuple, Anum_pg_constraint_conkey);
	else if (is_target(target, form->confrelid))
	{
		number = only_column(tuple, Anum_pg_constraint_confkey);
		of = form->confrelid;
	}
	ReleaseSysCache(tuple);
	return number > 0 ? get_attname(of, number, true) : NULL;
}

char *
target_column_of_error(const Target *target, const ErrorData *error)
{
	Oid schema;
	Oid relid;

	/* What user code says without naming a table is meant for the row at hand. */
	if (error->table_name == NULL)
		return error->column_name;
	if (error->schema_name == NULL || !OidIsValid(schema = get_namespace_oid(error->schema_name, true)) ||
		!OidIsValid(relid = get_relname_relid(error->table_name, schema)))
		return NULL;
	if (error->column_name != NULL)
		return is_target(target, relid) ? error->column_name : NULL;
	if (error->constraint_name != NULL)
		return column_of_constraint(target, relid, schema, error->constraint_name);
	return NULL;
}

char *
target_key_names(const Target *target)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < target->nkeys; i++)
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", target->keys[i].name);
	return names.data;
}

uint64
target_hash_key(Target *target, const Datum *values)
{
	uint64 hash = 0;

	for (int i = 0; i < target->nkeys; i++)
	{
		TargetKey *key = &target->keys[i];

		hash = lane_mix64(hash) +
			   DatumGetUInt64(FunctionCall2Coll(&key->hash, key->collation, values[i], UInt64GetDatum(0)));
	}
	return hash;
}

bool
target_keys_are_builtin(const Target *target)
{
	for (int i = 0; i < target->nkeys; i++)
	{
		const TargetKey *key = &target->keys[i];

		/* those with smaller numbers are written by hand in the catalogs' sources: no domains, for one */
		if (key->field < 0 || !key->hashable || key->hash.fn_oid >= FirstGenbkiObjectId ||
			target->columns[key->field].type >= FirstGenbkiObjectId)
			return false;
	}
	return true;
}

int
target_compare_keys(Target *target, const Datum *left, const Datum *right)
{
	for (int i = 0; i < target->nkeys; i++)
	{
		TargetKey *key = &target->keys[i];
		int        order = ApplySortComparator(left[i], false, right[i], false, &key->order);

		if (order != 0)
			return order;
	}
	return 0;
}
