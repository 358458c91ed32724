# Copies do not act. A database that was copied from a template, restored from a dump, or moved into
# another cluster does not carry out the original's actions until it adopts them; and a server that is
# started with bulk_action.enabled off does nothing at all.
use strict;
use warnings;

use BulkAction;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = <<'CONF';
bulk_action.file_root = '/'
bulk_action.rescan_interval = 1s
bulk_action.idle_timeout = 1s
bulk_action.max_attempts = 1000
max_worker_processes = 16
CONF
my $node = new_node('main', extension => 0, conf => "${conf}wal_level = replica\nmax_wal_senders = 4\n");

# --- helpers -----------------------------------------------------------------------------------------

my $files = 0;

sub next_file
{
	my (%option) = @_;
	$files++;
	return contacts_csv($node, name => "copies$files.csv", salt => $files, order => 'shuffled',
		columns => [qw(first_name last_name age notes)], %option);
}

sub submit
{
	my ($on, $db, $csv, $account, $more) = @_;
	return value_of($on, "SELECT bulk_action.bulk_action_submit('file://$csv', account_id => '$account'" . ($more // '') . ')',
		db => $db, as => 'alice');
}

# The error of a call as somebody.
sub refused
{
	my ($on, $db, $as, $call, $pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my (undef, undef, $error) =
	  $on->psql($db, "\\set VERBOSITY verbose\nSET SESSION AUTHORIZATION $as;\nSELECT bulk_action.$call");
	like($error, $pattern, $name);
}

sub state_of
{
	my ($on, $db, $id) = @_;
	return join ' ', grep { defined } @{ (rows_of($on, "SELECT state, error_code FROM bulk_action.bulk_actions WHERE id = '$id'",
			db => $db))[0] };
}

sub wait_for_state_and_code
{
	my ($on, $db, $id, $state) = @_;
	return wait_for($on, "SELECT concat_ws(' ', state, error_code) FROM bulk_action.bulk_actions WHERE id = '$id'",
		db => $db, expect => $state);
}

# These actions have ended as plain SQL ends, in this order.
sub are_serial
{
	my ($on, $db, $name, @actions) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	subtest "$db: $name" => sub {
		foreach my $action (@actions)
		{
			my ($id, $csv) = @$action;
			wait_for_state_and_code($on, $db, $id, 'completed');
			my $serial = apply_serially($on, csv => $csv, db => $db);
			is_deeply([ rows_of($on, "SELECT total, updated, not_found, failed, unprocessed
				FROM bulk_action.bulk_action_stat('$id')", db => $db) ],
				[ [ @$serial{qw(total updated not_found failed)}, 0 ] ], 'the counts are those of plain SQL');
		}
		same_content($on, 'public.contacts', 'public.contacts_serial', 'and so is the table', db => $db);
	};
	return;
}

sub hold { return $_[0]->safe_psql($_[1], 'INSERT INTO public.held VALUES (true)') }
sub let_go { return $_[0]->safe_psql($_[1], 'DELETE FROM public.held') }

# --- the original, with an action in every state -------------------------------------------------------

$node->safe_psql('postgres', 'CREATE ROLE alice LOGIN; CREATE ROLE keeper LOGIN; GRANT pg_read_server_files TO alice');
$node->safe_psql('postgres', 'CREATE DATABASE original');
create_contacts($node, 26_000, db => 'original');
serial_copy($node, 'public.contacts', db => 'original');
$node->safe_psql('original', <<'SQL');
CREATE EXTENSION bulk_action;
GRANT USAGE ON SCHEMA bulk_action TO alice, keeper;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bulk_action TO alice, keeper;
GRANT SELECT, UPDATE ON public.contacts TO alice;
-- Contact 7000 cannot be updated while this has a row, without anybody being connected for it.
CREATE TABLE public.held (held boolean);
GRANT SELECT ON public.held TO alice;
CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM public.held) THEN
    RAISE EXCEPTION 'held' USING ERRCODE = '55P03';
  END IF;
  RETURN new;
END $$;
CREATE TRIGGER hold BEFORE UPDATE ON public.contacts FOR EACH ROW WHEN (old.id = 7000)
  EXECUTE FUNCTION public.hold();
SQL
register_contacts($node, db => 'original');
hold($node, 'original');

my %csv = (
	running => next_file(rows => 8_000),
	queued => next_file(rows => 8_000),
	paused => next_file(rows => 1_000, first => 10_001),
	failed => next_file(rows => 2_000, first => 20_001, bad => { 10 => { age => 'x' } }),
	cancelled => next_file(rows => 1_000, first => 15_001));
my %id;
$id{running} = submit($node, 'original', $csv{running}, 'one');
$id{queued} = submit($node, 'original', $csv{queued}, 'one');
foreach my $what (qw(paused cancelled))
{
	# in one transaction: nobody has begun it
	$id{$what} = $node->safe_psql('original', <<SQL);
SET SESSION AUTHORIZATION alice;
BEGIN;
SELECT bulk_action.bulk_action_submit('file://$csv{$what}', account_id => '$what') AS id \\gset
SELECT bulk_action.bulk_action_pause(:'id') \\g /dev/null
COMMIT;
\\echo :id
SQL
	wait_for_state_and_code($node, 'original', $id{$what}, 'paused');
}
$id{failed} = submit($node, 'original', $csv{failed}, 'two', ", options => '{\"max_errors\": 0}'");
wait_for_state_and_code($node, 'original', $id{failed}, 'failed BA422');
wait_for($node, "SELECT total_is_final AND updated > 6000 AND unprocessed BETWEEN 1 AND 1000
	AND (SELECT count(*) FROM bulk_action_internal.cursors AS c JOIN bulk_action_internal.actions AS a USING (action_no)
		WHERE a.id = '$id{running}' AND c.next_chunk = 0) = 1
	FROM bulk_action.bulk_action_stat('$id{running}')", db => 'original', what => 'one chunk to be left');

# --- CREATE DATABASE ... TEMPLATE ----------------------------------------------------------------------

$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE original OWNER keeper');
let_go($node, 'copy');
wait_for_state_and_code($node, 'copy', $id{$_}, 'paused BA423') foreach qw(running queued);
is(state_of($node, 'copy', $id{paused}), 'paused', 'what was paused already stays as it was');
is(state_of($node, 'copy', $id{failed}), 'failed BA422', 'and so does what had failed');
is_deeply([ rows_of($node, <<SQL, db => 'copy') ],
SELECT error_message, error_detail LIKE '%"' || (pg_control_system()).system_identifier || '/%', error_hint LIKE 'bulk_action_adopt()%'
  FROM bulk_action.bulk_actions WHERE id = '$id{running}'
SQL
	[ [ 'it belongs to the database that this one was copied from', 't', 't' ] ], 'it is said why, and what to do');
is(state_of($node, 'original', $id{running}), 'running', 'in the original the action is at work');
cmp_ok(value_of($node, 'SELECT count(*) FROM bulk_action_internal.parked', db => 'copy'), '>', 0, 'chunks are parked');

# What is submitted in the copy runs at once, in the very stream that the others rest in, and while it
# does so everything could have gone on that should not.
my $fresh = next_file(rows => 1_000, first => 24_001);
my $id = submit($node, 'copy', $fresh, 'one');
wait_for_state_and_code($node, 'copy', $id, 'completed');
my $rest = 'WHERE id NOT BETWEEN 24001 AND 25000';
is(checksum_of($node, "public.contacts $rest", db => 'copy'), checksum_of($node, "public.contacts $rest", db => 'original'),
	'nothing of the original\'s actions was applied in the copy');
is(value_of($node, "SELECT string_agg(DISTINCT state || ' ' || unprocessed, ', ') FROM bulk_action_internal.action_statistics
	WHERE action_id = '$id{running}'", db => 'copy'),
	'paused ' . value_of($node, "SELECT unprocessed FROM bulk_action.bulk_action_stat('$id{running}')", db => 'original'),
	'the counts are those of the original');

refused($node, 'copy', 'alice', "bulk_action_resume('$id{running}')", qr/55000: .*another database.*bulk_action_adopt\(\)/s,
	'an action of the original cannot be resumed');
refused($node, 'copy', 'alice', "bulk_action_resume('$id{paused}')", qr/55000: .*another database/, 'nor one that was paused before');
refused($node, 'copy', 'alice', "bulk_action_retry('$id{failed}', '100')", qr/55000: .*another database.*bulk_action_adopt\(\)/s,
	'nor can one be retried');
is(value_of($node, "SELECT bulk_action.bulk_action_cancel('$id{cancelled}')", db => 'copy', as => 'alice'), 't',
	'but it can be cancelled');
wait_for_state_and_code($node, 'copy', $id{cancelled}, 'cancelled');
refused($node, 'copy', 'alice', 'bulk_action_adopt()', qr/42501: must be owner of database copy/,
	'who does not own the database cannot adopt');
is(value_of($node, "SELECT has_function_privilege('public', 'bulk_action.bulk_action_adopt()', 'EXECUTE')", db => 'copy'), 'f',
	'adopting is not for everybody');

# Events that were copied ask for nothing here.
$node->safe_psql('copy', "INSERT INTO bulk_action_internal.events (action_no, kind)
	SELECT action_no, k FROM bulk_action_internal.actions, unnest(ARRAY['resume', 'retry']) AS k
	WHERE id IN ('$id{running}', '$id{paused}', '$id{failed}')");
my $second = next_file(rows => 500, first => 25_001);
my $id2 = submit($node, 'copy', $second, 'two');
wait_for_state_and_code($node, 'copy', $id2, 'completed');
wait_for($node, 'SELECT count(*) = 0 FROM bulk_action_internal.events', db => 'copy');
is_deeply([ map { state_of($node, 'copy', $id{$_}) } qw(running queued paused failed) ],
	[ 'paused BA423', 'paused BA423', 'paused', 'failed BA422' ], 'requests that were made in the original have no effect');
$rest = 'WHERE id NOT BETWEEN 24001 AND 25500';
is(checksum_of($node, "public.contacts $rest", db => 'copy'), checksum_of($node, "public.contacts $rest", db => 'original'),
	'and nothing is applied');

is(value_of($node, 'SELECT bulk_action.bulk_action_adopt()', db => 'original'), 0, 'in the original there is nothing to adopt');
is(value_of($node, 'BEGIN; SELECT bulk_action.bulk_action_adopt(); ROLLBACK', db => 'copy', as => 'keeper'), 4,
	'adopting can be rolled back');
refused($node, 'copy', 'alice', "bulk_action_resume('$id{running}')", qr/55000/, 'and then has not happened');
is($node->safe_psql('copy', <<SQL), "4\n0\nt", 'the owner adopts, once, and in the same transaction an action can be retried');
SET SESSION AUTHORIZATION keeper;
BEGIN;
SELECT bulk_action.bulk_action_adopt();
SELECT bulk_action.bulk_action_adopt();
RESET SESSION AUTHORIZATION;
SET LOCAL ROLE alice;
SELECT bulk_action.bulk_action_retry('$id{failed}', '100');
COMMIT;
SQL
wait_for_state_and_code($node, 'copy', $id{running}, 'completed');
is(state_of($node, 'copy', $id{paused}), 'paused', 'what was paused in the original waits to be resumed');
is(value_of($node, "SELECT bulk_action.bulk_action_resume('$id{paused}')", db => 'copy', as => 'alice'), 't', 'which can be done now');
are_serial($node, 'copy', 'everything is as if one had applied all of it',
	[ $id, $fresh ], [ $id2, $second ], map { [ $id{$_}, $csv{$_} ] } qw(running queued paused failed));

let_go($node, 'original');
value_of($node, "SELECT bulk_action.bulk_action_resume('$id{$_}')", db => 'original', as => 'alice') foreach qw(paused cancelled);
value_of($node, "SELECT bulk_action.bulk_action_retry('$id{failed}', '100')", db => 'original', as => 'alice');
are_serial($node, 'original', 'the original is not concerned by any of this',
	map { [ $id{$_}, $csv{$_} ] } qw(running queued paused cancelled failed));

# Adopting before anybody has come by to put it to rest.
hold($node, 'original');
$csv{early} = next_file(rows => 8_000);
$id{early} = submit($node, 'original', $csv{early}, 'one');
wait_for($node, "SELECT updated > 6000 FROM bulk_action.bulk_action_stat('$id{early}')", db => 'original');
$node->safe_psql('postgres', "ALTER SYSTEM SET bulk_action.enabled = off");
$node->reload;
wait_for($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type ~ 'bulk_action (worker|coordinator)'");
$node->safe_psql('postgres', "CREATE DATABASE $_ TEMPLATE original") foreach qw(early locked);
let_go($node, $_) foreach qw(early locked);
is(state_of($node, 'early', $id{early}), 'running', 'a copy that nobody has come by');
refused($node, 'early', 'alice', "bulk_action_retry('$id{failed}')", qr/55000: .*completed/, 'what has ended has ended here too');
is(value_of($node, 'SELECT bulk_action.bulk_action_adopt()', db => 'early'), 1, 'its action can be adopted');
my $blocker = $node->background_psql('locked');
$blocker->query_safe('BEGIN; LOCK TABLE ONLY bulk_action_internal.bulk_action_jobs_0, ONLY bulk_action_internal.bulk_action_jobs_1,
	ONLY bulk_action_internal.bulk_action_jobs_2 IN ACCESS EXCLUSIVE MODE');
$node->safe_psql('postgres', "ALTER SYSTEM RESET bulk_action.enabled");
$node->reload;
are_serial($node, 'early', 'and goes on', [ $id{early}, $csv{early} ]);

# Where it cannot be put to rest for now, because somebody is in the way of parking its chunks, nothing of it
# is done either.
{
	my $csv = next_file(rows => 500, first => 24_001);
	my $id = submit($node, 'locked', $csv, 'three');
	wait_for_state_and_code($node, 'locked', $id, 'running');
	is(state_of($node, 'locked', $id{early}), 'running', 'a copied action that cannot be put to rest');
	$blocker->query_safe('COMMIT');
	$blocker->quit;
	wait_for_state_and_code($node, 'locked', $id{early}, 'paused BA423');
	wait_for_state_and_code($node, 'locked', $id, 'completed');
	my $rest = 'WHERE id NOT BETWEEN 24001 AND 24500';
	is(checksum_of($node, "public.contacts $rest", db => 'locked'), checksum_of($node, "public.contacts $rest", db => 'original'),
		'is left alone until it can');
}

# --- pg_dump and pg_restore -----------------------------------------------------------------------------

my $internal = <<'SQL';
SELECT string_agg(relname || ' ' || relkind::text, ', ' ORDER BY relname COLLATE "C") FROM pg_class
 WHERE relnamespace IN ('bulk_action'::regnamespace, 'bulk_action_internal'::regnamespace)
SQL
$node->safe_psql('postgres', 'CREATE DATABASE pristine');
$node->safe_psql('pristine', 'CREATE EXTENSION bulk_action');
my $dump = $node->basedir . '/original.dump';
foreach my $round ('restored', 'restored once more')
{
	$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, 'original' ], 'pg_dump while an action is at work');
	$node->safe_psql('postgres', 'DROP DATABASE IF EXISTS restored');
	$node->safe_psql('postgres', 'CREATE DATABASE restored');
	$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'restored', $dump ], "$round: pg_restore");
	my $entities = 'SELECT entity_type, target::text, target_schema, target_name, key_columns::text, update_columns::text
		FROM bulk_action_internal.entities';
	is_deeply([ rows_of($node, $entities, db => 'restored') ], [ rows_of($node, $entities, db => 'original') ],
		"$round: the entities are there");
	my $permissions = 'SELECT entity_type, grantee, action_type FROM bulk_action.bulk_action_permissions';
	is_deeply([ rows_of($node, $permissions, db => 'restored') ], [ rows_of($node, $permissions, db => 'original') ],
		"$round: and who may use them");
	is(value_of($node, $internal, db => 'restored'), value_of($node, $internal, db => 'pristine'),
		"$round: no relation that a fresh extension has not got");
	foreach my $table (map { $_->[0] } rows_of($node, "SELECT oid::regclass FROM pg_class
		WHERE relnamespace = 'bulk_action_internal'::regnamespace AND relkind = 'r' ORDER BY 1", db => 'restored'))
	{
		# a permission for each of the four types of action
		my $expected = $table =~ /\.(entities|rotation)$/ ? 1 : $table =~ /\.permissions$/ ? 4 : 0;
		is(value_of($node, "SELECT count(*) FROM $table", db => 'restored'), $expected, "$round: rows of $table");
	}
	is(value_of($node, "SELECT string_agg(sequencename, ', ') FROM pg_sequences
		WHERE schemaname = 'bulk_action_internal' AND last_value IS NOT NULL", db => 'restored'), '',
		"$round: its sequences begin anew");
	let_go($node, 'restored');
	is(value_of($node, 'SELECT bulk_action.bulk_action_adopt()', db => 'restored'), 0, "$round: there is nothing to adopt");
	my $csv = next_file(rows => 3_000);
	$node->safe_psql('restored', 'TRUNCATE public.contacts_serial; INSERT INTO public.contacts_serial SELECT * FROM public.contacts');
	are_serial($node, 'restored', "$round: a new action is applied", [ submit($node, 'restored', $csv, 'one'), $csv ]);
}
is(state_of($node, 'original', $id{early}), 'running', 'the original is not concerned');

# --- a copy of the cluster that says so: pg_upgrade -----------------------------------------------------

# Into a cluster of the same version, which has another system identifier; databases keep their OIDs.
$node->safe_psql('postgres', "DROP DATABASE $_") foreach qw(copy early locked restored);
my $before = checksum_of($node, 'public.contacts', db => 'original');
my $oid = value_of($node, "SELECT oid FROM pg_database WHERE datname = 'original'");
$node->backup('clone');
$node->stop;
{
	my $upgraded = new_node('upgraded', start => 0, conf => $conf);
	my ($bindir) = map { s{/[^/]+\z}{}r } grep { -x } map { "$_/pg_upgrade" } split /:/, $ENV{PATH};
	chdir $upgraded->basedir or die $!;
	command_ok([ 'pg_upgrade', '--no-sync', '-d', $node->data_dir, '-D', $upgraded->data_dir, '-b', $bindir, '-B', $bindir,
			'-s', $node->host, '-p', $node->port, '-P', $upgraded->port ], 'pg_upgrade');
	$upgraded->start;
	is(value_of($upgraded, "SELECT oid FROM pg_database WHERE datname = 'original'"), $oid, 'the database has the same OID');
	let_go($upgraded, 'original');
	wait_for_state_and_code($upgraded, 'original', $id{early}, 'paused BA423');
	my $csv = next_file(rows => 400, first => 24_001);
	my $id = submit($upgraded, 'original', $csv, 'one');
	wait_for_state_and_code($upgraded, 'original', $id, 'completed');
	$upgraded->safe_psql('original', "CREATE VIEW public.others AS SELECT * FROM public.contacts WHERE id NOT BETWEEN 24001 AND 24400;
		CREATE TABLE public.others_before AS SELECT * FROM public.contacts_serial WHERE id NOT BETWEEN 24001 AND 24400");
	is(value_of($upgraded, "SELECT count(*) FROM public.others AS o JOIN public.others_before AS b USING (id) WHERE o IS DISTINCT FROM b",
			db => 'original'), value_of($upgraded, "SELECT updated FROM bulk_action.bulk_action_stat('$id{early}')", db => 'original'),
		'in another cluster nothing goes on by itself: as many rows differ as were applied before');
	is(value_of($upgraded, 'SELECT bulk_action.bulk_action_adopt()', db => 'original'), 1, 'until it is adopted');
	are_serial($upgraded, 'original', 'then it does', [ $id, $csv ], [ $id{early}, $csv{early} ]);
	$upgraded->stop;
}

# --- a copy of the cluster that does not: a base backup that is started beside the original ---------------

{
	my $clone = PostgreSQL::Test::Cluster->new('clone');
	$clone->init_from_backup($node, 'clone');
	$clone->append_conf('postgresql.conf', 'bulk_action.enabled = off');
	$clone->start;
	let_go($clone, 'original');
	wait_for($clone, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type LIKE 'bulk_action%'");
	my $csv = next_file(rows => 500, first => 24_001);
	my $id = submit($clone, 'original', $csv, 'other');
	is_deeply([ map { state_of($clone, 'original', $_) } $id{early}, $id ], [ 'running', 'queued' ],
		'with bulk_action.enabled off actions are taken in and wait');
	is(value_of($clone, 'SELECT bulk_action.bulk_action_adopt()', db => 'original'), 0,
		'a base backup cannot be told from the original');
	is(value_of($clone, "SELECT bulk_action.bulk_action_cancel('$id{early}')", db => 'original'), 't', 'what it has in it is cancelled');
	is(checksum_of($clone, 'public.contacts', db => 'original'), $before, 'nothing was applied');
	is_deeply([ pids_of($clone, 'bulk_action%') ], [ pids_of($clone, 'bulk_action launcher') ], 'and nobody but the launcher was there');

	$clone->safe_psql('original', 'TRUNCATE public.contacts_serial; INSERT INTO public.contacts_serial SELECT * FROM public.contacts');
	$clone->append_conf('postgresql.conf', 'bulk_action.enabled = on');
	$clone->reload;
	wait_for_state_and_code($clone, 'original', $id{early}, 'cancelled');
	are_serial($clone, 'original', 'once it is switched on, only what was not cancelled is carried out', [ $id, $csv ]);
	$clone->stop;
}

# --- switched off and on in the middle --------------------------------------------------------------------

$node->start;
wait_for($node, "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type LIKE 'bulk_action worker'");
$node->safe_psql('postgres', 'ALTER SYSTEM SET bulk_action.enabled = off');
$node->reload;
wait_for($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type ~ 'bulk_action (worker|coordinator)'");
let_go($node, 'original');
is(state_of($node, 'original', $id{early}), 'running', 'switched off in the middle: the action is where it was');
is(checksum_of($node, 'public.contacts', db => 'original'), $before, 'and so is the table');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET bulk_action.enabled');
$node->reload;
are_serial($node, 'original', 'switched on again: it goes on', [ $id{early}, $csv{early} ]);

$node->stop;
done_testing();
