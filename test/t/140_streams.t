# Who goes first, who goes beside whom, and what becomes of those who are stopped on the way.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', conf => "bulk_action.file_root = '/'\nbulk_action.idle_timeout = 1s\n");
create_role($node, $_) foreach qw(alice bob);
create_contacts($node, 8_000);
serial_copy($node, 'public.contacts');
create_contacts($node, 8_000, table => 'public.others');
serial_copy($node, 'public.others');
register_contacts($node);
register_contacts($node, entity => 'other', table => 'public.others');
$node->safe_psql('postgres', <<'SQL');
GRANT pg_read_server_files TO alice, bob;
GRANT SELECT, UPDATE ON public.contacts, public.others TO alice, bob;
-- whoever updates contact 7000 waits while somebody has the lock 7000
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(7000);
  RETURN new;
END $$;
CREATE TRIGGER hold BEFORE UPDATE ON public.contacts FOR EACH ROW WHEN (old.id = 7000)
  EXECUTE FUNCTION hold();
SQL

my $files = 0;

sub next_file
{
	my (%option) = @_;
	$files++;
	return contacts_csv($node, name => "stream$files.csv", rows => 8_000, salt => $files,
		order => 'shuffled', seed => $files, columns => [qw(first_name last_name phone age score)],
		bad => { 7 => { age => 'x' }, 8 => { id => 50_000 } }, %option);
}

sub submit_sql
{
	my ($csv, %argument) = @_;
	return join ', ', "SELECT bulk_action.bulk_action_submit('file://$csv'",
	  (map { "$_ => '$argument{$_}'" } sort keys %argument);
}

sub submit
{
	my ($as, $csv, %argument) = @_;
	return value_of($node, submit_sql($csv, %argument) . ')', as => $as);
}

