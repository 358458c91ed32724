# Inserting, upserting and deleting, dry runs and previews meet the same hostile code as updates do (150, 151):
# triggers, deferred ones, defaults, domains, generated columns and policies that try to become somebody else.
# All of it runs as the submitter, the outcome is that of plain SQL, and nothing is left for whoever comes next.
use strict;
use warnings;

use BulkAction;
use BulkAction::Attacks;
use BulkAction::ByHand;
use JSON::PP;
use Test::More;

my $node = attacked_node();
my $login = $node->connstr('postgres') . ' user=authenticator';
prepare_by_hand($node);

# Who runs this is told by sequences: they outlive what is rolled back.
$node->safe_psql('postgres', <<'SQL');
CREATE SEQUENCE app.good;
CREATE SEQUENCE app.bad;
GRANT USAGE ON SEQUENCE app.good, app.bad TO PUBLIC;
CREATE FUNCTION app.tell(what text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
	IF current_user = 'webuser' AND session_user = 'authenticator' THEN
		PERFORM nextval('app.good');
	ELSE
		PERFORM nextval('app.bad');
		RAISE LOG 'became % as % in %', session_user, current_user, what;
	END IF;
END $$;
CREATE FUNCTION app.attack(what text) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
	attempt text;
BEGIN
	FOREACH attempt IN ARRAY ARRAY[$q$SELECT set_config('role', 'none', false)$q$, $q$SELECT set_config('role', 'postgres', true)$q$,
		$q$SELECT set_config('session_authorization', 'postgres', false)$q$, 'SET ROLE webadmin', 'RESET ROLE', 'SET LOCAL ROLE NONE',
		'SET SESSION AUTHORIZATION DEFAULT', 'RESET SESSION AUTHORIZATION', 'RESET ALL', 'DISCARD ALL',
		$q$SELECT set_config('search_path', 'evil', false)$q$, $q$SELECT set_config('evil.planted', 'yes', false)$q$]
	LOOP
		BEGIN
			EXECUTE attempt;
		EXCEPTION WHEN OTHERS THEN
			NULL;
		END;
		PERFORM app.tell(what || ': ' || attempt);
	END LOOP;
	RETURN true;
END $$;
CREATE FUNCTION app.attack_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM app.attack(concat_ws(' ', tg_when, tg_level, tg_op));
	IF NOT EXISTS (SELECT FROM pg_cursors WHERE name = 'held') THEN
		EXECUTE $q$DECLARE held CURSOR WITH HOLD FOR SELECT app.attack('cursor')$q$;
	END IF;
	PERFORM pg_advisory_lock(4711);
	CREATE TEMP TABLE IF NOT EXISTS surroundings (place text, what jsonb);
	GRANT ALL ON pg_temp.surroundings TO PUBLIC;
	IF tg_level = 'ROW' AND tg_when = 'BEFORE' AND coalesce(new.id, old.id) = 23 THEN
		RAISE EXCEPTION 'not this one' USING ERRCODE = 'AB123';
	END IF;
	RETURN CASE WHEN tg_op = 'DELETE' THEN old ELSE new END;
END $$;
CREATE FUNCTION app.attack_deferred() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM app.attack('deferred');
	SET CONSTRAINTS ALL DEFERRED;
	RETURN NULL;
END $$;
CREATE FUNCTION app.attack_name(value text) RETURNS boolean LANGUAGE plpgsql AS
	$$ BEGIN PERFORM app.attack('domain'); RETURN value <> 'name 14'; END $$;
CREATE FUNCTION app.attack_policy(value text) RETURNS boolean LANGUAGE plpgsql AS
	$$ BEGIN PERFORM app.attack('policy'); RETURN value <> 'name 15'; END $$;
CREATE FUNCTION app.attack_value(value text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
	$$ BEGIN PERFORM app.attack('value'); RETURN 'by ' || current_user; END $$;
CREATE DOMAIN app.hostile AS text CHECK (app.attack_name(value));
CREATE DOMAIN app.harmless AS text CHECK (value <> 'name 14');

CREATE TABLE app.hostile_table (id bigint PRIMARY KEY, name app.hostile, made text DEFAULT app.attack_value('x'), generated text GENERATED ALWAYS AS (app.attack_value(id::text)) STORED);
CREATE TABLE app.harmless_table (id bigint PRIMARY KEY, name app.harmless, made text DEFAULT 'by webuser', generated text DEFAULT 'by webuser');
ALTER TABLE app.hostile_table ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.harmless_table ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_of_it ON app.hostile_table USING (app.attack_policy(name));
CREATE POLICY all_of_it ON app.harmless_table USING (name <> 'name 15');
CREATE TRIGGER a BEFORE INSERT OR UPDATE OR DELETE ON app.hostile_table FOR EACH ROW EXECUTE FUNCTION app.attack_trigger();
CREATE TRIGGER b BEFORE INSERT OR UPDATE OR DELETE ON app.hostile_table FOR EACH STATEMENT EXECUTE FUNCTION app.attack_trigger();
CREATE TRIGGER c AFTER INSERT OR UPDATE OR DELETE ON app.hostile_table FOR EACH STATEMENT EXECUTE FUNCTION app.attack_trigger();
CREATE CONSTRAINT TRIGGER d AFTER INSERT OR UPDATE OR DELETE ON app.hostile_table DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.attack_deferred();
CREATE FUNCTION app.harmless_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF coalesce(new.id, old.id) = 23 THEN
		RAISE EXCEPTION 'not this one' USING ERRCODE = 'AB123';
	END IF;
	RETURN CASE WHEN tg_op = 'DELETE' THEN old ELSE new END;
END $$;
CREATE TRIGGER a BEFORE INSERT OR UPDATE OR DELETE ON app.harmless_table FOR EACH ROW EXECUTE FUNCTION app.harmless_trigger();
GRANT SELECT, INSERT, UPDATE, DELETE ON app.hostile_table, app.harmless_table TO webuser;
GRANT USAGE ON SCHEMA by_hand TO webuser;
SELECT bulk_action.bulk_action_register_entity('hostile', 'app.hostile_table', ARRAY['id']);
SELECT bulk_action.bulk_action_grant('hostile', 'webuser');
SQL

# without triggers; what computes values resets all settings
sub fill
{
	$node->safe_psql('postgres', join('', map { <<SQL } qw(hostile harmless)) . 'ALTER SEQUENCE app.good RESTART; ALTER SEQUENCE app.bad RESTART;');
ALTER TABLE app.${_}_table DISABLE TRIGGER USER;
TRUNCATE app.${_}_table;
INSERT INTO app.${_}_table (id, name, made) SELECT i, 'old', 'by webuser' FROM generate_series(1, 30, 2) AS i;
ALTER TABLE app.${_}_table ENABLE TRIGGER USER;
SQL
	return;
}

sub told { return value_of($node, "SELECT (SELECT is_called FROM app.good) || ' ' || (SELECT is_called FROM app.bad)") }

my $json = JSON::PP->new->canonical;
my %file = (header => [qw(id name)], rows => [ map { [ $_, "name $_" ] } 10 .. 30 ]);
my $source = csv_file_of($node, %file);

foreach my $case ([ 'insert' ], [ 'insert', on_conflict => 'skip' ], [ 'upsert' ], [ 'delete' ], [ 'delete', match => ['name'] ], [ 'update', on_missing => 'insert' ])
{
	my ($type, %options) = @$case;
	foreach my $dry (0, 1)
	{
		my $name = join ' ', $type, (map { "$_ " . (ref $options{$_} ? 'name' : $options{$_}) } keys %options), $dry ? '(dry run)' : ();
		fill();
		my $before = checksum_of($node, 'app.hostile_table', columns => 'id, name::text');
		my $options = $json->encode({ %options, $dry ? (dry_run => JSON::PP::true) : () });
		my $id = $node->safe_psql('postgres', request_begin('webuser')
			  . "SELECT bulk_action.bulk_action_submit('$source', 'bulk_$type', 'hostile', '$options');\nCOMMIT;\n", connstr => $login);
		do_by_hand($node, %file, table => 'app.harmless_table', keys => ['id'], type => $type, options => \%options, as => 'webuser');
		like_by_hand($node, $id, $name);
		is(told(), 'true false', "$name: hostile code ran, always as the submitter");
		check_next($name);
		if ($dry) { is(checksum_of($node, 'app.hostile_table', columns => 'id, name::text'), $before, "$name: nothing is changed") }
		else { same_content($node, 'app.hostile_table', 'app.harmless_table', "$name: the table", columns => 'id, name::text, made') }
	}
}

# A preview runs in the caller's own session. The check of a domain becomes nobody there either, though it could
# with a cast by hand, and leaves nothing behind.
fill();
foreach my $type (qw(update insert upsert delete))
{
	my ($shown, $who, $planted) = split /\n/, $node->safe_psql('postgres', request_begin('webuser') . <<SQL, connstr => $login);
SELECT count(*) || ' ' || count(*) FILTER (WHERE r -> 'cells' -> 'name' ? 'error')
  FROM jsonb_array_elements(bulk_action.bulk_action_preview('$source', 'bulk_$type', 'hostile', @{[ $type eq 'delete' ? q('{"match": ["name"]}') : q('{}') ]}) -> 'rows') AS r;
SELECT current_user || ' ' || session_user || ' ' || current_setting('search_path') || ' ' || current_setting('transaction_read_only') || ' ' || current_setting('row_security');
SELECT coalesce(current_setting('evil.planted', true), '') || '.';
COMMIT;
SQL
	is($shown, '20 1', "preview of bulk_$type: the rows and what is wrong");
	is($who, 'webuser authenticator "bulk_action", "app" off on', 'after it the caller is who he was');
	is($planted, '.', 'nothing was planted');
}
is(told(), 'true false', 'hostile code ran, always as the caller');

# What is submitted by one who may not: no type, and no preview, gets further than plain SQL.
foreach my $type (qw(update insert upsert delete))
{
	foreach my $call ("bulk_action.bulk_action_submit('$source', 'bulk_$type', 'hostile')", "bulk_action.bulk_action_preview('$source', 'bulk_$type', 'hostile')")
	{
		my ($status, undef, $error) = $node->psql('postgres', request_begin('webadmin') . "SELECT $call;\n", connstr => $login);
		like($error, qr/ERROR:  permission denied for entity type "hostile"/, "$call without permission");
	}
}
unlike(read_file($node->logfile), qr/do not add up|TRAP:/, 'nothing strange in the log');
done_testing();
