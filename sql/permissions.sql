-- bulk_action_grant and bulk_action_revoke: who may run what on an entity
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS bulk_action;
RESET client_min_messages;
SET search_path = public, bulk_action;
CREATE ROLE regress_ba_owner;
CREATE ROLE regress_ba_heir;
CREATE ROLE regress_ba_other;
CREATE ROLE "Regress ba, ""odd""";
CREATE ROLE regress_ba_group;
CREATE ROLE regress_ba_member LOGIN;
CREATE ROLE regress_ba_idle LOGIN NOINHERIT;
GRANT regress_ba_owner TO regress_ba_heir;
GRANT regress_ba_group TO regress_ba_member, regress_ba_idle;
GRANT USAGE ON SCHEMA bulk_action TO regress_ba_owner, regress_ba_heir, regress_ba_other, regress_ba_member, regress_ba_idle;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bulk_action TO regress_ba_owner, regress_ba_heir, regress_ba_other, regress_ba_member, regress_ba_idle;
CREATE TABLE ba_contacts (id bigint PRIMARY KEY, name text);
CREATE TABLE ba_others (id bigint PRIMARY KEY, name text);
ALTER TABLE ba_contacts OWNER TO regress_ba_owner;
ALTER TABLE ba_others OWNER TO regress_ba_other;
GRANT SELECT, UPDATE ON ba_contacts, ba_others TO PUBLIC;
CREATE SERVER regress_ba_imports FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (
	endpoint 'http://127.0.0.1:1', allow_http 'true', allow_private_address 'true', bucket 'imports');
CREATE USER MAPPING FOR PUBLIC SERVER regress_ba_imports;
GRANT USAGE ON FOREIGN SERVER regress_ba_imports TO PUBLIC;
SET ROLE regress_ba_owner;
SELECT bulk_action_register_entity('contact', 'ba_contacts', ARRAY['id']);
RESET ROLE;

CREATE PROCEDURE try_submit(login text) LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	PERFORM set_config('session_authorization', login, true);
	PERFORM bulk_action.bulk_action_submit('s3://imports/contacts.csv');
	RAISE EXCEPTION 'submitted' USING ERRCODE = 'RB000';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RAISE NOTICE '% % | % | %', SQLSTATE, SQLERRM, detail, hint;
END
$$;
CREATE VIEW permissions AS SELECT entity_type, grantee, action_type, replace(granted_by, session_user, 'a superuser') AS granted_by FROM bulk_action_permissions
	ORDER BY entity_type, grantee, action_type;

-- nobody at first but the owner and superusers
CALL try_submit('regress_ba_member');
SELECT * FROM permissions;

-- only for the owner, or who has his privileges, and superusers
SET ROLE regress_ba_other;
SELECT bulk_action_grant('contact', 'regress_ba_other');
\echo :SQLSTATE
SELECT bulk_action_revoke('contact', 'regress_ba_other');
\echo :SQLSTATE
SET ROLE regress_ba_heir;
SELECT bulk_action_grant('contact', 'regress_ba_group', ARRAY['bulk_update']);
RESET ROLE;
SELECT bulk_action_grant('contact', 'Regress ba, "odd"');
SELECT * FROM permissions;
-- again: as it is
SELECT bulk_action_grant('contact', 'regress_ba_group');
SELECT * FROM permissions;

-- privileges of the grantee, not membership alone
CALL try_submit('regress_ba_member');
CALL try_submit('regress_ba_idle');

