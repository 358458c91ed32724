/*
 * near_match.c
 *		Finds the name that somebody who misspelt one probably meant.
 *
 * Near is: the same but for upper and lower case, or at most three edits and
 * not more than half of the word.  The server's function refuses strings beyond
 * 255 characters, so those are not looked at.
 */
#include "postgres.h"

#include "utils/varlena.h"

#include "service/near_match.h"

#define MAX_EDITS      3
#define MAX_NAME_BYTES 255

void
near_match_start(NearMatch *match, const char *wanted)
{
	match->wanted = wanted;
	match->best = NULL;
	match->best_distance = Min(MAX_EDITS, (int) (strlen(wanted) / 2)) + 1;
}

void
near_match_offer(NearMatch *match, const char *candidate)
{
	int wanted_length = strlen(match->wanted);
	int candidate_length = strlen(candidate);
	int distance;

	if (wanted_length == 0 || wanted_length > MAX_NAME_BYTES || candidate_length == 0 ||
		candidate_length > MAX_NAME_BYTES)
		return;

	if (pg_strcasecmp(match->wanted, candidate) == 0)
	{
		match->best = candidate;
		match->best_distance = 0;
		return;
	}

	distance =
		varstr_levenshtein_less_equal(match->wanted, wanted_length, candidate, candidate_length,
									  1, 1, 1, match->best_distance, false);
	if (distance < match->best_distance)
	{
		match->best = candidate;
		match->best_distance = distance;
	}
}
