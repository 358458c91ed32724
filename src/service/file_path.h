/*
 * file_path.h
 *		The file that a file:// source stands for, and whether it may be read.
 */
#ifndef BULK_ACTION_FILE_PATH_H
#define BULK_ACTION_FILE_PATH_H

#include "postgres.h"

#define FILE_URI_SCHEME "file://"

/*
 * Resolves file:///absolute/path to the canonical path of a regular file below
 * bulk_action.file_root, palloc'd.  Raises an error if that is not set, if the
 * current user may not read files of the server, or if there is no such file
 * there.  Called at submit and again before reading: open what it returns with
 * O_NOFOLLOW.
 */
extern char *file_path_resolve(const char *uri);

#endif /* BULK_ACTION_FILE_PATH_H */
