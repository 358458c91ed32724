# What bulk_action_preview says of a file is what happens when it is submitted; it reads no more than the
# beginning, leaves nothing behind, lets nobody see more than submitting would, and does not wait for ever.
use strict;
use warnings;

use BulkAction;
use JSON::PP;
use Test::More;

my $node = new_node('main', conf => "bulk_action.file_root = '/'\n");
my $root = $node->basedir;
create_role($node, 'alice');
create_role($node, 'bob');
$node->safe_psql('postgres', <<'SQL');
GRANT pg_read_server_files TO alice;
CREATE TABLE looked (at text);
CREATE FUNCTION look(value text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.looked VALUES (value); RETURN value <> ''bad''; END';
CREATE DOMAIN watched AS text CHECK (look(VALUE));
CREATE TABLE people (id int PRIMARY KEY, email text, born date, balance numeric(8,2), age int CHECK (age >= 0), note text DEFAULT 'none',
	tags text[], shout watched, made int GENERATED ALWAYS AS (age + 1) STORED);
INSERT INTO people (id) SELECT generate_series(1, 50);
TRUNCATE looked;
GRANT SELECT, INSERT, UPDATE (email, born, balance, age, note, tags, shout), DELETE ON people TO alice;
GRANT INSERT ON looked TO alice;
SELECT bulk_action.bulk_action_register_entity('person', 'people', ARRAY['id']);
SELECT bulk_action.bulk_action_grant('person', 'alice');
SQL

my $files = 0;

sub file
{
	my ($content) = @_;
	return write_file("$root/preview" . ++$files . '.csv', $content);
}

sub call
{
	my ($uri, %option) = @_;
	my $arguments = join ', ', literal($uri), 'action_type => ' . literal($option{type} // 'bulk_update'),
	  'entity_type => ' . literal($option{entity} // 'person'), 'options => ' . literal($option{options} // '{}'),
	  defined $option{rows} ? "rows => $option{rows}" : ();
	return "SELECT bulk_action.bulk_action_preview($arguments)";
}

sub preview
{
	my ($content, %option) = @_;
	return decode_json(value_of($node, call('file://' . file($content), %option), as => $option{as} // 'alice'));
}

sub raises
{
	my ($name, $uri, $code, $like, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $as = $option{as} // 'alice';
	my (undef, undef, $error) = $node->psql('postgres', "SET SESSION AUTHORIZATION $as;\n\\set VERBOSITY verbose\n" . call($uri, %option));
	like($error, qr/ERROR:  $code.*$like/s, $name);
}

# --- the document ------------------------------------------------------------------------------------

my $csv = <<'CSV';
id,E-Mail,born,balance,age,Remarks,tags,shout
1,a@x,1.2.2000,"1.234,50",30,whatever,"{a,b}",hey
2,,31.02.2000,"1,5",x,,"{a",
3,"",,NULL,NULL,,,bad
4,too,few
5,b"c,1.1.2001,,,,,
,a@x,,,,,,
1,c@x,2.2.2002,,,,,
CSV
my $options = '{"columns": {"E-Mail": "email", "Remarks": null, "age": {"overwrite": "only_if_empty"}}, "formats": {"date": "DD.MM.YYYY", "decimal": ",", "grouping": "."}, "null_token": "NULL"}';
my $doc = preview($csv, options => $options);
is_deeply([ @$doc{qw(bytes compression encoding byte_order_mark delimiter quote table more_rows)} ],
	[ length $csv, 'none', 'UTF-8', JSON::PP::false, ',', '"', 'public.people', JSON::PP::false ], 'how the file is written');
my ($true, $false) = (JSON::PP::true, JSON::PP::false);
is_deeply($doc->{columns}, [
		{ header => 'id', column => 'id', type => 'integer', key => $true, format => 'decimal sign ",", grouping sign "."' },
		{ header => 'E-Mail', column => 'email', type => 'text', key => $false, overwrite => 'always' },
		{ header => 'born', column => 'born', type => 'date', key => $false, overwrite => 'always', format => 'DD.MM.YYYY' },
		{ header => 'balance', column => 'balance', type => 'numeric(8,2)', key => $false, overwrite => 'always', format => 'decimal sign ",", grouping sign "."' },
		{ header => 'age', column => 'age', type => 'integer', key => $false, overwrite => 'only_if_empty', format => 'decimal sign ",", grouping sign "."' },
		{ header => 'Remarks', column => undef, ignored => 'option columns says so' },
		{ header => 'tags', column => 'tags', type => 'text[]', key => $false, overwrite => 'always' },
		{ header => 'shout', column => 'shout', type => 'watched', key => $false, overwrite => 'always' } ],
	'what its columns are for');
my @rows = @{ $doc->{rows} };
is_deeply([ map { $_->{line} } @rows ], [ 2 .. 8 ], 'rows are told by their lines');
is_deeply($rows[0]{cells}, {
		id => { cell => '1', value => '1' }, email => { cell => 'a@x', value => 'a@x' }, born => { cell => '1.2.2000', value => '2000-02-01' },
		balance => { cell => '1.234,50', value => '1234.50' }, age => { cell => '30', value => '30' },
		tags => { cell => '{a,b}', value => '{a,b}' }, shout => { cell => 'hey', value => 'hey' } },
	'cells and their values');
is_deeply([ map { $rows[1]{cells}{$_}{error} ? $rows[1]{cells}{$_}{error}{code} : undef } qw(id email born balance age tags shout) ],
	[ undef, undef, '22008', undef, '22P02', '22P02', undef ], 'errors of cells');
is_deeply($rows[1]{cells}{email}, { cell => undef, kept => $true }, 'an empty one keeps what is there');
is_deeply([ @{ $rows[2]{cells} }{qw(email balance)} ], [ { cell => '', value => '' }, { cell => 'NULL', value => undef } ], 'the empty string, and NULL');
is_deeply([ map { $_->{error}{code} } @rows[ 3, 4 ] ], [ '22P04', '22P04' ], 'rows that are none');
is($rows[5]{cells}{id}{error}{code}, '23502', 'a key that is empty');
is_deeply([ map { [ $_->{line}, $_->{column}, $_->{code} ] } @{ $doc->{problems} } ],
	[ [ 3, 'born', '22008' ], [ 3, 'age', '22P02' ], [ 3, 'tags', '22P02' ], [ 4, 'shout', '23514' ], [ 5, undef, '22P04' ], [ 6, undef, '22P04' ], [ 7, 'id', '23502' ], [ 8, 'id', '21000' ] ],
	'all that is wrong once more in one list');
like($doc->{problems}[-1]{message}, qr/also in line 2/, 'which tells where a key was before');

# --- however it is written ---------------------------------------------------------------------------

{
	my $text = "id;email;age\r\n1;a\x{e4}\@x;7\r\n2;\"b;c\";\r\n";
	my $cells = sub { [ map { [ $_->{line}, map { $_->{value} } @{ $_->{cells} }{qw(id email age)} ] } @{ $_[0]{rows} } ] };
	my $expected = [ [ 2, '1', "a\x{e4}\@x", '7' ], [ 3, '2', 'b;c', undef ] ];
	my $form = sub { join ' ', map { $_[0]{$_} // 'null' } qw(compression encoding delimiter quote) };
	require Encode;
	my %files = (
		'none UTF-8 ; "' => Encode::encode('UTF-8', $text), 'none UTF-16LE ; "' => "\xFF\xFE" . Encode::encode('UTF-16LE', $text),
		'gzip UTF-8 ; "' => do { require IO::Compress::Gzip; my $in = Encode::encode('UTF-8', $text); my $out; IO::Compress::Gzip::gzip(\$in, \$out); $out });
	foreach my $name (sort keys %files)
	{
		my $found = preview($files{$name});
		is($form->($found), $name, "a file in $name");
		is_deeply($cells->($found), $expected, "$name: its rows");
	}
	my $found = preview(Encode::encode('iso-8859-1', $text), options => '{"encoding": "latin1"}');
	is_deeply($cells->($found), $expected, 'an encoding that is told');
	$found = preview("# made by hand\n\n1|x\n2|\n3\n", options => '{"header": false, "delimiter": "|", "quote": "none", "comment": "#", "ragged": "pad", "columns": ["id", "email"]}');
	is($form->($found), 'none UTF-8 | null', 'without quotes');
	is_deeply([ map { [ $_->{line}, $_->{cells}{id}{value}, $_->{cells}{email}{value} ] } @{ $found->{rows} } ], [ [ 3, 1, 'x' ], [ 4, 2, undef ], [ 5, 3, undef ] ],
		'without a header, with a comment, padded');
	raises('a spreadsheet', 'file://' . file("PK\x03\x04" . "\0" x 100), '22P04', 'the file is not text');
	raises('damaged compression', 'file://' . file("\x1F\x8B\x08\x00rubbish rubbish rubbish"), '22P04', 'compress');
}

# --- what happens is what was shown ------------------------------------------------------------------

my $big = "id,email,born,balance,age,note,shout\n";
$big .= csv_line($_, $_ % 3 ? "m$_\@x" : undef, $_ % 7 ? sprintf('%02d.%02d.%d', $_ % 31 + 1, $_ % 12 + 1, 2000 + $_ % 20) : 'NULL',
	$_ % 5 ? "1.00$_,5" : '', $_ % 11 ? $_ : 'none', $_ % 4 ? "note $_" : '', $_ % 13 ? 'hey' : 'bad') foreach 1 .. 9;
$big .= csv_line($_, $_ % 3 ? "m$_\@x" : undef, $_ % 7 ? sprintf('%02d.%02d.%d', $_ % 31 + 1, $_ % 12 + 1, 2000 + $_ % 20) : 'NULL',
	$_ % 5 ? "1.0$_,5" : undef, $_ % 11 ? $_ : 'none', $_ % 4 ? "note $_" : '', $_ % 13 ? 'hey' : 'bad') foreach 10 .. 50;
my $path = file($big);
my $shown = decode_json(value_of($node, call("file://$path", options => $options =~ s/"E-Mail": "email", "Remarks": null, //r, rows => 1000), as => 'alice'));
is(value_of($node, 'SELECT count(*) FROM looked'), 0, 'what checks of domains write is taken back');
is(value_of($node, 'SELECT count(*) FROM people WHERE email IS NOT NULL'), 0, 'nothing is changed');
is(value_of($node, 'SELECT count(*) FROM bulk_action.bulk_actions'), 0, 'and nothing submitted');
my $before = { map { $_->[0] => $_ } rows_of($node, 'SELECT id, email, born, balance, age, note, shout FROM people') };
my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$path', entity_type => 'person', options => " . literal($options =~ s/"E-Mail": "email", "Remarks": null, //r) . ')', as => 'alice');
wait_for($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'", expect => 'completed');
my %after = map { $_->[0] => $_ } rows_of($node, 'SELECT id, email, born, balance, age, note, shout FROM people');
my %failed = map { $_->[0] => [ @$_[ 1, 2 ] ] } rows_of($node, "SELECT line, error_code, error_column FROM bulk_action.bulk_action_errors WHERE action_id = '$id'");
my @order = qw(id email born balance age note shout);
my (%expected, %wrong);
foreach my $row (@{ $shown->{rows} })
{
	my $key = $row->{cells}{id}{value};
	my @bad = grep { $row->{cells}{$_}{error} } @order;
	$wrong{ $row->{line} } = [ $row->{cells}{ $bad[0] }{error}{code}, join ', ', @bad ] if @bad;
	$expected{$key} = [ map {
		my $cell = $row->{cells}{ $order[$_] };
		@bad || $cell->{kept} ? $before->{$key}[$_] : $cell->{value} } 0 .. $#order ];
}
is_deeply(\%wrong, \%failed, 'the rows that fail are those that were shown to, for the same reasons');
cmp_ok(scalar keys %failed, '>', 5, 'which are some');
is_deeply(\%expected, \%after, 'all others have become what was shown');
is(scalar @{ $shown->{rows} }, 50, 'all of them were');

# --- what is wrong with a file -----------------------------------------------------------------------

sub problems { return [ map { [ @$_{qw(code column line)} ] } @{ $_[0]{problems} } ] }

$doc = preview("id,emial,born,nonsense,made\n1,a,2000-01-01,x,3\n");
is_deeply(problems($doc), [ map { [ '42703', $_, undef ] } qw(emial nonsense made) ], 'all columns that do not exist or may not be set at once');
like($doc->{problems}[0]{hint}, qr/Perhaps you meant "email"/, 'with what may have been meant');
is_deeply($doc->{rows}[0]{cells}, { id => { cell => '1', value => '1' }, born => { cell => '2000-01-01', value => '2000-01-01' } }, 'the rest is shown');
$doc = preview("id,emial,made\n1,a,3\n", options => '{"unknown_columns": "ignore", "columns": {"emial": {"column": "mail"}}}');
is_deeply(problems($doc), [ [ '42703', 'emial', undef ], [ '42703', undef, undef ] ], 'a rule for a column that the table has not got; nothing is left to set');
is($doc->{columns}[2]{ignored}, 'the column may not be set', 'which is why another one is ignored');
$doc = preview("email\na\n");
is_deeply(problems($doc), [ [ '42703', undef, undef ] ], 'no key');
like($doc->{problems}[0]{message}, qr/lacks key column "id"/, 'is named');
is_deeply([ $doc->{columns}[0]{column}, $doc->{rows} ], [ 'email', [] ], 'columns are shown, rows are not');
$doc = preview('');
is_deeply([ map { $_->{message} } @{ $doc->{problems} } ], ['the file is empty'], 'an empty file');
$doc = preview(qq("id,email\n1,a\n));
is_deeply(problems($doc), [ [ '22P04', undef, 1 ] ], 'a header that is none');
$doc = preview("\xEF\xBB\xBFid,email\n1,\xFF\n2,x\n");
is_deeply([ $doc->{byte_order_mark}, $doc->{columns}[0]{column}, problems($doc) ], [ $true, 'id', [ [ '22021', undef, 2 ] ] ], 'a byte order mark, and bytes that are no text');
$doc = preview("id,email,age,_line,_error_code\n1,a,2,3,4\n", type => 'bulk_delete', options => '{"match": ["age"]}');
is_deeply([ map { $_->{ignored} } @{ $doc->{columns} } ],
	[ undef, 'of a row that is deleted only the key and the columns of option match count', undef, ('it is a column of an error report') x 2 ], 'what a delete does not look at');
is_deeply([ sort keys %{ $doc->{rows}[0]{cells} } ], [qw(age id)], 'is not shown');
$doc = preview("id,email\n" . join('', map { "$_,x\n" } 1 .. 25));
is_deeply([ scalar @{ $doc->{rows} }, $doc->{more_rows} ], [ 20, $true ], 'twenty rows by default, and there are more');
$doc = preview("id,email\n1,x\n", rows => 0);
is_deeply([ $doc->{rows}, $doc->{more_rows} ], [ [], $true ], 'none if none are asked for');
$node->safe_psql('postgres', 'REVOKE UPDATE (note) ON people FROM alice');
$doc = preview("id,email,note\n1,a,b\n");
is_deeply(problems($doc), [ [ '42501', undef, undef ] ], 'a column for which a privilege is missing');
like($doc->{problems}[0]{detail}, qr/lacks UPDATE/, 'says which');
$doc = preview("email,note\na,b\n", type => 'bulk_insert', as => 'postgres');
is_deeply(problems($doc), [], 'an insert needs no key');
is_deeply([ sort keys %{ $doc->{rows}[0]{cells} } ], [qw(email note)], 'and shows what there is');

# --- what is raised, as by submit --------------------------------------------------------------------

raises('no such file', "file://$root/none.csv", 'BA404', qr/could not resolve path/);
raises('no such entity', "file://$path", '42704', qr/"persn"/, entity => 'persn');
raises('no such option', "file://$path", '22023', qr/"dry_rum" does not exist/, options => '{"dry_rum": true}');
raises('no such action type', "file://$path", '22023', qr/Perhaps you meant "bulk_update"/, type => 'bulk_updat');
{
	require IO::Compress::Gzip;
	my ($in, $out) = ("id,email\n" . join '', map { "$_,m" . $_ * 7919 . "\@x\n" } 1 .. 5000);
	IO::Compress::Gzip::gzip(\$in, \$out);
	raises('a compressed file that was cut off', 'file://' . file(substr $out, 0, length($out) / 2), '22P04', qr/HINT/s);
}
raises('too many rows', "file://$path", '22023', qr/rows must not be 1001/, rows => 1001);
raises('no number of rows', "file://$path", '22004', qr/rows must not be null/, rows => 'NULL');
raises('a negative one', "file://$path", '22023', qr/rows must not be -1/, rows => -1);
raises('another scheme', 'ftp://x/y', '22023', qr/unsupported source URI/);
raises('an entity that is not for him', "file://$path", '42501', qr/has not been granted "bulk_update"/, as => 'bob');
value_of($node, "SELECT bulk_action.bulk_action_grant('person', 'bob', '{bulk_update}')");
raises('a table that is not for him', "file://$path", '42501', qr/permission denied for entity type "person".*SELECT on the key/s, as => 'bob');
raises('an action that is not for him', "file://$path", '42501', qr/has not been granted "bulk_delete"/, as => 'bob', type => 'bulk_delete');
$node->safe_psql('postgres', 'GRANT SELECT, UPDATE ON people TO bob; REVOKE EXECUTE ON FUNCTION bulk_action.bulk_action_preview FROM bob');
raises('who may not call it', "file://$path", '42501', qr/permission denied for function/, as => 'bob');
$node->safe_psql('postgres', 'GRANT EXECUTE ON FUNCTION bulk_action.bulk_action_preview TO bob');
raises('files that are not for him', "file://$path", '42501', qr/pg_read_server_files/, as => 'bob');

# --- in a transaction --------------------------------------------------------------------------------

{
	my $call = call("file://$path", options => $options =~ s/"E-Mail": "email", "Remarks": null, //r);
	my $simple = call('file://' . file("id,email\n1,x\n"));
	is(value_of($node, "BEGIN READ ONLY; SELECT p -> 'problems' FROM ($simple) AS x (p); COMMIT"), '[]', 'works in a transaction that is read only');
	my (undef, $out) = $node->psql('postgres', "BEGIN; CREATE TEMPORARY TABLE t AS $call; SELECT count(*) FROM pg_locks WHERE relation = 'people'::regclass AND pid = pg_backend_pid(); COMMIT");
	is($out, '0', 'no lock on the table stays behind in a transaction');
	my $missing = call("file://$root/none.csv");
	is(value_of($node, "DO \$\$ BEGIN PERFORM bulk_action.bulk_action_preview('file://$root/none.csv', entity_type => 'person'); EXCEPTION WHEN SQLSTATE 'BA404' THEN NULL; END \$\$; SELECT 'on'"),
		'on', 'an error can be caught');
	(undef, my $said, my $error) = $node->psql('postgres', "\\set ON_ERROR_STOP 0\nBEGIN; SAVEPOINT s; $missing; ROLLBACK TO s; SELECT 'goes on'; COMMIT; SELECT 'still'");
	is($said, "goes on\nstill", 'or rolled back to a savepoint');
	# interrupted while user code runs, inside of the subtransaction
	$node->safe_psql('postgres', "CREATE FUNCTION sleepy(v text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1000); RETURN true; END'; CREATE DOMAIN slow AS text CHECK (sleepy(VALUE)); CREATE TABLE slow_ones (id int PRIMARY KEY, v slow); SELECT bulk_action.bulk_action_register_entity('slow', 'slow_ones', ARRAY['id'])");
	my $slow = file("id,v\n1,a\n");
	(undef, $said, $error) = $node->psql('postgres', "\\set ON_ERROR_STOP 0\nSET statement_timeout = '300ms'; " . call("file://$slow", entity => 'slow') . "; SET statement_timeout = 0; SELECT 'goes on', pg_current_xact_id_if_assigned() IS NULL; BEGIN; SELECT 'in a transaction'; COMMIT");
	like($error, qr/canceling statement due to statement timeout/, 'a timeout of the session holds');
	is($said, "goes on|t\nin a transaction", 'and leaves the session in order');
}

# --- S3 ----------------------------------------------------------------------------------------------

server_for_s3($node, name => 's3', role => 'bob');
my $uri = s3_put('large.csv', content => "id,email\n" . join('', map { csv_line($_, 'x' x 1000) } 1 .. 6000));
$doc = decode_json(value_of($node, call($uri, rows => 3), as => 'bob'));
is_deeply([ map { $_->{cells}{id}{value} } @{ $doc->{rows} } ], [ 1, 2, 3 ], 'from S3, in a session');
cmp_ok($doc->{bytes}, '>', 6_000_000, 'of a large file');
raises('an object that is not there', s3_uri('nothing.csv'), 'BA404', qr/NoSuchKey/, as => 'bob');
raises('a server that is not for him', $uri, '42704', qr/no server that you may use/, as => 'alice');

my $proxy = new_proxy();
server_for_s3($node, name => 'proxied', endpoint => $proxy->endpoint);
sub proxied { return call($uri, options => '{"server": "proxied"}', %{ $_[0] // {} }) }
value_of($node, proxied());
my ($request) = $proxy->requests(method => 'GET');
cmp_ok($request->{sent}, '<=', 2 * 1024 * 1024 + 2, 'no more than the beginning is read');

{
	# a request that is never answered: cancelled, and the session is in order
	$proxy->fault('hold', method => 'GET', times => 0);
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "SET application_name = 'waits'", '-c', proxied(), '-c', "SELECT 'goes on'" ], '<', '/dev/null', '>', \$out, '2>', \$err);
	wait_until(sub { $proxy->status->{held} > 0 }, what => 'a request that is held');
	is(value_of($node, "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE application_name = 'waits'"), 1, 'a preview that waits');
	$run->finish;
	like($err, qr/canceling statement due to user request/, 'can be cancelled');
	is($out, "goes on\n", 'the session goes on');

	# and after half a minute it gives up by itself
	my (undef, $said, $error) = $node->psql('postgres', "\\set ON_ERROR_STOP 0\n" . proxied() . ";\nSELECT 'goes on'");
	like($error, qr/could not be read within 30 seconds.*HINT/s, 'it gives up by itself');
	is($said, 'goes on', 'and the session goes on');

	# other interrupts are served meanwhile: DROP DATABASE waits for all processes of the server
	$node->safe_psql('postgres', 'CREATE DATABASE other');
	($out, $err) = ('', '');
	$proxy->clear;
	$proxy->fault('hold', method => 'GET');
	$run = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "SET application_name = 'goes on waiting'", '-c', proxied() ],
		'<', '/dev/null', '>', \$out, '2>', \$err);
	wait_until(sub { $proxy->status->{held} > 0 }, what => 'a request that is held');
	$node->safe_psql('postgres', "DROP DATABASE other");
	is(value_of($node, "SELECT state FROM pg_stat_activity WHERE application_name = 'goes on waiting'"), 'active',
		'which does not have to wait for the network');
	is($proxy->status->{held}, 1, 'whose answer is still to come');
	$proxy->clear;
	$run->finish;
	like($out, qr/"more_rows": true/, 'and the preview comes in the end');
}

done_testing();
