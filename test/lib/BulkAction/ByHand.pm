# BulkAction::ByHand - what each type of action must do, done by plain SQL: one row after the other, in the
# order of the file, each in a subtransaction of its own, by a program in PL/pgSQL that knows nothing of sets.
#
#   use BulkAction::ByHand;
#   prepare_by_hand($node);
#   my %file = (header => [qw(id name)], rows => [ [ 1, 'one' ], [ 2, undef ] ]);
#   do_by_hand($node, %file, table => 'hand.t', keys => ['id'], type => 'upsert', as => 'alice');
#   my $id = submit_typed($node, %file, entity => 't', type => 'upsert', as => 'alice');
#   like_by_hand($node, $id, 'upsert');     # counts and errors; tables are compared by same_content()
package BulkAction::ByHand;

use strict;
use warnings;

use BulkAction;
use Exporter 'import';
use JSON::PP;
use Test::More;

our @EXPORT = qw(prepare_by_hand do_by_hand submit_typed ended_as like_by_hand sql_literal csv_file_of);

my $json = JSON::PP->new->canonical;
my $files = 0;

sub sql_literal { return defined $_[0] ? "E'" . ($_[0] =~ s/([\\'])/\\$1/gr =~ s/\n/\\n/gr =~ s/\r/\\r/gr) . "'" : 'NULL' }

# Bytes, like everything here.
sub _json
{
	my $text = $json->encode($_[0]);
	utf8::downgrade($text);
	return $text;
}

sub _array { return 'ARRAY[' . join(', ', map { sql_literal($_) } @_) . ']::text[]' }

# The tables and the program, in a schema of their own.
sub prepare_by_hand
{
	my ($node) = @_;
	$node->safe_psql('postgres', <<'SQL');
CREATE SCHEMA by_hand;
GRANT USAGE ON SCHEMA by_hand TO PUBLIC;
CREATE TABLE by_hand.file (line bigint PRIMARY KEY, cells text[]);
CREATE TABLE by_hand.outcome (line bigint, outcome text, code text, message text);
GRANT ALL ON by_hand.file, by_hand.outcome TO PUBLIC;

-- p: type, and on_missing, on_conflict, match, skip_unchanged as in the options of an action
CREATE PROCEDURE by_hand.run(p_table text, p_keys text[], p_header text[], p jsonb) LANGUAGE plpgsql AS $$
DECLARE
	type text := p ->> 'type';
	on_missing text := coalesce(p ->> 'on_missing', 'report');
	on_conflict text := coalesce(p ->> 'on_conflict', 'error');
	skip boolean := coalesce((p ->> 'skip_unchanged')::boolean, true);
	match text[] := ARRAY(SELECT jsonb_array_elements_text(coalesce(p -> 'match', '[]')));
	r record;
	col text;
	val text;
	cond text;
	sets text[];
	cols text[];
	vals text[];
	matches text;
	differs text;
	n bigint;
	there bigint;
	outcome text;
BEGIN
	IF type = 'upsert' OR on_missing = 'insert' THEN
		type := 'upsert';
	ELSIF type = 'insert' AND on_conflict = 'update' THEN
		type := 'upsert';
	END IF;
	FOR r IN SELECT * FROM by_hand.file ORDER BY line LOOP
		BEGIN
			cond := 'true'; matches := 'true'; differs := 'false'; sets := '{}'; cols := '{}'; vals := '{}';
			FOR i IN 1 .. cardinality(p_header) LOOP
				col := quote_ident(p_header[i]);
				SELECT format('%L::%s', r.cells[i], format_type(atttypid, atttypmod)) INTO STRICT val
				  FROM pg_attribute WHERE attrelid = p_table::regclass AND attname = p_header[i];
				IF type = 'delete' AND p_header[i] = ANY (match) THEN
					EXECUTE 'SELECT ' || val;
					matches := matches || format(' AND %s IS NOT DISTINCT FROM %s', col, val);
				ELSIF p_header[i] = ANY (p_keys) THEN
					EXECUTE 'SELECT ' || val;
					cond := cond || format(' AND %s = %s', col, val);
					cols := cols || col;
					vals := vals || val;
				ELSIF r.cells[i] IS NOT NULL AND type <> 'delete' THEN
					EXECUTE 'SELECT ' || val;
					sets := sets || format('%s = %s', col, val);
					differs := differs || format(' OR record_image_ne(ROW(%s), ROW(%s))', col, val);
					cols := cols || col;
					vals := vals || val;
				END IF;
			END LOOP;
			outcome := NULL;

			IF type IN ('update', 'upsert') THEN
				n := 0;
				IF sets <> '{}' THEN
					EXECUTE format('UPDATE %s SET %s WHERE %s AND (%s)', p_table, array_to_string(sets, ', '), cond,
						CASE WHEN skip THEN differs ELSE 'true' END);
					GET DIAGNOSTICS n = ROW_COUNT;
				END IF;
				IF n > 0 THEN
					outcome := 'updated';
				ELSE
					-- what could be updated is what can be locked for it
					EXECUTE format('SELECT count(*) FROM (SELECT 1 FROM %s WHERE %s FOR NO KEY UPDATE) AS s', p_table, cond) INTO there;
					outcome := CASE WHEN there > 0 THEN 'unchanged' END;
				END IF;
			ELSIF type = 'delete' THEN
				EXECUTE format('DELETE FROM %s WHERE %s AND %s', p_table, cond, matches);
				GET DIAGNOSTICS n = ROW_COUNT;
				IF n > 0 THEN
					outcome := 'deleted';
				ELSE
					EXECUTE format('SELECT count(*), count(*) FILTER (WHERE %s) FROM %s WHERE %s', matches, p_table, cond) INTO there, n;
					IF there > n THEN
						RAISE EXCEPTION 'differs' USING ERRCODE = 'BA409';
					END IF;
					outcome := CASE WHEN there > 0 THEN 'unchanged' END;
				END IF;
			END IF;

			IF outcome IS NULL AND type IN ('insert', 'upsert') THEN
				EXECUTE format('INSERT INTO %s (%s) VALUES (%s)', p_table, array_to_string(cols, ', '), array_to_string(vals, ', '))
					|| CASE WHEN type = 'insert' AND on_conflict = 'skip'
						THEN format(' ON CONFLICT (%s) DO NOTHING', (SELECT string_agg(quote_ident(k), ', ') FROM unnest(p_keys) AS k)) ELSE '' END;
				GET DIAGNOSTICS n = ROW_COUNT;
				outcome := CASE n WHEN 0 THEN 'unchanged' ELSE 'inserted' END;
			ELSIF outcome IS NULL AND on_missing = 'error' THEN
				RAISE EXCEPTION 'missing' USING ERRCODE = 'P0002';
			END IF;
			SET CONSTRAINTS ALL IMMEDIATE;
			SET CONSTRAINTS ALL DEFERRED;
			INSERT INTO by_hand.outcome VALUES (r.line, coalesce(outcome, 'not_found'));
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO by_hand.outcome VALUES (r.line, 'failed', SQLSTATE, SQLERRM);
		END;
	END LOOP;
END $$;
SQL
	return;
}

sub _lines { return scalar(() = csv_line(@{ $_[0] }) =~ /\r\n|\n|\r/g) }

# do_by_hand($node, table => ..., keys => [...], header => [...], rows => [[...]], type => ..., as => role,
#   options => { on_missing, on_conflict, match, skip_unchanged }).
sub do_by_hand
{
	my ($node, %option) = @_;
	# where a row begins, as an editor counts lines
	my $line = 1 + _lines($option{header});
	my $data = join '', map {
		my $begin = $line;
		$line += _lines($_);
		my $cells = join ',', map { defined $_ ? '"' . s/(["\\])/\\$1/gr . '"' : 'NULL' } @$_;
		$begin . "\t" . "{$cells}" =~ s/\\/\\\\/gr =~ s/\n/\\n/gr =~ s/\r/\\r/gr =~ s/\t/\\t/gr . "\n"
	} @{ $option{rows} };
	my $file = write_file($node->basedir . '/by_hand', $data);
	my $as = defined $option{as} ? "SET SESSION AUTHORIZATION $option{as};" : '';
	my $parameters = _json({ %{ $option{options} // {} }, type => $option{type} });
	$node->safe_psql('postgres', <<SQL);
SET client_encoding = 'UTF8';
TRUNCATE by_hand.file, by_hand.outcome;
\\copy by_hand.file FROM '$file'
$as
@{[ $option{before} // "" ]}
CALL by_hand.run(@{[ sql_literal($option{table}) ]}, @{[ _array(@{ $option{keys} }) ]}, @{[ _array(@{ $option{header} }) ]}, @{[ sql_literal($parameters) ]})
SQL
	return;
}

# The file as CSV, below file://
sub csv_file_of
{
	my ($node, %option) = @_;
	return 'file://' . write_file($node->basedir . '/typed' . ++$files . '.csv',
		join('', map { csv_line(@$_) } $option{header}, @{ $option{rows} }));
}

sub submit_typed
{
	my ($node, %option) = @_;
	my $source = $option{source} // csv_file_of($node, %option);
	return value_of($node, sprintf('SELECT bulk_action.bulk_action_submit(%s, action_type => %s, entity_type => %s, options => %s)',
			sql_literal($source), sql_literal("bulk_$option{type}"), sql_literal($option{entity}), sql_literal(_json($option{options} // {}))),
		as => $option{as});
}

# The counts by name, when the action has ended.
my @counts = qw(total updated inserted deleted unchanged not_found superseded failed unprocessed);

sub ended_as
{
	my ($node, $id) = @_;
	wait_for($node, "SELECT state NOT IN ('queued', 'running') FROM bulk_action.bulk_actions WHERE id = '$id'", what => "action $id");
	my %found;
	@found{ 'state', 'error', @counts } = @{ (rows_of($node, 'SELECT state, error_message, ' . join(', ', @counts)
		  . " FROM bulk_action.bulk_action_stat('$id')"))[0] };
	return \%found;
}

# A test: the action has the counts and the errors of the last do_by_hand(); returns the counts.
sub like_by_hand
{
	my ($node, $id, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %expected;
	@expected{ 'state', 'error', @counts } = @{ (rows_of($node, "SELECT 'completed', NULL, count(*), "
		  . join(', ', map { /superseded|unprocessed/ ? 0 : "count(*) FILTER (WHERE outcome = '$_')" } @counts[ 1 .. $#counts ])
		  . ' FROM by_hand.outcome'))[0] };
	is_deeply(ended_as($node, $id), \%expected, "$name: counts");
	is_deeply([ rows_of($node, "SELECT line, error_code FROM bulk_action.bulk_action_errors WHERE action_id = '$id' ORDER BY 1") ],
		[ rows_of($node, "SELECT line, code FROM by_hand.outcome WHERE outcome = 'failed' ORDER BY 1") ], "$name: errors");
	return \%expected;
}

1;
