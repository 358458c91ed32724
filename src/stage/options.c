/*
 * options.c
 *		The options of an action: the JSON object given to submit.
 *
 * A misspelt option that is silently ignored changes what happens to a
 * million rows, so every key must be known and every value of the right type.
 * One table says which there are.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

#include "service/near_match.h"
#include "stage/options.h"

typedef struct OptionRule
{
	const char  *name;
	enum jbvType type;
	size_t       offset; /* in ActionOptions */
} OptionRule;

static const OptionRule option_rules[] = {
	{"server", jbvString, offsetof(ActionOptions, server)},
};

static const char *
type_name(enum jbvType type)
{
	switch (type)
	{
		case jbvNull:
			return "null";
		case jbvString:
			return "a string";
		case jbvNumeric:
			return "a number";
		case jbvBool:
			return "a boolean";
		default:
			return "an array or object";
	}
}

static const OptionRule *
rule_find(const char *name)
{
	NearMatch      match;
	StringInfoData valid;

	for (int i = 0; i < lengthof(option_rules); i++)
	{
		if (strcmp(option_rules[i].name, name) == 0)
			return &option_rules[i];
	}

	near_match_start(&match, name);
	initStringInfo(&valid);
	for (int i = 0; i < lengthof(option_rules); i++)
	{
		near_match_offer(&match, option_rules[i].name);
		appendStringInfo(&valid, "%s\"%s\"", i > 0 ? ", " : "", option_rules[i].name);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("bulk action option \"%s\" does not exist", name),
			 errdetail("The options are: %s.", valid.data),
			 match.best != NULL ?
				 errhint("Perhaps you meant \"%s\".", match.best) :
				 errhint("Leave it out; notes of your own belong into \"metadata\".")));
}

static void
option_assign(const OptionRule *rule, const JsonbValue *value, ActionOptions *options)
{
	void *field = (char *) options + rule->offset;

	if (value->type != rule->type)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("bulk action option \"%s\" must be %s", rule->name, type_name(rule->type)),
				 errdetail("It is %s.", type_name(value->type)),
				 errhint("Give %s, or leave the option out.", type_name(rule->type))));

	if (value->type == jbvString && value->val.string.len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("bulk action option \"%s\" must not be empty", rule->name),
				 errdetail("It is the empty string."),
				 errhint("Give it a value, or leave the option out.")));

	/* jbvString is the only type that an option has so far */
	Assert(rule->type == jbvString);
	*(char **) field = pnstrdup(value->val.string.val, value->val.string.len);
}

void
options_parse(Jsonb *json, ActionOptions *options)
{
	JsonbIterator     *iterator;
	JsonbIteratorToken token;
	JsonbValue         value;

	memset(options, 0, sizeof(*options));
	if (!JB_ROOT_IS_OBJECT(json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("bulk action options must be a JSON object"),
				 errdetail("They are %s.", JB_ROOT_IS_SCALAR(json) ? "a single value" : "an array"),
				 errhint("Write them like {\"server\": \"name\"}, or leave them out.")));

	iterator = JsonbIteratorInit(&json->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			const OptionRule *rule =
				rule_find(pnstrdup(value.val.string.val, value.val.string.len));

			(void) JsonbIteratorNext(&iterator, &value, true);
			option_assign(rule, &value, options);
		}
	}
}
