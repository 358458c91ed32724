# The whole path, from a file on the server and from S3: every row of the file ends where one session
# with plain SQL would have put it, every bad row is named by its line, and nothing is left over.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main');
my $root = $node->basedir . '/files';
mkdir $root or die "$root: $!";
$node->append_conf('postgresql.conf', "bulk_action.file_root = '$root'");
$node->reload;
server_for_s3($node);

# --- helpers -----------------------------------------------------------------------------------

sub submit
{
	my ($uri, $entity) = @_;
	$entity //= 'contact';
	return value_of($node, "SELECT bulk_action.bulk_action_submit('$uri', entity_type => '$entity')");
}

# Every row is accounted for, each term from its own source.
sub adds_up
{
	my ($stat, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $sum = 0;
	$sum += $stat->{$_}
	  foreach qw(updated inserted deleted unchanged not_found superseded failed unprocessed);
	return is($sum, $stat->{total}, "$name: the outcomes add up to the rows of the file");
}

# Waits for the action's end and compares its statistics with what is expected.
sub ends_as
{
	my ($id, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	value_of($node, "CALL bulk_action.bulk_action_wait('$id', '2 minutes')");
	my $stat = stat_of($node, $id);
	my %expected = (state => 'completed', unprocessed => 0, superseded => 0, inserted => 0,
		deleted => 0, %$expected);
	is_deeply({ map { $_ => $stat->{$_} } keys %expected }, \%expected, "$name: statistics are exact")
	  or diag(explain($stat));
	adds_up($stat, $name);
	return $stat;
}

sub errors_of
{
	my ($id) = @_;
	return rows_of($node, "SELECT line, error_code, error_column, error_message
		FROM bulk_action.bulk_action_errors WHERE action_id = '$id' ORDER BY line");
}

# What is expected of an action, from what plain SQL did.
sub counts_of
{
	my ($serial) = @_;
	return {
		total => $serial->{total},
		updated => $serial->{updated},
		unchanged => $serial->{unchanged},
		not_found => $serial->{not_found},
		failed => $serial->{failed},
		total_is_final => JSON::PP::true };
}

# --- five thousand rows from a file ----------------------------------------------------------------

create_contacts($node, 6_000);
register_contacts($node);

my $csv = contacts_csv($node, rows => 5_000, order => 'shuffled', first => 501, name => 'files/contacts.csv');
my $serial = apply_serially($node, csv => $csv);
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN bulk_action');

my $id = value_of($node, <<SQL);
SELECT bulk_action.bulk_action_submit('file://$csv', metadata => '{"note": "first"}',
	account_id => 'acme', trace_id => 'trace-1', idempotency_key => 'key-1')
SQL
my $stat = ends_as($id, { %{ counts_of($serial) }, updated => 5_000, not_found => 0, failed => 0,
		trace_id => 'trace-1', success => 5_000 }, 'five thousand rows of a file');
same_content($node, 'public.contacts', 'public.contacts_serial',
	'five thousand rows of a file: the table is as plain SQL leaves it');
is($stat->{percent}, 100, 'at the end the action is done by 100 percent');

my ($action) = rows_of($node, <<SQL);
SELECT action_type, entity_type, account_id, metadata, state, source, options, trace_id, idempotency_key,
	submitted_by = current_user, submitted_at <= started_at AND started_at <= finished_at,
	error_code, error_message, error_detail, error_hint
  FROM bulk_action.bulk_actions WHERE id = '$id'
SQL
is_deeply($action,
	[ 'bulk_update', 'contact', 'acme', '{"note": "first"}', 'completed', "file://$csv", '{}', 'trace-1',
		'key-1', 't', 't', undef, undef, undef, undef ],
	'bulk_actions tells what was submitted and what became of it');
is_deeply([ rows_of($node, <<SQL) ], [ [ 5_000, 0, 5_000, 5_000, 0, 't', '100.0' ] ],
SELECT total, failed, success, metadata->>'updated', metadata->>'unprocessed',
	(metadata->>'total_is_final')::boolean, metadata->>'percent'
  FROM bulk_action.bulk_action_stats WHERE action_id = '$id'
SQL
	'bulk_action_stats has the final counts');
is_deeply([ rows_of($node, <<SQL) ], [ [ 'completed', '[####################]', '100.0', 5_000, 0, undef ] ],
SELECT state, bar, percent, total, failed, eta FROM bulk_action.bulk_action_progress WHERE action_id = '$id'
SQL
	'bulk_action_progress shows a full bar');
is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_action_errors WHERE action_id = '$id'"), 0,
	'no error is recorded where there was none');

my $heard = '';
wait_until(
	sub { $heard .= $listener->query_safe('SELECT 1'); return $heard =~ /\Q$id\E/ },
	what => 'a notification about the action');
$listener->quit;
like($heard, qr/"bulk_action" with payload "\{"id" : "$id", "state" : "completed"\}"/,
	'the end of the action is told on channel bulk_action');

is(value_of($node, <<SQL), $id, 'submitting again with the same idempotency key returns the same action');
SELECT bulk_action.bulk_action_submit('file://$csv', account_id => 'acme', idempotency_key => 'key-1')
SQL

my $queue = join ' + ', map { "(SELECT count(*) FROM bulk_action_internal.$_)" }
  qw(segments cursors bulk_action_jobs events);
wait_for($node, "SELECT $queue", expect => 0, what => 'the queue to be empty');
pass('nothing is left in the queue');

# --- the same from S3 ------------------------------------------------------------------------------

$csv = contacts_csv($node, rows => 5_000, order => 'shuffled', seed => 2, salt => 1, first => 1_001,
	columns => [qw(email phone birthday active updated_at)]);
my $uri = s3_put('contacts.csv', file => $csv);
$serial = apply_serially($node, csv => $csv);
ends_as(submit($uri), { %{ counts_of($serial) }, updated => 5_000 }, 'five thousand rows from S3');
same_content($node, 'public.contacts', 'public.contacts_serial',
	'five thousand rows from S3: the table is as plain SQL leaves it');

$csv = contacts_csv($node, rows => 100, first => 5_951, salt => 2);
$serial = apply_serially($node, csv => $csv);
ends_as(submit(s3_put('beyond.csv', file => $csv)), { %{ counts_of($serial) }, updated => 50, not_found => 50 },
	'keys that the table lacks');
same_content($node, 'public.contacts', 'public.contacts_serial',
	'keys that the table lacks count as not found and change nothing');

# --- bad rows among good ones ------------------------------------------------------------------------

# A file made of good and bad rows, and, for plain SQL, one of those rows that are CSV of the right
# shape with a key. A row: [cells], or { raw => line, code, column, message } with what becomes of it.
# Returns the expected errors of those rows, as [line, code, column, message], and the lines of the others.
sub write_mixed
{
	my ($path, $columns, $rows, %option) = @_;
	my $eol = $option{eol} // "\n";
	my $text = ($option{bom} ? "\xEF\xBB\xBF" : '') . join(',', @$columns) . $eol;
	my $clean = join(',', @$columns) . "\n";
	my $line = 2;
	my (@errors, @lines);
	foreach my $row (@$rows)
	{
		my $raw = ref $row eq 'HASH' ? $row->{raw} : csv_line(@$row) =~ s/\n\z//r;
		if (ref $row eq 'ARRAY')
		{
			push @lines, $line;
			$clean .= csv_line(@$row);
		}
		elsif (defined $row->{code})
		{
			push @errors, [ $line, @{$row}{qw(code column message)} ];
		}
		$text .= $raw . $eol;
		$line += 1 + ($raw =~ tr/\n//);
	}
	write_file($path, $text);
	write_file("$path.clean", $clean);
	return (\@errors, \@lines);
}

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE public.mixed (LIKE public.contacts INCLUDING ALL, code varchar(5),
	initial text NOT NULL GENERATED ALWAYS AS (nullif(left(first_name, 1), '')) STORED,
	CONSTRAINT young CHECK (age < 150));
INSERT INTO public.mixed SELECT *, 'old' FROM public.contacts WHERE id <= 3000;
CREATE TABLE public.mixed_serial (LIKE public.mixed INCLUDING ALL);
INSERT INTO public.mixed_serial SELECT *, 'old' FROM public.contacts WHERE id <= 3000;
SQL
register_contacts($node, entity => 'mixed', table => 'public.mixed');

my $taken = value_of($node, 'SELECT email FROM public.mixed WHERE id = 2500');
my @mixed;
my %bad = (
	integer => 0, check => 0, not_null => 0, unique => 0, too_long => 0, ragged => 0, empty_key => 0,
	bad_key => 0, keeps_all => 0, not_found => 0);
foreach my $n (1 .. 2_400)
{
	my @cells = ($n, "mixed$n\@example.com", "First $n", $n % 100, "c$n" =~ s/^(.{5}).*/$1/r, "note, $n");
	if ($n % 40 == 3) { $cells[3] = "x$n"; $bad{integer}++ }
	elsif ($n % 40 == 5) { $cells[3] = 150 + $n; $bad{check}++ }
	elsif ($n % 40 == 7) { $cells[2] = ''; $bad{not_null}++ }
	elsif ($n % 40 == 11) { $cells[1] = $taken; $bad{unique}++ }
	elsif ($n % 40 == 13)
	{
		# an explicit cast, as plain SQL has it here, would cut it off instead
		$bad{too_long}++;
		push @mixed, { raw => "$n,a,b,1,code$n,e", code => '22001', column => 'code',
			message => 'value too long for type character varying(5)' };
		next;
	}
	elsif ($n % 40 == 17)
	{
		$bad{ragged}++;
		push @mixed, $n % 80 == 17
		  ? { raw => "$n,a,b", code => '22P04', message => 'the row has 3 fields, the header has 6' }
		  : { raw => "$n,a,b,1,d,e,f", code => '22P04', message => 'the row has 7 fields, the header has 6' };
		next;
	}
	elsif ($n % 40 == 19)
	{
		$bad{empty_key}++;
		push @mixed, { raw => ",a,b,1,d,e", code => '23502', column => 'id', message => 'the key is empty' };
		next;
	}
	elsif ($n % 40 == 23)
	{
		$bad{bad_key}++;
		push @mixed, { raw => "n$n,a,b,1,d,e", code => '22P02', column => 'id',
			message => "invalid input syntax for type bigint: \"n$n\"" };
		next;
	}
	elsif ($n % 40 == 29) { @cells[ 1 .. 5 ] = (undef) x 5; $bad{keeps_all}++ }
	elsif ($n % 40 == 31) { @cells[ 1, 3 ] = (undef, undef) }
	elsif ($n % 40 == 37) { $cells[0] += 100_000; $bad{not_found}++ }
	elsif ($n % 40 == 39) { $cells[5] = '' }
	push @mixed, \@cells;
}
my @columns = qw(id email first_name age code notes);
my ($errors, $lines) = write_mixed("$root/mixed.csv", \@columns, \@mixed);
$serial = apply_serially($node, csv => "$root/mixed.csv.clean", table => 'public.mixed');
my $serial_failed = $bad{integer} + $bad{check} + $bad{not_null} + $bad{unique};
is($serial->{failed}, $serial_failed, 'bad rows: plain SQL fails on those it should');
$id = submit("file://$root/mixed.csv", 'mixed');
ends_as($id,
	{ %{ counts_of($serial) }, total => scalar @mixed, not_found => $bad{not_found},
		failed => $serial_failed + @$errors }, 'bad rows among good ones');
same_content($node, 'public.mixed', 'public.mixed_serial',
	'bad rows among good ones: each fails alone, the others are applied');

my %found = map { $_->[0] => $_ } errors_of($id);
is_deeply([ map { $found{ $_->[0] } } @$errors ], $errors,
	'ragged rows, bad keys, texts that are too long: line, code, column and message');
delete $found{ $_->[0] } foreach @$errors;
is_deeply([ map { [ $_, $found{$_}[1] ] } sort { $a <=> $b } keys %found ],
	[ map { [ $lines->[ $_->[0] - 1 ], $_->[1] ] } @{ $serial->{errors} } ],
	'every other bad row has the line and the SQLSTATE of plain SQL');
my %by_code;
push @{ $by_code{ $_->[1] } }, $_ foreach map { $found{$_} } sort { $a <=> $b } keys %found;
is_deeply({ map { $_ => scalar @{ $by_code{$_} } } keys %by_code },
	{ '22P02' => $bad{integer}, 23514 => $bad{check}, 23502 => $bad{not_null}, 23505 => $bad{unique} },
	'errors of every kind are there');
is($by_code{'22P02'}[0][2], 'age', 'a bad integer: its column is named');
is($by_code{23502}[0][2], 'initial', 'a null where none may be: its column is named');
like($by_code{23505}[0][3], qr/duplicate key value violates unique constraint/,
	'a duplicate: the message is the server\'s');
like($by_code{23514}[0][3], qr/violates check constraint "young"/, 'a failed check: the constraint is named');
is(value_of($node, "SELECT record FROM bulk_action.bulk_action_errors
	WHERE action_id = '$id' AND line = $by_code{'22P02'}[0][0]"),
	'3,mixed3@example.com,First 3,x3,c3,"note, 3"', 'the row\'s own text is kept with its error');

# --- empty cells -----------------------------------------------------------------------------------

my ($before) = rows_of($node, 'SELECT email, first_name, notes FROM public.contacts WHERE id = 1');
write_file("$root/empty.csv", qq(id,email,first_name,notes\n1,,"",\n2,,,""\n3,,,\n));
$serial = apply_serially($node, csv => "$root/empty.csv");
ends_as(submit("file://$root/empty.csv"), { total => 3, updated => 2, unchanged => 1, failed => 0, not_found => 0 },
	'empty cells');
is_deeply([ rows_of($node, 'SELECT email, first_name, notes FROM public.contacts WHERE id = 1') ],
	[ [ $before->[0], '', $before->[2] ] ],
	'an empty cell keeps the present value, a quoted one is the empty string');
same_content($node, 'public.contacts', 'public.contacts_serial', 'empty cells: as plain SQL leaves it');

# --- one key many times --------------------------------------------------------------------------------

# Every key twenty times, in several spellings of the number and with different columns set: what
# counts is the order of the file, within a chunk and from chunk to chunk.
my @spelling = ('%d', '%d', '%03d', '+%d', ' %d');
my @many;
foreach my $round (1 .. 20)
{
	foreach my $key (1 .. 300)
	{
		my $n = $round * 1_000 + $key;
		push @many, [ sprintf($spelling[ $n % @spelling ], $key), $n % 3 ? "name $n" : undef,
			$n % 4 ? $n % 140 : undef, $n % 5 ? "round $round" : undef ];
	}
}
srand(10);
for (my $i = @many; --$i > 0;)
{
	my $j = int rand($i + 1);
	@many[ $i, $j ] = @many[ $j, $i ];
}
# ... and one key in a thousand rows on end, which make up whole chunks by themselves
push @many, map { [ 301, "last $_", $_ % 140, undef ] } 1 .. 1_500;
write_mixed("$root/many.csv", [qw(id first_name age notes)], \@many);
$serial = apply_serially($node, csv => "$root/many.csv.clean");
ends_as(submit("file://$root/many.csv"), { %{ counts_of($serial) }, total => 7_500, failed => 0,
		not_found => 0 }, 'one key in many rows');
same_content($node, 'public.contacts', 'public.contacts_serial',
	'rows with the same key are applied in the order of the file, however the key is spelt');
is(value_of($node, 'SELECT first_name FROM public.contacts WHERE id = 301'), 'last 1500',
	'the last row of a key wins');

# --- lines -------------------------------------------------------------------------------------------

foreach my $kind ([ 'line feeds', "\n", 0 ], [ 'CRLF and a byte order mark', "\r\n", 1 ])
{
	my ($what, $eol, $bom) = @$kind;
	my @rows;
	foreach my $n (1 .. 1_500)
	{
		push @rows, { raw => '' } if $n % 70 == 0;
		push @rows, $n % 50 == 7 ? [ $n, "two\nlines, $bom", $n % 99 ]
		  : $n % 50 == 9 ? [ $n, "three\n\nlines \"quoted\", $bom", $n % 99 ]
		  : $n % 50 == 11 ? [ $n, "a bad\none", 'old' ]
		  : $n % 50 == 13 ? { raw => "$n,short", code => '22P04', message => 'the row has 2 fields, the header has 3' }
		  : [ $n, "name $n $bom", $n % 99 ];
	}
	($errors, $lines) = write_mixed("$root/lines.csv", [qw(id notes age)], \@rows, eol => $eol, bom => $bom);
	$serial = apply_serially($node, csv => "$root/lines.csv.clean");
	$id = submit("file://$root/lines.csv");
	ends_as($id, { %{ counts_of($serial) }, total => 1_500, failed => 60, not_found => 0 }, "a file with $what");
	same_content($node, 'public.contacts', 'public.contacts_serial', "a file with $what: as plain SQL leaves it");
	is_deeply([ map { [ @$_[ 0, 1 ] ] } errors_of($id) ],
		[ sort { $a->[0] <=> $b->[0] } (map { [ @$_[ 0, 1 ] ] } @$errors),
			(map { [ $lines->[ $_->[0] - 1 ], $_->[1] ] } @{ $serial->{errors} }) ],
		"a file with $what: errors have the line at which their row begins");
}

# --- a hundred thousand rows, four workers -----------------------------------------------------------

create_contacts($node, 100_000, table => 'public.people');
register_contacts($node, entity => 'person', table => 'public.people');
my $salt = 0;
foreach my $order (qw(sorted shuffled))
{
	$csv = contacts_csv($node, rows => 100_000, order => $order, salt => ++$salt, name => "files/$order.csv");
	$serial = apply_serially($node, csv => $csv, table => 'public.people', mode => 'set');

	# Nobody can update a row until all four workers have tried: then each is inside a lane of its own.
	my $blocker = $node->background_psql('postgres');
	$blocker->query_safe('BEGIN');
	$blocker->query_safe('SELECT count(*) FROM (SELECT FROM public.people FOR UPDATE) AS p');
	$id = submit("file://$csv", 'person');
	wait_for($node, "SELECT count(*) = 4 FROM pg_stat_activity WHERE wait_event_type = 'Lock'
		AND query LIKE 'applying lane %$id'", what => 'four workers to be inside lanes');
	pass("$order: four workers apply four lanes at a time");

	my $live = stat_of($node, $id);
	adds_up($live, "$order, running");
	is_deeply([ @{$live}{qw(state updated)}, $live->{unprocessed} == $live->{total} ], [ 'running', 0, 1 ],
		"$order: what is not committed does not count");
	is_deeply([ rows_of($node, "SELECT state, bar, percent FROM bulk_action.bulk_action_progress
		WHERE action_id = '$id'") ], [ [ 'running', '[....................]', '0.0' ] ],
		"$order: the progress bar is empty");
	is(value_of($node, "SELECT count(*) FROM bulk_action_internal.cursors"), 32, "$order: there are 32 lanes");
	$blocker->query_safe('COMMIT');
	$blocker->quit;

	ends_as($id, { %{ counts_of($serial) }, updated => 100_000, failed => 0 }, "100,000 rows, $order");
	same_content($node, 'public.people', 'public.people_serial',
		"100,000 rows, $order: the table is as plain SQL leaves it");
}

wait_for($node, "SELECT $queue", expect => 0, what => 'the queue to be empty');
pass('nothing is left in the queue');
is(value_of($node, "SELECT count(*) FROM bulk_action.bulk_actions WHERE state <> 'completed'"), 0,
	'every action of this test has completed');

$node->stop;
done_testing();
