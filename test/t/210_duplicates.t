# Rows of a file that have the same key: option duplicates.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', conf => <<'CONF');
bulk_action.file_root = '/'
bulk_action.idle_timeout = 1s
log_temp_files = 0
CONF

my $files = 0;

sub file
{
	my (@rows) = @_;
	$files++;
	return write_file($node->basedir . "/duplicates$files.csv", join('', map { "$_\n" } @rows));
}

sub run_file
{
	my ($entity, $csv, $options) = @_;
	my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$csv', entity_type => '$entity', options => '$options')");
	wait_for($node, "SELECT state NOT IN ('queued', 'running', 'paused') FROM bulk_action.bulk_actions WHERE id = '$id'");
	return $id;
}

# What the same file does in plain SQL: who wins is decided by window functions over the typed key, the
# winners are applied one after the other.
#   table, key => [columns], csv, mode
sub in_plain_sql
{
	my (%option) = @_;
	my ($table, $mode) = @option{qw(table mode)};
	my ($header) = read_file($option{csv}) =~ /\A([^\n]+)/;
	my @columns = split /,/, $header;
	my %type = map { @$_ } rows_of($node, "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = '$table'::regclass AND attnum > 0");
	my %collation = map { @$_ } rows_of($node, "SELECT attname, CASE WHEN attcollation <> 0 THEN ' COLLATE ' || attcollation::regcollation ELSE '' END FROM pg_attribute WHERE attrelid = '$table'::regclass AND attnum > 0");
	my %is_key = map { $_ => 1 } @{ $option{key} };
	my $typed = join ', ', map { "public.or_null(s.$_, NULL::$type{$_})$collation{$_}" } @{ $option{key} };
	my $known = join ' AND ', map { "public.or_null(s.$_, NULL::$type{$_}) IS NOT NULL" } @{ $option{key} };
	my $direction = $mode eq 'last' ? 'DESC' : 'ASC';
	my $lost = $mode eq 'error' ? 'count(*) OVER g > 1' : "n <> first_value(n) OVER (g ORDER BY n $direction)";
	my $set = join ', ', map { "$_ = CASE WHEN s.$_ IS NULL THEN t.$_ ELSE s.$_\::$type{$_} END" } grep { !$is_key{$_} } @columns;
	my $convert = join ', ', map { "s.$_\::$type{$_}" } @columns;
	my $match = join ' AND ', map { "t.$_ = s.$_\::$type{$_}" } @{ $option{key} };
	$lost = 'false' if $mode eq 'all';
	$node->safe_psql('postgres', <<SQL);
SET client_min_messages = warning;
DROP TABLE IF EXISTS public.serial, public.source, public.judged, public.outcome;
CREATE TABLE public.serial (LIKE $table INCLUDING ALL);
INSERT INTO public.serial TABLE public.original_of_@{[ $table =~ s/.*\.//r ]};
CREATE TABLE public.source (n bigint GENERATED ALWAYS AS IDENTITY (START 2), @{[ join ', ', map { "$_ text" } @columns ]});
\\copy public.source ($header) FROM '$option{csv}' WITH (FORMAT csv, HEADER)
CREATE TABLE public.judged AS
  SELECT s.*, CASE WHEN $known THEN $lost ELSE false END AS lost,
         first_value(n) OVER (g ORDER BY n $direction) AS winner
    FROM public.source AS s WINDOW g AS (PARTITION BY ($known), $typed, CASE WHEN $known THEN 0 ELSE n END);
CREATE TABLE public.outcome (n bigint, outcome text, code text);
INSERT INTO public.outcome SELECT n, @{[ $mode eq 'error' ? "'failed', '21000'" : "'superseded', NULL" ]} FROM public.judged WHERE lost;
DO \$\$ DECLARE s record; hits bigint; BEGIN
  FOR s IN SELECT * FROM public.judged WHERE NOT lost ORDER BY n LOOP
    BEGIN
      IF @{[ join ' OR ', map { "s.$_ IS NULL" } @{ $option{key} } ]} THEN
        RAISE not_null_violation;
      END IF;
      PERFORM $convert;
      UPDATE public.serial AS t SET $set WHERE $match;
      GET DIAGNOSTICS hits = ROW_COUNT;
      INSERT INTO public.outcome VALUES (s.n, CASE WHEN hits = 0 THEN 'not_found' ELSE 'updated' END);
    EXCEPTION WHEN OTHERS THEN
      INSERT INTO public.outcome VALUES (s.n, 'failed', SQLSTATE);
    END;
  END LOOP;
END \$\$;
SQL
	return;
}

# One file, one mode, against plain SQL.
sub check
{
	my ($name, %option) = @_;
	my $table = $option{table};
	my $original = 'public.original_of_' . ($table =~ s/.*\.//r);
	subtest "$name, $option{mode}" => sub {
		$node->safe_psql('postgres', "BEGIN; DELETE FROM $table; INSERT INTO $table TABLE $original; COMMIT");
		my $more = $option{options} // '';
		my $id = run_file($option{entity}, $option{csv}, qq({"duplicates": "$option{mode}"$more}));
		in_plain_sql(%option);
		same_content($node, $table, 'public.serial', 'the table');
		is_deeply([ rows_of($node, <<SQL) ], [ rows_of($node, <<SQL2) ], 'the statistics');
SELECT state, error_message, total, updated + unchanged, not_found, failed, superseded, unprocessed FROM bulk_action.bulk_action_stat('$id')
SQL
SELECT 'completed', NULL, count(*), count(*) FILTER (WHERE outcome = 'updated'), count(*) FILTER (WHERE outcome = 'not_found'),
       count(*) FILTER (WHERE outcome = 'failed'), count(*) FILTER (WHERE outcome = 'superseded'), 0 FROM public.outcome
SQL2
		is(value_of($node, <<SQL), '0', 'the errors');
SELECT count(*) FROM (SELECT n, code FROM public.outcome WHERE outcome = 'failed') AS o
  FULL JOIN (SELECT line, error_code FROM bulk_action.bulk_action_errors WHERE action_id = '$id') AS e ON line = n AND error_code = code
 WHERE line IS NULL OR n IS NULL
SQL
		is(value_of($node, <<SQL), '0', 'the superseded rows, and who won');
SELECT count(*) FROM (SELECT j.n, j.winner FROM public.judged AS j WHERE j.lost AND '$option{mode}' <> 'error') AS j
  FULL JOIN (SELECT line, superseded_by FROM bulk_action.bulk_action_superseded_rows WHERE action_id = '$id') AS s ON line = n AND superseded_by = winner
 WHERE line IS NULL OR n IS NULL
SQL
		is(value_of($node, 'SELECT (SELECT count(*) FROM bulk_action_internal.keys) + (SELECT count(*) FROM bulk_action_internal.duplicates)'),
			0, 'nothing of it stays');
	};
}

$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION public.or_null(cell text, type anyelement) RETURNS anyelement LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  EXECUTE format('SELECT %L::%s', cell, pg_typeof(type)) INTO type;
  RETURN type;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END $$;

CREATE TABLE public.contacts (id bigint PRIMARY KEY, name text, age integer CHECK (age < 150), note text);
INSERT INTO public.contacts SELECT i, 'name ' || i, i % 90, 'note ' || i FROM generate_series(1, 20000) AS i;

CREATE COLLATION public.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE public.parts (maker text COLLATE public.nocase, number numeric, name text, age integer, PRIMARY KEY (maker, number));
INSERT INTO public.parts SELECT 'maker' || i % 5, i, 'part ' || i, i FROM generate_series(1, 500) AS i;

-- a type without an extended hash function: one lane
CREATE TABLE public.prices (price money PRIMARY KEY, name text);
INSERT INTO public.prices SELECT i::money, 'price ' || i FROM generate_series(1, 300) AS i;

CREATE TABLE public.original_of_contacts AS TABLE public.contacts;
CREATE TABLE public.original_of_parts AS TABLE public.parts;
CREATE TABLE public.original_of_prices AS TABLE public.prices;
SELECT bulk_action.bulk_action_register_entity('contact', 'public.contacts', ARRAY['id']);
SELECT bulk_action.bulk_action_register_entity('part', 'public.parts', ARRAY['maker', 'number']);
SELECT bulk_action.bulk_action_register_entity('price', 'public.prices', ARRAY['price']);
SQL

srand(210);
my @modes = qw(all last first error);

# --- across chunks and segments ------------------------------------------------------------------------

# Some 45 000 rows of 1.9 MB in several segments: keys that come once, twice and often, written in more
# ways than one, unknown, bad and empty; cells that keep the present value; bad cells in rows that lose
# and in rows that win.
{
	my @rows = ('id,name,age,note');
	foreach my $n (1 .. 45_000)
	{
		my $id = rand() < 0.5 ? 1 + int(rand(20_000)) : rand() < 0.02 ? 7 : 1 + int(rand(3_000));
		$id = "00$id" if rand() < 0.1;
		$id = "+$id" if rand() < 0.1;
		$id = 30_000 + int(rand(10)) if rand() < 0.01;
		$id = 'x' . int(rand(3)) if rand() < 0.01;
		$id = '' if rand() < 0.005;
		my $age = rand() < 0.2 ? '' : rand() < 0.02 ? 'old' : rand() < 0.02 ? 200 : int(rand(120));
		push @rows, join ',', $id, (rand() < 0.2 ? '' : "row $n"), $age, (rand() < 0.3 ? '""' : 'a longer note ' . $n);
	}
	my $csv = file(@rows);
	check('several segments', table => 'public.contacts', entity => 'contact', key => ['id'], csv => $csv, mode => $_)
	  foreach @modes;
	check('in the order of the file', table => 'public.contacts', entity => 'contact', key => ['id'], csv => $csv,
		mode => $_, options => ', "order": "file"') foreach qw(last error);
}

# --- what the same key is ------------------------------------------------------------------------------

{
	my @rows = ('number,name,maker,age');
	push @rows, join ',', (1 + int(rand(60))) . ('', '.0', '.00')[ rand 3 ], "part $_", ('maker', 'MAKER', 'Maker')[ rand 3 ] . int(rand(5)),
	  (rand() < 0.3 ? '' : $_)
	  foreach 1 .. 3_000;
	my $csv = file(@rows);
	check('two columns, one of them without case', table => 'public.parts', entity => 'part', key => [qw(maker number)], csv => $csv, mode => $_)
	  foreach @modes;
}
{
	my $csv = file('price,name', map { ('$', '')[ rand 2 ] . (1 + int(rand(200))) . ('', '.00')[ rand 2 ] . ",row $_" } 1 .. 2_500);
	check('keys without a hash', table => 'public.prices', entity => 'price', key => ['price'], csv => $csv, mode => $_)
	  foreach @modes;
}

# --- small ones ----------------------------------------------------------------------------------------

my %small = (
	'no duplicates' => [ '1,a,1,', '2,b,2,', '3,c,3,' ],
	'only one key' => [ map { "5,row $_,$_," } 1 .. 149 ],
	'the winner fails' => [ '1,good,1,', '1,,old,', '2,,old,', '2,good,2,' ],
	'all keys are bad' => [ 'x,a,1,', 'x,b,2,', ',c,3,', ',d,4,' ],
	'ragged rows have no key' => [ '1,a,1,n', '1,b' ],
	'the header alone' => []);
foreach my $name (sort keys %small)
{
	my $csv = file('id,name,age,note', @{ $small{$name} });
	if ($name =~ /ragged/)
	{
		my $id = run_file('contact', $csv, '{"duplicates": "last"}');
		is(value_of($node, "SELECT concat_ws(' ', state, total, updated, failed, superseded) FROM bulk_action.bulk_action_stat('$id')"),
			'completed 2 1 1 0', $name);
		next;
	}
	check($name, table => 'public.contacts', entity => 'contact', key => ['id'], csv => $csv, mode => $_) foreach qw(last first error);
}

{
	my $id = run_file('contact', file('id,name,age,note', '4,a,1,', '5,b,2,', '4,c,3,'), '{"duplicates": "error"}');
	is_deeply([ rows_of($node, "SELECT line, error_code, error_column, error_message, record FROM bulk_action.bulk_action_errors WHERE action_id = '$id' ORDER BY line") ],
		[
			[ 2, '21000', 'id', 'the key occurs more than once in the file: also in line 4', '4,a,1,' ],
			[ 4, '21000', 'id', 'the key occurs more than once in the file: also in line 2', '4,c,3,' ] ],
		'the error names the other row');
}

# A domain's check is user code: a row that loses is never shown to it.
{
	$node->safe_psql('postgres', <<'SQL');
CREATE SEQUENCE public.checked;
CREATE FUNCTION public.count_checks(text) RETURNS boolean LANGUAGE sql AS $$ SELECT nextval('public.checked') > 0 $$;
CREATE DOMAIN public.noted AS text CHECK (public.count_checks(VALUE));
CREATE TABLE public.watched (id integer PRIMARY KEY, note public.noted);
INSERT INTO public.watched SELECT generate_series(1, 10);
SELECT setval('public.checked', 1000);
SELECT bulk_action.bulk_action_register_entity('watched', 'public.watched', ARRAY['id']);
SQL
	run_file('watched', file('id,note', (map { "3,row $_" } 1 .. 50), '4,alone'), '{"duplicates": "first"}');
	is(value_of($node, "SELECT string_agg(note, ' ' ORDER BY id) FROM public.watched"), 'row 1 alone', 'the first one wins');
	cmp_ok(value_of($node, 'SELECT last_value - 1000 FROM public.checked'), '<=', 4, 'the others have not been looked at');
}

# --- a key that changes -----------------------------------------------------------------------------------

# Which lane a row is in depends on how its key compares. When that changes in the middle of a file, equal
# keys could be in different lanes: the action cannot go on.
foreach my $mode (qw(all first))
{
	$node->safe_psql('postgres', <<'SQL');
DROP TABLE IF EXISTS public.changing;
CREATE TABLE public.changing (id bigint PRIMARY KEY, name text);
INSERT INTO public.changing SELECT generate_series(1, 1000);
SELECT bulk_action.bulk_action_register_entity('changing', 'public.changing', ARRAY['id']);
CREATE OR REPLACE FUNCTION public.retype() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  ALTER TABLE public.changing ALTER COLUMN id TYPE text;
  RETURN NULL;
END $$;
CREATE TRIGGER retype AFTER UPDATE ON bulk_action_internal.sources FOR EACH ROW
  WHEN (old.next_segment = 0 AND new.next_segment = 1) EXECUTE FUNCTION public.retype();
SQL
	my $id = run_file('changing', file('id,name', map { (1 + $_ % 1000) . ',a name of some length' } 1 .. 60_000), qq({"duplicates": "$mode"}));
	$node->safe_psql('postgres', 'DROP TRIGGER retype ON bulk_action_internal.sources');
	is_deeply([ rows_of($node, "SELECT state, error_code, error_message FROM bulk_action.bulk_actions WHERE id = '$id'") ],
		[ [ 'failed', '42P17', 'the key of public.changing was changed while the file was being read' ] ],
		"a key that is given another type in the middle of the file, $mode");
}

# --- memory --------------------------------------------------------------------------------------------

# One lane whose keys do not fit into the memory of the sort: it goes to disk.
{
	$node->safe_psql('postgres', <<'SQL');
CREATE TABLE public.codes (code text PRIMARY KEY, value integer);
INSERT INTO public.codes SELECT 'a rather long key, so that many need room ' || i, 0 FROM generate_series(1, 1000) AS i;
SELECT bulk_action.bulk_action_register_entity('code', 'public.codes', ARRAY['code']);
SQL
	my $before = () = read_file($node->logfile) =~ /temporary file: path/g;
	my $csv = $node->basedir . '/codes.csv';
	open(my $file, '>', $csv) or die "$csv: $!";
	print $file "code,value\n";
	print $file '"a rather long key, so that many need room ', 1 + ($_ * 7919) % 150_000, "\",$_\n" foreach 1 .. 200_000;
	close($file) or die "$csv: $!";
	my $id = run_file('code', $csv, '{"duplicates": "last", "order": "file"}');
	is(value_of($node, "SELECT concat_ws(' ', state, total, updated, not_found, failed, superseded) FROM bulk_action.bulk_action_stat('$id')"),
		'completed 200000 1000 149000 0 50000', 'keys that do not fit into memory');
	is(value_of($node, <<'SQL'), 0, 'the last ones have won');
SELECT count(*) FROM public.codes AS c JOIN
  (SELECT 1 + (i::bigint * 7919) % 150000 AS number, max(i) AS value FROM generate_series(1, 200000) AS i GROUP BY 1) AS w
  ON code = 'a rather long key, so that many need room ' || number WHERE c.value <> w.value
SQL
	my $after = () = read_file($node->logfile) =~ /temporary file: path/g;
	cmp_ok($after, '>', $before, 'the sort went to disk');
}
unlike(read_file($node->logfile), qr/accounted for|where the board says|is missing|TRAP:|not closed|leak/, 'nothing strange in the log');

done_testing();
