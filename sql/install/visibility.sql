-- Who sees an action: one rule, in C, for all views, functions and policies. They are open to all,
-- because functions in views and policies run as the caller.
CREATE FUNCTION bulk_action_internal.may_see(submitted_role oid, account_id text)
RETURNS boolean
LANGUAGE c STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'bulk_action_may_see';
COMMENT ON FUNCTION bulk_action_internal.may_see(oid, text) IS 'whether the caller sees an action of this role and account';

CREATE FUNCTION bulk_action_internal.may_see(caller oid, submitted_role oid, account_id text)
RETURNS boolean
LANGUAGE c STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'bulk_action_may_be_seen_by';
COMMENT ON FUNCTION bulk_action_internal.may_see(oid, oid, text) IS
	'the same of another role than the present one, with the claims of this session';

CREATE FUNCTION bulk_action_internal.is_admin()
RETURNS boolean
LANGUAGE c STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'bulk_action_is_admin';
COMMENT ON FUNCTION bulk_action_internal.is_admin() IS 'whether the caller is a superuser or has the role bulk_action.admin_role';
