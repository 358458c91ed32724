/*
 * chunker.c
 *		Chunking: cuts the next segment of a source into chunks.
 *
 *	1	Read where the source stands; at the very beginning pin the object.
 *	2	Download the segment, and decode it where it has to be, holding no
 *		transaction (a snapshot held while waiting for the network would keep
 *		vacuum from its work everywhere).
 *	3	One transaction: parse, without a transaction id and where possible without
 *		a snapshot, because what others have deleted meanwhile (old versions of
 *		rows that workers are updating, above all) is not given back while either
 *		is held; lock the source's row and see that it still stands there, so that
 *		a second chunking worker, or one that was cut off and comes back, does no
 *		harm; route each row to a lane by the hash of its key; write the chunks,
 *		the parser's errors, the segment and the new position; commit.
 *
 * Where option duplicates has one row of each key win (or none), the file is
 * read twice: the same steps first write, in place of chunks, the keys of each
 * lane (step 3 ends with the source standing at its beginning again).  Which
 * rows win is found lane by lane before the first chunk of a lane is applied
 * (duplicates.c).
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/error_codes.h"
#include "base/injection.h"
#include "pure/lane_assignment.h"
#include "pure/row_codec.h"
#include "service/bookkeeping.h"
#include "service/markers.h"
#include "stage/chunker.h"
#include "stage/permission.h"
#include "stage/segment.h"
#include "stage/source_text.h"
#include "stage/target.h"

#define CHUNK_BYTES (1024 * 1024)

/* The first segment is small so that applying starts early; each is twice the one before. */
#define SEGMENT_FIRST   ((int64) 1024 * 1024)
#define SEGMENT_LARGEST ((int64) 8 * 1024 * 1024)

/* Of a source that is decoded: what is read ahead is kept in memory, and there are decoders besides. */
#define SEGMENT_LARGEST_DECODED ((int64) 4 * 1024 * 1024)

/* Added to each window: room for the record that begins before the segment's end. */
#define WINDOW_TAIL  (CSV_READER_DEFAULT_MAX_RECORD + CSV_READER_LOOKAHEAD)
#define WINDOW_BYTES (SEGMENT_LARGEST + (int64) WINDOW_TAIL)

#define LOCKED_DELAY_MS 100 /* until a source is looked at again that somebody else holds */

static volatile bool hopeless = false;
static MemoryContext task_context = NULL;
static char         *window = NULL;

bool
chunker_is_hopeless(void)
{
	return hopeless;
}

/* ---- writing ---- */

/* Orders the rows by lane, keeping the order of the file within each. */
static int *
route_rows(const SegmentParse *parse, int lanes, int *lane_start)
{
	int *lane_of = palloc_extended(sizeof(int) * Max(parse->nrows, 1), MCXT_ALLOC_HUGE);
	int *order = palloc_extended(sizeof(int) * Max(parse->nrows, 1), MCXT_ALLOC_HUGE);
	int  next[MAX_LANES];

	memset(lane_start, 0, sizeof(int) * (MAX_LANES + 1));
	for (int i = 0; i < parse->nrows; i++)
	{
		lane_of[i] = lane_of_hash(parse->rows[i].hash, lanes);
		lane_start[lane_of[i] + 1]++;
	}
	for (int lane = 0; lane < lanes; lane++)
	{
		lane_start[lane + 1] += lane_start[lane];
		next[lane] = lane_start[lane];
	}
	for (int i = 0; i < parse->nrows; i++)
		order[next[lane_of[i]]++] = i;
	pfree(lane_of);
	return order;
}

