-- bulk_action_cancel, bulk_action_purge, bulk_action_wait.  The actions are put into the table by
-- hand and rolled back, so that no process ever sees them.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS bulk_action;
RESET client_min_messages;
SET search_path = public, bulk_action;
CREATE ROLE regress_ba_web;
CREATE ROLE regress_ba_other;
CREATE ROLE regress_ba_admin;
GRANT regress_ba_web TO regress_ba_admin;
GRANT USAGE ON SCHEMA bulk_action TO regress_ba_web, regress_ba_other, regress_ba_admin;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bulk_action TO regress_ba_web, regress_ba_other, regress_ba_admin;

CREATE FUNCTION make_action(number integer, role regrole, state text, age interval DEFAULT '0') RETURNS void LANGUAGE sql AS $$
	INSERT INTO bulk_action_internal.actions (id, action_type, entity_type, account_id, metadata, options, source,
		submitted_role, submitted_by, session_role, settings, target, target_schema, target_name, key_columns, state,
		finished_at)
	SELECT ('00000000-0000-0000-0000-00000000000' || number)::uuid, 'bulk_update', 'contact', 'acme', '{}', '{}',
		's3://imports/contacts.csv', role, role::text, role, '{}', 'pg_class'::regclass, 'pg_catalog', 'pg_class',
		'{oid}', state,
		CASE WHEN state IN ('completed', 'cancelled', 'failed') THEN now() - age END;
	INSERT INTO bulk_action_internal.stats
		SELECT action_no, 3, true, 2, 0, 0, 0, 0, 0, 1, 0, 100 FROM bulk_action_internal.actions
		WHERE id = ('00000000-0000-0000-0000-00000000000' || number)::uuid;
	INSERT INTO bulk_action_internal.errors
		SELECT action_no, 2, '22P02', 'id', 'invalid input', 'x' FROM bulk_action_internal.actions
		WHERE id = ('00000000-0000-0000-0000-00000000000' || number)::uuid;
$$;
CREATE VIEW requests AS
	SELECT right(a.id::text, 1) AS action, e.kind, e.created_by = session_user AS own
	FROM bulk_action_internal.events AS e JOIN bulk_action_internal.actions AS a USING (action_no)
	ORDER BY e.event_no;

-- cancel: once, while it has not ended
BEGIN;
SELECT make_action(1, 'regress_ba_web', 'queued');
SELECT make_action(2, 'regress_ba_web', 'running');
SELECT make_action(3, 'regress_ba_web', 'completed');
SELECT make_action(4, 'regress_ba_web', 'failed');
SELECT make_action(5, 'regress_ba_web', 'cancelled');
SET LOCAL ROLE regress_ba_web;
SELECT n, bulk_action_cancel(('00000000-0000-0000-0000-00000000000' || n)::uuid) FROM generate_series(1, 5) AS n;
SELECT bulk_action_cancel('00000000-0000-0000-0000-000000000001');
RESET ROLE;
SELECT * FROM requests;
SET LOCAL ROLE regress_ba_admin;
SELECT bulk_action_cancel('00000000-0000-0000-0000-000000000001');
-- an action of another role is as unknown as one that does not exist
SET LOCAL ROLE regress_ba_other;
SAVEPOINT s;
SELECT bulk_action_cancel('00000000-0000-0000-0000-000000000001');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT bulk_action_cancel('00000000-0000-0000-0000-000000000009');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT bulk_action_cancel(NULL);
PREPARE TRANSACTION 'regress_ba';
\echo :SQLSTATE
BEGIN READ ONLY;
SELECT bulk_action_cancel('00000000-0000-0000-0000-000000000001');
\echo :SQLSTATE
ROLLBACK;

