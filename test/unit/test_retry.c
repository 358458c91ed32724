/*
 * test_retry.c
 *	  Delays between attempts: their bounds, and that they never overflow.
 */
#include "pure/retry.h"
#include "unit.h"

#include <limits.h>

/* min(cap, base * 2^(attempt - 1)) in a type in which nothing overflows. */
static int64_t
expected_limit(int attempt, int64_t base_ms, int64_t cap_ms)
{
	long double limit = (long double) base_ms;

	for (int i = 1; i < attempt && i < 200; i++)
		limit *= 2;
	return limit < (long double) cap_ms ? (int64_t) limit : cap_ms;
}

static void
test_known(void)
{
	/* the random part of limit 100 is 0 to 50 */
	CHECK_INT(retry_delay_ms(1, 100, 10000, 0), 50);
	CHECK_INT(retry_delay_ms(1, 100, 10000, 50), 100);
	CHECK_INT(retry_delay_ms(1, 100, 10000, 51), 50);
	CHECK_INT(retry_delay_ms(2, 100, 10000, 0), 100);
	CHECK_INT(retry_delay_ms(2, 100, 10000, 100), 200);
	CHECK_INT(retry_delay_ms(8, 100, 10000, 0), 5000);
	CHECK_INT(retry_delay_ms(7, 100, 10000, 0), 3200);
	CHECK_INT(retry_delay_ms(1000, 100, 10000, 5000), 10000);
	CHECK_INT(retry_delay_ms(1, 1, 10, 0), 0);
	CHECK_INT(retry_delay_ms(1, 1, 10, 1), 1);
	CHECK_INT(retry_delay_ms(1, 500, 100, 50), 100);
}

static void
test_odd_arguments(void)
{
	CHECK_INT(retry_delay_ms(0, 100, 10000, 0), 50);
	CHECK_INT(retry_delay_ms(INT_MIN, 100, 10000, 0), 50);
	CHECK_INT(retry_delay_ms(5, 0, 10000, 7), 0);
	CHECK_INT(retry_delay_ms(5, -1, 10000, 7), 0);
	CHECK_INT(retry_delay_ms(5, 100, 0, 7), 0);
	CHECK_INT(retry_delay_ms(5, INT64_MIN, INT64_MIN, UINT64_MAX), 0);
	CHECK_INT(retry_delay_ms(INT_MAX, 1, INT64_MAX, 0), INT64_MAX / 2);
	CHECK(retry_delay_ms(INT_MAX, INT64_MAX, INT64_MAX, UINT64_MAX) >= INT64_MAX / 2);
}

static void
test_bounds(void)
{
	uint64_t seed = 3;

	for (int i = 0; i < 20000; i++)
	{
		int     attempt = 1 + (int) unit_random_below(&seed, 80);
		int64_t base_ms = 1 + (int64_t) unit_random_magnitude(&seed, 62);
		int64_t cap_ms = 1 + (int64_t) unit_random_magnitude(&seed, 62);
		int64_t limit = expected_limit(attempt, base_ms, cap_ms);
		int64_t delay = retry_delay_ms(attempt, base_ms, cap_ms, unit_random(&seed));

		if (!CHECK(delay >= limit / 2 && delay <= limit))
			printf("  attempt %d base %" PRId64 " cap %" PRId64 ": %" PRId64 "\n",
				   attempt, base_ms, cap_ms, delay);
	}
}

/* Those who fail together come back spread over the whole random half. */
static void
test_spread(void)
{
	uint64_t seed = 4;
	int      tenths[10] = {0};

	for (int i = 0; i < 10000; i++)
	{
		int64_t delay = retry_delay_ms(3, 5000, 60000, unit_random(&seed));

		if (CHECK(delay >= 10000 && delay <= 20000))
			tenths[delay == 20000 ? 9 : (delay - 10000) / 1000]++;
	}
	for (int i = 0; i < 10; i++)
		CHECK(tenths[i] > 850 && tenths[i] < 1150);
}

int
main(void)
{
	test_known();
	test_odd_arguments();
	test_bounds();
	test_spread();
	return unit_report();
}
