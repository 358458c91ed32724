/*
 * chunker.c
 *		Chunking: cuts the next segment of a source into chunks.
 *
 *	1	Read where the source stands; at the very beginning pin the object.
 *	2	Download the segment, holding no transaction (a snapshot held while
 *		waiting for the network would keep vacuum from its work everywhere).
 *	3	One transaction: lock the source's row and see that it still stands
 *		there, so that a second chunking worker, or one that was cut off and
 *		comes back, does no harm; parse; route each row to a lane by the hash of
 *		its key; write the chunks, the parser's errors, the segment and the new
 *		position; commit.
 *
 * The key is hashed as its type sees it (01 and 1 are one integer, and UUIDs
 * have no case), because rows with the same key must meet in one lane.  Its
 * input functions may depend on settings such as DateStyle, so this part runs
 * as the submitter with what was captured.  A key that does not convert goes
 * by its line number; the error is found again when the row is applied.
 *
 * Rows stay where they were downloaded until they are written, so the memory
 * is the window, 24 bytes a row and one chunk.
 */
#include "postgres.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "base/injection.h"
#include "pure/lane_assignment.h"
#include "pure/row_codec.h"
#include "service/bookkeeping.h"
#include "stage/chunker.h"
#include "stage/failure.h"
#include "stage/target.h"

#define CHUNK_ROWS  1000
#define CHUNK_BYTES (1024 * 1024)

/* The first segment is small so that applying starts early; each is twice the one before. */
#define SEGMENT_FIRST   ((int64) 1024 * 1024)
#define SEGMENT_LARGEST ((int64) 8 * 1024 * 1024)
#define SEGMENT_ROWS    131072

/* Added to each window: room for the record that begins before the segment's end. */
#define WINDOW_TAIL  (CSV_READER_DEFAULT_MAX_RECORD + CSV_READER_LOOKAHEAD)
#define WINDOW_BYTES (SEGMENT_LARGEST + (int64) WINDOW_TAIL)

#define LOCKED_DELAY_MS 100 /* until a source is looked at again that somebody else holds */

typedef struct SegmentRow
{
	uint32 offset; /* in the window */
	uint32 length;
	int64  line;
	uint64 hash;
} SegmentRow;

/* One segment while it is being parsed; in memory, so that it outlives a longjmp. */
typedef struct Parse
{
	MemoryContext context;
	Target       *target;
	CsvReader    *reader;
	CsvRecord     record;
	bool          in_record; /* record is a good one whose key is being converted */
	const char   *window;
	int64         row_limit_offset; /* records that begin here or later are the next segment's */
	SegmentRow   *rows;
	int           nrows;
	int           max_rows;
	RowError     *errors;
	int           nerrors;
	int           max_errors;
	bool          ended;
} Parse;

static volatile bool hopeless = false;
static MemoryContext task_context = NULL;
static char         *window = NULL;

bool
chunker_is_hopeless(void)
{
	return hopeless;
}

/* ---- parsing ---- */

/* A record as text: bytes that are none in the server's encoding are shown as \xHH. */
static char *
printable(const char *raw, size_t length)
{
	StringInfoData text;

	initStringInfo(&text);
	for (size_t i = 0; i < length;)
	{
		int width = raw[i] == '\0' ? 0 : Min(pg_mblen(raw + i), (int) (length - i));

		if (width > 0 && pg_verifymbstr(raw + i, width, true))
			appendBinaryStringInfo(&text, raw + i, width);
		else
		{
			appendStringInfo(&text, "\\x%02X", (unsigned char) raw[i]);
			width = 1;
		}
		i += width;
	}
	return text.data;
}

