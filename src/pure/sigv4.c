/*
 * sigv4.c
 *		AWS Signature Version 4 for S3 requests that carry no body.
 *
 * Three steps, named as in the API reference: the canonical request is hashed,
 * the hash goes into the string to sign, and that is signed with a key derived
 * from the secret, the day, the region and the service.  The canonical request
 * is never held in memory, its parts are hashed one after the other.
 */
#ifndef _GNU_SOURCE
#define _POSIX_C_SOURCE 200809L /* gmtime_r */
#endif

#include "pure/sigv4.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "pure/s3_uri.h"

#define SHA256_SIZE 32

/* A scope is 20130524/us-east-1/s3/aws4_request. */
#define SCOPE_SIZE 96
#define DAY_LENGTH 8

/* The longest secret; AWS's own have 40 characters. */
#define SECRET_MAX 256

/* The longest name of a query parameter, encoded. */
#define QUERY_NAME_SIZE 256

/* The longest list of signed header names. */
#define SIGNED_HEADERS_SIZE 512

static const char algorithm[] = "AWS4-HMAC-SHA256";

static char
to_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char) (c - 'A' + 'a') : c;
}

/* strcasecmp() that does not ask the locale. */
static int
compare_names(const char *a, const char *b)
{
	while (*a != '\0' && to_lower(*a) == to_lower(*b))
	{
		a++;
		b++;
	}
	return (unsigned char) to_lower(*a) - (unsigned char) to_lower(*b);
}

static void
to_hex(const unsigned char digest[SHA256_SIZE], char out[SIGV4_SIGNATURE_SIZE])
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < SHA256_SIZE; i++)
	{
		out[2 * i] = digits[digest[i] >> 4];
		out[2 * i + 1] = digits[digest[i] & 15];
	}
	out[2 * SHA256_SIZE] = '\0';
}

static bool
hmac(const void *key, size_t key_length, const char *text,
	 unsigned char out[SHA256_SIZE])
{
	unsigned int length = SHA256_SIZE;

	return HMAC(EVP_sha256(), key, (int) key_length,
				(const unsigned char *) text, strlen(text),
				out, &length) != NULL &&
		   length == SHA256_SIZE;
}

SigV4Status
sigv4_format_date(time_t now, char out[SIGV4_DATE_SIZE])
{
	struct tm utc;

	out[0] = '\0';
	if (gmtime_r(&now, &utc) == NULL ||
		utc.tm_year < 70 || utc.tm_year > 9999 - 1900)
		return SIGV4_BAD_ARGUMENT;
	if (strftime(out, SIGV4_DATE_SIZE, "%Y%m%dT%H%M%SZ", &utc) !=
		SIGV4_DATE_SIZE - 1)
		return SIGV4_BAD_ARGUMENT;
	return SIGV4_OK;
}

/*
 * Order of query parameters: by encoded name, then by encoded value.  For
 * values it is enough to compare the bytes up to where they differ.
 */
static int
compare_parameters(const SigV4Pair *a, const SigV4Pair *b)
{
	char        first[QUERY_NAME_SIZE];
	char        second[QUERY_NAME_SIZE];
	const char *x = a->value;
	const char *y = b->value;
	char        byte[2] = "";
	int         order;

	/* that the names fit has been checked */
	(void) s3_uri_encode(a->name, "", first, sizeof(first));
	(void) s3_uri_encode(b->name, "", second, sizeof(second));
	order = strcmp(first, second);
	if (order != 0)
		return order;

	while (*x != '\0' && *x == *y)
	{
		x++;
		y++;
	}
	byte[0] = *x;
	(void) s3_uri_encode(byte, "", first, sizeof(first));
	byte[0] = *y;
	(void) s3_uri_encode(byte, "", second, sizeof(second));
	return strcmp(first, second);
}

