/*
 * transaction.c
 *		The order of calls around user code.
 *
 * A worker is connected as the session user of whoever submitted the action
 * and has to do two things in one transaction: apply rows as the submitter,
 * which runs triggers, policies, domain checks and casts that he or others
 * wrote, and keep the books as the owner of the extension.  What follows is
 * the only place where one becomes the other:
 *
 *	1	transaction_start: all settings back to the session's own, then READ
 *		COMMITTED, read-write, not deferrable and our timeouts, whatever ALTER
 *		ROLE says and whatever a trigger of the transaction before left behind
 *		(a deferred trigger may set session-level values at commit).
 *	2	bookkeeping_enter ... bookkeeping_leave (bookkeeping.c)
 *	3	submitter_enter: a GUC nest level with the captured settings, `role`
 *		last, which makes the server check the membership again; then
 *		SECURITY_LOCAL_USERID_CHANGE, under which `role` and
 *		`session_authorization` cannot be set by anything that user code calls.
 *	4	rows, in subtransactions; SET CONSTRAINTS ALL IMMEDIATE
 *	5	submitter_leave: first the flag, then the nest level.  In the other
 *		order reverting `role` would run under the flag (an assertion in
 *		SetOuterUserId; without assertions the flag would stay).
 *	6	bookkeeping again
 *	7	transaction_commit: the submitter's identity once more, at level 1 and
 *		local to the transaction, because constraint triggers that user code
 *		deferred again and WITH HOLD cursors run inside CommitTransaction.  The
 *		flag is taken off in XACT_EVENT_PRE_COMMIT, which comes after them
 *		(access/transam/xact.c) and before the settings are reverted.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/async.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lock.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/plancache.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "service/transaction.h"

/*
 * A worker that waits for a lock of a client's holds a place that others may
 * need; it gives up, makes room, and comes back.
 */
#define LOCK_TIMEOUT "30s"

static bool commit_as_submitter = false;

static void
forget_flag_before_revert(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT && commit_as_submitter)
	{
		Oid user;
		int context;

		GetUserIdAndSecContext(&user, &context);
		SetUserIdAndSecContext(user, 0);
	}
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_ABORT)
		commit_as_submitter = false;
}

void
transaction_install(void)
{
	RegisterXactCallback(forget_flag_before_revert, NULL);
}

static void
force_setting(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SET, true, 0, false);
}

void
transaction_start(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();

	ResetAllOptions();
	XactReadOnly = false;
	XactIsoLevel = XACT_READ_COMMITTED;
	XactDeferrable = false;
	force_setting("statement_timeout", "0");
	force_setting("lock_timeout", LOCK_TIMEOUT);
	force_setting("idle_in_transaction_session_timeout", "0");
	if (COMPAT_HAS_TRANSACTION_TIMEOUT)
		force_setting("transaction_timeout", "0");

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
}

const char *
submitter_name(Oid role)
{
	const char *name = GetUserNameFromId(role, true);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the role that submitted the action does not exist any more"),
				 errdetail("Its OID was %u.", role),
				 errhint("Submit the file again as another role.")));
	return name;
}

/*
 * Captured settings were checked when they were set, but a role or a
 * text search path may have gone since: an error here is the caller's to
 * report, like a lost privilege.
 */
static void
become_submitter(const Submitter *submitter, GucAction action)
{
	const char *role = submitter_name(submitter->role);

	if (submitter->role == submitter->session_role)
		role = "none";
	for (int i = 0; i < submitter->nsettings; i++)
		(void) set_config_option(submitter->names[i], submitter->values[i],
								 superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION,
								 action, true, 0, false);
	(void) set_config_option("role", role, superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION,
							 action, true, 0, false);
	if (GetUserId() != submitter->role)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("role \"%s\" is not the role that submitted the action", role),
				 errdetail("The role was dropped or renamed.")));
	SetUserIdAndSecContext(submitter->role, SECURITY_LOCAL_USERID_CHANGE);
}

void
submitter_enter(const Submitter *submitter, SubmitterFrame *frame)
{
	frame->guc_level = NewGUCNestLevel();
	become_submitter(submitter, GUC_ACTION_SAVE);
}

void
submitter_leave(const SubmitterFrame *frame)
{
	SetUserIdAndSecContext(GetSessionUserId(), 0);
	AtEOXact_GUC(false, frame->guc_level);
}

void
transaction_commit(const Submitter *submitter, bool synchronous)
{
	PopActiveSnapshot();
	SPI_finish();

	/*
	 * Asynchronous commit is safe for chunks: cursor and data are in the same
	 * transaction, so what a crash forgets is simply done again.
	 */
	force_setting("synchronous_commit", synchronous ? "on" : "off");

	if (submitter != NULL)
	{
		become_submitter(submitter, GUC_ACTION_LOCAL);
		commit_as_submitter = true;
	}
	CommitTransactionCommand();
	pgstat_report_stat(false);
}

void
transaction_abort(void)
{
	AbortOutOfAnyTransaction(); /* subtransactions too */
	pgstat_report_stat(false);
}

/* Whoever has called setseed() knows what random() will return. */
static void
reseed_random(void)
{
	uint32 bits;

	if (!pg_strong_random(&bits, sizeof(bits)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random numbers")));
	(void) DirectFunctionCall1(setseed, Float8GetDatum(2.0 * bits / PG_UINT32_MAX - 1.0));
}

void
session_discard(void)
{
	Assert(!IsTransactionState());
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot()); /* for dropping temporary objects */
	PortalHashTableDeleteAll();
	ResetAllOptions();
	force_setting("lock_timeout", LOCK_TIMEOUT); /* others may hold locks on its temporary tables */
	if (COMPAT_HAS_TRANSACTION_TIMEOUT)
		force_setting("transaction_timeout", "0");
	DropAllPreparedStatements();
	Async_UnlistenAll();
	LockReleaseAll(USER_LOCKMETHOD, true);
	ResetPlanCache();
	ResetTempTableNamespace();
	ResetSequenceCaches();
	reseed_random();
	PopActiveSnapshot();
	CommitTransactionCommand();
}
