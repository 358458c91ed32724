/*
 * test_lane_assignment.c
 *	  Bounds, independence of order, and how few lanes move.
 *
 * The statistics use fixed seeds: they are the same in each run.
 */
#include "pure/lane_assignment.h"
#include "unit.h"

#include <math.h>

#define LANES       32
#define MAX_WORKERS 40
#define TRIALS      2000

/*
 * The published outputs of splitmix64 for the seeds 0 and 1234567: its n-th
 * output is the mix of seed + (n - 1) * gamma.
 */
static void
test_mix_known_answers(void)
{
	const uint64_t gamma = UINT64_C(0x9e3779b97f4a7c15);

	CHECK_UINT(lane_mix64(0), UINT64_C(0xe220a8397b1dcdaf));
	CHECK_UINT(lane_mix64(gamma), UINT64_C(0x6e789e6aa1b965f4));
	CHECK_UINT(lane_mix64(1234567), UINT64_C(6457827717110365317));
	CHECK_UINT(lane_mix64(1234567 + gamma), UINT64_C(3203168211198807973));
	CHECK_UINT(lane_mix64(1234567 + 2 * gamma), UINT64_C(9817491932198370423));
}

/* Lanes are written down with an action: a key must keep its lane for ever. */
static void
test_lane_of_hash(void)
{
	CHECK_INT(lane_of_hash(0, 32), 28);                            /* 0xe2 >> 3 */
	CHECK_INT(lane_of_hash(UINT64_C(0x9e3779b97f4a7c15), 32), 13); /* 0x6e >> 3 */
	CHECK_INT(lane_of_hash(0, 3), 2);
	CHECK_INT(lane_of_hash(0, 1), 0);
	CHECK_INT(lane_of_hash(UINT64_MAX, 1), 0);

	/* hashes that differ only in a few places spread evenly all the same */
	for (int shift = 0; shift < 64; shift += 8)
	{
		for (int lanes = 2; lanes <= 32; lanes += 5)
		{
			int    count[32] = {0};
			int    keys = shift <= 48 ? 6400 : 1 << (64 - shift);
			double expected = (double) keys / lanes;
			double chi2 = 0;

			for (int i = 0; i < keys; i++)
			{
				int lane = lane_of_hash((uint64_t) i << shift, lanes);

				if (CHECK(lane >= 0 && lane < lanes))
					count[lane]++;
			}
			for (int lane = 0; lane < lanes; lane++)
				chi2 += (count[lane] - expected) * (count[lane] - expected) / expected;
			/* mean lanes - 1, variance twice that: five deviations and some */
			CHECK(chi2 < lanes + 5 * sqrt(2.0 * lanes) + 5);
		}
	}
}

/* Every input bit changes about half of the output bits. */
static void
test_mix_avalanche(void)
{
	uint64_t seed = 1;

	for (int bit = 0; bit < 64; bit++)
	{
		int flips[64] = {0};

		for (int i = 0; i < 1000; i++)
		{
			uint64_t value = unit_random(&seed);
			uint64_t diff = lane_mix64(value) ^ lane_mix64(value ^ (UINT64_C(1) << bit));

			for (int out = 0; out < 64; out++)
				flips[out] += (diff >> out) & 1;
		}
		for (int out = 0; out < 64; out++)
			CHECK(flips[out] > 400 && flips[out] < 600);
	}
}

static void
test_arguments(void)
{
	uint64_t workers[2] = {1, 2};
	int16_t  owner[LANE_ASSIGN_MAX_LANES + 1];

	owner[0] = 77;
	CHECK_INT(lane_assign(1, 0, workers, 2, owner), -1);
	CHECK_INT(lane_assign(1, -1, workers, 2, owner), -1);
	CHECK_INT(lane_assign(1, LANE_ASSIGN_MAX_LANES + 1, workers, 2, owner), -1);
	CHECK_INT(lane_assign(1, 1, workers, 0, owner), -1);
	CHECK_INT(lane_assign(1, 1, workers, -1, owner), -1);
	CHECK_INT(lane_assign(1, 1, workers, INT16_MAX + 1, owner), -1);
	CHECK_INT(owner[0], 77);
	CHECK_INT(lane_assign(1, LANE_ASSIGN_MAX_LANES, workers, 2, owner), 0);
	CHECK_INT(lane_assign(1, 3, workers, 1, owner), 0);
	CHECK_INT(owner[0] + owner[1] + owner[2], 0);
}

