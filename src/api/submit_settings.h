/*
 * submit_settings.h
 *		The settings that a submitter's rows are applied under.
 */
#ifndef BULK_ACTION_SUBMIT_SETTINGS_H
#define BULK_ACTION_SUBMIT_SETTINGS_H

#include "postgres.h"

/*
 * A text[] of name, value, name, value ..., as they are in force now.  To be
 * called before anything else changes them.
 */
extern Datum submit_settings_capture(void);

#endif /* BULK_ACTION_SUBMIT_SETTINGS_H */
