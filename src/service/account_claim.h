/*
 * account_claim.h
 *		The account that the claims of the session's request name.
 */
#ifndef BULK_ACTION_ACCOUNT_CLAIM_H
#define BULK_ACTION_ACCOUNT_CLAIM_H

#include "postgres.h"

#include "utils/guc.h"

/* The path of the claim: names, separated by commas; empty: claims name no account. */
extern char *bulk_action_account_claim;

typedef enum AccountClaimKind
{
	ACCOUNT_NOT_CLAIMED, /* no claims, or they are not looked at: the role alone decides */
	ACCOUNT_CLAIMED,
	ACCOUNT_MISSING /* there are claims, but none that names an account: no account is his */
} AccountClaimKind;

typedef struct AccountClaim
{
	AccountClaimKind kind;
	const char      *account; /* with ACCOUNT_CLAIMED */
	size_t           length;
} AccountClaim;

/* As the settings are now; good until they change. */
extern const AccountClaim *account_claim_now(void);

/* Check hook of the setting. */
extern bool account_claim_check_setting(char **value, void **extra, GucSource source);

#endif /* BULK_ACTION_ACCOUNT_CLAIM_H */
