/*
 * test_s3_uri.c
 *	  S3 addresses: what is accepted, what is refused, what goes on the wire.
 */
#include "unit.h"

#include "pure/s3_uri.h"

static char message[S3_URI_ERROR_SIZE];

/* Whether text parses to bucket and key. */
static bool
parses(const char *text, const char *bucket, const char *key)
{
	S3Uri uri;

	if (!s3_uri_parse(text, &uri, message, sizeof(message)))
	{
		printf("%s: %s\n", text, message);
		return false;
	}
	return strcmp(uri.bucket, bucket) == 0 && strcmp(uri.key, key) == 0;
}

/* The message with which text is refused, "" if it is not. */
static const char *
refusal(const char *text)
{
	S3Uri uri;

	message[0] = '\0';
	if (s3_uri_parse(text, &uri, message, sizeof(message)))
		return "";
	CHECK(message[0] != '\0');
	return message;
}

static void
test_uri(void)
{
	CHECK(parses("s3://bucket/key", "bucket", "key"));
	CHECK(parses("S3://abc/k", "abc", "k"));
	CHECK(parses("s3://my.bucket-1/a/b//c.csv", "my.bucket-1", "a/b//c.csv"));
	CHECK(parses("s3://bucket//leading", "bucket", "/leading"));
	CHECK(parses("s3://bucket/folder/", "bucket", "folder/"));
	CHECK(parses("s3://bucket/a b?c=d#e%20f+g", "bucket", "a b?c=d#e%20f+g"));
	CHECK(parses("s3://bucket/\xc3\xa4\xe2\x82\xac", "bucket", "\xc3\xa4\xe2\x82\xac"));
	CHECK(parses("s3://bucket/..a/.b/c../...", "bucket", "..a/.b/c../..."));
	CHECK(parses("s3://123/k", "123", "k"));
	CHECK(parses("s3://1.2.3/k", "1.2.3", "k"));

	CHECK_STR(refusal(""), "URI must begin with \"s3://\"");
	CHECK_STR(refusal("s3:/bucket/key"), "URI must begin with \"s3://\"");
	CHECK_STR(refusal("https://bucket/key"), "URI must begin with \"s3://\"");
	CHECK_STR(refusal(" s3://bucket/key"), "URI must begin with \"s3://\"");
	CHECK_STR(refusal("s3://"), "bucket name is missing");
	CHECK_STR(refusal("s3:///key"), "bucket name is missing");
	CHECK_STR(refusal("s3://bucket"), "object key is missing");
	CHECK_STR(refusal("s3://bucket/"), "object key is missing");
}

static void
test_bucket(void)
{
	char name[S3_BUCKET_MAX + 2];

	CHECK_STR(refusal("s3://ab/k"), "bucket name must have 3 to 63 characters, not 2");
	memset(name, 'b', sizeof(name));
	name[S3_BUCKET_MAX] = '\0';
	CHECK(s3_bucket_check(name, message, sizeof(message)));
	name[S3_BUCKET_MAX] = 'b';
	name[S3_BUCKET_MAX + 1] = '\0';
	CHECK(!s3_bucket_check(name, message, sizeof(message)));
	CHECK_STR(message, "bucket name must have 3 to 63 characters, not 64");

	CHECK(strstr(refusal("s3://Bucket/k"), "lower-case") != NULL);
	CHECK(strstr(refusal("s3://buc_ket/k"), "lower-case") != NULL);
	CHECK(strstr(refusal("s3://user@host/k"), "lower-case") != NULL);
	CHECK(strstr(refusal("s3://host:9000/k"), "lower-case") != NULL);
	CHECK(strstr(refusal("s3://b\xc3\xbc"
						 "cket/k"),
				 "lower-case") != NULL);
	CHECK(strstr(refusal("s3://buc..ket/k"), "two dots") != NULL);
	CHECK(strstr(refusal("s3://-bucket/k"), "begin and end") != NULL);
	CHECK(strstr(refusal("s3://bucket./k"), "begin and end") != NULL);
	CHECK(strstr(refusal("s3://192.168.5.4/k"), "IP address") != NULL);
}

static void
test_key(void)
{
	char key[S3_KEY_MAX + 2];

	memset(key, 'k', sizeof(key));
	key[S3_KEY_MAX] = '\0';
	CHECK(s3_key_check(key, message, sizeof(message)));
	key[S3_KEY_MAX] = 'k';
	key[S3_KEY_MAX + 1] = '\0';
	CHECK(!s3_key_check(key, message, sizeof(message)));
	CHECK_STR(message, "object key must have at most 1024 bytes, not 1025");

	/* a proxy that normalises paths would lead these out of the bucket */
	CHECK(strstr(refusal("s3://bucket/../other/key"), "\"..\"") != NULL);
	CHECK(strstr(refusal("s3://bucket/a/../../k"), "\"..\"") != NULL);
	CHECK(strstr(refusal("s3://bucket/a/./k"), "\".\"") != NULL);
	CHECK(strstr(refusal("s3://bucket/."), "\".\"") != NULL);
	CHECK(strstr(refusal("s3://bucket/a/.."), "\"..\"") != NULL);
}