/* Everyone owned, nobody overloaded, and the order of the workers no matter. */
static void
test_bounded_and_deterministic(void)
{
	uint64_t seed = 5;

	for (int trial = 0; trial < TRIALS; trial++)
	{
		uint64_t workers[MAX_WORKERS];
		uint64_t shuffled[MAX_WORKERS];
		int16_t  owner[64];
		int16_t  again[64];
		int      load[MAX_WORKERS] = {0};
		int      lanes = 1 + (int) unit_random_below(&seed, 64);
		int      n = 1 + (int) unit_random_below(&seed, MAX_WORKERS);
		uint64_t action = unit_random_below(&seed, 100);

		/* identifiers as they are in practice: small and in sequence */
		for (int i = 0; i < n; i++)
			shuffled[i] = workers[i] = 100 + (uint64_t) i;
		for (int i = n - 1; i > 0; i--)
		{
			int      j = (int) unit_random_below(&seed, (uint64_t) i + 1);
			uint64_t other = shuffled[i];

			shuffled[i] = shuffled[j];
			shuffled[j] = other;
		}
		CHECK_INT(lane_assign(action, lanes, workers, n, owner), 0);
		CHECK_INT(lane_assign(action, lanes, shuffled, n, again), 0);
		for (int lane = 0; lane < lanes; lane++)
		{
			if (!CHECK(owner[lane] >= 0 && owner[lane] < n && again[lane] >= 0 && again[lane] < n))
				continue;
			CHECK_UINT(shuffled[again[lane]], workers[owner[lane]]);
			load[owner[lane]]++;
		}
		for (int i = 0; i < n; i++)
			CHECK(load[i] <= (lanes + n - 1) / n);
	}
}

/* n E[max(0, B - ceil(lanes / n))] for B binomial (lanes, 1/n). */
static double
excess(int lanes, int n)
{
	int    capacity = (lanes + n - 1) / n;
	double sum = 0;

	if (n == 1)
		return 0;
	for (int k = capacity + 1; k <= lanes; k++)
		sum += (k - capacity) * exp(lgamma(lanes + 1) - lgamma(k + 1) - lgamma(lanes - k + 1) -
									k * log(n) + (lanes - k) * log(1 - 1.0 / n));
	return n * sum;
}

/* One worker leaves: the lanes that move are as few as the header says. */
static void
test_few_lanes_move(void)
{
	uint64_t seed = 9;

	for (int n = 2; n <= 32; n++)
	{
		long   moved = 0;
		long   left_behind = 0;
		double bound = (double) LANES / n + excess(LANES, n) + excess(LANES, n - 1);

		for (int trial = 0; trial < TRIALS; trial++)
		{
			uint64_t workers[MAX_WORKERS];
			int16_t  before[LANES];
			int16_t  after[LANES];
			uint64_t action = unit_random(&seed);

			for (int i = 0; i < n; i++)
				workers[i] = unit_random(&seed);
			lane_assign(action, LANES, workers, n, before);
			lane_assign(action, LANES, workers, n - 1, after); /* without the last */
			for (int lane = 0; lane < LANES; lane++)
			{
				moved += before[lane] != after[lane];
				left_behind += before[lane] == n - 1;
			}
		}
		CHECK(moved >= left_behind);
		/* the mean of so many trials is within a few per cent of the expectation */
		if (!CHECK((double) moved / TRIALS <= bound * 1.02))
			printf("  %d workers: %.2f lanes moved, bound %.2f\n",
				   n, (double) moved / TRIALS, bound);
	}
}

/* Over many actions every worker gets its share, also where capacity is slack. */
static void
test_fair(void)
{
	uint64_t workers[5] = {1, 2, 3, 4, 5};
	long     load[5] = {0};

	for (uint64_t action = 0; action < TRIALS; action++)
	{
		int16_t owner[3];

		lane_assign(action, 3, workers, 5, owner);
		for (int lane = 0; lane < 3; lane++)
			load[owner[lane]]++;
	}
	/* 6000 lanes, 1200 each; the deviation is below sqrt(6000 * 0.2 * 0.8) = 31 */
	for (int i = 0; i < 5; i++)
		CHECK(load[i] > 1200 - 155 && load[i] < 1200 + 155);
}

int
main(void)
{
	test_mix_known_answers();
	test_lane_of_hash();
	test_mix_avalanche();
	test_arguments();
	test_bounded_and_deterministic();
	test_few_lanes_move();
	test_fair();
	return unit_report();
}
