-- Action types: which options go with which, and which permissions and privileges each of them takes.
-- Nothing that is submitted here is ever committed.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS bulk_action;
RESET client_min_messages;
SET search_path = public, bulk_action;
CREATE TABLE ba_contacts (id bigint PRIMARY KEY, email text, name text);
SELECT bulk_action_register_entity('contact', 'ba_contacts', ARRAY['id']);
CREATE SERVER regress_ba_imports FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (
	endpoint 'http://127.0.0.1:1', allow_http 'true', allow_private_address 'true', bucket 'imports');
CREATE USER MAPPING FOR PUBLIC SERVER regress_ba_imports;
GRANT USAGE ON FOREIGN SERVER regress_ba_imports TO PUBLIC;

CREATE FUNCTION try(type text, options jsonb, whole boolean DEFAULT true) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	PERFORM bulk_action.bulk_action_submit('s3://imports/contacts.csv', 'bulk_' || type, options => options);
	RAISE EXCEPTION 'taken' USING ERRCODE = 'RB000';
EXCEPTION
	WHEN SQLSTATE 'RB000' THEN
		RETURN 'taken';
	WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		RETURN CASE WHEN whole THEN concat_ws(' | ', SQLSTATE || ' ' || SQLERRM, detail, hint) ELSE SQLSTATE || ' ' || detail END;
END $$;

-- what goes with what
SELECT options, try('update', options) AS update, try('insert', options) AS insert, try('upsert', options) AS upsert, try('delete', options) AS delete
FROM (VALUES (1, jsonb '{"on_missing": "report"}'), (2, '{"on_missing": "insert"}'), (3, '{"on_missing": "error"}'), (4, '{"on_missing": "delete"}'),
	(5, '{"on_conflict": "error"}'), (6, '{"on_conflict": "skip"}'), (7, '{"on_conflict": "update"}'), (8, '{"match": ["name"]}'), (9, '{"match": "name"}'),
	(10, '{"skip_unchanged": false}'), (11, '{"skip_unchanged": "no"}'), (12, '{"empty": "null"}'), (13, '{"null_token": "NULL"}'),
	(14, '{"columns": {"Name": {"column": "name", "overwrite": "never"}}}'), (15, '{"columns": {"Name": {"column": "name", "overwrite": "always"}}}'))
	AS given (n, options) ORDER BY n \gx

-- an update that inserts, and an insert that updates, are both
SELECT type, options, try(type, options)
FROM (VALUES (1, 'update', jsonb '{"on_missing": "insert", "skip_unchanged": false}'), (2, 'insert', '{"on_conflict": "update", "skip_unchanged": false}'),
	(3, 'insert', '{"on_conflict": "skip", "skip_unchanged": true}'),
	(4, 'insert', '{"on_conflict": "update", "columns": {"Name": {"column": "name", "overwrite": "only_if_empty"}}}'),
	(5, 'insert', '{"on_conflict": "skip", "columns": {"Name": {"column": "name", "overwrite": "only_if_empty"}}}'),
	(6, 'update', '{"on_missing": "insert", "columns": {"Name": {"column": "name", "overwrite": "never"}}}')) AS given (n, type, options) ORDER BY n \gx

-- what would change nothing
SELECT options, try('upsert', options)
FROM (VALUES (1, jsonb '{"header": false, "columns": ["id", "name"], "fold_header": true}'), (2, '{"header": false, "columns": ["id", "name"], "fold_header": false}'),
	(3, '{"header": true, "fold_header": true}'), (4, '{"header": false}'), (5, '{"columns": ["id", "name"]}'),
	(6, '{"delimiter": ";", "quote": ";"}'), (7, '{"comment": "\"", "quote": "\""}')) AS given (n, options) ORDER BY n \gx

