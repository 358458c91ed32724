# Pause, resume, retry: what the operator can do to an action on its way.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', conf => <<'CONF');
bulk_action.file_root = '/'
bulk_action.idle_timeout = 1s
bulk_action.max_attempts = 2
CONF
create_role($node, $_) foreach qw(alice bob);
create_contacts($node, 8_000);
serial_copy($node, 'public.contacts');
register_contacts($node);
$node->safe_psql('postgres', <<'SQL');
GRANT pg_read_server_files TO alice, bob;
GRANT SELECT, UPDATE ON public.contacts TO alice, bob;
-- whoever updates contact 7000 waits while somebody has the lock 7000; and trouble can be made
CREATE TABLE public.trouble (code text);
GRANT SELECT ON public.trouble TO alice;
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE c text;
BEGIN
  PERFORM pg_advisory_xact_lock_shared(7000);
  FOR c IN SELECT code FROM public.trouble LOOP
    RAISE EXCEPTION 'no luck today' USING ERRCODE = c;
  END LOOP;
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
	return contacts_csv($node, name => "control$files.csv", rows => 8_000, salt => $files,
		order => 'shuffled', seed => $files, columns => [qw(first_name last_name phone age score)],
		bad => { 7 => { age => 'x' }, 8 => { id => 50_000 } }, %option);
}

sub submit
{
	my ($csv, %argument) = @_;
	return value_of($node, join(', ', "SELECT bulk_action.bulk_action_submit('file://$csv'",
			map { "$_ => '$argument{$_}'" } sort keys %argument) . ')', as => 'alice');
}

