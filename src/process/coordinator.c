/*
 * coordinator.c
 *		One per database with unfinished actions: decides what is done next.
 *
 * Life: started by the launcher after a wake-up of its database; connected as
 * the bootstrap superuser, and therefore runs no statement but those on the
 * extension's own tables (jobs_*.c), no DDL, no user-defined code.  It
 * leaves when the database has had nothing to do for a while, or at once when
 * bulk_action.enabled is switched off.
 *
 * Each round it gives new actions their place in their stream, takes up events
 * (reports of workers, requests of callers), puts the head of each stream on
 * the board, ends actions that are done, cancelled or failed, starts workers,
 * and records statistics once a second.  It is the only one to change the state
 * of an action, and waits for nobody's lock.
 *
 * When it dies: workers go on with what is on the board; the launcher starts
 * another one, which reads everything anew.  What it had decided but not
 * written is decided again from the same events: they are deleted in the
 * transaction that ends their action.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/injection.h"
#include "process/background.h"
#include "process/copies.h"
#include "process/endings.h"
#include "process/recruiting.h"
#include "process/retention.h"
#include "service/bookkeeping.h"
#include "service/transaction.h"
#include "stage/connect_check.h"
#include "stage/jobs.h"

#define STATS_INTERVAL_MS 1000
#define RESTART_DELAY_MS  5000  /* after an error of the coordinator's own */
#define ATTACH_LIMIT_MS   30000 /* a worker that has not come up by then never will */

/* An action on the board. */
typedef struct Running
{
	int64         action_no; /* 0: free */
	char         *id;
	Oid           session_user;
	const char   *ending;       /* state it is about to end in, or paused; NULL: none */
	int64         ending_event; /* that asked for it to be paused */
	Failure       failure;
	MemoryContext context; /* id, failure */
} Running;

static const Birth  *birth;
static MemoryContext round_context;
static Running       running[BOARD_MAX_ACTIONS];
static int           nrunning = 0;

/* ---- transactions ---- */

static void
begin(Bookkeeping *books)
{
	transaction_start();
	MemoryContextSwitchTo(round_context);
	bookkeeping_enter(books);
}

static void
commit(const Bookkeeping *books, bool synchronous)
{
	bookkeeping_leave(books);
	transaction_commit(NULL, synchronous);
	MemoryContextSwitchTo(round_context);
}

/* ---- the actions on the board ---- */

static Running *
find_running(int64 action_no)
{
	for (int i = 0; i < BOARD_MAX_ACTIONS; i++)
		if (running[i].action_no == action_no)
			return &running[i];
	return NULL;
}

static char *
keep(Running *entry, const char *text)
{
	return text == NULL ? NULL : MemoryContextStrdup(entry->context, text);
}

/* From now on nobody begins a task of the action; it ends once nobody is inside one. */
static void
begin_ending(Running *entry, const char *state, const Failure *failure, bool interrupt)
{
	/* A failure that was reported first is the one to tell of. */
	if (entry->ending == NULL || ending_is_rest(entry->ending))
	{
		entry->ending = state;
		entry->failure.code = keep(entry, failure->code);
		entry->failure.message = keep(entry, failure->message);
		entry->failure.detail = keep(entry, failure->detail);
		entry->failure.hint = keep(entry, failure->hint);
	}
	board_close(birth->database, entry->action_no, interrupt);
}

static void
forget_running(Running *entry)
{
	board_remove(birth->database, entry->action_no);
	MemoryContextDelete(entry->context);
	memset(entry, 0, sizeof(*entry));
	nrunning--;
}

/* Tells those who listen.  NOTIFY takes a server-wide lock at commit: a transaction of its own. */
static void
notify(void)
{
	Bookkeeping books;

	if (!ending_to_notify())
		return;
	begin(&books);
	ending_notify();
	commit(&books, false);
}

/* Writes the end of an action on the board, or its rest; false if it has to wait. */
static bool
finish(Running *entry, const char *state)
{
	Bookkeeping books;
	bool        done;

	begin(&books);
	done = ending_is_rest(state) ? ending_pause(entry->action_no, entry->id, &entry->failure, entry->ending_event) :
								   ending_write(entry->action_no, entry->id, state, &entry->failure);
	INJECTION("coordinator-before-finish");
	commit(&books, true);
	INJECTION("coordinator-finished");
	if (done)
		forget_running(entry);
	return done;
}

