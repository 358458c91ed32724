# Others insert, change and delete the very rows that an upsert, an update or a delete is at, at every moment at
# which that makes a difference: nothing is lost, nothing fails that need not, and the counts are what became of
# the rows.
use strict;
use warnings;

use BulkAction;
use BulkAction::ByHand;
use Test::More;

my $node = new_node('main', conf => "bulk_action.file_root = '/'\n");
create_role($node, 'loader');
$node->safe_psql('postgres', <<'SQL');
GRANT pg_read_server_files TO loader;
CREATE TABLE public.item (id bigint PRIMARY KEY, name text);
CREATE TABLE public.log (who name, what text, id bigint);
GRANT SELECT, INSERT, UPDATE, DELETE ON public.item TO loader;
GRANT INSERT ON public.log TO loader;
CREATE FUNCTION public.write_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.log VALUES (current_user, tg_op, coalesce(new.id, old.id));
	RETURN NULL;
END $$;
CREATE TRIGGER log AFTER INSERT OR UPDATE OR DELETE ON public.item FOR EACH ROW EXECUTE FUNCTION public.write_log();
SELECT bulk_action.bulk_action_register_entity('item', 'public.item', ARRAY['id']);
SELECT bulk_action.bulk_action_grant('item', 'loader');
SQL
my %file = (header => [qw(id name)], rows => [ map { [ $_, "file $_" ] } 1 .. 10 ]);

# --- one row, one moment ------------------------------------------------------------------------------------

