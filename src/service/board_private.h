/*
 * board_private.h
 *		The layout of the shared memory behind board.h; for board_*.c only.
 */
#ifndef BULK_ACTION_BOARD_PRIVATE_H
#define BULK_ACTION_BOARD_PRIVATE_H

#include "postgres.h"

#include "storage/lwlock.h"

#include "service/board.h"

#define BOARD_MAX_DATABASES 64 /* with something to do at once; more wait until there is a place (launcher.c) */
#define BOARD_MAX_WANTS     16
#define BOARD_MAX_PACES     256 /* more than PACES_PER_ACTION * BOARD_MAX_ACTIONS */

#define NOBODY (-1)

typedef struct ProcessSlot
{
	ProcessInfo info;
	int         proc_number; /* whose latch; valid while info.pid is not 0 */
	bool        busy;        /* a worker inside a task */
	bool        interrupted; /* it was signalled to leave its task alone */
	bool        alive;       /* a worker that has asked for a task */
	int64       last_action; /* whose lane it applied last, and which */
	int         last_lane;
} ProcessSlot;

typedef struct DatabaseEntry
{
	Oid         oid;    /* InvalidOid: free */
	bool        wanted; /* woken since its coordinator last looked */
	bool        starved;
	TimestampTz not_before; /* no coordinator until then */
	int         blocked_by; /* pid of the backend that blocks it; 0: none */
} DatabaseEntry;

typedef struct BoardAction
{
	int64          action_no; /* 0: free */
	Oid            database;
	Oid            session_user;
	int            priority;    /* the greatest goes first */
	uint64         last_served; /* count of tasks handed out; the least goes first */
	bool           closed;
	bool           worker_seen; /* one of its group has asked for a task and left since the coordinator looked */
	ActionProgress progress;
	int            chunking_by; /* slot inside the chunking task, or NOBODY */
	int            chunking_attempts;
	int            chunking_deaths; /* of workers inside it, in a row */
	TimestampTz    chunking_due;
	int            chunker;       /* slot that chunked the segment before and may go on best, or NOBODY */
	bool           chunker_keeps; /* what costs the others a new beginning: a decoder */
	int            lane_by[MAX_LANES];
	int            lane_attempts[MAX_LANES];
	int            lane_deaths[MAX_LANES];
	TimestampTz    lane_due[MAX_LANES];
	int16          preferred[MAX_LANES]; /* slot that should take the lane, or NOBODY */

	int paces[PACES_PER_ACTION]; /* index in the board's plus 1; 0: no limit */
} BoardAction;

/* An account or role of which the rows per second are limited. */
typedef struct BoardPace
{
	Oid         database; /* InvalidOid: free */
	uint64      subject;
	int         rows_per_second;
	TimestampTz due; /* of the next chunk */
} BoardPace;

/* A group that waits for a worker slot. */
typedef struct Want
{
	Oid database;
	Oid session_user;
} Want;

typedef struct Board
{
	LWLock       *lock;
	int           launcher_proc_number; /* NOBODY: not running */
	bool          overflow;             /* a wake-up found no place: rescan all databases */
	uint64        served;
	int           last_database;        /* index of the one the launcher served last */
	Marker        crashed[MARKERS_MAX]; /* in flight at a crash, not yet taken up */
	TimestampTz   turn_since;           /* others have had to wait for suspects since then; 0: they do not */
	DatabaseEntry databases[BOARD_MAX_DATABASES];
	BoardAction   actions[BOARD_MAX_ACTIONS];
	BoardPace     paces[BOARD_MAX_PACES];
	int           nwants;
	Want          wants[BOARD_MAX_WANTS];
	uint32        next_generation;
	int           nslots;
	ProcessSlot   slots[FLEXIBLE_ARRAY_MEMBER];
} Board;

extern Board *board;

extern void board_lock(void);
extern void board_unlock(void);

/* With the lock held. */
extern DatabaseEntry *board_find_database(Oid database, bool create);
extern int            board_find_coordinator(Oid database);
extern void           board_wake_slot(int slot);
extern void           board_wake_launcher(void);
extern void           board_drop_holder(int slot);
extern void           board_forget_database_actions(Oid database);
extern void           board_drop_wants(Oid database);

/* ---- actions ---- */
extern BoardAction *board_find_action(Oid database, int64 action_no);
extern int          board_queued_chunks(const BoardAction *action);
extern bool         board_action_is_busy(const BoardAction *action);
extern void         board_wake_coordinator(Oid database);

/* Wakes idle workers of a group, as many as there are new tasks. */
extern void board_wake_idle_workers(Oid database, Oid session_user, int tasks);

/* ---- tasks: is there one that nobody is inside of, whenever it is due? ---- */
extern bool board_wants_chunking(const BoardAction *action);
extern bool board_may_chunk(const BoardAction *action, int slot);
extern bool board_wants_applying(const BoardAction *action, int lane);

/* ---- pace ---- */
extern void        board_assign_paces(BoardAction *action, const Pace *paces);
extern bool        board_is_paced(const BoardAction *action);
extern TimestampTz board_lane_due(const BoardAction *action, int lane); /* the pace included */

/* A chunk is handed out; it is done, with so many rows. */
extern void board_charge_chunk(BoardAction *action, TimestampTz now);
extern void board_correct_charge(BoardAction *action, int rows);

/* ---- suspects ---- */

/* Who may begin a task now, on the whole server. */
typedef enum BoardTurn
{
	TURN_ALL,          /* there is no suspect that is due */
	TURN_SUSPECT,      /* a suspect, for nobody is inside a task */
	TURN_SUSPECT_NEXT, /* a suspect, once those inside a task have ended it */
	TURN_NOBODY        /* a suspect is running */
} BoardTurn;

extern BoardTurn board_whose_turn(TimestampTz now);
extern int       board_suspect_slot(void);                            /* of the worker inside a suspect, or NOBODY */
extern bool      board_segment_is_suspect(const BoardAction *action); /* the next one */
extern bool      board_lane_is_suspect(const BoardAction *action, int lane);
extern bool      board_has_suspects(const BoardAction *action); /* there, or further on */
extern void      board_end_turn(bool was_suspect);

#endif /* BULK_ACTION_BOARD_PRIVATE_H */