SigV4Status
sigv4_query_string(const SigV4Pair *parameters, size_t nparameters,
				   char *out, size_t out_size)
{
	const SigV4Pair *sorted[SIGV4_MAX_PAIRS];
	size_t           n = 0;

	if (out_size == 0 || nparameters > SIGV4_MAX_PAIRS)
		return SIGV4_TOO_LONG;
	out[0] = '\0';

	/* insertion sort: a request has one or two parameters */
	for (size_t i = 0; i < nparameters; i++)
	{
		char   name[QUERY_NAME_SIZE];
		size_t j = i;

		if (s3_uri_encode(parameters[i].name, "", name,
						  sizeof(name)) == (size_t) -1)
			return SIGV4_TOO_LONG;
		for (; j > 0 && compare_parameters(&parameters[i], sorted[j - 1]) < 0; j--)
			sorted[j] = sorted[j - 1];
		sorted[j] = &parameters[i];
	}

	for (size_t i = 0; i < nparameters; i++)
	{
		size_t length;

		if (i > 0)
		{
			if (out_size - n < 2)
				return SIGV4_TOO_LONG;
			out[n++] = '&';
		}
		length = s3_uri_encode(sorted[i]->name, "", out + n, out_size - n);
		if (length == (size_t) -1)
			return SIGV4_TOO_LONG;
		n += length;
		if (out_size - n < 2)
			return SIGV4_TOO_LONG;
		out[n++] = '=';
		length = s3_uri_encode(sorted[i]->value, "", out + n, out_size - n);
		if (length == (size_t) -1)
			return SIGV4_TOO_LONG;
		n += length;
	}
	return SIGV4_OK;
}

/* Sorts headers by name; false if two have the same. */
static bool
sort_headers(const SigV4Request *request, const SigV4Pair **sorted)
{
	for (size_t i = 0; i < request->nheaders; i++)
	{
		const SigV4Pair *header = &request->headers[i];
		size_t           j = i;

		for (; j > 0; j--)
		{
			int order = compare_names(header->name, sorted[j - 1]->name);

			if (order == 0)
				return false;
			if (order > 0)
				break;
			sorted[j] = sorted[j - 1];
		}
		sorted[j] = header;
	}
	return true;
}

static const char *
header_value(const SigV4Request *request, const char *name)
{
	for (size_t i = 0; i < request->nheaders; i++)
	{
		if (compare_names(request->headers[i].name, name) == 0)
			return request->headers[i].value;
	}
	return NULL;
}

/* Writes the SignedHeaders list: names in lower case, in order, with `;`. */
static bool
list_signed_headers(const SigV4Pair *const *sorted, size_t nheaders, char *out)
{
	size_t n = 0;

	for (size_t i = 0; i < nheaders; i++)
	{
		size_t length = strlen(sorted[i]->name);

		if (n + 1 + length >= SIGNED_HEADERS_SIZE)
			return false;
		if (i > 0)
			out[n++] = ';';
		for (size_t j = 0; j < length; j++)
			out[n++] = to_lower(sorted[i]->name[j]);
	}
	out[n] = '\0';
	return true;
}

static bool
hash_text(EVP_MD_CTX *context, const char *text)
{
	return EVP_DigestUpdate(context, text, strlen(text)) == 1;
}

/*
 * Hashes `name:value\n`, the name in lower case, the value without blanks at
 * its ends and with one space for each run of blanks inside.
 */
static bool
hash_header(EVP_MD_CTX *context, const SigV4Pair *header)
{
	bool pending_space = false;
	bool begun = false;

	for (const char *c = header->name; *c != '\0'; c++)
	{
		char lower = to_lower(*c);

		if (EVP_DigestUpdate(context, &lower, 1) != 1)
			return false;
	}
	if (!hash_text(context, ":"))
		return false;
	for (const char *c = header->value; *c != '\0'; c++)
	{
		if (*c == ' ' || *c == '\t')
		{
			pending_space = begun;
			continue;
		}
		if (pending_space && !hash_text(context, " "))
			return false;
		if (EVP_DigestUpdate(context, c, 1) != 1)
			return false;
		pending_space = false;
		begun = true;
	}
	return hash_text(context, "\n");
}

/* Hashes the canonical request. */
static bool
hash_request(const SigV4Request *request, const SigV4Pair *const *sorted,
			 const char *signed_headers, char out[SIGV4_SIGNATURE_SIZE])
{
	EVP_MD_CTX   *context = EVP_MD_CTX_new();
	unsigned char digest[SHA256_SIZE];
	bool          ok;

	if (context == NULL)
		return false;
	ok = EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1 &&
		 hash_text(context, request->method) &&
		 hash_text(context, "\n") &&
		 hash_text(context, request->path) &&
		 hash_text(context, "\n") &&
		 hash_text(context, request->query) &&
		 hash_text(context, "\n");
	for (size_t i = 0; ok && i < request->nheaders; i++)
		ok = hash_header(context, sorted[i]);
	ok = ok && hash_text(context, "\n") &&
		 hash_text(context, signed_headers) &&
		 hash_text(context, "\n") &&
		 hash_text(context, header_value(request, "x-amz-content-sha256")) &&
		 EVP_DigestFinal_ex(context, digest, NULL) == 1;
	EVP_MD_CTX_free(context);
	if (ok)
		to_hex(digest, out);
	return ok;
}

