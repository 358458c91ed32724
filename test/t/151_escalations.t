# More ways to get what is not one's own: through the session of a superuser, through objects planted in
# the submitter's path, commands that reach outside, calls back into the extension, settings of roles and
# databases, event triggers, and what a session remembers.
use strict;
use warnings;

use BulkAction;
use BulkAction::Attacks;
use Test::More;

my $node = attacked_node("max_locks_per_transaction = 10\n");

# The server's log is read from here on.
my $log_start = -s $node->logfile;

# --- a superuser's session, in the role of somebody else ----------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION app.name_of(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM app.become_another('generated column'); RETURN current_user; END $$;
SQL
attack('code that meets the session of a superuser', login => 'postgres',
	table => 'CREATE TABLE TABLE (id bigint PRIMARY KEY, name text, note text, who text GENERATED ALWAYS AS (app.name_of(name)) STORED);',
	hand_table => "CREATE TABLE TABLE (id bigint PRIMARY KEY, name text, note text, who text DEFAULT 'postgres');",
	hand => trigger('BEFORE UPDATE', "new.who := 'webuser';"), after => 'TRUNCATE app.seen',
	setup => trigger('BEFORE UPDATE', <<'SQL') . trigger('AFTER UPDATE DEFERRABLE INITIALLY DEFERRED', <<'DEFERRED'));
  PERFORM app.become_another('row trigger');
  IF NOT EXISTS (SELECT FROM pg_cursors WHERE name = 'held') THEN
    EXECUTE $q$DECLARE held CURSOR WITH HOLD FOR SELECT app.become_another('cursor')$q$;
  END IF;
SQL
  PERFORM app.become_another('deferred trigger');
  SET CONSTRAINTS ALL DEFERRED;
DEFERRED

# --- what is planted in the path ---------------------------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE SCHEMA evil;
GRANT USAGE, CREATE ON SCHEMA evil TO PUBLIC;
SET ROLE mallory;
CREATE FUNCTION evil.trap(what text) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN PERFORM app.become_another(what); RETURN true; END $$;
CREATE FUNCTION evil.unnest(anyarray) RETURNS SETOF anyelement LANGUAGE plpgsql AS
  $$ BEGIN PERFORM evil.trap('unnest'); RETURN QUERY SELECT pg_catalog.unnest($1); END $$;
CREATE FUNCTION evil.sum_step(bigint, bigint) RETURNS bigint LANGUAGE plpgsql AS
  $$ BEGIN PERFORM evil.trap('aggregate'); RETURN $1; END $$;
CREATE AGGREGATE evil.sum(bigint) (SFUNC = evil.sum_step, STYPE = bigint);
CREATE AGGREGATE evil.max(bigint) (SFUNC = evil.sum_step, STYPE = bigint);
CREATE DOMAIN evil.int8 AS pg_catalog.int8 CHECK (evil.trap('type int8'));
CREATE DOMAIN evil.uuid AS pg_catalog.uuid CHECK (evil.trap('type uuid'));
CREATE FUNCTION evil.equal(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN PERFORM evil.trap('operator'); RETURN true; END $$;
CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.equal);
CREATE TABLE evil.pg_class AS SELECT * FROM pg_catalog.pg_class;
CREATE TABLE evil.actions (action_no bigint, state text);
CREATE FUNCTION evil.bulk_action_submit(text, text) RETURNS uuid LANGUAGE plpgsql AS
  $$ BEGIN PERFORM evil.trap('submit'); RETURN NULL; END $$;
-- a type with a cast of its own, which the statement that applies rows goes through
CREATE TYPE evil.pair AS (a bigint, b text);
CREATE FUNCTION evil.to_pair(text) RETURNS evil.pair LANGUAGE plpgsql AS
  $$ BEGIN PERFORM evil.trap('cast'); RETURN ROW(1, $1)::evil.pair; END $$;
