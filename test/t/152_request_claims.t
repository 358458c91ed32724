# Which settings of a session are captured at submit, and that policies decide by them about each row as
# they would have done in the request: whatever the claims are, also when there are none, and when actions
# of several requests share one worker.
use strict;
use warnings;
use utf8;

use BulkAction;
use BulkAction::Attacks;
use Test::More;

my $node = attacked_node();
my $login = $node->connstr('postgres') . ' user=authenticator';
my $default = value_of($node, 'SHOW bulk_action.captured_settings');

sub bytes { my ($text) = @_; utf8::encode($text); return $text }

sub set_captured
{
	my ($list) = @_;
	my (undef, undef, $error) = $node->psql('postgres', 'ALTER SYSTEM SET bulk_action.captured_settings = ' . join(', ', map { literal($_) } length $list ? split /, */, $list : ''));
	return $error if $error =~ /ERROR/;
	$node->reload;
	wait_for($node, "SELECT setting FROM pg_settings WHERE name = 'bulk_action.captured_settings'", expect => $list);
	return '';
}

# --- what may be on the list ----------------------------------------------------------------------------------

is($default, 'search_path, DateStyle, IntervalStyle, TimeZone, lc_monetary, lc_numeric, request.jwt.claims, request.method, request.path, request.headers',
	'the default');
my %refused = (role => qr/The role that submits is recorded/, Role => qr/The role that submits/, session_authorization => qr/session user is recorded/,
	'request.cookies' => qr/Cookies are live credentials/, no_such_setting => qr/There is no such setting/,
	session_replication_role => qr/not one that every role may set/, log_min_messages => qr/not one that every role may set/,
	shared_buffers => qr/not one that every role may set/, transaction_read_only => qr/not one that every role may set/,
	transaction_isolation => qr/not one that every role may set/, seed => qr/not one that every role may set/,
	lock_timeout => qr/timeout of their own/, synchronous_commit => qr/how they commit/, default_transaction_read_only => qr/about their transactions/,
	client_encoding => qr/no client/, 'bulk_action.file_root' => qr/of bulk_action itself/, 'bulk_action.x' => qr/of bulk_action itself/,
	'app.' => qr/no such setting/, '.app' => qr/no such setting/, 'app.a;b' => qr/no such setting/, '9.a' => qr/no such setting/);
foreach my $name (sort keys %refused)
{
	my $error = set_captured("search_path, $name");
	like($error, qr/invalid value for parameter "bulk_action.captured_settings".*\n.*DETAIL:  Setting "\Q$name\E" cannot be captured\. .*$refused{$name}/, "$name is refused");
}
like(set_captured('TimeZone, timezone'), qr/"timezone" cannot be captured. It is on the list twice/, 'and what is there twice');
foreach my $as (qw(webuser authenticator))
{
	my (undef, undef, $error) = $node->psql('postgres', "SET ROLE $as; SET bulk_action.captured_settings = 'search_path'");
	like($error, qr/cannot be changed now/, "$as cannot change it");
}
is(value_of($node, 'SHOW bulk_action.captured_settings'), $default, 'nothing has changed');

# --- policies and claims -----------------------------------------------------------------------------------------

# Each tenant has a row in every table; the policy lets through the row whose claims are those of the request.
my @claims = (
	undef, '', '{}', '{"sub":"u-1"}', '{"sub":"u-2","role":"webuser"}', bytes('{"sub":"Žluťoučký 😀","t":"\u00e4\u2028"}'),
	'{"sub":"u-3","app":{"tenant":{"id":"7","roles":["a","b\"c"]},"deep":[[[{"x":null}]]]}}', '{"sub":"it\'s \\\\ back $1 %s"}', 'no JSON at all',
	'{"sub":"' . ('x' x 60000) . '"}');
my $values = join ', ', map { "($_, " . (defined $claims[ $_ - 1 ] ? literal($claims[ $_ - 1 ]) : 'NULL') . ')' } 1 .. @claims;

