-- Counts of every action, each term from its own source, in one statement and so in one snapshot:
-- total from the segments, outcomes from the cursors, parser errors from the segments again, and
-- what is left from the lists of chunks beyond the cursors and from the dead letters.
CREATE VIEW bulk_action_internal.counts AS
SELECT
	a.action_no,
	segment.total,
	coalesce(source.at_end, false) AS total_is_final,
	lane.updated,
	lane.inserted,
	lane.deleted,
	lane.unchanged,
	lane.not_found,
	lane.superseded,
	lane.failed + segment.parse_errors AS failed,
	waiting.row_count - lane.row_offset + dead.row_count AS unprocessed,
	CASE
		WHEN source.at_end AND segment.total = 0 THEN 100.0
		WHEN segment.total = 0 THEN 0.0
		ELSE pg_catalog.trunc(100.0 * (segment.total - waiting.row_count + lane.row_offset - dead.row_count) / segment.total
			* CASE WHEN source.at_end OR source.size = 0 THEN 1.0
				ELSE source.raw_offset::numeric / source.size END, 1)
	END AS percent
FROM bulk_action_internal.actions AS a
LEFT JOIN bulk_action_internal.sources AS source ON source.action_no = a.action_no
CROSS JOIN LATERAL (
	SELECT
		coalesce(pg_catalog.sum(s.row_count), 0)::bigint AS total,
		coalesce(pg_catalog.sum(s.parse_errors), 0)::bigint AS parse_errors
	FROM bulk_action_internal.segments AS s
	WHERE s.action_no = a.action_no
) AS segment
CROSS JOIN LATERAL (
	SELECT
		coalesce(pg_catalog.sum(c.updated), 0)::bigint AS updated,
		coalesce(pg_catalog.sum(c.inserted), 0)::bigint AS inserted,
		coalesce(pg_catalog.sum(c.deleted), 0)::bigint AS deleted,
		coalesce(pg_catalog.sum(c.unchanged), 0)::bigint AS unchanged,
		coalesce(pg_catalog.sum(c.not_found), 0)::bigint AS not_found,
		coalesce(pg_catalog.sum(c.superseded), 0)::bigint AS superseded,
		coalesce(pg_catalog.sum(c.failed), 0)::bigint AS failed,
		coalesce(pg_catalog.sum(c.row_offset), 0)::bigint AS row_offset
	FROM bulk_action_internal.cursors AS c
	WHERE c.action_no = a.action_no
) AS lane
CROSS JOIN LATERAL (
	SELECT coalesce(pg_catalog.sum(chunk.row_count), 0)::bigint AS row_count
	FROM bulk_action_internal.segments AS s
	CROSS JOIN LATERAL ROWS FROM (
		pg_catalog.unnest(s.chunk_lanes),
		pg_catalog.unnest(s.chunk_numbers),
		pg_catalog.unnest(s.chunk_rows)
	) AS chunk (lane, number, row_count)
	JOIN bulk_action_internal.cursors AS c
		ON c.action_no = a.action_no AND c.lane = chunk.lane AND c.next_chunk <= chunk.number
	WHERE s.action_no = a.action_no
) AS waiting
CROSS JOIN LATERAL (
	SELECT coalesce(pg_catalog.sum(d.row_count), 0)::bigint AS row_count
	FROM bulk_action_internal.dead_letters AS d
	WHERE d.action_no = a.action_no
) AS dead;
COMMENT ON VIEW bulk_action_internal.counts IS 'live counts of every action that has not ended';

-- What the public views are made of: the caller's actions with live counts, or with the final ones.
-- Which they are, may_see says (visibility.sql).
CREATE VIEW bulk_action_internal.action_statistics WITH (security_barrier) AS
SELECT
	a.id AS action_id,
	a.state,
	n.total,
	n.total_is_final,
	n.updated + n.inserted + n.deleted + n.unchanged AS success,
	n.failed,
	n.updated,
	n.inserted,
	n.deleted,
	n.unchanged,
	n.not_found,
	n.superseded,
	n.unprocessed,
	n.percent,
	pg_catalog.round((n.total - n.unprocessed) / nullif(extract(epoch FROM t.running), 0), 0)
		AS rows_per_second,
	CASE WHEN a.finished_at IS NULL AND n.percent > 0 THEN
		pg_catalog.date_trunc('second', t.running * ((100 - n.percent) / n.percent)::double precision)
	END AS eta,
	a.submitted_at,
	a.started_at,
	a.finished_at,
	a.trace_id,
	a.error_code,
	a.error_message,
	a.action_no
