# A trigger that brings the whole server down. Once: the action goes on as if nothing had happened.
# Every time: after max_attempts crashes that happen while it runs alone the chunk is set aside, all others
# are applied and the action fails; what was running beside it is not charged with it (116_dead_letters.t
# has more).
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', conf => "bulk_action.file_root = '/'\nbulk_action.max_attempts = 3\n");
create_contacts($node, 3_000);
serial_copy($node, 'public.contacts');
register_contacts($node);
create_contacts($node, 3_000, table => 'public.others');
serial_copy($node, 'public.others');
register_contacts($node, entity => 'other', table => 'public.others');

# Crashes as a C function would: the process is gone without a word, and the postmaster restarts all.
# What a crash must not make forgotten, how often it happened, is counted in a file.
my $count = $node->basedir . '/crashes';
$node->safe_psql('postgres', <<"SQL");
CREATE TABLE crashes (wanted integer);
INSERT INTO crashes VALUES (0);
CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS \$\$
BEGIN
	EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', format(
		'echo >>$count; test \$(wc -l <$count) -gt %s || kill -9 %s', (SELECT wanted FROM public.crashes), pg_backend_pid()));
	RETURN new;
END \$\$;
CREATE TRIGGER crash BEFORE UPDATE ON contacts FOR EACH ROW WHEN (old.id = 1500) EXECUTE FUNCTION crash();
SQL

sub state_of
{
	my ($id) = @_;
	return "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'";
}

my $csv = contacts_csv($node, rows => 3_000, order => 'shuffled', salt => 1, bad => { 7 => { age => 'x' } });

# Once.
apply_serially($node, csv => $csv);
$node->safe_psql('postgres', "UPDATE crashes SET wanted = 1");
my $once = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$csv')");
wait_for($node, state_of($once), expect => 'completed', what => 'the action after one crash');
same_content($node, 'public.contacts', 'public.contacts_serial', 'after one crash the table is as without it');
is(value_of($node, "SELECT (total, updated, failed, unprocessed)::text FROM bulk_action.bulk_action_stat('$once')"),
	'(3000,2999,1,0)', 'and so are the statistics');

# Every time, beside an innocent one.
$node->safe_psql('postgres', "UPDATE crashes SET wanted = 1000000");
$csv = contacts_csv($node, rows => 3_000, order => 'shuffled', salt => 3, name => 'always.csv', bad => { 7 => { age => 'x' } });
my $others = contacts_csv($node, rows => 3_000, salt => 2, name => 'others.csv');
apply_serially($node, csv => $others, table => 'public.others');
# both at once: the server may be down a moment after the first
my ($always, $innocent) = split /\n/, value_of($node, <<"SQL");
BEGIN;
SELECT bulk_action.bulk_action_submit('file://$csv', account_id => 'a');
SELECT bulk_action.bulk_action_submit('file://$others', entity_type => 'other', account_id => 'b');
COMMIT;
SQL
wait_for($node, state_of($always), expect => 'failed', what => 'the action that crashes the server');
wait_for($node, state_of($innocent), expect => 'completed', what => 'the action beside it');
like(value_of($node, "SELECT error_message FROM bulk_action.bulk_actions WHERE id = '$always'"),
	qr/1 of its chunks crashed the server/, 'the action says why it failed');
is(value_of($node, "SELECT total = updated + not_found + failed + unprocessed AND unprocessed BETWEEN 1 AND 1000
	FROM bulk_action.bulk_action_stat('$always')"), 't', 'its rows are all accounted for');
same_content($node, 'public.others', 'public.others_serial', 'the action beside it was applied in full');

# The server stays up, and works.
$node->safe_psql('postgres', 'DROP TRIGGER crash ON contacts');
# most of its rows are as the file wants them already
my $after = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$csv', account_id => 'a', options => '{\"skip_unchanged\": false}')");
wait_for($node, state_of($after), expect => 'completed', what => 'an action afterwards');
is(value_of($node, "SELECT (total, updated, failed, unprocessed)::text FROM bulk_action.bulk_action_stat('$after')"),
	'(3000,2999,1,0)', 'all rows are applied afterwards');
apply_serially($node, csv => $csv);
same_content($node, 'public.contacts', 'public.contacts_serial', 'and the table is as by hand');

done_testing();
