# Limits per account and per role. What is submitted is counted exactly, also by fifty at once, over
# isolation levels, rollbacks, repeats and purges, and is refused in the way that PostgREST turns into
# HTTP 429; running actions wait their turn, rows go at the pace that is set, files that are too large
# are not applied.
use strict;
use warnings;

use BulkAction;
use JSON::PP;
use POSIX qw(ceil);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('main', conf => <<CONF);
max_connections = 100
max_worker_processes = 12
bulk_action.max_workers = 4
CONF
my $root = $node->basedir . '/files';
mkdir $root or die "$root: $!";
$node->append_conf('postgresql.conf', "bulk_action.file_root = '$root'");
$node->reload;
create_role($node, $_) foreach qw(alice bob carol);
my $keys = 40_000;
$node->safe_psql('postgres', <<"SQL");
CREATE TABLE items (id integer PRIMARY KEY, n integer NOT NULL);
CREATE TABLE others (LIKE items INCLUDING ALL);
INSERT INTO items SELECT i, 0 FROM generate_series(1, $keys) AS i;
INSERT INTO others SELECT i, 0 FROM generate_series(1, $keys) AS i;
SELECT bulk_action.bulk_action_register_entity('item', 'items', ARRAY['id']);
SELECT bulk_action.bulk_action_register_entity('other', 'others', ARRAY['id']);
SELECT bulk_action.bulk_action_grant('item', 'public'), bulk_action.bulk_action_grant('other', 'public');
GRANT pg_read_server_files TO alice, bob, carol;
GRANT SELECT, UPDATE ON items, others TO alice, bob, carol;
-- whoever updates item 7 waits while somebody has the lock 7
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
	\$\$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN new; END \$\$;
CREATE TRIGGER hold BEFORE UPDATE ON items FOR EACH ROW WHEN (old.id = 7) EXECUTE FUNCTION hold();
CREATE TRIGGER hold BEFORE UPDATE ON others FOR EACH ROW WHEN (old.id = 7) EXECUTE FUNCTION hold();
SQL

my $files = 0;

# file_of(@ids): a file that sets n of these rows to its number.
sub file_of
{
	my @ids = @_;
	$files++;
	return write_file("$root/$files.csv", join '', "id,n\n", map { "$_,$files\n" } @ids);
}

my $small = file_of(1);
my $held = file_of(7);

sub submit_sql
{
	my ($path, %argument) = @_;
	$argument{entity_type} //= 'item';
	# rows that say what is there already are written all the same: their triggers wait
	$argument{options} //= '{"skip_unchanged": false}';
	return "SELECT bulk_action.bulk_action_submit('file://$path'"
	  . join('', map { ", $_ => '$argument{$_}'" } sort keys %argument) . ')';
}

sub submit
{
	my ($as, $path, %argument) = @_;
	return value_of($node, submit_sql($path, %argument), as => $as);
}

# attempt($as, $sql): what came of it: id or undef, and message, detail, hint, code of the error.
sub attempt
{
	my ($as, $sql) = @_;
	my ($out, $err);
	$node->psql('postgres', "\\set VERBOSITY verbose\nSET SESSION AUTHORIZATION $as;\n$sql;", stdout => \$out, stderr => \$err);
	return { id => (split /\n/, $out)[-1] } if $err !~ /ERROR/;
	my %error;
	@error{qw(code message)} = $err =~ /ERROR:  (\w{5}): (.*)/;
	($error{detail}) = $err =~ /^DETAIL:  (.*)/m;
	($error{hint}) = $err =~ /^HINT:  (.*)/m;
	return \%error;
}

sub set_limits
{
	my ($kind, $name, %limit) = @_;
	$name = defined $name ? "'$name'" : 'NULL';
	value_of($node, "SELECT bulk_action.bulk_action_set_limits('$kind', $name" . join('', map { ", $_ => $limit{$_}" } sort keys %limit) . ')');
}

sub forget_limits
{
	value_of($node, 'SELECT bulk_action.bulk_action_clear_limits(kind, name) FROM bulk_action_internal.limits');
	value_of($node, "UPDATE bulk_action_internal.actions SET submitted_at = submitted_at - interval '2 minutes'");
}