/* True if the tables agree with the board that nothing is left to do. */
static bool
is_completed(const Running *entry)
{
	Bookkeeping    books;
	ActionProgress progress;
	bool           completed;

	begin(&books);
	jobs_read_progress(entry->action_no, &progress);
	commit(&books, false);
	completed = progress.at_end;
	for (int lane = 0; lane < progress.lanes; lane++)
		completed &= progress.next[lane] == progress.produced[lane];
	return completed;
}

/* Ends what can be ended; true if something was. */
static bool
finish_actions(void)
{
	bool any = false;

	for (int i = 0; i < BOARD_MAX_ACTIONS; i++)
	{
		Running *entry = &running[i];

		if (entry->action_no == 0)
			continue;
		if (entry->ending != NULL)
		{
			if (board_is_busy(birth->database, entry->action_no))
				continue;
			if (!finish(entry, entry->ending))
				continue;
		}
		else if (board_is_done(birth->database, entry->action_no))
		{
			if (!is_completed(entry))
				ereport(ERROR,
						(errcode(ERRCODE_INTERNAL_ERROR),
						 errmsg("the queue of bulk action %s is not where the board says", entry->id)));
			if (!finish(entry, "completed"))
				continue;
		}
		else
			continue;
		any = true;
	}
	return any;
}

/* ---- what has come up ---- */

/*
 * Inside a transaction: ends an action that this coordinator has not put on the
 * board.  One before it may have: then nobody is to begin a task of it any more,
 * and if a worker is still inside one, its end is awaited.  False if it has to be
 * tried again, for somebody is in the way.
 */
static bool
end_unknown(int64 action_no, const char *id, const char *state, const Failure *failure, bool interrupt,
			int64 event_no)
{
	board_close(birth->database, action_no, interrupt);
	if (board_is_busy(birth->database, action_no))
	{
		database_wake(birth->database);
		return true;
	}
	if (!(ending_is_rest(state) ? ending_pause(action_no, id, failure, event_no) :
								  ending_write(action_no, id, state, failure)))
		return false;
	board_remove(birth->database, action_no);
	/* Its successor in the stream is next. */
	database_wake(birth->database);
	return true;
}

/* Takes back what asked for the action to rest, or wakes it from its rest. */
static void
take_resume(const ActionEvent *event, Running *entry)
{
	if (entry != NULL && entry->ending != NULL && ending_is_rest(entry->ending))
	{
		entry->ending = NULL;
		memset(&entry->failure, 0, sizeof(entry->failure));
		board_reopen(birth->database, entry->action_no);
	}
	else if (entry == NULL)
		jobs_resume_action(event->action_no);
	jobs_delete_rest_events(event->action_no, event->event_no);
}

/* Takes up an event; false if it has to wait. */
static bool
take_event(const ActionEvent *event)
{
	Running    *entry = find_running(event->action_no);
	bool        asked = strcmp(event->kind, "cancel") == 0 || strcmp(event->kind, "pause") == 0;
	const char *state = strcmp(event->kind, "cancel") == 0 ? "cancelled" :
						strcmp(event->kind, "failed") == 0 ? "failed" :
															 "paused";

	/* One that has ended may be about to be purged, by a transaction that stays open. */
	if (event->action_id == NULL && !jobs_hold_action(event->action_no))
		return false;
	if (strcmp(event->kind, "retry") == 0)
	{
		jobs_retry_action(event->action_no, event->options, event->options_null);
		jobs_delete_event(event->event_no);
		/* Its place is at the end of its stream: given in the next round. */
		database_wake(birth->database);
	}
	else if (strcmp(event->kind, "adopt") == 0)
	{
		jobs_adopt_action(event->action_no);
		jobs_delete_event(event->event_no);
		database_wake(birth->database);
	}
	else if (event->action_id == NULL)
		jobs_delete_event(event->event_no);
	else if (strcmp(event->kind, "resume") == 0)
		take_resume(event, entry);
	else if (entry == NULL)
		return end_unknown(event->action_no, event->action_id, state, &event->failure, asked, event->event_no);
	else
	{
		begin_ending(entry, state, &event->failure, asked);
		entry->ending_event = event->event_no;
	}
	return true;
}

