/*
 * background.h
 *		What launcher, coordinator and worker have in common.
 */
#ifndef BULK_ACTION_BACKGROUND_H
#define BULK_ACTION_BACKGROUND_H

#include "postgres.h"

#include "service/board.h"

/* Passed to a process in bgw_extra. */
typedef struct Birth
{
	int    slot;
	uint32 generation;
	Oid    database;
	Oid    session_user; /* workers only */
} Birth;

/* SQL-invisible entry points, looked up by name. */
extern PGDLLEXPORT void bulk_action_launcher_main(Datum arg);
extern PGDLLEXPORT void bulk_action_coordinator_main(Datum arg);
extern PGDLLEXPORT void bulk_action_worker_main(Datum arg);

extern void background_register_launcher(void);

/*
 * Launches a coordinator or worker: reserves a slot and registers the process.
 * False if there is no slot of ours (no message) or of the server's (a warning
 * with a hint, at most one a minute).
 */
extern bool background_launch(ProcessKind kind, Oid database, Oid session_user);

/* The process's own start: signals, its slot, which is released at exit. */
extern const Birth *background_begin(void);

/* For callbacks of the exit: was there a SIGTERM? */
extern bool background_was_asked_to_end(void);

/* Reloads the configuration if asked to; outside of transactions. */
extern void background_reload(void);

/* Waits on MyLatch up to timeout_ms (-1: for ever); reloads the configuration if asked to. */
extern void background_wait(long timeout_ms);

#endif /* BULK_ACTION_BACKGROUND_H */
