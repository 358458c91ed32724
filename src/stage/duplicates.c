/*
 * duplicates.c
 *		Which rows of a lane are not applied because others have the same key.
 *
 * Rows with the same key are in the same lane, so lanes are independent, and
 * each is dealt with before its first chunk is applied, in one transaction:
 * read the lane's keys as the first reading of the file has left them, convert
 * them, sort them by key and line, and write down every row of a group that
 * does not win; by line, because chunks are looked up by line.  The keys are
 * compared as the unique index of the target compares them, so the outcome is
 * exact.
 *
 * PostgreSQL's own sort (utils/sort/tuplesort.c) holds SORT_MEMORY_KB in memory
 * and the rest in temporary files, whatever the size of the file.
 *
 * A row whose key does not convert is like no other row.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/tuplesort.h"
#include "utils/typcache.h"

#include "pure/row_codec.h"
#include "service/bookkeeping.h"
#include "stage/duplicates.h"
#include "stage/failure.h"

#define SORT_MEMORY_KB      8192 /* for the keys */
#define SORT_LINE_MEMORY_KB 2048 /* for the lines that lose */

/* The keys of one segment, converted; in memory, so that it outlives a longjmp. */
typedef struct KeyBlock
{
	RowDecoder *decoder;
	DecodedRow  decoded;
	bool        in_row;
	int         nkeys;
	int         row_count; /* that the segment says it has */
	int         decoded_rows;
	int         n;      /* that have converted */
	Datum      *values; /* nkeys per row */
	int64      *lines;
} KeyBlock;

/* ---- conversion ---- */

static void
convert_keys(Target *target, KeyBlock *block)
{
	for (;;)
	{
		Datum           *values = block->values + (Size) block->n * block->nkeys;
		RowDecoderStatus status = row_decoder_next(block->decoder, &block->decoded);

		if (status == ROW_DECODER_END && block->decoded_rows == block->row_count)
			return;
		if (status == ROW_DECODER_NO_MEMORY)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
		if (status != ROW_DECODER_ROW || block->decoded.ncells != block->nkeys ||
			block->decoded_rows == block->row_count)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("the keys of a segment are malformed"),
					 errdetail_internal("%s", block->decoded.message ? block->decoded.message :
																	   "another number of rows or cells")));
		block->decoded_rows++;
		block->in_row = true;
		for (int i = 0; i < block->nkeys; i++)
			values[i] = target_convert(&target->columns[target->keys[i].field], block->decoded.cells[i].data);
		block->in_row = false;
		block->lines[block->n++] = block->decoded.line;
	}
}

/* Conversions run in subtransactions as in row_batch.c. */
static void
read_block(Target *target, KeyBlock *block, const char *payload, size_t length, int row_count)
{
	MemoryContext  context = CurrentMemoryContext;
	Subtransaction frame;
	volatile bool  done = false;

	block->n = block->decoded_rows = 0;
	block->row_count = row_count;
	block->in_row = false;
	block->nkeys = target->nkeys;
	block->values = palloc_extended(sizeof(Datum) * row_count * target->nkeys, MCXT_ALLOC_HUGE);
	block->lines = palloc(sizeof(int64) * row_count);
	row_decoder_set_payload(block->decoder, payload, length);
	while (!done)
	{
		subtransaction_begin(&frame, context);
		PG_TRY();
		{
			convert_keys(target, block);
			subtransaction_end(&frame, !target->dry_run); /* checks of domains may have done something */
			done = true;
		}
		PG_CATCH();
		{
			ErrorData *error = failure_catch_row_error(&frame);

			if (!block->in_row)
				ReThrowError(error);
			FreeErrorData(error);
			block->in_row = false;
		}
		PG_END_TRY();
	}
}

/* ---- sorting ---- */

