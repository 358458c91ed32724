/*
 * statements.c
 *		The text of the set-wise statements that apply rows.
 *
 * UPDATE target AS t SET a = s.v2, ... FROM bulk_action_rows AS s WHERE t.key =
 * s.v1, where bulk_action_rows is an ephemeral named relation (row_plans.c);
 * INSERT and DELETE likewise.  Names are quoted by the server, operators written
 * with their schema: nothing is looked up on the submitter's path.  Operands are
 * cast to what the operator is for: somebody else's, in the same schema and for a
 * domain over that type, would fit better.
 *
 * Two rows are the same when their images are: what the equality of a type takes
 * for equal, 1.0 and 1.00 for example, is a change all the same, and types
 * without equality can be compared too.  Columns whose type's equality is that of
 * images (TargetColumn.inequality) are compared first, one by one, which costs
 * less than to put rows together for record_image_ne and mostly tells at once.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "stage/statements.h"

/* ---- columns ---- */

/* Does the statement change this column of a row that is there? */
static bool
is_assigned(const TargetColumn *column)
{
	return !column->is_key && column->overwrite != OVERWRITE_NEVER;
}

int
statement_fields(const Target *target, StatementKind kind, const bool *set, int *fields)
{
	bool insert = kind == STATEMENT_INSERT || kind == STATEMENT_INSERT_ABSENT;
	bool update = kind == STATEMENT_UPDATE || kind == STATEMENT_SAME;
	bool match = kind == STATEMENT_DELETE || kind == STATEMENT_DIFFERS;
	int  n = 0;

	if (!insert)
		for (int i = 0; i < target->nkeys; i++)
			fields[n++] = target->keys[i].field;
	for (int f = 0; f < target->nfields; f++)
		if (set[f] && (insert || (update && is_assigned(&target->columns[f])) ||
					   (match && target->columns[f].is_match)))
			fields[n++] = f;
	return n;
}

bool
statement_numbers_rows(const Target *target, StatementKind kind)
{
	return kind == STATEMENT_FIND || kind == STATEMENT_SAME || kind == STATEMENT_DELETE ||
		   kind == STATEMENT_DIFFERS || (kind == STATEMENT_UPDATE && target->on_missing != MISSING_REPORT);
}

/* ---- pieces ---- */