-- who sees what
SELECT grantee FROM bulk_action_permissions ORDER BY 1;
CREATE FUNCTION seen_by(role text) RETURNS TABLE (grantee text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('role', role, true);
	RETURN QUERY SELECT p.grantee FROM bulk_action.bulk_action_permissions AS p ORDER BY 1;
	PERFORM set_config('role', 'none', true);
END
$$;
SELECT * FROM seen_by('regress_ba_owner');
SELECT * FROM seen_by('regress_ba_heir');
SELECT * FROM seen_by('regress_ba_member');
SELECT * FROM seen_by('regress_ba_idle');
SELECT * FROM seen_by('regress_ba_other');
SELECT bulk_action_grant('contact', 'public');
SELECT * FROM seen_by('regress_ba_other');
CALL try_submit('regress_ba_idle');
SET bulk_action.admin_role = 'regress_ba_other';
SELECT * FROM seen_by('regress_ba_other');
RESET bulk_action.admin_role;

-- revoke: exactly what is named
SELECT bulk_action_revoke('contact', 'public');
CALL try_submit('regress_ba_idle');
CALL try_submit('regress_ba_member');
SELECT bulk_action_revoke('contact', 'regress_ba_group', ARRAY['bulk_update']);
CALL try_submit('regress_ba_member');
SELECT bulk_action_revoke('contact', 'regress_ba_group');
SELECT * FROM permissions;

-- a name follows the role
ALTER ROLE "Regress ba, ""odd""" RENAME TO regress_ba_renamed;
SELECT * FROM permissions;
-- a role that is gone has nothing, nor has one that gets its oid
DROP ROLE regress_ba_renamed;
SELECT * FROM permissions;
SELECT bulk_action_grant('contact', 'regress_ba_group');
SELECT count(*) FROM bulk_action_internal.permissions;

-- the permission is for this table
SELECT bulk_action_register_entity('contact', 'ba_contacts', ARRAY['id'], ARRAY['name']);
SELECT * FROM permissions;
SELECT bulk_action_register_entity('contact', 'ba_others', ARRAY['id']);
SELECT * FROM permissions;
CALL try_submit('regress_ba_member');
SELECT bulk_action_grant('contact', 'regress_ba_group');
SELECT bulk_action_unregister_entity('contact');
SELECT count(*) FROM bulk_action_internal.permissions;
SELECT bulk_action_register_entity('contact', 'ba_others', ARRAY['id']);
SELECT * FROM permissions;

-- arguments
SELECT bulk_action_grant(NULL, 'public');
\echo :SQLSTATE
SELECT bulk_action_grant('contact', NULL);
SELECT bulk_action_grant('contct', 'public');
\echo :SQLSTATE
SELECT bulk_action_grant('contact', 'PUBLIC');
\echo :SQLSTATE
SELECT bulk_action_grant('contact', 'regress_ba_nobody');
SELECT bulk_action_grant('contact', 'public', '{}');
\echo :SQLSTATE
SELECT bulk_action_grant('contact', 'public', ARRAY[NULL]::text[]);
SELECT bulk_action_grant('contact', 'public', ARRAY['bulk_update', 'bulk_magic']);
\echo :SQLSTATE
SELECT bulk_action_revoke('contact', 'public', ARRAY['bulk_magic']);
BEGIN READ ONLY;
SELECT bulk_action_grant('contact', 'public');
\echo :SQLSTATE
ROLLBACK;
SELECT * FROM permissions;
DROP TABLE ba_others;
SELECT bulk_action_grant('contact', 'public');
\echo :SQLSTATE

-- settings of tenancy
SET bulk_action.account_claim = 'app_metadata,tenant';
SET bulk_action.account_claim = '"https://example.com/tenant, or so"';
SET bulk_action.account_claim = 'a,,b';
SET bulk_action.account_claim = '"a';
SET bulk_action.account_claim = 'a,""';
RESET bulk_action.account_claim;
SET ROLE regress_ba_member;
SET bulk_action.account_claim = '';
\echo :SQLSTATE
SET bulk_action.admin_role = 'regress_ba_member';
\echo :SQLSTATE
RESET ROLE;

DROP VIEW permissions;
DROP PROCEDURE try_submit;
DROP FUNCTION seen_by;
DROP TABLE ba_contacts;
SET client_min_messages = warning;
DROP EXTENSION bulk_action CASCADE;
DROP OWNED BY regress_ba_owner, regress_ba_heir, regress_ba_other, regress_ba_group, regress_ba_member, regress_ba_idle;
DROP ROLE regress_ba_owner, regress_ba_heir, regress_ba_other, regress_ba_group, regress_ba_member, regress_ba_idle;