/* The key columns and the line number. */
static TupleDesc
describe_keys(const Target *target)
{
	TupleDesc desc = CreateTemplateTupleDesc(target->nkeys + 1);

	for (int i = 0; i < target->nkeys; i++)
	{
		const TargetColumn *column = &target->columns[target->keys[i].field];

		TupleDescInitEntry(desc, i + 1, column->name, column->type, column->typmod, 0);
		TupleDescInitEntryCollation(desc, i + 1, target->keys[i].collation);
	}
	TupleDescInitEntry(desc, target->nkeys + 1, "line", INT8OID, -1, 0);
	return desc;
}

/* By key; and then so that the row that wins is the first with its key. */
static Tuplesortstate *
begin_sort(const Target *target, TupleDesc desc, bool last_wins)
{
	int             n = target->nkeys + 1;
	TypeCacheEntry *line = lookup_type_cache(INT8OID, TYPECACHE_LT_OPR | TYPECACHE_GT_OPR);
	AttrNumber     *columns = palloc(sizeof(AttrNumber) * n);
	Oid            *operators = palloc(sizeof(Oid) * n);
	Oid            *collations = palloc(sizeof(Oid) * n);
	bool           *nulls_first = palloc0(sizeof(bool) * n);

	for (int i = 0; i < target->nkeys; i++)
	{
		columns[i] = i + 1;
		operators[i] = target->keys[i].less;
		collations[i] = target->keys[i].collation;
	}
	columns[n - 1] = n;
	operators[n - 1] = last_wins ? line->gt_opr : line->lt_opr;
	collations[n - 1] = InvalidOid;
	return tuplesort_begin_heap(desc, n, columns, operators, collations, nulls_first, SORT_MEMORY_KB, NULL,
								TUPLESORT_NONE);
}

static void
put_block(Tuplesortstate *sort, TupleTableSlot *slot, const KeyBlock *block)
{
	for (int i = 0; i < block->n; i++)
	{
		ExecClearTuple(slot);
		for (int k = 0; k < block->nkeys; k++)
			slot->tts_values[k] = block->values[(Size) i * block->nkeys + k];
		slot->tts_values[block->nkeys] = Int64GetDatum(block->lines[i]);
		memset(slot->tts_isnull, 0, sizeof(bool) * (block->nkeys + 1));
		ExecStoreVirtualTuple(slot);
		tuplesort_puttupleslot(sort, slot);
		CHECK_FOR_INTERRUPTS();
	}
}

/* ---- the rows that lose ---- */

/* Duplicates by line: pairs of line and other line. */
static TupleDesc
describe_lines(void)
{
	TupleDesc desc = CreateTemplateTupleDesc(2);

	TupleDescInitEntry(desc, 1, "line", INT8OID, -1, 0);
	TupleDescInitEntry(desc, 2, "other_line", INT8OID, -1, 0);
	return desc;
}

static Tuplesortstate *
begin_line_sort(TupleDesc desc)
{
	AttrNumber column = 1;
	Oid        operator= lookup_type_cache(INT8OID, TYPECACHE_LT_OPR)->lt_opr;
	Oid        collation = InvalidOid;
	bool       nulls_first = false;

	return tuplesort_begin_heap(desc, 1, &column, &operator, & collation, &nulls_first, SORT_LINE_MEMORY_KB,
								NULL, TUPLESORT_NONE);
}

static void
put_duplicate(Tuplesortstate *sort, TupleTableSlot *slot, int64 line, int64 other_line)
{
	ExecClearTuple(slot);
	slot->tts_values[0] = Int64GetDatum(line);
	slot->tts_values[1] = Int64GetDatum(other_line);
	slot->tts_isnull[0] = slot->tts_isnull[1] = false;
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(sort, slot);
}

static int64
line_of(TupleTableSlot *slot, int column)
{
	bool isnull;

	return DatumGetInt64(slot_getattr(slot, column, &isnull));
}

/*
 * Walks the groups of equal keys.  The first row of a group wins; in mode
 * DUPLICATES_ERROR it fails like the others, once there is another one.
 */