CREATE CAST (text AS evil.pair) WITH FUNCTION evil.to_pair(text) AS ASSIGNMENT;
RESET ROLE;
GRANT ALL ON ALL TABLES IN SCHEMA evil TO PUBLIC;
SQL
foreach my $path ('evil, pg_catalog, bulk_action', 'pg_temp, evil, pg_catalog, bulk_action')
{
	attack("functions, aggregates, types and operators in the path $path", within => "SET LOCAL search_path = $path;\n",
		witnesses => 0);
	is(value_of($node, 'SELECT count(*) FROM app.seen'), 0, 'nothing planted is called at all');
}
attack('a planted cast to the type of a column',
	table => 'CREATE TABLE TABLE (id bigint PRIMARY KEY, name text, note text, pair evil.pair);',
	hand_table => 'CREATE TABLE TABLE (id bigint PRIMARY KEY, name text, note text, pair evil.pair);',
	columns => [qw(id pair)], rows => [ map { [ $_, "(1,$_)" ] } 1 .. 3 ], witnesses => 0);
is(value_of($node, 'SELECT count(*) FROM app.seen'), 0, 'it is not called: cells are read by the input function of their column');

attack('temporary functions, types and operators',
	setup => trigger('BEFORE UPDATE', <<'SQL'));
  PERFORM app.witness('row trigger');
  IF to_regprocedure('pg_temp.unnest(bigint[])') IS NULL THEN
    CREATE TEMP TABLE bulk_actions (id uuid);
    CREATE FUNCTION pg_temp.unnest(bigint[]) RETURNS SETOF bigint LANGUAGE plpgsql AS
      'BEGIN PERFORM app.become_another(''pg_temp.unnest''); END';
    CREATE FUNCTION pg_temp.equal(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS
      'BEGIN PERFORM app.become_another(''pg_temp.equal''); RETURN true; END';
    CREATE OPERATOR pg_temp.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = pg_temp.equal);
    CREATE DOMAIN pg_temp.int8 AS pg_catalog.int8 CHECK (app.witness('pg_temp.int8'));
  END IF;
SQL
is(value_of($node, "SELECT count(*) FROM app.seen WHERE what LIKE 'pg_temp%'"), 0, 'nothing of it is called');
is(value_of($node, "SELECT count(*) FROM pg_proc WHERE pronamespace::regnamespace::text LIKE 'pg_temp%'"), 0, 'and nothing is left of it');

# --- defaults and predicates of indexes ----------------------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION app.some_default() RETURNS text LANGUAGE plpgsql AS
  $$ BEGIN PERFORM app.become_another('default'); RETURN 'by ' || current_user; END $$;
