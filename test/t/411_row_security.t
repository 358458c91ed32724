# Every type of action under row-level security: tables, counts and errors are those that plain statements of
# the same role give, one row after the other, whatever the policies let it see, insert, change and delete.
use strict;
use warnings;

use BulkAction;
use BulkAction::ByHand;
use JSON::PP;
use Test::More;

my $node = new_node('main', conf => "bulk_action.file_root = '/'\n");
create_role($node, 'clerk');
$node->safe_psql('postgres', 'GRANT pg_read_server_files TO clerk');
prepare_by_hand($node);

# What there is on the table TABLE, besides its rows; and what clerk may do.
my $all = 'GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE TO clerk;';
my %table = (
	'one policy for all' => "$all CREATE POLICY own ON TABLE USING (owner = current_user);",
	'USING and WITH CHECK differ' => <<SQL,
$all
CREATE POLICY look ON TABLE FOR SELECT USING (true);
CREATE POLICY add ON TABLE FOR INSERT WITH CHECK (owner = current_user AND amount < 8);
CREATE POLICY change ON TABLE FOR UPDATE USING (owner = current_user) WITH CHECK (state <> 's1');
CREATE POLICY remove ON TABLE FOR DELETE USING (state <> 's2');
SQL
	'less is seen than could be changed' => <<SQL,
$all
CREATE POLICY look ON TABLE FOR SELECT USING (state <> 's2');
CREATE POLICY add ON TABLE FOR INSERT WITH CHECK (true);
CREATE POLICY change ON TABLE FOR UPDATE USING (amount <> 3);
CREATE POLICY remove ON TABLE FOR DELETE USING (true);
SQL
	'less can be changed than is seen, and new rows are not seen' => <<SQL,
$all
CREATE POLICY look ON TABLE FOR SELECT USING (amount <> 5);
CREATE POLICY add ON TABLE FOR INSERT WITH CHECK (state <> 's3');
CREATE POLICY change ON TABLE FOR UPDATE USING (owner = current_user AND state <> 's0') WITH CHECK (true);
CREATE POLICY remove ON TABLE FOR DELETE USING (owner = current_user);
SQL
	'a restrictive policy' => <<SQL,
$all
CREATE POLICY all_of_it ON TABLE USING (true);
CREATE POLICY few ON TABLE AS RESTRICTIVE FOR UPDATE USING (amount < 7) WITH CHECK (amount < 9);
CREATE POLICY fewer ON TABLE AS RESTRICTIVE FOR DELETE USING (amount < 4);
CREATE POLICY new ON TABLE AS RESTRICTIVE FOR INSERT WITH CHECK (owner = current_user);
SQL
	'no policy at all' => $all,
	'triggers that say no' => <<SQL,
$all
CREATE POLICY own ON TABLE USING (owner = current_user);
CREATE TRIGGER no BEFORE INSERT OR UPDATE OR DELETE ON TABLE FOR EACH ROW EXECUTE FUNCTION public.say_no();
SQL
	'no privilege to update' => <<SQL,
GRANT SELECT, INSERT, DELETE ON TABLE TO clerk;
CREATE POLICY look ON TABLE FOR SELECT USING (amount <> 2);
CREATE POLICY add ON TABLE FOR INSERT WITH CHECK (amount <> 4);
CREATE POLICY remove ON TABLE FOR DELETE USING (owner = current_user);
SQL
	'only columns may be read' => <<SQL);
GRANT SELECT (id, state), DELETE ON TABLE TO clerk;
CREATE POLICY look ON TABLE FOR SELECT USING (true);
CREATE POLICY remove ON TABLE FOR DELETE USING (owner = current_user AND amount <> 6);
CREATE TRIGGER no BEFORE DELETE ON TABLE FOR EACH ROW EXECUTE FUNCTION public.say_no();
SQL

$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION public.say_no() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RETURN CASE WHEN coalesce(new.id, old.id) % 5 = 0 THEN NULL WHEN tg_op = 'DELETE' THEN old ELSE new END;
END $$;
SQL

my @types = (
	[ 'insert' ], [ 'insert', on_conflict => 'skip' ], [ 'insert', on_conflict => 'update' ],
	[ 'update' ], [ 'update', on_missing => 'insert' ], [ 'update', skip_unchanged => JSON::PP::false ], [ 'update', on_missing => 'error' ],
	[ 'upsert' ], [ 'delete' ], [ 'delete', match => ['state'] ], [ 'delete', match => ['state'], on_missing => 'error' ]);

# Rows of two owners, half of which are there; every file has all combinations of what policies look at.
my @rows = map { [ $_ * 3, 's' . $_ % 4, $_ % 3 ? 'clerk' : 'other', $_ % 10, $_ % 7 ? "body $_" : undef ] } 1 .. 120;
my @header = qw(id state owner amount body);
my %fields = (
	'only columns may be read' => [ 0, 1 ]);
my %seen;

# what is there, without triggers
sub fill
{
	$node->safe_psql('postgres', 'BEGIN; SET LOCAL session_replication_role = replica;' . join('', map { <<SQL } @_) . 'COMMIT');
TRUNCATE $_;
INSERT INTO $_ SELECT i * 2, 's' || (i * 2 / 3) % (3 + i % 2), CASE WHEN i % 4 = 0 THEN 'other' ELSE 'clerk' END, i % 9,
       CASE WHEN i % 5 = 0 THEN 'body ' || i * 2 / 3 ELSE 'old' END
  FROM generate_series(1, 170) AS i;
SQL
	return;
}

