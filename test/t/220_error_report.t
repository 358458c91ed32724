# The loop that an upload goes through: rows fail, the report is a CSV file with exactly these rows as
# they stood and what is wrong with each, somebody corrects it by hand and submits it as it is. However
# bad a row was, the report is a file that any CSV reader takes.
use strict;
use warnings;

use BulkAction;
use JSON::PP qw(decode_json encode_json);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', conf => "bulk_action.idle_timeout = '1min'");
my $root = $node->basedir . '/files';
mkdir $root or die "$root: $!";
$node->append_conf('postgresql.conf', "bulk_action.file_root = '$root'");
$node->reload;

create_contacts($node, 3000);
create_role($node, $_) foreach qw(alice bob);
create_role($node, 'authenticator', attributes => 'LOGIN NOINHERIT', submit => 0);
$node->safe_psql('postgres', <<'SQL');
ALTER TABLE public.contacts ADD CONSTRAINT age_limit CHECK (age < 200);
CREATE TABLE public.others (LIKE public.contacts INCLUDING ALL);
GRANT SELECT, UPDATE ON public.contacts, public.others TO alice, bob;
GRANT pg_read_server_files TO alice, bob;
GRANT alice TO authenticator;
SQL
serial_copy($node, 'public.contacts');
register_contacts($node);
register_contacts($node, entity => 'other', table => 'public.others');

my $four = '_line,_error_code,_error_column,_error_message';

# --- helpers -----------------------------------------------------------------------------------

my $files = 0;

# Writes a file and has it applied; its id.
sub submit
{
	my ($text, %option) = @_;
	my $path = write_file("$root/" . ++$files . '.csv', $text);
	my $more = join '', map { ", $_ => '$option{$_}'" } grep { !/^(as|wait)\z/ } sort keys %option;
	my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$path'$more)", as => $option{as} // 'alice');
	value_of($node, "CALL bulk_action.bulk_action_wait('$id', '1 minute')") if $option{wait} // 1;
	return $id;
}

sub counts
{
	my ($id) = @_;
	return value_of($node, "SELECT concat_ws(' ', state, total, updated, unchanged, not_found, failed, unprocessed)"
		  . " FROM bulk_action.bulk_action_stat('$id')");
}

# What a user does: psql writes the report to a file. The bytes of that file.
sub report_file
{
	my ($id, $arguments) = @_;
	my $path = $node->basedir . '/errors.csv';
	my $sql = "SELECT bulk_action.bulk_action_error_report('$id'" . ($arguments ? ", $arguments" : '') . ')';
	run_log([ 'psql', '-XAt', '-d', $node->connstr('postgres') . ' user=alice', '-o', $path, '-c', $sql ])
	  or die "psql failed: $sql";
	return read_file($path);
}

# The report itself: psql has put a line end after it.
sub report
{
	my $text = report_file(@_);
	$text =~ s/\n\z// or die 'psql wrote no line end';
	return $text;
}

sub error_of
{
	my ($sql, $role) = @_;
	my ($out, $err);
	$node->psql('postgres', "\\set VERBOSITY verbose\n\\set SHOW_CONTEXT never\nSET SESSION AUTHORIZATION $role;\n$sql",
		stdout => \$out, stderr => \$err, on_error_stop => 0);
	$err =~ s/^psql:<stdin>:\d+: //mg;
	$err =~ s/^LOCATION:.*\n?//mg;
	$err =~ s/\n*\z/\n/;
	return $err;
}

