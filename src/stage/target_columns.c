/*
 * target_columns.c
 *		Which field of a file goes to which column of the target.
 *
 * By the names in the header, which stand for the columns of the same name
 * unless option columns says something else.  A name that stands for nothing is
 * an error: a misspelt column must not be left out of a million rows in
 * silence.
 */
#include "postgres.h"

#include "access/nbtree.h"
#include "access/transam.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "parser/parse_coerce.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "base/compat.h"
#include "pure/error_report.h"
#include "service/clean_text.h"
#include "service/near_match.h"
#include "service/transaction.h"
#include "stage/target_columns.h"
#include "stage/target_formats.h"

int
target_key_position(const Action *action, const char *name)
{
	for (int i = 0; i < action->nkeys; i++)
		if (strcmp(action->key_columns[i], name) == 0)
			return i;
	return -1;
}

/* May a file give the column a value? */
static bool
may_be_set(const Action *action, const Target *target, Form_pg_attribute attribute)
{
	const char *name = NameStr(attribute->attname);

	if (target_key_position(action, name) >= 0)
		return target->on_missing != MISSING_INSERT ||
			   (attribute->attgenerated == '\0' && attribute->attidentity != ATTRIBUTE_IDENTITY_ALWAYS);
	if (target->found == FOUND_DELETE)
		return true;
	if (action->nupdates < 0)
		return attribute->attgenerated == '\0' && attribute->attidentity != ATTRIBUTE_IDENTITY_ALWAYS;
	for (int i = 0; i < action->nupdates; i++)
		if (strcmp(action->update_columns[i], name) == 0)
			return true;
	return false;
}

/* "a, b, c": what a header may contain, for a hint. */
static char *
list_allowed(const Action *action, const Target *target, TupleDesc desc)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped && may_be_set(action, target, attribute))
			appendStringInfo(&list, "%s\"%s\"", list.len > 0 ? ", " : "", NameStr(attribute->attname));
	}
	return list.data;
}

/* ---- names ---- */

/* Without blanks around it and in lower case. */
static char *
folded(const char *name)
{
	size_t length = strlen(name);

	while (length > 0 && strchr(" \t\r\n", name[length - 1]) != NULL)
		length--;
	while (length > 0 && strchr(" \t\r\n", *name) != NULL)
	{
		name++;
		length--;
	}
	return str_tolower(name, length, DEFAULT_COLLATION_OID);
}

/* Names as they are compared: with option fold_header folded, once and not for each pair. */
typedef struct ComparedNames
{
	char **fields;  /* of the header */
	char **rules;   /* of option columns */
	char **columns; /* of the table; NULL: dropped */
} ComparedNames;

static char *
compared(const Action *action, const char *name)
{
	return action->options.fold_header ? folded(name) : unconstify(char *, name);
}

static void
prepare_names(const Action *action, const Target *target, TupleDesc desc, const CsvField *header, ComparedNames *names)
{
	names->fields = palloc(sizeof(char *) * target->nfields);
	names->rules = palloc(sizeof(char *) * Max(action->options.ncolumns, 1));
	names->columns = palloc(sizeof(char *) * Max(desc->natts, 1));
	for (int f = 0; f < target->nfields; f++)
		names->fields[f] = compared(action, header[f].data);
	for (int i = 0; i < action->options.ncolumns; i++)
		names->rules[i] = compared(action, action->options.columns[i].header);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		names->columns[i] = attribute->attisdropped ? NULL : compared(action, NameStr(attribute->attname));
	}
}

static Form_pg_attribute
find_column(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped && strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0)
			return TupleDescAttr(desc, i);
	return NULL;
}

/* The only column of that name when names are folded; NULL: none. */
static Form_pg_attribute
find_folded(TupleDesc desc, const ComparedNames *names, int field, const char *name)
{
	Form_pg_attribute found = NULL;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (names->columns[i] == NULL || strcmp(names->columns[i], names->fields[field]) != 0)
			continue;
		if (found != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_AMBIGUOUS_COLUMN),
					 errmsg("column \"%s\" of the header is ambiguous", clean_text(name)),
					 errdetail("The table has \"%s\" and \"%s\".", NameStr(found->attname),
							   NameStr(attribute->attname)),
					 errhint("Say which one is meant in option \"columns\".")));
		found = attribute;
	}
	return found;
}

