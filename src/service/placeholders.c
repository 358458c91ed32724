/*
 * placeholders.c
 *		Settings that exist only because somebody has set them.
 *
 * PostgreSQL makes a placeholder for a setting with a dot in its name that no
 * module has defined, and has no way to take it away again: reset, it is the
 * empty string, where in a new session current_setting('app.tenant', true) is
 * NULL.  Policies tell one from the other.  So what one action has left behind
 * would decide about the rows of the next, and a session that has a placeholder
 * which the next action does not bring along cannot be used for it.
 */
#include "postgres.h"

#include "utils/guc_tables.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "service/placeholders.h"

static char **noted = NULL; /* names, in TopMemoryContext */
static int    nnoted = 0;

static bool
is_placeholder(const struct config_generic *setting)
{
	return (setting->flags & GUC_CUSTOM_PLACEHOLDER) != 0;
}

static bool
is_among(const char *name, char *const *names, int n)
{
	for (int i = 0; i < n; i++)
		if (pg_strcasecmp(names[i], name) == 0)
			return true;
	return false;
}

void
placeholders_note(void)
{
	MemoryContext           old = MemoryContextSwitchTo(TopMemoryContext);
	int                     n;
	struct config_generic **settings = compat_settings(&n);

	noted = palloc(sizeof(char *) * n);
	for (int i = 0; i < n; i++)
		if (is_placeholder(settings[i]))
			noted[nnoted++] = pstrdup(settings[i]->name);
	MemoryContextSwitchTo(old);
}

bool
placeholders_are_left(char *const *names, int n)
{
	int                     count;
	struct config_generic **settings = compat_settings(&count);

	for (int i = 0; i < count; i++)
		if (is_placeholder(settings[i]) && !is_among(settings[i]->name, noted, nnoted) &&
			!is_among(settings[i]->name, names, n))
			return true;
	return false;
}
