/*
 * row_batch.c
 *		The rows of a chunk, decoded and converted.
 *
 * An input function reports bad input by an ERROR, and a domain's check is
 * user code, so conversion runs in a subtransaction.  There is one for all
 * rows: after an error it is rolled back, which keeps no subtransaction id, and
 * the next one goes on with the cell after the bad one.  What has been
 * converted stays, because it was allocated outside.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "pure/row_codec.h"
#include "stage/failure.h"
#include "stage/row_batch.h"
#include "stage/statements.h"

/* Where conversion stands; in memory, so that it outlives a longjmp. */
typedef struct Progress
{
	RowBatch      *batch;
	RowDecoder    *decoder;
	DecodedRow     decoded;
	bool           in_row;
	int            field;
	bool          *set;     /* fields that the present row sets */
	StringInfoData columns; /* errors of the present row */
	StringInfoData messages;
	int            code; /* of the first of them */
} Progress;

void
row_batch_fail(RowBatch *batch, int row, int sqlerrcode, const char *column, const char *message)
{
	RowError *error = &batch->errors[batch->nerrors];

	Assert(batch->nerrors < batch->nrows);
	batch->nerrors++;
	batch->rows[row].skipped = true;
	error->line = batch->rows[row].line;
	strlcpy(error->code, unpack_sql_state(sqlerrcode), sizeof(error->code));
	error->column = column;
	error->message = message;
	error->record = batch->rows[row].raw;
	error->record_length = batch->rows[row].raw_length;
}

static void
add_error(Progress *progress, int sqlerrcode, const char *column, const char *message)
{
	bool first = progress->messages.len == 0;

	if (first)
		progress->code = sqlerrcode;
	if (column != NULL)
		appendStringInfo(&progress->columns, "%s%s", progress->columns.len == 0 ? "" : ", ", column);
	appendStringInfo(&progress->messages, "%s%s", first ? "" : "; ", message);
}

/* True if the present row is not to be applied, for another one has its key. */
static bool
is_duplicate(Progress *progress)
{
	RowBatch        *batch = progress->batch;
	BatchRow        *row = &batch->rows[batch->nrows - 1];
	const Duplicate *duplicate;

	while (batch->nduplicates > 0 && batch->duplicates->line < row->line)
	{
		batch->duplicates++;
		batch->nduplicates--;
	}
	if (batch->nduplicates == 0 || batch->duplicates->line != row->line)
		return false;
	duplicate = batch->duplicates;
	row->skipped = true;
	if (batch->duplicates_fail)
		row_batch_fail(batch, batch->nrows - 1, ERRCODE_CARDINALITY_VIOLATION, target_key_names(batch->target),
					   psprintf("the key occurs more than once in the file: also in line %lld",
								(long long) duplicate->other_line));
	else
	{
		SupersededRow *superseded = &batch->superseded[batch->nsuperseded++];

		superseded->row = *duplicate;
		superseded->record = row->raw;
		superseded->record_length = row->raw_length;
	}
	return true;
}

static void
begin_row(Progress *progress)
{
	RowBatch *batch = progress->batch;
	Target   *target = batch->target;
	BatchRow *row = &batch->rows[batch->nrows++];

	row->line = progress->decoded.line;
	row->raw = progress->decoded.raw;
	row->raw_length = progress->decoded.raw_len;
	row->values = palloc0(sizeof(Datum) * (target->nfields + target->nkeys));
	row->keys = row->values + target->nfields;
	row->nulls = palloc0(sizeof(bool) * target->nfields);
	progress->in_row = true;
	progress->field = 0;
	memset(progress->set, 0, sizeof(bool) * target->nfields);
	resetStringInfo(&progress->columns);
	resetStringInfo(&progress->messages);

	if (progress->decoded.ncells != target->nfields)
	{
		char *message = psprintf("the row has %d fields, the header has %d",
								 progress->decoded.ncells, target->nfields);

		add_error(progress, ERRCODE_BAD_COPY_FILE_FORMAT, NULL, message);
		progress->field = target->nfields;
	}
}

static void
convert_cell(Progress *progress)
{
	RowBatch       *batch = progress->batch;
	int             field = progress->field;
	TargetColumn   *column = &batch->target->columns[field];
	const CsvField *cell = &progress->decoded.cells[field];

	BatchRow *row = &batch->rows[batch->nrows - 1];

	if (column->attnum == 0)
		return;
	switch (target_cell_meaning(batch->target, column, cell))
	{
		case CELL_NOTHING:
			/* A key that is looked for must be there; one that is inserted may be the table's own. */
			if (column->is_key && batch->target->found != FOUND_ERROR)
				add_error(progress, ERRCODE_NOT_NULL_VIOLATION, column->name, "the key is empty");
			return;
		case CELL_NULL:
			if (column->is_key)
			{
				add_error(progress, ERRCODE_NOT_NULL_VIOLATION, column->name, "the key is empty");
				return;
			}
			row->nulls[field] = true;
			row->values[field] = target_convert(column, NULL);
			break;
		case CELL_VALUE:
			row->values[field] = target_convert(column, cell->data);
			break;
	}
	progress->set[field] = true;
}

