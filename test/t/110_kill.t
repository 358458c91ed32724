# Processes that die while an action is running: every kind, by SIGTERM and by SIGKILL, in every
# place where they hold something. Nobody helps the action; its table, statistics and errors are
# those of the same file applied serially.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node(
	'main',
	conf => <<'CONF');
bulk_action.file_root = '/'
CONF
create_role($node, 'alice');
create_contacts($node, 20_000, owner => 'alice');
register_contacts($node);
$node->safe_psql('postgres', 'GRANT pg_read_server_files TO alice');
serial_copy($node, 'public.contacts');

my $proxy = new_proxy();
server_for_s3($node, role => 'alice', endpoint => $proxy->endpoint);

# Whoever updates contact 7777 waits while somebody has the lock 7777.
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(7777);
  RETURN new;
END $$;
CREATE TRIGGER hold BEFORE UPDATE ON public.contacts FOR EACH ROW WHEN (old.id = 7777)
  EXECUTE FUNCTION hold();
SQL

my $files = 0;

# A file of its own for each run, with a few bad rows and some of which there is no contact.
sub next_file
{
	my (%option) = @_;
	$files++;
	return contacts_csv(
		$node,
		name => "kill$files.csv",
		rows => 6_600,
		first => 1,
		step => 3,
		order => 'shuffled',
		seed => $files,
		salt => $files,
		columns => [qw(first_name last_name age score)],
		bad => { 10 => { age => 'ten' }, 3210 => { score => '1e9' }, 4000 => { id => 90_000 }, 6599 => { id => 'x' } },
		%option);
}

sub submit
{
	my ($uri) = @_;
	return value_of($node, "SELECT bulk_action.bulk_action_submit('$uri')", as => 'alice');
}

sub wait_until_ended
{
	my ($id) = @_;
	return wait_for($node,
		"SELECT state NOT IN ('queued', 'running', 'paused') FROM bulk_action.bulk_actions WHERE id = '$id'");
}

# The action has done what the file does when it is applied serially, to the copy.
sub check
{
	my ($id, $csv, $name) = @_;
	my $serial = apply_serially($node, csv => $csv);
	subtest $name => sub {
		wait_until_ended($id);
		is_deeply(
			[ rows_of($node, <<SQL) ],
SELECT state, error_message, total_is_final, total, updated, unchanged, not_found, failed,
       inserted + deleted + superseded + unprocessed,
       total = updated + inserted + deleted + unchanged + not_found + superseded + failed + unprocessed
  FROM bulk_action.bulk_action_stat('$id')
SQL
			[ [ 'completed', undef, 't', $serial->{total}, $serial->{updated}, 0,
				$serial->{not_found}, $serial->{failed}, 0, 't' ] ],
			'statistics');
		is_deeply(
			[ rows_of($node, "SELECT line - 1, error_code FROM bulk_action.bulk_action_errors WHERE action_id = '$id' ORDER BY line") ],
			[ map { [ @$_[ 0, 1 ] ] } @{ $serial->{errors} } ],
			'errors');
		same_content($node, 'public.contacts', 'public.contacts_serial');
		is(value_of($node, <<SQL), 0, 'nothing is left of it in the queue');
SELECT (SELECT count(*) FROM bulk_action_internal.segments)
     + (SELECT count(*) FROM bulk_action_internal.cursors)
     + (SELECT count(*) FROM bulk_action_internal.events)
SQL
	};
}

sub pid_of
{
	my ($type) = @_;
	wait_until(sub { pids_of($node, "bulk_action $type") }, what => "a $type");
	return (pids_of($node, "bulk_action $type"))[0];
}

# The process that waits for the lock 7777, or for one on a table.
sub held_pid
{
	my $query = 'SELECT DISTINCT pid FROM pg_locks WHERE NOT granted LIMIT 1';
	wait_for($node, "SELECT EXISTS ($query)");
	return value_of($node, $query);
}

sub unrelated_pid
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	return ($pid, $session);
}

# Sessions that a crash has ended.
sub finish
{
	eval { $_->quit } foreach @_;
}

# A worker inside a chunk; returns the session that keeps it there.
sub hold_chunk
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	$session->query_safe('SELECT pg_advisory_lock(7777)');
	return $session;
}

# --- a chunk is being applied ------------------------------------------------------------------

my %victim = (
	launcher => sub { pid_of('launcher') },
	coordinator => sub { pid_of('coordinator') },
	worker => sub { held_pid() },
	'unrelated backend' => \&unrelated_pid);

foreach my $who (sort keys %victim)
{
	my $csv = next_file();
	my $holder = hold_chunk();
	my $id = submit("file://$csv");
	my $held = held_pid();
	my ($pid, $session) = $victim{$who}->();
	value_of($node, "SELECT pg_terminate_backend($pid, 60000)");
	$holder->query_safe('SELECT pg_advisory_unlock(7777)');
	check($id, $csv, "$who terminated while a chunk is being applied");
	finish($holder, grep { defined } $session);
}

foreach my $who (sort keys %victim)
{
	my $csv = next_file();
	my $holder = hold_chunk();
	my $id = submit("file://$csv");
	my $held = held_pid();
	my ($pid, $session) = $victim{$who}->();
	kill_9($node, $pid);
	check($id, $csv, "$who killed while a chunk is being applied");
	finish($holder, grep { defined } $session);
}

