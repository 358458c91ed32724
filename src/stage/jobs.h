/*
 * jobs.h
 *		All statements of coordinator and workers on the extension's tables.
 *
 * Every function runs inside a transaction, SPI connected, between
 * bookkeeping_enter and bookkeeping_leave.  Results are allocated in the
 * current memory context of the caller.
 */
#ifndef BULK_ACTION_JOBS_H
#define BULK_ACTION_JOBS_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "service/board.h"
#include "service/markers.h"
#include "service/source.h"
#include "service/source_stream.h"
#include "service/transaction.h"
#include "stage/options.h"

/* ---- actions (jobs_actions.c) ---- */

/* What a worker must know of an action; allocated in one memory context. */
typedef struct Action
{
	int64         action_no;
	char         *id; /* uuid as text */
	char         *entity_type;
	SourceAddress source;
	Submitter     submitter;
	Oid           target;
	char         *target_schema;
	char         *target_name;
	int           nkeys;
	char        **key_columns;
	int           nupdates; /* -1: every column that can be updated */
	char        **update_columns;
	ActionType    type;
	ActionOptions options;
	char         *key_signature; /* that of the first segment; NULL: not read yet */
} Action;

/* NULL if the action does not exist or is not running. */
extern Action *jobs_load_action(int64 action_no, MemoryContext context);

/* Gives newly seen actions their position in their stream. */
extern void jobs_position_actions(void);
extern void jobs_start_action(int64 action_no);

extern void jobs_read_progress(int64 action_no, ActionProgress *progress);
extern void jobs_record_stats(int64 action_no);

/*
 * Compares the recorded counts with each other and with the errors and the
 * superseded rows that are there; NULL if all agree, else what does not.  At
 * its end nothing but dead letters is left of an action.
 */
extern char *jobs_audit(int64 action_no, bool at_end);

/*
 * Why an action ends before its time.  All NULL: it is completed or was
 * cancelled.
 */
typedef struct Failure
{
	const char *code; /* SQLSTATE */
	const char *message;
	const char *detail;
	const char *hint;
} Failure;

/* Puts an action to rest, with its chunks parked; the reason may be all NULL. */
extern void jobs_pause_action(int64 action_no, const Failure *reason);

/* A paused action is queued again; a failed one too, at the end of its stream and with other options. */
extern void jobs_resume_action(int64 action_no);
extern void jobs_retry_action(int64 action_no, Datum options, bool options_null);

/*
 * Ends an action, whose final statistics are recorded: state, and what the
 * queue holds of it but for the file's header.
 */
extern void jobs_finish_action(int64 action_no, const char *state, const Failure *failure);

typedef struct ActionEvent
{
	int64   event_no;
	int64   action_no;
	char   *action_id; /* NULL: the action has ended */
	char   *kind;      /* cancel, pause, resume, retry, adopt, failed, trouble */
	Datum   options;   /* jsonb */
	bool    options_null;
	Failure failure;
} ActionEvent;

/*
 * The first event after a number; false if there is none.  Those of an action
 * that ends are deleted with that, in the same transaction, so that none is
 * lost in between.
 */
extern bool jobs_read_event(ActionEvent *event, int64 after);

/* Locks an action until the end of the transaction; false if somebody else has it. */
extern bool jobs_hold_action(int64 action_no);
extern void jobs_delete_event(int64 event_no);

/* Those that ask for a rest or its end, up to this one: they have been acted upon. */
extern void jobs_delete_rest_events(int64 action_no, int64 event_no);

/* Reports what ends the action, or with trouble what it is to be paused for. */
extern void jobs_report_failure(int64 action_no, const Failure *failure, bool trouble);
extern void jobs_notify(int64 action_no);

/* ---- the heads of streams (jobs_heads.c) ---- */

/* The head of a stream, or an action behind it that is still on the board. */
typedef struct StreamHead
{
	int64 action_no;
	char *id;
	Oid   session_role;
	char *account_id;
	Oid   submitted_role;
	int   priority;
	Pace  paces[PACES_PER_ACTION];
} StreamHead;

