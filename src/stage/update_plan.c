/*
 * update_plan.c
 *		The set-wise statements that apply rows, and their plans.
 *
 * UPDATE target AS t SET a = s.v1, ... FROM ROWS FROM (unnest($1), ...) AS s
 * WHERE t.key = s.k1, with one array per column.  The planner knows nothing of
 * the arrays' lengths and would choose differently from one time to the next,
 * so plans are generic and made with hash join, merge join, sequential scan and
 * JIT off: a nested loop over the key's index.  The level with those settings
 * is closed before the statement runs, so triggers do not see them.
 *
 * Names are quoted by the server and operators written with their schema.  The
 * statement's text and parameter types identify its plan, so a changed column
 * type leads to another plan; other changes are seen by the plan cache.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

#include "stage/update_plan.h"

/* Statements kept; with more combinations of columns the oldest goes. */
#define MAX_PLANS 64

/*
 * What is wrong with the table shows in any statement; files with very many
 * combinations need not have each of them prepared twice.
 */
#define PREPARED_FIRST 8

typedef struct KeptPlan
{
	char      *key;
	SPIPlanPtr plan;
	uint64     number; /* of the plan: another one in this place has another */
	uint64     last_used;
} KeptPlan;

/* The statement for a set of columns; as long as a batch. */
typedef struct PreparedSet
{
	KeptPlan *kept;
	uint64    number;
	int       nparams;
	int      *fields; /* which field each parameter carries */
} PreparedSet;

static KeptPlan plans[MAX_PLANS];
static uint64   uses = 0;

static void
forget(KeptPlan *kept)
{
	if (kept->plan != NULL)
		SPI_freeplan(kept->plan);
	if (kept->key != NULL)
		pfree(kept->key);
	memset(kept, 0, sizeof(*kept));
}

void
update_plan_forget(void)
{
	for (int i = 0; i < MAX_PLANS; i++)
		forget(&plans[i]);
}

/* OPERATOR(schema.name) */
static void
append_operator(StringInfo sql, Oid operator)
{
	HeapTuple        tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	appendStringInfo(sql, " OPERATOR(%s.%s) ",
					 quote_identifier(get_namespace_name(form->oprnamespace)), NameStr(form->oprname));
	ReleaseSysCache(tuple);
}

