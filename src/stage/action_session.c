/*
 * action_session.c
 *		The action that a worker is busy with.
 *
 * User code may leave things in a session: temporary tables, prepared
 * statements, advisory locks, settings.  They are the submitter's own affair
 * while his action lasts, and are discarded before the next action begins.
 * Where that does not help (placeholders.c), or does not succeed, which is not
 * the next action's fault (more temporary tables than locks, for example), the
 * session ends, and with it the worker.
 */
#include "postgres.h"

#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "pure/row_codec.h"
#include "service/bookkeeping.h"
#include "service/placeholders.h"
#include "service/transaction.h"
#include "stage/action_session.h"
#include "stage/row_plans.h"

static MemoryContext  context = NULL; /* of the present action */
static ActionSession *present = NULL;
static bool           used = false;            /* the session may hold things of an action */
static bool           source_is_stale = false; /* a server or user mapping has changed */
static bool           spoiled = false;         /* the session cannot be used for the next action */

void
action_session_forget(void)
{
	present = NULL;
	if (context != NULL)
		MemoryContextReset(context);
}

void
action_session_discard(void)
{
	action_session_forget();
	if (!used)
		return;
	row_plans_forget();
	spoiled = true;
	session_discard();
	spoiled = false;
	used = false;
}

bool
action_session_is_spoiled(void)
{
	return spoiled;
}

static void
note_stale_source(Datum arg, int cache, uint32 hash)
{
	source_is_stale = true;
}

/* Once per process. */
static void
begin_sessions(void)
{
	context = AllocSetContextCreate(TopMemoryContext, "bulk_action session", ALLOCSET_SMALL_SIZES);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, note_stale_source, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, note_stale_source, (Datum) 0);
}

ActionSession *
action_session_get(int64 action_no)
{
	ActionSession *session;
	Bookkeeping    books;
	SourceState    source;

	if (present != NULL && present->action->action_no == action_no)
		return present;
	action_session_discard();
	if (context == NULL)
		begin_sessions();
	used = true;

	session = MemoryContextAllocZero(context, sizeof(ActionSession));
	session->context = context;

	transaction_start();
	bookkeeping_enter(&books);
	session->action = jobs_load_action(action_no, context);
	if (session->action != NULL && jobs_read_source(action_no, &source) && source.header != NULL)
		action_session_set_header(session, source.header, strlen(source.header), source.key_signature);
	bookkeeping_leave(&books);
	if (session->action != NULL)
		spoiled = placeholders_are_left(session->action->submitter.names, session->action->submitter.nsettings);
	transaction_commit(NULL, false);

	if (session->action == NULL || spoiled)
		return NULL;
	present = session;
	return session;
}

void
action_session_need_header(ActionSession *session)
{
	Bookkeeping books;
	SourceState source;

	if (session->nfields > 0)
		return;
	transaction_start();
	bookkeeping_enter(&books);
	if (!jobs_read_source(session->action->action_no, &source) || source.header == NULL)
		elog(ERROR, "bulk action %s has chunks but no header", session->action->id);
	action_session_set_header(session, source.header, strlen(source.header), source.key_signature);
	bookkeeping_leave(&books);
	transaction_commit(NULL, false);
}

void
action_session_open_source(ActionSession *session)
{
	const Action  *action = session->action;
	SubmitterFrame frame;

	transaction_start();
	submitter_enter(&action->submitter, &frame);
	if (session->source != NULL && source_is_stale)
	{
		/* Temporary credentials, for one, are renewed by changing the user mapping. */
		MemoryContextDelete(session->source_context);
		session->source = NULL;
	}
	source_is_stale = false;
	if (session->source == NULL)
	{
		session->source_context = AllocSetContextCreate(session->context, "bulk_action source",
														ALLOCSET_SMALL_SIZES);
		session->source = source_open(&action->source, action->submitter.role, session->source_context);
	}
	else
		source_check(&action->source, action->submitter.role);
	submitter_leave(&frame);
	transaction_commit(NULL, false);
}

void
action_session_set_header(ActionSession *session, const char *record, size_t length, const char *key_signature)
{
	RowDecoder   *decoder = row_decoder_create(0, NULL);
	DecodedRow    row;
	MemoryContext old;

	if (decoder == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	if (row_decoder_raw(decoder, record, length, &row) != ROW_DECODER_ROW)
	{
		row_decoder_free(decoder);
		ereport(ERROR,
				(errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
				 errmsg("the header of the file is not a CSV record")));
	}
	old = MemoryContextSwitchTo(session->context);
	session->header = palloc0(sizeof(CsvField) * row.ncells);
	for (int i = 0; i < row.ncells; i++)
	{
		session->header[i].data = pnstrdup(row.cells[i].data, row.cells[i].len);
		session->header[i].len = row.cells[i].len;
	}
	session->nfields = row.ncells;
	session->action->key_signature = key_signature != NULL ? pstrdup(key_signature) : NULL;
	MemoryContextSwitchTo(old);
	row_decoder_free(decoder);
}
