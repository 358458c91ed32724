/*
 * bulk_action_injection.c
 *		Makes something happen at the named points of bulk_action, as often as is asked for.
 *
 * Preloaded beside bulk_action, it puts its function into the rendezvous
 * variable of src/base/injection.h.  A point is armed by a file of its name in
 * the folder "injection" of the data directory, whose content says what is to
 * happen; it must appear there in one piece, by rename().  Whoever comes to the
 * point and has the lock on the file does what its first line says, and takes
 * that line away, with the last one the file: so each line happens once, however
 * many processes pass, and the tests see that all of it has happened.
 *
 * The folder and not shared memory: a point can be armed while the server is
 * down, and what was armed outlives the crashes that it is there to cause.
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/injection.h"

#define FOLDER          "injection" /* the working directory of all processes is the data directory */
#define MAX_WHAT_LENGTH 256

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

/* Opens the file and locks it; -1 if there is none.  Who had to wait may have an old one, and tries again. */
static int
open_locked(const char *path)
{
	for (;;)
	{
		struct stat opened;
		struct stat current;
		int         file = open(path, O_RDONLY);

		if (file < 0)
			return -1;
		if (flock(file, LOCK_EX) == 0 && fstat(file, &opened) == 0 && stat(path, &current) == 0 &&
			opened.st_ino == current.st_ino)
			return file;
		close(file);
	}
}

/* Puts the lines that are left in the place of the file, at once: it is never missing in between. */
static bool
leave(const char *path, const char *rest)
{
	char new_path[MAXPGPATH];
	int  file;
	bool written;

	if (*rest == '\0')
		return unlink(path) == 0;
	snprintf(new_path, sizeof(new_path), "%s.rest", path);
	file = open(new_path, O_WRONLY | O_CREAT | O_TRUNC, S_IRUSR | S_IWUSR);
	if (file < 0)
		return false;
	written = write(file, rest, strlen(rest)) == (ssize_t) strlen(rest);
	close(file);
	return written && rename(new_path, path) == 0;
}

/* What to do at the point; NULL if nothing, or if somebody else does it. */
static const char *
take(const char *point)
{
	static char what[MAX_WHAT_LENGTH + 1];
	char        path[MAXPGPATH];
	char       *rest;
	ssize_t     length;
	int         file;

	snprintf(path, sizeof(path), FOLDER "/%s", point);
	if (access(path, R_OK) != 0)
		return NULL;
	file = open_locked(path);
	if (file < 0)
		return NULL;
	length = read(file, what, MAX_WHAT_LENGTH);
	what[Max(length, 0)] = '\0';
	rest = strchr(what, '\n');
	if (rest != NULL)
		*rest++ = '\0';
	if (length < 0 || !leave(path, rest != NULL ? rest : ""))
		what[0] = '\0';
	close(file);
	return what[0] != '\0' ? what : NULL;
}

/*
 * pass                     nothing, but the next one to come does what stands in the next line
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

	if (what == NULL || strcmp(what, "pass") == 0)
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
