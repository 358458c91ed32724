-- bulk_action: what callers may see. bulk_action_internal: everything else.

-- CREATE EXTENSION takes a schema of the right name as it finds it. If that is somebody else's, he could
-- put functions of his own beside ours afterwards, for our callers to call by mistake; and what lies in
-- it already would be found by this script.
DO LANGUAGE plpgsql $$
DECLARE
	existing record;
BEGIN
	SELECT r.rolname AS owner, r.rolsuper AS is_superuser,
		coalesce((SELECT pg_catalog.bool_or(a.grantee OPERATOR(pg_catalog.<>) n.nspowner)
			FROM pg_catalog.aclexplode(n.nspacl) AS a
			WHERE a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'), false) AS open_to_others,
		(SELECT pg_catalog.min(pg_catalog.pg_describe_object(d.classid, d.objid, 0)) FROM pg_catalog.pg_depend AS d
			WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
				AND d.refobjid OPERATOR(pg_catalog.=) n.oid
				AND d.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_extension'::pg_catalog.regclass) AS content
	INTO STRICT existing
	FROM pg_catalog.pg_namespace AS n
	JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
	WHERE n.nspname OPERATOR(pg_catalog.=) 'bulk_action';
	IF NOT existing.is_superuser OR existing.open_to_others OR existing.content IS NOT NULL THEN
		RAISE EXCEPTION 'schema "bulk_action" exists already'
			USING errcode = 'duplicate_schema',
				detail = CASE
					WHEN NOT existing.is_superuser THEN pg_catalog.format('Its owner, %I, is no superuser.', existing.owner)
					WHEN existing.open_to_others THEN 'Others may create objects in it.'
					ELSE pg_catalog.format('It contains objects: %s, for one.', existing.content)
				END,
				hint = 'DROP or rename it; CREATE EXTENSION makes the schema by itself.';
	END IF;
END $$;

CREATE SCHEMA bulk_action_internal;
COMMENT ON SCHEMA bulk_action_internal IS 'bulk_action: queue and bookkeeping; not for direct use';