static void
add_error(Parse *parse, int sqlerrcode, const char *message)
{
	const CsvRecord *record = &parse->record;
	RowError        *error;

	if (parse->nerrors == parse->max_errors)
	{
		parse->max_errors *= 2;
		parse->errors = repalloc_huge(parse->errors, sizeof(RowError) * parse->max_errors);
	}
	error = &parse->errors[parse->nerrors++];
	memset(error, 0, sizeof(*error));
	error->line = record->line;
	strlcpy(error->code, unpack_sql_state(sqlerrcode), sizeof(error->code));
	error->message = pstrdup(message);
	error->record = printable(record->raw, record->raw_len);
	error->record_length = strlen(error->record);
}

static void
add_bad_record(Parse *parse)
{
	int code = ERRCODE_BAD_COPY_FILE_FORMAT;

	if (parse->record.error == CSV_READER_ERROR_NUL_BYTE)
		code = ERRCODE_CHARACTER_NOT_IN_REPERTOIRE;
	else if (parse->record.error == CSV_READER_ERROR_TOO_LONG)
		code = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
	add_error(parse, code, parse->record.message);
}

static void
add_row(Parse *parse, uint64 hash)
{
	const CsvRecord *record = &parse->record;
	SegmentRow      *row;

	if (parse->nrows == parse->max_rows)
	{
		parse->max_rows *= 2;
		parse->rows = repalloc_huge(parse->rows, sizeof(SegmentRow) * parse->max_rows);
	}
	row = &parse->rows[parse->nrows++];
	row->offset = (uint32) (record->raw - parse->window);
	row->length = (uint32) record->raw_len;
	row->line = record->line;
	row->hash = hash;
}

/* Converts the key and hashes it; an input function may raise an error. */
static uint64
hash_key(Parse *parse)
{
	Target          *target = parse->target;
	const CsvRecord *record = &parse->record;
	Datum            values[INDEX_MAX_KEYS];

	if (!target->hashable)
		return 0;
	if (record->nfields != target->nfields)
		return record->line;
	for (int i = 0; i < target->nkeys; i++)
	{
		const CsvField *cell = &record->fields[target->keys[i].field];

		if (cell->is_null)
			return record->line;
		values[i] = target_convert(&target->columns[target->keys[i].field], cell->data);
	}
	return target_hash_key(target, values);
}

/* Parses until the segment is full, its bytes are used up, or a key does not convert. */
static void
parse_records(Parse *parse, MemoryContext key_context)
{
	CsvRecord *record = &parse->record;

	while (parse->nrows + parse->nerrors < SEGMENT_ROWS)
	{
		CsvReaderStatus status = csv_reader_next(parse->reader, record);
		uint64          hash;

		if (status == CSV_READER_NO_MEMORY)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
		parse->ended = status == CSV_READER_END;
		if (status == CSV_READER_END || status == CSV_READER_NEED_MORE)
			return;
		if (status == CSV_READER_BAD_RECORD)
			add_bad_record(parse);
		else if (!pg_verifymbstr(record->raw, (int) record->raw_len, true))
			add_error(parse, ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
					  psprintf("the row has bytes that are not valid %s", GetDatabaseEncodingName()));
		else
		{
			parse->in_record = true;
			MemoryContextSwitchTo(key_context);
			hash = hash_key(parse);
			MemoryContextSwitchTo(parse->context);
			parse->in_record = false;
			add_row(parse, hash);
			if (parse->nrows % CHUNK_ROWS == 0)
				MemoryContextReset(key_context);
		}
		if ((int64) record->end_offset >= parse->row_limit_offset)
			return;
	}
}

/* As the submitter; conversions run in subtransactions as in row_batch.c. */
static void
parse_segment(Parse *parse)
{
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext key_context = AllocSetContextCreate(parse->context, "keys", ALLOCSET_DEFAULT_SIZES);
	volatile bool done = false;

	while (!done)
	{
		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(parse->context);
		PG_TRY();
		{
			parse_records(parse, key_context);
			ReleaseCurrentSubTransaction();
			MemoryContextSwitchTo(parse->context);
			CurrentResourceOwner = owner;
			done = true;
		}
		PG_CATCH();
		{
			ErrorData *error = failure_catch_row_error(parse->context, owner);

			if (!parse->in_record)
				ReThrowError(error);
			FreeErrorData(error);
			parse->in_record = false;
			add_row(parse, parse->record.line);
			done = (int64) parse->record.end_offset >= parse->row_limit_offset;
		}
		PG_END_TRY();
	}
	MemoryContextDelete(key_context);
}

