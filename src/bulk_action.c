/*
 * bulk_action.c
 *		Start-up: settings, shared memory, the launcher.
 *
 * Loaded by shared_preload_libraries the extension does its work; loaded later
 * (by the first call of one of its functions) it only has the functions, and
 * submit says what is missing.
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/guc.h"

#include "api/submit_settings.h"
#include "base/compat.h"
#include "base/injection.h"
#include "process/background.h"
#include "process/ddl_hook.h"
#include "service/account_claim.h"
#include "service/board.h"
#include "service/visibility.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

bool  bulk_action_enabled = true;
int   bulk_action_max_workers = 4;
int   bulk_action_max_queued_chunks = 128;
int   bulk_action_max_attempts = 10;
int   bulk_action_idle_timeout = 10000;
int   bulk_action_rescan_interval = 300;
int   bulk_action_retention = 30 * 24 * 60;
char *bulk_action_file_root = NULL;

static shmem_request_hook_type previous_shmem_request = NULL;
static shmem_startup_hook_type previous_shmem_startup = NULL;

static void
request_shmem(void)
{
	if (previous_shmem_request != NULL)
		previous_shmem_request();
	board_request_shmem();
}

static void
startup_shmem(void)
{
	if (previous_shmem_startup != NULL)
		previous_shmem_startup();
	board_startup_shmem();
}

static void
define_settings(void)
{
	DefineCustomBoolVariable("bulk_action.enabled",
							 "Whether bulk actions are carried out.",
							 "While it is off they are taken in and wait.",
							 &bulk_action_enabled, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("bulk_action.max_workers",
							"Workers that apply bulk actions at once, in all databases together.",
							"Each takes one slot of max_worker_processes.",
							&bulk_action_max_workers, 4, 1, 1024, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("bulk_action.max_queued_chunks",
							"Chunks of an action that may wait before no further segment of its file is read.",
							"A chunk has up to 1000 rows and 1 MiB.",
							&bulk_action_max_queued_chunks, 128, 1, 100000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("bulk_action.max_attempts",
							"Tries of one piece of work, with growing pauses, before its action is paused or fails.",
							NULL,
							&bulk_action_max_attempts, 10, 1, 1000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("bulk_action.idle_timeout",
							"Time after which coordinators and workers with nothing to do end.",
							NULL,
							&bulk_action_idle_timeout, 10000, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("bulk_action.rescan_interval",
							"Interval at which all databases are looked at for wake-ups that were lost.",
							NULL,
							&bulk_action_rescan_interval, 300, 1, INT_MAX / 1000, PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomIntVariable("bulk_action.retention",
							"Time after which actions that have ended are forgotten.",
							"With their statistics and errors; 0 or -1: never.",
							&bulk_action_retention, 30 * 24 * 60, -1, INT_MAX, PGC_SIGHUP, GUC_UNIT_MIN,
							NULL, NULL, NULL);
	DefineCustomStringVariable("bulk_action.file_root",
							   "Directory under which file:// sources may lie; empty: none are read.",
							   NULL,
							   &bulk_action_file_root, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("bulk_action.account_claim",
							   "Claim in request.jwt.claims that names the account of a session; empty: none does.",
							   "A path is written as names with commas between them.",
							   &bulk_action_account_claim, "", PGC_SUSET, 0,
							   account_claim_check_setting, NULL, NULL);
	DefineCustomStringVariable("bulk_action.admin_role",
							   "Role whose members see and control the actions of all; empty: only superusers do.",
							   NULL,
							   &bulk_action_admin_role, "", PGC_SUSET, 0,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("bulk_action.captured_settings",
							   "Settings of a session that submits, under which the rows are applied.",
							   "Their values are kept with the action.",
							   &bulk_action_captured_settings, CAPTURED_SETTINGS_DEFAULT, PGC_SIGHUP,
							   GUC_LIST_INPUT, submit_settings_check, NULL, NULL);
	MarkGUCPrefixReserved("bulk_action");
}

void
_PG_init(void)
{
	define_settings();
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;

	injection_install();
	previous_shmem_request = shmem_request_hook;
	shmem_request_hook = request_shmem;
	previous_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
	background_register_launcher();
	ddl_hook_install();
}