sub policed
{
	my ($table, $expression) = @_;
	foreach my $name ($table, "${table}_by_hand")
	{
		$node->safe_psql('postgres', <<SQL);
CREATE TABLE app.$name (id bigint PRIMARY KEY, name text, of_claims text);
INSERT INTO app.$name VALUES @{[ $values =~ s/\((\d+), /($1, 'old', /gr ]};
GRANT SELECT, UPDATE ON app.$name TO webuser;
ALTER TABLE app.$name ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON app.$name USING ($expression);
SQL
	}
	$node->safe_psql('postgres', "SELECT bulk_action.bulk_action_register_entity('$table', 'app.$table', ARRAY['id']); SELECT bulk_action.bulk_action_grant('$table', 'public')");
}
policed('exact', "of_claims IS NOT DISTINCT FROM current_setting('request.jwt.claims', true)");
policed('raises', "of_claims = current_setting('request.jwt.claims') AND (of_claims LIKE '{%' OR of_claims::json IS NOT NULL)");
policed('nested', "coalesce(nullif(of_claims, ''), '{}')::json #>> '{app,tenant,roles,1}' = nullif(current_setting('request.jwt.claims', true), '')::json #>> '{app,tenant,roles,1}'"
	  . " AND current_user = 'webuser' AND session_user = 'authenticator'");
foreach my $table (qw(exact raises nested))
{
	my $by_hand = 0;
	foreach my $i (0 .. $#claims)
	{
		my @rows = map { [ $_, "by $i" ] } 1 .. @claims;
		my %request = (settings => { 'request.jwt.claims' => $claims[$i] });
		my $stat = statistics(submit('webuser', $table, file_of([qw(id name)], \@rows), %request));
		my $hand = by_hand('webuser', "app.${table}_by_hand", [qw(id name)], \@rows, %request);
		if ($stat->{state} eq 'failed')
		{
			# an error that the statement itself gives, whatever the row, is the action's
			is_deeply([ map { $stat->{code} } @rows ], $hand->{codes}, "$table: " . substr($claims[$i] // 'no claims', 0, 40) . ': as by hand, no row can be updated');
			next;
		}
		is("$stat->{state} $stat->{updated} $stat->{not_found} $stat->{failed} $stat->{sound}", "completed $hand->{updated} $hand->{not_found} $hand->{failed} t",
			"$table: " . substr($claims[$i] // 'no claims', 0, 40));
		$by_hand += $hand->{updated};
	}
	cmp_ok($by_hand, '>', 0, 'which lets some rows through');
	same_content($node, "app.$table", "app.${table}_by_hand", "$table: the table is what it is by hand");
}
is(value_of($node, "SELECT string_agg(id || ' ' || name, ', ' ORDER BY id) FROM app.exact"), join(', ', map { "$_ by " . ($_ - 1) } 1 .. @claims),
	'each request has changed its own row, the one without claims too');
{
	my (undef, undef, $error) = $node->psql('postgres', submit_sql('webuser', 'exact', file_of([qw(id name)], []), settings => { 'request.jwt.claims' => 'x' x 70000 }), connstr => $login);
	like($error, qr/value of setting "request.jwt.claims" is too long to be captured.*DETAIL:  It has 70000 bytes; 65536 are allowed/s, 'claims have a limit');
}

# --- several requests at once on one worker ----------------------------------------------------------------------------

{
	my @tenants = map { "tenant $_" } 1 .. 6;
	$node->safe_psql('postgres', <<'SQL');
CREATE TABLE app.shared (id bigint PRIMARY KEY, tenant text, name text, seen text);
INSERT INTO app.shared SELECT i, 'tenant ' || i % 6 + 1, 'old', NULL FROM generate_series(1, 12000) AS i;
GRANT SELECT, UPDATE ON app.shared TO webuser;
ALTER TABLE app.shared ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON app.shared USING (tenant = current_setting('request.jwt.claims')::json ->> 'tenant');
CREATE SEQUENCE app.turns;
CREATE TABLE app.turn (n bigint DEFAULT nextval('app.turns'), tenant text, pid int);
GRANT INSERT ON app.turn TO webuser;
GRANT USAGE ON SEQUENCE app.turns TO webuser;
CREATE FUNCTION app.note_turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO app.turn (tenant, pid) SELECT current_setting('request.jwt.claims')::json ->> 'tenant', pg_backend_pid();
  RETURN NULL;
END $$;
CREATE TRIGGER turn AFTER UPDATE ON app.shared FOR EACH STATEMENT EXECUTE FUNCTION app.note_turn();
SELECT bulk_action.bulk_action_register_entity('shared', 'app.shared', ARRAY['id'], ARRAY['name']); SELECT bulk_action.bulk_action_grant('shared', 'public');
CREATE TABLE app.gate (id bigint PRIMARY KEY, name text);
INSERT INTO app.gate VALUES (1, 'shut');
GRANT SELECT, UPDATE ON app.gate TO webuser;
SELECT bulk_action.bulk_action_register_entity('gate', 'app.gate', ARRAY['id']); SELECT bulk_action.bulk_action_grant('gate', 'public');
SQL
	# the only worker waits at the gate until all requests are in
	my $gate = $node->background_psql('postgres');
	$gate->query_safe('BEGIN; SELECT FROM app.gate FOR UPDATE');
	submit('webuser', 'gate', file_of([qw(id name)], [ [ 1, 'open' ] ]));
	wait_for($node, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'applying %' AND wait_event_type = 'Lock')");
	my %action;
	foreach my $tenant (@tenants)
	{
		my $csv = file_of([qw(id name)], [ map { [ $_, "by $tenant" ] } 1 .. 12000 ]);
		$action{$tenant} = $node->safe_psql('postgres', request_begin('webuser', settings => { 'request.jwt.claims' => qq({"tenant":"$tenant"}) })
			  . "SELECT bulk_action_submit('file://$csv', entity_type => 'shared', account_id => '$tenant');\nCOMMIT;", connstr => $login);
	}
	$gate->query_safe('ROLLBACK');
	$gate->quit;
	my %outcome = map { my $s = statistics($action{$_}); $_ => "$s->{state} $s->{updated} $s->{not_found} $s->{failed}" } @tenants;
	is_deeply(\%outcome, { map { $_ => 'completed 2000 10000 0' } @tenants }, 'each request found its own rows');
	is(value_of($node, "SELECT count(*) FROM app.shared WHERE name <> 'by ' || tenant"), 0, 'and changed no other');
	cmp_ok(value_of($node, 'SELECT count(*) FROM (SELECT tenant IS DISTINCT FROM lag(tenant) OVER (ORDER BY n) AS other FROM app.turn) AS s WHERE other'),
		'>', 2 * @tenants, 'the worker went back and forth between them');
	is(value_of($node, 'SELECT count(DISTINCT pid) FROM app.turn'), 1, 'and it was one worker, with one session');
}

# --- a setting of one's own -------------------------------------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE app.owned (id bigint PRIMARY KEY, tenant text, name text);
INSERT INTO app.owned VALUES (1, 'red', 'old'), (2, 'blue', 'old'), (3, 'nobody', 'old');
CREATE TABLE app.owned_by_hand AS TABLE app.owned;
ALTER TABLE app.owned_by_hand ADD PRIMARY KEY (id);
GRANT SELECT, UPDATE ON app.owned, app.owned_by_hand TO webuser;
ALTER TABLE app.owned ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.owned_by_hand ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON app.owned USING (tenant = coalesce(current_setting('app.tenant', true), 'nobody'));
CREATE POLICY own ON app.owned_by_hand USING (tenant = coalesce(current_setting('app.tenant', true), 'nobody'));
SELECT bulk_action.bulk_action_register_entity('owned', 'app.owned', ARRAY['id']); SELECT bulk_action.bulk_action_grant('owned', 'public');
SQL
my @rows = map { [ $_, 'new' ] } 1 .. 3;
statistics(submit('webuser', 'owned', file_of([qw(id name)], \@rows), settings => { 'app.tenant' => 'red' }));
is(value_of($node, "SELECT string_agg(tenant, ' ') FROM app.owned WHERE name = 'new'"), 'nobody', 'what is not on the list is not there for policies');
$node->safe_psql('postgres', "UPDATE app.owned SET name = 'old'");

is(set_captured("$default, app.tenant, default_text_search_config, enable_seqscan"), '', 'settings are added to the list');
my $without = 0;
foreach my $tenant ('red', undef, 'blue', undef)
{
	# another value each time: a row that has it already would be unchanged
	my $name = $tenant // ($without++ ? 'none' : 'none yet');
	my %request = (settings => { 'app.tenant' => $tenant });
	my @new = map { [ $_, "of $name" ] } 1 .. 3;
	my $stat = statistics(submit('webuser', 'owned', file_of([qw(id name)], \@new), %request));
	my $hand = by_hand('webuser', 'app.owned_by_hand', [qw(id name)], \@new, %request);
	is("$stat->{updated} $stat->{not_found}", "$hand->{updated} $hand->{not_found}", 'app.tenant ' . ($tenant // 'not set'));
	same_content($node, 'app.owned', 'app.owned_by_hand', 'as by hand');
}
is(value_of($node, "SELECT string_agg(tenant || ' ' || name, ', ' ORDER BY id) FROM app.owned"), 'red of red, blue of blue, nobody of none',
	'a session that still knows the tenant before is not used for a request without one');

# A module may turn out to have defined it.
is(set_captured("$default, plpgsql.variable_conflict"), '', 'a setting of a module that is not loaded');
{
	my $csv = file_of([qw(id name)], \@rows);
	my (undef, undef, $error) = $node->psql('postgres', submit_sql('webuser', 'owned', $csv, within => "DO 'BEGIN END';\n"), connstr => $login);
	like($error, qr/setting "plpgsql.variable_conflict" cannot be captured.*DETAIL:  It is not one that every role may set.*HINT:/s, 'is refused at submit once it is');
}
is(set_captured(''), '', 'nothing at all may be captured');
statistics(submit('webuser', 'owned', file_of([qw(id name)], \@rows)));
is(value_of($node, "SELECT settings FROM bulk_action_internal.actions ORDER BY action_no DESC LIMIT 1"), '{}', 'then nothing is');
is(set_captured($default), '', 'the default again');

# --- credentials --------------------------------------------------------------------------------------------------------

my %headers = (
	'{"accept":"*/*","authorization":"Bearer S3CRET","cookie":"a=S3CRET"}' => '{"accept": "*/*"}',
	'{"Authorization":"S3CRET","COOKIE":"S3CRET","Proxy-Authorization":"S3CRET","x":"1"}' => '{"x": "1"}',
	'{"authoriz\u0061tion":"S3CRET","x":"1"}' => '{"x": "1"}',
	'{"authorization":"S3CRET","authorization":"S3CRET"}' => '{}',
	'[{"authorization":"S3CRET"}]' => undef, '"authorization: S3CRET"' => undef, 'authorization: S3CRET' => undef,
	'{"authorization":"S3CRET"' => undef, '{"a\u0000":"S3CRET"}' => undef, '' => '');
foreach my $given (sort keys %headers)
{
	my $id = submit('webuser', 'owned', file_of([qw(id name)], \@rows), settings => { 'request.headers' => $given, 'request.cookies' => '{"a":"S3CRET"}' });
	statistics($id);
	is(value_of($node, "SELECT coalesce(settings[array_position(settings, 'request.headers') + 1], 'none') FROM bulk_action_internal.actions WHERE id = '$id'"),
		$headers{$given} // 'none', "headers $given");
}
is(value_of($node, "SELECT count(*) FROM bulk_action_internal.actions WHERE settings::text LIKE '%S3CRET%'"), 0, 'no credentials of a request are kept');

done_testing();
