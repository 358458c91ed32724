# What somebody else has locked keeps nobody else waiting. A purge that is not committed has the rows of its
# actions: the coordinator passes over what was asked for them, and takes it up when the purge has ended.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', conf => <<'CONF');
bulk_action.file_root = '/'
bulk_action.idle_timeout = 1s
CONF
create_role($node, $_) foreach qw(alice bob);
create_contacts($node, 500);
register_contacts($node);
$node->safe_psql('postgres', <<'SQL');
GRANT pg_read_server_files TO alice, bob;
GRANT SELECT, UPDATE ON public.contacts TO alice, bob;
SQL
my $csv = contacts_csv($node, name => 'good.csv', rows => 500);
my $none = contacts_csv($node, name => 'none.csv', rows => 0);
my $bad = contacts_csv($node, name => 'bad.csv', rows => 500, bad => { map { $_ => { age => 'x' } } 1 .. 40 });

sub submit
{
	my ($as, $file, $options) = @_;
	return value_of($node, "SELECT bulk_action.bulk_action_submit('file://$file', options => '$options')", as => $as);
}

sub failed_action
{
	my $id = submit('alice', $bad, '{"max_errors": 10}');
	wait_for_state($node, $id, 'failed');
	return $id;
}

foreach my $end (qw(ROLLBACK COMMIT))
{
	my $id = failed_action();
	my $purger = $node->background_psql('postgres');
	$purger->query_safe('SET SESSION AUTHORIZATION alice');
	$purger->query_safe('BEGIN');
	cmp_ok($purger->query_safe("SELECT bulk_action.bulk_action_purge('0')"), '>', 0, 'a purge that stays open');
	is(value_of($node, "SELECT bulk_action.bulk_action_retry('$id', '100')", as => 'alice'), 't', 'its action is to be retried');

	# whether a process of ours has waited for a lock until it gave up, the log says at the end
	ok(wait_for_state($node, submit('bob', $csv, '{}'), 'completed'), 'somebody else\'s action goes on');
	is(value_of($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'bulk_action%' AND wait_event_type = 'Lock'"),
		0, 'nobody waits for a lock');
	is(value_of($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'"), 'failed', 'nothing has become of the retry');

	$purger->query_safe($end);
	$purger->quit;
	if ($end eq 'ROLLBACK')
	{
		wait_for_state($node, $id, 'completed');
		pass('rolled back, the action is retried');
	}
	else
	{
		wait_for($node, 'SELECT count(*) = 0 FROM bulk_action_internal.events');
		is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_actions WHERE id = '$id'"), 0, 'committed, it is gone');
	}
}

# An action is to rest, and the queue's tables are not to be had at that moment.
{
	my $holder = $node->background_psql('postgres');
	$holder->query_safe('BEGIN');
	$holder->query_safe('SELECT 1 FROM contacts WHERE id = 7 FOR UPDATE');
	my $first = submit('bob', $csv, '{"skip_unchanged": false}');
	wait_for($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bulk_action worker' AND wait_event_type = 'Lock'");
	my $id = submit('bob', $csv, '{}');
	my $locker = $node->background_psql('postgres');
	$locker->query_safe('BEGIN');
	$locker->query_safe('LOCK TABLE bulk_action_internal.bulk_action_jobs_1, bulk_action_internal.bulk_action_jobs_2');
	is(value_of($node, "SELECT bulk_action.bulk_action_pause('$id')", as => 'bob'), 't', 'an action behind another is to be paused');
	# what is submitted later and ends has been seen by a coordinator that came by twice; it has no rows for the queue
	wait_for_state($node, value_of($node, "SELECT bulk_action.bulk_action_submit('file://$none', account_id => '$_')", as => 'alice'), 'completed')
	  foreach qw(once twice);
	is(value_of($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'"), 'queued', 'which has to wait');
	$locker->query_safe('COMMIT');
	ok(wait_for_state($node, $id, 'paused'), 'and is made up for');
	$holder->query_safe('COMMIT');
	wait_for_state($node, $first, 'completed');
	$_->quit foreach $holder, $locker;
}
unlike(read_file($node->logfile), qr/canceling statement due to lock timeout|TRAP:/, 'nothing strange in the log');

done_testing();
