/*
 * action_type.c
 *		What can be done with the rows of a file: the list of action types.
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "service/clean_text.h"
#include "stage/action_type.h"

const char *const action_types[] = {"bulk_update", NULL};

void
action_type_check(const char *name)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; action_types[i] != NULL; i++)
	{
		if (strcmp(action_types[i], name) == 0)
			return;
		appendStringInfo(&list, "%s\"%s\"", i > 0 ? ", " : "", action_types[i]);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("action type \"%s\" does not exist", clean_text(name)),
			 errdetail("The action types are: %s.", list.data),
			 errhint("Use \"%s\", or leave the argument out.", action_types[0])));
}
