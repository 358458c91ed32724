/*
 * chunker.h
 *		Chunking: cuts the next segment of a source into chunks.
 */
#ifndef BULK_ACTION_CHUNKER_H
#define BULK_ACTION_CHUNKER_H

#include "postgres.h"

#include "stage/action_session.h"

/*
 * Runs a chunking task to its end, with no transaction open before and after,
 * and tells the board.  False if the board was not told, because more rows have
 * failed than may: that is reported, and the action must be closed.  Errors are
 * raised, possibly with a transaction open; chunker_is_hopeless says whether the
 * last one will come back however often the task is tried (the file, its
 * header, the table, a privilege).
 */
extern bool chunker_run(ActionSession *session, const Task *task);
extern bool chunker_is_hopeless(void);

#endif /* BULK_ACTION_CHUNKER_H */