sub quoted { return $_[0] =~ /[",\r\n]/ ? '"' . ($_[0] =~ s/"/""/gr) . '"' : $_[0] }

# Line, code, column and message of each error, as cells.
sub error_cells
{
	my ($id) = @_;
	my $errors = decode_json(value_of($node, <<SQL));
SELECT coalesce(json_agg(json_build_array(line, error_code, coalesce(error_column, ''), error_message) ORDER BY line), '[]')
  FROM bulk_action.bulk_action_errors WHERE action_id = '$id'
SQL
	foreach my $error (@$errors) { utf8::encode($_) foreach @$error }
	return map { join ',', map { quoted($_) } @$_ } @$errors;
}

# --- a file with everything that can go wrong ----------------------------------------------------

my $long = '13,' . 'y' x (1024 * 1024);
my $header = 'id,"first_name",notes,age';
# each bad row as it stands, its code, the cells that stand for it in the report, and those once corrected
my @rows = (
	{ raw => '1,Ann,plain,30' },
	{ raw => '2,Bob,,x1', code => '22P02', fixed => '2,Bob,,31' },
	{ raw => qq("3","","he said ""x"", and\nmore",x2), code => '22P02', fixed => qq("3","","he said ""x"", and\nmore",32) },
	{ raw => '4,"=1+1",+x,-x3', code => '22P02', fixed => '4,"=1+1",+x,33' },
	{ raw => '5,a,b', code => '22P04', cells => '"5,a,b",,,', fixed => '5,a,b,35' },
	{ raw => '6,a,b,36,,', code => '22P04', cells => '"6,a,b,36,,",,,', fixed => '6,a,b,36' },
	{ raw => '7,a"b,c,37', code => '22P04', cells => '"7,a""b,c,37",,,', fixed => '7,"a""b",c,37' },
	{ raw => '"8","a" ,b,38', code => '22P04', cells => '"""8"",""a"" ,b,38",,,', fixed => '"8","a",b,38' },
	{ raw => "9,a\0b,c,39", code => '22021', cells => '"9,a\x00b,c,39",,,', fixed => '9,ab,c,39' },
	{ raw => "10,caf\xE9,c,40", code => '22021', cells => '"10,caf\xE9,c,40",,,', fixed => "10,caf\xC3\xA9,c,40" },
	{ raw => ',key,missing,41', code => '23502', fixed => '11,key,found,41' },
	{ raw => '12,old,"",999', code => '23514', fixed => '12,old,"",99' },
	{ raw => $long, code => '54000', cells => '"' . substr($long, 0, 1024) . '",,,', fixed => '13,y,z,43' },
	{ raw => '\.', code => '22P04', cells => '"\.",,,', fixed => '14,,,44' },
	{ raw => qq(15,"a\rb\r\nc","\t",x5), code => '22P02', fixed => qq(15,"a\rb\r\nc","\t",45) },
	{ raw => '16,Zoe,last,46' },
	{ raw => '3999,not,found,47' },
	{ raw => '17,"open,b,48', code => '22P04', cells => '"17,""open,b,48",,,', fixed => '17,open,b,48' });
my @bad = grep { $_->{code} } @rows;
my $text = join "\n", $header, (map { $_->{raw} } @rows), '';

my $first = submit($text);
is(counts($first), 'completed ' . @rows . ' 2 0 1 ' . @bad . ' 0', 'a file with everything that can go wrong');
my @cells = error_cells($first);
is(join(' ', map { (split /,/)[1] } @cells), join(' ', map { $_->{code} } @bad), 'each row has the error that it should');
my $expected = join "\n", "$header,$four", map { ($bad[$_]{cells} // $bad[$_]{raw}) . ",$cells[$_]" } 0 .. $#bad;
my $report = report($first);
ok($report eq $expected, 'the report is the bad rows as they stood, and their errors, byte by byte')
  or diag("got:\n$report\nexpected:\n$expected");
ok(report_file($first) eq "$expected\n", 'the file that psql writes ends with one line end');

# --- any CSV reader takes it -----------------------------------------------------------------------

{
	my $path = write_file("$root/report.csv", $report);
	is(value_of($node, <<SQL), scalar(@bad) . '||', 'COPY reads it: a row for every error, in columns that say the same');
CREATE TEMP TABLE read (id text, first_name text, notes text, age text, _line text, _error_code text, _error_column text,
	_error_message text);
COPY read FROM '$path' (FORMAT csv, HEADER MATCH);
CREATE TEMP VIEW a AS SELECT _line::bigint, _error_code, _error_column, _error_message FROM read;
CREATE TEMP VIEW b AS SELECT line, error_code, error_column, error_message FROM bulk_action.bulk_action_errors
	WHERE action_id = '$first';
SELECT (SELECT count(*) FROM read), (SELECT string_agg(x::text, ' ') FROM (TABLE a EXCEPT ALL TABLE b) AS x),
	(SELECT string_agg(x::text, ' ') FROM (TABLE b EXCEPT ALL TABLE a) AS x);
SQL
}

# --- submitted again as it is ----------------------------------------------------------------------

my $again = submit(report_file($first), parent_id => $first);
is(counts($again), 'completed ' . @bad . ' 0 0 0 ' . @bad . ' 0', 'submitted again uncorrected every row fails again');
is(value_of($node, "SELECT parent_id FROM bulk_action.bulk_actions WHERE id = '$again'"), $first, 'parent_id says what it is');
my $second = report($again);
{
	my @again = error_cells($again);
	is(join("\n", map { s/^\d+,//r } @again[ grep { !$bad[$_]{cells} } 0 .. $#bad ]),
		join("\n", map { s/^\d+,//r } @cells[ grep { !$bad[$_]{cells} } 0 .. $#bad ]),
		'those that stand in their columns with the same error');
	my $rows = join "\n", "$header,$four", map { ($bad[$_]{cells} // $bad[$_]{raw}) . ",$again[$_]" } 0 .. $#bad;
	ok($second eq $rows, 'the report of the report has the columns of the first, and the same cells')
	  or diag("got:\n$second\nexpected:\n$rows");
}
ok(report(submit("$second\n", parent_id => $again)) eq $second, 'the report of that report is the same');

# --- corrected ---------------------------------------------------------------------------------------

{
	my $corrected = report_file($first);
	foreach my $row (@bad)
	{
		my $cells = $row->{cells} // $row->{raw};
		$corrected =~ s/^\Q$cells\E(?=,\d+,\w{5},)/$row->{fixed}/m or die "no such row in the report: $cells";
	}
	my $id = submit($corrected, parent_id => $first);
	is(counts($id), 'completed ' . @bad . ' ' . @bad . ' 0 0 0 0', 'corrected it is applied, every row');
	apply_serially($node, content => join("\n", 'id,first_name,notes,age', (map { $_->{fixed} // $_->{raw} }
		grep { $_->{fixed} || !$_->{code} } @rows), ''));
	same_content($node, 'public.contacts', 'public.contacts_serial',
		'and the table is as if the file had been right from the beginning');
	is(report($id), "$header,$four", 'its own report is a header and no rows');
}

# --- arguments -----------------------------------------------------------------------------------------

my @lines = map { $_->[0] } rows_of($node, "SELECT line FROM bulk_action.bulk_action_errors WHERE action_id = '$first' ORDER BY line");
foreach my $size (1, 4, scalar(@bad), 100)
{
	my ($after, $at, $parts) = (0, 0, '');
	while ($at < @bad)
	{
		my $part = report($first, "after_line => $after, max_rows => $size");
		die 'no header' unless $part =~ s/^\Q$header,$four\E\n//;
		$parts .= "\n$part";
		$at += $size;
		$after = $lines[ $at - 1 ] if $at < @bad;
	}
	ok("$header,$four$parts" eq $report, "in parts of $size rows the rows are the same");
}
is(report($first, 'max_rows => 0'), "$header,$four", 'no rows: the header');
is(report($first, "after_line => $lines[-1]"), "$header,$four", 'after the last row: the header');
is(report($first, 'after_line => 9223372036854775807, max_rows => 9223372036854775807'), "$header,$four", 'the greatest numbers');

{
	# whatever cell a spreadsheet would take for a formula; errors are neutralised like any cell
	my $neutral = $expected;
	$neutral =~ s/^4,"=1\+1",\+x,-x3,/4,"'=1+1",'+x,'-x3,/m or die;
	$neutral =~ s/^(15,.*?),"\t",x5/$1,"'\t",x5/ms or die;
	is(report($first, 'neutralize => true'), $neutral, 'neutralised: an apostrophe before what could be a formula');
	my $id = submit("id,first_name,age\n1,\"\r\",=2\n2,\@a,+3-1\n3,'=,\"-1-1\"\n=4,\"\"\"=\",-5\n");
	my @errors = error_cells($id);
	is(report($id, 'true'), join("\n", "id,first_name,age,$four", qq(1,"'\r",'=2,$errors[0]), qq(2,'\@a,'+3-1,$errors[1]),
			qq(3,'=,"'-1-1",$errors[2]), qq('=4,"""=",'-5,$errors[3])), 'every character that begins a formula');
	is(report($id), join("\n", "id,first_name,age,$four", qq(1,"\r",=2,$errors[0]), qq(2,\@a,+3-1,$errors[1]),
			qq(3,'=,"-1-1",$errors[2]), qq(=4,"""=",-5,$errors[3])), 'by default cells stay as they are');
}

# --- other files -----------------------------------------------------------------------------------------

sub small_report
{
	my ($name, $file, $columns, @cells) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $id = submit($file);
	my @errors = error_cells($id);
	is(report($id), join("\n", "$columns,$four", map { "$cells[$_],$errors[$_]" } 0 .. $#cells), $name);
	return $id;
}

small_report('line ends are CRLF', qq(id,age\r\n1,x\r\n2,"x\r\ny"\r\n3\r\n), 'id,age', '1,x', qq(2,"x\r\ny"), '3,');
small_report('line ends are CR', qq(id,age\r1,x\r2,"x\ry"\r3,3,3), 'id,age', '1,x', qq(2,"x\ry"), '"3,3,3",');
small_report('a byte order mark', qq(\xEF\xBB\xBFid,age\n1,x\n\xEF\xBB\xBF2,1\n), 'id,age', '1,x', "\xEF\xBB\xBF2,1");
small_report('a byte order mark before a quoted header', qq(\xEF\xBB\xBF"id","age"\n1,x\n), '"id","age"', '1,x');
small_report('blank lines', qq(\n\nid,age\n\n1,x\n\r\n\n2,y), 'id,age', '1,x', '2,y');
small_report('columns of a report anywhere in the file', qq("_line",id,_error_message,age,_error_code\n9,1,"a\nb",x,\n1,2\n),
	'id,age', '1,x', '"1,2",');

# Rows of which another one with the same key was applied have not failed; rows of which none was have.
{
	my $twice = "id,age\n1,x\n2,50\n2,51\n3,y\n";
	my $id = submit($twice, options => '{"duplicates": "last"}');
	my @errors = error_cells($id);
	is(report($id), "id,age,$four\n1,x,$errors[0]\n3,y,$errors[1]", 'superseded rows are not in the report');
	$id = submit($twice, options => '{"duplicates": "error"}');
	@errors = error_cells($id);
	is(report($id), "id,age,$four\n1,x,$errors[0]\n2,50,$errors[1]\n2,51,$errors[2]\n3,y,$errors[3]",
		'duplicates that are errors are');
	my $again = submit(report_file($id), parent_id => $id, options => '{"duplicates": "error"}');
	is(counts($again), 'completed 4 0 0 0 4 0', 'and fail again together');
}

# as many as need several fetches, from several lanes
{
	my $many = contacts_csv($node, rows => 2500, columns => ['age'], order => 'shuffled',
		bad => { map { $_ => { age => "x$_" } } 1 .. 2500 });
	my $id = submit(read_file($many));
	my @errors = error_cells($id);
	my (undef, @rows) = split /\n/, read_file($many);
	is(scalar @errors, 2500, 'a file with 2500 bad rows');
	ok(report($id) eq join("\n", "id,age,$four", map { "$rows[$_],$errors[$_]" } 0 .. 2499), 'its report has them in the order of the file');
}

# --- before there is one, and while it grows ----------------------------------------------------------------

{
	$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF new.first_name = 'hold' THEN PERFORM pg_advisory_xact_lock(220); END IF;
	RETURN new;
END $$;
CREATE TRIGGER hold BEFORE UPDATE ON public.contacts FOR EACH ROW EXECUTE FUNCTION public.hold();
SQL
	my $holder = $node->background_psql('postgres');
	$holder->query_safe('SELECT pg_advisory_lock(220)');
	my $id = submit(qq(id,first_name,age\n1,a"b,1\n2,hold,2\n3,c,x\n), wait => 0);
	wait_for($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'advisory' AND backend_type = 'bulk_action worker'");
	my @errors = error_cells($id);
	is(report($id), "id,first_name,age,$four\n\"1,a\"\"b,1\",,,$errors[0]", 'while it runs: the rows that have failed so far');
	my $queued = submit("id,age\n1,x\n", wait => 0);
	is(error_of("SELECT bulk_action.bulk_action_error_report('$queued');", 'alice'), <<"END", 'none of an action that is still queued');
ERROR:  55000: bulk action "$queued" has no error report
DETAIL:  Its state is "queued", and nothing of its file has been read.
HINT:  Call this again when rows have been read; bulk_action_stat() tells.
END
	$holder->query_safe('SELECT pg_advisory_unlock(220)');
	$holder->quit;
	value_of($node, "CALL bulk_action.bulk_action_wait('$_', '1 minute')") foreach $id, $queued;
	@errors = error_cells($id);
	is(report($id), "id,first_name,age,$four\n\"1,a\"\"b,1\",,,$errors[0]\n3,c,x,$errors[1]", 'when it has ended: all');
	is(report($queued), "id,age,$four\n1,x," . (error_cells($queued))[0], 'and the one that was queued has one');

	my $failed = submit("id,nonsense\n1,x\n");
	is(counts($failed), 'failed 0 0 0 0 0 0', 'a file whose header does not fit');
	is(error_of("SELECT bulk_action.bulk_action_error_report('$failed');", 'alice'), <<"END", 'has no report');
ERROR:  55000: bulk action "$failed" has no error report
DETAIL:  Its state is "failed", and nothing of its file has been read.
HINT:  No row failed; the view bulk_action.bulk_actions says why the action ended.
END
}

# --- who may see it, and name it as a parent -------------------------------------------------------------------

{
	my $unknown = '00000000-0000-4000-8000-000000000000';
	foreach my $case ([ $first, 'bob', 'an action of another role' ], [ $unknown, 'alice', 'an action that does not exist' ])
	{
		my ($id, $role, $name) = @$case;
		my $error = error_of("SELECT bulk_action.bulk_action_cancel('$id');", $role);
		like($error, qr/^ERROR:  42704: bulk action "$id" does not exist\nDETAIL: /, "$name is not there");
		is(error_of("SELECT bulk_action.bulk_action_error_report('$id');", $role), $error, 'says bulk_action_error_report in the same words');
		is(error_of("SELECT bulk_action.bulk_action_submit('file://$root/1.csv', parent_id => '$id');", $role), $error, 'and bulk_action_submit');
	}
	is(report($first), $report, 'its submitter has it');
	my $submit = "SELECT bulk_action.bulk_action_submit('file://$root/1.csv', parent_id => '$first'";
	is(error_of("$submit, entity_type => 'other');", 'alice'), <<"END", 'a parent of another entity type');
ERROR:  22023: entity_type differs from that of parent action "$first"
DETAIL:  It is "other"; that of the parent is "contact".
HINT:  The parent is the action whose error report is submitted: give the same entity_type and account_id as there, or no parent_id.
END
	like(error_of("$submit, account_id => 'acme');", 'alice'), qr/^ERROR:  22023: account_id differs .*\nDETAIL:  It is "acme"; that of the parent is "alice"/,
		'a parent of another account');
}

# --- as PostgREST calls it ----------------------------------------------------------------------------------------

{
	# PostgREST's statements for GET and POST /rpc/bulk_action_error_report: the second column is the answer
	my $scalar = 'SELECT null::bigint AS total_result_set, 1 AS page_total, %s AS body,'
	  . " nullif(current_setting('response.headers', true), '') AS response_headers,"
	  . " nullif(current_setting('response.status', true), '') AS response_status, '' AS response_inserted"
	  . ' FROM (SELECT "bulk_action_error_report".* FROM "pgrst_source" AS "bulk_action_error_report") _postgrest_t';
	my %body = (
		'application/json' => q(coalesce(json_agg(_postgrest_t.pgrst_scalar)->0, 'null')),
		# the handler of a media type is the domain itself, called like a function
		'text/csv' => '"bulk_action"."text/csv"(_postgrest_t.pgrst_scalar)');
	my %call = (
		GET => 'PREPARE request (text) AS WITH pgrst_source AS (SELECT "bulk_action"."bulk_action_error_report"'
		  . '("action_id" := $1::uuid) pgrst_scalar) ',
		POST => 'PREPARE request (json) AS WITH pgrst_source AS (SELECT pgrst_call.pgrst_scalar FROM (SELECT $1 AS json_data) pgrst_payload,'
		  . ' LATERAL (SELECT "action_id" FROM json_to_record(pgrst_payload.json_data) AS _("action_id" uuid) LIMIT 1) pgrst_body,'
		  . ' LATERAL (SELECT "bulk_action"."bulk_action_error_report"("action_id" := pgrst_body."action_id") pgrst_scalar) pgrst_call) ');
	foreach my $method (sort keys %call)
	{
		foreach my $type (sort keys %body)
		{
			my $argument = $method eq 'GET' ? $first : encode_json({ action_id => $first });
			my $out = $node->basedir . '/body';
			# a function that is STABLE is called in a transaction that is READ ONLY
			my $sql = "SET client_encoding = 'UTF8'; SET client_min_messages TO WARNING;\n"
			  . "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;\n"
			  . q(SELECT set_config('search_path', '"bulk_action", "public"', true), set_config('role', 'alice', true),)
			  . qq( set_config('request.jwt.claims', '{"role":"alice"}', true), set_config('request.method', '$method', true) \\g /dev/null\n)
			  . $call{$method} . sprintf($scalar, $body{$type}) . ";\n"
			  . "EXECUTE request ('$argument') \\g (format=unaligned tuples_only=on fieldsep='~~') $out\nCOMMIT;\n";
			$node->safe_psql('postgres', $sql, connstr => $node->connstr('postgres') . ' user=authenticator');
			my (undef, $pages, $body) = split /~~/, read_file($out);
			$body = JSON::PP->new->utf8->allow_nonref->decode($body) if $type eq 'application/json';
			utf8::encode($body) if $type eq 'application/json';
			ok($body eq $report, "$method, Accept: $type") or diag($body);
		}
	}
}

# --- what is too large for one value ----------------------------------------------------------------------------------

{
	my $id = submit("id,age\n");
	$node->safe_psql('postgres', <<SQL);
INSERT INTO bulk_action_internal.errors (action_no, line, error_code, error_message, record)
SELECT a.action_no, i, '22P02', repeat('m', 2000000), i || ',x'
  FROM bulk_action_internal.actions AS a, generate_series(2, 551) AS i WHERE a.id = '$id';
SQL
	is(error_of("SELECT length(bulk_action.bulk_action_error_report('$id'));", 'alice'), <<'END', 'a report that would be larger than 1 GB is an error');
ERROR:  54000: the error report is larger than 1 GB
DETAIL:  A value in PostgreSQL cannot be larger.
HINT:  Fetch it in parts: max_rows => 100000 for the first one, and after_line => the last _line of a part for the next.
END
	is(value_of($node, "SELECT length(bulk_action.bulk_action_error_report('$id', after_line => 551 - 20))", as => 'alice'),
		length("id,age,$four") + 20 * length("\n531,x,531,22P02,,") + 20 * 2_000_000, 'in parts it can be had');
}

# --- forgotten ---------------------------------------------------------------------------------------------------------

{
	$node->safe_psql('postgres', "UPDATE bulk_action_internal.actions SET finished_at = finished_at - interval '1 day' WHERE id = '$first'");
	is(value_of($node, "SELECT bulk_action.bulk_action_purge('12 hours')", as => 'alice'), 1, 'the first action is purged');
	is(value_of($node, 'SELECT count(*) FROM bulk_action_internal.sources AS s WHERE NOT EXISTS'
		  . ' (SELECT FROM bulk_action_internal.actions AS a WHERE a.action_no = s.action_no)'), 0, 'with its header');
	like(error_of("SELECT bulk_action.bulk_action_error_report('$first');", 'alice'), qr/^ERROR:  42704: /, 'and its report');
	is(value_of($node, "SELECT parent_id FROM bulk_action.bulk_actions WHERE id = '$again'"), $first,
		'those that were made of it still say so');
	is(report($again), $second, 'and have theirs');
}

$node->stop;
done_testing();
