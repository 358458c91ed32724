-- Which role may run which type of action on which entity. Configuration: pg_dump keeps it, by the
-- names of the roles, but for roles that have been dropped.
CREATE TABLE bulk_action_internal.permissions (
	entity_type text NOT NULL,
	grantee regrole NOT NULL,
	action_type text NOT NULL,
	granted_by text NOT NULL,
	granted_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	PRIMARY KEY (entity_type, grantee, action_type)
);
COMMENT ON TABLE bulk_action_internal.permissions IS 'who may run what on an entity, besides the owner of its table';
COMMENT ON COLUMN bulk_action_internal.permissions.grantee IS '0: everybody';
SELECT pg_catalog.pg_extension_config_dump('bulk_action_internal.permissions',
	'WHERE grantee::oid = 0 OR EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = grantee::oid)');

CREATE FUNCTION bulk_action.bulk_action_grant(
	entity_type text,
	grantee text,
	action_types text[] DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bulk_action_grant';
COMMENT ON FUNCTION bulk_action.bulk_action_grant(text, text, text[]) IS
	'lets a role, or ''public'', run these types of actions (NULL: all there are) on an entity whose table is the caller''s';

CREATE FUNCTION bulk_action.bulk_action_revoke(
	entity_type text,
	grantee text,
	action_types text[] DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bulk_action_revoke';
COMMENT ON FUNCTION bulk_action.bulk_action_revoke(text, text, text[]) IS
	'takes back what bulk_action_grant gave; what is waiting or running under it fails before its next chunk';

CREATE VIEW bulk_action.bulk_action_permissions WITH (security_barrier) AS
SELECT
	p.entity_type,
	coalesce(r.rolname::text, 'public') AS grantee,
	p.action_type,
	p.granted_by,
	p.granted_at
FROM bulk_action_internal.permissions AS p
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = p.grantee::oid
LEFT JOIN bulk_action_internal.entities AS e ON e.entity_type = p.entity_type
LEFT JOIN pg_catalog.pg_class AS c ON c.oid = e.target::oid
WHERE (p.grantee::oid = 0 OR r.oid IS NOT NULL)
	AND (p.grantee::oid = 0
		OR pg_catalog.pg_has_role(p.grantee::oid, 'USAGE')
		OR pg_catalog.pg_has_role(c.relowner, 'USAGE')
		OR bulk_action_internal.is_admin());
COMMENT ON VIEW bulk_action.bulk_action_permissions IS
	'who may run what on an entity: what applies to the caller, and what was granted on his tables';
COMMENT ON COLUMN bulk_action.bulk_action_permissions.entity_type IS 'the registered entity';
COMMENT ON COLUMN bulk_action.bulk_action_permissions.grantee IS 'the role, or public for everybody';
COMMENT ON COLUMN bulk_action.bulk_action_permissions.action_type IS 'what it may do; bulk_upsert also stands for bulk_update and bulk_insert with options by which they do both';
COMMENT ON COLUMN bulk_action.bulk_action_permissions.granted_by IS 'who granted it, by the name of that time';
COMMENT ON COLUMN bulk_action.bulk_action_permissions.granted_at IS 'time at which it was granted';
GRANT SELECT ON bulk_action.bulk_action_permissions TO PUBLIC;
