# What the server log never has, what is not written though a file names it, formats that columns have of their
# own, and fifty who submit at once where only a few may run.
use strict;
use warnings;

use BulkAction;
use BulkAction::ByHand;
use Encode qw(decode encode);
use IO::Compress::Gzip qw(gzip);
use IPC::Run ();
use JSON::PP;
use Test::More;

# The log gets all that the server itself would write.
my $node = new_node('main', injection => 1, conf => <<'CONF');
bulk_action.file_root = '/'
log_min_messages = debug2
log_min_error_statement = debug5
log_error_verbosity = verbose
log_statement = all
log_min_duration_statement = 0
log_parameter_max_length_on_error = -1
max_connections = 80
CONF
create_role($node, 'clerk');
$node->safe_psql('postgres', 'GRANT pg_read_server_files TO clerk');
prepare_by_hand($node);
server_for_s3($node, role => 'clerk');

# --- the log ----------------------------------------------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE public.ref (id int PRIMARY KEY);
CREATE DOMAIN public.few AS text CHECK (length(value) < 30);
CREATE TABLE public.quiet (id bigint PRIMARY KEY, name text UNIQUE, age int CHECK (age < 100), born date, ref int REFERENCES public.ref DEFERRABLE INITIALLY DEFERRED,
	few public.few, code varchar(20), list int[], needed text NOT NULL DEFAULT 'x');
CREATE FUNCTION public.complain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF new.name LIKE '%complain' THEN
		RAISE EXCEPTION 'no: %', new.name;
	END IF;
	RETURN new;
