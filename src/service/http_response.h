/*
 * http_response.h
 *		Reads the header lines of an HTTP answer.
 *
 * Called from curl's callbacks: raises no error and allocates nothing.
 */
#ifndef BULK_ACTION_HTTP_RESPONSE_H
#define BULK_ACTION_HTTP_RESPONSE_H

#include "postgres.h"

#include "service/http.h"

/* Sets a response to what it is before its first header. */
extern void http_response_begin(HttpResponse *response, int status);

/*
 * Takes in one line, be it the status line, a header, or anything else; it
 * need not end with a zero.  Returns false if a header that callers need does
 * not fit its field.
 */
extern bool http_response_header(HttpResponse *response,
								 const char *data, size_t length);

#endif /* BULK_ACTION_HTTP_RESPONSE_H */
