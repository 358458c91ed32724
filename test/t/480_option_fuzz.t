# Options that nobody would write: thousands of random JSON documents, made of the names of options, their
# values and things that are neither, are either taken or refused with 22023 (42704 for names of servers and
# encodings), never with anything else, and what is taken is the same when it is read again by a worker.
use strict;
use warnings;

use BulkAction;
use JSON::PP;
use Test::More;

my $node = new_node('main', conf => "bulk_action.file_root = '/'\nbulk_action.enabled = off\n");
create_contacts($node, 10);
register_contacts($node);
my $csv = contacts_csv($node, rows => 10);
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE tried (options jsonb, type text, code text, message text);
CREATE PROCEDURE try(p_options jsonb, p_type text, p_source text) LANGUAGE plpgsql AS $$
DECLARE
	v_code text := '00000'; v_message text;
BEGIN
	BEGIN
		PERFORM bulk_action.bulk_action_submit(p_source, action_type => p_type, options => p_options);
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS v_code = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
	END;
	INSERT INTO tried VALUES (p_options, p_type, v_code, v_message);
END $$;
SQL

my $seed = $ENV{BULK_ACTION_FUZZ_SEED} // int rand 1_000_000;
note("seed $seed");
srand($seed);
sub one_of { return $_[ int rand @_ ] }

my ($source) = grep { /option_rules\[\] = / } split /^};/m, read_file(__FILE__ =~ s{t/[^/]+\z}{../src/stage/options.c}r);
my @names = $source =~ /\{"(\w+)", FOR/g;
cmp_ok(scalar @names, '>', 15, 'the names of options are known');
my @words = (qw(all last first error key file keep null value report insert skip update ignore pad none always only_if_empty never
	latin1 UTF-16 utf8 DD.MM.YYYY YYYY-MM-DD lenient strict id email first_name age notes column overwrite format decimal grouping boolean date timestamp), ',', ';', '|');
our $depth = 0;
my $random;
$random = sub {
	local $depth = $depth + 1;
	my $kind = int rand($depth > 3 ? 7 : 10);
	return one_of(@words) if $kind < 3;
	return one_of(JSON::PP::true, JSON::PP::false) if $kind == 3;
	return one_of(0, 1, -1, 7, 100, 101, 10_001, 1e300, 0.5, -2**63, 2**31) if $kind == 4;
	return undef if $kind == 5;
	return one_of('', ' ', "\n", "\t", '"', '%s%n', "\x{1F600}", 'x' x 100, 'y' x 5_000, "\x{7f}", '5%', '-1%', "\x{202E}") if $kind == 6;
	return [ map { $random->() } 1 .. int rand 4 ] if $kind == 7;
	return { map { one_of(@words, @names, 'zzz', '') => $random->() } 1 .. int rand 4 };
};
my $json = JSON::PP->new->canonical->ascii;
my $n = 4_000;
my @calls;
foreach my $i (1 .. $n)
{
	my $options = rand() < 0.03 ? $random->()
	  : { map { (rand() < 0.95 ? one_of(@names) : one_of(@words, '')) => $random->() } 1 .. 1 + int rand 3 };
	my $text = $json->allow_nonref->encode($options);
	$text =~ s/'/''/g;
	push @calls, "CALL try('$text', 'bulk_" . one_of(qw(update insert upsert delete)) . "', 'file://$csv');\n";
}
my $script = write_file($node->basedir . '/fuzz.sql', "SET client_min_messages = warning;\n" . join '', @calls);
$node->safe_psql('postgres', "\\i $script");

is(value_of($node, 'SELECT count(*) FROM tried'), $n, 'all of them were tried');
is(value_of($node, "SELECT string_agg(code || ' ' || message || ' ' || left(options::text, 200), E'\\n') FROM (SELECT * FROM tried WHERE code NOT IN ('00000', '22023', '42704') LIMIT 5) AS t"), '',
	'and taken, or refused as what they are');
cmp_ok(value_of($node, "SELECT count(*) FROM tried WHERE code = '00000'"), '>', 50, 'some are taken');
cmp_ok(value_of($node, "SELECT count(DISTINCT message) FROM tried WHERE code = '22023'"), '>', 100, 'and others refused, for many reasons');

# what was taken is read by the workers without complaint about options
$node->safe_psql('postgres', "ALTER SYSTEM SET bulk_action.enabled = on; SELECT pg_reload_conf()");
wait_for($node, "SELECT count(*) = 0 FROM bulk_action.bulk_actions WHERE state IN ('queued', 'running')", timeout => 600);
is(value_of($node, "SELECT string_agg(DISTINCT error_code || ' ' || error_message, E'\\n') FROM bulk_action.bulk_actions
	WHERE state <> 'completed' AND error_code NOT IN ('22P04', '42703', '42701', '42804', '42883', 'BA422')"), '', 'actions end as their files let them');
unlike(read_file($node->logfile), qr/terminated by signal|TRAP:|PANIC/, 'nothing crashed');

done_testing();
