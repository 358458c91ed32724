# BulkAction - what the TAP tests of bulk_action share, on top of PostgreSQL's own test modules.
#
#   use BulkAction;
#   use Test::More;
#
#   my $node = new_node('main');                      # a server that preloads bulk_action
#   create_contacts($node, 10_000);                   # public.contacts, always the same content
#   server_for_s3($node);                             # CREATE SERVER s3 + a user mapping
#   my $csv = contacts_csv($node, rows => 5_000, order => 'shuffled');
#   my $uri = s3_put('contacts.csv', file => $csv);   # s3://BUCKET/<name of the test>/contacts.csv
#   apply_serially($node, csv => $csv);               # the same by plain SQL, to a copy
#   ...
#   is(checksum_of($node, 'public.contacts'), checksum_of($node, 'public.contacts_serial'));
#
# script/test sets the environment up and starts one S3 server for all test files; a test file that
# is run alone (`script/test t/NAME`, or prove with PERL5LIB and PG_REGRESS set as PGXS does) starts
# one for itself when it first needs it.
package BulkAction;

use strict;
use warnings;

use Digest::SHA qw(hmac_sha256 hmac_sha256_hex sha256_hex);
use Exporter 'import';
use File::Basename qw(basename dirname);
use File::Spec;
use File::Temp ();
use HTTP::Tiny;
use IO::Socket::INET;
use IPC::Open3 ();
use JSON::PP ();
use POSIX qw(strftime);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  new_node create_role create_contacts server_for_s3 register_contacts
  wait_for wait_until wait_for_state pids_of peak_of_workers kill_9 value_of rows_of literal
  stat_of final_stat
  checksum_of same_content same_as_counted
  contacts_csv csv_line write_file read_file
  apply_serially serial_copy
  s3 s3_uri s3_key s3_put s3_head s3_delete s3_presign
  temporary_credentials pg_ctl_in_namespaces
  new_proxy
  injection_points inject is_injected wait_for_injected
);

# Every wait has this bound, in seconds.
our $TIMEOUT = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 120;

# Where the S3 server and the proxy are.
my $test_dir = dirname(dirname(File::Spec->rel2abs(__FILE__)));

# What all keys of this test file begin with: test files run side by side on one server.
my $key_prefix = basename($0) =~ s/\.(t|pl)\z//r;

# --- servers ---------------------------------------------------------------------------------------

# new_node($name, %options): a started server that preloads bulk_action, with the extension in the
# database postgres.
#   conf       => "..."   more lines for postgresql.conf
#   extension  => 0       do not create the extension
#   preload    => 0       do not preload the library
#   injection  => 1       preload test/injection too: see inject()
#   start      => 0       do not start
sub new_node
{
	my ($name, %option) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ]);
	$node->append_conf('postgresql.conf', <<'CONF');
# PostgreSQL's test module turns this off; tests that kill processes need it
restart_after_crash = on
shared_buffers = 64MB
max_connections = 40
log_min_messages = info
# the module logs every statement, which for generated tables is most of the log
log_statement = ddl
CONF
	my @libraries = ('bulk_action') x ($option{preload} // 1);
	push @libraries, 'bulk_action_injection' if $option{injection};
	$node->append_conf('postgresql.conf', "shared_preload_libraries = '" . join(', ', @libraries) . "'");
	mkdir $node->data_dir . '/injection' if $option{injection};
	$node->append_conf('postgresql.conf', $option{conf}) if defined $option{conf};
	return $node unless $option{start} // 1;
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION bulk_action') if $option{extension} // 1;
	return $node;
}

# create_role($node, $role, %options): a role that can log in, as an ordinary user of bulk_action.
#   attributes => 'NOINHERIT ...'   instead of LOGIN
#   submit     => 0                 without the right to call bulk_action
#   db         => name
sub create_role
{
	my ($node, $role, %option) = @_;
	my $db = $option{db} // 'postgres';
	my $attributes = $option{attributes} // 'LOGIN';
	$node->safe_psql($db, "CREATE ROLE $role $attributes");
	return $role unless $option{submit} // 1;
	$node->safe_psql($db, <<SQL);
GRANT USAGE ON SCHEMA bulk_action TO $role;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bulk_action TO $role;
SQL
	return $role;
}

