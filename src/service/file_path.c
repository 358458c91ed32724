/*
 * file_path.c
 *		The file that a file:// source stands for, and whether it may be read.
 *
 * The server reads such a file with its own rights, so three gates stand
 * before it: the operator has named a directory (bulk_action.file_root), the
 * user is a member of pg_read_server_files, and the path, with every symbolic
 * link and ".." followed, ends at a regular file below that directory.  A
 * device or a named pipe could block a worker for ever.
 *
 * What is checked here can be changed a moment later by whoever may write to
 * the directory, which is why the check is made again when the file is read,
 * and why the canonical path, not the given one, is opened then.
 */
#include "postgres.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "base/error_codes.h"
#include "service/board.h"
#include "service/clean_text.h"
#include "service/file_path.h"

/* Whether the canonical path lies below the canonical directory. */
static bool
is_below(const char *path, const char *directory)
{
	size_t length = strlen(directory);

	/* "/" is the one directory that realpath() ends with a slash */
	if (length == 1)
		length = 0;
	return strncmp(path, directory, length) == 0 && path[length] == '/';
}

/* A file that is not there stays away however often one looks: no code of class 58. */
static int
errcode_for_missing_file(void)
{
	return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ?
			   errcode(ERRCODE_BULK_ACTION_SOURCE_NOT_FOUND) :
			   errcode_for_file_access();
}

static void
check_allowed(void)
{
	if (bulk_action_file_root == NULL || bulk_action_file_root[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("sources on the server's file system are not enabled"),
				 errdetail("The setting \"bulk_action.file_root\" is empty."),
				 errhint("Submit a source in S3, or have bulk_action.file_root set to the "
						 "directory that files may be read from.")));

	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to read a file of the server"),
				 errdetail("Only members of role \"pg_read_server_files\" may submit %s sources.",
						   FILE_URI_SCHEME),
				 errhint("GRANT pg_read_server_files TO %s, or submit a source in S3.",
						 quote_identifier(GetUserNameFromId(GetUserId(), false)))));
}

char *
file_path_resolve(const char *uri)
{
	const char *path = uri + strlen(FILE_URI_SCHEME);
	char        root[PATH_MAX];
	char        resolved[PATH_MAX];
	struct stat status;

	Assert(strncmp(uri, FILE_URI_SCHEME, strlen(FILE_URI_SCHEME)) == 0);
	check_allowed();

	if (path[0] != '/')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid source URI \"%s\"", clean_text(uri)),
				 errdetail("A file must be named by its absolute path, without a host."),
				 errhint("Write three slashes: file:///directory/name.csv")));

	if (realpath(bulk_action_file_root, root) == NULL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not resolve directory \"%s\" of bulk_action.file_root: %m",
						bulk_action_file_root),
				 errdetail("No file can be read while that directory is not accessible."),
				 errhint("Have bulk_action.file_root set to a directory that the server can "
						 "read.")));

	if (realpath(path, resolved) == NULL)
		ereport(ERROR,
				(errcode_for_missing_file(), errmsg("could not resolve path \"%s\": %m", clean_text(path)),
				 errdetail("The path is taken literally, without decoding of \"%%\" sequences, on "
						   "the server's own file system."),
				 errhint("Check that the file exists on the server and that the server's "
						 "operating system user can reach it.")));

	if (!is_below(resolved, root))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to read file \"%s\"", clean_text(path)),
				 errdetail("Its real path \"%s\" is not below bulk_action.file_root \"%s\".",
						   clean_text(resolved), root),
				 errhint("Put the file itself, not a link to it, below that directory.")));

	if (stat(resolved, &status) != 0)
		ereport(ERROR,
				(errcode_for_missing_file(), errmsg("could not stat file \"%s\": %m", clean_text(resolved)),
				 errdetail("The file disappeared while it was being checked."),
				 errhint("Check that the file exists on the server.")));

	if (!S_ISREG(status.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a regular file", clean_text(path)),
				 errdetail("Directories, devices, pipes and sockets cannot be read."),
				 errhint("Name a CSV file.")));

	return pstrdup(resolved);
}
