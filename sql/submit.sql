-- bulk_action_submit: arguments, options, sources, idempotency.  Every action is rolled back, so
-- that no process ever sees it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS bulk_action;
RESET client_min_messages;
SET search_path = public, bulk_action;
CREATE TABLE ba_contacts (id bigint PRIMARY KEY, email text, name text);
SELECT bulk_action_register_entity('contact', 'ba_contacts', ARRAY['id'], ARRAY['email', 'name']);
CREATE SERVER regress_ba_imports FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (
	endpoint 'http://127.0.0.1:1', allow_http 'true', allow_private_address 'true', bucket 'imports');
CREATE USER MAPPING FOR PUBLIC SERVER regress_ba_imports;

-- what is recorded
BEGIN;
SET LOCAL DateStyle = 'SQL, DMY';
SET LOCAL IntervalStyle = 'iso_8601';
SET LOCAL TimeZone = 'Asia/Tokyo';
SET LOCAL lc_monetary = 'C';
SET LOCAL lc_numeric = 'C';
SELECT bulk_action_submit('s3://imports/contacts.csv') AS id \gset
SELECT action_type, entity_type, account_id = current_user AS own_account, metadata, options, source, server,
	trace_id, idempotency_key, submitted_role = current_user::regrole AS own_role,
	submitted_by = current_user AS own_name, session_role = session_user::regrole AS own_session,
	target, target_schema, target_name, key_columns, update_columns, state, stream_position
FROM bulk_action_internal.actions WHERE id = :'id' \gx
SELECT settings FROM bulk_action_internal.actions WHERE id = :'id';
SELECT bulk_action_submit(
	source => 's3://imports/contacts.csv', action_type => 'bulk_update', entity_type => 'contact',
	options => '{"server": "regress_ba_imports"}', metadata => '{"note": "spring"}',
	account_id => 'acme', idempotency_key => 'one', trace_id => 'trace-1') AS id \gset
SELECT action_type, entity_type, account_id, metadata, state, source, options, trace_id, idempotency_key,
	submitted_by = current_user AS own, started_at, finished_at, error_code
FROM bulk_actions WHERE id = :'id' \gx
SELECT state, total, total_is_final, success, failed, unprocessed, percent, trace_id FROM bulk_action_stat(:'id');
SELECT state, bar, percent, source FROM bulk_action_progress WHERE action_id = :'id';
ROLLBACK;

-- request settings, without the credentials in the headers
CREATE FUNCTION captured(id uuid) RETURNS TABLE (name text, value text) LANGUAGE sql AS $$
	SELECT a.settings[i], a.settings[i + 1]
	FROM bulk_action_internal.actions AS a, generate_series(1, cardinality(a.settings), 2) AS i
	WHERE a.id = captured.id AND a.settings[i] LIKE 'request.%'
$$;
BEGIN;
SELECT set_config('request.jwt.claims', '{"role":"webuser","sub":"u-1"}', true),
	set_config('request.method', 'POST', true), set_config('request.path', '/rpc/bulk_action_submit', true),
	set_config('request.cookies', '{"session":"hidden"}', true),
	set_config('request.headers', '{"accept":"*/*","authorization":"Bearer hidden","x-trace":"1"}', true);
SELECT captured(bulk_action_submit('s3://imports/contacts.csv'));
SELECT set_config('request.headers', '{"Cookie":"hidden","COOKIE":"hidden","AuthOrization":"hidden","cookies":"kept"}', true);
SELECT captured(bulk_action_submit('s3://imports/contacts.csv'));
SELECT set_config('request.headers', 'authorization: Bearer hidden', true);
SELECT captured(bulk_action_submit('s3://imports/contacts.csv'));
SELECT set_config('request.headers', '["authorization", "Bearer hidden"]', true);
SELECT captured(bulk_action_submit('s3://imports/contacts.csv'));
SELECT set_config('request.headers', '{"authorization":"Bearer hidden"', true);
SELECT captured(bulk_action_submit('s3://imports/contacts.csv'));
SELECT set_config('request.headers', '', true);
SELECT captured(bulk_action_submit('s3://imports/contacts.csv'));
ROLLBACK;

-- arguments
SELECT bulk_action_submit(NULL);
\echo :SQLSTATE
SELECT bulk_action_submit('');
\echo :SQLSTATE
SELECT bulk_action_submit('s3://imports/contacts.csv', action_type => NULL);
SELECT bulk_action_submit('s3://imports/contacts.csv', action_type => 'bulk_upsertt');
\echo :SQLSTATE
SELECT bulk_action_submit('s3://imports/contacts.csv', entity_type => NULL);
SELECT bulk_action_submit('s3://imports/contacts.csv', entity_type => 'contacts');
\echo :SQLSTATE
SELECT bulk_action_submit('s3://imports/contacts.csv', entity_type => 'company');
SELECT bulk_action_submit('s3://imports/contacts.csv', account_id => '');
SELECT bulk_action_submit('s3://imports/contacts.csv', idempotency_key => '');
SELECT bulk_action_submit('s3://imports/contacts.csv', metadata => NULL);
SELECT bulk_action_submit('s3://imports/contacts.csv', metadata => '[1]');
\echo :SQLSTATE
SELECT bulk_action_submit('s3://imports/contacts.csv', metadata => '"x"');

