/*
 * options_values.c
 *		Values of options that are more than a word or a number.
 *
 * columns says what each column of the file is for, by its name in the header:
 *
 *		"Mail": "email"			another name in the table
 *		"Notes": null			ignored
 *		"Age": {"column": "age", "overwrite": "only_if_empty"}
 *		"Born": {"column": "birthday", "format": "DD.MM.YYYY"}	see options_formats.c
 *
 * Columns that are not named there have the name of the table's column.  For a
 * file without a header it is an array of names of the table's columns, with
 * null for those that are ignored.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

#include "service/clean_text.h"
#include "stage/options_formats.h"
#include "stage/options_values.h"

static const char *const overwrite_words[] = {"always", "only_if_empty", "never", NULL};
static const char *const rule_words[] = {"column", "overwrite", "format", "decimal", "grouping", "boolean", NULL};

char *
options_string(const JsonbValue *value)
{
	return pnstrdup(value->val.string.val, value->val.string.len);
}

void
options_wrong_value(const char *what, const JsonbValue *value, const char *right)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s must not be %s", what, options_type_name(value->type)),
			 errdetail("It can be %s.", right),
			 errhint("The reference has examples.")));
}

void
options_contradict(const char *message, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", message), errdetail("%s", detail),
			 errhint("%s", hint)));
}

/* The name of a column of the table. */
static char *
read_name(const char *what, const JsonbValue *value)
{
	if (value->type != jbvString)
		options_wrong_value(what, value, "a string");
	if (value->val.string.len == 0 || value->val.string.len >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is not the name of a column", what),
				 errdetail("Names have 1 to %d bytes.", NAMEDATALEN - 1),
				 errhint("Give the name as it is in the table.")));
	return options_string(value);
}

static void
read_rule(ColumnRule *rule, JsonbContainer *object)
{
	JsonbIterator     *iterator = JsonbIteratorInit(object);
	JsonbValue         value;
	JsonbIteratorToken token;
	FormatWords        formats = {0};
	const char        *what = psprintf("bulk action option \"columns\": \"%s\"", clean_text(rule->header));

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		int word;

		if (token != WJB_KEY)
			continue;
		word = options_find_word(psprintf("%s: a key", what), rule_words, options_string(&value));
		(void) JsonbIteratorNext(&iterator, &value, true);
		if (word == 0)
			rule->column = read_name(psprintf("%s: \"column\"", what), &value);
		else if (word == 2)
			formats.date = options_read_pattern(psprintf("%s: \"format\"", what), &value);
		else if (!options_read_format_key(&formats, what, rule_words[word], &value))
		{
			if (value.type != jbvString)
				options_wrong_value(psprintf("%s: \"overwrite\"", what), &value, "a string");
			rule->overwrite = options_find_word(psprintf("%s: \"overwrite\"", what), overwrite_words,
												options_string(&value));
		}
	}
	options_make_format(what, &formats, &rule->format);
}

static void
read_names(const char *name, JsonbContainer *array, ActionOptions *options)
{
	JsonbIterator     *iterator = JsonbIteratorInit(array);
	JsonbIteratorToken token;
	JsonbValue         item;

	options->names = palloc0(sizeof(char *) * Max(JsonContainerSize(array), 1));
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (item.type != jbvNull)
			options->names[options->nnames] =
				read_name(psprintf("element %d of bulk action option \"%s\"", options->nnames + 1, name), &item);
		options->nnames++;
	}
}

void
options_read_columns(const char *name, const JsonbValue *value, ActionOptions *options)
{
	JsonbIterator     *iterator;
	JsonbIteratorToken token;
	JsonbValue         item;

	if (value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data) &&
		!JsonContainerIsScalar(value->val.binary.data))
	{
		read_names(name, value->val.binary.data, options);
		return;
	}
	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		options_wrong_value(psprintf("bulk action option \"%s\"", name), value,
							"an object like {\"name in the file\": \"name in the table\"}, or for a file without a "
							"header an array of names");
	options->columns = palloc0(sizeof(ColumnRule) * Max(JsonContainerSize(value->val.binary.data), 1));
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		ColumnRule *rule;

		if (token != WJB_KEY)
			continue;
		rule = &options->columns[options->ncolumns++];
		rule->header = options_string(&item);
		(void) JsonbIteratorNext(&iterator, &item, true);
		if (item.type == jbvString)
			rule->column =
				read_name(psprintf("bulk action option \"columns\": \"%s\"", clean_text(rule->header)), &item);
		else if (item.type == jbvBinary && JsonContainerIsObject(item.val.binary.data))
		{
			/* without another name it has its own */
			rule->column = pstrdup(rule->header);
			read_rule(rule, item.val.binary.data);
		}
		else if (item.type != jbvNull)
			options_wrong_value(psprintf("bulk action option \"columns\": \"%s\"", clean_text(rule->header)), &item,
								"a string, an object, or null to ignore the column");
	}
}

void
options_read_match(const char *name, const JsonbValue *value, ActionOptions *options)
{
	JsonbIterator     *iterator;
	JsonbIteratorToken token;
	JsonbValue         item;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		options_wrong_value(psprintf("bulk action option \"%s\"", name), value, "an array of names of columns");
	options->match = palloc(sizeof(char *) * Max(JsonContainerSize(value->val.binary.data), 1));
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
		if (token == WJB_ELEM)
			options->match[options->nmatch++] =
				read_name(psprintf("an element of bulk action option \"%s\"", name), &item);
}
