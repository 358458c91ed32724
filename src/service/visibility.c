/*
 * visibility.c
 *		Who sees an action, and may control it.
 *
 * One rule for views, functions and policies: whoever has the privileges of the
 * role that submitted it, unless the claims of his session name another
 * account, or none; and admins.  What the rule hides must look, in every
 * answer, as if it were not there.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "service/account_claim.h"
#include "service/visibility.h"

char *bulk_action_admin_role = NULL;

bool
visibility_is_admin(Oid user)
{
	Oid role;

	if (superuser_arg(user))
		return true;
	if (bulk_action_admin_role == NULL || bulk_action_admin_role[0] == '\0')
		return false;
	role = get_role_oid(bulk_action_admin_role, true);
	return OidIsValid(role) && has_privs_of_role(user, role);
}

static bool
is_account(const AccountClaim *claim, Datum account_id)
{
	text *account;

	if (claim->kind != ACCOUNT_CLAIMED)
		return claim->kind == ACCOUNT_NOT_CLAIMED;
	account = DatumGetTextPP(account_id);
	return VARSIZE_ANY_EXHDR(account) == claim->length &&
		   memcmp(VARDATA_ANY(account), claim->account, claim->length) == 0;
}

bool
visibility_may_see(Oid user, Oid submitted_role, Datum account_id)
{
	if (is_account(account_claim_now(), account_id) && has_privs_of_role(user, submitted_role))
		return true;
	return visibility_is_admin(user);
}
