/*
 * option_rules.h
 *		What the validators of our foreign-data wrappers have in common.
 *
 * Values of a user mapping are secret and stay out of messages.
 */
#ifndef BULK_ACTION_OPTION_RULES_H
#define BULK_ACTION_OPTION_RULES_H

#include "postgres.h"

#include "nodes/pg_list.h"

typedef struct OptionRule
{
	const char *name;
	Oid         catalog; /* of what it is an option */
	void (*check)(const char *name, const char *value);
} OptionRule;

/*
 * Checks each option by its rule; an error for one that has none among those of
 * the catalog, with the hint `elsewhere` if no name is near.
 */
extern void option_rules_apply(const OptionRule *rules, int nrules, List *options, Oid catalog,
							   const char *elsewhere);

/* One error for every bad value. */
extern void option_refuse(const char *name, const char *detail, const char *hint);

extern void option_check_text(const char *name, const char *value);
extern void option_check_ca_file(const char *name, const char *value);
extern void option_check_boolean(const char *name, const char *value);

/* The value of an option; NULL if it is not set. */
extern const char *option_value(List *options, const char *name);
extern bool        option_is_true(List *options, const char *name);

#endif /* BULK_ACTION_OPTION_RULES_H */