sub ask
{
	my ($what, $id, $more) = @_;
	return value_of($node, "SELECT bulk_action.bulk_action_$what('$id'" . ($more // '') . ')', as => 'alice');
}

sub refused
{
	my ($what, $id, $code, $name, $as) = @_;
	my (undef, undef, $error) = $node->psql('postgres',
		"\\set VERBOSITY verbose\nSET SESSION AUTHORIZATION " . ($as // 'alice') . ";\nSELECT bulk_action.bulk_action_$what('$id')");
	like($error, qr/$code/, $name);
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

sub is_serial
{
	my ($id, $csv, $name) = @_;
	my $serial = apply_serially($node, csv => $csv);
	is_deeply([ rows_of($node, "SELECT state, error_message, total, updated, not_found, failed, unprocessed FROM bulk_action.bulk_action_stat('$id')") ],
		[ [ 'completed', undef, @$serial{qw(total updated not_found failed)}, 0 ] ], "$name: the statistics");
	same_content($node, 'public.contacts', 'public.contacts_serial', "$name: the table");
}

# --- pause and resume --------------------------------------------------------------------------------------

{
	my ($csv, $next) = (next_file(), next_file(rows => 300));
	my $holder = hold_chunk();
	my $id = submit($csv);
	wait_until_held();
	my $second = submit($next);
	is(ask('pause', $id), 't', 'pause an action whose chunk waits for a lock');
	wait_for_state($node, $id, 'paused');
	is(value_of($node, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory')"), 'f', 'nobody is inside of it');
	is(value_of($node, "SELECT total = updated + unchanged + not_found + superseded + failed + unprocessed AND unprocessed > 0 FROM bulk_action.bulk_action_stat('$id')"),
		't', 'its rows are accounted for');
	is(ask('pause', $id), 'f', 'pause again: it is paused');
	is(value_of($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$second'"), 'queued', 'the next one of its stream waits');
	my $other = submit(next_file(rows => 200, columns => ['score']), account_id => 'other');
	wait_for_state($node, $other, 'completed');
	apply_serially($node, content => read_file($node->basedir . "/control$files.csv"));
	pass('another stream does not');

	# its chunks are not in the way of the queue
	wait_for($node, 'SELECT count(*) = 0 FROM bulk_action_internal.bulk_action_jobs');
	cmp_ok(value_of($node, 'SELECT count(*) FROM bulk_action_internal.parked'), '>', 0, 'its chunks are kept aside');
	rename($csv, "$csv.away") or die "$csv: $!";
	$holder->quit;
	$node->restart('immediate');
	wait_for($node, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bulk_action launcher')");
	is(value_of($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'"), 'paused', 'it rests through a restart');

	is(ask('resume', $id), 't', 'resume');
	wait_for_state($node, $_, 'completed') foreach $id, $second;
	is(value_of($node, "SELECT concat_ws(' ', total, updated, not_found, failed, unprocessed) FROM bulk_action.bulk_action_stat('$id')"),
		'8000 7998 1 1 0', 'paused and resumed, with the file gone meanwhile');
	apply_serially($node, csv => "$csv.away");
	is_serial($second, $next, 'and the next one');
	is(value_of($node, 'SELECT count(*) FROM bulk_action_internal.parked'), 0, 'nothing is kept aside');
	refused('pause', $id, '55000', 'a completed action cannot be paused');
	refused('resume', $id, '55000', 'nor resumed');
	refused('retry', $id, '55000', 'nor retried');
	is(ask('cancel', $id), 'f', 'and there is nothing to cancel');
	foreach my $what (qw(pause resume retry cancel))
	{
		refused($what, $id, 'does not exist', "$what: not for others", 'bob');
	}
}
{
	# a client who calls and leaves his transaction open holds up nobody
	my $csv = next_file();
	my $holder = hold_chunk();
	my $id = submit($csv);
	wait_until_held();
	my $client = $node->background_psql('postgres');
	$client->query_safe("SET SESSION AUTHORIZATION alice; BEGIN; SELECT bulk_action.bulk_action_pause('$id')");
	$holder->query_safe('SELECT pg_advisory_unlock(7000)');
	wait_for_state($node, $id, 'completed');
	$client->query_safe('COMMIT');
	is_serial($id, $csv, 'a pause that was committed too late');
	wait_for($node, 'SELECT count(*) = 0 FROM bulk_action_internal.events');
	$_->quit foreach $holder, $client;
}
{
	# before it began, and taken back
	my ($one, $two) = (next_file(rows => 200, first => 6_901), next_file(rows => 400));
	my $holder = hold_chunk();
	my $first = submit($one);
	wait_until_held();
	my $id = submit($two);
	is(ask('pause', $id), 't', 'pause a queued one');
	wait_for_state($node, $id, 'paused');
	is(ask('resume', $id), 't', 'resume it');
	wait_for_state($node, $id, 'queued');
	is(ask('resume', $id), 'f', 'resume again: it is not paused');
	is(ask('pause', $id), 't', 'pause it again');
	is(ask('cancel', $id), 't', 'cancel it');
	wait_for_state($node, $id, 'cancelled');
	$holder->query_safe('SELECT pg_advisory_unlock(7000)');
	wait_for_state($node, $first, 'completed');
	is_serial($first, $one, 'the one before it');
	$holder->quit;
}

{
	# interrupted and told to go on at once, more often than a task may fail
	my $csv = next_file();
	my $holder = hold_chunk();
	my $id = submit($csv);
	foreach my $n (1 .. 3)
	{
		wait_until_held();
		value_of($node, "BEGIN; SELECT bulk_action.bulk_action_pause('$id'); SELECT bulk_action.bulk_action_resume('$id'); COMMIT", as => 'alice');
		wait_for($node, "SELECT NOT EXISTS (SELECT FROM bulk_action_internal.events)");
	}
	wait_until_held();
	is(value_of($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'"), 'running', 'interrupts that we asked for are no failed tries');
	$holder->query_safe('SELECT pg_advisory_unlock(7000)');
	wait_for_state($node, $id, 'completed');
	is_serial($id, $csv, 'paused and resumed at once, three times');
	$holder->quit;
}

# --- trouble that does not pass ------------------------------------------------------------------------------

foreach my $code (qw(53100 40001))
{
	my $csv = next_file();
	$node->safe_psql('postgres', "INSERT INTO public.trouble VALUES ('$code')");
	my $id = submit($csv);
	wait_for_state($node, $id, 'paused');
	is_deeply([ rows_of($node, "SELECT error_code, error_message FROM bulk_action.bulk_actions WHERE id = '$id'") ],
		[ [ $code, 'no luck today' ] ], "$code: the action rests and says why");
	is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_action_errors WHERE action_id = '$id' AND error_code = '$code'"), 0,
		'it is no error of a row');
	$node->safe_psql('postgres', 'DELETE FROM public.trouble');
	is(ask('resume', $id), 't', 'when it is over');
	wait_for_state($node, $id, 'completed');
	is_serial($id, $csv, $code);
}

# --- retry -----------------------------------------------------------------------------------------------------

{
	# one lane, and contact 7000 in its second chunk: others are left whatever the workers do meanwhile
	my ($csv, $next) = (next_file(order => 'reversed'), next_file(rows => 300));
	my $holder = hold_chunk();
	my $id = submit($csv, options => '{"order": "file"}');
	wait_until_held();
	wait_for($node, "SELECT total_is_final FROM bulk_action.bulk_action_stat('$id')");
	$node->safe_psql('postgres', 'REVOKE UPDATE ON public.contacts FROM alice');
	$holder->query_safe('SELECT pg_advisory_unlock(7000)');
	wait_for_state($node, $id, 'failed');
	is(value_of($node, "SELECT error_code FROM bulk_action.bulk_actions WHERE id = '$id'"), '42501', 'an action fails in the middle');
	refused('pause', $id, '55000', 'a failed one cannot be paused');
	refused('resume', $id, '55000', 'nor resumed');
	wait_for($node, 'SELECT count(*) = 0 FROM bulk_action_internal.bulk_action_jobs');
	rename($csv, "$csv.away") or die "$csv: $!";
	$node->safe_psql('postgres', 'GRANT UPDATE ON public.contacts TO alice');

	# it goes to the end of its stream
	$holder->query_safe('SELECT pg_advisory_lock(7000)');
	my $front = next_file(rows => 200, first => 6_901);
	my $first = submit($front);
	wait_until_held();
	my $second = submit($next);
	is(ask('retry', $id), 't', 'retry');
	wait_for_state($node, $id, 'queued');
	is(ask('retry', $id), 'f', 'retry again: it has been');
	$holder->query_safe('SELECT pg_advisory_unlock(7000)');
	wait_for_state($node, $_, 'completed') foreach $first, $second, $id;
	my ($late) = rows_of($node, "SELECT id FROM bulk_action.bulk_actions ORDER BY finished_at DESC LIMIT 1");
	is($late->[0], $id, 'it was the last');
	my ($updated, $not_found, $failed, $total, $unprocessed) = @{ (rows_of($node,
		"SELECT updated, not_found, failed, total, unprocessed FROM bulk_action.bulk_action_stat('$id')"))[0] };
	is("$updated $not_found $failed $total $unprocessed", '7998 1 1 8000 0', 'every row was tried once');
	is(value_of($node, 'SELECT count(*) FROM bulk_action_internal.parked'), 0, 'nothing is kept aside');
	$holder->quit;
	$node->safe_psql('postgres', 'DROP TABLE public.contacts_serial');
}
{
	my $csv = next_file(bad => { map { $_ => { age => 'x' } } 1 .. 40 });
	serial_copy($node, 'public.contacts');
	my $id = submit($csv, options => '{"max_errors": 10, "order": "file"}');
	wait_for_state($node, $id, 'failed');
	is(value_of($node, "SELECT error_code FROM bulk_action.bulk_actions WHERE id = '$id'"), 'BA422', 'too many rows fail');
	my (undef, undef, $error) = $node->psql('postgres', "SET SESSION AUTHORIZATION alice;\nSELECT bulk_action.bulk_action_retry('$id', '\"many\"')");
	like($error, qr/max_errors/, 'a budget that is none');
	value_of($node, "BEGIN; SELECT bulk_action.bulk_action_retry('$id'); ROLLBACK", as => 'alice');
	is(ask('retry', $id, ", max_errors => '100'"), 't', 'retry with a larger budget');
	wait_for_state($node, $id, 'completed');
	is(value_of($node, "SELECT concat_ws(' ', updated, failed, total, unprocessed) FROM bulk_action.bulk_action_stat('$id')"), '7960 40 8000 0', 'and it is done');
	is(value_of($node, "SELECT options ->> 'max_errors' FROM bulk_action.bulk_actions WHERE id = '$id'"), 100, 'with the new budget');
	apply_serially($node, csv => $csv, mode => 'rows');
	same_content($node, 'public.contacts', 'public.contacts_serial', 'the table is as by hand');
	$node->safe_psql('postgres', 'DROP TABLE public.contacts_serial');
}

# --- several requests at once ---------------------------------------------------------------------------------

{
	# requests of one transaction are taken up one after the other; that the action is cancelled is the end of it
	my $csv = next_file();
	my $holder = hold_chunk();
	my $id = submit($csv);
	wait_until_held();
	wait_for($node, "SELECT updated > 0 FROM bulk_action.bulk_action_stat('$id')");
	ask('pause', $id);
	wait_for_state($node, $id, 'paused');
	cmp_ok(value_of($node, 'SELECT count(*) FROM bulk_action_internal.parked'), '>', 0, 'an action rests, with chunks set aside');
	my $counts = "SELECT concat_ws(' ', total, updated, not_found, failed, unprocessed) FROM bulk_action.bulk_action_stat('$id')";
	my $before = value_of($node, $counts);
	value_of($node, 'BEGIN; ' . join('', map { "SELECT bulk_action.bulk_action_$_('$id'); " } qw(cancel resume pause cancel)) . 'COMMIT',
		as => 'alice');
	wait_for($node, 'SELECT count(*) = 0 FROM bulk_action_internal.events');
	is(value_of($node, "SELECT state, error_message FROM bulk_action.bulk_actions WHERE id = '$id'"), 'cancelled|', 'it is cancelled');
	is(value_of($node, $counts), $before, 'and keeps its counts, whatever else was asked for');
	is(value_of($node, 'SELECT count(*) FROM bulk_action_internal.parked'), 0, 'its chunks are gone');
	$holder->quit;
}

{
	# retried and cancelled at once
	my $csv = next_file(bad => { map { $_ => { age => 'x' } } 1 .. 40 });
	my $id = submit($csv, options => '{"max_errors": 10, "order": "file"}');
	wait_for_state($node, $id, 'failed');
	is(value_of($node, "BEGIN; SELECT bulk_action.bulk_action_retry('$id'); SELECT bulk_action.bulk_action_cancel('$id'); COMMIT", as => 'alice'),
		"t\nt", 'a retry that has not been taken up can be cancelled');
	wait_for_state($node, $id, 'cancelled');
}
unlike(read_file($node->logfile), qr/accounted for|where the board says|is missing|TRAP:/, 'nothing strange in the log');

done_testing();
