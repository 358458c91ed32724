CREATE FUNCTION bulk_action_internal.s3_validator(options text[], catalog oid)
RETURNS void
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'bulk_action_s3_validator';
COMMENT ON FUNCTION bulk_action_internal.s3_validator(text[], oid) IS
	'checks the options of servers and user mappings of bulk_action_s3';

CREATE FOREIGN DATA WRAPPER bulk_action_s3 NO HANDLER VALIDATOR bulk_action_internal.s3_validator;
COMMENT ON FOREIGN DATA WRAPPER bulk_action_s3 IS
	'S3 storage that bulk_action_submit reads from; USAGE on a server of it is the right to read its bucket';
