# Every row is accounted for at every moment: the outcomes are counted from other sources than the
# total, and yet add up to it in every snapshot that anybody takes while the action runs.
use strict;
use warnings;

use BulkAction;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my $rows = 120_000;
# One worker chunks while others apply, so that all counters move at once; small queue, so that
# segments and chunks alternate to the end.
my $node = new_node('main', conf => "bulk_action.max_workers = 3\nbulk_action.max_queued_chunks = 40\n");
my $root = $node->basedir . '/files';
mkdir $root or die "$root: $!";
$node->append_conf('postgresql.conf', "bulk_action.file_root = '$root'");
$node->reload;

create_contacts($node, $rows);

serial_copy($node, 'public.contacts');
register_contacts($node);
my %bad = map { $_ * 997 => { age => 'x' } } 1 .. 100;
my $csv = contacts_csv($node, rows => $rows, order => 'shuffled', repeat => 50, bad => \%bad);
my $unknown = contacts_csv($node, rows => 500, first => $rows + 1, header => 0, name => 'unknown.csv');
my $text = read_file($csv) . read_file($unknown);
my $serial = apply_serially($node, content => $text);
# and some lines that are no CSV at all: counted by the parser, not by a lane
my $no_csv = 70;
write_file("$root/contacts.csv", $text . qq(7"quote",x\n) x $no_csv);

# Polls as fast as it can until the action has ended; says how often, how often while rows were
# neither all waiting nor all done, and how often the sum was wrong.
sub poller
{
	my ($id, $isolation) = @_;
	my $sql = <<"SQL";
BEGIN ISOLATION LEVEL $isolation;
DO \$\$
DECLARE
	s record;
	polls integer := 0;
	midway integer := 0;
	wrong integer := 0;
	backwards integer := 0;
	done bigint := 0;
BEGIN
	LOOP
		SELECT * INTO s FROM bulk_action.bulk_action_stat('$id');
		polls := polls + 1;
		IF s.total <> s.updated + s.inserted + s.deleted + s.unchanged + s.not_found + s.superseded
			+ s.failed + s.unprocessed THEN
			wrong := wrong + 1;
		END IF;
		IF s.total - s.unprocessed < done THEN
			backwards := backwards + 1;
		END IF;
		done := s.total - s.unprocessed;
		IF s.unprocessed > 0 AND done > 0 THEN
			midway := midway + 1;
		END IF;
		EXIT WHEN s.state NOT IN ('queued', 'running') OR '$isolation' <> 'READ COMMITTED';
	END LOOP;
	RAISE NOTICE 'result: % % % %', polls, midway, wrong, backwards;
END
\$\$;
COMMIT;
SQL
	my ($out, $err) = ('', '');
	my $file = $node->basedir . '/poll ' . $isolation =~ s/ /_/r . '.sql';
	write_file($file, $sql);
	my $run = IPC::Run::start(
		[ $node->installed_command('psql'), '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'),
			'-f', $file ],
		'>', \$out, '2>', \$err);
	return { run => $run, err => \$err };
}

sub result_of
{
	my ($poller) = @_;
	$poller->{run}->finish;
	my @numbers = ${ $poller->{err} } =~ /result: (\d+) (\d+) (\d+) (\d+)/
	  or die "no result: ${ $poller->{err} }";
	return @numbers;
}

my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$root/contacts.csv')");
my $poller = poller($id, 'READ COMMITTED');

# Sessions with one snapshot each, taken at different moments.
my ($snapshots, $wrong_snapshots) = (0, 0);
while (value_of($node, "SELECT state IN ('queued', 'running') FROM bulk_action.bulk_actions WHERE id = '$id'") eq 't')
{
	my (undef, undef, $wrong) = result_of(poller($id, 'REPEATABLE READ'));
	$snapshots++;
	$wrong_snapshots += $wrong;
}

my ($polls, $midway, $wrong, $backwards) = result_of($poller);
note("$polls polls, $midway of them midway; $snapshots snapshots");
cmp_ok($midway, '>', 10, 'the action was looked at many times on its way');
is($wrong, 0, 'the outcomes added up to the total every time');
is($backwards, 0, 'what was done stayed done');
is($wrong_snapshots, 0, 'and in every snapshot of a longer transaction');

my ($final) = rows_of($node,
	"SELECT state, total, updated, not_found, failed, unprocessed FROM bulk_action.bulk_action_stat('$id')");
my ($state, $total, $updated, $not_found, $failed, $unprocessed) = @$final;
is($state, 'completed', 'it ends completed');
is($total, $serial->{total} + $no_csv, 'every row of the file is in the total');
is($updated, $serial->{updated}, 'as many updated as by plain SQL');
is($not_found, $serial->{not_found}, 'as many not found as by plain SQL');
is($failed, $serial->{failed} + $no_csv, 'as many failed as by plain SQL, and the lines that are no CSV');
is($unprocessed, 0, 'none is left');
is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_action_errors WHERE action_id = '$id'"),
	$failed, 'one error for each failed row');
same_content($node, 'public.contacts', 'public.contacts_serial', 'the table is what plain SQL makes of it');
is(value_of($node, "SELECT (total, failed, success)::text FROM bulk_action.bulk_action_stats WHERE action_id = '$id'"),
	"($total,$failed,$updated)", 'bulk_action_stats has the final counts');

done_testing();
