# Files as spreadsheets and old programs write them: other delimiters and quotes, comments, lines before
# the header, no header, rows that are too short. Each is applied, row by row, or refused with what to
# change; what is shown of its errors can be submitted again. Well-formed files have the same outcome as
# COPY.
use strict;
use warnings;

use BulkAction;
use File::Basename qw(basename dirname);
use JSON::PP qw(decode_json);
use Test::More;

my $node = new_node('main', conf => "bulk_action.file_root = '/'\nbulk_action.idle_timeout = '1min'\n");
my $json = JSON::PP->new->canonical->allow_nonref->utf8;
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE ugly (id int PRIMARY KEY, a text, b text);
CREATE FUNCTION reset_ugly() RETURNS void LANGUAGE sql AS $$
  TRUNCATE ugly; INSERT INTO ugly SELECT i, 'a' || i, 'b' || i FROM generate_series(1, 6) AS i;
$$;
SQL
value_of($node, "SELECT bulk_action.bulk_action_register_entity('contact', 'ugly', ARRAY['id'])");

# Submits a file; returns id, state and error of the action.
sub run_file
{
	my ($path, $options, %option) = @_;
	my $parent = $option{parent} ? "'$option{parent}'" : 'NULL';
	my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$path', options => \$o\$$options\$o\$, parent_id => $parent)");
	value_of($node, "CALL bulk_action.bulk_action_wait('$id', '2 minutes')");
	return $id;
}

sub outcome
{
	my ($id) = @_;
	return decode_json(value_of($node, <<SQL));
SELECT json_build_object('state', s.state, 'code', s.error_code, 'message', s.error_message,
  'sum', s.total = s.success + s.failed + s.not_found + s.superseded + s.unprocessed, 'total', s.total, 'failed', s.failed,
  'hint', (SELECT error_hint FROM bulk_action.bulk_actions WHERE id = '$id'),
  'errors', (SELECT coalesce(json_agg(json_build_array(line, error_code, record) ORDER BY line), '[]')
               FROM bulk_action.bulk_action_errors WHERE action_id = '$id'),
  'rows', (SELECT json_agg(json_build_array(id, a, b) ORDER BY id) FROM ugly))
  FROM bulk_action.bulk_action_stat('$id') AS s
SQL
}

# --- the corpus ------------------------------------------------------------------------------------

