/*
 * options_file.c
 *		Options that say how the file is written.
 *
 * They are checked here as far as that goes without the file: that characters
 * are single bytes and differ, and that the encoding is one that the server can
 * convert.
 */
#include "postgres.h"

#include "utils/jsonb.h"

#include "service/clean_text.h"
#include "stage/options_file.h"
#include "stage/options_values.h"

static const char *const ragged_words[] = {"error", "pad", NULL};

/* A byte of ASCII that can be printed; a tab where it is allowed. */
static char
read_character(const char *name, const JsonbValue *value, bool may_be_tab, const char *right)
{
	char c;

	c = value->val.string.len == 1 ? value->val.string.val[0] : '\0';
	if ((c < 0x20 || c > 0x7E) && !(c == '\t' && may_be_tab))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("bulk action option \"%s\" must not be \"%s\"", name,
						clean_text(options_string(value))),
				 errdetail("It can be %s.", right),
				 errhint("Give another one, or leave the option out.")));
	return c;
}

void
options_read_delimiter(const char *name, const JsonbValue *value, ActionOptions *options)
{
	options->file.delimiter = read_character(name, value, true, "one printable character of ASCII, or a tab");
}

void
options_read_quote(const char *name, const JsonbValue *value, ActionOptions *options)
{
	options->file.no_quote = strcmp(options_string(value), "none") == 0;
	if (!options->file.no_quote)
		options->file.quote = read_character(name, value, false, "one printable character of ASCII, or \"none\"");
}

void
options_read_comment(const char *name, const JsonbValue *value, ActionOptions *options)
{
	options->file.comment = read_character(name, value, false, "one printable character of ASCII");
}

void
options_read_header(const char *name, const JsonbValue *value, ActionOptions *options)
{
	options->file.no_header = !value->val.boolean;
}

void
options_read_ragged(const char *name, const JsonbValue *value, ActionOptions *options)
{
	options->file.pad = options_find_word(psprintf("bulk action option \"%s\"", name), ragged_words,
										  options_string(value)) == 1;
}

void
options_read_encoding(const char *name, const JsonbValue *value, ActionOptions *options)
{
	char *encoding;

	encoding = options_string(value);
	if (!decoder_knows_encoding(encoding))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("bulk action option \"%s\" must not be \"%s\"", name, clean_text(encoding)),
				 errdetail("The server knows no encoding of that name."),
				 errhint("Names are like \"UTF-8\", \"UTF-16\", \"WINDOWS-1252\" or \"ISO-8859-15\"; "
						 "iconv -l lists them.")));
	options->file.encoding = encoding;
}

void
options_check_file(const ActionOptions *options)
{
	CsvDialect reader;

	dialect_reader(&options->file, options->file.delimiter != '\0' ? options->file.delimiter : ',', &reader);
	if (!csv_dialect_is_valid(&reader))
		options_contradict("bulk action options \"delimiter\", \"quote\" and \"comment\" must differ from each other",
						   "Without them the delimiter can be a comma, and the quote is \".", "Change one of them.");
	if (options->file.no_header && options->nnames == 0)
		options_contradict("bulk action option \"header\" must not be false without option \"columns\"",
						   "Nothing else says which columns the file has.",
						   "Give \"columns\" as an array of names of columns, in the order of the file; null for one "
						   "that is ignored.");
	if (options->file.no_header && options->fold_header)
		options_contradict("bulk action option \"fold_header\" must not be true with \"header\": false",
						   "The file has no header.", "Leave it out.");
	if (!options->file.no_header && options->nnames > 0)
		options_contradict("bulk action option \"columns\" must not be an array for a file with a header",
						   "The header names the columns.",
						   "Give an object like {\"name in the file\": \"name in the table\"}, or \"header\": false.");
}
