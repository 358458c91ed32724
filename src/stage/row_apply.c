/*
 * row_apply.c
 *		Applies rows of a batch to the target, a set of them at a time.
 *
 * Rows go in the order of their keys, so that transactions that overlap lock
 * rows in one order; rows with the same key go in successive waves, in the
 * order of the file.  Those of a wave that set the same columns are one set,
 * to which at most these statements are applied, in this order:
 *
 *	0	Rows that are there and would be as they are already are set apart, if many
 *		of the rows before were such: see compares_first().
 *	1	Rows that are in the table are updated or deleted, if that is wanted.
 *	2	If not all were: where option match is given, DIFFERS tells those that
 *		are there with other values.  FIND tells those that are there and were
 *		left as they are (nothing would change, or a trigger said no) from those
 *		that are not there.
 *	3	Those are counted, refused or inserted.
 *
 * 3 passes over a key that is there only where that is wanted.  Otherwise the
 * unique index says no: to a row that somebody else has inserted since 1, which
 * is found when rows are tried again one by one (applier.c), and to one that 1
 * did not see for other reasons, because row-level security hides it, or a
 * trigger makes another key of the one in the file.  Passed over, nothing would
 * become of those in silence.
 */
#include "postgres.h"

#include "utils/snapmgr.h"

#include "base/error_codes.h"
#include "stage/constraints.h"
#include "stage/row_apply.h"
#include "stage/row_plans.h"

/* From so many rows on a set tells what the next one will be like; a part like this of it is much. */
#define FEW_ROWS  100
#define MANY_SAME 16

/* Rows of one set that are not done yet. */
typedef struct RowSet
{
	RowBatch *batch;
	int       column_set;
	int      *rows;
	int       n;
	bool     *hit; /* by place in rows */
} RowSet;

static int
compare_rows(const void *left, const void *right, void *arg)
{
	RowBatch       *batch = arg;
	int             l = *(const int *) left;
	int             r = *(const int *) right;
	const BatchRow *one = &batch->rows[l];
	const BatchRow *other = &batch->rows[r];
	int             order = 0;

	/* rows without a key are like no other */
	if (one->has_key && other->has_key)
		order = target_compare_keys(batch->target, one->keys, other->keys);
	else if (one->has_key != other->has_key)
		order = one->has_key ? -1 : 1;
	return order != 0 ? order : (l > r) - (l < r);
}

static bool
same_key(const RowBatch *batch, int left, int right)
{
	const BatchRow *one = &batch->rows[left];
	const BatchRow *other = &batch->rows[right];

	return one->has_key && other->has_key && target_compare_keys(batch->target, one->keys, other->keys) == 0;
}

static uint64
run_at(RowSet *set, StatementKind kind, Snapshot snapshot)
{
	uint64 found;

	memset(set->hit, 0, sizeof(bool) * set->n);
	found = row_plans_run(set->batch, kind, set->column_set, set->rows, set->n, set->hit, snapshot);
	if (kind != STATEMENT_FIND && kind != STATEMENT_SAME && kind != STATEMENT_DIFFERS)
		constraints_check_deferred();
	if (found > set->n)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("%d rows of the file matched %llu rows of the table", set->n,
						(unsigned long long) found),
				 errhint("The key has to be unique; look for rules and triggers of the table.")));
	return found;
}

static uint64
run(RowSet *set, StatementKind kind)
{
	return run_at(set, kind, InvalidSnapshot);
}

/*
 * Rows that are in the table and were there for a statement that began when
 * nothing was committed but what "before" sees.  It may have waited for locks:
 * what others inserted meanwhile it has not left as it is, it has not seen it.
 */
static uint64
find_seen(RowSet *set, Snapshot before)
{
	bool  *hit = set->hit;
	uint64 found = run(set, STATEMENT_FIND);
	uint64 seen = 0;

	if (found == 0 || GetTransactionSnapshot()->snapXactCompletionCount == before->snapXactCompletionCount)
		return found;
	set->hit = palloc(sizeof(bool) * set->n);
	(void) run_at(set, STATEMENT_FIND, before);
	for (int i = 0; i < set->n; i++)
	{
		hit[i] = hit[i] && set->hit[i];
		seen += hit[i];
	}
	pfree(set->hit);
	set->hit = hit;
	return seen;
}

/* Leaves only the rows that the last statement did not hit. */
static void
keep_missed(RowSet *set)
{
	int kept = 0;

	for (int i = 0; i < set->n; i++)
		if (!set->hit[i])
			set->rows[kept++] = set->rows[i];
	set->n = kept;
}

static void
refuse(RowResults *results, int row, Refusal why)
{
	results->refused[results->nrefused].row = row;
	results->refused[results->nrefused++].why = why;
}

/* Step 2, for deletions: rows that do not match are refused. */
static void
refuse_differing(RowSet *set, RowResults *results)
{
	(void) run(set, STATEMENT_DIFFERS);
	for (int i = 0; i < set->n; i++)
		if (set->hit[i])
			refuse(results, set->rows[i], REFUSED_DIFFERS);
	keep_missed(set);
}

/*
 * What an UPDATE leaves as it is takes one more look, to tell it from what is
 * not there.  So where files say much that is known already it is cheaper to
 * look for that first: a file that says nothing new takes one statement in
 * place of two.  As it is one more where all rows differ, the rows before decide;
 * of each worker, for nothing but the time it takes depends on it.  Not where it
 * would be noticed: by triggers that fire for each UPDATE, and where only a lock
 * tells what policies let the submitter update.
 */
static Oid  compared_table = InvalidOid;
static bool many_same = false;