/* Reads the header at the start of the file. */
static void
take_header(ActionSession *session, Parse *parse, SourceState *state)
{
	CsvReaderStatus status = csv_reader_next(parse->reader, &parse->record);

	if (status == CSV_READER_END)
		ereport(ERROR,
				(errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
				 errmsg("the file is empty"),
				 errhint("Its first line must name the columns, with a comma between them.")));
	if (status != CSV_READER_RECORD ||
		!pg_verifymbstr(parse->record.raw, (int) parse->record.raw_len, true))
		ereport(ERROR,
				(errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
				 errmsg("the header of the file cannot be read"),
				 errdetail("%s.", status == CSV_READER_BAD_RECORD ? parse->record.message :
																	"it is not a complete line of valid text"),
				 errhint("The first line must name the columns, with a comma between them.")));
	state->header = pnstrdup(parse->record.raw, parse->record.raw_len);
	action_session_set_header(session, state->header, parse->record.raw_len);
}

/* ---- writing ---- */

/* Orders the rows by lane, keeping the order of the file within each. */
static int *
route_rows(const Parse *parse, int lanes, int *lane_start)
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

static void *
buffer_realloc(void *pointer, size_t size)
{
	return pointer == NULL ? MemoryContextAlloc(task_context, size) : repalloc(pointer, size);
}

