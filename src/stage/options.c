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
#include "stage/options_file.h"
#include "stage/options_formats.h"
#include "stage/options_values.h"

StaticAssertDecl(sizeof(DuplicatesMode) == sizeof(int) && sizeof(RowOrder) == sizeof(int) &&
					 sizeof(EmptyCell) == sizeof(int) && sizeof(OnMissing) == sizeof(int) &&
					 sizeof(OnConflict) == sizeof(int) && sizeof(UnknownColumns) == sizeof(int),
				 "options that are words are stored as int");

/* Words that an option may be, in the order of its enum. */
static const char *const duplicates_words[] = {"all", "last", "first", "error", NULL};
static const char *const order_words[] = {"key", "file", NULL};
static const char *const empty_words[] = {"keep", "null", "value", NULL};
static const char *const missing_words[] = {"report", "insert", "error", NULL};
static const char *const conflict_words[] = {"error", "skip", "update", NULL};
static const char *const unknown_words[] = {"error", "ignore", NULL};

/* Which action types an option is for. */
#define FOR(type) (1 << (type))
#define FOR_ALL   (FOR(ACTION_UPDATE) | FOR(ACTION_INSERT) | FOR(ACTION_UPSERT) | FOR(ACTION_DELETE))
#define FOR_SET   (FOR(ACTION_UPDATE) | FOR(ACTION_INSERT) | FOR(ACTION_UPSERT))
#define FOR_FOUND (FOR(ACTION_UPDATE) | FOR(ACTION_DELETE))

typedef struct OptionRule
{
	const char        *name;
	int                types;  /* FOR(...) */
	enum jbvType       type;   /* jbvString; jbvNumeric: a whole number; jbvBool; jbvBinary: read checks it */
	size_t             offset; /* in ActionOptions: char *, an enum, int, bool, or what read makes */
	const char *const *words;  /* jbvString: the only ones allowed; NULL: any */
	int                min;    /* jbvNumeric */
	int                max;
	void (*read)(const char *name, const JsonbValue *value, ActionOptions *options);
} OptionRule;

static void read_max_errors(const char *name, const JsonbValue *value, ActionOptions *options);
static void read_skip_unchanged(const char *name, const JsonbValue *value, ActionOptions *options);

static const OptionRule option_rules[] = {
	{"server", FOR_ALL, jbvString, offsetof(ActionOptions, server)},
	{"duplicates", FOR_ALL, jbvString, offsetof(ActionOptions, duplicates), duplicates_words},
	{"order", FOR_ALL, jbvString, offsetof(ActionOptions, order), order_words},
	{"priority", FOR_ALL, jbvNumeric, offsetof(ActionOptions, priority), NULL, PRIORITY_MIN, PRIORITY_MAX},
	{"max_errors", FOR_ALL, jbvBinary, .read = read_max_errors},
	{"empty", FOR_SET, jbvString, offsetof(ActionOptions, empty), empty_words},
	{"null_token", FOR_ALL, jbvString, offsetof(ActionOptions, null_token)},
	{"on_missing", FOR_FOUND, jbvString, offsetof(ActionOptions, on_missing), missing_words},
	{"on_conflict", FOR(ACTION_INSERT), jbvString, offsetof(ActionOptions, on_conflict), conflict_words},
	{"skip_unchanged", FOR(ACTION_UPDATE) | FOR(ACTION_UPSERT), jbvBool, .read = read_skip_unchanged},
	{"unknown_columns", FOR_ALL, jbvString, offsetof(ActionOptions, unknown_columns), unknown_words},
	{"fold_header", FOR_ALL, jbvBool, offsetof(ActionOptions, fold_header)},
	{"dry_run", FOR_ALL, jbvBool, offsetof(ActionOptions, dry_run)},
	{"columns", FOR_ALL, jbvBinary, .read = options_read_columns},
	{"formats", FOR_ALL, jbvBinary, .read = options_read_formats},
	{"match", FOR(ACTION_DELETE), jbvBinary, .read = options_read_match},
	{"delimiter", FOR_ALL, jbvString, .read = options_read_delimiter},
	{"quote", FOR_ALL, jbvString, .read = options_read_quote},
	{"header", FOR_ALL, jbvBool, .read = options_read_header},
	{"comment", FOR_ALL, jbvString, .read = options_read_comment},
	{"skip_lines", FOR_ALL, jbvNumeric, offsetof(ActionOptions, file.skip_lines), NULL, 0, DIALECT_MAX_SKIP_LINES},
	{"ragged", FOR_ALL, jbvString, .read = options_read_ragged},
	{"encoding", FOR_ALL, jbvString, .read = options_read_encoding},
};

StaticAssertDecl(lengthof(option_rules) <= 64, "a bit of ActionOptions.given per option");

