/*
 * applier.c
 *		Processing: applies the next chunk of a lane.
 *
 * One transaction: lock the lane's cursor, read the chunk, become the
 * submitter, open the target and make the plans, convert the cells, apply,
 * become the owner again, write errors and cursor, commit.  Exactly-once is the
 * cursor: it moves in the transaction of the rows it stands for.
 *
 * Applying tries all rows in one subtransaction.  If that fails, one bad row
 * (at least) is in the chunk, and it is taken in blocks of 32 rows in the order
 * of the file; a block that fails is taken row by row in one subtransaction,
 * which is rolled back at the first bad row, whereupon the rows known to be
 * good are applied together and work goes on behind the bad one.  Kept
 * subtransactions are few that way, and before there are 50 (more than 64
 * would overflow a cache that every backend of the server looks into,
 * storage/ipc/procarray.c) the transaction is committed and the next one goes
 * on from the cursor's row offset.
 *
 * What can still fail is the commit itself, for constraint triggers that user
 * code has deferred again.  Nothing of the transaction is left then, so the
 * rows are tried again by halves until a single one is at fault; that one is
 * recorded in a transaction of its own.
 *
 * With order => 'file' the rows may depend on each other, so each is a
 * statement of its own, in the order of the file, unless the table has nothing
 * by which one row could feel another (target.c).  Several share a
 * subtransaction; after a bad row those before it are applied once more.
 *
 * Where one row of each key wins, the first transaction of a lane only compares
 * its keys (duplicates.c).
 *
 * With option dry_run the rows of each transaction are taken back before the
 * books are written (subtransaction.c).
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/injection.h"
#include "service/bookkeeping.h"
#include "service/markers.h"
#include "stage/applier.h"
#include "stage/constraints.h"
#include "stage/duplicates.h"
#include "stage/failure.h"
#include "stage/permission.h"
#include "stage/row_apply.h"
#include "stage/row_batch.h"

#define BLOCK_ROWS               32
#define MAX_KEPT_SUBTRANSACTIONS 49
#define LOCKED_DELAY_MS          100 /* until a lane is looked at again that somebody else holds */

/* Where the present transaction is; decides what an error means. */
typedef enum ApplyPhase
{
	PHASE_BOOKKEEPING,
	PHASE_PREPARE,
	PHASE_ROWS,
	PHASE_COMMIT
} ApplyPhase;

static volatile ApplyPhase phase = PHASE_BOOKKEEPING;

/* One transaction's work on a chunk. */
typedef struct Step
{
	MemoryContext context; /* everything of this step */
	RowBatch     *batch;
	Outcomes      outcomes;
	int           kept;       /* subtransactions released so far */
	int           nrows;      /* rows of the chunk that the step tried */
	int32         next_chunk; /* of the lane, afterwards */
} Step;

bool
applier_is_hopeless(void)
{
	return phase == PHASE_PREPARE;
}

/* ---- rows ---- */

static void
add_outcomes(Outcomes *sum, const Outcomes *part)
{
	sum->updated += part->updated;
	sum->inserted += part->inserted;
	sum->deleted += part->deleted;
	sum->unchanged += part->unchanged;
	sum->not_found += part->not_found;
}

typedef enum RowMode
{
	ALL_TOGETHER,
	ONE_BY_ONE
} RowMode;

/*
 * Applies rows in a subtransaction.  On an error it is as if nothing had been
 * done, *error says what it was, and the return value is the index in rows of
 * the one at fault (0 if they were applied together).  Otherwise n.
 */
static int
try_rows(Step *step, const int *rows, int n, RowMode mode, ErrorData **error)
{
	Subtransaction frame;
	RowResults    *results = palloc0(sizeof(RowResults) * Max(n, 1)); /* of each call */
	volatile int   at = 0;

	subtransaction_begin(&frame, step->context);
	PG_TRY();
	{
		if (mode == ALL_TOGETHER)
		{
			rows_apply(step->batch, rows, n, results);
			at = n;
		}
		else
			for (; at < n; at++)
			{
				/* What a trigger sets for its transaction (SET LOCAL) is not the next row's. */
				int level = NewGUCNestLevel();

				rows_apply(step->batch, rows + at, 1, &results[at]);
				AtEOXact_GUC(true, level);
			}
		subtransaction_end(&frame, true);
		step->kept++;
	}
	PG_CATCH();
	{
		*error = failure_catch_row_error(&frame);
		return at;
	}
	PG_END_TRY();

	/* Only now that it is kept: rows are tried more than once. */
	for (int call = 0; call < n; call++)
	{
		add_outcomes(&step->outcomes, &results[call].outcomes);
		for (int i = 0; i < results[call].nrefused; i++)
			rows_fail_refused(step->batch, &results[call].refused[i]);
	}
	return at;
}