/*
 * Unfinished actions that are first in their stream, at most max and, of one
 * session user, account and role, as many as may be worked on at once.
 */
extern int jobs_stream_heads(StreamHead **heads, int max);

/* ---- limits of files (jobs_limits.c) ---- */

/*
 * True, and *failure says so, if a file with so many bytes or rows is larger
 * than the limits of the action's account and role allow.
 */
extern bool jobs_file_exceeds(int64 action_no, int64 bytes, int64 rows, Failure *failure);

/* ---- after crashes (jobs_crashes.c) ---- */

/* This was in flight when the server crashed; if it was alone, that is charged to it. */
extern void jobs_note_crash(const Marker *marker);

/* Where the action stands at something that was in flight. */
extern void jobs_read_suspects(int64 action_no, ActionProgress *progress);

typedef enum SuspectVerdict
{
	SUSPECTS_GO_ON, /* none, or they may be tried (again), or are set aside now */
	SUSPECTS_WAIT,  /* somebody is in the way of setting one aside */
	SUSPECTS_END    /* without it the action cannot go on: *failure says why */
} SuspectVerdict;

/* What has crashed the server so often is not tried again. */
extern SuspectVerdict jobs_judge_suspects(int64 action_no, int max_attempts, Failure *failure);

/* True, and *failure says so, if chunks of the action are set aside. */
extern bool jobs_has_dead_letters(int64 action_no, Failure *failure);

/* Puts them back behind all others. */
extern void jobs_requeue_dead_letters(int64 action_no);

/* ---- in a copy of a database (jobs_copies.c) ---- */

/* An action that was submitted in another database, of which this one is a copy. */
typedef struct CopiedAction
{
	int64 action_no;
	char *id;
	char *origin;
} CopiedAction;

/* Those that do not rest yet; returns how many. */
extern int jobs_read_copied(CopiedAction **actions);

/* Asks for all that has not ended or has failed to be adopted; returns how many that are. */
extern int64 jobs_request_adoption(void);

/* It is this database's own from now on, at the end of its stream. */
extern void jobs_adopt_action(int64 action_no);

/* ---- error budget (jobs_budget.c) ---- */

/*
 * True if more rows of the action failed than its option max_errors allows, by
 * what is committed and what the present transaction has done; *failure says
 * so.  At the end everything has been tried.
 */
extern bool jobs_budget_exceeded(int64 action_no, bool at_end, Failure *failure);

/* ---- forgetting (jobs_retention.c) ---- */

/* Forgets the actions that this user may see and that ended longer ago than that; returns how many. */
extern int64 jobs_purge(Oid user, const Interval *older_than);

/* A limited part of what ended so long ago, of all users; true if there may be more to do. */
extern bool jobs_forget_old(int older_than_minutes);

/* ---- queue (jobs_queue.c) ---- */

typedef struct SourceState
{
	int64 size; /* bytes */
	char *etag;
	char *version_id; /* may be NULL */
	char *header;     /* as CSV with commas; NULL before the first segment */
	int   next_segment;
	int64 next_offset; /* of the text: after decompression and conversion */
	int64 next_line;
	bool  in_skipped_line; /* next_offset lies in a line that is too long, or a comment */
	bool  at_end;
	char *key_signature; /* of the target when the first segment was read; NULL before */
	bool  scanning;      /* the file is read for its keys only; next_* say how far */
	int   lanes;         /* 0: not yet decided */

	/* how the file is written, found with the first segment */
	Compression compression;
	char       *encoding;   /* NULL: not yet found */
	char        delimiter;  /* '\0': not yet found */
	int64       raw_offset; /* bytes as they are stored that next_offset needed */
	StreamPlace restart;

	int64 rows_read;
	int64 parse_errors; /* of these */
	int32 lane_chunks[MAX_LANES];
} SourceState;

extern bool jobs_read_source(int64 action_no, SourceState *source);
extern void jobs_insert_source(int64 action_no, const SourceState *source);

/* Locks the row to the end of the transaction; false if somebody else has it. */
extern bool jobs_lock_source(int64 action_no, SourceState *source);
extern void jobs_write_source(int64 action_no, const SourceState *source);
extern void jobs_create_cursors(int64 action_no, int lanes);

