/*
 * test_public_address.c
 *	  Which addresses the server may be made to connect to.
 */
#include "unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include "pure/public_address.h"

static bool
is_public(const char *text)
{
	struct sockaddr_storage storage = {0};
	struct sockaddr_in     *in = (struct sockaddr_in *) &storage;
	struct sockaddr_in6    *in6 = (struct sockaddr_in6 *) &storage;

	if (strchr(text, ':') != NULL)
	{
		in6->sin6_family = AF_INET6;
		CHECK_INT(inet_pton(AF_INET6, text, &in6->sin6_addr), 1);
	}
	else
	{
		in->sin_family = AF_INET;
		CHECK_INT(inet_pton(AF_INET, text, &in->sin_addr), 1);
	}
	return address_is_public((struct sockaddr *) &storage);
}

/* Both ends of each network that is refused, and their neighbours. */
static void
test_ipv4(void)
{
	static const char *const refused[] = {
		"0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0",
		"100.127.255.255", "127.0.0.1", "127.255.255.255", "169.254.0.0", "169.254.169.254",
		"169.254.255.255", "172.16.0.0", "172.31.255.255", "192.0.0.0", "192.0.0.255", "192.0.2.0",
		"192.0.2.255", "192.88.99.0", "192.88.99.255",
		"192.168.0.0", "192.168.255.255", "198.18.0.0", "198.19.255.255", "198.51.100.0",
		"198.51.100.255", "203.0.113.0", "203.0.113.255", "224.0.0.0",
		"239.255.255.255", "240.0.0.0", "255.255.255.255"};
	static const char *const allowed[] = {
		"1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0",
		"126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255",
		"172.32.0.0", "192.0.1.0", "192.0.1.255", "192.0.3.0", "192.88.98.255",
		"192.88.100.0", "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0",
		"192.167.255.255", "192.169.0.0", "198.17.255.255",
		"198.20.0.0", "223.255.255.255", "52.216.0.1"};

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
	{
		if (!CHECK(!is_public(refused[i])))
			printf("%s\n", refused[i]);
	}
	for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
	{
		if (!CHECK(is_public(allowed[i])))
			printf("%s\n", allowed[i]);
	}
}

static void
test_ipv6(void)
{
	static const char *const refused[] = {
		"::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.1.2.3",
		"::ffff:169.254.169.254", "::ffff:0:10.0.0.1", "64:ff9b::10.0.0.1",
		"64:ff9b::169.254.169.254", "64:ff9b:1::8.8.8.8", "2002:7f00:1::1", "2002:a00:1::",
		"2001:0:1:2:3:4:5:6", "100::1", "fc00::", "fdff:ffff::1", "fe80::1", "febf::1",
		"fec0::1", "feff::1", "ff02::1", "ffff::", "::8.8.8.8", "::ffff:0.0.0.0", "::ffff:100.64.0.1",
		"::ffff:192.168.1.1", "::ffff:224.0.0.1", "::ffff:255.255.255.255", "::ffff:203.0.113.1",
		"64:ff9b::127.0.0.1", "64:ff9b::100.64.0.1", "64:ff9b::224.0.0.1", "64:ff9c::1", "2002:a9fe:a9fe::1",
		"2002:c0a8:101::1", "2002:6440:1::1", "2002:e000:1::1", "2001::", "2001:1ff:ffff::1",
		"2001:0:ac10:1::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::", "2001:db8:ffff::1",
		"3fff::1", "3fff:fff:ffff::1", "4000::1", "5f00::1", "1fff::1", "fbff::1", "fe00::1", "fe7f::1"};
	static const char *const allowed[] = {
		"2600:1fa0::1", "2a05:d050::1", "::ffff:52.216.0.1", "64:ff9b::52.216.0.1",
		"2002:34d8:1::1", "2001:4860:4860::8888", "2000::1", "2001:200::1", "2001:db7::1", "2001:db9::1",
		"3ffe:ffff::1", "3fff:1000::1"};

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
	{
		if (!CHECK(!is_public(refused[i])))
			printf("%s\n", refused[i]);
	}
	for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
	{
		if (!CHECK(is_public(allowed[i])))
			printf("%s\n", allowed[i]);
	}
}

static void
test_other_families(void)
{
	struct sockaddr_un local = {.sun_family = AF_UNIX};

	CHECK(!address_is_public((struct sockaddr *) &local));
}

int
main(void)
{
	test_ipv4();
	test_ipv6();
	test_other_families();
	return unit_report();
}