static void
fail_row(Step *step, int row, const ErrorData *error)
{
	const char *column;

	/* A privilege that was revoked meanwhile is not the row's fault. */
	if (error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE)
	{
		phase = PHASE_PREPARE;
		target_check_privileges(step->batch->target);
		phase = PHASE_ROWS;
	}
	column = target_column_of_error(step->batch->target, error);
	row_batch_fail(step->batch, row, error->sqlerrcode, column, failure_text(error));
}

static bool
may_collide(const Target *target)
{
	return target->found == FOUND_UPDATE && target->on_missing == MISSING_INSERT;
}

/*
 * A key that is not there is inserted, and somebody else may have been quicker:
 * then it is there the second time.
 */
static bool
is_there_now(Step *step, int row, ErrorData **error)
{
	return (*error)->sqlerrcode == ERRCODE_UNIQUE_VIOLATION && may_collide(step->batch->target) &&
		   try_rows(step, &row, 1, ONE_BY_ONE, error) == 1;
}

/* Applies the rows of a block and records those that fail. */
static void
isolate_block(Step *step, const int *rows, int n)
{
	ErrorData *error;
	int        start = 0;

	if (n == 0 || try_rows(step, rows, n, ALL_TOGETHER, &error) == n)
		return;
	while (start < n)
	{
		int good = try_rows(step, rows + start, n - start, ONE_BY_ONE, &error);

		if (good == n - start)
			return;

		/*
		 * What went well one by one will go well again, or else, when a trigger
		 * decides by chance or by the time of day, there is one more bad row.
		 */
		isolate_block(step, rows + start, good);
		if (!is_there_now(step, rows[start + good], &error))
			fail_row(step, rows[start + good], error);
		start += good + 1;
	}
}

/* One row after the other; returns how many it got through. */
static int
apply_in_order(Step *step, const int *rows, int n)
{
	ErrorData *error;
	int        start = 0;

	while (start < n && step->kept < MAX_KEPT_SUBTRANSACTIONS)
	{
		int good = try_rows(step, rows + start, n - start, ONE_BY_ONE, &error);

		if (good == n - start)
			return n;
		if (good > 0)
		{
			int done = apply_in_order(step, rows + start, good);

			if (done < good)
				return start + done;
		}
		if (!is_there_now(step, rows[start + good], &error))
			fail_row(step, rows[start + good], error);
		start += good + 1;
	}
	return start;
}

/* Applies rows from .. to of the batch; returns the row up to which it came. */
static int
apply_range(Step *step, int from, int to)
{
	RowBatch  *batch = step->batch;
	int       *rows = palloc(sizeof(int) * Max(to - from, 1));
	int        n = 0;
	ErrorData *error;

	/* A block keeps one subtransaction before each bad row and one more; that of a row that collides, too. */
	int most_kept = (may_collide(batch->target) ? BLOCK_ROWS : BLOCK_ROWS / 2) + 1;

	for (int i = from; i < to; i++)
		if (!batch->rows[i].skipped)
			rows[n++] = i;
	if (batch->target->row_by_row)
	{
		int done = apply_in_order(step, rows, n);

		return done == n ? to : rows[done];
	}
	if (n == 0 || try_rows(step, rows, n, ALL_TOGETHER, &error) == n)
		return to;

	for (int start = from; start < to; start += BLOCK_ROWS)
	{
		int end = Min(start + BLOCK_ROWS, to);

		if (step->kept + most_kept > MAX_KEPT_SUBTRANSACTIONS)
			return start;
		n = 0;
		for (int i = start; i < end; i++)
			if (!batch->rows[i].skipped)
				rows[n++] = i;
		isolate_block(step, rows, n);
	}
	return to;
}

/* ---- transactions ---- */

/* Superseded rows that this step got past. */
static const SupersededRow *
superseded_up_to(const RowBatch *batch, int from, int to, int *n)
{
	int first = 0;

	while (first < batch->nsuperseded && batch->superseded[first].row.line < batch->rows[from].line)
		first++;
	*n = 0;
	while (first + *n < batch->nsuperseded &&
		   batch->superseded[first + *n].row.line <= batch->rows[to - 1].line)
		(*n)++;
	return batch->superseded + first;
}

/* Errors of rows that this step got past: not those it has not come to. */
static int
errors_up_to(RowBatch *batch, int from, int to)
{
	int kept = 0;

	for (int i = 0; i < batch->nerrors; i++)
		if (batch->errors[i].line >= batch->rows[from].line &&
			batch->errors[i].line <= batch->rows[to - 1].line)
			batch->errors[kept++] = batch->errors[i];
	return kept;
}

