# Actions that ended longer ago than bulk_action.retention are forgotten, with all that belongs to them,
# in databases where nothing else happens too; piece by piece, past whatever is locked, and not undone
# by a crash. Nobody sleeps for that here: finished_at is set back.
use strict;
use warnings;

use BulkAction;
use File::Basename qw(dirname);
use File::Spec;
use Test::More;

my $node = new_node('main', injection => 1, conf => "bulk_action.rescan_interval = 1s\nbulk_action.idle_timeout = 100ms\n");
my $root = $node->basedir . '/files';
mkdir $root or die "$root: $!";
$node->append_conf('postgresql.conf', "bulk_action.file_root = '$root'");
$node->reload;
is(value_of($node, 'SHOW bulk_action.retention'), '30d', 'the default');

my $old = "pg_catalog.now() - interval '30 days 1 minute'";

sub prepare
{
	my ($db) = @_;
	$node->safe_psql($db, <<'SQL');
CREATE TABLE items (id integer PRIMARY KEY, n integer);
INSERT INTO items SELECT i, 0 FROM generate_series(1, 100) AS i;
SELECT bulk_action.bulk_action_register_entity('item', 'items', ARRAY['id']);
SQL
}

my $files = 0;

# Runs an action to its end; returns its number.
sub run
{
	my ($rows, $options, $db) = @_;
	my $path = write_file("$root/" . ++$files . '.csv', "id,n\n$rows");
	my $id = value_of($node,
		"SELECT bulk_action.bulk_action_submit('file://$path', entity_type => 'item', options => '$options')", db => $db // 'postgres');
	wait_for($node, "SELECT state IN ('completed', 'failed') FROM bulk_action.bulk_actions WHERE id = '$id'", db => $db);
	return value_of($node, "SELECT action_no FROM bulk_action_internal.actions WHERE id = '$id'", db => $db // 'postgres');
}

sub numbers
{
	my ($db) = @_;
	return [ map { $_->[0] } rows_of($node, 'SELECT action_no FROM bulk_action_internal.actions ORDER BY 1', db => $db // 'postgres') ];
}

# What is left of an action, by table: generation by generation of the queue apart, which is emptied as a whole.
my $tables = [ map { $_->[0] } rows_of($node, <<'SQL') ];
SELECT relname FROM pg_class AS c WHERE relnamespace = 'bulk_action_internal'::regnamespace AND relkind = 'r'
	AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'action_no')
	AND relname NOT LIKE 'bulk\_action\_jobs%' ORDER BY 1
SQL

sub rest_of
{
	my (@actions) = @_;
	my $in = join ', ', @actions;
	return { map { my $n = value_of($node, "SELECT count(*) FROM bulk_action_internal.$_ WHERE action_no IN ($in)"); $n ? ($_ => $n) : () } @$tables };
}

sub wait_until_gone
{
	my ($what, @actions) = @_;
	wait_until(sub { !%{ rest_of(@actions) } }, what => "$what to be forgotten", last => sub { explain(rest_of(@actions)) });
	return pass("$what: nothing is left");
}

# The list in the source has every table.
my $source = read_file(dirname(dirname(dirname(File::Spec->rel2abs(__FILE__)))) . '/src/stage/jobs_retention.c');
my ($list) = $source =~ /define TABLES_OF_ACTIONS\(X\) \\\n((?:.*\\\n)*.*)\n/;
is_deeply([ sort 'actions', 'forgotten', $list =~ /X\((\w+)\)/g ], $tables, 'every table with rows of actions is forgotten');

# --- what is old and what is not -------------------------------------------------------------------

prepare('postgres');
my $completed = run("1,1\n2,x\n3,3\n3,4\n", '{"duplicates": "last"}');
my $failed = run("1,1\n2,x\n", '{"max_errors": 0}');
my $recent = run("1,1\n2,x\n", '{}');
# rows of other tables as a crash or a failure at the wrong moment may leave them
$node->safe_psql('postgres', <<"SQL");
INSERT INTO bulk_action_internal.keys VALUES ($failed, 0, 0, 1, '1,1');
INSERT INTO bulk_action_internal.duplicates VALUES ($failed, 0, 3, '{3}', '{4}');
SQL
is_deeply([ sort keys %{ rest_of($completed, $failed) } ],
	[ qw(actions cursors duplicates errors keys segments sources stats superseded) ], 'they have rows in all these tables');
$node->safe_psql('postgres', <<"SQL");
UPDATE bulk_action_internal.actions SET finished_at = now() - interval '29 days 23 hours' WHERE action_no = $recent;
UPDATE bulk_action_internal.actions SET finished_at = $old WHERE action_no IN ($completed, $failed);
SQL
wait_until_gone('what has completed and what has failed', $completed, $failed);
is_deeply(numbers(), [$recent], 'what is recent stays');
is_deeply(rest_of($recent), { actions => 1, errors => 1, sources => 1, stats => 1 }, 'with its results');

# --- another database, in which nothing happens ------------------------------------------------------

$node->safe_psql('postgres', 'CREATE DATABASE quiet');
$node->safe_psql('quiet', 'CREATE EXTENSION bulk_action');
prepare('quiet');
run("1,1\n", '{}', 'quiet');
wait_for($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'quiet' AND backend_type LIKE 'bulk_action worker')");
$node->safe_psql('quiet', "UPDATE bulk_action_internal.actions SET finished_at = $old");
wait_for($node, 'SELECT count(*) FROM bulk_action_internal.stats', db => 'quiet', expect => '0', what => 'the quiet database to be visited');
is_deeply(numbers('quiet'), [], 'a database with nothing but ended actions is visited');

# --- many, and much ----------------------------------------------------------------------------------

# as many old actions as go in three rounds, one of them with errors for three more
sub make_many
{
	my $column = value_of($node, <<'SQL');
SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
WHERE attrelid = 'bulk_action_internal.actions'::regclass AND attnum > 0 AND NOT attisdropped
	AND attname NOT IN ('action_no', 'id', 'finished_at')
SQL
	return map { $_->[0] } rows_of($node, <<"SQL");
WITH made AS (
	INSERT INTO bulk_action_internal.actions ($column, finished_at)
	SELECT $column, $old FROM bulk_action_internal.actions, generate_series(1, 250) WHERE action_no = $recent
	RETURNING action_no),
errors AS (
	INSERT INTO bulk_action_internal.errors (action_no, line, error_code, error_message, record)
	SELECT action_no, line, '22P02', 'x', 'x' FROM (SELECT min(action_no) AS action_no FROM made) AS m, generate_series(1, 25000) AS line)
SELECT action_no FROM made ORDER BY 1
SQL
}
wait_until_gone('many actions and many errors', make_many());

# A crash in the middle takes nothing back that is committed, and nothing is left over.
foreach my $what ('kill', 'terminate')
{
	inject($node, 'retention-in-between', $what);
	my @many = make_many();
	wait_for_injected($node, 'retention-in-between');
	wait_for($node, 'SELECT true');
	wait_until_gone("many, $what in between", @many);
}

# --- locks -------------------------------------------------------------------------------------------

{
	my @many = make_many();
	my $holder = $node->background_psql('postgres', on_error_stop => 0);
	my @again = map { run("1,1\n2,x\n4,x\n", '{}') } 1 .. 3;
	$holder->query_safe('BEGIN');
	$holder->query_safe("SELECT FROM bulk_action_internal.actions WHERE action_no = $again[0] FOR UPDATE");
	$holder->query_safe("SELECT FROM bulk_action_internal.errors WHERE action_no = $again[1] AND line = 3 FOR UPDATE");
	$node->safe_psql('postgres', "UPDATE bulk_action_internal.actions SET finished_at = $old WHERE action_no IN ($again[1], $again[2])");
	$holder->query_safe("UPDATE bulk_action_internal.actions SET finished_at = $old WHERE action_no = $again[0]");
	wait_until_gone('what is not locked', @many, $again[2]);
	wait_until(sub { join(',', %{ rest_of($again[1]) }) =~ /^(errors,1,forgotten,1|forgotten,1,errors,1)\z/ }, what => 'all but the locked row');
	is_deeply(numbers(), [ $recent, $again[0] ], 'an action with a locked row has disappeared, a locked action has not');
	is(value_of($node, "SELECT count(*) FROM bulk_action_internal.errors WHERE action_no = $again[0]"), 2, 'nor has anything of it');
	$holder->query_safe('COMMIT');
	wait_until_gone('what was locked', @again);
	$holder->quit;
}

# --- never ---------------------------------------------------------------------------------------------

foreach my $never (-1, 0)
{
	$node->append_conf('postgresql.conf', "bulk_action.retention = $never");
	$node->reload;
	wait_for($node, 'SHOW bulk_action.retention', expect => $never);
	# none that came before the setting was changed
	wait_for($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bulk_action coordinator')");
	$node->safe_psql('postgres', "UPDATE bulk_action_internal.actions SET finished_at = '-infinity' WHERE action_no = $recent");
	# a coordinator comes, and does what it does in every round
	run("1,1\n", '{}');
	is(numbers()->[0], $recent, "$never: kept for ever");
}
$node->append_conf('postgresql.conf', 'bulk_action.retention = 2147483647');
$node->reload;
wait_for($node, 'SHOW bulk_action.retention', expect => '2147483647min');
wait_until_gone('older than the longest retention', $recent);

done_testing();