const char *
options_type_name(enum jbvType type)
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

int
options_find_word(const char *what, const char *const *words, const char *value)
{
	NearMatch      match;
	StringInfoData valid;

	near_match_start(&match, value);
	initStringInfo(&valid);
	for (int i = 0; words[i] != NULL; i++)
	{
		if (strcmp(words[i], value) == 0)
			return i;
		near_match_offer(&match, words[i]);
		appendStringInfo(&valid, "%s\"%s\"", i > 0 ? ", " : "", words[i]);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s must not be \"%s\"", what, clean_text(value)),
			 errdetail("It can be: %s.", valid.data),
			 match.best != NULL ? errhint("Perhaps you meant \"%s\".", match.best) :
								  errhint("Leave it out to have \"%s\".", words[0])));
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
read_max_errors(const char *name, const JsonbValue *value, ActionOptions *options)
{
	ErrorBudget *budget = &options->max_errors;
	char        *given;
	char        *end;

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
		if (error_budget_parse_share(options_string(value), budget))
			return;
	}
	else
		given = pstrdup(options_type_name(value->type));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("bulk action option \"%s\" must not be %s", name, clean_text(given)),
			 errdetail("It can be a whole number of rows from 0, or a share of the rows like \"5%%\" or "
					   "\"0.25%%\", up to \"100%%\" and with at most four decimals."),
			 errhint("Leave it out to have %d.", MAX_ERRORS_DEFAULT)));
}

static void
require_type(const char *name, const JsonbValue *value, enum jbvType type)
{
	if (value->type != type)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("bulk action option \"%s\" must be %s", name, options_type_name(type)),
				 errdetail("It is %s.", options_type_name(value->type)),
				 errhint("Give %s, or leave the option out.", options_type_name(type))));
}

static void
read_skip_unchanged(const char *name, const JsonbValue *value, ActionOptions *options)
{
	options->rewrite_unchanged = !value->val.boolean;
}

static void
option_assign(const OptionRule *rule, const JsonbValue *value, ActionOptions *options)
{
	void *field = (char *) options + rule->offset;
	char *text;

	options->given |= UINT64CONST(1) << (rule - option_rules);
	if (rule->type != jbvBinary)
		require_type(rule->name, value, rule->type);
	if (rule->read != NULL)
	{
		rule->read(rule->name, value, options);
		return;
	}
	if (rule->type == jbvNumeric)
	{
		*(int *) field = read_integer(rule, value->val.numeric);
		return;
	}
	if (rule->type == jbvBool)
	{
		*(bool *) field = value->val.boolean;
		return;
	}
	if (value->val.string.len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("bulk action option \"%s\" must not be empty", rule->name),
				 errdetail("It is the empty string."),
				 errhint("Give it a value, or leave the option out.")));
	text = options_string(value);
	if (rule->words == NULL)
		*(char **) field = text;
	else
		*(int *) field =
			options_find_word(psprintf("bulk action option \"%s\"", rule->name), rule->words, text);
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
				rule_find(options_string(&value));

			(void) JsonbIteratorNext(&iterator, &value, true);
			option_assign(rule, &value, options);
		}
	}
}

/* ---- the type ---- */

ActionType
options_effective_type(ActionType type, const ActionOptions *options)
{
	bool both = (type == ACTION_UPDATE && options->on_missing == MISSING_INSERT) ||
				(type == ACTION_INSERT && options->on_conflict == CONFLICT_UPDATE);

	return both ? ACTION_UPSERT : type;
}

void
options_check(ActionType type, const ActionOptions *options)
{
	ActionType effective = options_effective_type(type, options);

	for (int i = 0; i < lengthof(option_rules); i++)
		if ((options->given & (UINT64CONST(1) << i)) && !(option_rules[i].types & (FOR(type) | FOR(effective))))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("bulk action option \"%s\" does not go with action type \"%s\"", option_rules[i].name,
							action_types[type]),
					 errdetail("There is nothing that it could change there."),
					 errhint("Leave it out.")));
	options_check_file(options);
	for (int i = 0; i < options->ncolumns; i++)
		if (options->columns[i].overwrite != OVERWRITE_ALWAYS && effective != ACTION_UPDATE &&
			effective != ACTION_UPSERT)
			options_contradict(psprintf("bulk action option \"columns\": \"%s\": \"overwrite\" does not go with action "
										"type \"%s\"",
										clean_text(options->columns[i].header), action_types[type]),
							   "Rows that are there are not set.", "Leave it out.");
	if (type == ACTION_DELETE && options->on_missing == MISSING_INSERT)
		options_contradict("bulk action option \"on_missing\" must not be \"insert\" for \"bulk_delete\"",
						   "What is to be deleted is not inserted.", "It can be \"report\" or \"error\".");
}