# server_for_s3($node, %options): the foreign server for the S3 server of this run.
#   name => 's3'    db => 'postgres'    role => 'CURRENT_USER' (also gets USAGE, if it is a name)
#   endpoint, region, bucket, access_key_id, secret_access_key, session_token: instead of the true ones
#   options => { ... }   more options of the server; undef takes one away
sub server_for_s3
{
	my ($node, %option) = @_;
	my $s3 = s3();
	my $name = $option{name} // 's3';
	my $role = $option{role} // 'CURRENT_USER';
	my %server = (
		endpoint => $option{endpoint} // $s3->{endpoint},
		region => $option{region} // $s3->{region},
		bucket => $option{bucket} // $s3->{bucket},
		allow_http => 'true',
		allow_private_address => 'true',
		%{ $option{options} // {} });
	my %mapping = (
		access_key_id => $option{access_key_id} // $s3->{access_key_id},
		secret_access_key => $option{secret_access_key} // $s3->{secret_access_key},
		session_token => $option{session_token});
	my $sql = "CREATE SERVER $name FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS ("
	  . _options(%server) . ");\n"
	  . "CREATE USER MAPPING FOR $role SERVER $name OPTIONS (" . _options(%mapping) . ");\n";
	$sql .= "GRANT USAGE ON FOREIGN SERVER $name TO $role;\n"
	  unless $role =~ /^(CURRENT_USER|CURRENT_ROLE|USER|SESSION_USER)\z/i;
	$node->safe_psql($option{db} // 'postgres', $sql);
	return $name;
}

sub _options
{
	my (%option) = @_;
	return join ', ', map { "$_ " . literal($option{$_}) }
	  grep { defined $option{$_} } sort keys %option;
}

# literal($value): a value as SQL; NULL if there is none.
sub literal
{
	my ($value) = @_;
	return 'NULL' unless defined $value;
	return "'" . ($value =~ s/'/''/gr) . "'";
}

# --- waiting ---------------------------------------------------------------------------------------

# wait_for($node, $sql, %options): until the query gives 't' (or expect => ...). Dies, with what the
# query gave last, when the bound passes.
#   expect => 't'   db => 'postgres'   timeout => seconds   what => 'a name for the message'
sub wait_for
{
	my ($node, $sql, %option) = @_;
	my $expect = $option{expect} // 't';
	my ($out, $err);
	wait_until(
		sub {
			# a psql that the server turns away may be gone before it has read its input
			eval { $node->psql($option{db} // 'postgres', $sql, stdout => \$out, stderr => \$err); 1 }
			  or ($out, $err) = ('', $@);
			return $out eq $expect;
		},
		timeout => $option{timeout},
		what => $option{what} // $sql,
		last => sub { "last result: $out\nlast error: $err" });
	return 1;
}

# wait_until($code, %options): the same for any condition.
sub wait_until
{
	my ($code, %option) = @_;
	my $end = time + ($option{timeout} // $TIMEOUT);
	my $pause = 0.01;
	until ($code->())
	{
		die "timed out waiting for: "
		  . ($option{what} // 'a condition') . "\n"
		  . ($option{last} ? $option{last}->() : '')
		  if time > $end;
		sleep($pause);
		$pause *= 1.5 if $pause < 0.2;
	}
	return 1;
}

# wait_for_state($node, $id, $state, %options): until the action is in it; options as of wait_for.
sub wait_for_state
{
	my ($node, $id, $state, %option) = @_;
	return wait_for($node, "SELECT state FROM bulk_action.bulk_actions WHERE id = '$id'", %option, expect => $state);
}

# pids_of($node, $backend_type): process ids in pg_stat_activity by LIKE pattern of backend_type.
sub pids_of
{
	my ($node, $backend_type) = @_;
	return split /\n/, $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type LIKE "
		  . literal($backend_type) . " ORDER BY backend_start");
}

# peak_of_workers($node, $id): waits for the end of the action; the most that a worker had for itself meanwhile,
# without shared memory, in kB.
sub peak_of_workers
{
	my ($node, $id) = @_;
	my $peak = 0;
	wait_until(
		sub {
			foreach my $pid (pids_of($node, 'bulk_action worker'))
			{
				my $status = eval { read_file("/proc/$pid/status") } // next;
				my ($own) = $status =~ /^RssAnon:\s+(\d+)/m;
				$peak = $own if $own && $own > $peak;
			}
			return value_of($node, "SELECT finished_at IS NOT NULL FROM bulk_action.bulk_actions WHERE id = '$id'") eq 't';
		},
		what => 'the action to end');
	note("a worker has up to $peak kB");
	return $peak;
}

# value_of($node, $sql, %options): one value; db => name, as => role (by SET SESSION AUTHORIZATION).
sub value_of
{
	my ($node, $sql, %option) = @_;
	my $as = defined $option{as} ? "SET SESSION AUTHORIZATION $option{as};\n" : '';
	return $node->safe_psql($option{db} // 'postgres', $as . $sql);
}

# rows_of($node, $sql, %options): a list of array references; NULL comes as undef. The values must
# hold neither newlines nor tabs.
sub rows_of
{
	my ($node, $sql, %option) = @_;
	my $out = $node->safe_psql($option{db} // 'postgres', "COPY ($sql) TO STDOUT");
	return map { [ map { $_ eq '\N' ? undef : $_ } split /\t/, $_, -1 ] } split /\n/, $out;
}

# kill_9($node, $victim): kill -9 of that process of the server, or of one of this backend_type (LIKE
# pattern); returns when all others have ended, too, and the server lets somebody in again.
sub kill_9
{
	my ($node, $victim) = @_;
	my $log = -s $node->logfile;
	if ($victim =~ /^\d+\z/) { kill('KILL', $victim) or die "kill $victim: $!" }
	else
	{
		# who is there may be gone a moment later
		wait_until(sub { my ($pid) = pids_of($node, $victim); $pid && kill('KILL', $pid) }, what => "a $victim to kill");
	}
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
	wait_for($node, 'SELECT true');
	return;
}

# stat_of($node, $id, %options): what bulk_action_stat says, by name; db => name.
sub stat_of
{
	my ($node, $id, %option) = @_;
	return JSON::PP::decode_json(value_of($node, "SELECT to_json(s) FROM bulk_action.bulk_action_stat('$id') AS s", %option));
}

# final_stat($node, $id, %options): the same when the action has ended; and a test, whether all its rows are
# in one count each.
sub final_stat
{
	my ($node, $id, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for($node, "SELECT state NOT IN ('queued', 'running', 'paused') FROM bulk_action.bulk_actions WHERE id = '$id'", %option);
	my $stat = stat_of($node, $id, %option);
	my $sum = 0;
	$sum += $stat->{$_} foreach qw(updated inserted deleted unchanged not_found superseded failed unprocessed);
	is($sum, $stat->{total}, 'the outcomes add up to the rows that were read');
	return $stat;
}

# --- tables ----------------------------------------------------------------------------------------

# checksum_of($node, $table, %options): md5 over all rows, in the order of their text, so that it
# does not depend on where they lie. db => name, columns => 'id, email' (all by default).
sub checksum_of
{
	my ($node, $table, %option) = @_;
	my $columns = $option{columns} // '*';
	return $node->safe_psql($option{db} // 'postgres', <<SQL);
SET work_mem = '256MB';
SELECT count(*) || ':' || md5(coalesce(string_agg(h, '' ORDER BY h), ''))
  FROM (SELECT md5(r::text) COLLATE "C" AS h FROM (SELECT $columns FROM $table) AS r) AS s
SQL
}

# same_content($node, $a, $b, $test_name): a test, which shows the first rows that differ.
sub same_content
{
	my ($node, $one, $other, $name, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $equal =
	  checksum_of($node, $one, %option) eq checksum_of($node, $other, %option);
	ok($equal, $name // "$one has the content of $other");
	return $equal if $equal;
	my $columns = $option{columns} // '*';
	diag(
		$node->safe_psql(
			$option{db} // 'postgres', <<SQL));
(SELECT '$one' AS only_in, r::text FROM (SELECT $columns FROM $one EXCEPT ALL SELECT $columns FROM $other) r LIMIT 5)
UNION ALL
(SELECT '$other', r::text FROM (SELECT $columns FROM $other EXCEPT ALL SELECT $columns FROM $one) r LIMIT 5)
SQL
	return $equal;
}

# same_as_counted($node, $table, $updated, $test_name, %options): a test of a file that was not applied to its
# end: so many rows of the table are as in ${table}_serial, to which all of it was, and not as in
# ${table}_before; all others are as they were. db => name.
sub same_as_counted
{
	my ($node, $table, $updated, $name, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is_deeply([ rows_of($node, <<SQL, %option) ], [ [ $updated, 0 ] ], $name);
SELECT count(*) FILTER (WHERE now IS NOT DISTINCT FROM whole AND now IS DISTINCT FROM before),
       count(*) FILTER (WHERE now IS DISTINCT FROM whole AND now IS DISTINCT FROM before)
  FROM $table AS now JOIN ${table}_serial AS whole USING (id) JOIN ${table}_before AS before USING (id)
SQL
}

# create_contacts($node, $rows, %options): the table public.contacts; the same rows every time.
#   table => 'public.contacts'   db => 'postgres'   owner => role
sub create_contacts
{
	my ($node, $rows, %option) = @_;
	my $table = $option{table} // 'public.contacts';
	my $sql = <<SQL;
CREATE TABLE $table (
    id         bigint PRIMARY KEY,
    email      text UNIQUE,
    first_name text,
    last_name  text,
    phone      text,
    age        int,
    score      numeric(8,2),
    birthday   date,
    active     boolean,
    updated_at timestamptz,
    notes      text
);
INSERT INTO $table
SELECT i, 'contact' || i || '\@example.com', 'First' || i % 1000, 'Last' || i % 7919,
       '+1-555-' || lpad((i % 10000)::text, 4, '0'), 18 + i % 70, (i % 100000) / 100.0,
       date '1950-01-01' + (i % 20000)::int, i % 3 <> 0,
       timestamptz '2024-01-01 00:00:00+00' + i * interval '1 second',
       CASE WHEN i % 10 = 0 THEN NULL ELSE 'note ' || i END
  FROM generate_series(1, $rows) AS i;
ANALYZE $table;
SQL
	$sql .= "ALTER TABLE $table OWNER TO $option{owner};\n" if defined $option{owner};
	$node->safe_psql($option{db} // 'postgres', $sql);
	return $table;
}

# register_contacts($node, %options): the table as the entity `contact`, which everybody may submit to.
#   entity => 'contact'  table => 'public.contacts'  key => 'id'  update => [columns]  db, as
#   grant => 'public'   the grantee; undef: nobody but the owner of the table
sub register_contacts
{
	my ($node, %option) = @_;
	my $update =
	  $option{update}
	  ? 'ARRAY[' . join(', ', map { literal($_) } @{ $option{update} }) . ']'
	  : 'NULL';
	my $entity = literal($option{entity} // 'contact');
	my $grantee = exists $option{grant} ? $option{grant} : 'public';
	value_of(
		$node,
		sprintf("SELECT bulk_action.bulk_action_register_entity(%s, %s, ARRAY[%s], %s)",
			$entity,
			literal($option{table} // 'public.contacts'),
			literal($option{key} // 'id'),
			$update)
		  . (defined $grantee ? "; SELECT bulk_action.bulk_action_grant($entity, " . literal($grantee) . ')' : ''),
		%option);
}

# --- CSV -------------------------------------------------------------------------------------------

# csv_line(@cells): one line of CSV. undef is an unquoted empty cell (keep), '' a quoted one (the
# empty string); anything else is quoted where it has to be.
sub csv_line
{
	return join(',',
		map { !defined $_ ? '' : $_ eq '' || /[",\s]/ && /[",\r\n]|^\s|\s\z/ ? '"' . s/"/""/gr . '"' : $_ } @_)
	  . "\n";
}

my %change = (
	email => sub { "new$_[0]\@example.org" },
	first_name => sub { $_[0] % 50 ? "Given$_[0]" : "O'Neil, \"$_[0]\"" },
	last_name => sub { $_[0] % 11 ? "Family" . ($_[0] % 1000) : undef },
	phone => sub { $_[0] % 5 ? sprintf('+44-%07d', $_[0] % 10_000_000) : '' },
	age => sub { $_[0] % 7 ? 20 + $_[0] % 60 : undef },
	score => sub { sprintf('%d.%02d', $_[0] % 9999, $_[0] % 100) },
	birthday => sub { sprintf('%04d-%02d-%02d', 1960 + $_[0] % 40, 1 + $_[0] % 12, 1 + $_[0] % 28) },
	active => sub { $_[0] % 2 ? 'true' : 'false' },
	updated_at => sub { sprintf('2025-06-%02d 12:00:%02d+00', 1 + $_[0] % 30, $_[0] % 60) },
	notes => sub { $_[0] % 13 ? "line $_[0] of the file" : "two\nlines, $_[0] \"quoted\"" });

# contacts_csv($node, %options): writes a file of updates for the table contacts and returns its
# path. The same options give the same file.
#   rows    => 1000              how many rows
#   first   => 1, step => 1      their ids: first, first + step, ...
#   order   => 'sorted' | 'shuffled' | 'reversed'      seed => 1 (of the shuffling)
#   columns => [qw(first_name last_name age score notes)]    any of the table's; id comes first
#   salt    => 0                 another number, other values
#   repeat  => K                 every K-th row comes a second time, at the end, with other values
#   bad     => { N => { age => 'x' } }   cells to put into the N-th row written (1 is the first)
#   eol     => "\n"   header => 1   name => 'contacts.csv'
sub contacts_csv
{
	my ($node, %option) = @_;
	my $rows = $option{rows} // 1000;
	my $first = $option{first} // 1;
	my $step = $option{step} // 1;
	my $order = $option{order} // 'sorted';
	my $salt = $option{salt} // 0;
	my @columns = @{ $option{columns} // [qw(first_name last_name age score notes)] };
	die "no such column: $_" foreach grep { !$change{$_} } @columns;

	my @entries = map { [ $first + $_ * $step, $salt ] } 0 .. $rows - 1;
	if ($option{repeat})
	{
		push @entries,
		  map { [ $entries[$_][0], $salt + 1 ] } grep { ($_ + 1) % $option{repeat} == 0 } 0 .. $rows - 1;
	}
	if ($order eq 'reversed') { @entries = reverse @entries }
	elsif ($order eq 'shuffled')
	{
		srand($option{seed} // 1);
		for (my $i = @entries; --$i > 0;)
		{
			my $j = int rand($i + 1);
			@entries[ $i, $j ] = @entries[ $j, $i ];
		}
	}
	elsif ($order ne 'sorted') { die "no such order: $order" }

	my $path = ($node ? $node->basedir : PostgreSQL::Test::Utils::tempdir()) . '/'
	  . ($option{name} // 'contacts.csv');
	my $eol = $option{eol} // "\n";
	open(my $file, '>', $path) or die "$path: $!";
	binmode($file);
	my $put = sub { print $file $_[0] =~ s/\n\z/$eol/r };
	$put->(csv_line('id', @columns)) if $option{header} // 1;
	my $n = 0;
	my @make = @change{@columns};
	foreach my $entry (@entries)
	{
		my ($id, $shift) = @$entry;
		my $number = $id + $shift * 1_000_003;
		my @cells = ($id, map { $_->($number) } @make);
		if ($option{bad} && $option{bad}{ ++$n })
		{
			my %cell;
			@cell{ 'id', @columns } = @cells;
			%cell = (%cell, %{ $option{bad}{$n} });
			@cells = @cell{ 'id', @columns };
		}
		$put->(csv_line(@cells));
	}
	close($file) or die "$path: $!";
	return $path;
}

sub write_file
{
	my ($path, $content) = @_;
	open(my $file, '>', $path) or die "$path: $!";
	binmode($file);
	print $file $content;
	close($file) or die "$path: $!";
	return $path;
}

sub read_file
{
	my ($path) = @_;
	open(my $file, '<', $path) or die "$path: $!";
	binmode($file);
	local $/;
	return scalar <$file>;
}

# --- the independent computation ---------------------------------------------------------------------

# apply_serially($node, %options): makes a copy of the table, unless there is one, and applies the
# file to it with nothing but plain SQL in one session: the result that bulk_update must reach.
#   csv     => path, or content => text
#   table   => 'public.contacts'   copy => "${table}_serial"   key => 'id'   db => 'postgres'
#   mode    => 'rows'   one row after the other, in file order, each in its own subtransaction: a row
#                       that fails changes nothing and is counted (what order and isolation mean)
#              'set'    COPY + one UPDATE ... FROM per wave of distinct keys, as a DBA would by hand;
#                       fails on the first bad row, fast
#   as      => role     who applies it; the copy carries no grants, policies or triggers of the table:
#                       where they matter, create the copy beforehand
#   null_token => text  a cell that stands for NULL
# An unquoted empty cell keeps the present value. Columns of the header that the table has not got are
# an error. A row that would be as it is already is not updated. Returns { total, updated, unchanged,
# not_found, failed, errors => [[row number, SQLSTATE, message]] }.
sub apply_serially
{
	my ($node, %option) = @_;
	my $table = $option{table} // 'public.contacts';
	my $copy = $option{copy} // "${table}_serial";
	my $key = $option{key} // 'id';
	my $db = $option{db} // 'postgres';
	my $mode = $option{mode} // 'rows';
	my $path = $option{csv}
	  // write_file($node->basedir . '/serial.csv', $option{content} // die 'csv or content is needed');

	open(my $file, '<', $path) or die "$path: $!";
	my $header = <$file> // die "$path is empty";
	close($file);
	$header =~ s/^\xEF\xBB\xBF//;
	$header =~ s/\r?\n\z//;
	my @columns = map { s/^"(.*)"\z/$1/sr =~ s/""/"/gr } split /,/, $header;
	my @set = grep { $_ ne $key } @columns;
	my $sources = join ', ', map { _quoted($_) . ' text' } @columns;

	my %type = map { $_->[0] => $_->[1] } rows_of($node,
		"SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = "
		  . literal($table) . "::regclass AND attnum > 0 AND NOT attisdropped", db => $db);
	die "$table has no column $_" foreach grep { !$type{$_} } @columns;
	my $null = defined $option{null_token} ? literal($option{null_token}) : undef;
	my $new = sub {
		my ($column) = @_;
		my $cell = 's.' . _quoted($column);
		my $keep = "WHEN $cell IS NULL THEN t." . _quoted($column);
		my $is_null = defined $null ? " WHEN $cell = $null THEN NULL" : '';
		return "CASE $keep$is_null ELSE $cell\:\:$type{$column} END";
	};
	my $assign = join ', ', map { _quoted($_) . ' = ' . $new->($_) } @set;
	# as bytes: 1.0 and 1.00 are different
	my $differs = sprintf 'record_image_ne(ROW(%s), ROW(%s))', join(', ', map { 't.' . _quoted($_) } @set), join(', ', map { $new->($_) } @set);
	# a cell that does not convert is an error whether its row is found or not
	my $convert = join ', ', map {
		my $cell = 's.' . _quoted($_);
		defined $null ? "CASE WHEN $cell = $null THEN NULL ELSE $cell\:\:$type{$_} END" : "$cell\:\:$type{$_}"
	} @columns;
	my $match = "t." . _quoted($key) . " = s." . _quoted($key) . "::$type{$key}";
	my $as = defined $option{as} ? "SET SESSION AUTHORIZATION $option{as};" : '';
	my $name = $copy =~ s/.*\.//r;

	serial_copy($node, $table, copy => $copy, db => $db);
	my $setup = <<SQL;
CREATE TEMP TABLE serial_source (serial_n bigint GENERATED ALWAYS AS IDENTITY, $sources);
\\copy serial_source (@{[ join ', ', map { _quoted($_) } @columns ]}) FROM '$path' WITH (FORMAT csv, HEADER)
CREATE TEMP TABLE serial_outcome (serial_n bigint, outcome text, code text, message text);
GRANT ALL ON serial_source, serial_outcome TO PUBLIC;
ANALYZE serial_source;
SQL

	my $apply;
	if ($mode eq 'set')
	{
		$apply = <<SQL;
CREATE TEMP TABLE serial_wave AS
  SELECT *, row_number() OVER (PARTITION BY @{[ _quoted($key) ]}::$type{$key} ORDER BY serial_n) AS serial_w
    FROM serial_source;
ANALYZE serial_wave;
GRANT ALL ON serial_wave TO PUBLIC;
$as
DO \$do\$ DECLARE w bigint; BEGIN
  FOR w IN SELECT DISTINCT serial_w FROM serial_wave ORDER BY serial_w LOOP
    WITH hit AS (UPDATE $copy AS t SET $assign FROM serial_wave AS s
                  WHERE s.serial_w = w AND $match AND $differs RETURNING s.serial_n)
    INSERT INTO serial_outcome SELECT serial_n, 'updated' FROM hit;
  END LOOP;
END \$do\$;
INSERT INTO serial_outcome SELECT serial_n, 'unchanged' FROM serial_source AS s
 WHERE EXISTS (SELECT FROM $copy AS t WHERE $match)
   AND NOT EXISTS (SELECT FROM serial_outcome AS o WHERE o.serial_n = s.serial_n);
INSERT INTO serial_outcome SELECT serial_n, 'not_found' FROM serial_source AS s
 WHERE NOT EXISTS (SELECT FROM serial_outcome AS o WHERE o.serial_n = s.serial_n);
SQL
	}
	elsif ($mode eq 'rows')
	{
		$apply = <<SQL;
$as
DO \$do\$ DECLARE s record; v_hits bigint; v_there bigint; v_code text; v_message text; BEGIN
  FOR s IN SELECT * FROM serial_source ORDER BY serial_n LOOP
    BEGIN
      PERFORM $convert;
      SELECT count(*) INTO v_there FROM $copy AS t WHERE $match;
      UPDATE $copy AS t SET $assign WHERE $match AND $differs;
      GET DIAGNOSTICS v_hits = ROW_COUNT;
      SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED;
      INSERT INTO serial_outcome VALUES (s.serial_n,
        CASE WHEN v_hits > 0 THEN 'updated' WHEN v_there > 0 THEN 'unchanged' ELSE 'not_found' END);
    EXCEPTION WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS v_code = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
      INSERT INTO serial_outcome VALUES (s.serial_n, 'failed', v_code, v_message);
    END;
  END LOOP;
END \$do\$;
SQL
	}
	else { die "no such mode: $mode" }

	my $out = $node->safe_psql($db, <<SQL);
SET client_min_messages = warning;
SET client_encoding = 'UTF8';
$setup
$apply
SELECT count(*), count(*) FILTER (WHERE outcome = 'updated'), count(*) FILTER (WHERE outcome = 'unchanged'),
       count(*) FILTER (WHERE outcome = 'not_found'), count(*) FILTER (WHERE outcome = 'failed')
  FROM serial_outcome;
COPY (SELECT serial_n, code, message FROM serial_outcome WHERE outcome = 'failed' ORDER BY serial_n) TO STDOUT;
SQL
	my ($counts, @errors) = split /\n/, $out;
	my %result;
	@result{qw(total updated unchanged not_found failed)} = split /\|/, $counts;
	$result{errors} = [ map { [ split /\t/, $_, 3 ] } @errors ];
	return \%result;
}

# serial_copy($node, $table, %options): the copy that apply_serially works on, unless it is there. To be made
# before an action changes the table: a row that has its new values already counts as unchanged.
sub serial_copy
{
	my ($node, $table, %option) = @_;
	my $copy = $option{copy} // "${table}_serial";
	$node->safe_psql($option{db} // 'postgres', <<SQL);
DO \$do\$ BEGIN
  IF to_regclass('$copy') IS NULL THEN
    CREATE TABLE $copy (LIKE $table INCLUDING ALL);
    INSERT INTO $copy SELECT * FROM $table;
    ANALYZE $copy;
  END IF;
END \$do\$;
SQL
	return $copy;
}

sub _quoted
{
	my ($name) = @_;
	return '"' . ($name =~ s/"/""/gr) . '"';
}

# --- S3 --------------------------------------------------------------------------------------------

my ($settings, $own_server);

# s3(): the S3 server of this run, started if there is none: endpoint, endpoint_tls, ca, domain,
# region, bucket, role_arn, access_key_id, secret_access_key, host (host:port of the endpoint).
sub s3
{
	return $settings if $settings;
	_start_s3_server() unless $ENV{S3_ENDPOINT};
	$settings = {
		endpoint => $ENV{S3_ENDPOINT},
		endpoint_tls => $ENV{S3_ENDPOINT_TLS},
		ca => $ENV{S3_CA},
		domain => $ENV{S3_DOMAIN},
		region => $ENV{S3_REGION},
		bucket => $ENV{S3_BUCKET},
		role_arn => $ENV{S3_ROLE_ARN},
		access_key_id => $ENV{AWS_ACCESS_KEY_ID},
		secret_access_key => $ENV{AWS_SECRET_ACCESS_KEY},
		host => $ENV{S3_ENDPOINT} =~ s{^https?://}{}r };
	return $settings;
}

sub _start_s3_server
{
	my $dir = File::Temp::tempdir('bulk_action-s3-XXXXXX', TMPDIR => 1);
	local $ENV{S3_STORE} = $ENV{S3_STORE} // 'memory';
	foreach my $try (1 .. 5)
	{
		my $port = 21000 + 3 * int(rand(3500));
		my $out = qx("$test_dir/s3-server" start "$dir" $port 2>"$dir.log");
		if ($? == 0)
		{
			$ENV{$1} = $2 while $out =~ /^export (\w+)=(.*)$/mg;
			$own_server = { dir => $dir, pid => $$ };
			return;
		}
	}
	my $log = read_file("$dir.log");
	die "could not start an S3 server:\n$log";
}

END
{
	if ($own_server && $own_server->{pid} == $$)
	{
		my $status = $?;
		my $dir = $own_server->{dir};
		system(qq("$test_dir/s3-server" clean "$dir" 2>/dev/null));
		unlink("$dir.log");
		$? = $status;
	}
}

# s3_key($key): the true key of $key: every test file has its own folder in the bucket.
sub s3_key { return "$key_prefix/$_[0]" }

# s3_uri($key): what to submit.
sub s3_uri { return 's3://' . s3()->{bucket} . '/' . s3_key($_[0]) }

# s3_put($key, file => path | content => bytes): stores an object, returns its URI.
sub s3_put
{
	my ($key, %option) = @_;
	my $answer = _s3_request('PUT', $key, %option);
	die "PUT $key: $answer->{status} $answer->{content}" unless $answer->{success};
	return s3_uri($key);
}

# s3_head($key): its headers in lower case (etag, content-length, ...); undef if there is none.
sub s3_head
{
	my $answer = _s3_request('HEAD', $_[0]);
	return $answer->{success} ? $answer->{headers} : undef;
}

# s3_delete($key)
sub s3_delete
{
	my $answer = _s3_request('DELETE', $_[0]);
	die "DELETE $_[0]: $answer->{status}" unless $answer->{success};
}

# A signed request; returns HTTP::Tiny's answer. The signing is the tests' own, apart from the extension's.
#   content => bytes, file => path
#   headers => { name => value }   query => 'acl' or 'a=b&c=d', sorted and encoded
#   bucket => name    raw_key => 1 (the key as it is)   endpoint, access_key_id, secret_access_key
sub _s3_request
{
	my ($method, $key, %option) = @_;
	my $s3 = s3();
	my $endpoint = $option{endpoint} // $s3->{endpoint};
	my ($host) = $endpoint =~ m{^https?://([^/]+)};
	$key = s3_key($key) unless $option{raw_key};
	my $path = '/' . ($option{bucket} // $s3->{bucket}) . (length $key ? "/$key" : '');
	utf8::encode($path) if utf8::is_utf8($path);
	$path =~ s{([^A-Za-z0-9\-._~/])}{sprintf '%%%02X', ord $1}ge;
	my $query = $option{query} // '';
	my $canonical_query = join '&', map { /=/ ? $_ : "$_=" } split /&/, $query;

	my @now = gmtime;
	my ($day, $stamp) = (strftime('%Y%m%d', @now), strftime('%Y%m%dT%H%M%SZ', @now));
	my %header = (
		(map { lc $_ => $option{headers}{$_} } keys %{ $option{headers} // {} }),
		host => $host,
		'x-amz-content-sha256' => 'UNSIGNED-PAYLOAD',
		'x-amz-date' => $stamp);
	my $signed = join ';', sort keys %header;
	my $canonical = join "\n", $method, $path, $canonical_query,
	  (map { "$_:$header{$_}" } sort keys %header), '', $signed, 'UNSIGNED-PAYLOAD';
	my $scope = "$day/$s3->{region}/s3/aws4_request";
	my $signing_key = 'AWS4' . ($option{secret_access_key} // $s3->{secret_access_key});
	$signing_key = hmac_sha256($_, $signing_key) foreach $day, $s3->{region}, 's3', 'aws4_request';
	my $signature = hmac_sha256_hex(
		join("\n", 'AWS4-HMAC-SHA256', $stamp, $scope, sha256_hex($canonical)), $signing_key);
	$header{authorization} =
	    'AWS4-HMAC-SHA256 Credential='
	  . ($option{access_key_id} // $s3->{access_key_id})
	  . "/$scope,SignedHeaders=$signed,Signature=$signature";
	delete $header{host};       # HTTP::Tiny sets it, the same

	my %request = (headers => \%header);
	my $file;
	if (defined $option{file})
	{
		open($file, '<', $option{file}) or die "$option{file}: $!";
		binmode($file);
		$header{'content-length'} = -s $file;
		$request{content} = sub { my $piece; return read($file, $piece, 1 << 18) ? $piece : undef };
	}
	elsif ($method eq 'PUT' || $method eq 'POST')
	{
		$request{content} = $option{content} // '';
		$header{'content-length'} = length $request{content};
	}
	my $http = HTTP::Tiny->new(timeout => 120, max_redirect => 0, proxy => undef,
		http_proxy => undef, no_proxy => [$host]);
	return $http->request($method, "$endpoint$path" . (length $query ? "?$query" : ''), \%request);
}

# s3_presign($key, %options): a URL that whoever has it may use, for a while.
#   method => 'GET'   expires => 600 (seconds)   age => 0 (seconds ago at which it was signed)
#   endpoint          endpoint_tls of the S3 server
sub s3_presign
{
	my ($key, %option) = @_;
	my $s3 = s3();
	my $endpoint = $option{endpoint} // $s3->{endpoint_tls};
	my ($host) = $endpoint =~ m{^https?://([^/]+)};
	my $path = "/$s3->{bucket}/" . s3_key($key);
	my @then = gmtime(time - ($option{age} // 0));
	my ($day, $stamp) = (strftime('%Y%m%d', @then), strftime('%Y%m%dT%H%M%SZ', @then));
	my $scope = "$day/$s3->{region}/s3/aws4_request";
	my $query = join '&', 'X-Amz-Algorithm=AWS4-HMAC-SHA256',
	  'X-Amz-Credential=' . "$s3->{access_key_id}/$scope" =~ s{/}{%2F}gr, "X-Amz-Date=$stamp",
	  'X-Amz-Expires=' . ($option{expires} // 600), 'X-Amz-SignedHeaders=host';
	my $canonical = join "\n", $option{method} // 'GET', $path, $query, "host:$host", '', 'host', 'UNSIGNED-PAYLOAD';
	my $signing_key = 'AWS4' . $s3->{secret_access_key};
	$signing_key = hmac_sha256($_, $signing_key) foreach $day, $s3->{region}, 's3', 'aws4_request';
	my $signature = hmac_sha256_hex(join("\n", 'AWS4-HMAC-SHA256', $stamp, $scope, sha256_hex($canonical)), $signing_key);
	return "$endpoint$path?$query&X-Amz-Signature=$signature";
}

# temporary_credentials(): of the role that the S3 server lets its user take; access_key_id,
# secret_access_key and session_token, as server_for_s3 takes them.
sub temporary_credentials
{
	my $s3 = s3();
	my $answer = qx(curl -s --user '$s3->{access_key_id}:$s3->{secret_access_key}' --aws-sigv4 'aws:amz:$s3->{region}:s3' '$s3->{endpoint}/' -d 'Action=AssumeRole&Version=2011-06-15&RoleSessionName=test' --data-urlencode 'RoleArn=$s3->{role_arn}');
	my %session = map { $_ => ($answer =~ m{<$_>([^<]+)</$_>})[0] } qw(AccessKeyId SecretAccessKey SessionToken);
	die "no temporary credentials: $answer" if grep { !defined } values %session;
	return (access_key_id => $session{AccessKeyId}, secret_access_key => $session{SecretAccessKey},
		session_token => $session{SessionToken});
}

# pg_ctl_in_namespaces($dir, $namespaces, $setup, $more): puts a pg_ctl into the folder, to be found first in
# PATH, whose server sees what $setup, commands of an unprivileged user who is root in there, makes of
# namespaces of its own ('--mount --net'), and $more when a server starts. False if this system lets nobody.
sub pg_ctl_in_namespaces
{
	my ($dir, $namespaces, $setup, $more) = @_;
	my $unshare = "unshare --user --map-root-user $namespaces sh -c";
	return 0 if system(qq($unshare "$setup" >/dev/null 2>&1)) != 0;
	my ($pg_ctl) = grep { -x } map { "$_/pg_ctl" } split /:/, $ENV{PATH};
	my $start = join ' && ', grep { defined } $setup, $more;
	write_file("$dir/pg_ctl", <<SH);
#!/bin/sh
case " \$* " in
*" start "*) exec $unshare '$start && exec unshare --user --map-user=$< "\$0" "\$@"' '$pg_ctl' "\$@" ;;
esac
exec '$pg_ctl' "\$@"
SH
	chmod 0755, "$dir/pg_ctl";
	return 1;
}

# --- injection -------------------------------------------------------------------------------------

# injection_points(): the named points of the source, as they stand in it.
sub injection_points
{
	my %points;
	foreach my $file (glob dirname($test_dir) . '/src/*/*.c')
	{
		$points{$_} = 1 foreach read_file($file) =~ /^\s*INJECTION\("([^"]+)"\);/mg;
	}
	die 'the source has no injection points' unless %points;
	return sort keys %points;
}

# inject($node, $point, @what): whoever comes to the point next does the first of @what, who comes after
# him the second, and so on: `kill`, `terminate`, `cancel`, `abort`, `postmaster`, `fatal`, `error`, `error
# SQLSTATE`, or `pass`, which is nothing (test/injection). The node may be down; it was made with
# injection => 1.
sub inject
{
	my ($node, $point, @what) = @_;
	my $folder = $node->data_dir . '/injection';
	write_file("$folder.new", join("\n", @what) . "\n");
	rename("$folder.new", "$folder/$point") or die "$folder/$point: $!";
	return;
}

# is_injected($node, $point): whether all of it has happened.
sub is_injected
{
	my ($node, $point) = @_;
	return !-e $node->data_dir . "/injection/$point";
}

sub wait_for_injected
{
	my ($node, $point, %option) = @_;
	return wait_until(sub { is_injected($node, $point) }, what => "somebody to come to $point", %option);
}

# --- the proxy -------------------------------------------------------------------------------------

# new_proxy(%options): a proxy that misbehaves on command, in front of the S3 server (or upstream =>
# host:port). It ends with the test. test/s3-proxy tells what the faults are.
#   my $proxy = new_proxy();
#   server_for_s3($node, endpoint => $proxy->endpoint);
#   my $fault = $proxy->fault('cut', bytes => 100_000, times => 2, method => 'GET');
#   $proxy->wait_for_held; $proxy->release; $proxy->fired($fault); $proxy->clear;
#   my @gets = $proxy->requests(method => 'GET');     # hashes: n method path range if_match status ...
sub new_proxy
{
	my (%option) = @_;
	return BulkAction::Proxy->_new($option{upstream} // s3()->{host});
}

package BulkAction::Proxy;

use strict;
use warnings;

my $proxies = 0;

sub _new
{
	my ($class, $upstream) = @_;
	my $log = PostgreSQL::Test::Utils::tempdir() . '/s3-proxy.' . ++$proxies . '.log';
	BulkAction::write_file($log, '');
	# it ends when its standard input does: nothing is left over, however this test ends
	my $pid = IPC::Open3::open3(my $in, my $out, '>&STDERR', $^X, "$test_dir/s3-proxy", '--log', $log,
		$upstream);
	my $line = <$out> // die "the proxy does not start";
	my ($port, $control) = $line =~ /^port=(\d+) control=(\d+)/ or die "the proxy says $line";
	return bless { pid => $pid, owner => $$, in => $in, out => $out, port => $port,
		control => $control, log => $log }, $class;
}

sub DESTROY
{
	my ($self) = @_;
	return unless $self->{owner} == $$ && $self->{pid};
	local ($?, $!);
	close($self->{in});
	waitpid($self->{pid}, 0);
}

sub port { return $_[0]{port} }
sub endpoint { return "http://127.0.0.1:$_[0]{port}" }

# One command of the control port; returns what follows `ok`.
sub command
{
	my ($self, $command) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{control})
	  or die "the proxy is gone: $!";
	print $socket "$command\n";
	my $answer = <$socket> // die "the proxy does not answer";
	chomp $answer;
	$answer =~ s/^ok ?// or die "the proxy, asked to $command: $answer";
	return $answer;
}

# fault($action, %options): arms one; returns its id.
sub fault
{
	my ($self, $action, %option) = @_;
	return $self->command(join ' ', 'fault', $action, map { "$_=$option{$_}" } sort keys %option);
}

sub release { return $_[0]->command('release' . (defined $_[1] ? " $_[1]" : '')) }
sub clear { return $_[0]->command('clear' . (defined $_[1] ? " $_[1]" : '')) }
sub fired { return $_[0]->command("fired $_[1]") }

# status(): { requests, open, held, stalled, faults, fired }
sub status { return { map { split /=/ } split / /, $_[0]->command('status') } }

sub wait_for_held { return $_[0]->_wait(held => $_[1] // 1) }
sub wait_for_stalled { return $_[0]->_wait(stalled => $_[1] // 1) }

sub _wait
{
	my ($self, $what, $n) = @_;
	return BulkAction::wait_until(sub { $self->status->{$what} >= $n },
		what => "$n $what requests at the proxy");
}

# wait_for_fired($id, $n): until that fault has acted on n requests.
sub wait_for_fired
{
	my ($self, $id, $n) = @_;
	$n //= 1;
	return BulkAction::wait_until(sub { $self->fired($id) >= $n },
		what => "fault $id of the proxy to act on $n requests");
}

# requests(%filter): what the log has, e.g. method => 'GET'; a value may be a qr//. Only requests
# that have ended are there.
sub requests
{
	my ($self, %filter) = @_;
	my @all = map { { map { split /=/, $_, 2 } split /\t/ } }
	  split /\n/, BulkAction::read_file($self->{log});
	foreach my $name (keys %filter)
	{
		my $wanted = $filter{$name};
		@all = grep { ref $wanted ? $_->{$name} =~ $wanted : $_->{$name} eq $wanted } @all;
	}
	return @all;
}

sub forget_requests { BulkAction::write_file($_[0]{log}, ''); return }

1;
