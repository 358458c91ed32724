# What an action costs, in things that do not depend on the clock: instructions of the pure layer, WAL, looks at
# buffers, transaction ids and S3 requests, the plan of the statement that applies rows, and a worker's memory.
#
# The bounds are a quarter (instructions: other compilers) or a tenth above what was found; they are to be lowered
# when a change makes something cheaper, and a change that goes beyond one has to say why.
use strict;
use warnings;

use BulkAction;
use File::Basename qw(dirname);
use Test::More;

my $root = dirname(dirname(dirname(__FILE__)));

# at_most($found, $bound, $what): the figure is shown, met or not.
sub at_most
{
	my ($found, $bound, $what) = @_;
	note(sprintf('%s: %.1f, at most %.1f', $what, $found, $bound));
	return cmp_ok($found, '<=', $bound, $what);
}

# --- the pure layer --------------------------------------------------------------------------------------

my $program = PostgreSQL::Test::Utils::tempdir() . '/pure_layer';
system('gcc', '-std=c11', '-O2', '-g', "-I$root/src", '-o', $program, "$root/test/cost/pure_layer.c",
	(map { "$root/src/pure/$_.c" } qw(csv_reader csv_fields row_codec lane_assignment)), '-lcsv') == 0
  or die 'pure_layer could not be compiled';

sub instructions
{
	my ($rows) = @_;
	my $output = qx(valgrind --tool=callgrind --toggle-collect=take_rows --callgrind-out-file=/dev/null $program $rows 2>&1);
	my ($n) = $output =~ /Collected : (\d+)/ or die "callgrind says $output";
	like($output, qr/^$rows rows$/m, "$rows rows go through the pure layer");
	return $n;
}

at_most((instructions(12_000) - instructions(2_000)) / 10_000, 2300, 'instructions per row of five cells');

# --- an action -------------------------------------------------------------------------------------------

my $rows = 50_000;
my $proxy = new_proxy();
my $node = new_node('main', conf => <<'CONF');
bulk_action.file_root = '/'
# alone, so that what is counted is always the same
bulk_action.max_workers = 1
bulk_action.idle_timeout = 1s
autovacuum = off
full_page_writes = off
checkpoint_timeout = 1d
shared_preload_libraries = 'bulk_action, auto_explain'
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
log_min_messages = log
CONF
create_contacts($node, $rows);
register_contacts($node);
server_for_s3($node, endpoint => $proxy->endpoint);

