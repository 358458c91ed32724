/*
 * failure.c
 *		What an error means for the work at hand.
 *
 * User code can raise any SQLSTATE, so only those that PostgreSQL itself uses
 * for passing trouble are taken as such; everything else is judged by whether
 * it can be isolated to a row.
 */
#include "postgres.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "utils/resowner.h"

#include "stage/failure.h"

/* Of a row's error, each of message and detail. */
#define MAX_TEXT_BYTES 8000

FailureKind
failure_kind(const ErrorData *error)
{
	switch (error->sqlerrcode)
	{
		case ERRCODE_T_R_SERIALIZATION_FAILURE:
		case ERRCODE_T_R_DEADLOCK_DETECTED:
		case ERRCODE_LOCK_NOT_AVAILABLE:
			return FAILURE_CONTENTION;
		case ERRCODE_QUERY_CANCELED:
		case ERRCODE_ADMIN_SHUTDOWN:
			return FAILURE_INTERRUPT;
	}
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_CONNECTION_EXCEPTION:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_SYSTEM_ERROR:
			return FAILURE_TRANSIENT;
	}
	return FAILURE_OTHER;
}

Failure
failure_of(const ErrorData *error)
{
	Failure failure = {
		.code = unpack_sql_state(error->sqlerrcode),
		.message = error->message ? error->message : "",
		.detail = error->detail,
		.hint = error->hint};

	failure.code = pstrdup(failure.code);
	return failure;
}

char *
failure_text(const ErrorData *error)
{
	const char *message = error->message ? error->message : "";

	return error->detail ? psprintf("%s: %s", message, error->detail) : pstrdup(message);
}

/*
 * A message may hold a whole cell, or whatever user code makes of it; a
 * thousand of them have to fit into one array.
 */
static char *
shorten(char *text)
{
	size_t length = text != NULL ? strlen(text) : 0;
	char  *result;

	if (length <= MAX_TEXT_BYTES)
		return text;
	length = pg_mbcliplen(text, length, MAX_TEXT_BYTES);
	result = psprintf("%.*s...", (int) length, text);
	pfree(text);
	return result;
}

ErrorData *
failure_catch_row_error(const Subtransaction *frame)
{
	ErrorData *error = subtransaction_catch(frame);

	error->message = shorten(error->message);
	error->detail = shorten(error->detail);
	error->hint = shorten(error->hint);
	error->context = shorten(error->context);
	if (failure_kind(error) != FAILURE_OTHER)
		ReThrowError(error);
	return error;
}
