/*
 * test_sigv4.c
 *	  Signatures against AWS's published examples and against openssl.
 *
 * The examples are those of the Amazon S3 API Reference, "Signature
 * Calculations for the Authorization Header" (API/sig-v4-header-based-auth.html).
 * The other signatures were computed with `openssl dgst -sha256 -mac HMAC` over
 * canonical requests written by hand.
 */
#include "unit.h"

#include "pure/sigv4.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const SigV4Credentials example = {
	.access_key_id = "AKIAIOSFODNN7EXAMPLE",
	.secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
	.region = "us-east-1"};

static const SigV4Pair host = {"Host", "examplebucket.s3.amazonaws.com"};
static const SigV4Pair date = {"x-amz-date", "20130524T000000Z"};
static const SigV4Pair empty_body = {"x-amz-content-sha256", SIGV4_EMPTY_SHA256};

/* Signs and gives the signature; "" after a failure. */
static const char *
sign(const char *method, const char *path, const char *query,
	 const SigV4Pair *headers, size_t nheaders, const SigV4Credentials *credentials)
{
	static char  signature[SIGV4_SIGNATURE_SIZE];
	char         authorization[SIGV4_AUTHORIZATION_SIZE];
	SigV4Request request = {method, path, query, headers, nheaders};

	signature[0] = '\0';
	if (!CHECK_INT(sigv4_sign(&request, credentials, signature, authorization,
							  sizeof(authorization)),
				   SIGV4_OK))
		return "";
	CHECK(strstr(authorization, signature) != NULL);
	return signature;
}

