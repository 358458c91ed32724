-- The extension as CREATE EXTENSION leaves it: who may do what, and what pg_dump keeps.
CREATE EXTENSION bulk_action;

-- Nothing that starts or changes something is open to everybody.
SELECT p.oid::regprocedure AS open_to_public
FROM pg_proc AS p
WHERE p.pronamespace IN ('bulk_action'::regnamespace, 'bulk_action_internal'::regnamespace)
	AND has_function_privilege('public', p.oid, 'EXECUTE')
ORDER BY 1;

-- No function runs as somebody else than its caller.
SELECT p.oid::regprocedure AS security_definer
FROM pg_proc AS p
WHERE p.pronamespace IN ('bulk_action'::regnamespace, 'bulk_action_internal'::regnamespace)
	AND p.prosecdef
ORDER BY 1;

-- What everybody may read, and nothing that everybody may write.
SELECT c.oid::regclass AS relation, c.relkind,
	has_table_privilege('public', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') AS writable
FROM pg_class AS c
WHERE c.relnamespace IN ('bulk_action'::regnamespace, 'bulk_action_internal'::regnamespace)
	AND has_table_privilege('public', c.oid, 'SELECT')
ORDER BY c.oid::regclass::text;

-- The schemas themselves are for those who are let in.
SELECT nspname, has_schema_privilege('public', oid, 'USAGE') AS usage,
	has_schema_privilege('public', oid, 'CREATE') AS create
FROM pg_namespace
WHERE nspname LIKE 'bulk\_action%'
ORDER BY 1;

-- Every view shows only what concerns the caller, also to clever operators.
SELECT c.oid::regclass AS view, c.reloptions
FROM pg_class AS c
WHERE c.relkind = 'v' AND c.relnamespace = 'bulk_action'::regnamespace
ORDER BY c.oid::regclass::text;

-- What callers see is documented.
SELECT d.classid::regclass AS kind, pg_describe_object(d.classid, d.objid, 0) AS without_comment
FROM pg_depend AS d
WHERE d.refclassid = 'pg_extension'::regclass
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'bulk_action')
	AND d.deptype = 'e'
	AND (d.classid IN ('pg_proc'::regclass, 'pg_foreign_data_wrapper'::regclass)
		OR d.objid IN (SELECT oid FROM pg_class WHERE relkind = 'v')
		OR d.objid IN (SELECT oid FROM pg_type WHERE typtype <> 'c' AND typcategory <> 'A')) -- those of tables and arrays are members from 17 on
	AND obj_description(d.objid, d.classid::regclass::text) IS NULL
ORDER BY 1, 2;

-- pg_dump keeps the entities and no queue.
SELECT t.oid::regclass AS dumped
FROM pg_extension AS e
CROSS JOIN LATERAL unnest(e.extconfig) AS t (oid)
WHERE e.extname = 'bulk_action';

-- Dropping it leaves nothing, rolling that back leaves all.
BEGIN;
DROP EXTENSION bulk_action;
SELECT count(*) FROM pg_namespace WHERE nspname = 'bulk_action_internal';
ROLLBACK;
SELECT count(*) FROM bulk_action.bulk_actions;
DROP EXTENSION bulk_action;
SELECT count(*) FROM pg_proc WHERE proname LIKE 'bulk\_action%';
CREATE EXTENSION bulk_action;
SELECT count(*) FROM bulk_action.bulk_actions;

-- Objects of others keep it from being dropped by accident.
CREATE SERVER regress_ba_server FOREIGN DATA WRAPPER bulk_action_s3;
DROP EXTENSION bulk_action;
DROP SERVER regress_ba_server;
DROP EXTENSION bulk_action;
