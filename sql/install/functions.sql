CREATE FUNCTION bulk_action.bulk_action_submit(
	source text,
	action_type text DEFAULT 'bulk_update',
	entity_type text DEFAULT 'contact',
	options jsonb DEFAULT '{}',
	metadata jsonb DEFAULT '{}',
	account_id text DEFAULT NULL,
	idempotency_key text DEFAULT NULL,
	trace_id text DEFAULT NULL,
	parent_id uuid DEFAULT NULL)
RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bulk_action_submit';
COMMENT ON FUNCTION bulk_action.bulk_action_submit(text, text, text, jsonb, jsonb, text, text, text, uuid) IS
	'submits a file to be applied to an entity; returns the id of the action at once';

CREATE FUNCTION bulk_action.bulk_action_cancel(action_id uuid)
RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bulk_action_cancel';
COMMENT ON FUNCTION bulk_action.bulk_action_cancel(uuid) IS
	'asks for an action to be cancelled; rows already applied stay. False if the action has ended already';

CREATE FUNCTION bulk_action.bulk_action_pause(action_id uuid)
RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bulk_action_pause';
COMMENT ON FUNCTION bulk_action.bulk_action_pause(uuid) IS
	'asks for an action to be paused. False if it is paused already, an error if it has ended';

CREATE FUNCTION bulk_action.bulk_action_resume(action_id uuid)
RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bulk_action_resume';
COMMENT ON FUNCTION bulk_action.bulk_action_resume(uuid) IS
	'asks for a paused action to go on. False if it is not paused, an error if it has ended';

CREATE FUNCTION bulk_action.bulk_action_retry(action_id uuid, max_errors jsonb DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bulk_action_retry';
COMMENT ON FUNCTION bulk_action.bulk_action_retry(uuid, jsonb) IS
	'asks for the unprocessed rows of a failed action to be taken up, as if it were submitted now. False if that has been done, an error if it did not fail';

CREATE FUNCTION bulk_action.bulk_action_purge(older_than interval DEFAULT '30 days')
RETURNS bigint
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bulk_action_purge';
COMMENT ON FUNCTION bulk_action.bulk_action_purge(interval) IS
	'forgets the caller''s actions that ended longer ago than this, with their statistics and errors; returns how many';

-- PostgREST sends what a function returns as it is if its type is called like the media type.
CREATE DOMAIN bulk_action."text/csv" AS text;
COMMENT ON DOMAIN bulk_action."text/csv" IS 'a CSV file';

CREATE FUNCTION bulk_action.bulk_action_error_report(
	action_id uuid,
	neutralize boolean DEFAULT false,
	after_line bigint DEFAULT 0,
	max_rows bigint DEFAULT NULL)
RETURNS bulk_action."text/csv"
LANGUAGE c STABLE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bulk_action_error_report';
COMMENT ON FUNCTION bulk_action.bulk_action_error_report(uuid, boolean, bigint, bigint) IS
	'the failed rows of an action as CSV, with what is wrong with each, to be corrected and submitted again';

CREATE FUNCTION bulk_action.bulk_action_register_entity(
	entity_type text,
	target regclass,
	key_columns text[],
	update_columns text[] DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bulk_action_register_entity';
COMMENT ON FUNCTION bulk_action.bulk_action_register_entity(text, regclass, text[], text[]) IS
	'makes a table of the caller''s the target of an entity type, or changes what it may set';

CREATE FUNCTION bulk_action.bulk_action_unregister_entity(entity_type text)
RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bulk_action_unregister_entity';
COMMENT ON FUNCTION bulk_action.bulk_action_unregister_entity(text) IS
	'forgets an entity type and what was granted on it; actions that the owner of its table has submitted go on';

CREATE PROCEDURE bulk_action.bulk_action_wait(action_id uuid, timeout interval DEFAULT '1 day')
LANGUAGE c
AS 'MODULE_PATHNAME', 'bulk_action_wait';
COMMENT ON PROCEDURE bulk_action.bulk_action_wait(uuid, interval) IS
	'waits until an action has ended, showing its progress as notices';

CREATE FUNCTION bulk_action.bulk_action_stat(
	action_id uuid,
	OUT state text,
	OUT total bigint,
	OUT total_is_final boolean,
	OUT success bigint,
	OUT failed bigint,
	OUT updated bigint,
	OUT inserted bigint,
	OUT deleted bigint,
	OUT unchanged bigint,
	OUT not_found bigint,
	OUT superseded bigint,
	OUT unprocessed bigint,
	OUT percent numeric,
	OUT rows_per_second numeric,
	OUT eta interval,
	OUT submitted_at timestamptz,
	OUT started_at timestamptz,
	OUT finished_at timestamptz,
	OUT trace_id text,
	OUT error_code text,
	OUT error_message text)
RETURNS SETOF record
LANGUAGE sql STABLE STRICT PARALLEL SAFE ROWS 1
BEGIN ATOMIC
	SELECT
		s.state, s.total, s.total_is_final, s.success, s.failed, s.updated, s.inserted, s.deleted,
		s.unchanged, s.not_found, s.superseded, s.unprocessed, s.percent, s.rows_per_second, s.eta,
		s.submitted_at, s.started_at, s.finished_at, s.trace_id, s.error_code, s.error_message
	FROM bulk_action_internal.action_statistics AS s
	WHERE s.action_id = bulk_action_stat.action_id;
END;
COMMENT ON FUNCTION bulk_action.bulk_action_stat(uuid) IS
	'state and counts of an action, live and exact; no row if there is no such action or it is not the caller''s';
