/*
 * submit_settings.h
 *		The settings that a submitter's rows are applied under.
 */
#ifndef BULK_ACTION_SUBMIT_SETTINGS_H
#define BULK_ACTION_SUBMIT_SETTINGS_H

#include "postgres.h"

#include "utils/guc.h"

#define CAPTURED_SETTINGS_DEFAULT \
	"search_path, DateStyle, IntervalStyle, TimeZone, lc_monetary, lc_numeric," \
	" request.jwt.claims, request.method, request.path, request.headers"

/* The setting bulk_action.captured_settings, and what checks it. */
extern char *bulk_action_captured_settings;
extern bool  submit_settings_check(char **newval, void **extra, GucSource source);

/*
 * A text[] of name, value, name, value ..., as they are in force now.  To be
 * called before anything else changes them.
 */
extern Datum submit_settings_capture(void);

#endif /* BULK_ACTION_SUBMIT_SETTINGS_H */