/* An operand of that column's type, as what its operator is declared for; domains are no enums, arrays or ranges. */
static void
append_operand(StringInfo sql, const char *operand, Oid type, Oid declared)
{
	if (IsPolymorphicType(declared))
		declared = getBaseType(type);
	if (declared == type)
		appendStringInfoString(sql, operand);
	else
		/* with a type modifier, though there is none: "character" and "bit" alone mean a length of 1 */
		appendStringInfo(sql, "CAST(%s AS %s)", operand,
						 format_type_extended(declared, -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
}

/* t.column OPERATOR(schema.name) s.v1 */
static void
append_operation(StringInfo sql, const TargetColumn *column, Oid operator)
{
	HeapTuple        tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;
	char            *left = psprintf("t.%s", quote_identifier(column->name));
	char            *right = psprintf("s.v%d", column->place);

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	append_operand(sql, left, column->type, form->oprleft);
	appendStringInfo(sql, " OPERATOR(%s.%s) ", quote_identifier(get_namespace_name(form->oprnamespace)),
					 NameStr(form->oprname));
	append_operand(sql, right, column->type, form->oprright);
	ReleaseSysCache(tuple);
	pfree(left);
	pfree(right);
}

/* What the column becomes. */
static void
append_new_value(StringInfo sql, const TargetColumn *column)
{
	const char *name = quote_identifier(column->name);

	if (column->overwrite != OVERWRITE_IF_EMPTY)
	{
		appendStringInfo(sql, "s.v%d", column->place);
		return;
	}
	appendStringInfo(sql, "CASE WHEN t.%s IS NULL", name);
	if (column->is_string)
		appendStringInfo(sql, " OR CAST(t.%s AS pg_catalog.text) OPERATOR(pg_catalog.=) ''", name);
	appendStringInfo(sql, " THEN s.v%d ELSE t.%s END", column->place, name);
}

static void
append_key_match(StringInfo sql, const Target *target)
{
	for (int i = 0; i < target->nkeys; i++)
	{
		const TargetKey *key = &target->keys[i];

		appendStringInfoString(sql, i > 0 ? " AND " : "");
		append_operation(sql, &target->columns[key->field], key->equality);
	}
}

/* The columns of option match have the values in the file. */
static void
append_matches(StringInfo sql, const Target *target, const int *fields, int n)
{
	for (int i = target->nkeys; i < n; i++)
	{
		const TargetColumn *column = &target->columns[fields[i]];

		appendStringInfoString(sql, i > target->nkeys ? " AND (" : "(");
		append_operation(sql, column, column->equality);
		appendStringInfo(sql, " OR (t.%s IS NULL AND s.v%d IS NULL))", quote_identifier(column->name),
						 column->place);
	}
}

/* Its images can be compared by an operator. */
static bool
has_operator(const TargetColumn *column)
{
	return OidIsValid(column->inequality) && column->overwrite != OVERWRITE_IF_EMPTY;
}

/* The columns without such an operator, or their new values. */
static void
append_row(StringInfo sql, const Target *target, const int *fields, int n, bool new)
{
	const char *separator = "ROW(";

	for (int i = target->nkeys; i < n; i++)
	{
		const TargetColumn *column = &target->columns[fields[i]];

		if (has_operator(column))
			continue;
		appendStringInfoString(sql, separator);
		separator = ", ";
		if (new)
			append_new_value(sql, column);
		else
			appendStringInfo(sql, "t.%s", quote_identifier(column->name));
	}
	appendStringInfoChar(sql, ')');
}

/* AND the row would be another one, or would not */
static void
append_comparison(StringInfo sql, const Target *target, const int *fields, int n, bool same)
{
	const char *separator = " AND (";
	bool        rows = false;

	for (int i = target->nkeys; i < n; i++)
	{
		const TargetColumn *column = &target->columns[fields[i]];

		if (!has_operator(column))
		{
			rows = true;
			continue;
		}
		appendStringInfoString(sql, separator);
		append_operation(sql, column, column->inequality);
		appendStringInfo(sql, " OR (t.%s IS NULL) OPERATOR(pg_catalog.<>) (s.v%d IS NULL)",
						 quote_identifier(column->name), column->place);
		separator = " OR ";
	}
	if (rows)
	{
		appendStringInfo(sql, "%spg_catalog.record_image_ne(", separator);
		append_row(sql, target, fields, n, false);
		appendStringInfoString(sql, ", ");
		append_row(sql, target, fields, n, true);
		appendStringInfoChar(sql, ')');
	}
	appendStringInfoString(sql, same ? ") IS NOT TRUE" : ")");
}

bool
statement_can_compare(const Target *target, const int *fields, int n)
{
	if (!target->skip_unchanged)
		return false;
	for (int i = target->nkeys; i < n; i++)
		if (!target->columns[fields[i]].readable)
			return false;
	return true;
}

/* A unique index says nothing about tables that inherit from its own. */
static const char *
only(const Target *target)
{
	return target->partitioned ? "" : "ONLY ";
}

/* ---- statements ---- */

static void
build_find(StringInfo sql, const Target *target)
{
	appendStringInfoString(sql, "SELECT s.n FROM " STATEMENT_ROWS " AS s");
	if (target->row_security && target->found != FOUND_DELETE)
	{
		/*
		 * Found is what could be updated: only a lock takes those policies into
		 * account, and the privilege that it needs is there.
		 */
		appendStringInfo(sql, " JOIN %s%s AS t ON ", only(target), target->qualified_name);
		append_key_match(sql, target);
		appendStringInfoString(sql, " FOR NO KEY UPDATE OF t");
		return;
	}
	appendStringInfo(sql, " WHERE EXISTS (SELECT 1 FROM %s%s AS t WHERE ", only(target),
					 target->qualified_name);
	append_key_match(sql, target);
	appendStringInfoString(sql, ")");
}

static void
build_same(StringInfo sql, const Target *target, const int *fields, int n)
{
	appendStringInfoString(sql, "SELECT s.n FROM " STATEMENT_ROWS " AS s");
	appendStringInfo(sql, ", %s%s AS t WHERE ", only(target), target->qualified_name);
	append_key_match(sql, target);
	append_comparison(sql, target, fields, n, true);
}

static void
build_update(StringInfo sql, const Target *target, const int *fields, int n, bool numbered)
{
	appendStringInfo(sql, "UPDATE %s%s AS t SET ", only(target), target->qualified_name);
	for (int i = target->nkeys; i < n; i++)
	{
		const TargetColumn *column = &target->columns[fields[i]];

		appendStringInfo(sql, "%s%s = ", i > target->nkeys ? ", " : "", quote_identifier(column->name));
		append_new_value(sql, column);
	}
	appendStringInfoString(sql, " FROM " STATEMENT_ROWS " AS s WHERE ");
	append_key_match(sql, target);
	if (statement_can_compare(target, fields, n))
		append_comparison(sql, target, fields, n, false);
	if (numbered)
		appendStringInfoString(sql, " RETURNING s.n");
}

static void
build_delete(StringInfo sql, const Target *target, const int *fields, int n)
{
	appendStringInfo(sql, "DELETE FROM %s%s AS t USING " STATEMENT_ROWS " AS s WHERE ", only(target),
					 target->qualified_name);
	append_key_match(sql, target);
	if (n > target->nkeys)
	{
		appendStringInfoString(sql, " AND ");
		append_matches(sql, target, fields, n);
	}
	appendStringInfoString(sql, " RETURNING s.n");
}

static void
build_differs(StringInfo sql, const Target *target, const int *fields, int n)
{
	appendStringInfoString(sql, "SELECT s.n FROM " STATEMENT_ROWS " AS s");
	appendStringInfo(sql, " WHERE EXISTS (SELECT 1 FROM %s%s AS t WHERE ", only(target), target->qualified_name);
	append_key_match(sql, target);
	appendStringInfoString(sql, " AND (");
	append_matches(sql, target, fields, n);
	appendStringInfoString(sql, ") IS NOT TRUE)");
}

static void
build_insert(StringInfo sql, const Target *target, StatementKind kind, const int *fields, int n)
{
	appendStringInfo(sql, "INSERT INTO %s AS t (", target->qualified_name);
	for (int i = 0; i < n; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "", quote_identifier(target->columns[fields[i]].name));
	appendStringInfoString(sql, ") SELECT ");
	for (int i = 0; i < n; i++)
		appendStringInfo(sql, "%ss.v%d", i > 0 ? ", " : "", target->columns[fields[i]].place);
	appendStringInfoString(sql, " FROM " STATEMENT_ROWS " AS s");
	if (kind == STATEMENT_INSERT)
		return;
	appendStringInfoString(sql, " ON CONFLICT (");
	for (int i = 0; i < target->nkeys; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(target->columns[target->keys[i].field].name));
	appendStringInfoString(sql, ") DO NOTHING");
}

char *
statement_build(const Target *target, StatementKind kind, const int *fields, int n)
{
	StringInfoData sql;

	initStringInfo(&sql);
	switch (kind)
	{
		case STATEMENT_FIND:
			build_find(&sql, target);
			break;
		case STATEMENT_SAME:
			build_same(&sql, target, fields, n);
			break;
		case STATEMENT_UPDATE:
			build_update(&sql, target, fields, n, statement_numbers_rows(target, kind));
			break;
		case STATEMENT_DELETE:
			build_delete(&sql, target, fields, n);
			break;
		case STATEMENT_DIFFERS:
			build_differs(&sql, target, fields, n);
			break;
		case STATEMENT_INSERT:
		case STATEMENT_INSERT_ABSENT:
			build_insert(&sql, target, kind, fields, n);
			break;
	}
	return sql.data;
}