my $corpus = dirname(dirname(File::Spec->rel2abs($0))) . '/corpus';
my @files = sort glob "$corpus/*.expected";
cmp_ok(scalar @files, '>=', 60, 'there are files');
foreach my $file (@files)
{
	my ($name) = basename($file) =~ /(.*)\.expected/;
	my ($why, $options, @lines) = split /\n/, read_file($file);
	my (%row, @errors, $failed, $applied);
	foreach my $line (@lines)
	{
		if ($line =~ /^applied (.*)/) { my $cells = $json->decode($1); $row{ $cells->[0] } = $cells; $applied++ }
		elsif ($line =~ /^error (\d+) (\w+) (.*)/) { push @errors, [ 0 + $1, $2, $json->decode($3) ] }
		elsif ($line =~ /^failed (\w+) (.*)/) { $failed = [ $1, $json->decode($2) ] }
		else { die "$file: $line" }
	}
	value_of($node, 'SELECT reset_ugly()');
	my $got = outcome(run_file("$corpus/$name.csv", $options =~ s/^options //r));
	my %expected = (
		state => $failed ? 'failed' : 'completed', code => $failed && $failed->[0], message => $failed && $failed->[1],
		sum => JSON::PP::true, total => ($applied // 0) + @errors, failed => scalar @errors, errors => \@errors,
		rows => [ map { $row{$_} // [ $_, "a$_", "b$_" ] } 1 .. 6 ]);
	my $hint = delete $got->{hint};
	is($json->encode($got), $json->encode(\%expected), "$name: $why");
	isnt($hint // '', '', "$name: it says what to do") if $failed;
	next if $failed;

	# what a preview has to say of the same file
	my $preview = decode_json(value_of($node,
		"SELECT bulk_action.bulk_action_preview('file://$corpus/$name.csv', options => \$o\$" . ($options =~ s/^options //r) . "\$o\$)"));
	my @wrong;
	foreach my $row (@{ $preview->{rows} })
	{
		my ($error) = grep { defined } $row->{error}, map { $_->{error} } values %{ $row->{cells} // {} };
		push @wrong, [ $row->{line}, $error->{code} ] if $error;
	}
	is($json->encode([ scalar @{ $preview->{rows} }, @wrong ]), $json->encode([ ($applied // 0) + @errors, map { [ @$_[ 0, 1 ] ] } @errors ]),
		"$name: its preview");
}

# --- options -----------------------------------------------------------------------------------------

foreach my $case (
	[ '{"delimiter": ";;"}', qr/"delimiter" must not be ";;"/ ],
	[ '{"delimiter": ""}', qr/"delimiter" must not be ""/ ],
	[ '{"delimiter": "\u00e9"}', qr/"delimiter" must not be/ ],
	[ '{"delimiter": "\n"}', qr/one printable character of ASCII, or a tab/ ],
	[ '{"delimiter": 1}', qr/"delimiter" must be a string/ ],
	[ '{"delimiter": "\""}', qr/must differ from each other/ ],
	[ '{"quote": "\t"}', qr/"quote" must not be/ ],
	[ '{"quote": ","}', qr/must differ from each other/ ],
	[ '{"comment": "//"}', qr/"comment" must not be/ ],
	[ '{"comment": ";", "delimiter": ";"}', qr/must differ from each other/ ],
	[ '{"skip_lines": -1}', qr/"skip_lines" must not be -1/ ],
	[ '{"skip_lines": "1"}', qr/"skip_lines" must be a number/ ],
	[ '{"ragged": "padd"}', qr/Perhaps you meant "pad"/ ],
	[ '{"header": "no"}', qr/"header" must be a boolean/ ],
	[ '{"header": false}', qr/without option "columns"/ ],
	[ '{"header": false, "columns": {"id": "id"}}', qr/without option "columns"/ ],
	[ '{"columns": ["id"]}', qr/must not be an array for a file with a header/ ],
	[ '{"header": false, "columns": ["id", 1]}', qr/element 2 of bulk action option "columns"/ ],
	[ '{"encoding": "no-such"}', qr/The server knows no encoding of that name/ ],
	[ '{"encoding": "latin1//IGNORE"}', qr/"encoding" must not be/ ],
	[ '{"delimeter": ";"}', qr/Perhaps you meant "delimiter"/ ])
{
	my ($status, undef, $stderr) = $node->psql('postgres',
		"SELECT bulk_action.bulk_action_submit('file:///x.csv', options => \$o\$$case->[0]\$o\$)", on_error_stop => 1);
	isnt($status, 0, "$case->[0] is refused");
	like($stderr, $case->[1], "$case->[0]: it says why");
}

# --- reports are CSV with commas, and submitted without these options ------------------------------

foreach my $case (
	[ '{"skip_lines": 1, "comment": "#"}', "Title\n#c\nid;a;\"b\"\nx;1,5;\"q;\"\"\"\n2;v;w\n3;t\n" ],
	[ '{"header": false, "columns": ["id", "a", null, "b"], "delimiter": "|"}', "x|1,5|no|\"q;\"\"\"\n2|v|no|w\n3|t\n" ],
	[ '{"quote": "none", "delimiter": ";"}', "id;a;b\nx;1,5;\"q\n2;v;w\n3;t\n" ],
	[ '{"encoding": "UTF-16"}', "\xFF\xFE" . join('', map { "$_\0" } split //, "id\ta\tb\nx\t1,5\tq\n2\tv\tw\n3\tt\n") ])
{
	my ($options, $text) = @$case;
	value_of($node, 'SELECT reset_ugly()');
	my $id = run_file(write_file($node->basedir . '/report.csv', $text), $options);
	my $got = outcome($id);
	is_deeply([ map { $_->[1] } @{ $got->{errors} } ], [qw(22P02 22P04)], "$options: two rows fail");
	my $report = value_of($node, "SELECT bulk_action.bulk_action_error_report('$id')") . "\n";
	like($report, qr/^(\w+,)+_line,_error_code,_error_column,_error_message\nx,"1,5",/, "$options: the report has commas");
	$report =~ s/^x,/4,/m;
	my $again = outcome(run_file(write_file($node->basedir . '/again.csv', $report), '{}', parent => $id));
	is_deeply([ $again->{total}, $again->{failed}, $again->{rows}[1], @{ $again->{rows}[3] }[ 0, 1 ] ],
		[ 2, 1, [ 2, 'v', 'w' ], 4, '1,5' ], "$options: corrected, it is applied without options");
}

# --- the same as COPY ----------------------------------------------------------------------------------

srand(43);
$node->safe_psql('postgres', 'CREATE TABLE ours (id int PRIMARY KEY, a text, b text); CREATE TABLE theirs (LIKE ours)');
value_of($node, "SELECT bulk_action.bulk_action_register_entity('copied', 'ours', ARRAY['id'])");
my @pieces = ('a', 'b c', '"', "'", ',', ';', "\t", '|', "\n", "\r\n", "\r", '\\.', '\\', '\\N', "\xC3\xA9", "\xE2\x82\xAC",
	"\xF0\x9F\x98\x80", '#', '=', ' ');
foreach my $delimiter (',', ';', "\t", '|', ':')
{
	foreach my $quote ('"', "'")
	{
		foreach my $eol ("\n", "\r\n", "\r")
		{
			my $text = join($delimiter, qw(id a b)) . $eol;
			foreach my $id (1 .. 200)
			{
				my @cells = map { join('', map { $pieces[ rand @pieces ] } 1 .. int(rand 5)) } 1 .. 2;
				foreach my $cell (@cells)
				{
					my $plain = $cell ne '\\.' && $cell !~ /[\r\n]|\Q$quote\E|\Q$delimiter\E/;
					next if $cell eq '' ? rand() < 0.5 : $plain && rand() < 0.7;
					$cell = $quote . ($cell =~ s/\Q$quote\E/$quote$quote/gr) . $quote;
				}
				$text .= join($delimiter, $id, @cells) . $eol;
			}
			my $path = write_file($node->basedir . '/copy.csv', $text);
			my ($d, $q) = map { $json->encode($_) } $delimiter, $quote;
			my $name = sprintf 'delimiter %s, quote %s, line ends %s', $d, $q, $json->encode($eol);
			$node->safe_psql('postgres', 'TRUNCATE ours, theirs');
			my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$path', action_type => 'bulk_insert', entity_type => 'copied', options => \$o\${\"quote\": $q, \"empty\": \"null\""
				  . ($delimiter eq ':' ? ", \"delimiter\": $d" : '') . "}\$o\$)");
			value_of($node, "CALL bulk_action.bulk_action_wait('$id', '1 minute')");
			# from standard input COPY would take \. for its end
			$node->safe_psql('postgres', "COPY theirs FROM '$path' WITH (FORMAT csv, HEADER, DELIMITER E'"
				  . ($delimiter =~ s/\t/\\t/r) . "', QUOTE E'\\$quote', ESCAPE E'\\$quote')");
			is(value_of($node, 'SELECT count(*) FROM theirs'), 200, "$name: COPY has read all of it");
			same_content($node, 'ours', 'theirs', "$name: the same rows");
		}
	}
}
done_testing();