/* An endpoint as `https host port`, or its refusal. */
static const char *
endpoint(const char *text)
{
	static char result[400];
	S3Endpoint  e;

	if (!s3_endpoint_parse(text, &e, message, sizeof(message)))
		return message;
	snprintf(result, sizeof(result), "%s %s%s %d", e.tls ? "https" : "http",
			 e.ipv6 ? "6:" : "", e.host, e.port);
	return result;
}

static void
test_endpoint(void)
{
	char text[400] = "https://";

	CHECK_STR(endpoint("https://s3.us-east-1.amazonaws.com"),
			  "https s3.us-east-1.amazonaws.com 443");
	CHECK_STR(endpoint("http://127.0.0.1:9310"), "http 127.0.0.1 9310");
	CHECK_STR(endpoint("HTTPS://MinIO.Example:9000/"), "https minio.example 9000");
	CHECK_STR(endpoint("http://localhost"), "http localhost 80");
	CHECK_STR(endpoint("http://s3_server:1"), "http s3_server 1");
	CHECK_STR(endpoint("https://[::1]:65535"), "https 6:::1 65535");
	CHECK_STR(endpoint("https://[2001:DB8::A]/"), "https 6:2001:db8::a 443");
	CHECK_STR(endpoint("http://[::ffff:10.0.0.1]"), "http 6:::ffff:10.0.0.1 80");

	CHECK(strstr(endpoint("s3.amazonaws.com"), "must begin with") != NULL);
	CHECK(strstr(endpoint("ftp://host"), "must begin with") != NULL);
	CHECK(strstr(endpoint(""), "must begin with") != NULL);
	CHECK_STR(endpoint("https://"), "endpoint host is missing");
	CHECK_STR(endpoint("https://:443"), "endpoint host is missing");
	CHECK_STR(endpoint("https:///path"), "endpoint host is missing");
	CHECK(strstr(endpoint("https://user@host"), "user name") != NULL);
	CHECK(strstr(endpoint("https://user:secret@host"), "port") != NULL);
	CHECK(strstr(endpoint("https://host/bucket"), "anything after") != NULL);
	CHECK(strstr(endpoint("https://host//"), "anything after") != NULL);
	CHECK(strstr(endpoint("https://host?x"), "anything after") != NULL);
	CHECK(strstr(endpoint("https://host:9#x"), "anything after") != NULL);
	CHECK(strstr(endpoint("https://ho st"), "only letters") != NULL);
	CHECK(strstr(endpoint("https://h\xc3\xb6st"), "only letters") != NULL);
	CHECK(strstr(endpoint("https://host\r\nx"), "only letters") != NULL);
	CHECK(strstr(endpoint("https://host%00"), "only letters") != NULL);
	CHECK(strstr(endpoint("https://.host"), "empty label") != NULL);
	CHECK(strstr(endpoint("https://a..b"), "empty label") != NULL);
	for (int i = 0; i < 6; i++)
	{
		static const char *const ports[] = {"", "0", "65536", "99999999999999999999", "-1", "8o"};

		snprintf(text, sizeof(text), "https://host:%s", ports[i]);
		CHECK_STR(endpoint(text), "endpoint port must be a number from 1 to 65535");
	}
	CHECK(strstr(endpoint("https://[::1"), "closing bracket") != NULL);
	CHECK(strstr(endpoint("https://[host]"), "IPv6") != NULL);
	CHECK(strstr(endpoint("https://[]"), "IPv6") != NULL);
	CHECK(strstr(endpoint("https://[fe80::1%eth0]"), "IPv6") != NULL);
	CHECK(strstr(endpoint("https://[::1]x"), "anything after") != NULL);
	CHECK(strstr(endpoint("https://[1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1:1]"),
				 "IPv6") != NULL);

	memset(text + 8, 'h', S3_HOST_MAX);
	CHECK(strstr(endpoint(text), "https hhh") == endpoint(text));
	text[8 + S3_HOST_MAX] = 'h';
	CHECK(strstr(endpoint(text), "at most 253") != NULL);
}

