# The reference says what there is, all of it and nothing else: settings, functions, views and their
# columns, options of servers and user mappings, SQLSTATEs of the extension's own class. And whatever
# a user can see in the catalogs has a comment there. Of faults, docs/failures.md names
# tests that exist, of threats SECURITY.md.
use strict;
use warnings;

use BulkAction;
use File::Basename qw(dirname);
use File::Spec;
use Test::More;

my $top = dirname(dirname(dirname(File::Spec->rel2abs(__FILE__))));
my $reference = read_file("$top/docs/reference.md");
my $node = new_node('main');

# Words in back quotes that stand first in a row of a table.
my %row = map { $_ => 1 } $reference =~ /^\|\s*`([^`]+)`/mg;

sub documented
{
	my ($what, @names) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	cmp_ok(scalar @names, '>', 0, "there are $what");
	is_deeply([ grep { !$row{$_} } @names ], [], "all $what have a row in the reference");
}

my @settings = map { $_->[0] } rows_of($node, "SELECT name FROM pg_settings WHERE name LIKE 'bulk\\_action.%'");
documented('settings', @settings);
my %setting = map { $_ => 1 } @settings;
is_deeply([ grep { /^bulk_action\./ && !$setting{$_} } sort keys %row ], [], 'the reference has no setting that does not exist');
my @routines = map { $_->[0] } rows_of($node,
	"SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'bulk_action'::regnamespace");
cmp_ok(scalar @routines, '>', 5, 'there are functions');
is_deeply([ grep { $reference !~ /`(?:bulk_action\.)?\Q$_\E[(`]/ } @routines ], [], 'all functions are in the reference');

my @views = map { $_->[0] } rows_of($node,
	"SELECT relname FROM pg_class WHERE relnamespace = 'bulk_action'::regnamespace AND relkind IN ('v', 'r')");
cmp_ok(scalar @views, '>=', 4, 'there are views');
foreach my $view (@views)
{
	my ($section) = $reference =~ /^#+[^\n]*`(?:bulk_action\.)?\Q$view\E`[^\n]*\n(.*?)(?=^#|\z)/ms;
	ok(defined $section, "$view has a section") or next;
	my %column = map { $_ => 1 } $section =~ /^\|\s*`([^`]+)`/mg;
	my @columns = map { $_->[0] } rows_of($node,
		"SELECT attname FROM pg_attribute WHERE attrelid = 'bulk_action.$view'::regclass AND attnum > 0");
	is_deeply([ sort keys %column ], [ sort @columns ], "its columns are those of $view");
}

is(value_of($node, <<'SQL'), '', 'every function, view and column has a comment');
SELECT string_agg(name, ', ' ORDER BY name) FROM (
	SELECT p.oid::regprocedure::text AS name FROM pg_proc p
	WHERE p.pronamespace = 'bulk_action'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
	UNION ALL
	SELECT c.oid::regclass::text FROM pg_class c
	WHERE c.relnamespace = 'bulk_action'::regnamespace AND c.relkind IN ('v', 'r')
		AND obj_description(c.oid, 'pg_class') IS NULL
	UNION ALL
	SELECT a.attrelid::regclass || '.' || a.attname FROM pg_attribute a
	JOIN pg_class c ON c.oid = a.attrelid
	WHERE c.relnamespace = 'bulk_action'::regnamespace AND c.relkind IN ('v', 'r') AND a.attnum > 0
		AND col_description(c.oid, a.attnum) IS NULL
) AS without
SQL

my $codes = read_file("$top/src/base/error_codes.h");
my @codes = $codes =~ /^ \* (BA\d\d\d)/mg;
documented("SQLSTATEs", @codes);
my @made = map { join '', /'(.)'/g } $codes =~ /MAKE_SQLSTATE\(([^)]*)\)/g;
is_deeply([ sort @made ], [ sort @codes ], 'the table of codes lists those that are defined');

my @options = map { read_file("$top/src/api/$_") =~ /^\s*\{"(\w+)",/mg } qw(s3_validator.c https_validator.c);
documented('options of servers and user mappings', @options);

# The options of an action have a table of their own, which must have just them.
my @action_options = read_file("$top/src/stage/options.c") =~ /^\s*\{"(\w+)",/mg;
my ($table_of_options) = $reference =~ /^\| option \| value \|(.*?)^#/ms;
cmp_ok(scalar @action_options, '>', 10, 'there are options of an action');
is_deeply([ sort(($table_of_options // '') =~ /^\|\s*`(\w+)`/mg) ], [ sort @action_options ], 'the table of options is the list in the source');

# Faults: each has a test, which exists, and every code of the extension's own that an action can end with
# is among them.
my $failures = read_file("$top/docs/failures.md");
my ($in_tables, @without) = (0);
foreach my $line (grep { /^\|/ && !/^\| (?:fault )?\|/ && !/^\|(?:---\|)+$/ } split /\n/, $failures =~ s/.*?^## Rows\n//msr)
{
	$in_tables++;
	push @without, $line unless $line =~ /`\d{3}_\w+\.t`[^|]*\|\z/;
}
cmp_ok($in_tables, '>', 40, 'there are faults');
is_deeply(\@without, [], 'each has a test');
my %named = map { $_ => 1 } $failures =~ /`(\d{3}_\w+\.t)`/g;
is_deeply([ grep { !-e "$top/test/t/$_" } sort keys %named ], [], 'which exists');
is_deeply([ grep { $_ ne 'BA408' && $failures !~ /`$_`/ } @codes ], [], 'codes that actions end with are among the faults');

# Threats likewise. What stands in a comment waits for its test.
my $threats = read_file("$top/SECURITY.md");
my ($table) = $threats =~ /^## Threats\n(.*?)^## /ms;
my @threats = grep { /^\|/ && !/^\| who \|/ && !/^\|(?:---\|)+$/ } split /\n/, $table;
cmp_ok(scalar @threats, '>', 20, 'there are threats');
is_deeply([ grep { !/^(?:\|[^|]+){3}\|(?: `\d{3}_\w+\.t`,?)+ \|\z/ } @threats ], [], 'each says who, what, what stops it and a test');
is_deeply([ grep { !-e "$top/test/t/$_" } $threats =~ /`(\d{3}_\w+\.t)`/g ], [], 'which exists');

done_testing();
