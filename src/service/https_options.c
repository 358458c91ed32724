/*
 * https_options.c
 *		Which server of foreign-data wrapper bulk_action_https allows a user to
 *		read a URL.
 *
 * A URL comes from the caller, and with it whom the database server talks to.
 * So it must be for a host and port that a foreign server names, exactly (a
 * wildcard would allow whoever can make a name below a domain), and below its
 * prefix, and the caller needs USAGE on that server.  There is no user mapping:
 * what the other side asks for is in the URL's query.
 *
 * That query is a credential.  No message here has it.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"

#include "service/foreign_servers.h"
#include "service/https_options.h"

#define HTTPS_PORT "443"

static const Wrapper https_wrapper = {
	.name = HTTPS_WRAPPER_NAME,
	.sources = "Sources on web servers",
	.server = "server for https",
	.object = "from its host"};

void
https_source_parse(const char *text, HttpsUrl *url)
{
	char error[S3_URI_ERROR_SIZE];

	if (!https_url_parse(text, url, error, sizeof(error)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid source URL"),
				 errdetail("%c%s.", pg_toupper((unsigned char) error[0]), error + 1),
				 errhint("Write it like https://files.example.com/exports/contacts.csv?X-Amz-Signature=...")));
}

static char *
shown(const HttpsUrl *url)
{
	char *text = palloc(HTTPS_SHOWN_SIZE);

	https_url_show(url, text);
	return text;
}

/* host:port as in a URL; the validator has seen to it that this is possible. */
static char *
authority_of(ForeignServer *server)
{
	const char *host = server_option(server->options, "host");
	const char *port = server_option(server->options, "port");
	char        text[S3_HOST_MAX + 32];
	char        authority[S3_HOST_MAX + 16];
	HttpsUrl    url;
	char        error[S3_URI_ERROR_SIZE];

	snprintf(text, sizeof(text), strchr(host != NULL ? host : "", ':') != NULL ? "https://[%s]:%s/" : "https://%s:%s/",
			 host != NULL ? host : "", port != NULL ? port : HTTPS_PORT);
	if (!https_url_parse(text, &url, error, sizeof(error)))
		return pstrdup("");
	https_url_authority(&url, authority, sizeof(authority));
	return pstrdup(authority);
}

static bool
is_for_host(ForeignServer *server, const HttpsUrl *url)
{
	char authority[S3_HOST_MAX + 16];

	https_url_authority(url, authority, sizeof(authority));
	return strcmp(authority, authority_of(server)) == 0;
}

static bool
is_for_path(ForeignServer *server, const HttpsUrl *url)
{
	const char *prefix = server_option(server->options, "prefix");

	return prefix == NULL || strncmp(url->path, prefix, strlen(prefix)) == 0;
}

static void
check_is_for(ForeignServer *server, const HttpsUrl *url)
{
	if (!is_for_host(server, url))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("server \"%s\" does not allow \"%s\"", server->servername, shown(url)),
				 errdetail("It allows files of https://%s only, by its options \"host\" and \"port\".",
						   authority_of(server)),
				 errhint("Name a server that allows this host in option \"server\".")));

	if (!is_for_path(server, url))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("server \"%s\" does not allow \"%s\"", server->servername, shown(url)),
				 errdetail("Paths must begin with \"%s\", its option \"prefix\", written the same way.",
						   server_option(server->options, "prefix")),
				 errhint("Use a URL below that prefix, or name another server in option \"server\".")));
}

static void
no_server_for(const HttpsUrl *url, List *usable)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("no server that you may use allows \"%s\"", shown(url)),
			 usable == NIL ?
				 errdetail("You may not use any server of foreign-data wrapper \"%s\".", HTTPS_WRAPPER_NAME) :
				 errdetail("These are for other hosts or ports: %s.", servers_names(usable)),
			 errhint("Have a server created for the host (CREATE SERVER ... FOREIGN DATA WRAPPER %s "
					 "OPTIONS (host %s)), or USAGE on one granted.",
					 HTTPS_WRAPPER_NAME, quote_literal_cstr(url->endpoint.host))));
}

static ForeignServer *
find_server(const HttpsUrl *url, const char *wanted_server, Oid user)
{
	List     *usable;
	List     *found = NIL;
	List     *wrong_prefix = NIL;
	ListCell *cell;

	if (wanted_server != NULL)
	{
		ForeignServer *server = server_named(&https_wrapper, wanted_server, user);

		check_is_for(server, url);
		return server;
	}

	usable = servers_usable(&https_wrapper, user);
	foreach(cell, usable)
	{
		ForeignServer *server = (ForeignServer *) lfirst(cell);

		if (!is_for_host(server, url))
			continue;
		if (is_for_path(server, url))
			found = lappend(found, server);
		else
			wrong_prefix = lappend(wrong_prefix, server);
	}
	if (list_length(found) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("more than one server allows \"%s\"", shown(url)),
				 errdetail("You may use these: %s.", servers_names(found)),
				 errhint("Name one of them in option \"server\".")));
	if (found == NIL && wrong_prefix != NIL)
		check_is_for((ForeignServer *) linitial(wrong_prefix), url);
	if (found == NIL)
		no_server_for(url, usable);
	return (ForeignServer *) linitial(found);
}

char *
https_server_for(const HttpsUrl *url, const char *wanted_server, Oid user)
{
	return pstrdup(find_server(url, wanted_server, user)->servername);
}

RemoteObject *
https_open(MemoryContext parent, const HttpsUrl *url, const char *server_name, Oid user)
{
	ForeignServer *server = find_server(url, server_name, user);
	MemoryContext  context = AllocSetContextCreate(parent, "bulk_action https source", ALLOCSET_SMALL_SIZES);
	MemoryContext  old = MemoryContextSwitchTo(context);
	char           authority[S3_HOST_MAX + 16];
	RemoteAddress  address = {.kind = SOURCE_HTTPS, .scheme = "https"};
	HttpOptions    options = {
		   .ca_file = server_option(server->options, "ca_file"),
		   .allow_http = false,
		   .allow_private_address = server_option_is_true(server->options, "allow_private_address")};
	RemoteObject *object;

	https_url_authority(url, authority, sizeof(authority));
	address.uri = shown(url);
	address.authority = pstrdup(authority);
	address.path = pstrdup(url->path);
	address.query = pstrdup(url->query != NULL ? url->query : "");
	object = remote_object_create(context, &address, &options);
	MemoryContextSwitchTo(old);
	return object;
}