-- limits
SELECT bulk_action_submit('s3://imports/' || repeat('x', 2040));
\echo :SQLSTATE
SELECT bulk_action_submit('s3://imports/contacts.csv', entity_type => repeat('x', 256));
SELECT bulk_action_submit('s3://imports/contacts.csv', account_id => repeat('x', 256));
SELECT bulk_action_submit('s3://imports/contacts.csv', idempotency_key => repeat('x', 256));
SELECT bulk_action_submit('s3://imports/contacts.csv', trace_id => repeat('x', 256));
\set VERBOSITY terse
SELECT bulk_action_submit('s3://imports/contacts.csv', metadata => jsonb_build_object('x', repeat('x', 70000)));
SELECT bulk_action_submit('s3://imports/contacts.csv', options => jsonb_build_object('x', repeat('x', 70000)));
\set VERBOSITY default
BEGIN;
SELECT bulk_action_submit('s3://imports/contacts.csv', account_id => repeat('x', 255), trace_id => repeat('x', 255),
	idempotency_key => repeat('x', 255), metadata => jsonb_build_object('x', repeat('x', 65000))) IS NOT NULL AS submitted;
ROLLBACK;

-- options
SELECT bulk_action_submit('s3://imports/contacts.csv', options => NULL);
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '[]');
\echo :SQLSTATE
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '"server"');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"sever": "regress_ba_imports"}');
\echo :SQLSTATE
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"colour": "red"}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"duplicates": "lats"}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"duplicates": true}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"duplicates": ""}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"order": "row"}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"priority": 101}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"priority": 1.5}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"priority": "high"}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"max_errors": -1}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"max_errors": 1.5}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"max_errors": 1e30}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"max_errors": true}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"max_errors": null}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"max_errors": [5]}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"max_errors": ""}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"max_errors": "5"}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"max_errors": "101%"}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"max_errors": "-1%"}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"max_errors": "0.00001%"}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"max_errors": "5 %"}');
BEGIN;
SELECT value, bulk_action_submit('s3://imports/contacts.csv', options => jsonb_build_object('max_errors', value)) IS NOT NULL AS submitted
FROM jsonb_array_elements('[0, 1e6, 9223372036854775807, "0%", "5%", "0.5%", "12.3456%", "100%"]') AS value;
ROLLBACK;
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"server": 1}');
\echo :SQLSTATE
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"server": null}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"server": ["regress_ba_imports"]}');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"server": "regress_ba_import"}');
\echo :SQLSTATE
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"server": ""}');

-- source URIs
SELECT bulk_action_submit('contacts.csv');
\echo :SQLSTATE
SELECT bulk_action_submit('https://imports.s3.amazonaws.com/contacts.csv?X-Amz-Signature=hidden');
SELECT bulk_action_submit('s3://');
\echo :SQLSTATE
SELECT bulk_action_submit('s3://imports');
SELECT bulk_action_submit('s3://imports/');
SELECT bulk_action_submit('s3://IMPORTS/contacts.csv');
SELECT bulk_action_submit('s3://imports/../secrets/contacts.csv');
SELECT bulk_action_submit('file:///tmp/contacts.csv', options => '{"server": "regress_ba_imports"}');

-- the server by its bucket
SELECT bulk_action_submit('s3://exports/contacts.csv');
\echo :SQLSTATE
SELECT bulk_action_submit('s3://exports/contacts.csv', options => '{"server": "regress_ba_imports"}');
\echo :SQLSTATE
CREATE FUNCTION server_chosen(source text, options jsonb DEFAULT '{}') RETURNS name LANGUAGE plpgsql AS $$
DECLARE
	chosen uuid := bulk_action_submit(source, options => options);
BEGIN
	RETURN (SELECT a.server FROM bulk_action_internal.actions AS a WHERE a.id = chosen);
END
$$;
BEGIN;
CREATE SERVER regress_ba_any FOREIGN DATA WRAPPER bulk_action_s3;
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_ba_any;
SELECT server_chosen('s3://exports/contacts.csv');
SELECT server_chosen('s3://imports/contacts.csv');
SELECT server_chosen('s3://imports/contacts.csv', '{"server": "regress_ba_any"}');
ROLLBACK;
BEGIN;
CREATE SERVER regress_ba_second FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (bucket 'imports');
SELECT bulk_action_submit('s3://imports/contacts.csv');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
ALTER SERVER regress_ba_imports OPTIONS (ADD prefix 'spring/');
SELECT server_chosen('s3://imports/spring/contacts.csv');
SELECT server_chosen('s3://imports/contacts.csv');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
ALTER SERVER regress_ba_imports OPTIONS (ADD prefix 'spring/');
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"server": "regress_ba_imports"}');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
ALTER SERVER regress_ba_imports OPTIONS (ADD prefix 'spring/');
CREATE SERVER regress_ba_autumn FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (bucket 'imports', prefix 'autumn/');
CREATE USER MAPPING FOR PUBLIC SERVER regress_ba_autumn;
SELECT server_chosen('s3://imports/autumn/contacts.csv');
SELECT server_chosen('s3://imports/winter/contacts.csv');
ROLLBACK;
BEGIN;
DROP USER MAPPING FOR PUBLIC SERVER regress_ba_imports;
\set VERBOSITY sqlstate
SELECT bulk_action_submit('s3://imports/contacts.csv');
\set VERBOSITY default
ROLLBACK;
BEGIN;
CREATE FOREIGN DATA WRAPPER regress_ba_wrapper;
CREATE SERVER regress_ba_foreign FOREIGN DATA WRAPPER regress_ba_wrapper;
SELECT bulk_action_submit('s3://imports/contacts.csv', options => '{"server": "regress_ba_foreign"}');
\echo :SQLSTATE
ROLLBACK;

