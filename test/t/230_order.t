# Order: of rows that depend on each other (order => file), and between streams (priority).
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', conf => <<'CONF');
bulk_action.file_root = '/'
bulk_action.idle_timeout = 1s
CONF

my $files = 0;

sub file
{
	my (@rows) = @_;
	$files++;
	return write_file($node->basedir . "/order$files.csv", join('', map { "$_\n" } @rows));
}

sub submit
{
	my ($entity, $csv, $options, $account) = @_;
	return value_of($node, "SELECT bulk_action.bulk_action_submit('file://$csv', entity_type => '$entity', options => '$options', account_id => '"
		  . ($account // 'one') . "')");
}

sub wait_until_ended
{
	my ($id) = @_;
	wait_for($node, "SELECT state NOT IN ('queued', 'running', 'paused') FROM bulk_action.bulk_actions WHERE id = '$id'");
	return $id;
}

# The same file, row by row in plain SQL, in one session.
sub check_serial
{
	my ($name, $entity, $csv, %option) = @_;
	my $table = "public.$entity";
	subtest $name => sub {
		$node->safe_psql('postgres', "DROP TABLE IF EXISTS ${table}_before; CREATE TABLE ${table}_before AS TABLE $table");
		my $id = wait_until_ended(submit($entity, $csv, '{"order": "file"}'));
		my %stat;
		@stat{qw(state message updated unchanged not_found failed total)} = @{ (rows_of($node,
			"SELECT state, error_message, updated, unchanged, not_found, failed, total FROM bulk_action.bulk_action_stat('$id')"))[0] };
		my $after = "${table}_after";
		$node->safe_psql('postgres', <<SQL);
DROP TABLE IF EXISTS $after;
CREATE TABLE $after AS TABLE $table;
SET session_replication_role = replica;
BEGIN; DELETE FROM $table; INSERT INTO $table TABLE ${table}_before; COMMIT;
SQL
		my $serial = apply_serially($node, csv => $csv, table => $table, copy => $table, key => $option{key} // 'id');
		same_content($node, $after, $table, 'the table');
		is_deeply(\%stat, { state => 'completed', message => undef, map { $_ => $serial->{$_} } qw(updated unchanged not_found failed total) }, 'the statistics');
		is_deeply([ rows_of($node, "SELECT line - 1, error_code FROM bulk_action.bulk_action_errors WHERE action_id = '$id' ORDER BY line") ],
			[ map { [ @$_[ 0, 1 ] ] } @{ $serial->{errors} } ], 'the errors');
		cmp_ok($stat{failed}, '>', $option{failed} // 0, 'some rows have failed') unless $option{clean};
	};
}

# --- order => file ---------------------------------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
-- a unique value that moves from row to row
CREATE TABLE public.seats (id integer PRIMARY KEY, seat text UNIQUE, name text);
INSERT INTO public.seats SELECT i, 'seat ' || i, 'name ' || i FROM generate_series(1, 3000) AS i;

-- rows that refer to rows of the same table by something that is set; at once and at commit
CREATE TABLE public.staff (id integer PRIMARY KEY, code text UNIQUE,
  boss text REFERENCES public.staff (code), deputy text REFERENCES public.staff (code) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO public.staff SELECT i, 'code ' || i FROM generate_series(1, 2000) AS i;

-- a trigger that looks at other rows, and changes them
CREATE TABLE public.ranks (id integer PRIMARY KEY, rank integer, seen bigint);
INSERT INTO public.ranks SELECT i, i, 0 FROM generate_series(1, 1000) AS i;
CREATE FUNCTION public.look() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  new.seen := (SELECT sum(rank) FROM public.ranks WHERE id BETWEEN new.id - 3 AND new.id + 3);
  IF new.seen % 11 = 0 THEN RAISE EXCEPTION 'unlucky'; END IF;
  RETURN new;
END $$;
CREATE TRIGGER look BEFORE UPDATE ON public.ranks FOR EACH ROW EXECUTE FUNCTION public.look();

-- nothing by which a row could feel another
CREATE TABLE public.plain (id integer PRIMARY KEY, name text, age integer CHECK (age < 150));
INSERT INTO public.plain SELECT i, 'name ' || i, i % 90 FROM generate_series(1, 2000) AS i;

SELECT bulk_action.bulk_action_register_entity(t, ('public.' || t)::regclass, ARRAY['id'])
  FROM unnest(ARRAY['seats', 'staff', 'ranks', 'plain']) AS t;
SQL

srand(230);
{
	my %seat = map { $_ => "seat $_" } 1 .. 3_000;
	my @rows = ('id,seat,name');
	foreach my $n (1 .. 1_500)
	{
		my ($one, $two) = (1 + int(rand(3_000)), 1 + int(rand(3_000)));
		next if $one == $two;
		push @rows, "$one,free $n,", "$two,$seat{$one},", "$one,$seat{$two},moved $n";
		@seat{ $one, $two } = @seat{ $two, $one };
		# to a seat that is taken at this moment, or will be free later
		push @rows, "$one,$seat{$two}," if $n % 3 == 0;
	}
	check_serial('values that are exchanged between rows', 'seats', file(@rows), failed => 300);
}
{
	my @rows = ('id,code,boss,deputy');
	foreach my $n (1 .. 2_500)
	{
		my $id = 1 + int(rand(2_000));
		my $new = "new " . int(rand(600));
		my @choice = ("$id,$new,,", "$id,,$new,", "$id,,,$new", "$id,,code " . (1 + int(rand(2_000))) . ',', "$id,code $id,,");
		push @rows, $choice[ rand @choice ];
	}
	check_serial('rows that refer to each other', 'staff', file(@rows), failed => 300);
}
check_serial('a trigger that looks at other rows', 'ranks',
	file('id,rank', map { (1 + int(rand(1_000))) . ',' . int(rand(500)) } 1 .. 4_000), failed => 100);
check_serial('rows that cannot feel each other', 'plain',
	file('id,name,age', map { (1 + int(rand(2_100))) . ",row $_," . (rand() < 0.1 ? 200 : rand() < 0.1 ? 'x' : int(rand(100))) } 1 .. 5_000), failed => 500);
check_serial('every row fails', 'seats', file('id,seat', map { "$_,seat 1" } 2 .. 400), failed => 390);

{
	my $id = wait_until_ended(submit('plain', file('id,name', map { "$_,in order $_" } 1 .. 2_000), '{"order": "file"}'));
	is(value_of($node, "SELECT cardinality(lane_chunks) FROM bulk_action_internal.sources ORDER BY action_no DESC LIMIT 1"), '1', 'one lane');
	is(value_of($node, "SELECT updated FROM bulk_action.bulk_action_stat('$id')"), 2_000, 'all of it');
}

# --- between streams ---------------------------------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
ALTER SYSTEM SET bulk_action.max_workers = 1;
SELECT pg_reload_conf();
CREATE TABLE public.jobs (id integer PRIMARY KEY, account text, step integer);
INSERT INTO public.jobs SELECT generate_series(1, 40000);
CREATE TABLE public.journal (n bigint GENERATED ALWAYS AS IDENTITY, account text);
-- whoever updates job 1 waits while somebody has the lock 1; and all leave their names, once a chunk
CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(1);
  RETURN new;
END $$;
CREATE TRIGGER hold BEFORE UPDATE ON public.jobs FOR EACH ROW WHEN (old.id = 1) EXECUTE FUNCTION public.hold();
CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.journal (account) SELECT DISTINCT account FROM changed;
  RETURN NULL;
END $$;
CREATE TRIGGER note AFTER UPDATE ON public.jobs REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.note();
SELECT bulk_action.bulk_action_register_entity('jobs', 'public.jobs', ARRAY['id']);
SELECT bulk_action.bulk_action_grant('jobs', 'public');
SQL
wait_for($node, "SELECT count(*) <= 1 FROM pg_stat_activity WHERE backend_type = 'bulk_action worker'");

my $first = 1;

sub jobs_file
{
	my ($account, $rows) = @_;
	my @ids = $first .. $first + $rows - 1;
	$first += $rows;
	return file('id,account,step', map { "$_,$account,$_" } @ids);
}

sub hold
{
	my $session = $node->background_psql('postgres');
	$session->query_safe('SELECT pg_advisory_lock(1)');
	my $id = submit('jobs', file('id,account', '1,holder'), '{"skip_unchanged": false}', 'holder');
	wait_for($node, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory')");
	return ($session, $id);
}

sub release
{
	my ($session, @id) = @_;
	wait_for($node, "SELECT count(*) = @{[ scalar @id ]} FROM bulk_action.bulk_actions WHERE state = 'running' AND id IN ("
		  . join(', ', map { "'$_'" } @id) . ')');
	$node->safe_psql('postgres', 'DELETE FROM public.journal');
	$session->query_safe('SELECT pg_advisory_unlock(1)');
	$session->quit;
	wait_until_ended($_) foreach @id;
	return map { $_->[0] } rows_of($node, 'SELECT account FROM public.journal ORDER BY n');
}

{
	my ($session, $held) = hold();
	my @id = (
		submit('jobs', jobs_file('low', 3_000), '{"priority": -5}', 'low'),
		submit('jobs', jobs_file('usual', 3_000), '{}', 'usual'),
		submit('jobs', jobs_file('high', 3_000), '{"priority": 7}', 'high'));
	my @journal = grep { $_ ne 'holder' } release($session, $held, @id);
	is(join(' ', map { $_ > 0 && $journal[$_] eq $journal[ $_ - 1 ] ? () : $journal[$_] } 0 .. $#journal), 'high usual low',
		'the greater priority goes first');
	cmp_ok(scalar @journal, '>', 6, 'with chunk after chunk');
}
{
	my ($session, $held) = hold();
	my @id = map { submit('jobs', jobs_file($_, 4_000), '{"priority": 3}', $_) } qw(one two);
	my @journal = grep { $_ ne 'holder' } release($session, $held, @id);
	my %last = map { $journal[$_] => $_ } 0 .. $#journal;
	my %seen;
	my %at = map { $seen{ $journal[$_] }++ ? () : ($journal[$_] => $_) } 0 .. $#journal;
	cmp_ok($at{two}, '<', $last{one}, 'with the same priority they take turns');
	cmp_ok($at{one}, '<', $last{two}, 'both');
}
{
	# a large file that is being applied, and a small one of somebody else
	my ($session, $held) = hold();
	my $large = submit('jobs', jobs_file('large', 22_000), '{}', 'large');
	my $small = submit('jobs', jobs_file('small', 100), '{}', 'small');
	my @journal = grep { $_ ne 'holder' } release($session, $held, $large, $small);
	my ($at) = grep { $journal[$_] eq 'small' } 0 .. $#journal;
	cmp_ok($at, '<', 4, 'the small one does not wait for the end of the large one');
	cmp_ok(scalar @journal, '>', 20, 'which goes on');
}
{
	my ($session, $held) = hold();
	# priority is no way around the order of a stream
	my $csv = jobs_file('x', 10);
	my $one = submit('jobs', write_file($node->basedir . '/before.csv', read_file($csv) =~ s/,x,/,before,/gr), '{"priority": -50}', 'stream');
	my $two = submit('jobs', write_file($node->basedir . '/after.csv', read_file($csv) =~ s/,x,/,after,/gr), '{"priority": 50}', 'stream');
	$session->query_safe('SELECT pg_advisory_unlock(1)');
	$session->quit;
	wait_until_ended($_) foreach $held, $one, $two;
	is(value_of($node, 'SELECT string_agg(DISTINCT account, $$ $$) FROM public.jobs WHERE id BETWEEN ' . ($first - 10) . ' AND ' . ($first - 1)), 'after',
		'actions of one stream go in the order of submission, whatever their priorities');
}

# --- what does not add up ------------------------------------------------------------------------------------

{
	my ($session, $held) = hold();
	my $id = submit('jobs', jobs_file('books', 2_000), '{}', 'books');
	# the extension's own table, changed by hand
	$node->safe_psql('postgres', <<SQL);
CREATE FUNCTION public.cook() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
  IF new.updated > old.updated THEN new.updated := new.updated - 1; END IF;
  RETURN new;
END \$\$;
CREATE TRIGGER cook BEFORE UPDATE ON bulk_action_internal.cursors FOR EACH ROW EXECUTE FUNCTION public.cook();
SQL
	$session->query_safe('SELECT pg_advisory_unlock(1)');
	$session->quit;
	wait_until_ended($id);
	$node->safe_psql('postgres', 'DROP TRIGGER cook ON bulk_action_internal.cursors');
	is_deeply([ rows_of($node, "SELECT state, error_code, error_message, error_detail FROM bulk_action.bulk_actions WHERE id = '$id'") ],
		[ [ 'failed', 'XX001', 'its rows are not all accounted for', 'The file has 2000 rows, their outcomes are 1998.' ] ],
		'an action whose counts do not add up has failed');
	like(read_file($node->logfile), qr/ERROR: +bulk action $id failed: its rows are not all accounted for/, 'and it is an error in the log');
}

# --- between session users -----------------------------------------------------------------------------------

# However many actions of however great a priority one session user has: another's has its turn.
{
	create_role($node, $_) foreach qw(many one);
	$node->safe_psql('postgres', <<'SQL');
ALTER SYSTEM SET bulk_action.max_workers = 2;
SELECT pg_reload_conf();
GRANT pg_read_server_files TO many, one;
GRANT SELECT, UPDATE ON public.jobs TO many, one;
GRANT INSERT ON public.journal TO many, one;
SQL
	my $csv = file('id,account', '1,many');
	my $session = $node->background_psql('postgres');
	$session->query_safe('SELECT pg_advisory_lock(1)');
	value_of($node, <<SQL, as => 'many');
SELECT bulk_action.bulk_action_submit('file://$csv', entity_type => 'jobs', account_id => 'more ' || i, options => '{"priority": 100}')
  FROM generate_series(1, 70) AS i
SQL
	wait_for($node, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory')");
	my $one = value_of($node, "SELECT bulk_action.bulk_action_submit('file://" . file('id,account', '39999,one')
		  . "', entity_type => 'jobs', options => '{\"priority\": -100}')", as => 'one');
	wait_until_ended($one);
	is(value_of($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$one'"), 'completed', 'one action beside 70 more urgent ones of somebody else');
	cmp_ok(value_of($node, "SELECT max(n) FROM (SELECT count(*) AS n FROM bulk_action.bulk_actions WHERE state = 'running' GROUP BY submitted_by) AS s"),
		'<=', 32, 'of which no session user has more than his share begun');
	$session->query_safe('SELECT pg_advisory_unlock(1)');
	$session->quit;
	wait_for($node, "SELECT count(*) = 0 FROM bulk_action.bulk_actions WHERE state IN ('queued', 'running')");
	is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_actions WHERE submitted_by = 'many' AND state = 'completed'"), 70, 'and all come to their end');
}

done_testing();
