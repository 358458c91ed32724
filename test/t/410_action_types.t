# Updating, inserting, upserting and deleting, with what is to become of rows that are there and of rows
# that are not, over keys of several types: tables, counts and errors are those of a row-by-row program in
# PL/pgSQL that knows nothing of sets.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', conf => "bulk_action.file_root = '/'\n");
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION citext;
CREATE TABLE ref (id int PRIMARY KEY);
INSERT INTO ref SELECT generate_series(1, 50);
CREATE TABLE plan (line bigint, cells text[]);
CREATE TABLE outcome (line bigint, outcome text, code text);

-- One row after the other, each in a subtransaction of its own.
CREATE PROCEDURE serially(p_table text, p_keys text[], p_columns text[], p_types text[], p jsonb) LANGUAGE plpgsql AS $$
DECLARE
	r record;
	type text := p ->> 'type';
	v_missing text := coalesce(p ->> 'on_missing', 'report');
	v_conflict text := coalesce(p ->> 'on_conflict', 'error');
	v_empty text := coalesce(p ->> 'empty', 'keep');
	skip boolean := coalesce((p ->> 'skip_unchanged')::boolean, true);
	match text[] := ARRAY(SELECT jsonb_array_elements_text(coalesce(p -> 'match', '[]')));
	names text[];
	vals text[];
	assigned text[];
	same text[];
	cond text;
	matches text;
	no_key boolean;
	n bigint;
	v text;
	cell text;
	found_as text;
BEGIN
	IF type = 'upsert' THEN v_missing := 'insert'; END IF;
	IF type = 'insert' THEN v_missing := 'insert'; END IF;
	FOR r IN SELECT * FROM plan ORDER BY line LOOP
		BEGIN
			names := '{}'; vals := '{}'; assigned := '{}'; same := '{}'; cond := ''; matches := ''; no_key := false;
			FOR i IN 1 .. cardinality(p_columns) LOOP
				cell := r.cells[i];
				IF cell = coalesce(p ->> 'null_token', '') AND p ? 'null_token' THEN
					v := 'NULL';
				ELSIF cell IS NULL AND v_empty = 'keep' AND type <> 'delete' THEN
					v := NULL;
				ELSIF cell IS NULL AND (v_empty = 'null' OR type = 'delete') THEN
					v := 'NULL';
				ELSE
					v := quote_literal(coalesce(cell, ''));
				END IF;
				IF p_columns[i] = ANY (p_keys) THEN
					IF cell IS NULL OR v = 'NULL' THEN
						IF v = 'NULL' AND cell IS NOT NULL OR type <> 'insert' OR v_conflict <> 'error' THEN
							RAISE EXCEPTION 'no key' USING ERRCODE = '23502';
						END IF;
						no_key := true;
						CONTINUE;
					END IF;
					v := quote_literal(cell);
					EXECUTE format('SELECT %s::%s', v, p_types[i]);
					cond := cond || CASE cond WHEN '' THEN '' ELSE ' AND ' END || format('%I = %s::%s', p_columns[i], v, p_types[i]);
				ELSIF type = 'delete' AND p_columns[i] <> ALL (match) THEN
					CONTINUE;  -- not even looked at
				ELSIF v IS NOT NULL THEN
					EXECUTE format('SELECT %s::%s', v, p_types[i]);
					IF type = 'delete' THEN
						IF p_columns[i] = ANY (match) THEN
							matches := matches || format(' AND %I IS NOT DISTINCT FROM %s::%s', p_columns[i], v, p_types[i]);
						END IF;
						CONTINUE;
					END IF;
					assigned := assigned || format('%I = %s::%s', p_columns[i], v, p_types[i]);
					same := same || format('%s::%s', v, p_types[i]);
				END IF;
				IF v IS NOT NULL THEN
					names := names || quote_ident(p_columns[i]);
					vals := vals || format('%s::%s', v, p_types[i]);
				END IF;
			END LOOP;

			n := 0;
			IF NOT no_key THEN
				EXECUTE format('SELECT count(*) FROM %s WHERE %s', p_table, cond) INTO n;
			END IF;
			found_as := CASE type WHEN 'update' THEN 'update' WHEN 'upsert' THEN 'update' WHEN 'delete' THEN 'delete' ELSE v_conflict END;
			IF n > 0 AND found_as = 'update' THEN
				IF assigned = '{}' THEN
					INSERT INTO outcome VALUES (r.line, 'unchanged');
				ELSE
					EXECUTE format('UPDATE %s SET %s WHERE %s', p_table, array_to_string(assigned, ', '), cond)
						|| CASE WHEN skip THEN format(' AND record_image_ne(ROW(%s), ROW(%s))',
							array_to_string(ARRAY(SELECT split_part(x, ' = ', 1) FROM unnest(assigned) AS x), ', '), array_to_string(same, ', ')) ELSE '' END;
					GET DIAGNOSTICS n = ROW_COUNT;
					INSERT INTO outcome VALUES (r.line, CASE n WHEN 0 THEN 'unchanged' ELSE 'updated' END);
				END IF;
			ELSIF n > 0 AND found_as = 'delete' THEN
				EXECUTE format('DELETE FROM %s WHERE %s', p_table, cond || matches);
				GET DIAGNOSTICS n = ROW_COUNT;
				IF n = 0 THEN
					RAISE EXCEPTION 'differs' USING ERRCODE = 'BA409';
				END IF;
				INSERT INTO outcome VALUES (r.line, 'deleted');
			ELSIF n > 0 AND found_as = 'skip' THEN
				-- the server looks at constraints of a single row before it looks for the key
				EXECUTE format('INSERT INTO %s (%s) VALUES (%s) ON CONFLICT (%s) DO NOTHING', p_table, array_to_string(names, ', '),
					array_to_string(vals, ', '), array_to_string(p_keys, ', '));
				INSERT INTO outcome VALUES (r.line, 'unchanged');
			ELSIF v_missing = 'insert' THEN
				IF names = '{}' THEN
					RAISE EXCEPTION 'nothing' USING ERRCODE = '22P04';
				END IF;
				EXECUTE format('INSERT INTO %s (%s) VALUES (%s)', p_table, array_to_string(names, ', '), array_to_string(vals, ', '));
				INSERT INTO outcome VALUES (r.line, 'inserted');
			ELSIF v_missing = 'error' THEN
				RAISE EXCEPTION 'missing' USING ERRCODE = 'P0002';
			ELSE
				INSERT INTO outcome VALUES (r.line, 'not_found');
			END IF;
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO outcome VALUES (r.line, 'failed', SQLSTATE);
		END;
	END LOOP;