FROM bulk_action_internal.actions AS a
CROSS JOIN LATERAL (
	SELECT c.total, c.total_is_final, c.updated, c.inserted, c.deleted, c.unchanged, c.not_found,
		c.superseded, c.failed, c.unprocessed, c.percent
	FROM bulk_action_internal.counts AS c
	WHERE c.action_no = a.action_no AND a.state IN ('queued', 'running', 'paused')
	UNION ALL
	SELECT f.total, f.total_is_final, f.updated, f.inserted, f.deleted, f.unchanged, f.not_found,
		f.superseded, f.failed, f.unprocessed, f.percent
	FROM bulk_action_internal.stats AS f
	WHERE f.action_no = a.action_no AND a.state IN ('completed', 'cancelled', 'failed')
) AS n
CROSS JOIN LATERAL (
	SELECT coalesce(a.finished_at, pg_catalog.clock_timestamp()) - a.started_at AS running
) AS t
WHERE bulk_action_internal.may_see(a.submitted_role, a.account_id);
COMMENT ON VIEW bulk_action_internal.action_statistics IS 'the caller''s actions with their counts';

CREATE VIEW bulk_action.bulk_actions WITH (security_barrier) AS
SELECT
	a.id,
	a.action_type,
	a.entity_type,
	a.account_id,
	a.metadata,
	a.state,
	a.options @> '{"dry_run": true}' AS dry_run,
	a.source,
	a.options,
	a.trace_id,
	a.idempotency_key,
	a.parent_id,
	a.submitted_by,
	a.submitted_at,
	a.started_at,
	a.finished_at,
	a.error_code,
	a.error_message,
	a.error_detail,
	a.error_hint
FROM bulk_action_internal.actions AS a
WHERE bulk_action_internal.may_see(a.submitted_role, a.account_id);
COMMENT ON VIEW bulk_action.bulk_actions IS 'the caller''s bulk actions';
COMMENT ON COLUMN bulk_action.bulk_actions.id IS 'what bulk_action_submit returned';
COMMENT ON COLUMN bulk_action.bulk_actions.action_type IS 'what is done with each row: bulk_update, bulk_insert, bulk_upsert or bulk_delete';
COMMENT ON COLUMN bulk_action.bulk_actions.entity_type IS 'the registered entity that is changed';
COMMENT ON COLUMN bulk_action.bulk_actions.account_id IS
	'account of the action; actions of one account on one entity run one after the other';
COMMENT ON COLUMN bulk_action.bulk_actions.metadata IS 'the caller''s own notes, untouched';
COMMENT ON COLUMN bulk_action.bulk_actions.state IS 'queued, running, paused, completed, cancelled or failed';
COMMENT ON COLUMN bulk_action.bulk_actions.dry_run IS 'option dry_run: the rows were tried, and nothing was changed';
COMMENT ON COLUMN bulk_action.bulk_actions.source IS 'URI of the file; ?... stands for the query of a URL';
COMMENT ON COLUMN bulk_action.bulk_actions.options IS 'options given at submit; max_errors as bulk_action_retry has changed it';
COMMENT ON COLUMN bulk_action.bulk_actions.trace_id IS 'the caller''s id for tracing, repeated by bulk_action_stat';
COMMENT ON COLUMN bulk_action.bulk_actions.idempotency_key IS 'submitting again with the same key returns the same action';
COMMENT ON COLUMN bulk_action.bulk_actions.parent_id IS
	'the action whose error report this file is; it may have been purged';
COMMENT ON COLUMN bulk_action.bulk_actions.submitted_by IS 'role whose privileges the action has';
COMMENT ON COLUMN bulk_action.bulk_actions.submitted_at IS 'time of submission';
COMMENT ON COLUMN bulk_action.bulk_actions.started_at IS 'time at which the coordinator gave it to the workers';
COMMENT ON COLUMN bulk_action.bulk_actions.finished_at IS 'time at which it was completed, cancelled or failed';
COMMENT ON COLUMN bulk_action.bulk_actions.error_code IS 'SQLSTATE of what ended the action, if it failed, or put it to rest, if it is paused for trouble';
COMMENT ON COLUMN bulk_action.bulk_actions.error_message IS 'what ended the action or put it to rest';
COMMENT ON COLUMN bulk_action.bulk_actions.error_detail IS 'detail of error_message';
COMMENT ON COLUMN bulk_action.bulk_actions.error_hint IS 'what to do about error_message';

