/*
 * near_match.h
 *		Finds the name that somebody who misspelt one probably meant.
 */
#ifndef BULK_ACTION_NEAR_MATCH_H
#define BULK_ACTION_NEAR_MATCH_H

#include "postgres.h"

typedef struct NearMatch
{
	const char *wanted;
	const char *best; /* NULL: nothing near so far */
	int         best_distance;
} NearMatch;

/* The strings are not copied. */
extern void near_match_start(NearMatch *match, const char *wanted);
extern void near_match_offer(NearMatch *match, const char *candidate);

#endif /* BULK_ACTION_NEAR_MATCH_H */
