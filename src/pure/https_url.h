/*
 * https_url.h
 *		The address of a file on a web server: https://host/path?query.
 *
 * The query of a presigned URL is a credential, so it is kept apart from what
 * may be shown.  Everything that two parties could read in two ways is refused:
 * this one decides by host and path what may be read, and the server decides
 * what it sends.
 *
 * Sources: RFC 3986, sections 2.1, 3.2 to 3.5, 5.2.4 and 6.2.2.
 *
 * Pure C11.  Functions that return bool return false on failure and then have
 * written one line of text, lower case and without full stop, to `error`; it
 * is truncated rather than overflowed, and has nothing of the query in it.
 */
#ifndef BULK_ACTION_HTTPS_URL_H
#define BULK_ACTION_HTTPS_URL_H

#include <stdbool.h>
#include <stddef.h>

#include "pure/s3_uri.h"

#define HTTPS_PATH_MAX  2000 /* bytes, encoded */
#define HTTPS_QUERY_MAX 8000

/* Stands for the query where it must not be shown. */
#define HTTPS_HIDDEN_QUERY "?..."

/* "https://", host in brackets and port, path, HTTPS_HIDDEN_QUERY. */
#define HTTPS_SHOWN_SIZE (8 + S3_HOST_MAX + 8 + HTTPS_PATH_MAX + 4 + 1)

typedef struct HttpsUrl
{
	S3Endpoint  endpoint;                 /* host, port; always with TLS */
	char        path[HTTPS_PATH_MAX + 1]; /* as given, begins with a slash */
	const char *query;                    /* in the text that was parsed; NULL: none */
} HttpsUrl;

/* Whether this is the address of a web server, well-formed or not; the scheme in any case. */
extern bool https_url_is_one(const char *text);

/*
 * Refuses user names, fragments, "." and ".." between slashes, be they encoded,
 * and every byte that does not belong into a URL.
 */
extern bool https_url_parse(const char *text, HttpsUrl *url, char *error, size_t error_size);

/* host, in brackets if IPv6, and port unless it is 443. */
extern void https_url_authority(const HttpsUrl *url, char *out, size_t out_size);

/* What may be shown: the same for all queries. */
extern void https_url_show(const HttpsUrl *url, char out[HTTPS_SHOWN_SIZE]);

/*
 * Checks the prefix of paths that a server's option names: such a path, but it
 * may end anywhere.
 */
extern bool https_prefix_check(const char *prefix, char *error, size_t error_size);

#endif /* BULK_ACTION_HTTPS_URL_H */
