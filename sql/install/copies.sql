-- Which database this is: a copy of it (restored, cloned, made by CREATE DATABASE ... TEMPLATE) has
-- the same tables, and another identity.
CREATE FUNCTION bulk_action_internal.this_database()
RETURNS text
LANGUAGE c STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'bulk_action_this_database';
COMMENT ON FUNCTION bulk_action_internal.this_database() IS
	'system identifier of the server and oid of the database, which no copy has both of';

CREATE FUNCTION bulk_action.bulk_action_adopt()
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bulk_action_adopt';
COMMENT ON FUNCTION bulk_action.bulk_action_adopt() IS
	'in a copy of a database: makes the actions of the original this database''s own, so that they go on; returns how many. For the owner of the database';
