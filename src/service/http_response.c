/*
 * http_response.c
 *		Reads the header lines of an HTTP answer.
 *
 * Headers come from the network: whatever they hold, every field ends up with
 * printable ASCII that fits, or a number that is -1 or not negative.
 */
#include "postgres.h"

#include "service/http_response.h"

void
http_response_begin(HttpResponse *response, int status)
{
	/* the error body is large, and its length says what of it counts */
	memset(response, 0, offsetof(HttpResponse, error_body));
	response->error_body_length = 0;
	response->status = status;
	response->content_length = -1;
	response->range_first = -1;
	response->range_last = -1;
	response->range_total = -1;
	response->retry_after_seconds = -1;
}

/*
 * Parses a number without sign and sets `*rest` to what follows it.  Returns
 * -1 if `text` begins with no number or with one beyond int64.
 */
static int64
parse_number(const char *text, const char **rest)
{
	bool  valid = *text >= '0' && *text <= '9';
	int64 value = 0;

	for (; *text >= '0' && *text <= '9'; text++)
	{
		if (value > (PG_INT64_MAX - 9) / 10)
			valid = false;
		else
			value = value * 10 + (*text - '0');
	}
	*rest = text;
	return valid ? value : -1;
}

/* A number that is all there is; -1 for anything else, such as a date. */
static int64
parse_whole_number(const char *text)
{
	const char *rest;
	int64       value = parse_number(text, &rest);

	return *rest == '\0' ? value : -1;
}

/* `bytes 0-9/100`; an asterisk in place of range or total stays -1. */
static void
parse_content_range(const char *text, HttpResponse *response)
{
	if (pg_strncasecmp(text, "bytes ", 6) != 0)
		return;
	text += 6;
	if (*text == '*')
		text++;
	else
	{
		response->range_first = parse_number(text, &text);
		if (*text != '-')
			return;
		response->range_last = parse_number(text + 1, &text);
	}
	if (*text == '/')
		response->range_total = parse_whole_number(text + 1);
}

static bool
take_header(HttpResponse *response, const char *name, const char *value)
{
	const struct
	{
		const char *name;
		char       *field;
		size_t      size;
	} texts[] = {
		{"etag", response->etag, sizeof(response->etag)},
		{"x-amz-request-id", response->request_id, sizeof(response->request_id)},
		{"x-amz-bucket-region", response->bucket_region, sizeof(response->bucket_region)},
		{"x-amz-version-id", response->version_id, sizeof(response->version_id)}};

	for (size_t i = 0; i < lengthof(texts); i++)
	{
		if (pg_strcasecmp(name, texts[i].name) == 0)
			return strlcpy(texts[i].field, value, texts[i].size) < texts[i].size;
	}
	if (pg_strcasecmp(name, "content-length") == 0)
		response->content_length = parse_whole_number(value);
	else if (pg_strcasecmp(name, "content-range") == 0)
		parse_content_range(value, response);
	else if (pg_strcasecmp(name, "retry-after") == 0)
		response->retry_after_seconds =
			(int) Min(parse_whole_number(value), PG_INT32_MAX);
	return true;
}

bool
http_response_header(HttpResponse *response, const char *data, size_t length)
{
	char   line[HTTP_VERSION_ID_SIZE + 64];
	char  *value;
	size_t n = 0;

	for (; n < length && n < sizeof(line) - 1; n++)
	{
		char c = data[n];

		if (c == '\t' || c == '\r' || c == '\n')
			line[n] = ' ';
		else
			line[n] = c >= ' ' && c <= '~' ? c : '?';
	}
	while (n > 0 && line[n - 1] == ' ')
		n--;
	line[n] = '\0';

	/* an interim answer (1xx) is forgotten when the next one begins */
	if (strncmp(line, "HTTP/", 5) == 0)
	{
		const char *rest;

		int64 status = 0;

		value = strchr(line, ' ');
		if (value != NULL)
			status = parse_number(value + 1, &rest);
		http_response_begin(response, status > 0 && status <= 999 ? (int) status : 0);
		return true;
	}
	value = strchr(line, ':');
	if (value == NULL)
		return true;
	*value++ = '\0';
	value += strspn(value, " ");
	return take_header(response, line, value);
}