static void
test_published_examples(void)
{
	SigV4Pair get[] = {host, {"Range", "bytes=0-9"}, empty_body, date};
	SigV4Pair plain[] = {date, empty_body, host};
	SigV4Pair put[] = {
		{"Date", "Fri, 24 May 2013 00:00:00 GMT"},
		host,
		date,
		{"x-amz-storage-class", "REDUCED_REDUNDANCY"},
		{"x-amz-content-sha256",
		 "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"}};
	SigV4Pair list[] = {{"prefix", "J"}, {"max-keys", "2"}};
	SigV4Pair lifecycle = {"lifecycle", ""};
	char      query[64];

	CHECK_STR(sign("GET", "/test.txt", "", get, COUNT(get), &example),
			  "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
	CHECK_STR(sign("PUT", "/test%24file.text", "", put, COUNT(put), &example),
			  "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");

	CHECK_INT(sigv4_query_string(&lifecycle, 1, query, sizeof(query)), SIGV4_OK);
	CHECK_STR(query, "lifecycle=");
	CHECK_STR(sign("GET", "/", query, plain, COUNT(plain), &example),
			  "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");

	CHECK_INT(sigv4_query_string(list, COUNT(list), query, sizeof(query)), SIGV4_OK);
	CHECK_STR(query, "max-keys=2&prefix=J");
	CHECK_STR(sign("GET", "/", query, plain, COUNT(plain), &example),
			  "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void
test_authorization_value(void)
{
	SigV4Pair    headers[] = {host, {"range", "bytes=0-9"}, empty_body, date};
	SigV4Request request = {"GET", "/test.txt", "", headers, COUNT(headers)};
	const char  *expected =
		"AWS4-HMAC-SHA256 "
		"Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
		"SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
		"Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
	char authorization[SIGV4_AUTHORIZATION_SIZE];

	CHECK_INT(sigv4_sign(&request, &example, NULL, authorization, sizeof(authorization)),
			  SIGV4_OK);
	CHECK_STR(authorization, expected);

	/* just enough room, and one byte too little */
	CHECK_INT(sigv4_sign(&request, &example, NULL, authorization, strlen(expected) + 1),
			  SIGV4_OK);
	CHECK_INT(sigv4_sign(&request, &example, NULL, authorization, strlen(expected)),
			  SIGV4_TOO_LONG);
}

/* Keys with = blank + % umlaut ? # .. and empty segments; nothing is normalised. */
static void
test_path_is_taken_as_it_is(void)
{
	SigV4Pair headers[] = {host, empty_body, date};

	CHECK_STR(sign("GET", "/a%3Db%20c%2Bd%25/%C3%A4%3Fx%23/..y//z", "", headers,
				   COUNT(headers), &example),
			  "b18c9332d85c404f38f4f3d331f5f0ad8d20a7017d337a7323d5a261f1b964d1");
}

/* What the S3 client sends for a part of a pinned version. */
static void
test_pinned_range_with_session_token(void)
{
	SigV4Credentials credentials = example;
	SigV4Pair        version = {"versionId", "a+b/=="};
	SigV4Pair        headers[] = {
			   {"host", "127.0.0.1:9310"},
			   {"range", "bytes=8388608-16777215"},
			   {"if-match", "\"d41d8cd98f00b204e9800998ecf8427e\""},
			   {"x-amz-date", "20260229T235959Z"},
			   {"x-amz-content-sha256", SIGV4_EMPTY_SHA256},
			   {"x-amz-security-token", "AQoEXAMPLE//token+with/everything=="}};
	char query[64];

	credentials.region = "eu-central-1";
	CHECK_INT(sigv4_query_string(&version, 1, query, sizeof(query)), SIGV4_OK);
	CHECK_STR(query, "versionId=a%2Bb%2F%3D%3D");
	CHECK_STR(sign("GET", "/test.txt", query, headers, COUNT(headers), &credentials),
			  "87402afb316daa657213f6b774af97a86c5a4e59e464f5b01139ddf03f2cac48");
}

/* Order by encoded name, then value; empty values; blanks in header values. */
static void
test_query_and_blanks(void)
{
	SigV4Pair parameters[] = {
		{"uploads", ""}, {"a", "2"}, {"x=y", "z"}, {"B", ""}, {"a", " "}, {"A", "1"}};
	SigV4Pair headers[] = {
		{"X-Amz-Meta-Note", "  one \t  two  "}, date, host, empty_body};
	char query[64];

	CHECK_INT(sigv4_query_string(parameters, COUNT(parameters), query, sizeof(query)), SIGV4_OK);
	CHECK_STR(query, "A=1&B=&a=%20&a=2&uploads=&x%3Dy=z");
	CHECK_STR(sign("GET", "/", query, headers, COUNT(headers), &example),
			  "6345d28e54dd94c86d734f6caedc58640c1dc6140eb466d167afdd70b979d40a");
}

static void
test_query_limits(void)
{
	SigV4Pair parameter = {"k", "v v"};
	SigV4Pair many[SIGV4_MAX_PAIRS + 1];
	char      long_name[300];
	char      query[256];

	/* k=v%20v needs eight bytes */
	for (size_t size = 0; size < 8; size++)
		CHECK_INT(sigv4_query_string(&parameter, 1, query, size), SIGV4_TOO_LONG);
	CHECK_INT(sigv4_query_string(&parameter, 1, query, 8), SIGV4_OK);
	CHECK_STR(query, "k=v%20v");
	CHECK_INT(sigv4_query_string(NULL, 0, query, 1), SIGV4_OK);
	CHECK_STR(query, "");

	for (size_t i = 0; i < COUNT(many); i++)
		many[i] = parameter;
	CHECK_INT(sigv4_query_string(many, COUNT(many), query, sizeof(query)), SIGV4_TOO_LONG);
	CHECK_INT(sigv4_query_string(many, COUNT(many) - 1, query, sizeof(query)), SIGV4_OK);

	memset(long_name, 'n', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	parameter.name = long_name;
	CHECK_INT(sigv4_query_string(&parameter, 1, query, sizeof(query)), SIGV4_TOO_LONG);
}

static SigV4Status
status_of(const SigV4Request *request, const SigV4Credentials *credentials)
{
	char authorization[SIGV4_AUTHORIZATION_SIZE];

	return sigv4_sign(request, credentials, NULL, authorization, sizeof(authorization));
}

static void
test_refusals(void)
{
	SigV4Pair        good[] = {host, empty_body, date};
	SigV4Pair        twice[] = {host, empty_body, date, {"hOST", "other"}};
	SigV4Pair        bad_date[] = {host, empty_body, {"x-amz-date", "2013-05-24"}};
	SigV4Pair        letters[] = {host, empty_body, {"x-amz-date", "2013o524T000000Z"}};
	SigV4Pair        many[SIGV4_MAX_PAIRS + 1] = {host, empty_body, date};
	SigV4Request     request = {"GET", "/x", "", good, COUNT(good)};
	SigV4Credentials credentials = example;
	char             long_text[2000];

	CHECK_INT(status_of(&request, &example), SIGV4_OK);
	for (size_t missing = 0; missing < COUNT(good); missing++)
	{
		SigV4Pair without[COUNT(good) - 1];
		size_t    n = 0;

		for (size_t i = 0; i < COUNT(good); i++)
		{
			if (i != missing)
				without[n++] = good[i];
		}
		request.headers = without;
		request.nheaders = n;
		CHECK_INT(status_of(&request, &example), SIGV4_BAD_ARGUMENT);
	}
	request.headers = twice;
	request.nheaders = COUNT(twice);
	CHECK_INT(status_of(&request, &example), SIGV4_BAD_ARGUMENT);
	request.headers = bad_date;
	request.nheaders = COUNT(bad_date);
	CHECK_INT(status_of(&request, &example), SIGV4_BAD_ARGUMENT);
	request.headers = letters;
	CHECK_INT(status_of(&request, &example), SIGV4_BAD_ARGUMENT);
	request.headers = many;
	request.nheaders = COUNT(many);
	for (size_t i = 3; i < COUNT(many); i++)
		many[i] = date;
	CHECK_INT(status_of(&request, &example), SIGV4_TOO_LONG);

	request.headers = good;
	request.nheaders = COUNT(good);
	request.path = "x";
	CHECK_INT(status_of(&request, &example), SIGV4_BAD_ARGUMENT);
	request.path = "/x";

	/* every text may be longer than anything that S3 knows */
	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	credentials.secret_access_key = long_text;
	CHECK_INT(status_of(&request, &credentials), SIGV4_TOO_LONG);
	credentials = example;
	credentials.region = long_text;
	CHECK_INT(status_of(&request, &credentials), SIGV4_TOO_LONG);
	credentials = example;
	credentials.access_key_id = long_text;
	CHECK_INT(status_of(&request, &credentials), SIGV4_TOO_LONG);
	good[1] = (SigV4Pair){long_text, ""};
	good[2] = date;
	CHECK_INT(status_of(&request, &example), SIGV4_BAD_ARGUMENT);
}

static void
test_date(void)
{
	char text[SIGV4_DATE_SIZE];

	CHECK_INT(sigv4_format_date(1369353600, text), SIGV4_OK);
	CHECK_STR(text, "20130524T000000Z");
	CHECK_INT(sigv4_format_date(0, text), SIGV4_OK);
	CHECK_STR(text, "19700101T000000Z");
	CHECK_INT(sigv4_format_date(1709251199, text), SIGV4_OK);
	CHECK_STR(text, "20240229T235959Z");
	CHECK_INT(sigv4_format_date(-1, text), SIGV4_BAD_ARGUMENT);
	CHECK_INT(sigv4_format_date((time_t) INT64_C(253402300800), text), SIGV4_BAD_ARGUMENT);
}

int
main(void)
{
	test_published_examples();
	test_authorization_value();
	test_path_is_taken_as_it_is();
	test_pinned_range_with_session_token();
	test_query_and_blanks();
	test_query_limits();
	test_refusals();
	test_date();
	return unit_report();
}