sub state_of { return value_of($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$_[0]'") }

sub ended
{
	my ($id) = @_;
	wait_for($node, "SELECT state NOT IN ('queued', 'running', 'paused') FROM bulk_action.bulk_actions WHERE id = '$id'");
	my ($row) = rows_of($node, <<"SQL");
SELECT s.state, s.error_code, s.total, s.updated, s.unprocessed, a.error_message, a.error_detail
FROM bulk_action.bulk_action_stat('$id') AS s, bulk_action.bulk_actions AS a WHERE a.id = '$id'
SQL
	my %stat;
	@stat{qw(state code total updated unprocessed message detail)} = @$row;
	return \%stat;
}

sub all_ended
{
	wait_for($node, "SELECT NOT EXISTS (SELECT FROM bulk_action.bulk_actions WHERE state IN ('queued', 'running', 'paused'))");
}

sub is_refused
{
	my ($error, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($error->{code}, 'BA429', $name) or diag(explain($error));
	return $error;
}

my $holder = $node->background_psql('postgres', on_error_stop => 0);

sub hold { $holder->query_safe('SELECT pg_advisory_lock(7)') }
sub let_go { $holder->query_safe('SELECT pg_advisory_unlock(7)') }

# --- submissions per minute -----------------------------------------------------------------------------

set_limits('account', 'acme', submissions_per_minute => 3);
{
	ok(attempt('alice', submit_sql($small, account_id => 'acme'))->{id}, "submission $_ of 3") foreach 1 .. 3;
	my $error = is_refused(attempt('alice', submit_sql($small, account_id => 'acme')), 'the fourth is refused');
	is($error->{message}, 'too many bulk actions are submitted by account "acme"', 'message');
	is($error->{detail}, 'It may submit 3 in a minute, and has done so.', 'detail');
	like($error->{hint}, qr/^Try again in \d+ s\.$/, 'hint');
	is_refused(attempt('bob', submit_sql($small, account_id => 'acme')), 'by whatever role');
	is_refused(attempt('postgres', submit_sql($small, account_id => 'acme')), 'a superuser is no exception');
	ok(submit('alice', $small, account_id => 'other'), 'another account has no limit');
	ok(submit('alice', $small), 'nor has the default one');

	# The time to wait, to the second: the oldest of the last three is 48.5 s old.
	my $age = sub { value_of($node, <<"SQL") };
UPDATE bulk_action_internal.actions AS a SET submitted_at = clock_timestamp() - make_interval(secs => $_[0] - 5 * (n - 1))
FROM (SELECT action_no, row_number() OVER (ORDER BY action_no) AS n FROM bulk_action_internal.actions WHERE account_id = 'acme') AS s
WHERE a.action_no = s.action_no
SQL
	my $oldest = sub { value_of($node, "SELECT extract(epoch FROM min(submitted_at)) FROM bulk_action_internal.actions WHERE account_id = 'acme'") };
	$age->(48.5);
	my $before = time;
	$error = attempt('alice', submit_sql($small, account_id => 'acme'));
	my ($wait) = $error->{hint} =~ /(\d+) s/;
	my $leaves = $oldest->() + 60;
	cmp_ok($wait, '<=', ceil($leaves - $before), 'the wait is not longer than until the oldest leaves the minute');
	cmp_ok($wait, '>=', ceil($leaves - time), 'nor shorter');
	# as if that time had passed
	$age->(48.5 + $wait);
	ok(submit('alice', $small, account_id => 'acme'), 'after that time there is room for one');
	is_refused(attempt('alice', submit_sql($small, account_id => 'acme')), 'and not for two');
}
forget_limits();

set_limits('account', 'acme', submissions_per_minute => 3);
{
	# in one statement, in one transaction, over savepoints
	my $one = submit_sql($small, account_id => 'acme');
	is_refused(attempt('alice', "$one FROM generate_series(1, 4)"), 'four in one statement');
	is_refused(attempt('alice', "BEGIN; $one; $one; SAVEPOINT s; $one; ROLLBACK TO s; $one; $one"), 'four in one transaction');
	is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_actions WHERE submitted_at > now() - interval '1 minute'"), 0, 'rolled back, all of it');
	ok(attempt('alice', "BEGIN; $one; $one; SAVEPOINT s; $one; ROLLBACK TO s; $one; COMMIT")->{id}, 'three and one that was rolled back');
	foreach my $level ('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE')
	{
		is_refused(attempt('alice', "BEGIN ISOLATION LEVEL $level; SELECT count(*) FROM items; $one"), $level);
	}
}
forget_limits();

set_limits('account', 'acme', submissions_per_minute => 1);
{
	# A snapshot from before the others were committed
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM items');
	my $id = submit('alice', $small, account_id => 'acme', idempotency_key => 'k');
	my $outcome = $session->query("DO \$\$ BEGIN PERFORM bulk_action.bulk_action_submit('file://$small', entity_type => 'item', account_id => 'acme');
		EXCEPTION WHEN SQLSTATE 'BA429' THEN PERFORM set_config('test.refused', 'yes', false); END \$\$;\nSELECT current_setting('test.refused', true)");
	like($outcome, qr/yes/, 'an old snapshot does not hide what was submitted since');
	$session->quit;

	is(submit('alice', $small, account_id => 'acme', idempotency_key => 'k'), $id, 'a repeat is no submission');
	is_refused(attempt('alice', submit_sql($small, account_id => 'acme', idempotency_key => 'l')), 'a new key is one');

	# Nobody makes room by purging.
	ended($id);
	value_of($node, "SELECT bulk_action.bulk_action_purge('0')", as => 'alice');
	is(state_of($id), 'completed', 'purge keeps what is counted');
	is_refused(attempt('alice', submit_sql($small, account_id => 'acme')), 'after a purge');
}
forget_limits();
all_ended();
cmp_ok(value_of($node, "SELECT bulk_action.bulk_action_purge('0')"), '>', 0, 'without limits it goes');

# Own limits come before those of all, also where they are none; role and account both count.
set_limits('account', undef, submissions_per_minute => 2);
set_limits('account', 'large', submissions_per_minute => 4);
set_limits('account', 'free');
set_limits('role', 'bob', submissions_per_minute => 5);
{
	my $accepted = sub { my ($as, $account) = @_; my $n = 0; $n++ while $n < 8 && attempt($as, submit_sql($small, account_id => $account))->{id}; return $n };
	is($accepted->('alice', 'one'), 2, 'the limit of all accounts');
	is($accepted->('alice', 'two'), 2, 'is one of each');
	is($accepted->('alice', 'large'), 4, 'an own one is larger');
	is($accepted->('alice', 'free'), 8, 'or none at all');
	is($accepted->('bob', 'free'), 5, 'a role has its own');
	my $error = is_refused(attempt('bob', submit_sql($small, account_id => 'free')), 'whatever the account');
	is($error->{message}, 'too many bulk actions are submitted by role "bob"', 'and it is named');
	set_limits('role', undef, submissions_per_minute => 1);
	is($accepted->('carol', 'free'), 1, 'one for all roles');
	is($accepted->('carol', 'three'), 0, 'counts over accounts');
	is($accepted->('bob', 'three'), 0, 'not beside the own one');

	# of two reasons the one that lasts longer
	value_of($node, "UPDATE bulk_action_internal.actions SET submitted_at = submitted_at - interval '30 seconds' WHERE submitted_by = 'bob'");
	submit('postgres', $small, account_id => 'two-reasons');
	value_of($node, "SELECT bulk_action.bulk_action_set_limits('account', 'two-reasons', submissions_per_minute => 1)");
	$error = is_refused(attempt('bob', submit_sql($small, account_id => 'two-reasons')), 'both are used up');
	like($error->{message}, qr/account "two-reasons"/, 'the later end is told');
}
forget_limits();
all_ended();

# --- as PostgREST does it ---------------------------------------------------------------------------------

{
	my $account = qq(a"b\\c\x{263a}{}\$\$ \x07);
	utf8::encode(my $bytes = $account);
	my $literal = "'" . ($bytes =~ s/'/''/gr) . "'";
	set_limits('account', $bytes, submissions_per_minute => 1);
	my $request = sub {
		my ($method) = @_;
		return attempt('alice', <<"SQL");
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SELECT set_config('search_path', '"bulk_action", "public"', true), set_config('role', 'alice', true),
	set_config('request.jwt.claims', '{"role":"alice"}', true), set_config('request.method', '$method', true),
	set_config('request.path', '/rpc/bulk_action_submit', true), set_config('request.headers', '{}', true), set_config('request.cookies', '{}', true);
WITH pgrst_source AS (SELECT pgrst_call.pgrst_scalar FROM (SELECT 1) pgrst_payload, LATERAL (SELECT "bulk_action"."bulk_action_submit"(
	"source" := 'file://$small', "entity_type" := 'item', "account_id" := $literal) pgrst_scalar) pgrst_call) SELECT pgrst_scalar FROM pgrst_source;
COMMIT
SQL
	};
	ok($request->('POST')->{id}, 'a request that is allowed');
	my $error = $request->('POST');
	is($error->{code}, 'PGRST', 'a request that is not is answered for PostgREST') or diag(explain($error));
	my $body = decode_json($error->{message});
	my $answer = decode_json($error->{detail});
	is_deeply([ sort keys %$body ], [qw(code details hint message)], 'the body has what PostgREST wants');
	is($body->{code}, 'BA429', 'code');
	my $shown = $account =~ s/\x07/\\x07/r;
	is($body->{message}, qq(too many bulk actions are submitted by account "$shown"), 'message, unharmed but for the control character');
	is($body->{details}, 'It may submit 1 in a minute, and has done so.', 'details');
	my ($wait) = $body->{hint} =~ /^Try again in (\d+) s\.$/;
	is_deeply($answer, { status => 429, headers => { 'Retry-After' => "$wait" } }, 'status and header');
	cmp_ok($wait, '>=', 1, 'at least a second');
	cmp_ok($wait, '<=', 60, 'at most a minute');
	is_refused($request->(''), 'an empty method is no request');
}
forget_limits();

# --- fifty at once ------------------------------------------------------------------------------------------

# submit_at_once($n, $sql_of): as many sessions, which wait for each other before they submit; counts the
# outcomes.
sub submit_at_once
{
	my ($n, $sql_of) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir();
	my $gate = $node->background_psql('postgres');
	$gate->query_safe('SELECT pg_advisory_lock(50)');
	my @pids;
	foreach my $i (1 .. $n)
	{
		write_file("$folder/$i.sql", "SELECT pg_advisory_xact_lock_shared(50);\n" . $sql_of->($i) . ";\n\\echo outcome :SQLSTATE\n");
		my $pid = fork() // die "fork: $!";
		if ($pid == 0)
		{
			open(STDOUT, '>', "$folder/$i.out") or POSIX::_exit(1);
			open(STDERR, '>&', \*STDOUT);
			exec('psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', "$folder/$i.sql") or POSIX::_exit(1);
		}
		push @pids, $pid;
	}
	wait_for($node, "SELECT count(*) = $n FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 50");
	$gate->query_safe('SELECT pg_advisory_unlock(50)');
	waitpid($_, 0) foreach @pids;
	$gate->quit;
	my %outcome;
	foreach my $i (1 .. $n)
	{
		my ($code) = read_file("$folder/$i.out") =~ /^outcome (\w+)$/m;
		$outcome{ $code // 'none' }++;
	}
	return \%outcome;
}

sub as { return "SET SESSION AUTHORIZATION $_[0];\n$_[1]" }

set_limits('account', 'acme', submissions_per_minute => 20);
is_deeply(submit_at_once(50, sub { as('alice', submit_sql($small, account_id => 'acme')) }),
	{ '00000' => 20, BA429 => 30 }, 'fifty submitters of one account: exactly as many as are allowed');
forget_limits();

set_limits('role', 'alice', submissions_per_minute => 17);
set_limits('account', undef, submissions_per_minute => 10);
{
	my $outcome = submit_at_once(50, sub { as('alice', submit_sql($small, account_id => 'group' . $_[0] % 5)) });
	is_deeply($outcome, { '00000' => 17, BA429 => 33 }, 'fifty of one role, over five accounts');
}
forget_limits();

set_limits('account', undef, submissions_per_minute => 4);
{
	my $outcome = submit_at_once(50, sub { as($_[0] % 2 ? 'alice' : 'bob', submit_sql($small, account_id => 'crowd' . $_[0] % 5)) });
	is_deeply($outcome, { '00000' => 20, BA429 => 30 }, 'fifty over five accounts and two roles');
	is_deeply([ rows_of($node, "SELECT account_id, count(*) FROM bulk_action.bulk_actions WHERE account_id LIKE 'crowd%' GROUP BY 1 ORDER BY 1") ],
		[ map { [ "crowd$_", 4 ] } 0 .. 4 ], 'each account has its own');
}
forget_limits();

set_limits('account', 'acme', submissions_per_minute => 10);
{
	# half of them roll back: their places are taken by others
	submit_at_once(50, sub {
		my $sql = submit_sql($small, account_id => 'acme');
		return as('alice', $_[0] % 2 ? "BEGIN;\n$sql;\nROLLBACK" : $sql);
	});
	is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_actions WHERE account_id = 'acme' AND submitted_at > now() - interval '1 minute'"),
		10, 'those who roll back take nobody\'s place');
}
forget_limits();

set_limits('account', 'acme', submissions_per_minute => 3);
{
	my $outcome = submit_at_once(50, sub { as('alice', submit_sql($small, account_id => 'acme', idempotency_key => 'same')) });
	is_deeply($outcome, { '00000' => 50 }, 'fifty repeats of one submission');
	is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_actions WHERE idempotency_key = 'same'"), 1, 'are one action');
}
forget_limits();
all_ended();

hold();
set_limits('account', 'acme', queued_actions => 12);
set_limits('role', 'bob', queued_actions => 9);
{
	my $first = submit('alice', $held, account_id => 'acme');
	wait_for($node, "SELECT state = 'running' FROM bulk_action.bulk_actions WHERE id = '$first'");
	is_deeply(submit_at_once(50, sub { as('alice', submit_sql($small, account_id => 'acme')) }),
		{ '00000' => 12, BA429 => 38 }, 'fifty submitters and a queue of twelve');
	my $error = is_refused(attempt('alice', submit_sql($small, account_id => 'acme')), 'the queue is full');
	is($error->{message}, 'too many bulk actions of account "acme" are waiting', 'message');
	is($error->{detail}, 'It may have 12 that are queued or paused, and has them.', 'detail');
	like($error->{hint}, qr/^Try again when one of them has begun, in about \d+ s, or cancel one\.$/, 'hint');
	is_deeply(
		[ rows_of($node, "SELECT queued_actions, waiting, running FROM bulk_action.bulk_action_limits WHERE kind = 'account' AND name = 'acme'") ],
		[ [ 12, 12, 1 ] ], 'the view says so');
	is_deeply([ rows_of($node, "SELECT count(*) FROM bulk_action.bulk_action_limits WHERE name = 'bob'") ], [ [1] ], 'of a role too');

	# bob's own are in the stream behind
	my $bobs = submit('bob', $held, account_id => 'bobs');
	wait_for($node, "SELECT state = 'running' FROM bulk_action.bulk_actions WHERE id = '$bobs'");
	is_deeply(submit_at_once(50, sub { as('bob', submit_sql($small, account_id => 'bobs')) }),
		{ '00000' => 9, BA429 => 41 }, 'of a role');

	# in a copy of the database those of the original are left alone, and do not count
	my $in_copy = attempt('alice', "RESET SESSION AUTHORIZATION; BEGIN; UPDATE bulk_action_internal.actions SET origin = 'another' WHERE account_id = 'acme' AND state = 'queued'; "
		  . submit_sql($small, account_id => 'acme') . '; ROLLBACK');
	ok($in_copy->{id}, 'there is room beside them') or diag(explain($in_copy));

	# a paused action waits too; a cancelled one does not
	my ($one, $two) = map { $_->[0] } rows_of($node, "SELECT id FROM bulk_action.bulk_actions WHERE account_id = 'acme' AND state = 'queued' LIMIT 2");
	value_of($node, "SELECT bulk_action.bulk_action_pause('$one')");
	wait_for($node, "SELECT state = 'paused' FROM bulk_action.bulk_actions WHERE id = '$one'");
	is_refused(attempt('alice', submit_sql($small, account_id => 'acme')), 'one of them is paused');
	value_of($node, "SELECT bulk_action.bulk_action_cancel('$two')");
	wait_for($node, "SELECT state = 'cancelled' FROM bulk_action.bulk_actions WHERE id = '$two'");
	ok(submit('alice', $small, account_id => 'acme'), 'one of them is cancelled');
	is_refused(attempt('alice', submit_sql($small, account_id => 'acme')), 'that was the last place');
	value_of($node, "SELECT bulk_action.bulk_action_resume('$one')");
}
let_go();
all_ended();
ok(submit('alice', $small, account_id => 'acme'), 'when the queue is empty there is room');
forget_limits();

# --- whom one waits for ---------------------------------------------------------------------------------------

set_limits('account', undef, submissions_per_minute => 1);
foreach my $end ('COMMIT', 'ROLLBACK')
{
	my $account = lc $end;
	my ($one, $two) = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 2;
	my $sql = submit_sql($small, account_id => $account);
	$one->query_safe("BEGIN; $sql; SELECT pg_advisory_unlock_all()");
	$two->query_until(qr/begun/, "\\echo begun\n$sql;\n\\echo outcome :SQLSTATE\n");
	wait_for($node, "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND classid = 'bulk_action_internal.limits'::regclass");
	pass("the second waits for the first ($end)");
	ok(submit('alice', $small, account_id => "beside-$account"), 'another account does not');
	is(value_of($node, "SELECT count(*) FROM pg_locks WHERE granted AND locktype = 'advisory'"), 0, 'there is no advisory lock');
	$one->query_safe($end);
	my $outcome = $two->query('SELECT 1');
	wait_for($node, "SELECT count(*) = 0 FROM pg_locks WHERE NOT granted");
	$one->quit;
	$two->quit;
	is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_actions WHERE account_id = '$account'"), 1, 'one of them was accepted');
	like($outcome, $end eq 'COMMIT' ? qr/outcome BA429/ : qr/outcome 00000/, $end eq 'COMMIT' ? 'the first' : 'the second');
}
forget_limits();

# --- concurrent actions ---------------------------------------------------------------------------------------

# How many of the actions were running at the same moment, at most, by their times.
sub most_at_once
{
	my ($where) = @_;
	return value_of($node, <<"SQL");
SELECT max(n) FROM (SELECT count(*) AS n FROM bulk_action.bulk_actions AS a JOIN bulk_action.bulk_actions AS b
	ON b.started_at <= a.started_at AND b.finished_at > a.started_at
	WHERE a.$where AND b.$where GROUP BY a.id) AS s
SQL
}

set_limits('account', 'acme', concurrent_actions => 1);
hold();
{
	my $one = submit('alice', $held, account_id => 'acme');
	my $two = submit('alice', $small, account_id => 'acme', entity_type => 'other');
	my $elsewhere = submit('alice', $small, account_id => 'beside', entity_type => 'other');
	is(ended($elsewhere)->{state}, 'completed', 'another account goes on');
	is_deeply([ state_of($one), state_of($two) ], [ 'running', 'queued' ], 'one action of the account runs, the other waits, though its stream is free');
	set_limits('account', 'acme', concurrent_actions => 2);
	is(ended($two)->{state}, 'completed', 'with a larger limit it begins at once');
	is(state_of($one), 'running', 'beside the first');
	set_limits('account', 'acme', concurrent_actions => 1);
	my $three = submit('alice', $small, account_id => 'acme', entity_type => 'other');
	my $four = submit('bob', $small, account_id => 'acme', entity_type => 'other');
	let_go();
	is(ended($_)->{state}, 'completed', 'all of them get their turn') foreach $one, $three, $four;
	forget_limits();
}
set_limits('role', 'bob', concurrent_actions => 2);
hold();
{
	my @blocked = map { submit('bob', $held, account_id => "b$_") } 1 .. 6;
	my $alices = submit('alice', $small, account_id => 'alices', entity_type => 'other');
	is(ended($alices)->{state}, 'completed', 'another role goes on');
	is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_actions WHERE submitted_by = 'bob' AND state = 'running'"), 2, 'two of a role run');
	let_go();
	ended($_) foreach @blocked;
	is(most_at_once("account_id IN ('b1', 'b2', 'b3', 'b4', 'b5', 'b6')"), 2, 'never more than two, and not fewer');
	forget_limits();
}
# One account without room does not keep another from using that of the role.
set_limits('role', 'bob', concurrent_actions => 2);
set_limits('account', 'x', concurrent_actions => 1);
hold();
{
	my @x = map { submit('bob', $held, account_id => 'x', entity_type => $_) } qw(item other);
	wait_for($node, "SELECT state = 'running' FROM bulk_action.bulk_actions WHERE id = '$x[0]'");
	my $y = submit('bob', $small, account_id => 'y', entity_type => 'other');
	is(ended($y)->{state}, 'completed', 'the second place of the role goes to another account');
	is(state_of($x[1]), 'queued', 'not to the one that may have only one');
	let_go();
	ended($_) foreach @x;
	forget_limits();
}
# Accounts take turns with what their role may do.
set_limits('role', 'bob', concurrent_actions => 1);
hold();
{
	my @hog = map { submit('bob', $_ == 1 ? $held : $small, account_id => 'hog') } 1 .. 6;
	my @late = map { submit('bob', $small, account_id => "late$_") } 1 .. 3;
	let_go();
	ended($_) foreach @hog, @late;
	my $order = value_of($node, "SELECT string_agg(left(account_id, 1), '' ORDER BY started_at) FROM bulk_action.bulk_actions WHERE id IN ("
		  . join(', ', map { "'$_'" } @hog, @late) . ')');
	is($order, 'hlllhhhhh', 'an account with a long queue does not have the role to itself');
	is(most_at_once("id IN (" . join(', ', map { "'$_'" } @hog, @late) . ')'), 1, 'one at a time');
}
forget_limits();

# --- rows per second ------------------------------------------------------------------------------------------

sub seconds_of
{
	my ($ids) = @_;
	return value_of($node, "SELECT extract(epoch FROM max(finished_at) - min(started_at)) FROM bulk_action.bulk_actions WHERE id IN ("
		  . join(', ', map { "'$_'" } @$ids) . ')');
}

set_limits('account', 'slow', rows_per_second => 2000);
{
	my $id = submit('alice', file_of(1 .. 10_000), account_id => 'slow');
	is_deeply([ @{ ended($id) }{qw(state updated)} ], [ 'completed', 10_000 ], 'ten thousand rows');
	# 9000 of them are handed out before the last chunk; a machine that is slow only makes it longer
	cmp_ok(seconds_of([$id]), '>=', 4, 'take as long as they have to at 2000 rows/s');
}
set_limits('role', 'bob', rows_per_second => 1000);
{
	# the time counts over actions and over accounts, and chunks are charged with what they have
	my @ids = map { submit('bob', file_of(1 .. 500), account_id => "bobs$_", entity_type => 'other') } 1 .. 8;
	is(ended($_)->{updated}, 500, 'five hundred rows') foreach @ids;
	cmp_ok(seconds_of(\@ids), '>=', 3.4, 'eight times five hundred rows at 1000 rows/s');
	my $rest = submit('bob', $small, account_id => 'bobs');
	is(ended($rest)->{state}, 'completed', 'and one more');
}
forget_limits();
set_limits('account', 'slow', rows_per_second => 10);
{
	my $slow = submit('alice', file_of(1 .. 20_000), account_id => 'slow', entity_type => 'other');
	wait_for($node, "SELECT updated > 0 FROM bulk_action.bulk_action_stat('$slow')");
	my $fast = submit('alice', file_of(1 .. $keys), account_id => 'fast');
	is_deeply([ @{ ended($fast) }{qw(state updated)} ], [ 'completed', $keys ], 'another account of the same session user is done');
	my $bobs = submit('bob', file_of(1 .. 5000), account_id => 'bobs');
	is(ended($bobs)->{updated}, 5000, 'another role too');
	is(state_of($slow), 'running', 'while the slow one is still at it');
	cmp_ok(value_of($node, "SELECT updated FROM bulk_action.bulk_action_stat('$slow')"), '<=', 1100, 'and has had one chunk');
	is(value_of($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bulk_action worker' AND query LIKE '%$slow' AND state = 'active'"),
		0, 'no worker waits inside of it');

	# what is left goes at the new pace at once: at the old one the next chunk would be due in minutes
	set_limits('account', 'slow', rows_per_second => 1_000_000);
	is_deeply([ @{ ended($slow) }{qw(state updated)} ], [ 'completed', 20_000 ], 'a faster pace is in force at once');
	forget_limits();
}
# Chunks that were in flight at a crash run alone, but nobody waits for one whose time has not come.
set_limits('account', 'slow', rows_per_second => 1_000_000);
hold();
{
	my @slow = map { submit('alice', file_of(1 .. 1000), account_id => 'slow', entity_type => $_) } qw(item other);
	wait_for($node, "SELECT count(*) = 2 FROM pg_stat_activity WHERE query LIKE 'applying %' AND wait_event_type = 'Lock'");
	set_limits('account', 'slow', rows_per_second => 5);
	my ($worker) = pids_of($node, 'bulk_action worker');
	kill 'KILL', $worker or die "$worker: $!";
	wait_for($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $worker)");
	my $ids = join ', ', map { "'$_'" } @slow;
	wait_for($node, "SELECT count(*) = 1 FROM bulk_action.bulk_actions WHERE id IN ($ids) AND state = 'completed'");
	my $fast = submit('alice', file_of(1 .. 3000), account_id => 'fast');
	is(ended($fast)->{updated}, 3000, 'after a crash other accounts go on');
	is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_actions WHERE id IN ($ids) AND state = 'running'"),
		1, 'while the second chunk that was in flight waits for its time');
	set_limits('account', 'slow', rows_per_second => 1_000_000);
	is(ended($_)->{updated}, 1000, 'both are applied') foreach @slow;
	$holder = $node->background_psql('postgres', on_error_stop => 0);
}
set_limits('account', 'slow', rows_per_second => 10);
{
	my $slow = submit('alice', file_of(1 .. 3000), account_id => 'slow');
	wait_for($node, "SELECT updated > 0 FROM bulk_action.bulk_action_stat('$slow')");
	value_of($node, "SELECT bulk_action.bulk_action_cancel('$slow')");
	is(ended($slow)->{state}, 'cancelled', 'a slow one can be cancelled');
}
forget_limits();

# --- sizes of files --------------------------------------------------------------------------------------------

sub applied { return value_of($node, "SELECT count(*) FROM items WHERE n = $files") }

sub is_too_large
{
	my ($id, $detail, $name) = @_;
	my $s = ended($id);
	is_deeply([ @$s{qw(state code)} ], [ 'failed', 'BA413' ], $name) or diag(explain($s));
	like($s->{detail}, $detail, "$name: detail");
	return $s;
}

{
	my $path = file_of(1 .. 1000);
	my $size = -s $path;
	set_limits('account', 'acme', max_bytes => $size - 1);
	my $id = submit('alice', $path, account_id => 'acme');
	my $s = is_too_large($id, qr/^Account "acme" may submit files of @{[ $size - 1 ]} bytes; this one has $size\.$/, 'a byte too many');
	is($s->{message}, 'the file has more bytes than may', 'message');
	is(applied(), 0, 'nothing was applied');
	value_of($node, "SELECT bulk_action.bulk_action_retry('$id')");
	wait_for($node, "SELECT NOT EXISTS (SELECT FROM bulk_action_internal.events)");
	is_too_large($id, qr/bytes/, 'nor is it when it is tried again');
	set_limits('account', 'acme', max_bytes => $size);
	value_of($node, "SELECT bulk_action.bulk_action_retry('$id')");
	wait_for($node, "SELECT state = 'completed' FROM bulk_action.bulk_actions WHERE id = '$id'");
	is(applied(), 1000, 'with a larger limit it is');

	set_limits('role', 'alice', max_bytes => 10);
	is_too_large(submit('alice', $path, account_id => 'acme'), qr/^Role "alice" may submit files of 10 bytes/, 'the limit of a role');
	forget_limits();
}
foreach my $options ('{}', '{"duplicates": "last"}')
{
	set_limits('account', 'acme', max_rows => 1000);
	my $id = submit('alice', file_of(1 .. 1000), account_id => 'acme', options => $options);
	is_deeply([ @{ ended($id) }{qw(state updated)} ], [ 'completed', 1000 ], "as many rows as may be, $options");
	$id = submit('alice', file_of(1 .. 1001), account_id => 'acme', options => $options);
	my $s = is_too_large($id, qr/^Account "acme" may submit files of 1000 rows; this one has at least 1001\.$/, "a row too many, $options");
	is($s->{message}, 'the file has more rows than may', 'message');
	is(applied(), 0, 'nothing was applied');
	value_of($node, "SELECT bulk_action.bulk_action_retry('$id')");
	wait_for($node, "SELECT NOT EXISTS (SELECT FROM bulk_action_internal.events)");
	is_too_large($id, qr/rows/, 'nor is it when it is tried again');
	is(applied(), 0, 'nothing');
	set_limits('account', 'acme', max_rows => 1001);
	value_of($node, "SELECT bulk_action.bulk_action_retry('$id')");
	wait_for($node, "SELECT state = 'completed' FROM bulk_action.bulk_actions WHERE id = '$id'");
	is(applied(), 1001, 'with a larger limit it is');

	# Rows that are none count like others.
	set_limits('account', 'acme', max_rows => 3);
	my $path = file_of();
	write_file($path, "id,n\n1,1\nx\n\"a\"b\n2,1\n");
	is_too_large(submit('alice', $path, account_id => 'acme', options => $options), qr/at least 4\.$/, "rows that are no CSV, $options");

	# Beyond the first segment, which is 1 MiB.
	my $long = file_of(1 .. $keys);
	my $padding = ' ' x 60;
	write_file($long, join '', "n,id\n", map { "$files,$padding$_\n" } 1 .. $keys);
	set_limits('account', 'acme', max_rows => $keys - 1);
	$id = submit('alice', $long, account_id => 'acme', options => $options);
	$s = is_too_large($id, qr/at least $keys\.$/, "a row too many in a later segment, $options");
	if ($options eq '{}')
	{
		cmp_ok($s->{total}, '<', $keys, 'that segment is not taken in');
		cmp_ok($s->{total}, '>', 10_000, 'those before were');
		is($s->{updated} + $s->{unprocessed}, $s->{total}, 'and are accounted for');
		is(applied(), $s->{updated}, 'what was applied stays');
	}
	else
	{
		is(applied(), 0, 'nothing was applied before the file had been read');
	}
	value_of($node, "SELECT bulk_action.bulk_action_retry('$id')");
	wait_for($node, "SELECT NOT EXISTS (SELECT FROM bulk_action_internal.events)");
	is_too_large($id, qr/at least $keys\.$/, 'again');
	cmp_ok(applied(), '<=', $keys - 1, 'never more than may be');
	set_limits('account', 'acme', max_rows => $keys);
	value_of($node, "SELECT bulk_action.bulk_action_retry('$id')");
	wait_for($node, "SELECT state = 'completed' FROM bulk_action.bulk_actions WHERE id = '$id'");
	is(applied(), $keys, 'with a larger limit all of it is applied');
	is(value_of($node, "SELECT total FROM bulk_action.bulk_action_stat('$id')"), $keys, 'and counted');
	forget_limits();
}

# --- what it costs, who sees it, what lasts --------------------------------------------------------------------

{
	all_ended();
	$node->safe_psql('postgres', <<'SQL');
INSERT INTO bulk_action_internal.actions (action_type, entity_type, account_id, metadata, options, source, submitted_role, submitted_by,
	session_role, settings, target, target_schema, target_name, key_columns, state, submitted_at, started_at, finished_at)
SELECT action_type, entity_type, 'busy', metadata, options, source, submitted_role, submitted_by, session_role, settings, target,
	target_schema, target_name, key_columns, 'completed', t, t, t + interval '3 seconds'
FROM (SELECT * FROM bulk_action_internal.actions WHERE submitted_by = 'alice' AND state = 'completed' LIMIT 1) AS a,
	(SELECT now() - i * interval '1 second' AS t FROM generate_series(61, 200000) AS i) AS s;
ANALYZE bulk_action_internal.actions;
SQL
	set_limits('account', 'busy', submissions_per_minute => 5, queued_actions => 100);
	set_limits('role', 'alice', submissions_per_minute => 50, queued_actions => 100);
	my $reads = value_of($node, 'BEGIN;' . submit_sql($small, account_id => 'busy') . ';' . <<'SQL', as => 'alice');
RESET SESSION AUTHORIZATION;
SELECT 'reads ' || seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relid = 'bulk_action_internal.actions'::regclass;
COMMIT
SQL
	my ($n) = $reads =~ /^reads (\d+)$/m;
	cmp_ok($n, '<', 1000, 'of two hundred thousand old actions next to none is looked at');
	submit('alice', $small, account_id => 'busy') foreach 2 .. 5;
	is_refused(attempt('alice', submit_sql($small, account_id => 'busy')), 'and the new ones are counted');

	hold();
	set_limits('account', 'busy', queued_actions => 1);
	my $running = submit('alice', $held, account_id => 'busy');
	wait_for($node, "SELECT state = 'running' FROM bulk_action.bulk_actions WHERE id = '$running'");
	submit('alice', $small, account_id => 'busy');
	my $error = is_refused(attempt('alice', submit_sql($small, account_id => 'busy')), 'its queue is full');
	my ($guess) = $error->{hint} =~ /about (\d+) s/;
	cmp_ok($guess, '>=', 1, 'how long it lasts is estimated');
	cmp_ok($guess, '<=', 5, 'by how long the last ones took');
	let_go();
	all_ended();
}
{
	set_limits('account', 'secret', max_rows => 1);
	set_limits('account', undef, max_rows => 1_000_000);
	submit('bob', $small, account_id => 'secret');
	my $seen = sub { value_of($node, "SELECT string_agg(kind || ':' || coalesce(name, '*'), ' ' ORDER BY kind, name) FROM bulk_action.bulk_action_limits", as => $_[0]) };
	is($seen->('alice'), 'account:alice account:busy account:* role:alice', 'a caller sees what applies to him');
	is($seen->('carol'), 'account:carol account:*', 'and no other accounts');
	is($seen->('bob'), 'account:bob account:secret account:*', 'but his');
	is($seen->('postgres'), 'account:busy account:postgres account:secret account:* role:alice', 'a superuser sees all');

	# Tenants that share a role: each sees the account of his claims, and not what the others do.
	$node->append_conf('postgresql.conf', "bulk_action.account_claim = 'tenant'");
	$node->reload;
	wait_for($node, "SELECT current_setting('bulk_action.account_claim') = 'tenant'");
	forget_limits();
	set_limits('account', undef, submissions_per_minute => 2);
	set_limits('account', 't1', submissions_per_minute => 3);
	set_limits('role', 'alice', submissions_per_minute => 4);
	my $as_tenant = sub { "SET request.jwt.claims = '{\"tenant\": \"$_[0]\"}';\n$_[1]" };
	ok(attempt('alice', $as_tenant->('t1', submit_sql($small)))->{id}, "submission $_ of a tenant") foreach 1 .. 3;
	my $error = is_refused(attempt('alice', $as_tenant->('t1', submit_sql($small))), 'the fourth');
	like($error->{message}, qr/account "t1"/, 'goes beyond the limit of his account');
	ok(attempt('alice', $as_tenant->('t2', submit_sql($small)))->{id}, 'another tenant has one');
	$error = is_refused(attempt('alice', $as_tenant->('t2', submit_sql($small))), 'the fifth of both');
	like($error->{message}, qr/role "alice"/, 'goes beyond the limit of the role');
	all_ended();
	$seen = sub { value_of($node, $as_tenant->($_[0], "SELECT string_agg(concat_ws(':', kind, coalesce(name, '*'), coalesce(submitted_last_minute::text, '-')), ' ' ORDER BY kind, name) FROM bulk_action.bulk_action_limits"), as => 'alice') };
	is($seen->('t1'), 'account:t1:3 account:*:- role:alice:-', 'a tenant sees his own account, and not what all of the role do');
	is($seen->('t2'), 'account:*:- role:alice:-', 'nor another account');

	my $dump = $node->basedir . '/dump.sql';
	$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
	$node->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
	$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('restored') ], 'and restore');
	my $rows = 'SELECT kind, name, submissions_per_minute, queued_actions, max_rows FROM bulk_action_internal.limits ORDER BY kind, name';
	is_deeply([ rows_of($node, $rows, db => 'restored') ], [ rows_of($node, $rows) ], 'keep the limits');
}
$holder->quit;
done_testing();
