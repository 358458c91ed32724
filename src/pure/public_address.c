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
 * IPv4 networks that are not public: those of RFC 6890 that can lead to a
 * machine, multicast (RFC 5771) and the reserved rest (RFC 1112).
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
	{0xC0A80000, 16}, /* 192.168.0.0/16, private */
	{0xC6120000, 15}, /* 198.18.0.0/15, benchmarking */
	{0xE0000000, 4},  /* 224.0.0.0/4, multicast */
	{0xF0000000, 4}   /* 240.0.0.0/4, reserved, broadcast */
};

/* IPv6 networks that are not public. */
static const struct
{
	unsigned char network[6];
	int           bits;
} refused_ipv6[] = {
	{{0x00, 0x64, 0xFF, 0x9B, 0x00, 0x01}, 48}, /* 64:ff9b:1::/48, local NAT64 */
	{{0x01}, 8},                                /* 100::/8, discard-only (100::/64) and reserved */
	{{0x20, 0x01, 0x00, 0x00}, 32},             /* 2001::/32, Teredo */
	{{0xFC}, 7},                                /* fc00::/7, unique local */
	{{0xFE, 0x80}, 9},                          /* fe80::/10 link-local, fec0::/10 site-local */
	{{0xFF}, 8}                                 /* ff00::/8, multicast */
};

/* IPv6 networks whose addresses carry an IPv4 address, and at which byte. */
static const struct
{
	unsigned char network[12];
	int           bits;
	size_t        ipv4_at;
} carriers[] = {
	{{0}, 96, 12},                        /* ::/96: unspecified, loopback (as 0.0.0.1),
								 * IPv4-compatible */
	{{[10] = 0xFF, [11] = 0xFF}, 96, 12}, /* ::ffff:0:0/96, mapped */
	{{[8] = 0xFF, [9] = 0xFF}, 96, 12},   /* ::ffff:0:0:0/96, RFC 2765 */
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
	for (size_t i = 0; i < sizeof(refused_ipv6) / sizeof(refused_ipv6[0]); i++)
	{
		if (same_prefix(a, refused_ipv6[i].network, refused_ipv6[i].bits))
			return false;
	}
	for (size_t i = 0; i < sizeof(carriers) / sizeof(carriers[0]); i++)
	{
		if (same_prefix(a, carriers[i].network, carriers[i].bits))
		{
			uint32_t ipv4;

			memcpy(&ipv4, a + carriers[i].ipv4_at, sizeof(ipv4));
			return ipv4_is_public(ntohl(ipv4));
		}
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
