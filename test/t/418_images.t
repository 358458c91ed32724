# What is a change: with skip_unchanged a row is left alone when each value it sets is there to the last byte,
# whatever the type and whatever its equality says. Every pair of values of many types, NULL among them, is tried and
# compared with record_image_ne() in plain SQL.
use strict;
use warnings;

use BulkAction;
use Encode ();
use Test::More;

my $node = new_node('main', conf => "bulk_action.file_root = '/'");
my $icu = value_of($node, "SELECT count(*) FROM pg_collation WHERE collprovider = 'i'") > 0;
$node->safe_psql('postgres', <<'SQL');
CREATE TYPE public.mood AS ENUM ('sad', 'ok');
CREATE TYPE public.pair AS (a int, b numeric);
CREATE DOMAIN public.word AS varchar(10) CHECK (value <> 'never');
CREATE DOMAIN public.strict AS text COLLATE "C";
CREATE DOMAIN public.amounts AS numeric[];
CREATE DOMAIN public.pairs AS public.pair CHECK ((value).a > 0);
SQL
$node->safe_psql('postgres', "CREATE COLLATION public.loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE DOMAIN public.lax AS text COLLATE public.loose") if $icu;

# Values of each type; many have pairs that are equal and not the same.
my @types = (
	[ 'smallint', 1, -2 ], [ 'int', 1, 2 ], [ 'bigint', 1, 4294967297 ], [ 'bool', 'true', 'false' ], [ 'oid', 1, 4000000000 ],
	[ 'text', 'a', 'A', 'a ', '' ], [ 'varchar(20)', 'a', 'a ' ], [ 'char(5)', 'a', 'b' ], [ 'bpchar', 'a', 'a ', 'b' ],
	[ 'name', 'a', 'A' ], [ '"char"', 'a', 'b' ], [ 'text COLLATE "C"', 'a', "\x{e4}" ], [ 'bytea', '\x00', '\x0000' ],
	[ 'numeric', '1', '1.0', '1.00', '2' ], [ 'numeric(8,2)', '1', '1.01' ], [ 'float8', '0', '-0', 'NaN', '1' ],
	[ 'real', '0', '-0', '1.5' ], [ 'money', '1.00', '2.00' ], [ 'date', '2026-01-01', 'infinity' ],
	[ 'time', '00:00', '24:00' ], [ 'timetz', '12:00+00', '13:00+01' ],
	[ 'timestamp', '2026-01-01 00:00', '2026-01-01 00:00:00.000001' ],
	[ 'timestamptz', '2026-01-01 00:00+00', '2026-01-01 01:00+01', '2026-01-01 01:00+00' ],
	[ 'interval', '1 day', '24:00:00', '1 mon', '30 days' ], [ 'uuid', '00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000002' ],
	[ 'json', '{"a":1}', '{"a": 1}' ], [ 'jsonb', '{"a": 1.0}', '{"a": 1.00}', '{"a": 2}' ],
	[ 'inet', '10.0.0.1', '10.0.0.1/24' ], [ 'cidr', '10.0.0.0/8', '10.0.0.0/16' ], [ 'macaddr', '08:00:2b:01:02:03', '08:00:2b:01:02:04' ],
	[ 'bit(4)', '0101', '0100' ], [ 'varbit', '1', '10' ], [ 'point', '(0,0)', '(-0,0)', '(1,1)' ], [ 'tsvector', 'a:1', 'a' ],
	[ 'int4range', '[1,3)', '[1,2]', '[1,4)' ], [ 'numrange', '[1.0,2)', '[1.00,2)' ],
	[ 'int[]', '{1,2}', '[0:1]={1,2}', '{NULL}', '{}' ], [ 'numeric[]', '{1.0}', '{1.00}' ], [ 'text[]', '{a,b}', '{{a},{b}}' ],
	[ 'public.mood', 'sad', 'ok' ], [ 'public.pair', '(1,1.0)', '(1,1.00)', '(,)' ], [ 'public.pair[]', '{"(1,2)"}', '{"(1,2.0)"}' ],
	[ 'public.word', 'a', 'a ' ], [ 'public.amounts', '{1}', '{1.0}' ], [ 'public.pairs', '(1,1)', '(1,1.0)' ],
	[ 'public.strict COLLATE "POSIX"', 'a', 'A' ], [ 'name COLLATE "POSIX"', 'a', 'A' ],
	$icu ? ([ 'text COLLATE public.loose', 'a', 'A', 'b' ], [ 'public.lax', 'a', 'A' ], [ 'public.lax COLLATE "default"', 'a', 'A' ],
		[ 'public.lax COLLATE "C"', 'a', 'A' ]) : ());

