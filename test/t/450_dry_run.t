# A dry run: the counts and errors of the real one, through the table's own constraints, triggers, policies
# and domains, and nothing changed. What it should report is what the same action does when it is really run
# on a copy of the table.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', injection => 1, conf => "bulk_action.file_root = '/'\n");
my $root = $node->basedir;
create_role($node, 'alice');
$node->safe_psql('postgres', 'GRANT pg_read_server_files TO alice; CREATE SEQUENCE outside; GRANT ALL ON SEQUENCE outside TO alice');

# Everything of which something could be left: rows, what triggers and domain checks write, deferred
# constraints, one that is deferred to the commit once more, temporary tables, settings, notifications.
foreach my $schema (qw(dry hand))
{
	$node->safe_psql('postgres', <<"SQL");
CREATE SCHEMA $schema;
SET search_path = $schema, public;
CREATE TABLE kinds (kind int PRIMARY KEY);
INSERT INTO kinds VALUES (1), (2), (3);
CREATE TABLE seen (what text);
CREATE TABLE log (id bigint, note text);
CREATE FUNCTION look(value text) RETURNS boolean LANGUAGE plpgsql SET search_path = $schema AS
	'BEGIN INSERT INTO seen VALUES (value); RETURN value <> ''unseen''; END';
CREATE DOMAIN watched AS text CHECK (look(VALUE));
CREATE DOMAIN number AS bigint CHECK (look(VALUE::text));
CREATE TABLE things (
	id number PRIMARY KEY, code text UNIQUE, kind int REFERENCES kinds DEFERRABLE INITIALLY DEFERRED,
	age int CHECK (age >= 0), note text, watched watched, owner text DEFAULT 'alice');
INSERT INTO things SELECT i, 'code ' || i, 1 + i % 3, i % 90, 'note', 'as it was', CASE WHEN i % 50 = 0 THEN 'bob' ELSE 'alice' END
	FROM generate_series(1, 4000) AS i;
TRUNCATE seen;
ALTER TABLE things ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON things USING (owner = current_user);
CREATE FUNCTION written() RETURNS trigger LANGUAGE plpgsql SET search_path = $schema AS \$\$
BEGIN
	IF new.note = 'raise' THEN RAISE 'refused by a trigger' USING ERRCODE = 'ZZ001', COLUMN = 'note'; END IF;
	IF new.note = 'leave' THEN RETURN NULL; END IF;
	PERFORM nextval('public.outside');
	PERFORM pg_notify('rows', new.id::text);
	PERFORM set_config('my.setting', new.id::text, false);
	CREATE TEMPORARY TABLE IF NOT EXISTS leftover (id bigint);
	RETURN new;
END \$\$;
CREATE TRIGGER a BEFORE INSERT OR UPDATE ON things FOR EACH ROW EXECUTE FUNCTION written();
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql SET search_path = $schema AS \$\$
BEGIN
	SET CONSTRAINTS ALL DEFERRED;
	IF tg_op = 'DELETE' THEN INSERT INTO log VALUES (old.id, 'gone'); ELSE INSERT INTO log VALUES (new.id, new.note); END IF;
	RETURN NULL;
END \$\$;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''refused at commit''; END';
CREATE CONSTRAINT TRIGGER again AFTER INSERT OR UPDATE OR DELETE ON things DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION again();
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON log DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (new.note = 'late') EXECUTE FUNCTION refuse();
GRANT USAGE ON SCHEMA $schema TO alice;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA $schema TO alice;
SELECT bulk_action.bulk_action_register_entity('$schema', '$schema.things', ARRAY['id']);
SELECT bulk_action.bulk_action_grant('$schema', 'alice');
SQL
}

sub submit
{
	my ($schema, $type, $file, %options) = @_;
	my $options = join ', ', map { qq("$_": $options{$_}) } sort keys %options;
	return value_of($node, "SELECT bulk_action.bulk_action_submit('file://$file', action_type => '$type', entity_type => '$schema', options => '{$options}')", as => 'alice');
}

sub ended
{
	my ($id) = @_;
	wait_for($node, "SELECT finished_at IS NOT NULL FROM bulk_action.bulk_actions WHERE id = '$id'");
	return $id;
}

