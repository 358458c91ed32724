-- Where chunking stands: one row per action, changed once per segment. It stays until the action is
-- purged: error reports need the header.
CREATE TABLE bulk_action_internal.sources (
	action_no bigint PRIMARY KEY,
	size bigint NOT NULL,
	etag text NOT NULL,
	version_id text,
	header text,
	next_segment integer NOT NULL DEFAULT 0,
	next_offset bigint NOT NULL DEFAULT 0,
	next_line bigint NOT NULL DEFAULT 1,
	in_skipped_line boolean NOT NULL DEFAULT false,
	at_end boolean NOT NULL DEFAULT false,
	scanning boolean NOT NULL DEFAULT false,
	key_signature text,
	compression smallint NOT NULL DEFAULT 0,
	encoding text,
	delimiter text,
	raw_offset bigint NOT NULL DEFAULT 0,
	restart_offset bigint NOT NULL DEFAULT 0,
	restart_raw_offset bigint NOT NULL DEFAULT 0,
	rows_read bigint NOT NULL DEFAULT 0,
	parse_errors bigint NOT NULL DEFAULT 0,
	lane_chunks integer[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);
COMMENT ON TABLE bulk_action_internal.sources IS 'the pinned object of an action and how far it has been chunked';
COMMENT ON COLUMN bulk_action_internal.sources.header IS
	'the header record: as it stands in the file, or as CSV with commas where the file is something else';
COMMENT ON COLUMN bulk_action_internal.sources.next_offset IS
	'bytes of the source that committed segments cover; where it is decompressed or converted, of what comes of that';
COMMENT ON COLUMN bulk_action_internal.sources.compression IS '0: none, 1: gzip, 2: zstd';
COMMENT ON COLUMN bulk_action_internal.sources.encoding IS 'of the file, found in its first bytes or given as an option';
COMMENT ON COLUMN bulk_action_internal.sources.delimiter IS 'of the file, found in its first record or given as an option';
COMMENT ON COLUMN bulk_action_internal.sources.raw_offset IS 'bytes of the file as it is stored that were needed for that';
COMMENT ON COLUMN bulk_action_internal.sources.restart_offset IS
	'like next_offset and not after it: from where a worker that has to begin anew decodes';
COMMENT ON COLUMN bulk_action_internal.sources.restart_raw_offset IS 'where that is in the file as it is stored';
COMMENT ON COLUMN bulk_action_internal.sources.in_skipped_line IS
	'next_offset lies inside a line that is passed over: one that is too long, or a comment';
COMMENT ON COLUMN bulk_action_internal.sources.scanning IS
	'the file is read for the first time, for its keys only; next_* say how far';
COMMENT ON COLUMN bulk_action_internal.sources.rows_read IS
	'sum over the segments, like parse_errors, for what has to know it often; while scanning, rows seen';
COMMENT ON COLUMN bulk_action_internal.sources.key_signature IS
	'how the target compared keys when the first segment was read: operator family/type/collation of each';
COMMENT ON COLUMN bulk_action_internal.sources.lane_chunks IS 'chunks written so far, per lane; its length is the number of lanes';

-- One row per committed segment, never updated. The chunk_* arrays run in parallel: they list the
-- segment's chunks, so that counting what is left needs no look into the chunks themselves.
CREATE TABLE bulk_action_internal.segments (
	action_no bigint NOT NULL,
	segment_no integer NOT NULL,
	start_offset bigint NOT NULL,
	end_offset bigint NOT NULL,
	first_line bigint NOT NULL,
	row_count integer NOT NULL,
	parse_errors integer NOT NULL,
	chunk_lanes smallint[] NOT NULL,
	chunk_numbers integer[] NOT NULL,
	chunk_rows integer[] NOT NULL,
	PRIMARY KEY (action_no, segment_no)
);
COMMENT ON TABLE bulk_action_internal.segments IS 'byte ranges of a source that have been cut into chunks';

-- What has been applied: one row per lane, changed in the transaction of each chunk.
CREATE TABLE bulk_action_internal.cursors (
	action_no bigint NOT NULL,
	lane smallint NOT NULL,
	next_chunk integer NOT NULL DEFAULT 0,
	row_offset integer NOT NULL DEFAULT 0,
	keys_compared boolean NOT NULL DEFAULT false,
	updated bigint NOT NULL DEFAULT 0,
	inserted bigint NOT NULL DEFAULT 0,
	deleted bigint NOT NULL DEFAULT 0,
	unchanged bigint NOT NULL DEFAULT 0,
	not_found bigint NOT NULL DEFAULT 0,
	superseded bigint NOT NULL DEFAULT 0,
	failed bigint NOT NULL DEFAULT 0,
	PRIMARY KEY (action_no, lane)
) WITH (fillfactor = 50);
COMMENT ON TABLE bulk_action_internal.cursors IS 'progress and outcome counters per lane';
COMMENT ON COLUMN bulk_action_internal.cursors.row_offset IS 'rows of chunk next_chunk that are done already';
COMMENT ON COLUMN bulk_action_internal.cursors.keys_compared IS
	'the duplicates of the lane are known (option duplicates other than all)';

-- The ingestion queue: a log of chunks. Rows are inserted once and never updated; what is done is
-- in the cursors, and space is given back by TRUNCATE of a whole generation. Statements address a
-- generation directly, because a plan on the parent would lock all three.
CREATE TABLE bulk_action_internal.bulk_action_jobs (
	generation smallint NOT NULL,
	action_no bigint NOT NULL,
	lane smallint NOT NULL,
	chunk_no integer NOT NULL,
	segment_no integer NOT NULL,
	row_count integer NOT NULL,
	payload text NOT NULL
) PARTITION BY LIST (generation);
COMMENT ON TABLE bulk_action_internal.bulk_action_jobs IS 'the ingestion queue: chunks of up to 1000 rows';
COMMENT ON COLUMN bulk_action_internal.bulk_action_jobs.payload IS
	'normalised CSV, the line number of the source first; an unquoted empty field is NULL';
CREATE TABLE bulk_action_internal.bulk_action_jobs_0
	PARTITION OF bulk_action_internal.bulk_action_jobs FOR VALUES IN (0)
	WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE TABLE bulk_action_internal.bulk_action_jobs_1
	PARTITION OF bulk_action_internal.bulk_action_jobs FOR VALUES IN (1)
	WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE TABLE bulk_action_internal.bulk_action_jobs_2
	PARTITION OF bulk_action_internal.bulk_action_jobs FOR VALUES IN (2)
	WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE UNIQUE INDEX ON bulk_action_internal.bulk_action_jobs_0 (action_no, lane, chunk_no);
CREATE UNIQUE INDEX ON bulk_action_internal.bulk_action_jobs_1 (action_no, lane, chunk_no);
CREATE UNIQUE INDEX ON bulk_action_internal.bulk_action_jobs_2 (action_no, lane, chunk_no);

-- The generation that new chunks go to; exactly one row.
CREATE TABLE bulk_action_internal.rotation (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	generation smallint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO bulk_action_internal.rotation (generation) VALUES (0);
COMMENT ON TABLE bulk_action_internal.rotation IS 'the generation of bulk_action_jobs that is written to';

-- Chunks of actions that are paused or have failed: out of the way of the rotation, and back in the
-- queue, with the same numbers, when the action goes on.
CREATE TABLE bulk_action_internal.parked (
	action_no bigint NOT NULL,
	lane smallint NOT NULL,
	chunk_no integer NOT NULL,
	segment_no integer NOT NULL,
	row_count integer NOT NULL,
	payload text NOT NULL,
	PRIMARY KEY (action_no, lane, chunk_no)
);
COMMENT ON TABLE bulk_action_internal.parked IS 'chunks of actions that rest';

-- What the first reading of a file leaves (option duplicates other than all): the keys of each
-- segment and lane, until the lane's keys have been compared.
CREATE TABLE bulk_action_internal.keys (
	action_no bigint NOT NULL,
	lane smallint NOT NULL,
	segment_no integer NOT NULL,
	row_count integer NOT NULL,
	payload text NOT NULL,
	PRIMARY KEY (action_no, lane, segment_no)
);
COMMENT ON TABLE bulk_action_internal.keys IS 'keys of a file whose duplicates are to be found';
COMMENT ON COLUMN bulk_action_internal.keys.payload IS
	'normalised CSV: the line number of the source, then the key columns';

-- lz4 where this server was built with it, else the server's default.
DO $$
DECLARE
	generation integer;
BEGIN
	FOR generation IN 0 .. 2 LOOP
		EXECUTE pg_catalog.format(
			'ALTER TABLE bulk_action_internal.bulk_action_jobs_%s ALTER COLUMN payload SET COMPRESSION lz4',
			generation);
	END LOOP;
	ALTER TABLE bulk_action_internal.parked ALTER COLUMN payload SET COMPRESSION lz4;
	ALTER TABLE bulk_action_internal.keys ALTER COLUMN payload SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
	NULL;
END
$$;

-- What comparing them found: rows that are not to be applied, in blocks of 1000 so that a chunk
-- needs two of them at most. The two arrays run in parallel.
CREATE TABLE bulk_action_internal.duplicates (
	action_no bigint NOT NULL,
	lane smallint NOT NULL,
	last_line bigint NOT NULL,
	lines bigint[] NOT NULL,
	other_lines bigint[] NOT NULL,
	PRIMARY KEY (action_no, lane, last_line)
);
COMMENT ON TABLE bulk_action_internal.duplicates IS 'rows of a file that another row with the same key supersedes';
COMMENT ON COLUMN bulk_action_internal.duplicates.last_line IS 'the last of lines, which are in ascending order';
COMMENT ON COLUMN bulk_action_internal.duplicates.other_lines IS
	'the line that won over it; with duplicates => error another line with the same key';

-- What was in flight when the server crashed, by kind and lane (a segment and the keys of a lane have
-- one place each). Rows that the action has got past say nothing any more.
CREATE TABLE bulk_action_internal.suspects (
	action_no bigint NOT NULL,
	kind text NOT NULL CHECK (kind IN ('segment', 'keys', 'chunk')),
	lane smallint NOT NULL,
	number integer NOT NULL,
	crashes integer NOT NULL,
	PRIMARY KEY (action_no, kind, lane)
);
COMMENT ON TABLE bulk_action_internal.suspects IS 'what may have crashed the server, and therefore runs alone';
COMMENT ON COLUMN bulk_action_internal.suspects.number IS 'of the segment, or of the chunk in its lane';
COMMENT ON COLUMN bulk_action_internal.suspects.crashes IS 'of the server while nothing else was being applied';

-- Chunks that crashed the server so often that they are not tried any more; their cursors are behind
-- them. Retry puts them back into the queue.
CREATE TABLE bulk_action_internal.dead_letters (
	action_no bigint NOT NULL,
	lane smallint NOT NULL,
	chunk_no integer NOT NULL,
	row_count integer NOT NULL,
	payload text NOT NULL,
	attempts integer NOT NULL,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (action_no, lane, chunk_no)
);
COMMENT ON TABLE bulk_action_internal.dead_letters IS 'chunks that crash the server';
COMMENT ON COLUMN bulk_action_internal.dead_letters.payload IS
	'the rows that had not been done, as in the queue: normalised CSV, the line number of the source first';

-- One row per row of a file that was not applied because another row of it won.
CREATE TABLE bulk_action_internal.superseded (
	action_no bigint NOT NULL,
	line bigint NOT NULL,
	superseded_by bigint NOT NULL,
	record text NOT NULL,
	PRIMARY KEY (action_no, line)
);
COMMENT ON TABLE bulk_action_internal.superseded IS 'rows that another row of the same file superseded';

-- One row per failed row of a file.
CREATE TABLE bulk_action_internal.errors (
	action_no bigint NOT NULL,
	line bigint NOT NULL,
	error_code text NOT NULL,
	error_column text,
	error_message text NOT NULL,
	record text NOT NULL,
	record_altered boolean NOT NULL DEFAULT false,
	PRIMARY KEY (action_no, line)
);
COMMENT ON TABLE bulk_action_internal.errors IS 'failed rows';
COMMENT ON COLUMN bulk_action_internal.errors.record IS
	'the row without its line end: as it stands in the file, or as CSV with commas where the file is something else';
COMMENT ON COLUMN bulk_action_internal.errors.record_altered IS
	'the record is to stand in one cell of a report: cut off, because it is too long, with bytes that are no text shown as \xHH, or unreadable in a file that is not CSV with commas';
