# A suspect has the server to itself. While nothing can begin it, because our processes are kept out of its
# database, the others go on.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', conf => <<'CONF');
bulk_action.file_root = '/'
bulk_action.max_workers = 2
CONF
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION bulk_action');
foreach my $db (qw(postgres other))
{
	create_contacts($node, 500, db => $db);
	register_contacts($node, db => $db);
}
my $csv = contacts_csv($node, rows => 500);

sub submit
{
	my ($db) = @_;
	return value_of($node, "SELECT bulk_action.bulk_action_submit('file://$csv')", db => $db);
}

sub lock_row
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	$session->query_safe('BEGIN');
	$session->query_safe('SELECT 1 FROM contacts WHERE id = 100 FOR UPDATE');
	return $session;
}

sub switch
{
	my ($value) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET bulk_action.enabled = $value");
	$node->reload;
	return;
}

sub waiting_worker
{
	my $waits = "FROM pg_stat_activity WHERE backend_type = 'bulk_action worker' AND datname = 'postgres' AND wait_event_type = 'Lock'";
	wait_for($node, "SELECT count(*) = 1 $waits");
	return value_of($node, "SELECT pid $waits");
}

my $holder = lock_row();
my $id = submit('postgres');
my $worker = waiting_worker();
switch('off');
wait_for($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'bulk_action coordinator'");
kill_9($node, $worker);
eval { $holder->quit };
is(value_of($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'"), 'running', 'a crash in the middle of a chunk');

$holder = lock_row();
switch('on');
waiting_worker();
is(value_of($node, "SELECT string_agg(kind, ' ') FROM bulk_action_internal.suspects"), 'chunk', 'it is a suspect now, and runs');
my $other = submit('other');

my $dropping = $node->background_psql('postgres');
$dropping->query_safe('BEGIN');
$dropping->query_safe('DROP EXTENSION bulk_action CASCADE');
# well within the minute after which a suspect keeps nobody back in any case
ok(eval { wait_for_state($node, $other, 'completed', db => 'other', timeout => 50) }, 'kept out of its database, it is in nobody\'s way')
  or diag($@);
$dropping->query_safe('ROLLBACK');
waiting_worker();
$holder->query_safe('COMMIT');
wait_for_state($node, $id, 'completed');
is(value_of($node, "SELECT concat_ws(' ', total, updated, failed, unprocessed) FROM bulk_action.bulk_action_stat('$id')"),
	'500 500 0 0', 'then it goes on');
$_->quit foreach $holder, $dropping;

# A suspect that takes its time: after a minute it is alone no more.
{
	$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- longer than suspects may keep others back
  PERFORM pg_sleep(600);
  RETURN new;
END $$;
CREATE TRIGGER slow BEFORE UPDATE ON contacts FOR EACH ROW WHEN (old.id = 100) EXECUTE FUNCTION slow();
SQL
	$csv = contacts_csv($node, rows => 500, salt => 7, name => 'slow.csv');
	my $slow = submit('postgres');
	my $sleeps = "FROM pg_stat_activity WHERE backend_type = 'bulk_action worker' AND wait_event = 'PgSleep'";
	wait_for($node, "SELECT count(*) = 1 $sleeps");
	kill_9($node, value_of($node, "SELECT pid $sleeps"));
	wait_for($node, "SELECT count(*) = 1 $sleeps", what => 'the suspect to be tried alone');
	my $other = submit('other');
	wait_for_state($node, $other, 'completed', db => 'other', timeout => 300);
	is(value_of($node, "SELECT count(*) $sleeps"), 1, 'a slow suspect does not keep others back for ever');
	value_of($node, "SELECT bulk_action.bulk_action_cancel('$slow')");
	wait_for_state($node, $slow, 'cancelled');
}

done_testing();
