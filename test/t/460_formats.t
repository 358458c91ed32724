# Dates, numbers and truth values in the formats of a file: what comes out is what the same values written
# plainly give, for keys too, and what does not fit its format is an error of the row.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', conf => "bulk_action.file_root = '/'\n");
my $root = $node->basedir;
$node->safe_psql('postgres', <<'SQL');
CREATE DOMAIN birthday AS date CHECK (VALUE > '1900-01-01');
CREATE SCHEMA plain;
SQL
foreach my $schema (qw(public plain))
{
	$node->safe_psql('postgres', <<"SQL");
CREATE TABLE $schema.typed (id int PRIMARY KEY, d birthday, t timestamp, z timestamptz, n numeric, f float8, i bigint, b boolean, txt text, ds date[]);
CREATE TABLE $schema.by_day (day date, amount numeric, note text, PRIMARY KEY (day, amount));
SELECT bulk_action.bulk_action_register_entity('${schema}_typed', '$schema.typed', ARRAY['id']);
SELECT bulk_action.bulk_action_register_entity('${schema}_by_day', '$schema.by_day', ARRAY['day', 'amount']);
SQL
}

my $files = 0;

sub submit
{
	my ($entity, $content, $options, %option) = @_;
	my $csv = write_file("$root/formats" . ++$files . '.csv', $content);
	my $type = $option{type} // 'bulk_upsert';
	my $set = $option{set} // '';
	my $id = value_of($node, "$set SELECT bulk_action.bulk_action_submit('file://$csv', action_type => '$type', entity_type => '$entity', options => '" . $options =~ s/'/''/gr . "')");
	wait_for($node, "SELECT finished_at IS NOT NULL FROM bulk_action.bulk_actions WHERE id = '$id'");
	return $id;
}

sub counts
{
	my ($id) = @_;
	return value_of($node, "SELECT concat_ws(' ', state, 'i', inserted, 'u', updated, 'n', unchanged, 'm', not_found, 's', superseded, 'f', failed) FROM bulk_action.bulk_action_stat('$id')");
}

# --- values, written twice ---------------------------------------------------------------------------

srand(23);
my @values = map {
	{
		id => $_,
		d => [ 1901 + int rand 200, 1 + int rand 12, 1 + int rand 28 ],
		t => [ 1 + int rand 9999, 1 + int rand 12, 1 + int rand 28, int rand 24, int rand 60, int rand 60 ],
		z => [ 2000 + int rand 30, 1 + int rand 12, 1 + int rand 28, int rand 24, int rand 60 ],
		n => (rand() < 0.5 ? '-' : '') . int(10**rand 12) . (rand() < 0.5 ? sprintf '.%03d', rand 1000 : ''),
		f => int(10**rand 6) . '.' . int rand 100,
		i => int 10**rand 15,
		b => int rand 2
	}
} 1 .. 3000;

sub grouped
{
	my ($number, $grouping, $decimal) = @_;
	my ($sign, $whole, $rest) = $number =~ /^(-?)(\d+)(?:\.(\d+))?\z/;
	1 while $grouping ne '' && $whole =~ s/^(\d+)(\d{3})/$1$grouping$2/;
	return $sign . $whole . (defined $rest ? "$decimal$rest" : '');
}

my @columns = qw(id d t z n f i b);
my $plain = csv_line(@columns);
$plain .= csv_line(
	$_->{id},
	sprintf('%04d-%02d-%02d', @{ $_->{d} }),
	sprintf('%04d-%02d-%02d %02d:%02d:%02d', @{ $_->{t} }),
	sprintf('%04d-%02d-%02d %02d:%02d', @{ $_->{z} }),
	@$_{qw(n f i)}, $_->{b} ? 'true' : 'false') foreach @values;

