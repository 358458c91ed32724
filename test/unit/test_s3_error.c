/*
 * test_s3_error.c
 *	  Error bodies of S3, of other servers, and of nobody.
 */
#include "unit.h"

#include <stdlib.h>

#include "pure/s3_error.h"

static S3Error error;

static bool
parse(const char *body)
{
	return s3_error_parse(body, strlen(body), &error);
}

static void
test_aws(void)
{
	CHECK(parse("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
				"<Error>\n  <Code>NoSuchKey</Code>\n"
				"  <Message>The resource you requested does not exist</Message>\n"
				"  <Resource>/mybucket/myfoto.jpg</Resource> \n"
				"  <RequestId>4442587FB7D0A2F9</RequestId>\n</Error>"));
	CHECK_STR(error.code, "NoSuchKey");
	CHECK_STR(error.message, "The resource you requested does not exist");
	CHECK_STR(error.request_id, "4442587FB7D0A2F9");
}

/* Ceph leaves the message empty, or leaves it out, and puts all on one line. */
static void
test_ceph(void)
{
	CHECK(parse("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>NoSuchBucket</Code>"
				"<Message></Message><BucketName>b</BucketName>"
				"<RequestId>tx00000a-0065-1000-default</RequestId><HostId>h</HostId></Error>"));
	CHECK_STR(error.code, "NoSuchBucket");
	CHECK_STR(error.message, "");
	CHECK_STR(error.request_id, "tx00000a-0065-1000-default");
	CHECK(parse("<Error><Code>AccessDenied</Code></Error>"));
	CHECK_STR(error.code, "AccessDenied");
	CHECK_STR(error.request_id, "");
}

static void
test_entities(void)
{
	CHECK(parse("<Code>A&amp;B</Code><Message>&lt;x&gt; &quot;y&apos; &#38; &#x20AC; &#xe4; "
				"&#x1F600;</Message>"));
	CHECK_STR(error.code, "A&B");
	CHECK_STR(error.message, "<x> \"y' & \xe2\x82\xac \xc3\xa4 \xf0\x9f\x98\x80");

	/* decoded once only */
	CHECK(parse("<Code>&amp;lt;</Code>"));
	CHECK_STR(error.code, "&lt;");

	/* what is no entity stays */
	CHECK(parse("<Code>a & b &; &nbsp; &#; &#x; &#xZ; &#99999999; &#xD800; &#0; &amp</Code>"));
	CHECK_STR(error.code, "a & b &; &nbsp; &#; &#x; &#xZ; &#99999999; &#xD800; &#0; &amp");
	CHECK(parse("<Code>&#x110000;&#x00000000026;</Code>"));
	CHECK_STR(error.code, "&#x110000;&#x00000000026;");
}

/* A line break in a message could forge a line of the server's log. */
static void
test_control_characters(void)
{
	CHECK(parse("<Code> \t No\r\n\r\nSuch  Key \x01\x7f </Code>"
				"<Message>a&#10;b&#x0d;c\xc2\x85"
				"d&#x9b;e\x1b[31m</Message>"));
	CHECK_STR(error.code, "No Such Key");
	CHECK_STR(error.message, "a b c d e [31m");
	CHECK(s3_error_parse("<Code>a\0b</Code>", 16, &error));
	CHECK_STR(error.code, "a b");
	CHECK(!parse("<Code> \n </Code>"));
	CHECK_STR(error.code, "");
}

static void
test_truncation(void)
{
	char body[4096] = "<Code>";

	/* 63 characters fit, of longer text the beginning is kept */
	memset(body + 6, 'c', 100);
	strcpy(body + 106, "</Code>");
	CHECK(parse(body));
	CHECK_INT(strlen(error.code), sizeof(error.code) - 1);

	/* never half a character: euro signs take three bytes, 63 / 3 = 21 */
	for (int shift = 0; shift < 3; shift++)
	{
		strcpy(body, "<Code>");
		memset(body + 6, 'c', (size_t) shift);
		body[6 + shift] = '\0';
		for (int i = 0; i < 40; i++)
			strcat(body, i % 2 ? "\xe2\x82\xac" : "&#8364;");
		strcat(body, "</Code>");
		CHECK(parse(body));
		CHECK_INT(strlen(error.code), shift + (63 - shift) / 3 * 3);
	}

	/* two and four bytes */
	strcpy(body, "<Code>");
	for (int i = 0; i < 40; i++)
		strcat(body, "\xc3\xa4");
	strcat(body, "</Code>");
	CHECK(parse(body));
	CHECK_INT(strlen(error.code), 62);
	strcpy(body, "<Code>");
	for (int i = 0; i < 40; i++)
		strcat(body, "\xf0\x9f\x98\x80");
	strcat(body, "</Code>");
	CHECK(parse(body));
	CHECK_INT(strlen(error.code), 60);
}

static void
test_what_is_not_an_error_body(void)
{
	CHECK(!s3_error_parse(NULL, 0, &error));
	CHECK(!s3_error_parse("", 0, &error));
	CHECK_STR(error.code, "");
	CHECK(!parse("<html><body><h1>502 Bad Gateway</h1></body></html>"));
	CHECK(!parse("{\"error\": \"nope\"}"));
	CHECK(!parse("<Code>never ends"));
	CHECK_STR(error.code, "");
	CHECK(!parse("<Code>"));
	CHECK(!parse("<Cod"));
	CHECK(!parse("</Code>x<Code>"));
	CHECK(parse("<Code>First</Code><Code>Second</Code>"));
	CHECK_STR(error.code, "First");

	/* the length counts, not a zero byte */
	CHECK(!s3_error_parse("<Code>x</Code>", 13, &error));
	CHECK(parse("<Message>only</Message><Code>c</Code>"));
	CHECK_STR(error.message, "only");
}

/* Any bytes: results end with a zero and hold no control character. */
static void
test_random_bytes(void)
{
	static const char *const pieces[] = {
		"<Code>", "</Code>", "<Message>", "</Message>", "<RequestId>", "</RequestId>", "&#x",
		"&amp;", ";", "&", "\xc2", "\x85", "\xe2\x82", "\xac", "\n", "x", "9"};
	uint64_t state = 20130524;

	for (int round = 0; round < 20000; round++)
	{
		size_t room = 600;
		char  *body = malloc(room); /* exact length, for valgrind and ASan */
		size_t n = 0;
		char  *exact;

		while (n < 580 && unit_random_below(&state, 60) != 0)
		{
			const char *piece = pieces[unit_random_below(&state, 17)];

			memcpy(body + n, piece, strlen(piece));
			n += strlen(piece);
		}
		exact = malloc(n > 0 ? n : 1);
		memcpy(exact, body, n);
		s3_error_parse(exact, n, &error);
		CHECK(memchr(error.code, '\0', sizeof(error.code)) != NULL &&
			  memchr(error.message, '\0', sizeof(error.message)) != NULL &&
			  memchr(error.request_id, '\0', sizeof(error.request_id)) != NULL &&
			  strpbrk(error.code, "\n\x7f") == NULL && strpbrk(error.message, "\n") == NULL);
		free(exact);
		free(body);
	}
}

int
main(void)
{
	test_aws();
	test_ceph();
	test_entities();
	test_control_characters();
	test_truncation();
	test_what_is_not_an_error_body();
	test_random_bytes();
	return unit_report();
}
