/*
 * account_claim.c
 *		The account that the claims of the session's request name.
 *
 * A gateway like PostgREST verifies a token and hands its claims down in the
 * setting request.jwt.claims; bulk_action.account_claim says which of them
 * names the account.  Anybody with a connection of his own can set
 * request.jwt.claims, or empty it: claims are worth what the one who connects
 * is worth, and bound only what comes through him.  What bounds a role that
 * connects by itself is the role.
 *
 * Views ask once per row, so what was found is kept for as long as neither the
 * claims nor the setting change.  They are compared as text: a custom setting
 * has no hook that would tell of a change.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/varlena.h"

#include "base/compat.h"
#include "service/account_claim.h"

#define CLAIMS_SETTING "request.jwt.claims"

char *bulk_action_account_claim = NULL;

static AccountClaim kept = {.kind = ACCOUNT_NOT_CLAIMED};
static char        *kept_for_claims = NULL;
static char        *kept_for_path = NULL;

bool
account_claim_check_setting(char **value, void **extra, GucSource source)
{
	char     *path;
	List     *names;
	ListCell *cell;
	bool      valid;

	if (*value == NULL || (*value)[0] == '\0')
		return true;
	path = pstrdup(*value);
	valid = SplitGUCList(path, ',', &names) && names != NIL;
	foreach(cell, names)
		valid &= ((char *) lfirst(cell))[0] != '\0';
	list_free(names);
	pfree(path);
	if (!valid)
		GUC_check_errdetail("It must be the name of a claim, or names separated by commas that lead to one; a name "
							"with a comma or a blank in it stands in double quotes.");
	return valid;
}

/* The member of this name; NULL if there is none, or that is no object. */
static JsonbValue *
member_of(JsonbContainer *object, const char *name)
{
	return JsonContainerIsObject(object) ? getKeyJsonValueFromContainer(object, name, strlen(name), NULL) : NULL;
}

/* What the path leads to, as text; NULL if that is not a string or a number. */
static char *
find_account(const char *claims, const char *path)
{
	Jsonb          *json;
	JsonbContainer *object;
	JsonbValue     *value = NULL;
	List           *names;
	ListCell       *cell;

	if (!jsonb_parse(pstrdup(claims), &json) || !SplitGUCList(pstrdup(path), ',', &names))
		return NULL;
	object = &json->root;
	foreach(cell, names)
	{
		if (value != NULL)
		{
			if (value->type != jbvBinary)
				return NULL;
			object = value->val.binary.data;
		}
		value = member_of(object, lfirst(cell));
		if (value == NULL)
			return NULL;
	}
	if (value->type == jbvString)
		return pnstrdup(value->val.string.val, value->val.string.len);
	if (value->type == jbvNumeric)
		return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
	return NULL;
}

static void
keep(const char *claims, const char *path)
{
	MemoryContext scratch =
		AllocSetContextCreate(CurrentMemoryContext, "bulk_action claims", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	char         *account = find_account(claims, path);
	char         *new_claims = MemoryContextStrdup(TopMemoryContext, claims);
	char         *new_path = MemoryContextStrdup(TopMemoryContext, path);
	char         *new_account = MemoryContextStrdup(TopMemoryContext, account != NULL ? account : "");

	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	if (kept_for_claims != NULL)
	{
		pfree(kept_for_claims);
		pfree(kept_for_path);
		pfree(unconstify(char *, kept.account));
	}
	kept_for_claims = new_claims;
	kept_for_path = new_path;
	kept.kind = new_account[0] != '\0' ? ACCOUNT_CLAIMED : ACCOUNT_MISSING;
	kept.account = new_account;
	kept.length = strlen(new_account);
}

const AccountClaim *
account_claim_now(void)
{
	static const AccountClaim none = {.kind = ACCOUNT_NOT_CLAIMED};
	const char               *claims;

	if (bulk_action_account_claim == NULL || bulk_action_account_claim[0] == '\0')
		return &none;
	claims = GetConfigOption(CLAIMS_SETTING, true, false);
	if (claims == NULL || claims[0] == '\0')
		return &none;
	if (kept_for_claims == NULL || strcmp(claims, kept_for_claims) != 0 ||
		strcmp(bulk_action_account_claim, kept_for_path) != 0)
		keep(claims, bulk_action_account_claim);
	return &kept;
}
