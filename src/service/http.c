/*
 * http.c
 *		A small HTTP/1.1 client on libcurl: its life, and one request at a time.
 *
 * How curl and a PostgreSQL process are kept from harming each other:
 *
 * - curl does no waiting.  It names sockets and a timer through callbacks, and
 *	 we wait for those, MyLatch and the postmaster's death in one WaitEventSet.
 *	 Interrupts are served between two calls into curl, so that cancelling,
 *	 terminating, and ProcSignalBarrier work in the middle of a transfer.
 * - No callback (http_callbacks.c) raises an error, allocates, or serves
 *	 interrupts: a longjmp through curl's frames would leave it in pieces.
 * - curl resolves names in threads of its own.  They inherit the signal mask,
 *	 so all signals are blocked during calls that may start one; a handler of
 *	 PostgreSQL must never run in such a thread.
 * - An ereport(ERROR) in the middle of a request throws the easy handle away
 *	 before the caller's buffers go, and with it the connection in use.  So does
 *	 every request that fails.
 * - Handles are released when the client's memory context goes, and before
 *	 shared memory does at process exit.  Both are registered first, then the
 *	 handles are made.
 */
#include "postgres.h"

#include <signal.h>

#include "base/compat.h"
#include "miscadmin.h"
#include "service/http.h"
#include "service/http_private.h"
#include "service/http_response.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

/* Wake up at least so often while curl has set no timer. */
#define MAX_WAIT_MS 1000

/* Bytes that curl reads at a time; its default is 16 KiB, its maximum 512. */
#define RECEIVE_BUFFER_BYTES (256 * 1024L)

/* A connection that a firewall forgot is noticed after 30 + 3 * 10 seconds. */
#define KEEPALIVE_IDLE_SECONDS     30L
#define KEEPALIVE_INTERVAL_SECONDS 10L

/* Idle connections kept for the next request. */
#define MAX_IDLE_CONNECTIONS 2L

static dlist_head live_clients = DLIST_STATIC_INIT(live_clients);

static void
block_signals(sigset_t *saved)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, saved);
}

static void
unblock_signals(const sigset_t *saved)
{
	sigprocmask(SIG_SETMASK, saved, NULL);
}

/* ---------- life of a client ---------- */

/* Ends the request under way.  The easy handle stays for the next one. */
static void
detach(HttpClient *client)
{
	sigset_t saved;

	block_signals(&saved);
	if (client->attached)
		curl_multi_remove_handle(client->multi, client->easy);
	client->attached = false;
	curl_slist_free_all(client->headers);
	client->headers = NULL;
	unblock_signals(&saved);
	client->request = NULL;
	client->response = NULL;
}

/* The same after a failure, when the handle's state is anyone's guess. */
static void
abandon(HttpClient *client)
{
	sigset_t saved;

	detach(client);
	block_signals(&saved);
	curl_easy_cleanup(client->easy);
	unblock_signals(&saved);
	client->easy = NULL;
}

/* Gives everything back to curl; the memory itself is the context's. */
static void
release(void *arg)
{
	HttpClient *client = arg;
	sigset_t    saved;

	if (client->released)
		return;
	client->released = true;
	dlist_delete(&client->node);
	if (client->multi != NULL)
	{
		abandon(client);
		block_signals(&saved);
		curl_multi_cleanup(client->multi);
		unblock_signals(&saved);
		client->multi = NULL;
	}
	socket_set_release(&client->sockets);
}

static void
release_all_at_exit(int code, Datum arg)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &live_clients)
		release(dlist_container(HttpClient, node, iter.cur));
}

/* Once per process, and never in the postmaster: curl may start threads. */
static void
initialize_process(void)
{
	static bool initialized = false;
	CURLcode    code;

	if (initialized)
		return;
	Assert(IsUnderPostmaster);
	code = curl_global_init(CURL_GLOBAL_DEFAULT);
	if (code != CURLE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not initialize libcurl: %s",
						curl_easy_strerror(code))));
	before_shmem_exit(release_all_at_exit, (Datum) 0);
	initialized = true;
}

