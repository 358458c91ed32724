/*
 * http_private.h
 *		What the two halves of the HTTP client share: http.c, which drives
 *		libcurl, and http_callbacks.c, which libcurl calls.
 */
#ifndef BULK_ACTION_HTTP_PRIVATE_H
#define BULK_ACTION_HTTP_PRIVATE_H

#include "postgres.h"

#include <curl/curl.h>

#include "lib/ilist.h"
#include "service/http.h"
#include "service/socket_set.h"

struct HttpClient
{
	dlist_node            node; /* in live_clients, unless released */
	bool                  released;
	MemoryContextCallback release_callback;
	HttpOptions           options;

	CURLM             *multi;
	CURL              *easy;     /* NULL before the first request and after a failure */
	struct curl_slist *headers;  /* of the request under way */
	bool               attached; /* easy is in multi */

	/* what curl waits for */
	SocketSet sockets;
	int64     deadline_ms; /* of monotonic_ms(), -1: none */

	/* the request under way; NULL between requests */
	const HttpRequest *request;
	HttpResponse      *response;

	/* what its callbacks noted */
	char        refused_address[64]; /* the latest, as text; "" if none was */
	bool        socket_opened;
	bool        error_body_full;
	const char *too_long; /* what was, NULL: nothing */
	size_t      header_bytes;
	char        curl_error[CURL_ERROR_SIZE];
};

extern int64 http_monotonic_ms(void);

/* ---- callbacks ---- */

extern curl_socket_t http_on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address);
extern int           http_on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused);
extern int           http_on_timer(CURLM *multi, long timeout_ms, void *arg);
extern size_t        http_on_header(char *data, size_t size, size_t count, void *arg);
extern size_t        http_on_body(char *data, size_t size, size_t count, void *arg);

#endif /* BULK_ACTION_HTTP_PRIVATE_H */
