/*
 * entity_type.h
 *		Names of entity types: what is a valid one, and what to say about one
 *		that is not registered.
 */
#ifndef BULK_ACTION_ENTITY_TYPE_H
#define BULK_ACTION_ENTITY_TYPE_H

#include "postgres.h"

/* Errors (22023) unless it has 1 to 63 characters a-z, 0-9, _ and begins with a letter. */
extern void entity_type_check(const char *entity_type);

/* Raises 42704, with a near match as hint.  Inside bookkeeping, SPI connected. */
extern _Noreturn void entity_type_unknown(const char *entity_type);

#endif /* BULK_ACTION_ENTITY_TYPE_H */