/* Writes all rows as chunks, lane by lane. */
static void
write_chunks(const Action *action, const SegmentParse *parse, SourceState *state, Segment *segment)
{
	int  lane_start[MAX_LANES + 1];
	int *order = route_rows(parse, state->lanes, lane_start);
	int  generation = jobs_write_generation();
	int  max_chunks = parse->nrows / MAX_CHUNK_ROWS + state->lanes +
					 (int) (4 * WINDOW_BYTES / CHUNK_BYTES); /* two in a row hold more than CHUNK_BYTES */
	RowBuffer buffer = {.realloc_fn = segment_buffer_realloc};

	segment->chunk_lanes = palloc(sizeof(int16) * max_chunks);
	segment->chunk_numbers = palloc(sizeof(int32) * max_chunks);
	segment->chunk_rows = palloc(sizeof(int32) * max_chunks);

	for (int lane = 0; lane < state->lanes; lane++)
	{
		int at = lane_start[lane];

		while (at < lane_start[lane + 1])
		{
			int count = 0;

			buffer.len = 0;
			while (at < lane_start[lane + 1] && count < MAX_CHUNK_ROWS)
			{
				const SegmentRow *row = &parse->rows[order[at]];

				if (count > 0 && buffer.len + row_codec_raw_size(row->line, row->length) > CHUNK_BYTES)
					break;
				(void) row_codec_append_raw(&buffer, row->line, segment_row_text(parse, row), row->length);
				count++;
				at++;
			}
			if (segment->nchunks == max_chunks)
				elog(ERROR, "segment has more than %d chunks", max_chunks);
			segment->chunk_lanes[segment->nchunks] = lane;
			segment->chunk_numbers[segment->nchunks] = state->lane_chunks[lane];
			segment->chunk_rows[segment->nchunks++] = count;
			jobs_insert_chunk(generation, action->action_no, lane, state->lane_chunks[lane]++,
							  segment->segment_no, count, buffer.data, buffer.len);
		}
	}
	if (buffer.data != NULL)
		pfree(buffer.data);
	pfree(order);
}

/* Writes the keys of all rows, lane by lane. */
static void
write_keys(const Action *action, const SegmentParse *parse, const SourceState *state)
{
	int       lane_start[MAX_LANES + 1];
	int      *order = route_rows(parse, state->lanes, lane_start);
	RowBuffer buffer = {.realloc_fn = segment_buffer_realloc};

	for (int lane = 0; lane < state->lanes; lane++)
	{
		int count = lane_start[lane + 1] - lane_start[lane];

		if (count == 0)
			continue;
		buffer.len = 0;
		for (int i = lane_start[lane]; i < lane_start[lane + 1]; i++)
		{
			const SegmentRow *row = &parse->rows[order[i]];

			(void) row_buffer_append(&buffer, parse->keys.data + row->offset, row->length);
		}
		jobs_insert_keys(action->action_no, lane, state->next_segment, count, buffer.data, buffer.len);
	}
	pfree(order);
}

/*
 * The number of lanes, decided with the first segment and never changed: one
 * where the order of all rows counts or keys cannot be hashed, as many as there
 * are chunks where the file ends in it, else all.
 */
static int
decide_lanes(const Action *action, const SegmentParse *parse)
{
	if (action->options.order == ORDER_FILE || !parse->target->hashable)
		return 1;
	if (parse->ended)
		return Max(1, Min(MAX_LANES, (parse->seen + MAX_CHUNK_ROWS - 1) / MAX_CHUNK_ROWS));
	return MAX_LANES;
}

/* ---- the task ---- */

static int64
segment_size(const SourceState *state)
{
	int64 size = state->next_segment >= 3 ? SEGMENT_LARGEST : SEGMENT_FIRST << state->next_segment;

	return state->encoding != NULL && source_text_is_decoded(state) ? Min(size, SEGMENT_LARGEST_DECODED) : size;
}

/* Inside bookkeeping: an error if a file of so many bytes or rows is larger than it may be. */
static void
check_limits(const Action *action, int64 bytes, int64 rows)
{
	Failure failure;

	if (!jobs_file_exceeds(action->action_no, bytes, rows, &failure))
		return;
	hopeless = true;
	ereport(ERROR,
			(errcode(ERRCODE_BULK_ACTION_FILE_TOO_LARGE), errmsg_internal("%s", failure.message),
			 errdetail_internal("%s", failure.detail), errhint("%s", failure.hint)));
}

static void
check_size(const Action *action, int64 bytes)
{
	Bookkeeping books;

	transaction_start();
	MemoryContextSwitchTo(task_context);
	bookkeeping_enter(&books);
	check_limits(action, bytes, 0);
	bookkeeping_leave(&books);
	transaction_commit(NULL, false);
	MemoryContextSwitchTo(task_context);
}

