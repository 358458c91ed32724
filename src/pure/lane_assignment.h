/*
 * lane_assignment.h
 *	  Which lane a key belongs to, and which worker a lane should go to.
 *
 * Rendezvous (highest random weight) hashing: D. Thaler, C. Ravishankar, "Using
 * Name-Based Mappings to Increase Hit Rates", IEEE/ACM Transactions on
 * Networking 6(1), 1998.  With bounded loads: V. Mirrokni, M. Thorup,
 * M. Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018.
 */
#ifndef BULK_ACTION_LANE_ASSIGNMENT_H
#define BULK_ACTION_LANE_ASSIGNMENT_H

#include <stdint.h>

#define LANE_ASSIGN_MAX_LANES 256

/*
 * Gives each lane of an action a worker.  workers are their identifiers, all
 * different; owner[lane] gets an index into workers.  No worker gets more than
 * ceil(lanes / nworkers) lanes.  The same workers in another order get the
 * same lanes.
 *
 * Returns 0, or -1 with owner untouched unless 0 < lanes <=
 * LANE_ASSIGN_MAX_LANES and 0 < nworkers <= INT16_MAX.
 *
 * When a worker comes or goes, a lane moves only if that worker was or becomes
 * its first choice, or if its first choice was or becomes overloaded and did or
 * does not keep it.  First choices are independent and uniform, so the expected
 * number of moves from n to n - 1 workers (or back) is at most
 *
 *		lanes / n + excess(n) + excess(n - 1)
 *
 * where excess(n) = n E[max(0, B - ceil(lanes / n))], B binomial (lanes, 1/n),
 * is the expected number of lanes that their first choice cannot take.
 */
extern int lane_assign(uint64_t action_key, int lanes,
					   const uint64_t *workers, int nworkers, int16_t *owner);

/*
 * The lane of a key's hash, in [0, lanes); lanes > 0.  The hash is mixed first:
 * its bits need not be equally good.
 */
extern int lane_of_hash(uint64_t hash, int lanes);

/* A bijection on 64 bits in which every input bit affects every output bit. */
extern uint64_t lane_mix64(uint64_t value);

#endif /* BULK_ACTION_LANE_ASSIGNMENT_H */