static void
check_multi(CURLMcode code, const char *what)
{
	if (code != CURLM_OK)
		ereport(ERROR,
				(errcode(code == CURLM_OUT_OF_MEMORY ? ERRCODE_OUT_OF_MEMORY :
													   ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("libcurl failed: %s", curl_multi_strerror(code)),
				 errdetail("Function or option: %s.", what)));
}

static void
check_easy(CURLcode code, const char *what)
{
	if (code != CURLE_OK)
		ereport(ERROR,
				(errcode(code == CURLE_OUT_OF_MEMORY ? ERRCODE_OUT_OF_MEMORY :
													   ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("libcurl failed: %s", curl_easy_strerror(code)),
				 errdetail("Function or option: %s.", what)));
}

#define MULTI_OPTION(client, option, value) \
	check_multi(curl_multi_setopt((client)->multi, option, value), #option)
#define OPTION(client, option, value) \
	check_easy(curl_easy_setopt((client)->easy, option, value), #option)

HttpClient *
http_client_create(MemoryContext parent, const HttpOptions *options)
{
	MemoryContext context;
	HttpClient   *client;

	initialize_process();

	context = AllocSetContextCreate(parent, "bulk_action HTTP client",
									ALLOCSET_SMALL_SIZES);
	client = MemoryContextAllocZero(context, sizeof(HttpClient));
	client->options = *options;
	if (options->ca_file != NULL)
		client->options.ca_file = MemoryContextStrdup(context, options->ca_file);
	client->deadline_ms = -1;

	dlist_push_tail(&live_clients, &client->node);
	client->release_callback.func = release;
	client->release_callback.arg = client;
	MemoryContextRegisterResetCallback(context, &client->release_callback);

	client->multi = curl_multi_init();
	if (client->multi == NULL)
		check_multi(CURLM_OUT_OF_MEMORY, "curl_multi_init");
	MULTI_OPTION(client, CURLMOPT_SOCKETFUNCTION, http_on_socket);
	MULTI_OPTION(client, CURLMOPT_SOCKETDATA, client);
	MULTI_OPTION(client, CURLMOPT_TIMERFUNCTION, http_on_timer);
	MULTI_OPTION(client, CURLMOPT_TIMERDATA, client);
	MULTI_OPTION(client, CURLMOPT_PIPELINING, (long) CURLPIPE_NOTHING);
	MULTI_OPTION(client, CURLMOPT_MAXCONNECTS, MAX_IDLE_CONNECTIONS);
	return client;
}

/* ---------- one request ---------- */

/*
 * Makes an easy handle.  What is the same in all requests is set here, once:
 * curl refuses some of it on a handle that has been used.
 */
static void
create_easy(HttpClient *client)
{
	const HttpOptions *options = &client->options;

	client->easy = curl_easy_init();
	if (client->easy == NULL)
		check_easy(CURLE_OUT_OF_MEMORY, "curl_easy_init");

#if LIBCURL_VERSION_NUM >= 0x075500 /* 7.85.0 */
	OPTION(client, CURLOPT_PROTOCOLS_STR,
		   options->allow_http ? "http,https" : "https");
#else
	OPTION(client, CURLOPT_PROTOCOLS,
		   (long) (CURLPROTO_HTTPS | (options->allow_http ? CURLPROTO_HTTP : 0)));
#endif
#if LIBCURL_VERSION_NUM >= 0x075700 /* 7.87.0 */
	/* cancelling must not wait until a name server has answered */
	OPTION(client, CURLOPT_QUICK_EXIT, 1L);
#endif
	OPTION(client, CURLOPT_FOLLOWLOCATION, 0L);
	OPTION(client, CURLOPT_PROXY, ""); /* not those of the environment */
	OPTION(client, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	OPTION(client, CURLOPT_NOSIGNAL, 1L);
	OPTION(client, CURLOPT_CONNECTTIMEOUT_MS, (long) options->connect_timeout_ms);
	OPTION(client, CURLOPT_LOW_SPEED_LIMIT, (long) options->low_speed_bytes);
	OPTION(client, CURLOPT_LOW_SPEED_TIME, (long) options->low_speed_seconds);
	OPTION(client, CURLOPT_TCP_KEEPALIVE, 1L);
	OPTION(client, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS);
	OPTION(client, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS);
	OPTION(client, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER_BYTES);
	OPTION(client, CURLOPT_OPENSOCKETFUNCTION, http_on_open_socket);
	OPTION(client, CURLOPT_OPENSOCKETDATA, client);
	OPTION(client, CURLOPT_HEADERFUNCTION, http_on_header);
	OPTION(client, CURLOPT_HEADERDATA, client);
	OPTION(client, CURLOPT_WRITEFUNCTION, http_on_body);
	OPTION(client, CURLOPT_WRITEDATA, client);
	OPTION(client, CURLOPT_ERRORBUFFER, client->curl_error);
	OPTION(client, CURLOPT_USERAGENT, "bulk_action");
	OPTION(client, CURLOPT_PATH_AS_IS, 1L);

	OPTION(client, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	OPTION(client, CURLOPT_SSL_VERIFYPEER, 1L);
	OPTION(client, CURLOPT_SSL_VERIFYHOST, 2L);
	if (options->ca_file != NULL)
	{
		/* that one and no other */
		OPTION(client, CURLOPT_CAINFO, options->ca_file);
		OPTION(client, CURLOPT_CAPATH, NULL);
	}
}

/* Adds `name: value` to the request, refusing what would be a second header. */
static void
add_header(HttpClient *client, const HttpHeader *header)
{
	char              *line;
	struct curl_slist *list;

	for (const char *c = header->value; *c != '\0'; c++)
	{
		if ((unsigned char) *c < ' ' || *c == 0x7F)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("value of request header \"%s\" contains a control character",
							header->name),
					 errhint("Look for a line break in the credentials.")));
	}
	line = psprintf("%s: %s", header->name, header->value);
	list = curl_slist_append(client->headers, line);
	pfree(line);
	if (list == NULL)
		check_easy(CURLE_OUT_OF_MEMORY, "curl_slist_append");
	client->headers = list;
}

static void
start(HttpClient *client, const HttpRequest *request, HttpResponse *response)
{
	char     *url;
	sigset_t  saved;
	CURLMcode code;

	Assert(client->multi != NULL && !client->attached);
	if (request->nheaders > HTTP_MAX_HEADERS)
		elog(ERROR, "too many headers in an HTTP request: %d", request->nheaders);

	http_response_begin(response, 0);
	client->request = request;
	client->response = response;
	client->refused_address[0] = '\0';
	client->socket_opened = false;
	client->error_body_full = false;
	client->too_long = NULL;
	client->header_bytes = 0;
	client->curl_error[0] = '\0';

	if (client->easy == NULL)
		create_easy(client);
	url = psprintf("%s://%s%s", request->scheme, request->authority, request->path);
	OPTION(client, CURLOPT_URL, url);
	pfree(url);
	if (request->method == HTTP_HEAD)
		OPTION(client, CURLOPT_NOBODY, 1L);
	else
		OPTION(client, CURLOPT_HTTPGET, 1L); /* takes NOBODY back */
	for (int i = 0; i < request->nheaders; i++)
		add_header(client, &request->headers[i]);
	OPTION(client, CURLOPT_HTTPHEADER, client->headers);

	block_signals(&saved);
	code = curl_multi_add_handle(client->multi, client->easy);
	client->attached = code == CURLM_OK;
	unblock_signals(&saved);
	check_multi(code, "curl_multi_add_handle");
}

/* Lets curl work on a socket, or on its timers. */
static void
drive(HttpClient *client, curl_socket_t fd, int events)
{
	sigset_t  saved;
	CURLMcode code;
	int       running;

	block_signals(&saved);
	code = curl_multi_socket_action(client->multi, fd, events, &running);
	unblock_signals(&saved);
	check_multi(code, "curl_multi_socket_action");
}

/* Waits until something happens, and tells curl. */
static void
wait_and_drive(HttpClient *client)
{
	WaitEvent ready[SOCKET_SET_MAX];
	int64     wait_ms = MAX_WAIT_MS;
	int       nready;

	if (client->deadline_ms >= 0)
		wait_ms = Max(0, Min(wait_ms, client->deadline_ms - http_monotonic_ms()));
	nready = socket_set_wait(&client->sockets, (long) wait_ms, ready);
	CHECK_FOR_INTERRUPTS();

	for (int i = 0; i < nready; i++)
		drive(client, ready[i].fd,
			  (ready[i].events & WL_SOCKET_READABLE ? CURL_CSELECT_IN : 0) |
				  (ready[i].events & WL_SOCKET_WRITEABLE ? CURL_CSELECT_OUT : 0));

	/* curl sets a timer anew where this was too early */
	if (nready == 0 || (client->deadline_ms >= 0 && http_monotonic_ms() >= client->deadline_ms))
	{
		client->deadline_ms = -1;
		drive(client, CURL_SOCKET_TIMEOUT, 0);
	}
}

/* Runs the request to its end, whatever that is. */
static CURLcode
run(HttpClient *client)
{
	drive(client, CURL_SOCKET_TIMEOUT, 0);
	for (;;)
	{
		CURLMsg *message;
		int      left;

		while ((message = curl_multi_info_read(client->multi, &left)) != NULL)
		{
			if (message->msg == CURLMSG_DONE && message->easy_handle == client->easy)
				return message->data.result;
		}
		CHECK_FOR_INTERRUPTS();
		wait_and_drive(client);
	}
}

static HttpFailure
classify(const HttpClient *client, CURLcode code)
{
	if (client->too_long != NULL)
		return HTTP_FAILURE_TOO_LONG;
	if (client->refused_address[0] != '\0' && !client->socket_opened)
		return HTTP_FAILURE_REFUSED_ADDRESS;
	switch (code)
	{
		case CURLE_OK:
			return HTTP_NO_FAILURE;
		case CURLE_COULDNT_RESOLVE_HOST:
			return HTTP_FAILURE_RESOLVE;
		case CURLE_COULDNT_CONNECT:
			return HTTP_FAILURE_CONNECT;
		case CURLE_OPERATION_TIMEDOUT:
			return HTTP_FAILURE_TIMEOUT;
		case CURLE_SSL_CONNECT_ERROR:
			return HTTP_FAILURE_TLS;
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_ISSUER_ERROR:
			return HTTP_FAILURE_TLS_VERIFY;
		case CURLE_PARTIAL_FILE:
		case CURLE_RECV_ERROR:
		case CURLE_SEND_ERROR:
		case CURLE_GOT_NOTHING:
			return HTTP_FAILURE_RESET;
		default:
			return HTTP_FAILURE_OTHER;
	}
}

/*
 * A header line longer than libcurl takes (100 KiB) never gets to on_header.
 * Its code for that says something else: CURLE_OUT_OF_MEMORY, and from 8.6 on
 * CURLE_TOO_LARGE.  Memory that is really short is hardly noticed first between
 * the status line and the body.
 */
static bool
is_header_too_long(const HttpResponse *response, CURLcode code)
{
#if LIBCURL_VERSION_NUM >= 0x080600 /* 8.6.0 */
	if (code == CURLE_TOO_LARGE)
		return true;
#endif
	return code == CURLE_OUT_OF_MEMORY && response->status != 0 && response->body_length == 0 &&
		   response->error_body_length == 0;
}

static void
note_outcome(HttpClient *client, HttpResponse *response, CURLcode code)
{
	if (client->too_long == NULL && is_header_too_long(response, code))
		client->too_long = "A header";
	/* an error answer whose body we cut off is an answer */
	if (client->error_body_full && code == CURLE_WRITE_ERROR)
		code = CURLE_OK;
	response->failure = classify(client, code);
	if (response->failure == HTTP_FAILURE_TOO_LONG)
		snprintf(response->failure_text, sizeof(response->failure_text),
				 "%s is too long", client->too_long);
	else if (response->failure == HTTP_FAILURE_REFUSED_ADDRESS)
		snprintf(response->failure_text, sizeof(response->failure_text),
				 "The endpoint's address is %s", client->refused_address);
	else if (response->failure != HTTP_NO_FAILURE)
		strlcpy(response->failure_text,
				client->curl_error[0] != '\0' ? client->curl_error :
												curl_easy_strerror(code),
				sizeof(response->failure_text));
}

bool
http_request(HttpClient *client, const HttpRequest *request,
			 HttpResponse *response)
{
	PG_TRY();
	{
		CURLcode code;

		start(client, request, response);
		code = run(client);
		note_outcome(client, response, code);
		if (response->failure == HTTP_NO_FAILURE)
			detach(client);
		else
			abandon(client);
	}
	PG_CATCH();
	{
		/* curl must not write into the caller's buffers any more */
		abandon(client);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return response->failure == HTTP_NO_FAILURE;
}