-- words for booleans
SELECT options, try('upsert', options)
FROM (VALUES (1, jsonb '{"formats": {"boolean": "strict"}}'), (2, '{"formats": {"boolean": "lenient"}, "columns": {"A": {"column": "name", "boolean": "strict"}}}'),
	(3, '{"formats": {"boolean": "loose"}}'), (4, '{"formats": {"boolean": true}}'), (5, '{"columns": {"A": {"column": "name", "boolean": "strict", "decimal": ","}}}'))
	AS given (n, options) ORDER BY n \gx

-- what each takes: all combinations of a permission and privileges, compared with the table of the reference
CREATE ROLE regress_ba_clerk LOGIN;
GRANT USAGE ON SCHEMA public, bulk_action TO regress_ba_clerk;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bulk_action TO regress_ba_clerk;
CREATE TABLE variants (type text, options jsonb, permission text, privileges text[]);
INSERT INTO variants VALUES
	('update', '{}', 'update', '{SELECT,UPDATE}'), ('update', '{"on_missing": "error"}', 'update', '{SELECT,UPDATE}'),
	('update', '{"on_missing": "insert"}', 'upsert', '{SELECT,UPDATE,INSERT}'),
	('insert', '{}', 'insert', '{INSERT}'), ('insert', '{"on_conflict": "skip"}', 'insert', '{SELECT,INSERT}'),
	('insert', '{"on_conflict": "update"}', 'upsert', '{SELECT,UPDATE,INSERT}'),
	('upsert', '{}', 'upsert', '{SELECT,UPDATE,INSERT}'), ('delete', '{}', 'delete', '{SELECT,DELETE}'),
	('delete', '{"on_missing": "error"}', 'delete', '{SELECT,DELETE}');
GRANT SELECT ON variants TO regress_ba_clerk;
CREATE TABLE tried (permission text, privileges text[], type text, options jsonb, got text, expected boolean);
DO $$
DECLARE
	v_permission text;
	v_privileges text[];
BEGIN
	FOREACH v_permission IN ARRAY ARRAY['update', 'insert', 'upsert', 'delete'] LOOP
		PERFORM bulk_action.bulk_action_grant('contact', 'regress_ba_clerk', ARRAY['bulk_' || v_permission]);
		FOR n IN 0 .. 15 LOOP
			v_privileges := ARRAY(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS u (p, i) WHERE n >> (i - 1)::int & 1 = 1);
			REVOKE ALL ON ba_contacts FROM regress_ba_clerk;
			IF n > 0 THEN
				-- of the columns as little as will do
				EXECUTE 'GRANT ' || replace(replace(replace(array_to_string(v_privileges, ', '), 'SELECT', 'SELECT (id)'), 'UPDATE', 'UPDATE (name)'), 'INSERT', 'INSERT (id)')
					|| ' ON ba_contacts TO regress_ba_clerk';
			END IF;
			PERFORM set_config('session_authorization', 'regress_ba_clerk', true);
			CREATE TEMP TABLE outcome AS SELECT v.type, v.options, public.try(v.type, v.options, false) AS got,
				v.permission = v_permission AND v.privileges <@ v_privileges AS expected FROM public.variants AS v;
			RESET SESSION AUTHORIZATION;
			INSERT INTO tried SELECT v_permission, v_privileges, type, options, got, expected FROM outcome;
			DROP TABLE outcome;
		END LOOP;
		PERFORM bulk_action.bulk_action_revoke('contact', 'regress_ba_clerk', NULL);
	END LOOP;
END $$;
SELECT count(*), count(*) FILTER (WHERE expected) AS expected, count(*) FILTER (WHERE got = 'taken') AS taken FROM tried;
SELECT * FROM tried WHERE (got = 'taken') <> expected;
SELECT type, options, got FROM tried WHERE got <> 'taken' GROUP BY 1, 2, 3 ORDER BY type COLLATE "C", options, got COLLATE "C";

SET client_min_messages = warning;
DROP OWNED BY regress_ba_clerk;
DROP ROLE regress_ba_clerk;
SELECT bulk_action_unregister_entity('contact');
DROP TABLE ba_contacts, variants, tried;
DROP FUNCTION try(text, jsonb, boolean);
DROP EXTENSION bulk_action CASCADE;
