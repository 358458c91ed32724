-- Who may submit, and what others see of it
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS bulk_action;
RESET client_min_messages;
SET search_path = public, bulk_action;
CREATE ROLE regress_ba_owner;
CREATE ROLE regress_ba_web;
CREATE ROLE regress_ba_tenant;
CREATE ROLE regress_ba_authenticator LOGIN NOINHERIT;
GRANT regress_ba_web, regress_ba_tenant TO regress_ba_authenticator;
CREATE SCHEMA ba_crm AUTHORIZATION regress_ba_owner;
SET ROLE regress_ba_owner;
CREATE TABLE ba_crm.contacts (id bigint, tenant integer, email text, name text, PRIMARY KEY (id, tenant));
RESET ROLE;
SELECT bulk_action_register_entity('contact', 'ba_crm.contacts', ARRAY['tenant', 'id'], ARRAY['email', 'name']);
CREATE SERVER regress_ba_imports FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (
	endpoint 'http://127.0.0.1:1', allow_http 'true', allow_private_address 'true', bucket 'imports');
CREATE SERVER regress_ba_secret FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (bucket 'secret');

-- the schema, then the function
SET SESSION AUTHORIZATION regress_ba_authenticator;
SET ROLE regress_ba_web;
SELECT bulk_action.bulk_action_submit('s3://imports/contacts.csv');
\echo :SQLSTATE
RESET SESSION AUTHORIZATION;
GRANT USAGE ON SCHEMA bulk_action TO regress_ba_web, regress_ba_tenant, regress_ba_authenticator;
SET SESSION AUTHORIZATION regress_ba_authenticator;
SET ROLE regress_ba_web;
SELECT bulk_action_submit('s3://imports/contacts.csv');
\echo :SQLSTATE
RESET SESSION AUTHORIZATION;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bulk_action TO regress_ba_web, regress_ba_tenant, regress_ba_authenticator;

-- the table, privilege by privilege
CREATE FUNCTION try_submit() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	detail text;
	hint text;
BEGIN
	PERFORM bulk_action_submit('s3://imports/contacts.csv');
	RAISE NOTICE 'submitted';
	RAISE EXCEPTION USING ERRCODE = 'RB000';
EXCEPTION
	WHEN SQLSTATE 'RB000' THEN
		NULL;
	WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
			detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		RAISE NOTICE '% % | % | %', state, message, detail, hint;
