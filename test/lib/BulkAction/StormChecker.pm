# BulkAction::StormChecker - what must become of the actions of test/storm: each row of the plan applied
# by itself, in a subtransaction of its own, in file order, by plpgsql, to tables of the same making in
# the schema serial; and what differs from that.
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
	PRIMARY KEY (action, line)
);
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
		my $convert_key = join ' ', map { "v.$_ := r.$_;" } @$key;
		my $convert = join ' ', map { "v.$_ := r.$_;" } @all;
		my $no_key = join ' OR ', map { "r.$_ IS NULL" } @$key;
		my $nothing = join ' AND ', map { "r.$_ IS NULL" } @$columns;
		my $match = join ' AND ', map { "t.$_ = v.$_" } @$key;
		my $set = join ', ', map { "$_ = coalesce(v.$_, t.$_)" } @$columns;
		$sql .= <<"SQL";
CREATE TABLE serial.${name}_plan (line bigint, refused text, $texts);
CREATE TABLE serial.${name}_keys AS SELECT 0::bigint AS line, $keys FROM serial.$name LIMIT 0;

CREATE PROCEDURE serial.apply_$name(p_action uuid, p_duplicates text) LANGUAGE plpgsql AS \$\$
DECLARE
	r record;
	v serial.$name%ROWTYPE;
	hits bigint;
	n bigint := 0;
BEGIN
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
		       CASE p_duplicates WHEN 'last' THEN max_line WHEN 'first' THEN min_line END
		  FROM (SELECT line, count(*) OVER same AS times, min(line) OVER same AS min_line, max(line) OVER same AS max_line
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
		IF r.refused IS NOT NULL THEN
			INSERT INTO serial.outcome VALUES (p_action, r.line, 'failed', r.refused);
			CONTINUE;
		END IF;
		BEGIN
			IF $no_key THEN
				RAISE EXCEPTION 'no key' USING ERRCODE = '23502';
			END IF;
			$convert
			IF $nothing THEN
				SELECT count(*) INTO hits FROM serial.$name AS t WHERE $match;
				INSERT INTO serial.outcome
				VALUES (p_action, r.line, CASE hits WHEN 0 THEN 'not_found' ELSE 'unchanged' END);
			ELSE
				UPDATE serial.$name AS t SET $set WHERE $match;
				GET DIAGNOSTICS hits = ROW_COUNT;
				SET CONSTRAINTS ALL IMMEDIATE;
				INSERT INTO serial.outcome
				VALUES (p_action, r.line, CASE hits WHEN 0 THEN 'not_found' ELSE 'updated' END);
			END IF;
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO serial.outcome VALUES (p_action, r.line, 'failed', SQLSTATE);
		END;
	END LOOP;
END \$\$;
SQL
	}
	$query->($sql);
	return;
}

# Applies one action's plan.
sub checker_apply
{
	my ($query, $action) = @_;
	my $duplicates = $action->{options}{duplicates} // 'all';
	$query->(<<"SQL");
TRUNCATE serial.$action->{entity}_plan;
COPY serial.$action->{entity}_plan FROM '$action->{plan}';
CALL serial.apply_$action->{entity}('$action->{id}', '$duplicates');
SQL
	return;
}

# What differs now, in words; nothing if all is as it must be.
sub checker_differences
{
	my ($query, @actions) = @_;
	my @found;
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
	foreach my $action (@actions)
	{
		my $id = $action->{id};
		my $state = $action->{doomed} ? "'failed', '42703'" : "'completed', NULL";
		$compare->("counts of action $id", <<"SQL", <<"SQL");
SELECT state, error_code, total, total_is_final, updated, inserted, deleted, unchanged, not_found, superseded, failed,
       unprocessed, success
  FROM bulk_action.bulk_action_stat('$id')
SQL
SELECT $state, count(*), @{[ $action->{doomed} ? 'false' : 'true' ]}, count(*) FILTER (WHERE outcome = 'updated'), 0::bigint, 0::bigint,
       count(*) FILTER (WHERE outcome = 'unchanged'), count(*) FILTER (WHERE outcome = 'not_found'),
       count(*) FILTER (WHERE outcome = 'superseded'), count(*) FILTER (WHERE outcome = 'failed'), 0::bigint,
       count(*) FILTER (WHERE outcome IN ('updated', 'unchanged'))
  FROM serial.outcome WHERE action = '$id'
SQL
		$compare->("errors of action $id",
			"SELECT line, error_code FROM bulk_action.bulk_action_errors WHERE action_id = '$id'",
			"SELECT line, code FROM serial.outcome WHERE action = '$id' AND outcome = 'failed'");
		my $header = join ',', @{ $action->{header} };
		my $empty = ',' x (@{ $action->{header} } - 1);
		# each record as it stood in the file; what is no record of the right size stands in the first column
		$compare->("report of action $id",
			"SELECT r FROM regexp_split_to_table(bulk_action.bulk_action_error_report('$id'), E'\\n') AS r",
			<<"SQL") unless $action->{doomed};
SELECT r FROM (
	SELECT '$header,_line,_error_code,_error_column,_error_message' || coalesce(string_agg(E'\\n'
			|| CASE WHEN o.code IN ('22P04', '22021', '54000') THEN serial.cell(e.record) || '$empty' ELSE e.record END
			|| concat_ws(',', '', e.line, o.code, serial.cell(e.error_column), serial.cell(e.error_message)), '' ORDER BY e.line), '') AS report
	  FROM bulk_action.bulk_action_errors AS e JOIN serial.outcome AS o ON o.action = e.action_id AND o.line = e.line
	 WHERE e.action_id = '$id') AS s, regexp_split_to_table(report, E'\\n') AS r
SQL
		$compare->("superseded rows of action $id",
			"SELECT line, superseded_by FROM bulk_action.bulk_action_superseded_rows WHERE action_id = '$id'",
			"SELECT line, superseded_by FROM serial.outcome WHERE action = '$id' AND outcome = 'superseded'")
		  if ($action->{options}{duplicates} // '') ne '';
	}
	foreach my $table ('log', sort keys %{ storm_entities() })
	{
		$compare->("table $table", "SELECT * FROM public.$table", "SELECT * FROM serial.$table");
	}
	return @found;
}

1;
