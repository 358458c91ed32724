/*
 * submit_settings.c
 *		The settings that a submitter's rows are applied under.
 *
 * A row must come out as it would have, had the submitter updated it himself
 * in the transaction that submitted: dates and numbers read in his formats,
 * functions found on his path, policies seeing his claims.  The list,
 * bulk_action.captured_settings, is explicit, because a setting that is
 * captured stays in a table for as long as the action is kept.
 *
 * What is captured is set again by a worker that may have more privileges than
 * the submitter, so only what anybody may set can be on the list; and not what
 * the worker decides by itself: who it is, its timeouts, how it commits, and the
 * properties of its transactions.
 *
 * Requests carry live credentials.  Cookies are never captured; a policy that
 * needs something out of one gets it by a setting of its own.  Of the headers
 * those that hold credentials are cut out; if the value is not the JSON object
 * that it should be, nothing can be cut out of it reliably, and it is dropped
 * altogether.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/jsonb.h"
#include "utils/varlena.h"

#include "api/submit_settings.h"
#include "base/compat.h"

#define HEADERS_SETTING "request.headers"
#define MAX_VALUE_BYTES (64 * 1024)
#define OWN_PREFIX      "bulk_action."

char *bulk_action_captured_settings = NULL;

/* What nobody may put on the list, with the reason. */
static const struct
{
	const char *name;
	const char *reason;
} refused_settings[] = {
	{"role", "The role that submits is recorded with every action, and checked again by the worker."},
	{"session_authorization", "The session user is recorded with every action; workers connect as it."},
	{"request.cookies", "Cookies are live credentials, and would be kept as long as the action. Have a setting "
						"of your own made of what a policy needs."},
	{"lock_timeout", "Workers have a timeout of their own."},
	{"statement_timeout", "Workers have a timeout of their own."},
	{"idle_in_transaction_session_timeout", "Workers have a timeout of their own."},
	{"idle_session_timeout", "Workers have a timeout of their own."},
	{"transaction_timeout", "Workers have a timeout of their own."},
	{"synchronous_commit", "Workers decide by themselves how they commit."},
	{"default_transaction_isolation", "Workers decide by themselves about their transactions."},
	{"default_transaction_read_only", "Workers decide by themselves about their transactions."},
	{"default_transaction_deferrable", "Workers decide by themselves about their transactions."},
	{"client_encoding", "Workers have no client; files are in UTF-8."},
};

static const char *const secret_headers[] = {"authorization", "proxy-authorization", "cookie"};

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

/* NULL if there is no such setting at present. */
static const struct config_generic *
find_setting(const char *name)
{
	int                     n;
	struct config_generic **settings = compat_settings(&n);

	for (int i = 0; i < n; i++)
		if (pg_strcasecmp(settings[i]->name, name) == 0)
			return settings[i];
	return NULL;
}

/* Whether anybody may set it: otherwise what one session may have set another may not. */
static bool
is_for_everybody(const struct config_generic *setting)
{
	return setting->context == PGC_USERSET &&
		   (setting->flags & (GUC_NOT_WHILE_SEC_REST | GUC_NO_RESET_ALL | GUC_DISALLOW_IN_FILE)) == 0;
}

/* name.name, of letters, digits, _ and $, as PostgreSQL takes it. */
static bool
is_custom_name(const char *name)
{
	bool at_start = true;
	bool has_dot = false;

	for (const char *c = name; *c != '\0'; c++)
	{
		if (*c == '.' && !at_start)
			has_dot = at_start = true;
		else if ((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || *c == '_' || IS_HIGHBIT_SET(*c) ||
				 (!at_start && ((*c >= '0' && *c <= '9') || *c == '$')))
			at_start = false;
		else
			return false;
	}
	return has_dot && !at_start;
}

/* NULL if it may be on the list. */
static const char *
why_refused(const char *name)
{
	const struct config_generic *setting;

	for (int i = 0; i < lengthof(refused_settings); i++)
		if (pg_strcasecmp(refused_settings[i].name, name) == 0)
			return refused_settings[i].reason;
	if (pg_strncasecmp(name, OWN_PREFIX, strlen(OWN_PREFIX)) == 0)
		return "It is one of bulk_action itself.";
	setting = find_setting(name);
	if (setting == NULL)
		return is_custom_name(name) ? NULL : "There is no such setting.";
	return is_for_everybody(setting) ? NULL : "It is not one that every role may set at any time.";
}

bool
submit_settings_check(char **newval, void **extra, GucSource source)
{
	char     *copy = pstrdup(*newval);
	List     *names;
	ListCell *cell;
	ListCell *other;

	if (!SplitGUCList(copy, ',', &names))
	{
		GUC_check_errdetail("It is not a list of names with commas between them.");
		return false;
	}
	foreach(cell, names)
	{
		const char *name = lfirst(cell);
		const char *reason = why_refused(name);

		foreach(other, names)
		{
			if (other == cell)
				break;
			if (pg_strcasecmp(lfirst(other), name) == 0)
				reason = "It is on the list twice.";
		}
		if (reason != NULL)
		{
			GUC_check_errdetail("Setting \"%s\" cannot be captured. %s", name, reason);
			return false;
		}
	}
	list_free(names);
	pfree(copy);
	return true;
}

/* Modules define settings when they are loaded, which may be after the list was checked. */
static void
check_capturable(const char *name)
{
	const char *reason = strchr(name, '.') != NULL ? why_refused(name) : NULL;

	if (reason != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("setting \"%s\" cannot be captured", name), errdetail("%s", reason),
				 errhint("Have it taken out of bulk_action.captured_settings.")));
}

static void
check_length(const char *name, const char *value)
{
	if (strlen(value) > MAX_VALUE_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("value of setting \"%s\" is too long to be captured", name),
				 errdetail("It has %zu bytes; %d are allowed.", strlen(value), MAX_VALUE_BYTES),
				 errhint("Set a shorter one, or have the setting taken out of "
						 "bulk_action.captured_settings.")));
}

Datum
submit_settings_capture(void)
{
	List     *names;
	ListCell *cell;
	Datum    *elements;
	int       n = 0;

	if (!SplitGUCList(pstrdup(bulk_action_captured_settings), ',', &names))
		elog(ERROR, "bulk_action.captured_settings is not a list");
	elements = palloc(sizeof(Datum) * 2 * Max(list_length(names), 1));
	foreach(cell, names)
	{
		const char *name = lfirst(cell);
		const char *value = GetConfigOption(name, true, false);

		if (value != NULL && pg_strcasecmp(name, HEADERS_SETTING) == 0)
			value = headers_clean(value);
		if (value == NULL)
			continue;
		check_capturable(name);
		check_length(name, value);
		elements[n++] = CStringGetTextDatum(name);
		elements[n++] = CStringGetTextDatum(value);
	}
	return PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT));
}
