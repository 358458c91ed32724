# A key may be a domain over a type whose operators are not in pg_catalog, as those of extensions are. Who may
# create in their schema could offer an operator for the domain itself, which fits better than the type's; it is
# never called, whatever is done with rows.
use strict;
use warnings;

use BulkAction;
use JSON::PP;
use Test::More;

my $node = new_node('main', conf => "bulk_action.file_root = '/'\n");
create_role($node, $_) foreach qw(submitter mallory);

# A type as extensions make them: an integer by another name.
my @operators = ([ '=', 'eq' ], [ '<>', 'ne' ], [ '<', 'lt' ], [ '<=', 'le' ], [ '>', 'gt' ], [ '>=', 'ge' ]);
my %negator = ('=' => '<>', '<>' => '=');
my $sql = <<'SQL';
CREATE SCHEMA ext;
CREATE TYPE ext.number;
CREATE FUNCTION ext.number_in(cstring) RETURNS ext.number LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION ext.number_out(ext.number) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE ext.number (INPUT = ext.number_in, OUTPUT = ext.number_out, LIKE = int4);
CREATE FUNCTION ext.cmp(ext.number, ext.number) RETURNS int LANGUAGE internal IMMUTABLE STRICT AS 'btint4cmp';
CREATE FUNCTION ext.hash(ext.number) RETURNS int LANGUAGE internal IMMUTABLE STRICT AS 'hashint4';
CREATE FUNCTION ext.hash_extended(ext.number, bigint) RETURNS bigint LANGUAGE internal IMMUTABLE STRICT AS 'hashint4extended';
SQL
foreach (@operators)
{
	my ($operator, $name) = @$_;
	my $negator = $negator{$operator} ? ", NEGATOR = OPERATOR(ext.$negator{$operator})" : '';
	$sql .= <<SQL;
CREATE FUNCTION ext.$name(ext.number, ext.number) RETURNS bool LANGUAGE internal IMMUTABLE STRICT AS 'int4$name';
CREATE OPERATOR ext.$operator (FUNCTION = ext.$name, LEFTARG = ext.number, RIGHTARG = ext.number$negator);
SQL
}
$node->safe_psql('postgres', $sql . <<'SQL');
CREATE OPERATOR CLASS ext.number_ops DEFAULT FOR TYPE ext.number USING btree AS
  OPERATOR 1 ext.<, OPERATOR 2 ext.<=, OPERATOR 3 ext.=, OPERATOR 4 ext.>=, OPERATOR 5 ext.>,
  FUNCTION 1 ext.cmp(ext.number, ext.number), FUNCTION 4 (ext.number, ext.number) btequalimage(oid);
CREATE OPERATOR CLASS ext.number_ops DEFAULT FOR TYPE ext.number USING hash AS
  OPERATOR 1 ext.=, FUNCTION 1 ext.hash(ext.number), FUNCTION 2 ext.hash_extended(ext.number, bigint);
GRANT USAGE, CREATE ON SCHEMA ext TO PUBLIC;
CREATE DOMAIN customer_no AS ext.number;
CREATE TABLE contacts (id customer_no PRIMARY KEY, old_id customer_no, name text);
GRANT ALL ON contacts TO submitter;
GRANT pg_read_server_files TO submitter;
SELECT bulk_action.bulk_action_register_entity('contacts', 'public.contacts', ARRAY['id']);
SELECT bulk_action.bulk_action_grant('contacts', 'submitter');
-- outlives what is rolled back
CREATE SEQUENCE called;
GRANT USAGE ON SEQUENCE called TO PUBLIC;
CREATE FUNCTION tell() RETURNS boolean LANGUAGE sql AS $$ SELECT pg_catalog.nextval('public.called') > 0 $$;
SQL
foreach (@operators)
{
	my ($operator, $name) = @$_;
	$node->safe_psql('postgres', <<SQL, extra_params => [ '-U', 'mallory' ]);
CREATE FUNCTION ext.planted_$name(customer_no, customer_no) RETURNS boolean LANGUAGE sql AS 'SELECT public.tell()';
CREATE OPERATOR ext.$operator (FUNCTION = ext.planted_$name, LEFTARG = customer_no, RIGHTARG = customer_no);
SQL
}

# The trap works: plain SQL that says OPERATOR(ext.=) falls into it.
sub called { return value_of($node, 'SELECT is_called FROM called') eq 't' }
$node->safe_psql('postgres', q{SELECT '1'::customer_no OPERATOR(ext.=) '1'::customer_no});
ok(called(), 'the planted operator is what the name stands for');

