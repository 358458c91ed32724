/*
 * http_callbacks.c
 *		What libcurl calls: sockets, timers, and the bytes of an answer.
 *
 * No ereport, no palloc, no interrupts: a longjmp through curl's frames would
 * leave it in pieces.  What is found is noted in the client's fixed fields and
 * in the caller's buffers.
 *
 * Addresses that callers must not reach are refused where curl opens the
 * socket.  curl connects it to the address that it hands over here and to no
 * other, so what is checked is the very address that is connected to, whatever
 * the name server said before or will say next time.  A connection that is used
 * again was checked when it was made, for the same client.
 */
#include "postgres.h"

#include <netdb.h>
#include <sys/socket.h>
#include <time.h>

#include "pure/public_address.h"
#include "service/http_private.h"
#include "service/http_response.h"
#include "storage/latch.h"

/* All headers of one answer together; S3's take less than 2 KiB. */
#define MAX_HEADERS_BYTES (64 * 1024)

int64
http_monotonic_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

curl_socket_t
http_on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	HttpClient *client = arg;
	int         fd;

	if (!client->options.allow_private_address &&
		!address_is_public(&address->addr))
	{
		if (getnameinfo(&address->addr, address->addrlen, client->refused_address,
						sizeof(client->refused_address), NULL, 0, NI_NUMERICHOST) != 0)
			strlcpy(client->refused_address, "unknown", sizeof(client->refused_address));
		return CURL_SOCKET_BAD;
	}
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC,
				address->protocol);
	if (fd < 0)
		return CURL_SOCKET_BAD;
	client->socket_opened = true;
	return fd;
}

/* Notes which sockets curl waits for. */
int
http_on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
	HttpClient *client = arg;
	uint32      events = 0;

	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= WL_SOCKET_READABLE;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= WL_SOCKET_WRITEABLE;
	return socket_set_change(&client->sockets, fd, events) ? 0 : -1;
}

/* Notes when curl wants to be called even if no socket is ready. */
int
http_on_timer(CURLM *multi, long timeout_ms, void *arg)
{
	HttpClient *client = arg;

	client->deadline_ms = timeout_ms < 0 ? -1 : http_monotonic_ms() + timeout_ms;
	return 0;
}

/* One header line, or the status line; not ended by a zero. */
size_t
http_on_header(char *data, size_t size, size_t count, void *arg)
{
	HttpClient *client = arg;
	size_t      length = size * count;

	client->header_bytes += length;
	if (client->header_bytes > MAX_HEADERS_BYTES)
		client->too_long = "The block of headers";
	else if (!http_response_header(client->response, data, length))
		client->too_long = "A header";
	return client->too_long == NULL ? length : 0;
}

/* Bytes of the body: into the caller's buffer, or those of an error aside. */
size_t
http_on_body(char *data, size_t size, size_t count, void *arg)
{
	HttpClient   *client = arg;
	HttpResponse *response = client->response;
	size_t        length = size * count;

	if (response->status >= 200 && response->status < 300)
	{
		if (length > client->request->body_size - response->body_length)
		{
			client->too_long = "The body";
			return 0;
		}
		memcpy(client->request->body + response->body_length, data, length);
		response->body_length += length;
	}
	else
	{
		size_t room = sizeof(response->error_body) - response->error_body_length;

		memcpy(response->error_body + response->error_body_length, data,
			   Min(length, room));
		response->error_body_length += Min(length, room);
		if (length > room)
		{
			client->error_body_full = true;
			return 0;
		}
	}
	return length;
}
