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
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "service/clean_text.h"
#include "service/near_match.h"
#include "stage/options.h"

StaticAssertDecl(sizeof(DuplicatesMode) == sizeof(int) && sizeof(RowOrder) == sizeof(int),
				 "options that are words are stored as int");

/* Words that an option may be, in the order of its enum. */
static const char *const duplicates_words[] = {"all", "last", "first", "error", NULL};
static const char *const order_words[] = {"key", "file", NULL};

typedef struct OptionRule
{
	const char        *name;
	enum jbvType       type;   /* jbvString; jbvNumeric: a whole number; jbvBinary: an ErrorBudget */
	size_t             offset; /* in ActionOptions: char *, an enum, int or ErrorBudget */
	const char *const *words;  /* jbvString: the only ones allowed; NULL: any */
	int                min;    /* jbvNumeric */
	int                max;
} OptionRule;

static const OptionRule option_rules[] = {
	{"server", jbvString, offsetof(ActionOptions, server), NULL, 0, 0},
	{"duplicates", jbvString, offsetof(ActionOptions, duplicates), duplicates_words, 0, 0},
	{"order", jbvString, offsetof(ActionOptions, order), order_words, 0, 0},
	{"priority", jbvNumeric, offsetof(ActionOptions, priority), NULL, PRIORITY_MIN, PRIORITY_MAX},
	{"max_errors", jbvBinary, offsetof(ActionOptions, max_errors), NULL, 0, 0},
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
			 errmsg("bulk action option \"%s\" does not exist", clean_text(name)),
			 errdetail("The options are: %s.", valid.data),
			 match.best != NULL ?
				 errhint("Perhaps you meant \"%s\".", match.best) :
				 errhint("Leave it out; notes of your own belong into \"metadata\".")));
}

/* Which of the words an option is. */
static int
find_word(const OptionRule *rule, const char *value)
{
	NearMatch      match;
	StringInfoData valid;

	near_match_start(&match, value);
	initStringInfo(&valid);
	for (int i = 0; rule->words[i] != NULL; i++)
	{
		if (strcmp(rule->words[i], value) == 0)
			return i;
		near_match_offer(&match, rule->words[i]);
		appendStringInfo(&valid, "%s\"%s\"", i > 0 ? ", " : "", rule->words[i]);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("bulk action option \"%s\" must not be \"%s\"", rule->name, clean_text(value)),
			 errdetail("It can be: %s.", valid.data),
			 match.best != NULL ? errhint("Perhaps you meant \"%s\".", match.best) :
								  errhint("Leave it out to have \"%s\".", rule->words[0])));
}

static int
read_integer(const OptionRule *rule, Numeric value)
{
	char *text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value)));
	char *end;
	long  number;

	errno = 0;
	number = strtol(text, &end, 10);
	if (errno != 0 || *end != '\0' || number < rule->min || number > rule->max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("bulk action option \"%s\" must not be %s", rule->name, text),
				 errdetail("It can be a whole number from %d to %d.", rule->min, rule->max),
				 errhint("Leave it out to have 0.")));
	return (int) number;
}

/* A number of rows, or a share like "5%". */
static void
read_max_errors(const OptionRule *rule, const JsonbValue *value, ErrorBudget *budget)
{
	char *given;
	char *end;

	if (value->type == jbvNumeric)
	{
		given = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
		errno = 0;
		budget->is_share = false;
		budget->rows = strtoll(given, &end, 10);
		if (errno == 0 && *end == '\0' && budget->rows >= 0)
			return;
	}
	else if (value->type == jbvString)
	{
		given = psprintf("\"%.*s\"", value->val.string.len, value->val.string.val);
		if (error_budget_parse_share(pnstrdup(value->val.string.val, value->val.string.len), budget))
			return;
	}
	else
		given = pstrdup(type_name(value->type));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("bulk action option \"%s\" must not be %s", rule->name, clean_text(given)),
			 errdetail("It can be a whole number of rows from 0, or a share of the rows like \"5%%\" or "
					   "\"0.25%%\", up to \"100%%\" and with at most four decimals."),
			 errhint("Leave it out to have %d.", MAX_ERRORS_DEFAULT)));
}

static void
option_assign(const OptionRule *rule, const JsonbValue *value, ActionOptions *options)
{
	void *field = (char *) options + rule->offset;
	char *text;

	if (rule->type == jbvBinary)
	{
		read_max_errors(rule, value, field);
		return;
	}
	if (value->type != rule->type)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("bulk action option \"%s\" must be %s", rule->name, type_name(rule->type)),
				 errdetail("It is %s.", type_name(value->type)),
				 errhint("Give %s, or leave the option out.", type_name(rule->type))));

	if (rule->type == jbvNumeric)
	{
		*(int *) field = read_integer(rule, value->val.numeric);
		return;
	}
	if (value->val.string.len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("bulk action option \"%s\" must not be empty", rule->name),
				 errdetail("It is the empty string."),
				 errhint("Give it a value, or leave the option out.")));
	text = pnstrdup(value->val.string.val, value->val.string.len);
	if (rule->words == NULL)
		*(char **) field = text;
	else
		*(int *) field = find_word(rule, text);
}

void
options_parse(Jsonb *json, ActionOptions *options)
{
	JsonbIterator     *iterator;
	JsonbIteratorToken token;
	JsonbValue         value;

	memset(options, 0, sizeof(*options));
	options->max_errors.rows = MAX_ERRORS_DEFAULT;
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
