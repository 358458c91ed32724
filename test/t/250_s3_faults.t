# Faults of S3 and of the way to it. What can be resumed is resumed at the byte that was reached, with
# the pin of the object in every request; what lasts fails the action with S3's own code and message, the
# rows counted as they are, and once the fault is over a retry takes up the rest and brings the table to
# where plain SQL does. 020_s3.t has more of it: refusals and breaks that pass, objects that are replaced or deleted while
# they are read, wrong credentials, a server that is not there.
use strict;
use warnings;

use BulkAction;
use IPC::Open3 ();
use PostgreSQL::Test::Utils;
use Test::More;

# Faults that last keep a worker busy for seconds each; they are borne side by side.
my $node = new_node('main', conf => <<'CONF');
bulk_action.max_attempts = 2
bulk_action.max_workers = 20
max_worker_processes = 28
CONF
my $s3 = s3();
my $proxy = new_proxy();
server_for_s3($node, name => 'proxied', endpoint => $proxy->endpoint);
create_contacts($node, 40_000);
register_contacts($node);
serial_copy($node, 'public.contacts');

# --- helpers -----------------------------------------------------------------------------------

my $cases = 0;

# A case has a file of its own, contacts of its own and an account of its own:
#   segments => 1 (up to 3: 2.8 and 4 MB)     server => 'proxied'
#   faults => [ [ action, option => value, ... ], ... ]     only requests for this file meet them; or code
#             that makes the list of the file's size
sub begin
{
	my ($name, %case) = @_;
	my $n = $cases++;
	my $first = 1 + 1_000 * $n;
	my $segments = $case{segments} // 1;
	my $rows = $segments > 1 ? 1_000 : 100;
	my $last = $first + $rows - 1;
	my $fill = 'x' x (10, 2_700, 4_000)[ $segments - 1 ];
	my $content = "id,last_name,notes\n" . join '', map { "$_,case $n,row $_ $fill\n" } $first .. $last;
	my $self = {
		server => 'proxied',
		segments => $segments,
		%case,
		name => $name,
		key => "case$n.csv",
		path => "/case$n\\.csv",
		content => $content,
		size => length $content,
		rows => $rows,
		where => "WHERE id BETWEEN $first AND $last",
		account => "case $n" };
	$self->{uri} = s3_put($self->{key}, content => $content);
	$self->{etag} = s3_head($self->{key})->{etag};
	my $faults = $case{faults} // [];
	$faults = $faults->($self->{size}) if ref $faults eq 'CODE';
	$self->{fault_ids} = [ map { $proxy->fault(@$_, path => $self->{path}) } @$faults ];
	$self->{id} = submit($self);
	return $self;
}

sub submit
{
	my ($case) = @_;
	return value_of($node, "SELECT bulk_action.bulk_action_submit('$case->{uri}', account_id => '$case->{account}',
		options => '{\"server\": \"$case->{server}\"}')");
}

# The requests for the case's file, without the look at its first byte that tells why a HEAD was refused.
sub gets { return grep { $_->{range} ne 'bytes=0-0' } $proxy->requests(method => 'GET', path => qr/$_[0]{path}/) }

# The first bytes that were asked for.
sub places { return map { $_->{range} =~ /^bytes=(\d+)-/ } gets(@_) }

sub end_faults { $proxy->clear($_) foreach @{ $_[0]{fault_ids} } }

