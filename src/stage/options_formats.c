/*
 * options_formats.c
 *		How a file writes its dates, numbers and truth values.
 *
 * For all columns of a type in option formats:
 *
 *		{"date": "DD.MM.YYYY", "timestamp": "DD.MM.YYYY HH24:MI", "decimal": ",",
 *		 "grouping": ".", "boolean": "lenient"}
 *
 * and for a single one, which comes first, in its object of option columns:
 * "format" there stands for what is date and timestamp here.
 */
#include "postgres.h"


#include "service/clean_text.h"
#include "stage/options_formats.h"
#include "stage/options_values.h"

static const char *const boolean_words[] = {"strict", "lenient", NULL};
static const char *const key_words[] = {"date", "timestamp", "decimal", "grouping", "boolean", NULL};

static void
bad_value(const char *what, const char *value, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s must not be \"%s\"", what, clean_text(value)),
			 errdetail("%s", detail),
			 errhint("The reference has examples.")));
}

static char *
read_text(const char *what, const JsonbValue *value)
{
	if (value->type != jbvString)
		options_wrong_value(what, value, "a string");
	return options_string(value);
}

char *
options_read_pattern(const char *what, const JsonbValue *value)
{
	char      *pattern = read_text(what, value);
	CellFormat format;

	if (!cell_format_parse_date(pattern, &format))
		bad_value(what, pattern,
				  "It can be DD, MM and YYYY in the order of \"DD.MM.YYYY\", \"MM.DD.YYYY\" or \"YYYY.MM.DD\", with "
				  "another \".\", \"/\", \"-\" or nothing between them, and \" HH24:MI\", \" HH24:MI:SS\" or "
				  "\" HH24:MI[:SS]\" behind it, also with a \"T\" instead of the blank.");
	return pattern;
}

bool
options_read_format_key(FormatWords *words, const char *what, const char *key, const JsonbValue *value)
{
	what = psprintf("%s: \"%s\"", what, key);
	if (strcmp(key, "decimal") == 0)
	{
		words->decimal = read_text(what, value);
		if (strcmp(words->decimal, ".") != 0 && strcmp(words->decimal, ",") != 0)
			bad_value(what, words->decimal, "It can be \".\" or \",\".");
	}
	else if (strcmp(key, "grouping") == 0)
	{
		words->grouping = read_text(what, value);
		if (strlen(words->grouping) != 1 || strchr(".,' ", words->grouping[0]) == NULL)
			bad_value(what, words->grouping, "It can be \".\", \",\", \"'\" or a blank.");
	}
	else if (strcmp(key, "boolean") == 0)
		words->boolean =
			options_find_word(what, boolean_words, read_text(what, value)) == 0 ? BOOLEAN_STRICT : BOOLEAN_LENIENT;
	else
		return false;
	return true;
}

/* Of numbers; a grouping sign alone goes with the other decimal sign. */
static void
set_number(const char *what, const FormatWords *words, ColumnFormat *format)
{
	const char *decimal = words->decimal != NULL            ? words->decimal :
						  strcmp(words->grouping, ".") == 0 ? "," :
															  ".";

	if (!cell_format_parse_number(decimal, words->grouping, &format->cell))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s: \"decimal\" and \"grouping\" must not be the same", what),
				 errdetail("Both are \"%s\".", decimal),
				 errhint("Give two different signs, or leave \"grouping\" out.")));
	format->text = words->grouping == NULL ?
					   psprintf("decimal sign \"%s\"", decimal) :
					   psprintf("decimal sign \"%s\", grouping sign \"%s\"", decimal, words->grouping);
}

static void
set_date(const char *pattern, ColumnFormat *format)
{
	(void) cell_format_parse_date(pattern, &format->cell);
	format->text = pstrdup(pattern);
}

static void
set_boolean(BooleanWords words, ColumnFormat *format)
{
	format->own_rules = words == BOOLEAN_STRICT;
	format->cell.kind = CELL_FORMAT_BOOLEAN;
	format->text = format->own_rules ? "strict booleans" : "words for true and false";
}

void
options_make_format(const char *what, const FormatWords *words, ColumnFormat *format)
{
	bool number = words->decimal != NULL || words->grouping != NULL;

	if ((words->date != NULL) + number + (words->boolean != BOOLEAN_NOT_SAID) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s has formats of several types", what),
				 errdetail("\"format\" is for dates, \"decimal\" and \"grouping\" are for numbers, \"boolean\" is for "
						   "booleans."),
				 errhint("Give the one that the column of the table has.")));
	if (words->date != NULL)
		set_date(words->date, format);
	else if (number)
		set_number(what, words, format);
	else if (words->boolean != BOOLEAN_NOT_SAID)
		set_boolean(words->boolean, format);
}

void
options_read_formats(const char *name, const JsonbValue *value, ActionOptions *options)
{
	const char        *what = psprintf("bulk action option \"%s\"", name);
	FormatWords        words = {0};
	JsonbIterator     *iterator;
	JsonbIteratorToken token;
	JsonbValue         item;

	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		options_wrong_value(what, value, "an object like {\"date\": \"DD.MM.YYYY\", \"decimal\": \",\"}");
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		const char *key;

		if (token != WJB_KEY)
			continue;
		key = key_words[options_find_word(psprintf("%s: a key", what), key_words,
										  options_string(&item))];
		(void) JsonbIteratorNext(&iterator, &item, true);
		if (strcmp(key, "date") == 0)
		{
			set_date(options_read_pattern(psprintf("%s: \"date\"", what), &item), &options->date_format);
			if (options->date_format.cell.time_sign != '\0')
				bad_value(psprintf("%s: \"date\"", what), options->date_format.text, "A date has no time.");
		}
		else if (strcmp(key, "timestamp") == 0)
			set_date(options_read_pattern(psprintf("%s: \"timestamp\"", what), &item), &options->timestamp_format);
		else
			(void) options_read_format_key(&words, what, key, &item);
	}
	if (words.decimal != NULL || words.grouping != NULL)
		set_number(what, &words, &options->number_format);
	if (words.boolean != BOOLEAN_NOT_SAID)
		set_boolean(words.boolean, &options->boolean_format);
}
