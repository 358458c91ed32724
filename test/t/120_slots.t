# Background processes are few, and others want them too: databases and session users that are
# busy at once all come to their end, however few slots there are.
use strict;
use warnings;

use BulkAction;
use Test::More;

# contacts in a database, as the entity of its own, and two who may change them
sub prepare
{
	my ($node, $db) = @_;
	if ($db ne 'postgres')
	{
		$node->safe_psql('postgres', "CREATE DATABASE $db");
		$node->safe_psql($db, 'CREATE EXTENSION bulk_action');
	}
	create_contacts($node, 4_000, db => $db);
	create_contacts($node, 4_000, db => $db, table => 'public.others');
	serial_copy($node, $_, db => $db) foreach qw(public.contacts public.others);
	register_contacts($node, db => $db);
	register_contacts($node, db => $db, table => 'public.others', entity => 'other');
	$node->safe_psql($db, <<'SQL');
GRANT USAGE ON SCHEMA bulk_action TO alice, bob;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bulk_action TO alice, bob;
GRANT SELECT, UPDATE ON public.contacts, public.others TO alice, bob;
SQL
}

sub submit
{
	my ($node, $db, $as, $entity, $csv) = @_;
	return value_of($node,
		"SELECT bulk_action.bulk_action_submit('file://$csv', entity_type => '$entity')",
		db => $db, as => $as);
}

sub check
{
	my ($node, $db, $id, $csv, $table, $name) = @_;
	subtest $name => sub {
		wait_for($node,
			"SELECT state NOT IN ('queued', 'running', 'paused') FROM bulk_action.bulk_actions WHERE id = '$id'",
			db => $db);
		my $serial = apply_serially($node, db => $db, csv => $csv, table => $table);
		is_deeply(
			[ rows_of($node, <<SQL, db => $db) ],
SELECT state, error_message, total, updated, not_found, failed, unprocessed,
       total = updated + inserted + deleted + unchanged + not_found + superseded + failed + unprocessed
  FROM bulk_action.bulk_action_stat('$id')
SQL
			[ [ 'completed', undef, @$serial{qw(total updated not_found failed)}, 0, 't' ] ],
			'statistics');
		same_content($node, $table, "${table}_serial", undef, db => $db);
	};
}

# What every action of each database does; submitted at once, then each is compared.
sub run_all
{
	my ($node, $name, @databases) = @_;
	my @actions;
	my $n = 0;
	foreach my $db (@databases)
	{
		foreach my $pair ([ alice => 'contact' ], [ bob => 'other' ])
		{
			my ($as, $entity) = @$pair;
			my $csv = contacts_csv($node, name => 'slots' . $n++ . '.csv', rows => 3_000, salt => $n,
				order => 'shuffled', seed => $n, bad => { 2_000 => { age => 'x' }, 2_001 => { id => 5_000 } });
			push @actions, [ $db, submit($node, $db, $as, $entity, $csv), $csv,
				$entity eq 'contact' ? 'public.contacts' : 'public.others', "$name: $as in $db" ];
		}
	}
	check($node, @$_) foreach @actions;
}

