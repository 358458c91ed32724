/*
 * failure.h
 *		What an error means for the work at hand.
 */
#ifndef BULK_ACTION_FAILURE_H
#define BULK_ACTION_FAILURE_H

#include "postgres.h"

#include "stage/jobs.h"
#include "stage/subtransaction.h"

typedef enum FailureKind
{
	FAILURE_TRANSIENT,  /* may pass by itself: back off and try again */
	FAILURE_CONTENTION, /* somebody else was in the way: the same, with longer pauses */
	FAILURE_INTERRUPT,  /* cancelled or shut down */
	FAILURE_OTHER
} FailureKind;

extern FailureKind failure_kind(const ErrorData *error);

/* As it is recorded with an action; strings live as long as the ErrorData. */
extern Failure failure_of(const ErrorData *error);

/* Message and detail of an error as one line of text, palloc'd. */
extern char *failure_text(const ErrorData *error);

/*
 * Copies the error being handled into a context, and ends the subtransaction
 * that it came from: to be called first in the PG_CATCH of a subtransaction.
 * Errors that are no row's fault are raised again.
 */
extern ErrorData *failure_catch_row_error(const Subtransaction *frame);

#endif /* BULK_ACTION_FAILURE_H */