/* What option columns says of this column of the file; NULL: nothing. */
static const ColumnRule *
find_rule(const Action *action, const ComparedNames *names, int field, const char *header)
{
	for (int i = 0; i < action->options.ncolumns; i++)
		if (strcmp(action->options.columns[i].header, header) == 0)
			return &action->options.columns[i];
	for (int i = 0; i < action->options.ncolumns; i++)
		if (strcmp(names->rules[i], names->fields[field]) == 0)
			return &action->options.columns[i];
	return NULL;
}

static bool
is_match(const Action *action, const char *name)
{
	for (int i = 0; i < action->options.nmatch; i++)
		if (strcmp(action->options.match[i], name) == 0)
			return true;
	return false;
}

static void
column_unknown(const Action *action, const Target *target, TupleDesc desc, int field, const char *name,
			   const ColumnRule *rule, Form_pg_attribute attribute)
{
	const char *wanted = rule != NULL ? rule->column : name;
	const char *where = action->options.file.no_header ? "option \"columns\"" : "the header";
	NearMatch   match;

	near_match_start(&match, wanted);
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped && may_be_set(action, target, TupleDescAttr(desc, i)))
			near_match_offer(&match, NameStr(TupleDescAttr(desc, i)->attname));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 wanted[0] == '\0' ? errmsg("field %d of the header is empty", field + 1) :
			 attribute == NULL ? errmsg("column \"%s\" of %s does not exist in %s", clean_text(wanted), where,
										target->qualified_name) :
								 errmsg("column \"%s\" of %s may not be set", clean_text(wanted), where),
			 match.best != NULL && attribute == NULL ?
				 errhint("Perhaps you meant \"%s\". The header may have these columns: %s.", match.best,
						 list_allowed(action, target, desc)) :
				 errhint("The header may have these columns: %s.", list_allowed(action, target, desc)),
			 err_generic_string(PG_DIAG_COLUMN_NAME, name)));
}

/* ---- columns ---- */

/*
 * The operator that tells when two values have different images, if equality
 * says so: what B-trees ask to know whether they may deduplicate
 * (https://www.postgresql.org/docs/current/btree-support-funcs.html, equalimage).
 * Not for bpchar, which passes over blanks at the end that values without a
 * length may have, and interval, to which a day is 24 hours: not every minor
 * release of version 15 says so itself.
 */
static Oid
image_inequality(Oid type, Oid collation)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_EQ_OPR | TYPECACHE_BTREE_OPFAMILY);
	Oid             proc;
	Oid             inequality;

	if (type == BPCHAROID || type == INTERVALOID || !OidIsValid(entry->btree_opf) || !OidIsValid(entry->eq_opr))
		return InvalidOid;
	proc = get_opfamily_proc(entry->btree_opf, entry->btree_opintype, entry->btree_opintype, BTEQUALIMAGE_PROC);
	if (!OidIsValid(proc) ||
		!DatumGetBool(OidFunctionCall1Coll(proc, collation, ObjectIdGetDatum(entry->btree_opintype))))
		return InvalidOid;
	inequality = get_negator(entry->eq_opr);

	/* elsewhere the submitter might have no right to use it, and somebody else one of the same name for a domain */
	return inequality < FirstGenbkiObjectId ? inequality : InvalidOid;
}

static void
describe_column(TargetColumn *column, Form_pg_attribute attribute)
{
	Oid input;
	Oid base = getBaseType(attribute->atttypid);

	column->attnum = attribute->attnum;
	column->name = pstrdup(NameStr(attribute->attname));
	column->type = attribute->atttypid;
	column->typmod = attribute->atttypmod;
	getTypeInputInfo(attribute->atttypid, &input, &column->input_param);
	fmgr_info(input, &column->input);

	column->collation = attribute->attcollation;
	column->inequality = image_inequality(base, attribute->attcollation);
	column->is_string = TypeCategory(base) == TYPCATEGORY_STRING;
}

