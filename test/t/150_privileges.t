# Rows are applied with the privileges of whoever submitted them, and code that others have written
# (triggers, policies, domains, operators) runs as the submitter and as nobody else, whatever it
# tries. Each attack is one that a careless worker would fall for.
use strict;
use warnings;

use BulkAction;
use BulkAction::Attacks;
use Test::More;

my $node = attacked_node();
my $tables = 0;
my $login = $node->connstr('postgres') . ' user=authenticator';

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
	spoils => 1, setup => trigger('AFTER UPDATE DEFERRABLE INITIALLY DEFERRED', <<'SQL'));
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
	my $table = 'settings' . ++$tables;
	$node->safe_psql('postgres', <<SQL);
CREATE TABLE app.$table (id bigint PRIMARY KEY, name text);
INSERT INTO app.$table SELECT i, 'name ' || i FROM generate_series(1, 60) AS i;
CREATE TABLE app.${table}_by_hand AS TABLE app.$table;
GRANT SELECT, UPDATE ON app.$table, app.${table}_by_hand TO webuser;
SELECT bulk_action.bulk_action_register_entity('$table', 'app.$table', ARRAY['id']); SELECT bulk_action.bulk_action_grant('$table', 'public');
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
SELECT bulk_action.bulk_action_register_entity('patient', 'app.patient', ARRAY['id']); SELECT bulk_action.bulk_action_grant('patient', 'public');
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
SELECT bulk_action.bulk_action_register_entity('granted', 'app.granted', ARRAY['id']); SELECT bulk_action.bulk_action_grant('granted', 'public');
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
	my (undef, $second) = while_held('REVOKE UPDATE (secret) ON app.granted FROM webuser', 'granted', $both);
	is("$second->{state} $second->{code}", 'failed 42501', 'a privilege that is revoked while an action waits');
	like($second->{message}, qr/permission denied for column "secret"/, 'it says which');
	$node->safe_psql('postgres', 'GRANT UPDATE (secret) ON app.granted TO webuser');

	(undef, $second) = while_held('REVOKE webuser FROM authenticator', 'granted', $both);
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
SELECT bulk_action.bulk_action_register_entity('policed', 'app.policed', ARRAY['id']); SELECT bulk_action.bulk_action_grant('policed', 'public');
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