/*
 * All of them, or an action that was cancelled before it began would be begun;
 * and one by one, because what ends an action deletes the events that follow.
 * False if some have to wait.
 */
static bool
take_events(void)
{
	ActionEvent event;
	int64       last = 0;
	bool        all = true;

	while (jobs_read_event(&event, last))
	{
		all &= take_event(&event);
		last = event.event_no;
	}
	return all;
}

/* False if there is no place at present. */
static bool
put_on_board(const StreamHead *head, const ActionProgress *progress)
{
	Running *entry = find_running(0);

	if (entry == NULL ||
		!board_publish(birth->database, head->session_role, head->action_no, head->priority, head->paces, progress))
		return false;
	entry->action_no = head->action_no;
	entry->context = AllocSetContextCreate(TopMemoryContext, "bulk_action running", ALLOCSET_SMALL_SIZES);
	entry->id = keep(entry, head->id);
	entry->session_user = head->session_role;
	nrunning++;
	return true;
}

/*
 * Looks into the tables for what has come up since the last time; false if
 * something found no place on the board, or has to wait for somebody.
 */
static bool
look(void)
{
	bool            placed;
	Bookkeeping     books;
	StreamHead     *heads;
	ActionProgress *progress;
	int             n;

	begin(&books);
	jobs_position_actions();
	INJECTION("coordinator-positioned");
	placed = take_events();
	placed &= copies_put_to_rest();
	n = jobs_stream_heads(&heads, BOARD_MAX_ACTIONS);
	progress = palloc0(sizeof(ActionProgress) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		Failure        failure;
		SuspectVerdict verdict;

		if (find_running(heads[i].action_no) != NULL)
		{
			board_set_paces(birth->database, heads[i].action_no, heads[i].paces);
			heads[i].action_no = 0;
		}
		else if (!board_is_busy(birth->database, heads[i].action_no) &&
				 !connect_check(heads[i].session_role, birth->database, &failure))
		{
			placed &= end_unknown(heads[i].action_no, heads[i].id, "failed", &failure, false, 0);
			heads[i].action_no = 0;
		}
		else if (!jobs_unpark(heads[i].action_no))
		{
			heads[i].action_no = 0;
			placed = false;
		}
		else if ((verdict = jobs_judge_suspects(heads[i].action_no, bulk_action_max_attempts, &failure)) ==
				 SUSPECTS_GO_ON)
		{
			jobs_start_action(heads[i].action_no);
			jobs_read_progress(heads[i].action_no, &progress[i]);
		}
		else
		{
			if (verdict == SUSPECTS_END)
				placed &= end_unknown(heads[i].action_no, heads[i].id, "failed", &failure, false, 0);
			else
				placed = false;
			heads[i].action_no = 0;
		}
	}
	INJECTION("coordinator-before-start");
	commit(&books, false);
	INJECTION("coordinator-started");

	/* On the board only now: a worker must find the action running. */
	for (int i = 0; i < n; i++)
		if (heads[i].action_no != 0)
			placed &= put_on_board(&heads[i], &progress[i]);
	return placed;
}

static void
record_statistics(void)
{
	static TimestampTz next = 0;
	TimestampTz        now = GetCurrentTimestamp();
	Bookkeeping        books;

	if (now < next)
		return;
	begin(&books);
	for (int i = 0; i < BOARD_MAX_ACTIONS; i++)
		if (running[i].action_no != 0)
			jobs_record_stats(running[i].action_no);
	INJECTION("coordinator-before-statistics");
	commit(&books, false);

	/* Counting takes longer the larger the file; at most a twentieth of the time goes into it. */
	next = TimestampTzPlusMilliseconds(now, STATS_INTERVAL_MS) + 20 * (GetCurrentTimestamp() - now);
}

/* ---- workers ---- */