/* The column that a field is for; NULL: the field is ignored, and *ignored says why. */
static Form_pg_attribute
column_of_field(const Action *action, const Target *target, TupleDesc desc, const ComparedNames *names, int field,
				const char *name, const ColumnRule **rule, const char **ignored)
{
	Form_pg_attribute attribute;

	*rule = find_rule(action, names, field, name);
	*ignored = "option columns says so";
	if (*rule != NULL && (*rule)->column == NULL)
		return NULL;
	*ignored = "it is a column of an error report";
	/* such a file can be submitted as it is */
	if (*rule == NULL && (error_report_is_column(name, strlen(name)) || error_report_is_ignored(name, strlen(name))))
		return NULL;
	*ignored = "of a row that is deleted only the key and the columns of option match count";
	attribute = find_column(desc, *rule != NULL ? (*rule)->column : name);
	if (attribute == NULL && *rule == NULL && action->options.fold_header)
		attribute = find_folded(desc, names, field, name);
	if (attribute != NULL && may_be_set(action, target, attribute))
	{
		const char *column = NameStr(attribute->attname);

		/* of a row that is to be deleted only what identifies it counts */
		if (target->found == FOUND_DELETE && target_key_position(action, column) < 0 && !is_match(action, column))
			return NULL;
		return attribute;
	}
	*ignored = attribute == NULL ? "the table has no such column" : "the column may not be set";
	if (action->options.unknown_columns == UNKNOWN_ERROR || *rule != NULL)
		column_unknown(action, target, desc, field, name, *rule, attribute);
	return NULL;
}

/* Each column that option columns or match names must be there. */
static void
check_all_there(const Action *action, const Target *target, const ComparedNames *names)
{
	for (int i = 0; i < action->options.ncolumns; i++)
	{
		bool found = false;

		for (int f = 0; f < target->nfields; f++)
			found |= strcmp(names->rules[i], names->fields[f]) == 0;
		if (!found)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("the header lacks column \"%s\"", clean_text(action->options.columns[i].header)),
					 errdetail("Option \"columns\" says what it is for."),
					 errhint("Correct the option or the file.")));
	}
	for (int i = 0; i < action->options.nmatch; i++)
	{
		bool found = false;

		for (int f = 0; f < target->nfields; f++)
			found |= target->columns[f].is_match && strcmp(target->columns[f].name, action->options.match[i]) == 0;
		if (!found)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("the header lacks column \"%s\"", clean_text(action->options.match[i])),
					 errdetail("Option \"match\" says that it has to match."),
					 errhint("Correct the option or the file.")));
	}
}

static void
check_key(const Action *action, const Target *target)
{
	bool needed = target->found != FOUND_ERROR || action->options.duplicates != DUPLICATES_ALL;

	for (int i = 0; i < target->nkeys; i++)
		if (target->keys[i].field < 0 && needed)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("the header lacks key column \"%s\"", target->keys[i].name),
					 errhint("The first line of the file must name the columns, with a comma between them.")));
}

static void
describe_field(const Action *action, Target *target, int field, int place, Form_pg_attribute attribute,
			   const ColumnRule *rule)
{
	TargetColumn *column = &target->columns[field];
	int           key = target_key_position(action, NameStr(attribute->attname));

	describe_column(column, attribute);
	column->place = place;
	column->overwrite = rule != NULL ? rule->overwrite : OVERWRITE_ALWAYS;
	target_choose_format(column, &action->options, rule);
	column->is_key = key >= 0;
	column->readable = pg_class_aclcheck(target->relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK ||
					   pg_attribute_aclcheck(target->relid, column->attnum, GetUserId(), ACL_SELECT) == ACLCHECK_OK;
	if (key >= 0)
	{
		Oid base = getBaseType(column->type);

		if (type_is_array(base) || type_is_rowtype(base))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("key column \"%s\" is of type %s, which a key cannot have", column->name,
							format_type_be(attribute->atttypid))));
		target->keys[key].field = field;
	}
	else if (target->found == FOUND_DELETE)
	{
		column->is_match = target->has_match = true;
		column->equality = lookup_type_cache(getBaseType(column->type), TYPECACHE_EQ_OPR)->eq_opr;
		if (!OidIsValid(column->equality))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("column \"%s\" cannot be compared", column->name),
					 errdetail("Type %s has no equality.", format_type_be(column->type)),
					 errhint("Leave it out of option \"match\".")));
	}
}

