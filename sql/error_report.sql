-- bulk_action_error_report: what it makes of headers and errors.  The actions are put into the tables
-- by hand and rolled back, so that no process ever sees them.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS bulk_action;
RESET client_min_messages;
SET search_path = public, bulk_action;
CREATE ROLE regress_ba_web;
CREATE ROLE regress_ba_other;
CREATE ROLE regress_ba_admin;
GRANT regress_ba_web TO regress_ba_admin;
GRANT USAGE ON SCHEMA bulk_action TO regress_ba_web, regress_ba_other, regress_ba_admin;

CREATE FUNCTION make_action(number integer, state text, header text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO bulk_action_internal.actions (id, action_type, entity_type, account_id, metadata, options, source,
		submitted_role, submitted_by, session_role, settings, target, target_schema, target_name, key_columns, state)
	SELECT ('00000000-0000-0000-0000-00000000000' || number)::uuid, 'bulk_update', 'contact', 'acme', '{}', '{}',
		's3://imports/contacts.csv', 'regress_ba_web'::regrole, 'regress_ba_web', 'regress_ba_web'::regrole, '{}',
		'pg_class'::regclass, 'pg_catalog', 'pg_class', '{oid}', state;
	INSERT INTO bulk_action_internal.sources (action_no, size, etag, header)
		SELECT action_no, 1, 'x', make_action.header FROM bulk_action_internal.actions
		WHERE make_action.header IS NOT NULL AND id = ('00000000-0000-0000-0000-00000000000' || number)::uuid;
$$;
CREATE FUNCTION make_error(line bigint, code text, error_column text, message text, record text, altered boolean DEFAULT false)
RETURNS void LANGUAGE sql AS $$
	INSERT INTO bulk_action_internal.errors (action_no, line, error_code, error_column, error_message, record, record_altered)
		SELECT action_no, line, code, error_column, message, record, altered FROM bulk_action_internal.actions
		WHERE id = '00000000-0000-0000-0000-000000000001';
$$;

BEGIN;
SELECT make_action(1, 'completed', '"id",name,_line');
SELECT make_action(2, 'queued', NULL);
SELECT make_action(3, 'cancelled', NULL);
SELECT make_error(10, '22P02', 'id', 'invalid input syntax for type bigint: "x"', 'x,"a ""b""",4');
SELECT make_error(9, '23514', NULL, '=refused', '1,"",4');
SELECT make_error(11, '22P04', NULL, 'the row has 1 fields, the header has 3', '=1');
SELECT make_error(8, '22021', NULL, 'record contains a NUL byte', '1,\x00,2', true);
SAVEPOINT s;
-- not for everybody
SET LOCAL ROLE regress_ba_web;
SELECT bulk_action_error_report('00000000-0000-0000-0000-000000000001');
ROLLBACK TO s;
GRANT EXECUTE ON FUNCTION bulk_action_error_report TO regress_ba_web, regress_ba_other, regress_ba_admin;
SET LOCAL ROLE regress_ba_web;
SELECT bulk_action_error_report('00000000-0000-0000-0000-000000000001') AS report,
	pg_typeof(bulk_action_error_report('00000000-0000-0000-0000-000000000001')) AS type \gx
SELECT bulk_action_error_report('00000000-0000-0000-0000-000000000001', neutralize => true) AS report \gx
SELECT bulk_action_error_report('00000000-0000-0000-0000-000000000001', after_line => 8, max_rows => 2) AS report \gx
SELECT bulk_action_error_report('00000000-0000-0000-0000-000000000001', max_rows => 0) AS report;
-- for those who have the privileges of the submitter
SET LOCAL ROLE regress_ba_admin;
SELECT bulk_action_error_report('00000000-0000-0000-0000-000000000001', after_line => 10) AS report \gx
SET LOCAL ROLE regress_ba_other;
SAVEPOINT s;
SELECT bulk_action_error_report('00000000-0000-0000-0000-000000000001');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT bulk_action_error_report('00000000-0000-0000-0000-000000000009');
ROLLBACK TO s;
SET LOCAL ROLE regress_ba_web;
SAVEPOINT s;
-- there is none
SELECT bulk_action_error_report('00000000-0000-0000-0000-000000000002');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT bulk_action_error_report('00000000-0000-0000-0000-000000000003');
ROLLBACK TO s;
-- arguments
SELECT bulk_action_error_report(NULL);
\echo :SQLSTATE
ROLLBACK TO s;
SELECT bulk_action_error_report('00000000-0000-0000-0000-000000000001', NULL);
ROLLBACK TO s;
SELECT bulk_action_error_report('00000000-0000-0000-0000-000000000001', after_line => NULL);
ROLLBACK TO s;
SELECT bulk_action_error_report('00000000-0000-0000-0000-000000000001', max_rows => -1);
\echo :SQLSTATE
ROLLBACK TO s;
-- it changes nothing: not the role, not the settings, not the data
SET LOCAL search_path = public, bulk_action, pg_catalog;
SELECT length(bulk_action_error_report('00000000-0000-0000-0000-000000000001')) > 0, current_user, current_setting('search_path'),
	current_setting('row_security');
SET TRANSACTION READ ONLY;
SELECT length(bulk_action_error_report('00000000-0000-0000-0000-000000000001')) > 0 AS read_only;
ROLLBACK;
-- one snapshot: what the same statement writes is not in it
BEGIN;
SELECT make_action(1, 'running', 'id,name');
SELECT make_error(2, '22P02', 'id', 'no', 'x,y');
WITH added AS MATERIALIZED (SELECT make_error(3, '22P02', 'id', 'no', 'z,z'))
SELECT bulk_action_error_report('00000000-0000-0000-0000-000000000001') AS report FROM added;
SELECT bulk_action_error_report('00000000-0000-0000-0000-000000000001') AS report;
ROLLBACK;

DROP FUNCTION make_action, make_error;
SET client_min_messages = warning;
DROP EXTENSION bulk_action CASCADE;
DROP OWNED BY regress_ba_web, regress_ba_other, regress_ba_admin;
DROP ROLE regress_ba_web, regress_ba_other, regress_ba_admin;