static int
find_set(RowBatch *batch, const bool *set)
{
	Size size = sizeof(bool) * batch->target->nfields;

	for (int i = batch->nsets - 1; i >= 0; i--)
		if (memcmp(batch->sets[i], set, size) == 0)
			return i;
	batch->sets[batch->nsets] = palloc(size);
	memcpy(batch->sets[batch->nsets], set, size);
	return batch->nsets++;
}

static bool
sets_anything(const Progress *progress)
{
	for (int f = 0; f < progress->batch->target->nfields; f++)
		if (progress->set[f])
			return true;
	return false;
}

static void
end_row(Progress *progress)
{
	RowBatch *batch = progress->batch;
	BatchRow *row = &batch->rows[batch->nrows - 1];

	progress->in_row = false;
	if (progress->messages.len == 0 && batch->target->on_missing == MISSING_INSERT && !sets_anything(progress))
		add_error(progress, ERRCODE_BAD_COPY_FILE_FORMAT, NULL, "all cells of the row are empty");
	if (progress->messages.len > 0)
	{
		row_batch_fail(batch, batch->nrows - 1, progress->code,
					   progress->columns.len > 0 ? pstrdup(progress->columns.data) : NULL,
					   pstrdup(progress->messages.data));
		return;
	}
	row->has_key = true;
	for (int i = 0; i < batch->target->nkeys; i++)
	{
		int field = batch->target->keys[i].field;

		if (field >= 0 && progress->set[field])
			row->keys[i] = row->values[field];
		else
			row->has_key = false;
	}
	row->column_set = find_set(batch, progress->set);
}

/* Converts until the end or until an input function raises an error. */
static void
convert_rows(Progress *progress, int row_count)
{
	for (;;)
	{
		if (!progress->in_row)
		{
			RowDecoderStatus status = row_decoder_next(progress->decoder, &progress->decoded);

			if (status == ROW_DECODER_END)
				return;
			if (status == ROW_DECODER_NO_MEMORY)
				ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
			if (status != ROW_DECODER_ROW || progress->batch->nrows == row_count)
				ereport(ERROR,
						(errcode(ERRCODE_DATA_CORRUPTED),
						 errmsg("a chunk of the queue is malformed"),
						 errdetail_internal("row %d: %s", progress->batch->nrows + 1,
											progress->decoded.message ? progress->decoded.message : "too many rows")));
			begin_row(progress);
			if (is_duplicate(progress))
			{
				progress->in_row = false;
				continue;
			}
		}
		for (; progress->field < progress->batch->target->nfields; progress->field++)
			convert_cell(progress);
		end_row(progress);
	}
}

RowBatch *
row_batch_create(Target *target, int row_count)
{
	RowBatch *batch = palloc0(sizeof(RowBatch));

	batch->target = target;
	batch->rows = palloc0(sizeof(BatchRow) * Max(row_count, 1));
	batch->sets = palloc(sizeof(bool *) * Max(row_count, 1));
	batch->prepared = palloc0(sizeof(struct PreparedSet *) * STATEMENT_KINDS * Max(row_count, 1));
	batch->errors = palloc0(sizeof(RowError) * Max(row_count, 1));
	batch->superseded = palloc0(sizeof(SupersededRow) * Max(row_count, 1));
	return batch;
}

void
row_batch_decode(RowBatch *batch, const char *payload, size_t length, int row_count)
{
	static RowDecoder *decoder = NULL;
	MemoryContext      context = CurrentMemoryContext;
	Subtransaction     frame;
	Target            *target = batch->target;
	Progress          *progress = palloc0(sizeof(Progress));
	volatile bool      done = false;

	if (decoder == NULL && (decoder = row_decoder_create(0, NULL)) == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));

	progress->batch = batch;
	progress->decoder = decoder;
	progress->set = palloc(sizeof(bool) * target->nfields);
	initStringInfo(&progress->columns);
	initStringInfo(&progress->messages);
	row_decoder_set_payload(decoder, payload, length);

	while (!done)
	{
		subtransaction_begin(&frame, context);
		PG_TRY();
		{
			convert_rows(progress, row_count);
			subtransaction_end(&frame, true);
			done = true;
		}
		PG_CATCH();
		{
			ErrorData *error = failure_catch_row_error(&frame);

			if (!progress->in_row)
				ReThrowError(error); /* the payload itself */
			add_error(progress, error->sqlerrcode, target->columns[progress->field].name,
					  failure_text(error));
			progress->field++;
		}
		PG_END_TRY();
	}
	if (batch->nrows != row_count)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a chunk of the queue has %d rows instead of %d", batch->nrows, row_count)));
}
