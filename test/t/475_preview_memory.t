# A preview of a file that is meant for another table: it is told of each column that stands for nothing, and
# what that takes does not grow with the square of their number.
use strict;
use warnings;

use BulkAction;
use JSON::PP;
use Test::More;

my $node = new_node('main', conf => "bulk_action.file_root = '/'");
create_contacts($node, 1);
register_contacts($node);

my $columns = 1_500;
my $folder = PostgreSQL::Test::Utils::tempdir();
write_file("$folder/wide.csv", join(',', 'id', map { "nonsense$_" } 1 .. $columns) . "\n");
my ($document, $peak) = split /\n---\n/, $node->safe_psql('postgres', <<SQL);
SELECT bulk_action.bulk_action_preview('file://$folder/wide.csv');
SELECT '---';
SELECT substring(pg_read_file('/proc/self/status') FROM 'VmHWM:\\s*(\\d+) kB');
SQL
my $problems = decode_json($document)->{problems};
is(scalar(grep { $_->{code} eq '42703' && defined $_->{column} } @$problems), $columns, 'all of them are named');
cmp_ok($peak, '<', 250 * 1024, 'with little memory (kB)');

done_testing();
