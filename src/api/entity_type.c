/*
 * entity_type.c
 *		Names of entity types: what is a valid one, and what to say about one
 *		that is not registered.
 *
 * They appear in URLs, in logs and in names of metrics, so they are kept to
 * characters that mean nothing special anywhere.  A message about an unknown
 * one names the nearest that there is, but never lists all: what is registered
 * is not everybody's business.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "api/entity_type.h"
#include "service/bookkeeping.h"
#include "service/clean_text.h"
#include "service/near_match.h"

#define MAX_LENGTH 63

static Statement entity_types = {
	.sql = "SELECT entity_type FROM bulk_action_internal.entities",
	.argtypes = {InvalidOid},
};

void
entity_type_check(const char *entity_type)
{
	size_t length = strspn(entity_type, "abcdefghijklmnopqrstuvwxyz0123456789_");

	if (length == 0 || length > MAX_LENGTH || entity_type[length] != '\0' || entity_type[0] < 'a' ||
		entity_type[0] > 'z')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid entity type \"%s\"", clean_text(entity_type)),
				 errdetail("It must have 1 to %d characters from a-z, 0-9 and _, and begin with a "
						   "letter.",
						   MAX_LENGTH),
				 errhint("Choose a name like contact or order_line.")));
}

void
entity_type_unknown(const char *entity_type)
{
	uint64    count = statement_run(&entity_types, NULL, NULL);
	NearMatch match;

	near_match_start(&match, entity_type);
	for (uint64 row = 0; row < count; row++)
		near_match_offer(&match, statement_text(row, 1));

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("entity type \"%s\" does not exist", clean_text(entity_type)),
			 errdetail("No table has been registered under this name."),
			 match.best != NULL ?
				 errhint("Perhaps you meant \"%s\".", match.best) :
				 errhint("Have the owner of the table call bulk_action_register_entity().")));
	pg_unreachable();
}
