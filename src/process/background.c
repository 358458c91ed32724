/*
 * background.c
 *		What launcher, coordinator and worker have in common.
 *
 * Only the launcher is static and is restarted by the postmaster.  The others
 * are started by the one above them and never by the postmaster: a process that
 * came back by itself after a crash would be a second one.
 */
#include "postgres.h"

#include <limits.h>
#include <signal.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "process/background.h"

#define LAUNCHER_RESTART_S  5
#define WARNING_INTERVAL_MS 60000

static Birth                 birth;
static volatile sig_atomic_t asked_to_end = false;

/* ProcDiePending is no longer set when the callbacks of the exit run. */
static void
note_and_die(SIGNAL_ARGS)
{
	asked_to_end = true;
	die(postgres_signal_arg);
}

bool
background_was_asked_to_end(void)
{
	return asked_to_end;
}

static void
describe(BackgroundWorker *worker, const char *kind)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	snprintf(worker->bgw_library_name, BGW_MAXLEN, "bulk_action");
	snprintf(worker->bgw_function_name, BGW_MAXLEN, "bulk_action_%s_main", kind);
	snprintf(worker->bgw_name, BGW_MAXLEN, "bulk_action %s", kind);
	snprintf(worker->bgw_type, BGW_MAXLEN, "bulk_action %s", kind);
}

void
background_register_launcher(void)
{
	BackgroundWorker worker;

	describe(&worker, "launcher");
	worker.bgw_restart_time = LAUNCHER_RESTART_S;
	RegisterBackgroundWorker(&worker);
}

static void
warn_no_slot(void)
{
	static TimestampTz last = 0;
	TimestampTz        now = GetCurrentTimestamp();

	if (last != 0 && !TimestampDifferenceExceeds(last, now, WARNING_INTERVAL_MS))
		return;
	last = now;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("bulk_action could not start a background process: no slot is free"),
			 errhint("Raise max_worker_processes (now %d). bulk_action needs one for its launcher, "
					 "one for each database at work and one or more for workers.",
					 max_worker_processes)));
}

bool
background_launch(ProcessKind kind, Oid database, Oid session_user)
{
	BackgroundWorker        worker;
	BackgroundWorkerHandle *handle;
	Birth                   child = {.database = database, .session_user = session_user};

	child.slot = slot_reserve(kind, database, session_user, &child.generation);
	if (child.slot < 0)
		return false;

	describe(&worker, kind == PROCESS_COORDINATOR ? "coordinator" : "worker");
	StaticAssertStmt(sizeof(Birth) <= BGW_EXTRALEN, "Birth does not fit into bgw_extra");
	memcpy(worker.bgw_extra, &child, sizeof(child));
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
	{
		slot_release(child.slot, child.generation);
		warn_no_slot();
		return false;
	}
	pfree(handle);
	return true;
}

static void
release_own_slot(int code, Datum arg)
{
	slot_release(birth.slot, birth.generation);
}

const Birth *
background_begin(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, note_and_die);

	memcpy(&birth, MyBgworkerEntry->bgw_extra, sizeof(birth));
	before_shmem_exit(release_own_slot, (Datum) 0);
	if (!slot_attach(birth.slot, birth.generation))
		proc_exit(0);
	BackgroundWorkerUnblockSignals();
	return &birth;
}

void
background_reload(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
}

void
background_wait(long timeout_ms)
{
	int events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

	pgstat_report_stat(true);
	if (timeout_ms >= 0)
		events |= WL_TIMEOUT;
	(void) WaitLatch(MyLatch, events, Min(timeout_ms, INT_MAX), PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	QueryCancelPending = false; /* there is nothing to cancel */
	CHECK_FOR_INTERRUPTS();
	background_reload();
}
