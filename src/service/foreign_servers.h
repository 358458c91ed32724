/*
 * foreign_servers.h
 *		Servers of our foreign-data wrappers: which there are, who may use them,
 *		and what their options say.
 *
 * All of it needs a transaction, and every refusal is an ereport(ERROR).
 */
#ifndef BULK_ACTION_FOREIGN_SERVERS_H
#define BULK_ACTION_FOREIGN_SERVERS_H

#include "postgres.h"

#include "foreign/foreign.h"

/* A foreign-data wrapper, and the words for it in messages. */
typedef struct Wrapper
{
	const char *name;
	const char *sources; /* what is read through its servers, like "Sources in S3" */
	const char *server;  /* what such a server is, like "server for S3" */
	const char *object;  /* what USAGE is the right to read, like "its bucket" */
} Wrapper;

/* The value of an option, NULL if it is not set or empty. */
extern char *server_option(List *options, const char *name);
extern bool  server_option_is_true(List *options, const char *name);

/* The wrapper's servers that the user may use, by name: ForeignServers. */
extern List *servers_usable(const Wrapper *wrapper, Oid user);

/* Their names, for a message. */
extern char *servers_names(List *servers);

/* The server of that name, which must be of the wrapper and open to the user. */
extern ForeignServer *server_named(const Wrapper *wrapper, const char *name, Oid user);

#endif /* BULK_ACTION_FOREIGN_SERVERS_H */