static bool
compares_first(const RowSet *set)
{
	const Target *target = set->batch->target;

	return many_same && target->relid == compared_table && !target->row_security && !target->fires_per_statement &&
		   row_plans_compares(set->batch, set->column_set);
}

/* Few rows say nothing of those that follow. */
static void
note_same(const RowSet *set, uint64 same)
{
	if (set->n < FEW_ROWS)
		return;
	compared_table = set->batch->target->relid;
	many_same = same > set->n / MANY_SAME;
}

/* Steps 0, 1 and 2: what is there.  Leaves the rows that are not. */
static void
apply_found(RowSet *set, RowResults *results)
{
	Target       *target = set->batch->target;
	bool          deletes = target->found == FOUND_DELETE;
	StatementKind kind = deletes ? STATEMENT_DELETE : STATEMENT_UPDATE;
	Snapshot      before;
	uint64        changed = 0;

	if (!deletes && compares_first(set))
	{
		uint64 same = run(set, STATEMENT_SAME);

		results->outcomes.unchanged += same;
		note_same(set, same);
		keep_missed(set);
		if (set->n == 0)
			return;
	}
	before = RegisterSnapshot(GetTransactionSnapshot());
	if (deletes || row_plans_sets_anything(set->batch, set->column_set))
		changed = run(set, kind);
	if (deletes)
		results->outcomes.deleted += changed;
	else
		results->outcomes.updated += changed;
	if (changed == set->n)
		set->n = 0;
	else if (changed > 0 && !statement_numbers_rows(target, kind))
	{
		/* which rows were changed need not be known: those not there are only counted */
		uint64 there = Max(find_seen(set, before), changed);

		note_same(set, there - changed);
		results->outcomes.unchanged += there - changed;
		results->outcomes.not_found += set->n - there;
		set->n = 0;
	}
	else if (changed > 0)
		keep_missed(set);
	if (set->n > 0 && deletes && target->has_match)
		refuse_differing(set, results);
	if (set->n > 0)
	{
		uint64 there = find_seen(set, before);

		note_same(set, there);
		results->outcomes.unchanged += there;
		keep_missed(set);
	}
	UnregisterSnapshot(before);
}

static StatementKind
insert_kind(const Target *target, bool keyed)
{
	return keyed && target->found == FOUND_SKIP ? STATEMENT_INSERT_ABSENT : STATEMENT_INSERT;
}

/* Step 3: what is not there. */
static void
apply_missing(RowSet *set, RowResults *results)
{
	Target *target = set->batch->target;
	bool    keyed = set->batch->rows[set->rows[0]].has_key;
	uint64  inserted;

	if (target->on_missing == MISSING_REPORT)
		results->outcomes.not_found += set->n;
	else if (target->on_missing == MISSING_ERROR)
		for (int i = 0; i < set->n; i++)
			refuse(results, set->rows[i], REFUSED_MISSING);
	else
	{
		/* a trigger, or what is there, left out the others */
		inserted = run(set, insert_kind(target, keyed));
		results->outcomes.inserted += inserted;
		results->outcomes.unchanged += set->n - inserted;
	}
}

static void
apply_set(RowSet *set, RowResults *results)
{
	FoundRow found = set->batch->target->found;

	if (set->batch->rows[set->rows[0]].has_key && (found == FOUND_UPDATE || found == FOUND_DELETE))
		apply_found(set, results);
	if (set->n > 0)
		apply_missing(set, results);
}

void
rows_apply(RowBatch *batch, const int *rows, int n, RowResults *results)
{
	int   *sorted = palloc(sizeof(int) * n);
	int   *waves = palloc(sizeof(int) * n);
	int    last_wave = 0;
	RowSet set = {.batch = batch};

	memset(results, 0, sizeof(*results));
	results->refused = palloc(sizeof(RefusedRow) * n);
	set.rows = palloc(sizeof(int) * n);
	set.hit = palloc(sizeof(bool) * n);

	memcpy(sorted, rows, sizeof(int) * n);
	qsort_arg(sorted, n, sizeof(int), compare_rows, batch);
	for (int i = 0; i < n; i++)
	{
		waves[i] = i > 0 && same_key(batch, sorted[i - 1], sorted[i]) ? waves[i - 1] + 1 : 0;
		last_wave = Max(last_wave, waves[i]);
	}

	for (int wave = 0; wave <= last_wave; wave++)
		for (set.column_set = 0; set.column_set < batch->nsets; set.column_set++)
		{
			set.n = 0;
			for (int i = 0; i < n; i++)
				if (waves[i] == wave && batch->rows[sorted[i]].column_set == set.column_set)
					set.rows[set.n++] = sorted[i];
			if (set.n > 0)
				apply_set(&set, results);
		}
	pfree(sorted);
	pfree(waves);
	pfree(set.rows);
	pfree(set.hit);
}

void
rows_prepare(RowBatch *batch)
{
	Target *target = batch->target;

	if (target->found == FOUND_UPDATE)
		row_plans_prepare(batch, STATEMENT_UPDATE);
	if (target->found == FOUND_DELETE)
		row_plans_prepare(batch, STATEMENT_DELETE);
	if (target->on_missing == MISSING_INSERT)
		row_plans_prepare(batch, insert_kind(target, true));
}

void
rows_fail_refused(RowBatch *batch, const RefusedRow *refused)
{
	if (refused->why == REFUSED_DIFFERS)
		row_batch_fail(batch, refused->row, ERRCODE_BULK_ACTION_ROW_DIFFERS, target_key_names(batch->target),
					   "the row of the table has other values in the columns that must match");
	else
		row_batch_fail(batch, refused->row, ERRCODE_NO_DATA_FOUND, target_key_names(batch->target),
					   "no row of the table has this key");
}