sub new_server
{
	my ($name, $conf, @databases) = @_;
	my $node = new_node($name, conf => "bulk_action.file_root = '/'\n$conf");
	create_role($node, $_) foreach 'alice', 'bob';
	$node->safe_psql('postgres', 'GRANT pg_read_server_files TO alice, bob');
	prepare($node, $_) foreach @databases;
	# nothing of that is still running
	wait_for($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type LIKE 'bulk_action%'");
	return $node;
}

# --- the default ------------------------------------------------------------------------------------

{
	my $node = new_server('eight', "max_worker_processes = 8\n", qw(postgres one two));
	run_all($node, 'eight slots, three databases', qw(postgres one two));
	$node->stop;
}

# --- one slot -----------------------------------------------------------------------------------------

# Of four slots the launchers of bulk_action and of logical replication have one each, and a
# coordinator the third.
{
	my $node = new_server('four', <<'CONF', qw(postgres one));
max_worker_processes = 4
bulk_action.max_workers = 1
bulk_action.idle_timeout = 2s
CONF
	run_all($node, 'one slot, two databases', qw(postgres one));

	# the worker of one is held up in a chunk: the action of the other must wait, and then gets it
	my $holder = $node->background_psql('postgres');
	$holder->query_safe('BEGIN; LOCK TABLE public.contacts IN SHARE MODE');
	my $held = contacts_csv($node, name => 'held.csv', rows => 2_000, salt => 50);
	my $waits = contacts_csv($node, name => 'waits.csv', rows => 2_000, salt => 51);
	my $first = submit($node, 'postgres', 'alice', 'contact', $held);
	wait_for($node, 'SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)');
	my $second = submit($node, 'postgres', 'bob', 'other', $waits);
	wait_for($node, "SELECT state = 'running' FROM bulk_action.bulk_actions WHERE id = '$second'");
	my $third = submit($node, 'one', 'bob', 'other', $waits);
	is(scalar pids_of($node, 'bulk_action worker'), 1, 'there is one worker');
	$holder->query_safe('ROLLBACK');
	check($node, 'postgres', $first, $held, 'public.contacts', 'the one with the slot');
	check($node, 'postgres', $second, $waits, 'public.others', 'the one that waited for it');
	check($node, 'one', $third, $waits, 'public.others', 'and the one in another database');
	$holder->quit;

	# small actions of two users, in turns
	my (@csv, @ids);
	foreach my $n (1 .. 5)
	{
		push @csv, contacts_csv($node, name => "turn$n.csv", rows => 100, salt => 60 + $n);
		push @ids, [ submit($node, 'postgres', 'alice', 'contact', $csv[-1]),
			submit($node, 'postgres', 'bob', 'other', $csv[-1]) ];
	}
	foreach my $table ('public.contacts', 'public.others')
	{
		apply_serially($node, csv => $_, table => $table) foreach @csv[ 0 .. 3 ];
	}
	check($node, 'postgres', $ids[4][0], $csv[4], 'public.contacts', 'five small ones of one user');
	check($node, 'postgres', $ids[4][1], $csv[4], 'public.others', 'and of another, taking turns');
	$node->stop;
}

# --- none -----------------------------------------------------------------------------------------------

# Parallel queries have the slots.
{
	my $node = new_server('none', <<'CONF', qw(postgres));
max_worker_processes = 4
max_parallel_workers = 4
bulk_action.idle_timeout = 2s
CONF
	my $forced = $node->pg_version < 16 ? 'force_parallel_mode' : 'debug_parallel_query';
	my @sleepers;
	foreach my $n (1 .. 2)
	{
		my $session = $node->background_psql('postgres');
		push @sleepers, $session;
		$session->{the_pid} = $session->query_safe('SELECT pg_backend_pid()');
		$session->query_until(qr/sleeping/,
			"SET $forced = on;\n\\echo sleeping\nSELECT pg_sleep(100000);\n");
		wait_for($node, "SELECT count(*) = $n FROM pg_stat_activity WHERE backend_type = 'parallel worker'");
	}
	my $log = -s $node->logfile;
	my $csv = contacts_csv($node, rows => 2_000);
	my $id = submit($node, 'postgres', 'alice', 'contact', $csv);
	my $no_slot = qr/WARNING:  bulk_action could not start a background process: no slot is free\n.*HINT:  Raise max_worker_processes \(now 4\)/;
	$log = $node->wait_for_log($no_slot, $log);
	ok($log, 'no slot for a coordinator: a warning with a hint');
	is(value_of($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'"), 'queued', 'the action is queued');

	value_of($node, "SELECT pg_terminate_backend($sleepers[0]{the_pid})");
	ok($node->wait_for_log($no_slot, $log), 'no slot for a worker: another one');
	wait_for($node, "SELECT state = 'running' FROM bulk_action.bulk_actions WHERE id = '$id'");

	value_of($node, "SELECT pg_terminate_backend($sleepers[1]{the_pid})");
	check($node, 'postgres', $id, $csv, 'public.contacts', 'the action goes on when a slot is free');
	eval { $_->quit } foreach @sleepers;
	$node->stop;
}

done_testing();
