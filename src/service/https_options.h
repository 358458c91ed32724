/*
 * https_options.h
 *		Which server of foreign-data wrapper bulk_action_https allows a user to
 *		read a URL.
 *
 * All of it needs a transaction, and every refusal is an ereport(ERROR).
 */
#ifndef BULK_ACTION_HTTPS_OPTIONS_H
#define BULK_ACTION_HTTPS_OPTIONS_H

#include "postgres.h"

#include "pure/https_url.h"
#include "service/remote_object.h"

#define HTTPS_WRAPPER_NAME "bulk_action_https"

/* Parses a URL; what is wrong with it is said without its query. */
extern void https_source_parse(const char *text, HttpsUrl *url);

/*
 * The server that allows `user` to read the URL: the wanted one, or, where that
 * is NULL, the only one that the user may use and that is for this host, port
 * and path.  The name returned is palloc'd.
 */
extern char *https_server_for(const HttpsUrl *url, const char *wanted_server, Oid user);

/* The same, and a reader of the file, which lives until `parent` is reset or deleted. */
extern RemoteObject *https_open(MemoryContext parent, const HttpsUrl *url, const char *server_name, Oid user);

#endif /* BULK_ACTION_HTTPS_OPTIONS_H */