my @true = qw(1 t true y yes on x j ja oui si YES Ja X TRUE);
my @false = qw(0 f false n no off nein non NO Nein False);
my %ways = (
	german => {
		options => '{"formats": {"date": "DD.MM.YYYY", "timestamp": "DD.MM.YYYY HH24:MI:SS", "decimal": ",", "grouping": ".", "boolean": "lenient"}, "columns": {"z": {"format": "DD.MM.YYYY HH24:MI"}}}',
		d => sub { rand() < 0.5 ? sprintf '%02d.%02d.%04d', @_[ 2, 1, 0 ] : sprintf '%d.%d.%04d', @_[ 2, 1, 0 ] },
		t => sub { sprintf '%02d.%02d.%04d %02d:%02d:%02d', @_[ 2, 1, 0 ], @_[ 3 .. 5 ] },
		z => sub { sprintf '%d.%d.%04d %d:%02d', @_[ 2, 1, 0 ], @_[ 3, 4 ] },
		number => sub { grouped($_[0], rand() < 0.5 ? '.' : '', ',') } },
	american => {
		options => '{"columns": {"d": {"format": "MM/DD/YYYY"}, "t": {"format": "MM/DD/YYYY HH24:MI[:SS]"}, "z": {"format": "MM/DD/YYYY HH24:MI[:SS]"}, "n": {"grouping": ","}, "f": {"decimal": ".", "grouping": ","}, "i": {"grouping": ","}, "b": {"boolean": "lenient"}}}',
		d => sub { sprintf '%02d/%02d/%04d', @_[ 1, 2, 0 ] },
		t => sub { sprintf '%02d/%02d/%04d %02d:%02d:%02d', @_[ 1, 2, 0 ], @_[ 3 .. 5 ] },
		z => sub { sprintf '%02d/%02d/%04d %02d:%02d', @_[ 1, 2, 0 ], @_[ 3, 4 ] },
		number => sub { grouped($_[0], ',', '.') } },
	compact => {
		options => '{"formats": {"date": "YYYYMMDD", "timestamp": "YYYYMMDDTHH24:MI[:SS]", "decimal": ",", "grouping": " ", "boolean": "lenient"}}',
		d => sub { sprintf '%04d%02d%02d', @_ },
		t => sub { sprintf '%04d%02d%02dT%02d:%02d:%02d', @_ },
		z => sub { sprintf '%04d%02d%02dT%02d:%02d', @_ },
		number => sub { grouped($_[0], ("\xC2\xA0", "\xE2\x80\xAF", ' ')[ rand 3 ], ',') } });

# neither the order of dates nor the time zone of the session changes what a format means
my %settings = (german => "SET DateStyle = 'SQL, MDY'; SET TimeZone = 'America/New_York';", american => "SET DateStyle = 'German, DMY'; SET TimeZone = 'Asia/Tokyo';", compact => '');
foreach my $way (sort keys %ways)
{
	my $make = $ways{$way};
	my $content = csv_line(@columns);
	foreach my $v (@values)
	{
		my @boolean = $v->{b} ? @true : @false;
		$content .= csv_line($v->{id}, (map { $make->{$_}->(@{ $v->{$_} }) } qw(d t z)), (map { $make->{number}->($v->{$_}) } qw(n f i)), $boolean[ rand @boolean ]);
	}
	$node->safe_psql('postgres', 'TRUNCATE public.typed, plain.typed');
	is(counts(submit('plain_typed', $plain, '{}', set => $settings{$way})), 'completed i 3000 u 0 n 0 m 0 s 0 f 0', "$way: the plain file");
	is(counts(submit('public_typed', $content, $make->{options}, set => $settings{$way})), 'completed i 3000 u 0 n 0 m 0 s 0 f 0', "$way: the formatted file");
	same_content($node, 'public.typed', 'plain.typed', "$way: the same values");
}

# --- what does not fit -------------------------------------------------------------------------------

sub row_errors
{
	my ($name, $options, @cells) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $content = "id,d,t,n,b\n";
	my @expected;
	my $line = 1;
	foreach my $case (@cells)
	{
		my ($column, $cell, $code) = @$case;
		my %cell = ($column => $cell);
		$content .= csv_line(++$line, @cell{qw(d t n b)});
		push @expected, [ $line, $code, $column, $cell ] if defined $code;
	}
	my $id = submit('public_typed', $content, $options);
	my @got = rows_of($node, "SELECT line, error_code, error_column, error_message FROM bulk_action.bulk_action_errors WHERE action_id = '$id' ORDER BY line");
	is_deeply([ map { [ @$_[ 0 .. 2 ] ] } @got ], [ map { [ @$_[ 0 .. 2 ] ] } @expected ], $name) or diag(explain(\@got));
	# but for the check of a domain, which has a message of its own
	my @told = grep { $got[$_][1] ne '23514' } 0 .. $#got;
	is_deeply([ grep { index($got[$_][3], qq("$expected[$_][3]")) < 0 } @told ], [], "$name: messages have the cell");
	return $id;
}

