/*
 * s3_report.h
 *		Turns an answer of S3, or the want of one, into an error.
 */
#ifndef BULK_ACTION_S3_REPORT_H
#define BULK_ACTION_S3_REPORT_H

#include "postgres.h"

#include "service/http.h"

/* Whether the same request may succeed later. */
extern bool s3_is_transient(const HttpResponse *response);

/*
 * Raises the error that belongs to a response that is not what the caller
 * needs: class 08 for what is transient, class BA for what is not.  `uri` is
 * the s3:// address of the object.
 */
extern _Noreturn void s3_report_error(const char *uri, const HttpResponse *response);

/* Raises BA412: what is there now is not what was pinned. */
extern _Noreturn void s3_report_replaced(const char *uri);

/* Raises BA502: the answer contradicts the request, in the way of `detail`. */
extern _Noreturn void s3_report_bad_answer(const char *uri, const char *detail);

#endif /* BULK_ACTION_S3_REPORT_H */