/* Writes all rows as chunks, lane by lane. */
static void
write_chunks(const Action *action, const Parse *parse, SourceState *state, Segment *segment)
{
	int  lane_start[MAX_LANES + 1];
	int *order = route_rows(parse, state->lanes, lane_start);
	int  generation = jobs_write_generation();
	int  max_chunks = parse->nrows / CHUNK_ROWS + state->lanes +
					 (int) (4 * WINDOW_BYTES / CHUNK_BYTES); /* two in a row hold more than CHUNK_BYTES */
	RowBuffer buffer = {.realloc_fn = buffer_realloc};

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
			while (at < lane_start[lane + 1] && count < CHUNK_ROWS)
			{
				const SegmentRow *row = &parse->rows[order[at]];

				if (count > 0 && buffer.len + row_codec_raw_size(row->line, row->length) > CHUNK_BYTES)
					break;
				(void) row_codec_append_raw(&buffer, row->line, parse->window + row->offset, row->length);
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

/*
 * The number of lanes, decided with the first segment and never changed: one
 * where keys cannot be hashed, as many as there are chunks where the file ends
 * in it, else all.
 */
static int
decide_lanes(const Parse *parse)
{
	if (!parse->target->hashable)
		return 1;
	if (parse->ended)
		return Max(1, Min(MAX_LANES, (parse->nrows + CHUNK_ROWS - 1) / CHUNK_ROWS));
	return MAX_LANES;
}

/* ---- the task ---- */

static int64
segment_size(int segment_no)
{
	return segment_no >= 3 ? SEGMENT_LARGEST : SEGMENT_FIRST << segment_no;
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
	bookkeeping_leave(&books);
	transaction_commit(NULL, false);
	MemoryContextSwitchTo(task_context);

	hopeless = true;
	action_session_open_source(session);
	MemoryContextSwitchTo(task_context);
	if (!found)
	{
		SourcePin pin;

		source_pin(session->source, &pin);
		state->size = pin.size;
		state->etag = pin.etag;
		state->version_id = pin.version_id;
		state->next_line = 1;
	}
}

/* Parses the window as the submitter. */
static void
parse_window(ActionSession *session, SourceState *state, Parse *parse, int64 window_length)
{
	SubmitterFrame frame;
	int64          skip = 0;

	parse->max_rows = 4096;
	parse->rows = palloc(sizeof(SegmentRow) * parse->max_rows);
	parse->max_errors = 64;
	parse->errors = palloc(sizeof(RowError) * parse->max_errors);
	parse->window = window;
	parse->row_limit_offset = state->next_offset + segment_size(state->next_segment);

	if (state->next_offset == 0)
		skip = csv_skip_bom(window, window_length);
	csv_reader_set_input(parse->reader, window + skip, window_length - skip,
						 state->next_offset + window_length >= state->size,
						 state->next_offset + skip, state->next_line, state->in_skipped_line);
	if (state->next_segment == 0)
		take_header(session, parse, state);
	else if (session->nfields == 0)
		action_session_set_header(session, state->header, strlen(state->header));

	submitter_enter(&session->action->submitter, &frame);
	parse->target = target_open(session->action, session->header, session->nfields, AccessShareLock);
	hopeless = false;
	parse_segment(parse);
	INJECTION("chunker-parsed");
	submitter_leave(&frame);
}

/* Step 3: one transaction; false if the source does not stand there any more. */
static bool
commit_segment(ActionSession *session, SourceState *state, int64 window_length)
{
	static CsvReader *reader = NULL;
	const Action     *action = session->action;
	Bookkeeping       books;
	SourceState       locked;
	Segment           segment = {0};
	Parse            *parse;

	if (reader == NULL && (reader = csv_reader_create(NULL, NULL)) == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));

	hopeless = false;
	transaction_start();
	MemoryContextSwitchTo(task_context);
	parse = palloc0(sizeof(Parse));
	parse->context = task_context;
	parse->reader = reader;

	bookkeeping_enter(&books);
	if (state->next_segment == 0)
		jobs_insert_source(action->action_no, state);
	if (!jobs_lock_source(action->action_no, &locked) || locked.next_offset != state->next_offset ||
		locked.at_end || strcmp(locked.etag, state->etag) != 0)
	{
		bookkeeping_leave(&books);
		transaction_commit(NULL, false);
		return false;
	}
	bookkeeping_leave(&books);

	hopeless = true;
	parse_window(session, state, parse, window_length);

	hopeless = false;
	bookkeeping_enter(&books);
	if (state->next_segment == 0)
	{
		state->lanes = decide_lanes(parse);
		jobs_create_cursors(action->action_no, state->lanes);
	}
	segment.segment_no = state->next_segment;
	segment.start_offset = state->next_offset;
	segment.end_offset = parse->record.end_offset;
	segment.first_line = state->next_line;
	segment.row_count = parse->nrows + parse->nerrors;
	segment.parse_errors = parse->nerrors;
	write_chunks(action, parse, state, &segment);
	jobs_insert_errors(action->action_no, parse->errors, parse->nerrors);
	jobs_insert_segment(action->action_no, &segment);

	state->next_segment++;
	state->next_offset = parse->record.end_offset;
	state->next_line = parse->record.end_line;
	state->in_skipped_line = parse->record.skip_to_line_end;
	state->at_end = parse->ended || state->next_offset >= state->size;
	jobs_write_source(action->action_no, state);
	bookkeeping_leave(&books);
	INJECTION("chunker-before-commit");
	transaction_commit(&action->submitter, false);
	INJECTION("chunker-committed");
	return true;
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

void
chunker_run(ActionSession *session, const Task *task)
{
	SourceState state;
	SourcePin   pin;
	int64       length;
	bool        done = true;

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
		length = Min(segment_size(state.next_segment) + (int64) WINDOW_TAIL, state.size - state.next_offset);
		pin.size = state.size;
		pin.etag = state.etag;
		pin.version_id = state.version_id;
		INJECTION("chunker-before-download");
		source_read(session->source, &pin, state.next_offset, length, window);
		done = commit_segment(session, &state, length);
	}
	hopeless = false;
	rotate();
	if (done)
		board_chunked(task, state.lanes, state.lane_chunks, state.at_end);
	else
		board_give_back(task, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOCKED_DELAY_MS));
	MemoryContextReset(task_context);
}
