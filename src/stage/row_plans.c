/*
 * row_plans.c
 *		Plans of the statements that apply rows, and running them.
 *
 * Rows reach a statement as an ephemeral named relation, as transition tables
 * reach triggers: a tuplestore that the parser finds under a name as long as it
 * is registered with SPI's present connection.  Nobody else sees that name, what
 * triggers and functions run included.  (One array for each column and unnest()
 * does the same, at a fifth more of all CPU time where columns are 60.)
 *
 * Plans are made with hash join, merge join, sequential scan and JIT off, and as
 * if tables were large: a nested loop that looks each row up by the key's index,
 * whatever the table is like now.  It will do when the table has grown, and it
 * evaluates policies for no other rows.  (Where policies come before the index, as
 * asks_policies_first() explains, hash join stays on.)  A planner hook sees to that whenever the
 * plan cache makes such a plan, which may be in the midst of an action: of what
 * makes a plan invalid (DDL, another search path because a trigger has made a
 * temporary table, row_security) much is known only when the statement is run.
 * INSERT, which has nothing to look up, and what triggers and functions run are
 * planned as ever.
 *
 * The statement's text and the types of the rows' columns identify its plan, so
 * a changed column type leads to another plan; other changes are seen by the
 * plan cache.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "jit/jit.h"
#include "lib/stringinfo.h"
#include "optimizer/cost.h"
#include "optimizer/plancat.h"
#include "optimizer/planner.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/queryenvironment.h"
#include "utils/resowner.h"
#include "utils/tuplestore.h"

#include "stage/row_plans.h"

/* Statements kept; with more combinations of columns the oldest goes. */
#define MAX_PLANS 64

/*
 * What is wrong with the table shows in any statement; files with very many
 * combinations need not have each of them prepared twice.
 */
#define PREPARED_FIRST 8

/* What the planner is told, so that plans do not depend on the batch they are made with. */
#define EXPECTED_ROWS 1000

/* What it is told of tables that have less. */
#define LARGE_ROWS  1000000.0
#define LARGE_PAGES 10000

/* Above this, kB, rows of one statement go through a temporary file: a chunk has about 1 MB of text. */
#define ROWS_KB (64 * 1024)

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
	int      *fields; /* that it needs */
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

/*
 * The rows, as SPI knows them.  In static memory: after an error SPI may still
 * have it on its list.
 */
static EphemeralNamedRelationData relation = {
	.md = {.name = STATEMENT_ROWS, .enrtype = ENR_NAMED_TUPLESTORE, .enrtuples = EXPECTED_ROWS}};