void
target_map_header(const Action *action, Target *target, Relation rel, const CsvField *header)
{
	TupleDesc     desc = RelationGetDescr(rel);
	ComparedNames names;
	int           nused = 0;
	int           nset = 0;

	prepare_names(action, target, desc, header, &names);
	target->columns = palloc0(sizeof(TargetColumn) * target->nfields);
	for (int f = 0; f < target->nfields; f++)
	{
		const ColumnRule *rule;
		Form_pg_attribute attribute = column_of_field(action, target, desc, &names, f, header[f].data, &rule,
													  &target->columns[f].ignored);

		if (attribute == NULL)
			continue;
		for (int other = 0; other < f; other++)
			if (target->columns[other].attnum == attribute->attnum)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("column \"%s\" appears twice in the header", NameStr(attribute->attname)),
						 errdetail("Fields %d and %d have this name.", other + 1, f + 1),
						 errhint("Remove or rename one of them.")));
		describe_field(action, target, f, ++nused, attribute, rule);
		if (!target->columns[f].is_key)
			nset++;
	}
	check_key(action, target);
	check_all_there(action, target, &names);
	if (nset == 0 && target->found == FOUND_UPDATE && target->on_missing != MISSING_INSERT)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("the header has no column to update"),
				 errhint("Besides the key it may have these columns: %s.", list_allowed(action, target, desc))));
}

/* ---- privileges ---- */

static void
need_privilege(const Target *target, const TargetColumn *column, AclMode mode, const char *name)
{
	if (pg_class_aclcheck(target->relid, GetUserId(), mode) != ACLCHECK_OK &&
		pg_attribute_aclcheck(target->relid, column->attnum, GetUserId(), mode) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for column \"%s\" of %s", column->name, target->qualified_name),
				 errdetail("Role \"%s\", which submitted the action, lacks %s on the column.",
						   submitter_name(GetUserId()), name),
				 errhint("GRANT the privilege, or leave the column out of the file.")));
}

void
target_check_privileges(const Target *target)
{
	bool looks = target->found != FOUND_ERROR;

	if (target->found == FOUND_DELETE && pg_class_aclcheck(target->relid, GetUserId(), ACL_DELETE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", target->qualified_name),
				 errdetail("Role \"%s\", which submitted the action, lacks DELETE on it.", submitter_name(GetUserId())),
				 errhint("GRANT the privilege.")));
	for (int f = 0; f < target->nfields; f++)
	{
		const TargetColumn *column = &target->columns[f];
		bool                changed = target->found == FOUND_UPDATE && !column->is_key &&
					   column->overwrite != OVERWRITE_NEVER;

		if (column->attnum == 0)
			continue;
		if ((column->is_key && looks) || column->is_match || (changed && column->overwrite == OVERWRITE_IF_EMPTY))
			need_privilege(target, column, ACL_SELECT, "SELECT");
		if (changed)
			need_privilege(target, column, ACL_UPDATE, "UPDATE");
		if (target->on_missing == MISSING_INSERT)
			need_privilege(target, column, ACL_INSERT, "INSERT");
	}
}

/* ---- cells ---- */

CellMeaning
target_cell_meaning(const Target *target, const TargetColumn *column, const CsvField *cell)
{
	if (cell->is_null)
		return column->is_key || target->empty == EMPTY_KEEP ? CELL_NOTHING :
			   target->empty == EMPTY_NULL                   ? CELL_NULL :
															   CELL_VALUE;
	if (target->null_token != NULL && strcmp(cell->data, target->null_token) == 0)
		return CELL_NULL;
	return CELL_VALUE;
}

Datum
target_convert(TargetColumn *column, const char *cell)
{
	bool  formatted = cell != NULL && column->format != NULL;
	char *text = formatted ? target_normalise(column, cell) : unconstify(char *, cell);
	Datum value = InputFunctionCall(&column->input, text, column->input_param, column->typmod);

	if (formatted)
		pfree(text);
	return value;
}