-- purge: what has ended, is old enough, and is the caller's
BEGIN;
SELECT make_action(1, 'regress_ba_web', 'completed', '40 days');
SELECT make_action(2, 'regress_ba_web', 'failed', '20 days');
SELECT make_action(3, 'regress_ba_web', 'cancelled', '10 days');
SELECT make_action(4, 'regress_ba_other', 'completed', '40 days');
SELECT make_action(5, 'regress_ba_web', 'running');
SET LOCAL ROLE regress_ba_web;
SELECT bulk_action_purge();
SELECT bulk_action_purge('15 days');
SELECT bulk_action_purge('15 days');
RESET ROLE;
SELECT right(a.id::text, 1) AS action, (SELECT count(*) FROM bulk_action_internal.stats AS s WHERE s.action_no = a.action_no)
	AS stats, (SELECT count(*) FROM bulk_action_internal.errors AS e WHERE e.action_no = a.action_no) AS errors
FROM bulk_action_internal.actions AS a ORDER BY 1;
SELECT (SELECT count(*) FROM bulk_action_internal.stats) AS stats, (SELECT count(*) FROM bulk_action_internal.errors) AS errors;
SET LOCAL ROLE regress_ba_admin;
SELECT bulk_action_purge('1 second');
SELECT bulk_action_purge(NULL);
SAVEPOINT s;
SELECT bulk_action_purge('-1 day');
\echo :SQLSTATE
ROLLBACK TO s;
RESET ROLE;
SELECT right(a.id::text, 1) AS action FROM bulk_action_internal.actions AS a ORDER BY 1;
ROLLBACK;
BEGIN READ ONLY;
SELECT bulk_action_purge();
\echo :SQLSTATE
ROLLBACK;

-- wait: only where it holds no snapshot
BEGIN;
CALL bulk_action_wait('00000000-0000-0000-0000-000000000001');
\echo :SQLSTATE
ROLLBACK;
CREATE FUNCTION wait_inside() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CALL bulk_action_wait('00000000-0000-0000-0000-000000000001');
END
$$;
SELECT wait_inside();
CREATE PROCEDURE wait_in_path() LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
	CALL bulk_action.bulk_action_wait('00000000-0000-0000-0000-000000000001');
END
$$;
CALL wait_in_path();
DO $$
BEGIN
	CALL bulk_action.bulk_action_wait('00000000-0000-0000-0000-000000000001');
EXCEPTION WHEN division_by_zero THEN
	NULL;
END
$$;
DO $$
BEGIN
	CREATE TABLE public.ba_written (a integer);
	CALL bulk_action.bulk_action_wait('00000000-0000-0000-0000-000000000001');
END
$$;
\echo :SQLSTATE
CALL bulk_action_wait(NULL);
\echo :SQLSTATE
CALL bulk_action_wait('00000000-0000-0000-0000-000000000001', NULL);
CALL bulk_action_wait('00000000-0000-0000-0000-000000000001', '-1 second');
\echo :SQLSTATE
CALL bulk_action_wait('00000000-0000-0000-0000-000000000001');
\echo :SQLSTATE
-- an action that has ended
SELECT make_action(1, 'regress_ba_web', 'completed', '40 days');
SELECT make_action(2, 'regress_ba_web', 'failed', '40 days');
UPDATE bulk_action_internal.actions SET error_code = '42P01', error_message = 'the table is gone',
	error_detail = 'It was there.', error_hint = 'Bring it back.'
	WHERE id = '00000000-0000-0000-0000-000000000002';
CALL bulk_action_wait('00000000-0000-0000-0000-000000000001');
CALL bulk_action_wait('00000000-0000-0000-0000-000000000002', '0');
\echo :SQLSTATE
SET ROLE regress_ba_other;
CALL bulk_action_wait('00000000-0000-0000-0000-000000000001');
RESET ROLE;
-- a DO block may wait, as long as it has written nothing
DO $$
BEGIN
	CALL bulk_action.bulk_action_wait('00000000-0000-0000-0000-000000000001');
END
$$;

DROP FUNCTION make_action, wait_inside;
DROP PROCEDURE wait_in_path;
DROP VIEW requests;
SET client_min_messages = warning;
DROP EXTENSION bulk_action CASCADE;
DROP OWNED BY regress_ba_web, regress_ba_other, regress_ba_admin;
DROP ROLE regress_ba_web, regress_ba_other, regress_ba_admin;