sub cost_of
{
	my ($csv) = @_;
	my %cost;
	# workers and coordinator tell what they have counted when they end
	my $counters = <<'SQL';
SELECT pg_current_wal_insert_lsn() - '0/0', pg_snapshot_xmax(pg_current_snapshot()),
       (SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = current_database())
SQL
	my $quiet = sub {
		wait_until(sub { !pids_of($node, 'bulk_action worker') && !pids_of($node, 'bulk_action coordinator') },
			what => 'the processes to have ended');
		return @{ (rows_of($node, $counters))[0] };
	};
	my $uri = s3_put('cost.csv', file => $csv);
	$proxy->forget_requests;
	my @before = $quiet->();
	my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('$uri')");
	wait_for($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'", expect => 'completed');
	my @after = $quiet->();
	@cost{qw(wal xids buffers)} = map { $after[$_] - $before[$_] } 0 .. 2;
	$cost{requests} = $proxy->requests;
	$cost{stat} = join ' ', @{ (rows_of($node, "SELECT total, updated, unchanged, failed FROM bulk_action.bulk_action_stat('$id')"))[0] };
	note("$_: " . ($cost{$_} // '')) foreach sort keys %cost;
	return \%cost;
}

my @change = (rows => $rows, columns => [qw(first_name phone age score)], order => 'shuffled');
my $changed = cost_of(contacts_csv($node, @change, name => 'a.csv'));
my $unchanged = cost_of(contacts_csv($node, @change, name => 'a.csv'));

# Two segments (of 1 and of up to 2 MiB) for 32 lanes make 64 chunks, one transaction each with one subtransaction
# that has an id because it writes; the rest is the life of the action.
my $chunks = 64;

is($changed->{stat}, "$rows $rows 0 0", 'all rows are changed');
at_most($changed->{wal} / $rows, 235, 'WAL bytes per row that is changed');
at_most($changed->{buffers} / $rows, 6.6, 'buffers looked at per row that is changed');
at_most($changed->{xids} / $chunks, 2.3, 'transaction ids per chunk');
at_most($changed->{requests}, 3, 'S3 requests for two segments');

is($unchanged->{stat}, "$rows 0 $rows 0", 'the same file again: nothing is changed');
at_most($unchanged->{wal} / $rows, 35, 'WAL bytes per row that is unchanged');
at_most($unchanged->{buffers} / $rows, 4.0, 'buffers looked at per row that is unchanged');
at_most($unchanged->{xids} / $chunks, 1.3, 'transaction ids per chunk without changes');

# --- the plan --------------------------------------------------------------------------------------------

my @plans = read_file($node->logfile) =~ /Query Text: (UPDATE ONLY public\.contacts .*?)\n\d{4}-/sg;
cmp_ok(scalar @plans, '>=', $chunks, 'the plans of the statements are in the log');
my %shapes;
foreach my $plan (@plans)
{
	my @nodes = $plan =~ /^\s*(?:->\s+)?((?:[A-Z][a-z]+ )*[A-Z][a-z]+(?: (?:using|on) \S+)*(?: \w+)?)  \(cost/mg;
	$shapes{ join ' / ', @nodes }++;
}
is_deeply([ keys %shapes ],
	['Update on contacts t / Nested Loop / Named Tuplestore Scan / Index Scan using contacts_pkey on contacts t'],
	'one shape of plan: a nested loop over the index of the key') or note($plans[0]);

# With row-level security too, unless the equality of the key's type is not leakproof: then the policies come first,
# all rows have to be read, and a nested loop would read them for each row of the file.
create_role($node, 'clerk');
$node->safe_psql('postgres', <<'SQL');
GRANT pg_read_server_files TO clerk;
CREATE TABLE by_number (id bigint PRIMARY KEY, note text);
CREATE TABLE by_price (id numeric PRIMARY KEY, note text);
INSERT INTO by_number SELECT i, 'old' FROM generate_series(1, 100) AS i;
INSERT INTO by_price TABLE by_number;
SQL
foreach my $table (qw(by_number by_price))
{
	$node->safe_psql('postgres', <<SQL);
ALTER TABLE $table ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON $table USING (note <> 'of another');
GRANT SELECT, UPDATE ON $table TO clerk;
SELECT bulk_action.bulk_action_register_entity('$table', 'public.$table', ARRAY['id']);
SELECT bulk_action.bulk_action_grant('$table', 'clerk');
SQL
	my $path = write_file($node->basedir . "/$table.csv", "id,note\n" . join('', map { "$_,new\n" } 1 .. 100));
	my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$path', 'bulk_update', '$table')", as => 'clerk');
	my $stat = final_stat($node, $id);
	is("$stat->{state} $stat->{updated}", 'completed 100', "$table, with a policy");
	my @joins = map { /(Nested Loop|Hash Join|Merge Join)/ } read_file($node->logfile) =~ /Query Text: UPDATE ONLY public\.$table (.*?)\n\d{4}-/sg;
	cmp_ok(scalar @joins, '>', 0, 'its plans are in the log');
	is_deeply([ grep { $_ ne ($table eq 'by_price' ? 'Hash Join' : 'Nested Loop') } @joins ], [], 'and are as they should be');
}

# --- memory ----------------------------------------------------------------------------------------------

# Almost each row leaves out other columns, so almost each is a statement of its own: hundreds of plans for each
# chunk, most of which are never used again.
my @types = qw(int text date numeric bool bigint uuid timestamptz smallint real float8 oid json inet bytea varchar time jsonb);
my @values = (1, 'x', '2020-01-01', 1.5, 't', 5, '00000000-0000-0000-0000-000000000001', '2020-01-01', 3, 1.5, 2.5, 7, '{}',
	'10.0.0.1', 'x', 'y', '10:00', '{}');
$node->safe_psql('postgres', 'CREATE TABLE holes (id int PRIMARY KEY, ' . join(', ', map { "c$_ $types[$_]" } 0 .. $#types) . <<SQL);
);
INSERT INTO holes SELECT generate_series(1, 10000);
SELECT bulk_action.bulk_action_register_entity('holes', 'public.holes', ARRAY['id']);
SQL
my $uri = s3_put('holes.csv', content => join '', map { "$_\n" } join(',', 'id', map { "c$_" } 0 .. $#types), map {
		my $mask = $_ * 40503 % 65537 * 4 + 1; # multiplication by what has no divisor in common goes through all of them
		join ',', $_, map { $mask >> $_ & 1 ? $values[$_] : '' } 0 .. $#types
	} 1 .. 10_000);
my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('$uri', 'bulk_update', 'holes')");
my $peak = peak_of_workers($node, $id);
my $stat = stat_of($node, $id);
is("$stat->{state} $stat->{updated}", 'completed 10000', 'a file of many sets of columns');
cmp_ok($peak, '>', 1000, 'memory was looked at');
at_most($peak / 1024, 32, 'MiB that a worker has for itself');

done_testing();
