# The internal tables give their space back: after a large action and one VACUUM they are small again,
# but for the errors and superseded rows that are kept; also with duplicates to be found, with thousands
# of errors, and when a reader like pg_dump had the queue's tables all the time.
#
#   BULK_ACTION_HYGIENE_ROWS=1000000 script/test -v t/270
use strict;
use warnings;

use BulkAction;
use Test::More;

my $rows = $ENV{BULK_ACTION_HYGIENE_ROWS} || 300_000;
my $limit = 16 * 1024 * 1024;
my $bad = 5_000;
my $node = new_node('main', conf => <<'CONF');
bulk_action.max_workers = 3
bulk_action.rescan_interval = 1s
bulk_action.idle_timeout = 1s
max_wal_size = 4GB
# nothing but the one VACUUM below
autovacuum = off
CONF
my $root = $node->basedir . '/files';
mkdir $root or die "$root: $!";
$node->append_conf('postgresql.conf', "bulk_action.file_root = '$root'");
$node->reload;

# 200 bytes a row that do not compress well, so the queue alone would be larger than the limit.
$node->safe_psql('postgres', <<"SQL");
CREATE TABLE items (id integer PRIMARY KEY, n integer, note text) WITH (fillfactor = 50);
INSERT INTO items SELECT i, 0, '' FROM generate_series(1, $rows) AS i;
CREATE FUNCTION note_of(i integer) RETURNS text LANGUAGE sql IMMUTABLE AS
	\$\$ SELECT translate(encode(sha512(i::text::bytea) || sha512((-i)::text::bytea), 'base64'), E'\\n', '') \$\$;
COPY (SELECT i AS id, CASE WHEN i % ($rows / $bad) = 0 THEN 'x' ELSE i::text END AS n, note_of(i) AS note
	FROM generate_series(1, $rows) AS i ORDER BY md5(i::text)) TO '$root/items.csv' (FORMAT csv, HEADER);
SELECT bulk_action.bulk_action_register_entity('item', 'items', ARRAY['id']);
SQL
# the same, and every third row once more
$node->safe_psql('postgres', <<"SQL");
COPY (SELECT i AS id, i AS n, note_of(i) AS note
	FROM generate_series(1, $rows) AS i, generate_series(1, CASE WHEN i % 3 = 0 THEN 2 ELSE 1 END) ORDER BY md5(i::text))
	TO '$root/duplicates.csv' (FORMAT csv, HEADER);
SQL
cmp_ok(-s "$root/items.csv", '>', 3 * $limit, 'the file is large');

my @tables = map { $_->[0] } rows_of($node,
	"SELECT oid::regclass FROM pg_class WHERE relnamespace = 'bulk_action_internal'::regnamespace AND relkind = 'r'");
my $queue = "SELECT coalesce(sum(pg_total_relation_size(relid)), 0) FROM pg_partition_tree('bulk_action_internal.bulk_action_jobs') WHERE isleaf";
my $heaps = "SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree('bulk_action_internal.bulk_action_jobs') WHERE isleaf";

sub size
{
	my ($where) = @_;
	return value_of($node, <<"SQL");
SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
WHERE relnamespace = 'bulk_action_internal'::regnamespace AND relkind = 'r' $where
SQL
}

sub submit
{
	my ($file, $options) = @_;
	return value_of($node, "SELECT bulk_action.bulk_action_submit('file://$root/$file.csv', entity_type => 'item', options => '$options')");
}

sub wait_until_ended
{
	my ($id) = @_;
	return wait_for($node, "SELECT state NOT IN ('queued', 'running') FROM bulk_action.bulk_actions WHERE id = '$id'",
		timeout => $BulkAction::TIMEOUT + $rows / 1000);
}

# Once work has ended, and whoever tidies up has done so.
sub is_small
{
	my ($name) = @_;
	wait_for($node, $heaps, expect => 0, what => 'the queue to be emptied');
	# a VACUUM for which somebody else was in the way does not give back what is free at the end
	wait_for($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bulk_action worker')");
	$node->safe_psql('postgres', join '', map { "VACUUM $_;\n" } @tables);
	my $size = size("AND relname NOT IN ('errors', 'superseded')");
	note("$name: $size bytes; with errors and superseded rows " . size(''));
	note(join "\n", map { "  @$_" } rows_of($node, <<'SQL'));
SELECT relname, pg_total_relation_size(oid) FROM pg_class WHERE relnamespace = 'bulk_action_internal'::regnamespace
	AND relkind = 'r' AND pg_total_relation_size(oid) > 100000 ORDER BY 2 DESC
SQL
	cmp_ok($size, '<', $limit, "$name: the internal tables are small again");
}

# --- as it comes -----------------------------------------------------------------------------------------

my $id = submit('items', '{}');
wait_until_ended($id);
is(value_of($node, "SELECT (state, updated, failed)::text FROM bulk_action.bulk_action_stat('$id')"),
	'(completed,' . ($rows - $bad) . ",$bad)", 'an action with errors');
is_small('with errors');

# --- keys and duplicates -------------------------------------------------------------------------------

$id = submit('duplicates', '{"duplicates": "last", "skip_unchanged": false}');
wait_for($node, "SELECT pg_total_relation_size('bulk_action_internal.keys') > 1000000");
wait_until_ended($id);
is(value_of($node, "SELECT (state, updated, superseded)::text FROM bulk_action.bulk_action_stat('$id')"),
	"(completed,$rows," . int($rows / 3) . ')', 'an action with duplicates');
is_small('with duplicates');

# --- a reader of the queue --------------------------------------------------------------------------------

{
	my $reader = $node->background_psql('postgres', on_error_stop => 0);
	$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$reader->query_safe('SELECT FROM bulk_action_internal.bulk_action_jobs');
	$id = submit('items', '{}');
	wait_until_ended($id);
	is(value_of($node, "SELECT state FROM bulk_action.bulk_action_stat('$id')"), 'completed', 'a reader of the queue is in nobody\'s way');
	# workers tidy up before they leave, and could not
	wait_for($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bulk_action worker')");
	cmp_ok(value_of($node, $queue), '>', -s "$root/items.csv", 'rotation was put off');
	is($reader->query_safe('SELECT count(*) > 0 FROM bulk_action_internal.bulk_action_jobs'), 'f', 'the reader sees what was there when it began');
	$reader->query_safe('COMMIT');
	is_small('after the reader has gone');
	$reader->quit;
}

# --- what is forgotten gives back its space as well -------------------------------------------------------

value_of($node, "SELECT bulk_action.bulk_action_purge('0')");
$node->safe_psql('postgres', join '', map { "VACUUM $_;\n" } @tables);
cmp_ok(size(''), '<', $limit, 'nor is much left of errors and superseded rows that are purged');

done_testing();