/*
 * PL/pgSQL keeps plans in which a column of NEW has the type that it had at
 * first, and then fails each row with 42804: a session that has run a table's
 * triggers is of no use to it once a column has another type.
 */
static bool needs_new_session = false;

bool
applier_needs_new_session(void)
{
	return needs_new_session;
}

static bool
is_of_old_session(const Target *target)
{
	static HTAB *shapes = NULL;
	struct Shape
	{
		Oid    relid;
		uint64 row_shape;
	} * known;
	bool found;

	if (shapes == NULL)
	{
		HASHCTL control = {.keysize = sizeof(Oid), .entrysize = sizeof(struct Shape)};

		shapes = hash_create("bulk_action row shapes", 16, &control, HASH_ELEM | HASH_BLOBS);
	}
	known = hash_search(shapes, &target->relid, HASH_ENTER, &found);
	if (!found)
		known->row_shape = target->row_shape;
	return known->row_shape != target->row_shape;
}

typedef enum StepResult
{
	STEP_LOCKED,     /* somebody else has the lane */
	STEP_ELSEWHERE,  /* another process has to do it */
	STEP_BEHIND,     /* the board did not know how far the lane is */
	STEP_MORE,       /* rows of the chunk are left, or all of them */
	STEP_DONE,       /* the chunk is done */
	STEP_OVER_BUDGET /* more rows have failed than may, and that is reported */
} StepResult;

/* The lane's first transaction, where one row of each key wins. */
static void
find_duplicates(const Action *action, const CsvField *header, int nfields, const Task *task)
{
	SubmitterFrame frame;
	Target        *target;

	phase = PHASE_PREPARE;
	submitter_enter(&action->submitter, &frame);
	target = target_open(action, header, nfields, AccessShareLock);
	submitter_leave(&frame);
	phase = PHASE_BOOKKEEPING;
	duplicates_find(action, target, task->lane);
	INJECTION("duplicates-before-commit");
	transaction_commit(&action->submitter, task->durable);
}

/*
 * Errors, superseded rows and the cursor after the rows from where it stood to
 * "to" of a chunk, and the commit.
 */
static StepResult
write_books(Step *step, const Action *action, const Task *task, Cursor *cursor, int to, int row_count)
{
	Bookkeeping          books;
	Failure              failure;
	bool                 over_budget;
	int                  nsuperseded;
	int                  from = cursor->row_offset;
	const SupersededRow *superseded;

	phase = PHASE_BOOKKEEPING;
	bookkeeping_enter(&books);
	step->outcomes.failed = errors_up_to(step->batch, from, to);
	jobs_insert_errors(action->action_no, step->batch->errors, (int) step->outcomes.failed);
	superseded = superseded_up_to(step->batch, from, to, &nsuperseded);
	step->outcomes.superseded = nsuperseded;
	jobs_insert_superseded(action->action_no, superseded, nsuperseded);
	cursor->row_offset = to;
	if (to == row_count)
	{
		cursor->next_chunk++;
		cursor->row_offset = 0;
	}
	jobs_move_cursor(action->action_no, task->lane, cursor, &step->outcomes);
	over_budget = step->outcomes.failed > 0 && jobs_budget_exceeded(action->action_no, false, &failure);
	if (over_budget)
		jobs_report_failure(action->action_no, &failure, false);
	bookkeeping_leave(&books);
	step->next_chunk = cursor->next_chunk;

	INJECTION("applier-before-commit");
	phase = PHASE_COMMIT;
	transaction_commit(&action->submitter, task->durable);
	INJECTION("applier-committed");
	if (over_budget)
		return STEP_OVER_BUDGET;
	return to == row_count ? STEP_DONE : STEP_MORE;
}

/*
 * One transaction on the lane's next chunk, with at most limit rows.  With
 * record_failure the first row is not applied but recorded as failed for that
 * reason, which the commit gave when the row was tried alone.
 */
