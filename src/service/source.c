/*
 * source.c
 *		Where files come from: one interface over S3, web servers and local
 *		files.
 *
 * A source is pinned before its first byte is read, and every read names the
 * pin, so a file that is replaced half-way is an error and never a mixture.
 * For a local file the pin is its size, inode and time of modification.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"

#include "base/error_codes.h"
#include "pure/https_url.h"
#include "pure/s3_uri.h"
#include "service/clean_text.h"
#include "service/file_path.h"
#include "service/https_options.h"
#include "service/s3.h"
#include "service/s3_options.h"
#include "service/source.h"

struct Source
{
	RemoteObject *remote; /* NULL: a local file */
	char         *path;   /* of a local file */
};

static bool
is_file_uri(const char *uri)
{
	return strncmp(uri, FILE_URI_SCHEME, strlen(FILE_URI_SCHEME)) == 0;
}

/* The URL that was submitted, from what is shown of it and its query. */
static char *
join_query(const char *uri, const char *query)
{
	return query == NULL ? pstrdup(uri) : psprintf("%.*s?%s", (int) strcspn(uri, "?"), uri, query);
}

static RemoteObject *
open_https(const SourceAddress *address, Oid role, MemoryContext context)
{
	HttpsUrl url;

	https_source_parse(join_query(address->uri, address->query), &url);
	return https_open(context, &url, address->server, role);
}

/* The server through which the role may read the object. */
static char *
find_s3_server(const SourceAddress *address, Oid role, S3Uri *parsed)
{
	char error[S3_URI_ERROR_SIZE];

	if (!s3_uri_parse(address->uri, parsed, error, sizeof(error)))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", clean_text(error))));
	return s3_server_for(parsed->bucket, parsed->key, address->server, role);
}

static RemoteObject *
open_s3(const SourceAddress *address, Oid role, MemoryContext context)
{
	S3Uri     parsed;
	S3Config *config = s3_config_load(find_s3_server(address, role, &parsed), role);

	if (config->bucket == NULL)
		config->bucket = pstrdup(parsed.bucket);
	return s3_open(context, config, parsed.key);
}

Source *
source_open(const SourceAddress *address, Oid role, MemoryContext context)
{
	Source *source = MemoryContextAllocZero(context, sizeof(Source));

	if (is_file_uri(address->uri))
		source->path = MemoryContextStrdup(context, file_path_resolve(address->uri));
	else if (https_url_is_one(address->uri))
		source->remote = open_https(address, role, context);
	else
		source->remote = open_s3(address, role, context);
	return source;
}

void
source_check(const SourceAddress *address, Oid role)
{
	if (is_file_uri(address->uri))
		(void) file_path_resolve(address->uri);
	else if (https_url_is_one(address->uri))
	{
		HttpsUrl url;

		https_source_parse(join_query(address->uri, address->query), &url);
		(void) https_server_for(&url, address->server, role);
	}
	else
	{
		S3Uri parsed;

		(void) find_s3_server(address, role, &parsed);
	}
}

/* What may pass, like want of file descriptors, does not make it a file that is gone. */
static int
errcode_for_open(void)
{
	return errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == EIO ?
			   errcode_for_file_access() :
			   errcode(ERRCODE_BULK_ACTION_SOURCE_NOT_FOUND);
}

/*
 * Opens the file and says which version of it this is.  Opening a pipe that
 * has taken the file's place must not wait for somebody to write to it.
 */
static int
open_file(Source *source, struct stat *status)
{
	int fd = OpenTransientFilePerm(source->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | PG_BINARY, 0);

	if (fd < 0 || fstat(fd, status) != 0)
		ereport(ERROR,
				(errcode_for_open(),
				 errmsg("could not open file \"%s\": %m", clean_text(source->path)),
				 errhint("The file must stay where it is until the action has ended.")));
	if (!S_ISREG(status->st_mode))
	{
		CloseTransientFile(fd);
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a regular file", clean_text(source->path)),
				 errhint("The file must stay where it is until the action has ended.")));
	}
	return fd;
}

static char *
file_etag(const struct stat *status)
{
	return psprintf("%llu-%lld.%09ld", (unsigned long long) status->st_ino,
					(long long) status->st_mtim.tv_sec, (long) status->st_mtim.tv_nsec);
}

static void
read_file(Source *source, const SourcePin *pin, int64 offset, size_t length, char *buffer)
{
	struct stat status;
	int         fd = open_file(source, &status);
	size_t      done = 0;
	bool        unchanged;

	while (done < length)
	{
		ssize_t n;

		CHECK_FOR_INTERRUPTS();
		n = pread(fd, buffer + done, Min(length - done, 1024 * 1024), offset + done);
		if (n < 0 && errno != EINTR)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", clean_text(source->path))));
		if (n == 0)
			break;
		if (n > 0)
			done += n;
	}
	/* Looked at after reading, so that a change in the meantime is seen as well. */
	unchanged = fstat(fd, &status) == 0 && done == length && status.st_size == pin->size &&
				strcmp(file_etag(&status), pin->etag) == 0;
	CloseTransientFile(fd);
	if (!unchanged)
		ereport(ERROR,
				(errcode(ERRCODE_BULK_ACTION_SOURCE_REPLACED),
				 errmsg("file \"%s\" was changed while it was being read", clean_text(source->path)),
				 errhint("Leave the file alone until the action has ended, and submit it again.")));
}

void
source_pin(Source *source, SourcePin *pin)
{
	struct stat status;
	int         fd;

	if (source->remote != NULL)
	{
		remote_object_pin(source->remote, pin);
		return;
	}
	fd = open_file(source, &status);
	memset(pin, 0, sizeof(*pin));
	pin->size = status.st_size;
	pin->etag = file_etag(&status);
	CloseTransientFile(fd);
}

void
source_read(Source *source, const SourcePin *pin, int64 offset, size_t length, char *buffer)
{
	if (length == 0)
		return;
	if (source->remote != NULL)
		remote_object_read(source->remote, pin, offset, length, buffer);
	else
		read_file(source, pin, offset, length, buffer);
}
