# Files as the world makes them: open quotes, stray quotes, lines without end, NUL bytes, text that is
# none, every kind of line end. Each row ends applied or with an error that names its line; a bad row
# takes no other row with it beyond its own lines; what cannot be read at all fails with a reason.
use strict;
use warnings;

use BulkAction;
use JSON::PP qw(decode_json);
use Test::More;

my $node = new_node('main', conf => "bulk_action.idle_timeout = '1min'");
my $root = $node->basedir . '/files';
mkdir $root or die "$root: $!";
$node->append_conf('postgresql.conf', "bulk_action.file_root = '$root'");
$node->reload;

create_contacts($node, 300);
$node->safe_psql('postgres', <<'SQL');
ALTER TABLE public.contacts ADD COLUMN "odd ""name""" text;
SQL
serial_copy($node, 'public.contacts');
register_contacts($node);

my $mib = 1024 * 1024;
my $format = '22P04';
my $encoding = '22021';
my $limit = '54000';
my $stray = 'quote inside an unquoted field, or text after a closing quote';
my $invalid = 'the row has bytes that are not valid UTF8';

# --- helpers -----------------------------------------------------------------------------------

sub run_file
{
	my ($text) = @_;
	write_file("$root/ugly.csv", $text);
	my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$root/ugly.csv')");
	value_of($node, "CALL bulk_action.bulk_action_wait('$id', '1 minute')");
	my $stat =
	  decode_json(value_of($node, "SELECT to_json(s) FROM bulk_action.bulk_action_stat('$id') AS s"));
	return ($id, $stat);
}

