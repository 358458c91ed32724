# Files that say much of what is there already: such rows are looked for before the others are updated. The outcome
# is that of the same change in plain SQL all the same, and where a table could tell the difference it is not done.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', conf => <<'CONF');
bulk_action.file_root = '/'
shared_preload_libraries = 'bulk_action, auto_explain'
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
CONF

my $rows = 20_000;
create_contacts($node, $rows);
register_contacts($node);

# Of ten rows four say what is there, one has no row in the table, one sets nothing, the others say something new.
# Numbers are compared as they are stored: 5.0 is not 5.00 in a column without a scale.
my $csv = $node->basedir . '/mixed.csv';
$node->safe_psql('postgres', <<SQL);
ALTER TABLE public.contacts ALTER score TYPE numeric;
CREATE TABLE public.original AS TABLE public.contacts;
CREATE TABLE public.file AS
SELECT CASE i % 10 WHEN 4 THEN i + 1000000 ELSE id END AS id,
       CASE WHEN i % 10 = 5 THEN NULL WHEN i % 10 > 5 THEN 'Given' || i ELSE first_name END AS first_name,
       CASE WHEN i % 10 = 5 THEN NULL WHEN i % 20 = 3 THEN score || '0' ELSE score::text END AS score
  FROM (SELECT *, id AS i FROM public.contacts) AS c;
COPY (SELECT * FROM public.file ORDER BY hashint8(id)) TO '$csv' WITH (FORMAT csv, HEADER, NULL '');
CREATE TABLE public.serial AS TABLE public.contacts WITH NO DATA;
ALTER TABLE public.serial ADD PRIMARY KEY (id);
SQL

# The same in plain SQL; returns what is to be counted.
sub by_hand
{
	my ($type) = @_;
	my $new = $type eq 'bulk_upsert' ? 1 : 0;
	return [ split / /, value_of($node, <<SQL) ];
TRUNCATE public.serial;
INSERT INTO public.serial TABLE public.original;
WITH changed AS (
  UPDATE public.serial AS t SET first_name = f.first_name, score = f.score::numeric FROM public.file AS f
   WHERE t.id = f.id AND f.first_name IS NOT NULL
     AND (t.first_name <> f.first_name OR t.score::text <> f.score::numeric::text) RETURNING 1),
added AS (
  INSERT INTO public.serial (id, first_name, score)
  SELECT id, first_name, score::numeric FROM public.file WHERE id > 1000000 AND $new = 1 RETURNING 1)
SELECT concat_ws(' ', $rows, (SELECT count(*) FROM changed), (SELECT count(*) FROM added),
  (SELECT count(*) FROM public.file WHERE id <= 1000000) - (SELECT count(*) FROM changed),
  (SELECT count(*) FROM public.file WHERE id > 1000000 AND $new = 0), 0);
SQL
}

sub compared
{
	my @found = read_file($node->logfile) =~ /Query Text: SELECT s\.n FROM [^\n]*\) IS NOT TRUE/g;
	return scalar @found;
}

sub try_it
{
	my ($type, $what) = @_;
	my $before = compared();
	$node->safe_psql('postgres', 'DELETE FROM public.contacts; INSERT INTO public.contacts TABLE public.original');
	my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$csv', action_type => '$type')");
	wait_for($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'", expect => 'completed');
	is_deeply([ rows_of($node, "SELECT total, updated, inserted, unchanged, not_found, failed FROM bulk_action.bulk_action_stat('$id')") ],
		[ by_hand($type) ], "$type, $what: the statistics are those of plain SQL");
	same_content($node, 'public.contacts', 'public.serial', 'the table');
	return compared() - $before;
}

foreach my $type (qw(bulk_update bulk_upsert))
{
	cmp_ok(try_it($type, 'no triggers'), '>', 0, 'rows are compared first');

	# a trigger of rows notices nothing, one of statements would
	$node->safe_psql('postgres', <<'SQL');
CREATE TABLE IF NOT EXISTS public.fired (level text, changed bigint);
CREATE OR REPLACE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.fired VALUES (tg_level, CASE WHEN tg_level = 'ROW' THEN 1 ELSE 0 END);
  RETURN NULL;
END $$;
TRUNCATE public.fired;
CREATE TRIGGER note_row AFTER UPDATE ON public.contacts FOR EACH ROW EXECUTE FUNCTION public.note();
SQL
	cmp_ok(try_it($type, 'a trigger of rows'), '>', 0, 'rows are compared first');
	is(value_of($node, 'SELECT count(*) FROM public.fired'), by_hand($type)->[1], 'it fires for each row that is updated');

	$node->safe_psql('postgres', <<'SQL');
DROP TRIGGER note_row ON public.contacts;
CREATE TRIGGER note_statement AFTER UPDATE ON public.contacts FOR EACH STATEMENT EXECUTE FUNCTION public.note();
SQL
	is(try_it($type, 'a trigger of statements'), 0, 'rows are not compared first');
	$node->safe_psql('postgres', 'DROP TRIGGER note_statement ON public.contacts');
}

done_testing();
