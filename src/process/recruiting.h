/*
 * recruiting.h
 *		Starts workers where tasks wait for one.
 */
#ifndef BULK_ACTION_RECRUITING_H
#define BULK_ACTION_RECRUITING_H

#include "postgres.h"

/*
 * For the coordinator of the database: starts and wakes workers for tasks that
 * wait; returns in how many ms to look again (-1: not needed).  Calls give_up
 * for a session user whose workers do not come up.
 */
extern long recruit_workers(Oid database, void (*give_up)(Oid session_user));

#endif /* BULK_ACTION_RECRUITING_H */
