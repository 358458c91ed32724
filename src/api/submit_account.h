/*
 * submit_account.h
 *		The account that an action is submitted for.
 */
#ifndef BULK_ACTION_SUBMIT_ACCOUNT_H
#define BULK_ACTION_SUBMIT_ACCOUNT_H

#include "postgres.h"

/*
 * The account given in the call (NULL: none), or that of the session's claims,
 * or else the name of the role; an error if the claims name another one.
 */
extern char *submit_account(char *given, Oid user);

#endif /* BULK_ACTION_SUBMIT_ACCOUNT_H */
