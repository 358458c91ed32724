/*
 * s3_uri.c
 *		The addresses of S3: s3://bucket/key, endpoint URLs, and the request
 *		target that both make together.
 */
#include "pure/s3_uri.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define HTTP_PORT  80
#define HTTPS_PORT 443

static bool fail(char *error, size_t error_size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Writes the message and returns false, for `return fail(...)`. */
static bool
fail(char *error, size_t error_size, const char *format, ...)
{
	va_list args;

	if (error_size > 0)
	{
		va_start(args, format);
		vsnprintf(error, error_size, format, args);
		va_end(args);
	}
	return false;
}

/* The ctype functions depend on the locale; names on the wire do not. */
static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_lower(char c)
{
	return c >= 'a' && c <= 'z';
}

static char
to_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char) (c - 'A' + 'a') : c;
}

static bool
is_hex(char c)
{
	c = to_lower(c);
	return is_digit(c) || (c >= 'a' && c <= 'f');
}

/* Whether `text` begins with the lower-case `prefix`, in any case. */
static bool
starts_with(const char *text, const char *prefix)
{
	for (; *prefix != '\0'; text++, prefix++)
	{
		if (to_lower(*text) != *prefix)
			return false;
	}
	return true;
}

/* Whether all of a name is digits and dots, with three dots: like 192.0.2.1. */
static bool
looks_like_ipv4(const char *name)
{
	int dots = 0;

	for (; *name != '\0'; name++)
	{
		if (*name == '.')
			dots++;
		else if (!is_digit(*name))
			return false;
	}
	return dots == 3;
}

bool
s3_bucket_check(const char *bucket, char *error, size_t error_size)
{
	size_t length = strlen(bucket);

	if (length < 3 || length > S3_BUCKET_MAX)
		return fail(error, error_size,
					"bucket name must have 3 to %d characters, not %zu",
					S3_BUCKET_MAX, length);
	for (size_t i = 0; i < length; i++)
	{
		char c = bucket[i];

		if (!is_lower(c) && !is_digit(c) && c != '.' && c != '-')
			return fail(error, error_size,
						"bucket name may contain only lower-case letters, digits, dots, hyphens");
		if (c == '.' && i > 0 && bucket[i - 1] == '.')
			return fail(error, error_size,
						"bucket name must not contain two dots in a row");
	}
	if ((!is_lower(bucket[0]) && !is_digit(bucket[0])) ||
		(!is_lower(bucket[length - 1]) && !is_digit(bucket[length - 1])))
		return fail(error, error_size,
					"bucket name must begin and end with a letter or digit");
	if (looks_like_ipv4(bucket))
		return fail(error, error_size,
					"bucket name must not look like an IP address");
	return true;
}

bool
s3_key_check(const char *key, char *error, size_t error_size)
{
	size_t      length = strlen(key);
	const char *segment = key;

	if (length == 0)
		return fail(error, error_size, "object key is missing");
	if (length > S3_KEY_MAX)
		return fail(error, error_size,
					"object key must have at most %d bytes, not %zu",
					S3_KEY_MAX, length);
	for (;;)
	{
		size_t n = strcspn(segment, "/");

		if ((n == 1 && segment[0] == '.') ||
			(n == 2 && segment[0] == '.' && segment[1] == '.'))
			return fail(error, error_size,
						"object key must not contain \".\" or \"..\" between slashes");
		if (segment[n] == '\0')
			return true;
		segment += n + 1;
	}
}

bool
s3_uri_parse(const char *text, S3Uri *uri, char *error, size_t error_size)
{
	static const char scheme[] = "s3://";
	const char       *bucket;
	const char       *slash;
	size_t            bucket_length;

	memset(uri, 0, sizeof(*uri));
	if (!starts_with(text, scheme))
		return fail(error, error_size, "URI must begin with \"s3://\"");
	bucket = text + strlen(scheme);

	slash = strchr(bucket, '/');
	bucket_length = slash != NULL ? (size_t) (slash - bucket) : strlen(bucket);
	if (bucket_length == 0)
		return fail(error, error_size, "bucket name is missing");
	if (bucket_length > S3_BUCKET_MAX)
		return fail(error, error_size,
					"bucket name must have 3 to %d characters, not %zu",
					S3_BUCKET_MAX, bucket_length);
	memcpy(uri->bucket, bucket, bucket_length);
	if (!s3_bucket_check(uri->bucket, error, error_size))
		return false;

	if (slash == NULL)
		return fail(error, error_size, "object key is missing");
	if (!s3_key_check(slash + 1, error, error_size))
		return false;
	memcpy(uri->key, slash + 1, strlen(slash + 1));
	return true;
}

/* Copies a bracketed IPv6 address; `*cursor` then stands behind the bracket. */
static bool
parse_ipv6(const char **cursor, S3Endpoint *endpoint,
		   char *error, size_t error_size)
{
	const char *start = *cursor + 1;
	size_t      length = strcspn(start, "]");
	int         colons = 0;

	if (start[length] != ']')
		return fail(error, error_size,
					"endpoint host lacks its closing bracket");
	for (size_t i = 0; i < length; i++)
	{
		if (start[i] == ':')
			colons++;
		else if (!is_hex(start[i]) && start[i] != '.')
			return fail(error, error_size,
						"endpoint host is not a valid IPv6 address");
	}
	/* the longest text form is INET6_ADDRSTRLEN - 1 = 45 characters */
	if (length > 45 || colons < 2)
		return fail(error, error_size,
					"endpoint host is not a valid IPv6 address");
	for (size_t i = 0; i < length; i++)
		endpoint->host[i] = to_lower(start[i]);
	endpoint->host[length] = '\0';
	endpoint->ipv6 = true;
	*cursor = start + length + 1;
	return true;
}

