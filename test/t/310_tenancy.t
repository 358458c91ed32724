# Tenants: accounts that share a role and are told apart by a claim of their tokens, and roles of their
# own. None sees, changes or can even tell the existence of what belongs to another: each calls every
# function and every view there is with the others' ids, keys, accounts and parents. A function that is
# added later fails this test until it is among the calls.
use strict;
use warnings;

use BulkAction;
use List::Util qw(shuffle);
use Test::More;

my $node = new_node('main', conf => <<'CONF');
bulk_action.file_root = '/'
bulk_action.account_claim = 'app_metadata,tenant'
bulk_action.admin_role = 'support'
CONF
create_role($node, 'authenticator', attributes => 'LOGIN NOINHERIT', submit => 0);
create_role($node, $_, attributes => 'NOLOGIN') foreach qw(webuser agent);
create_role($node, $_) foreach qw(alice bob);
create_contacts($node, 3000);
register_contacts($node);
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE support NOLOGIN;
GRANT support TO agent;
CREATE ROLE reader LOGIN;
GRANT pg_read_all_data TO reader;
CREATE ROLE granted LOGIN;
CREATE ROLE idle LOGIN;
GRANT USAGE ON SCHEMA bulk_action TO idle;
GRANT webuser, agent TO authenticator;
GRANT pg_read_server_files TO webuser, agent, alice, bob;
GRANT SELECT, UPDATE ON public.contacts TO webuser, agent, alice, bob;
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO PUBLIC;

