# Schemas, tables, columns and types with any name at all, through every type of action, its options, a dry run
# and a preview: what is inserted, set, compared and deleted is what plain SQL makes of it.
use strict;
use warnings;

use BulkAction;
use BulkAction::ByHand;
use JSON::PP;
use Test::More;

my $node = new_node('main', conf => "bulk_action.file_root = '/'\n");
prepare_by_hand($node);

# All in bytes.
my @names = (
	q{id"; DROP TABLE public.bystander; --}, q{a"b}, q{'"''""'}, q{it's}, '%s%n%1$s%m', q{\\back\\'slash\\}, '$1', '$$x$$', '/* -- */', "two\nlines",
	"two\r\nlines", "a\tb", "\e[31mred\e]0;title\a", "\xe2\x80\xaetxt.exe", "Žluťoučký kůň \xf0\x9f\x98\x80", ' blanks ', ';', ',', 'select', 'SELECT', 'user', 'null',
	'excluded', 's', 't', 'n', 'v1', 'ctid ', '{"a":[1]}', 'x' x 63, "\xc3\xbc" x 31, '#');
my ($key1, $key2, @columns) = @names;
sub quoted { return '"' . ($_[0] =~ s/"/""/gr) . '"' }

my $type = quoted(q{ty"pe'; --});
my $name = quoted("ta\"ble\n; DROP TABLE public.bystander; --\\");
my %schema = (mine => quoted(q{sche"ma'; %s}), hand => quoted(q{by "hand"\\}));
$node->safe_psql('postgres', "SET client_min_messages = warning; CREATE TABLE public.bystander (); CREATE DOMAIN public.$type AS text;");
foreach my $schema (values %schema)
{
	$node->safe_psql('postgres', "CREATE SCHEMA $schema; CREATE TABLE $schema.$name (" . quoted($key1) . ' bigint, ' . quoted($key2) . ' text, '
		  . join(', ', map { quoted($_) . ($_ eq 'select' ? " public.$type" : $_ eq 'SELECT' ? ' text[]' : ' text') } @columns) . ", PRIMARY KEY (" . quoted($key1) . ', ' . quoted($key2) . '))');
}
$node->safe_psql('postgres', 'SELECT bulk_action.bulk_action_register_entity(' . join(', ', "'nasty'", sql_literal("$schema{mine}.$name") . '::regclass',
		'ARRAY[' . sql_literal($key1) . ', ' . sql_literal($key2) . ']') . ')');

# Every name is a value in every column, at one time or another; one row of three has empty cells, one key is not there.
my @rows = map {
	my $i = $_;
	my @cells = map { my $c = $_; $columns[$c] eq 'SELECT' ? sprintf('{"%d,",NULL}', $i) : $i % 3 && $c % 5 == $i % 5 ? undef : $names[ ($i + $c) % @names ] } 0 .. $#columns;
	[ $i, $names[ $i % @names ], @cells ]
} 1 .. 40;
push @rows, [ 'no number', 'x', map { $columns[$_] eq 'SELECT' ? '{' : 'y' } 0 .. $#columns ];
my %file = (header => [ $key1, $key2, @columns ], rows => \@rows);

sub fill
{
	my $values = join ', ', map { my $i = $_; '(' . join(', ', $i, sql_literal($names[ $i % @names ]),
			map { $columns[$_] eq 'SELECT' ? "'{old}'" : sql_literal($i % 4 ? $names[ ($i + $_) % @names ] : 'old') } 0 .. $#columns) . ')' } map { 2 * $_ } 1 .. 25;
	$node->safe_psql('postgres', join '', map { "TRUNCATE $_.$name; INSERT INTO $_.$name VALUES $values;" } values %schema);
	return;
}

# match: all columns at once, and one alone
my @match = grep { $_ ne 'SELECT' } @columns;
foreach my $case ([ 'update' ], [ 'update', on_missing => 'insert' ], [ 'insert' ], [ 'insert', on_conflict => 'skip' ], [ 'upsert' ], [ 'upsert', order => 'file' ], [ 'upsert', duplicates => 'last' ],
	[ 'delete' ], [ 'delete', match => \@match ], [ 'delete', match => [ $match[0] ], on_missing => 'error' ])
{
	my ($type, %options) = @$case;
	fill();
	my $title = join ' ', $type, map { "$_ " . (ref $options{$_} ? scalar(@{ $options{$_} }) : $options{$_}) } sort keys %options;
	my $before = checksum_of($node, "$schema{mine}.$name");
	my %argument = (%file, table => "$schema{hand}.$name", keys => [ $key1, $key2 ], entity => 'nasty', type => $type, options => \%options);
	do_by_hand($node, %argument);
	my $id = submit_typed($node, %argument, options => { %options, dry_run => JSON::PP::true });
	like_by_hand($node, $id, "$title, dry");
	is(checksum_of($node, "$schema{mine}.$name"), $before, "$title, dry: nothing is changed");
	like_by_hand($node, submit_typed($node, %argument), $title);
	same_content($node, "$schema{mine}.$name", "$schema{hand}.$name", "$title: the table");
}

# Other names in the file, as nasty as those of the table.
{
	fill();
	my @turned = reverse @columns;
	my %columns = map { $columns[$_] => $turned[$_] } grep { $columns[$_] ne 'SELECT' && $turned[$_] ne 'SELECT' } 0 .. $#columns;
	my @use = sort keys %columns;
	my @some = map { my $i = $_; [ $i, $names[ $i % @names ], map { "$i $_" } 0 .. $#use ] } 1 .. 20;
	do_by_hand($node, header => [ $key1, $key2, @columns{@use} ], rows => \@some, table => "$schema{hand}.$name", keys => [ $key1, $key2 ], type => 'upsert');
	my $id = submit_typed($node, header => [ $key1, $key2, @use ], rows => \@some, entity => 'nasty', type => 'upsert', options => { columns => \%columns });
	like_by_hand($node, $id, 'columns by other names');
	same_content($node, "$schema{mine}.$name", "$schema{hand}.$name", 'columns by other names: the table');
}

# A preview tells the columns, their types and values as they are.
foreach my $type (qw(update insert upsert delete))
{
	my $source = csv_file_of($node, %file);
	my $document = decode_json(pack 'H*', value_of($node, "SELECT encode(convert_to(bulk_action.bulk_action_preview('$source', 'bulk_$type', 'nasty', '{}', 100)::text, 'UTF8'), 'hex')"));
	my $bytes = sub { my ($text) = @_; utf8::encode($text) if defined $text; return $text };
	is_deeply([ map { $bytes->($_->{header}) } @{ $document->{columns} } ], [ $key1, $key2, @columns ], "preview of bulk_$type: the header");
	is(scalar(@{ $document->{rows} }), scalar @rows, 'all rows');
	is(scalar(@{ $document->{problems} }), $type eq 'delete' ? 1 : 2, 'and the cells of the last that do not convert');
	next if $type eq 'delete';
	is_deeply([ map { $bytes->($_->{column}) } @{ $document->{columns} } ], [ $key1, $key2, @columns ], 'and which column is which');
	my %shown = map { $bytes->($_) => $bytes->($document->{rows}[6]{cells}{$_}{value}) } keys %{ $document->{rows}[6]{cells} };
	my %expected;
	@expected{ $key1, $key2, @columns } = @{ $rows[6] };
	is_deeply(\%shown, \%expected, 'the cells of a row');
}
is(value_of($node, "SELECT to_regclass('public.bystander')"), 'bystander', 'and nothing else happened');
unlike(read_file($node->logfile), qr/do not add up|TRAP:|syntax error/, 'nothing strange in the log');
done_testing();