CREATE VIEW bulk_action.bulk_action_stats WITH (security_barrier) AS
SELECT
	s.action_no AS id,
	a.id AS action_id,
	s.total,
	s.failed,
	s.updated + s.inserted + s.deleted + s.unchanged AS success,
	pg_catalog.jsonb_build_object(
		'updated', s.updated,
		'inserted', s.inserted,
		'deleted', s.deleted,
		'unchanged', s.unchanged,
		'not_found', s.not_found,
		'superseded', s.superseded,
		'unprocessed', s.unprocessed,
		'total_is_final', s.total_is_final,
		'percent', s.percent,
		'recorded_at', s.recorded_at
	) AS metadata
FROM bulk_action_internal.stats AS s
JOIN bulk_action_internal.actions AS a ON a.action_no = s.action_no
WHERE bulk_action_internal.may_see(a.submitted_role, a.account_id);
COMMENT ON VIEW bulk_action.bulk_action_stats IS
	'counts per action as last recorded: about once a second while it runs, exact once it has ended';
COMMENT ON COLUMN bulk_action.bulk_action_stats.id IS 'a number; actions submitted later have a greater one';
COMMENT ON COLUMN bulk_action.bulk_action_stats.action_id IS 'id of the action';
COMMENT ON COLUMN bulk_action.bulk_action_stats.total IS 'rows read from the file so far';
COMMENT ON COLUMN bulk_action.bulk_action_stats.failed IS 'rows that failed; bulk_action_errors says why';
COMMENT ON COLUMN bulk_action.bulk_action_stats.success IS 'rows updated, inserted, deleted or found unchanged';
COMMENT ON COLUMN bulk_action.bulk_action_stats.metadata IS 'every other outcome by name, percent, and when this was recorded';

CREATE VIEW bulk_action.bulk_action_errors WITH (security_barrier) AS
SELECT
	a.id AS action_id,
	e.line,
	e.error_code,
	e.error_column,
	e.error_message,
	e.record
FROM bulk_action_internal.errors AS e
JOIN bulk_action_internal.actions AS a ON a.action_no = e.action_no
WHERE bulk_action_internal.may_see(a.submitted_role, a.account_id);
COMMENT ON VIEW bulk_action.bulk_action_errors IS 'one row per row of a file that failed';
COMMENT ON COLUMN bulk_action.bulk_action_errors.action_id IS 'id of the action';
COMMENT ON COLUMN bulk_action.bulk_action_errors.line IS 'line of the file at which the row begins; the first line is 1';
COMMENT ON COLUMN bulk_action.bulk_action_errors.error_code IS 'SQLSTATE';
COMMENT ON COLUMN bulk_action.bulk_action_errors.error_column IS 'the column at fault, where it is known';
COMMENT ON COLUMN bulk_action.bulk_action_errors.error_message IS 'what is wrong with the row';
COMMENT ON COLUMN bulk_action.bulk_action_errors.record IS
	'the row as it stands in the file; of a file that is something else than CSV with commas, written anew as that';

CREATE VIEW bulk_action.bulk_action_superseded_rows WITH (security_barrier) AS
SELECT
	a.id AS action_id,
	s.line,
	s.superseded_by,
	s.record
FROM bulk_action_internal.superseded AS s
JOIN bulk_action_internal.actions AS a ON a.action_no = s.action_no
WHERE bulk_action_internal.may_see(a.submitted_role, a.account_id);
COMMENT ON VIEW bulk_action.bulk_action_superseded_rows IS
	'one row per row of a file that was not applied because another row of the file has the same key';
COMMENT ON COLUMN bulk_action.bulk_action_superseded_rows.action_id IS 'id of the action';
COMMENT ON COLUMN bulk_action.bulk_action_superseded_rows.line IS 'line of the file at which the row begins';
COMMENT ON COLUMN bulk_action.bulk_action_superseded_rows.superseded_by IS
	'line of the row that won: the last or the first with this key, as option duplicates says';
COMMENT ON COLUMN bulk_action.bulk_action_superseded_rows.record IS
	'the row as it stands in the file; of a file that is something else than CSV with commas, written anew as that';

