/*
 * source_report.h
 *		Turns an answer to a request, or the want of one, into an error.
 */
#ifndef BULK_ACTION_SOURCE_REPORT_H
#define BULK_ACTION_SOURCE_REPORT_H

#include "postgres.h"

#include "service/http.h"

/* Whose words a message is in. */
typedef enum SourceKind
{
	SOURCE_S3,
	SOURCE_HTTPS
} SourceKind;

/* Whether the same request may succeed later. */
extern bool source_is_transient(const HttpResponse *response);

/*
 * Raises the error that belongs to a response that is not what the caller
 * needs: class 08 for what is transient, class BA for what is not.  `uri` is
 * the address of the object, without anything that is secret.
 */
extern _Noreturn void source_report_error(SourceKind kind, const char *uri, const HttpResponse *response);

/* Raises BA412: what is there now is not what was pinned. */
extern _Noreturn void source_report_replaced(SourceKind kind, const char *uri);

/* Raises BA502: the answer contradicts the request, in the way of `detail`. */
extern _Noreturn void source_report_bad_answer(SourceKind kind, const char *uri, const char *detail);

#endif /* BULK_ACTION_SOURCE_REPORT_H */
