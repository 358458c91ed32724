# A chunk that a worker gives back, because its session has something of another action, is not charged to
# the pace of its account.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', conf => <<'CONF');
bulk_action.file_root = '/'
bulk_action.max_workers = 1
CONF
create_role($node, 'alice');
foreach my $entity (qw(contact other))
{
	create_contacts($node, 100, table => "public.${entity}s");
	register_contacts($node, entity => $entity, table => "public.${entity}s");
}
$node->safe_psql('postgres', <<'SQL');
GRANT pg_read_server_files TO alice;
GRANT SELECT, UPDATE ON public.contacts, public.others TO alice;
CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.left', '1', false); RETURN new; END $$;
CREATE TRIGGER leave BEFORE UPDATE ON public.contacts FOR EACH ROW EXECUTE FUNCTION leave();
CREATE TRIGGER leave BEFORE UPDATE ON public.others FOR EACH ROW EXECUTE FUNCTION leave();
SQL
# 100 rows take a sixth of the time that is waited for something, a full chunk of 1000 more than all of it
value_of($node, 'SELECT bulk_action.bulk_action_set_limits(\'account\', \'acme\', rows_per_second => ' . (int(600 / $BulkAction::TIMEOUT) || 1) . ')');
my $csv = contacts_csv($node, rows => 100);
value_of($node, join('', map { "SELECT bulk_action.bulk_action_submit('file://$csv', entity_type => '$_', account_id => 'acme');\n" } qw(contact other)),
	as => 'alice');
ok(wait_for($node, "SELECT count(*) = 2 FROM bulk_action.bulk_actions WHERE state = 'completed'"),
	'the second one is not kept waiting for what was not applied');

done_testing();