static void
show_rows(TupleDesc desc, Tuplestorestate *rows)
{
	(void) SPI_unregister_relation(STATEMENT_ROWS);
	relation.md.tupdesc = desc;
	relation.reldata = rows;
	if (SPI_register_relation(&relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register the rows");
}

/*
 * One for all rows of a file, whatever they set: an UPDATE registers the type of
 * the relation's rows for the rest of the session.
 */
static TupleDesc
describe_rows(const Target *target)
{
	int       natts = 1;
	TupleDesc desc;

	for (int f = 0; f < target->nfields; f++)
		natts += target->columns[f].attnum != 0;
	desc = CreateTemplateTupleDesc(natts);
	TupleDescInitEntry(desc, 1, "n", INT4OID, -1, 0);
	for (int f = 0; f < target->nfields; f++)
	{
		const TargetColumn *column = &target->columns[f];
		char                name[NAMEDATALEN];

		if (column->attnum == 0)
			continue;
		snprintf(name, sizeof(name), "v%d", column->place);
		TupleDescInitEntry(desc, column->place + 1, name, column->type, column->typmod, 0);
		TupleDescInitEntryCollation(desc, column->place + 1, column->collation); /* or it may be at odds with t's */
	}
	return desc;
}

/* ---- planning ---- */

static planner_hook_type           next_planner = NULL; /* never NULL once our hook is there */
static get_relation_info_hook_type next_relation_info_hook = NULL;
static bool                        planning = false;            /* a statement of ours */
static bool                        policies_come_first = false; /* before the key can be looked at */

static void
see_large_table(PlannerInfo *root, Oid relid, bool inhparent, RelOptInfo *rel)
{
	ListCell *cell;

	if (next_relation_info_hook != NULL)
		next_relation_info_hook(root, relid, inhparent, rel);
	if (!planning)
		return;
	rel->tuples = Max(rel->tuples, LARGE_ROWS);
	rel->pages = Max(rel->pages, LARGE_PAGES);
	foreach(cell, rel->indexlist)
	{
		IndexOptInfo *index = lfirst(cell);

		index->tuples = Max(index->tuples, LARGE_ROWS);
		index->pages = Max(index->pages, LARGE_PAGES / 4);
	}
}

/* Transition tables, which may have any name, know what table they are of. */
static bool
reads_rows(const Query *query)
{
	ListCell *cell;

	foreach(cell, query->rtable)
	{
		RangeTblEntry *entry = lfirst(cell);

		if (entry->rtekind == RTE_NAMEDTUPLESTORE && !OidIsValid(entry->relid) &&
			strcmp(entry->enrname, STATEMENT_ROWS) == 0)
			return true;
	}
	return false;
}

static const char *const setting_names[] = {"enable_hashjoin", "enable_mergejoin", "enable_seqscan", "jit"};
static bool *const       settings[] = {&enable_hashjoin, &enable_mergejoin, &enable_seqscan, &jit_enabled};

/* Through guc.c: functions that are run to estimate or fold something may set these, too. */
static PlannedStmt *
plan_with(const bool *values, bool is_ours, Query *query, const char *text, int cursor_options, ParamListInfo params)
{
	bool         planning_before = planning;
	int          level = NewGUCNestLevel();
	PlannedStmt *result;

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(setting_names[i], values[i] ? "on" : "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	planning = is_ours;
	PG_TRY();
	{
		result = next_planner(query, text, cursor_options, params);
	}
	PG_FINALLY();
	{
		planning = planning_before;
	}
	PG_END_TRY();
	AtEOXact_GUC(true, level);
	return result;
}

static PlannedStmt *
plan_query(Query *query, const char *text, int cursor_options, ParamListInfo params)
{
	static bool theirs[lengthof(settings)];
	bool        ours[lengthof(settings)] = {[0] = policies_come_first}; /* enable_hashjoin */

	if (reads_rows(query))
	{
		for (int i = 0; i < lengthof(settings) && !planning; i++)
			theirs[i] = *settings[i];
		return plan_with(ours, true, query, text, cursor_options, params);
	}
	if (planning) /* in a function that the planner has called */
		return plan_with(theirs, false, query, text, cursor_options, params);
	return next_planner(query, text, cursor_options, params);
}

static void
install_hooks(void)
{
	static bool installed = false;

	if (installed)
		return;
	next_planner = planner_hook != NULL ? planner_hook : standard_planner;
	planner_hook = plan_query;
	next_relation_info_hook = get_relation_info_hook;
	get_relation_info_hook = see_large_table;
	installed = true;
}

/* ---- plans ---- */

static KeptPlan *
find_plan(const char *sql, TupleDesc desc)
{
	StringInfoData key;
	KeptPlan      *kept = &plans[0];

	initStringInfo(&key);
	for (int i = 0; i < desc->natts; i++)
		appendStringInfo(&key, "%u %d %u ", TupleDescAttr(desc, i)->atttypid, TupleDescAttr(desc, i)->atttypmod,
						 TupleDescAttr(desc, i)->attcollation);
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

	install_hooks();
	forget(kept);
	kept->plan = SPI_prepare_cursor(sql, 0, NULL, CURSOR_OPT_GENERIC_PLAN);
	if (kept->plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	SPI_keepplan(kept->plan);
	kept->key = MemoryContextStrdup(TopMemoryContext, key.data);
	kept->last_used = kept->number = ++uses;
	return kept;
}

/* The rows by their place among those given to the statement, with the values it needs. */
static Tuplestorestate *
store_rows(const RowBatch *batch, const PreparedSet *prepared, const int *rows, int n)
{
	Tuplestorestate *store = tuplestore_begin_heap(false, false, ROWS_KB);
	int              natts = batch->desc->natts;
	Datum           *values = palloc0(sizeof(Datum) * natts);
	bool            *nulls = palloc(sizeof(bool) * natts);

	memset(nulls, true, sizeof(bool) * natts);
	nulls[0] = false;
	for (int i = 0; i < n; i++)
	{
		const BatchRow *row = &batch->rows[rows[i]];

		values[0] = Int32GetDatum(i);
		for (int f = 0; f < prepared->nfields; f++)
		{
			int field = prepared->fields[f];
			int place = batch->target->columns[field].place;

			values[place] = row->values[field];
			nulls[place] = row->nulls[field];
		}
		tuplestore_putvalues(store, batch->desc, values, nulls);
	}
	pfree(values);
	pfree(nulls);
	return store;
}

/*
 * Where there are policies, and no column of the key has an equality that is
 * leakproof (numeric and enums have none), PostgreSQL asks them about every row
 * of the table before it compares keys, and an index is of no use.
 */
static bool
asks_policies_first(const Target *target)
{
	if (!target->row_security)
		return false;
	for (int i = 0; i < target->nkeys; i++)
		if (get_func_leakproof(get_opcode(target->keys[i].equality)))
			return false;
	return true;
}

static PreparedSet *
prepare(RowBatch *batch, StatementKind kind, int column_set)
{
	const Target *target = batch->target;
	MemoryContext context = CurrentMemoryContext;
	PreparedSet **place = &batch->prepared[column_set * STATEMENT_KINDS + kind];
	PreparedSet  *prepared = *place;
	MemoryContext planning_context;
	CachedPlan   *cached;

	policies_come_first = asks_policies_first(target);
	if (prepared != NULL && prepared->kept->number == prepared->number)
		return prepared; /* else it had to make room */
	if (prepared == NULL)
	{
		MemoryContextSwitchTo(GetMemoryChunkContext(batch->prepared));
		prepared = palloc(sizeof(PreparedSet));
		prepared->fields = palloc(sizeof(int) * target->nfields);
		prepared->nfields = statement_fields(target, kind, batch->sets[column_set], prepared->fields);
		if (batch->desc == NULL)
			batch->desc = describe_rows(target);
		MemoryContextSwitchTo(context);
	}
	show_rows(batch->desc, NULL);

	/* the planner leaves behind what it needed; a batch can have a thousand sets */
	planning_context = AllocSetContextCreate(context, "bulk_action planning", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(planning_context);
	prepared->kept = find_plan(statement_build(target, kind, prepared->fields, prepared->nfields), batch->desc);
	prepared->number = prepared->kept->number;
	*place = prepared;
	MemoryContextSwitchTo(planning_context); /* SPI leaves us in a context of its own */
	cached = SPI_plan_get_cached_plan(prepared->kept->plan);
	if (cached != NULL)
		ReleaseCachedPlan(cached, CurrentResourceOwner);
	MemoryContextSwitchTo(context);
	MemoryContextDelete(planning_context);
	return prepared;
}

void
row_plans_prepare(RowBatch *batch, StatementKind kind)
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
row_plans_run(RowBatch *batch, StatementKind kind, int column_set, const int *rows, int n, bool *hit,
			  Snapshot snapshot)
{
	PreparedSet     *prepared = prepare(batch, kind, column_set);
	Tuplestorestate *store = store_rows(batch, prepared, rows, n);
	MemoryContext    context = CurrentMemoryContext;
	uint64           processed;
	int              result;

	show_rows(batch->desc, store);
	result = SPI_execute_snapshot(prepared->kept->plan, NULL, NULL, snapshot, InvalidSnapshot, false, true, 0);
	if (result < 0)
		elog(ERROR, "could not apply rows: %s", SPI_result_code_string(result));
	processed = SPI_processed;
	for (uint64 i = 0; statement_numbers_rows(batch->target, kind) && i < processed; i++)
	{
		bool isnull;

		hit[DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull))] = true;
	}
	SPI_freetuptable(SPI_tuptable);
	MemoryContextSwitchTo(context);
	tuplestore_end(store);
	return processed;
}
