/*
 * bulk_action_injection.c
 *		Makes something happen at the named points of bulk_action, once each.
 *
 * Preloaded beside bulk_action, it puts its function into the rendezvous
 * variable of src/base/injection.h.  A point is armed by a file of its name in
 * the folder "injection" of the data directory, whose content says what is to
 * happen; it must appear there in one piece, by rename().  Whoever comes to the
 * point and manages to remove the file does it, so that it happens once,
 * however many processes pass, and the tests see that it has happened.
 *
 * The folder and not shared memory: a point can be armed while the server is
 * down, and what was armed outlives the crashes that it is there to cause.
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/injection.h"

#define FOLDER          "injection" /* the working directory of all processes is the data directory */
#define MAX_WHAT_LENGTH 64

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

/* What to do at the point; NULL if nothing, or if somebody else does it. */
static const char *
take(const char *point)
{
	static char what[MAX_WHAT_LENGTH + 1];
	char        path[MAXPGPATH];
	ssize_t     length;
	int         file;

	snprintf(path, sizeof(path), FOLDER "/%s", point);
	if (access(path, R_OK) != 0)
		return NULL;
	file = open(path, O_RDONLY);
	if (file < 0)
		return NULL;
	length = read(file, what, MAX_WHAT_LENGTH);
	close(file);
	if (length < 0 || unlink(path) != 0)
		return NULL;
	what[length] = '\0';
	while (length > 0 && what[length - 1] == '\n')
		what[--length] = '\0';
	return what;
}

/*
 * kill, abort              this process dies like that
 * terminate, cancel        as pg_terminate_backend(), pg_cancel_backend() do: it is up to the process when to look
 * postmaster               kill -9 of the postmaster; this process goes on until it notices
 * fatal                    ereport(FATAL)
 * error, error SQLSTATE    ereport(ERROR), with XX000 by default
 */
static void
run_point(const char *point)
{
	const char *what = take(point);

	if (what == NULL)
		return;
	ereport(LOG, (errmsg("injection at %s: %s", point, what), errhidestmt(true), errhidecontext(true)));

	if (strcmp(what, "kill") == 0)
		kill(MyProcPid, SIGKILL);
	else if (strcmp(what, "abort") == 0)
		abort();
	else if (strcmp(what, "terminate") == 0)
		kill(MyProcPid, SIGTERM);
	else if (strcmp(what, "cancel") == 0)
		kill(MyProcPid, SIGINT);
	else if (strcmp(what, "postmaster") == 0)
		kill(PostmasterPid, SIGKILL);
	else if (strcmp(what, "fatal") == 0)
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("injected fatal error at %s", point)));
	else if (strcmp(what, "error") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("injected error at %s", point)));
	else if (strncmp(what, "error ", 6) == 0 && strlen(what) == 11)
		ereport(ERROR,
				(errcode(MAKE_SQLSTATE(what[6], what[7], what[8], what[9], what[10])),
				 errmsg("injected error at %s", point)));
	else
		ereport(FATAL,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("what is to happen at %s is not known: \"%s\"", point, what)));
}

/* bulk_action_inject(point text) returns void: user code, a trigger say, as a point. */
PG_FUNCTION_INFO_V1(bulk_action_inject);

Datum
bulk_action_inject(PG_FUNCTION_ARGS)
{
	run_point(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

/*
 * bulk_action_dereference_null() returns anyelement or trigger: what a C function
 * with a mistake in it does to a server.
 */
PG_FUNCTION_INFO_V1(bulk_action_dereference_null);

Datum
bulk_action_dereference_null(PG_FUNCTION_ARGS)
{
	static int *volatile nowhere = NULL;

	*nowhere = 1;
	PG_RETURN_VOID();
}

void
_PG_init(void)
{
	*find_rendezvous_variable(INJECTION_RENDEZVOUS) = (void *) run_point;
}