# what is reported of an action
sub report
{
	my ($id, %option) = @_;
	return [
		rows_of($node, "SELECT state, total, total_is_final, updated, inserted, deleted, unchanged, not_found, superseded, failed, unprocessed, error_code FROM bulk_action.bulk_action_stat('$id')"),
		rows_of($node, "SELECT line, superseded_by FROM bulk_action.bulk_action_superseded_rows WHERE action_id = '$id' ORDER BY line"),
		map { s/\b(?:dry|hand)\b/X/g foreach grep { defined } @$_; $_ }
		  rows_of($node, "SELECT line, error_code, error_column, error_message, record FROM bulk_action.bulk_action_errors WHERE action_id = '$id' ORDER BY line") ];
}

my @tables = qw(things seen log kinds);
my %before = map { $_ => checksum_of($node, "dry.$_") } @tables;

sub untouched
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply({ map { $_ => checksum_of($node, "dry.$_") } @tables }, \%before, "$name: nothing is changed");
}

# The table of the real run is as the other one was.
sub restore
{
	$node->safe_psql('postgres', 'SET session_replication_role = replica; TRUNCATE hand.things, hand.log, hand.seen; INSERT INTO hand.things SELECT * FROM dry.things; TRUNCATE hand.seen');
}

# rows with every way of going wrong; keys in no order, most of them in the table
sub file
{
	my ($name, %option) = @_;
	my $rows = $option{rows} // 4000;
	my $csv = "id,code,kind,age,note,watched\n";
	foreach my $i (1 .. $rows)
	{
		my $id = 1 + $i * 2477 % 5003;
		my ($code, $kind, $age, $note, $watched) = ("new $id", 1 + $i % 3, $i % 80, "note $i", "w $i");
		$age = -1 if $i % 97 == 0;
		$age = 'old' if $i % 101 == 0;
		$kind = 99 if $i % 103 == 0;
		$code = 'code 50' if $i % 211 == 0;    # bob's, who is not seen
		$note = 'raise' if $i % 107 == 0;
		$note = 'leave' if $i % 307 == 0;
		$note = 'late' if $i % 397 == 5;
		$watched = 'unseen' if $i % 109 == 0;
		$id = '' if $i == 77;
		$csv .= csv_line($id, $code, $kind, $age, $note, $watched);
		$csv .= "$id,too,few\n" if $i % 1009 == 0;
		$csv .= qq($id,stray"quote,1,1,,\n) if $i % 2003 == 0;
		$csv .= csv_line($id, "new $id", 1, 1, 'second', 'x') if $option{repeat} && $i % 10 == 0;
	}
	return write_file("$root/$name.csv", $csv);
}
my $file = file('things');

my @cases = (
	[ 'bulk_update' ],
	[ 'bulk_upsert' ],
	[ 'bulk_insert', on_conflict => '"skip"' ],
	[ 'bulk_delete' ],
	[ 'bulk_update', on_missing => '"error"', order => '"file"' ],
	[ 'bulk_upsert', duplicates => '"last"', repeat => 1 ],
	[ 'bulk_update', duplicates => '"error"', repeat => 1 ],
	[ 'bulk_update', max_errors => 20 ]);

foreach my $case (@cases)
{
	my ($type, %options) = @$case;
	my $name = join ' ', $type, map { "$_ $options{$_}" } sort keys %options;
	my $source = delete $options{repeat} ? file('repeated', repeat => 1) : $file;
	my $dry = ended(submit('dry', $type, $source, %options, dry_run => 'true'));
	untouched($name);
	restore();
	my $real = ended(submit('hand', $type, $source, %options));
	if ($options{max_errors})
	{
		is_deeply([ rows_of($node, "SELECT state, error_code FROM bulk_action.bulk_actions WHERE id IN ('$dry', '$real')") ],
			[ ([ 'failed', 'BA422' ]) x 2 ], "$name: gives up like the real one");
		next;
	}
	my ($got, $expected) = (report($dry), report($real));
	is_deeply($got, $expected, "$name: reports what really happens");
	cmp_ok(scalar @$expected, '>', $type eq 'bulk_delete' ? 5 : 100, "$name: much goes wrong");
	ok(scalar(grep { ($_->[3] // '') eq 'refused at commit' } @$got), "$name: also what only a commit would find") if $type ne 'bulk_delete';
	isnt(checksum_of($node, 'hand.things'), $before{things}, "$name: and something goes right");
}

# --- that it is a dry run can be seen ----------------------------------------------------------------

{
	my $listener = $node->background_psql('postgres', on_error_stop => 0);
	$listener->query_safe('LISTEN bulk_action; LISTEN rows');
	my $id = submit('dry', 'bulk_update', $file, dry_run => 'true');
	my (undef, undef, $told) = $node->psql('postgres', "CALL bulk_action.bulk_action_wait('$id')");
	like($told, qr/bulk action completed \(dry run, nothing was changed\): \d+ rows, /, 'who waits is told');
	my $heard = '';
	wait_until(sub { $heard .= $listener->query_safe('SELECT 1'); return $heard =~ /\Q$id\E/ }, what => 'a notification');
	like($heard, qr/"\{"id" : "$id", "state" : "completed", "dry_run" : true\}"/, 'so is who listens');
	unlike($heard, qr/notification "rows"/, 'notifications of triggers are not sent');
	$listener->quit;
	my $other = ended(submit('hand', 'bulk_update', $file));
	is_deeply([ rows_of($node, "SELECT dry_run, id = '$id' FROM bulk_action.bulk_actions WHERE id IN ('$id', '$other') ORDER BY dry_run DESC") ],
		[ [ 't', 't' ], [ 'f', 'f' ] ], 'bulk_actions tells them apart');
	cmp_ok(value_of($node, "SELECT last_value FROM outside"), '>', 1000, 'sequences have moved');
	my (undef, undef, $error) = $node->psql('postgres', "SELECT bulk_action.bulk_action_submit('file://$file', entity_type => 'dry', options => '{\"dry_run\": \"yes\"}')");
	like($error, qr/"dry_run" must be a boolean/, 'it is asked for by true, nothing else');
}

# --- trouble on the way ------------------------------------------------------------------------------

my $quiet = report(ended(submit('dry', 'bulk_upsert', $file, dry_run => 'true')));
foreach my $trouble (
	[ 'applier-applied', 'kill' ], [ 'applier-before-commit', 'kill' ], [ 'applier-before-commit', 'error 40001' ],
	[ 'applier-applied', 'error 40P01' ], [ 'applier-applied', 'terminate' ], [ 'chunker-before-commit', 'kill' ])
{
	my ($point, $what) = @$trouble;
	inject($node, $point, $what);
	my $id = submit('dry', 'bulk_upsert', $file, dry_run => 'true');
	wait_for_injected($node, $point);
	ended($id);
	is_deeply(report($id), $quiet, "$what at $point: the same report");
	untouched("$what at $point");
}

# --- pause, resume, cancel, retry; the stream --------------------------------------------------------

{
	my $session = $node->background_psql('postgres');
	$session->query_safe('BEGIN; LOCK TABLE dry.things');
	my $id = submit('dry', 'bulk_upsert', $file, dry_run => 'true');
	my $next = submit('dry', 'bulk_update', $file, dry_run => 'true');
	wait_for($node, "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'dry.things'::regclass AND NOT granted");
	value_of($node, "SELECT bulk_action.bulk_action_pause('$id')", as => 'alice');
	wait_for($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'", expect => 'paused');
	is(value_of($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$next'"), 'queued', 'the next one of the stream waits');
	$session->query_safe('COMMIT');
	$session->quit;
	value_of($node, "SELECT bulk_action.bulk_action_resume('$id')", as => 'alice');
	ended($id);
	is_deeply(report($id), $quiet, 'paused and resumed: the same report');
	ended($next);

	my $failed = ended(submit('dry', 'bulk_upsert', $file, dry_run => 'true', max_errors => 10));
	is(value_of($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$failed'"), 'failed', 'one with too many errors');
	value_of($node, "SELECT bulk_action.bulk_action_retry('$failed', '\"100%\"')", as => 'alice');
	wait_for($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$failed'", expect => 'completed');
	is_deeply(report($failed), $quiet, 'retried with more: the same report');
	is(value_of($node, "SELECT dry_run FROM bulk_action.bulk_actions WHERE id = '$failed'"), 't', 'and a dry run still');
	untouched('all that');
}

# --- what it cannot know, as documented --------------------------------------------------------------

{
	# rows of one key in one chunk see each other, those of two chunks do not
	my $near = write_file("$root/near.csv", "id,note\n9001,a\n9001,b\n9001,b\n");
	is(value_of($node, "SELECT concat_ws(' ', inserted, updated, unchanged) FROM bulk_action.bulk_action_stat('" . ended(submit('dry', 'bulk_upsert', $near, dry_run => 'true')) . "')"),
		'1 1 1', 'in one chunk');
	my $far = write_file("$root/far.csv", "id,note\n9001,a\n" . join('', map { "$_,x\n" } 1 .. 999) . "9001,b\n");
	is(value_of($node, "SELECT inserted FROM bulk_action.bulk_action_stat('" . ended(submit('dry', 'bulk_upsert', $far, dry_run => 'true', order => '"file"')) . "')"),
		'2', 'in two');
	untouched('both');
}

done_testing();
