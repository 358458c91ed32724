/*
 * submit_settings.c
 *		The settings that a submitter's rows are applied under.
 *
 * A row must come out as it would have, had the submitter updated it himself
 * in the transaction that submitted: dates and numbers read in his formats,
 * functions found on his path, policies seeing his claims.  The list is
 * explicit, because a setting that is captured stays in a table for as long
 * as the action is kept.
 *
 * Request headers carry live credentials.  Those two headers are cut out; if
 * the value is not the JSON object that it should be, nothing can be cut out
 * of it reliably, and it is dropped altogether.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"

#include "api/submit_settings.h"
#include "base/compat.h"

#define HEADERS_SETTING "request.headers"

/* In this order; those with a dot exist only where someone has set them. */
static const char *const captured_settings[] = {
	"search_path",
	"DateStyle",
	"IntervalStyle",
	"TimeZone",
	"lc_monetary",
	"lc_numeric",
	"request.jwt.claims",
	"request.method",
	"request.path",
	HEADERS_SETTING,
};

static const char *const secret_headers[] = {"authorization", "cookie"};

static bool
is_secret_header(const char *name, int length)
{
	for (int i = 0; i < lengthof(secret_headers); i++)
	{
		if (length == strlen(secret_headers[i]) &&
			pg_strncasecmp(name, secret_headers[i], length) == 0)
			return true;
	}
	return false;
}

/* The headers without the secret ones; NULL if they cannot be told apart. */
static char *
headers_clean(const char *text)
{
	Jsonb             *headers;
	Datum              cleaned;
	JsonbIterator     *iterator;
	JsonbIteratorToken token;
	JsonbValue         value;

	if (text[0] == '\0')
		return pstrdup("");
	if (!jsonb_parse(pstrdup(text), &headers) || !JB_ROOT_IS_OBJECT(headers))
		return NULL;

	cleaned = JsonbPGetDatum(headers);
	iterator = JsonbIteratorInit(&headers->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY && is_secret_header(value.val.string.val, value.val.string.len))
			cleaned = DirectFunctionCall2(
				jsonb_delete, cleaned,
				PointerGetDatum(cstring_to_text_with_len(value.val.string.val,
														 value.val.string.len)));
	}
	return DatumGetCString(DirectFunctionCall1(jsonb_out, cleaned));
}

Datum
submit_settings_capture(void)
{
	Datum elements[2 * lengthof(captured_settings)];
	int   n = 0;

	for (int i = 0; i < lengthof(captured_settings); i++)
	{
		const char *value = GetConfigOption(captured_settings[i], true, false);

		if (value != NULL && strcmp(captured_settings[i], HEADERS_SETTING) == 0)
			value = headers_clean(value);
		if (value == NULL)
			continue;
		elements[n++] = CStringGetTextDatum(captured_settings[i]);
		elements[n++] = CStringGetTextDatum(value);
	}
	return PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT));
}