END $$;
SQL

# Tables by their keys: columns of the key, and the key of row i in several ways of writing it.
my %tables = (
	number => { key => { k => 'bigint' }, order => ['k'], make => sub { ($_[1] ? "0$_[0]" : $_[0]) } },
	text => { key => { k => 'text' }, order => ['k'], make => sub { $_[0] % 7 ? "key $_[0]" : qq(k"$_[0], ü) } },
	uuid => { key => { k => 'uuid' }, order => ['k'],
		make => sub { my $u = sprintf('%08x-0000-4000-8000-%012x', $_[0], $_[0] * 1234567); $_[1] ? uc $u : $u } },
	caseless => { key => { k => 'citext' }, order => ['k'], make => sub { $_[1] ? "KEY $_[0]" : "key $_[0]" } },
	decimal => { key => { k => 'numeric(12,3)' }, order => ['k'], make => sub { $_[1] ? "$_[0].500" : "$_[0].5" } },
	parted => { key => { region => 'text', num => 'int' }, order => [qw(region num)], make => sub { ("r" . $_[0] % 3, $_[1] ? "+$_[0]" : $_[0]) },
		partitions => 'LIST (region)', unique => '' },
	pair => { key => { region => 'text', num => 'int' }, order => [qw(region num)], make => sub { ("r" . $_[0] % 3, $_[1] ? "+$_[0]" : $_[0]) } });

foreach my $name (sort keys %tables)
{
	my $table = $tables{$name};
	my $columns = join ', ', map { "$_ $table->{key}{$_} NOT NULL" } @{ $table->{order} };
	my $key = join ', ', @{ $table->{order} };
	my $array = join ', ', map { "'$_'" } @{ $table->{order} };
	my $unique = $table->{unique} // 'UNIQUE';
	my $by = $table->{partitions} ? "PARTITION BY $table->{partitions}" : '';
	foreach my $schema (qw(public hand))
	{
		my $partitions = $by eq '' ? '' : join "\n", map { "CREATE TABLE $schema.t_${name}_$_ PARTITION OF $schema.t_$name " . ($_ < 2 ? "FOR VALUES IN ('r$_');" : 'DEFAULT;') } 0 .. 2;
		$node->safe_psql('postgres', "CREATE SCHEMA IF NOT EXISTS $schema;
CREATE TABLE $schema.t_$name ($columns, a int CHECK (a < 1000), b text DEFAULT 'default', c numeric(8,2), d date,
	e text NOT NULL DEFAULT 'not null', u text $unique, f int REFERENCES public.ref, PRIMARY KEY ($key)) $by;
$partitions
CREATE TABLE $schema.log_$name (what text, change text);
CREATE FUNCTION $schema.log_$name() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	INSERT INTO $schema.log_$name VALUES (tg_op, concat(to_jsonb(old), to_jsonb(new)));
	RETURN NULL;
END \$\$;
CREATE TRIGGER log AFTER INSERT OR UPDATE OR DELETE ON $schema.t_$name FOR EACH ROW EXECUTE FUNCTION $schema.log_$name();");
	}
	value_of($node, "SELECT bulk_action.bulk_action_register_entity('$name', 'public.t_$name', ARRAY[$array])");
}

my @columns = qw(a b c d e u f);
my %type = (a => 'int', b => 'text', c => 'numeric(8,2)', d => 'date', e => 'text', u => 'text', f => 'int');
my $run = 0;

sub chance { return rand() < $_[0] }

# A random file for a table: cells, or undef for empty ones.
sub random_rows
{
	my ($name, $n) = @_;
	my $make = $tables{$name}{make};
	my @rows;
	foreach my $i (1 .. $n)
	{
		my $id = 1 + int rand 300;
		my @key = $make->($id, chance(0.1));
		@key = (undef) x @key if chance(0.02);
		my $uniq = "u$run-$i";
		$uniq = "fixed" . (1 + int rand 5) if chance(0.02);
		my %cell = (
			a => chance(0.03) ? 'x' : chance(0.03) ? 5000 : int rand 10, b => chance(0.2) ? '' : 'b' . int rand 4, c => chance(0.5) ? '1.5' : '1.50',
			d => chance(0.02) ? '2024-13-01' : '2024-0' . (1 + int rand 3) . '-01', e => 'e' . int rand 3, u => $uniq, f => chance(0.02) ? 99 : 1 + int rand 50);
		foreach my $column (@columns)
		{
			$cell{$column} = chance(0.02) ? '~' : undef if chance($column eq 'u' ? 0.8 : 0.15);
		}
		push @rows, [ @key, @cell{@columns} ];
	}
	return @rows;
}

sub try_it
{
	my ($name, %option) = @_;
	my $type = delete $option{type};
	my $table = $tables{$name};
	my @use = @{ delete $option{columns} // \@columns };
	srand(4711 + ++$run);
	foreach my $schema (qw(public hand))
	{
		$node->safe_psql('postgres', "TRUNCATE $schema.t_$name, $schema.log_$name");
	}
	# what is there already: every second key, and rows that no file names
	my $seed = join '', map { my $i = $_; join("\t", $table->{make}->($i, 0), $i % 10, 'b' . $i % 4, '1.50', '2024-01-01', 'e' . $i % 3, $i <= 10 ? 'fixed' . $i / 2 : '\N', 1) . "\n" }
	  map { 2 * $_ } 1 .. 150;
	write_file($node->basedir . '/seed', $seed);
	$node->safe_psql('postgres', "\\copy $_.t_$name FROM '" . $node->basedir . "/seed'\nTRUNCATE $_.log_$name") foreach qw(public hand);

	my @rows = random_rows($name, 700);
	my %index = map { $columns[$_] => @{ $table->{order} } + $_ } 0 .. $#columns;
	my @pick = (0 .. $#{ $table->{order} }, map { $index{$_} } @use);
	my @header = (@{ $table->{order} }, @use);
	my $csv = write_file($node->basedir . "/types$run.csv", join('', csv_line(@header), map { csv_line(@{$_}[@pick]) } @rows));
	my $line = 1;
	write_file($node->basedir . '/plan', join('', map {
		$line++;
		my $cells = join(',', map { defined $_ ? '"' . s/(["\\])/\\$1/gr . '"' : 'NULL' } @{$_}[@pick]);
		my $text = "$line\t{$cells}";
		$text =~ s/\\/\\\\/g;
		"$text\n" } @rows));
	my $literal = sub { 'ARRAY[' . join(', ', map { "'$_'" } @_) . ']' };
	my $options = JSON::PP->new->canonical->encode(\%option);
	my $parameters = JSON::PP->new->canonical->encode({ %option, type => $type });
	$node->safe_psql('postgres', "TRUNCATE plan, outcome;\n\\copy plan FROM '" . $node->basedir . "/plan'\nSET search_path = hand, public;
CALL public.serially('hand.t_$name', @{[ $literal->(@{ $table->{order} }) ]}, @{[ $literal->(@header) ]}, @{[ $literal->(map { $table->{key}{$_} // $type{$_} } @header) ]}, '$parameters')");
	my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$csv', action_type => 'bulk_$type', entity_type => '$name', options => '$options')");
	wait_for($node, "SELECT finished_at IS NOT NULL FROM bulk_action.bulk_actions WHERE id = '$id'", what => "$type of $name");
	subtest "$type $name $options" => sub {
		is_deeply([ rows_of($node, "SELECT state, error_message, total, updated, inserted, deleted, unchanged, not_found, failed, unprocessed FROM bulk_action.bulk_action_stat('$id')") ],
			[ rows_of($node, "SELECT 'completed', NULL, count(*), count(*) FILTER (WHERE outcome = 'updated'), count(*) FILTER (WHERE outcome = 'inserted'),
				count(*) FILTER (WHERE outcome = 'deleted'), count(*) FILTER (WHERE outcome = 'unchanged'), count(*) FILTER (WHERE outcome = 'not_found'),
				count(*) FILTER (WHERE outcome = 'failed'), 0 FROM outcome") ], 'counts');
		is_deeply([ rows_of($node, "SELECT line, error_code FROM bulk_action.bulk_action_errors WHERE action_id = '$id' ORDER BY 1") ],
			[ rows_of($node, "SELECT line, code FROM outcome WHERE outcome = 'failed' ORDER BY 1") ], 'errors');
		same_content($node, "public.t_$name", "hand.t_$name", 'table');
		same_content($node, "public.log_$name", "hand.log_$name", 'triggers');
	};
	return $id;
}

use JSON::PP;

# Values of unique columns depend on the order of rows with different keys: in the order of the file.
my %ordered = (order => 'file');
my @free = grep { $_ ne 'u' } @columns;

foreach my $name (sort keys %tables)
{
	try_it($name, type => 'update', columns => \@free);
	try_it($name, type => 'insert', columns => \@free);
	try_it($name, type => 'upsert', columns => \@free);
	try_it($name, type => 'delete', columns => \@free);
}
try_it('number', type => 'update', columns => \@free, on_missing => 'insert');
try_it('number', type => 'update', columns => \@free, on_missing => 'error');
try_it('number', type => 'update', columns => \@free, skip_unchanged => JSON::PP::false);
try_it('number', type => 'update', columns => \@free, empty => 'null');
try_it('text', type => 'update', columns => [qw(b e)], empty => 'value');
try_it('number', type => 'update', columns => \@free, null_token => '~');
try_it('pair', type => 'insert', columns => \@free, on_conflict => 'skip');
try_it('pair', type => 'insert', columns => \@free, on_conflict => 'update');
try_it('number', type => 'insert', columns => \@free, on_conflict => 'update', empty => 'null', null_token => '~');
try_it('uuid', type => 'upsert', columns => \@free, skip_unchanged => JSON::PP::false);
try_it('caseless', type => 'upsert', columns => [qw(a)]);
try_it('number', type => 'delete', columns => \@free, on_missing => 'error');
try_it('number', type => 'delete', columns => [qw(a b c)], match => [qw(a)]);
try_it('decimal', type => 'delete', columns => [qw(a b c)], match => [qw(c b)], on_missing => 'error');
try_it('number', type => $_, %ordered) foreach qw(update insert upsert delete);

done_testing();
