/*
 * board.h
 *		Shared memory: which processes there are, and what there is to do.
 *
 * Everything here is a hint that can be rebuilt from the tables; what is true
 * is in them.  All of it is plain values under one LWLock, held for
 * microseconds and never across anything that can raise an error.
 */
#ifndef BULK_ACTION_BOARD_H
#define BULK_ACTION_BOARD_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "service/markers.h"

#define MAX_LANES         32 /* lanes of one action at most */
#define BOARD_MAX_ACTIONS 64 /* actions being worked on at once, all databases together */
#define BOARD_MAX_SHARE   32 /* of them, of one session user */
#define BOARD_MAX_WORKERS 64 /* of one group that lanes are spread over */
#define MAX_CHUNK_ROWS    1000

/* ---- settings (defined in bulk_action.c) ---- */
extern bool  bulk_action_enabled;
extern int   bulk_action_max_workers;
extern int   bulk_action_max_queued_chunks;
extern int   bulk_action_max_attempts;
extern int   bulk_action_idle_timeout;    /* ms */
extern int   bulk_action_rescan_interval; /* s */
extern int   bulk_action_retention;       /* min; 0 or less: for ever */
extern char *bulk_action_file_root;

/* ---- life ---- */
extern void board_request_shmem(void); /* shmem_request_hook */
extern void board_startup_shmem(void); /* shmem_startup_hook */
extern bool board_available(void);     /* false: not in shared_preload_libraries */

/* ---- processes ---- */
typedef enum ProcessKind
{
	PROCESS_NONE = 0,
	PROCESS_COORDINATOR,
	PROCESS_WORKER
} ProcessKind;

typedef struct ProcessInfo
{
	ProcessKind kind;
	uint32      generation; /* raised each time the slot is reserved */
	int         pid;        /* 0: launched, not yet attached */
	TimestampTz launched_at;
	Oid         database;
	Oid         session_user; /* workers only */
} ProcessInfo;

extern void launcher_attach(void); /* MyLatch is the launcher's from now on */

/* Reserves a slot for a process about to be launched; -1 if there is none (or, for workers, if
 * max_workers are there already, or if the database is blocked). */
extern int slot_reserve(ProcessKind kind, Oid database, Oid session_user, uint32 *generation);

/* Called by the process itself; false: the slot was given up meanwhile, leave. */
extern bool slot_attach(int slot, uint32 generation);
extern void slot_release(int slot, uint32 generation);
extern bool slot_read(int slot, ProcessInfo *info); /* false: free */
extern int  slot_count(void);

/* Frees slots whose process was launched but did not attach within the limit; returns how many. */
extern int slot_reclaim(int limit_ms);

/* ---- databases ---- */

/* A database may have something to do: wakes its coordinator, or the launcher. */
extern void database_wake(Oid database);

/* For the launcher: a wake-up found no place, so every database must be looked at. */
extern bool database_take_overflow(void);

/* For the launcher: a database is to be looked at; false: no place, until a coordinator has taken up another. */
extern bool database_want(Oid database);

/* The coordinator begins to look: true if there was a wake-up since the last call. */
extern bool database_take_wakeup(Oid database);

/* The coordinator wants to leave: true (and its slot is released) unless there was a wake-up. */
extern bool database_leave(Oid database, int slot, uint32 generation);

/* The coordinator died of an error: it is to be started again after a while. */
extern void database_put_off(Oid database, int delay_ms);

/*
 * For the launcher: a database with a wake-up, no coordinator and no block;
 * InvalidOid if none, and then *next_due (0: never) is when one is no longer
 * put off.
 */
extern Oid database_next_unserved(TimestampTz *next_due);

/*
 * A coordinator has work but cannot get a single worker; true also of one that
 * has not yet found out.  No other coordinator is started meanwhile: it could
 * only take away the slot that the worker needs.
 */
extern void database_set_starved(Oid database, bool starved);
extern bool database_any_starved(void);

/*
 * Keeps all processes of ours out of a database (DROP DATABASE and the like)
 * until unblocked by the same backend.  block waits until they have left, up
 * to the limit, and says whether they have.
 */
extern bool database_block(Oid database, int limit_ms);
extern void database_unblock(Oid database);

/* The database is gone: forgets its entry and its actions. */
extern void database_forget(Oid database);

/* ---- after a crash (board_suspects.c) ---- */

/* What was in flight in this database and has not been taken up; room for MARKERS_MAX. */
extern int crashed_find(Oid database, Marker *found);

/* It is taken up, and that is committed; or the database is gone. */
extern void crashed_forget(Oid database);

/* ---- work ---- */
typedef enum TaskKind
{
	TASK_CHUNK, /* chunk the next segment */
	TASK_APPLY  /* apply the next chunk of a lane */
} TaskKind;

