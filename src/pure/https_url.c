/*
 * https_url.c
 *		The address of a file on a web server: https://host/path?query.
 */
#include "pure/https_url.h"

#include <stdio.h>
#include <string.h>

#define SCHEME     "https://"
#define HTTPS_PORT 443

/* What RFC 3986 allows in a path besides letters, digits and percent signs. */
#define PATH_CHARACTERS  "-._~!$&'()*+,;=:@/"
#define QUERY_CHARACTERS PATH_CHARACTERS "?"

/* Writes the message and returns false. */
static bool
fail(char *error, size_t error_size, const char *text)
{
	snprintf(error, error_size, "%s", text);
	return false;
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/*
 * The byte at the start of an encoded text, and in *consumed how long it is
 * there; -1: a percent sign without two digits.
 */
static int
decode(const char *text, size_t *consumed)
{
	int high;
	int low;

	*consumed = 1;
	if (*text != '%')
		return (unsigned char) *text;
	high = hex_value(text[1]);
	low = high < 0 ? -1 : hex_value(text[2]);
	if (low < 0)
		return -1;
	*consumed = 3;
	return high * 16 + low;
}

/* Whether all of it is what may stand in this part of a URL, controls not even encoded. */
static bool
is_valid(const char *text, const char *characters)
{
	while (*text != '\0')
	{
		size_t consumed;
		int    c = decode(text, &consumed);
		bool   plain = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z') ||
					 (*text >= '0' && *text <= '9') || strchr(characters, *text) != NULL;

		if (c < ' ' || c == 0x7F || (consumed == 1 && !plain))
			return false;
		text += consumed;
	}
	return true;
}

/*
 * Whether a segment is "." or "..", as a server would see it that decodes the
 * path before it walks along it, and maybe takes backslashes for slashes, or
 * leaves out what follows a semicolon.
 */
static bool
has_dot_segment(const char *path)
{
	int  dots = 0;
	bool only_dots = true;
	bool parameters = false; /* behind a semicolon */

	for (;;)
	{
		size_t consumed = 0;
		int    c = *path == '\0' ? '/' : decode(path, &consumed);

		if (c == '/' || c == '\\')
		{
			if (only_dots && (dots == 1 || dots == 2))
				return true;
			dots = 0;
			only_dots = true;
			parameters = false;
		}
		else if (parameters || c == ';')
			parameters = true;
		else if (c == '.')
			dots++;
		else
			only_dots = false;
		if (consumed == 0)
			return false;
		path += consumed;
	}
}

static bool
check_path(const char *path, char *error, size_t error_size)
{
	if (path[0] != '/')
		return fail(error, error_size, "path must begin with a slash");
	if (strlen(path) > HTTPS_PATH_MAX)
		return fail(error, error_size, "path is too long");
	if (!is_valid(path, PATH_CHARACTERS))
		return fail(error, error_size,
					"path contains a character that must be percent-encoded, or a control character");
	if (has_dot_segment(path))
		return fail(error, error_size, "path must not contain \".\" or \"..\" between slashes");
	return true;
}

bool
https_prefix_check(const char *prefix, char *error, size_t error_size)
{
	/* what follows it completes its last segment */
	return check_path(prefix, error, error_size);
}

bool
https_url_is_one(const char *text)
{
	for (const char *scheme = SCHEME; *scheme != '\0'; scheme++, text++)
	{
		char c = *text >= 'A' && *text <= 'Z' ? (char) (*text - 'A' + 'a') : *text;

		if (c != *scheme)
			return false;
	}
	return true;
}

/* Host and port, which follow the same rules as those of an S3 endpoint. */
static bool
parse_authority(const char *text, size_t length, S3Endpoint *endpoint, char *error, size_t error_size)
{
	char url[8 + S3_HOST_MAX + 16];
	char reason[S3_URI_ERROR_SIZE];

	/* nothing of it is repeated: it may be a password */
	if (memchr(text, '@', length) != NULL)
		return fail(error, error_size, "it must not contain a user name or password");
	if (length == 0)
		return fail(error, error_size, "host is missing");
	if (length > sizeof(url) - sizeof(SCHEME))
		return fail(error, error_size, "host is too long");
	snprintf(url, sizeof(url), SCHEME "%.*s", (int) length, text);
	if (!s3_endpoint_parse(url, endpoint, reason, sizeof(reason)))
		return fail(error, error_size, "host or port is not valid");
	return true;
}

bool
https_url_parse(const char *text, HttpsUrl *url, char *error, size_t error_size)
{
	const char *path;
	size_t      length;

	memset(url, 0, sizeof(*url));
	if (!https_url_is_one(text))
		return fail(error, error_size, "it must begin with \"https://\"");
	if (strchr(text, '#') != NULL)
		return fail(error, error_size, "it must not contain a fragment (\"#\")");
	text += strlen(SCHEME);
	length = strcspn(text, "/?\\");
	if (!parse_authority(text, length, &url->endpoint, error, error_size))
		return false;

	path = text + length;
	length = strcspn(path, "?");
	if (length > HTTPS_PATH_MAX)
		return fail(error, error_size, "path is too long");
	memcpy(url->path, path, length);
	if (!check_path(url->path, error, error_size))
		return false;

	if (path[length] == '?')
		url->query = path + length + 1;
	if (url->query != NULL && strlen(url->query) > HTTPS_QUERY_MAX)
		return fail(error, error_size, "query is too long");
	if (url->query != NULL && !is_valid(url->query, QUERY_CHARACTERS))
		return fail(error, error_size,
					"query contains a character that must be percent-encoded, or a control character");
	return true;
}

void
https_url_authority(const HttpsUrl *url, char *out, size_t out_size)
{
	char port[sizeof(":65535")] = "";

	if (url->endpoint.port != HTTPS_PORT)
		snprintf(port, sizeof(port), ":%u", (unsigned int) (unsigned short) url->endpoint.port);
	snprintf(out, out_size, "%s%s%s%s", url->endpoint.ipv6 ? "[" : "", url->endpoint.host,
			 url->endpoint.ipv6 ? "]" : "", port);
}

void
https_url_show(const HttpsUrl *url, char out[HTTPS_SHOWN_SIZE])
{
	char authority[S3_HOST_MAX + 9];

	https_url_authority(url, authority, sizeof(authority));
	snprintf(out, HTTPS_SHOWN_SIZE, SCHEME "%s%s%s", authority, url->path,
			 url->query != NULL ? HTTPS_HIDDEN_QUERY : "");
}