END
$$;
CREATE PROCEDURE grant_and_try(statement text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	SET LOCAL ROLE regress_ba_web;
	PERFORM try_submit();
	RESET ROLE;
END
$$;
CALL grant_and_try('SELECT');
CALL grant_and_try($$SELECT bulk_action_grant('contact', 'regress_ba_web')$$);
CALL grant_and_try('GRANT USAGE ON SCHEMA ba_crm TO regress_ba_web');
CALL grant_and_try('GRANT SELECT (id) ON ba_crm.contacts TO regress_ba_web');
CALL grant_and_try('GRANT SELECT (tenant) ON ba_crm.contacts TO regress_ba_web');
CALL grant_and_try('GRANT UPDATE (id) ON ba_crm.contacts TO regress_ba_web');
CALL grant_and_try('GRANT UPDATE (name) ON ba_crm.contacts TO regress_ba_web');
CALL grant_and_try('GRANT USAGE ON FOREIGN SERVER regress_ba_imports TO regress_ba_web');
CALL grant_and_try('CREATE USER MAPPING FOR PUBLIC SERVER regress_ba_imports');
CALL grant_and_try('REVOKE ALL ON ba_crm.contacts FROM regress_ba_web');
CALL grant_and_try('GRANT SELECT, UPDATE ON ba_crm.contacts TO regress_ba_web');

-- a server that exists, but not for this role
SET SESSION AUTHORIZATION regress_ba_authenticator;
SET ROLE regress_ba_web;
SELECT bulk_action_submit('s3://secret/contacts.csv');
\echo :SQLSTATE
SELECT bulk_action_submit('s3://secret/contacts.csv', options => '{"server": "regress_ba_secret"}');
\echo :SQLSTATE
RESET SESSION AUTHORIZATION;

-- files of the server: not for everybody, and not at all where bulk_action.file_root is empty
CREATE FUNCTION try_file(uri text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM bulk_action_submit(uri);
	RETURN 'submitted';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
SELECT CASE current_setting('bulk_action.file_root') WHEN '' THEN '55000' ELSE '42501' END AS refused \gset
SELECT try_file('file:///etc/passwd') = :'refused' AS refused;
SET ROLE regress_ba_web;
SELECT try_file('file:///etc/passwd') = :'refused' AS refused;
RESET ROLE;
DROP FUNCTION try_file;

-- session user and current user
BEGIN;
SET LOCAL SESSION AUTHORIZATION regress_ba_authenticator;
SET LOCAL ROLE regress_ba_web;
SELECT bulk_action_submit('s3://imports/contacts.csv') AS id \gset
SELECT account_id, submitted_by FROM bulk_actions;
RESET SESSION AUTHORIZATION;
SELECT submitted_role::regrole, session_role::regrole FROM bulk_action_internal.actions WHERE id = :'id';
ROLLBACK;

-- a session user that cannot come back as a worker
SET SESSION AUTHORIZATION regress_ba_web;
SELECT bulk_action_submit('s3://imports/contacts.csv');
\echo :SQLSTATE
RESET SESSION AUTHORIZATION;

-- inside SECURITY DEFINER: the definer is not a role that the session user may take
CREATE FUNCTION ba_crm.submit_as_owner() RETURNS uuid LANGUAGE sql SECURITY DEFINER
	AS $$ SELECT bulk_action.bulk_action_submit('s3://imports/contacts.csv') $$;
ALTER FUNCTION ba_crm.submit_as_owner() OWNER TO regress_ba_owner;
GRANT USAGE ON SCHEMA bulk_action TO regress_ba_owner;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bulk_action TO regress_ba_owner;
GRANT USAGE ON FOREIGN SERVER regress_ba_imports TO regress_ba_owner;
SET SESSION AUTHORIZATION regress_ba_authenticator;
SET ROLE regress_ba_web;
SELECT ba_crm.submit_as_owner();
\echo :SQLSTATE
RESET SESSION AUTHORIZATION;
GRANT regress_ba_owner TO regress_ba_authenticator;
BEGIN;
SET LOCAL SESSION AUTHORIZATION regress_ba_authenticator;
SET LOCAL ROLE regress_ba_web;
SELECT ba_crm.submit_as_owner() IS NOT NULL AS submitted;
ROLLBACK;

-- inside a security-restricted operation: not at all
CREATE FUNCTION ba_crm.sneak() RETURNS text LANGUAGE sql
	AS $$ SELECT bulk_action.bulk_action_submit('s3://imports/contacts.csv')::text $$;
CREATE MATERIALIZED VIEW ba_crm.trap AS SELECT ba_crm.sneak() WITH NO DATA;
REFRESH MATERIALIZED VIEW ba_crm.trap;
\echo :SQLSTATE

-- everybody sees his own actions and nobody else's
BEGIN;
SET LOCAL ROLE regress_ba_web;
SELECT bulk_action_submit('s3://imports/web.csv') AS id \gset
SELECT count(*) FROM bulk_actions;
SELECT count(*) FROM bulk_action_stat(:'id');
RESET ROLE;
INSERT INTO bulk_action_internal.stats
	SELECT action_no, 1, true, 0, 0, 0, 0, 0, 0, 1, 0, 100 FROM bulk_action_internal.actions WHERE id = :'id';
INSERT INTO bulk_action_internal.errors
	SELECT action_no, 2, '22P02', 'id', 'invalid input', 'x' FROM bulk_action_internal.actions WHERE id = :'id';
SET LOCAL ROLE regress_ba_web;
SELECT (SELECT count(*) FROM bulk_actions), (SELECT count(*) FROM bulk_action_stats),
	(SELECT count(*) FROM bulk_action_errors), (SELECT count(*) FROM bulk_action_progress),
	(SELECT count(*) FROM bulk_action_stat(:'id'));
SET LOCAL ROLE regress_ba_tenant;
SELECT (SELECT count(*) FROM bulk_actions), (SELECT count(*) FROM bulk_action_stats),
	(SELECT count(*) FROM bulk_action_errors), (SELECT count(*) FROM bulk_action_progress),
	(SELECT count(*) FROM bulk_action_stat(:'id'));
SAVEPOINT s;
SELECT count(*) FROM bulk_action_internal.actions;
ROLLBACK TO s;
SELECT count(*) FROM bulk_action_internal.errors;
ROLLBACK TO s;
INSERT INTO bulk_actions (id) VALUES (gen_random_uuid());
ROLLBACK TO s;
UPDATE bulk_actions SET state = 'completed';
ROLLBACK TO s;
DELETE FROM bulk_actions;
ROLLBACK;

DROP MATERIALIZED VIEW ba_crm.trap;
DROP FUNCTION ba_crm.submit_as_owner, ba_crm.sneak, try_submit;
DROP PROCEDURE grant_and_try;
DROP TABLE ba_crm.contacts;
DROP SCHEMA ba_crm;
SET client_min_messages = warning;
DROP EXTENSION bulk_action CASCADE;
DROP OWNED BY regress_ba_owner, regress_ba_web, regress_ba_tenant, regress_ba_authenticator;
DROP ROLE regress_ba_owner, regress_ba_web, regress_ba_tenant, regress_ba_authenticator;
