# Sources in S3: how they are reached, what goes wrong on the way, and what S3 refuses. Trouble that
# passes is passed; the rest ends the action with S3's own reason. Whatever happens, what is in the
# table is what the statistics tell of, and never a mixture of two versions of an object.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', conf => 'bulk_action.max_attempts = 2');
my $s3 = s3();
my $proxy = new_proxy();
server_for_s3($node);
server_for_s3($node, name => 'proxied', endpoint => $proxy->endpoint);

# Few rows for what is about few bytes, many for what is about many.
create_contacts($node, 300);
register_contacts($node);
create_contacts($node, 30_000, table => 'public.people');
serial_copy($node, 'public.people');
register_contacts($node, entity => 'person', table => 'public.people');
serial_copy($node, 'public.contacts');

# --- helpers -----------------------------------------------------------------------------------

sub submit
{
	my ($uri, $server, %option) = @_;
	my $literal = $uri =~ s/'/''/gr;
	my $entity = $option{entity} // 'contact';
	return value_of($node, "SELECT bulk_action.bulk_action_submit('$literal', entity_type => '$entity',
		options => '{\"server\": \"$server\"}')", as => $option{as});
}

my $salt = 0;

# A file of other values each time, and how many rows it has.
sub next_file
{
	my (%option) = @_;
	return contacts_csv($node, rows => 200, columns => [qw(first_name notes)], salt => ++$salt, %option);
}