static void
test_encoding(void)
{
	char out[3 * 256];
	char all[256];

	for (int i = 1; i < 256; i++)
		all[i - 1] = (char) i;
	all[255] = '\0';
	CHECK_INT(s3_uri_encode(all, "/", out, sizeof(out)), 3 * 255 - 2 * 67);

	CHECK_INT(s3_uri_encode("azAZ09-._~/", "/", out, sizeof(out)), 11);
	CHECK_STR(out, "azAZ09-._~/");
	CHECK_INT(s3_uri_encode("a/b=c d+e", "", out, sizeof(out)), 17);
	CHECK_STR(out, "a%2Fb%3Dc%20d%2Be");
	CHECK_INT(s3_uri_encode("%41*'()!\xc3\xa4", "/", out, sizeof(out)), 26);
	CHECK_STR(out, "%2541%2A%27%28%29%21%C3%A4");
	CHECK_INT(s3_uri_encode("", "/", out, 1), 0);
	CHECK_STR(out, "");

	/* "a b" takes six bytes with its end */
	CHECK(s3_uri_encode("a b", "/", out, 0) == (size_t) -1);
	for (size_t size = 1; size < 6; size++)
	{
		memset(out, 'X', sizeof(out));
		CHECK(s3_uri_encode("a b", "/", out, size) == (size_t) -1);
		CHECK(strlen(out) < size);
	}
	CHECK_INT(s3_uri_encode("a b", "/", out, 6), 5);
}

/* A target as `authority path`, or its refusal. */
static const char *
target(const char *url, S3Addressing addressing, const char *bucket, const char *key)
{
	static char result[sizeof(S3Target)];
	S3Endpoint  e;
	S3Target    t;

	if (!CHECK(s3_endpoint_parse(url, &e, message, sizeof(message))))
		return message;
	if (!s3_target_build(&e, addressing, bucket, key, &t, message, sizeof(message)))
		return message;
	snprintf(result, sizeof(result), "%s %s", t.authority, t.path);
	return result;
}

static void
test_target(void)
{
	char key[S3_KEY_MAX + 1];
	char host[8 + S3_HOST_MAX + 1] = "https://";

	CHECK_STR(target("https://s3.eu-west-1.amazonaws.com", S3_ADDRESSING_PATH, "bucket", "a/b c"),
			  "s3.eu-west-1.amazonaws.com /bucket/a/b%20c");
	CHECK_STR(target("https://s3.amazonaws.com:443", S3_ADDRESSING_VIRTUAL, "bucket", "a=b?"),
			  "bucket.s3.amazonaws.com /a%3Db%3F");
	CHECK_STR(target("http://localhost:9310", S3_ADDRESSING_VIRTUAL, "bucket", "/k"),
			  "bucket.localhost:9310 //k");
	CHECK_STR(target("https://host:80", S3_ADDRESSING_PATH, "bucket", "k"), "host:80 /bucket/k");
	CHECK_STR(target("http://host:443", S3_ADDRESSING_PATH, "bucket", "k"), "host:443 /bucket/k");
	CHECK_STR(target("http://[::1]:9310", S3_ADDRESSING_PATH, "bucket", "k"),
			  "[::1]:9310 /bucket/k");
	CHECK(strstr(target("http://[::1]", S3_ADDRESSING_VIRTUAL, "bucket", "k"),
				 "virtual-host") != NULL);
	CHECK(strstr(target("http://127.0.0.1", S3_ADDRESSING_VIRTUAL, "bucket", "k"),
				 "virtual-host") != NULL);
	CHECK(strstr(target("http://h", S3_ADDRESSING_PATH, "No", "k"), "bucket name") != NULL);
	CHECK(strstr(target("http://h", S3_ADDRESSING_PATH, "bucket", ".."), "object key") != NULL);

	/* the longest of everything fits */
	memset(key, ' ', S3_KEY_MAX);
	key[S3_KEY_MAX] = '\0';
	CHECK_INT(strlen(target("https://h:65535", S3_ADDRESSING_PATH, "bucket", key)),
			  strlen("h:65535 /bucket/") + 3 * S3_KEY_MAX);
	memset(host + 8, 'h', S3_HOST_MAX);
	CHECK_INT(strlen(target(host, S3_ADDRESSING_PATH, "bucket", "k")),
			  S3_HOST_MAX + strlen(" /bucket/k"));
	CHECK(strstr(target(host, S3_ADDRESSING_VIRTUAL, "bucket", "k"), "together") != NULL);
}

/* A message that does not fit is cut, not written beyond its room. */
static void
test_short_message(void)
{
	char  small[8] = "XXXXXXX";
	S3Uri uri;

	CHECK(!s3_uri_parse("nothing", &uri, small, 4));
	CHECK_STR(small, "URI");
	CHECK_INT(small[4], 'X');
	CHECK(!s3_uri_parse("nothing", &uri, NULL, 0));
}

int
main(void)
{
	test_uri();
	test_bucket();
	test_key();
	test_endpoint();
	test_encoding();
	test_target();
	test_short_message();
	return unit_report();
}
