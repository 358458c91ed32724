/*
 * socket_set.c
 *		Waits for sockets that come and go, MyLatch, and the postmaster's death.
 *
 * A WaitEventSet can change its members but not lose them, so it is made anew
 * when the sockets change.  For a client that is some times per connection,
 * not once per wait.
 */
#include "postgres.h"

#include "base/compat.h"
#include "miscadmin.h"
#include "service/socket_set.h"
#include "utils/wait_event.h"

bool
socket_set_change(SocketSet *set, pgsocket fd, uint32 events)
{
	int i = 0;

	while (i < set->nsockets && set->sockets[i].fd != fd)
		i++;
	if (i == SOCKET_SET_MAX && events != 0)
		return false;

	set->changed = true;
	if (events != 0)
	{
		if (i == set->nsockets)
			set->nsockets++;
		set->sockets[i].fd = fd;
		set->sockets[i].events = events;
	}
	else if (i < set->nsockets)
		set->sockets[i] = set->sockets[--set->nsockets];
	return true;
}

void
socket_set_release(SocketSet *set)
{
	WaitEventSet *wait_set = set->wait_set;

	set->wait_set = NULL;
	if (wait_set != NULL)
		FreeWaitEventSet(wait_set);
}

static void
rebuild(SocketSet *set)
{
	socket_set_release(set);
	set->changed = true; /* until all is done, should it fail halfway */
	set->wait_set = bulk_action_create_wait_event_set(SOCKET_SET_MAX + 2);
	AddWaitEventToSet(set->wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set->wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < set->nsockets; i++)
		AddWaitEventToSet(set->wait_set, set->sockets[i].events, set->sockets[i].fd, NULL, NULL);
	set->changed = false;
}

int
socket_set_wait(SocketSet *set, long timeout_ms, WaitEvent ready[SOCKET_SET_MAX])
{
	WaitEvent events[SOCKET_SET_MAX + 2];
	int       nevents;
	int       nready = 0;

	if (set->changed || set->wait_set == NULL)
		rebuild(set);
	nevents = WaitEventSetWait(set->wait_set, timeout_ms, events, lengthof(events),
							   PG_WAIT_EXTENSION);
	for (int i = 0; i < nevents; i++)
	{
		if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		else if (nready < SOCKET_SET_MAX)
			ready[nready++] = events[i];
	}
	return nready;
}
