/*
 * connect_check.h
 *		Whether a worker could connect as the session user of an action.
 */
#ifndef BULK_ACTION_CONNECT_CHECK_H
#define BULK_ACTION_CONNECT_CHECK_H

#include "postgres.h"

#include "stage/jobs.h"

/*
 * A role that nobody can connect as will not get better by trying, and a
 * worker that dies while connecting tells nobody why: true if it is there, has
 * LOGIN, and CONNECT on the database; else *failure says what is missing.
 */
extern bool connect_check(Oid role, Oid database, Failure *failure);

#endif /* BULK_ACTION_CONNECT_CHECK_H */
