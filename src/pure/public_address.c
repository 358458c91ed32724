/*
 * public_address.c
 *		Which network addresses a caller may make the server connect to.
 */
#include "pure/public_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * IPv4 networks that are not public: those of RFC 6890 and its registry,
 * multicast (RFC 5771) and the reserved rest (RFC 1112).
 */
static const struct
{
	uint32_t network;
	int      bits;
} refused_ipv4[] = {
	{0x00000000, 8},  /* 0.0.0.0/8, this network */
	{0x0A000000, 8},  /* 10.0.0.0/8, private */
	{0x64400000, 10}, /* 100.64.0.0/10, carrier-grade NAT */
	{0x7F000000, 8},  /* 127.0.0.0/8, loopback */
	{0xA9FE0000, 16}, /* 169.254.0.0/16, link-local; instance
								 * metadata services live here */
	{0xAC100000, 12}, /* 172.16.0.0/12, private */
	{0xC0000000, 24}, /* 192.0.0.0/24, protocol assignments */
	{0xC0000200, 24}, /* 192.0.2.0/24, documentation */
	{0xC0586300, 24}, /* 192.88.99.0/24, relays of 6to4 */
	{0xC0A80000, 16}, /* 192.168.0.0/16, private */
	{0xC6120000, 15}, /* 198.18.0.0/15, benchmarking */
	{0xC6336400, 24}, /* 198.51.100.0/24, documentation */
	{0xCB007100, 24}, /* 203.0.113.0/24, documentation */
	{0xE0000000, 4},  /* 224.0.0.0/4, multicast */
	{0xF0000000, 4}   /* 240.0.0.0/4, reserved, broadcast */
};

/* All IPv6 addresses that anybody has been given so far are in 2000::/3 (RFC 4291, 2.4). */
static const unsigned char global_unicast[] = {0x20};

/* IPv6 networks inside of it that are not public. */
static const struct
{
	unsigned char network[4];
	int           bits;
} refused_ipv6[] = {
	{{0x20, 0x01, 0x00, 0x00}, 23}, /* 2001::/23, protocol assignments: Teredo (2001::/32),
									 * benchmarking, ORCHID and others */
	{{0x20, 0x01, 0x0D, 0xB8}, 32}, /* 2001:db8::/32, documentation */
	{{0x3F, 0xFF, 0x00}, 20}        /* 3fff::/20, documentation */
};

/* IPv6 networks whose addresses carry an IPv4 address, and at which byte. */
static const struct
{
	unsigned char network[12];
	int           bits;
	size_t        ipv4_at;
} carriers[] = {
	{{[10] = 0xFF, [11] = 0xFF}, 96, 12}, /* ::ffff:0:0/96, mapped */
	{{[8] = 0xFF, [9] = 0xFF}, 96, 12},   /* ::ffff:0:0:0/96, translated (RFC 2765) */
	{{0x00, 0x64, 0xFF, 0x9B}, 96, 12},   /* 64:ff9b::/96, NAT64 */
	{{0x20, 0x02}, 16, 2}                 /* 2002::/16, 6to4 */
};

static bool
ipv4_is_public(uint32_t address)
{
	for (size_t i = 0; i < sizeof(refused_ipv4) / sizeof(refused_ipv4[0]); i++)
	{
		uint32_t difference = address ^ refused_ipv4[i].network;

		if (difference >> (32 - refused_ipv4[i].bits) == 0)
			return false;
	}
	return true;
}

/* Whether the first `bits` bits of both are the same. */
static bool
same_prefix(const unsigned char *a, const unsigned char *b, int bits)
{
	size_t bytes = (size_t) bits / 8;

	if (memcmp(a, b, bytes) != 0)
		return false;
	return bits % 8 == 0 || (a[bytes] ^ b[bytes]) >> (8 - bits % 8) == 0;
}

static bool
ipv6_is_public(const unsigned char *a)
{
	for (size_t i = 0; i < sizeof(carriers) / sizeof(carriers[0]); i++)
	{
		if (same_prefix(a, carriers[i].network, carriers[i].bits))
		{
			uint32_t ipv4;

			memcpy(&ipv4, a + carriers[i].ipv4_at, sizeof(ipv4));
			return ipv4_is_public(ntohl(ipv4));
		}
	}
	if (!same_prefix(a, global_unicast, 3))
		return false;
	for (size_t i = 0; i < sizeof(refused_ipv6) / sizeof(refused_ipv6[0]); i++)
	{
		if (same_prefix(a, refused_ipv6[i].network, refused_ipv6[i].bits))
			return false;
	}
	return true;
}

bool
address_is_public(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
	{
		struct sockaddr_in in;

		memcpy(&in, address, sizeof(in));
		return ipv4_is_public(ntohl(in.sin_addr.s_addr));
	}
	if (address->sa_family == AF_INET6)
	{
		struct sockaddr_in6 in6;

		memcpy(&in6, address, sizeof(in6));
		return ipv6_is_public(in6.sin6_addr.s6_addr);
	}
	return false;
}
