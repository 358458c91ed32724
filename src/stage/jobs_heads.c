/*
 * jobs_heads.c
 *		Which actions are worked on: the heads of the streams, as many as there is
 *		room for and the limits allow.
 *
 * Those that are running go on.  To them are added, session user by session
 * user, the most urgent ones that their session user, their account and their
 * role have room for; one without room keeps nobody back who has some.  Among
 * equals accounts take turns: one of which an action was begun lately goes
 * behind those of which none was, or else an account with a long queue would
 * have what a role may do all to itself.  Whose turn it was is remembered by
 * this process only.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "service/bookkeeping.h"
#include "stage/jobs.h"

#define HEADS_AT_A_TIME 100

/* ---- turns ---- */

/* Accounts of which actions were begun lately, the last one last; in TopMemoryContext. */
static char *served[BOARD_MAX_ACTIONS];
static int   nserved = 0;

static void
note_served(const char *account_id)
{
	char *account = NULL;
	int   at = 0;

	while (at < nserved && strcmp(served[at], account_id) != 0)
		at++;
	if (at < nserved)
		account = served[at];
	else
	{
		account = MemoryContextStrdup(TopMemoryContext, account_id);
		if (nserved < lengthof(served))
			nserved++;
		else
		{
			pfree(served[0]);
			at = 0;
		}
	}
	for (; at < nserved - 1; at++)
		served[at] = served[at + 1];
	served[nserved - 1] = account;
}

static Datum
served_array(void)
{
	Datum elements[lengthof(served)];

	for (int i = 0; i < nserved; i++)
		elements[i] = CStringGetTextDatum(served[i]);
	return PointerGetDatum(construct_array(elements, nserved, TEXTOID, -1, false, TYPALIGN_INT));
}

/* ---- limits ---- */

static int
limit_or(uint64 row, int column, int otherwise)
{
	bool  isnull;
	Datum value = statement_value(row, column, &isnull);

	return isnull ? otherwise : DatumGetInt32(value);
}

static Pace
pace(uint64 row, int column, const char *kind, const char *name)
{
	Pace result = {.rows_per_second = limit_or(row, column, 0)};

	if (result.rows_per_second > 0)
		result.subject = hash_combine64(
			hash_bytes_extended((const unsigned char *) kind, (int) strlen(kind), 0),
			hash_bytes_extended((const unsigned char *) name, (int) strlen(name), 0));
	return result;
}

/* Is there room for one more beside those that were chosen? */
static bool
has_room(const StreamHead *head, const StreamHead *chosen, int n, int account_limit, int role_limit)
{
	int of_session = 0;
	int of_account = 0;
	int of_role = 0;

	for (int i = 0; i < n; i++)
	{
		of_session += chosen[i].session_role == head->session_role;
		of_account += strcmp(chosen[i].account_id, head->account_id) == 0;
		of_role += chosen[i].submitted_role == head->submitted_role;
	}
	return of_session < BOARD_MAX_SHARE && of_account < account_limit && of_role < role_limit;
}

/* Takes what may be worked on from the heads that were fetched, in their order; returns how many there are now. */
static int
choose(uint64 fetched, StreamHead *chosen, int n, int max)
{
	for (uint64 i = 0; i < fetched && n < max; i++)
	{
		StreamHead *head = &chosen[n];
		bool        running;

		head->session_role = DatumGetObjectId(statement_value(i, 4, NULL));
		head->account_id = statement_text(i, 6);
		head->submitted_role = DatumGetObjectId(statement_value(i, 7, NULL));
		running = DatumGetBool(statement_value(i, 3, NULL));
		if (!running &&
			!has_room(head, chosen, n, limit_or(i, 9, INT_MAX), limit_or(i, 11, INT_MAX)))
		{
			pfree(head->account_id);
			continue;
		}
		head->action_no = DatumGetInt64(statement_value(i, 1, NULL));
		head->id = statement_text(i, 2);
		head->priority = DatumGetInt32(statement_value(i, 5, NULL));
		head->paces[0] = pace(i, 10, "account", head->account_id);
		head->paces[1] = pace(i, 12, "role", statement_text(i, 8));
		if (!running)
			note_served(head->account_id);
		n++;
	}
	return n;
}

int
jobs_stream_heads(StreamHead **heads, int max)
{
	/* Limits as limits_of() has them, but by joins: there may be many streams, and many accounts with limits. */
	static Statement statement = {
		"SELECT head.action_no, head.id, head.state = 'running', head.session_role, head.priority, head.account_id,"
		" head.submitted_role, pg_catalog.pg_get_userbyid(head.submitted_role),"
		" CASE WHEN a.kind IS NULL THEN any_a.concurrent_actions ELSE a.concurrent_actions END,"
		" CASE WHEN a.kind IS NULL THEN any_a.rows_per_second ELSE a.rows_per_second END,"
		" CASE WHEN r.kind IS NULL THEN any_r.concurrent_actions ELSE r.concurrent_actions END,"
		" CASE WHEN r.kind IS NULL THEN any_r.rows_per_second ELSE r.rows_per_second END"
		" FROM (SELECT s.*, pg_catalog.row_number() OVER (PARTITION BY s.session_role"
		"   ORDER BY s.state = 'running' DESC, s.priority DESC,"
		"    coalesce(pg_catalog.array_position($1, s.account_id), 0), s.action_no) AS rank"
		"  FROM (SELECT DISTINCT ON (account_id, entity_type) action_no, id, state, session_role,"
		"    account_id, submitted_role,"
		"    coalesce((options ->> 'priority')::numeric::integer, 0) AS priority"
		"   FROM bulk_action_internal.actions"
		"   WHERE state IN ('queued', 'running', 'paused') AND stream_position IS NOT NULL"
		"    AND origin = bulk_action_internal.this_database()"
		"   ORDER BY account_id, entity_type, stream_position) AS s"
		"  WHERE s.state <> 'paused') AS head"
		" LEFT JOIN bulk_action_internal.limits AS a ON a.kind = 'account' AND a.name = head.account_id"
		" LEFT JOIN bulk_action_internal.limits AS any_a ON any_a.kind = 'account' AND any_a.name IS NULL"
		" LEFT JOIN bulk_action_internal.limits AS r ON r.kind = 'role'"
		"  AND r.name = pg_catalog.pg_get_userbyid(head.submitted_role)::text COLLATE \"default\""
		" LEFT JOIN bulk_action_internal.limits AS any_r ON any_r.kind = 'role' AND any_r.name IS NULL"
		" ORDER BY head.state = 'running' DESC, head.rank, head.action_no",
		{TEXTARRAYOID}};
	Datum  values[] = {served_array()};
	Portal portal = statement_open_anew(&statement, values, NULL);
	uint64 fetched;
	int    n = 0;

	*heads = palloc0(sizeof(StreamHead) * max);
	do
	{
		fetched = statement_fetch(portal, HEADS_AT_A_TIME);
		n = choose(fetched, *heads, n, max);
		SPI_freetuptable(SPI_tuptable);
	} while (fetched == HEADS_AT_A_TIME && n < max);
	SPI_cursor_close(portal);
	return n;
}