row_errors('dates', '{"formats": {"date": "DD.MM.YYYY", "timestamp": "DD.MM.YYYY HH24:MI"}}',
	[ d => '31.12.2024' ], [ d => '31.02.2024', '22008' ], [ d => '29.02.2023', '22008' ], [ d => '32.01.2024', '22008' ], [ d => '01.13.2024', '22008' ],
	[ d => '01.02.24', '22007' ], [ d => '2024-02-01', '22007' ], [ d => '02/01/2024', '22007' ], [ d => 'today', '22007' ], [ d => ' 01.02.2024', '22007' ],
	[ d => '01.02.2024 10:00', '22007' ], [ d => '01.01.1899', '23514' ], [ d => '', '22007' ], [ d => undef ],
	[ t => '01.02.2024 10:00' ], [ t => '01.02.2024 24:00', '22008' ], [ t => '01.02.2024', '22007' ], [ t => '01.02.2024 10:00:00', '22007' ]);
row_errors('numbers', '{"formats": {"decimal": ",", "grouping": "."}}',
	[ n => '1.234,56' ], [ n => '1.23', '22P02' ], [ n => '1234.567', '22P02' ], [ n => '0.123', '22P02' ], [ n => '1,234.56', '22P02' ],
	[ n => '12 EUR', '22P02' ], [ n => 'NaN', '22P02' ], [ n => '-', '22P02' ], [ n => '1.234.', '22P02' ]);
row_errors('booleans', '{"formats": {"boolean": "lenient"}}', [ b => 'oui' ], [ b => 'vielleicht', '22P02' ], [ b => '2', '22P02' ], [ b => 'o', '22P02' ]);
row_errors('and nothing is lenient unasked', '{}', [ b => 'ja', '22P02' ], [ b => 'x', '22P02' ], [ n => '1.234,56', '22P02' ], [ d => '31.12.2024', '22008' ]);
is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_action_errors WHERE error_message LIKE '%ja, oui, si are true; %nein, non are false.'"), '3', 'the words are told');

# a null_token and an empty cell are no values, so they need not fit
{
	$node->safe_psql('postgres', "TRUNCATE typed; INSERT INTO typed (id, d, n) VALUES (1, '2000-01-01', 5), (2, '2000-01-01', 5)");
	my $id = submit('public_typed', "id,d,n\n1,-,\n2,,-\n", '{"null_token": "-", "formats": {"date": "DD.MM.YYYY", "decimal": ","}}');
	is(counts($id), 'completed i 0 u 2 n 0 m 0 s 0 f 0', 'NULL and kept');
	is_deeply([ rows_of($node, 'SELECT id, d, n FROM typed ORDER BY id') ], [ [ 1, undef, 5 ], [ 2, '2000-01-01', undef ] ], 'as without a format');
}

# --- keys --------------------------------------------------------------------------------------------

# Every key three times, written differently, over several lanes and chunks: rows of one key meet in one
# lane, in the order of the file.
{
	my (@rows, %last);
	foreach my $round (0 .. 2)
	{
		foreach my $k (1 .. 4000)
		{
			my ($y, $m, $d, $a) = (2000 + $k % 20, 1 + $k % 12, 1 + $k % 28, 1000 + $k);
			my $day = $round == 1 ? "$d.$m.$y" : sprintf '%02d.%02d.%04d', $d, $m, $y;
			my $amount = $round == 0 ? "$a,50" : $round == 1 ? grouped($a, '.', '') . ',5' : "$a,500";
			push @rows, [ $day, $amount, "round $round" ];
			$last{"$y-$m-$d-$a"} = "round $round";
		}
	}
	for (my $i = @rows; --$i > 0;) { my $j = int rand($i + 1); @rows[ $i, $j ] = @rows[ $j, $i ] }
	my %order;
	foreach my $row (@rows)
	{
		my ($d, $m, $y) = split /\./, $row->[0];
		my $amount = $row->[1] =~ s/\.//r =~ s/,50*\z/.5/r;
		push @{ $order{ sprintf '%04d-%02d-%02d %s', $y, $m, $d, $amount } }, $row->[2];
	}
	my $content = csv_line(qw(day amount note)) . join '', map { csv_line(@$_) } @rows;
	foreach my $case ([ all => -1, 'i 4000 u 8000 n 0 m 0 s 0 f 0' ], [ last => -1, 'i 4000 u 0 n 0 m 0 s 8000 f 0' ], [ first => 0, 'i 4000 u 0 n 0 m 0 s 8000 f 0' ])
	{
		my ($duplicates, $which, $counts) = @$case;
		$node->safe_psql('postgres', 'TRUNCATE by_day');
		my $id = submit('public_by_day', $content, qq({"duplicates": "$duplicates", "formats": {"date": "DD.MM.YYYY", "decimal": ",", "grouping": "."}}));
		is(counts($id), "completed $counts", "keys, $duplicates: counts");
		is_deeply({ map { $_->[0] => $_->[1] } rows_of($node, "SELECT day || ' ' || trim_scale(amount), note FROM by_day") },
			{ map { $_ => $order{$_}[$which] } keys %order }, "keys, $duplicates: the right one stays");
	}
	my $id = submit('public_by_day', "day,amount\n" . join('', map { csv_line(@$_[ 0, 1 ]) } @rows[ 0 .. 99 ]) . csv_line('30.02.2001', '1,5'),
		'{"formats": {"date": "DD.MM.YYYY", "decimal": ",", "grouping": "."}, "duplicates": "last"}', type => 'bulk_delete');
	like(counts($id), qr/^completed i 0 u 0 n 0 m 0 s \d+ f 1\z/, 'rows are deleted by formatted keys, and one key is no day');
	is(value_of($node, "SELECT count(*) FROM by_day"), 4000 - value_of($node, "SELECT deleted FROM bulk_action.bulk_action_stat('$id')"), 'so many are gone');
	cmp_ok(value_of($node, "SELECT deleted FROM bulk_action.bulk_action_stat('$id')"), '>', 50, 'which are most of them');
}

