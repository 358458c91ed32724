# What a server goes through while actions run: it is replaced by its standby, its disk is full, it has
# settings that no work can be done under, somebody alters the table in a transaction that takes its time,
# roles are shut out or dropped. 120_slots.t has worker slots that are used up; 030_target_changes.t and
# 150_privileges.t have more changes of tables, servers and privileges, 130_drop.t those of databases.
use strict;
use warnings;

use BulkAction;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# --- helpers -----------------------------------------------------------------------------------

# The table contacts, as new, with its copy for plain SQL; `hold` keeps whoever updates contact 7 while
# somebody has the advisory lock 7.
sub set_up
{
	my ($node, %option) = @_;
	my $db = $option{db} // 'postgres';
	$node->safe_psql($db, <<'SQL');
SET client_min_messages = warning;
DROP TABLE IF EXISTS public.contacts, public.contacts_serial;
CREATE OR REPLACE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(7);
  RETURN new;
END $$;
SQL
	create_contacts($node, 6_000, db => $db);
	register_contacts($node, db => $db);
	$node->safe_psql($db, <<'SQL');
CREATE TABLE public.contacts_serial (LIKE public.contacts INCLUDING ALL);
INSERT INTO public.contacts_serial SELECT * FROM public.contacts;
CREATE TRIGGER hold BEFORE UPDATE ON public.contacts FOR EACH ROW WHEN (old.last_name = 'Last7')
  EXECUTE FUNCTION public.hold();
SQL
	$node->safe_psql($db, "GRANT SELECT, UPDATE ON public.contacts TO $option{role}") if $option{role};
	return;
}

my $files = 0;

# A file with a bad row and one of which there is no contact.
sub next_file
{
	my ($node, %option) = @_;
	$files++;
	return contacts_csv($node, name => "life$files.csv", rows => 5_000, columns => [qw(first_name last_name age score)], order => 'shuffled', seed => $files, salt => $files,
		bad => { 1_234 => { age => 'x' }, 2_345 => { id => 9_000 } }, %option);
}

sub submit
{
	my ($node, $uri, %option) = @_;
	return value_of($node, "SELECT bulk_action.bulk_action_submit('$uri')", %option);
}

sub statistics
{
	my ($node, $id, %option) = @_;
	my %stat;
	@stat{qw(state code message total updated not_found failed unprocessed adds_up)} =
	  @{ (rows_of($node, <<SQL, %option))[0] };
SELECT state, error_code, error_message, total, updated, not_found, failed, unprocessed,
       total = updated + inserted + deleted + unchanged + not_found + superseded + failed + unprocessed
  FROM bulk_action.bulk_action_stat('$id')
SQL
	return \%stat;
}

sub ended
{
	my ($node, $id, %option) = @_;
	wait_for($node, "SELECT state NOT IN ('queued', 'running') FROM bulk_action.bulk_actions WHERE id = '$id'", %option);
	return statistics($node, $id, %option);
}

