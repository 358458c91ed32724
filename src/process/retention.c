/*
 * retention.c
 *		Forgets actions that ended long ago (bulk_action.retention).
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

#define LOOK_INTERVAL_MS (60 * 60 * 1000)

bool
retention_round(void)
{
	static TimestampTz next = 0;
	MemoryContext      context = CurrentMemoryContext;
	TimestampTz        now = GetCurrentTimestamp();
	Bookkeeping        books;
	bool               more;

	if (bulk_action_retention <= 0 || now < next)
		return false;
	transaction_start();
	bookkeeping_enter(&books);
	more = jobs_forget_old(bulk_action_retention);
	bookkeeping_leave(&books);
	INJECTION("retention-before-commit");
	transaction_commit(NULL, false);
	MemoryContextSwitchTo(context);
	if (!more)
		next = TimestampTzPlusMilliseconds(now, LOOK_INTERVAL_MS);
	return more;
}
