-- One row per submitted file. Clients only insert (through bulk_action_submit); from then on
-- only the coordinator changes a row, so that nobody ever waits for anybody's row lock.
CREATE TABLE bulk_action_internal.actions (
	action_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	id uuid NOT NULL UNIQUE DEFAULT pg_catalog.gen_random_uuid(),
	action_type text NOT NULL,
	entity_type text NOT NULL,
	account_id text NOT NULL,
	metadata jsonb NOT NULL,
	options jsonb NOT NULL,
	source text NOT NULL,
	source_query text,
	server name,
	trace_id text,
	idempotency_key text,
	parent_id uuid,
	submitted_role oid NOT NULL,
	submitted_by name NOT NULL,
	session_role oid NOT NULL,
	settings text[] NOT NULL,
	target regclass NOT NULL,
	target_schema name NOT NULL,
	target_name name NOT NULL,
	key_columns name[] NOT NULL,
	update_columns name[],
	origin text NOT NULL DEFAULT bulk_action_internal.this_database(),
	state text NOT NULL DEFAULT 'queued'
		CHECK (state IN ('queued', 'running', 'paused', 'completed', 'cancelled', 'failed')),
	stream_position bigint,
	submitted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	started_at timestamptz,
	finished_at timestamptz,
	error_code text,
	error_message text,
	error_detail text,
	error_hint text
) WITH (fillfactor = 80);
COMMENT ON TABLE bulk_action_internal.actions IS 'one row per submitted action';
COMMENT ON COLUMN bulk_action_internal.actions.action_no IS 'order of submission, and the short key of the internal tables';
COMMENT ON COLUMN bulk_action_internal.actions.source_query IS
	'what source has ?... for: the query of a URL, a credential; forgotten when the file will not be read any more';
COMMENT ON COLUMN bulk_action_internal.actions.parent_id IS
	'the action whose error report the file is; no reference, because that may be purged before this one';
COMMENT ON COLUMN bulk_action_internal.actions.settings IS 'what was captured at submit: name, value, name, value ...';
COMMENT ON COLUMN bulk_action_internal.actions.origin IS
	'database that it was submitted in, or that has adopted it; a copy of that database leaves it alone';
COMMENT ON COLUMN bulk_action_internal.actions.stream_position IS
	'place in the stream (account, entity), given by the coordinator when it first sees the action committed, or retried';
CREATE UNIQUE INDEX actions_idempotency ON bulk_action_internal.actions
	(submitted_role, account_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX actions_unfinished ON bulk_action_internal.actions (action_no)
	WHERE state IN ('queued', 'running', 'paused');
CREATE INDEX actions_ended ON bulk_action_internal.actions (finished_at)
	WHERE state IN ('completed', 'cancelled', 'failed');
CREATE SEQUENCE bulk_action_internal.stream_positions;

-- Actions that ended long ago disappear at once, their rows in other tables piece by piece.
CREATE TABLE bulk_action_internal.forgotten (
	action_no bigint PRIMARY KEY
);
COMMENT ON TABLE bulk_action_internal.forgotten IS
	'numbers of actions that are gone (bulk_action.retention), until all that belongs to them is, too';

-- What workers report and callers ask for; consumed (deleted) by the coordinator.
CREATE TABLE bulk_action_internal.events (
	event_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	action_no bigint NOT NULL,
	kind text NOT NULL CHECK (kind IN ('cancel', 'pause', 'resume', 'retry', 'adopt', 'failed', 'trouble')),
	options jsonb,
	error_code text,
	error_message text,
	error_detail text,
	error_hint text,
	created_by name NOT NULL DEFAULT session_user,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE bulk_action_internal.events IS 'requests of callers and reports of workers, until the coordinator has acted on them';
COMMENT ON COLUMN bulk_action_internal.events.kind IS
	'cancel, pause, resume, retry, adopt: asked for by a caller; failed, trouble: reported by a worker, to end or to pause the action';
COMMENT ON COLUMN bulk_action_internal.events.options IS 'with retry: options of the action that change';

-- Counts of an action, written by the coordinator about once a second and, exact, when it ends.
CREATE TABLE bulk_action_internal.stats (
	action_no bigint PRIMARY KEY,
	total bigint NOT NULL,
	total_is_final boolean NOT NULL,
	updated bigint NOT NULL,
	inserted bigint NOT NULL,
	deleted bigint NOT NULL,
	unchanged bigint NOT NULL,
	not_found bigint NOT NULL,
	superseded bigint NOT NULL,
	failed bigint NOT NULL,
	unprocessed bigint NOT NULL,
	percent numeric NOT NULL,
	recorded_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE bulk_action_internal.stats IS 'counts per action as last recorded; final once the action has ended';