my $file = $node->basedir . '/contacts.csv';
write_file($file, "id,old_id,name\n" . join('', map { "$_,$_,new\n" } 1 .. 40));
chmod 0644, $file;
my $json = JSON::PP->new->canonical;
# the table has 1 to 20, of which 1 to 10 have this old_id
foreach my $case (
	[ 'update', {}, 'updated 20 inserted 0 deleted 0 unchanged 0 not_found 20 failed 0' ],
	[ 'update', { order => 'file' }, 'updated 20 inserted 0 deleted 0 unchanged 0 not_found 20 failed 0' ],
	[ 'upsert', {}, 'updated 20 inserted 20 deleted 0 unchanged 0 not_found 0 failed 0' ],
	[ 'upsert', { dry_run => JSON::PP::true }, 'updated 20 inserted 20 deleted 0 unchanged 0 not_found 0 failed 0' ],
	[ 'insert', {}, 'updated 0 inserted 20 deleted 0 unchanged 0 not_found 0 failed 20' ],
	[ 'insert', { on_conflict => 'skip' }, 'updated 0 inserted 20 deleted 0 unchanged 20 not_found 0 failed 0' ],
	[ 'delete', {}, 'updated 0 inserted 0 deleted 20 unchanged 0 not_found 20 failed 0' ],
	[ 'delete', { match => ['old_id'] }, 'updated 0 inserted 0 deleted 10 unchanged 0 not_found 20 failed 10' ])
{
	my ($type, $options, $expected) = @$case;
	my $name = "bulk_$type " . $json->encode($options);
	$node->safe_psql('postgres', <<'SQL');
TRUNCATE contacts;
INSERT INTO contacts SELECT i::text::customer_no, (i + (i > 10)::int)::text::customer_no, 'old' FROM generate_series(1, 20) AS i;
ALTER SEQUENCE called RESTART;
SQL
	my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$file', 'bulk_$type', 'contacts', options => '"
		  . $json->encode($options) . "')", as => 'submitter');
	my $stat = final_stat($node, $id);
	is(join(' ', map { "$_ $stat->{$_}" } qw(updated inserted deleted unchanged not_found failed)), $expected, "$name: rows");
	ok(!called(), "$name: nothing planted is called");
}

# Operators that are for more types than one, or for another one than the column's: of enums, arrays, ranges and
# composite types, of varchar, names and domains; and of types whose name alone means a length of 1.
$node->safe_psql('postgres', <<'SQL');
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN any_mood AS mood;
CREATE DOMAIN numbers AS int[];
CREATE DOMAIN short AS varchar(5);
CREATE TYPE pair AS (a int, b text);
CREATE TABLE kinds (k1 mood, k2 char(3), k3 short, k4 bit(4), k5 int4range, k6 name, k7 inet, PRIMARY KEY (k1, k2, k3, k4, k5, k6, k7),
	m1 int[], m2 any_mood, m3 int4range, m4 numeric(5, 2), m5 char(3), m6 bit(4), m7 numbers, m8 pair, m9 int4multirange,
	m10 "char", m11 oidvector, m12 timestamptz, n int);
SELECT bulk_action.bulk_action_register_entity('kinds', 'public.kinds', ARRAY['k1', 'k2', 'k3', 'k4', 'k5', 'k6', 'k7']);
SQL
my @match = map { "m$_" } 1 .. 12;
my @header = ((map { "k$_" } 1 .. 7), @match);
my @row = ('ok', 'abc', 'xy', '1010', '[1,3)', 'nm', '10.0.0.1', '{1,2}', 'sad', '[1,2)', '1.5', 'qrs', '0101', '{3}', '(1,x)', '{[1,2)}', 'c', '1 2', '2020-01-01');
my @near = ('ok', 'axx', 'xy', '1111', @row[4 .. 18]); # with the first characters of the other's key
foreach my $case (
	[ 'insert', {}, [], 'inserted 2' ], [ 'upsert', {}, [7], 'updated 2' ], [ 'update', {}, [7], 'unchanged 2' ], [ 'update', {}, [8], 'updated 2' ],
	(map { [ 'delete', { match => [ $match[$_] ] }, [], 'failed 2', $_ ] } 4, 5, 6),
	[ 'delete', { match => \@match }, [], 'deleted 2' ])
{
	my ($type, $options, $more, $expected, $wrong) = @$case;
	my @rows = map { [ @$_, @$more ] } \@row, \@near;
	if (defined $wrong) { $_->[ 7 + $wrong ] = { 4 => 'qxx', 5 => '0000', 6 => '{3,4}' }->{$wrong} foreach @rows }
	my @used = $type eq 'delete' ? grep { my $c = $_; $header[$c] !~ /^m/ || grep { $_ eq $header[$c] } @{ $options->{match} } } 0 .. $#header : (0 .. $#row + @$more);
	my @names = (@header, 'n');
	write_file($file, join '', map { csv_line(@$_[@used]) } \@names, @rows);
	my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$file', 'bulk_$type', 'kinds', options => '" . $json->encode($options) . "')");
	my $stat = final_stat($node, $id);
	my ($what) = $expected =~ /^(\w+)/;
	is("$stat->{state} $what $stat->{$what}", "completed $expected", "bulk_$type of all kinds of types" . (defined $wrong ? ", $match[$wrong] differs" : ''));
}
done_testing();
