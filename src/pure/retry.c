/*
 * retry.c
 *	  How long to wait before trying again.
 *
 * Exponential back-off with "equal jitter": M. Brooker, "Exponential Backoff
 * And Jitter", AWS Architecture Blog, 2015.  Half of the delay is certain, so
 * that a failing server is never asked again at once, which full jitter allows;
 * half is random, so that those who failed together do not come back together.
 * Decorrelated jitter would need the previous delay, which nobody stores.
 */
#include "pure/retry.h"

int64_t
retry_delay_ms(int attempt, int64_t base_ms, int64_t cap_ms, uint64_t random)
{
	int64_t limit = base_ms < cap_ms ? base_ms : cap_ms;
	int64_t half;

	if (limit <= 0)
		return 0;
	for (int i = 1; i < attempt && limit < cap_ms; i++)
		limit = limit > cap_ms / 2 ? cap_ms : limit * 2;

	half = limit / 2;
	return half + (int64_t) (random % (uint64_t) (limit - half + 1));
}
