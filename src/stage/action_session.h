/*
 * action_session.h
 *		The action that a worker is busy with: what it keeps from task to task.
 */
#ifndef BULK_ACTION_ACTION_SESSION_H
#define BULK_ACTION_ACTION_SESSION_H

#include "postgres.h"

#include "pure/csv_reader.h"
#include "service/source.h"
#include "stage/jobs.h"

typedef struct ActionSession
{
	MemoryContext context; /* all of it */
	Action       *action;
	Source       *source; /* NULL until opened */
	MemoryContext source_context;
	int           nfields; /* 0 until the header is known */
	CsvField     *header;
} ActionSession;

/*
 * Makes an action the present one, with no transaction open; NULL if it is not
 * running any more, or this session is spoiled.  When the action changes, whatever the one before left in
 * the session is discarded.
 */
extern ActionSession *action_session_get(int64 action_no);

/* Whether the session is of no use for the action asked for; another process has to do it. */
extern bool action_session_is_spoiled(void);

/* Opens the source, or sees whether the submitter may read it still; with no transaction open. */
extern void action_session_open_source(ActionSession *session);

/*
 * Takes the header record as it stands in the file, and how the target compared
 * keys when it was read (NULL: it is being read); an error if it cannot be read.
 */
extern void action_session_set_header(ActionSession *session, const char *record, size_t length,
									  const char *key_signature);

/* Reads the header from the queue if it is not known yet, with no transaction open. */
extern void action_session_need_header(ActionSession *session);

/* Forgets the present action, after an error for example. */
extern void action_session_forget(void);

/* The same, and discards what user code may have left in the session. */
extern void action_session_discard(void);

#endif /* BULK_ACTION_ACTION_SESSION_H */