# A file of which the rows `applied` (as cells, in plain SQL's eyes) are applied and the others end in
# `errors`: [line, SQLSTATE, message, record], the last two if they matter.
sub file_is_applied
{
	my ($name, %case) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @columns = @{ $case{columns} // [qw(id first_name notes)] };
	my @applied = @{ $case{applied} // [] };
	my @errors = @{ $case{errors} // [] };
	my ($id, $stat) = run_file($case{text});
	my $serial = apply_serially($node, content => join('', map { csv_line(@$_) } \@columns, @applied));

	my %expected = (
		state => 'completed', total => @applied + @errors, updated => $serial->{updated},
		failed => scalar @errors, unchanged => $serial->{unchanged}, not_found => 0, superseded => 0, inserted => 0,
		deleted => 0, unprocessed => 0, error_message => undef);
	subtest $name => sub {
		is_deeply({ map { $_ => $stat->{$_} } keys %expected }, \%expected, 'every row is accounted for')
		  or diag(explain($stat));
		same_content($node, 'public.contacts', 'public.contacts_serial',
			'the table is as plain SQL leaves it with the good rows');
		my @found = @{
			decode_json(value_of($node, <<SQL)) };
SELECT coalesce(json_agg(json_build_array(line, error_code, error_message, record) ORDER BY line), '[]')
  FROM bulk_action.bulk_action_errors WHERE action_id = '$id'
SQL
		is(scalar @found, scalar @errors, 'there is one error for every bad row');
		foreach my $i (0 .. $#errors)
		{
			my ($expected, $got) = map { JSON::PP->new->allow_nonref->encode($_) } $errors[$i],
			  [ @{ $found[$i] // [] }[ 0 .. $#{ $errors[$i] } ] ];
			# not by is(): they may be long
			ok($got eq $expected, "the error of line $errors[$i][0]")
			  or diag('got: ' . substr($got, 0, 500) . "\nexpected: " . substr($expected, 0, 500));
		}
	};
	return;
}

sub file_fails
{
	my ($name, %case) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($id, $stat) = run_file($case{text});
	subtest $name => sub {
		is_deeply([ @{$stat}{qw(state error_code total updated failed unprocessed)} ],
			[ 'failed', $case{code} // $format, 0, 0, 0, 0 ], 'the action fails and applies nothing');
		my ($detail, $hint) = split /\|/, value_of($node,
			"SELECT error_detail, error_hint FROM bulk_action.bulk_actions WHERE id = '$id'");
		is($stat->{error_message}, $case{message}, 'it says why');
		is($detail, $case{detail}, 'and what is wrong') if defined $case{detail};
		isnt($hint // '', '', 'and what to do');
		same_content($node, 'public.contacts', 'public.contacts_serial', 'the table is as it was');
	};
	return;
}

my $header = "id,first_name,notes\n";

# --- long records --------------------------------------------------------------------------------

file_is_applied('a record of exactly 1 MiB is applied, one byte more is too much',
	text => $header . '1,a,' . 'x' x ($mib - 4) . "\n" . '2,b,' . 'y' x ($mib - 3) . "\n3,c,d\n",
	applied => [ [ 1, 'a', 'x' x ($mib - 4) ], [ 3, 'c', 'd' ] ],
	errors => [ [ 3, $limit, 'record is too long', '2,b,' . 'y' x 1020 ] ]);

file_is_applied('a line longer than any buffer is passed over as one bad row',
	text => $header . "1,a,b\n2,c," . 'x' x (11 * $mib) . "\n3,d,e\n4\n5,f,g\n",
	applied => [ [ 1, 'a', 'b' ], [ 3, 'd', 'e' ], [ 5, 'f', 'g' ] ],
	errors => [ [ 3, $limit, 'record is too long' ],
		[ 5, $format, 'the row has 1 fields, the header has 3', '4' ] ]);

file_is_applied('a line without end that the file ends in',
	text => $header . "1,a,b\n2,c," . 'x' x (3 * $mib),
	applied => [ [ 1, 'a', 'b' ] ],
	errors => [ [ 3, $limit, 'record is too long' ] ]);

my $third = 'z' x (400 * 1024);
file_is_applied('a quoted field of many lines may be long',
	text => $header . qq(1,a,"$third\n$third"\n2,b,c\n),
	applied => [ [ 1, 'a', "$third\n$third" ], [ 2, 'b', 'c' ] ]);

file_is_applied('a quoted field that goes on for more than 1 MiB is taken for one that does not end',
	text => $header . qq(1,a,"$third\n$third\n$third"\n2,b,c\n),
	applied => [ [ 2, 'b', 'c' ] ],
	errors => [
		[ 2, $format, 'quoted field does not end', qq(1,a,"$third) ],
		[ 3, $format, 'the row has 1 fields, the header has 3', $third ],
		[ 4, $format, $stray ] ]);

# --- quotes ----------------------------------------------------------------------------------------

file_is_applied('a quote that is never closed costs its own line only',
	text => $header . qq(1,a,b\n2,"open,c\n3,d,e\n\n4,f,g\n),
	applied => [ [ 1, 'a', 'b' ], [ 3, 'd', 'e' ], [ 4, 'f', 'g' ] ],
	errors => [ [ 3, $format, 'quoted field does not end', '2,"open,c' ] ]);

file_is_applied('a quote that is closed by the next field\'s quote: one bad row, as far as it went',
	text => $header . qq(1,a,b\n2,"open,c\n3,d,e\n4,"f",g\n5,h,i\n),
	applied => [ [ 1, 'a', 'b' ], [ 5, 'h', 'i' ] ],
	errors => [ [ 3, $format, $stray, qq(2,"open,c\n3,d,e\n4,"f",g) ] ]);

# The quote of row 10 ends at that of row 20, and so on; that of row 90 does not end at all.
file_is_applied('many quotes that are never closed',
	text => $header . join('', map { $_ % 10 ? "$_,a$_,b\n" : qq($_,"open "",c\n) } 1 .. 95),
	applied => [ map { [ $_, "a$_", 'b' ] } grep { $_ > 90 || ($_ % 20 >= 1 && $_ % 20 < 10) } 1 .. 95 ],
	errors => [ (map { [ $_ * 20 + 11, $format, $stray ] } 0 .. 3),
		[ 91, $format, 'quoted field does not end', '90,"open "",c' ] ]);

file_is_applied('an open quote at the very end of the file',
	text => $header . qq(1,a,b\n2,c,"),
	applied => [ [ 1, 'a', 'b' ] ],
	errors => [ [ 3, $format, 'quoted field does not end', '2,c,"' ] ]);

file_is_applied('stray quotes',
	text => $header . qq(1,a"b,c\n2,"a"b,c\n3,"a""b",c\n4,"",x\n5," a ",b\n6, "a",b\n7,"a" ,b\n8,""",",""""\n"9","i",j\n),
	applied => [ [ 3, 'a"b', 'c' ], [ 4, '', 'x' ], [ 5, ' a ', 'b' ], [ 8, '",', '"' ], [ 9, 'i', 'j' ] ],
	errors => [ [ 2, $format, $stray, '1,a"b,c' ], [ 3, $format, $stray, '2,"a"b,c' ],
		[ 7, $format, $stray, '6, "a",b' ], [ 8, $format, $stray, '7,"a" ,b' ] ]);

# --- bytes that are no text ------------------------------------------------------------------------

file_is_applied('a NUL byte',
	text => $header . qq(1,a\0b,c\n2,"d\0",e\n\0\n3,f,g\n),
	applied => [ [ 3, 'f', 'g' ] ],
	errors => [
		[ 2, $encoding, 'record contains a NUL byte', '1,a\x00b,c' ],
		[ 3, $encoding, 'record contains a NUL byte', '2,"d\x00",e' ],
		[ 4, $encoding, 'record contains a NUL byte', '\x00' ] ]);

file_is_applied('bytes that are no UTF-8',
	text => $header . "1,\xFF,b\n2,caf\xE9,c\n3,d,\xE2\x82\n4,\xED\xA0\x80,e\n5,\xC0\x80,f\n"
	  . "6,\xF5\x80\x80\x80,g\n7,\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80,h\n8,i,\xF0\x9F",
	applied => [ [ 7, "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", 'h' ] ],
	errors => [
		[ 2, $encoding, $invalid, '1,\xFF,b' ], [ 3, $encoding, $invalid, '2,caf\xE9,c' ],
		[ 4, $encoding, $invalid, '3,d,\xE2\x82' ], [ 5, $encoding, $invalid, '4,\xED\xA0\x80,e' ],
		[ 6, $encoding, $invalid, '5,\xC0\x80,f' ], [ 7, $encoding, $invalid, '6,\xF5\x80\x80\x80,g' ],
		[ 9, $encoding, $invalid, '8,i,\xF0\x9F' ] ]);

file_is_applied('control characters are text like any other',
	text => $header . "1,\t\x01\x7F,a\x0Bb\n",
	applied => [ [ 1, "\t\x01\x7F", "a\x0Bb" ] ]);

# --- line ends -------------------------------------------------------------------------------------

my @three = ([ 1, 'a', 'b' ], [ 2, 'c', 'd' ], [ 3, 'e', 'f' ]);
file_is_applied('a file without a line end at its end',
	text => $header . "1,a,b\n2,c,d\n3,e,f", applied => \@three);
file_is_applied('a file that ends in a carriage return',
	text => "id,first_name,notes\r\n1,a,b\r\n2,c,d\r\n3,e,f\r", applied => \@three);
file_is_applied('a file with carriage returns for line ends',
	text => "id,first_name,notes\r1,a,b\r2,c,d\rbad\r3,e,f\r", applied => \@three,
	errors => [ [ 4, $format, 'the row has 1 fields, the header has 3', 'bad' ] ]);
file_is_applied('all kinds of line ends in one file, and blank lines',
	text => "\n\r\nid,first_name,notes\r\n\n\r\n1,a,b\n\r\r2,c,d\r3,e,f\n\r\n4\n\n\n",
	applied => \@three,
	errors => [ [ 12, $format, 'the row has 1 fields, the header has 3', '4' ] ]);
file_is_applied('line ends inside quotes stay what they are',
	text => qq(id,first_name,notes\r\n1,"a\r\nb","\r"\r\n2,"\n\n",c\r\nbad\r\n),
	applied => [ [ 1, "a\r\nb", "\r" ], [ 2, "\n\n", 'c' ] ],
	errors => [ [ 8, $format, 'the row has 1 fields, the header has 3', 'bad' ] ]);
file_is_applied('a line of blanks is a row, if a bad one',
	text => $header . "   \n1,a,b\n \t\n",
	applied => [ [ 1, 'a', 'b' ] ],
	errors => [ [ 2, $format, 'the row has 1 fields, the header has 3', '   ' ], [ 4, $format ] ]);
file_is_applied('nothing but blank lines below the header', text => $header . "\n\n\r\n\r");

# --- fields ----------------------------------------------------------------------------------------

file_is_applied('one field more, one less, a comma at the end',
	text => $header . "1,a,b,c\n2,a\n3,a,b,\n4,a,b\n",
	applied => [ [ 4, 'a', 'b' ] ],
	errors => [
		[ 2, $format, 'the row has 4 fields, the header has 3', '1,a,b,c' ],
		[ 3, $format, 'the row has 2 fields, the header has 3', '2,a' ],
		[ 4, $format, 'the row has 4 fields, the header has 3', '3,a,b,' ] ]);
file_is_applied('a row with more fields than any table has columns',
	text => $header . '1,a' . ',b' x 5000 . "\n2,c,d\n",
	applied => [ [ 2, 'c', 'd' ] ],
	errors => [ [ 2, $format, 'record has too many fields', '1,a' . ',b' x 5000 ] ]);
file_is_applied('what other programs give a meaning is plain text',
	text => $header . "1,\\N,NULL\n\\.\n2,'a','b'\n3,=1+1,\\n\n#4,c,d\n",
	applied => [ [ 1, '\\N', 'NULL' ], [ 2, "'a'", "'b'" ], [ 3, '=1+1', '\\n' ] ],
	errors => [ [ 3, $format, 'the row has 1 fields, the header has 3', '\\.' ],
		[ 6, '22P02', 'invalid input syntax for type bigint: "#4"', '#4,c,d' ] ]);
file_is_applied('nothing is trimmed',
	text => $header . "1,  a  ,b\t\n", applied => [ [ 1, '  a  ', "b\t" ] ]);
file_is_applied('semicolons and tabs do not separate fields below a header with commas',
	text => $header . "1;a;b\n2\ta\tb\n3,a;b,c\td\n",
	applied => [ [ 3, 'a;b', "c\td" ] ],
	errors => [ [ 2, $format, 'the row has 1 fields, the header has 3', '1;a;b' ],
		[ 3, $format, 'the row has 1 fields, the header has 3', "2\ta\tb" ] ]);

# --- the header --------------------------------------------------------------------------------------

file_is_applied('a byte order mark before a quoted header, and one that is data',
	text => qq(\xEF\xBB\xBF"id","first_name","notes"\n1,\xEF\xBB\xBFa,b\n\xEF\xBB\xBF2,a,b\n),
	applied => [ [ 1, "\xEF\xBB\xBFa", 'b' ] ],
	errors => [ [ 3, '22P02', "invalid input syntax for type bigint: \"\x{FEFF}2\"" ] ]);
file_is_applied('a column with a blank and quotes in its name',
	text => qq("odd ""name""",id\nsome,1\n"",2\n),
	columns => [ 'odd "name"', 'id' ], applied => [ [ 'some', 1 ], [ '', 2 ] ]);
file_is_applied('columns of an error report are ignored',
	text => qq(id,_line,first_name,_error_code,_error_column,_error_message\n1,17,a,22P02,id,"bad ""row"""\n),
	columns => [qw(id first_name)], applied => [ [ 1, 'a' ] ]);

file_fails('a header whose quote is never closed',
	text => qq(id,"first_name,notes\n1,a,b\n), message => 'the header of the file cannot be read',
	detail => 'quoted field does not end.');
file_fails('a header that is longer than 1 MiB',
	text => 'id,' . 'x' x (2 * $mib) . "\n1,a\n", message => 'the header of the file cannot be read',
	detail => 'record is too long.');
file_fails('a header with bytes that are no UTF-8',
	text => "id,pr\xE9nom\n1,a\n", message => 'the header of the file cannot be read');
file_fails('a file in UTF-16 without a byte order mark',
	text => join('', map { "$_\0" } split //, $header . "1,a,b\n"),
	message => 'the header of the file cannot be read', detail => 'record contains a NUL byte.');
file_is_applied('a file in UTF-16 with one',
	text => "\xFF\xFE" . join('', map { "$_\0" } split //, $header . "1,a,b\n"), applied => [ [ 1, 'a', 'b' ] ]);
file_fails('a header with an empty name',
	text => "id,,notes\n1,a,b\n", code => '42703', message => 'field 2 of the header is empty');
file_fails('a header with blanks around its names',
	text => "id, first_name\n1,a\n", code => '42703',
	message => 'column " first_name" of the header does not exist in public.contacts');
file_is_applied('a header with semicolons',
	text => "id;first_name\n1;a\n", columns => [qw(id first_name)], applied => [ [ 1, 'a' ] ]);
file_fails('a file that is compressed, and damaged',
	text => "\x1F\x8B\x08\x00\x00\x00\x00\x00\x00\x03\xAB\x4C\xCC\x4E\x04\x00" x 3,
	message => "the file's compressed data is damaged");
file_fails('blank lines and nothing else', text => "\n\r\n\n", message => 'the file is empty');
file_fails('a byte order mark and nothing else', text => "\xEF\xBB\xBF", message => 'the file is empty');

# --- everything at once, over several segments -------------------------------------------------------

# Rows of all kinds in an order that is random and the same every time, long enough to be cut into
# segments in the middle of anything; line ends of all kinds.
srand(50);
my ($text, $line, @applied, @errors) = ($header, 2);
while (length $text < 3.5 * $mib)
{
	my $id = 1 + int(rand 300);
	my $kind = int(rand 40);
	my ($raw, $cells, $error);
	if ($kind == 0) { ($raw, $error) = ("$id,too,many,fields", [ $format, 'the row has 4 fields, the header has 3' ]) }
	elsif ($kind == 1) { ($raw, $error) = (qq($id,st"ray,x), [ $format, $stray ]) }
	elsif ($kind == 2) { ($raw, $error) = ("$id,nul\0,x", [ $encoding, 'record contains a NUL byte' ]) }
	elsif ($kind == 3) { ($raw, $error) = ("$id,\xFE,x", [ $encoding, $invalid ]) }
	elsif ($kind == 4) { ($raw, $error) = (qq(,"no\nkey",x), [ '23502', 'the key is empty' ]) }
	elsif ($kind < 20)
	{
		my $note = 'p' x (1 + int(rand 900));
		($raw, $cells) = ("$id,n$line,$note", [ $id, "n$line", $note ]);
	}
	elsif ($kind < 30)
	{
		my $note = join("\n", map { 'l' x int(rand 300) } 0 .. int(rand 8));
		($raw, $cells) = (qq($id,"q,""$line""","$note"), [ $id, qq(q,"$line"), $note ]);
	}
	else
	{
		my $note = "\r\n" x int(rand 5) . "\r";
		my $name = "\xC3\xA9\r\n\xF0\x9F\x98\x80$line";
		($raw, $cells) = (qq($id,"$name","$note"), [ $id, $name, $note ]);
	}
	push @applied, $cells if $cells;
	push @errors, [ $line, @$error ] if $error;
	my $eol = ("\n", "\r\n", "\r")[ int(rand 3) ];
	$text .= $raw . $eol . ($kind == 20 ? $eol : '');
	$line++ if $kind == 20;
	my $breaks = () = "$raw$eol" =~ /\r\n|\r|\n/g;
	$line += $breaks;
}
{
	my ($id, $stat) = run_file($text);
	apply_serially($node, content => $header . join('', map { csv_line(@$_) } @applied));
	is_deeply([ @{$stat}{qw(state total updated failed unprocessed)} ],
		[ 'completed', @applied + @errors, scalar @applied, scalar @errors, 0 ],
		'rows of all kinds over several segments: every row is accounted for');
	same_content($node, 'public.contacts', 'public.contacts_serial',
		'rows of all kinds over several segments: the table is as plain SQL leaves it');
	my $found = decode_json(value_of($node, <<SQL));
SELECT json_agg(json_build_array(line, error_code, error_message) ORDER BY line)
  FROM bulk_action.bulk_action_errors WHERE action_id = '$id'
SQL
	is_deeply($found, \@errors, 'rows of all kinds over several segments: each error has its line');
}

$node->stop;
done_testing();