typedef struct Task
{
	TaskKind kind;
	int      entry; /* index of the action on the board */
	int      slot;  /* of the worker that has it */
	int64    action_no;
	int      lane;      /* TASK_APPLY */
	int32    available; /* TASK_APPLY: chunks written to the lane when the task was handed out */
	int      attempt;   /* failed tries before this one */
	int      deaths;    /* workers that have ended inside the task before */
	bool     alone;     /* a suspect: nothing else is handed out meanwhile */
	bool     durable;   /* there are suspects ahead: what is done must not be lost by the next crash */
} Task;

/* What the coordinator knows of an action from the tables. */
typedef struct ActionProgress
{
	int   lanes;               /* 0: not yet decided */
	int32 produced[MAX_LANES]; /* chunks written */
	int32 next[MAX_LANES];     /* chunks applied */
	bool  at_end;              /* the whole source is chunked */

	/* what was in flight when the server crashed, and is to run alone (board_suspects.c) */
	int32 suspect_segment;          /* 1: the next one, 2: the one after it; 0: none */
	int32 suspect_chunk[MAX_LANES]; /* its number plus 1, the lane may not be there yet; 0: none */
} ActionProgress;

/* What bounds the rows per second of an action: the limit of its account, that of its role. */
typedef struct Pace
{
	uint64 subject;         /* hash of account or role */
	int    rows_per_second; /* 0: no limit */
} Pace;
#define PACES_PER_ACTION 2

/*
 * Puts an action on the board or refreshes it; false: no place left, or the
 * session user has his share of them already.  Of the tasks that a worker may
 * take, those of the greatest priority go first.
 */
extern bool board_publish(Oid database, Oid session_user, int64 action_no, int priority,
						  const Pace *paces, const ActionProgress *progress);

/* The limits may have changed since. */
extern void board_set_paces(Oid database, int64 action_no, const Pace *paces);

/* No task of the action is handed out any more; with interrupt, those inside one are cancelled. */
extern void board_close(Oid database, int64 action_no, bool interrupt);
extern void board_reopen(Oid database, int64 action_no);
extern bool board_is_busy(Oid database, int64 action_no);
extern void board_remove(Oid database, int64 action_no);

/* Takes off the board what nobody is inside of; for a coordinator that begins anew. */
extern void board_sweep(Oid database);

/* True when every chunk of the action is applied and nobody is inside a task of it. */
extern bool board_is_done(Oid database, int64 action_no);

/* For each lane of each action of the group, which slot should take it (assignment.c computes). */
typedef void (*LaneAssigner)(int64 action_no, int lanes, const int *slots, int nslots, int16 *owners);
extern void board_assign(Oid database, LaneAssigner assigner);

/*
 * Hands out a task to the worker in the slot; false: nothing to do, and
 * *next_due (0: never) is when something will be.
 */
extern bool board_take(int slot, Oid database, Oid session_user, Task *task, TimestampTz *next_due);

/*
 * An interrupt is no failure: the action was closed, or the worker was told to
 * leave the task (and what that was for may be over).
 */
extern bool board_wants_no_more(const Task *task);

/* The task is over.  What the worker read in the tables goes to the board: */
extern void board_chunked(const Task *task, int lanes, const int32 *produced, bool at_end, bool keeps_decoder);
extern void board_applied(const Task *task, int32 next_chunk, int rows);

/*
 * The task failed and may be tried again from this time on.  After half of
 * max_attempts the tasks of the action go one at a time.
 */
extern void board_failed(const Task *task, TimestampTz not_before);

/* The task could not be begun; it may be handed out again from this time on. */
extern void board_give_back(const Task *task, TimestampTz not_before);

/* Tasks of a group that a worker could take now, and the workers it has. */
typedef struct GroupDemand
{
	Oid         session_user;
	int         tasks;    /* that could be taken now */
	int         workers;  /* slots, attached or not */
	int         idle;     /* workers without a task */
	int         alive;    /* workers that have asked for a task, those who have left since included */
	TimestampTz next_due; /* earliest delayed task; 0: none */
} GroupDemand;
extern int board_demand(Oid database, GroupDemand *groups, int max);

/* Wakes idle workers of a group, as many as there are tasks. */
extern void board_wake_idle(Oid database, Oid session_user, int tasks);

/* A group could not get a worker: others' workers make room. */
extern void group_want_worker(Oid database, Oid session_user, bool wanted);

/* Forgets the wants of groups of a database other than these. */
extern void group_retain_wants(Oid database, const GroupDemand *groups, int n);

/* Is it this group's turn to start a worker? */
extern bool group_may_start(Oid database, Oid session_user);

/* Should a worker of this group leave in favour of another group? */
extern bool group_should_yield(Oid database, Oid session_user, bool idle);

#endif /* BULK_ACTION_BOARD_H */