/* Step 1: where the source stands, pinning it if this is the beginning. */
static void
find_place(ActionSession *session, SourceState *state)
{
	Bookkeeping books;
	bool        found;

	transaction_start();
	MemoryContextSwitchTo(task_context);
	bookkeeping_enter(&books);
	found = jobs_read_source(session->action->action_no, state);
	hopeless = true;
	permission_check_action(session->action);
	bookkeeping_leave(&books);
	transaction_commit(NULL, false);
	MemoryContextSwitchTo(task_context);

	action_session_open_source(session);
	MemoryContextSwitchTo(task_context);
	if (!found)
	{
		SourcePin pin;

		source_pin(session->source, &pin);
		check_size(session->action, pin.size);
		state->size = pin.size;
		state->etag = pin.etag;
		state->version_id = pin.version_id;
		state->next_line = 1;
		state->scanning = session->action->options.duplicates != DUPLICATES_ALL;
	}
}

/* Parses the window as the submitter. */
static void
parse_window(ActionSession *session, SourceState *state, SegmentParse *parse, const SourceText *text)
{
	SubmitterFrame frame;
	int64          skip = 0;

	parse->window = text->data;
	parse->row_limit_offset = state->next_offset + segment_size(state);

	if (state->next_offset == 0)
		skip = csv_skip_bom(text->data, text->length);
	csv_reader_set_input(parse->reader, text->data + skip, text->length - skip, text->is_final,
						 state->next_offset + skip, state->next_line, state->in_skipped_line);
	if (state->next_segment == 0)
		source_text_header(session, parse, state);
	else if (session->nfields == 0)
		action_session_set_header(session, state->header, strlen(state->header), state->key_signature);

	submitter_enter(&session->action->submitter, &frame);
	parse->target = target_open(session->action, session->header, session->nfields, AccessShareLock);
	if (state->key_signature == NULL)
	{
		state->key_signature = parse->target->key_signature;
		session->action->key_signature = MemoryContextStrdup(session->context, state->key_signature);
	}
	hopeless = false;
	if (target_keys_are_builtin(parse->target))
	{
		PopActiveSnapshot();
		InvalidateCatalogSnapshotConditionally();
		segment_parse(parse);
		PushActiveSnapshot(GetTransactionSnapshot());
	}
	else
		segment_parse(parse);
	INJECTION("chunker-parsed");
	submitter_leave(&frame);
}

/* Writes what the segment has: its chunks, the parser's errors, and where the next one begins. */
static void
write_segment(const Action *action, const SegmentParse *parse, SourceState *state)
{
	Segment segment = {0};

	segment.segment_no = state->next_segment;
	segment.start_offset = state->next_offset;
	segment.end_offset = parse->record.end_offset;
	segment.first_line = state->next_line;
	segment.row_count = parse->nrows + parse->nerrors;
	segment.parse_errors = parse->nerrors;
	state->parse_errors += parse->nerrors;
	write_chunks(action, parse, state, &segment);
	jobs_insert_errors(action->action_no, parse->errors, parse->nerrors);
	jobs_insert_segment(action->action_no, &segment);
}

static void
advance(const SegmentParse *parse, SourceState *state, const SourceText *text)
{
	int64 end = (int64) parse->record.end_offset;
	bool  at_end = parse->ended || (text->is_final && end >= state->next_offset + text->length);

	if (state->scanning && at_end)
	{
		/* All keys are known: from the beginning, for the rows. */
		state->scanning = false;
		state->rows_read = 0;
		state->next_segment = 0;
		state->next_offset = 0;
		state->next_line = 1;
		state->in_skipped_line = false;
		state->raw_offset = state->restart.offset = state->restart.raw_offset = 0;
		return;
	}
	state->next_segment++;
	state->next_offset = end;
	source_text_note_place(text, state, end);
	state->next_line = parse->record.end_line;
	state->in_skipped_line = parse->record.skip_to_line_end;
	state->at_end = at_end;
}

/* More rows have failed than may: noted in the transaction of the segment that does it. */
static bool
report_errors(const Action *action, const SegmentParse *parse)
{
	Failure failure;

	if (parse->nerrors == 0 || !jobs_budget_exceeded(action->action_no, false, &failure))
		return false;
	jobs_report_failure(action->action_no, &failure, false);
	return true;
}

