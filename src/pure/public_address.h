/*
 * public_address.h
 *		Which network addresses a caller may make the server connect to.
 *
 * Sources: IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890).
 * Pure C11 and the socket address types of POSIX.
 */
#ifndef BULK_ACTION_PUBLIC_ADDRESS_H
#define BULK_ACTION_PUBLIC_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

/*
 * Whether the address belongs to the public Internet: an IPv4 or IPv6 address
 * that is not loopback, private, link-local, multicast, unspecified, reserved
 * or for documentation.  IPv6 forms that carry an IPv4 address are judged by
 * that one; of the others only global unicast (2000::/3) is public.
 * False for every other family.  The sockaddr must be as long as its family's.
 */
extern bool address_is_public(const struct sockaddr *address);

#endif /* BULK_ACTION_PUBLIC_ADDRESS_H */