-- The file that is shown can be submitted as it is: a column called _line is ignored.
CREATE VIEW bulk_action.bulk_action_dead_letters WITH (security_barrier) AS
SELECT
	a.id AS action_id,
	d.lane,
	d.chunk_no AS chunk,
	d.row_count,
	pg_catalog.split_part(d.payload, ',', 1)::bigint AS first_line,
	d.attempts,
	'57P02' AS error_code,
	'the server crashed each time this chunk was applied, with nothing beside it' AS error_message,
	d.created_at,
	'_line,' || source.header || E'\n' || d.payload AS csv
FROM bulk_action_internal.dead_letters AS d
JOIN bulk_action_internal.actions AS a ON a.action_no = d.action_no
JOIN bulk_action_internal.sources AS source ON source.action_no = d.action_no
WHERE bulk_action_internal.may_see(a.submitted_role, a.account_id);
COMMENT ON VIEW bulk_action.bulk_action_dead_letters IS
	'chunks that crash the server; their rows count as unprocessed';
COMMENT ON COLUMN bulk_action.bulk_action_dead_letters.action_id IS 'id of the action';
COMMENT ON COLUMN bulk_action.bulk_action_dead_letters.lane IS 'the part of the key space that the chunk belongs to';
COMMENT ON COLUMN bulk_action.bulk_action_dead_letters.chunk IS 'its number in the lane';
COMMENT ON COLUMN bulk_action.bulk_action_dead_letters.row_count IS 'rows of it that were not applied';
COMMENT ON COLUMN bulk_action.bulk_action_dead_letters.first_line IS 'line of the file at which the first of them begins';
COMMENT ON COLUMN bulk_action.bulk_action_dead_letters.attempts IS
	'times the server crashed while only this chunk was being applied';
COMMENT ON COLUMN bulk_action.bulk_action_dead_letters.error_code IS 'SQLSTATE';
COMMENT ON COLUMN bulk_action.bulk_action_dead_letters.error_message IS 'what happened; the server''s log says more';
COMMENT ON COLUMN bulk_action.bulk_action_dead_letters.created_at IS 'time at which it was given up';
COMMENT ON COLUMN bulk_action.bulk_action_dead_letters.csv IS
	'the rows as a CSV file that can be submitted: the source''s header and rows, with the line in column _line';

CREATE VIEW bulk_action.bulk_action_progress WITH (security_barrier) AS
SELECT
	s.action_id,
	a.entity_type,
	a.account_id,
	s.state,
	'[' || pg_catalog.repeat('#', pg_catalog.trunc(s.percent / 5)::integer)
		|| pg_catalog.repeat('.', 20 - pg_catalog.trunc(s.percent / 5)::integer) || ']' AS bar,
	s.percent,
	s.rows_per_second,
	s.eta,
	s.total,
	s.failed,
	a.source
FROM bulk_action_internal.action_statistics AS s
JOIN bulk_action_internal.actions AS a ON a.action_no = s.action_no;
COMMENT ON VIEW bulk_action.bulk_action_progress IS 'a progress bar for each of the caller''s actions';
COMMENT ON COLUMN bulk_action.bulk_action_progress.action_id IS 'id of the action';
COMMENT ON COLUMN bulk_action.bulk_action_progress.entity_type IS 'the entity that is changed';
COMMENT ON COLUMN bulk_action.bulk_action_progress.account_id IS 'account of the action';
COMMENT ON COLUMN bulk_action.bulk_action_progress.state IS 'queued, running, paused, completed, cancelled or failed';
COMMENT ON COLUMN bulk_action.bulk_action_progress.bar IS 'percent as twenty characters';
COMMENT ON COLUMN bulk_action.bulk_action_progress.percent IS 'share done, by bytes until the end of the file is known, then by rows';
COMMENT ON COLUMN bulk_action.bulk_action_progress.rows_per_second IS 'mean since the action started';
COMMENT ON COLUMN bulk_action.bulk_action_progress.eta IS 'time left at this pace';
COMMENT ON COLUMN bulk_action.bulk_action_progress.total IS 'rows read from the file so far';
COMMENT ON COLUMN bulk_action.bulk_action_progress.failed IS 'rows that failed so far';
COMMENT ON COLUMN bulk_action.bulk_action_progress.source IS 'URI of the file; ?... stands for the query of a URL';