# --- the file is being read -----------------------------------------------------------------------

# The second segment's bytes do not come.
foreach my $how ('terminated', 'killed')
{
	my $csv = next_file(rows => 19_000, step => 1,
		columns => [qw(first_name last_name phone age score email birthday updated_at)]);
	my $uri = s3_put("chunking-$how.csv", file => $csv);
	cmp_ok(-s $csv, '>', 2_000_000, 'the file has several segments');
	my $stall = $proxy->fault('stall', method => 'GET', skip => 1, bytes => 100_000);
	my $id = submit($uri);
	$proxy->wait_for_stalled;
	# what has been read so far is being applied all the same
	wait_for($node, "SELECT updated > 0 AND NOT total_is_final FROM bulk_action.bulk_action_stat('$id')");
	wait_for($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'chunking %$id%'");
	my $pid = value_of($node, "SELECT pid FROM pg_stat_activity WHERE query LIKE 'chunking %$id%'");
	if ($how eq 'killed') { kill_9($node, $pid) }
	else { value_of($node, "SELECT pg_terminate_backend($pid, 60000)") }
	$proxy->release;
	check($id, $csv, "worker $how while it waits for bytes");
	is($proxy->fired($stall), 1, 'the proxy held it there');
}

# The segment is written but not committed.
{
	my $csv = next_file();
	my $holder = $node->background_psql('postgres', on_error_stop => 0);
	$holder->query_safe('BEGIN; LOCK TABLE bulk_action_internal.segments IN SHARE MODE');
	my $id = submit("file://$csv");
	kill_9($node, held_pid());
	check($id, $csv, 'worker killed while it writes a segment');
	finish($holder);
}

# --- the whole server ---------------------------------------------------------------------------------

{
	my $csv = next_file();
	my $holder = hold_chunk();
	my $id = submit("file://$csv");
	held_pid();
	$node->stop('immediate');
	$node->start;
	check($id, $csv, 'immediate stop and start');
	finish($holder);
}
{
	my $csv = next_file();
	my $holder = hold_chunk();
	my $id = submit("file://$csv");
	held_pid();
	$node->kill9;
	# it starts again as soon as the last of the others has noticed
	finish($holder);
	wait_until(sub { $node->start(fail_ok => 1) || !$node->stop('fast', fail_ok => 1) && 0 }, what => 'the server to start again');
	check($id, $csv, 'postmaster killed and started again');
}
{
	my $csv = next_file();
	my $holder = hold_chunk();
	my $id = submit("file://$csv");
	held_pid();
	$node->restart('fast');
	check($id, $csv, 'fast restart');
	finish($holder);
}

# Two wait behind one that is held.
{
	my @csv = map { next_file() } 1 .. 3;
	my $holder = hold_chunk();
	my @id = map { submit("file://$_") } @csv;
	held_pid();
	is(value_of($node, "SELECT string_agg(state, ' ' ORDER BY submitted_at) FROM bulk_action.bulk_actions WHERE state <> 'completed'"),
		'running queued queued', 'two actions are queued');
	$node->stop('immediate');
	$node->start;
	wait_until_ended($_) foreach @id;
	apply_serially($node, csv => $_) foreach @csv[ 0, 1 ];
	check($id[2], $csv[2], 'queued actions survive a restart, in their order');
	finish($holder);
}

# --- more than once -----------------------------------------------------------------------------------

# Whoever is inside is ended again and again.
{
	my $csv = next_file();
	my $holder = hold_chunk();
	my $id = submit("file://$csv");
	value_of($node, 'SELECT pg_terminate_backend(' . held_pid() . ', 60000)') foreach 1 .. 5;
	$holder->query_safe('SELECT pg_advisory_unlock(7777)');
	check($id, $csv, 'worker terminated five times');
	finish($holder);
}

# Cancelled while there is no coordinator and a worker is inside: what that worker is doing counts.
{
	my $csv = next_file();
	my $holder = hold_chunk();
	my $id = submit("file://$csv");
	held_pid();
	value_of($node, 'SELECT pg_terminate_backend(' . pid_of('coordinator') . ', 60000)');
	is(value_of($node, "SELECT bulk_action.bulk_action_cancel('$id')", as => 'alice'), 't', 'cancel');
	wait_until_ended($id);
	$holder->query_safe('SELECT pg_advisory_unlock(7777)');
	finish($holder);
	my ($state, $sum, $updated) = @{ (rows_of($node, <<SQL))[0] };
SELECT state, total = updated + unchanged + not_found + failed + unprocessed, updated
  FROM bulk_action.bulk_action_stat('$id')
SQL
	is("$state $sum", 'cancelled t', 'the action is cancelled and its rows are accounted for');
	wait_for($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%$id%' AND backend_type LIKE 'bulk_action%' AND state = 'active')");
	is(value_of($node, <<SQL), $updated, 'as many contacts have changed as it says');
SELECT count(*) FROM public.contacts AS c JOIN public.contacts_serial AS s USING (id) WHERE c <> s
SQL
}

# The queue is empty in the end, and nobody had to say that something was wrong.
wait_for($node, 'SELECT count(*) = 0 FROM bulk_action_internal.bulk_action_jobs');
unlike(read_file($node->logfile), qr/do not add up|where the board says|is missing|TRAP:/, 'nothing strange in the log');

done_testing();
