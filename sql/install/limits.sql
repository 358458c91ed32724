-- What an account or a role may take of the server. Configuration: pg_dump keeps it, so roles stand
-- in it by name.
CREATE TABLE bulk_action_internal.limits (
	kind text NOT NULL CHECK (kind IN ('account', 'role')),
	name text CHECK (name <> ''),
	submissions_per_minute integer CHECK (submissions_per_minute > 0),
	concurrent_actions integer CHECK (concurrent_actions > 0),
	queued_actions integer CHECK (queued_actions > 0),
	rows_per_second integer CHECK (rows_per_second > 0),
	max_bytes bigint CHECK (max_bytes > 0),
	max_rows bigint CHECK (max_rows > 0),
	UNIQUE NULLS NOT DISTINCT (kind, name)
);
COMMENT ON TABLE bulk_action_internal.limits IS 'limits by account and by role; NULL: no limit';
COMMENT ON COLUMN bulk_action_internal.limits.name IS
	'account_id, or name of the role that submits; NULL: every one that has no row of its own';
SELECT pg_catalog.pg_extension_config_dump('bulk_action_internal.limits', '');

-- Submit counts by these, and however many actions there have been, it looks at no more of them than
-- the limit allows.
CREATE INDEX actions_by_account ON bulk_action_internal.actions (account_id, submitted_at);
CREATE INDEX actions_by_role ON bulk_action_internal.actions (submitted_role, submitted_at);
CREATE INDEX actions_unfinished_by_account ON bulk_action_internal.actions (account_id)
	WHERE state IN ('queued', 'running', 'paused');
CREATE INDEX actions_unfinished_by_role ON bulk_action_internal.actions (submitted_role)
	WHERE state IN ('queued', 'running', 'paused');

CREATE FUNCTION bulk_action_internal.limits_of(kind text, name text)
RETURNS SETOF bulk_action_internal.limits
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
	SELECT own.* FROM bulk_action_internal.limits AS own
	WHERE own.kind = limits_of.kind AND own.name = limits_of.name COLLATE "default"
	UNION ALL
	SELECT others.* FROM bulk_action_internal.limits AS others
	WHERE others.kind = limits_of.kind AND others.name IS NULL
	ORDER BY name LIMIT 1;
END;
COMMENT ON FUNCTION bulk_action_internal.limits_of(text, text) IS
	'the row that counts for an account or a role: its own, else that for all others, else none';

