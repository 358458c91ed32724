# Files of others by URL: presigned ones of the real S3 server, and of servers that misbehave. Only what a
# foreign server allows is read, nothing is followed anywhere else, and the query of the URL, which is a
# credential, is nowhere to be seen.
use strict;
use warnings;

use BulkAction;
use File::Basename qw(dirname);
use File::Spec;
use IPC::Open3 ();
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = <<'CONF';
bulk_action.max_attempts = 2
bulk_action.file_root = '/'
log_min_messages = debug1
log_error_verbosity = verbose
CONF
my $node = new_node('main', conf => $conf);
my $s3 = s3();
my $proxy = new_proxy();
my $https_server = dirname(dirname(File::Spec->rel2abs(__FILE__))) . '/https-server';
my $dir = PostgreSQL::Test::Utils::tempdir();

create_role($node, 'alice');
create_contacts($node, 30_000);
serial_copy($node, 'public.contacts');
register_contacts($node);
$node->safe_psql('postgres', <<'SQL');
GRANT SELECT, UPDATE ON public.contacts TO alice;
-- where URLs are submitted from: a client would pass them as a parameter, and not in the text of a statement
CREATE TABLE public.urls (url text);
GRANT SELECT ON public.urls TO alice;
SQL

# --- helpers -----------------------------------------------------------------------------------------

# A certificate for addresses and names, which is its own authority.
sub certificate
{
	my ($name, $names) = @_;
	my ($out) = run_command([ 'openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$dir/$name.key",
			'-out', "$dir/$name.crt", '-subj', '/CN=test', '-addext', "subjectAltName=$names" ]);
	die 'openssl' if $?;
	return ("$dir/$name.crt", "$dir/$name.key");
}

# TLS in front of the proxy. It ends with the test.
my ($cert, $key) = certificate('front', 'IP:127.0.0.1,DNS:localhost');
my $pid = IPC::Open3::open3(my $front_in, my $front_out, '>&STDERR', $^X, $https_server, '--cert', $cert, '--key', $key,
	'--log', "$dir/front.log", '--upstream', '127.0.0.1:' . $proxy->port);
my ($front_port) = <$front_out> =~ /^port=(\d+)/ or die 'test/https-server does not start';
my $front = "https://127.0.0.1:$front_port";

END
{
	local $?;
	close($front_in) if $front_in;
	waitpid($pid, 0) if $pid;
}