sub state_of { return value_of($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$_[0]'") }

sub wait_until_ended
{
	my ($id) = @_;
	return wait_for($node,
		"SELECT state NOT IN ('queued', 'running', 'paused') FROM bulk_action.bulk_actions WHERE id = '$id'");
}

# Nobody is inside a task of it any more.
sub is_at_rest
{
	my ($id) = @_;
	return wait_for($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%$id' AND state = 'active')");
}

sub statistics
{
	my ($id) = @_;
	my %row;
	@row{qw(state message total updated not_found failed unprocessed final sound)} = @{ (rows_of($node, <<SQL))[0] };
SELECT state, error_message, total, updated, not_found, failed, unprocessed, total_is_final,
       total = updated + inserted + deleted + unchanged + not_found + superseded + failed + unprocessed
  FROM bulk_action.bulk_action_stat('$id')
SQL
	return \%row;
}

# The serial run has been made; is it the same?
sub check
{
	my ($id, $serial, $name) = @_;
	subtest $name => sub {
		wait_until_ended($id);
		my $stat = statistics($id);
		is_deeply($stat,
			{ state => 'completed', message => undef, unprocessed => 0, final => 't', sound => 't',
				map { $_ => $serial->{$_} } qw(total updated not_found failed) },
			'statistics');
		is_deeply(
			[ rows_of($node, "SELECT line - 1, error_code FROM bulk_action.bulk_action_errors WHERE action_id = '$id' ORDER BY line") ],
			[ map { [ @$_[ 0, 1 ] ] } @{ $serial->{errors} } ],
			'errors');
	};
}

sub hold_chunk
{
	my $session = $node->background_psql('postgres');
	$session->query_safe('SELECT pg_advisory_lock(7000)');
	return $session;
}

sub wait_until_held
{
	return wait_for($node, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory')");
}

# --- two roles, four workers --------------------------------------------------------------------------

{
	my ($one, $two) = (next_file(), next_file());
	# each waits until the other has begun
	my $session = $node->background_psql('postgres');
	$session->query_safe('BEGIN');
	$session->query_safe("SELECT FROM public.$_ FOR UPDATE") foreach qw(contacts others);
	my $contacts = submit('alice', $one);
	my $others = submit('bob', $two, entity_type => 'other');
	wait_for($node, "SELECT count(DISTINCT usename) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'applying %'");
	pass('workers of both roles are at work at the same time');
	$session->query_safe('ROLLBACK');
	check($contacts, apply_serially($node, csv => $one), 'one role');
	check($others, apply_serially($node, csv => $two, table => 'public.others'), 'the other');
	same_content($node, 'public.contacts', 'public.contacts_serial');
	same_content($node, 'public.others', 'public.others_serial');
	$session->quit;
}
{
	my $csv = next_file(repeat => 3);
	my $session = $node->background_psql('postgres');
	$session->query_safe('BEGIN');
	$session->query_safe('SELECT FROM public.contacts FOR UPDATE');
	my $id = submit('alice', $csv);
	wait_for($node, "SELECT count(*) = 4 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'applying %'");
	$session->query_safe('ROLLBACK');
	$session->quit;
	check($id, apply_serially($node, csv => $csv), 'four workers at once, and keys that come twice');
	same_content($node, 'public.contacts', 'public.contacts_serial');
}

# --- one stream -----------------------------------------------------------------------------------------

# The same rows again and again: the last one to be submitted has the last word.
{
	my @csv = map { next_file(rows => 300, first => 1 + 10 * ($_ % 3)) } 1 .. 20;
	my @id = map { submit('alice', $_) } @csv;
	my @serial = map { apply_serially($node, csv => $_) } @csv;
	check($id[$_], $serial[$_], "action $_ of 20") foreach 0 .. 19;
	same_content($node, 'public.contacts', 'public.contacts_serial', 'twenty actions on the same rows');
	is(value_of($node, <<SQL), 0, 'each began when the one before it had ended');
SELECT count(*) FROM (
  SELECT started_at < lag(finished_at) OVER (ORDER BY submitted_at) AS early FROM bulk_action.bulk_actions
   WHERE id IN (@{[ join ', ', map { "'$_'" } @id ]})) AS a WHERE early
SQL
}

# Submitted earlier but committed later: the order of those that do not see each other is free, but
# what was committed before something else was submitted goes first.
{
	my @csv = map { next_file(rows => 200) } 1 .. 3;
	my $holder = hold_chunk();
	my $front = next_file(rows => 200, first => 6_901);
	my $first = submit('alice', $front);
	wait_until_held();
	my $open = $node->background_psql('postgres');
	$open->query_safe('SET SESSION AUTHORIZATION alice; BEGIN');
	my $late = $open->query_safe(submit_sql($csv[0]) . ')');
	my $early = submit('alice', $csv[1]);
	$open->query_safe('COMMIT');
	my $last = submit('alice', $csv[2]);
	is(state_of($_), 'queued', 'one stream: the others wait') foreach $early, $late, $last;
	$holder->query_safe('SELECT pg_advisory_unlock(7000)');
	wait_until_ended($_) foreach $first, $early, $late, $last;
	is(value_of($node, "SELECT (SELECT started_at FROM bulk_action.bulk_actions WHERE id = '$last') >= max(finished_at) FROM bulk_action.bulk_actions WHERE id IN ('$early', '$late', '$first')"),
		't', 'the one submitted after all had been committed is the last');
	my @order = split /\n/, value_of($node, "SELECT id FROM bulk_action.bulk_actions WHERE id IN ('$early', '$late') ORDER BY started_at");
	apply_serially($node, csv => $_) foreach $front, (map { $_ eq $late ? $csv[0] : $csv[1] } @order), $csv[2];
	same_content($node, 'public.contacts', 'public.contacts_serial', 'and has the last word');
	$_->quit foreach $holder, $open;
}

# --- streams side by side ---------------------------------------------------------------------------------

{
	my $holder = hold_chunk();
	my @csv = map { next_file(rows => 1_000, first => 6_500) } 1 .. 2;
	my @held = map { submit('alice', $_) } @csv;
	wait_until_held();

	# another account, another entity, another role
	my @free = (
		[ 'alice', next_file(rows => 500, first => 1), account_id => 'acme' ],
		[ 'alice', next_file(rows => 500, first => 1001), entity_type => 'other' ],
		[ 'bob', next_file(rows => 500, first => 2001) ]);
	foreach my $free (@free)
	{
		my ($as, $csv, %argument) = @$free;
		my $id = submit($as, $csv, %argument);
		my $table = $argument{entity_type} ? 'public.others' : 'public.contacts';
		check($id, apply_serially($node, csv => $csv, table => $table), "not held up: $as @{[ %argument ]}");
	}
	is(state_of($held[0]), 'running', 'while one is held');
	is(state_of($held[1]), 'queued', 'and its successor waits');
	$holder->query_safe('SELECT pg_advisory_unlock(7000)');
	$holder->quit;
	check($held[$_], apply_serially($node, csv => $csv[$_]), 'then they go on') foreach 0, 1;
	same_content($node, 'public.contacts', 'public.contacts_serial');
	same_content($node, 'public.others', 'public.others_serial');
}

# --- cancel ----------------------------------------------------------------------------------------------

sub cancel
{
	my ($as, $id) = @_;
	return value_of($node, "SELECT bulk_action.bulk_action_cancel('$id')", as => $as);
}

# Of a cancelled action: what it says it has done is what it has done.
sub check_part
{
	my ($id, $csv, $name) = @_;
	subtest $name => sub {
		wait_until_ended($id);
		is_at_rest($id);
		my $stat = statistics($id);
		is($stat->{state}, 'cancelled', 'it is cancelled');
		is($stat->{sound}, 't', 'its rows are accounted for');
		cmp_ok($stat->{unprocessed}, '>', 0, 'some have not been processed');
		# the same file to a copy, of which all that has changed is what would have changed
		$node->safe_psql('postgres', 'CREATE TABLE public.before AS TABLE public.contacts_serial');
		apply_serially($node, csv => $csv);
		is(value_of($node, 'SELECT count(*) FROM public.contacts AS c JOIN public.before AS b USING (id) WHERE c <> b'),
			$stat->{updated}, 'as many rows have changed as it says');
		is(value_of($node, <<'SQL'), 0, 'to what the file says');
SELECT count(*) FROM public.contacts AS c JOIN public.before AS b USING (id)
  JOIN public.contacts_serial AS s USING (id) WHERE c <> b AND c <> s
SQL
		$node->safe_psql('postgres', <<'SQL');
TRUNCATE public.contacts_serial;
INSERT INTO public.contacts_serial TABLE public.contacts;
DROP TABLE public.before;
SQL
	};
}

{
	my $holder = hold_chunk();
	my @csv = map { next_file(rows => 7_500) } 1 .. 4;
	my @id = map { submit('alice', $_) } @csv[ 0, 1 ];
	wait_until_held();
	# everything is done but the lane that is held
	wait_for($node, "SELECT total_is_final AND unprocessed <= 2 * total / 8 FROM bulk_action.bulk_action_stat('$id[0]')");

	is(cancel('alice', $id[1]), 't', 'cancel a queued one');
	wait_until_ended($id[1]);
	is(statistics($id[1])->{state}, 'cancelled', 'it ends at once, although another is before it');
	is(statistics($id[1])->{total}, 0, 'and nothing has been read');

	my ($status, undef, $error) = $node->psql('postgres', "SET SESSION AUTHORIZATION bob; SELECT bulk_action.bulk_action_cancel('$id[0]')");
	isnt($status, 0, 'somebody else may not cancel it');
	like($error, qr/does not exist/, 'and does not learn that it exists');

	is(cancel('alice', $id[0]), 't', 'cancel one whose worker waits for a lock');
	check_part($id[0], $csv[0], 'cancelled while it was held');
	is(cancel('alice', $id[0]), 'f', 'cancelled once more: it has ended already');

	push @id, map { submit('alice', $_) } @csv[ 2, 3 ];
	wait_until_held();
	# a cancel that is rolled back is none
	$node->safe_psql('postgres', "SET SESSION AUTHORIZATION alice; BEGIN; SELECT bulk_action.bulk_action_cancel('$id[2]'); ROLLBACK");
	$holder->query_safe('SELECT pg_advisory_unlock(7000)');
	check($id[2], apply_serially($node, csv => $csv[2]), 'the next in the stream goes on');
	check($id[3], apply_serially($node, csv => $csv[3]), 'and the next');
	same_content($node, 'public.contacts', 'public.contacts_serial');
	is(cancel('alice', $id[3]), 'f', 'an action that is completed cannot be cancelled');
	$holder->quit;
}
{
	# while its file is being read
	my $proxy = new_proxy();
	server_for_s3($node, role => 'alice', endpoint => $proxy->endpoint);
	my $csv = next_file();
	my $uri = s3_put('cancel.csv', file => $csv);
	my $hold = $proxy->fault('hold', method => 'GET');
	my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('$uri')", as => 'alice');
	$proxy->wait_for_held;
	is(cancel('alice', $id), 't', 'cancel while the file is being read');
	wait_until_ended($id);
	my $stat = statistics($id);
	is("$stat->{state} $stat->{total}", 'cancelled 0', 'it ends without the bytes that do not come');
	$proxy->clear;
	is_at_rest($id);
	same_content($node, 'public.contacts', 'public.contacts_serial', 'and has changed nothing');

	# the worker is as good as new
	$uri = s3_put('after.csv', file => $csv);
	$id = value_of($node, "SELECT bulk_action.bulk_action_submit('$uri')", as => 'alice');
	check($id, apply_serially($node, csv => $csv), 'the next one is completed');
	same_content($node, 'public.contacts', 'public.contacts_serial');
}

# --- idempotency ------------------------------------------------------------------------------------------

{
	my $csv = next_file(rows => 400);
	my %argument = (idempotency_key => 'once');
	my $id = submit('alice', $csv, %argument);
	is(submit('alice', $csv, %argument), $id, 'the same key: the same action');
	my ($status, undef, $error) = $node->psql('postgres', "SET SESSION AUTHORIZATION alice;\n"
		  . submit_sql(next_file(), %argument) . ')');
	like($error, qr/idempotency key "once" belongs to another bulk action/, 'the same key for another file is an error');
	check($id, apply_serially($node, csv => $csv), 'it is done');
	# only now: whoever comes second finds nothing to change
	isnt(submit('bob', $csv, %argument), $id, 'of another role: another one');
	wait_for($node, "SELECT bool_and(state IN ('completed', 'cancelled')) FROM bulk_action.bulk_actions");
	is(submit('alice', $csv, %argument), $id, 'known still when it has ended');
	same_content($node, 'public.contacts', 'public.contacts_serial', 'and done once');

	# two at the same moment: the later one waits for the fate of the earlier
	my $second = next_file(rows => 400);
	my @session = map { $node->background_psql('postgres') } 1 .. 2;
	$_->query_safe('SET SESSION AUTHORIZATION alice; BEGIN') foreach @session;
	my $sql = submit_sql($second, idempotency_key => 'race') . ')';
	my $one = $session[0]->query_safe($sql);
	$session[1]->query_until(qr/waiting/, "\\echo waiting\n$sql;\n");
	wait_for($node, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')");
	$session[0]->query_safe('ROLLBACK');
	my $two = $session[1]->query_safe('COMMIT');
	$two =~ s/\s//g;
	isnt($two, $one, 'the first of two with a key is rolled back: the other one is submitted');
	check($two, apply_serially($node, csv => $second), 'and done');
	$_->quit foreach @session;
	same_content($node, 'public.contacts', 'public.contacts_serial');
}

# --- who sees what -------------------------------------------------------------------------------------------

my @views = qw(bulk_actions bulk_action_stats bulk_action_errors bulk_action_progress);

sub seen_by
{
	my ($role) = @_;
	return map {
		value_of($node, $_ eq 'bulk_actions' ? "SELECT count(*) FROM bulk_action.$_ WHERE submitted_by <> 'bob'" :
			  "SELECT count(*) FROM bulk_action.$_ WHERE action_id IN (SELECT id FROM public.of_alice)", as => $role)
	} @views;
}

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE public.of_alice AS SELECT id FROM bulk_action.bulk_actions WHERE submitted_by = 'alice';
GRANT SELECT ON public.of_alice TO PUBLIC;
CREATE ROLE carol LOGIN;
GRANT USAGE ON SCHEMA bulk_action TO carol;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bulk_action TO carol;
CREATE ROLE dave LOGIN IN ROLE alice;
CREATE ROLE erin LOGIN NOINHERIT IN ROLE alice;
GRANT USAGE ON SCHEMA bulk_action TO erin;
SQL
{
	my @all = seen_by('alice');
	cmp_ok($_, '>', 0, 'a role sees its own') foreach @all;
	is_deeply([ seen_by($_) ], [ 0, 0, 0, 0 ], "$_ sees nothing of it") foreach qw(bob carol erin);
	is_deeply([ seen_by('dave') ], \@all, 'who has its privileges sees it as well');
	my $id = value_of($node, 'SELECT id FROM public.of_alice LIMIT 1');
	is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_action_stat('$id')", as => $_), 0, "no statistics for $_") foreach qw(bob carol);
	foreach my $role (qw(bob carol))
	{
		my ($status, undef, $error) = $node->psql('postgres', "SET SESSION AUTHORIZATION $role;\nCALL bulk_action.bulk_action_wait('$id')");
		like($error, qr/does not exist/, "$role cannot wait for it");
		($status, undef, $error) = $node->psql('postgres', "SET SESSION AUTHORIZATION $role;\nSELECT * FROM bulk_action_internal.actions");
		like($error, qr/permission denied/, "$role cannot look behind the views");
	}
}

# --- purge -----------------------------------------------------------------------------------------------------

{
	my $bob = value_of($node, "SELECT count(*) FROM bulk_action.bulk_actions WHERE submitted_by = 'bob'");
	my $alice = value_of($node, 'SELECT count(*) FROM public.of_alice');
	my $holder = hold_chunk();
	my $csv = next_file(rows => 200, first => 6_901);
	my $id = submit('alice', $csv);
	wait_until_held();
	is(value_of($node, 'SELECT bulk_action.bulk_action_purge()', as => 'alice'), 0, 'purge leaves what has ended just now');
	is(value_of($node, "SELECT bulk_action.bulk_action_purge('0')", as => 'carol'), 0, 'and what is not the caller\'s');
	is(value_of($node, "SELECT bulk_action.bulk_action_purge('0')", as => 'alice'), $alice, 'purge');
	is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_actions WHERE submitted_by = 'bob'"), $bob, 'others\' actions stay');
	is(state_of($id), 'running', 'and one that is running');
	$holder->query_safe('SELECT pg_advisory_unlock(7000)');
	$holder->quit;
	check($id, apply_serially($node, csv => $csv), 'which is completed');
	is(value_of($node, 'SELECT count(*) FROM bulk_action.bulk_action_errors WHERE action_id IN (SELECT id FROM public.of_alice)'), 0,
		'errors went with their actions');
	value_of($node, "SELECT bulk_action.bulk_action_purge('0')");
	is(value_of($node, <<'SQL'), 0, 'after all have been purged nothing is left');
SELECT (SELECT count(*) FROM bulk_action_internal.actions) + (SELECT count(*) FROM bulk_action_internal.stats)
     + (SELECT count(*) FROM bulk_action_internal.errors) + (SELECT count(*) FROM bulk_action_internal.segments)
     + (SELECT count(*) FROM bulk_action_internal.cursors) + (SELECT count(*) FROM bulk_action_internal.sources)
     + (SELECT count(*) FROM bulk_action_internal.events) + (SELECT count(*) FROM bulk_action_internal.keys)
     + (SELECT count(*) FROM bulk_action_internal.duplicates) + (SELECT count(*) FROM bulk_action_internal.superseded)
SQL
	wait_for($node, 'SELECT count(*) = 0 FROM bulk_action_internal.bulk_action_jobs');
	same_content($node, 'public.contacts', 'public.contacts_serial');
	same_content($node, 'public.others', 'public.others_serial');
}
unlike(read_file($node->logfile), qr/do not add up|where the board says|is missing|TRAP:/, 'nothing strange in the log');

done_testing();
