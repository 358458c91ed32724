# Whatever enters (names, headers, URIs, keys, JSON, messages of user code) comes out as what it is: quoted
# in statements, unchanged in tables, CSV in reports, and without line breaks, control characters or
# terminal escapes in the server's log and in notices.
use strict;
use warnings;

use BulkAction;
use JSON::PP;
use Test::More;

# All in bytes: what is sent is what has to come back.
my $folder;
my $node = new_node('main', start => 0, extension => 0, conf => <<'CONF');
bulk_action.file_root = '/'
bulk_action.max_attempts = 2
# what clients send is logged as it is by the server itself
log_statement = none
log_min_error_statement = panic
CONF
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION bulk_action');
server_for_s3($node);
$folder = $node->basedir . '/files';
mkdir $folder;

sub escape_literal { return "E'" . ($_[0] =~ s/([\\'])/\\$1/gr =~ s/\n/\\n/gr =~ s/\r/\\r/gr) . "'" }

sub quoted { return '"' . ($_[0] =~ s/"/""/gr) . '"' }

# One value, with whatever bytes are in it.
sub bytes_of
{
	my ($sql) = @_;
	return pack 'H*', value_of($node, "SELECT coalesce(encode(convert_to(($sql)::text, 'UTF8'), 'hex'), '')");
}

# What can be of harm somewhere.
my $forged = "2026-01-01 00:00:00 UTC [1] FATAL:  forged";
my %nasty = (
	sql => q{id"; DROP TABLE app.bystander; --}, quote => q{a"b}, quotes => q{'"''""'}, single => q{it's}, format => '%s%n%1$s%m', backslash => q{\\back\\'slash\\},
	parameter => '$1', dollar => '$$x$$', comment => '/* -- */', line => "two\nlines", crlf => "two\r\nlines", forged => "x\n$forged", tab => "a\tb",
	escape => "\e[31mred\e]0;title\a", bell => "\x07\x08\x7f", c1 => "\xc2\x9b31m\xc2\x85", bidi => "\xe2\x80\xaetxt.exe\xe2\x80\xa8",
	unicode => "Žluťoučký kůň \xf0\x9f\x98\x80", space => ' blanks ', semicolon => ';', upper => 'SELECT', brace => '{"a":[1]}',
	longest => 'x' x 63, wide => "\xc3\xbc" x 31, formula => q{=cmd|' /C calc'!A0});

my $unprintable = qr/[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]/;

sub clean
{
	my ($text, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	unlike($text, $unprintable, "$name: nothing that does not print");
	unlike($text, qr/^\Q$forged\E/m, "$name: no line that somebody else has written");
}

sub ended
{
	my ($id) = @_;
	wait_for($node, "SELECT state NOT IN ('queued', 'running') FROM bulk_action.bulk_actions WHERE id = '$id'");
	return join ' ', map { $_ // '' } @{ (rows_of($node, <<SQL))[0] };
SELECT state, updated, not_found, failed, error_code FROM bulk_action.bulk_action_stat('$id')
SQL
}

sub submit
{
	my (%argument) = @_;
	return $node->safe_psql('postgres', 'SELECT bulk_action.bulk_action_submit(' . join(', ', map { "$_ => " . escape_literal($argument{$_}) } sort keys %argument) . ')');
}

my $files = 0;

sub file_of { return 'file://' . write_file("$folder/" . ++$files . '.csv', join '', map { csv_line(@$_) } @_) }

# --- names of tables, columns and types ------------------------------------------------------------------------

my @columns = map { $nasty{$_} } sort keys %nasty;
my $key = $nasty{sql};
my @set = grep { $_ ne $key } @columns;
my $type = quoted("app") . '.' . quoted(q{ty"pe'; --});
my $table = quoted(q{sche"ma'; %s}) . '.' . quoted("ta\"ble\n; DROP TABLE app.bystander; --");
my $columns = join ', ', map { quoted($_) . ' text' } @set;
$node->safe_psql('postgres', <<SQL);
SET client_min_messages = warning;
CREATE SCHEMA app;
CREATE TABLE app.bystander ();
CREATE SCHEMA @{[ quoted(q{sche"ma'; %s}) ]};
CREATE TYPE $type AS (a text, b int);
CREATE TABLE $table (@{[ quoted($key) ]} text PRIMARY KEY, $columns, pair $type, list text[]);
SELECT bulk_action.bulk_action_register_entity('nasty', @{[ escape_literal($table) ]}::regclass, ARRAY[@{[ escape_literal($key) ]}]);
SQL
my @names = sort keys %nasty;
$node->safe_psql('postgres', "INSERT INTO $table VALUES " . join(', ', map { '(' . escape_literal($nasty{$_}) . ')' } @names));
$node->safe_psql('postgres', "CREATE TABLE app.expected (LIKE $table)");
my @rows;
foreach my $i (0 .. $#names)
{
	# every text in every column
	my @cells = map { $nasty{ $names[ ($i + $_) % @names ] } } 0 .. $#set;
	push @rows, [ $nasty{ $names[$i] }, @cells, "(\"(,\",$i)", '{"a,b",NULL}' ];
	$node->safe_psql('postgres', "INSERT INTO app.expected VALUES (" . join(', ', map { escape_literal($_) } @{ $rows[-1] }) . ')');
}
my $id = submit(source => file_of([ $key, @set, 'pair', 'list' ], @rows), entity_type => 'nasty');
is(ended($id), 'completed ' . @rows . ' 0 0 ', 'names and values of all kinds');
is(bytes_of("SELECT string_agg(t::text, '|' ORDER BY t::text COLLATE \"C\") FROM $table AS t"),
	bytes_of("SELECT string_agg(t::text, '|' ORDER BY t::text COLLATE \"C\") FROM app.expected AS t"), 'all of them where they belong, unchanged');
is(value_of($node, "SELECT to_regclass('app.bystander')"), 'app.bystander', 'and nothing else happened');
is(ended(submit(source => file_of([ $key, @set, 'pair', 'list' ], @rows), entity_type => 'nasty', options => '{"duplicates":"last","order":"file","skip_unchanged":false}')), 'completed ' . @rows . ' 0 0 ',
	'also where keys are compared and rows are taken one by one');

# Errors about them
my @bad = ([ $nasty{line}, (map { $_ eq $nasty{escape} ? 'x' : undef } @set), '(a,no number)', undef ], [ $nasty{forged}, ((undef) x @set), undef, '{' ]);
$id = submit(source => file_of([ $key, @set, 'pair', 'list' ], @bad), entity_type => 'nasty');
is(ended($id), 'completed 0 0 2 ', 'rows that fail');
is(bytes_of("SELECT string_agg(error_column, ' ' ORDER BY line) FROM bulk_action.bulk_action_errors WHERE action_id = '$id'"), 'pair list', 'name their columns');
$node->safe_psql('postgres', "ALTER TABLE $table ADD CONSTRAINT " . quoted($nasty{forged}) . ' CHECK (' . quoted($nasty{escape}) . " <> 'forbidden')");
$id = submit(source => file_of([ $key, $nasty{escape} ], [ $nasty{escape}, 'forbidden' ]), entity_type => 'nasty');
is(ended($id), 'completed 0 0 1 ', 'a constraint');
is(bytes_of("SELECT error_column FROM bulk_action.bulk_action_errors WHERE action_id = '$id'"), $nasty{escape}, 'names its column as it is');
like(bytes_of("SELECT error_message FROM bulk_action.bulk_action_errors WHERE action_id = '$id'"), qr/check constraint "\Q$nasty{forged}\E"/, 'the message is kept as the server gave it');

# --- headers -------------------------------------------------------------------------------------------------------

$node->safe_psql('postgres', <<"SQL");
CREATE TABLE app.plain (id bigint PRIMARY KEY, name text, @{[ 'y' x 63 ]} text);
INSERT INTO app.plain SELECT i, 'name ' || i FROM generate_series(1, 10) AS i;
SELECT bulk_action.bulk_action_register_entity('plain', 'app.plain', ARRAY['id']);
SQL
my $before = checksum_of($node, 'app.plain');
foreach my $name (sort keys %nasty)
{
	$id = submit(source => file_of([ 'id', $nasty{$name} ], [ 1, 'x' ]), entity_type => 'plain');
	is(ended($id), 'failed 0 0 0 42703', "header $name");
	my ($status, $out, $error) = $node->psql('postgres', "CALL bulk_action.bulk_action_wait('$id')");
	like($error, qr/WARNING:  bulk action "$id" failed: column ".*" of the header does not exist in app\.plain/, 'wait says so on one line');
	clean($error, "header $name");
}
my %malformed = (
	'a NUL byte' => "id,na\0me\n1,x\n", 'a NUL byte behind a name' => "id,name\0; DROP\n1,x\n", 'a NUL byte behind the key' => "id\0,name\n1,x\n", 'bytes that are no text' => "id,na\xff\xfeme\n1,x\n",
	'an overlong encoding' => "id,\xc0\xafname\n1,x\n", 'half a character' => "id,name\xf0\x9f\n1,x\n", 'a quote left open' => qq{id,"name\n1,x\n}, 'nothing' => '');
foreach my $what (sort keys %malformed)
{
	$id = submit(source => 'file://' . write_file("$folder/" . ++$files . '.csv', $malformed{$what}), entity_type => 'plain');
	like(ended($id), qr/^failed 0 0 0 (22P04|42703)\z/, "a header with $what");
	clean(bytes_of("SELECT error_message || coalesce(error_detail, '') || coalesce(error_hint, '') FROM bulk_action.bulk_actions WHERE id = '$id'"), "a header with $what");
}
foreach my $length (64, 65, 2000)
{
	is(ended(submit(source => file_of([ 'id', 'y' x $length ], [ 1, 'x' ]), entity_type => 'plain')), 'failed 0 0 0 42703', "a name of $length bytes is not cut to one of 63");
}
is(checksum_of($node, 'app.plain'), $before, 'no such file has changed anything');

# --- arguments of submit ------------------------------------------------------------------------------------------

my $good = file_of([qw(id name)], [ 1, 'good' ]);
foreach my $name (sort keys %nasty)
{
	my $text = $nasty{$name};
	$id = submit(source => $good, entity_type => 'plain', account_id => $text, idempotency_key => $text, trace_id => $text,
		options => '{"skip_unchanged": false}', metadata => encode_json({ decode($text) => [ decode($text) ] }));
	is(ended($id), 'completed 1 0 0 ', "account, key, trace and metadata: $name");
	is(bytes_of("SELECT $_ FROM bulk_action.bulk_actions WHERE id = '$id'"), $text, "$_ is kept as it is") foreach qw(account_id idempotency_key trace_id);
	is(bytes_of("SELECT metadata ->> 0 FROM (SELECT value AS metadata FROM bulk_action.bulk_actions, jsonb_each(metadata) WHERE id = '$id') AS m"), $text, 'and the metadata');
	is(submit(source => $good, entity_type => 'plain', account_id => $text, idempotency_key => $text,
		options => '{"skip_unchanged": false}'), $id, 'the key finds it again');
	my @refused = (
		[ "source => " . escape_literal($good) . ", entity_type => " . escape_literal($text), qr/entity type ".*" does not exist/ ],
		[ "source => " . escape_literal($good) . ", action_type => " . escape_literal($text), qr/action type ".*" does not exist/ ],
		[ "source => " . escape_literal($good) . ", entity_type => 'plain', options => " . escape_literal(encode_json({ decode($text) => 1 })), qr/option ".*" does not exist/ ],
		[ "source => " . escape_literal($good) . ", entity_type => 'plain', options => " . escape_literal(encode_json({ duplicates => decode($text) })), qr/must not be ".*"/ ],
		[ "source => " . escape_literal($good) . ", entity_type => 'plain', options => " . escape_literal(encode_json({ max_errors => decode($text) })), qr/must not be ".*"/ ],
		[ "source => 's3://bucket-of-nobody/x', entity_type => 'plain', options => " . escape_literal(encode_json({ server => decode($text) })), qr/server ".*" does not exist/ ],
		[ "source => " . escape_literal($text) . ", entity_type => 'plain'", qr/unsupported source URI/ ],
		[ "source => " . escape_literal("a${text}:x") . ", entity_type => 'plain'", qr/unsupported source URI/ ],
		[ "source => " . escape_literal("s3://$text/key") . ", entity_type => 'plain'", qr/invalid source URI ".*"|no server that you may use serves ".*"/ ],
		[ "source => " . escape_literal("s3://bucket-of-nobody/$text") . ", entity_type => 'plain', options => '{\"server\": \"nobodys\"}'", qr/invalid source URI ".*"|server "nobodys" does not exist/ ],
		[ "source => " . escape_literal("file:///no/$text") . ", entity_type => 'plain'", qr/could not resolve path ".*": No such file or directory/ ],
		[ "source => " . escape_literal("file://$text") . ", entity_type => 'plain'", qr/invalid source URI ".*"|could not resolve path ".*"/ ],
		[ "source => " . escape_literal($good) . ", entity_type => 'plain', account_id => 'other', parent_id => '$id'", qr/account_id differs from that of parent action/ ],
		[ "source => 'file:///x', entity_type => 'plain', account_id => " . escape_literal($text) . ", idempotency_key => " . escape_literal($text), qr/idempotency key ".*" belongs to another/ ]);
	foreach my $case (@refused)
	{
		my (undef, undef, $error) = $node->psql('postgres', "SELECT bulk_action.bulk_action_submit($case->[0])");
		like($error, $case->[1], "refused: $name") or diag($case->[0]);
		clean($error, $name);
	}
	my (undef, undef, $error) = $node->psql('postgres', 'SELECT bulk_action.bulk_action_register_entity(' . escape_literal($text) . ", 'app.plain', ARRAY['id'])");
	if ($text =~ /^[a-z][a-z0-9_]*\z/)
	{
		is($error, '', 'an entity type of plain characters');
	}
	else
	{
		like($error, qr/invalid entity type ".*"/, 'an entity type has plain characters');
	}
	clean($error, $name);
	(undef, undef, $error) = $node->psql('postgres', "SELECT bulk_action.bulk_action_register_entity('x', 'app.plain', ARRAY[" . escape_literal($text) . '])');
	like($error, qr/column ".*" of relation "plain" does not exist/, 'a column that does not exist');
	clean($error, $name);
}

sub decode { my ($text) = @_; utf8::decode($text); return $text }

# --- sources --------------------------------------------------------------------------------------------------------

foreach my $name (grep { $nasty{$_} !~ m{/} } sort keys %nasty)
{
	my $path = "$folder/$nasty{$name}";
	write_file($path, "id,name\n2,of file $name\n");
	is(ended(submit(source => "file://$path", entity_type => 'plain')), 'completed 1 0 0 ', "a file named $name");
	is(value_of($node, 'SELECT name FROM app.plain WHERE id = 2'), "of file $name", 'is read');
	unlink $path;
}
my $server = quoted("S3 \"server\"'; --\n%s");
$node->safe_psql('postgres', "ALTER SERVER s3 RENAME TO $server");
foreach my $name (sort keys %nasty)
{
	my $uri = s3_uri($nasty{$name});
	my ($status, $found, $error) = $node->psql('postgres', 'SELECT bulk_action.bulk_action_submit(' . escape_literal($uri) . ", entity_type => 'plain')");
	if ($nasty{$name} =~ $unprintable || $nasty{$name} =~ /[\t\n]/)
	{
		# which such keys there may be is for pure/s3_uri.c to say
		clean($error, "key $name");
		next if $error =~ /invalid source URI/;
	}
	is($status, 0, "key $name is taken in") or next;
	is(ended($found), 'failed 0 0 0 BA404', 'there is no such object');
	(undef, undef, $error) = $node->psql('postgres', "CALL bulk_action.bulk_action_wait('$found')");
	like($error, qr/WARNING:  bulk action "$found" failed: could not read "s3:.*": NoSuchKey/, 'which is said on one line');
	clean($error, "key $name");
	s3_put($nasty{$name}, content => "id,name\n3,of key $name\n");
	is(ended(submit(source => $uri, entity_type => 'plain')), 'completed 1 0 0 ', 'once it is there');
	is(value_of($node, 'SELECT name FROM app.plain WHERE id = 3'), "of key $name", 'it is read');
}

# --- messages of user code -------------------------------------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE app.shouting (id bigint PRIMARY KEY, code text, name text, message text, detail text);
GRANT ALL ON app.shouting TO PUBLIC;
CREATE FUNCTION app.shout() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING errcode = new.code, message = old.message, detail = old.detail, hint = old.message, column = old.message;
END $$;
CREATE TRIGGER shout BEFORE UPDATE ON app.shouting FOR EACH ROW EXECUTE FUNCTION app.shout();
SELECT bulk_action.bulk_action_register_entity('shouting', 'app.shouting', ARRAY['id']);
SQL
my $n = 0;
foreach my $name (sort keys %nasty)
{
	my $message = "$nasty{$name}!";
	$n++;
	$node->safe_psql('postgres', "INSERT INTO app.shouting VALUES ($n, '', '', " . escape_literal($message) . ', ' . escape_literal($message) . ')');

	# a row error: kept as it is, and CSV in the report
	$id = submit(source => file_of([qw(id code)], [ $n, 'AB123' ]), entity_type => 'shouting');
	is(ended($id), 'completed 0 0 1 ', "a row of which a trigger says: $name");
	is(bytes_of("SELECT error_message FROM bulk_action.bulk_action_errors WHERE action_id = '$id'"), "$message: $message", 'it is kept as it was said');
	is(bytes_of("SELECT bulk_action.bulk_action_error_report('$id')"),
		"id,code,_line,_error_code,_error_column,_error_message\n" . join(',', map { /[",\r\n]/ ? quoted($_) : $_ } $n, 'AB123', 2, 'AB123', $message, "$message: $message"),
		'and stands in the report as one record') or diag($message);
	my $neutral = bytes_of("SELECT bulk_action.bulk_action_error_report('$id', neutralize => true)");
	like($neutral, qr/'=cmd.*'=cmd/s, 'without formulas, if that is asked for') if $name eq 'formula';

	# trouble: the worker's and the coordinator's lines of the log
	$id = submit(source => file_of([qw(id code)], [ $n, '53400' ]), entity_type => 'shouting', account_id => "trouble $n");
	is(ended($id), 'paused 0 0 0 53400', 'trouble of which it says that');
	is(bytes_of("SELECT error_message FROM bulk_action.bulk_actions WHERE id = '$id'"), $message, 'is kept likewise');

	# the end of an action: the coordinator's line, and the warning of wait
	$id = submit(source => file_of([qw(id code)], [ $n, '57014' ]), entity_type => 'shouting', account_id => "end $n");
	is(ended($id), 'failed 0 0 0 57014', 'an end of which it says that');
	my (undef, undef, $error) = $node->psql('postgres', "CALL bulk_action.bulk_action_wait('$id')");
	like($error, qr/^[^\n]*WARNING:  bulk action "$id" failed: [^\n]*!$/m, 'the warning of wait has it on one line');
	clean($error, "message $name");
}

# --- the log ----------------------------------------------------------------------------------------------------------

my $log = read_file($node->logfile);
foreach my $line (qr/bulk action \S+ failed: column "two\\r\\nlines" of the header/, qr/bulk_action will try again in \d+ ms: two\\nlines!/,
	qr/bulk action \S+ is paused: x\\n\Q$forged\E!/, qr/bulk action \S+ failed: \\x1B\[31mred\\x1B\]0;title\\x07!/, qr/bulk action \S+ failed: \\u009B31m\\u0085!/,
	qr/bulk action \S+ failed: \\u202Etxt\.exe\\u2028!/, qr/bulk action \S+ failed: Žluťoučký kůň/)
{
	like($log, $line, "the log says $line");
}
foreach my $line (grep { /$unprintable/ || /^\Q$forged\E/ } split /\n/, $log)
{
	fail('the log has nothing that does not print');
	diag($line =~ s/([^ -~])/sprintf '\\x%02x', ord $1/ger);
}
is(value_of($node, "SELECT to_regclass('app.bystander')"), 'app.bystander', 'after all that the bystander is still there');
done_testing();
