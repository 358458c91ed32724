/*
 * worker.c
 *		A worker: takes chunking and processing tasks of one session user.
 *
 * Life: started by the coordinator of its database when the board has more
 * tasks for a session user than idle workers; connects as that session user,
 * so the server itself bounds what it can ever become.  It ends when it has
 * been idle for a while, or at once when another group waits for a slot and it
 * is idle or its group has more than an equal share, or after its task when
 * bulk_action.enabled is switched off.  It also ends when a table that it has
 * worked on gets columns of other types (applier.c), or when its session has
 * something of one action that the next must not find (action_session.c);
 * another one goes on.
 *
 * Dying inside a task: the transaction is rolled back by the server and the
 * task is there again, because a task is done only by moving the cursor (or the
 * source's position) in the transaction of its effects.  before_shmem_exit
 * takes the worker's marks off the board, and crosses out its marker; after
 * kill -9 the postmaster restarts everything, the board is rebuilt from the
 * tables, and the marker says what the worker was at (markers.c).
 */
#include "postgres.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "access/xact.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/ps_status.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/injection.h"
#include "process/background.h"
#include "pure/retry.h"
#include "service/bookkeeping.h"
#include "service/clean_text.h"
#include "service/markers.h"
#include "service/placeholders.h"
#include "service/source_stream.h"
#include "stage/action_session.h"
#include "stage/applier.h"
#include "stage/chunker.h"
#include "stage/failure.h"

#define RETRY_BASE_MS      100
#define CONTENTION_BASE_MS 500 /* half of it random, like the others */
#define RETRY_CAP_MS       30000
#define ENDED_DELAY_MS     1000 /* until an action that has ended is looked at again */
#define KEEP_BYTES         (32 * 1024 * 1024)
#define TIDY_AFTER_MS      1000 /* idle time after which finished chunks are removed */

/* What the worker is doing, for pg_stat_activity and as context of errors. */
static char activity[128];

/* True while chunker_run or applier_run is being executed: they know what an error means. */
static volatile bool in_stage = false;

static void
describe_task(const ActionSession *session, const Task *task)
{
	if (task->kind == TASK_CHUNK)
		snprintf(activity, sizeof(activity), "chunking the next segment of bulk action %s",
				 session->action->id);
	else
		snprintf(activity, sizeof(activity), "applying lane %d of bulk action %s", task->lane,
				 session->action->id);
	pgstat_report_activity(STATE_RUNNING, activity);
}

static void
add_context(void *arg)
{
	errcontext("%s", activity);
}

/* Why it cannot go on is committed: nobody begins a task of it any more. */
static void
close_action(const Task *task)
{
	INJECTION("worker-before-close");
	board_close(MyDatabaseId, task->action_no, false);
	board_give_back(task, 0);
	database_wake(MyDatabaseId);
}

static void
run_task(const Task *task)
{
	ActionSession       *session = action_session_get(task->action_no);
	ErrorContextCallback context = {.callback = add_context, .previous = error_context_stack};
	bool                 may_go_on;

	if (session == NULL && action_session_is_spoiled())
	{
		board_give_back(task, 0);
		return;
	}
	if (session == NULL)
	{
		/* It has ended; the coordinator is about to take it off the board. */
		board_give_back(task, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ENDED_DELAY_MS));
		return;
	}

	describe_task(session, task);
	error_context_stack = &context;
	if (task->deaths >= bulk_action_max_attempts)
		ereport(ERROR,
				(errcode(ERRCODE_ADMIN_SHUTDOWN),
				 errmsg("worker ended in the middle of its task, %d times in a row", task->deaths),
				 errhint("The server's log says who or what ended it.")));
	if (task->kind == TASK_CHUNK)
	{
		in_stage = true;
		may_go_on = chunker_run(session, task);
	}
	else
	{
		action_session_need_header(session);
		in_stage = true;
		may_go_on = applier_run(session->action, session->header, session->nfields, task);
	}
	in_stage = false;
	if (!may_go_on)
		close_action(task);
	error_context_stack = context.previous;
	pgstat_report_activity(STATE_IDLE, NULL);
}

static bool
is_hopeless(const Task *task)
{
	if (!in_stage)
		return false;
	return task->kind == TASK_CHUNK ? chunker_is_hopeless() : applier_is_hopeless();
}

/* Tells the coordinator that an action cannot go on, or with trouble not at present. */
static void
end_action(const Task *task, const ErrorData *error, bool trouble)
{
	Bookkeeping books;
	Failure     failure = failure_of(error);

	transaction_start();
	bookkeeping_enter(&books);
	jobs_report_failure(task->action_no, &failure, trouble);
	bookkeeping_leave(&books);
	INJECTION("worker-before-failure-report");
	transaction_commit(NULL, true);

	/* Only now: a closed action of which nothing was reported would never end. */
	close_action(task);
}

/* A task has failed, and the transaction is aborted: tries it later, or not. */
static void
handle_failure(const Task *task, const ErrorData *error, bool hopeless)
{
	FailureKind kind = failure_kind(error);
	int         attempt = Max(task->attempt + 1, task->deaths);
	int64       delay;

	if (kind == FAILURE_INTERRUPT && board_wants_no_more(task))
	{
		board_give_back(task, 0);
		return;
	}
	if ((kind == FAILURE_OTHER && hopeless) || attempt >= bulk_action_max_attempts)
	{
		/*
		 * Passing trouble that does not pass is for somebody to look at; the
		 * action rests meanwhile.  But a source that cannot be read has said why.
		 */
		bool passing = kind == FAILURE_CONTENTION || kind == FAILURE_TRANSIENT;

		end_action(task, error, passing && !(task->kind == TASK_CHUNK && hopeless));
		return;
	}
	delay = retry_delay_ms(attempt, kind == FAILURE_CONTENTION ? CONTENTION_BASE_MS : RETRY_BASE_MS,
						   RETRY_CAP_MS, pg_prng_uint64(&pg_global_prng_state));
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("bulk_action will try again in %lld ms: %s", (long long) delay, clean_text(error->message)),
			 errdetail_internal("%s of bulk action number %lld, attempt %d of %d.",
								task->kind == TASK_CHUNK ? "Chunking" : "Processing",
								(long long) task->action_no, attempt, bulk_action_max_attempts)));
	board_failed(task, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay));
}

