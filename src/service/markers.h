/*
 * markers.h
 *		What workers were at when the server crashed.
 *
 * User code that a worker runs can bring the whole server down: a C function
 * called by a trigger, for example.  All shared memory is gone then, and so is
 * the transaction.  What is left is a file in which each worker notes what it
 * begins and crosses it out when it is done; what is not crossed out after a
 * crash was in flight, and may be to blame.
 *
 * The file is never synced: it has to outlive processes, not the machine.  One
 * that is lost costs one more crash.
 */
#ifndef BULK_ACTION_MARKERS_H
#define BULK_ACTION_MARKERS_H

#include "postgres.h"

/* What a worker is at. */
typedef enum MarkerKind
{
	MARKER_NONE = 0,
	MARKER_SEGMENT, /* number: of the segment */
	MARKER_KEYS,    /* comparing the keys of the lane */
	MARKER_CHUNK    /* number: of the chunk in the lane */
} MarkerKind;

typedef struct Marker
{
	MarkerKind kind;
	bool       alone; /* nothing else was handed out beside it */
	Oid        database;
	int64      action_no;
	int        lane;
	int        number;
} Marker;

#define MARKERS_MAX 256 /* kept after crashes, until the coordinators of their databases take them */

/* For the postmaster, at start and after each crash: what was in flight, and is not yet taken up. */
extern int markers_load(Marker *crashed);

/* The present worker begins and ends something of its task; never raises an error. */
struct Task;
extern void markers_set(const struct Task *task, MarkerKind kind, int number);
extern void markers_clear(int slot);

/* Something is begun beside what the worker in this slot is at. */
extern void markers_not_alone(int slot);

/* One of those that markers_load() gave, by its index, is taken up and not to come again. */
extern void markers_forget(int index);

#endif /* BULK_ACTION_MARKERS_H */
