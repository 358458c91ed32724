# bulk_action.enabled is switched off and on again before the launcher has noticed that it was off.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', conf => <<'CONF');
bulk_action.file_root = '/'
CONF
create_contacts($node, 2_000);
register_contacts($node);
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(7);
  RETURN new;
END $$;
CREATE TRIGGER hold BEFORE UPDATE ON public.contacts FOR EACH ROW WHEN (old.last_name = 'Last7')
  EXECUTE FUNCTION public.hold();
SQL
my $csv = contacts_csv($node, name => 'held.csv', rows => 2_000, salt => 1);

my ($launcher) = pids_of($node, 'bulk_action launcher');
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(7)');
my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$csv')");
wait_for($node, "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");

kill 'STOP', $launcher;
$node->append_conf('postgresql.conf', 'bulk_action.enabled = off');
$node->reload;
wait_until(sub { !pids_of($node, 'bulk_action coordinator') }, what => 'the coordinator to leave');
$node->append_conf('postgresql.conf', 'bulk_action.enabled = on');
$node->reload;
kill 'CONT', $launcher;
$holder->query_safe('SELECT pg_advisory_unlock(7)');
ok(eval { wait_for($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'", expect => 'completed', timeout => 30) },
	'the action goes on') or diag($@);

$holder->quit;
done_testing();