/* What the action before has left in the session cannot be discarded: nobody is to blame for it here. */
static void
leave_to_others(const Task *task, const ErrorData *error)
{
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("bulk_action worker leaves, because its session could not be cleaned: %s",
					clean_text(error->message))));
	board_give_back(task, 0);
}

static void
attempt_task(const Task *task)
{
	static MemoryContext  error_memory = NULL;
	ErrorContextCallback *previous = error_context_stack;

	if (error_memory == NULL)
		error_memory = AllocSetContextCreate(TopMemoryContext, "bulk_action errors", ALLOCSET_SMALL_SIZES);
	PG_TRY();
	{
		run_task(task);
	}
	PG_CATCH();
	{
		ErrorData *error;
		bool       hopeless = is_hopeless(task);

		/* before the board hears of it: what comes next may not be charged with this */
		markers_clear(task->slot);

		in_stage = false;
		error_context_stack = previous;
		MemoryContextSwitchTo(error_memory);
		error = CopyErrorData();
		FlushErrorState();
		transaction_abort();
		pgstat_report_activity(STATE_IDLE, NULL);
		action_session_forget();
		MemoryContextSwitchTo(error_memory);
		if (action_session_is_spoiled())
			leave_to_others(task, error);
		else
			handle_failure(task, error, hopeless);
		MemoryContextSwitchTo(TopMemoryContext);
		MemoryContextReset(error_memory);
	}
	PG_END_TRY();
}

/* Removes what is finished from the queue. */
static void
tidy_queue(void)
{
	Bookkeeping books;

	transaction_start();
	bookkeeping_enter(&books);
	jobs_rotate(true);
	bookkeeping_leave(&books);
	INJECTION("worker-before-tidying");
	transaction_commit(NULL, false);
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

/*
 * Ended from outside, perhaps between the commit of a report and the words to
 * the coordinator that belong to it.
 */
static void
wake_after_death(int code, Datum database)
{
	if (code != 0)
		database_wake(DatumGetObjectId(database));
}

/* It ends in an orderly way, whatever it was at. */
static void
clear_marker(int code, Datum slot)
{
	markers_clear(DatumGetInt32(slot));
}

/*
 * Memory of one chunk is given back before the next one asks for as much.  The
 * C library would hand it to the kernel, and each page that comes back costs a
 * page fault and is cleared.
 */
static void
keep_memory(void)
{
#ifdef __GLIBC__
	(void) mallopt(M_TRIM_THRESHOLD, KEEP_BYTES);
	(void) mallopt(M_MMAP_THRESHOLD, KEEP_BYTES / 2);
#endif
}

void
bulk_action_worker_main(Datum arg)
{
	const Birth *birth = background_begin();
	TimestampTz  idle_since = GetCurrentTimestamp();
	bool         untidy = false;

	keep_memory();
	before_shmem_exit(wake_after_death, ObjectIdGetDatum(birth->database));
	before_shmem_exit(clear_marker, Int32GetDatum(birth->slot));
	BackgroundWorkerInitializeConnectionByOid(birth->database, birth->session_user, 0);
	transaction_install();
	placeholders_note();
	if (!extension_is_there())
		proc_exit(0);

	for (;;)
	{
		Task        task;
		TimestampTz next_due;
		TimestampTz now;
		long        timeout_ms;

		background_reload();
		if (!bulk_action_enabled)
			break;
		/* A cancel was meant for the task before. */
		QueryCancelPending = false;
		CHECK_FOR_INTERRUPTS();
		if (board_take(birth->slot, birth->database, birth->session_user, &task, &next_due))
		{
			attempt_task(&task);
			idle_since = GetCurrentTimestamp();
			untidy = true;
			if (applier_needs_new_session() || action_session_is_spoiled() ||
				group_should_yield(birth->database, birth->session_user, false))
				break;
			continue;
		}
		if (group_should_yield(birth->database, birth->session_user, true))
			break;

		now = GetCurrentTimestamp();
		timeout_ms = bulk_action_idle_timeout - TimestampDifferenceMilliseconds(idle_since, now);
		if (timeout_ms <= 0 && next_due == 0)
			break;
		if (untidy && TimestampDifferenceExceeds(idle_since, now, TIDY_AFTER_MS))
		{
			action_session_discard();
			source_streams_close_all();
			tidy_queue();
			untidy = false;
			continue; /* a wake-up may have come meanwhile */
		}
		if (untidy)
			timeout_ms = Min(timeout_ms, TIDY_AFTER_MS);
		if (next_due != 0)
		{
			long due_ms = TimestampDifferenceMilliseconds(now, next_due) + 1;

			timeout_ms = timeout_ms > 0 ? Min(timeout_ms, due_ms) : due_ms;
		}
		background_wait(Max(timeout_ms, 1));
	}
	if (untidy)
		tidy_queue();
	proc_exit(0);
}
