/*
 * submit_account.c
 *		The account that an action is submitted for.
 *
 * Where the session's claims name one there is no choice, for an admin neither:
 * he sees the actions of all accounts, but his own are of the account that his
 * token says.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "api/submit_account.h"
#include "service/account_claim.h"
#include "service/clean_text.h"

#define MAX_ACCOUNT_BYTES 255 /* as of the argument */

static char *
claimed_account(const AccountClaim *claim, char *given)
{
	if (given != NULL && strcmp(given, claim->account) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for account \"%s\"", clean_text(given)),
				 errdetail("The claims of this session name another account (bulk_action.account_claim is \"%s\").",
						   bulk_action_account_claim),
				 errhint("Leave account_id out to submit for the account of your claims.")));
	if (claim->length > MAX_ACCOUNT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("the account of the session's claims is too long"),
				 errdetail("It has %zu bytes; %d are allowed.", claim->length, MAX_ACCOUNT_BYTES),
				 errhint("Use a token with a shorter claim.")));
	return pstrdup(claim->account);
}

char *
submit_account(char *given, Oid user)
{
	const AccountClaim *claim = account_claim_now();

	switch (claim->kind)
	{
		case ACCOUNT_CLAIMED:
			return claimed_account(claim, given);
		case ACCOUNT_MISSING:
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("the claims of this session name no account"),
					 errdetail("In request.jwt.claims there is no string or number at \"%s\", which "
							   "bulk_action.account_claim says.",
							   bulk_action_account_claim),
					 errhint("Call with a token that has this claim.")));
			break;
		case ACCOUNT_NOT_CLAIMED:
			break;
	}
	return given != NULL ? given : GetUserNameFromId(user, false);
}