# Every request names the version that was looked up, and no byte comes twice but those between the end
# of a segment and the end of the longest record that may begin in it.
sub read_once
{
	my ($case, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @gets = gets($case);
	is_deeply([ grep { $_->{if_match} ne $case->{etag} } @gets ], [], 'every request names the version')
	  or diag(explain(\@gets));
	my $sent = 0;
	$sent += $_->{sent} foreach grep { $_->{status} eq '206' } @gets;
	cmp_ok($sent, '<=', $case->{size} + ($case->{segments} - 1) * (1024 * 1024 + 1024), 'nothing is read twice without need')
	  or diag(explain(\@gets));
	cmp_ok($sent, '>=', $case->{size}, 'all of it is read');
}

sub is_as_by_plain_sql
{
	my ($case) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	apply_serially($node, content => $case->{content}, mode => 'set');
	same_content($node, "public.contacts $case->{where}", "public.contacts_serial $case->{where}",
		'the table is as plain SQL leaves it');
}

# An action that comes to its end in spite of its faults, each of which was met.
sub is_applied
{
	my ($case, $check) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	subtest $case->{name} => sub {
		my $stat = final_stat($node, $case->{id});
		is_deeply([ @{$stat}{qw(state error_message total updated)} ],
			[ 'completed', undef, $case->{rows}, $case->{rows} ], 'the action completes');
		is_as_by_plain_sql($case);
		is_deeply([ grep { $proxy->fired($_) == 0 } @{ $case->{fault_ids} } ], [], 'the faults were met');
		$check->($case) if $check;
	};
}

# An action that fails, with what of the file was applied, and then is brought to its end.
#   code, message, more => what detail and hint say; begun => 1 (a part of the file was read)
#   over => code that ends the fault      check => code      once => 1 (what was read is not read again)
sub is_failed
{
	my ($case, %expect) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	subtest $case->{name} => sub {
		my $stat = final_stat($node, $case->{id});
		is_deeply([ @{$stat}{qw(state error_code)} ], [ 'failed', $expect{code} ], 'the action fails');
		like($stat->{error_message}, qr/^could not read "\Q$case->{uri}\E": $expect{message}\z/, 'it says why');
		my $more = value_of($node,
			"SELECT concat_ws(E'\\n', error_detail, error_hint) FROM bulk_action.bulk_actions WHERE id = '$case->{id}'");
		like($more, $expect{more}, 'and more') if $expect{more};
		unlike($more, qr/\Q$s3->{secret_access_key}\E/, 'without a secret');
		ok($expect{begun} ? $stat->{total} > 0 && $stat->{total} < $case->{rows} : $stat->{total} == 0,
			$expect{begun} ? 'a part of the file was read' : 'nothing was read')
		  or diag(explain($stat));
		is($stat->{updated} + $stat->{unprocessed}, $stat->{total}, 'what was read is applied or counts as unprocessed');
		is(value_of($node, "SELECT count(*) FROM public.contacts $case->{where} AND last_name LIKE 'case %'"),
			$stat->{updated}, 'the table has the rows that are counted, and no others');
		is_deeply([ grep { $proxy->fired($_) == 0 } @{ $case->{fault_ids} } ], [], 'the faults were met');
		$expect{check}->($case) if $expect{check};

		end_faults($case);
		$expect{over}->($case) if $expect{over};
		is(value_of($node, "SELECT bulk_action.bulk_action_retry('$case->{id}')"), 't', 'it is asked to try again');
		wait_for($node, "SELECT state <> 'failed' FROM bulk_action.bulk_actions WHERE id = '$case->{id}'");
		$stat = final_stat($node, $case->{id});
		is_deeply([ @{$stat}{qw(state error_message total updated)} ],
			[ 'completed', undef, $case->{rows}, $case->{rows} ], 'once the fault is over the rest of the file is applied');
		is_as_by_plain_sql($case);
		read_once($case) if $expect{once};
	};
}

# openssl's own server with a certificate; returns its port. It ends with the test.
my @tls_servers;

sub tls_server
{
	my ($certificate, $key) = @_;
	my $pid = IPC::Open3::open3(my $in, my $out, undef, 'openssl', 's_server', '-accept', '127.0.0.1:0', '-www',
		'-cert', $certificate, '-key', $key);
	push @tls_servers, [ $pid, $in, $out ];
	while (my $line = <$out>)
	{
		return $1 if $line =~ /^ACCEPT .*:(\d+)/;
	}
	die 'openssl s_server does not start';
}

END
{
	my $status = $?;
	foreach my $server (@tls_servers)
	{
		kill('TERM', $server->[0]);
		waitpid($server->[0], 0);
	}
	$? = $status;
}

sub openssl
{
	my ($out) = run_command([ 'openssl', @_ ]);
	die "openssl @_" if $?;
	return $out;
}

# --- faults that last ------------------------------------------------------------------------------

# Begun first, looked at last. Each is tried twelve times: six within a request, and that twice.

# The first two are given up by nobody but the reader, who waits for half a minute.
my $stalled = begin('a transfer that stalls for good', segments => 2, faults => [ [ 'stall', method => 'GET', bytes => 300_000 ] ]);
my $silent = begin('a request that is never answered', faults => [ [ 'hold', method => 'GET' ] ]);

my $slow_down = begin('SlowDown for ever', faults => [ [ 'status', code => 503, times => 0 ] ]);
my $internal = begin('InternalError from the second segment on', segments => 2,
	faults => [ [ 'status', code => 500, s3code => 'InternalError', method => 'GET', skip => 1, times => 0 ] ]);
my $refused = begin('connections that are reset at once', faults => [ [ 'refuse', times => 0 ] ]);
my $no_byte = begin('answers that break off before their first byte',
	faults => [ [ 'cut', method => 'GET', bytes => 0, times => 0 ] ]);
my $empty = begin('answers without a body', faults => [ [ 'header', method => 'GET', set => 'Content-Length:0', times => 0 ] ]);
my $crawling = begin('a transfer that is slow but moves', segments => 2,
	faults => [ [ 'slow', method => 'GET', bytes => 20_000, times => 0 ] ]);

my $no_host = ('x' x 64) . '.invalid';
server_for_s3($node, name => 'no_host', endpoint => "http://$no_host");
my $unresolved = begin('a host name that does not resolve', server => 'no_host');
server_for_s3($node, name => 'no_tls', endpoint => "https://$s3->{host}");
my $no_tls = begin('a server that does not speak TLS', server => 'no_tls');

# --- faults that pass ----------------------------------------------------------------------------------

is_applied(begin('RequestTimeout, which S3 says with status 400', faults => [
	[ 'status', code => 400, s3code => 'RequestTimeout', method => 'HEAD' ],
	[ 'status', code => 400, s3code => 'RequestTimeout', method => 'GET', skip => 1, times => 2 ] ]), sub {
	my ($case) = @_;
	is_deeply([ map { "$_->{method} $_->{status}" } $proxy->requests(path => qr/$case->{path}/) ],
		[ 'HEAD 400', 'GET 206', 'GET 400', 'GET 400', 'GET 206' ], 'each is followed by another try');
	read_once($case);
});

is_applied(begin('connections that break off in every segment', segments => 2, faults => [
	[ 'cut', method => 'GET', bytes => 1_000_000 ], [ 'cut', method => 'GET', bytes => 500_000 ],
	[ 'cut', method => 'GET', skip => 1, bytes => 100_000 ], [ 'cut', method => 'GET', skip => 1, bytes => 200_000 ] ]), sub {
	my ($case) = @_;
	my @places = places($case);
	is_deeply([ @places[ 1, 2 ], $places[4] - $places[3], $places[5] - $places[4] ],
		[ 1_000_000, 1_500_000, 100_000, 200_000 ], 'reading goes on from the byte that was reached');
	is(scalar @places, 6, 'with one request for each');
	read_once($case);
});

is_applied(begin('an answer whose Content-Length is too small', segments => 2,
	faults => [ [ 'header', method => 'GET', set => 'Content-Length:123456' ] ]), sub {
	my ($case) = @_;
	is((places($case))[1], 123_456, 'what is missing is asked for');
});

is_applied(begin('an answer whose Content-Length is too large', faults => [ [ 'header', method => 'GET', set => 'Content-Length:9999999' ] ]),
	sub {
		my ($case) = @_;
		is_deeply([ places($case) ], [0], 'what came is all that was asked for');
		read_once($case);
	});

# --- answers that are not what was asked for -------------------------------------------------------------

# No second try could make them better: what a proxy or a server does once it does again.
my @bad_answer = (code => 'BA502', message => qr/unexpected answer/, more => qr/Content-Range is not the one asked for/);
is_failed(begin('a Content-Range that begins elsewhere',
	faults => sub { [ [ 'header', method => 'GET', set => "Content-Range:bytes%201-99/$_[0]" ] ] }), @bad_answer);
is_failed(begin('a Content-Range that is longer than asked for',
	faults => sub { [ [ 'header', method => 'GET', set => "Content-Range:bytes%200-$_[0]/$_[0]" ] ] }), @bad_answer);
is_failed(begin('a Content-Range that is not where the second segment begins', segments => 2,
	faults => sub { [ [ 'header', method => 'GET', skip => 1, set => "Content-Range:bytes%200-99/$_[0]" ] ] }),
	@bad_answer, begun => 1);
is_failed(begin('a body that is longer than its Content-Range',
	faults => sub { [ [ 'header', method => 'GET', set => "Content-Range:bytes%200-99/$_[0]" ] ] }),
	@bad_answer, more => qr/body is longer than its Content-Range/);
is_failed(begin('a Content-Range of an object of another size',
	faults => sub { [ [ 'header', method => 'GET', set => 'Content-Range:bytes%200-99/' . ($_[0] + 1) ] ] }),
	code => 'BA412', message => qr/the object was replaced/);
is_failed(begin('an object that is shorter than it was said to be',
	faults => sub { [ [ 'header', method => 'HEAD', set => 'Content-Length:' . ($_[0] + 7) ] ] }),
	code => 'BA412', message => qr/the object was replaced/);
is_failed(begin('status 200 in place of 206', faults => [ [ 'recode', method => 'GET', code => 200 ] ]),
	code => 'BA502', message => qr/unexpected HTTP status 200/);
is_failed(begin('status 200 in place of 206 in the second segment', segments => 2,
	faults => [ [ 'recode', method => 'GET', skip => 1, code => 200 ] ]),
	code => 'BA502', message => qr/unexpected HTTP status 200/, begun => 1);

# An answer without end is broken off; how much the system's buffers had taken is not to be told.
my @endless = (check => sub {
	my ($case) = @_;
	my @gets = $proxy->requests(method => 'GET', path => qr/$case->{path}/);
	is_deeply([ map { $_->{end} } @gets ], [ ('client') x @gets ], 'the reader does not wait for its end');
	is(scalar @gets, 1, 'and does not ask again');
});
my @too_long = (code => 'BA502', message => qr/the answer is longer than asked for/);
is_failed(begin('a body without end', faults => [ [ 'endless', method => 'GET', part => 'body', code => 206 ] ]),
	@too_long, more => qr/^The body is too long/, @endless);
is_failed(begin('the whole of an object without end, where a part was asked for',
	faults => [ [ 'endless', method => 'GET', part => 'body', code => 200 ] ]),
	@too_long, more => qr/^The body is too long/, @endless);
is_failed(begin('a refusal without end', faults => [ [ 'endless', method => 'GET', part => 'body', code => 403 ] ]),
	code => 'BA403', message => qr/HTTP status 403/, @endless);
is_failed(begin('headers without end', faults => [ [ 'endless', method => 'GET', part => 'header' ] ]),
	@too_long, more => qr/^The block of headers is too long/, @endless);
is_failed(begin('a header without end', faults => [ [ 'endless', method => 'GET', part => 'line' ] ]),
	@too_long, more => qr/^A header is too long/, @endless);
is_failed(begin('interim answers without end', faults => [ [ 'endless', method => 'GET', part => 'interim' ] ]),
	@too_long, more => qr/^The block of headers is too long/, @endless);

is_failed(begin('a redirect to itself, for ever', faults => [ [ 'status', code => 307, s3code => 'TemporaryRedirect', times => 0,
		header => 'Location:' . $proxy->endpoint . "/$s3->{bucket}/case.csv" ] ]),
	code => 'BA301', message => qr/TemporaryRedirect/, more => qr/HTTP status 307/, check => sub {
		my ($case) = @_;
		is_deeply([ map { "$_->{method} $_->{status}" } $proxy->requests(path => qr/$case->{path}/) ], [ 'HEAD 307', 'GET 307' ],
			'it is asked for its reason, and not followed');
	});

# --- credentials that end in the middle --------------------------------------------------------------------

sub change_mapping
{
	my ($server, %option) = @_;
	my $options = join ', ', map { "$_ '$option{$_}'" } sort keys %option;
	$node->safe_psql('postgres', <<SQL);
BEGIN;
DROP USER MAPPING FOR CURRENT_USER SERVER $server;
CREATE USER MAPPING FOR CURRENT_USER SERVER $server OPTIONS ($options);
COMMIT;
SQL
}

server_for_s3($node, name => 'temporary', endpoint => $proxy->endpoint, temporary_credentials());
is_failed(begin('a token that expires in the middle', segments => 2, server => 'temporary',
	faults => [ [ 'status', code => 400, s3code => 'ExpiredToken', method => 'GET', skip => 1, times => 0 ] ]),
	once => 1, code => 'BA403', message => qr/ExpiredToken/, more => qr/fresh temporary credentials/, begun => 1,
	check => sub {
		my ($case) = @_;
		is_deeply([ map { $_->{status} } gets($case) ], [ 206, 400 ], 'it is not asked again');
	},
	over => sub { change_mapping('temporary', temporary_credentials()) });

# The mapping is changed while the second request is under way: the third has the new credentials.
server_for_s3($node, name => 'rotated', endpoint => $proxy->endpoint);
{
	my $case = begin('a secret that is changed in the middle, wrongly', segments => 3, server => 'rotated',
		faults => [ [ 'hold', method => 'GET', skip => 1 ] ]);
	$proxy->wait_for_fired($case->{fault_ids}[0]);
	change_mapping('rotated', access_key_id => $s3->{access_key_id}, secret_access_key => 'not-the-secret');
	end_faults($case);
	is_failed($case, once => 1, code => 'BA403', message => qr/(SignatureDoesNotMatch|AccessDenied)/, begun => 1,
		check => sub {
			my ($case) = @_;
			is_deeply([ map { $_->{status} } gets($case) ], [ 206, 206, 403 ], 'the request under way is answered, the next is not');
		},
		over => sub {
			change_mapping('rotated', access_key_id => $s3->{access_key_id}, secret_access_key => $s3->{secret_access_key});
		});
}
{
	my $case = begin('a secret that is changed in the middle to another that is right', segments => 3, server => 'rotated',
		faults => [ [ 'hold', method => 'GET', skip => 1 ] ]);
	$proxy->wait_for_fired($case->{fault_ids}[0]);
	change_mapping('rotated', temporary_credentials());
	end_faults($case);
	is_applied($case, sub {
		my ($case) = @_;
		is_deeply([ map { $_->{status} } gets($case) ], [ 206, 206, 206 ], 'the next request is made with the new one');
		read_once($case);
	});
}

# --- TLS ---------------------------------------------------------------------------------------------------

my $dir = PostgreSQL::Test::Utils::tempdir();
foreach my $ca ('ca', 'other')
{
	openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$dir/$ca.key", '-out', "$dir/$ca.crt", '-subj', "/CN=$ca");
}
openssl('req', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$dir/server.key", '-out', "$dir/server.csr",
	'-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost');
openssl('x509', '-req', '-in', "$dir/server.csr", '-CA', "$dir/ca.crt", '-CAkey', "$dir/ca.key", '-CAcreateserial',
	'-copy_extensions', 'copy', '-days', '-1', '-out', "$dir/expired.crt");
openssl('req', '-x509', '-key', "$dir/server.key", '-out', "$dir/self.crt", '-subj', '/CN=localhost',
	'-addext', 'subjectAltName=DNS:localhost');

my $tls_port = $s3->{endpoint_tls} =~ s/.*://r;
foreach my $case (
	[ 'an authority that did not sign the certificate', "https://localhost:$tls_port", 'other.crt', qr/certificate/ ],
	[ 'a certificate that has expired', 'https://localhost:' . tls_server("$dir/expired.crt", "$dir/server.key"), 'ca.crt', qr/expired/ ],
	[ 'a certificate that nobody signed', 'https://localhost:' . tls_server("$dir/self.crt", "$dir/server.key"), 'ca.crt', qr/self.signed/ ],
	[ 'a file of authorities that is gone', "https://localhost:$tls_port", 'gone.crt', qr/gone\.crt/ ])
{
	my ($name, $endpoint, $ca, $more) = @$case;
	my $server = 'tls' . $cases;
	server_for_s3($node, name => $server, endpoint => $endpoint,
		options => { ca_file => "$dir/$ca", allow_http => undef });
	is_failed(begin($name, server => $server), code => 'BA495', message => qr/the server's certificate cannot be verified/,
		more => qr/$more.*"ca_file"/s,
		over => sub {
			$node->safe_psql('postgres', "ALTER SERVER $server OPTIONS (SET endpoint '$s3->{endpoint_tls}', SET ca_file '$s3->{ca}')");
		});
}

# --- the faults that last, again -----------------------------------------------------------------------------

is_applied($crawling, \&read_once);
# six tries of two attempts each: a HEAD, and after the sixth one a GET for its reason
is_failed($slow_down, code => '08006', message => qr/SlowDown/, more => qr/HTTP status 503.*S3 says: made by the proxy/, check => sub {
	my ($case) = @_;
	is_deeply([ map { "$_->{method} $_->{status}" } $proxy->requests(path => qr/$case->{path}/) ],
		[ (('HEAD 503') x 6, 'GET 503') x 2 ], 'it is asked six times, and that twice');
});
is_failed($internal, once => 1, code => '08006', message => qr/InternalError/, more => qr/HTTP status 500.*S3 says: made by the proxy/, begun => 1,
	check => sub {
		my ($case) = @_;
		is_deeply([ map { $_->{status} } gets($case) ], [ 206, (500) x 12 ], 'the first segment is not read again');
	});
is_failed($refused, code => '08006', message => qr/the connection was lost/);
is_failed($no_byte, code => '08006', message => qr/the connection was lost/, check => sub {
	my ($case) = @_;
	is_deeply([ places($case) ], [ (0) x 12 ], 'it is asked twelve times');
});
is_failed($empty, code => 'BA502', message => qr/unexpected answer/, more => qr/The answer has no body/, check => sub {
	my ($case) = @_;
	is_deeply([ places($case) ], [ (0) x 6 ], 'it is asked six times');
});
is_failed($unresolved, code => '08001', message => qr/could not resolve the host name/,
	over => sub { $node->safe_psql('postgres', "ALTER SERVER no_host OPTIONS (SET endpoint '" . $proxy->endpoint . "')") });
is_failed($no_tls, code => '08001', message => qr/TLS handshake failed/,
	over => sub { $node->safe_psql('postgres', "ALTER SERVER no_tls OPTIONS (SET endpoint '" . $proxy->endpoint . "')") });
is_applied($stalled, sub {
	my ($case) = @_;
	is((places($case))[1], 300_000, 'it is given up, and reading goes on from the byte that was reached');
	is((gets($case))[0]{end}, 'client', 'by the reader');
	read_once($case);
});
is_applied($silent, sub {
	my ($case) = @_;
	is_deeply([ map { $_->{end} } gets($case) ], [ 'client', 'ok' ], 'it is given up by the reader, and made again');
});

$node->stop;
done_testing();
