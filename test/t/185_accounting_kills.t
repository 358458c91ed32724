# The outcomes of several actions add up to their totals at every moment, for everybody who looks,
# while workers and coordinators are ended and killed again and again, and the server with them.
use strict;
use warnings;

use BulkAction;
use IPC::Run ();
use Test::More;

my $rows = 30_000;
my $node = new_node('main', conf => <<'CONF');
bulk_action.file_root = '/'
bulk_action.max_workers = 3
bulk_action.max_queued_chunks = 20
max_worker_processes = 12
CONF

# Three tables of the same content and one file for all of them, with rows of every outcome.
my @tables = map { "public.contacts_$_" } 1 .. 3;
foreach my $table (@tables)
{
	create_contacts($node, $rows, table => $table);
	register_contacts($node, table => $table, entity => $table =~ s/public\.//r);
}
# The work goes at the pace at which it is looked at: on every 30th row it waits for one more look.
$node->safe_psql('postgres', <<'SQL');
CREATE SEQUENCE looks;
CREATE SEQUENCE steps;
CREATE FUNCTION keep_pace() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	step bigint := nextval('public.steps');
BEGIN
	WHILE (SELECT last_value FROM public.looks) < step LOOP
		PERFORM pg_sleep(0.002);
	END LOOP;
	RETURN new;
END $$;
SQL
$node->safe_psql('postgres', "CREATE TRIGGER keep_pace BEFORE UPDATE ON $_ FOR EACH ROW WHEN (old.id % 30 = 0) EXECUTE FUNCTION keep_pace()")
  foreach @tables;

my %bad = map { $_ * 97 => { age => 'x' } } 1 .. 300;
my $text = read_file(contacts_csv($node, rows => $rows, order => 'shuffled', repeat => 20, bad => \%bad))
  . read_file(contacts_csv($node, rows => 300, first => $rows + 1, header => 0, name => 'unknown.csv'));
my $serial = apply_serially($node, content => $text, table => $tables[0], copy => 'public.contacts_serial');
my $no_csv = 50;
my $file = write_file($node->basedir . '/all.csv', $text . qq(7"quote",x\n) x $no_csv);

my @ids = map {
	value_of($node, "SELECT bulk_action.bulk_action_submit('file://$file', entity_type => '" . s/public\.//r . "')")
} @tables;

# --- polling ---------------------------------------------------------------------------------------

# One session that looks at all actions, as fast as it can, until the last has ended. It tells as it
# goes how often it looked, how often it saw something new and what was wrong, since it may be killed.
# What has been counted stays counted as long as the session lives: a crash of the server may take back
# the last commits, of rows and counts alike.
my $poll = <<"SQL" =~ s/IDS/join ',', map { "'$_'" } @ids/er;
DO \$\$
DECLARE
	ids uuid[] := ARRAY[IDS]::uuid[];
	seen bigint[];
	before text[] := array_fill(NULL::text, ARRAY[3]);
	s record;
	r record;
	going boolean := true;
	polls integer := 0;
	news integer := 0;
BEGIN
	WHILE going LOOP
		going := false;
		FOR k IN 1 .. 3 LOOP
			SELECT * INTO s FROM bulk_action.bulk_action_stat(ids[k]);
			seen := ARRAY[s.updated, s.inserted, s.deleted, s.unchanged, s.not_found, s.superseded, s.failed, s.total];
			PERFORM nextval('looks');
			polls := polls + 1;
			going := going OR s.state IN ('queued', 'running');
			IF s.total IS DISTINCT FROM s.updated + s.inserted + s.deleted + s.unchanged + s.not_found + s.superseded
				+ s.failed + s.unprocessed THEN
				RAISE NOTICE 'wrong sum: %', s;
			END IF;
			IF s.unprocessed < 0 OR s.percent NOT BETWEEN 0 AND 100 THEN
				RAISE NOTICE 'wrong rest: %', s;
			END IF;
			FOR i IN 1 .. 8 LOOP
				IF seen[i] < coalesce((before[k]::bigint[])[i], 0) THEN
					RAISE NOTICE 'wrong way: %, which was %', s, before[k];
				END IF;
			END LOOP;
			IF seen::text IS DISTINCT FROM before[k] THEN
				news := news + 1;
				before[k] := seen::text;
			END IF;
		END LOOP;
		IF polls >= 30 OR NOT going THEN
			RAISE NOTICE 'polls: % %', polls, news;
			FOR r IN SELECT total, failed, metadata AS m FROM bulk_action.bulk_action_stats LOOP
				IF r.total <> (r.m->>'updated')::bigint + (r.m->>'inserted')::bigint + (r.m->>'deleted')::bigint
					+ (r.m->>'unchanged')::bigint + (r.m->>'not_found')::bigint + (r.m->>'superseded')::bigint
					+ r.failed + (r.m->>'unprocessed')::bigint THEN
					RAISE NOTICE 'wrong record: %', r;
				END IF;
			END LOOP;
			polls := 0;
			news := 0;
		END IF;
	END LOOP;
END
\$\$;
SQL
my $script = write_file($node->basedir . '/poll.sql', $poll);

my ($polls, $news, @wrong, @pollers) = (0, 0);

sub start_pollers
{
	@pollers = map {
		my ($out, $err) = ('', '');
		my $run = IPC::Run::start(
			[ $node->installed_command('psql'), '-XqAt', '-d', $node->connstr('postgres'), '-f', $script ],
			'>', \$out, '2>', \$err);
		{ run => $run, err => \$err }
	} 1 .. 3;
	return;
}

sub finish_pollers
{
	foreach my $poller (@pollers)
	{
		$poller->{run}->finish;
		foreach my $line (split /\n/, ${ $poller->{err} })
		{
			if ($line =~ /polls: (\d+) (\d+)/) { $polls += $1; $news += $2 }
			push @wrong, $line if $line =~ /NOTICE:  wrong/;
			push @wrong, $line if $line =~ /ERROR: /;
		}
	}
	return;
}

# --- kills -----------------------------------------------------------------------------------------

sub counted { return "SELECT sum(total - unprocessed) FROM unnest(ARRAY[" . join(',', map { "'$_'" } @ids)
  . "]::uuid[]) AS id, bulk_action.bulk_action_stat(id)"; }

sub terminate
{
	my ($type) = @_;
	wait_for($node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'bulk_action $type'"
		  . " ORDER BY random() LIMIT 1", what => "a $type to end");
	return;
}

sub crash
{
	my ($type) = @_;
	kill_9($node, "bulk_action $type");
	finish_pollers();
	start_pollers();
	return;
}

my @attacks = (
	sub { terminate('worker') }, sub { terminate('coordinator') }, sub { crash('worker') },
	sub { terminate('worker') }, sub { crash('coordinator') }, sub { terminate('coordinator') },
	sub { terminate('worker') }, sub { crash('worker') }, sub { terminate('worker') });
my $all = 3 * ($serial->{total} + $no_csv);
start_pollers();
foreach my $n (0 .. $#attacks)
{
	# at a later stage of the work each time
	wait_for($node, "SELECT (" . counted() . ") >= " . int($all * $n / (@attacks + 1)));
	$attacks[$n]->();
}
is(value_of($node, "SELECT bool_or(state IN ('queued', 'running')) FROM bulk_action.bulk_actions"), 't',
	'the work was still going on at the last kill');
finish_pollers();

# --- what was seen ---------------------------------------------------------------------------------

note("$polls polls, $news of them saw something new");
is_deeply(\@wrong, [], 'the outcomes added up to the total every time, and what was counted stayed counted');
cmp_ok($polls, '>=', 2000, 'that was looked at thousands of times');
cmp_ok($news, '>=', 300, 'in very many different moments');

foreach my $k (0 .. $#ids)
{
	my ($final) = rows_of($node, "SELECT state, total, updated, not_found, failed, unprocessed,"
		  . " (SELECT count(*) FROM bulk_action.bulk_action_errors WHERE action_id = '$ids[$k]')"
		  . " FROM bulk_action.bulk_action_stat('$ids[$k]')");
	my $failed = $serial->{failed} + $no_csv;
	is_deeply($final, [ 'completed', $serial->{total} + $no_csv, @{$serial}{qw(updated not_found)}, $failed, 0, $failed ],
		"$tables[$k]: the counts are those of plain SQL");
	same_content($node, $tables[$k], 'public.contacts_serial');
}

$node->stop;
done_testing();