# --- contradictions ----------------------------------------------------------------------------------

sub refused
{
	my ($name, $options, $like) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my (undef, undef, $error) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT bulk_action.bulk_action_submit('file:///tmp/x.csv', entity_type => 'public_typed', options => '" . $options =~ s/'/''/gr . "')");
	like($error, qr/22023.*$like/s, $name);
	like($error, qr/^DETAIL: .*^HINT: /ms, "$name: with detail and hint");
}
refused('a pattern that is none', '{"columns": {"d": {"format": "DD.MM.YY"}}}', qr/"columns": "d": "format" must not be "DD\.MM\.YY".*DETAIL/s);
refused('to_date\'s', '{"columns": {"d": {"format": "YYYY-Mon-DD"}}}', qr/must not be "YYYY-Mon-DD"/);
refused('no string', '{"columns": {"d": {"format": 1}}}', qr/"format" must not be a number/);
refused('two types', '{"columns": {"d": {"format": "YYYYMMDD", "decimal": ","}}}', qr/"d" has formats of several types/);
refused('two types again', '{"columns": {"d": {"boolean": "lenient", "grouping": ","}}}', qr/"d" has formats of several types/);
refused('one sign for both', '{"columns": {"n": {"decimal": ",", "grouping": ","}}}', qr/must not be the same/);
refused('one sign for both, for all', '{"formats": {"decimal": ".", "grouping": "."}}', qr/"formats": "decimal" and "grouping" must not be the same/);
refused('another sign', '{"formats": {"decimal": ";"}}', qr/"decimal" must not be ";"/);
refused('another grouping', '{"formats": {"grouping": "_"}}', qr/"grouping" must not be "_"/);
refused('another word', '{"formats": {"boolean": "lenint"}}', qr/"boolean" must not be "lenint".*Perhaps you meant "lenient"/s);
refused('another key', '{"formats": {"dates": "YYYYMMDD"}}', qr/must not be "dates".*Perhaps you meant "date"/s);
refused('no object', '{"formats": "german"}', qr/"formats" must not be a string/);
refused('a date with a time', '{"formats": {"date": "DD.MM.YYYY HH24:MI"}}', qr/"date" must not be.*A date has no time/s);

sub fails
{
	my ($name, $options, $detail) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $id = submit('public_typed', "id,d,n,b,txt,ds\n1,,,,,\n", $options);
	my ($code, $text, $hint) = @{ (rows_of($node, "SELECT error_code, concat_ws(' / ', error_message, error_detail), error_hint FROM bulk_action.bulk_actions WHERE id = '$id'"))[0] };
	is($code, '42804', "$name: fails");
	like($text, $detail, "$name: and says why");
	like($hint, qr/leave the format out/, "$name: and what to do");
}
fails('a date format for text', '{"columns": {"txt": {"format": "DD.MM.YYYY"}}}', qr/column "txt" a format that it cannot have.*DD\.MM\.YYYY.*type text/);
fails('a number format for a date', '{"columns": {"d": {"decimal": ","}}}', qr/column "d".*decimal sign ",".*type birthday/);
fails('words for a number', '{"columns": {"n": {"boolean": "lenient"}}}', qr/column "n".*type numeric/);
fails('a time for a date', '{"columns": {"d": {"format": "DD.MM.YYYY HH24:MI"}}}', qr/The time would be lost/);
fails('a format for an array', '{"columns": {"ds": {"format": "DD.MM.YYYY"}}}', qr/column "ds".*type date\[\]/);

done_testing();