END $$;
CREATE TRIGGER complain BEFORE INSERT OR UPDATE ON public.quiet FOR EACH ROW EXECUTE FUNCTION public.complain();
GRANT SELECT, INSERT, UPDATE, DELETE ON public.quiet TO clerk;
SELECT bulk_action.bulk_action_register_entity('quiet', 'public.quiet', ARRAY['id']);
SELECT bulk_action.bulk_action_grant('quiet', 'clerk');
SQL
{
	my $log = -s $node->logfile;
	my $text = "id,name,age,born,ref,few,code,list,needed\n"
	  . join('', map { "$_,cell-$_,cell-$_,cell-$_,cell-$_,cell-$_,cell-$_,cell-$_,cell-$_\n" } 1 .. 5)
	  . "cell-6,x,1,2020-01-01,,,,,x\n7,cell-7,1,2020-01-01,,,\n8,cell-8,500,2020-01-01,,,,,x\n9,cell-9,1,2020-01-01,77123,,,,x\n"
	  . "10,cell-10,1,2020-01-01,," . 'cell-10' x 10 . ",,,x\n11,cell-11,1,2020-01-01,,," . 'cell-11' x 10 . ",,x\n12,cell-12,1,,,,,\"{cell-12}\",x\n"
	  . "13,cell-13 complain,1,,,,,,x\n14,cell-14,1,2020-01-01,,,,,x\n15,cell-14,1,2020-01-01,,,,,x\n16,\"cell-16\"x,1\n17,cell-17\xff,1,,,,,,x\n"
	  . "18,cell-18,1,,,,,,~\n19,cell-19 " . 'long' x 300_000 . ",1,,,,,,x\n14,cell-20,1,2020-01-01,,,,,x\n21,cell-21,1,2020-01-01,,,,,x\n";
	my $file = s3_put('quiet.csv', content => $text);
	my $failed = 0;
	foreach my $case ([ 'insert' ], [ 'upsert', duplicates => 'error' ], [ 'update', order => 'file', on_missing => 'error' ], [ 'upsert', dry_run => JSON::PP::true ], [ 'delete', match => ['name'] ])
	{
		my ($type, %options) = @$case;
		my $id = submit_typed($node, source => $file, entity => 'quiet', type => $type, options => { %options, null_token => '~' }, as => 'clerk');
		my $found = ended_as($node, $id);
		is($found->{state}, 'completed', "bulk_$type of rows with everything that can be wrong");
		$failed += $found->{failed};
	}
	cmp_ok($failed, '>', 50, "$failed of them failed");
	cmp_ok(value_of($node, "SELECT count(*) FROM bulk_action.bulk_action_errors WHERE error_message LIKE '%cell-%' OR record LIKE '%cell-%'"), '>', 30, 'which is recorded, cells and all');
	value_of($node, "SELECT count(*) FROM bulk_action.bulk_action_preview('$file', 'bulk_upsert', 'quiet')", as => 'clerk');
	# once more with one who kills the server meanwhile
	inject($node, 'applier-before-commit', 'abort');
	my $id = submit_typed($node, source => $file, entity => 'quiet', type => 'upsert', as => 'clerk');
	ended_as($node, $id);
	ok(is_injected($node, 'applier-before-commit'), 'a worker dies in the middle');
	my @lines = grep { /cell-\d|77123|longlong/ && !/LIKE '%cell-/ } split /\n/, substr(read_file($node->logfile), $log);
	is_deeply([ splice @lines, 0, 5 ], [], 'the log has no cell of the file, whatever is logged');
}

# --- what is not written --------------------------------------------------------------------------------------------

# Rows that say what is there get no new version and fire nothing, though triggers would change them each time.
foreach my $kind (qw(table partitions))
{
	$node->safe_psql('postgres', join '', map { <<SQL } qw(public by_hand));
CREATE TABLE $_.$kind (id bigint PRIMARY KEY, name text, amount numeric, seen int DEFAULT 0, twice text GENERATED ALWAYS AS (name || name) STORED,
	number bigint GENERATED ALWAYS AS IDENTITY) @{[ $kind eq 'partitions' ? 'PARTITION BY RANGE (id)' : '' ]};
@{[ $kind eq 'partitions' ? "CREATE TABLE $_.part_1 PARTITION OF $_.partitions FOR VALUES FROM (0) TO (60); CREATE TABLE $_.part_2 PARTITION OF $_.partitions FOR VALUES FROM (60) TO (2000);" : '' ]}
CREATE FUNCTION $_.touch_$kind() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN new.seen := coalesce(old.seen, 0) + 1; RETURN new; END \$\$;
CREATE FUNCTION $_.same_$kind() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN RETURN new; END \$\$;
CREATE TRIGGER touch BEFORE UPDATE ON $_.$kind FOR EACH ROW EXECUTE FUNCTION $_.touch_$kind();
CREATE TRIGGER same BEFORE INSERT OR UPDATE ON $_.$kind FOR EACH ROW EXECUTE FUNCTION $_.same_$kind();
INSERT INTO $_.$kind (id, name, amount) SELECT i, 'name ' || i, i FROM generate_series(1, 100) AS i;
SQL
	value_of($node, "SELECT bulk_action.bulk_action_register_entity('$kind', 'public.$kind', ARRAY['id'])");
	# every 10th row differs, every 20th in nothing but how a number is written
	my %file = (header => [qw(id name amount)], rows => [ map { [ $_, $_ % 10 == 5 ? "new $_" : "name $_", $_ % 20 == 0 ? "$_.0" : $_ ] } 1 .. 120 ]);
	my $versions = sub { return value_of($node, "SELECT string_agg(id || ' ' || tableoid::regclass || ctid || xmin, ',' ORDER BY id) FROM public.$kind WHERE id <= 100 AND id % 10 <> 5 AND id % 20 <> 0") };
	my $before = $versions->();
	foreach my $case ([ 'update' ], [ 'upsert' ], [ 'insert', on_conflict => 'update' ], [ 'insert', on_conflict => 'skip' ], [ 'update', order => 'file' ])
	{
		my ($type, %options) = @$case;
		my $name = join ' ', "bulk_$type", (values %options), "of a table with triggers ($kind)";
		do_by_hand($node, %file, table => "by_hand.$kind", keys => ['id'], type => $type, options => \%options);
		like_by_hand($node, submit_typed($node, %file, entity => $kind, type => $type, options => \%options), $name);
		same_content($node, "public.$kind", "by_hand.$kind", "$name: the table", columns => 'id, name, amount, seen, twice');
		is($versions->(), $before, "$name: rows that say what is there have no new version");
	}
	# columns that the table computes are refused as a whole, before any row
	foreach my $column (qw(twice number))
	{
		my $id = submit_typed($node, header => [ 'id', $column ], rows => [ [ 1, 2 ] ], entity => $kind, type => 'upsert');
		my $found = ended_as($node, $id);
		is("$found->{state} $found->{updated} $found->{inserted}", 'failed 0 0', "$kind: a file that sets column $column");
		like($found->{error}, qr/column "$column"/, 'which is named');
	}
}
# An unique index over a foreign partition cannot be, and without one there is no entity.
{
	$node->safe_psql('postgres', <<'SQL');
CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
CREATE FOREIGN TABLE public.elsewhere (id bigint NOT NULL, name text) SERVER nowhere;
CREATE TABLE public.halves (id bigint, name text) PARTITION BY RANGE (id);
CREATE FOREIGN TABLE public.half PARTITION OF public.halves FOR VALUES FROM (0) TO (10) SERVER nowhere;
SQL
	foreach my $case ([ 'elsewhere', qr/"elsewhere" cannot be a target/ ], [ 'halves', qr/unique index/ ])
	{
		my (undef, undef, $error) = $node->psql('postgres', "SELECT bulk_action.bulk_action_register_entity('$case->[0]', 'public.$case->[0]', ARRAY['id'])");
		like($error, $case->[1], "$case->[0] cannot be registered");
		like($error, qr/HINT|DETAIL/, 'and why is said');
	}
}

# --- cells ------------------------------------------------------------------------------------------------------------

# Quoted or not, the token is NULL, and nothing else is.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE public.cells (id text PRIMARY KEY, name text, flag boolean, other boolean);
INSERT INTO public.cells SELECT 'k' || i, 'old', NULL, NULL FROM generate_series(1, 9) AS i;
SELECT bulk_action.bulk_action_register_entity('cells', 'public.cells', ARRAY['id']);
SQL
sub cells
{
	my ($text, $type, %options) = @_;
	my $file = 'file://' . write_file($node->basedir . '/cells.csv', $text);
	my $id = submit_typed($node, source => $file, entity => 'cells', type => $type, options => \%options);
	ended_as($node, $id);
	return [ rows_of($node, "SELECT line, error_code, error_column FROM bulk_action.bulk_action_errors WHERE action_id = '$id' ORDER BY line") ];
}
is_deeply(cells(qq(id,name\nk1,"\\N"\nk2,\\N\nk3,\\n\nk4," \\N"\nk5,""\nk6,\n"\\N",x\nk8,"\\\\N"\n), 'upsert', null_token => '\\N'), [ [ 8, '23502', 'id' ] ], 'a key that is the null_token, in quotes');
is(value_of($node, "SELECT string_agg(coalesce('<' || name || '>', 'NULL'), ' ' ORDER BY id) FROM public.cells"), 'NULL NULL <\n> < \N> <> <old> <old> <\\\\N> <old>', 'the null_token, quoted and not');
is_deeply(cells(qq(id,name\nk2,"\\N"\nk3,\\N\n), 'delete', null_token => '\\N', match => ['name']), [ [ 3, 'BA409', 'id' ] ], 'to be matched it is NULL as well');

# Strict booleans are those of the type, for one column or for all.
my $words = "id,flag,other\nk1,true,ja\nk4,ja,x\nk5,off,nein\nk6,1,oui\nk7,\"\",\"\"\n";
is_deeply(cells($words, 'update', formats => { boolean => 'lenient' }, columns => { flag => { boolean => 'strict' } }), [ [ 3, '22P02', 'flag' ], [ 6, '22P02', 'flag, other' ] ], 'a strict column among lenient ones');
is(value_of($node, "SELECT string_agg(concat(flag, other), ' ' ORDER BY id) FROM public.cells WHERE id IN ('k1', 'k4', 'k5', 'k6', 'k7')"), 'tt  ff tt ', 'their values');
is_deeply(cells($words, 'update', formats => { boolean => 'strict' }), cells($words, 'update'), 'strict for all is as without');
is_deeply(cells($words, 'update', formats => { boolean => 'strict' }), [ map { [ @$_ ] } [ 2, '22P02', 'other' ], [ 3, '22P02', 'flag, other' ], [ 4, '22P02', 'other' ], [ 5, '22P02', 'other' ], [ 6, '22P02', 'flag, other' ] ], 'no word of another language');
is_deeply(cells($words, 'update', formats => { boolean => 'strict' }, columns => { other => { boolean => 'lenient' } }), [ [ 3, '22P02', 'flag' ], [ 6, '22P02', 'flag, other' ] ], 'a lenient column among strict ones');

# --- several members of gzip, an encoding that cannot be begun in the middle, and kills ------------------------------------

{
	$node->safe_psql('postgres', "TRUNCATE public.cells; ALTER TABLE public.cells DROP flag, DROP other; GRANT INSERT ON public.cells TO clerk; SELECT bulk_action.bulk_action_grant('cells', 'clerk')");
	my $text = "id,name\n" . join('', map { "k$_," . ("\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe3\x82\xab\xe3\x83\x8a $_;" x 15) . "\n" } 1 .. 12_000);
	my $packed = join '', map { my $out; gzip(\$_ => \$out, -Minimal => 1) or die; $out } unpack '(a700001)*', encode('shiftjis', decode('UTF-8', $text));
	my $source = s3_put('members.csv.gz', content => $packed);
	my @points = qw(chunker-downloaded chunker-before-commit chunker-committed applier-before-commit);
	inject($node, $_, 'kill') foreach @points;
	my $id = submit_typed($node, source => $source, entity => 'cells', type => 'insert', options => { encoding => 'SHIFT_JIS' }, as => 'clerk');
	is_deeply([ @{ ended_as($node, $id) }{qw(state error total inserted failed)} ], [ 'completed', undef, 12_000, 12_000, 0 ], 'gzip of several members in SHIFT_JIS, under kills');
	is_deeply([ grep { !is_injected($node, $_) } @points ], [], 'somebody was killed at each point');
	write_file($node->basedir . '/utf8.csv', $text);
	$node->safe_psql('postgres', "CREATE TABLE by_hand.cells (LIKE public.cells);\n\\copy by_hand.cells FROM '" . $node->basedir . "/utf8.csv' WITH (FORMAT csv, HEADER)");
	same_content($node, 'public.cells', 'by_hand.cells', 'the table is that of the plain text');
}

# --- fifty at once ---------------------------------------------------------------------------------------------------------

# Of fifty actions in as many streams, submitted by as many sessions at one moment, never more than three run.
{
	$node->safe_psql('postgres', <<'SQL');
ALTER SYSTEM SET log_min_messages = warning;
ALTER SYSTEM SET log_statement = none;
ALTER SYSTEM SET log_min_duration_statement = -1;
SELECT pg_reload_conf();
CREATE TABLE public.turn (id bigint PRIMARY KEY, name text, running bigint);
INSERT INTO public.turn SELECT i FROM generate_series(1, 50) AS i;
CREATE FUNCTION public.count_running() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
	new.running := (SELECT count(*) FROM bulk_action.bulk_actions WHERE state = 'running');
	RETURN new;
END $$;
CREATE TRIGGER count_running BEFORE UPDATE ON public.turn FOR EACH ROW EXECUTE FUNCTION public.count_running();
GRANT SELECT, UPDATE ON public.turn TO clerk;
SELECT bulk_action.bulk_action_register_entity('turn', 'public.turn', ARRAY['id']);
SELECT bulk_action.bulk_action_grant('turn', 'clerk');
SELECT bulk_action.bulk_action_set_limits('role', 'clerk', concurrent_actions => 3);
SQL
	my $gate = $node->background_psql('postgres');
	$gate->query_safe('SELECT pg_advisory_lock(50)');
	my @sessions = map {
		my $file = csv_file_of($node, header => [qw(id name)], rows => [ [ $_, "by $_" ] ]);
		my ($out, $err) = ('', '');
		my %session = (out => \$out, err => \$err);
		$session{run} = IPC::Run::start([ $node->installed_command('psql'), '-XqAt', '-d', $node->connstr('postgres'), '-c', 'SET SESSION AUTHORIZATION clerk',
				'-c', 'DO $$ BEGIN PERFORM pg_advisory_lock_shared(50); END $$', '-c', "SELECT bulk_action.bulk_action_submit('$file', 'bulk_update', 'turn', account_id => 'account $_')" ],
			'>', \$out, '2>', \$err);
		\%session
	} 1 .. 50;
	wait_for($node, "SELECT count(*) = 50 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", what => 'fifty sessions to wait');
	$gate->query_safe('SELECT pg_advisory_unlock(50)');
	$_->{run}->finish foreach @sessions;
	is(scalar(grep { ${ $_->{out} } =~ /^[0-9a-f-]{36}\n\z/ } @sessions), 50, 'fifty submit at once') or diag(map { ${ $_->{err} } } @sessions);
	wait_for($node, "SELECT count(*) = 50 FROM bulk_action.bulk_actions WHERE entity_type = 'turn' AND state = 'completed'", what => 'all fifty');
	is(value_of($node, "SELECT count(*) FROM public.turn WHERE name = 'by ' || id"), 50, 'all are applied');
	is(value_of($node, 'SELECT max(running) <= 3 AND min(running) >= 1 FROM public.turn'), 't', 'and never more than three at a time');
	# by their times, which are those of transactions: the next begins when another has ended
	is(value_of($node, <<'SQL'), 't', 'by their times too');
SELECT max(n) <= 3 FROM (SELECT (SELECT count(*) FROM bulk_action.bulk_actions AS b WHERE b.entity_type = 'turn' AND b.started_at <= a.started_at AND b.finished_at > a.started_at) AS n
  FROM bulk_action.bulk_actions AS a WHERE a.entity_type = 'turn') AS s
SQL
	$gate->quit;
}
unlike(read_file($node->logfile), qr/do not add up|TRAP:/, 'nothing strange in the log');
done_testing();
