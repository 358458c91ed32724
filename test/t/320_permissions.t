# Which role may run what on an entity, while it counts: before an action runs, while it waits, runs and
# rests, and after pg_dump and restore. (What may be granted by whom is in sql/permissions.sql.)
use strict;
use warnings;

use BulkAction;
use Test::More;

my $conf = <<'CONF';
bulk_action.file_root = '/'
bulk_action.idle_timeout = 1s
bulk_action.rescan_interval = 1s
CONF
my $node = new_node('main', conf => $conf);

sub set_up
{
	my ($on) = @_;
	create_role($on, $_) foreach qw(alice carol);
	create_contacts($on, 4000, owner => 'carol');
	$on->safe_psql('postgres', <<'SQL');
GRANT pg_read_server_files TO alice, carol;
GRANT SELECT, UPDATE ON public.contacts TO alice;
CREATE ROLE crew;
GRANT crew TO alice;
SQL
	return;
}
set_up($node);
register_contacts($node, as => 'carol', grant => undef);
$node->safe_psql('postgres', <<'SQL');
-- whoever updates contact 1500 waits while somebody has the lock 7000
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock_shared(7000); RETURN new; END $$;
CREATE TRIGGER hold BEFORE UPDATE ON public.contacts FOR EACH ROW WHEN (old.id = 1500) EXECUTE FUNCTION hold();
SQL
my $holder = $node->background_psql('postgres');

my $files = 0;

sub next_file
{
	my (%option) = @_;
	$files++;
	return contacts_csv($node, name => "permissions$files.csv", rows => 4000, salt => $files, columns => [qw(first_name last_name age)], %option);
}