CREATE FUNCTION bulk_action.bulk_action_set_limits(
	kind text,
	name text DEFAULT NULL,
	submissions_per_minute integer DEFAULT NULL,
	concurrent_actions integer DEFAULT NULL,
	queued_actions integer DEFAULT NULL,
	rows_per_second integer DEFAULT NULL,
	max_bytes bigint DEFAULT NULL,
	max_rows bigint DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bulk_action_set_limits';
COMMENT ON FUNCTION bulk_action.bulk_action_set_limits(text, text, integer, integer, integer, integer, bigint, bigint) IS
	'sets all limits of an account, a role, or of all that have none of their own; NULL: no limit';

CREATE FUNCTION bulk_action.bulk_action_clear_limits(kind text, name text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bulk_action_clear_limits';
COMMENT ON FUNCTION bulk_action.bulk_action_clear_limits(text, text) IS
	'takes back what bulk_action_set_limits has set, so that the limits for all others count. False if there was nothing';

-- Names of roles are compared by the collation of the index (that of type name is another one).
-- What is configured, and whoever has something unfinished. The names of other people's accounts are
-- not for everybody: a caller sees the one that his claims name, and without claims those that he has
-- submitted for. With claims he may not see an action of his role that is of no account (''), so he is
-- not shown what all of the role have used.
CREATE VIEW bulk_action.bulk_action_limits WITH (security_barrier) AS
SELECT
	subject.kind,
	subject.name,
	own.kind IS NULL AS is_default,
	CASE WHEN own.kind IS NULL THEN others.submissions_per_minute ELSE own.submissions_per_minute END AS submissions_per_minute,
	used.submitted AS submitted_last_minute,
	CASE WHEN own.kind IS NULL THEN others.concurrent_actions ELSE own.concurrent_actions END AS concurrent_actions,
	used.running,
	CASE WHEN own.kind IS NULL THEN others.queued_actions ELSE own.queued_actions END AS queued_actions,
	used.waiting,
	CASE WHEN own.kind IS NULL THEN others.rows_per_second ELSE own.rows_per_second END AS rows_per_second,
	CASE WHEN own.kind IS NULL THEN others.max_bytes ELSE own.max_bytes END AS max_bytes,
	CASE WHEN own.kind IS NULL THEN others.max_rows ELSE own.max_rows END AS max_rows
FROM (
	SELECT l.kind, l.name FROM bulk_action_internal.limits AS l
	UNION
	SELECT 'account', a.account_id FROM bulk_action_internal.actions AS a
	WHERE a.state IN ('queued', 'running', 'paused')
	UNION
	SELECT 'role', pg_catalog.pg_get_userbyid(a.submitted_role)::text COLLATE "default" FROM bulk_action_internal.actions AS a
	WHERE a.state IN ('queued', 'running', 'paused')
	UNION
	SELECT mine.kind, current_user::text COLLATE "default" FROM (VALUES ('account'), ('role')) AS mine (kind)
) AS subject
LEFT JOIN bulk_action_internal.limits AS own
	ON own.kind = subject.kind AND own.name = subject.name
LEFT JOIN bulk_action_internal.limits AS others ON others.kind = subject.kind AND others.name IS NULL
CROSS JOIN (SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user) AS me
LEFT JOIN pg_catalog.pg_roles AS role ON subject.kind = 'role' AND role.rolname = subject.name
LEFT JOIN LATERAL (
	SELECT
		(SELECT pg_catalog.count(*) FROM bulk_action_internal.actions AS a
			WHERE a.account_id = subject.name AND a.submitted_at > pg_catalog.now() - interval '1 minute') AS submitted,
		(SELECT pg_catalog.count(*) FROM bulk_action_internal.actions AS a
			WHERE a.account_id = subject.name AND a.state = 'running') AS running,
		(SELECT pg_catalog.count(*) FROM bulk_action_internal.actions AS a
			WHERE a.account_id = subject.name AND a.state IN ('queued', 'paused')) AS waiting
	WHERE subject.kind = 'account'
	UNION ALL
	SELECT
		(SELECT pg_catalog.count(*) FROM bulk_action_internal.actions AS a
			WHERE a.submitted_role = role.oid AND a.submitted_at > pg_catalog.now() - interval '1 minute'),
		(SELECT pg_catalog.count(*) FROM bulk_action_internal.actions AS a
			WHERE a.submitted_role = role.oid AND a.state = 'running'),
		(SELECT pg_catalog.count(*) FROM bulk_action_internal.actions AS a
			WHERE a.submitted_role = role.oid AND a.state IN ('queued', 'paused'))
	WHERE subject.kind = 'role' AND bulk_action_internal.may_see(role.oid, '')
) AS used ON subject.name IS NOT NULL
WHERE (own.kind IS NOT NULL OR others.kind IS NOT NULL) AND (
	subject.name IS NULL
	OR bulk_action_internal.is_admin()
	OR (subject.kind = 'role' AND pg_catalog.pg_has_role(role.oid, 'USAGE'))
	OR (subject.kind = 'account' AND bulk_action_internal.may_see(me.oid, subject.name)
		AND (subject.name = current_user OR NOT bulk_action_internal.may_see(me.oid, '') OR EXISTS (
			SELECT FROM bulk_action_internal.actions AS a
			WHERE a.account_id = subject.name AND bulk_action_internal.may_see(a.submitted_role, a.account_id)))));
COMMENT ON VIEW bulk_action.bulk_action_limits IS
	'limits that apply to the caller, or for an admin all, and how much of them is used';
COMMENT ON COLUMN bulk_action.bulk_action_limits.kind IS 'account or role';
COMMENT ON COLUMN bulk_action.bulk_action_limits.name IS
	'account_id, or name of the role that submits; NULL: all that have no limits of their own';
COMMENT ON COLUMN bulk_action.bulk_action_limits.is_default IS 'there are no limits of its own: these are those of all others';
COMMENT ON COLUMN bulk_action.bulk_action_limits.submissions_per_minute IS 'actions that may be submitted in any 60 seconds';
COMMENT ON COLUMN bulk_action.bulk_action_limits.submitted_last_minute IS 'actions submitted in the last 60 seconds';
COMMENT ON COLUMN bulk_action.bulk_action_limits.concurrent_actions IS
	'actions that are worked on at once; others wait as queued';
COMMENT ON COLUMN bulk_action.bulk_action_limits.running IS 'actions that are running';
COMMENT ON COLUMN bulk_action.bulk_action_limits.queued_actions IS
	'actions that may be queued or paused; no more are taken in';
COMMENT ON COLUMN bulk_action.bulk_action_limits.waiting IS 'actions that are queued or paused';
COMMENT ON COLUMN bulk_action.bulk_action_limits.rows_per_second IS 'pace at which rows are applied, all actions together';
COMMENT ON COLUMN bulk_action.bulk_action_limits.max_bytes IS 'bytes that a file may have';
COMMENT ON COLUMN bulk_action.bulk_action_limits.max_rows IS 'rows that a file may have';
GRANT SELECT ON bulk_action.bulk_action_limits TO PUBLIC;