static void
collect_duplicates(Target *target, Tuplesortstate *keys, TupleDesc desc, bool all_fail,
				   Tuplesortstate *lines, TupleTableSlot *line_slot)
{
	TupleTableSlot *winner = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	int             line_column = target->nkeys + 1;
	bool            alone = true; /* winner has met no other row */

	while (tuplesort_gettupleslot(keys, true, true, slot, NULL))
	{
		int64 line;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		if (TupIsNull(winner) || target_compare_keys(target, winner->tts_values, slot->tts_values) != 0)
		{
			TupleTableSlot *swap = winner;

			winner = slot;
			slot = swap;
			alone = true;
			continue;
		}
		line = line_of(slot, line_column);
		if (alone && all_fail)
			put_duplicate(lines, line_slot, line_of(winner, line_column), line);
		put_duplicate(lines, line_slot, line, line_of(winner, line_column));
		alone = false;
	}
	ExecDropSingleTupleTableSlot(winner);
	ExecDropSingleTupleTableSlot(slot);
}

static void
write_duplicates(const Action *action, int lane, Tuplesortstate *lines, TupleDesc desc)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	Duplicate      *rows = palloc(sizeof(Duplicate) * DUPLICATES_BLOCK);
	int             n = 0;

	while (tuplesort_gettupleslot(lines, true, false, slot, NULL))
	{
		rows[n].line = line_of(slot, 1);
		rows[n++].other_line = line_of(slot, 2);
		if (n == DUPLICATES_BLOCK)
		{
			jobs_insert_duplicates(action->action_no, lane, rows, n);
			n = 0;
		}
	}
	if (n > 0)
		jobs_insert_duplicates(action->action_no, lane, rows, n);
	ExecDropSingleTupleTableSlot(slot);
	pfree(rows);
}

void
duplicates_find(const Action *action, Target *target, int lane)
{
	static RowDecoder *decoder = NULL;
	DuplicatesMode     mode = action->options.duplicates;
	MemoryContext      context = CurrentMemoryContext;
	MemoryContext      block_context = AllocSetContextCreate(context, "keys", ALLOCSET_DEFAULT_SIZES);
	TupleDesc          line_desc = describe_lines();
	TupleTableSlot    *line_slot = MakeSingleTupleTableSlot(line_desc, &TTSOpsVirtual);
	Tuplesortstate    *lines;
	Tuplesortstate    *keys;
	TupleTableSlot    *slot;
	TupleDesc          desc;
	SubmitterFrame     frame;
	Bookkeeping        books;
	int                segment_no = -1;

	if (decoder == NULL && (decoder = row_decoder_create(0, NULL)) == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));

	/* User code may run wherever keys are converted or compared. */
	submitter_enter(&action->submitter, &frame);
	desc = describe_keys(target);
	keys = begin_sort(target, desc, mode == DUPLICATES_LAST);
	lines = begin_line_sort(line_desc);
	slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	submitter_leave(&frame);

	for (;;)
	{
		KeyBlock block = {.decoder = decoder};
		char    *payload;
		size_t   length;
		int      row_count;
		bool     found;

		MemoryContextSwitchTo(block_context);
		bookkeeping_enter(&books);
		found = jobs_next_keys(action->action_no, lane, &segment_no, &row_count, &payload, &length);
		bookkeeping_leave(&books);
		if (!found)
			break;
		submitter_enter(&action->submitter, &frame);
		read_block(target, &block, payload, length, row_count);
		put_block(keys, slot, &block);
		submitter_leave(&frame);
		MemoryContextReset(block_context);
	}
	MemoryContextSwitchTo(context);

	submitter_enter(&action->submitter, &frame);
	tuplesort_performsort(keys);
	collect_duplicates(target, keys, desc, mode == DUPLICATES_ERROR, lines, line_slot);
	tuplesort_end(keys);
	submitter_leave(&frame);

	bookkeeping_enter(&books);
	tuplesort_performsort(lines);
	write_duplicates(action, lane, lines, line_desc);
	tuplesort_end(lines);
	jobs_finish_keys(action->action_no, lane);
	bookkeeping_leave(&books);
	ExecDropSingleTupleTableSlot(slot);
	ExecDropSingleTupleTableSlot(line_slot);
	MemoryContextDelete(block_context);
}