/* Copies a host name or IPv4 address; `*cursor` then stands behind it. */
static bool
parse_host(const char **cursor, S3Endpoint *endpoint,
		   char *error, size_t error_size)
{
	const char *start = *cursor;
	size_t      length = strcspn(start, ":/?#");

	if (memchr(start, '@', length) != NULL)
		return fail(error, error_size,
					"endpoint must not contain a user name or password");
	if (length == 0)
		return fail(error, error_size, "endpoint host is missing");
	if (length > S3_HOST_MAX)
		return fail(error, error_size,
					"endpoint host must have at most %d characters, not %zu",
					S3_HOST_MAX, length);
	for (size_t i = 0; i < length; i++)
	{
		char c = to_lower(start[i]);

		/* underscores are no part of host names, yet Docker makes them */
		if (!is_lower(c) && !is_digit(c) && c != '.' && c != '-' && c != '_')
			return fail(error, error_size,
						"endpoint host may contain only letters, digits, dots and hyphens");
		if (c == '.' && (i == 0 || start[i - 1] == '.'))
			return fail(error, error_size,
						"endpoint host has an empty label");
		endpoint->host[i] = c;
	}
	endpoint->host[length] = '\0';
	*cursor = start + length;
	return true;
}

/* Reads a port of 1 to 65535; `*cursor` then stands behind it. */
static bool
parse_port(const char **cursor, S3Endpoint *endpoint,
		   char *error, size_t error_size)
{
	const char *c = *cursor + 1;
	int         port = 0;

	while (is_digit(*c) && port <= UINT16_MAX)
		port = port * 10 + (*c++ - '0');
	if (port < 1 || port > UINT16_MAX ||
		(*c != '\0' && strchr("/?#", *c) == NULL))
		return fail(error, error_size,
					"endpoint port must be a number from 1 to 65535");
	endpoint->port = port;
	*cursor = c;
	return true;
}

bool
s3_endpoint_parse(const char *text, S3Endpoint *endpoint,
				  char *error, size_t error_size)
{
	const char *c;

	memset(endpoint, 0, sizeof(*endpoint));
	if (starts_with(text, "https://"))
	{
		endpoint->tls = true;
		endpoint->port = HTTPS_PORT;
		c = text + strlen("https://");
	}
	else if (starts_with(text, "http://"))
	{
		endpoint->port = HTTP_PORT;
		c = text + strlen("http://");
	}
	else
		return fail(error, error_size,
					"endpoint must begin with \"https://\" or \"http://\"");

	if (*c == '[')
	{
		if (!parse_ipv6(&c, endpoint, error, error_size))
			return false;
	}
	else if (!parse_host(&c, endpoint, error, error_size))
		return false;

	if (*c == ':' && !parse_port(&c, endpoint, error, error_size))
		return false;
	if (*c == '/')
		c++;
	if (*c != '\0')
		return fail(error, error_size,
					"endpoint must not contain anything after host and port");
	return true;
}

size_t
s3_uri_encode(const char *text, const char *keep, char *out, size_t out_size)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t            n = 0;

	if (out_size == 0)
		return (size_t) -1;
	for (; *text != '\0'; text++)
	{
		unsigned char c = (unsigned char) *text;
		char          lower = to_lower(*text);
		bool          plain = is_lower(lower) || is_digit(lower) ||
					 strchr("-._~", *text) != NULL || strchr(keep, *text) != NULL;

		if (out_size - n <= (plain ? 1U : 3U))
		{
			out[n] = '\0';
			return (size_t) -1;
		}
		if (plain)
			out[n++] = *text;
		else
		{
			out[n++] = '%';
			out[n++] = digits[c >> 4];
			out[n++] = digits[c & 15];
		}
	}
	out[n] = '\0';
	return n;
}

bool
s3_target_build(const S3Endpoint *endpoint, S3Addressing addressing,
				const char *bucket, const char *key, S3Target *target,
				char *error, size_t error_size)
{
	bool   virtual_host = addressing == S3_ADDRESSING_VIRTUAL;
	char   port[sizeof(":65535")] = "";
	size_t n;

	memset(target, 0, sizeof(*target));
	if (!s3_bucket_check(bucket, error, error_size) ||
		!s3_key_check(key, error, error_size))
		return false;
	if (virtual_host && (endpoint->ipv6 || looks_like_ipv4(endpoint->host)))
		return fail(error, error_size,
					"virtual-host addressing needs an endpoint that is a host name");
	if (virtual_host &&
		strlen(bucket) + 1 + strlen(endpoint->host) > S3_HOST_MAX)
		return fail(error, error_size,
					"bucket and endpoint host together must have at most %d characters",
					S3_HOST_MAX - 1);

	if (endpoint->port != (endpoint->tls ? HTTPS_PORT : HTTP_PORT))
		snprintf(port, sizeof(port), ":%u",
				 (unsigned int) (uint16_t) endpoint->port);
	snprintf(target->authority, sizeof(target->authority), "%s%s%s%s%s%s",
			 virtual_host ? bucket : "", virtual_host ? "." : "",
			 endpoint->ipv6 ? "[" : "", endpoint->host,
			 endpoint->ipv6 ? "]" : "", port);

	n = (size_t) snprintf(target->path, sizeof(target->path), "/%s%s",
						  virtual_host ? "" : bucket,
						  virtual_host ? "" : "/");
	if (s3_uri_encode(key, "/", target->path + n,
					  sizeof(target->path) - n) == (size_t) -1)
		return fail(error, error_size, "object key is too long");
	return true;
}
