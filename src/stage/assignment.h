/*
 * assignment.h
 *		Which worker should take which lane.
 */
#ifndef BULK_ACTION_ASSIGNMENT_H
#define BULK_ACTION_ASSIGNMENT_H

#include "postgres.h"

/* Computes the preference for all actions of a database on the board. */
extern void assignment_refresh(Oid database);

#endif /* BULK_ACTION_ASSIGNMENT_H */
