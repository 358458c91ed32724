# Something that is being applied brings the server down, again and again: a C function of a trigger that
# dereferences NULL. It is found, tried alone, and set aside; nothing else is charged with it, everything
# else is applied, and what was set aside can be seen, submitted as a file, or retried.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $attempts = 2;
my $node = new_node('main', injection => 1, conf => <<"CONF");
bulk_action.file_root = '/'
bulk_action.max_attempts = $attempts
bulk_action.max_workers = 3
CONF
create_contacts($node, 6_000);
register_contacts($node);
create_contacts($node, 6_000, table => 'public.others');
register_contacts($node, entity => 'other', table => 'public.others');
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION crash() RETURNS trigger LANGUAGE c AS 'bulk_action_injection', 'bulk_action_dereference_null';
CREATE FUNCTION crash(text) RETURNS boolean LANGUAGE c AS 'bulk_action_injection', 'bulk_action_dereference_null';
SQL

sub crash_at
{
	my ($condition) = @_;
	$node->safe_psql('postgres', "CREATE TRIGGER crash BEFORE UPDATE ON contacts FOR EACH ROW WHEN ($condition) EXECUTE FUNCTION crash()");
}
sub crash_no_more { $node->safe_psql('postgres', 'DROP TRIGGER crash ON contacts') }

my $log_from = 0;

# Crashes of the server since the last call.
sub crashes
{
	my $log = substr(read_file($node->logfile), $log_from);
	$log_from += length $log;
	return scalar(() = $log =~ /was terminated by signal/g);
}

sub submit
{
	my ($csv, %argument) = @_;
	return value_of($node, join(', ', "SELECT bulk_action.bulk_action_submit('file://$csv'",
			map { "$_ => '$argument{$_}'" } sort keys %argument) . ')');
}

sub counts
{
	my ($id) = @_;
	return value_of($node, "SELECT concat_ws(' ', total, updated, failed, unprocessed) FROM bulk_action.bulk_action_stat('$id')");
}

sub retry
{
	my ($id) = @_;
	is(value_of($node, "SELECT bulk_action.bulk_action_retry('$id')"), 't', 'retry');
	wait_for_state($node, $id, 'completed');
}

sub is_serial
{
	my ($csv, $name) = @_;
	apply_serially($node, csv => $csv);
	same_content($node, 'public.contacts', 'public.contacts_serial', $name);
}

# --- a chunk, and its neighbours -------------------------------------------------------------------------

