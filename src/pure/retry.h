/*
 * retry.h
 *	  How long to wait before trying again.
 */
#ifndef BULK_ACTION_RETRY_H
#define BULK_ACTION_RETRY_H

#include <stdint.h>

/*
 * Milliseconds to wait after the attempt-th failure (from 1; less counts as 1).
 *
 * With limit = min(cap_ms, base_ms * 2^(attempt - 1)) the delay is between
 * limit / 2 and limit, both included, as the 64 random bits say.  0 when
 * base_ms or cap_ms is not positive.  Never overflows.
 */
extern int64_t retry_delay_ms(int attempt, int64_t base_ms, int64_t cap_ms,
							  uint64_t random);

#endif /* BULK_ACTION_RETRY_H */
