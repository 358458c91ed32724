/*
 * options.h
 *		The options of an action: the JSON object given to submit.
 */
#ifndef BULK_ACTION_OPTIONS_H
#define BULK_ACTION_OPTIONS_H

#include "postgres.h"

#include "utils/jsonb.h"

typedef struct ActionOptions
{
	char *server; /* name of a server of bulk_action_s3; NULL: find it by the bucket */
} ActionOptions;

/*
 * Reads the options; errors (22023) for what is not an object, for keys that
 * do not exist and for values of the wrong type.  Strings are palloc'd.
 */
extern void options_parse(Jsonb *json, ActionOptions *options);

#endif /* BULK_ACTION_OPTIONS_H */
