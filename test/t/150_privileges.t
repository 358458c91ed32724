# Rows are applied with the privileges of whoever submitted them, and code that others have written
# (triggers, policies, domains, operators) runs as the submitter and as nobody else, whatever it
# tries. Each attack is one that a careless worker would fall for.
use strict;
use warnings;

use BulkAction;
use JSON::PP;
use Test::More;

# One worker: whoever comes next has the session in which the one before him ran.
my $node = new_node('main', conf => <<'CONF');
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
    found := found || jsonb_build_object(setting, coalesce(current_setting(setting, true), ''));
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
SELECT bulk_action.bulk_action_register_entity('plain', 'app.plain', ARRAY['id']);
SELECT bulk_action.bulk_action_grant('plain', 'public');
SQL

# --- requests, as PostgREST sends them ----------------------------------------------------------------

my $login = $node->connstr('postgres') . ' user=authenticator';

sub claims { return qq({"exp":4000000000,"role":"$_[0]","sub":"u-$_[0]"}) }

sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

# What comes before the main statement.
sub request_begin
{
	my ($role) = @_;
	my %setting = (
		search_path => '"bulk_action", "app"', role => $role, 'request.jwt.claims' => claims($role),
		'request.method' => 'POST', 'request.path' => '/rpc/bulk_action_submit',
		'request.headers' => '{"accept":"*/*","authorization":"Bearer of-a-secret","cookie":"also=secret"}',
		'request.cookies' => '{"also":"secret"}');
	return "SET client_encoding = 'UTF8'; SET client_min_messages TO WARNING;\n"
	  . "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;\nSELECT "
	  . join(', ', map { "set_config('$_', " . literal($setting{$_}) . ', true)' }
		  'search_path', 'role', grep { /^request/ } sort keys %setting)
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
	return ($option{before} // '') . request_begin($role) . ($option{within} // '') . $request
	  . "EXECUTE request (" . literal(qq({"entity_type":"$entity","source":"file://$csv"})) . ");\nCOMMIT;\n";
}

sub submit
{
	my (@arguments) = @_;
	my $id = $node->safe_psql('postgres', submit_sql(@arguments), connstr => $login);
	return $id;
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
	my $out = $node->safe_psql('postgres', request_begin($role) . <<SQL, connstr => $login);
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
#   expect => { ... } where the result is not that of plain updates
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
	$node->safe_psql('postgres', "SELECT bulk_action.bulk_action_register_entity('$table', 'app.$table', ARRAY['id']);
		SELECT bulk_action.bulk_action_grant('$table', 'public')");

	my $id = submit('webuser', $table, file_of(\@columns, \@rows), %option);
	my $stat = statistics($id);
	my $hand = by_hand('webuser', "app.${table}_by_hand", \@columns, \@rows);
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
			cmp_ok(value_of($node, 'SELECT count(*) FROM app.seen WHERE pid IN (SELECT pid FROM app.seen)'), '>', 0, 'there are witnesses');
			is(value_of($node, <<SQL), '', 'all of it ran as the submitter');
SELECT string_agg(DISTINCT format('%s as %s, logged in as %s, with %s', what, now_user, login_user, claims), E'\\n')
  FROM app.seen WHERE (now_user, login_user, super) IS DISTINCT FROM ('webuser', 'authenticator', false)
    OR claims NOT IN ('@{[ claims('webuser') ]}', '') -- none after RESET ALL
SQL
		}
		my $worker = value_of($node, 'SELECT max(pid) FROM app.seen');
		my $pid = check_next($name);
		is($pid, $worker, 'the next action had the same session') if ($option{witnesses} // 1) && !$option{dies};
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

attack('a trigger that becomes somebody else',
	setup => trigger('BEFORE UPDATE', "PERFORM app.become_another('row trigger');"));

attack('a trigger that stumbles over becoming somebody else',
	setup => trigger('BEFORE UPDATE', "PERFORM app.witness('row trigger'); IF old.id % 10 = 0 THEN PERFORM set_config('role', 'none', true); END IF;")
	  . trigger('AFTER UPDATE', "PERFORM app.witness('after');"),
	expect => { updated => 45, failed => 5, codes => [ ('42501') x 5 ], other_content => 1 });

attack('a statement trigger that becomes somebody else',
	setup => trigger('BEFORE UPDATE', "PERFORM app.become_another('statement trigger');") =~ s/FOR EACH ROW/FOR EACH STATEMENT/r);

attack('a deferred trigger that becomes somebody else',
	setup => trigger('AFTER UPDATE DEFERRABLE INITIALLY DEFERRED', "PERFORM app.become_another('deferred trigger');"));

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE app.side (id bigint PRIMARY KEY, n int DEFAULT 0);
INSERT INTO app.side SELECT generate_series(1, 60);
GRANT SELECT, UPDATE ON app.side TO webuser;
CREATE FUNCTION app.at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM app.become_another('at commit');
  -- settings of the session, made when the transaction can no longer take them back
  PERFORM set_config('search_path', 'evil, pg_catalog', false), set_config('row_security', 'off', false),
          set_config('evil.planted', 'yes', false), set_config('default_transaction_read_only', 'on', false),
          set_config('lock_timeout', '1ms', false), set_config('statement_timeout', '1ms', false),
          set_config('DateStyle', 'German', false), set_config('work_mem', '64kB', false),
          set_config('request.jwt.claims', '{"role":"postgres"}', false);
  RETURN new;
END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON app.side DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (new.id = 7) EXECUTE FUNCTION app.at_commit();
SQL
attack('a trigger that defers another one to the commit again, which leaves settings behind',
	setup => trigger('AFTER UPDATE DEFERRABLE INITIALLY DEFERRED', <<'SQL'));
  PERFORM app.witness('deferred trigger');
  SET CONSTRAINTS ALL DEFERRED;
  UPDATE app.side SET n = n + 1 WHERE id = new.id;
SQL
is(value_of($node, 'SELECT string_agg(DISTINCT n::text, \' \') FROM app.side WHERE id BETWEEN 1 AND 50'), 1, 'what the trigger did was done once');

$node->safe_psql('postgres', 'DROP TRIGGER at_commit ON app.side');
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION app.fail_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM app.witness('fails at commit');
  IF new.id IN (11, 12, 44) THEN RAISE EXCEPTION 'not this one' USING errcode = 'AB123'; END IF;
  RETURN new;
END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON app.side DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION app.fail_at_commit();
SQL
attack('rows that fail at the commit',
	setup => trigger('AFTER UPDATE DEFERRABLE INITIALLY DEFERRED', <<'SQL'),
  SET CONSTRAINTS ALL DEFERRED;
  UPDATE app.side SET n = n + 1 WHERE id = new.id;
SQL
	hand => trigger('BEFORE UPDATE', "IF old.id IN (11, 12, 44) THEN RAISE EXCEPTION 'not this one' USING errcode = 'AB123'; END IF;"));

attack('a cursor WITH HOLD whose query runs at the commit',
	setup => trigger('BEFORE UPDATE', <<'SQL'));
  IF NOT EXISTS (SELECT FROM pg_cursors WHERE name = 'held') THEN
    EXECUTE $q$DECLARE held CURSOR WITH HOLD FOR SELECT app.become_another('cursor'), app.witness('cursor') FROM app.side$q$;
  END IF;
SQL

# Operators that would be found first by statements that leave their path to others.
$node->safe_psql('postgres', <<'SQL');
CREATE SCHEMA evil;
GRANT USAGE, CREATE ON SCHEMA evil TO PUBLIC;
SET ROLE mallory;
DO $do$
DECLARE
  pair text[];
BEGIN
  FOREACH pair SLICE 1 IN ARRAY ARRAY[['bigint', 'bigint'], ['integer', 'integer'], ['smallint', 'smallint'],
    ['text', 'text'], ['oid', 'oid'], ['name', 'text'], ['uuid', 'uuid'], ['smallint', 'integer'], ['integer', 'bigint'],
    ['name', 'name'], ['bigint', 'integer']]
  LOOP
    EXECUTE format($f$CREATE FUNCTION evil.equal(%1$s, %2$s) RETURNS boolean LANGUAGE plpgsql AS
      'BEGIN PERFORM app.become_another(''operator''); RETURN true; END'$f$, pair[1], pair[2]);
    EXECUTE format('CREATE OPERATOR evil.= (LEFTARG = %1$s, RIGHTARG = %2$s, FUNCTION = evil.equal)', pair[1], pair[2]);
    EXECUTE format('CREATE OPERATOR evil.<= (LEFTARG = %1$s, RIGHTARG = %2$s, FUNCTION = evil.equal)', pair[1], pair[2]);
  END LOOP;
  FOREACH pair SLICE 1 IN ARRAY ARRAY[['bigint', 'bigint'], ['integer', 'integer']]
  LOOP
    EXECUTE format($f$CREATE FUNCTION evil.plus(%1$s, %2$s) RETURNS %1$s LANGUAGE plpgsql AS
      'BEGIN PERFORM app.become_another(''operator''); RETURN 0; END'$f$, pair[1], pair[2]);
    EXECUTE format('CREATE OPERATOR evil.+ (LEFTARG = %1$s, RIGHTARG = %2$s, FUNCTION = evil.plus)', pair[1], pair[2]);
  END LOOP;
END $do$;
RESET ROLE;
SQL
foreach my $local ('true', 'false')
{
	attack("operators planted by a search_path, local $local",
		setup => trigger('BEFORE UPDATE', "PERFORM app.witness('row trigger'); PERFORM set_config('search_path', 'evil, pg_catalog', $local);")
		  . trigger('AFTER UPDATE DEFERRABLE INITIALLY DEFERRED', "PERFORM app.witness('deferred'); PERFORM set_config('search_path', 'evil, pg_catalog', $local);"));
}
attack('operators planted by the search_path of the submitter',
	within => "SET LOCAL search_path = evil, pg_catalog, bulk_action;\n", witnesses => 0);

foreach my $setting ([ transaction_read_only => 'on' ], [ row_security => 'off' ], [ default_transaction_read_only => 'on' ],
	[ session_replication_role => 'replica' ], [ lock_timeout => '1ms' ], [ statement_timeout => '1ms' ],
	[ idle_in_transaction_session_timeout => '1ms' ], [ 'bulk_action.file_root' => '/etc' ])
{
	my ($name, $value) = @$setting;
	attack("a trigger that sets $name",
		setup => trigger('BEFORE UPDATE', "PERFORM app.witness('row trigger');")
		  . trigger('AFTER UPDATE', <<SQL));
  BEGIN
    IF current_setting('transaction_read_only') = 'off' THEN PERFORM set_config('$name', '$value', old.id % 2 = 0); END IF;
  EXCEPTION WHEN insufficient_privilege OR cant_change_runtime_param THEN
    NULL;
  END;
SQL
}

# The worker's own role has settings that it cannot work under.
foreach my $setting ("role = 'webadmin'", 'default_transaction_read_only = on', "default_transaction_isolation = 'serializable'",
	"statement_timeout = '1ms'", "lock_timeout = '1ms'", "idle_in_transaction_session_timeout = '1ms'", 'search_path = evil, pg_catalog',
	'row_security = off', 'default_transaction_deferrable = on')
{
	$node->safe_psql('postgres', "ALTER ROLE authenticator SET $setting");
	# a new session of the worker
	value_of($node, "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE backend_type = 'bulk_action worker'");
	$node->safe_psql('postgres', 'TRUNCATE app.seen');
	my ($name) = $setting =~ /^(\w+)/;
	my $table = 'attack' . ++$tables;
	$node->safe_psql('postgres', <<SQL);
CREATE TABLE app.$table (id bigint PRIMARY KEY, name text);
INSERT INTO app.$table SELECT i, 'name ' || i FROM generate_series(1, 60) AS i;
CREATE TABLE app.${table}_by_hand AS TABLE app.$table;
GRANT SELECT, UPDATE ON app.$table, app.${table}_by_hand TO webuser;
SELECT bulk_action.bulk_action_register_entity('$table', 'app.$table', ARRAY['id']);
SELECT bulk_action.bulk_action_grant('$table', 'public');
@{[ trigger('BEFORE UPDATE', "PERFORM app.become_another('row trigger');") =~ s/ON TABLE/ON app.$table/r ]}
SQL
	my @rows = ([ 1, 'new one' ], [ 2, 'new two' ], [ 99, 'nobody' ]);
	my $id = submit('webuser', $table, file_of([qw(id name)], \@rows), before => 'SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;');
	my $stat = statistics($id);
	$node->safe_psql('postgres', "ALTER ROLE authenticator RESET $name");
	by_hand('webuser', "app.${table}_by_hand", [qw(id name)], \@rows);
	is("$stat->{state} $stat->{updated} $stat->{not_found} $stat->{failed} $stat->{sound}", 'completed 2 1 0 t', "ALTER ROLE ... SET $setting: the action is completed");
	same_content($node, "app.$table", "app.${table}_by_hand");
	is(value_of($node, 'SELECT string_agg(DISTINCT now_user::text || login_user, \' \') FROM app.seen'), 'webuserauthenticator', 'as the submitter');
}
value_of($node, "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE backend_type = 'bulk_action worker'");

attack('things left in the session for the next one',
	setup => trigger('BEFORE UPDATE', <<'SQL'));
  PERFORM app.witness('row trigger');
  CREATE TEMP TABLE IF NOT EXISTS surroundings (place text, what jsonb);
  CREATE TEMP TABLE IF NOT EXISTS pg_class (oid oid, relname name, relnamespace oid);
  CREATE TEMP TABLE IF NOT EXISTS pg_extension (oid oid, extname name, extowner oid);
  CREATE TEMP TABLE IF NOT EXISTS cursors (action_no bigint, lane int);
  CREATE TEMP TABLE IF NOT EXISTS actions (action_no bigint, state text);
  CREATE TEMP TABLE IF NOT EXISTS plain (id bigint, name text);
  CREATE TEMP SEQUENCE IF NOT EXISTS planted_sequence;
  IF NOT EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'planted') THEN
    EXECUTE 'PREPARE planted AS SELECT 1';
  END IF;
  GRANT ALL ON ALL TABLES IN SCHEMA pg_temp TO PUBLIC;
  PERFORM pg_advisory_lock(old.id);
SQL

attack('advisory locks let go of',
	setup => trigger('BEFORE UPDATE', "PERFORM app.witness('row trigger'); PERFORM pg_advisory_lock(1); PERFORM pg_advisory_unlock_all(); PERFORM pg_advisory_xact_lock(2);"));

$node->safe_psql('postgres', <<'SQL');
CREATE PROCEDURE app.commit_here() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;
GRANT EXECUTE ON PROCEDURE app.commit_here() TO PUBLIC;
SQL
foreach my $commit ('COMMIT', 'ROLLBACK', 'CALL app.commit_here()', q(EXECUTE 'COMMIT'), q(EXECUTE 'SAVEPOINT s'), q(EXECUTE 'ROLLBACK TO s'))
{
	my @both = (trigger('BEFORE UPDATE', "IF old.id % 10 = 5 THEN $commit; END IF;")) x 1;
	attack("a trigger that does $commit", setup => $both[0] . trigger('BEFORE UPDATE', "PERFORM app.witness('row trigger');"),
		hand => trigger('BEFORE UPDATE', "IF old.id % 10 = 5 THEN $commit; END IF;"));
}

# Domains, generated columns, checks and policies.
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION app.check_key(value bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM app.become_another('key domain');
  RETURN value <> 13;
END $$;
CREATE FUNCTION app.check_name(value text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM app.become_another('domain');
  RETURN value <> 'new name 14';
END $$;
CREATE FUNCTION app.check_row(value text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM app.become_another('check constraint');
  RETURN value <> 'new name 15';
END $$;
-- not as constant as it says
CREATE FUNCTION app.who(value text) RETURNS text LANGUAGE sql IMMUTABLE AS
  $$ SELECT current_user || ' ' || session_user $$;
CREATE DOMAIN app.key AS bigint;
CREATE DOMAIN app.name AS text;
SQL
attack('domains, checks and generated columns',
	table => <<'SQL', setup => <<'SQL', after => <<'SQL', hand_table => <<'SQL', hand => trigger('BEFORE UPDATE', <<'SQL'));
CREATE TABLE TABLE (id app.key PRIMARY KEY, name app.name, note text, who text GENERATED ALWAYS AS (app.who(name)) STORED);
SQL
CREATE INDEX ON TABLE (app.who(name));
SQL
DO $do$ BEGIN
  EXECUTE format('ALTER TABLE %s ADD CHECK (app.check_row(name)) NOT VALID',
    (SELECT attrelid::regclass FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = attrelid
      WHERE atttypid = 'app.key'::regtype AND relkind = 'r'));
END $do$;
ALTER DOMAIN app.key ADD CHECK (app.check_key(value)) NOT VALID;
ALTER DOMAIN app.name ADD CHECK (app.check_name(value)) NOT VALID;
SQL
CREATE TABLE TABLE (id bigint PRIMARY KEY, name text, note text, who text GENERATED ALWAYS AS (app.who(name)) STORED);
SQL
  IF new.id IN (13, 14, 15) THEN RAISE EXCEPTION 'checked' USING errcode = 'check_violation'; END IF;
SQL

$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION app.policy(value text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM app.become_another('policy');
  RETURN value LIKE '%1%';
END $$;
SQL
my $policies = <<'SQL';
ALTER TABLE TABLE ENABLE ROW LEVEL SECURITY;
CREATE POLICY look ON TABLE FOR SELECT USING (true);
CREATE POLICY change ON TABLE FOR UPDATE USING (current_user = 'webuser' AND name LIKE '%1%')
  WITH CHECK (name <> 'new name 21');
SQL
attack('a policy that becomes somebody else',
	setup => $policies =~ s/name LIKE '%1%'/app.policy(name)/r, hand => $policies);

# --- errors with codes that mean something to the worker -----------------------------------------------------

foreach my $code (qw(57014 57P01 08006 53200 58030))
{
	attack("a trigger that raises $code",
		setup => trigger('BEFORE UPDATE', "PERFORM app.witness('row trigger'); IF old.id = 25 THEN RAISE EXCEPTION 'no' USING errcode = '$code'; END IF;"),
		witnesses => 0, expect => { state => $code =~ /^57/ ? 'failed' : 'paused', code => $code });
}
# Trouble with others passes, or else somebody has to look at it: no row is to blame.
{
	my $log = -s $node->logfile;
	my $csv = file_of([qw(id name)], [ map { [ $_, "patient $_" ] } 1 .. 3 ]);
	$node->safe_psql('postgres', <<'SQL');
CREATE TABLE app.patient (id bigint PRIMARY KEY, name text);
INSERT INTO app.patient SELECT i, 'name ' || i FROM generate_series(1, 3) AS i;
GRANT SELECT, UPDATE ON app.patient TO webuser;
SELECT bulk_action.bulk_action_register_entity('patient', 'app.patient', ARRAY['id']);
SELECT bulk_action.bulk_action_grant('patient', 'public');
CREATE FUNCTION app.collide() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'in the way' USING errcode = (SELECT code FROM app.collision); END $$;
CREATE TRIGGER collide BEFORE UPDATE ON app.patient FOR EACH ROW EXECUTE FUNCTION app.collide();
CREATE TABLE app.collision (code text);
INSERT INTO app.collision VALUES ('40001');
GRANT SELECT ON app.collision TO webuser;
SQL
	my $id = submit('webuser', 'patient', $csv);
	foreach my $code (qw(40P01 55P03))
	{
		$log = $node->wait_for_log(qr/bulk_action will try again in \d+ ms: in the way/, $log);
		$node->safe_psql('postgres', "UPDATE app.collision SET code = '$code'");
	}
	my $stat = statistics($id);
	is("$stat->{state} $stat->{failed}", 'paused 0', 'an action is not ended by collisions');
	like($stat->{code}, qr/^(40001|40P01|55P03)\z/, 'and says what was in the way');
	$node->safe_psql('postgres', 'DROP TRIGGER collide ON app.patient');
	is(value_of($node, "SELECT bulk_action.bulk_action_resume('$id')", as => 'webuser'), 't', 'resumed');
	wait_for($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'", expect => 'completed');
	$stat = statistics($id);
	is("$stat->{state} $stat->{updated} $stat->{failed}", 'completed 3 0', 'and goes on when there are none');
	is(value_of($node, "SELECT count(*) FROM app.patient WHERE name LIKE 'patient%'"), 3, 'it has changed the table');
}

foreach my $code (qw(P0001 XX000 XX001 AB123 42501 42P01 25006 28000 0A000 02000 BA001))
{
	my $body = "IF old.id IN (25, 26, 50) THEN RAISE EXCEPTION 'no' USING errcode = '$code'; END IF;";
	attack("a trigger that raises $code",
		setup => trigger('BEFORE UPDATE', "PERFORM app.witness('row trigger');") . trigger('BEFORE UPDATE', $body),
		hand => trigger('BEFORE UPDATE', $body));
}
$node->safe_psql('postgres', 'GRANT pg_signal_backend TO webuser');
attack('a trigger that ends its own process',
	setup => trigger('BEFORE UPDATE', "IF old.id = 25 THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); END IF;"),
	witnesses => 0, dies => 1,
	expect => { state => 'failed', code => '57P01', message => qr/worker ended in the middle of its task, 3 times in a row/ });
attack('a trigger that cancels itself',
	setup => trigger('BEFORE UPDATE', "IF old.id = 25 THEN PERFORM pg_cancel_backend(pg_backend_pid()); PERFORM pg_sleep(60); END IF;"),
	witnesses => 0, expect => { state => 'failed', code => '57014' });
$node->safe_psql('postgres', 'REVOKE pg_signal_backend FROM webuser');

# --- privileges ----------------------------------------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE app.granted (id bigint PRIMARY KEY, name text, secret text, note text);
INSERT INTO app.granted SELECT i, 'name ' || i, 'secret ' || i, 'note ' || i FROM generate_series(1, 20) AS i;
CREATE TABLE app.granted_by_hand AS TABLE app.granted;
SELECT bulk_action.bulk_action_register_entity('granted', 'app.granted', ARRAY['id']);
SELECT bulk_action.bulk_action_grant('granted', 'public');
SQL
my @granted_rows = ([ 1, 'new', 'x' ], [ 2, undef, 'y' ], [ 3, 'new', undef ], [ 77, 'new', 'z' ]);
my $both = file_of([qw(id name secret)], \@granted_rows);
{
	my ($status, undef, $error) = $node->psql('postgres', submit_sql('webuser', 'granted', $both), connstr => $login);
	like($error, qr/permission denied for entity type "granted"/, 'no privilege at all: submit says so');
	like($error, qr/HINT:  GRANT/, 'and what to do');
}
$node->safe_psql('postgres', 'GRANT SELECT (id), UPDATE (name) ON app.granted, app.granted_by_hand TO webuser');
{
	my $stat = statistics(submit('webuser', 'granted', $both));
	is("$stat->{state} $stat->{code} $stat->{updated} $stat->{sound}", 'failed 42501 0 t', 'a column that may not be updated: the action fails');
	like($stat->{message}, qr/permission denied for column "secret"/, 'and names it');
	same_content($node, 'app.granted', 'app.granted_by_hand', 'nothing is changed');
	my $hand = by_hand('webuser', 'app.granted_by_hand', [qw(id secret)], [ [ 1, 'x' ] ]);
	is_deeply($hand->{codes}, ['42501'], 'as by hand');

	$node->safe_psql('postgres', 'GRANT UPDATE (secret) ON app.granted, app.granted_by_hand TO webuser');
	$stat = statistics(submit('webuser', 'granted', $both));
	$hand = by_hand('webuser', 'app.granted_by_hand', [qw(id name secret)], \@granted_rows);
	is("$stat->{state} $stat->{updated} $stat->{not_found}", "completed $hand->{updated} $hand->{not_found}", 'columns that may be set but not read');
	same_content($node, 'app.granted', 'app.granted_by_hand', 'are set');
}

# Taken away while the action is running.
sub while_held
{
	my ($sql, $entity, $csv) = @_;
	my $holder = $node->background_psql('postgres');
	$holder->query_safe('BEGIN; SELECT FROM app.granted WHERE id = 3 FOR UPDATE');
	my $id = submit('webuser', $entity, $csv);
	wait_for($node, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'applying %' AND wait_event_type = 'Lock')");
	my $waiting = submit('webuser', $entity, $csv);
	$node->safe_psql('postgres', $sql);
	$holder->query_safe('ROLLBACK');
	$holder->quit;
	return (statistics($id), statistics($waiting));
}
{
	my ($first, $second) = while_held('REVOKE UPDATE (secret) ON app.granted FROM webuser', 'granted', $both);
	is("$second->{state} $second->{code}", 'failed 42501', 'a privilege that is revoked while an action waits');
	like($second->{message}, qr/permission denied for column "secret"/, 'it says which');
	$node->safe_psql('postgres', 'GRANT UPDATE (secret) ON app.granted TO webuser');

	($first, $second) = while_held('REVOKE webuser FROM authenticator', 'granted', $both);
	is("$second->{state} $second->{sound}", 'failed t', 'a membership that is revoked while an action waits');
	like($second->{message}, qr/permission denied to set role "webuser"/, 'it says which');
	$node->safe_psql('postgres', 'GRANT webuser TO authenticator');
	check_next('after a role that could not be taken on');
}

# --- row-level security under PostgREST ---------------------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE app.policed (id bigint PRIMARY KEY, name text, belongs_to text, login name);
INSERT INTO app.policed
SELECT i, 'name ' || i, CASE WHEN i % 2 = 0 THEN 'u-webuser' ELSE 'u-webadmin' END,
       CASE WHEN i % 5 = 0 THEN 'postgres' ELSE 'authenticator' END FROM generate_series(1, 60) AS i;
CREATE TABLE app.policed_by_hand AS TABLE app.policed;
ALTER TABLE app.policed_by_hand ADD PRIMARY KEY (id);
DO $do$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['app.policed', 'app.policed_by_hand'] LOOP
    EXECUTE format($f$
      GRANT SELECT, UPDATE ON %1$s TO webuser, webadmin;
      ALTER TABLE %1$s ENABLE ROW LEVEL SECURITY;
      CREATE POLICY own ON %1$s USING (belongs_to = current_setting('request.jwt.claims')::json->>'sub');
      CREATE POLICY role ON %1$s AS RESTRICTIVE USING (current_user IN ('webuser', 'webadmin')
        AND current_user = current_setting('role') AND current_user = current_setting('request.jwt.claims')::json->>'role');
      CREATE POLICY login ON %1$s AS RESTRICTIVE USING (login = session_user);
      CREATE POLICY request ON %1$s AS RESTRICTIVE USING (current_setting('request.method') = 'POST'
        AND current_setting('request.path') = '/rpc/bulk_action_submit')
    $f$, t);
  END LOOP;
END $do$;
SELECT bulk_action.bulk_action_register_entity('policed', 'app.policed', ARRAY['id']);
SELECT bulk_action.bulk_action_grant('policed', 'public');
SQL
foreach my $role (qw(webuser webadmin))
{
	my @rows = map { [ $_, "of $role $_", $_ % 7 == 0 ? 'u-nobody' : undef ] } 1 .. 70;
	my $id = submit('webuser' eq $role ? $role : 'webadmin', 'policed', file_of([qw(id name belongs_to)], \@rows));
	my $stat = statistics($id);
	my $hand = by_hand($role, 'app.policed_by_hand', [qw(id name belongs_to)], \@rows);
	is("$stat->{state} $stat->{updated} $stat->{not_found} $stat->{failed} $stat->{sound}",
		"completed $hand->{updated} $hand->{not_found} $hand->{failed} t", "policies see $role");
	cmp_ok($hand->{$_}, '>', 0, "$_ rows") foreach qw(updated not_found failed);
	is_deeply(codes_of($id), $hand->{codes}, 'rows that may not become so are errors');
	same_content($node, 'app.policed', 'app.policed_by_hand', 'the table is what it is by hand');
}
is(value_of($node, "SELECT count(*) FROM bulk_action_internal.actions WHERE settings::text ILIKE '%secret%'"), 0,
	'no credentials of a request are kept');

# --- whom an action may be submitted as -----------------------------------------------------------------------------

{
	$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION app.submit_for_me(source text) RETURNS uuid LANGUAGE sql SECURITY DEFINER
  AS $$ SELECT bulk_action.bulk_action_submit(source, entity_type => 'plain') $$;
SQL
	my ($status, undef, $error) = $node->psql('postgres', "SELECT app.submit_for_me('file://$both')", connstr => $node->connstr('postgres') . ' user=bob');
	like($error, qr/permission denied to submit as role "postgres"/, 'not as the owner of a function');
	like($error, qr/HINT:/, 'with a hint');
}

# Another login: other workers, as that login.
{
	$node->safe_psql('postgres', 'TRUNCATE app.surroundings');
	my $csv = file_of([qw(id name)], [ [ 1, 'by bob' ] ]);
	my $id = $node->safe_psql('postgres', "SET search_path = app; SELECT bulk_action.bulk_action_submit('file://$csv', entity_type => 'plain')",
		connstr => $node->connstr('postgres') . ' user=bob');
	is(statistics($id)->{state}, 'completed', 'an action of another login');
	is(value_of($node, "SELECT what->>'current_user' || ' ' || (what->>'session_user') || ' ' || (what->>'search_path') FROM app.surroundings"), 'bob bob app', 'which ran as that login');
}

unlike(read_file($node->logfile), qr/do not add up|where the board says|TRAP:|within security-definer function.*\n.*STATEMENT/, 'nothing strange in the log');

done_testing();
