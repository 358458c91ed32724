/*
 * lane_assignment.c
 *	  Which lane a key belongs to, and which worker a lane should go to.
 *
 * Every (worker, lane) pair has a pseudo-random score.  In plain rendezvous
 * hashing a lane goes to the worker that scores highest on it, its first choice.
 * Here workers have room for ceil(lanes / workers) lanes, so lanes are handed
 * out in two passes, each in the order of the lanes: first every lane goes to its
 * first choice if that has room; then every lane left over goes to the best
 * worker that has.
 *
 * The two passes give the bound on moves in the header: a lane that is left over
 * never takes the room of one that is at its first choice, so where the first
 * choice is the same before and after, and has room both times, nothing moves.
 * (In one pass, or if higher scores could displace lower ones as in a stable
 * matching, one lane turned away could set off a chain of moves.)
 *
 * Scores never tie: lane_mix64() is a bijection, so different workers score
 * differently on a lane.  So the order of the workers does not matter.
 */
#include "pure/lane_assignment.h"

#include <stdbool.h>
#include <stddef.h>

/* 2^64 divided by the golden ratio, made odd: splitmix64's increment. */
#define GOLDEN_GAMMA UINT64_C(0x9e3779b97f4a7c15)

/*
 * The finalizer of splitmix64: G. Steele, D. Lea, C. Flood, "Fast Splittable
 * Pseudorandom Number Generators", OOPSLA 2014 (D. Stafford's variant 13 of
 * MurmurHash3's fmix64), with constants as in S. Vigna's splitmix64.c.  The
 * increment before it keeps 0 from being mapped to itself.
 */
uint64_t
lane_mix64(uint64_t value)
{
	value += GOLDEN_GAMMA;
	value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
	return value ^ (value >> 31);
}

/*
 * Scales the upper half of the mixed hash down to the lanes instead of dividing:
 * D. Lemire, "Fast Random Integer Generation in an Interval", ACM TOMACS 29(1),
 * 2019.  The bias is below lanes / 2^32.
 */
int
lane_of_hash(uint64_t hash, int lanes)
{
	return (int) (((lane_mix64(hash) >> 32) * (uint64_t) lanes) >> 32);
}

static uint64_t
lane_seed(uint64_t action_key, int lane)
{
	return lane_mix64(lane_mix64(action_key) + (uint64_t) lane * GOLDEN_GAMMA);
}

static uint64_t
score(uint64_t seed, uint64_t worker)
{
	return lane_mix64(seed ^ lane_mix64(worker));
}

static bool
has_room(const int16_t *owner, int lanes, int worker, int capacity)
{
	int taken = 0;

	for (int lane = 0; lane < lanes; lane++)
		taken += owner[lane] == worker;
	return taken < capacity;
}

/* The worker that scores highest on a lane: of all, or of those with room. */
static int
first_choice(uint64_t seed, const uint64_t *workers, int nworkers)
{
	int      best = 0;
	uint64_t best_score = score(seed, workers[0]);

	for (int worker = 1; worker < nworkers; worker++)
	{
		uint64_t value = score(seed, workers[worker]);

		if (value > best_score)
		{
			best = worker;
			best_score = value;
		}
	}
	return best;
}

static int
best_with_room(uint64_t seed, const uint64_t *workers, int nworkers,
			   const int16_t *owner, int lanes, int capacity)
{
	int      best = -1;
	uint64_t best_score = 0;

	for (int worker = 0; worker < nworkers; worker++)
	{
		uint64_t value = score(seed, workers[worker]);

		if ((best < 0 || value > best_score) && has_room(owner, lanes, worker, capacity))
		{
			best = worker;
			best_score = value;
		}
	}
	return best;
}

int
lane_assign(uint64_t action_key, int lanes,
			const uint64_t *workers, int nworkers, int16_t *owner)
{
	int capacity;

	if (lanes <= 0 || lanes > LANE_ASSIGN_MAX_LANES ||
		nworkers <= 0 || nworkers > INT16_MAX)
		return -1;
	capacity = (lanes + nworkers - 1) / nworkers;
	for (int lane = 0; lane < lanes; lane++)
		owner[lane] = -1;

	for (int lane = 0; lane < lanes; lane++)
	{
		int worker = first_choice(lane_seed(action_key, lane), workers, nworkers);

		if (has_room(owner, lanes, worker, capacity))
			owner[lane] = (int16_t) worker;
	}
	for (int lane = 0; lane < lanes; lane++)
	{
		if (owner[lane] < 0)
			owner[lane] = (int16_t) best_with_room(lane_seed(action_key, lane), workers,
												   nworkers, owner, lanes, capacity);
	}
	return 0;
}