typedef enum SegmentResult
{
	SEGMENT_ELSEWHERE, /* the source does not stand there any more */
	SEGMENT_WRITTEN,
	SEGMENT_OVER_BUDGET /* written, and more rows have failed than may */
} SegmentResult;

/* Step 3: one transaction. */
static SegmentResult
commit_segment(ActionSession *session, SourceState *state, const SourceText *text, bool durable)
{
	const Action *action = session->action;
	Bookkeeping   books;
	SourceState   locked;
	SegmentParse *parse;
	bool          over_budget;

	hopeless = false;
	transaction_start();
	MemoryContextSwitchTo(task_context);
	parse = segment_create(source_text_reader(session, state, text), state->scanning);
	parse->plain = dialect_is_plain(&action->options.file, state->delimiter);
	parse->pad = action->options.file.pad;
	parse->encoding = decoder_is_utf8(state->encoding) ? NULL : state->encoding;

	hopeless = true;
	parse_window(session, state, parse, text);

	hopeless = false;
	bookkeeping_enter(&books);
	if (state->next_segment == 0)
		jobs_insert_source(action->action_no, state);
	if (!jobs_lock_source(action->action_no, &locked) || locked.next_offset != state->next_offset ||
		locked.at_end || locked.scanning != state->scanning || strcmp(locked.etag, state->etag) != 0)
	{
		bookkeeping_leave(&books);
		transaction_abort(); /* and whatever the checks of domains have done */
		return SEGMENT_ELSEWHERE;
	}
	state->rows_read += parse->seen;
	check_limits(action, 0, state->rows_read);
	if (state->lanes == 0)
	{
		state->lanes = decide_lanes(action, parse);
		jobs_create_cursors(action->action_no, state->lanes);
	}
	if (state->scanning)
		write_keys(action, parse, state);
	else
		write_segment(action, parse, state);
	advance(parse, state, text);
	jobs_write_source(action->action_no, state);
	over_budget = report_errors(action, parse);
	bookkeeping_leave(&books);
	if (parse->keys_only)
		INJECTION("scanner-before-commit");
	else
		INJECTION("chunker-before-commit");
	transaction_commit(&action->submitter, durable);
	INJECTION("chunker-committed");
	return over_budget ? SEGMENT_OVER_BUDGET : SEGMENT_WRITTEN;
}

/* Gives back space of the queue, now that there is more in it. */
static void
rotate(void)
{
	Bookkeeping books;

	transaction_start();
	bookkeeping_enter(&books);
	jobs_rotate(false);
	bookkeeping_leave(&books);
	INJECTION("chunker-before-rotation");
	transaction_commit(NULL, false);
}

bool
chunker_run(ActionSession *session, const Task *task)
{
	SourceState   state;
	SourceText    text = {0};
	SegmentResult result = SEGMENT_WRITTEN;
	bool          decoded = false;

	hopeless = false;
	if (task_context == NULL)
		task_context = AllocSetContextCreate(TopMemoryContext, "bulk_action segment",
											 ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(task_context);
	if (window == NULL)
		window = MemoryContextAllocHuge(TopMemoryContext, WINDOW_BYTES);

	find_place(session, &state);
	if (!state.at_end)
	{
		text.data = window;
		text.size = segment_size(&state) + (int64) WINDOW_TAIL;
		markers_set(task, MARKER_SEGMENT, state.next_segment);
		INJECTION("chunker-before-download");
		source_text_read(session, &state, &text);
		decoded = text.stream != NULL;
		INJECTION("chunker-downloaded");
		result = commit_segment(session, &state, &text, task->durable);
		if (result != SEGMENT_ELSEWHERE)
			source_text_keep(&text, &state);
	}
	markers_clear(task->slot);
	hopeless = false;
	rotate();
	if (result == SEGMENT_WRITTEN)
		board_chunked(task, state.lanes, state.lane_chunks, state.at_end, decoded);
	else if (result == SEGMENT_ELSEWHERE)
		board_give_back(task, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOCKED_DELAY_MS));
	MemoryContextReset(task_context);
	return result != SEGMENT_OVER_BUDGET;
}