/* s.vN, with a cast where the value travels as text */
static void
append_value(StringInfo sql, const TargetColumn *column, int number)
{
	if (column->as_text)
		appendStringInfo(sql, "CAST(s.v%d AS %s)", number,
						 format_type_extended(column->type, column->typmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	else
		appendStringInfo(sql, "s.v%d", number);
}

/* FROM ROWS FROM (unnest($1), ...) AS s (v1, ...) and the join on the key */
static void
append_source(StringInfo sql, int n)
{
	appendStringInfoString(sql, "ROWS FROM (");
	for (int i = 1; i <= n; i++)
		appendStringInfo(sql, "%spg_catalog.unnest($%d)", i > 1 ? ", " : "", i);
	appendStringInfoString(sql, ") AS s (");
	for (int i = 1; i <= n; i++)
		appendStringInfo(sql, "%sv%d", i > 1 ? ", " : "", i);
	appendStringInfoString(sql, ")");
}

static void
append_key_match(StringInfo sql, const Target *target)
{
	for (int i = 0; i < target->nkeys; i++)
	{
		const TargetKey *key = &target->keys[i];

		appendStringInfo(sql, "%st.%s", i > 0 ? " AND " : "",
						 quote_identifier(target->columns[key->field].name));
		append_operator(sql, key->equality);
		appendStringInfo(sql, "s.v%d", i + 1);
	}
}

/* Parameters are the key columns, then the columns set, in the order of the file. */
static char *
build_statement(const Target *target, const int *fields, int n)
{
	StringInfoData sql;

	/* A unique index says nothing about tables that inherit from its own. */
	const char *only = target->partitioned ? "" : "ONLY ";

	initStringInfo(&sql);
	if (n == target->nkeys)
	{
		appendStringInfoString(&sql, "SELECT 1 FROM ");
		append_source(&sql, n);
		appendStringInfo(&sql, " WHERE EXISTS (SELECT 1 FROM %s%s AS t WHERE ", only,
						 target->qualified_name);
		append_key_match(&sql, target);
		appendStringInfoString(&sql, ")");
		return sql.data;
	}
	appendStringInfo(&sql, "UPDATE %s%s AS t SET ", only, target->qualified_name);
	for (int i = target->nkeys; i < n; i++)
	{
		const TargetColumn *column = &target->columns[fields[i]];

		appendStringInfo(&sql, "%s%s = ", i > target->nkeys ? ", " : "", quote_identifier(column->name));
		append_value(&sql, column, i + 1);
	}
	appendStringInfoString(&sql, " FROM ");
	append_source(&sql, n);
	appendStringInfoString(&sql, " WHERE ");
	append_key_match(&sql, target);
	return sql.data;
}

static KeptPlan *
find_plan(const char *sql, const Oid *types, int n)
{
	StringInfoData key;
	KeptPlan      *kept = &plans[0];

	initStringInfo(&key);
	for (int i = 0; i < n; i++)
		appendStringInfo(&key, "%u ", types[i]);
	appendStringInfoString(&key, sql);

	for (int i = 0; i < MAX_PLANS; i++)
	{
		if (plans[i].key != NULL && strcmp(plans[i].key, key.data) == 0)
		{
			plans[i].last_used = ++uses;
			return &plans[i];
		}
		if (plans[i].last_used < kept->last_used)
			kept = &plans[i];
	}

	forget(kept);
	kept->plan = SPI_prepare_cursor(sql, n, unconstify(Oid *, types), CURSOR_OPT_GENERIC_PLAN);
	if (kept->plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	SPI_keepplan(kept->plan);
	kept->key = MemoryContextStrdup(TopMemoryContext, key.data);
	kept->last_used = kept->number = ++uses;
	return kept;
}

/* Sees to it that the plan about to be used was made with our settings. */
static void
force_plan(SPIPlanPtr plan)
{
	static const char *const off[] = {"enable_hashjoin", "enable_mergejoin", "enable_seqscan", "jit"};
	int                      level = NewGUCNestLevel();
	CachedPlan              *cached;

	for (int i = 0; i < lengthof(off); i++)
		(void) set_config_option(off[i], "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	cached = SPI_plan_get_cached_plan(plan);
	if (cached != NULL)
		ReleaseCachedPlan(cached, CurrentResourceOwner);
	AtEOXact_GUC(false, level);
}

static Datum
column_array(const RowBatch *batch, int field, const int *rows, int n)
{
	const TargetColumn *column = &batch->target->columns[field];
	Datum              *elements = palloc(sizeof(Datum) * n);
	ArrayType          *array;

	for (int i = 0; i < n; i++)
		elements[i] = batch->rows[rows[i]].values[field];
	array = construct_array(elements, n, column->element_type, column->length, column->by_value,
							column->align);
	pfree(elements);
	return PointerGetDatum(array);
}

/* Which field each parameter carries: the key columns, then what the set has. */
static int
list_parameters(const RowBatch *batch, int column_set, int *fields, Oid *types)
{
	const Target *target = batch->target;
	const bool   *set = batch->sets[column_set];
	int           n = 0;

	for (int i = 0; i < target->nkeys; i++)
		fields[n++] = target->keys[i].field;
	for (int f = 0; f < target->nfields; f++)
		if (set[f])
			fields[n++] = f;
	for (int i = 0; i < n; i++)
		types[i] = target->columns[fields[i]].array_type;
	return n;
}

/* Whether the plan is as it was made with our settings; if not, it would be made anew with others. */
static bool
is_ready(const PreparedSet *prepared)
{
	CachedPlanSource *source;

	if (prepared->kept->number != prepared->number)
		return false; /* it had to make room */
	source = linitial(SPI_plan_get_plan_sources(prepared->kept->plan));
	return source->is_valid && source->gplan != NULL && source->gplan->is_valid;
}

static PreparedSet *
prepare(const RowBatch *batch, int column_set)
{
	const Target *target = batch->target;
	MemoryContext context = CurrentMemoryContext;
	PreparedSet  *prepared = batch->prepared[column_set];
	Oid          *types;

	if (prepared != NULL && is_ready(prepared))
		return prepared;
	if (prepared == NULL)
	{
		prepared = MemoryContextAlloc(GetMemoryChunkContext(batch->prepared), sizeof(PreparedSet));
		prepared->fields = MemoryContextAlloc(GetMemoryChunkContext(batch->prepared),
											  sizeof(int) * target->nfields);
	}
	types = palloc(sizeof(Oid) * target->nfields);
	prepared->nparams = list_parameters(batch, column_set, prepared->fields, types);
	prepared->kept = find_plan(build_statement(target, prepared->fields, prepared->nparams), types,
							   prepared->nparams);
	prepared->number = prepared->kept->number;
	batch->prepared[column_set] = prepared;
	force_plan(prepared->kept->plan);
	MemoryContextSwitchTo(context); /* SPI leaves us in a context of its own */
	return prepared;
}

void
update_plan_prepare(const RowBatch *batch)
{
	for (int i = 0; i < Min(batch->nsets, PREPARED_FIRST); i++)
		(void) prepare(batch, i);
}

uint64
update_plan_run(const RowBatch *batch, int column_set, const int *rows, int n)
{
	PreparedSet  *prepared = prepare(batch, column_set);
	const int    *fields = prepared->fields;
	int           nparams = prepared->nparams;
	Datum        *values = palloc(sizeof(Datum) * nparams);
	MemoryContext context = CurrentMemoryContext;
	uint64        processed;
	int           result;

	for (int i = 0; i < nparams; i++)
		values[i] = column_array(batch, fields[i], rows, n);
	result = SPI_execute_plan(prepared->kept->plan, values, NULL, false, 0);
	if (result < 0)
		elog(ERROR, "could not apply rows: %s", SPI_result_code_string(result));
	processed = SPI_processed;
	SPI_freetuptable(SPI_tuptable);
	MemoryContextSwitchTo(context);
	for (int i = 0; i < nparams; i++)
		pfree(DatumGetPointer(values[i]));
	pfree(values);
	return processed;
}
