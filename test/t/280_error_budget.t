# The error budget (option max_errors): an action of which more rows fail than may is failed, one that
# is just within goes on; whether rows fail as CSV, as values, in the table or as duplicates, in one
# chunk or many, in the last one, and with a crash between the report and the end.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', injection => 1, conf => "bulk_action.max_workers = 3\nmax_worker_processes = 12\n");
my $root = $node->basedir . '/files';
mkdir $root or die "$root: $!";
$node->append_conf('postgresql.conf', "bulk_action.file_root = '$root'");
$node->reload;
my $keys = 30_000;
$node->safe_psql('postgres', <<"SQL");
CREATE TABLE items (id integer PRIMARY KEY, n integer NOT NULL CHECK (n < 1000000));
INSERT INTO items SELECT i, 0 FROM generate_series(1, $keys) AS i;
SELECT bulk_action.bulk_action_register_entity('item', 'items', ARRAY['id']);
-- whoever updates item 29999 waits while somebody has the lock 7777
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
	\$\$ BEGIN PERFORM pg_advisory_xact_lock_shared(7777); RETURN new; END \$\$;
CREATE TRIGGER hold BEFORE UPDATE ON items FOR EACH ROW WHEN (old.id = 29999) EXECUTE FUNCTION hold();
SQL

# Ways for a row to fail, given the number of the row.
my %way = (
	value => sub { "$_[0],x\n" },
	table => sub { "$_[0],1000000\n" },
	csv => sub { "$_[0],\"x\"y\n" });

my ($files, %file_has) = (0);

# file_of($rows, $way, @bad): a file of so many rows, of which those with these numbers fail.
sub file_of
{
	my ($rows, $how, @bad) = @_;
	my %bad = map { $_ => 1 } @bad;
	my $path = "$root/" . ++$files . '.csv';
	write_file($path, join '', "id,n\n", map { $bad{$_} ? $way{$how}->($_) : "$_,$files\n" } 1 .. $rows);
	$file_has{$path} = $files;
	return $path;
}

sub submit
{
	my ($path, $options, %more) = @_;
	my $account = $more{account} // 'acme';
	return value_of($node,
		"SELECT bulk_action.bulk_action_submit('file://$path', entity_type => 'item', options => '$options', account_id => '$account')");
}

sub ended
{
	my ($id) = @_;
	wait_for($node, "SELECT state NOT IN ('queued', 'running', 'paused') FROM bulk_action.bulk_actions WHERE id = '$id'");
	my ($row) = rows_of($node, <<"SQL");
SELECT s.state, s.error_code, s.total, s.updated, s.failed, s.unprocessed, s.total_is_final,
	s.updated + s.failed + s.unprocessed + s.superseded + s.not_found,
	(SELECT count(*) FROM bulk_action.bulk_action_errors WHERE action_id = '$id'), a.error_message, a.error_detail, a.error_hint
FROM bulk_action.bulk_action_stat('$id') AS s, bulk_action.bulk_actions AS a WHERE a.id = '$id'
SQL
	my %stat;
	@stat{qw(state code total updated failed unprocessed final sum errors message detail hint)} = @$row;
	return \%stat;
}

# Within the budget: everything was tried.
sub completes
{
	my ($name, $path, $options, $failed) = @_;
	my $s = ended(submit($path, $options));
	is_deeply([ @$s{qw(state code unprocessed failed errors)} ], [ 'completed', undef, 0, $failed, $failed ],
		"$name: completed")
	  or diag(explain($s));
	return $s;
}

# Beyond it: failed, with all that was done on record, and not more.
sub is_failed
{
	my ($name, $path, $s, $allowed) = @_;
	subtest $name => sub {
		is_deeply([ @$s{qw(state code)} ], [ 'failed', 'BA422' ], 'failed') or diag(explain($s));
		cmp_ok($s->{failed}, '>', $allowed, 'more failed than may');
		is($s->{errors}, $s->{failed}, 'each is recorded');
		is($s->{sum}, $s->{total}, 'all rows are accounted for');
		is(value_of($node, "SELECT count(*) FROM items WHERE n = $file_has{$path}"), $s->{updated}, 'what was applied stays');
		like($s->{message}, qr/^\d+ of \d+ rows failed, which is more than may$/, 'message');
		like($s->{hint}, qr/bulk_action_errors.*max_errors/, 'hint');
	};
	return $s;
}

sub fails
{
	my ($name, $path, $options, $allowed) = @_;
	return is_failed($name, $path, ended(submit($path, $options)), $allowed);
}

# --- one chunk ---------------------------------------------------------------------------------------