CREATE TABLE app.trail (n bigint, who text DEFAULT app.some_default());
GRANT INSERT ON app.trail TO webuser;
CREATE FUNCTION app.predicate(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM app.become_another('predicate'); RETURN true; END $$;
SQL
attack('a column default of a table that a trigger inserts into',
	setup => trigger('BEFORE UPDATE', 'INSERT INTO app.trail (n) VALUES (old.id);'));
is(value_of($node, 'SELECT string_agg(DISTINCT who, \' \') FROM app.trail'), 'by webuser', 'the default was computed as the submitter');
# (autovacuum would call it too, as the owner of the table)
{
	my $table = attack('the predicate of an index', after => 'TRUNCATE app.seen',
		setup => 'ALTER TABLE TABLE SET (autovacuum_enabled = off); CREATE INDEX ON TABLE (note) WHERE app.predicate(name);');
	$node->safe_psql('postgres', "DROP TABLE app.$table");
}

# --- commands that reach outside -----------------------------------------------------------------------------------

my $bait = $node->basedir . '/bait';
write_file($bait, "a secret of the server's\n");
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE app.tried (by_hand boolean, attempt text, code text);
GRANT INSERT ON app.tried TO PUBLIC;
CREATE ROLE powerful ROLE postgres;
CREATE TABLE app.not_yours (secret text);
INSERT INTO app.not_yours VALUES ('kept');
SQL
my @attempts = ('LOAD \'$libdir/dblink\'', 'CREATE EXTENSION dblink', 'DROP EXTENSION bulk_action CASCADE', 'ALTER SYSTEM SET work_mem = \'1GB\'',
	'CREATE ROLE webuser2 SUPERUSER', 'ALTER ROLE webuser SUPERUSER', 'ALTER ROLE postgres RENAME TO p', 'GRANT powerful TO webuser',
	'GRANT pg_execute_server_program TO webuser', 'SET session_replication_role = replica', 'SET log_min_messages = panic',
	'SET bulk_action.file_root = \'/\'', "SET bulk_action.captured_settings = 'role'",
	"COPY app.tried TO PROGRAM 'touch $bait.run'", "COPY app.tried FROM PROGRAM 'id'", "COPY app.tried TO '$bait.out'",
	"SELECT lo_export(lo_create(0), '$bait.lo')", "SELECT lo_import('$bait')", "SELECT pg_ls_dir('.')",
	'SELECT * FROM app.not_yours', 'SELECT * FROM bulk_action_internal.actions', 'UPDATE bulk_action_internal.cursors SET next_chunk = 0',
	'INSERT INTO bulk_action_internal.errors DEFAULT VALUES', 'TRUNCATE bulk_action_internal.bulk_action_jobs',
	'CREATE FUNCTION bulk_action.f() RETURNS int LANGUAGE sql AS \'SELECT 1\'', 'CREATE TRIGGER t BEFORE INSERT ON bulk_action_internal.errors FOR EACH ROW EXECUTE FUNCTION app.look_around()',
	'CREATE FUNCTION app.c() RETURNS int LANGUAGE c AS \'x\'', 'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = \'postgres\'',
	'SELECT pg_reload_conf()', 'CHECKPOINT', 'VACUUM', 'CREATE DATABASE d', 'ALTER DATABASE postgres SET role = webuser',
	'PREPARE TRANSACTION \'x\'', 'PREPARE tried AS SELECT 1', 'NOTIFY tried', 'LISTEN tried', 'UNLISTEN *',
	'SELECT pg_logical_emit_message(true, \'a\', \'b\')', 'SET SESSION AUTHORIZATION postgres', 'REASSIGN OWNED BY postgres TO webuser',
	"CALL bulk_action.bulk_action_wait('00000000-0000-0000-0000-000000000000')");
$node->safe_psql('postgres', "CREATE FUNCTION app.try_all(by_hand boolean) RETURNS void LANGUAGE plpgsql AS \$f\$
DECLARE attempt text; code text;
BEGIN
  FOREACH attempt IN ARRAY ARRAY[" . join(', ', map { literal($_) } @attempts) . "] LOOP
    code := 'done';
    BEGIN EXECUTE attempt; EXCEPTION WHEN OTHERS THEN code := SQLSTATE; END;
    INSERT INTO app.tried VALUES (by_hand, attempt, code);
  END LOOP;
END \$f\$");
attack('commands that reach outside', rows => [ [ 1, 'new name' ] ],
	setup => trigger('BEFORE UPDATE', "PERFORM app.witness('row trigger'); PERFORM app.try_all(false);"),
	hand => trigger('BEFORE UPDATE', "PERFORM app.try_all(true);"));
is(value_of($node, <<'SQL'), "LISTEN tried: 0A000, by hand done", 'each ends as it does by hand, but for one that background processes may not do');
SELECT string_agg(format('%s: %s, by hand %s', attempt, w.code, h.code), E'\n')
  FROM (SELECT * FROM app.tried WHERE NOT by_hand) AS w FULL JOIN (SELECT * FROM app.tried WHERE by_hand) AS h USING (attempt)
 WHERE w.code IS DISTINCT FROM h.code
SQL
is(value_of($node, "SELECT string_agg(attempt, '; ' ORDER BY attempt) FROM app.tried WHERE NOT by_hand AND code = 'done'"),
	'NOTIFY tried; PREPARE tried AS SELECT 1; SELECT pg_logical_emit_message(true, \'a\', \'b\'); UNLISTEN *', 'what is allowed is harmless')
  if $node->pg_version < 16;
is(join(' ', glob "$bait.*"), '', 'no file was written');

# --- back into the extension --------------------------------------------------------------------------------------------

{
	my $own = submit('webadmin', 'plain', file_of([qw(id name)], [ [ 1, 'of another' ] ]));
	statistics($own);
	my $echo = file_of([qw(id name)], [ [ 2, 'echo' ] ]);
	$node->safe_psql('postgres', <<"SQL");
CREATE TABLE app.echo (id bigint PRIMARY KEY, name text);
INSERT INTO app.echo VALUES (1, 'a'), (2, 'b');
GRANT SELECT, UPDATE ON app.echo TO webuser;
SELECT bulk_action.bulk_action_register_entity('echo', 'app.echo', ARRAY['id']); SELECT bulk_action.bulk_action_grant('echo', 'public');
CREATE TABLE app.answers (what text, answer text);
GRANT INSERT ON app.answers TO webuser;
CREATE FUNCTION app.call_back(what text, call text) RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE answer text;
BEGIN
  BEGIN EXECUTE 'SELECT ' || call INTO answer; EXCEPTION WHEN OTHERS THEN answer := SQLSTATE || ' ' || SQLERRM; END;
  INSERT INTO app.answers VALUES (what, answer);
END \$\$;
SQL
	attack('a trigger that calls the extension', rows => [ [ 1, 'new name' ] ], hand => '',
		setup => trigger('BEFORE UPDATE', "PERFORM app.witness('row trigger');" . join '', map { "PERFORM app.call_back('$_->[0]', " . literal($_->[1]) . ");" }
			[ submit => "bulk_action.bulk_action_submit('file://$echo', entity_type => 'echo')" ],
			[ 'cancel another\'s' =~ s/'/''/r => "bulk_action.bulk_action_cancel('$own')" ],
			[ 'retry another\'s' =~ s/'/''/r => "bulk_action.bulk_action_retry('$own')" ],
			[ 'report of another\'s' =~ s/'/''/r => "bulk_action.bulk_action_error_report('$own')" ],
			[ 'see another\'s' =~ s/'/''/r => "count(*) FROM bulk_action.bulk_actions WHERE id = '$own'" ],
			[ register => "bulk_action.bulk_action_register_entity('mine', 'app.plain', ARRAY['id'])" ],
			[ unregister => "bulk_action.bulk_action_unregister_entity('plain')" ],
			[ purge => "bulk_action.bulk_action_purge('0')" ]));
	my %answer = map { @$_ } rows_of($node, 'SELECT what, answer FROM app.answers');
	my $id = delete $answer{submit};
	like($id, qr/^[0-9a-f-]{36}\z/, 'an action submitted by a trigger');
	is(statistics($id)->{state}, 'completed', 'is done');
	is(value_of($node, "SELECT submitted_role::regrole || ' ' || session_role::regrole FROM bulk_action_internal.actions WHERE id = '$id'"),
		'webuser authenticator', 'as the same roles');
	is(value_of($node, 'SELECT name FROM app.echo WHERE id = 2'), 'echo', 'to its table');
	like($answer{$_}, qr/^42704 bulk action "$own" does not exist/, $_) foreach "cancel another's", "retry another's", "report of another's";
	is($answer{"see another's"}, 0, 'actions of others are not seen');
	like($answer{$_}, qr/^42501 /, $_) foreach qw(register unregister);
	like($answer{purge}, qr/^\d+\z/, 'one may purge one\'s own');
	is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_actions WHERE id = '$own'"), 1, 'and nobody else\'s');

	# an action that cancels itself
	$node->safe_psql('postgres', trigger('BEFORE UPDATE', "PERFORM bulk_action.bulk_action_cancel(id) FROM bulk_action.bulk_actions WHERE entity_type = 'echo' AND state = 'running';") =~ s/ON TABLE/ON app.echo/r);
	$id = submit('webuser', 'echo', file_of([qw(id name)], [ [ 1, 'late' ] ]));
	my $stat = statistics($id);
	like($stat->{state}, qr/^(cancelled|completed)\z/, 'an action may cancel itself');
	is($stat->{sound}, 't', 'and its rows are accounted for');
}

# --- event triggers ---------------------------------------------------------------------------------------------------------

{
	my $login_event = $node->pg_version >= 17 ? 'CREATE EVENT TRIGGER at_login ON login EXECUTE FUNCTION app.on_event(); ALTER EVENT TRIGGER at_login ENABLE ALWAYS;' : '';
	$node->safe_psql('postgres', <<"SQL");
CREATE TABLE app.events (tag text, now_user name, pid int);
GRANT INSERT ON app.events TO PUBLIC;
CREATE FUNCTION app.on_event() RETURNS event_trigger LANGUAGE plpgsql AS
  'BEGIN IF current_setting(''application_name'') NOT LIKE ''%.t'' THEN INSERT INTO app.events VALUES (tg_tag, current_user, pg_backend_pid()); END IF; END';
CREATE EVENT TRIGGER at_start ON ddl_command_start EXECUTE FUNCTION app.on_event();
CREATE EVENT TRIGGER at_end ON ddl_command_end EXECUTE FUNCTION app.on_event();
CREATE EVENT TRIGGER at_drop ON sql_drop EXECUTE FUNCTION app.on_event();
CREATE EVENT TRIGGER at_rewrite ON table_rewrite EXECUTE FUNCTION app.on_event();
$login_event
SQL
	# new processes, and all that they do until the queue is empty again
	value_of($node, "SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity WHERE backend_type IN ('bulk_action worker', 'bulk_action coordinator')");
	attack('event triggers, which see the DDL of user code', witnesses => 0,
		setup => trigger('BEFORE UPDATE', 'CREATE TEMP TABLE IF NOT EXISTS of_webuser ();'));
	wait_for($node, 'SELECT count(*) FROM bulk_action_internal.bulk_action_jobs', expect => '0', what => 'an empty queue');
	is(value_of($node, 'SELECT string_agg(DISTINCT now_user::text, \' \') FROM app.events'), 'webuser', 'and nothing that the extension does');
	$node->safe_psql('postgres', join '', map { "DROP EVENT TRIGGER $_;" } qw(at_start at_end at_drop at_rewrite), $login_event ? 'at_login' : ());
}

# --- settings of roles and databases --------------------------------------------------------------------------------------

my %hostile = (
	default_tablespace => 'nowhere', temp_tablespaces => 'nowhere', default_table_access_method => 'heap', client_encoding => 'LATIN1',
	standard_conforming_strings => 'off', backslash_quote => 'on', array_nulls => 'off', transform_null_equals => 'on', quote_all_identifiers => 'on',
	bytea_output => 'escape', extra_float_digits => '-15', xmloption => 'document', plan_cache_mode => 'force_custom_plan',
	enable_indexscan => 'off', enable_bitmapscan => 'off', enable_nestloop => 'off', enable_sort => 'off', work_mem => '64kB', jit => 'on', jit_above_cost => '0',
	default_transaction_isolation => 'serializable', default_transaction_read_only => 'on', default_transaction_deferrable => 'on',
	statement_timeout => '1ms', lock_timeout => '1ms', idle_in_transaction_session_timeout => '1ms',
	row_security => 'off', search_path => 'evil, pg_catalog', client_min_messages => 'debug5', application_name => 'evil',
	'request.jwt.claims' => '{"role":"postgres"}', 'request.planted' => 'yes', check_function_bodies => 'off', synchronous_commit => 'off',
	$node->pg_version >= 16 ? (debug_parallel_query => 'on') : (force_parallel_mode => 'on'),
	$node->pg_version >= 17 ? (transaction_timeout => '1ms', event_triggers => 'off') : ());

my $between = 0;

# Any login would stumble over these as well, so they come and go between the submit and its commit.
sub between
{
	my ($name, $sql, $undo) = @_;
	my $table = 'between' . ++$between;
	$node->safe_psql('postgres', <<SQL);
CREATE TABLE app.$table (id bigint PRIMARY KEY, name text);
INSERT INTO app.$table SELECT i, 'name ' || i FROM generate_series(1, 60) AS i;
GRANT SELECT, UPDATE ON app.$table TO webuser;
SELECT bulk_action.bulk_action_register_entity('$table', 'app.$table', ARRAY['id']); SELECT bulk_action.bulk_action_grant('$table', 'public');
@{[ trigger('BEFORE UPDATE', "PERFORM app.become_another('row trigger');") =~ s/ON TABLE/ON app.$table/r ]}
TRUNCATE app.seen;
SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity WHERE backend_type IN ('bulk_action worker', 'bulk_action coordinator');
SQL
	my $csv = file_of([qw(id name)], [ map { [ $_, "new $_" ] } 1 .. 50, 99 ]);
	my $session = $node->background_psql('postgres', extra_params => [ '-U', 'authenticator' ]);
	my $submit = submit_sql('webuser', $table, $csv) =~ s/COMMIT;\n\z//r;
	my ($id) = $session->query_safe($submit) =~ /([0-9a-f-]{36})/;
	$node->safe_psql('postgres', $sql);
	$session->query_safe('COMMIT');
	$session->quit;
	# from another database, because nobody can log in to this one
	my $watch = $node->background_psql('template1');
	wait_until(sub { $watch->query_safe("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bulk_action worker'") > 0 }, what => 'a worker');
	$watch->query_safe($undo);
	$watch->quit;
	my $stat = statistics($id);
	is("$stat->{state} $stat->{updated} $stat->{not_found} $stat->{failed} $stat->{sound}", 'completed 50 1 0 t', "$name: the action is completed");
	is(value_of($node, 'SELECT string_agg(DISTINCT now_user || \' \' || login_user, \', \') FROM app.seen'), 'webuser authenticator', 'as the submitter')
	  or diag(value_of($node, 'SELECT DISTINCT what, now_user, login_user, pid FROM app.seen WHERE now_user <> \'webuser\''));
	is(value_of($node, 'SELECT claims FROM app.seen ORDER BY ctid LIMIT 1'), claims('webuser'), 'with his claims');
	return;
}
foreach my $of ('ROLE authenticator', 'DATABASE postgres')
{
	my %settings = %hostile;
	$settings{role} = 'mallory' if $of =~ /DATABASE/;
	between("ALTER $of SET all that there is", join('', map { "ALTER $of SET $_ = " . literal($settings{$_}) . ";\n" } grep { !/search_path|tablespace/ } sort keys %settings)
		  . "ALTER $of SET search_path = evil, pg_catalog;\n" . "SET check_function_bodies = off;\n", "ALTER $of RESET ALL");
}
between('ALTER ROLE ... SET session_preload_libraries', "ALTER ROLE authenticator SET session_preload_libraries = 'there_is_none'", 'ALTER ROLE authenticator RESET ALL');
between('ALTER ROLE ... SET local_preload_libraries', "ALTER ROLE authenticator SET local_preload_libraries = 'there_is_none'", 'ALTER ROLE authenticator RESET ALL');
foreach my $name ('bulk_action.file_root', 'bulk_action.captured_settings', 'bulk_action.max_workers')
{
	my (undef, undef, $error) = $node->psql('postgres', "ALTER ROLE authenticator SET $name = '1'");
	like($error, qr/ERROR:/, "$name cannot be set for a role");
}

# --- what a session remembers --------------------------------------------------------------------------------------------------

# random() of the next action, after this one has called setseed()
{
	$node->safe_psql('postgres', <<'SQL');
CREATE TABLE app.dice (id bigint PRIMARY KEY, name text, rolled float8);
INSERT INTO app.dice VALUES (1, 'a');
GRANT SELECT, UPDATE ON app.dice TO webadmin;
SELECT bulk_action.bulk_action_register_entity('dice', 'app.dice', ARRAY['id'], ARRAY['name']); SELECT bulk_action.bulk_action_grant('dice', 'public');
CREATE FUNCTION app.roll() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.rolled := random(); RETURN new; END';
CREATE TRIGGER roll BEFORE UPDATE ON app.dice FOR EACH ROW EXECUTE FUNCTION app.roll();
SQL
	$node->safe_psql('postgres', <<'SQL' . trigger('BEFORE UPDATE', 'PERFORM setseed(0.25);') =~ s/ON TABLE/ON app.seeded/r);
CREATE TABLE app.seeded (id bigint PRIMARY KEY, name text);
INSERT INTO app.seeded VALUES (1, 'a');
GRANT SELECT, UPDATE ON app.seeded TO webuser;
SELECT bulk_action.bulk_action_register_entity('seeded', 'app.seeded', ARRAY['id']); SELECT bulk_action.bulk_action_grant('seeded', 'public');
SQL
	statistics(submit('webuser', 'seeded', file_of([qw(id name)], [ [ 1, 'b' ] ])));
	statistics(submit('webadmin', 'dice', file_of([qw(id name)], [ [ 1, 'b' ] ])));
	my $expected = value_of($node, "SELECT 0 FROM setseed(0.25) \\g /dev/null\nSELECT array_agg(random()) FROM generate_series(1, 10)");
	my $rolled = value_of($node, 'SELECT rolled FROM app.dice');
	cmp_ok(length $rolled, '>', 5, 'dice are rolled');
	unlike($expected, qr/\Q$rolled\E/, 'and nobody has loaded them');
}

# More temporary tables than there are locks: they cannot be dropped in one transaction.
{
	my $log = -s $node->logfile;
	$node->safe_psql('postgres', <<'SQL' . trigger('BEFORE UPDATE', 'FOR i IN 1 .. 4 LOOP IF old.id % 10 = 0 THEN EXECUTE format(\'CREATE TEMP TABLE t_%s_%s ()\', old.id, i); END IF; END LOOP;') =~ s/ON TABLE/ON app.litter/r);
CREATE TABLE app.litter (id bigint PRIMARY KEY, name text);
INSERT INTO app.litter SELECT i, 'name ' || i FROM generate_series(1, 10000) AS i;
GRANT SELECT, UPDATE ON app.litter TO webuser;
SELECT bulk_action.bulk_action_register_entity('litter', 'app.litter', ARRAY['id']); SELECT bulk_action.bulk_action_grant('litter', 'public');
SQL
	my $stat = statistics(submit('webuser', 'litter', file_of([qw(id name)], [ map { [ $_, "new $_" ] } 1 .. 10_000 ])));
	is("$stat->{state} $stat->{updated}", 'completed 10000', 'an action that leaves thousands of temporary tables');
	check_next('after it');
	my $said = substr(read_file($node->logfile), $log);
	like($said, qr/bulk_action worker leaves, because its session could not be cleaned: out of shared memory|ERROR:  out of shared memory/, 'whose session was given up');
	unlike($said, qr/bulk_action will try again/, 'and nobody was charged with that');
}

unlike(substr(read_file($node->logfile), $log_start), qr/do not add up|where the board says|TRAP:|within security-definer function.*\n.*STATEMENT/, 'nothing strange in the log');

done_testing();
