-- Registered target tables. Configuration: pg_dump keeps it (see grants.sql).
CREATE TABLE bulk_action_internal.entities (
	entity_type text PRIMARY KEY,
	target regclass NOT NULL,
	target_schema name NOT NULL,
	target_name name NOT NULL,
	key_columns name[] NOT NULL,
	update_columns name[],
	registered_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE bulk_action_internal.entities IS 'target tables by entity type';
COMMENT ON COLUMN bulk_action_internal.entities.target_schema IS
	'schema and name are stored besides the oid and compared with it at run time';
COMMENT ON COLUMN bulk_action_internal.entities.update_columns IS
	'columns that a file may set; NULL: every column that is not in the key, not generated and not identity GENERATED ALWAYS';
