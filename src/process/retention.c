/*
 * retention.c
 *		Forgets actions that ended long ago (bulk_action.retention), and
 *		permissions of roles that are gone.
 *
 * Done by the coordinator: when it has come, be it only because the launcher
 * has every database looked at now and then, and once an hour while it stays.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/injection.h"
#include "process/retention.h"
#include "service/bookkeeping.h"
#include "service/transaction.h"
#include "stage/jobs.h"
#include "stage/permission.h"

#define LOOK_INTERVAL_MS (60 * 60 * 1000)

/* Those of roles that were dropped, at the same times. */
static void
forget_permissions(TimestampTz now)
{
	static TimestampTz next = 0;
	MemoryContext      context = CurrentMemoryContext;
	Bookkeeping        books;

	if (now < next)
		return;
	transaction_start();
	bookkeeping_enter(&books);
	permission_forget_dropped();
	bookkeeping_leave(&books);
	transaction_commit(NULL, false);
	MemoryContextSwitchTo(context);
	next = TimestampTzPlusMilliseconds(now, LOOK_INTERVAL_MS);
}

bool
retention_round(void)
{
	static TimestampTz next = 0;
	MemoryContext      context = CurrentMemoryContext;
	TimestampTz        now = GetCurrentTimestamp();
	Bookkeeping        books;
	bool               more;

	forget_permissions(now);
	if (bulk_action_retention <= 0 || now < next)
		return false;
	transaction_start();
	bookkeeping_enter(&books);
	more = jobs_forget_old(bulk_action_retention);
	bookkeeping_leave(&books);
	if (more)
		INJECTION("retention-in-between");
	transaction_commit(NULL, false);
	MemoryContextSwitchTo(context);
	if (!more)
		next = TimestampTzPlusMilliseconds(now, LOOK_INTERVAL_MS);
	return more;
}
