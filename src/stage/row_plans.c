/*
 * row_plans.c
 *		Plans of the statements that apply rows, and running them.
 *
 * The planner knows nothing of the arrays' lengths and would choose
 * differently from one time to the next, so plans are generic and made with
 * hash join, merge join, sequential scan and JIT off: a nested loop over the
 * key's index.  The level with those settings is closed before the statement
 * runs, so triggers do not see them.
 *
 * The statement's text and parameter types identify its plan, so a changed
 * column type leads to another plan; other changes are seen by the plan cache.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/resowner.h"

#include "stage/row_plans.h"

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

/* A statement for a set of columns; as long as a batch. */
typedef struct PreparedSet
{
	KeptPlan *kept;
	uint64    number;
	int       nfields;
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
row_plans_forget(void)
{
	for (int i = 0; i < MAX_PLANS; i++)
		forget(&plans[i]);
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
	bool               *nulls = palloc(sizeof(bool) * n);
	int                 lower = 1;
	ArrayType          *array;

	for (int i = 0; i < n; i++)
	{
		elements[i] = batch->rows[rows[i]].values[field];
		nulls[i] = batch->rows[rows[i]].nulls[field];
	}
	array = construct_md_array(elements, nulls, 1, &n, &lower, column->element_type, column->length,
							   column->by_value, column->align);
	pfree(elements);
	pfree(nulls);
	return PointerGetDatum(array);
}

/* 0, 1, 2 ...: the rows by their place among those given to the statement. */
static Datum
number_array(int n)
{
	Datum     *elements = palloc(sizeof(Datum) * n);
	ArrayType *array;

	for (int i = 0; i < n; i++)
		elements[i] = Int32GetDatum(i);
	array = construct_array(elements, n, INT4OID, sizeof(int32), true, TYPALIGN_INT);
	pfree(elements);
	return PointerGetDatum(array);
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
prepare(const RowBatch *batch, StatementKind kind, int column_set)
{
	const Target *target = batch->target;
	MemoryContext context = CurrentMemoryContext;
	PreparedSet **place = &batch->prepared[column_set * STATEMENT_KINDS + kind];
	PreparedSet  *prepared = *place;
	Oid          *types;
	int           nparams;

	if (prepared != NULL && is_ready(prepared))
		return prepared;
	if (prepared == NULL)
	{
		MemoryContext keep = GetMemoryChunkContext(batch->prepared);

		prepared = MemoryContextAlloc(keep, sizeof(PreparedSet));
		prepared->fields = MemoryContextAlloc(keep, sizeof(int) * target->nfields);
	}
	prepared->nfields = statement_fields(target, kind, batch->sets[column_set], prepared->fields);
	types = palloc(sizeof(Oid) * (prepared->nfields + 1));
	for (nparams = 0; nparams < prepared->nfields; nparams++)
		types[nparams] = target->columns[prepared->fields[nparams]].array_type;
	if (statement_numbers_rows(target, kind))
		types[nparams++] = INT4ARRAYOID;
	prepared->kept = find_plan(statement_build(target, kind, prepared->fields, prepared->nfields), types, nparams);
	prepared->number = prepared->kept->number;
	*place = prepared;
	force_plan(prepared->kept->plan);
	MemoryContextSwitchTo(context); /* SPI leaves us in a context of its own */
	return prepared;
}

void
row_plans_prepare(const RowBatch *batch, StatementKind kind)
{
	for (int i = 0; i < Min(batch->nsets, PREPARED_FIRST); i++)
	{
		bool only_found = kind == STATEMENT_UPDATE && !row_plans_sets_anything(batch, i);

		/* rows that set nothing are only looked for */
		(void) prepare(batch, only_found ? STATEMENT_FIND : kind, i);
	}
}

bool
row_plans_sets_anything(const RowBatch *batch, int column_set)
{
	int *fields = palloc(sizeof(int) * batch->target->nfields);
	int  n = statement_fields(batch->target, STATEMENT_UPDATE, batch->sets[column_set], fields);

	pfree(fields);
	return n > batch->target->nkeys;
}

bool
row_plans_compares(const RowBatch *batch, int column_set)
{
	int *fields = palloc(sizeof(int) * batch->target->nfields);
	int  n = statement_fields(batch->target, STATEMENT_UPDATE, batch->sets[column_set], fields);
	bool compares = n > batch->target->nkeys && statement_can_compare(batch->target, fields, n);

	pfree(fields);
	return compares;
}

uint64
row_plans_run(const RowBatch *batch, StatementKind kind, int column_set, const int *rows, int n, bool *hit,
			  Snapshot snapshot)
{
	PreparedSet  *prepared = prepare(batch, kind, column_set);
	bool          numbered = statement_numbers_rows(batch->target, kind);
	int           nparams = prepared->nfields;
	Datum        *values = palloc(sizeof(Datum) * (nparams + 1));
	MemoryContext context = CurrentMemoryContext;
	uint64        processed;
	int           result;

	for (int i = 0; i < nparams; i++)
		values[i] = column_array(batch, prepared->fields[i], rows, n);
	if (numbered)
		values[nparams++] = number_array(n);
	result = SPI_execute_snapshot(prepared->kept->plan, values, NULL, snapshot, InvalidSnapshot, false, true, 0);
	if (result < 0)
		elog(ERROR, "could not apply rows: %s", SPI_result_code_string(result));
	processed = SPI_processed;
	for (uint64 i = 0; numbered && i < processed; i++)
	{
		bool isnull;

		hit[DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull))] = true;
	}
	SPI_freetuptable(SPI_tuptable);
	MemoryContextSwitchTo(context);
	for (int i = 0; i < nparams; i++)
		pfree(DatumGetPointer(values[i]));
	pfree(values);
	return processed;
}
