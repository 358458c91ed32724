-- bulk_action_cancel, _pause, _resume, _retry in every state, also where something is asked for already.
-- The actions are put into the table by hand and rolled back, so that no process ever sees them.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS bulk_action;
RESET client_min_messages;
SET search_path = public, bulk_action;

CREATE FUNCTION ask(function text, state text, pending text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	given boolean;
	requests text;
	detail text;
	hint text;
BEGIN
	INSERT INTO bulk_action_internal.actions (id, action_type, entity_type, account_id, metadata, options, source,
		submitted_role, submitted_by, session_role, settings, target, target_schema, target_name, key_columns, state, finished_at)
	SELECT '00000000-0000-0000-0000-000000000001', 'bulk_upsert', 'contact', 'acme', '{}', '{}', 's3://imports/contacts.csv',
		r, r::text, r, '{}', 'pg_class'::regclass, 'pg_catalog', 'pg_class', '{oid}', state, CASE WHEN state IN ('completed', 'cancelled', 'failed') THEN now() END
	FROM (SELECT current_user::regrole AS r) AS me;
	IF pending <> 'nothing' THEN
		INSERT INTO bulk_action_internal.events (action_no, kind) SELECT action_no, pending FROM bulk_action_internal.actions WHERE id = '00000000-0000-0000-0000-000000000001';
	END IF;
	EXECUTE format('SELECT bulk_action.bulk_action_%s($1)', function) INTO given USING '00000000-0000-0000-0000-000000000001'::uuid;
	SELECT string_agg(kind, ', ' ORDER BY event_no) INTO requests FROM bulk_action_internal.events;
	RAISE EXCEPTION USING ERRCODE = 'RB000', MESSAGE = given || coalesce(': ' || requests, '');
EXCEPTION
	WHEN SQLSTATE 'RB000' THEN
		RETURN SQLERRM;
	WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		RETURN concat_ws(' | ', SQLSTATE || ' ' || SQLERRM, nullif(detail, ''), hint);
END $$;

-- what the caller is told, and what is asked for afterwards
SELECT function, state, ask(function, state, 'nothing')
FROM unnest(ARRAY['cancel', 'pause', 'resume', 'retry']) WITH ORDINALITY AS f (function, i),
	unnest(ARRAY['queued', 'running', 'paused', 'completed', 'cancelled', 'failed']) WITH ORDINALITY AS s (state, j)
ORDER BY i, j;

-- where something is asked for already: the state is still what it was
SELECT pending, state, ask('cancel', state, pending) AS cancel, ask('pause', state, pending) AS pause, ask('resume', state, pending) AS resume,
	ask('retry', state, pending) AS retry
FROM (VALUES (1, 'running', 'pause'), (2, 'running', 'cancel'), (3, 'paused', 'resume'), (4, 'paused', 'cancel'), (5, 'failed', 'retry')) AS c (n, state, pending)
ORDER BY n \gx

-- nothing that can be asked of what is not there, or of nothing
SELECT bulk_action_pause('00000000-0000-0000-0000-000000000009');
\echo :SQLSTATE
SELECT bulk_action_resume('00000000-0000-0000-0000-000000000009');
\echo :SQLSTATE
SELECT bulk_action_retry('00000000-0000-0000-0000-000000000009');
\echo :SQLSTATE
SELECT bulk_action_pause(NULL), bulk_action_resume(NULL), bulk_action_retry(NULL);
BEGIN READ ONLY;
SELECT bulk_action_pause('00000000-0000-0000-0000-000000000001');
\echo :SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT bulk_action_resume('00000000-0000-0000-0000-000000000001');
\echo :SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT bulk_action_retry('00000000-0000-0000-0000-000000000001');
\echo :SQLSTATE
ROLLBACK;

SET client_min_messages = warning;
DROP FUNCTION ask;
DROP EXTENSION bulk_action CASCADE;