static StepResult
apply_step(Step *step, const Action *action, const CsvField *header, int nfields, const Task *task,
		   int limit, const ErrorData *record_failure)
{
	Bookkeeping    books;
	SubmitterFrame frame;
	Subtransaction dry_run;
	Cursor         cursor;
	Target        *target;
	Duplicate     *duplicates = NULL;
	int            nduplicates = 0;
	char          *payload;
	size_t         length;
	int            row_count;
	int            from;
	int            to;
	bool           locked;

	phase = PHASE_BOOKKEEPING;
	transaction_start();
	MemoryContextSwitchTo(step->context);

	bookkeeping_enter(&books);
	locked = jobs_lock_cursor(action->action_no, task->lane, &cursor);
	if (!locked || cursor.next_chunk >= task->available)
	{
		bookkeeping_leave(&books);
		transaction_commit(NULL, false);
		step->next_chunk = locked ? cursor.next_chunk : 0;
		return locked ? STEP_BEHIND : STEP_LOCKED;
	}
	phase = PHASE_PREPARE;
	permission_check_action(action);
	phase = PHASE_BOOKKEEPING;
	if (action->options.duplicates != DUPLICATES_ALL && !cursor.keys_compared)
	{
		bookkeeping_leave(&books);
		markers_set(task, MARKER_KEYS, cursor.next_chunk);
		find_duplicates(action, header, nfields, task);
		return STEP_MORE;
	}
	markers_set(task, MARKER_CHUNK, cursor.next_chunk);
	payload = jobs_read_chunk(action->action_no, task->lane, cursor.next_chunk, &row_count, &length);
	if (action->options.duplicates != DUPLICATES_ALL)
		nduplicates = jobs_read_duplicates(action->action_no, task->lane, strtoll(payload, NULL, 10), &duplicates);
	bookkeeping_leave(&books);

	INJECTION("applier-locked");
	phase = PHASE_PREPARE;
	submitter_enter(&action->submitter, &frame);
	target = target_open(action, header, nfields, RowExclusiveLock);
	if (is_of_old_session(target))
	{
		submitter_leave(&frame);
		phase = PHASE_BOOKKEEPING;
		transaction_commit(NULL, false);
		needs_new_session = true;
		return STEP_ELSEWHERE;
	}
	if (action->options.dry_run)
		subtransaction_begin(&dry_run, step->context);
	phase = PHASE_ROWS;
	step->batch = row_batch_create(target, row_count);
	step->batch->duplicates = duplicates;
	step->batch->nduplicates = nduplicates;
	step->batch->duplicates_fail = action->options.duplicates == DUPLICATES_ERROR;
	row_batch_decode(step->batch, payload, length, row_count);
	from = cursor.row_offset;
	if (record_failure != NULL)
	{
		if (!step->batch->rows[from].skipped)
			fail_row(step, from, record_failure);
		to = from + 1;
	}
	else
	{
		phase = PHASE_PREPARE;
		rows_prepare(step->batch);
		constraints_prepare();
		phase = PHASE_ROWS;
		to = apply_range(step, from, row_count - from > limit ? from + limit : row_count);
		phase = PHASE_PREPARE;
		target_check_name(action); /* the statements went to the right table */
	}
	INJECTION("applier-applied");
	step->nrows = to - from;
	if (action->options.dry_run)
	{
		phase = PHASE_COMMIT;
		subtransaction_fire_deferred();
		subtransaction_end(&dry_run, false);
	}
	submitter_leave(&frame);

	return write_books(step, action, task, &cursor, to, row_count);
}

bool
applier_run(const Action *action, const CsvField *header, int nfields, const Task *task)
{
	static MemoryContext context = NULL;
	volatile int         limit = INT_MAX;
	ErrorData *volatile commit_error = NULL;
	volatile StepResult result = STEP_MORE;
	volatile int32      next_chunk = 0;
	volatile int        rows = 0;

	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "bulk_action chunk", ALLOCSET_DEFAULT_SIZES);

	while (result == STEP_MORE)
	{
		Step *step;

		if (commit_error == NULL)
			MemoryContextReset(context);
		step = MemoryContextAllocZero(context, sizeof(Step));
		step->context = context;
		PG_TRY();
		{
			result = apply_step(step, action, header, nfields, task, limit, commit_error);
			next_chunk = step->next_chunk;
			rows += step->nrows;
			commit_error = NULL;
			/* where one row was at fault the next may not be far */
			limit = limit > INT_MAX / 2 ? INT_MAX : limit * 2;
		}
		PG_CATCH();
		{
			ErrorData *error;

			MemoryContextSwitchTo(context);
			error = CopyErrorData();
			if (phase != PHASE_COMMIT || failure_kind(error) != FAILURE_OTHER || commit_error != NULL)
				PG_RE_THROW();
			FlushErrorState();
			transaction_abort();
			MemoryContextSwitchTo(TopMemoryContext);
			if (step->nrows > 1)
				limit = step->nrows / 2;
			else
				commit_error = error;
		}
		PG_END_TRY();
	}
	MemoryContextReset(context);
	markers_clear(task->slot);
	if (result == STEP_LOCKED)
		board_give_back(task, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOCKED_DELAY_MS));
	else if (result == STEP_ELSEWHERE)
		board_give_back(task, 0);
	else if (result != STEP_OVER_BUDGET)
		board_applied(task, next_chunk, rows);
	return result != STEP_OVER_BUDGET;
}