typedef struct Segment
{
	int    segment_no;
	int64  start_offset;
	int64  end_offset;
	int64  first_line;
	int    row_count;
	int    parse_errors;
	int    nchunks;
	int16 *chunk_lanes;
	int32 *chunk_numbers;
	int32 *chunk_rows;
} Segment;

extern void jobs_insert_segment(int64 action_no, const Segment *segment);

/* The generation to write to; read once per transaction, before the first insert. */
extern int  jobs_write_generation(void);
extern void jobs_insert_chunk(int generation, int64 action_no, int lane, int chunk_no, int segment_no,
							  int row_count, const char *payload, size_t length);

/* A chunk's payload; an error if it is not there. */
extern char *jobs_read_chunk(int64 action_no, int lane, int chunk_no, int *row_count, size_t *length);

typedef struct Cursor
{
	int  next_chunk;
	int  row_offset;
	bool keys_compared; /* the duplicates of the lane are known */
} Cursor;

/* What became of rows. */
typedef struct Outcomes
{
	int64 updated;
	int64 inserted;
	int64 deleted;
	int64 unchanged;
	int64 not_found;
	int64 superseded;
	int64 failed;
} Outcomes;

/* Locks the row to the end of the transaction; false if somebody else has it. */
extern bool jobs_lock_cursor(int64 action_no, int lane, Cursor *cursor);
extern void jobs_move_cursor(int64 action_no, int lane, const Cursor *cursor, const Outcomes *outcomes);

/*
 * Gives back the space of chunks that are done, in a transaction of its own
 * kind: takes exclusive locks, never waits for one.  With all, every
 * generation without a live chunk is emptied; otherwise the next one is made
 * ready once the present one is large.
 */
extern void jobs_rotate(bool all);

/*
 * Takes what is left of an action out of the queue, and puts it back.  False,
 * and nothing is done, if somebody is in the way.
 */
extern bool jobs_park(int64 action_no);
extern bool jobs_unpark(int64 action_no);

/*
 * Until the end of the transaction no chunk moves from one generation to
 * another, or would be missed or found twice.  False if somebody is in the way.
 */
extern bool jobs_hold_generations(void);

/* ---- rows (jobs_rows.c) ---- */

typedef struct RowError
{
	int64       line;
	char        code[6]; /* SQLSTATE */
	const char *column;  /* NULL if not known */
	const char *message;
	const char *record; /* original cells as CSV */
	size_t      record_length;
	bool        record_altered; /* it is not quite what stands in the file */
} RowError;

extern void jobs_insert_errors(int64 action_no, const RowError *errors, int n);

/* A row that is not applied because another row of the file has the same key. */
typedef struct Duplicate
{
	int64 line;
	int64 other_line; /* the one that won; with DUPLICATES_ERROR another one with this key */
} Duplicate;

typedef struct SupersededRow
{
	Duplicate   row;
	const char *record; /* original cells as CSV */
	size_t      record_length;
} SupersededRow;

extern void jobs_insert_superseded(int64 action_no, const SupersededRow *rows, int n);

/* ---- the keys of a file, for option duplicates ---- */

extern void jobs_insert_keys(int64 action_no, int lane, int segment_no, int row_count,
							 const char *payload, size_t length);

/* The keys of the next segment after this one (-1: the first) in a lane; false if there is none. */
extern bool jobs_next_keys(int64 action_no, int lane, int *segment_no, int *row_count, char **payload,
						   size_t *length);
extern void jobs_insert_duplicates(int64 action_no, int lane, const Duplicate *rows, int n);

/* The duplicates from this line on, as many as a chunk can hold at least; in ascending order. */
extern int jobs_read_duplicates(int64 action_no, int lane, int64 from_line, Duplicate **rows);

/* The duplicates of the lane are known: its keys are not needed any more. */
extern void jobs_finish_keys(int64 action_no, int lane);

#define DUPLICATES_BLOCK 1000 /* rows of one jobs_insert_duplicates, but for the last */

#endif /* BULK_ACTION_JOBS_H */