/* Workers of this session user do not come up, for one of the known reasons or one that the server's log knows. */
static void
give_up_group(Oid session_user)
{
	Bookkeeping books;
	Failure     failure;

	begin(&books);
	if (connect_check(session_user, birth->database, &failure))
	{
		failure.code = "53300";
		failure.message = "no worker could be started for the session user of the action";
		failure.hint = "The server's log says why the connection failed; a connection limit, for example.";
	}
	commit(&books, false);

	for (int i = 0; i < BOARD_MAX_ACTIONS; i++)
		if (running[i].action_no != 0 && running[i].session_user == session_user)
			begin_ending(&running[i], "failed", &failure, false);
}

/* ---- the process ---- */

static void
come_back_after_error(int code, Datum arg)
{
	if (code != 0)
		database_put_off(birth->database, background_was_asked_to_end() ? 0 : RESTART_DELAY_MS);
}

/* Gives back the space of what workers have left behind that ended before they could do so. */
static void
tidy_queue(void)
{
	Bookkeeping books;

	begin(&books);
	jobs_rotate(true);
	commit(&books, false);
}

/* What was in flight when the server crashed is suspect from now on. */
static void
take_crashed(void)
{
	Marker     *found = MemoryContextAlloc(round_context, sizeof(Marker) * MARKERS_MAX);
	int         n = crashed_find(birth->database, found);
	Bookkeeping books;

	if (n == 0)
		return;
	begin(&books);
	for (int i = 0; i < n; i++)
		jobs_note_crash(&found[i]);
	INJECTION("coordinator-before-suspects");
	commit(&books, true);
	crashed_forget(birth->database);
}

static bool
extension_is_there(void)
{
	bool there;

	transaction_start();
	there = OidIsValid(extension_owner());
	transaction_commit(NULL, false);
	return there;
}

void
bulk_action_coordinator_main(Datum arg)
{
	TimestampTz idle_since = 0;
	bool        look_again = true;
	bool        worked = false;

	birth = background_begin();
	before_shmem_exit(come_back_after_error, (Datum) 0);
	BackgroundWorkerInitializeConnectionByOid(birth->database, InvalidOid, 0);
	transaction_install();
	round_context = AllocSetContextCreate(TopMemoryContext, "bulk_action round", ALLOCSET_DEFAULT_SIZES);
	pgstat_report_activity(STATE_RUNNING, "coordinating bulk actions");

	(void) database_take_wakeup(birth->database);
	board_sweep(birth->database);
	if (!extension_is_there())
	{
		/* numbers of actions begin anew with another CREATE EXTENSION */
		crashed_forget(birth->database);
		proc_exit(0);
	}
	take_crashed();

	for (;;)
	{
		TimestampTz now;
		long        timeout_ms;
		bool        board_full = false;

		background_reload();
		if (!bulk_action_enabled)
		{
			/* it may be on again before the launcher has seen that it was off */
			database_wake(birth->database);
			break;
		}
		MemoryContextReset(round_context);
		look_again |= database_take_wakeup(birth->database);
		if (look_again)
			board_full = !look();
		(void) slot_reclaim(ATTACH_LIMIT_MS);
		look_again = finish_actions();
		notify();
		look_again |= retention_round();
		timeout_ms = recruit_workers(birth->database, give_up_group);
		if (nrunning > 0)
			record_statistics();
		if (look_again)
			continue;
		look_again = board_full;

		now = GetCurrentTimestamp();
		if (nrunning > 0 || board_full)
		{
			worked = true;
			idle_since = now;
			timeout_ms = timeout_ms < 0 ? STATS_INTERVAL_MS : Min(timeout_ms, STATS_INTERVAL_MS);
		}
		else
		{
			/* One that had nothing to do at all was only asked to have a look. */
			timeout_ms = worked ? bulk_action_idle_timeout - TimestampDifferenceMilliseconds(idle_since, now) : 0;
			if (timeout_ms <= 0)
			{
				tidy_queue();
				if (database_leave(birth->database, birth->slot, birth->generation))
					break;
				look_again = true;
				continue;
			}
		}
		/* a wait for a lock (NOTIFY at commit takes one) resets the latch that a wake-up has set */
		if (database_take_wakeup(birth->database))
		{
			look_again = true;
			continue;
		}
		background_wait(timeout_ms);
	}
	proc_exit(0);
}