# Before it there are the rows 4, 6, 7 and 8, of which 8 is as in the file. What other sessions do, in order;
# at WAIT somebody waits for them: the action, once it is there.
sub meet
{
	my ($name, $type, $steps, $expected, %option) = @_;
	$node->safe_psql('postgres', "TRUNCATE public.item, public.log; INSERT INTO public.item SELECT i, CASE i WHEN 8 THEN 'file 8' ELSE 'old' END FROM unnest(ARRAY[4, 6, 7, 8]) AS i; TRUNCATE public.log");
	my %session;
	my $id;
	foreach my $step (@$steps)
	{
		my ($who, $sql) = $step =~ /^(\w+): (.*)\z/;
		$session{$who} //= $node->background_psql('postgres');
		$session{$who}->query_safe($sql);
		next if $id || $sql =~ /^BEGIN/ && $step ne $steps->[ $option{begun} // 0 ];
		$id = submit_typed($node, %file, entity => 'item', type => $type, as => 'loader', options => $option{options});
		wait_for($node, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'applying %$id%' AND wait_event_type = 'Lock')", what => "$name: the action to wait");
	}
	$_->quit foreach values %session;
	my $found = ended_as($node, $id);
	my %counts = (total => 10, (map { $_ => 0 } qw(updated inserted deleted unchanged not_found superseded failed unprocessed)), %$expected);
	my $rows = delete $counts{rows};
	is_deeply($found, { state => 'completed', error => undef, %counts }, "$name: counts");
	is(value_of($node, "SELECT string_agg(id || ' ' || name, ', ' ORDER BY id) FROM public.item"), $rows, "$name: the table");
	is_deeply([ rows_of($node, "SELECT count(*) FILTER (WHERE what = 'UPDATE'), count(*) FILTER (WHERE what = 'INSERT'), count(*) FILTER (WHERE what = 'DELETE') FROM public.log WHERE who = 'loader'") ],
		[ [ @counts{qw(updated inserted deleted)} ] ], "$name: what was done to it");
	return;
}

my $as_in_file = join ', ', map { "$_ file $_" } 1 .. 10;
my %plain = (updated => 3, inserted => 6, unchanged => 1, rows => $as_in_file);

meet('a key that is inserted, and committed', 'upsert', [ "a: BEGIN; INSERT INTO public.item VALUES (5, 'new')", 'a: COMMIT' ],
	{ %plain, updated => 4, inserted => 5 });
meet('a key that is inserted as in the file', 'upsert', [ "a: BEGIN; INSERT INTO public.item VALUES (5, 'file 5')", 'a: COMMIT' ],
	{ %plain, unchanged => 2, inserted => 5 });
meet('a key that is inserted, and rolled back', 'upsert', [ "a: BEGIN; INSERT INTO public.item VALUES (5, 'new')", 'a: ROLLBACK' ], \%plain);
meet('a row that is deleted', 'upsert', [ 'a: BEGIN; DELETE FROM public.item WHERE id = 6', 'a: COMMIT' ], { %plain, updated => 2, inserted => 7 });
meet('a row that is not deleted after all', 'upsert', [ 'a: BEGIN; DELETE FROM public.item WHERE id = 6', 'a: ROLLBACK' ], \%plain);
meet('a row that is changed', 'upsert', [ "a: BEGIN; UPDATE public.item SET name = 'other' WHERE id = 6", 'a: COMMIT' ], \%plain);
meet('a row that becomes as in the file', 'upsert', [ "a: BEGIN; UPDATE public.item SET name = 'file 6' WHERE id = 6", 'a: COMMIT' ], { %plain, updated => 2, unchanged => 2 });
meet('a row of which the key changes', 'upsert', [ "a: BEGIN; UPDATE public.item SET id = 66 WHERE id = 6", 'a: COMMIT' ],
	{ %plain, updated => 2, inserted => 7, rows => "$as_in_file, 66 old" });

# While it waits for one row, another comes, which it had looked for in vain.
my @comes = ('a: BEGIN; SELECT FROM public.item WHERE id = 7 FOR UPDATE', "b: INSERT INTO public.item VALUES (5, 'new')", 'a: COMMIT');
meet('a key that is inserted after it was looked for', 'upsert', \@comes, { %plain, updated => 4, inserted => 5 });
meet('the same of an insert that updates', 'insert', \@comes, { %plain, updated => 4, inserted => 5 }, options => { on_conflict => 'update' });
meet('the same of an update', 'update', \@comes, { updated => 3, unchanged => 1, not_found => 6,
		rows => '4 file 4, 5 new, 6 file 6, 7 file 7, 8 file 8' });
meet('the same of a deletion', 'delete', \@comes, { deleted => 4, not_found => 6, rows => '5 new' });
meet('a row that is deleted after it was looked at', 'upsert',
	[ 'a: BEGIN; SELECT FROM public.item WHERE id = 7 FOR UPDATE', 'b: DELETE FROM public.item WHERE id = 8', 'a: COMMIT' ], { %plain, unchanged => 0, inserted => 7 });
meet('a row that is deleted, which was to be', 'delete', [ 'a: BEGIN; DELETE FROM public.item WHERE id = 6', 'a: COMMIT' ],
	{ deleted => 3, not_found => 7, rows => '' });
meet('a row that is deleted, which was to be updated', 'update', [ 'a: BEGIN; DELETE FROM public.item WHERE id = 6', 'a: COMMIT' ],
	{ updated => 2, unchanged => 1, not_found => 7, rows => '4 file 4, 7 file 7, 8 file 8' });
my %match = (options => { match => ['name'] });
meet('a row that no longer matches', 'delete', [ "a: BEGIN; UPDATE public.item SET name = 'other' WHERE id = 8", 'a: COMMIT' ],
	{ not_found => 6, failed => 4, rows => '4 old, 6 old, 7 old, 8 other' }, %match);
meet('a row that matches after all', 'delete', [ "a: BEGIN; UPDATE public.item SET name = 'other' WHERE id = 8", 'a: ROLLBACK' ],
	{ deleted => 1, not_found => 6, failed => 3, rows => '4 old, 6 old, 7 old' }, %match);
meet('a key that is inserted, which was to be', 'insert', [ "a: BEGIN; INSERT INTO public.item VALUES (5, 'new')", 'a: COMMIT' ],
	{ inserted => 5, unchanged => 5, rows => '1 file 1, 2 file 2, 3 file 3, 4 old, 5 new, 6 old, 7 old, 8 file 8, 9 file 9, 10 file 10' }, options => { on_conflict => 'skip' });
meet('a key that is inserted, which was to be new', 'insert', [ "a: BEGIN; INSERT INTO public.item VALUES (5, 'new')", 'a: COMMIT' ],
	{ inserted => 5, failed => 5, rows => '1 file 1, 2 file 2, 3 file 3, 4 old, 5 new, 6 old, 7 old, 8 file 8, 9 file 9, 10 file 10' }, options => { });

# Others are quicker three times: with all rows, with the block, and with one row by itself.
{
	$node->safe_psql('postgres', 'TRUNCATE public.item, public.log');
	my @holders = map {
		my $session = $node->background_psql('postgres');
		$session->query_safe("BEGIN; INSERT INTO public.item VALUES ($_, 'new')");
		{ session => $session, xid => $session->query_safe('SELECT pg_current_xact_id()') }
	} 1 .. 3;
	my $id = submit_typed($node, %file, entity => 'item', type => 'upsert', as => 'loader');
	foreach my $holder (@holders)
	{
		wait_for($node, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid' AND transactionid = '$holder->{xid}')", what => 'the action to wait for one more');
		$holder->{session}->query_safe('COMMIT');
		$holder->{session}->quit;
	}
	my $found = ended_as($node, $id);
	is("@$found{qw(state updated inserted failed)}", 'completed 3 7 0', 'three who are quicker one after the other');
	is(value_of($node, "SELECT string_agg(id || ' ' || name, ', ' ORDER BY id) FROM public.item"), $as_in_file, 'and all rows of the file are there');
}

# A trigger makes another key of the one in the file, which is there already: plain SQL does not find it, and
# cannot insert it.
{
	$node->safe_psql('postgres', <<'SQL');
CREATE TABLE public.folded (id text PRIMARY KEY, name text);
CREATE FUNCTION public.fold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.id := lower(new.id); RETURN new; END $$;
CREATE TRIGGER fold BEFORE INSERT ON public.folded FOR EACH ROW EXECUTE FUNCTION public.fold();
INSERT INTO public.folded VALUES ('a', 'old'), ('b', 'old');
CREATE TABLE public.folded_by_hand (LIKE public.folded INCLUDING ALL);
CREATE TRIGGER fold BEFORE INSERT ON public.folded_by_hand FOR EACH ROW EXECUTE FUNCTION public.fold();
INSERT INTO public.folded_by_hand SELECT * FROM public.folded;
SELECT bulk_action.bulk_action_register_entity('folded', 'public.folded', ARRAY['id']);
SQL
	prepare_by_hand($node);
	my %folded = (header => [qw(id name)], rows => [ [ 'A', 1 ], [ 'b', 2 ], [ 'C', 3 ], [ 'd', 4 ], [ 'c', 5 ], [ 'D', 6 ] ]);
	do_by_hand($node, %folded, table => 'public.folded_by_hand', keys => ['id'], type => 'upsert');
	my $counts = like_by_hand($node, submit_typed($node, %folded, entity => 'folded', type => 'upsert', options => { order => 'file' }), 'keys that a trigger changes');
	is($counts->{failed}, 2, 'two of them cannot be');
	same_content($node, 'public.folded', 'public.folded_by_hand', 'keys that a trigger changes: the table');
}

# --- many rows, all the time ------------------------------------------------------------------------------------

# Two accounts upsert the same keys, while two sessions insert and delete them.
$node->safe_psql('postgres', <<'SQL');
CREATE PROCEDURE public.churn(p_from int) LANGUAGE plpgsql AS $$
DECLARE
	n bigint := p_from;
BEGIN
	LOOP
		n := (n * 1103515245 + 12345) % 2147483648;
		INSERT INTO public.item VALUES (n / 7 % 3000 + 1, 'churn') ON CONFLICT DO NOTHING;
		COMMIT;
		DELETE FROM public.item WHERE id = n / 11 % 3000 + 1;
		COMMIT;
		EXIT WHEN NOT EXISTS (SELECT FROM bulk_action.bulk_actions WHERE finished_at IS NULL);
	END LOOP;
END $$;
TRUNCATE public.item, public.log;
INSERT INTO public.item SELECT i, 'old' FROM generate_series(1, 3000, 2) AS i;
TRUNCATE public.log;
-- whatever keeps the server from passing over a key
CREATE FUNCTION public.same() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;
CREATE TRIGGER same BEFORE INSERT OR UPDATE ON public.item FOR EACH ROW EXECUTE FUNCTION public.same();
ALTER TABLE public.item ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_of_it ON public.item USING (true);
SQL
my @ids = map {
	my $account = $_;
	my $file = csv_file_of($node, header => [qw(id name)], rows => [ map { [ $_ * 7 % 3001, "$account $_" ] } 1 .. 3_000 ]);
	value_of($node, "SELECT bulk_action.bulk_action_submit('$file', 'bulk_upsert', 'item', account_id => '$account')", as => 'loader')
} qw(one two);
my @churners = map { my $s = $node->background_psql('postgres'); $s->query_until(qr/begun/, "\\echo begun\nCALL public.churn($_);\n"); $s } 17, 4711;
my %sum;
foreach my $id (@ids)
{
	my $found = ended_as($node, $id);
	is("$found->{state} $found->{total} $found->{failed} $found->{unprocessed} $found->{not_found}", 'completed 3000 0 0 0', 'an upsert among others: no row fails');
	$sum{$_} += $found->{$_} foreach qw(updated inserted unchanged);
}
$_->quit foreach @churners;
is_deeply([ rows_of($node, "SELECT count(*) FILTER (WHERE what = 'UPDATE'), count(*) FILTER (WHERE what = 'INSERT') FROM public.log WHERE who = 'loader'") ],
	[ [ @sum{qw(updated inserted)} ] ], 'the counts are what was done to the table');
is($sum{unchanged}, 0, 'no row was as in a file');
is(value_of($node, "SELECT count(*) FROM (SELECT id, sum(CASE what WHEN 'INSERT' THEN 1 WHEN 'DELETE' THEN -1 ELSE 0 END) + (id <= 3000 AND id % 2 = 1)::int AS n FROM public.log GROUP BY id) AS l
	WHERE n <> (SELECT count(*) FROM public.item AS i WHERE i.id = l.id)"), 0, 'a key is there as often as it came and did not go');
unlike(read_file($node->logfile), qr/do not add up|TRAP:/, 'nothing strange in the log');
done_testing();
