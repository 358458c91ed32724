/*
 * clean_text.h
 *		Text that others wrote, made fit for a message of ours.
 */
#ifndef BULK_ACTION_CLEAN_TEXT_H
#define BULK_ACTION_CLEAN_TEXT_H

#include "postgres.h"

/*
 * The text with everything that does not print as an escape; the same pointer
 * if there is nothing of the kind.  NULL stays NULL.
 */
extern const char *clean_text(const char *text);

#endif /* BULK_ACTION_CLEAN_TEXT_H */
