# Commands that our processes are in the way of: they work while an action is running, and where
# they fail or are rolled back the action goes on as if nothing had been.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', conf => <<'CONF');
bulk_action.file_root = '/'
bulk_action.rescan_interval = 1s
CONF
create_role($node, 'alice');
$node->safe_psql('postgres', 'GRANT pg_read_server_files TO alice');

my $proxy = new_proxy();

# A database with contacts and an extension.
sub prepare
{
	my ($db) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	create_contacts($node, 3_000, db => $db, owner => 'alice');
	install($db);
}

sub install
{
	my ($db) = @_;
	$node->safe_psql($db, <<'SQL');
CREATE EXTENSION bulk_action;
GRANT USAGE ON SCHEMA bulk_action TO alice;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bulk_action TO alice;
SQL
	register_contacts($node, db => $db);
	server_for_s3($node, db => $db, role => 'alice', endpoint => $proxy->endpoint);
}

sub submit
{
	my ($db, $uri) = @_;
	serial_copy($node, 'public.contacts', db => $db);
	return value_of($node, "SELECT bulk_action.bulk_action_submit('$uri')", db => $db, as => 'alice');
}

my $files = 0;

sub next_file
{
	$files++;
	return contacts_csv($node, name => "drop$files.csv", rows => 2_500, salt => $files,
		columns => [qw(first_name last_name phone age score)],
		bad => { 7 => { age => 'x' }, 8 => { id => 50_000 } });
}

# An action whose worker waits for its file; nothing of ours holds a lock.
sub start_reading
{
	my ($db) = @_;
	my $csv = next_file();
	my $uri = s3_put("drop$files.csv", file => $csv);
	$proxy->fault('hold', method => 'GET');
	my $id = submit($db, $uri);
	$proxy->wait_for_held;
	return { db => $db, id => $id, csv => $csv };
}

sub processes { return "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'bulk_action%' AND datname = '$_[0]'" }

sub check
{
	my ($action, $name) = @_;
	my ($db, $id) = @$action{qw(db id)};
	$proxy->clear;
	subtest $name => sub {
		wait_for($node,
			"SELECT state NOT IN ('queued', 'running', 'paused') FROM bulk_action.bulk_actions WHERE id = '$id'",
			db => $db);
		my $serial = apply_serially($node, db => $db, csv => $action->{csv});
		is_deeply(
			[ rows_of($node, <<SQL, db => $db) ],
SELECT state, error_message, total, updated, not_found, failed, unprocessed,
       total = updated + inserted + deleted + unchanged + not_found + superseded + failed + unprocessed
  FROM bulk_action.bulk_action_stat('$id')
SQL
			[ [ 'completed', undef, @$serial{qw(total updated not_found failed)}, 0, 't' ] ],
			'statistics');
		is_deeply(
			[ rows_of($node, "SELECT line - 1, error_code FROM bulk_action.bulk_action_errors WHERE action_id = '$id' ORDER BY line", db => $db) ],
			[ map { [ @$_[ 0, 1 ] ] } @{ $serial->{errors} } ],
			'errors');
		same_content($node, 'public.contacts', 'public.contacts_serial', undef, db => $db);
	};
}