-- all rows of an action's, in every table that has any
CREATE FUNCTION app.fingerprint(ids uuid[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  t regclass;
  one text;
  everything text := '';
BEGIN
  FOR t IN SELECT c.oid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'action_no'
    WHERE c.relnamespace = 'bulk_action_internal'::regnamespace AND c.relkind = 'r' ORDER BY c.relname
  LOOP
    EXECUTE format('SELECT count(*) || md5(coalesce(string_agg(x::text, E''\n'' ORDER BY x::text COLLATE "C"), ''''))
      FROM %s AS x WHERE action_no IN (SELECT action_no FROM bulk_action_internal.actions WHERE id = ANY ($1))', t)
      INTO one USING ids;
    everything := everything || t::text || ' ' || one || E'\n';
  END LOOP;
  SELECT everything || md5(string_agg(x::text, E'\n' ORDER BY x::text)) INTO everything FROM bulk_action_internal.entities x;
  SELECT everything || md5(string_agg(x::text, E'\n' ORDER BY x::text)) INTO everything FROM bulk_action_internal.permissions x;
  RETURN everything;
END $$;

-- cheap, so that it is called first where nothing forbids it
CREATE FUNCTION app.leak(what text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
  $$ BEGIN RAISE NOTICE 'leaked %', what; RETURN true; END $$;
SQL

# --- who calls, and how -------------------------------------------------------------------------------

my %party = (
	acme => { role => 'webuser', account => 'acme', claims => '{"app_metadata":{"tenant":"acme"},"exp":4000000000,"role":"webuser"}' },
	globex => { role => 'webuser', account => 'globex', claims => '{"app_metadata":{"tenant":"globex"},"exp":4000000000,"role":"webuser"}' },
	alice => { role => 'alice', account => 'alice', login => 'alice' },
	bob => { role => 'bob', account => 'bob', login => 'bob' },
	agent => { role => 'agent', claims => '{"role":"agent"}' });


# The statements of a request: through PostgREST, or of a login of its own.
sub request_sql
{
	my ($party, $main, %option) = @_;
	my $end = $option{rollback} ? "SET CONSTRAINTS ALL IMMEDIATE;\nROLLBACK;\n" : "COMMIT;\n";
	return "BEGIN;\n$main;\n$end" if $party->{login};
	my $claims = exists $option{claims} ? $option{claims} : $party->{claims};
	my $method = $option{method} // 'POST';
	my %setting = (
		'request.jwt.claims' => $claims, 'request.method' => $method, 'request.path' => '/rpc/x',
		'request.headers' => '{"accept":"*/*"}', 'request.cookies' => '{}');
	return "SET client_encoding = 'UTF8'; SET client_min_messages TO NOTICE;\n"
	  . "BEGIN ISOLATION LEVEL READ COMMITTED " . ($method eq 'GET' ? 'READ ONLY' : 'READ WRITE') . ";\n"
	  . "SELECT set_config('search_path', '\"bulk_action\", \"public\"', true), set_config('role', '$party->{role}', true), "
	  . join(', ', map { "set_config('$_', " . literal($setting{$_}) . ', true)' } sort keys %setting)
	  . " \\g /dev/null\n$main;\n$end";
}

# Runs it; returns what came out and the error in full, without where it is from.
sub run_sql
{
	my ($party, $sql) = @_;
	my ($out, $error);
	$node->psql('postgres', "\\set VERBOSITY verbose\n$sql",
		connstr => $node->connstr('postgres') . ' user=' . ($party->{login} // 'authenticator'),
		on_error_stop => 1, stdout => \$out, stderr => \$error);
	$error = join "\n", grep { !/^LOCATION:|^LINE |^ *\^/ } split /\n/, $error;
	$error =~ s/^psql:<stdin>:\d+: //mg;
	return ($out, $error);
}

# POST /rpc/NAME with these arguments, as JSON; of a login: the call itself.
sub call_sql
{
	my ($party, $name, $set, %argument) = @_;
	my %type = (
		options => 'jsonb', metadata => 'jsonb', max_errors => 'jsonb', action_id => 'uuid', parent_id => 'uuid', neutralize => 'boolean',
		after_line => 'bigint', max_rows => 'bigint', older_than => 'interval', timeout => 'interval', key_columns => 'text[]',
		action_types => 'text[]', target => 'regclass');
	my @names = sort keys %argument;
	if ($party->{login})
	{
		my $call = "bulk_action.$name(" . join(', ', map { "$_ => " . literal($argument{$_}) } @names) . ')';
		return $set ? "SELECT * FROM $call" : "SELECT $call";
	}
	my $json = '{' . join(',', map { "\"$_\":" . (($type{$_} // '') eq 'jsonb' ? $argument{$_} : '"' . ($argument{$_} =~ s/(["\\])/\\$1/gr) . '"') } @names) . '}';
	my $columns = join(', ', map { "\"$_\"" } @names);
	my $body = join(', ', map { "\"$_\" " . ($type{$_} // 'text') } @names);
	my $pass = join(', ', map { "\"$_\" := pgrst_body.\"$_\"" } @names);
	my $call = $set ? qq(LATERAL (SELECT * FROM "bulk_action"."$name"($pass)) pgrst_call) :
	  qq(LATERAL (SELECT "bulk_action"."$name"($pass) pgrst_scalar) pgrst_call);
	my $column = $set ? 'pgrst_call.*' : 'pgrst_call.pgrst_scalar';
	my $from = "LATERAL (SELECT $columns FROM json_to_record(pgrst_payload.json_data) AS _($body) LIMIT 1) pgrst_body, $call";
	return <<SQL;
PREPARE request (json) AS
WITH pgrst_source AS (SELECT $column FROM (SELECT \$1 AS json_data) pgrst_payload, $from)
SELECT null::bigint AS total_result_set, 1 AS page_total, coalesce(json_agg(@{[ $set ? '_postgrest_t' : '_postgrest_t.pgrst_scalar' ]})->0, 'null') AS body,
  nullif(current_setting('response.headers', true), '') AS response_headers,
  nullif(current_setting('response.status', true), '') AS response_status, '' AS response_inserted
FROM (SELECT "$name".* FROM "pgrst_source" AS "$name") _postgrest_t;
EXECUTE request (@{[ literal($json) ]})
SQL
}

sub call
{
	my ($party, $name, $set, $argument, %option) = @_;
	my ($out, $error) = run_sql($party, request_sql($party, call_sql($party, $name, $set, %$argument), %option));
	# the body of the answer
	$out =~ s/^[^|]*\|1\|(.*)\|\|\|$/$1/ unless $party->{login};
	return ($out =~ s/^"(.*)"\z/$1/r, $error);
}

sub get
{
	my ($party, $view, $where) = @_;
	my $sql = $party->{login} ? "SELECT json_agg(v) FROM bulk_action.$view AS v $where" : <<SQL;
WITH pgrst_source AS (SELECT "bulk_action"."$view".* FROM "bulk_action"."$view" $where)
SELECT null::bigint AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total, coalesce(json_agg(_postgrest_t), '[]') AS body,
  nullif(current_setting('response.headers', true), '') AS response_headers,
  nullif(current_setting('response.status', true), '') AS response_status, '' AS response_inserted
FROM (SELECT * FROM "pgrst_source") _postgrest_t
SQL
	return run_sql($party, request_sql($party, $sql, method => 'GET'));
}

# --- what each has: actions that are completed, paused, failed, with everything that belongs to them --------

sub submit
{
	my ($party, %argument) = @_;
	my ($id, $error) = call($party, 'bulk_action_submit', 0, \%argument);
	die "$error\n$id" unless $id =~ /^[0-9a-f-]{36}\z/;
	return $id;
}

my $good = contacts_csv($node, name => 'good.csv', rows => 500, repeat => 10, bad => { 5 => { age => 'x' }, 9 => { age => 'y' } });
my $long = contacts_csv($node, name => 'long.csv', rows => 3000);
my $hopeless = write_file($node->basedir . '/hopeless.csv', "id,no_such_column\n1,2\n");

# what is paused has a table of its own, so that nobody waits for another's rows
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION app.hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock_shared(7000); RETURN new; END $$;
SQL
foreach my $name (qw(acme globex alice bob))
{
	create_contacts($node, 3000, table => "public.of_$name");
	register_contacts($node, entity => "of_$name", table => "public.of_$name");
	$node->safe_psql('postgres', <<SQL);
GRANT SELECT, UPDATE ON public.of_$name TO $party{$name}{role};
CREATE TRIGGER hold BEFORE UPDATE ON public.of_$name FOR EACH ROW WHEN (old.id = 2900) EXECUTE FUNCTION app.hold();
SQL
}
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(7000)');
foreach my $name (qw(acme globex alice bob))
{
	my $party = $party{$name};
	$party->{completed} = submit($party, source => "file://$good", options => '{"duplicates": "last"}',
		idempotency_key => "key of $name", metadata => qq({"secret": "of $name"}), trace_id => "trace $name");
	$party->{failed} = submit($party, source => "file://$hopeless", parent_id => $party->{completed});
	$party->{paused} = submit($party, source => "file://$long", entity_type => "of_$name", idempotency_key => 'the same for all');
	$party->{all} = [ @$party{qw(completed failed paused)} ];
}
foreach my $name (qw(acme globex alice bob))
{
	my $party = $party{$name};
	wait_for($node, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'advisory' AND query LIKE '%$party->{paused}%')");
	is((call($party, 'bulk_action_pause', 0, { action_id => $party->{paused} }))[0] =~ s/^true$/t/r, 't', "$name pauses its own");
	wait_for($node, "SELECT state = 'paused' FROM bulk_action.bulk_actions WHERE id = '$party->{paused}'");
	ok(wait_for($node, "SELECT string_agg(state, ' ' ORDER BY action_no) FROM bulk_action_internal.actions WHERE id = ANY ('{"
			. join(',', @{ $party->{all} }) . "}')", expect => 'completed failed paused'), "$name has actions in each state of rest");
	is(value_of($node, "SELECT account_id FROM bulk_action.bulk_actions WHERE id = '$party->{paused}'"), $party->{account},
		"the account of $name");
	like((call($party, 'bulk_action_stat', 1, { action_id => $party->{completed} }))[0], qr/completed.*550|550.*completed/s,
		"$name sees its own");
}
$holder->query_safe('SELECT pg_advisory_unlock(7000)');
$holder->quit;
is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_actions WHERE idempotency_key = 'the same for all'"), 4,
	'one idempotency key of four accounts is four actions');
$node->safe_psql('postgres', <<'SQL');
INSERT INTO bulk_action_internal.dead_letters (action_no, lane, chunk_no, row_count, payload, attempts)
SELECT action_no, 0, 99, 1, '7,1,secret', 3 FROM bulk_action_internal.actions WHERE state = 'completed';
SQL
# limits that tell whose they are
foreach my $name (qw(acme globex alice bob))
{
	$party{$name}{limit} = 7_000_000 + length($name) * 1000 + ord($name);
	value_of($node, "SELECT bulk_action.bulk_action_set_limits('account', '$party{$name}{account}', max_rows => $party{$name}{limit})");
}
value_of($node, "SELECT bulk_action.bulk_action_set_limits('account', max_rows => 1000000)");
wait_for($node, 'SELECT count(*) = 0 FROM bulk_action_internal.events');
# what is done has left the queue
wait_for($node, 'SELECT count(*) = 0 FROM bulk_action_internal.bulk_action_jobs');

# --- every function, with what belongs to another --------------------------------------------------------------

my $nobody = '11111111-2222-4333-8444-555555555555';

# By signature: a list of calls that must give for the other's id what they give for no action's. `id`
# is the other's, `victim` and `caller` are parties.
my %by_id = (
	'bulk_action_cancel(uuid)' => sub { [ bulk_action_cancel => 0, { action_id => $_[0] } ] },
	'bulk_action_pause(uuid)' => sub { [ bulk_action_pause => 0, { action_id => $_[0] } ] },
	'bulk_action_resume(uuid)' => sub { [ bulk_action_resume => 0, { action_id => $_[0] } ] },
	'bulk_action_retry(uuid,jsonb)' => sub {
		([ bulk_action_retry => 0, { action_id => $_[0] } ], [ bulk_action_retry => 0, { action_id => $_[0], max_errors => '5' } ],
			[ bulk_action_retry => 0, { action_id => $_[0], max_errors => '"nonsense"' } ]);
	},
	'bulk_action_stat(uuid)' => sub { [ bulk_action_stat => 1, { action_id => $_[0] } ] },
	'bulk_action_error_report(uuid,boolean,bigint,bigint)' => sub {
		([ bulk_action_error_report => 0, { action_id => $_[0] } ],
			[ bulk_action_error_report => 0, { action_id => $_[0], neutralize => 'true', after_line => 1, max_rows => 1 } ]);
	},
	'bulk_action_wait(uuid,interval)' => sub { [ bulk_action_wait => 'CALL', { action_id => $_[0], timeout => '0' } ] },
	'bulk_action_submit(text,text,text,jsonb,jsonb,text,text,text,uuid)' => sub {
		([ bulk_action_submit => 0, { source => "file://$good", parent_id => $_[0] } ],
			[ bulk_action_submit => 0, { source => "file://$good", parent_id => $_[0], entity_type => 'contact', idempotency_key => "key of $_[1]" } ]);
	});

# Other calls: what must come of them.
my %other = (
	'bulk_action_submit(text,text,text,jsonb,jsonb,text,text,text,uuid)' => \&submit_as_another,
	'bulk_action_preview(text,text,text,jsonb,integer)' => sub {
		my ($name, $caller, $victim) = @_;
		my ($out, $error) = call($caller, 'bulk_action_preview', 0, { source => "file://$good", entity_type => "of_$victim->{account}" });
		# tables are of roles, and two accounts of one role may change the same
		if ($caller->{role} eq $victim->{role})
		{
			is($error, '', "$name: bulk_action_preview of a table of its own role");
			unlike($out, qr/key of|trace |$victim->{completed}/, "$name: and tells nothing of actions");
		}
		else
		{
			like($error, qr/^ERROR:  42501: .*\nDETAIL: .*\nHINT: /, "$name: bulk_action_preview of a table that the caller may not change is refused");
			unlike($out, qr/cell/, "$name: and tells nothing");
		}
	},
	'bulk_action_purge(interval)' => \&purge_all,
	'bulk_action_adopt()' => sub {
		my ($name, $caller) = @_;
		my (undef, $error) = run_sql($caller, request_sql($caller, 'SELECT bulk_action.bulk_action_adopt()'));
		like($error, qr/^ERROR:  42501: .*\nDETAIL: .*\nHINT: /, "$name: bulk_action_adopt is refused");
	},
	'bulk_action_set_limits(text,text,integer,integer,integer,integer,bigint,bigint)' => sub {
		refused(@_, 42501, bulk_action_set_limits => { kind => 'account', name => $_[2]{account} });
	},
	'bulk_action_clear_limits(text,text)' => sub {
		refused(@_, 42501, bulk_action_clear_limits => { kind => 'account', name => $_[2]{account} });
	},
	'bulk_action_register_entity(text,regclass,text[],text[])' => sub {
		refused(@_, 42501, bulk_action_register_entity => { entity_type => 'contact', target => 'public.contacts', key_columns => '{id}' });
	},
	'bulk_action_unregister_entity(text)' => sub { refused(@_, 42501, bulk_action_unregister_entity => { entity_type => 'contact' }) },
	'bulk_action_grant(text,text,text[])' => sub {
		refused(@_, 42501, bulk_action_grant => { entity_type => 'contact', grantee => $_[1]{role} });
	},
	'bulk_action_revoke(text,text,text[])' => sub {
		refused(@_, 42501, bulk_action_revoke => { entity_type => 'contact', grantee => 'public' });
	});

sub refused
{
	my ($name, $caller, $victim, $code, $function, $argument) = @_;
	my (undef, $error) = call($caller, $function, 0, $argument);
	like($error, qr/^ERROR:  $code: .*\nDETAIL: .*\nHINT: /, "$name: $function is refused");
	return;
}

# With the other's idempotency key, all else the same, and with its account.
sub submit_as_another
{
	my ($name, $caller, $victim) = @_;
	my %argument = (source => "file://$good", options => '{"duplicates": "last"}', idempotency_key => "key of $victim->{account}");
	my ($id, $error) = call($caller, 'bulk_action_submit', 0, \%argument, rollback => 1);
	is($error, '', "$name: its idempotency key is like any other");
	isnt($id, $victim->{completed}, "$name: and does not give its action");

	($id, $error) = call($caller, 'bulk_action_submit', 0, { %argument, account_id => $victim->{account} }, rollback => 1);
	if ($caller->{claims})
	{
		like($error, qr/^ERROR:  42501: permission denied for account "$victim->{account}"\nDETAIL: .*\nHINT: /, "$name: its account is refused");
		my (undef, $for_none) = call($caller, 'bulk_action_submit', 0, { %argument, account_id => 'nobody-at-all' }, rollback => 1);
		is($error =~ s/"$victim->{account}"/ACCOUNT/r, $for_none =~ s/"nobody-at-all"/ACCOUNT/r, "$name: like an account that nobody has");
	}
	else
	{
		is($error, '', "$name: its account and key are another role's");
		isnt($id, $victim->{completed}, "$name: and do not give its action");
	}
	return;
}

# All of the caller's own, taken back.
sub purge_all
{
	my ($name, $caller, $victim) = @_;
	my $claims = literal($caller->{claims} // '');
	my $victims = "'{" . join(',', @{ $victim->{all} }) . "}'";
	my $out = $node->safe_psql('postgres', <<SQL);
BEGIN;
SET LOCAL ROLE $caller->{role};
SELECT set_config('request.jwt.claims', $claims, true) \\g /dev/null
SELECT bulk_action.bulk_action_purge('0');
RESET ROLE;
SELECT app.fingerprint($victims) = $caller->{fingerprint};
ROLLBACK;
SQL
	is($out, "2\nt", "$name: purge forgets the caller's two and nothing else");
	return;
}

my @functions = map { $_->[0] =~ s/^bulk_action\.//r } rows_of($node, <<'SQL');
SELECT replace(p.oid::regprocedure::text, '"', '') FROM pg_proc AS p
WHERE p.pronamespace = 'bulk_action'::regnamespace ORDER BY 1
SQL
cmp_ok(scalar @functions, '>=', 13, 'there are functions');
is_deeply([ grep { !$by_id{$_} && !$other{$_} } @functions ], [], 'every function of the schema is called');
is_deeply([ grep { my $known = $_; !grep { $_ eq $known } @functions } sort keys %by_id, keys %other ], [], 'and there is none that is gone');
my @views = map { $_->[0] } rows_of($node, <<'SQL');
SELECT relname FROM pg_class WHERE relnamespace = 'bulk_action'::regnamespace AND relkind NOT IN ('i', 'c') ORDER BY 1
SQL
cmp_ok(scalar @views, '>=', 7, 'there are views');

# The call for an id: what comes out, with the id in it as ID.
sub outcome
{
	my ($caller, $make, $n, $id, $key_of) = @_;
	my ($function, $set, $argument) = @{ ($make->($id, $key_of))[$n] };
	my ($out, $error);
	if ($set eq 'CALL')
	{
		my $sql = $caller->{login} ? '' : "SET ROLE $caller->{role}; SET request.jwt.claims = " . literal($caller->{claims}) . ";\n";
		($out, $error) = run_sql($caller, $sql . "CALL bulk_action.$function('$argument->{action_id}', '$argument->{timeout}');\n");
	}
	else
	{
		($out, $error) = call($caller, $function, $set, $argument);
	}
	return "$out\n$error" =~ s/\Q$id\E/ID/gr;
}

my $observer = $node->background_psql('postgres');

sub fingerprint
{
	my ($party) = @_;
	return $observer->query_safe("SELECT app.fingerprint('{" . join(',', @{ $party->{all} }) . "}')");
}

# Everything that a caller may try, each as [name, code].
sub attempts
{
	my ($caller_name, $victim_name) = @_;
	my ($caller, $victim) = @party{ $caller_name, $victim_name };
	my @attempts;
	foreach my $function (@functions)
	{
		my $name = "$caller_name at $victim_name";
		if (my $make = $by_id{$function})
		{
			foreach my $n (0 .. scalar(() = $make->($nobody, '')) - 1)
			{
				foreach my $which (qw(completed failed paused))
				{
					push @attempts, sub {
						my $expected = outcome($caller, $make, $n, $nobody, $victim_name);
						is(outcome($caller, $make, $n, $victim->{$which}, $victim_name), $expected, "$name: $function on what is $which");
						like($expected, qr/^\n?ERROR:  42704: bulk action "ID" does not exist\nDETAIL: .*\nHINT: |^(null)?\n\z/, "$name: which is what is said of nothing");
					};
				}
			}
		}
		push @attempts, sub { $other{$function}->($name, $caller, $victim) } if $other{$function};
	}
	my $secrets = join '|', @{ $victim->{all} }, "key of $victim_name", "of $victim_name", "trace $victim_name", $victim->{limit};
	foreach my $view (@views)
	{
		push @attempts, sub {
			my $name = "$caller_name at $victim_name";
			my ($all) = get($caller, $view, '');
			unlike($all, qr/$secrets/, "$name: $view shows none of it");
			my $row = $caller->{login} ? 'v' : qq("$view");
			my ($out, $error) = get($caller, $view, "WHERE $row\::text ~ '$secrets'");
			like("$out$error", qr/^(\|0\|\[\]\|\|\|)?\z/, "$name: nor when asked for it");
			(undef, $error) = get($caller, $view, "WHERE app.leak($row\::text)");
			like($error, qr/NOTICE: .* leaked/, "$name: a function in the condition sees its own") unless $view eq 'bulk_action_permissions';
			unlike($error, qr/ERROR|$secrets/, "$name: and nothing of it");
			foreach my $write ("DELETE FROM bulk_action.$view", "INSERT INTO bulk_action.$view DEFAULT VALUES")
			{
				(undef, $error) = run_sql($caller, request_sql($caller, $write));
				like($error, qr/^ERROR:  (42501: permission denied for|55000: cannot (insert into|delete from)) view "?$view/, "$name: $write");
			}
		};
	}
	return @attempts;
}

srand(310);
foreach my $pair ([qw(acme globex)], [qw(globex acme)], [qw(alice bob)], [qw(bob acme)], [qw(globex alice)])
{
	my ($caller, $victim) = @$pair;
	my $before = fingerprint($party{$victim});
	cmp_ok($before, '=~', qr/actions 3/, "$victim has actions");
	$party{$caller}{fingerprint} = literal($before);
	foreach my $attempt (shuffle(attempts($caller, $victim)))
	{
		$attempt->();
		my $after = fingerprint($party{$victim});
		is($after, $before, "$caller changed nothing of $victim") if $after ne $before;
	}
	is(fingerprint($party{$victim}), $before, "$caller has changed nothing of $victim");
}

# --- the claim ---------------------------------------------------------------------------------------------

# What a request of webuser with these claims sees, and the account that it submits for.
sub with_claims
{
	my ($claims) = @_;
	my $seen = (run_sql($party{acme}, request_sql($party{acme}, 'SELECT count(*) FROM bulk_actions', claims => $claims)))[0];
	my ($account, $error) = run_sql($party{acme}, request_sql($party{acme}, <<SQL, claims => $claims, rollback => 1));
SELECT bulk_action_submit('file://$good') AS id \\gset
SELECT account_id FROM bulk_actions WHERE id = :'id'
SQL
	return "$seen " . ($error =~ /^ERROR:  (\d+: .*)/ ? $1 : $account);
}
is(with_claims('{"app_metadata":{"tenant":"acme"}}'), '3 acme', 'the account is that of the claim');
is(with_claims('{"app_metadata":{"tenant":"initech"}}'), '0 initech', 'one that has no actions yet sees none');
is(with_claims('{"app_metadata":{"tenant":42}}'), '0 42', 'a number is an account');
is(with_claims('{"app_metadata":{"tenant":"ac"}}'), '0 ac', 'a part of the name is another account');
is(with_claims('{"app_metadata":{"tenant":"ACME"}}'), '0 ACME', 'and so is one with other letters');
is(with_claims(''), '6 webuser', 'without claims the role alone counts');
foreach my $claims ('{"role":"webuser"}', '{"tenant":"acme"}', '{"app_metadata":"acme"}', '{"app_metadata":["tenant","acme"]}',
	'{"app_metadata":{"tenant":null}}', '{"app_metadata":{"tenant":""}}', '{"app_metadata":{"tenant":["acme"]}}',
	'{"app_metadata":{"tenant":{"id":"acme"}}}', '{"app_metadata":{"tenant":true}}', '[]', '"acme"', '42', 'null', ' ', 'acme', '{',
	'{"app_metadata":{"tenant":"acme\u0000"}}')
{
	is(with_claims($claims), '0 42501: the claims of this session name no account', "claims $claims: nothing is seen, nothing submitted");
}
like(with_claims('{"app_metadata":{"tenant":"' . 'a' x 300 . '"}}'), qr/^0 54000: /, 'an account that is too long');

# One session, claims by turns: what is kept of them is never another's.
{
	my @turns = map { $party{$_} } qw(acme globex acme globex globex acme);
	my $sql = join '', map { "SELECT set_config('request.jwt.claims', " . literal($_->{claims}) . ", false) \\g /dev/null\nSELECT DISTINCT account_id FROM bulk_action.bulk_actions;\n" } @turns;
	is((run_sql({ login => 'authenticator' }, "SET ROLE webuser;\n$sql"))[0], join("\n", map { $_->{account} } @turns), 'claims by turns in one session');
	is($node->safe_psql('postgres', <<SQL), "acme\nglobex\nglobex", 'the setting by turns in one session');
SET bulk_action.account_claim = 'one';
SET request.jwt.claims = '{"one":"acme", "other, one":{"b\\"c":"globex"}}';
SET ROLE webuser;
SELECT string_agg(DISTINCT account_id, ' ' ORDER BY account_id) FROM bulk_action.bulk_actions;
RESET ROLE;
SET bulk_action.account_claim = '"other, one" , "b""c"';
SET ROLE webuser;
SELECT string_agg(DISTINCT account_id, ' ' ORDER BY account_id) FROM bulk_action.bulk_actions;
SELECT string_agg(DISTINCT account_id, ' ' ORDER BY account_id) FROM bulk_action.bulk_actions;
SQL
	is($node->safe_psql('postgres', <<SQL), "acme globex", 'where no claim is named, claims say nothing');
SET bulk_action.account_claim = '';
SET request.jwt.claims = '{"app_metadata":{"tenant":"acme"}}';
SET ROLE webuser;
SELECT string_agg(DISTINCT account_id, ' ' ORDER BY account_id) FROM bulk_action.bulk_actions;
SQL
}

# --- reading the tables themselves --------------------------------------------------------------------------------

is(value_of($node, <<'SQL'), '', 'every table with rows of actions has row-level security');
SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'action_no'
WHERE c.relnamespace = 'bulk_action_internal'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relrowsecurity
SQL
my @tables = map { $_->[0] } rows_of($node, <<'SQL');
SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'action_no'
WHERE c.relnamespace = 'bulk_action_internal'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1
SQL
cmp_ok(scalar @tables, '>', 15, 'which are many');
my %visible = map { $_ => 1 } qw(actions stats errors superseded dead_letters);

# A row in each table; what somebody counts there is his own. All of it is taken back.
sub counts_as
{
	my ($role, $set, $grant) = @_;
	my $counts = join ' UNION ALL ', map { "SELECT '$_' AS t, count(*) AS n FROM bulk_action_internal.$_" } @tables;
	my $out = $node->safe_psql('postgres', <<SQL);
BEGIN;
LOCK TABLE bulk_action_internal.events;
DO \$do\$
DECLARE t record;
BEGIN
  INSERT INTO bulk_action_internal.events (action_no, kind) SELECT action_no, 'trouble' FROM bulk_action_internal.actions;
  INSERT INTO bulk_action_internal.forgotten SELECT action_no FROM bulk_action_internal.actions;
  INSERT INTO bulk_action_internal.suspects SELECT action_no, 'chunk', 0, 0, 1 FROM bulk_action_internal.actions;
  INSERT INTO bulk_action_internal.keys SELECT action_no, 0, 77, 1, 'x' FROM bulk_action_internal.actions;
  INSERT INTO bulk_action_internal.duplicates SELECT action_no, 0, 77, '{77}', '{78}' FROM bulk_action_internal.actions;
  INSERT INTO bulk_action_internal.bulk_action_jobs SELECT g, action_no, 0, 77, 0, 1, 'x' FROM bulk_action_internal.actions, generate_series(0, 2) AS g;
  FOR t IN SELECT c.oid::regclass AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'action_no'
    WHERE c.relnamespace = 'bulk_action_internal'::regnamespace AND c.relkind IN ('r', 'p')
  LOOP
    EXECUTE format('DO \$x\$ BEGIN IF NOT EXISTS (SELECT FROM %s) THEN RAISE ''%s is empty''; END IF; END \$x\$', t.name, t.name);
  END LOOP;
END \$do\$;
$grant;
SET LOCAL ROLE $role;
$set
COPY ($counts) TO STDOUT;
ROLLBACK;
SQL
	return { map { split /\t/ } split /\n/, $out };
}
my $grant_all = 'GRANT SELECT ON ALL TABLES IN SCHEMA bulk_action_internal TO granted, webuser, agent';
foreach my $case ([ reader => '' ], [ granted => 'and a grant by a DBA' ])
{
	my ($role, $more) = @$case;
	is_deeply(counts_as($role, '', "$grant_all; GRANT USAGE ON SCHEMA bulk_action_internal TO granted"), { map { $_ => 0 } @tables }, "$role $more: of nobody's role, sees nothing in the tables");
}
my $usage = "$grant_all; GRANT USAGE ON SCHEMA bulk_action_internal TO webuser, agent";
my $own = counts_as('webuser', "SET LOCAL request.jwt.claims = '$party{acme}{claims}';", $usage);
is($own->{actions}, 3, 'acme, with a grant, sees its actions in the table');
is($own->{$_}, value_of($node, "SELECT count(*) FROM bulk_action_internal.$_ WHERE action_no IN
	(SELECT action_no FROM bulk_action_internal.actions WHERE account_id = 'acme')"),
	"and its own $_") foreach grep { $visible{$_} } @tables;
is_deeply([ grep { $own->{$_} > 0 } @tables ], [ sort keys %visible ], 'and nothing of the queue');
cmp_ok($own->{$_}, '>', 0, "there are $_") foreach sort keys %visible;
is(counts_as('webuser', "SET LOCAL request.jwt.claims = '{}';", $usage)->{actions}, 0, 'with claims of no account it sees none');
is(counts_as('agent', '', $usage)->{actions}, 12, 'an admin sees all');
{
	my ($status, $out, $error) = $node->psql('postgres', 'SET row_security = off; SELECT count(*) FROM bulk_action_internal.errors',
		connstr => $node->connstr('postgres') . ' user=reader');
	like($error, qr/query would be affected by row-level security policy/, 'nor is there a way around it');
	is($node->safe_psql('postgres', 'SET row_security = off; SELECT count(*) FROM bulk_action.bulk_actions',
			connstr => $node->connstr('postgres') . ' user=alice'), 3, 'views do not mind that setting');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM bulk_action.bulk_actions', connstr => $node->connstr('postgres') . ' user=idle'), 0,
		'a role that has submitted nothing sees nothing');
}

# --- the admin ------------------------------------------------------------------------------------------------------

{
	my $agent = $party{agent};
	is((run_sql($agent, request_sql($agent, 'SELECT count(*), count(DISTINCT account_id) FROM bulk_actions')))[0], '12|4', 'an admin sees all');
	like((call($agent, 'bulk_action_stat', 1, { action_id => $party{bob}{completed} }))[0], qr/completed/, 'the statistics too');
	like((call($agent, 'bulk_action_error_report', 0, { action_id => $party{globex}{completed} }))[0], qr/_error_code/, 'and error reports');
	like((call($agent, 'bulk_action_submit', 0, { source => "file://$good" }))[1], qr/42501: the claims of this session name no account/,
		'but submits for no account that his claims do not name');
	is((call($agent, 'bulk_action_cancel', 0, { action_id => $party{acme}{paused} }))[0], 'true', 'may cancel');
	is((call($agent, 'bulk_action_resume', 0, { action_id => $party{globex}{paused} }))[0], 'true', 'and resume');
	is((call($agent, 'bulk_action_retry', 0, { action_id => $party{alice}{failed} }))[0], 'true', 'and retry');
	is((call($agent, 'bulk_action_pause', 0, { action_id => $party{bob}{paused} }))[0], 'false', 'and pause, what is paused already');
	wait_for($node, "SELECT string_agg(state, ' ' ORDER BY action_no) = 'cancelled completed paused' FROM bulk_action_internal.actions
		WHERE id IN ('$party{acme}{paused}', '$party{globex}{paused}', '$party{bob}{paused}')");
	wait_for($node, "SELECT state = 'failed' FROM bulk_action_internal.actions WHERE id = '$party{alice}{failed}'");
	is((call($agent, 'bulk_action_purge', 0, { older_than => '0' }))[0], 10, 'and purge');
	is(value_of($node, "SELECT string_agg(account_id || ' ' || state, ', ' ORDER BY account_id) FROM bulk_action.bulk_actions"), 'alice paused, bob paused', 'what has ended is gone');
	$node->safe_psql('postgres', 'REVOKE support FROM agent');
	is((run_sql($agent, request_sql($agent, 'SELECT count(*) FROM bulk_actions')))[0], 0, 'one who is no admin any more sees nothing');
	like((call($agent, 'bulk_action_cancel', 0, { action_id => $party{bob}{paused} }))[1], qr/42704/, 'and controls nothing');
	$node->safe_psql('postgres', 'DROP ROLE support');
	is((run_sql($agent, request_sql($agent, 'SELECT count(*) FROM bulk_actions')))[0], 0, 'a role that does not exist has no members');
}
$observer->quit;

done_testing();
