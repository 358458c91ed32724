# What "the same key" means is decided by one index, and by nothing else: indexes that only look like
# the key's, tables that inherit from the target, and rules are no way to change other rows than the
# file names.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', conf => "bulk_action.file_root = '/'\n");
my $root = $node->basedir;

sub run_file
{
	my ($entity, $text) = @_;
	my $file = write_file("$root/$entity.csv", $text);
	my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$file', entity_type => '$entity')");
	$node->safe_psql('postgres', "CALL bulk_action.bulk_action_wait('$id', '2 minutes')");
	my ($row) = rows_of($node, "SELECT state, total, updated, not_found, failed, coalesce(error_code, '')"
		  . " FROM bulk_action.bulk_action_stat('$id')");
	return join ' ', @$row;
}

sub cannot_register
{
	my ($table, $key, $pattern, $name) = @_;
	my ($status, $out, $err) = $node->psql('postgres',
		"SELECT bulk_action.bulk_action_register_entity('refused', '$table', ARRAY[$key])");
	like($err, $pattern, $name);
}

# --- indexes ---------------------------------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE twice (a integer, b integer, v text);
CREATE UNIQUE INDEX twice_key ON twice (a, a);
CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE collated (k text COLLATE ignore_case, v text);
CREATE UNIQUE INDEX collated_key ON collated (k COLLATE "C");
SQL
cannot_register('twice', "'a', 'b'", qr/no unique index/, 'an index that lists one column twice is not over two columns');
cannot_register('collated', "'k'", qr/another collation/, 'an index that compares otherwise than its column is no key');

# The same, when the index is exchanged after registration.
$node->safe_psql('postgres', <<'SQL');
CREATE UNIQUE INDEX twice_good ON twice (a, b);
SELECT bulk_action.bulk_action_register_entity('twice', 'twice', ARRAY['a', 'b']);
DROP INDEX twice_good;
CREATE UNIQUE INDEX collated_good ON collated (k);
SELECT bulk_action.bulk_action_register_entity('collated', 'collated', ARRAY['k']);
DROP INDEX collated_good;
INSERT INTO collated VALUES ('abc', ''), ('ABC', '');
SQL
is(run_file('twice', "a,b,v\n1,2,x\n"), 'failed 0 0 0 0 42P17', 'nor is it one when the action runs');
is(run_file('collated', "k,v\nabc,1\nABC,2\n"), 'failed 0 0 0 0 42P17', 'nor the other');
is(value_of($node, "SELECT string_agg(k || v, ' ' ORDER BY k COLLATE \"C\") FROM collated"), 'ABC abc', 'no row was changed');

# With an index that ignores case as the column does, both spellings are one key: the last row counts.
$node->safe_psql('postgres', "TRUNCATE collated; INSERT INTO collated VALUES ('abc', ''); CREATE UNIQUE INDEX ON collated (k)");
is(run_file('collated', "k,v\nabc,1\nABC,2\nAbc,3\n"), 'completed 3 3 0 0 ', 'spellings of one key are one key');
is(value_of($node, 'SELECT v FROM collated'), '3', 'and are applied in the order of the file');

# --- inheritance, rules ------------------------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE parent (id integer PRIMARY KEY, v text);
CREATE TABLE child () INHERITS (parent);
INSERT INTO parent VALUES (1, '');
INSERT INTO child VALUES (1, ''), (1, ''), (2, '');
SELECT bulk_action.bulk_action_register_entity('parent', 'parent', ARRAY['id']);
CREATE TABLE ruled (id integer PRIMARY KEY, v text);
INSERT INTO ruled VALUES (1, '');
SELECT bulk_action.bulk_action_register_entity('ruled', 'ruled', ARRAY['id']);
CREATE RULE elsewhere AS ON UPDATE TO ruled DO INSTEAD INSERT INTO parent VALUES (99, 'rule');
SQL
is(run_file('parent', "id,v\n1,x\n2,y\n"), 'completed 2 1 1 0 ', 'tables that inherit from the target have keys of their own');
is(value_of($node, "SELECT string_agg(tableoid::regclass || ':' || id || v, ' ' ORDER BY tableoid::regclass::text, id) FROM parent"),
	'child:1 child:1 child:2 parent:1x', 'and their rows stay as they are');
is(run_file('parent', "id,v\n1,\n2,\n"), 'completed 2 0 1 0 ', 'nor are they found');
is(run_file('ruled', "id,v\n1,x\n"), 'failed 0 0 0 0 0A000', 'a table with rules is refused');

# --- partitions: the same, but there the index speaks for all of them --------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE parted (id integer PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (10) TO (20);
INSERT INTO parted SELECT i, '' FROM generate_series(0, 19) AS i;
SELECT bulk_action.bulk_action_register_entity('parted', 'parted', ARRAY['id']);
SQL
is(run_file('parted', "id,v\n3,x\n13,y\n33,z\n"), 'completed 3 2 1 0 ', 'rows of all partitions are found');
is(value_of($node, "SELECT string_agg(id || v, ' ' ORDER BY id) FROM parted WHERE v <> ''"), '3x 13y', 'and changed');

# --- the column of an error ----------------------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE named (id integer PRIMARY KEY, a integer UNIQUE, b integer CHECK (b > 0), c integer, d integer,
	e integer REFERENCES named, UNIQUE (c, d), CHECK (c < d));
CREATE UNIQUE INDEX ON named (e);
INSERT INTO named SELECT i, i, i, i, i + 1, i FROM generate_series(1, 9) AS i;
SELECT bulk_action.bulk_action_register_entity('named', 'named', ARRAY['id']);
SQL
is(run_file('named', "id,a,b,c,d,e\n1,2,,,,\n2,,0,,,\n3,,,4,5,\n4,,,9,8,\n5,,,,,99\n6,,,,,7\n7,x,y,,,\n"),
	'completed 7 0 0 7 ', 'seven rows are bad');
is(value_of($node, "SELECT string_agg(line || ':' || coalesce(error_column, '-'), ' ' ORDER BY line)"
	  . " FROM bulk_action.bulk_action_errors AS e JOIN bulk_action.bulk_actions AS a ON a.id = e.action_id AND a.entity_type = 'named'"),
	'2:a 3:b 4:- 5:- 6:e 7:e 8:a, b', 'a constraint over one column, an index too, names that column');

# --- what ends before it begins ----------------------------------------------------------------------

# More actions, cancelled in the transaction that submits them, than are looked at in one go.
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN bulk_action');
my $file = write_file("$root/one.csv", "id,v\n1,applied\n");
$node->safe_psql('postgres', <<"SQL");
DO \$\$
BEGIN
	FOR i IN 1 .. 2100 LOOP
		PERFORM bulk_action.bulk_action_cancel(
			bulk_action.bulk_action_submit('file://$file', entity_type => 'parent', account_id => 'a' || i % 50));
	END LOOP;
END \$\$;
SQL
wait_for($node, "SELECT count(*) FROM bulk_action.bulk_actions WHERE state = 'cancelled'", expect => '2100');
is(value_of($node, "SELECT v FROM ONLY parent WHERE id = 1"), 'x', 'actions cancelled with their submission are never begun');
is(value_of($node, 'SELECT count(*) FROM bulk_action_internal.events'), '0', 'and what was asked for is done with');
my $told = 0;
wait_until(sub { $told += () = $listener->query_safe('SELECT 1') =~ /"cancelled"/g; return $told >= 2100; },
	what => 'notification of every end');
is($told, 2100, 'the end of each is announced');
$listener->quit;

done_testing();