sub server_for_https
{
	my ($name, %options) = @_;
	%options = (host => '127.0.0.1', port => $front_port, ca_file => $cert, allow_private_address => 'true', %options);
	$node->safe_psql('postgres', "CREATE SERVER $name FOREIGN DATA WRAPPER bulk_action_https OPTIONS ("
		  . join(', ', map { "$_ '$options{$_}'" } grep { defined $options{$_} } sort keys %options) . ");
		GRANT USAGE ON FOREIGN SERVER $name TO alice");
}

my @secrets; # what nobody may see: every query that was ever submitted

sub submit
{
	my ($url, %option) = @_;
	my ($query) = $url =~ /\?(.*)/;
	push @secrets, $query if defined $query;
	my $on = $option{on} // $node;
	my $more = join '', map { ", $_ => '$option{$_}'" } grep { $_ ne 'on' } sort keys %option;
	$on->safe_psql('postgres', "TRUNCATE public.urls; INSERT INTO public.urls VALUES ('$url')");
	my ($status, $out, $error) = $on->psql('postgres',
		"\\set VERBOSITY verbose\nSET SESSION AUTHORIZATION alice;\nSELECT bulk_action.bulk_action_submit(url$more) FROM public.urls");
	return $status == 0 ? $out : $error;
}

sub ended
{
	my ($id, $on) = @_;
	wait_for($on // $node, "SELECT state NOT IN ('queued', 'running') FROM bulk_action.bulk_actions WHERE id = '$id'");
	return stat_of($on // $node, $id);
}

# The query that is kept with an action; '' if there is none.
sub kept
{
	my ($id, $on) = @_;
	return value_of($on // $node, "SELECT coalesce(source_query, '') FROM bulk_action_internal.actions WHERE id = '$id'");
}

sub query_of { return $_[0] =~ /\?(.*)/ ? $1 : die $_[0] }

my $salt = 0;

sub next_file
{
	my (%option) = @_;
	return contacts_csv($option{on} // $node, rows => 200, columns => [qw(first_name notes)], salt => ++$salt, %option);
}

sub is_applied
{
	my ($id, $csv, $name, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $on = $option{on} // $node;
	subtest $name => sub {
		my $stat = ended($id, $on);
		my $serial = apply_serially($on, csv => $csv, mode => 'set');
		is_deeply([ @{$stat}{qw(state error_message total updated not_found failed)} ],
			[ 'completed', undef, @{$serial}{qw(total updated not_found)}, 0 ], 'the action completes');
		same_content($on, 'public.contacts', 'public.contacts_serial', 'the table is as plain SQL leaves it');
		is(kept($id, $on), '', 'the query is forgotten');
	};
}

# An action that fails before it has applied anything.
sub fails
{
	my ($id, $code, $message, $name, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $on = $option{on} // $node;
	subtest $name => sub {
		my $stat = ended($id, $on);
		is_deeply([ @{$stat}{qw(state error_code total)} ], [ 'failed', $code, 0 ], 'the action fails and applies nothing');
		like($stat->{error_message}, $message, 'it says why');
		my $all = value_of($on, "SELECT concat_ws(E'\\n', error_detail, error_hint) FROM bulk_action.bulk_actions WHERE id = '$id'");
		like($all, $option{like}, 'and what to do') if $option{like};
		unlike($all, qr/user mapping|bucket/, 'in words that fit');
		isnt(kept($id, $on), '', 'the query is kept for another try');
		same_content($on, 'public.contacts', 'public.contacts_serial', 'the table is as it was');
	};
}

# Nobody can see a query in what an administrator sees.
sub nothing_shows
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $seen = join "\n", map { $node->safe_psql('postgres', "SELECT t::text FROM $_ AS t") }
	  qw(bulk_action.bulk_actions bulk_action.bulk_action_progress bulk_action.bulk_action_stats bulk_action.bulk_action_errors
	  bulk_action_internal.action_statistics bulk_action_internal.events pg_stat_activity pg_prepared_statements);
	my @shown = grep { my $query = $_; grep { index($seen, $_) >= 0 } $query, $query =~ /Signature=(\w+)/ } @secrets;
	is_deeply(\@shown, [], $name);
	return $seen;
}

# --- the real server, directly ------------------------------------------------------------------------------

my ($port) = $s3->{endpoint_tls} =~ /:(\d+)\z/;
server_for_https('partner', port => $port, ca_file => $s3->{ca}, prefix => "/$s3->{bucket}/");
my $csv = next_file();
s3_put('a.csv', file => $csv);
my $url = s3_presign('a.csv');
my $id = submit($url);
is(value_of($node, "SELECT source FROM bulk_action.bulk_actions WHERE id = '$id'"), "$s3->{endpoint_tls}/$s3->{bucket}/" . s3_key('a.csv') . '?...',
	'the URL is shown without its query');
is_applied($id, $csv, 'a presigned URL');
$csv = next_file(columns => [qw(last_name notes)]);
s3_put('a.csv', file => $csv);
is_applied(submit(s3_presign('a.csv') =~ s/^https/HTTPS/r, options => '{"server": "partner"}'), $csv, 'the scheme in capitals, and a server by name');

fails(submit(s3_presign('a.csv', age => 3600, expires => 60)), 'BA403', qr{^could not read "https://[^?]*\?\.\.\.": AccessDenied$},
	'a URL that has expired', like => qr/get a new one/);
fails(submit(s3_presign('a.csv') =~ s/(.)$/$1 eq '0' ? '1' : '0'/er), 'BA403', qr/\?\.\.\.": (SignatureDoesNotMatch|AccessDenied)$/,
	'a URL with another signature');
fails(submit(s3_presign('a.csv') =~ s/a\.csv/b.csv/r), 'BA403', qr/\?\.\.\.": (SignatureDoesNotMatch|AccessDenied)$/,
	'a URL of another file with that signature');
fails(submit(s3_presign('a.csv', method => 'PUT')), 'BA403', qr/\?\.\.\.": (SignatureDoesNotMatch|AccessDenied)$/,
	'a URL for another method', like => qr/one for GET/);
fails(submit(s3_presign('nothing.csv')), 'BA404', qr/\?\.\.\.": NoSuchKey$/, 'a file that does not exist');
s3_put('empty.csv', content => '');
fails(submit(s3_presign('empty.csv')), '22P04', qr/^the file is empty$/, 'an empty file');

# --- what is not allowed -------------------------------------------------------------------------------------

like(submit(s3_presign('a.csv') =~ s/127\.0\.0\.1/localhost/r), qr/42704: no server that you may use allows "https:[^?]*\?\.\.\."/,
	'another host is not allowed');
like(submit(s3_presign('a.csv') =~ s/:$port/:1/r), qr/42704: no server that you may use allows/, 'another port is not allowed');
like(submit(s3_presign('a.csv') =~ s{/$s3->{bucket}/}{/other/}r), qr/42501: server "partner" does not allow .*prefix/s,
	'another path is not allowed');
like(submit(s3_presign('a.csv') =~ s{/$s3->{bucket}/}{/$s3->{bucket}/%2e./other/}r), qr/22023: invalid source URL/,
	'nor one that leads out of the prefix');
like(submit(s3_presign('a.csv') =~ s/^https/http/r), qr/22023: unsupported source URI/, 'nor one without TLS');
$node->safe_psql('postgres', 'REVOKE USAGE ON FOREIGN SERVER partner FROM alice');
like(submit(s3_presign('a.csv')), qr/42704: .*You may not use any server/s, 'without USAGE there is no server');
like(submit(s3_presign('a.csv'), options => '{"server": "partner"}'), qr/42501: permission denied for foreign server partner/,
	'not even by its name');
$node->safe_psql('postgres', 'DROP SERVER partner');

server_for_https('no_ca', port => $port, ca_file => undef);
fails(submit(s3_presign('a.csv')), 'BA495', qr/\?\.\.\.": the server's certificate cannot be verified$/,
	'a certificate of an authority that nobody knows', like => qr/"ca_file"/);
$node->safe_psql('postgres', 'DROP SERVER no_ca');
server_for_https('private', port => $port, ca_file => $s3->{ca}, allow_private_address => undef);
fails(submit(s3_presign('a.csv')), 'BA496', qr/\?\.\.\.": the endpoint's address is not a public one$/, 'an address inside the network',
	like => qr/127\.0\.0\.1.*"allow_private_address"/s);
$node->safe_psql('postgres', 'DROP SERVER private');
server_for_https('private', port => $port, ca_file => $s3->{ca}, allow_private_address => undef, host => 'localhost');
fails(submit(s3_presign('a.csv', endpoint => "https://localhost:$port")), 'BA496', qr/: the endpoint's address is not a public one$/,
	'a name that stands for an address inside the network');
$node->safe_psql('postgres', 'DROP SERVER private');

# --- the requests, and faults of the way --------------------------------------------------------------------

# Rows of 1,400 bytes: 4,000 are three segments.
sub large_file
{
	my ($mark) = @_;
	my $fill = 'x' x 1_350;
	return write_file("$dir/large.csv", "id,last_name,notes\n" . join '', map { "$_,$mark $_,$mark $fill\n" } 1 .. 4_000);
}

sub large_url
{
	my ($mark) = @_;
	large_file($mark);
	s3_put('large.csv', file => "$dir/large.csv");
	return s3_presign('large.csv', endpoint => $front);
}

server_for_https('front');
$url = large_url('whole');
is_applied(submit($url), "$dir/large.csv", 'a file of several segments');
my @requests = $proxy->requests;
my $etag = s3_head('large.csv')->{etag};
is_deeply([ grep { $_->{method} ne 'GET' } @requests ], [], 'all requests are GETs');
is_deeply([ map { $_->{path} } @requests ], [ ($url =~ m{^https://[^/]+(.*)}) x @requests ], 'of the URL as it is');
is(scalar @requests, 4, 'one for each segment, and one before');
is($requests[0]{range}, 'bytes=0-0', 'the first one looks at the first byte');
is_deeply([ map { $_->{if_match} } @requests ], [ '-', ($etag) x $#requests ], 'all others name the version that was found');

my $fault = $proxy->fault('status', code => 503, s3code => 'SlowDown', times => 2);
my $cut = $proxy->fault('cut', bytes => 500_000, skip => 1, times => 2);
is_applied(submit(large_url('again')), "$dir/large.csv", 'refusals that pass, and connections that are lost, are got over');
is_deeply([ map { $proxy->fired($_) } $fault, $cut ], [ 2, 2 ], 'there were some');
$proxy->clear;

$csv = next_file();
s3_put('b.csv', file => $csv);
sub b { return submit(s3_presign('b.csv', endpoint => $front)) }
$proxy->fault('status', code => 302, header => "Location:$s3->{endpoint_tls}/elsewhere");
fails(b(), 'BA301', qr/\?\.\.\.": /, 'a redirect is not followed', like => qr/Redirects are not followed/);
$proxy->fault('header', set => 'ETag:W/"weak"');
fails(b(), 'BA502', qr/\?\.\.\.": unexpected answer$/, 'a weak ETag', like => qr/ETag is a weak one.*strong ETag/s);
$proxy->fault('header', remove => 'ETag');
fails(b(), 'BA502', qr/\?\.\.\.": unexpected answer$/, 'no ETag', like => qr/has no ETag.*strong ETag/s);
$proxy->fault('recode', code => 200);
fails(b(), 'BA502', qr/\?\.\.\.": unexpected answer$/, 'a server that ignores Range', like => qr/the server sent all of it.*Range/s);
$proxy->fault('endless', code => 200, part => 'body');
fails(b(), 'BA502', qr/\?\.\.\.": unexpected answer$/, 'one that sends without end', like => qr/the server sent all of it.*Range/s);
$proxy->fault('header', remove => 'Content-Range');
fails(b(), 'BA502', qr/\?\.\.\.": unexpected answer$/, 'an answer that does not tell the size', like => qr/does not tell the size/);
$proxy->fault('header', set => 'ETag:"other"', skip => 1);
fails(b(), 'BA412', qr/\?\.\.\.": the object was replaced$/, 'another version, from a server that ignores If-Match');
$proxy->fault('status', code => 418, times => 0);
fails(b(), 'BA400', qr/\?\.\.\.": /, 'any other refusal');
$proxy->clear;
$proxy->fault('status', code => 500, s3code => 'InternalError', times => 0);
fails(b(), '08006', qr/\?\.\.\.": InternalError$/, 'trouble that does not pass', like => qr/server or the way to it has trouble/);
$proxy->clear;
is_applied(b(), $csv, 'and without all that');

# --- in the middle -------------------------------------------------------------------------------------------

# The second segment's request is held while something happens; the first has been applied.
sub in_the_middle
{
	my ($mark, $change) = @_;
	my $url = large_url($mark);
	my $hold = $proxy->fault('hold', skip => 2);
	my $id = submit($url);
	$proxy->wait_for_held;
	wait_for($node, "SELECT updated > 0 AND unprocessed = 0 FROM bulk_action.bulk_action_stat('$id')");
	is(kept($id), query_of($url), "$mark: while the action runs, the query is kept with it");
	like(nothing_shows("$mark: but is not shown"), qr/chunking the next segment of bulk action $id/, "$mark: a worker is there to be looked at");
	$change->($id);
	$proxy->clear($hold);
	return ($id, $url);
}

# An action that fails with a part of the file applied: as many rows as are counted are as in the file, all
# others as they were.
sub is_begun
{
	my ($id, $code, $message, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	subtest $name => sub {
		my $stat = ended($id);
		is_deeply([ @{$stat}{qw(state error_code)} ], [ 'failed', $code ], 'the action fails');
		like($stat->{error_message}, $message, 'it says why');
		cmp_ok($stat->{updated}, '>', 500, 'the first segment is applied');
		cmp_ok($stat->{total}, '<', 3_500, 'and not all of the file is read');
		$node->safe_psql('postgres', 'CREATE TABLE public.contacts_before AS TABLE public.contacts_serial');
		apply_serially($node, mode => 'set', csv => "$dir/large.csv");
		same_as_counted($node, 'public.contacts', $stat->{updated}, 'the table is as the counts say');
		$node->safe_psql('postgres', 'DROP TABLE public.contacts_before; TRUNCATE public.contacts_serial;
			INSERT INTO public.contacts_serial SELECT * FROM public.contacts');
	};
}

($id) = in_the_middle('replaced', sub { s3_put('large.csv', content => read_file("$dir/large.csv") =~ s/replaced/other/gr) });
is_begun($id, 'BA412', qr/^could not read "https:[^?]*\?\.\.\.": (PreconditionFailed|the object was replaced)$/, 'a file that is replaced');
($id) = in_the_middle('deleted', sub { s3_delete('large.csv') });
is_begun($id, 'BA404', qr/^could not read "https:[^?]*\?\.\.\.": NoSuchKey$/, 'a file that is deleted');
($id) = in_the_middle('closed', sub { $node->safe_psql('postgres', "ALTER SERVER front OPTIONS (ADD prefix '/other/')") });
is_begun($id, '42501', qr/^server "front" does not allow "https:[^?]*\?\.\.\."$/, 'a server that does not allow it any more');
$node->safe_psql('postgres', 'ALTER SERVER front OPTIONS (DROP prefix)');
($id, $url) = in_the_middle('revoked', sub { $node->safe_psql('postgres', 'REVOKE USAGE ON FOREIGN SERVER front FROM alice') });
is_begun($id, '42501', qr/^permission denied for foreign server front$/, 'USAGE that is revoked');
is(kept($id), query_of($url), 'a failed action keeps the query');
$node->safe_psql('postgres', 'GRANT USAGE ON FOREIGN SERVER front TO alice');
is(value_of($node, "SELECT bulk_action.bulk_action_retry('$id')", as => 'alice'), 't', 'it can be retried');
wait_for($node, "SELECT state = 'completed' FROM bulk_action.bulk_actions WHERE id = '$id'");
apply_serially($node, csv => "$dir/large.csv", mode => 'set');
same_content($node, 'public.contacts', 'public.contacts_serial', 'and the rest is applied');
is(kept($id), '', 'now the query is forgotten');
($id) = in_the_middle('cancelled', sub { value_of($node, "SELECT bulk_action.bulk_action_cancel('$_[0]')") });
wait_for($node, "SELECT state = 'cancelled' FROM bulk_action.bulk_actions WHERE id = '$id'");
is(kept($id), '', 'an action that is cancelled keeps no query');
$node->safe_psql('postgres', 'TRUNCATE public.contacts_serial; INSERT INTO public.contacts_serial SELECT * FROM public.contacts');

# --- the same submission -------------------------------------------------------------------------------------

s3_put('b.csv', file => $csv = next_file());
my $one = s3_presign('b.csv');
my $other = s3_presign('b.csv', expires => 601);
$_ =~ s/\Q$s3->{endpoint_tls}\E/$front/ foreach $one, $other;
$proxy->fault('drop', times => 0);
$id = submit($one, idempotency_key => 'once');
is(submit($other, idempotency_key => 'once'), $id, 'a URL with another query is the same source');
like(submit($other =~ s/b\.csv/c.csv/r, idempotency_key => 'once'), qr/23505: .*What differs: source\./s, 'another path is not');
is(kept($id), query_of($one), 'the first query stays');
$proxy->clear;
ended($id);

# --- nothing leaks --------------------------------------------------------------------------------------------

nothing_shows('no query is shown anywhere');
my $log = read_file($node->logfile);
like($log, qr/could not read "https:[^?]*\?\.\.\."/, 'the server\'s log has the URLs without their queries');
is_deeply([ grep { my $query = $_; grep { index($log, $_) >= 0 } $query, $query =~ /Signature=(\w+)/ } @secrets ], [],
	'and no query');
cmp_ok(scalar @secrets, '>', 30, 'of many');
$node->stop;

# --- names that lie -------------------------------------------------------------------------------------------

# A server in a network of its own, where an address that counts as public is on this machine, and in which
# the test decides what names stand for. pg_ctl is called through a script that makes it.
SKIP:
{
	my $public = '93.184.216.34';
	my $network = "ip link set lo up && ip addr add $public/32 dev lo && mount --bind '$dir/hosts' /etc/hosts";
	write_file("$dir/hosts", '');
	my ($cert, $key) = certificate('names', 'DNS:files.example.test');
	mkdir "$dir/bin";
	mkdir "$dir/files";
	skip 'this system lets nobody have a network of his own', 4
	  unless pg_ctl_in_namespaces("$dir/bin", '--mount --net', $network,
		qq({ "$^X" "$https_server" --cert "$cert" --key "$key" --log "$dir/connections" --address 0.0.0.0 --port 4433)
		  . qq( --files "$dir/files" </dev/null >/dev/null 2>&1 & echo \$! >"$dir/https-server.pid"; }));
	my $node = new_node('names', start => 0, conf => $conf);
	{
		local $ENV{PATH} = "$dir/bin:$ENV{PATH}";
		$node->start;
	}
	$node->safe_psql('postgres', 'CREATE EXTENSION bulk_action');
	create_role($node, 'alice');
	create_contacts($node, 1_000);
	register_contacts($node);
	$node->safe_psql('postgres', "
		GRANT SELECT, UPDATE ON public.contacts TO alice;
		CREATE TABLE public.contacts_serial AS SELECT * FROM public.contacts;
		CREATE TABLE public.urls (url text);
		GRANT SELECT ON public.urls TO alice;
		CREATE SERVER names FOREIGN DATA WRAPPER bulk_action_https
			OPTIONS (host 'files.example.test', port '4433', ca_file '$cert');
		GRANT USAGE ON FOREIGN SERVER names TO alice");
	my $connections = sub { return -e "$dir/connections" ? [ split /\n/, read_file("$dir/connections") ] : [] };
	my $try = sub {
		my (@addresses) = @_;
		write_file("$dir/hosts", join '', map { "$_ files.example.test\n" } @addresses);
		write_file("$dir/connections", '');
		my $csv = next_file(on => $node);
		write_file("$dir/files/a.csv", read_file($csv));
		return (submit('https://files.example.test:4433/a.csv?s=x', on => $node), $csv);
	};

	my ($id, $csv) = $try->($public);
	is_applied($id, $csv, 'a name that stands for a public address', on => $node);
	is_deeply($connections->(), [ ($public) x 2 ], 'which is connected to');
	($id) = $try->('127.0.0.1');
	fails($id, 'BA496', qr/: the endpoint's address is not a public one$/, 'the same name, when it stands for one inside', on => $node);
	is_deeply($connections->(), [], 'which is not connected to');
	($id, $csv) = $try->('127.0.0.1', $public, '::1');
	is_applied($id, $csv, 'the same name, when it stands for both', on => $node);
	is_deeply([ grep { $_ ne $public } @{ $connections->() } ], [], 'only the public one is connected to');
	$node->stop;
	kill 'TERM', read_file("$dir/https-server.pid") =~ /(\d+)/;
}

done_testing();