foreach my $how (sort keys %way)
{
	my @bad = map { $_ * 20 } 1 .. 10;
	completes("$how, a number", file_of(200, $how, @bad), '{"max_errors": 10}', 10);
	my $s = fails("$how, one more than the number", file_of(200, $how, @bad), '{"max_errors": 9}', 9);
	is($s->{detail}, 'Option "max_errors" of the action is 9.', 'detail');
	completes("$how, a share", file_of(200, $how, @bad), '{"max_errors": "5%"}', 10);
	$s = fails("$how, one more than the share", file_of(200, $how, @bad, 7), '{"max_errors": "5%"}', 10);
	is_deeply([ @$s{qw(failed unprocessed message detail)} ],
		[ 11, 0, '11 of 200 rows failed, which is more than may', 'Option "max_errors" of the action is 5%.' ],
		'a share of few rows is judged at the end');
}
completes('no error at all', file_of(200, 'value'), '{"max_errors": 0}', 0);
completes('no error at all, as a share', file_of(200, 'value'), '{"max_errors": "0%"}', 0);
fails('the first error', file_of(200, 'value', 200), '{"max_errors": 0}', 0);
fails('the first error, as a share', file_of(200, 'value', 200), '{"max_errors": "0%"}', 0);
completes('all rows fail', file_of(200, 'value', 1 .. 200), '{"max_errors": "100%"}', 200);
completes('rows that are not found are no errors', write_file("$root/unknown.csv", join '', "id,n\n", map { "-$_,1\n" } 1 .. 5),
	'{"max_errors": 0}', 0);

# --- many chunks, one lane --------------------------------------------------------------------------

{
	my $one_lane = '"order": "file"';
	my @last = 2851 .. 3000;
	completes('the last chunk, a number', file_of(3000, 'table', @last), "{\"max_errors\": 150, $one_lane}", 150);
	fails('one more in the last chunk', file_of(3000, 'table', @last), "{\"max_errors\": 149, $one_lane}", 149);
	completes('the last chunk, a share', file_of(3000, 'table', @last), "{\"max_errors\": \"5%\", $one_lane}", 150);
	fails('one more in the last chunk, a share', file_of(3000, 'table', 1500, @last), "{\"max_errors\": \"5%\", $one_lane}", 150);
	my $s = fails('the very last row', file_of(3000, 'table', 3000), "{\"max_errors\": 0, $one_lane}", 0);
	is_deeply([ @$s{qw(updated unprocessed failed)} ], [ 2999, 0, 1 ], 'nothing was left to do');

	# 60 % of the rows tried, but not of the first thousand
	completes('a share is not judged early', file_of(3000, 'table', 1 .. 600), "{\"max_errors\": \"60%\", $one_lane}", 600);
	$s = fails('but after the first thousand', file_of(3000, 'table', 1 .. 601), "{\"max_errors\": \"20%\", $one_lane}", 200);
	cmp_ok($s->{unprocessed}, '>', 0, 'the rest was not tried') or diag(explain($s));
	$s = fails('all rows are bad', file_of(20_000, 'table', 1 .. 20_000), "{\"max_errors\": 100, $one_lane}", 100);
	cmp_ok($s->{failed}, '<=', 100 + 1000, 'not more than a chunk of them comes on top');
}

# --- many chunks, many lanes ------------------------------------------------------------------------

{
	my @bad = map { $_ * 60 } 1 .. 490;
	completes('many lanes, a number', file_of($keys, 'table', @bad), '{"max_errors": 490}', 490);
	fails('many lanes, one more', file_of($keys, 'table', @bad), '{"max_errors": 489}', 489);
	completes('many lanes, unreadable', file_of($keys, 'csv', @bad), '{"max_errors": 490}', 490);
	fails('many lanes, one more unreadable', file_of($keys, 'csv', @bad), '{"max_errors": 489}', 489);
	completes('many lanes, a share', file_of($keys, 'table', @bad), '{"max_errors": "10%"}', 490);
	my $s = fails('many lanes, all rows are bad', file_of($keys, 'value', 1 .. $keys), '{"max_errors": 3}', 3);
	cmp_ok($s->{unprocessed}, '>', 0, 'workers stop');
}

# --- rows that are no CSV ---------------------------------------------------------------------------

{
	my @bad = map { $_ * 20 } 1 .. 100;
	completes('unreadable rows, a share', file_of(2000, 'csv', @bad), '{"max_errors": "5%"}', 100);
	my $s = fails('one more unreadable row', file_of(2000, 'csv', @bad, 7), '{"max_errors": "5%"}', 100);
	is_deeply([ @$s{qw(total updated failed unprocessed)} ], [ 2000, 0, 101, 1899 ], 'nothing was applied of a segment with too many');

	# Read ahead of the rest, they are far more than 30 % of the rows applied by then.
	completes('unreadable rows and others', write_file("$root/ahead.csv",
			join '', "id,n\n", (map { "$_,\"x\"y\n" } 1 .. 1000), (map { $_ % 1000 ? "$_,-1\n" : "$_,x\n" } 1001 .. 5000)),
		'{"max_errors": "30%"}', 1004);
}

