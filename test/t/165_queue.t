# The queue is bounded while a large file runs and gives its space back: chunks are written to one
# generation after the other, each emptied before it is used again, and no more of the file is read
# than the applying workers can follow.
use strict;
use warnings;

use BulkAction;
use Test::More;

my ($rows, $queued) = (40_000, 16);
my $node = new_node('main', conf => "bulk_action.max_workers = 2\nbulk_action.max_queued_chunks = $queued\n");
my $root = $node->basedir . '/files';
mkdir $root or die "$root: $!";
$node->append_conf('postgresql.conf', "bulk_action.file_root = '$root'");
$node->reload;

# 2.5 kB a row that do not compress: 100 MB, three times what one generation takes.
$node->safe_psql('postgres', <<"SQL");
CREATE TABLE notes (id integer PRIMARY KEY, note text);
INSERT INTO notes SELECT i, '' FROM generate_series(1, $rows) AS i;
CREATE FUNCTION note_of(i integer) RETURNS text LANGUAGE sql IMMUTABLE AS
	\$\$ SELECT string_agg(translate(encode(sha512((i || '.' || part)::text::bytea), 'base64'), E'\\n', ''), '') FROM generate_series(1, 29) AS part \$\$;
COPY (SELECT i AS id, note_of(i) AS note FROM generate_series(1, $rows) AS i ORDER BY md5(i::text)) TO '$root/notes.csv' (FORMAT csv, HEADER);
SELECT bulk_action.bulk_action_register_entity('note', 'notes', ARRAY['id']);
SQL
cmp_ok(-s "$root/notes.csv", '>', 90_000_000, 'the file is large');

my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$root/notes.csv', entity_type => 'note')");
my (%generation, $largest, $most);
$largest = $most = 0;
while (value_of($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'") =~ /queued|running/)
{
	my ($look) = rows_of($node, <<'SQL');
SELECT generation,
	(SELECT sum(pg_table_size(relid)) FROM pg_partition_tree('bulk_action_internal.bulk_action_jobs') WHERE isleaf),
	coalesce((SELECT sum(chunk.rows) FROM bulk_action_internal.segments AS s,
			unnest(s.chunk_lanes, s.chunk_numbers, s.chunk_rows) AS chunk (lane, number, rows)
		JOIN bulk_action_internal.cursors AS c ON c.lane = chunk.lane AND c.next_chunk <= chunk.number
		WHERE c.action_no = s.action_no), 0)
FROM bulk_action_internal.rotation
SQL
	$generation{ $look->[0] } = 1;
	$largest = $look->[1] if $look->[1] > $largest;
	$most = $look->[2] if $look->[2] > $most;
}
note("at most $largest bytes and $most rows in the queue");
is_deeply([ sort keys %generation ], [ 0, 1, 2 ], 'all three generations were written to');
cmp_ok($largest, '<', 3 * (32 + 10) * 1024 * 1024, 'the queue never held more than three generations');
# what may wait when a segment is begun, and that segment
cmp_ok($most, '<', $queued * 1000 + 8 * 1024 * 1024 / 2500 + 1000, 'reading waited for applying');

is(value_of($node, "SELECT (state, total, updated, unprocessed)::text FROM bulk_action.bulk_action_stat('$id')"),
	"(completed,$rows,$rows,0)", 'the action is complete');
is(value_of($node, 'SELECT count(*) FROM notes WHERE note IS DISTINCT FROM note_of(id)'), '0', 'every row has its new value');
wait_for($node, "SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree('bulk_action_internal.bulk_action_jobs') WHERE isleaf",
	expect => '0', what => 'the queue to be emptied');
is(value_of($node, "SELECT string_agg(t, ',') FROM (SELECT 'segments' AS t FROM bulk_action_internal.segments"
	  . " UNION ALL SELECT 'cursors' FROM bulk_action_internal.cursors) AS x"),
	'', 'and nothing is left of the action but its results');
is(value_of($node, 'SELECT count(*), max(header) FROM bulk_action_internal.sources'), '1|id,note',
	'and the header of its file');

done_testing();