# The action has done what plain SQL does; the table is not compared if one that follows has changed it too.
sub is_applied
{
	my ($node, $id, $csv, $name, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	subtest $name => sub {
		my $stat = ended($node, $id, %option);
		my $serial = apply_serially($node, csv => $csv, %option);
		is_deeply([ @{$stat}{qw(state message total updated not_found failed unprocessed adds_up)} ],
			[ 'completed', undef, @{$serial}{qw(total updated not_found failed)}, 0, 't' ], 'the action completes');
		is_deeply([ rows_of($node, "SELECT line - 1, error_code FROM bulk_action.bulk_action_errors
			WHERE action_id = '$id' ORDER BY line", %option) ], [ map { [ @$_[ 0, 1 ] ] } @{ $serial->{errors} } ],
			'the same rows fail');
		same_content($node, 'public.contacts', 'public.contacts_serial', 'the table is as plain SQL leaves it', %option)
		  unless $option{followed};
	};
	return;
}

# An action that fails with chunks applied and chunks not; the table has the ones and not the others.
sub is_failed
{
	my ($node, $id, $csv, $code, $message, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	subtest $name => sub {
		my $stat = ended($node, $id);
		is_deeply([ @{$stat}{qw(state code adds_up)} ], [ 'failed', $code, 't' ], 'the action fails');
		like($stat->{message}, $message, 'it says why');
		cmp_ok($stat->{unprocessed}, '>', 0, 'rows are left');
		$node->safe_psql('postgres', 'CREATE TABLE public.contacts_before AS TABLE public.contacts_serial');
		apply_serially($node, csv => $csv);
		same_as_counted($node, 'public.contacts', $stat->{updated},
			'as many rows as counted are as in the file, all others as before');
		$node->safe_psql('postgres', 'DROP TABLE public.contacts_before');
	};
	return;
}

# A session that has the lock 7, and an action that waits for it inside a chunk.
sub hold
{
	my ($node, $uri, %option) = @_;
	my $session = $node->background_psql($option{db} // 'postgres', on_error_stop => 0);
	$session->query_safe('SELECT pg_advisory_lock(7)');
	my $id = submit($node, $uri, %option);
	wait_for($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'applying%$id'");
	return ($session, $id);
}

sub release
{
	my ($session) = @_;
	$session->query_safe('SELECT pg_advisory_unlock(7)');
	$session->quit;
}

# --- the standby takes over ------------------------------------------------------------------------

{
	my $primary = new_node('primary', conf => <<'CONF');
wal_level = replica
max_wal_senders = 4
bulk_action.file_root = '/'
CONF
	set_up($primary);
	server_for_s3($primary);
	$primary->backup('backup');
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($primary, 'backup', has_streaming => 1);
	$standby->start;

	my @csv = map { next_file($primary) } 1 .. 2;
	my ($session, $id) = hold($primary, "file://$csv[0]");
	my $next = submit($primary, s3_put('next.csv', file => $csv[1]));
	wait_for($primary, "SELECT updated > 0 FROM bulk_action.bulk_action_stat('$id')");
	wait_for($standby, "SELECT updated > 0 FROM bulk_action.bulk_action_stat('$id')");
	wait_for($standby, "SELECT state = 'queued' FROM bulk_action.bulk_actions WHERE id = '$next'");
	is_deeply([ pids_of($standby, 'bulk_action%') ], [], 'on a standby nothing runs');
	my ($status, undef, $error) = $standby->psql('postgres', "SELECT bulk_action.bulk_action_submit('file://$csv[0]')");
	like($error, qr/cannot execute .* in a read-only transaction|recovery is in progress/, 'and nothing is taken in');

	$primary->stop('immediate');
	eval { $session->quit };
	is(statistics($standby, $id)->{state}, 'running', 'without its primary the standby shows the action as it was');
	is_deeply([ pids_of($standby, 'bulk_action%') ], [], 'and still does nothing about it');
	$standby->promote;
	is_applied($standby, $id, $csv[0], 'the action that was running ends on the server that was promoted', followed => 1);
	is_applied($standby, $next, $csv[1], 'and the next one of its stream after it');
	my $csv = next_file($standby);
	is_applied($standby, submit($standby, "file://$csv"), $csv, 'and one that is new');
	$standby->stop;
}

# --- no space left -----------------------------------------------------------------------------------

# A server that sees a small file system of its own: an unprivileged user may mount one in a namespace of
# mounts and users. pg_ctl is called through a script that makes it.
SKIP:
{
	my $place = PostgreSQL::Test::Utils::tempdir();
	mkdir "$place/bin";
	mkdir "$place/small";
	my $mount = "mount -t tmpfs -o size=24m,mode=0700 tmpfs '$place/small'";
	skip 'this system lets nobody mount a file system of his own', 3
	  unless pg_ctl_in_namespaces("$place/bin", '--mount', $mount);

	my $node = new_node('small', start => 0, conf => "bulk_action.file_root = '/'\nbulk_action.max_attempts = 1000\nautovacuum = off\n");
	{
		local $ENV{PATH} = "$place/bin:$ENV{PATH}";
		$node->start;
	}
	$node->safe_psql('postgres', 'CREATE EXTENSION bulk_action');
	set_up($node);
	$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$place/small'");

	# Fills the file system to the last page; returns what frees it again.
	my $fill = sub {
		$node->safe_psql('postgres', 'CREATE TABLE public.ballast (t text) TABLESPACE small;
			ALTER TABLE public.ballast ALTER t SET STORAGE PLAIN');
		my ($error, $rows) = ('', 1_000);
		for (; $rows > 0; $rows = int($rows / 2))
		{
			do
			{
				(undef, undef, $error) = $node->psql('postgres',
					"INSERT INTO public.ballast SELECT repeat('x', 7000) FROM generate_series(1, $rows)");
			} while ($error eq '');
			die $error unless $error =~ /No space left on device/;
		}
		return sub { $node->safe_psql('postgres', 'DROP TABLE public.ballast') };
	};
	my $no_space = qr/LOG:  bulk_action will try again in \d+ ms: could not extend file .*: No space left on device/;

	$node->safe_psql('postgres', <<'SQL');
DO $$ DECLARE t regclass; BEGIN
  FOR t IN SELECT oid FROM pg_class WHERE relname LIKE 'bulk\_action\_jobs%' AND relkind = 'r' LOOP
    EXECUTE format('ALTER TABLE %s SET TABLESPACE small', t);
  END LOOP;
END $$
SQL
	my $free = $fill->();
	my $log = -s $node->logfile;
	my $csv = next_file($node);
	my $id = submit($node, "file://$csv");
	$node->wait_for_log($no_space, $log);
	is_deeply([ @{ statistics($node, $id) }{qw(state total)} ], [ 'running', 0 ], 'no space for the queue: the action waits');
	$free->();
	is_applied($node, $id, $csv, 'no space for the queue: it goes on when there is some');

	# Now for everything but the system's own tables, and the file has been read.
	set_up($node);
	$node->safe_psql('postgres', 'ALTER TABLE ALL IN TABLESPACE pg_default SET TABLESPACE small;
		ALTER INDEX ALL IN TABLESPACE pg_default SET TABLESPACE small');
	$csv = next_file($node);
	my $session = $node->background_psql('postgres');
	$session->query_safe('BEGIN; LOCK TABLE public.contacts IN SHARE MODE');
	$id = submit($node, "file://$csv");
	wait_for($node, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'applying%$id'");
	$free = $fill->();
	$log = -s $node->logfile;
	$session->query_safe('COMMIT');
	$session->quit;
	$node->wait_for_log($no_space, $log);
	is(statistics($node, $id)->{state}, 'running', 'no space for table and bookkeeping: the action waits');
	$free->();
	is_applied($node, $id, $csv, 'no space for table and bookkeeping: it goes on when there is some');
	$node->stop;
}

my $node = new_node('main', conf => "bulk_action.file_root = '/'\nbulk_action.max_workers = 1\n");

# --- settings that no work can be done under -----------------------------------------------------------

# Of a database, of the submitter and of the role that coordinators connect as; what sessions of the test
# need comes before them. 150_privileges.t has those of a session user, one by one.
{
	my @settings = ("statement_timeout = '1ms'", "lock_timeout = '1ms'", "idle_in_transaction_session_timeout = '1ms'",
		"idle_session_timeout = '1ms'", 'default_transaction_read_only = on', "default_transaction_isolation = 'serializable'",
		'default_transaction_deferrable = on', 'search_path = nowhere', 'row_security = off', 'array_nulls = off',
		'standard_conforming_strings = off', "client_encoding = 'LATIN1'", "bytea_output = 'escape'", 'transform_null_equals = on');
	local $ENV{PGOPTIONS} = '-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0'
	  . ' -c idle_session_timeout=0 -c default_transaction_read_only=off -c default_transaction_isolation=read\ committed'
	  . ' -c default_transaction_deferrable=off -c search_path=public -c standard_conforming_strings=on';
	my $superuser = value_of($node, 'SELECT rolname FROM pg_roles WHERE oid = 10');
	my $n = 0;
	foreach my $whose ('ALTER DATABASE DB', 'ALTER ROLE clerk IN DATABASE DB', "ALTER ROLE $superuser IN DATABASE DB")
	{
		my $db = 'strict' . ++$n;
		$node->safe_psql('postgres', "CREATE DATABASE $db");
		$node->safe_psql($db, 'CREATE EXTENSION bulk_action');
		if ($n == 1)
		{
			$node->safe_psql('postgres', 'CREATE ROLE clerk LOGIN; GRANT pg_read_server_files TO clerk');
		}
		$node->safe_psql($db, 'GRANT USAGE ON SCHEMA bulk_action TO clerk; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bulk_action TO clerk');
		set_up($node, db => $db, role => 'clerk');
		wait_for($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = '$db'");
		$node->safe_psql('postgres', ($whose =~ s/DB/$db/r) . " SET $_") foreach @settings;
		my $csv = next_file($node);
		my $log = -s $node->logfile;
		my ($session, $id) = hold($node, "file://$csv", as => 'clerk', db => $db);
		release($session);
		is_applied($node, $id, $csv, "$whose SET ...: the action completes", db => $db);
		unlike(substr(read_file($node->logfile), $log), qr/timeout|read-only transaction|could not serialize/,
			"$whose SET ...: none of that is in anybody's way");
	}
}

# --- the table is being altered ------------------------------------------------------------------------

# The action finds the table locked when it begins; it waits for the end of that transaction.
foreach my $case ([ 'committed', 'COMMIT' ], [ 'rolled back', 'ROLLBACK' ])
{
	my ($name, $end) = @$case;
	set_up($node);
	my $csv = next_file($node);
	my $session = $node->background_psql('postgres');
	$session->query_safe('BEGIN');
	foreach my $table ('public.contacts', 'public.contacts_serial')
	{
		$session->query_safe("ALTER TABLE $table ALTER age TYPE numeric(8,2), ADD COLUMN more text DEFAULT 'more', DROP COLUMN notes");
	}
	my $id = submit($node, "file://$csv");
	wait_for($node, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_type = 'bulk_action worker'");
	is_deeply([ @{ statistics($node, $id) }{qw(state updated)} ], [ 'running', 0 ], "an ALTER TABLE that is $name: the action waits for it");
	$session->query_safe($end);
	$session->quit;
	is_applied($node, $id, $csv, "an ALTER TABLE that is $name: the action goes on");
}

# --- between two chunks -----------------------------------------------------------------------------------

# The only worker is inside the first chunk. What needs the table waits for its turn, which comes before
# the second chunk; what does not is done at once.
sub in_the_middle
{
	my ($change, %option) = @_;
	set_up($node, role => $option{as});
	$node->safe_psql('postgres', $option{before}) if $option{before};
	my $csv = next_file($node);
	my ($session, $id) = hold($node, "file://$csv", as => $option{as});
	my $changer = $node->background_psql('postgres');
	if ($option{waits})
	{
		$changer->query_until(qr/begun/, "\\echo begun\n$change;\n");
		wait_for($node, "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND locktype = 'relation'");
	}
	else
	{
		$changer->query_safe("$_;") foreach split /;\s*/, $change;
	}
	release($session);
	return ($id, $csv, $changer);
}

{
	my ($id, $csv, $changer) = in_the_middle(
		'ALTER TABLE public.contacts ALTER age TYPE numeric(8,2), ALTER first_name TYPE varchar(50), ALTER id TYPE int',
		waits => 1, before => <<'SQL');
-- a session that has run this fails with 42804 when the column has another type
CREATE OR REPLACE FUNCTION public.look() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF new.age < 0 OR new.id < 0 THEN
    new.age := 0;
  END IF;
  RETURN new;
END $$;
CREATE TRIGGER look BEFORE UPDATE ON public.contacts FOR EACH ROW EXECUTE FUNCTION public.look();
SQL
	ended($node, $id);
	$changer->quit;
	$node->safe_psql('postgres',
		'ALTER TABLE public.contacts_serial ALTER age TYPE numeric(8,2), ALTER first_name TYPE varchar(50), ALTER id TYPE int');
	is_applied($node, $id, $csv, 'columns get other types between two chunks, the key too: the action goes on');
}

{
	my ($id, $csv, $changer) = in_the_middle('ALTER TABLE public.contacts ALTER first_name TYPE date USING NULL', waits => 1);
	my $stat = ended($node, $id);
	$changer->quit;
	is_deeply([ @{$stat}{qw(state total unprocessed adds_up)} ], [ 'completed', 5_000, 0, 't' ],
		'a column gets a type that does not take the values: the action goes on');
	# the chunk that is held is neither the first nor the last of five lanes with about 1000 rows each
	ok($stat->{updated} > 0 && $stat->{failed} > 500 && $stat->{updated} + $stat->{failed} + $stat->{not_found} == 5_000,
		'a column gets a type that does not take the values: rows fail from then on')
	  or diag(explain($stat));
	is(value_of($node, "SELECT string_agg(DISTINCT error_code, ' ' ORDER BY error_code) FROM bulk_action.bulk_action_errors
		WHERE action_id = '$id' AND error_column = 'first_name'"), '22007', 'a column gets a type that does not take the values: with its error');
	is(value_of($node, "SELECT count(*) FROM public.contacts WHERE last_name LIKE 'Family%'") > 0, 1,
		'a column gets a type that does not take the values: chunks before that are applied');
}

{
	my ($id, $csv, $changer) = in_the_middle('ALTER TABLE public.contacts DROP COLUMN score, ADD COLUMN score numeric(8,2)', waits => 1);
	ended($node, $id);
	$changer->quit;
	is_deeply([ @{ statistics($node, $id) }{qw(state unprocessed adds_up)} ], [ 'completed', 0, 't' ],
		'a column is dropped and made again between two chunks: the action goes on');
	apply_serially($node, csv => $csv);
	same_content($node, 'public.contacts', 'public.contacts_serial',
		'a column is dropped and made again between two chunks: the others are as plain SQL leaves them',
		columns => 'id, email, first_name, last_name, phone, age, birthday, active, updated_at, notes');
	is(value_of($node, 'SELECT count(*) FROM public.contacts AS c JOIN public.contacts_serial AS s USING (id) WHERE c.score <> s.score'), 0,
		'a column is dropped and made again between two chunks: it has the values of the file, or none');
}

# --- roles that are shut out ---------------------------------------------------------------------------------

# Who is connected stays connected, as in any session; nobody else is let in.
create_role($node, 'worker_role');
$node->safe_psql('postgres', 'GRANT pg_read_server_files TO worker_role');
{
	my ($id, $csv, $changer) = in_the_middle('ALTER ROLE worker_role NOLOGIN', as => 'worker_role');
	is_applied($node, $id, $csv, 'a submitter who may not log in any more: the worker that is there goes on');
	$changer->query_safe('ALTER ROLE worker_role LOGIN');
	$changer->quit;
}
{
	my ($id, $csv, $changer) = in_the_middle('REVOKE CONNECT ON DATABASE postgres FROM PUBLIC', as => 'worker_role');
	is_applied($node, $id, $csv, 'a submitter who may not connect any more: the worker that is there goes on');
	$changer->query_safe('GRANT CONNECT ON DATABASE postgres TO PUBLIC');
	$changer->quit;
}
{
	# Four of them, of which three are ended: no others get in, and nobody tries as fast as he can.
	$node->append_conf('postgresql.conf', 'bulk_action.max_workers = 4');
	$node->reload;
	set_up($node, role => 'worker_role');
	my $csv = next_file($node);
	my $session = $node->background_psql('postgres');
	$session->query_safe('BEGIN; LOCK TABLE public.contacts IN SHARE MODE');
	my $id = submit($node, "file://$csv", as => 'worker_role');
	my $inside = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'applying%$id'";
	wait_for($node, "SELECT count(*) = 4 $inside");
	my $log = -s $node->logfile;
	$node->safe_psql('postgres', 'ALTER ROLE worker_role NOLOGIN');
	value_of($node, "SELECT count(pg_terminate_backend(pid, 60000)) FROM (SELECT pid $inside LIMIT 3) AS w");
	my @refused;
	wait_until(sub {
		@refused = substr(read_file($node->logfile), $log) =~ /^\S+ (\S+) .*FATAL:  role "worker_role" is not permitted to log in/mg;
		return @refused >= 9;
	}, what => 'nine workers to be turned away');
	my ($first, $ninth) = map { my ($h, $m, $s) = split /:/; $h * 3600 + $m * 60 + $s } @refused[ 0, 8 ];
	# a bound from below: a machine that is slow only makes it longer
	cmp_ok(($ninth - $first) % 86_400, '>=', 1, 'workers that are not let in are not started as fast as they die');
	$session->query_safe('COMMIT');
	$session->quit;
	is_applied($node, $id, $csv, 'a submitter who may not log in any more: one worker goes on for all');
	$node->safe_psql('postgres', 'ALTER ROLE worker_role LOGIN');
	$node->append_conf('postgresql.conf', 'bulk_action.max_workers = 1');
	$node->reload;
	value_of($node, "SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity WHERE backend_type = 'bulk_action worker'");
}
{
	# the worker ends inside its chunk, and the next one is not let in
	set_up($node, role => 'worker_role');
	my $csv = next_file($node);
	my ($session, $id) = hold($node, "file://$csv", as => 'worker_role');
	$node->safe_psql('postgres', 'ALTER ROLE worker_role NOLOGIN');
	value_of($node, "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE query LIKE 'applying%$id'");
	is_failed($node, $id, $csv, '28000', qr/^role "worker_role" is not permitted to log in$/,
		'a submitter who may not log in any more, when the worker has gone: the action fails');
	release($session);
	$node->safe_psql('postgres', 'ALTER ROLE worker_role LOGIN');
}
{
	set_up($node, role => 'worker_role');
	my $csv = next_file($node);
	my ($session, $id) = hold($node, "file://$csv", as => 'worker_role');
	my ($status, undef, $error) = $node->psql('postgres', 'DROP ROLE worker_role');
	like($error, qr/role "worker_role" cannot be dropped because some objects depend on it/,
		'a submitter with privileges cannot be dropped');
	$node->safe_psql('postgres', 'REVOKE UPDATE ON public.contacts FROM worker_role');
	release($session);
	is_failed($node, $id, $csv, '42501', qr/^permission denied for column/, 'nor does the action outlive his privileges');
}
{
	my ($id, $csv, $changer) = in_the_middle('DROP OWNED BY worker_role; DROP ROLE worker_role', as => 'worker_role');
	is_failed($node, $id, $csv, '28000', qr/^the role that submitted the action does not exist any more$/,
		'a submitter who is dropped with all his privileges: the action fails');
	$changer->quit;
}

$node->stop;
done_testing();