# An action that is applied to its end, as plain SQL would.
sub is_applied
{
	my ($id, $csv, $name, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $table = $option{table} // 'public.contacts';
	my $serial = apply_serially($node, csv => $csv, mode => 'set', table => $table);
	subtest $name => sub {
		my $stat = final_stat($node, $id);
		is_deeply([ @{$stat}{qw(state error_message total updated not_found failed)} ],
			[ 'completed', undef, @{$serial}{qw(total updated not_found)}, 0 ], 'the action completes');
		same_content($node, $table, "${table}_serial", 'the table is as plain SQL leaves it');
	};
}

# An action that fails before it has applied anything.
sub fails
{
	my ($id, $code, $message, $name, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	subtest $name => sub {
		my $stat = final_stat($node, $id);
		is_deeply([ @{$stat}{qw(state error_code total updated)} ], [ 'failed', $code, 0, 0 ],
			'the action fails and applies nothing');
		like($stat->{error_message}, $message, 'it says why');
		my $all = value_of($node, "SELECT concat_ws(E'\\n', error_message, error_detail, error_hint)
			FROM bulk_action.bulk_actions WHERE id = '$id'");
		like($all, $option{like}, 'and what to do') if $option{like};
		unlike($all, qr/\Q$s3->{secret_access_key}\E|not-the-secret/, 'without a secret');
		same_content($node, 'public.contacts', 'public.contacts_serial', 'the table is as it was');
	};
}

# --- a server that is not there --------------------------------------------------------------------

# It takes a while until that is given up: other actions run meanwhile.
my $closed = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1);
my $nowhere = 'http://127.0.0.1:' . $closed->sockport;
close($closed);
server_for_s3($node, name => 'nowhere', endpoint => $nowhere);
foreach my $role (qw(patient impatient))
{
	create_role($node, $role);
	$node->safe_psql('postgres', <<SQL);
GRANT SELECT, UPDATE ON public.contacts TO $role;
GRANT USAGE ON FOREIGN SERVER nowhere TO $role;
CREATE USER MAPPING FOR $role SERVER nowhere OPTIONS (access_key_id 'a', secret_access_key 'b');
SQL
}
my $patient = submit(s3_uri('nowhere.csv'), 'nowhere', as => 'patient');
my $impatient = submit(s3_uri('nowhere.csv'), 'nowhere', as => 'impatient');
wait_for($node, "SELECT count(*) = 2 FROM pg_stat_activity
	WHERE query LIKE 'chunking%$patient' OR query LIKE 'chunking%$impatient'");
$node->safe_psql('postgres', "SELECT bulk_action.bulk_action_cancel('$impatient')");
my $stat = final_stat($node, $impatient);
is_deeply([ @{$stat}{qw(state total updated)} ], [ 'cancelled', 0, 0 ],
	'a server that is not there: the action can be cancelled while it tries');

# --- ways to reach a bucket ------------------------------------------------------------------------

my $csv = next_file();
is_applied(submit(s3_put('path.csv', file => $csv), 's3'), $csv, 'a bucket by path');

my ($port) = $s3->{host} =~ /:(\d+)\z/;
my $domain = $s3->{domain};
server_for_s3($node, name => 'virtual', endpoint => "http://$domain:" . $proxy->port,
	options => { addressing => 'virtual' });
$csv = next_file();
is_applied(submit(s3_put('virtual.csv', file => $csv), 'virtual'), $csv, 'a bucket by host name');
is_deeply([ map { "$_->{method} $_->{path} $_->{host}" } $proxy->requests ],
	[ map { "$_ /" . s3_key('virtual.csv') . " $s3->{bucket}.$domain:" . $proxy->port } qw(HEAD GET) ],
	'a bucket by host name: the name is in the host, not in the path');

server_for_s3($node, name => 'tls', endpoint => $s3->{endpoint_tls},
	options => { ca_file => $s3->{ca}, allow_http => undef });
$csv = next_file();
is_applied(submit(s3_put('tls.csv', file => $csv), 'tls'), $csv, 'TLS with the CA\'s file');

my $tls_port = $s3->{endpoint_tls} =~ s/.*://r;
server_for_s3($node, name => 'tls_virtual', endpoint => "https://$domain:$tls_port",
	options => { ca_file => $s3->{ca}, allow_http => undef, addressing => 'virtual' });
$csv = next_file();
is_applied(submit(s3_put('tls.csv', file => $csv), 'tls_virtual'), $csv, 'TLS and a bucket by host name');

server_for_s3($node, name => 'tls_no_ca', endpoint => $s3->{endpoint_tls}, options => { allow_http => undef });
fails(submit(s3_uri('tls.csv'), 'tls_no_ca'), 'BA495', qr/: the server's certificate cannot be verified$/,
	'a certificate of an authority that nobody knows', like => qr/"ca_file"/);

# The CA signed for names under the domain, and for localhost, but not for this one.
server_for_s3($node, name => 'tls_name', endpoint => "https://elsewhere.localhost:$tls_port",
	options => { ca_file => $s3->{ca}, allow_http => undef });
fails(submit(s3_uri('tls.csv'), 'tls_name'), 'BA495', qr/: the server's certificate cannot be verified$/,
	'a certificate for another host name');

server_for_s3($node, name => 'private', options => { allow_private_address => undef });
fails(submit(s3_uri('path.csv'), 'private'), 'BA496', qr/: the endpoint's address is not a public one$/,
	'an address inside the network', like => qr/127\.0\.0\.1.*"allow_private_address"/s);
server_for_s3($node, name => 'private_name', endpoint => "http://localhost:$port",
	options => { allow_private_address => undef });
fails(submit(s3_uri('path.csv'), 'private_name'), 'BA496', qr/: the endpoint's address is not a public one$/,
	'a name that stands for an address inside the network');
my (undef, undef, $error) = $node->psql('postgres', "CREATE SERVER unencrypted FOREIGN DATA WRAPPER bulk_action_s3
	OPTIONS (endpoint '$s3->{endpoint}')");
like($error, qr/allow_http 'true'/, 'a server that is not encrypted is refused when it is created');
server_for_s3($node, name => 'unencrypted');
$node->safe_psql('postgres', "UPDATE pg_foreign_server SET srvoptions = array_remove(srvoptions, 'allow_http=true')
	WHERE srvname = 'unencrypted'");
fails(submit(s3_uri('path.csv'), 'unencrypted'), 'BA497', qr/^S3 endpoint "http:.*" is not encrypted$/,
	'a server that is not encrypted, should it get past that', like => qr/"allow_http"/);

# --- credentials -------------------------------------------------------------------------------------

server_for_s3($node, name => 'wrong_secret', secret_access_key => 'not-the-secret');
fails(submit(s3_uri('path.csv'), 'wrong_secret'), 'BA403', qr/: (SignatureDoesNotMatch|AccessDenied)$/, 'a wrong secret',
	like => qr/Check the .* of the user mapping/);
server_for_s3($node, name => 'wrong_key', access_key_id => 'nobody');
fails(submit(s3_uri('path.csv'), 'wrong_key'), 'BA403', qr/: (InvalidAccessKeyId|AccessDenied)$/, 'an access key that nobody has');

my %temporary = temporary_credentials();
server_for_s3($node, name => 'temporary', %temporary);
$csv = next_file();
is_applied(submit(s3_put('token.csv', file => $csv), 'temporary'), $csv, 'temporary credentials with their token');
server_for_s3($node, name => 'no_token', %temporary, session_token => undef);
fails(submit(s3_uri('path.csv'), 'no_token'), 'BA403', qr/: (InvalidAccessKeyId|AccessDenied)$/,
	'temporary credentials without their token');
my $tampered = $temporary{session_token} =~ s/(.{20})(.)/$1 . ($2 eq 'A' ? 'B' : 'A')/er;
server_for_s3($node, name => 'tampered', %temporary, session_token => $tampered);
fails(submit(s3_uri('path.csv'), 'tampered'), 'BA400', qr/^could not read "s3:/,
	'temporary credentials with another token', like => qr/session_token/);

create_role($node, 'somebody');
$node->safe_psql('postgres', 'GRANT SELECT, UPDATE ON public.contacts TO somebody');
(undef, undef, $error) = $node->psql('postgres', "SET SESSION AUTHORIZATION somebody;
	SELECT bulk_action.bulk_action_submit('" . s3_uri('path.csv') . "', options => '{\"server\": \"s3\"}')");
like($error, qr/permission denied for foreign server s3/, 'a server that one may not use is refused at submit');
$node->safe_psql('postgres', 'GRANT USAGE ON FOREIGN SERVER s3 TO somebody');
(undef, undef, $error) = $node->psql('postgres', "SET SESSION AUTHORIZATION somebody;
	SELECT bulk_action.bulk_action_submit('" . s3_uri('path.csv') . "')");
like($error, qr/no user mapping for role "somebody" on server "s3"/, 'a server without a mapping is refused at submit');
$node->safe_psql('postgres', "CREATE USER MAPPING FOR PUBLIC SERVER s3 OPTIONS
	(access_key_id '$s3->{access_key_id}', secret_access_key '$s3->{secret_access_key}')");
$csv = next_file();
is_applied(submit(s3_put('public.csv', file => $csv), 's3', as => 'somebody'), $csv,
	'a mapping for PUBLIC serves those who have none');

# --- what is there, and what is not --------------------------------------------------------------------

fails(submit(s3_uri('nothing.csv'), 's3'), 'BA404', qr{^could not read "s3://.*/nothing\.csv": NoSuchKey$},
	'a key that does not exist', like => qr/Check the key/);
server_for_s3($node, name => 'any_bucket', options => { bucket => undef });
fails(submit('s3://no-such-bucket/contacts.csv', 'any_bucket'), 'BA404', qr/: NoSuchBucket$/,
	'a bucket that does not exist', like => qr/Check the bucket/);
$csv = next_file();
is_applied(submit(s3_put('any.csv', file => $csv), 'any_bucket'), $csv, 'a server for any bucket');

foreach my $key ("sp ace/\xC3\xBCml\xC3\xA4ut \xE2\x82\xAC.csv", 'a+b&c=d;e,f:g@h$i!j(k)l*m~n.csv', "it's \"quoted\".csv",
	'100%25 %2F %zz.csv', 'what?x=1#frag.csv', 'double//slash/.hidden', '[{|}]^`\\.csv')
{
	$csv = next_file();
	is_applied(submit(s3_put($key, file => $csv), 'proxied'), $csv, "the key $key");
}

fails(submit(s3_put('empty.csv', content => ''), 's3'), '22P04', qr/^the file is empty$/, 'an empty file',
	like => qr/first line must name the columns/);
fails(submit(s3_put('header.csv', content => "first_name,notes\na,b\n"), 's3'), '42703',
	qr/^the header lacks key column "id"$/, 'a header without the key');
fails(submit(s3_put('header.csv', content => "id,first_name,surname\n1,b,c\n"), 's3'), '42703',
	qr/^column "surname" of the header does not exist in public\.contacts$/, 'a header with an unknown column',
	like => qr/"first_name", "last_name"/);
fails(submit(s3_put('header.csv', content => "id,first_name,notes,first_name\n1,b,c,d\n"), 's3'), '42701',
	qr/^column "first_name" appears twice in the header$/, 'a header that names a column twice',
	like => qr/Fields 2 and 4/);
fails(submit(s3_put('header.csv', content => "id\n1\n"), 's3'), '42703',
	qr/^the header has no column to update$/, 'a header that has nothing but the key');
foreach my $header ("id,first_name\n", "id,first_name", "id,first_name\r\n\r\n")
{
	my $stat = final_stat($node, submit(s3_put('header.csv', content => $header), 's3'));
	is_deeply([ @{$stat}{qw(state total percent error_message)} ], [ 'completed', 0, 100, undef ],
		'a header and nothing else: the action completes without a row');
}

# --- large objects -----------------------------------------------------------------------------------

# Rows of 700 bytes: 30,000 are 20 MiB, which is five segments.
sub large_file
{
	my ($mark, $rows) = @_;
	my $path = $node->basedir . '/large.csv';
	my $fill = 'x' x 650;
	write_file($path, "id,last_name,notes\n" . join '', map { "$_,$mark $_,$mark $fill\n" } 1 .. $rows);
	return $path;
}

# The ranges asked for, as [first, last byte, status, bytes that came].
sub ranges
{
	return map { [ $_->{range} =~ /^bytes=(\d+)-(\d+)$/, $_->{status}, $_->{sent} ] } $proxy->requests(method => 'GET');
}

$proxy->forget_requests;
my $large = large_file('whole', 30_000);
is_applied(submit(s3_put('large.csv', file => $large), 'proxied', entity => 'person'), $large,
	'an object of five segments', table => 'public.people');
my $size = -s $large;
my $etag = s3_head('large.csv')->{etag};
my @ranges = ranges();
is(scalar $proxy->requests(method => 'HEAD'), 1, 'an object of five segments: it is looked up once');
is_deeply([ map { $_->{if_match} } $proxy->requests(method => 'GET') ], [ ($etag) x @ranges ],
	'an object of five segments: every request names the version that was looked up');
is(scalar @ranges, 5, 'an object of five segments: each is read at one go');
is_deeply([ $ranges[0][0], $ranges[-1][1], scalar grep { $_->[2] != 206 } @ranges ], [ 0, $size - 1, 0 ],
	'an object of five segments: from its first byte to its last');
is_deeply([ map { $ranges[ $_ - 1 ][1] - $ranges[$_][0] < 1024 * 1024 + 1024 ? 1 : 0 } 1 .. $#ranges ], [ (1) x 4 ],
	'an object of five segments: no more than the longest record is read twice');

# --- trouble that passes -----------------------------------------------------------------------------

$proxy->forget_requests;
$large = large_file('cut', 10_000);
my @cuts = ($proxy->fault('cut', method => 'GET', bytes => 700_000),
	$proxy->fault('cut', method => 'GET', bytes => 300_000),
	$proxy->fault('reset', method => 'GET', bytes => 1_000_000));
is_applied(submit(s3_put('cut.csv', file => $large), 'proxied', entity => 'person'), $large,
	'connections that break off in the middle', table => 'public.people');
is_deeply([ map { $proxy->fired($_) } @cuts ], [ 1, 1, 1 ], 'connections that break off: all three did');
@ranges = ranges();
is_deeply([ map { $_->[0] } @ranges[ 1, 2 ] ], [ 700_000, 1_000_000 ],
	'connections that break off: reading goes on from the byte that was reached');
is($ranges[2][1], $ranges[0][1], 'connections that break off: to the same end');
ok($ranges[3][0] > 1_000_000 && $ranges[3][1] == $ranges[2][1] || $ranges[3][0] <= $ranges[2][1],
	'connections that break off: after a reset as well');
is(scalar $proxy->requests(method => 'HEAD'), 1, 'connections that break off: the object is not looked up again');

$proxy->forget_requests;
$large = large_file('stall', 3_000);
my $stall = $proxy->fault('stall', method => 'GET', bytes => 500_000);
my $reset = $proxy->fault('reset', method => 'GET', bytes => 100_000);
my $id = submit(s3_put('stall.csv', file => $large), 'proxied', entity => 'person');
$proxy->wait_for_stalled;
is_deeply([ rows_of($node, <<SQL) ], [ [ 't', undef, undef, undef ] ],
SELECT query LIKE 'chunking%$id', backend_xmin, backend_xid, xact_start
  FROM pg_stat_activity WHERE backend_type = 'bulk_action worker' AND query LIKE '%$id'
SQL
	'a download that stalls: no transaction waits for it');
$stat = stat_of($node, $id);
is_deeply([ @{$stat}{qw(state total updated)} ], [ 'running', 0, 0 ], 'a download that stalls: nothing is counted');
$proxy->release($stall);
is_applied($id, $large, 'a download that stalls, and the next one is reset', table => 'public.people');
is($proxy->fired($reset), 1, 'a download that stalls, and the next one is reset: so it was');

$proxy->forget_requests;
$csv = next_file();
my $uri = s3_put('busy.csv', file => $csv);
my @busy = ($proxy->fault('status', code => 503, method => 'HEAD', times => 2),
	$proxy->fault('status', code => 500, method => 'HEAD', s3code => 'InternalError'),
	$proxy->fault('drop', method => 'GET'),
	$proxy->fault('status', code => 503, method => 'GET', times => 2),
	$proxy->fault('status', code => 429, method => 'GET', s3code => 'TooManyRequests', header => 'Retry-After:1'));
is_applied(submit($uri, 'proxied'), $csv, 'a burst of refusals');
is_deeply([ map { $proxy->fired($_) } @busy ], [ 2, 1, 1, 2, 1 ], 'a burst of refusals: each was met');
is_deeply([ map { "$_->{method} $_->{status}" } $proxy->requests ],
	[ 'HEAD 503', 'HEAD 503', 'HEAD 500', 'HEAD 200', 'GET -', 'GET 503', 'GET 503', 'GET 429', 'GET 206' ],
	'a burst of refusals: each is followed by another try, and nothing is read twice');

# --- answers that end an action ------------------------------------------------------------------------

$proxy->fault('status', code => 301, s3code => 'PermanentRedirect', header => 'x-amz-bucket-region:eu-west-3', times => 2);
fails(submit($uri, 'proxied'), 'BA301', qr/: PermanentRedirect$/, 'a bucket in another region', like => qr/"eu-west-3"/);
my %hints = (AccessDenied => 's3:GetObject', SignatureDoesNotMatch => '"secret_access_key"',
	InvalidAccessKeyId => '"access_key_id"', ExpiredToken => 'fresh temporary credentials',
	RequestTimeTooSkewed => 'the clock');
foreach my $code (sort keys %hints)
{
	$proxy->fault('status', code => 403, s3code => $code, times => 2);
	fails(submit($uri, 'proxied'), 'BA403', qr/: $code$/, "S3 says $code", like => qr/\Q$hints{$code}\E/);
}
$proxy->fault('header', method => 'GET', set => 'ETag:"another"');
fails(submit($uri, 'proxied'), 'BA412', qr/: the object was replaced$/,
	'an answer about another version, from a server that ignores If-Match');
$proxy->fault('header', method => 'GET', remove => 'Content-Range');
fails(submit($uri, 'proxied'), 'BA502', qr/: unexpected answer$/, 'an answer that does not tell which part it is');
$proxy->fault('header', method => 'HEAD', remove => 'ETag');
fails(submit($uri, 'proxied'), 'BA502', qr/: unexpected answer$/, 'an object without ETag');
$proxy->clear;

# --- an object that changes while it is read -----------------------------------------------------------

# The second segment's request is held back while the object is replaced.
sub fails_in_the_middle
{
	my ($name, $mark, $change, $code, $message) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $large = large_file($mark, 4_000);
	my $uri = s3_put('changing.csv', file => $large);
	my $hold = $proxy->fault('hold', method => 'GET', skip => 1);
	my $id = submit($uri, 'proxied', entity => 'person');
	$proxy->wait_for_held;
	wait_for($node, "SELECT updated > 0 AND unprocessed = 0 FROM bulk_action.bulk_action_stat('$id')");
	$change->($large);
	$proxy->clear($hold);
	subtest $name => sub {
		my $stat = final_stat($node, $id);
		is_deeply([ @{$stat}{qw(state error_code unprocessed total_is_final)} ],
			[ 'failed', $code, 0, JSON::PP::false ], 'the action fails');
		like($stat->{error_message}, $message, 'it says why');
		ok($stat->{updated} > 1_000 && $stat->{updated} < 2_000, 'the first segment is applied')
		  or diag("updated: $stat->{updated}");
		apply_serially($node, table => 'public.people', mode => 'set', content => join '',
			map { "$_\n" } (split /\n/, read_file($large))[ 0 .. $stat->{updated} ]);
		same_content($node, 'public.people', 'public.people_serial',
			'the table is as plain SQL leaves it with the rows that the statistics tell of');
	};
}

fails_in_the_middle('an object that is replaced by one of the same size', 'first',
	sub {
		my ($large) = @_;
		s3_put('changing.csv', content => read_file($large) =~ s/first/other/gr);
	}, 'BA412', qr/^could not read "s3:.*": (PreconditionFailed|the object was replaced)$/);
fails_in_the_middle('an object that is replaced by a longer one', 'second',
	sub { my ($large) = @_; s3_put('changing.csv', content => read_file($large) x 2) },
	'BA412', qr/^could not read "s3:.*": (PreconditionFailed|the object was replaced)$/);
fails_in_the_middle('an object that is deleted', 'third', sub { s3_delete('changing.csv') },
	'BA404', qr/^could not read "s3:.*": NoSuchKey$/);

# Now while rows of the first segment wait: nobody can update one before the object has been replaced.
$large = large_file('waiting', 4_000);
$uri = s3_put('changing.csv', file => $large);
$node->safe_psql('postgres', 'CREATE TABLE public.people_before AS TABLE public.people');
my $hold = $proxy->fault('hold', method => 'GET', skip => 1);
my $blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN');
$blocker->query_safe('SELECT count(*) FROM (SELECT FROM public.people FOR UPDATE) AS c');
$id = submit($uri, 'proxied', entity => 'person');
$proxy->wait_for_held;
wait_for($node, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'applying%$id'");
s3_put('changing.csv', content => 'other');
$proxy->clear($hold);
wait_for($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'chunking%$id' AND state = 'active'",
	what => 'the request for the second segment to be answered');
$blocker->query_safe('COMMIT');
$blocker->quit;
$stat = final_stat($node, $id);
is_deeply([ @{$stat}{qw(state error_code updated unprocessed)}, $stat->{updated} + $stat->{unprocessed} ],
	[ 'failed', 'BA412', $stat->{updated}, $stat->{unprocessed}, $stat->{total} ],
	'an object that is replaced while rows wait: the action fails');
ok($stat->{updated} > 0 && $stat->{unprocessed} > 0,
	'an object that is replaced while rows wait: chunks begun are ended, the others count as unprocessed')
  or diag(explain($stat));
apply_serially($node, table => 'public.people', csv => $large, mode => 'set');
same_as_counted($node, 'public.people', $stat->{updated},
	'an object that is replaced while rows wait: as many rows as counted are as in the file, all others as before');

# --- the server that is not there ---------------------------------------------------------------------

$stat = final_stat($node, $patient);
is_deeply([ @{$stat}{qw(state error_code total updated)} ], [ 'failed', '08001', 0, 0 ],
	'a server that is not there: after max_attempts tries the action fails');
like($stat->{error_message}, qr/: could not connect$/, 'a server that is not there: it says so');

$node->stop;
done_testing();