/* Derives the signing key of one day and region from the secret. */
static bool
derive_key(const SigV4Credentials *credentials, const char *day,
		   unsigned char key[SHA256_SIZE])
{
	char secret[sizeof("AWS4") + SECRET_MAX];
	int  length;
	bool ok;

	length = snprintf(secret, sizeof(secret), "AWS4%s",
					  credentials->secret_access_key);
	ok = length >= 0 && length < (int) sizeof(secret) &&
		 hmac(secret, (size_t) length, day, key) &&
		 hmac(key, SHA256_SIZE, credentials->region, key) &&
		 hmac(key, SHA256_SIZE, "s3", key) &&
		 hmac(key, SHA256_SIZE, "aws4_request", key);
	OPENSSL_cleanse(secret, sizeof(secret));
	return ok;
}

/* Whether a date is 20130524T000000Z, as far as its length and marks go. */
static bool
valid_date(const char *date)
{
	if (date == NULL || strlen(date) != SIGV4_DATE_SIZE - 1)
		return false;
	for (size_t i = 0; i < SIGV4_DATE_SIZE - 1; i++)
	{
		char expected = i == DAY_LENGTH ? 'T' : i == 15 ? 'Z' :
														  '0';

		if (expected == '0' ? date[i] < '0' || date[i] > '9' : date[i] != expected)
			return false;
	}
	return true;
}

SigV4Status
sigv4_sign(const SigV4Request *request, const SigV4Credentials *credentials,
		   char  signature[SIGV4_SIGNATURE_SIZE],
		   char *authorization, size_t authorization_size)
{
	const SigV4Pair *sorted[SIGV4_MAX_PAIRS];
	const char      *date = header_value(request, "x-amz-date");
	char             signed_headers[SIGNED_HEADERS_SIZE];
	char             request_hash[SIGV4_SIGNATURE_SIZE];
	char             own_signature[SIGV4_SIGNATURE_SIZE];
	char             day[DAY_LENGTH + 1] = "";
	char             scope[SCOPE_SIZE];
	char             string_to_sign[SCOPE_SIZE + 128];
	unsigned char    digest[SHA256_SIZE];
	bool             ok;
	int              length;

	if (request->nheaders > SIGV4_MAX_PAIRS)
		return SIGV4_TOO_LONG;
	if (request->path[0] != '/' || !valid_date(date) ||
		header_value(request, "host") == NULL ||
		header_value(request, "x-amz-content-sha256") == NULL ||
		!sort_headers(request, sorted))
		return SIGV4_BAD_ARGUMENT;
	if (!list_signed_headers(sorted, request->nheaders, signed_headers))
		return SIGV4_TOO_LONG;
	if (!hash_request(request, sorted, signed_headers, request_hash))
		return SIGV4_CRYPTO_FAILED;

	memcpy(day, date, DAY_LENGTH);
	length = snprintf(scope, sizeof(scope), "%s/%s/s3/aws4_request",
					  day, credentials->region);
	if (length >= (int) sizeof(scope) ||
		strlen(credentials->secret_access_key) > SECRET_MAX)
		return SIGV4_TOO_LONG;
	snprintf(string_to_sign, sizeof(string_to_sign), "%s\n%s\n%s\n%s",
			 algorithm, date, scope, request_hash);

	ok = derive_key(credentials, day, digest) &&
		 hmac(digest, SHA256_SIZE, string_to_sign, digest);
	if (ok)
		to_hex(digest, own_signature);
	OPENSSL_cleanse(digest, sizeof(digest));
	if (!ok)
		return SIGV4_CRYPTO_FAILED;

	if (signature != NULL)
		memcpy(signature, own_signature, SIGV4_SIGNATURE_SIZE);
	length = snprintf(authorization, authorization_size,
					  "%s Credential=%s/%s, SignedHeaders=%s, Signature=%s",
					  algorithm, credentials->access_key_id, scope,
					  signed_headers, own_signature);
	return length < 0 || (size_t) length >= authorization_size ?
			   SIGV4_TOO_LONG :
			   SIGV4_OK;
}

const char *
sigv4_status_text(SigV4Status status)
{
	switch (status)
	{
		case SIGV4_OK:
			return "ok";
		case SIGV4_TOO_LONG:
			return "credentials, region or headers are too long";
		case SIGV4_BAD_ARGUMENT:
			return "the request lacks what a signature covers";
		case SIGV4_CRYPTO_FAILED:
			return "OpenSSL could not compute a hash";
	}
	return "unknown status";
}
