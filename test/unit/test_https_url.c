/*
 * test_https_url.c
 *	  URLs: what is accepted, what is refused, and what may be shown of them.
 */
#include "unit.h"

#include "pure/https_url.h"

static char message[S3_URI_ERROR_SIZE];

/* What a URL is taken for: `authority path query`, or the reason why not. */
static const char *
parsed(const char *text)
{
	static char result[16384];
	char        authority[S3_HOST_MAX + 9];
	HttpsUrl    url;

	message[0] = '\0';
	if (!https_url_parse(text, &url, message, sizeof(message)))
		return message;
	https_url_authority(&url, authority, sizeof(authority));
	snprintf(result, sizeof(result), "%s %s %s", authority, url.path, url.query != NULL ? url.query : "-");
	return result;
}

static const char *
shown(const char *text)
{
	static char result[HTTPS_SHOWN_SIZE];
	HttpsUrl    url;

	if (!https_url_parse(text, &url, message, sizeof(message)))
		return message;
	https_url_show(&url, result);
	return result;
}

static void
test_accepted(void)
{
	CHECK_STR(parsed("https://files.example.com/a.csv"), "files.example.com /a.csv -");
	CHECK_STR(parsed("HTTPS://Files.Example.COM:443/A.csv"), "files.example.com /A.csv -");
	CHECK_STR(parsed("https://example.com:8443/a?X-Amz-Signature=0&b=%2F?/"),
			  "example.com:8443 /a X-Amz-Signature=0&b=%2F?/");
	CHECK_STR(parsed("https://192.168.0.1/a"), "192.168.0.1 /a -");
	CHECK_STR(parsed("https://[2001:DB8::1]:9/a"), "[2001:db8::1]:9 /a -");
	CHECK_STR(parsed("https://example.com/"), "example.com / -");
	CHECK_STR(parsed("https://example.com/a?"), "example.com /a ");
	CHECK_STR(parsed("https://example.com//a/.b/c../...//%20%C3%A4;v=1"),
			  "example.com //a/.b/c../...//%20%C3%A4;v=1 -");
	CHECK(https_url_is_one("hTTps://"));
	CHECK(!https_url_is_one("http://example.com/"));
	CHECK(!https_url_is_one("https:/example.com/"));
	CHECK(!https_url_is_one(""));
}

static void
test_refused(void)
{
	static const char *const dots[] = {
		"https://h/..", "https://h/.", "https://h/a/../b", "https://h/a/./b", "https://h/a/..",
		"https://h/a/%2e%2E/b", "https://h/a/.%2e/b", "https://h/a/%2e", "https://h/a/..%2fb",
		"https://h/a%2F..%2Fb", "https://h/a/..%5cb", "https://h/a%5C..", "https://h/a/..;/b", "https://h/a/..;x=1/b",
		"https://h/a/%2e%2e%3b/b"};
	static const char *const characters[] = {
		"https://h/a b", "https://h/a\tb", "https://h/a\nb", "https://h/\x01", "https://h/\x7f", "https://h/%00",
		"https://h/%0d%0a", "https://h/%7F", "https://h/%", "https://h/%4", "https://h/%zz", "https://h/a\\b",
		"https://h/\xc3\xa4", "https://h/<a>", "https://h/\"", "https://h/{a}", "https://h/[a]", "https://h/a|b",
		"https://h/`", "https://h/a^b"};
	char longest[8 + 1 + HTTPS_PATH_MAX + 1 + HTTPS_QUERY_MAX + 2];

	for (size_t i = 0; i < sizeof(dots) / sizeof(dots[0]); i++)
	{
		if (!CHECK_STR(parsed(dots[i]), "path must not contain \".\" or \"..\" between slashes"))
			printf("%s\n", dots[i]);
	}
	for (size_t i = 0; i < sizeof(characters) / sizeof(characters[0]); i++)
	{
		if (!CHECK_STR(parsed(characters[i]),
					   "path contains a character that must be percent-encoded, or a control character"))
			printf("%s\n", characters[i]);
	}
	CHECK_STR(parsed("http://example.com/a"), "it must begin with \"https://\"");
	CHECK_STR(parsed("https://user:secret@example.com/a"), "it must not contain a user name or password");
	CHECK_STR(parsed("https://example.com@other.com/a"), "it must not contain a user name or password");
	CHECK_STR(parsed("https://example.com/a#b"), "it must not contain a fragment (\"#\")");
	CHECK_STR(parsed("https://example.com#@other.com/a"), "it must not contain a fragment (\"#\")");
	CHECK_STR(parsed("https:///a"), "host is missing");
	CHECK_STR(parsed("https://?a"), "host is missing");
	CHECK_STR(parsed("https://example.com"), "path must begin with a slash");
	CHECK_STR(parsed("https://example.com?a=b"), "path must begin with a slash");
	CHECK_STR(parsed("https://example.com\\@other.com/a"), "path must begin with a slash");
	CHECK_STR(parsed("https://exa mple.com/a"), "host or port is not valid");
	CHECK_STR(parsed("https://example.com:0/a"), "host or port is not valid");
	CHECK_STR(parsed("https://example.com:65536/a"), "host or port is not valid");
	CHECK_STR(parsed("https://example.com:/a"), "host or port is not valid");
	CHECK_STR(parsed("https://ex%61mple.com/a"), "host or port is not valid");
	CHECK_STR(parsed("https://example.com/a?b c"),
			  "query contains a character that must be percent-encoded, or a control character");
	CHECK_STR(parsed("https://example.com/a?b%0ac"),
			  "query contains a character that must be percent-encoded, or a control character");

	memset(longest, 'a', sizeof(longest));
	memcpy(longest, "https://h/", 10);
	longest[9 + HTTPS_PATH_MAX] = '?';
	longest[9 + HTTPS_PATH_MAX + 1 + HTTPS_QUERY_MAX] = '\0';
	CHECK_INT(strlen(strchr(parsed(longest), '/')), HTTPS_PATH_MAX + 1 + HTTPS_QUERY_MAX);
	longest[9 + HTTPS_PATH_MAX] = 'a';
	CHECK_STR(parsed(longest), "path is too long");
	longest[9 + HTTPS_PATH_MAX - 1] = '?';
	CHECK_STR(parsed(longest), "query is too long");
	memset(longest + 8, 'h', 300);
	CHECK_STR(parsed(longest), "host is too long");
}

static void
test_shown(void)
{
	CHECK_STR(shown("HTTPS://Example.com:443/a.csv"), "https://example.com/a.csv");
	CHECK_STR(shown("https://example.com:444/a.csv?X-Amz-Signature=secret"), "https://example.com:444/a.csv?...");
	CHECK_STR(shown("https://example.com/a?"), "https://example.com/a?...");
}

static void
test_prefix(void)
{
	CHECK(https_prefix_check("/", message, sizeof(message)));
	CHECK(https_prefix_check("/exports/%20/a", message, sizeof(message)));
	CHECK(!https_prefix_check("exports/", message, sizeof(message)));
	CHECK(!https_prefix_check("", message, sizeof(message)));
	CHECK(!https_prefix_check("/a/../b", message, sizeof(message)));
	CHECK(!https_prefix_check("/a?b", message, sizeof(message)));
}

int
main(void)
{
	test_accepted();
	test_refused();
	test_shown();
	test_prefix();
	return unit_report();
}
