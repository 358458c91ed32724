# The target, the submitter's rights and the way to the file may change after an action was submitted:
# before it runs, while its file is read, and between two chunks. What still fits is applied as plain
# SQL would at that moment; else the action fails with a reason, and nothing is applied from then on.
use strict;
use warnings;

use BulkAction;
use Test::More;

# One worker, so that one chunk is applied after the other.
my $node = new_node('main', conf => "bulk_action.max_workers = 1\nmax_worker_processes = 12");
my $proxy = new_proxy();
create_role($node, 'clerk');
server_for_s3($node, name => 's3', role => 'clerk');
server_for_s3($node, name => 'proxied', role => 'clerk', endpoint => $proxy->endpoint);

# --- helpers -----------------------------------------------------------------------------------

my $s3 = s3();

# Everything as it is before each case: schema app with table app.target of some rows, registered as
# entity `target`, a file of as many rows in S3, and clerk, who may do what he needs.
sub set_up
{
	my ($rows, $fill) = @_;
	$node->safe_psql('postgres', <<SQL);
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS app CASCADE;
DROP SCHEMA IF EXISTS other CASCADE;
CREATE SCHEMA app;
CREATE SCHEMA other;
CREATE TABLE app.target (
	id bigint PRIMARY KEY, name text NOT NULL, age int, notes text, spare text);
INSERT INTO app.target SELECT i, 'name ' || i, i % 90, 'old', 'spare' FROM generate_series(1, $rows) AS i;
GRANT USAGE ON SCHEMA app, other TO clerk;
GRANT SELECT (id), UPDATE (name, age, notes) ON app.target TO clerk;
SELECT bulk_action.bulk_action_register_entity('target', 'app.target', '{id}');
SELECT bulk_action.bulk_action_grant('target', 'public');
SQL
	my $csv = "id,age,notes\n" . join '', map { "$_," . ($_ + 1) % 90 . ",new $_$fill\n" } 1 .. $rows;
	return (s3_put('target.csv', content => $csv), $csv);
}

# Submits in a session of its own, as the role that clerk has become by SET ROLE, if that is another;
# returns the session, with its transaction open, and the id.
sub begin_submit
{
	my ($uri, $server, $user, $role) = @_;
	my $session = $node->background_psql('postgres');
	$session->query_safe('BEGIN');
	$session->query_safe("SET LOCAL SESSION AUTHORIZATION $user");
	$session->query_safe("SET LOCAL ROLE $role") if $role;
	my $id = $session->query_safe("SELECT bulk_action.bulk_action_submit('$uri', entity_type => 'target',
		options => '{\"server\": \"$server\"}')");
	return ($session, $id);
}

sub submit
{
	my ($session, $id) = begin_submit(@_);
	$session->query_safe('COMMIT');
	$session->quit;
	return $id;
}

