/*
 * placeholders.h
 *		Settings that exist only because somebody has set them.
 */
#ifndef BULK_ACTION_PLACEHOLDERS_H
#define BULK_ACTION_PLACEHOLDERS_H

#include "postgres.h"

/* Those that the session began with (ALTER ROLE, ALTER DATABASE, the configuration file); once per process. */
extern void placeholders_note(void);

/* Whether the session has one that it did not begin with and that is not among these names. */
extern bool placeholders_are_left(char *const *names, int n);

#endif /* BULK_ACTION_PLACEHOLDERS_H */
