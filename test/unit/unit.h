/*
 * unit.h
 *	  A unit test harness small enough to read at once.
 *
 * A test is a program: it makes checks, and returns unit_report() from main().
 * A check that holds prints nothing, one that does not prints a line with its
 * place.  The last line printed is "N passed, M failed"; the exit status is 0
 * only when at least one check ran and none failed.
 */
#ifndef UNIT_H
#define UNIT_H

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* After so many failures only the count goes on; a broken loop fails often. */
#define UNIT_MAX_REPORTED 50

static long unit_passed = 0;
static long unit_failed = 0;

/* Counts a check; true when the caller should print why it failed. */
static inline bool
unit_must_explain(bool ok)
{
	if (ok)
	{
		unit_passed++;
		return false;
	}
	unit_failed++;
	return unit_failed <= UNIT_MAX_REPORTED;
}

static inline bool
unit_check(const char *file, int line, const char *what, bool ok)
{
	if (unit_must_explain(ok))
		printf("%s:%d: failed: %s\n", file, line, what);
	return ok;
}

static inline bool
unit_check_int(const char *file, int line, const char *what,
			   int64_t actual, int64_t expected)
{
	if (unit_must_explain(actual == expected))
		printf("%s:%d: %s: got %" PRId64 ", expected %" PRId64 "\n",
			   file, line, what, actual, expected);
	return actual == expected;
}

static inline bool
unit_check_uint(const char *file, int line, const char *what,
				uint64_t actual, uint64_t expected)
{
	if (unit_must_explain(actual == expected))
		printf("%s:%d: %s: got %" PRIu64 ", expected %" PRIu64 "\n",
			   file, line, what, actual, expected);
	return actual == expected;
}

/* Prints bytes in double quotes, with what is not printable as \xNN. */
static inline void
unit_print_bytes(const char *data, size_t len)
{
	putchar('"');
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) data[i];

		if (c < 0x20 || c > 0x7e || c == '\\' || c == '"')
			printf("\\x%02x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static inline bool
unit_check_mem(const char *file, int line, const char *what,
			   const char *actual, size_t actual_len,
			   const char *expected, size_t expected_len)
{
	bool ok;

	if (actual == NULL || expected == NULL)
		ok = actual == expected;
	else
		ok = actual_len == expected_len &&
			 (actual_len == 0 || memcmp(actual, expected, actual_len) == 0);

	if (unit_must_explain(ok))
	{
		printf("%s:%d: %s: got ", file, line, what);
		if (actual == NULL)
			printf("NULL");
		else
			unit_print_bytes(actual, actual_len);
		printf(", expected ");
		if (expected == NULL)
			printf("NULL");
		else
			unit_print_bytes(expected, expected_len);
		putchar('\n');
	}
	return ok;
}

static inline bool
unit_check_str(const char *file, int line, const char *what,
			   const char *actual, const char *expected)
{
	return unit_check_mem(file, line, what,
						  actual, actual == NULL ? 0 : strlen(actual),
						  expected, expected == NULL ? 0 : strlen(expected));
}

/*
 * Each evaluates its arguments once and is an expression: true when it holds.
 */
#define CHECK(cond) \
	unit_check(__FILE__, __LINE__, #cond, (cond))
#define CHECK_INT(actual, expected) \
	unit_check_int(__FILE__, __LINE__, #actual, (int64_t) (actual), (int64_t) (expected))
#define CHECK_UINT(actual, expected) \
	unit_check_uint(__FILE__, __LINE__, #actual, (uint64_t) (actual), (uint64_t) (expected))
#define CHECK_STR(actual, expected) \
	unit_check_str(__FILE__, __LINE__, #actual, (actual), (expected))
#define CHECK_MEM(actual, actual_len, expected, expected_len) \
	unit_check_mem(__FILE__, __LINE__, #actual, (actual), (actual_len), (expected), (expected_len))

/* Prints the counts and gives main()'s return value. */
static inline int
unit_report(void)
{
	printf("%ld passed, %ld failed\n", unit_passed, unit_failed);
	return unit_failed == 0 && unit_passed > 0 ? 0 : 1;
}

/*
 * A seeded generator for reproducible random inputs: splitmix64 (Steele, Lea,
 * Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
 */
static inline uint64_t
unit_random(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* A random number in [0, n); n must not be 0. */
static inline uint64_t
unit_random_below(uint64_t *state, uint64_t n)
{
	return unit_random(state) % n;
}

/* A random number of random magnitude: of at most bits bits, all sizes alike. */
static inline uint64_t
unit_random_magnitude(uint64_t *state, unsigned bits)
{
	uint64_t size = unit_random_below(state, bits) + 1;

	return unit_random(state) >> (64 - size);
}

#endif /* UNIT_H */