sub submit_sql { return "SELECT bulk_action.bulk_action_submit('file://$_[0]'" . ($_[1] // '') . ')' }
sub submit { return value_of($node, submit_sql($_[0], $_[2]), as => $_[1] // 'alice') }
sub as_owner { return value_of($node, "SELECT bulk_action.bulk_action_$_[0]", as => 'carol') }

sub ended
{
	my ($id) = @_;
	wait_for($node, "SELECT state IN ('completed', 'failed', 'cancelled') FROM bulk_action.bulk_actions WHERE id = '$id'");
	my %row;
	@row{qw(state code message detail hint total updated failed unprocessed sound)} = @{ (rows_of($node, <<SQL))[0] };
SELECT a.state, a.error_code, a.error_message, a.error_detail, a.error_hint, s.total, s.updated, s.failed, s.unprocessed,
  s.total = s.updated + s.inserted + s.deleted + s.unchanged + s.not_found + s.superseded + s.failed + s.unprocessed
FROM bulk_action.bulk_actions a, bulk_action.bulk_action_stat(a.id) s WHERE a.id = '$id'
SQL
	return \%row;
}

sub refused_at_run
{
	my ($id, $name) = @_;
	my $end = ended($id);
	is("$end->{state} $end->{code} $end->{message}", 'failed 42501 permission denied for entity type "contact"', "$name: the action fails");
	like("$end->{detail} $end->{hint}", qr/"alice" does not own.*has not been granted "bulk_update".*bulk_action_grant\('contact', 'alice'/,
		"$name: with what is to be done");
	is($end->{sound}, 't', "$name: every row is accounted for");
	return $end;
}

sub refused_at_submit
{
	my ($csv, $name) = @_;
	my ($status, undef, $error) = $node->psql('postgres', submit_sql($csv), connstr => $node->connstr('postgres') . ' user=alice');
	like($error, qr/permission denied for entity type "contact"\nDETAIL: .*\nHINT: .*bulk_action_grant/, $name);
	return;
}

# --- who needs one --------------------------------------------------------------------------------------------

{
	my $applies = sub {
		my ($who, $name) = @_;
		my $csv = next_file();
		apply_serially($node, csv => $csv, mode => 'set');
		my $end = ended(submit($csv, $who));
		is("$end->{state} $end->{updated}", 'completed 4000', $name);
	};
	refused_at_submit(next_file(), 'all privileges on the table are not enough');
	$applies->('carol', 'the owner needs none');
	$applies->('postgres', 'a superuser neither');
	$node->safe_psql('postgres', 'GRANT carol TO alice');
	$applies->('alice', 'nor whoever has the privileges of the owner');
	$node->safe_psql('postgres', 'REVOKE carol FROM alice');
	refused_at_submit(next_file(), 'but no longer than that');
	as_owner("grant('contact', 'crew', ARRAY['bulk_update'])");
	$applies->('alice', 'a member of the grantee has it');
	same_content($node, 'public.contacts', 'public.contacts_serial', 'what was applied');
}

# --- revoked before the action runs ---------------------------------------------------------------------------

# The change is made while the transaction of submit is open.
sub before_the_run
{
	my ($name, $change, $restore) = @_;
	my $before = checksum_of($node, 'public.contacts');
	my $session = $node->background_psql('postgres');
	my $id = $session->query_safe('BEGIN; SET LOCAL SESSION AUTHORIZATION alice; ' . submit_sql(next_file()));
	$node->safe_psql('postgres', $change);
	$session->query_safe('COMMIT');
	$session->quit;
	my $end = refused_at_run($id, $name);
	is("$end->{total} $end->{unprocessed}", '0 0', "$name: nothing was read");
	is(value_of($node, "SELECT count(*) FROM bulk_action_internal.sources JOIN bulk_action_internal.actions USING (action_no) WHERE id = '$id'"), 0,
		"$name: nor looked for");
	is(checksum_of($node, 'public.contacts'), $before, "$name: nothing was applied");
	$node->safe_psql('postgres', $restore);
	return;
}
my $regrant = "SET SESSION AUTHORIZATION carol; SELECT bulk_action.bulk_action_grant('contact', 'crew')";
before_the_run('revoked', "SET SESSION AUTHORIZATION carol; SELECT bulk_action.bulk_action_revoke('contact', 'crew')", $regrant);
before_the_run('membership revoked', 'REVOKE crew FROM alice', 'GRANT crew TO alice');
before_the_run('unregistered', "SELECT bulk_action.bulk_action_unregister_entity('contact')",
	"SELECT bulk_action.bulk_action_register_entity('contact', 'public.contacts', ARRAY['id']); $regrant");
before_the_run('another table has the name, and its owner has granted it',
	"CREATE TABLE public.others (LIKE public.contacts INCLUDING ALL);
	SELECT bulk_action.bulk_action_register_entity('contact', 'public.others', ARRAY['id']);
	SELECT bulk_action.bulk_action_grant('contact', 'alice'), bulk_action.bulk_action_grant('contact', 'public')",
	"SELECT bulk_action.bulk_action_register_entity('contact', 'public.contacts', ARRAY['id']); DROP TABLE public.others; $regrant");

# --- revoked while it runs, and while it rests --------------------------------------------------------------------

{
	# one lane, in the order of the file: the second of four chunks is held
	my $csv = next_file();
	$node->safe_psql('postgres', 'DROP TABLE public.contacts_serial');
	apply_serially($node, csv => $csv, mode => 'set');
	$holder->query_safe('SELECT pg_advisory_lock(7000)');
	my $id = submit($csv, 'alice', q(, options => '{"order": "file"}'));
	wait_for($node, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bulk_action worker' AND wait_event = 'advisory')");
	my $in_flight = value_of($node, "SELECT unprocessed FROM bulk_action.bulk_action_stat('$id')");
	as_owner("revoke('contact', 'crew')");
	$holder->query_safe('SELECT pg_advisory_unlock(7000)');
	my $end = refused_at_run($id, 'revoked while it runs');
	is("$in_flight $end->{unprocessed}", '3000 2000', 'the chunk in flight was finished, and none after it');
	is($end->{updated}, 4000 - $end->{unprocessed}, 'what is committed stays');
	is(value_of($node, 'SELECT count(*) FROM public.contacts c JOIN public.contacts_serial s USING (id) WHERE c.first_name = s.first_name AND c.last_name = s.last_name'),
		$end->{updated}, 'in the table, too');

	# taken up again, without and with it
	value_of($node, "SELECT bulk_action.bulk_action_retry('$id')", as => 'alice');
	wait_for($node, "SELECT state = 'failed' AND NOT EXISTS (SELECT FROM bulk_action_internal.events) FROM bulk_action.bulk_actions WHERE id = '$id'");
	refused_at_run($id, 'retried without it');
	as_owner("grant('contact', 'crew')");
	value_of($node, "SELECT bulk_action.bulk_action_retry('$id')", as => 'alice');
	wait_for($node, "SELECT state = 'completed' FROM bulk_action.bulk_actions WHERE id = '$id'");
	same_content($node, 'public.contacts', 'public.contacts_serial', 'granted again, the rest is applied');
}
{
	$holder->query_safe('SELECT pg_advisory_lock(7000)');
	my $id = submit(next_file(), 'alice', q(, options => '{"order": "file"}'));
	wait_for($node, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bulk_action worker' AND wait_event = 'advisory')");
	value_of($node, "SELECT bulk_action.bulk_action_pause('$id')", as => 'alice');
	wait_for($node, "SELECT state = 'paused' FROM bulk_action.bulk_actions WHERE id = '$id'");
	$holder->query_safe('SELECT pg_advisory_unlock(7000)');
	my $left = value_of($node, "SELECT unprocessed FROM bulk_action.bulk_action_stat('$id')");
	as_owner("revoke('contact', 'crew')");
	value_of($node, "SELECT bulk_action.bulk_action_resume('$id')", as => 'alice');
	is(refused_at_run($id, 'revoked while it rests')->{unprocessed}, $left, 'and nothing more is applied');
	as_owner("grant('contact', 'crew')");
}
{
	$holder->query_safe('SELECT pg_advisory_lock(7000)');
	my $before = submit(next_file(), 'alice');
	wait_for($node, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bulk_action worker' AND wait_event = 'advisory')");
	my $id = submit(next_file(), 'alice');
	as_owner("revoke('contact', 'crew')");
	is(value_of($node, "SELECT updated < 4000 FROM bulk_action.bulk_action_stat('$before')"), 't', 'the one before it is not done');
	$holder->query_safe('SELECT pg_advisory_unlock(7000)');
	ended($before);
	is(refused_at_run($id, 'revoked while it waits behind another')->{updated}, 0, 'nothing is applied');
	as_owner("grant('contact', 'crew')");
}
{
	# the keys of a lane are work like any other: nobody can write down which of them come twice
	my $locker = $node->background_psql('postgres');
	$locker->query_safe('BEGIN');
	$locker->query_safe('LOCK TABLE bulk_action_internal.duplicates IN SHARE MODE');
	my $id = submit(next_file(repeat => 10), 'alice', q(, options => '{"duplicates": "last"}'));
	wait_for($node, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bulk_action worker' AND wait_event_type = 'Lock' AND query LIKE '%$id%')");
	as_owner("revoke('contact', 'crew')");
	$locker->query_safe('COMMIT');
	$locker->quit;
	my $end = refused_at_run($id, 'revoked while keys are compared');
	is("$end->{total} $end->{updated}", '4400 0', 'all is read, nothing is applied');
	as_owner("grant('contact', 'crew')");
}
$holder->quit;

# --- roles that are gone ----------------------------------------------------------------------------------------------

{
	my $count = 'SELECT count(DISTINCT grantee::oid) FROM bulk_action_internal.permissions';
	$node->safe_psql('postgres', 'CREATE ROLE passing; CREATE ROLE staying');
	as_owner("grant('contact', 'passing')");
	as_owner("grant('contact', 'staying')");
	is(value_of($node, $count), 3, 'permissions of roles');
	$node->safe_psql('postgres', 'DROP ROLE passing');
	wait_for($node, "SELECT ($count) = 2", what => 'the coordinator that comes by to forget what a dropped role had');
	is(value_of($node, "SELECT string_agg(DISTINCT grantee::text, ' ' ORDER BY grantee::text) FROM bulk_action_internal.permissions"), 'crew staying', 'and nothing else');
}

# --- dump and restore: by name ------------------------------------------------------------------------------------------

{
	$node->safe_psql('postgres', 'CREATE ROLE "Odd, \'role\'"');
	as_owner(q{grant('contact', 'Odd, ''role''')});
	as_owner("grant('contact', 'public')");
	# one of a dropped role, by an oid that would be another role's in the other cluster
	$node->safe_psql('postgres', "INSERT INTO bulk_action_internal.permissions (entity_type, grantee, action_type, granted_by)
		VALUES ('contact', 4000000000, 'bulk_update', 'nobody')");
	$node->safe_psql('postgres', "ALTER SYSTEM SET bulk_action.rescan_interval = '1h'; SELECT pg_reload_conf()");
	my $dump = $node->basedir . '/dump.sql';
	$node->command_ok([ 'pg_dump', '--no-sync', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
	my $text = read_file($dump);
	like($text, qr/^contact\tcrew\tbulk_update\tcarol\t/m, 'a role is dumped by its name');
	unlike($text, qr/^contact\t4000000000\t/m, 'one that is gone is not');

	my $other = new_node('other', conf => $conf, extension => 0);
	$other->safe_psql('postgres', 'CREATE ROLE "Odd, \'role\'"; CREATE ROLE staying; CREATE ROLE filler; DROP ROLE filler');
	create_role($other, $_, submit => 0) foreach qw(alice carol dave);
	$other->safe_psql('postgres', 'CREATE ROLE crew; GRANT crew TO alice; GRANT pg_read_server_files TO alice, dave');
	isnt(value_of($other, "SELECT 'crew'::regrole::oid"), value_of($node, "SELECT 'crew'::regrole::oid"), 'oids differ over there');
	$other->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $other->connstr('postgres') ], 'restored');
	my $types = 'bulk_delete+bulk_insert+bulk_update+bulk_upsert';
	is(join(' | ', map { "@$_" } rows_of($other, <<'SQL')),
SELECT grantee, string_agg(action_type, '+' ORDER BY action_type), granted_by FROM bulk_action.bulk_action_permissions
GROUP BY grantee, granted_by ORDER BY grantee COLLATE "C"
SQL
		"Odd, 'role' $types carol | crew $types carol | public $types carol | staying $types carol", 'with all permissions');
	value_of($other, "SELECT bulk_action.bulk_action_revoke('contact', 'public')", as => 'carol');

	$other->safe_psql('postgres', <<'SQL');
GRANT USAGE ON SCHEMA bulk_action TO dave;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bulk_action TO dave;
GRANT SELECT, UPDATE ON public.contacts TO dave;
SQL
	my $csv = next_file();
	my ($status, undef, $error) = $other->psql('postgres', submit_sql($csv), connstr => $other->connstr('postgres') . ' user=dave');
	like($error, qr/permission denied for entity type/, 'a role without one has none there');
	my $id = value_of($other, submit_sql($csv), as => 'alice');
	wait_for($other, "SELECT state = 'completed' FROM bulk_action.bulk_actions WHERE id = '$id'");
	is(value_of($other, "SELECT updated FROM bulk_action.bulk_action_stat('$id')"), 4000, 'a member of the grantee works with it');
	value_of($other, "SELECT bulk_action.bulk_action_revoke('contact', 'crew')", as => 'carol');
	($status, undef, $error) = $other->psql('postgres', submit_sql($csv), connstr => $other->connstr('postgres') . ' user=alice');
	like($error, qr/permission denied for entity type/, 'until it is revoked');
}

done_testing();
