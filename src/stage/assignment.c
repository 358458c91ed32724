/*
 * assignment.c
 *		Which worker should take which lane.
 *
 * Lanes go to workers by rendezvous hashing with bounded loads
 * (pure/lane_assignment.c), so a lane mostly stays with one worker, whose
 * caches know its pages, and moves only when workers come or go.  It is a
 * preference: an idle worker takes any lane, and the cursor's row lock decides.
 * A worker is known by its slot, which a successor inherits together with the
 * lanes.
 */
#include "postgres.h"

#include "pure/lane_assignment.h"
#include "service/board.h"
#include "stage/assignment.h"

static void
assign(int64 action_no, int lanes, const int *slots, int nslots, int16 *owners)
{
	uint64_t workers[BOARD_MAX_WORKERS] = {0};

	for (int i = 0; i < nslots; i++)
		workers[i] = (uint64_t) slots[i];
	if (lane_assign((uint64_t) action_no, lanes, workers, nslots, owners) != 0)
		elog(ERROR, "could not assign %d lanes to %d workers", lanes, nslots);
	for (int lane = 0; lane < lanes; lane++)
		owners[lane] = (int16) slots[owners[lane]];
}

void
assignment_refresh(Oid database)
{
	board_assign(database, assign);
}
