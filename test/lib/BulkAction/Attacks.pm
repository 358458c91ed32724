# BulkAction::Attacks - a server with one worker, roles behind PostgREST's login, and code that tries to
# become somebody else: for tests that attack, and compare with what the same rows do by hand.
#
#   use BulkAction::Attacks;
#   my $node = attacked_node();
#   attack('a trigger that becomes somebody else', setup => trigger('BEFORE UPDATE', "..."));
package BulkAction::Attacks;

use strict;
use warnings;

use BulkAction;
use Exporter 'import';
use JSON::PP;
use Test::More;

our @EXPORT = qw(attacked_node claims literal request_begin submit_sql submit by_hand file_of statistics codes_of
  check_next attack trigger);

my $node;
my $login;    # connects as PostgREST does

# attacked_node($more_conf): the server; the other functions work on it.
sub attacked_node
{
	my ($conf) = @_;
	# One worker: whoever comes next has the session in which the one before him ran.
	$node = new_node('main', conf => <<'CONF' . ($conf // ''));
bulk_action.file_root = '/'
bulk_action.max_workers = 1
bulk_action.max_attempts = 3
CONF
	create_role($node, 'authenticator', attributes => 'LOGIN NOINHERIT', submit => 0);
	create_role($node, $_, attributes => 'NOLOGIN') foreach qw(webuser webadmin);
	create_role($node, 'bob');
	$node->safe_psql('postgres', <<'SQL');
CREATE ROLE mallory LOGIN;
GRANT webuser, webadmin TO authenticator;
GRANT pg_read_server_files TO webuser, webadmin, bob;
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO webuser, webadmin, bob;

-- who runs user-defined code
CREATE TABLE app.seen (what text, now_user name, login_user name, super boolean, claims text, pid int);
GRANT INSERT ON app.seen TO PUBLIC;
CREATE FUNCTION app.witness(what text) RETURNS boolean LANGUAGE sql VOLATILE
  SET search_path = pg_catalog AS $$
  INSERT INTO app.seen
  SELECT what, current_user, session_user,
         (SELECT pg_catalog.bool_or(rolsuper) FROM pg_catalog.pg_roles WHERE rolname IN (current_user, session_user)),
         pg_catalog.current_setting('request.jwt.claims', true), pg_catalog.pg_backend_pid();
  SELECT true;
$$;

-- tries whatever there is to become somebody else, and bears witness each time
CREATE FUNCTION app.become_another(what text) RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog AS $$
DECLARE
  attempt text;
BEGIN
  FOREACH attempt IN ARRAY ARRAY[
    $q$SELECT pg_catalog.set_config('role', 'none', false)$q$,
    $q$SELECT pg_catalog.set_config('role', 'none', true)$q$,
    $q$SELECT pg_catalog.set_config('role', 'webadmin', false)$q$,
    $q$SELECT pg_catalog.set_config('session_authorization', 'postgres', false)$q$,
    $q$SET ROLE NONE$q$, $q$SET LOCAL ROLE NONE$q$, $q$SET ROLE postgres$q$, $q$SET ROLE webadmin$q$, $q$RESET ROLE$q$,
    $q$SET SESSION AUTHORIZATION DEFAULT$q$, $q$RESET SESSION AUTHORIZATION$q$,
    $q$SET SESSION AUTHORIZATION postgres$q$, $q$SET LOCAL SESSION AUTHORIZATION postgres$q$,
    $q$RESET ALL$q$, $q$DISCARD ALL$q$]
  LOOP
    BEGIN
      EXECUTE attempt;
    EXCEPTION WHEN OTHERS THEN
      NULL;
    END;
    PERFORM app.witness(what || ': ' || attempt);
  END LOOP;
END $$;

-- what the submitter of an action finds around him
CREATE TABLE app.surroundings (place text, what jsonb);
CREATE TABLE app.surroundings_pid (pid int);
GRANT INSERT ON app.surroundings, app.surroundings_pid TO PUBLIC;
CREATE FUNCTION app.look_around() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  setting text;
  found jsonb := jsonb_build_object('current_user', current_user, 'session_user', session_user);
BEGIN
  FOREACH setting IN ARRAY ARRAY['search_path', 'role', 'request.jwt.claims', 'transaction_read_only',
    'transaction_isolation', 'transaction_deferrable', 'default_transaction_read_only', 'row_security',
    'statement_timeout', 'idle_in_transaction_session_timeout', 'DateStyle', 'TimeZone',
    'work_mem', 'enable_seqscan', 'jit', 'evil.planted']
  LOOP
    found := found || jsonb_build_object(setting, current_setting(setting, true));
  END LOOP;
  found := found || jsonb_build_object(
    'lock_timeout', current_setting('lock_timeout') = '1ms', -- workers have one of their own
    'cursors', (SELECT count(*) FROM pg_cursors WHERE is_holdable),
    'prepared statements', (SELECT count(*) FROM pg_prepared_statements WHERE name <> 'request'),
    'advisory locks', (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
    'temporary tables', (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
    'sequence', (SELECT CASE WHEN EXISTS (SELECT FROM pg_class WHERE relname = 'planted_sequence') THEN 1 ELSE 0 END));
  -- the name is looked up on the path, where a temporary table would come first
  INSERT INTO surroundings VALUES (tg_table_name, found);
  INSERT INTO surroundings_pid VALUES (pg_backend_pid());
  RETURN new;
END $$;
CREATE TABLE app.plain (id bigint PRIMARY KEY, name text);
INSERT INTO app.plain VALUES (1, 'one');
CREATE TABLE app.plain_by_hand AS TABLE app.plain;
CREATE TRIGGER look BEFORE UPDATE ON app.plain FOR EACH ROW EXECUTE FUNCTION app.look_around();
CREATE TRIGGER look BEFORE UPDATE ON app.plain_by_hand FOR EACH ROW EXECUTE FUNCTION app.look_around();
GRANT SELECT, UPDATE ON app.plain, app.plain_by_hand TO webadmin, bob;
SELECT bulk_action.bulk_action_register_entity('plain', 'app.plain', ARRAY['id']); SELECT bulk_action.bulk_action_grant('plain', 'public');
SQL
	$login = $node->connstr('postgres') . ' user=authenticator';
	return $node;
}

# --- requests, as PostgREST sends them ----------------------------------------------------------------

sub claims { return qq({"exp":4000000000,"role":"$_[0]","sub":"u-$_[0]"}) }


# What comes before the main statement. settings => { ... }: others than these, undef for none
sub request_begin
{
	my ($role, %option) = @_;
	my %setting = (
		search_path => '"bulk_action", "app"', role => $role, 'request.jwt.claims' => claims($role),
		'request.method' => 'POST', 'request.path' => '/rpc/bulk_action_submit',
		'request.headers' => '{"accept":"*/*","authorization":"Bearer of-a-secret","cookie":"also=secret"}',
		'request.cookies' => '{"also":"secret"}', %{ $option{settings} // {} });
	return "SET client_encoding = 'UTF8'; SET client_min_messages TO WARNING;\n"
	  . "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;\nSELECT "
	  . join(', ', map { "set_config('$_', " . literal($setting{$_}) . ', true)' } grep { defined $setting{$_} }
		  'search_path', 'role', grep { /\./ } sort keys %setting)
	  . " \\g /dev/null\n";
}

my $request = <<'SQL';
PREPARE request (json) AS
WITH pgrst_source AS (SELECT pgrst_call.pgrst_scalar FROM (SELECT $1 AS json_data) pgrst_payload,
  LATERAL (SELECT "entity_type", "source" FROM json_to_record(pgrst_payload.json_data) AS _("entity_type" text, "source" text) LIMIT 1) pgrst_body,
  LATERAL (SELECT "bulk_action"."bulk_action_submit"("entity_type" := pgrst_body."entity_type", "source" := pgrst_body."source") pgrst_scalar) pgrst_call)
SELECT coalesce(json_agg(_postgrest_t.pgrst_scalar)->>0, 'null') AS body
FROM (SELECT "bulk_action_submit".* FROM "pgrst_source" AS "bulk_action_submit") _postgrest_t;
SQL

sub submit_sql
{
	my ($role, $entity, $csv, %option) = @_;
	return ($option{before} // '') . request_begin($role, %option) . ($option{within} // '') . $request
	  . "EXECUTE request (" . literal(qq({"entity_type":"$entity","source":"file://$csv"})) . ");\nCOMMIT;\n";
}

# login => role: another than PostgREST's
sub login_of
{
	my (%option) = @_;
	return defined $option{login} ? $node->connstr('postgres') . " user=$option{login}" : $login;
}

sub submit
{
	my ($role, $entity, $csv, %option) = @_;
	return $node->safe_psql('postgres', submit_sql($role, $entity, $csv, %option), connstr => login_of(%option));
}

# Each row by an UPDATE of its own in one transaction of the submitter's; what came of them.
sub by_hand
{
	my ($role, $table, $columns, $rows, %option) = @_;
	my $sql = '';
	foreach my $row (@$rows)
	{
		my %cell;
		@cell{@$columns} = @$row;
		my $id = literal(delete $cell{id});
		my $set = join ', ', map { "$_ = " . literal($cell{$_}) } grep { defined $cell{$_} } sort keys %cell;
		$sql .= <<SQL;
  BEGIN
    UPDATE $table SET $set WHERE id = $id;
    IF found THEN updated := updated + 1; ELSE not_found := not_found + 1; END IF;
  EXCEPTION WHEN OTHERS THEN
    failed := failed || SQLSTATE::text;
  END;
SQL
	}
	my $out = $node->safe_psql('postgres', request_begin($role, %option) . <<SQL, connstr => login_of(%option));
DO \$do\$ DECLARE updated int := 0; not_found int := 0; failed text[] := '{}'; BEGIN
$sql
  PERFORM set_config('by_hand.outcome', format('%s %s %s', updated, not_found, failed), true);
END \$do\$;
SELECT current_setting('by_hand.outcome');
COMMIT;
SQL
	my ($updated, $not_found, $failed) = $out =~ /^(\d+) (\d+) \{(.*)\}\z/ or die "by hand: $out";
	my @failed = split /,/, $failed;
	return { updated => $updated, not_found => $not_found, failed => scalar @failed, codes => \@failed };
}

my $files = 0;

sub file_of
{
	my ($columns, $rows) = @_;
	return write_file($node->basedir . '/privileges' . ++$files . '.csv',
		join('', map { csv_line(@$_) } $columns, @$rows));
}

sub statistics
{
	my ($id) = @_;
	wait_for($node,
		"SELECT state NOT IN ('queued', 'running') FROM bulk_action.bulk_actions WHERE id = '$id'");
	my %row;
	@row{qw(state code message updated not_found failed unprocessed sound)} = @{ (rows_of($node, <<SQL))[0] };
SELECT state, error_code, error_message, updated, not_found, failed, unprocessed,
       total = updated + inserted + deleted + unchanged + not_found + superseded + failed + unprocessed
  FROM bulk_action.bulk_action_stat('$id')
SQL
	return \%row;
}

sub codes_of
{
	my ($id) = @_;
	return [ map { $_->[0] } rows_of($node, "SELECT error_code FROM bulk_action.bulk_action_errors WHERE action_id = '$id' ORDER BY line") ];
}

# --- attacks --------------------------------------------------------------------------------------------

# The next action of another role in the same session finds what it would find in a new session.
my $next = 0;

sub check_next
{
	my ($name) = @_;
	$next++;
	$node->safe_psql('postgres', 'TRUNCATE app.surroundings, app.surroundings_pid');
	my @rows = ([ 1, "after $next" ]);
	my $id = submit('webadmin', 'plain', file_of([qw(id name)], \@rows));
	is(statistics($id)->{state}, 'completed', "$name: the next action of another role is completed");
	my $pid = value_of($node, 'SELECT pid FROM app.surroundings_pid');
	by_hand('webadmin', 'app.plain_by_hand', [qw(id name)], \@rows);
	my $found = decode_json(value_of($node, 'SELECT jsonb_object_agg(place, what) FROM app.surroundings'));
	is_deeply(@$found{qw(plain plain_by_hand)}, "$name: which finds what it would find in a session of its own");
	same_content($node, 'app.plain', 'app.plain_by_hand', "$name: and does the same");
	return $pid;
}

my $tables = 0;

# A table of its own with what `setup` puts on it (TABLE is its name), and a file of 50 rows with one
# that is not found; then the same by hand on a copy, to which `hand` is done, or nothing.
#   expect => { ... }  where the result is not that of plain updates
#   witnesses => 0     no user code bears witness          login => role  another session user
#   spoils => 1        the session is of no use afterwards  dies => 1      the worker ends
sub attack
{
	my ($name, %option) = @_;
	my $table = 'attack' . ++$tables;
	my @columns = @{ $option{columns} // [qw(id name)] };
	my @rows = @{ $option{rows} // [ map { [ $_, "new name $_" ] } 1 .. 30, 1000, 31 .. 50 ] };

	$node->safe_psql('postgres', 'TRUNCATE app.seen');
	foreach my $which ("app.$table", "app.${table}_by_hand")
	{
		my $sql = (($which eq "app.$table" ? $option{table} : $option{hand_table}) // 'CREATE TABLE TABLE (id bigint PRIMARY KEY, name text, note text);') . <<'SQL'
INSERT INTO TABLE (id, name) SELECT i, 'name ' || i FROM generate_series(1, 60) AS i;
GRANT SELECT, UPDATE ON TABLE TO webuser;
SQL
		  . ($which eq "app.$table" ? $option{setup} // '' : $option{hand} // '');
		$sql =~ s/\bCREATE TABLE TABLE\b/CREATE TABLE $which/g;
		$sql =~ s/(?<!CREATE )\bTABLE TABLE\b/TABLE $which/g;
		$sql =~ s/\bON TABLE\b(?! [a-z])|\bON TABLE (?=TO|FOR)/ON $which /g;
		$sql =~ s/\bINTO TABLE\b/INTO $which/g;
		$node->safe_psql('postgres', $sql);
	}
	$node->safe_psql('postgres', $option{after}) if defined $option{after};
	$node->safe_psql('postgres', "SELECT bulk_action.bulk_action_register_entity('$table', 'app.$table', ARRAY['id']); SELECT bulk_action.bulk_action_grant('$table', 'public')");

	my $id = submit('webuser', $table, file_of(\@columns, \@rows), %option);
	my $stat = statistics($id);
	my $hand = by_hand('webuser', "app.${table}_by_hand", \@columns, \@rows, %option);
	my $login_user = $option{login} // 'authenticator';
	my $expect = $option{expect} // {};
	subtest $name => sub {
		is($stat->{sound}, 't', 'every row is accounted for');
		is($stat->{state}, $expect->{state} // 'completed', 'the state');
		is($stat->{code}, $expect->{code}, 'the error of the action, if any');
		like($stat->{message}, $expect->{message}, 'its message') if defined $expect->{message};
		if (!defined $expect->{state})
		{
			is("$stat->{updated} $stat->{not_found} $stat->{failed} $stat->{unprocessed}",
				join(' ', (map { $expect->{$_} // $hand->{$_} } qw(updated not_found failed)), 0), 'the statistics');
			is_deeply(codes_of($id), $expect->{codes} // $hand->{codes}, 'the errors');
			same_content($node, "app.$table", "app.${table}_by_hand", 'the table') unless $expect->{other_content};
		}
		else
		{
			is(value_of($node, "SELECT count(*) FROM app.$table WHERE name LIKE 'new%'"), $stat->{updated}, 'the table');
		}
		if ($option{witnesses} // 1)
		{
			cmp_ok(value_of($node, 'SELECT count(*) FROM app.seen'), '>', 0, 'there are witnesses');
			is(value_of($node, <<SQL), '', 'all of it ran as the submitter');
SELECT string_agg(DISTINCT format('%s as %s, logged in as %s, with %s', what, now_user, login_user, claims), E'\\n')
  FROM app.seen WHERE (now_user, login_user, super) IS DISTINCT FROM ('webuser', '$login_user', @{[ $login_user eq 'postgres' ? 'true' : 'false' ]})
    OR claims NOT IN ('@{[ claims('webuser') ]}', '') -- none after RESET ALL
SQL
		}
		my $worker = value_of($node, 'SELECT max(pid) FROM app.seen');
		my $pid = check_next($name);
		return if !($option{witnesses} // 1) || $option{dies} || defined $option{login};
		is($pid, $worker, 'the next action had the same session') unless $option{spoils};
		isnt($pid, $worker, 'the next action had a session of its own') if $option{spoils};
	};
	return $table;
}

# a trigger on TABLE whose function has this body
my $functions = 0;

sub trigger
{
	my ($when, $body) = @_;
	my $function = 'app.attack_function' . ++$functions;
	my $kind = $when =~ /DEFERRABLE/ ? 'CONSTRAINT TRIGGER' : 'TRIGGER';
	my ($time, $deferrable) = $when =~ /^(.*?)\s*(DEFERRABLE.*)?\z/;
	$deferrable //= '';
	return <<SQL;
CREATE FUNCTION $function() RETURNS trigger LANGUAGE plpgsql AS \$attack\$
BEGIN
  $body
  RETURN new;
END \$attack\$;
CREATE $kind attack$functions $time ON TABLE $deferrable FOR EACH ROW EXECUTE FUNCTION $function();
SQL
}

1;
