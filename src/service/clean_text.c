/*
 * clean_text.c
 *		Text that others wrote, made fit for a message of ours.
 *
 * What stands in a file, in a URI, in an answer of S3 or in a message of user
 * code gets into lines of the server's log and onto terminals.  There a line
 * break would begin a line that looks like one of the server's own, an escape
 * sequence would be obeyed, and a change of writing direction would show
 * something else than what is there.  Whoever puts such text into a message
 * passes it through here.
 *
 * Tables keep texts as they came: those who read them get values, not lines,
 * and the error report must give back what was in the file.
 *
 * A backslash is left alone, so an escape can be imitated by text that looks
 * like one.  That misleads nobody about where a line begins.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "service/clean_text.h"

static bool
is_control(pg_wchar character)
{
	return character < 0x20 || (character >= 0x7f && character <= 0x9f) ||
		   character == 0x200e || character == 0x200f ||   /* marks of direction */
		   (character >= 0x2028 && character <= 0x202e) || /* line and paragraph, overrides of direction */
		   (character >= 0x2066 && character <= 0x2069) || /* isolates */
		   character == 0xfeff;
}

static void
append_escaped(StringInfo result, pg_wchar character)
{
	switch (character)
	{
		case '\n':
			appendStringInfoString(result, "\\n");
			break;
		case '\r':
			appendStringInfoString(result, "\\r");
			break;
		case '\t':
			appendStringInfoString(result, "\\t");
			break;
		default:
			appendStringInfo(result, character < 0x80 ? "\\x%02X" : "\\u%04X", character);
	}
}

/* Length of the character, 0 if these bytes are none; what it is, if that is known. */
static int
next_character(const char *text, size_t length, pg_wchar *character)
{
	int encoding = GetDatabaseEncoding();
	int bytes;

	*character = (unsigned char) text[0];
	if (!IS_HIGHBIT_SET(text[0]))
		return 1;
	bytes = pg_encoding_mblen(encoding, text);
	if (bytes > length || !pg_verify_mbstr(encoding, text, bytes, true))
		return 0;
	/* In other encodings the bytes say nothing about the character. */
	*character = encoding == PG_UTF8 ? utf8_to_unicode((const unsigned char *) text) : 0xfffd;
	return bytes;
}

const char *
clean_text(const char *text)
{
	StringInfoData result;
	size_t         length;
	size_t         at = 0;
	bool           changed = false;

	if (text == NULL)
		return NULL;
	length = strlen(text);
	initStringInfo(&result);
	while (at < length)
	{
		pg_wchar character;
		int      bytes = next_character(text + at, length - at, &character);

		if (bytes == 0)
			appendStringInfo(&result, "\\x%02X", (unsigned char) text[at]);
		else if (is_control(character))
			append_escaped(&result, character);
		else
		{
			appendBinaryStringInfo(&result, text + at, bytes);
			at += bytes;
			continue;
		}
		changed = true;
		at += Max(bytes, 1);
	}
	if (changed)
		return result.data;
	pfree(result.data);
	return text;
}
