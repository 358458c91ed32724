/*
 * option_rules.c
 *		What the validators of our foreign-data wrappers have in common.
 *
 * A CA file is opened by the server with its own rights, and what is wrong
 * with its contents would be told: only who may read the server's files may
 * name one.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "commands/defrem.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "api/option_rules.h"
#include "service/clean_text.h"
#include "service/near_match.h"

/* One error for every bad value. */
void
option_refuse(const char *name, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\"", name), errdetail("%s", clean_text(detail)),
			 errhint("%s", hint)));
}

void
option_check_text(const char *name, const char *value)
{
	if (value[0] == '\0')
		option_refuse(name, "It is empty.", "Leave the option out, or give it a value.");
}

void
option_check_ca_file(const char *name, const char *value)
{
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", name),
				 errdetail("Only members of role \"pg_read_server_files\" may name a file of the "
						   "server."),
				 errhint("Have the server created or altered by such a role, or leave the option "
						 "out to trust the system's certificates.")));
	if (!is_absolute_path(value))
		option_refuse(name, psprintf("\"%s\" is not an absolute path.", value),
					  "Give the path of a PEM file on the server, beginning with a slash.");
}

void
option_check_boolean(const char *name, const char *value)
{
	bool result;

	if (!parse_bool(value, &result))
		option_refuse(name, psprintf("\"%s\" is not a boolean.", value), "Use \"true\" or "
																		 "\"false\".");
}

static const OptionRule *
rule_find(const OptionRule *rules, int nrules, const char *name, Oid catalog, const char *elsewhere)
{
	NearMatch      match;
	StringInfoData valid;

	near_match_start(&match, name);
	initStringInfo(&valid);
	for (int i = 0; i < nrules; i++)
	{
		const OptionRule *rule = &rules[i];

		if (rule->catalog != catalog)
			continue;
		if (strcmp(rule->name, name) == 0)
			return rule;
		near_match_offer(&match, rule->name);
		appendStringInfo(&valid, "%s\"%s\"", valid.len > 0 ? ", " : "", rule->name);
	}

	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("invalid option \"%s\"", clean_text(name)),
			 valid.len > 0 ?
				 errdetail("The options here are: %s.", valid.data) :
				 errdetail("There are no options here."),
			 match.best != NULL ?
				 errhint("Perhaps you meant \"%s\".", match.best) :
				 errhint("%s", elsewhere)));
}

const char *
option_value(List *options, const char *name)
{
	ListCell *cell;

	foreach(cell, options)
	{
		DefElem *option = (DefElem *) lfirst(cell);

		if (strcmp(option->defname, name) == 0)
			return defGetString(option);
	}
	return NULL;
}

bool
option_is_true(List *options, const char *name)
{
	const char *value = option_value(options, name);
	bool        result = false;

	return value != NULL && parse_bool(value, &result) && result;
}

void
option_rules_apply(const OptionRule *rules, int nrules, List *options, Oid catalog, const char *elsewhere)
{
	ListCell *cell;

	foreach(cell, options)
	{
		DefElem          *option = (DefElem *) lfirst(cell);
		const OptionRule *rule = rule_find(rules, nrules, option->defname, catalog, elsewhere);

		rule->check(rule->name, defGetString(option));
	}
}
