CREATE FUNCTION bulk_action_internal.https_validator(options text[], catalog oid)
RETURNS void
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'bulk_action_https_validator';
COMMENT ON FUNCTION bulk_action_internal.https_validator(text[], oid) IS
	'checks the options of servers of bulk_action_https';

CREATE FOREIGN DATA WRAPPER bulk_action_https NO HANDLER VALIDATOR bulk_action_internal.https_validator;
COMMENT ON FOREIGN DATA WRAPPER bulk_action_https IS
	'web servers that bulk_action_submit reads from; USAGE on a server of it is the right to read from its host';
