# Files that are decompressed and converted while they are read: whoever is killed while he does, and
# whoever takes over, the outcome is that of the same text as it stands. Memory and time are bounded.
use strict;
use warnings;

use BulkAction;
use Digest::MD5 qw(md5_hex);
use Encode qw(encode decode);
use IO::Compress::Gzip qw(gzip);
use Test::More;

my $node = new_node('main', injection => 1, conf => <<'CONF');
bulk_action.file_root = '/'
bulk_action.idle_timeout = '1min'
CONF
create_contacts($node, 12_000);
serial_copy($node, 'public.contacts');
register_contacts($node);
my $proxy = new_proxy();
server_for_s3($node, endpoint => $proxy->endpoint);

my $salt = 0;
my @bad = ([ 11, '22P02' ], [ 5_001, '22P04' ], [ 11_000, '22P02' ]);

# Updates of all contacts, more than 4 MB, with some bad rows; every file has values of its own.
sub next_text
{
	my ($repeat) = @_;
	$salt++;
	my $text = "id,first_name,notes\n";
	foreach my $line (2 .. 12_001)
	{
		my $id = ($line * 7919) % 12_000 + 1;
		my $row = "$id,caf\xC3\xA9$salt.$line,\xE2\x82\xAC " . substr(sprintf('%x', $line * 2654435761) x 60, 0, 320);
		$row = "x,a,b" if $line == 11 || $line == 11_000;
		$row = "1,a" if $line == 5_001;
		$text .= "$row\n";
	}
	$text .= join('', map { $_ * 5 % 12_000 . ",again$salt,$_\n" } 1 .. 300) if $repeat;
	return $text;
}

# The good rows, for plain SQL.
sub good
{
	my ($text) = @_;
	return join("\n", grep { !/^(x,a,b|1,a)\z/ } split /\n/, $text) . "\n";
}

sub zstd
{
	my ($in, @options) = @_;
	my $name = write_file($node->basedir . '/plain', $in);
	system('zstd', '-q', '-f', @options, $name, '-o', "$name.zst") == 0 or die 'zstd';
	return read_file("$name.zst");
}

sub gz { my ($in) = @_; my $out; gzip(\$in => \$out, -Minimal => 1) or die; return $out }

my %form = (
	gzip => \&gz,
	'gzip of several members' => sub { return join '', map { gz($_) } unpack('(a1000003)*', $_[0]) },
	zstd => sub { return zstd($_[0]) },
	'UTF-16' => sub { return "\xFF\xFE" . encode('UTF-16LE', decode('UTF-8', $_[0])) },
	'zstd of UTF-16' => sub { return zstd("\xFE\xFF" . encode('UTF-16BE', decode('UTF-8', $_[0]))) });

sub submit
{
	my ($uri, $options) = @_;
	return value_of($node, "SELECT bulk_action.bulk_action_submit('$uri', options => \$o\${@{[ $options // '' ]}}\$o\$)");
}

sub wait_until_ended
{
	my ($id) = @_;
	return wait_for($node, "SELECT finished_at IS NOT NULL FROM bulk_action.bulk_actions WHERE id = '$id'");
}