# --- duplicates -----------------------------------------------------------------------------------------

{
	my $path = file_of(300, 'value');
	$path = write_file($path, read_file($path) . join '', map { "$_,7\n" } 1 .. 5);
	completes('duplicates', $path, '{"max_errors": 10, "duplicates": "error"}', 10);
	my $s = ended(submit($path, '{"max_errors": 9, "duplicates": "error"}'));
	is_deeply([ @$s{qw(state code failed errors)} ], [ 'failed', 'BA422', 10, 10 ], 'one duplicate more than may');
	$s = ended(submit($path, '{"max_errors": 0, "duplicates": "last"}'));
	is_deeply([ @$s{qw(state code failed)} ], [ 'completed', undef, 0 ], 'superseded rows have not failed');
}

# --- the next one in the stream, and the option as it is at present --------------------------------

{
	my $holder = $node->background_psql('postgres', on_error_stop => 0);
	my $hold = sub {
		my ($options, $change) = @_;
		my $path = file_of(20, 'value', 3, 4);
		write_file($path, read_file($path) . "29999,$files\n");
		$holder->query_safe('SELECT pg_advisory_lock(7777)');
		# one chunk, judged when the row that waits has been applied
		my $id = submit($path, $options);
		wait_for($node, 'SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)');
		value_of($node, $change =~ s/ID/$id/r);
		$holder->query_safe('SELECT pg_advisory_unlock(7777)');
		return ended($id);
	};
	my $set = sub { "UPDATE bulk_action_internal.actions SET options = '{\"max_errors\": $_[0]}' WHERE id = 'ID'" };
	is($hold->('{"max_errors": 0}', $set->(2))->{state}, 'completed', 'the option that counts is the present one');
	is($hold->('{"max_errors": 2}', $set->(1))->{code}, 'BA422', 'also where it has become smaller');

	# As if so many rows had been unreadable.
	my $unreadable = sub {
		"UPDATE bulk_action_internal.sources SET parse_errors = $_[0] WHERE action_no = (SELECT action_no FROM bulk_action_internal.actions WHERE id = 'ID')";
	};
	is($hold->('{}', $unreadable->(999_998))->{state}, 'completed', 'a million errors may be without an option');
	my $s = $hold->('{}', $unreadable->(999_999));
	is_deeply([ @$s{qw(state code detail)} ], [ 'failed', 'BA422', 'Without an option "max_errors" 1000000 may.' ], 'but no more');

	# Where the last failure is committed already the coordinator is the one to find it.
	my $path = file_of(20, 'csv', 3, 4);
	write_file($path, read_file($path) . "29999,$files\n");
	$holder->query_safe('SELECT pg_advisory_lock(7777)');
	my $id = submit($path, '{"max_errors": 2}');
	my $next = submit(file_of(20, 'value'), '{"max_errors": 0}');
	wait_for($node, 'SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)');
	value_of($node, $set->(1) =~ s/ID/$id/r);
	$holder->query_safe('SELECT pg_advisory_unlock(7777)');
	$s = ended($id);
	is_deeply([ @$s{qw(state code failed updated unprocessed)} ], [ 'failed', 'BA422', 2, 19, 0 ], 'judged when it was about to be completed');
	is(ended($next)->{state}, 'completed', 'the next one in the stream goes on');
	$holder->quit;
}

# --- crashes ------------------------------------------------------------------------------------------------

foreach my $case (
	[ 'applier-before-commit', 'table' ],
	[ 'applier-committed', 'table' ],
	[ 'chunker-before-commit', 'csv' ],
	[ 'chunker-committed', 'csv' ],
	[ 'worker-before-close', 'table' ],
	[ 'coordinator-before-finish', 'table' ],
	[ 'coordinator-finished', 'table' ])
{
	my ($point, $how) = @$case;
	foreach my $what ('kill', 'terminate')
	{
		my $path = file_of(3000, $how, map { $_ * 10 } 1 .. 300);
		inject($node, $point, $what);
		my $id = submit($path, '{"max_errors": 40}');
		wait_for_injected($node, $point);
		wait_for($node, 'SELECT true') if $what eq 'kill';
		is_failed("$what at $point", $path, ended($id), 40);
	}
}
is(value_of($node, 'SELECT count(*) FROM bulk_action_internal.events'), '0', 'no report is left over');

done_testing();
