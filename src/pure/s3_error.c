/*
 * s3_error.c
 *		Reads the XML body of an S3 error answer.
 *
 * An answer looks like this, sometimes on one line, sometimes inside another
 * element, with more elements than these:
 *
 *	<?xml version="1.0" encoding="UTF-8"?>
 *	<Error><Code>NoSuchKey</Code><Message>...</Message>
 *	<RequestId>4442587FB7D0A2F9</RequestId></Error>
 *
 * The first element of each name wins.  The text of an element is all up to
 * its own end tag; if that is missing, it is not taken.
 */
#include "pure/s3_error.h"

#include <stdint.h>
#include <string.h>

/* The longest entity that is looked at, `&#x10FFFF;`. */
#define ENTITY_MAX 10

/* memmem() for C11 without extensions. */
static const char *
find(const char *text, const char *end, const char *what)
{
	size_t length = strlen(what);

	while ((size_t) (end - text) >= length)
	{
		const char *hit = memchr(text, what[0],
								 (size_t) (end - text) - length + 1);

		if (hit == NULL)
			return NULL;
		if (memcmp(hit, what, length) == 0)
			return hit;
		text = hit + 1;
	}
	return NULL;
}

/* Writes a code point as UTF-8 and returns its length, 0 if it is none. */
static size_t
encode_utf8(uint32_t c, char out[4])
{
	if (c == 0 || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
		return 0;
	if (c < 0x80)
	{
		out[0] = (char) c;
		return 1;
	}
	if (c < 0x800)
	{
		out[0] = (char) (0xC0 | (c >> 6));
		out[1] = (char) (0x80 | (c & 0x3F));
		return 2;
	}
	if (c < 0x10000)
	{
		out[0] = (char) (0xE0 | (c >> 12));
		out[1] = (char) (0x80 | ((c >> 6) & 0x3F));
		out[2] = (char) (0x80 | (c & 0x3F));
		return 3;
	}
	out[0] = (char) (0xF0 | (c >> 18));
	out[1] = (char) (0x80 | ((c >> 12) & 0x3F));
	out[2] = (char) (0x80 | ((c >> 6) & 0x3F));
	out[3] = (char) (0x80 | (c & 0x3F));
	return 4;
}

/* The number in `#38` or `#x26`, 0 if it is not one. */
static uint32_t
character_reference(const char *text, size_t length)
{
	uint32_t base = 10;
	uint32_t value = 0;
	size_t   i = 1;

	if (length > 2 && (text[1] == 'x' || text[1] == 'X'))
	{
		base = 16;
		i = 2;
	}
	for (; i < length; i++)
	{
		char     c = text[i];
		uint32_t digit;

		if (c >= '0' && c <= '9')
			digit = (uint32_t) (c - '0');
		else if (base == 16 && c >= 'a' && c <= 'f')
			digit = (uint32_t) (c - 'a') + 10;
		else if (base == 16 && c >= 'A' && c <= 'F')
			digit = (uint32_t) (c - 'A') + 10;
		else
			return 0;
		value = value * base + digit; /* at most ENTITY_MAX digits */
		if (value > 0x10FFFF)
			return 0;
	}
	return value;
}

/*
 * Decodes the entity at `text` (an ampersand).  Returns its length in the
 * input, or 0 if this is no entity and the ampersand stands for itself.
 */
static size_t
decode_entity(const char *text, const char *end, char out[4], size_t *out_length)
{
	static const struct
	{
		const char *name;
		char        value;
	} named[] = {
		{"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}};
	size_t      available = (size_t) (end - text);
	const char *semicolon;
	size_t      length;

	if (available > ENTITY_MAX)
		available = ENTITY_MAX;
	semicolon = memchr(text, ';', available);
	if (semicolon == NULL)
		return 0;
	length = (size_t) (semicolon - text) - 1;

	for (size_t i = 0; i < sizeof(named) / sizeof(named[0]); i++)
	{
		if (strlen(named[i].name) == length &&
			memcmp(named[i].name, text + 1, length) == 0)
		{
			out[0] = named[i].value;
			*out_length = 1;
			return length + 2;
		}
	}
	if (length < 2 || text[1] != '#')
		return 0;
	*out_length = encode_utf8(character_reference(text + 1, length), out);
	return *out_length > 0 ? length + 2 : 0;
}

/* Takes back the bytes of a multibyte character that was cut off at `n`. */
static size_t
trim_partial_character(const char *text, size_t n)
{
	size_t        start = n;
	unsigned char lead;
	size_t        need;

	while (start > 0 && n - start < 4 &&
		   ((unsigned char) text[start - 1] & 0xC0) == 0x80)
		start--;
	if (start == 0)
		return n;
	lead = (unsigned char) text[start - 1];
	if (lead < 0xC0)
		return n;
	need = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 :
											 2;
	return n - (start - 1) < need ? start - 1 : n;
}

/*
 * Whether the character at `text` is a control character or a blank: those of
 * ASCII, and U+0080 to U+009F, which are C2 80 to C2 9F in UTF-8.
 */
static bool
is_blank(const char *text, size_t length)
{
	unsigned char c = (unsigned char) text[0];

	if (c <= ' ' || c == 0x7F)
		return true;
	return length == 2 && c == 0xC2 && (unsigned char) text[1] < 0xA0;
}

/* Copies the text of an element: decoded, blanks squeezed, bounded. */
static void
copy_text(const char *text, const char *end, char *out, size_t out_size)
{
	size_t n = 0;
	bool   pending_space = false;

	while (text < end)
	{
		char   piece[4];
		size_t piece_length = 1;
		size_t consumed = 1;

		piece[0] = *text;
		if (*text == '&')
		{
			size_t entity = decode_entity(text, end, piece, &piece_length);

			if (entity > 0)
				consumed = entity;
			else
				piece_length = 1;
		}
		else if ((unsigned char) *text == 0xC2 && end - text > 1 &&
				 ((unsigned char) text[1] & 0xC0) == 0x80)
		{
			piece[1] = text[1];
			piece_length = consumed = 2;
		}
		text += consumed;

		if (is_blank(piece, piece_length))
		{
			pending_space = n > 0;
			continue;
		}
		if (n + (pending_space ? 1 : 0) + piece_length >= out_size)
		{
			n = trim_partial_character(out, n);
			break;
		}
		if (pending_space)
			out[n++] = ' ';
		pending_space = false;
		memcpy(out + n, piece, piece_length);
		n += piece_length;
	}
	out[n] = '\0';
}

/* Fills `out` with the text of the first element named by its two tags. */
static void
take_element(const char *body, const char *end,
			 const char *open_tag, const char *close_tag,
			 char *out, size_t out_size)
{
	const char *start = find(body, end, open_tag);
	const char *stop;

	out[0] = '\0';
	if (start == NULL)
		return;
	start += strlen(open_tag);
	stop = find(start, end, close_tag);
	if (stop != NULL)
		copy_text(start, stop, out, out_size);
}

bool
s3_error_parse(const char *body, size_t length, S3Error *error)
{
	memset(error, 0, sizeof(*error));
	if (body == NULL || length == 0)
		return false;
	take_element(body, body + length, "<Code>", "</Code>",
				 error->code, sizeof(error->code));
	take_element(body, body + length, "<Message>", "</Message>",
				 error->message, sizeof(error->message));
	take_element(body, body + length, "<RequestId>", "</RequestId>",
				 error->request_id, sizeof(error->request_id));
	return error->code[0] != '\0';
}