sub failed_with
{
	my ($id, $stat, $case) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply([ @{$stat}{qw(state error_code)} ], [ 'failed', $case->{code} ], 'the action fails');
	like($stat->{error_message}, $case->{message}, 'it says why');
	like(value_of($node, "SELECT concat_ws(' ', error_detail, error_hint)
		FROM bulk_action.bulk_actions WHERE id = '$id'"), $case->{like}, 'and more') if $case->{like};
}

# What every case asks at its end: as clerk by hand. Where app.target still is, all is compared.
my $copy = <<SQL;
CREATE TABLE app.target_serial (LIKE app.target INCLUDING ALL);
INSERT INTO app.target_serial SELECT * FROM app.target;
GRANT SELECT, UPDATE ON app.target_serial TO clerk;
SQL

# --- between submit and run --------------------------------------------------------------------------

# The change is made while the transaction of submit is open: no worker sees the action before it.
sub before_the_run
{
	my ($name, %case) = @_;
	my ($uri, $csv) = set_up(200, '');
	$node->safe_psql('postgres', $case{before}) if $case{before};
	my $table = $case{table} // 'app.target';
	my ($session, $id) = begin_submit($uri, 's3', 'clerk', $case{role});
	$node->safe_psql('postgres', "BEGIN; $case{change}; " . ($case{code} ? '' : $case{copy} // $copy) . ' COMMIT');
	$session->query_safe('COMMIT');
	$session->quit;
	subtest "before the run: $name" => sub {
		my $stat = final_stat($node, $id);
		if ($case{code})
		{
			failed_with($id, $stat, \%case);
			is_deeply([ @{$stat}{qw(total updated failed unprocessed)} ], [ 0, 0, 0, 0 ], 'nothing was tried');
			foreach my $table (@{ $case{untouched} // [] })
			{
				is(value_of($node, "SELECT count(*) FROM $table WHERE to_jsonb($table.*)::text LIKE '%new%'"), 0,
					"$table is as it was");
			}
		}
		else
		{
			my $serial = apply_serially($node, content => $csv, table => $table, copy => "${table}_serial",
				as => 'clerk');
			is_deeply([ @{$stat}{qw(state error_message total updated not_found failed unprocessed)} ],
				[ 'completed', undef, @{$serial}{qw(total updated not_found failed)}, 0 ], 'the action completes')
			  or diag(explain($stat));
			same_content($node, $table, "${table}_serial", 'the table is as plain SQL leaves it');
			is_deeply([ rows_of($node, "SELECT line - 1, error_code FROM bulk_action.bulk_action_errors
				WHERE action_id = '$id' ORDER BY line") ], [ map { [ @$_[ 0, 1 ] ] } @{ $serial->{errors} } ],
				'the same rows fail for the same reason');
			$case{check}->($stat) if $case{check};
		}
	};
	$node->safe_psql('postgres', $case{after}) if $case{after};
	return;
}

my @gone = (code => '42P01', message => qr/^target table app\.target is not the one that was registered$/,
	like => qr/dropped, renamed or replaced/);
before_the_run('the table is dropped', change => 'DROP TABLE app.target', @gone);
before_the_run('its schema is dropped', change => 'DROP SCHEMA app CASCADE', @gone);
before_the_run('the table is renamed', change => 'ALTER TABLE app.target RENAME TO renamed',
	untouched => ['app.renamed'], @gone);
before_the_run('the table moves to another schema', change => 'ALTER TABLE app.target SET SCHEMA other',
	untouched => ['other.target'], @gone);
before_the_run('another table has its name', change => <<SQL, untouched => [ 'app.target', 'app.renamed' ], @gone);
ALTER TABLE app.target RENAME TO renamed;
CREATE TABLE app.target (LIKE app.renamed INCLUDING ALL);
INSERT INTO app.target SELECT * FROM app.renamed;
GRANT SELECT, UPDATE ON app.target TO clerk
SQL
before_the_run('a view has its name', change => <<SQL, untouched => ['app.renamed'], @gone);
ALTER TABLE app.target RENAME TO renamed;
CREATE VIEW app.target AS SELECT * FROM app.renamed;
GRANT SELECT, UPDATE ON app.target TO clerk
SQL

my @untouched = (untouched => ['app.target']);
before_the_run('a column of the file is dropped', change => 'ALTER TABLE app.target DROP COLUMN notes',
	code => '42703', message => qr/^column "notes" of the header does not exist in app\.target$/, @untouched,
	like => qr/The header may have these columns: "id", "name", "age"/);
before_the_run('a column of the file is renamed', change => 'ALTER TABLE app.target RENAME COLUMN notes TO remarks',
	code => '42703', message => qr/^column "notes" of the header does not exist in app\.target$/, @untouched);
before_the_run('a column of the file is generated now',
	change => "ALTER TABLE app.target DROP COLUMN notes; ALTER TABLE app.target ADD COLUMN notes text GENERATED ALWAYS AS (upper(name)) STORED",
	code => '42703', message => qr/^column "notes" of the header may not be set$/);
before_the_run('a column of the file is an identity now',
	change => "ALTER TABLE app.target ALTER age SET NOT NULL, ALTER age ADD GENERATED ALWAYS AS IDENTITY",
	code => '42703', message => qr/^column "age" of the header may not be set$/, @untouched);
my @not_unique = (code => '42P17', message => qr/^the key of entity table app\.target is no longer unique$/,
	like => qr/Create the index and register the entity again/, @untouched);
before_the_run('the key column is dropped', change => 'ALTER TABLE app.target DROP COLUMN id', @not_unique);
before_the_run('the key column is renamed', change => 'ALTER TABLE app.target RENAME COLUMN id TO ident', @not_unique);
before_the_run('the key is no key any more', change => 'ALTER TABLE app.target DROP CONSTRAINT target_pkey', @not_unique);
before_the_run('the key is deferrable now', change => <<SQL, @not_unique);
ALTER TABLE app.target DROP CONSTRAINT target_pkey, ADD PRIMARY KEY (id) DEFERRABLE
SQL
before_the_run('the key is unique only among some rows', change => <<SQL, @not_unique);
ALTER TABLE app.target DROP CONSTRAINT target_pkey;
CREATE UNIQUE INDEX ON app.target (id) WHERE id > 0
SQL

before_the_run('another index makes the key unique', change => <<SQL);
ALTER TABLE app.target DROP CONSTRAINT target_pkey;
CREATE UNIQUE INDEX another ON app.target (id)
SQL
before_the_run('a column that is not in the file is dropped', change => 'ALTER TABLE app.target DROP COLUMN spare');
before_the_run('columns are added', change =>
	  "ALTER TABLE app.target ADD COLUMN a int NOT NULL DEFAULT 1, ADD COLUMN b text");
before_the_run('columns have other types now', change => <<SQL);
ALTER TABLE app.target ALTER age TYPE numeric(8,2), ALTER notes TYPE varchar(100)
SQL
before_the_run('a column has a type that does not take the values', change => <<SQL,
ALTER TABLE app.target ALTER notes TYPE date USING NULL
SQL
	check => sub { is($_[0]{failed}, 200, 'every row fails') });
before_the_run('the key has another type', change => 'ALTER TABLE app.target ALTER id TYPE text');
before_the_run('a constraint is added', change => "ALTER TABLE app.target ADD CHECK (notes NOT LIKE 'new%5')",
	check => sub { is($_[0]{failed}, 20, 'some rows fail') });
before_the_run('the table is emptied', change => 'TRUNCATE app.target',
	check => sub { is($_[0]{not_found}, 200, 'no row is found') });
before_the_run('a policy hides rows', change => <<SQL, copy => $copy . <<COPY,
CREATE POLICY even ON app.target TO clerk USING (id % 2 = 0);
ALTER TABLE app.target ENABLE ROW LEVEL SECURITY
SQL
CREATE POLICY even ON app.target_serial TO clerk USING (id % 2 = 0);
ALTER TABLE app.target_serial ENABLE ROW LEVEL SECURITY;
COPY
	check => sub { is($_[0]{not_found}, 100, 'those are not found') });
before_the_run('the entity is no longer registered, and with it the permission is gone',
	change => "SELECT bulk_action.bulk_action_unregister_entity('target')",
	code => '42501', message => qr/^permission denied for entity type "target"$/, like => qr/"clerk".*has not been granted/,
	@untouched);
before_the_run('the entity is registered with other columns',
	change => "SELECT bulk_action.bulk_action_register_entity('target', 'app.target', '{id}', '{name}')");

before_the_run('UPDATE on a column is revoked', change => 'REVOKE UPDATE (notes) ON app.target FROM clerk',
	code => '42501', message => qr/^permission denied for column "notes" of app\.target$/,
	like => qr/"clerk".*lacks UPDATE/, @untouched);
before_the_run('SELECT on the key is revoked', change => 'REVOKE SELECT (id) ON app.target FROM clerk',
	code => '42501', message => qr/^permission denied for column "id" of app\.target$/,
	like => qr/"clerk".*lacks SELECT/, @untouched);
before_the_run('USAGE on the schema is revoked', change => 'REVOKE USAGE ON SCHEMA app FROM clerk',
	code => '42501', message => qr/^permission denied for schema app$/, @untouched);

my @grant_server = (after => 'GRANT USAGE ON FOREIGN SERVER s3 TO clerk');
before_the_run('USAGE on the foreign server is revoked', change => 'REVOKE USAGE ON FOREIGN SERVER s3 FROM clerk',
	code => '42501', message => qr/^permission denied for foreign server s3$/, @untouched, @grant_server);
before_the_run('the user mapping is dropped', change => 'DROP USER MAPPING FOR clerk SERVER s3',
	code => '42704', message => qr/^no user mapping for role "clerk" on server "s3"$/, @untouched,
	after => 'DROP SERVER s3 CASCADE');
server_for_s3($node, name => 's3', role => 'clerk');
before_the_run('the foreign server is dropped', change => 'DROP SERVER s3 CASCADE',
	code => '42704', message => qr/^server "s3" does not exist$/, @untouched);
server_for_s3($node, name => 's3', role => 'clerk');
before_the_run('the foreign server serves another bucket', change => "ALTER SERVER s3 OPTIONS (SET bucket 'other')",
	code => '42501', message => qr/^server "s3" does not serve bucket/, @untouched,
	after => "ALTER SERVER s3 OPTIONS (SET bucket '$s3->{bucket}')");

# The roles. A worker connects as the session user and then becomes the role that submitted.
before_the_run('the submitter may not log in any more', change => 'ALTER ROLE clerk NOLOGIN',
	code => '28000', message => qr/^role "clerk" is not permitted to log in$/, @untouched,
	after => 'ALTER ROLE clerk LOGIN');
before_the_run('the submitter may not connect any more', change => 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC',
	code => '28000', message => qr/^role "clerk" may not connect to database "postgres"$/, @untouched,
	after => 'GRANT CONNECT ON DATABASE postgres TO PUBLIC');
before_the_run('the submitter has another name', change => 'ALTER ROLE clerk RENAME TO clark',
	code => undef, copy => $copy =~ s/clerk/clark/r . 'ALTER ROLE clark RENAME TO clerk;');

my $boss = <<SQL;
CREATE ROLE boss;
GRANT boss TO clerk;
GRANT USAGE ON SCHEMA bulk_action, app TO boss;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bulk_action TO boss;
GRANT SELECT, UPDATE ON app.target TO boss;
GRANT USAGE ON FOREIGN SERVER s3 TO boss;
CREATE USER MAPPING FOR boss SERVER s3 OPTIONS (access_key_id '$s3->{access_key_id}', secret_access_key '$s3->{secret_access_key}');
SQL
my $no_boss = 'DROP OWNED BY boss; DROP ROLE boss';
before_the_run('the role is taken from the submitter', role => 'boss', before => $boss,
	change => 'REVOKE boss FROM clerk', after => $no_boss,
	code => '42501', message => qr/^permission denied to set role "boss"$/, @untouched);
before_the_run('the role is dropped', role => 'boss', before => $boss, change => $no_boss,
	code => '28000', message => qr/^the role that submitted the action does not exist any more$/, @untouched);
before_the_run('another role has the name of the one that submitted', role => 'boss', before => $boss,
	change => "$no_boss; $boss", after => $no_boss,
	code => '28000', message => qr/^the role that submitted the action does not exist any more$/, @untouched);
before_the_run('the role has another name', role => 'boss', before => $boss,
	change => 'ALTER ROLE boss RENAME TO chief', after => "ALTER ROLE chief RENAME TO boss; $no_boss");

$node->safe_psql('postgres', <<SQL);
CREATE ROLE temp LOGIN;
GRANT USAGE ON SCHEMA bulk_action TO temp;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bulk_action TO temp;
GRANT USAGE ON FOREIGN SERVER s3 TO temp;
CREATE USER MAPPING FOR temp SERVER s3 OPTIONS (access_key_id '$s3->{access_key_id}', secret_access_key '$s3->{secret_access_key}');
SQL
my ($uri, $csv) = set_up(10, '');
$node->safe_psql('postgres', 'GRANT USAGE ON SCHEMA app TO temp; GRANT SELECT, UPDATE ON app.target TO temp');
my ($session, $id) = begin_submit($uri, 's3', 'temp');
$node->safe_psql('postgres', 'DROP OWNED BY temp; DROP ROLE temp');
$session->query_safe('COMMIT');
$session->quit;
wait_for($node, "SELECT state = 'failed' FROM bulk_action.bulk_actions WHERE id = '$id'");
is_deeply([ rows_of($node, "SELECT error_code, error_message LIKE 'role with OID % does not exist any more'
	FROM bulk_action.bulk_actions WHERE id = '$id'") ], [ [ '28000', 't' ] ],
	'before the run: the submitter is dropped: the action fails and says so');

# --- while the file is read ------------------------------------------------------------------------

# The request for the second segment is held back while the change is made. The only worker has not
# applied a row by then: it reads first.
my $fill = 'x' x 500;

sub while_reading
{
	my ($name, %case) = @_;
	my ($uri, $csv) = set_up($case{rows} // 3_000, $fill);
	$node->safe_psql('postgres', $case{before}) if $case{before};
	my $hold = $proxy->fault('hold', method => 'GET', skip => 1);
	my $id = submit($uri, 'proxied', 'clerk', $case{role});
	$proxy->wait_for_held;
	my $read = stat_of($node, $id)->{total};
	$node->safe_psql('postgres', "BEGIN; $case{change}; " . ($case{code} ? '' : $case{copy} // $copy) . ' COMMIT');
	$proxy->clear($hold);
	subtest "while the file is read: $name" => sub {
		my $stat = final_stat($node, $id);
		if ($case{code})
		{
			failed_with($id, $stat, \%case);
			$read = $stat->{total} if $case{reads_on} && $stat->{total} > $read;
			is_deeply([ @{$stat}{qw(total updated failed unprocessed)} ], [ $read, 0, 0, $read ],
				'rows that were read count as unprocessed');
			is(value_of($node, "SELECT count(*) FROM $_ WHERE to_jsonb($_.*)::text LIKE '%new%'"), 0,
				"$_ is as it was") foreach @{ $case{untouched} // [] };
		}
		else
		{
			my $serial = apply_serially($node, content => $csv, table => 'app.target', as => 'clerk', mode => 'set');
			is_deeply([ @{$stat}{qw(state error_message total updated not_found failed unprocessed)} ],
				[ 'completed', undef, 3_000, @{$serial}{qw(updated not_found)}, 0, 0 ], 'the action completes')
			  or diag(explain($stat));
			same_content($node, 'app.target', 'app.target_serial', 'the table is as plain SQL leaves it');
		}
	};
	$node->safe_psql('postgres', $case{after}) if $case{after};
	return;
}

while_reading('the table is dropped', change => 'DROP TABLE app.target', @gone);
while_reading('another table has its name', change => <<SQL, untouched => [ 'app.target', 'app.renamed' ], @gone);
ALTER TABLE app.target RENAME TO renamed;
CREATE TABLE app.target (LIKE app.renamed INCLUDING ALL);
INSERT INTO app.target SELECT * FROM app.renamed;
GRANT SELECT, UPDATE ON app.target TO clerk
SQL
while_reading('a column of the file is dropped', change => 'ALTER TABLE app.target DROP COLUMN age',
	code => '42703', message => qr/^column "age" of the header does not exist in app\.target$/, @untouched);
while_reading('UPDATE on a column is revoked', change => 'REVOKE UPDATE (age) ON app.target FROM clerk',
	code => '42501', message => qr/^permission denied for column "age" of app\.target$/, @untouched);
while_reading('USAGE on the schema is revoked', change => 'REVOKE USAGE ON SCHEMA app FROM clerk',
	code => '42501', message => qr/^permission denied for schema app$/, @untouched);
$boss =~ s/\bs3\b/proxied/g;
while_reading('the role is taken from the submitter', role => 'boss', before => $boss,
	change => 'REVOKE boss FROM clerk', after => $no_boss,
	code => '42501', message => qr/^permission denied to set role "boss"$/, @untouched);
while_reading('the role is dropped', role => 'boss', before => $boss, change => $no_boss,
	code => '28000', message => qr/^the role that submitted the action does not exist any more$/, @untouched);
while_reading('another role has the name of the one that submitted', role => 'boss', before => $boss,
	change => "$no_boss; $boss", after => $no_boss,
	code => '28000', message => qr/^the role that submitted the action does not exist any more$/, @untouched);
while_reading('the role has another name', role => 'boss', before => $boss,
	change => 'ALTER ROLE boss RENAME TO chief', after => "ALTER ROLE chief RENAME TO boss; $no_boss");
while_reading('columns have other types', change =>
	  'ALTER TABLE app.target ALTER age TYPE text, ALTER notes TYPE varchar(1000), ALTER id TYPE int');
while_reading('a policy hides rows', change => <<SQL, copy => $copy . <<COPY);
CREATE POLICY even ON app.target TO clerk USING (id % 2 = 0);
ALTER TABLE app.target ENABLE ROW LEVEL SECURITY
SQL
CREATE POLICY even ON app.target_serial TO clerk USING (id % 2 = 0);
ALTER TABLE app.target_serial ENABLE ROW LEVEL SECURITY;
COPY

# The request that is under way ends; there is no third one.
while_reading('USAGE on the foreign server is revoked', rows => 8_000, reads_on => 1,
	change => 'REVOKE USAGE ON FOREIGN SERVER proxied FROM clerk',
	after => 'GRANT USAGE ON FOREIGN SERVER proxied TO clerk',
	code => '42501', message => qr/^permission denied for foreign server proxied$/, @untouched);

# --- between two chunks --------------------------------------------------------------------------------

# All rows are locked until the change waits for its turn, or has been made; the worker is inside the
# first chunk. What waits for its turn comes when that chunk is committed, before the second one.
sub between_chunks
{
	my ($name, %case) = @_;
	my ($uri, $csv) = set_up(2_500, '');
	my $table = $case{table} // 'app.target';
	$node->safe_psql('postgres', 'CREATE TABLE app.target_before AS TABLE app.target');
	$node->safe_psql('postgres', $case{before}) if $case{before};
	my $blocker = $node->background_psql('postgres');
	$blocker->query_safe('BEGIN');
	$blocker->query_safe('SELECT count(*) FROM (SELECT FROM app.target FOR UPDATE) AS t');
	my $id = submit($uri, 's3', 'clerk', $case{role});
	wait_for($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'applying%$id'");
	my $changer = $node->background_psql('postgres');
	if ($case{waits})
	{
		$changer->query_until(qr/begun/, "\\echo begun\n$case{change};\n");
		wait_for($node, "SELECT count(*) = 1 FROM pg_stat_activity
			WHERE wait_event_type = 'Lock' AND backend_type = 'client backend'");
	}
	else
	{
		$changer->query_safe($case{change});
	}
	$blocker->query_safe('COMMIT');
	$blocker->quit;
	subtest "between two chunks: $name" => sub {
		my $stat = final_stat($node, $id);
		$changer->quit;
		failed_with($id, $stat, \%case);
		is($stat->{total}, 2_500, 'all rows were read');
		ok(($stat->{updated} > 0) == !$case{nothing} && $stat->{unprocessed} > 0
			  && $stat->{updated} + $stat->{unprocessed} == 2_500,
			$case{nothing} ? 'no chunk is applied' : 'one chunk is applied, the others count as unprocessed')
		  or diag(explain($stat));
		is(value_of($node, "SELECT count(*) FROM $_ WHERE notes LIKE 'new%'"), 0, "$_ is as it was")
		  foreach @{ $case{untouched} // [] };
		return if $case{no_table};

		apply_serially($node, content => $csv, table => 'app.target_before', copy => 'app.target_serial', mode => 'set');
		is_deeply([ rows_of($node, <<SQL) ], [ [ $stat->{updated}, $stat->{unprocessed} ] ],
SELECT count(*) FILTER (WHERE (now.name, now.notes, now.spare) = (whole.name, whole.notes, whole.spare)),
       count(*) FILTER (WHERE (now.name, now.notes, now.spare) = (before.name, before.notes, before.spare))
  FROM $table AS now
  JOIN app.target_serial AS whole USING (id)
  JOIN app.target_before AS before USING (id)
SQL
			'as many rows as counted are as in the file, the others as before');
	};
	$node->safe_psql('postgres', $case{after}) if $case{after};
	return;
}

between_chunks('UPDATE on a column is revoked', change => 'REVOKE UPDATE (notes) ON app.target FROM clerk',
	code => '42501', message => qr/^permission denied for column "notes" of app\.target$/);
between_chunks('the table is dropped', waits => 1, change => 'DROP TABLE app.target', no_table => 1, @gone);
between_chunks('the table is renamed', waits => 1, change => 'ALTER TABLE app.target RENAME TO renamed',
	table => 'app.renamed', @gone);
between_chunks('another table has its name', waits => 1, change => <<SQL, table => 'app.renamed', @untouched, @gone);
BEGIN;
ALTER TABLE app.target RENAME TO renamed;
CREATE TABLE app.target (LIKE app.renamed INCLUDING ALL);
INSERT INTO app.target SELECT * FROM app.target_before;
GRANT SELECT, UPDATE ON app.target TO clerk;
COMMIT
SQL
between_chunks('a column of the file is dropped', waits => 1, change => 'ALTER TABLE app.target DROP COLUMN age',
	code => '42703', message => qr/^column "age" of the header does not exist in app\.target$/);
between_chunks('the key is no key any more', waits => 1, change => 'ALTER TABLE app.target DROP CONSTRAINT target_pkey',
	code => '42P17', message => qr/^the key of entity table app\.target is no longer unique$/);

between_chunks('another schema has its name', change => <<SQL, table => 'was.target', @untouched, @gone,
ALTER SCHEMA app RENAME TO was;
CREATE SCHEMA app;
CREATE TABLE app.target (LIKE was.target INCLUDING ALL);
INSERT INTO app.target SELECT * FROM was.target;
GRANT USAGE ON SCHEMA app TO clerk;
GRANT SELECT, UPDATE ON app.target TO clerk;
CREATE TABLE app.target_before AS TABLE app.target
SQL
	after => 'DROP SCHEMA was CASCADE');

# What these take away is needed to commit the chunk.
$boss =~ s/\bproxied\b/s3/g;
between_chunks('the role is taken from the submitter', role => 'boss', before => $boss, nothing => 1,
	change => 'REVOKE boss FROM clerk', after => $no_boss,
	code => '42501', message => qr/^permission denied to set role "boss"$/);
between_chunks('the role is dropped', role => 'boss', before => $boss, nothing => 1,
	change => $no_boss, code => '28000', message => qr/^the role that submitted the action does not exist any more$/);

$node->stop;
done_testing();
