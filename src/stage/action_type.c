/*
 * action_type.c
 *		What can be done with the rows of a file: the list of action types.
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "service/clean_text.h"
#include "service/near_match.h"
#include "stage/action_type.h"

const char *const action_types[] = {"bulk_update", "bulk_insert", "bulk_upsert", "bulk_delete", NULL};

ActionType
action_type_parse(const char *name)
{
	NearMatch      match;
	StringInfoData list;

	near_match_start(&match, name);
	initStringInfo(&list);
	for (int i = 0; action_types[i] != NULL; i++)
	{
		if (strcmp(action_types[i], name) == 0)
			return i;
		near_match_offer(&match, action_types[i]);
		appendStringInfo(&list, "%s\"%s\"", i > 0 ? ", " : "", action_types[i]);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("action type \"%s\" does not exist", clean_text(name)),
			 errdetail("The action types are: %s.", list.data),
			 match.best != NULL ? errhint("Perhaps you meant \"%s\".", match.best) :
								  errhint("Leave the argument out to have \"%s\".", action_types[0])));
}
