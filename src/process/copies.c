/*
 * copies.c
 *		Puts actions to rest that came here with a copy of their database.
 *
 * A database that was cloned, or copied by CREATE DATABASE ... TEMPLATE, has
 * the queue of the original in it.  To carry that out as well would read files
 * with the original's credentials and change rows at a time nobody expects, so
 * such actions are paused until the operator adopts them.
 *
 * Nothing depends on this being done soon: neither coordinator nor worker
 * begins anything of an action whose origin is another database
 * (jobs_copies.c).  It shows what is the matter, and takes the chunks out of
 * the way of the queue's rotation.
 */
#include "postgres.h"

#include "base/error_codes.h"
#include "process/copies.h"
#include "process/endings.h"

bool
copies_put_to_rest(void)
{
	CopiedAction *actions;
	int           n = jobs_read_copied(&actions);
	bool          all = true;

	for (int i = 0; i < n; i++)
	{
		Failure reason = {
			.message = "it belongs to the database that this one was copied from",
			.detail = psprintf("It was submitted in the database \"%s\" (system identifier and OID).",
							   actions[i].origin),
			.hint = "bulk_action_adopt() makes all such actions this database's own, and they go on; "
					"bulk_action_cancel() ends this one."};

		reason.code = pstrdup(unpack_sql_state(ERRCODE_BULK_ACTION_COPIED));
		all &= ending_pause(actions[i].action_no, actions[i].id, &reason, 0);
	}
	return all;
}
