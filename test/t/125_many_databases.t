# More databases than the board has places for: each has its turn, the last one too, and when all of them
# have been looked at nobody goes on looking.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $databases = 70;

my $node = new_node('main', injection => 1, conf => <<'CONF');
bulk_action.file_root = '/'
bulk_action.enabled = off
bulk_action.idle_timeout = 500ms
# tells of each process that is started
log_min_messages = debug1
CONF
$node->safe_psql('postgres', join "\n", map { "CREATE DATABASE d$_;" } 1 .. $databases);
my $last = "d$databases";
$node->safe_psql($last, 'CREATE EXTENSION bulk_action');
create_contacts($node, 1_000, db => $last);
register_contacts($node, db => $last);
serial_copy($node, 'public.contacts', db => $last);
my $csv = contacts_csv($node, name => 'last.csv', rows => 1_000, salt => 1);

sub started
{
	my @lines = read_file($node->logfile) =~ /starting background worker process "bulk_action coordinator"/g;
	return scalar @lines;
}

my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$csv')", db => $last);

# nothing but going through the databases tells of it
my $before = started();
$node->append_conf('postgresql.conf', 'bulk_action.enabled = on');
$node->restart;
ok(eval { wait_for($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'", db => $last, expect => 'completed', timeout => 60) },
	'an action of the last one of them is carried out') or diag($@);
apply_serially($node, csv => $csv, db => $last);
same_content($node, 'public.contacts', 'public.contacts_serial', undef, db => $last);

wait_until(sub { started() - $before > $databases && !pids_of($node, 'bulk_action coordinator') },
	what => 'all databases to be looked at');
# the launcher goes round when it is woken; what a round has started is in the log when the next one begins
my $count = started();
foreach my $round (1 .. 3)
{
	inject($node, 'launcher-round', 'pass');
	$node->reload;
	wait_for_injected($node, 'launcher-round');
}
is(started(), $count, 'after that no coordinator is started any more');

done_testing();
