/*
 * socket_set.h
 *		Waits for sockets that come and go, MyLatch, and the postmaster's death.
 */
#ifndef BULK_ACTION_SOCKET_SET_H
#define BULK_ACTION_SOCKET_SET_H

#include "postgres.h"

#include "storage/latch.h"

#define SOCKET_SET_MAX 16

/* Made by setting all to zero. */
typedef struct SocketSet
{
	WaitEventSet *wait_set; /* NULL: to be made */
	bool          changed;  /* since wait_set was made */
	int           nsockets;
	struct
	{
		pgsocket fd;
		uint32   events;
	} sockets[SOCKET_SET_MAX];
} SocketSet;

/*
 * From now on waits for these events (WL_SOCKET_READABLE, WL_SOCKET_WRITEABLE)
 * of a socket; 0 takes it out, which must happen before it is closed.  Returns
 * false if the set is full.  Raises no error and allocates nothing.
 */
extern bool socket_set_change(SocketSet *set, pgsocket fd, uint32 events);

/*
 * Waits up to timeout_ms.  Returns how many sockets are ready, described by
 * the first elements of `ready`.  Returns early, and with 0, if only the latch
 * was set; it has been reset then.  Exits if the postmaster has died.
 */
extern int socket_set_wait(SocketSet *set, long timeout_ms,
						   WaitEvent ready[SOCKET_SET_MAX]);

/* Gives the kernel's objects back.  The sockets themselves are the caller's. */
extern void socket_set_release(SocketSet *set);

#endif /* BULK_ACTION_SOCKET_SET_H */