sub check
{
	my ($id, $text, $name, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_until_ended($id);
	my $rows = () = $text =~ /\n/g;
	my $lost = $option{superseded} // 0;
	is_deeply([ rows_of($node, <<SQL) ],
SELECT state, error_message, total, total - failed, failed, superseded, percent FROM bulk_action.bulk_action_stat('$id')
SQL
		[ [ 'completed', undef, $rows - 1, $rows - 1 - @bad, scalar @bad, $lost, '100.0' ] ], "$name: counts");
	is_deeply([ rows_of($node, "SELECT line, error_code FROM bulk_action.bulk_action_errors WHERE action_id = '$id' ORDER BY line") ],
		\@bad, "$name: errors, with their lines");
	apply_serially($node, content => $option{good} // good($text), mode => 'set');
	same_content($node, 'public.contacts', 'public.contacts_serial', "$name: the table");
}

# --- nothing happens ---------------------------------------------------------------------------------

foreach my $form (sort keys %form)
{
	my $text = next_text();
	my $id = submit(s3_put("quiet-$salt", content => $form{$form}->($text)));
	check($id, $text, $form);
}

# The worker that has the decoder goes on: however short the queue, and however many others are idle, the file
# is fetched once, but for its beginning, which was looked at to find out what it is.
{
	my $text = "id,notes\n" . join('', map { my $row = $_; "$row," . join('', map { md5_hex("$row.$_") } 1 .. 30) . "\n" } 1 .. 12_000);
	my $file = gz($text);
	cmp_ok(length $file, '>', 4 * 1024 * 1024, 'the file has several segments');
	$node->safe_psql('postgres', 'ALTER SYSTEM SET bulk_action.max_queued_chunks = 1');
	$node->reload;
	wait_for($node, 'SHOW bulk_action.max_queued_chunks', expect => '1');
	$proxy->forget_requests;
	my $id = submit(s3_put('once', content => $file));
	wait_until_ended($id);
	is(value_of($node, "SELECT state || ' ' || success FROM bulk_action.bulk_action_stat('$id')"), 'completed 12000', 'it is applied');
	my $bytes = 0;
	foreach my $request ($proxy->requests(method => 'GET'))
	{
		$bytes += $2 - $1 + 1 if $request->{path} =~ /once/ && ($request->{range} // '') =~ /(\d+)-(\d+)/;
	}
	# the first window: 1 MiB, the longest record, and a line end
	is($bytes, 2 * 1024 * 1024 + 2 + length $file, 'the file was fetched once');
	$node->safe_psql('postgres', 'ALTER SYSTEM RESET bulk_action.max_queued_chunks');
	$node->reload;
	apply_serially($node, content => $text, mode => 'set');
	same_content($node, 'public.contacts', 'public.contacts_serial', 'as plain SQL does');
}

# --- kills -----------------------------------------------------------------------------------------------

my @points = qw(chunker-before-download chunker-downloaded chunker-parsed chunker-before-commit chunker-committed);
my $n = 0;
foreach my $form ('gzip', 'UTF-16', 'zstd of UTF-16')
{
	foreach my $point (@points)
	{
		my $text = next_text();
		my $how = $n++ % 3 == 0 ? 'kill' : 'terminate';
		my $uri = s3_put("killed-$salt", content => $form{$form}->($text));
		# in the first segment, which is read again unless it was committed, and once more in the second
		inject($node, $point, $how, $point eq 'chunker-committed' ? () : 'pass', 'terminate');
		my $id = submit($uri);
		wait_for_injected($node, $point);
		check($id, $text, "$form, $how at $point");
	}
}

# Two readings.
foreach my $form ('gzip', 'UTF-16')
{
	foreach my $point ('scanner-before-commit', 'chunker-before-commit')
	{
		my $text = next_text('repeat');
		inject($node, $point, 'terminate');
		my $id = submit(s3_put("twice-$salt", content => $form{$form}->($text)), '"duplicates": "last"');
		my %last;
		my ($header, @lines) = split /\n/, good($text);
		$last{ (split /,/)[0] } = $_ foreach @lines;
		my $good = join("\n", $header, values %last) . "\n";
		wait_for_injected($node, $point);
		check($id, $text, "$form, duplicates, terminated at $point", good => $good, superseded => @lines - keys %last);
	}
}

# From where it stands, not from the beginning, where that can be: the second half of a file in UTF-16.
{
	my $text = next_text();
	my $file = $form{'UTF-16'}->($text);
	my $uri = s3_put('restart', content => $file);
	my $id = submit($uri);
	check($id, $text, 'places to begin anew');
	my ($restart, $raw, $size) = split /\|/, value_of($node, "SELECT restart_offset, restart_raw_offset, size FROM bulk_action_internal.sources JOIN bulk_action_internal.actions USING (action_no) WHERE id = '$id'");
	is(substr($file, 0, $raw) eq encode('UTF-16LE', decode('UTF-8', "\xEF\xBB\xBF" . substr($text, 0, $restart - 3))) ? 'same' : 'other',
		'same', 'the place in the text is that in the file');
	cmp_ok($raw, '>', $size / 2, 'and it has moved on');
}

# --- bounds -----------------------------------------------------------------------------------------------

# 400 MB of blank lines and comments in a few kB.
{
	my $path = $node->basedir . '/bomb.zst';
	system("( echo id,first_name; head -c 400000000 /dev/zero | tr '\\0' '\\n' ) | zstd -q -f -o $path") == 0 or die;
	cmp_ok(-s $path, '<', 100_000, 'the file is small');
	my $id = submit("file://$path");
	wait_until_ended($id);
	my ($state, $code, $message, $detail) = split /\|/, value_of($node,
		"SELECT state, error_code, error_message, error_detail FROM bulk_action.bulk_actions WHERE id = '$id'");
	is("$state $code $message", 'failed 54000 the file becomes too large when it is decompressed', 'a bomb is refused');
	like($detail, qr/more than 1000 times as large, and more than 64 MiB/, 'and it says why');
}

# What a worker has for itself, without shared memory.
{
	my $text = next_text() . join('', map { "$_,\"q\"\"\",\"" . ('z;' x 400) . "\"\n" } map { $_ % 12_000 + 1 } 1 .. 60_000);
	my $id = submit('file://' . write_file($node->basedir . '/large.zst', zstd($text =~ s/,/;/gr =~ s/\xE2\x82\xAC/E/gr, '-19')), '"delimiter": ";"');
	my $peak = peak_of_workers($node, $id);
	is(value_of($node, "SELECT state || ' ' || total FROM bulk_action.bulk_action_stat('$id')"), 'completed 72000', 'a large file');
	cmp_ok($peak, '>', 1000, 'memory was looked at');
	# 32 MiB for the source and what is made of it, the rest for a session and its caches
	cmp_ok($peak, '<', 48 * 1024, 'memory does not grow with it');
}
unlike(read_file($node->logfile), qr/TRAP:|makes no progress|shorter than when/, 'nothing strange in the log');
done_testing();
