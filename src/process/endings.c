/*
 * endings.c
 *		How an action ends, or is put to rest, in the tables.
 *
 * For the coordinator, which decides that it does, and has seen to it that
 * nobody is inside a task of it.  Both functions run inside a transaction of
 * his; who listens is told afterwards, in another one.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "process/endings.h"
#include "service/bookkeeping.h"
#include "service/clean_text.h"

static List *to_notify = NIL; /* numbers of actions; in TopMemoryContext */

bool
ending_is_rest(const char *state)
{
	return strcmp(state, "paused") == 0;
}

/* To be told of once the present transaction is committed. */
static void
note_end(int64 action_no)
{
	MemoryContext old;
	int64        *number;
	ListCell     *cell;

	foreach(cell, to_notify)
		if (*(int64 *) lfirst(cell) == action_no)
			return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	number = palloc(sizeof(int64));
	*number = action_no;
	to_notify = lappend(to_notify, number);
	MemoryContextSwitchTo(old);
}

bool
ending_to_notify(void)
{
	return to_notify != NIL;
}

void
ending_notify(void)
{
	ListCell *cell;

	foreach(cell, to_notify)
		jobs_notify(*(int64 *) lfirst(cell));
	list_free_deep(to_notify);
	to_notify = NIL;
}

/* An error that ends nothing: it goes to the log as what it is. */
static void
log_error(const char *id, const Failure *failure)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("bulk action %s failed: %s", id, failure->message),
				 errdetail_internal("%s", failure->detail),
				 errhint("%s", failure->hint)));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
	}
	PG_END_TRY();
}

bool
ending_write(int64 action_no, const char *id, const char *state, const Failure *failure)
{
	Failure mismatch = {
		.code = unpack_sql_state(ERRCODE_DATA_CORRUPTED),
		.message = "its rows are not all accounted for",
		.hint = "Compare the table with the file before relying on either, and report this; unless the "
				"extension's tables were changed by hand it is a defect of bulk_action."};
	Failure shortcoming;
	bool    at_end = strcmp(state, "completed") == 0;

	jobs_record_stats(action_no);
	mismatch.detail = jobs_audit(action_no, at_end);
	if (mismatch.detail != NULL)
	{
		log_error(id, &mismatch);
		state = "failed";
		failure = &mismatch;
	}
	else if (at_end && (jobs_has_dead_letters(action_no, &shortcoming) ||
						jobs_budget_exceeded(action_no, true, &shortcoming)))
	{
		state = "failed";
		failure = &shortcoming;
	}
	if (strcmp(state, "failed") == 0 && !jobs_park(action_no))
		return false;
	if (mismatch.detail == NULL && strcmp(state, "failed") == 0)
		ereport(LOG, (errmsg("bulk action %s failed: %s", id, clean_text(failure->message))));
	jobs_finish_action(action_no, state, failure);
	note_end(action_no);
	return true;
}

bool
ending_pause(int64 action_no, const char *id, const Failure *reason, int64 event_no)
{
	if (!jobs_park(action_no))
		return false;
	if (reason->message != NULL)
		ereport(LOG, (errmsg("bulk action %s is paused: %s", id, clean_text(reason->message))));
	jobs_record_stats(action_no);
	jobs_pause_action(action_no, reason);
	jobs_delete_rest_events(action_no, event_no);
	note_end(action_no);
	return true;
}
