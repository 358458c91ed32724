# BulkAction::StormChecker - what must become of the actions of test/storm: each row of the plan applied
# by itself, in a subtransaction of its own, in file order, by plpgsql, to tables of the same making in
# the schema serial; and what differs from that. Each row of a dry run is taken back again.
#
# Of an action that was cancelled, rows with the same key (with order => file: all rows) have been tried up
# to some row of the file and not beyond. Which were is found out row by row: one that changes something has
# been applied if the table's log has that very change, old row and new row, once more than the rows before
# it account for; one that fails or is superseded has been tried if it is recorded. One that changes nothing
# leaves no trace: it has been tried if a later one of its key was, it has not if an earlier one was not,
# and otherwise there is no telling (tried is NULL), and it only bounds the counts.
package BulkAction::StormChecker;

use strict;
use warnings;

use BulkAction;
use BulkAction::StormFiles;
use Exporter 'import';

our @EXPORT = qw(checker_setup checker_apply checker_differences);

# The tables and one function per entity that applies a plan.
sub checker_setup
{
	my ($query) = @_;
	my $entities = storm_entities();
	my $sql = "CREATE SCHEMA serial;\n" . storm_schema('serial') . <<'SQL';
CREATE TABLE serial.outcome (
	action        uuid,
	line          bigint,
	outcome       text,
	code          text,
	superseded_by bigint,
	key           text,                    -- NULL if it does not convert
	unread        boolean DEFAULT false,   -- refused when the file is read
	tried         boolean DEFAULT true,
	PRIMARY KEY (action, line)
);
-- the changes in the log of an action that was cancelled, as far as no row is known to have made them
CREATE TABLE serial.change (change text PRIMARY KEY, times bigint);
-- and keys of which a row was not tried
CREATE TABLE serial.stopped (key text PRIMARY KEY);
-- rows of such an action that come one after the other
CREATE VIEW serial.cancelled_row AS
SELECT o.*, CASE WHEN a.options ->> 'order' = 'file' THEN 'the file' ELSE coalesce('key ' || key, 'line ' || line) END AS sequence,
       row_number() OVER (PARTITION BY o.action ORDER BY o.line) AS nth
  FROM serial.outcome AS o JOIN bulk_action.bulk_actions AS a ON a.id = o.action;
-- Finds out what has been tried of it, once all its rows have an outcome.
CREATE PROCEDURE serial.find_tried(p_action uuid) LANGUAGE plpgsql AS $$
DECLARE
	total bigint := s.total FROM bulk_action.bulk_action_stat(p_action) AS s;
BEGIN
	ANALYZE serial.outcome;
	UPDATE serial.outcome AS o
	   SET tried = CASE WHEN outcome = 'failed' THEN EXISTS (SELECT FROM bulk_action_internal.errors AS e
	                     WHERE e.action_no = a.action_no AND e.line = o.line)
	                    WHEN outcome = 'superseded' THEN EXISTS (SELECT FROM bulk_action_internal.superseded AS e
	                     WHERE e.action_no = a.action_no AND e.line = o.line) END
	  FROM bulk_action_internal.actions AS a
	 WHERE o.action = p_action AND a.id = p_action AND outcome <> 'updated';
	UPDATE serial.outcome AS o
	   SET tried = CASE WHEN r.nth > total THEN false WHEN o.line < r.last_tried THEN true WHEN o.line > r.first_not THEN false END
	  FROM (SELECT line, nth, max(line) FILTER (WHERE tried AND NOT unread) OVER sequence AS last_tried,
	               min(line) FILTER (WHERE NOT tried AND NOT unread) OVER sequence AS first_not
	          FROM serial.cancelled_row WHERE action = p_action WINDOW sequence AS (PARTITION BY sequence)) AS r
	 WHERE o.action = p_action AND o.line = r.line AND o.tried IS NULL;
END $$;
CREATE FUNCTION serial.quoted(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT '"' || replace($1, '"', '""') || '"' $$;
CREATE FUNCTION serial.cell(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN $1 IS NULL THEN '' WHEN $1 = '' OR $1 = '\.' OR $1 ~ '[",\r\n]' THEN serial.quoted($1) ELSE $1 END
$$;
SQL
	foreach my $name (sort keys %$entities)
	{
		my ($key, $columns) = @{ $entities->{$name} }{qw(key columns)};
		my @all = (@$key, @$columns);
		my $texts = join ', ', map { "$_ text" } @all;
		my $keys = join ', ', @$key;
		my $values = join ', ', map { "v.$_" } @$key;
		my $key_text = "ROW($keys)::text";
		my $all = join ', ', @all;
		# what the file gives no value has its default
		my $new = join ', ', map { $_ eq 'kind' ? "coalesce(v.$_, 'as made')" : "v.$_" } @all;
		my $convert_key = join ' ', map { "v.$_ := r.$_;" } @$key;
		my $convert = join ' ', map { "v.$_ := r.$_;" } @all;
		my $no_key = join ' OR ', map { "r.$_ IS NULL" } @$key;
		my $no_value = join ' AND ', map { "r.$_ IS NULL" } @all;
		my $nothing = join ' AND ', map { "r.$_ IS NULL" } @$columns;
		my $match = join ' AND ', map { "t.$_ = v.$_" } @$key;
		my $set = join ', ', map { "$_ = coalesce(v.$_, t.$_)" } @$columns;
		my $differs = sprintf 'record_image_ne(ROW(%s), ROW(%s))', join(', ', map { "t.$_" } @$columns),
		  join(', ', map { "coalesce(v.$_, t.$_)" } @$columns);
		$sql .= <<"SQL";
CREATE TABLE serial.${name}_plan (line bigint, refused text, unread boolean, $texts);
CREATE TABLE serial.${name}_keys AS SELECT 0::bigint AS line, $keys FROM serial.$name LIMIT 0;

CREATE PROCEDURE serial.apply_$name(p_action uuid, p_duplicates text, p_cancelled boolean) LANGUAGE plpgsql AS \$\$
DECLARE
	r record;
	v serial.$name%ROWTYPE;
	made serial.outcome%ROWTYPE;
	old_row text;
	new_row text;
	in_order boolean := a.options ->> 'order' = 'file' FROM bulk_action.bulk_actions AS a WHERE a.id = p_action;
	skip boolean := coalesce((a.options ->> 'skip_unchanged')::boolean, true) FROM bulk_action.bulk_actions AS a WHERE a.id = p_action;
	type text := a.action_type FROM bulk_action.bulk_actions AS a WHERE a.id = p_action;
	on_conflict text := coalesce(a.options ->> 'on_conflict', 'error') FROM bulk_action.bulk_actions AS a WHERE a.id = p_action;
	dry boolean := coalesce((a.options ->> 'dry_run')::boolean, false) FROM bulk_action.bulk_actions AS a WHERE a.id = p_action;
	stopped boolean := false;
	hits bigint;
	there bigint;
	n bigint := 0;
BEGIN
	IF p_cancelled THEN
		TRUNCATE serial.change, serial.stopped;
		INSERT INTO serial.change SELECT l.change, count(*) FROM public.log AS l WHERE l.entity = '$name' GROUP BY 1;
		ANALYZE serial.change;
	END IF;

	-- which rows have the same key, as its type sees it
	IF p_duplicates <> 'all' THEN
		FOR r IN SELECT * FROM serial.${name}_plan AS p WHERE p.refused IS NULL LOOP
			CONTINUE WHEN $no_key;
			BEGIN
				$convert_key
			EXCEPTION WHEN OTHERS THEN
				CONTINUE;
			END;
			INSERT INTO serial.${name}_keys (line, $keys) VALUES (r.line, $values);
		END LOOP;
		INSERT INTO serial.outcome
		SELECT p_action, line, CASE p_duplicates WHEN 'error' THEN 'failed' ELSE 'superseded' END,
		       CASE p_duplicates WHEN 'error' THEN '21000' END,
		       CASE p_duplicates WHEN 'last' THEN max_line WHEN 'first' THEN min_line END, key
		  FROM (SELECT line, $key_text AS key, count(*) OVER same AS times, min(line) OVER same AS min_line, max(line) OVER same AS max_line
		          FROM serial.${name}_keys WINDOW same AS (PARTITION BY $keys)) AS s
		 WHERE CASE p_duplicates WHEN 'last' THEN line < max_line WHEN 'first' THEN line > min_line ELSE times > 1 END;
		TRUNCATE serial.${name}_keys;
	END IF;

	FOR r IN SELECT * FROM serial.${name}_plan AS p
		WHERE NOT EXISTS (SELECT FROM serial.outcome AS o WHERE o.action = p_action AND o.line = p.line)
		ORDER BY line
	LOOP
		-- SET CONSTRAINTS looks at all that its transaction has done
		n := n + 1;
		IF n % 500 = 0 THEN
			COMMIT;
		END IF;
		made := (p_action, r.line, 'failed', NULL, NULL, NULL, r.unread, true);
		BEGIN
			IF r.refused IS NOT NULL THEN
				RAISE EXCEPTION 'no record' USING ERRCODE = r.refused;
			ELSIF type = 'bulk_insert' AND on_conflict = 'error' AND $no_value THEN
				RAISE EXCEPTION 'nothing to insert' USING ERRCODE = '22P04';
			ELSIF $no_key THEN
				RAISE EXCEPTION 'no key' USING ERRCODE = '23502';
			END IF;
			$convert_key
			made.key := ROW($values)::text;
			IF p_cancelled THEN
				SELECT t::text INTO old_row FROM serial.$name AS t WHERE $match;
				IF stopped OR EXISTS (SELECT FROM serial.stopped AS s WHERE s.key = made.key) THEN
					RAISE EXCEPTION 'a row before this one was not tried' USING ERRCODE = 'ZZNOT';
				END IF;
			END IF;
			IF type <> 'bulk_delete' THEN
				$convert
			END IF;
			SELECT count(*) INTO there FROM serial.$name AS t WHERE $match;
			IF type = 'bulk_delete' THEN
				DELETE FROM serial.$name AS t WHERE $match;
				GET DIAGNOSTICS hits = ROW_COUNT;
				SET CONSTRAINTS ALL IMMEDIATE;
				made.outcome := CASE hits WHEN 0 THEN 'not_found' ELSE 'deleted' END;
			ELSIF type = 'bulk_insert' AND on_conflict = 'skip' THEN
				INSERT INTO serial.$name ($all) VALUES ($new) ON CONFLICT ($keys) DO NOTHING;
				GET DIAGNOSTICS hits = ROW_COUNT;
				SET CONSTRAINTS ALL IMMEDIATE;
				made.outcome := CASE hits WHEN 0 THEN 'unchanged' ELSE 'inserted' END;
			ELSIF type = 'bulk_insert' AND on_conflict = 'error' OR type <> 'bulk_update' AND there = 0 THEN
				INSERT INTO serial.$name ($all) VALUES ($new);
				SET CONSTRAINTS ALL IMMEDIATE;
				made.outcome := 'inserted';
			ELSIF $nothing THEN
				made.outcome := CASE there WHEN 0 THEN 'not_found' ELSE 'unchanged' END;
			ELSE
				UPDATE serial.$name AS t SET $set WHERE $match AND (NOT skip OR $differs);
				GET DIAGNOSTICS hits = ROW_COUNT;
				SET CONSTRAINTS ALL IMMEDIATE;
				IF p_cancelled AND hits > 0 THEN
					SELECT t::text INTO new_row FROM serial.$name AS t WHERE $match;
					UPDATE serial.change AS c SET times = times - 1 WHERE c.change = md5(old_row || new_row) AND c.times > 0;
					IF NOT FOUND THEN
						RAISE EXCEPTION 'the log does not have this change' USING ERRCODE = 'ZZNOT';
					END IF;
				END IF;
				made.outcome := CASE WHEN hits > 0 THEN 'updated' WHEN there > 0 THEN 'unchanged' ELSE 'not_found' END;
			END IF;
			IF dry THEN
				RAISE EXCEPTION 'nothing is changed' USING ERRCODE = 'ZZDRY';
			END IF;
		EXCEPTION
			WHEN SQLSTATE 'ZZDRY' THEN
				NULL;
			WHEN SQLSTATE 'ZZNOT' THEN
				made.outcome := 'updated';
				made.tried := false;
				stopped := in_order;
				INSERT INTO serial.stopped VALUES (made.key) ON CONFLICT DO NOTHING;
			WHEN OTHERS THEN
				made.outcome := 'failed';
				made.code := SQLSTATE;
		END;
		INSERT INTO serial.outcome VALUES (made.*);
	END LOOP;
	IF p_cancelled THEN
		CALL serial.find_tried(p_action);
	END IF;
END \$\$;
SQL
	}
	$query->($sql);
	return;
}

# Whether it has been; it is what the storm saw when it had ended.
sub is_cancelled { return ($_[0]{state} // '') eq 'cancelled' && $_[0]{fickle} eq 'cancel' }

# Applies one action's plan.
sub checker_apply
{
	my ($query, $action) = @_;
	my $duplicates = $action->{options}{duplicates} // 'all';
	my $cancelled = is_cancelled($action) ? 'true' : 'false';
	$query->(<<"SQL");
TRUNCATE serial.$action->{entity}_plan;
COPY serial.$action->{entity}_plan FROM '$action->{plan}';
CALL serial.apply_$action->{entity}('$action->{id}', '$duplicates', $cancelled);
SQL
	return;
}

# State and counts: as they are, as they must be.
sub counts_of
{
	my ($action) = @_;
	my $id = $action->{id};
	my ($state, $is_final) = $action->{doomed} ? ("'failed', '42703'", 'false') : ("'completed', NULL", 'true');
	return (<<"SQL", <<"SQL");
SELECT state, error_code, total, total_is_final, updated, inserted, deleted, unchanged, not_found, superseded, failed,
       unprocessed, success
  FROM bulk_action.bulk_action_stat('$id')
SQL
SELECT $state, count(*), $is_final, count(*) FILTER (WHERE outcome = 'updated'),
       count(*) FILTER (WHERE outcome = 'inserted'), count(*) FILTER (WHERE outcome = 'deleted'),
       count(*) FILTER (WHERE outcome = 'unchanged'), count(*) FILTER (WHERE outcome = 'not_found'),
       count(*) FILTER (WHERE outcome = 'superseded'), count(*) FILTER (WHERE outcome = 'failed'), 0::bigint,
       count(*) FILTER (WHERE outcome IN ('updated', 'inserted', 'deleted', 'unchanged'))
  FROM serial.outcome WHERE action = '$id'
SQL
}

# The same of one that was cancelled. What is not known exactly must be within bounds.
sub counts_of_cancelled
{
	my ($id) = @_;
	return (<<"SQL", <<"SQL");
SELECT state, error_code, total, updated, inserted, deleted, unchanged, not_found, superseded, failed, success,
       updated + unchanged + not_found + superseded + failed + unprocessed AS sum
  FROM bulk_action.bulk_action_stat('$id')
SQL
SELECT 'cancelled', NULL, CASE WHEN s.total_is_final THEN o.total ELSE least(s.total, o.total) END,
       o.updated, 0::bigint, 0::bigint, least(greatest(s.unchanged, o.unchanged), o.unchanged + o.perhaps_unchanged),
       least(greatest(s.not_found, o.not_found), o.not_found + o.perhaps_not_found), o.superseded, o.failed,
       o.updated + s.unchanged, s.total
  FROM bulk_action.bulk_action_stat('$id') AS s,
       (SELECT count(*) AS total, count(*) FILTER (WHERE outcome = 'updated' AND tried) AS updated,
               count(*) FILTER (WHERE outcome = 'unchanged' AND tried) AS unchanged,
               count(*) FILTER (WHERE outcome = 'unchanged' AND tried IS NULL) AS perhaps_unchanged,
               count(*) FILTER (WHERE outcome = 'not_found' AND tried) AS not_found,
               count(*) FILTER (WHERE outcome = 'not_found' AND tried IS NULL) AS perhaps_not_found,
               count(*) FILTER (WHERE outcome = 'superseded' AND tried) AS superseded,
               count(*) FILTER (WHERE outcome = 'failed' AND tried) AS failed
          FROM serial.outcome WHERE action = '$id') AS o
SQL
}

# An action of whose file nothing was read has no report.
sub total_of { return $_[0]->("SELECT total FROM bulk_action.bulk_action_stat('$_[1]')") }

# What differs now, in words; nothing if all is as it must be.
sub checker_differences
{
	my ($query, @actions) = @_;
	my @found;
	$query->('ANALYZE serial.outcome, serial.log, public.log, bulk_action_internal.errors, bulk_action_internal.superseded');
	my $compare = sub {
		my ($what, $is, $must) = @_;
		my $rows = $query->(<<"SQL");
WITH is_so AS ($is), must AS ($must)
(SELECT 'is: ' || r::text FROM (SELECT * FROM is_so EXCEPT ALL SELECT * FROM must) AS r ORDER BY 1 LIMIT 5)
UNION ALL
(SELECT 'must be: ' || r::text FROM (SELECT * FROM must EXCEPT ALL SELECT * FROM is_so) AS r ORDER BY 1 LIMIT 5)
SQL
		push @found, "$what\n" . ($rows =~ s/^/    /mgr) . "\n" if $rows ne '';
	};
	my $none = sub { $compare->(@_, "SELECT * FROM ($_[1]) AS r WHERE false") };
	foreach my $action (@actions)
	{
		my $id = $action->{id};
		$compare->("counts of action $id", is_cancelled($action) ? counts_of_cancelled($id) : counts_of($action));
		if (is_cancelled($action))
		{
			$none->("order of rows of action $id", <<"SQL");
SELECT sequence, 'not tried: line ' || min(line) FILTER (WHERE NOT tried), 'tried: line ' || max(line) FILTER (WHERE tried)
  FROM serial.cancelled_row WHERE action = '$id' AND NOT unread
 GROUP BY sequence HAVING min(line) FILTER (WHERE NOT tried) < max(line) FILTER (WHERE tried)
SQL
			$none->("rows read of action $id", <<"SQL");
SELECT r.line, r.tried, s.total FROM serial.cancelled_row AS r, bulk_action.bulk_action_stat('$id') AS s
 WHERE r.action = '$id' AND CASE WHEN unread THEN tried <> (nth <= s.total) ELSE tried AND nth > s.total END
SQL
		}
		$compare->("errors of action $id",
			"SELECT line, error_code FROM bulk_action.bulk_action_errors WHERE action_id = '$id'",
			"SELECT line, code FROM serial.outcome WHERE action = '$id' AND outcome = 'failed' AND tried");
		my $header = join ',', @{ $action->{header} };
		my $empty = ',' x (@{ $action->{header} } - 1);
		# each record as it stood in the file; what is no record of the right size stands in the first column
		$compare->("report of action $id",
			"SELECT r FROM regexp_split_to_table(bulk_action.bulk_action_error_report('$id'), E'\\n') AS r",
			<<"SQL") unless $action->{doomed} || (is_cancelled($action) && !total_of($query, $id));
SELECT r FROM (
	SELECT '$header,_line,_error_code,_error_column,_error_message' || coalesce(string_agg(E'\\n'
			|| CASE WHEN o.code IN ('22P04', '22021', '54000') AND e.error_message <> 'all cells of the row are empty' THEN serial.cell(e.record) || '$empty' ELSE e.record END
			|| concat_ws(',', '', e.line, o.code, serial.cell(e.error_column), serial.cell(e.error_message)), '' ORDER BY e.line), '') AS report
	  FROM bulk_action.bulk_action_errors AS e JOIN serial.outcome AS o ON o.action = e.action_id AND o.line = e.line
	 WHERE e.action_id = '$id') AS s, regexp_split_to_table(report, E'\\n') AS r
SQL
		$compare->("superseded rows of action $id",
			"SELECT line, superseded_by FROM bulk_action.bulk_action_superseded_rows WHERE action_id = '$id'",
			"SELECT line, superseded_by FROM serial.outcome WHERE action = '$id' AND outcome = 'superseded' AND tried")
		  if ($action->{options}{duplicates} // '') ne '';
	}
	foreach my $table ('log', sort keys %{ storm_entities() })
	{
		$compare->("table $table", "SELECT * FROM public.$table", "SELECT * FROM serial.$table");
	}
	return @found;
}

1;