# The command fails, with this message.
sub fails
{
	my ($sql, $message, $name, %option) = @_;
	my ($status, undef, $error) = $node->psql($option{db} // 'postgres', $sql, on_error_stop => 1);
	isnt($status, 0, "$name: it fails");
	like($error, $message, "$name: and says why");
}

# --- DROP DATABASE ------------------------------------------------------------------------------------

prepare('victim');
start_reading('victim');
$node->safe_psql('postgres', 'DROP DATABASE victim');
pass('DROP DATABASE works while an action is running');
$proxy->clear;

# of the same name, but another one
prepare('victim');
check(start_reading('victim'), 'a new database of that name works');
$node->safe_psql('postgres', 'DROP DATABASE victim');
pass('DROP DATABASE works while coordinator and worker are idle');

prepare('busy');
{
	my $action = start_reading('busy');
	my $visitor = $node->background_psql('busy');
	fails('DROP DATABASE busy', qr/is being accessed by other users/, 'DROP DATABASE of one with visitors');
	$visitor->quit;
	check($action, 'the action goes on after a DROP DATABASE that failed');
}
{
	my $action = start_reading('busy');
	my $visitor = $node->background_psql('busy');
	fails("SET statement_timeout = '1s';\nDROP DATABASE busy", qr/canceling statement due to statement timeout/,
		'DROP DATABASE that takes too long');
	$visitor->quit;
	check($action, 'the action goes on after a DROP DATABASE that was cancelled');
}
{
	# the one who drops it is ended himself
	my $action = start_reading('busy');
	my $visitor = $node->background_psql('busy');
	my $dropper = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $dropper->query_safe('SELECT pg_backend_pid()');
	$dropper->query_until(qr/dropping/, "\\echo dropping\nDROP DATABASE busy;\n");
	wait_for($node, processes('busy') . ' -- nobody', expect => '0');
	value_of($node, "SELECT pg_terminate_backend($pid, 60000)");
	eval { $dropper->quit };
	$visitor->quit;
	check($action, 'the action goes on after a DROP DATABASE whose session was ended');
}
{
	my $action = start_reading('busy');
	my $before = value_of($node, "SELECT array_agg(pid ORDER BY pid) FROM pg_stat_activity WHERE backend_type LIKE 'bulk_action%' AND datname = 'busy'");
	fails('BEGIN; DROP DATABASE busy', qr/cannot run inside a transaction block/, 'DROP DATABASE in a transaction block');
	fails("SET SESSION AUTHORIZATION alice;\nDROP DATABASE busy", qr/must be owner/, 'DROP DATABASE by somebody else');
	fails('DROP DATABASE bussy', qr/does not exist/, 'DROP DATABASE of none');
	fails("SET SESSION AUTHORIZATION alice;\nALTER DATABASE busy RENAME TO lazy", qr/must be owner/, 'RENAME by somebody else');
	fails("SET SESSION AUTHORIZATION alice;\nCREATE DATABASE copy TEMPLATE busy", qr/permission denied/, 'CREATE DATABASE by somebody else');
	is(value_of($node, "SELECT array_agg(pid ORDER BY pid) FROM pg_stat_activity WHERE backend_type LIKE 'bulk_action%' AND datname = 'busy'"),
		$before, 'commands that could not succeed end none of our processes');
	check($action, 'the action goes on');
}

# --- the same for others --------------------------------------------------------------------------------

{
	my $action = start_reading('busy');
	$node->safe_psql('postgres', 'ALTER DATABASE busy RENAME TO renamed');
	$action->{db} = 'renamed';
	check($action, 'the action goes on in a database that was renamed');
	$node->safe_psql('postgres', 'ALTER DATABASE renamed RENAME TO busy');
}
{
	my $action = start_reading('busy');
	$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE busy');
	is(checksum_of($node, 'public.contacts', db => 'copy'), checksum_of($node, 'public.contacts_serial', db => 'busy'),
		'the copy has what the action has not yet changed');
	$node->safe_psql('postgres', 'DROP DATABASE copy');
	check($action, 'the action goes on in a database that was copied');
}
{
	my $action = start_reading('busy');
	my $visitor = $node->background_psql('busy');
	fails('CREATE DATABASE copy TEMPLATE busy', qr/is being accessed by other users/, 'CREATE DATABASE from one with visitors');
	$visitor->quit;
	check($action, 'the action goes on after a CREATE DATABASE that failed');
}

# --- DROP EXTENSION -------------------------------------------------------------------------------------

# Whoever updates contact 1500 waits for the lock 1500.
$node->safe_psql('busy', <<'SQL');
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(1500);
  RETURN new;
END $$;
CREATE TRIGGER hold BEFORE UPDATE ON public.contacts FOR EACH ROW WHEN (old.id = 1500)
  EXECUTE FUNCTION hold();
SQL

sub start_applying
{
	my ($db) = @_;
	my $csv = next_file();
	my $holder = $node->background_psql($db);
	$holder->query_safe('SELECT pg_advisory_lock(1500)');
	my $id = submit($db, "file://$csv");
	wait_for($node, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory')");
	return { db => $db, id => $id, csv => $csv, holder => $holder };
}

sub let_go { $_[0]{holder}->quit }

{
	my $action = start_applying('busy');
	my $session = $node->background_psql('busy');
	$session->query_safe('SET client_min_messages = warning');
	$session->query_safe('BEGIN; DROP EXTENSION bulk_action CASCADE');
	is(value_of($node, processes('busy')), 0, 'DROP EXTENSION has ended our processes');
	let_go($action);
	$session->query_safe('ROLLBACK');
	check($action, 'the action goes on after a DROP EXTENSION that was rolled back');

	$action = start_applying('busy');
	$session->query_safe('BEGIN; SAVEPOINT s; DROP EXTENSION bulk_action CASCADE; ROLLBACK TO s; COMMIT');
	let_go($action);
	check($action, 'the action goes on after one that was rolled back to a savepoint');

	$action = start_applying('busy');
	$session->query_safe('BEGIN; DROP EXTENSION bulk_action CASCADE');
	value_of($node, 'SELECT pg_terminate_backend(' . $session->query_safe('SELECT pg_backend_pid()') . ', 60000)');
	let_go($action);
	eval { $session->quit };
	check($action, 'the action goes on after one whose session was ended');

	$action = start_applying('busy');
	fails('DROP EXTENSION bulk_action', qr/other objects depend on it/, 'DROP EXTENSION without CASCADE', db => 'busy');
	fails("SET SESSION AUTHORIZATION alice;\nDROP EXTENSION bulk_action CASCADE", qr/must be owner/, 'DROP EXTENSION by somebody else', db => 'busy');
	let_go($action);
	check($action, 'the action goes on');
}
foreach my $how ('DROP EXTENSION bulk_action CASCADE', 'DROP SCHEMA bulk_action CASCADE')
{
	my $action = start_applying('busy');
	$node->safe_psql('busy', $how);
	is(value_of($node, processes('busy')), 0, "$how works while a chunk is being applied");
	let_go($action);

	# what was applied stays
	is(value_of($node, <<'SQL', db => 'busy'), 0, 'of the chunk that was held nothing was applied');
SELECT count(*) FROM public.contacts JOIN public.contacts_serial USING (id)
 WHERE id = 1500 AND contacts <> contacts_serial
SQL
	$node->safe_psql('busy', 'DROP TABLE public.contacts_serial');
	install('busy');
	is(value_of($node, 'SELECT count(*) FROM bulk_action.bulk_actions', db => 'busy'), 0, 'a new extension knows of no action');
	check(start_reading('busy'), 'and works');
}
{
	# all of it in one transaction, with an action in it
	my $action = start_applying('busy');
	my $csv = next_file();
	my $id = $node->safe_psql('busy', <<SQL);
BEGIN;
DROP EXTENSION bulk_action CASCADE;
CREATE EXTENSION bulk_action;
SELECT FROM bulk_action.bulk_action_register_entity('contact', 'public.contacts', ARRAY['id']);
SELECT FROM bulk_action.bulk_action_grant('contact', 'public');
GRANT USAGE ON SCHEMA bulk_action TO alice;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bulk_action TO alice;
DROP TABLE public.contacts_serial;
CREATE TABLE public.contacts_serial (LIKE public.contacts INCLUDING ALL);
INSERT INTO public.contacts_serial SELECT * FROM public.contacts;
SET LOCAL ROLE alice;
SELECT bulk_action.bulk_action_submit('file://$csv');
COMMIT;
SQL
	let_go($action);
	$id =~ s/^\s+//;
	check({ db => 'busy', id => $id, csv => $csv }, 'dropped, created and used in one transaction');
}

# --- databases that are let alone ---------------------------------------------------------------------------

prepare('template_mark');
{
	$node->safe_psql('postgres', 'ALTER DATABASE template_mark IS_TEMPLATE true');
	my $csv = next_file();
	my $id = submit('template_mark', "file://$csv");
	# the server looks at every database once at its start, and once a second
	$node->restart('fast');
	my $next = next_file();
	my $busy = { db => 'busy', csv => $next, id => submit('busy', "file://$next") };
	check($busy, 'an action next door');
	is(value_of($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'", db => 'template_mark'),
		'queued', 'in a template nothing is run');
	$node->safe_psql('postgres', 'ALTER DATABASE template_mark IS_TEMPLATE false');
	check({ db => 'template_mark', id => $id, csv => $csv }, 'it is when it is none any more');

	# one that takes no connections, with an action
	my $last = next_file();
	my $holder = $node->background_psql('template_mark');
	$holder->query_safe('BEGIN; LOCK TABLE public.contacts IN SHARE MODE');
	$id = submit('template_mark', "file://$last");
	wait_for($node, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'relation')");
	$node->safe_psql('postgres', 'ALTER DATABASE template_mark ALLOW_CONNECTIONS false');
	$node->restart('fast');
	eval { $holder->quit };
	$next = next_file();
	check({ db => 'busy', csv => $next, id => submit('busy', "file://$next") }, 'another action next door');
	$node->safe_psql('postgres', 'ALTER DATABASE template_mark ALLOW_CONNECTIONS true');
	check({ db => 'template_mark', id => $id, csv => $last }, 'and when it takes connections again');
}
unlike(read_file($node->logfile), qr/not currently accepting connections|cannot connect to invalid|do not add up|where the board says|TRAP:/,
	'nothing strange in the log');
$node->stop;

# --- without preload ---------------------------------------------------------------------------------------

{
	my $plain = new_node('plain', preload => 0);
	create_contacts($plain, 10);
	register_contacts($plain);
	my ($status, undef, $error) = $plain->psql('postgres', "SELECT bulk_action.bulk_action_submit('s3://bucket/contacts.csv')");
	isnt($status, 0, 'without preload submit fails');
	like($error, qr/bulk actions are not running on this server.*HINT:  Add bulk_action to shared_preload_libraries and restart the server\./s,
		'and says what to do');
	is(value_of($plain, 'SELECT count(*) FROM bulk_action.bulk_actions'), 0, 'the views work');
	$plain->safe_psql('postgres', 'CREATE DATABASE other; ');
	$plain->safe_psql('postgres', 'DROP DATABASE other');
	$plain->safe_psql('postgres', 'DROP EXTENSION bulk_action');
	pass('and so does DROP EXTENSION');
	$plain->stop;
}

done_testing();