# One column for each type, and one row for each pair of its values, where the other columns have their first value.
my @columns = map { "c$_" } 0 .. $#types;
my $row = 0;
my (@before, @after, %tried);
foreach my $c (0 .. $#types)
{
	my ($type, @values) = @{ $types[$c] };
	$type =~ s/ COLLATE.*//;
	foreach my $old (@values, undef)
	{
		foreach my $new (@values, undef)
		{
			my ($x, $y) = map { defined $_ ? literal($_) : 'NULL' } $old, $new;
			$tried{ ++$row } = "$types[$c][0] $x to $y";
			push @before, [ $row, $c, $x ];
			push @after, [ $row, $c, $y ];
		}
	}
}

sub insert_rows
{
	my ($table, @rows) = @_;
	my @first = map { literal($_->[1]) } @types;
	# one statement for a row: in a list of rows a literal would not be of its column's type
	return join ";\n", map {
		my ($n, $c, $value) = @$_;
		"INSERT INTO $table VALUES ($n, " . join(', ', @first[ 0 .. $c - 1 ], $value, @first[ $c + 1 .. $#first ]) . ')'
	} @rows;
}

my $definition = join ', ', map { "$columns[$_] $types[$_][0]" } 0 .. $#types;
my $csv = $node->basedir . '/images.csv';
$node->safe_psql('postgres', "SET client_encoding = 'UTF8'; CREATE TABLE public.$_ (id int PRIMARY KEY, $definition)") foreach qw(item original file);
$node->safe_psql('postgres', Encode::encode('UTF-8', insert_rows('public.original', @before) . ';' . insert_rows('public.file', @after)));
$node->safe_psql('postgres', "COPY (SELECT * FROM public.file ORDER BY id) TO '$csv' WITH (FORMAT csv, HEADER, NULL '')");
$node->safe_psql('postgres', "SELECT bulk_action.bulk_action_register_entity('item', 'public.item', ARRAY['id'], ARRAY["
	  . join(', ', map { "'$_'" } @columns) . '])');

my $changes = <<"SQL";
SELECT o.id FROM public.original AS o JOIN public.file AS f USING (id)
 WHERE record_image_ne(ROW(@{[ join ', ', map { "o.$_" } @columns ]}), ROW(@{[ join ', ', map { "f.$_" } @columns ]}))
SQL
my $changed = value_of($node, "SELECT count(*) FROM ($changes) AS c");
cmp_ok($changed, '>', 0, "$changed of $row rows are another one");

# with and without the numbers of rows in the statement
foreach my $case ([ 'bulk_update', '' ], [ 'bulk_upsert', '' ], [ 'bulk_update', ', "on_missing": "error"' ])
{
	my ($type, $more) = @$case;
	$node->safe_psql('postgres', <<'SQL');
CREATE TABLE IF NOT EXISTS public.log (id int);
CREATE OR REPLACE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.log VALUES (NEW.id); RETURN NULL; END';
TRUNCATE public.item, public.log;
INSERT INTO public.item TABLE public.original;
DROP TRIGGER IF EXISTS note ON public.item;
CREATE TRIGGER note AFTER UPDATE ON public.item FOR EACH ROW EXECUTE FUNCTION public.note();
SQL
	foreach my $round (1 .. 3)
	{
		my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$csv', '$type', 'item', options => '{\"empty\": \"null\"$more}')");
		my $stat = final_stat($node, $id);
		my $expected = $round == 1 ? $changed : 0;
		is("$stat->{state} $stat->{updated} $stat->{unchanged}", "completed $expected " . ($row - $expected), "$type$more, round $round: what is a change is one")
		  or diag(value_of($node, "SELECT string_agg(error_code || ': ' || error_message, ', ') FROM bulk_action.bulk_action_errors WHERE action_id = '$id'"));
	}
	my @wrong = map { $_->[0] } rows_of($node, "(TABLE public.log EXCEPT ALL ($changes)) UNION ALL (($changes) EXCEPT ALL TABLE public.log)");
	is_deeply([ map { $tried{$_} } @wrong ], [], "$type$more: exactly those rows are updated");
	is(value_of($node, <<"SQL"), '', "$type$more: all values are those of the file to the last byte");
SELECT string_agg(i.id::text, ' ') FROM public.item AS i JOIN public.file AS f USING (id)
 WHERE record_image_ne(ROW(@{[ join ', ', map { "i.$_" } @columns ]}), ROW(@{[ join ', ', map { "f.$_" } @columns ]}))
SQL
}

done_testing();
