CREATE FUNCTION bulk_action.bulk_action_preview(
	source text,
	action_type text DEFAULT 'bulk_update',
	entity_type text DEFAULT 'contact',
	options jsonb DEFAULT '{}',
	rows integer DEFAULT 20)
RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bulk_action_preview';
COMMENT ON FUNCTION bulk_action.bulk_action_preview(text, text, text, jsonb, integer) IS
	'reads the beginning of a file and tells what its columns are for, what its first rows become, and what is wrong with it; changes nothing';