my $dead_csv;
{
	my $csv = contacts_csv($node, rows => 6_000, order => 'shuffled', columns => [qw(first_name last_name age score)], bad => { 5 => { age => 'x' } });
	my $others = contacts_csv($node, rows => 6_000, salt => 2, name => 'others.csv');
	crash_at('old.id = 1500');
	crashes();
	# both at once: the server may be down a moment after the first
	my ($id, $neighbour) = split /\n/, value_of($node, <<"SQL");
BEGIN;
SELECT bulk_action.bulk_action_submit('file://$csv', account_id => 'a');
SELECT bulk_action.bulk_action_submit('file://$others', entity_type => 'other', account_id => 'b');
COMMIT;
SQL
	wait_for_state($node, $id, 'failed');
	wait_for_state($node, $neighbour, 'completed');
	is(crashes(), 1 + $attempts, 'the server crashed once in company, and max_attempts times while the chunk was alone');

	my ($dead) = rows_of($node, "SELECT row_count, first_line, attempts, error_code, error_message FROM bulk_action.bulk_action_dead_letters WHERE action_id = '$id'");
	my ($rows, $first_line, @rest) = @$dead;
	is_deeply(\@rest, [ $attempts, '57P02', 'the server crashed each time this chunk was applied, with nothing beside it' ], 'the dead letter');
	cmp_ok($rows, '>', 0, "it has $rows rows");
	cmp_ok($rows, '<=', 1_000, 'of one chunk');
	is(value_of($node, 'SELECT count(*) FROM bulk_action.bulk_action_dead_letters'), 1, 'and it is the only one');
	is_deeply([ rows_of($node, "SELECT error_code, error_message, error_detail FROM bulk_action.bulk_actions WHERE id = '$id'") ],
		[ [ '57P02', '1 of its chunks crashed the server each time they were applied',
			"$rows rows are left in bulk_action_dead_letters; all others were tried." ] ], 'the action says so');
	my $updated = 6_000 - 1 - $rows;
	is(counts($id), "6000 $updated 1 $rows", 'the rows of the dead letter count as unprocessed, all others are done');
	apply_serially($node, csv => $others, table => 'public.others');
	same_content($node, 'public.others', 'public.others_serial', 'the neighbour is applied in full');
	is(counts($neighbour), '6000 6000 0 0', 'and counted');

	# its rows as a file: with the lines where they stand, and everything else is in the table
	$dead_csv = write_file($node->basedir . '/dead.csv', value_of($node, "SELECT csv FROM bulk_action.bulk_action_dead_letters"));
	my @lines = split /\n/, read_file($csv);
	my (@dead_lines, %is_dead);
	foreach my $line (split /\n/, read_file($dead_csv))
	{
		$line =~ s/^(\w+),//;
		next if $1 eq '_line';
		push @dead_lines, $1;
		$is_dead{$1} = 1;
		$is_dead{differs} = "$line, not $lines[ $1 - 1 ]" if $line ne $lines[ $1 - 1 ];
	}
	is(scalar(@dead_lines), $rows, 'the rows are shown as CSV');
	is($is_dead{differs}, undef, 'as they stand in the file');
	is($dead_lines[0], $first_line, 'the first line is named');
	ok((grep { $lines[ $_ - 1 ] =~ /^1500,/ } @dead_lines), 'the row at fault is one of them');
	apply_serially($node, content => join('', map { "$lines[$_]\n" } grep { !$is_dead{ $_ + 1 } } 0 .. $#lines));
	same_content($node, 'public.contacts', 'public.contacts_serial', 'the table is as without these rows');

	is(value_of($node, 'SELECT count(*) FROM bulk_action_internal.suspects'), 0, 'nobody is suspected any more');

	# the server stays up and works; and what is set aside can be retried
	crash_no_more();
	my $after = submit(contacts_csv($node, rows => 6_000, salt => 3, name => 'after.csv'), entity_type => 'other', account_id => 'b');
	wait_for_state($node, $after, 'completed');
	is(counts($after), '6000 6000 0 0', 'the server works');
	retry($id);
	is(counts($id), '6000 5999 1 0', 'every row is tried once');
	is(value_of($node, 'SELECT count(*) FROM bulk_action.bulk_action_dead_letters'), 0, 'nothing is set aside any more');
	is_serial($csv, 'the table is as by hand');
	is(crashes(), 0, 'without a crash');
}

# --- as a file ----------------------------------------------------------------------------------------------

{
	# they have been applied by now
	my $id = submit($dead_csv, options => '{"skip_unchanged": false}');
	wait_for_state($node, $id, 'completed');
	is(value_of($node, "SELECT updated = total AND total > 0 FROM bulk_action.bulk_action_stat('$id')"), 't', 'the dead letter can be submitted as it is');
}

# --- the rest of a chunk --------------------------------------------------------------------------------------

{
	# so many bad rows that the chunk takes several transactions
	my $csv = contacts_csv($node, rows => 1_000, salt => 4, columns => [qw(last_name age score)], bad => { map { 8 * $_ => { last_name => 'bad' } } 1 .. 80 });
	$node->safe_psql('postgres', "ALTER TABLE $_ ADD CONSTRAINT good CHECK (last_name <> 'bad')") foreach qw(contacts contacts_serial);
	crash_at('old.id = 900');
	my $id = submit($csv);
	wait_for_state($node, $id, 'failed');
	my ($rows, $first_line) = @{ (rows_of($node, "SELECT row_count, first_line FROM bulk_action.bulk_action_dead_letters WHERE action_id = '$id'"))[0] };
	cmp_ok($rows, '<', 1_000, 'what was applied before is not in the dead letter');
	is($first_line, 1_000 - $rows + 2, 'it begins where the chunk stood');
	my ($total, $updated, $failed, $unprocessed) = split / /, counts($id);
	is_deeply([ $total, $updated + $failed, $unprocessed ], [ 1_000, 1_000 - $rows, $rows ], 'its rows are accounted for');
	crash_no_more();
	retry($id);
	is(counts($id), '1000 920 80 0', 'and applied once by a retry');
	apply_serially($node, csv => $csv);
	$node->safe_psql('postgres', "ALTER TABLE $_ DROP CONSTRAINT good") foreach qw(contacts contacts_serial);
	same_content($node, 'public.contacts', 'public.contacts_serial', 'the table is as by hand');
}

# --- where nothing can go on without it -------------------------------------------------------------------------

{
	my $csv = contacts_csv($node, rows => 3_000, salt => 5);
	crash_at('old.id = 1500');
	my $id = submit($csv, options => '{"order": "file"}');
	wait_for_state($node, $id, 'failed');
	is(counts($id), '3000 1000 0 2000', 'in the order of the file nothing is applied behind it');
	like(value_of($node, "SELECT error_code || ' ' || error_detail FROM bulk_action.bulk_actions WHERE id = '$id'"),
		qr/^57P02 It was chunk 1 of lane 0/, 'and the action says where it stands');
	crash_no_more();
	retry($id);
	is_serial($csv, 'a retry goes on from there, in order');
}
{
	# the key itself: the file cannot be cut into chunks
	$node->safe_psql('postgres', <<'SQL');
CREATE DOMAIN fatal_key AS text CHECK (CASE WHEN VALUE = 'k77' THEN crash(VALUE) ELSE true END);
CREATE TABLE keyed (k fatal_key PRIMARY KEY, v int);
INSERT INTO keyed SELECT 'k' || i, 0 FROM generate_series(1, 76) AS i;
SELECT bulk_action.bulk_action_register_entity('keyed', 'keyed', ARRAY['k']);
SQL
	my $csv = write_file($node->basedir . '/keyed.csv', "k,v\n" . join('', map { "k$_,1\n" } 1 .. 100));
	crashes();
	my $id = submit($csv, entity_type => 'keyed');
	wait_for_state($node, $id, 'failed');
	is(crashes(), 1 + $attempts, 'a segment is tried alone as well');
	like(value_of($node, "SELECT error_code || ' ' || error_detail FROM bulk_action.bulk_actions WHERE id = '$id'"),
		qr/^57P02 It was segment 0/, 'and ends its action');
	is(counts($id), '0 0 0 0', 'nothing was read');
}
{
	# the comparison of a lane's keys
	my $csv = contacts_csv($node, rows => 300, salt => 6, repeat => 10, columns => [qw(first_name score)]);
	inject($node, 'duplicates-before-commit', ('kill') x (1 + $attempts));
	crashes();
	my $id = submit($csv, options => '{"duplicates": "last"}');
	wait_for_injected($node, 'duplicates-before-commit');
	wait_for_state($node, $id, 'failed');
	is(crashes(), 1 + $attempts, 'as often as a chunk');
	like(value_of($node, "SELECT error_code || ' ' || error_detail FROM bulk_action.bulk_actions WHERE id = '$id'"),
		qr/^57P02 It was comparing the keys of lane 0/, 'keys that crash when they are compared');
	retry($id);
	is(value_of($node, "SELECT concat_ws(' ', total, updated, superseded, unprocessed) FROM bulk_action.bulk_action_stat('$id')"),
		'330 300 30 0', 'and when they do not, a retry goes on');
	is_serial($csv, 'to the end');
}

# --- crashes that are nobody's fault ---------------------------------------------------------------------------

{
	# as many as would be enough, but not of one chunk while it was alone
	my $csv = contacts_csv($node, rows => 6_000, salt => 7, order => 'shuffled');
	my @points = qw(chunker-parsed applier-applied applier-committed);
	inject($node, $_, 'kill') foreach @points;
	my $id = submit($csv);
	wait_for_injected($node, $_) foreach @points;
	wait_for_state($node, $id, 'completed');
	is(counts($id), '6000 6000 0 0', 'crashes that do not come back end nothing');
	is_serial($csv, 'and lose nothing');
}
{
	# a backend that dies while nothing of ours is in flight
	my $session = $node->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	kill_9($node, $pid);
	eval { $session->quit };
	wait_for($node, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bulk_action launcher')");
	is(value_of($node, 'SELECT count(*) FROM bulk_action_internal.suspects'), 0, 'who was not inside of anything is not suspected');
}
unlike(read_file($node->logfile), qr/accounted for|where the board says|is missing|TRAP:/, 'nothing strange in the log');

done_testing();