my $number = 0;
foreach my $what (sort keys %table)
{
	$number++;
	my $entity = "docs$number";
	foreach my $table ("public.$entity", "by_hand.$entity")
	{
		my $sql = <<'SQL' . $table{$what};
CREATE TABLE TABLE (id bigint PRIMARY KEY, state text, owner name DEFAULT 'clerk', amount int DEFAULT 1, body text);
ALTER TABLE TABLE ENABLE ROW LEVEL SECURITY;
SQL
		$sql =~ s/CREATE TABLE TABLE/CREATE TABLE $table/;
		$sql =~ s/ALTER TABLE TABLE/ALTER TABLE $table/;
		$sql =~ s/ON TABLE /ON $table /g;
		$node->safe_psql('postgres', $sql);
	}
	value_of($node, "SELECT bulk_action.bulk_action_register_entity('$entity', 'public.$entity', ARRAY['id']); SELECT bulk_action.bulk_action_grant('$entity', 'clerk')");
	foreach my $case (@types)
	{
		my ($type, %options) = @$case;
		next if $what =~ /^(no privilege to update)\z/ && !($type eq 'delete' || $type eq 'insert' && ($options{on_conflict} // '') ne 'update');
		next if $what =~ /^only columns/ && $type ne 'delete';
		# what is another word for upsert, or has nothing to do with policies, is tried once
		next if $what !~ /differ/ && ($type eq 'update' && %options || ($options{on_conflict} // '') eq 'update' || $options{on_missing});
		fill("public.$entity", "by_hand.$entity");
		my @use = @{ $fields{$what} // [ 0 .. 4 ] };
		my %file = (header => [ @header[@use] ], rows => [ map { [ @$_[@use] ] } @rows ]);
		my $name = join ' ', $what, '-', $type, map { "$_=" . (ref $options{$_} eq 'ARRAY' ? $options{$_}[0] : $options{$_}) } sort keys %options;
		do_by_hand($node, %file, table => "by_hand.$entity", keys => ['id'], type => $type, options => \%options, as => 'clerk');
		my $id = submit_typed($node, %file, entity => $entity, type => $type, options => \%options, as => 'clerk');
		my $counts = like_by_hand($node, $id, $name);
		same_content($node, "public.$entity", "by_hand.$entity", "$name: table");
		$seen{"$type $_"} += $counts->{$_} foreach grep { $counts->{$_} =~ /^\d/ } keys %$counts;

		# in its only chunk a dry run sees all of it
		next unless $what =~ /triggers/ || $type eq 'upsert';
		fill("public.$entity");
		my $before = checksum_of($node, "public.$entity");
		$id = submit_typed($node, %file, entity => $entity, type => $type, options => { %options, dry_run => JSON::PP::true }, as => 'clerk');
		like_by_hand($node, $id, "$name, dry");
		is(checksum_of($node, "public.$entity"), $before, "$name, dry: the table is as before");
	}
}

# All of it was seen.
cmp_ok($seen{$_} // 0, '>', 0, "$_ rows") foreach ('insert inserted', 'insert unchanged', 'insert failed', 'insert updated', 'update updated',
	'update not_found', 'update failed', 'update inserted', 'update unchanged', 'upsert updated', 'upsert inserted', 'upsert failed', 'delete deleted', 'delete not_found',
	'delete unchanged', 'delete failed');

# Policies are asked about the rows of the file and about no others, even when statements have to be planned anew
# in the midst of an action: here because a trigger makes a temporary table, and so changes the path that names are
# looked up on. The table is so small that it would be read from end to end; the file has its odd keys.
$node->safe_psql('postgres', <<'SQL');
CREATE SEQUENCE strangers;
GRANT USAGE ON SEQUENCE strangers TO clerk;
CREATE FUNCTION watch(id bigint) RETURNS boolean LANGUAGE plpgsql AS
	$$ BEGIN IF id % 2 = 0 THEN PERFORM nextval('public.strangers'); END IF; RETURN true; END $$;
CREATE TABLE watched (id bigint PRIMARY KEY, note text CHECK (note <> 'bad'));
CREATE FUNCTION leave_something() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN CREATE TEMPORARY TABLE IF NOT EXISTS left_over (id bigint); RETURN new; END $$;
CREATE TRIGGER leave_something BEFORE UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION leave_something();
ALTER TABLE watched ENABLE ROW LEVEL SECURITY;
CREATE POLICY watch ON watched USING (watch(id));
GRANT SELECT, INSERT, UPDATE, DELETE ON watched TO clerk;
SELECT bulk_action.bulk_action_register_entity('watched', 'public.watched', ARRAY['id']);
SELECT bulk_action.bulk_action_grant('watched', 'clerk');
SQL
foreach my $case ([ 'update' ], [ 'upsert' ], [ 'update', dry_run => JSON::PP::true ])
{
	$node->restart; # for workers that have no temporary tables yet
	my ($type, %options) = @$case;
	$node->safe_psql('postgres', "TRUNCATE watched; INSERT INTO watched SELECT i, 'old' FROM generate_series(1, 200) AS i; ANALYZE watched; ALTER SEQUENCE strangers RESTART");
	# one chunk; bad rows undo what was done, and the others are tried in parts
	my $id = submit_typed($node, header => [qw(id note)], rows => [ map { [ 2 * $_ - 1, $_ % 3 == 0 ? 'old' : $_ % 5 == 0 ? 'bad' : "new $_" ] } 1 .. 100 ],
		entity => 'watched', type => $type, options => { %options, order => 'file' }, as => 'clerk');
	my $stat = final_stat($node, $id);
	is("$stat->{state} $stat->{updated} $stat->{unchanged} $stat->{failed}", 'completed 53 33 14', join(' ', $type, %options));
	is(value_of($node, 'SELECT is_called FROM strangers'), 'f', 'no policy was asked about another row');
}
unlike(read_file($node->logfile), qr/do not add up|TRAP:/, 'nothing strange in the log');
done_testing();