-- idempotency
BEGIN;
SELECT bulk_action_submit('s3://imports/contacts.csv', idempotency_key => 'k', metadata => '{"try": 1}') AS first \gset
SELECT bulk_action_submit('s3://imports/contacts.csv', idempotency_key => 'k', metadata => '{"try": 2}') = :'first' AS same;
SELECT bulk_action_submit('s3://imports/contacts.csv', idempotency_key => 'k', account_id => 'other') = :'first' AS same;
SELECT bulk_action_submit('s3://imports/contacts.csv', idempotency_key => 'l') = :'first' AS same;
SELECT count(*) FROM bulk_actions;
SAVEPOINT s;
SELECT bulk_action_submit('s3://imports/others.csv', idempotency_key => 'k');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT bulk_action_submit('s3://imports/others.csv', idempotency_key => 'k', options => '{"server": "regress_ba_imports"}',
	entity_type => 'company');
ROLLBACK TO s;
SELECT bulk_action_submit('s3://imports/contacts.csv', idempotency_key => 'k', parent_id => :'first');
ROLLBACK TO s;
-- also when what it was about is gone
SELECT bulk_action_unregister_entity('contact');
SELECT bulk_action_submit('s3://imports/contacts.csv', idempotency_key => 'k') = :'first' AS same;
ROLLBACK;

-- the action whose error report it is
BEGIN;
SELECT bulk_action_submit('s3://imports/contacts.csv') AS first \gset
SELECT bulk_action_submit('s3://imports/errors.csv', parent_id => :'first', idempotency_key => 'k') AS second \gset
SELECT parent_id = :'first' AS parent FROM bulk_actions WHERE id = :'second';
SELECT bulk_action_submit('s3://imports/errors.csv', parent_id => :'first', idempotency_key => 'k') = :'second' AS same;
SAVEPOINT s;
SELECT bulk_action_submit('s3://imports/errors.csv', parent_id => :'second', idempotency_key => 'k');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT bulk_action_submit('s3://imports/errors.csv', idempotency_key => 'k');
ROLLBACK TO s;
SELECT bulk_action_submit('s3://imports/errors.csv', parent_id => '00000000-0000-0000-0000-000000000009');
\echo :SQLSTATE
ROLLBACK TO s;
\set VERBOSITY sqlstate
SELECT bulk_action_submit('s3://imports/errors.csv', parent_id => :'first', account_id => 'acme');
ROLLBACK TO s;
SELECT bulk_action_register_entity('person', 'ba_contacts', ARRAY['id']);
SELECT bulk_action_submit('s3://imports/errors.csv', parent_id => :'first', entity_type => 'person');
\set VERBOSITY default
ROLLBACK;

-- the target as it was registered
BEGIN;
ALTER TABLE ba_contacts RENAME TO ba_people;
SELECT bulk_action_submit('s3://imports/contacts.csv');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
ALTER TABLE ba_contacts RENAME COLUMN id TO number;
SELECT bulk_action_submit('s3://imports/contacts.csv');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
ALTER TABLE ba_contacts DROP COLUMN email, DROP COLUMN name;
SELECT bulk_action_submit('s3://imports/contacts.csv');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
DROP TABLE ba_contacts;
SELECT bulk_action_submit('s3://imports/contacts.csv');
\echo :SQLSTATE
ROLLBACK;

-- kinds of transactions
BEGIN READ ONLY;
SELECT bulk_action_submit('s3://imports/contacts.csv');
\echo :SQLSTATE
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT bulk_action_submit('s3://imports/contacts.csv', idempotency_key => 'k') IS NOT NULL AS submitted;
ROLLBACK;
BEGIN;
SELECT bulk_action_submit('s3://imports/contacts.csv') IS NOT NULL AS submitted;
SAVEPOINT s;
SELECT bulk_action_submit('s3://imports/contacts.csv') IS NOT NULL AS submitted;
ROLLBACK TO s;
SELECT count(*) FROM bulk_actions;
PREPARE TRANSACTION 'regress_ba';
\echo :SQLSTATE

-- nothing is left
SELECT count(*) FROM bulk_actions;
DROP FUNCTION captured, server_chosen;
DROP TABLE ba_contacts;
SET client_min_messages = warning;
DROP EXTENSION bulk_action CASCADE;
