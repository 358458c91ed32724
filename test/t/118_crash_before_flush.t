# The server crashes a moment after a chunk was written, by that chunk, so that writing it, an asynchronous
# commit, is lost as well. It is charged with its crashes all the same, and the number of them is bounded.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $attempts = 2;
my $node = new_node('main', injection => 1, conf => <<"CONF");
bulk_action.file_root = '/'
bulk_action.max_attempts = $attempts
CONF
create_contacts($node, 500);
register_contacts($node);
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION crash() RETURNS trigger LANGUAGE c AS 'bulk_action_injection', 'bulk_action_dereference_null';
CREATE TRIGGER crash BEFORE UPDATE ON contacts FOR EACH ROW WHEN (old.id = 100) EXECUTE FUNCTION crash();
SQL
my $csv = contacts_csv($node, rows => 500);
my $log_from = 0;

foreach my $options ('{}', '{}', '{"duplicates": "last"}', '{"order": "file"}')
{
	my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$csv', options => '$options')");
	wait_for($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'", expect => 'failed');
	my $log = substr(read_file($node->logfile), $log_from);
	$log_from += length $log;
	is(scalar(() = $log =~ /was terminated by signal/g), 1 + $attempts, "$options: crashes");
	is(value_of($node, "SELECT unprocessed FROM bulk_action.bulk_action_stat('$id')"), 500, "$options: its rows are unprocessed");
}

done_testing();
