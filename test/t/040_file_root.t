# Files of the server: only for members of pg_read_server_files, only below bulk_action.file_root, only
# regular files; and what was checked at submit is checked again when the file is read, because whoever
# may write to that directory can put anything in the file's place meanwhile.
use strict;
use warnings;

use BulkAction;
use POSIX qw(mkfifo);
use Test::More;

my $node = new_node('main');
my $base = $node->basedir;
my ($root, $outside) = ("$base/files", "$base/outside");
mkdir $_ or die "$_: $!" foreach $root, "$root/sub", $outside, "$base/files-too", "$base/other";
$node->append_conf('postgresql.conf', <<CONF);
bulk_action.file_root = '$root'
# a segment of a file is read only when nothing of the one before is left
bulk_action.max_queued_chunks = 1
# and always by the same worker, who might remember what he was allowed
bulk_action.max_workers = 1
CONF
$node->reload;

create_contacts($node, 5_000);
serial_copy($node, 'public.contacts');
register_contacts($node);
create_role($node, 'reader');
create_role($node, 'stranger');
$node->safe_psql('postgres', <<'SQL');
GRANT SELECT, UPDATE ON public.contacts TO reader, stranger;
GRANT pg_read_server_files TO reader;
SQL

# --- helpers -----------------------------------------------------------------------------------

# Ends with nothing applied, which is compared at the end of each part: secrets have no id that exists.
my $small = "id,first_name\n1,small\n";
my $secret = "id,first_name\n2,secret\n";
write_file("$outside/secret.csv", $secret);

sub is_refused
{
	my ($role, $uri, $code, $message, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($status, $out, $err) = $node->psql('postgres', <<SQL);
SET SESSION AUTHORIZATION $role;
\\set VERBOSITY verbose
SELECT bulk_action.bulk_action_submit('$uri');
SQL
	like($err, qr/ERROR:  $code: $message/, "$name is refused at submit");
	unlike($err, qr/2,secret/, "$name: nothing of the file is shown") if $message =~ /permission/;
}

# The small file changes nothing the second time.
sub there_is_something_to_change
{
	$node->safe_psql('postgres', "UPDATE public.$_ SET first_name = 'before' WHERE id = 1") foreach qw(contacts contacts_serial);
	return;
}

sub is_applied
{
	my ($uri, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	there_is_something_to_change();
	my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('$uri')", as => 'reader');
	subtest $name => sub {
		my $stat = final_stat($node, $id);
		is_deeply([ @{$stat}{qw(state total updated error_message)} ], [ 'completed', 1, 1, undef ],
			'the file is applied');
		apply_serially($node, content => $small);
		same_content($node, 'public.contacts', 'public.contacts_serial', 'the table is as plain SQL leaves it');
	};
}

# Submits a small file, and has a change made before the transaction of submit is committed.
sub fails_after
{
	my ($name, %case) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $path = $case{path} // "$root/small.csv";
	write_file($path, $small);
	my $session = $node->background_psql('postgres');
	$session->query_safe('BEGIN');
	$session->query_safe('SET LOCAL SESSION AUTHORIZATION reader');
	my $id = $session->query_safe("SELECT bulk_action.bulk_action_submit('file://$path')");
	foreach my $command (@{ $case{shell} // [] })
	{
		system($command) == 0 or die "$command: $?";
	}
	$node->safe_psql('postgres', $case{sql}) if $case{sql};
	$session->query_safe('COMMIT');
	$session->quit;
	subtest $name => sub {
		my $stat = final_stat($node, $id);
		is_deeply([ @{$stat}{qw(state error_code total updated)} ], [ 'failed', $case{code}, 0, 0 ],
			'the action fails and applies nothing');
		like($stat->{error_message}, $case{message}, 'it says why');
		same_content($node, 'public.contacts', 'public.contacts_serial', 'the table is as it was');
	};
	$node->safe_psql('postgres', $case{sql_after}) if $case{sql_after};
	system(qq(rm -rf "$root/small.csv" "$root/small.old")) == 0 or die "rm: $?";
	return;
}

# --- at submit -------------------------------------------------------------------------------------

write_file("$root/small.csv", $small);
write_file("$root/sub/small.csv", $small);
write_file("$base/files-too/small.csv", $small);
symlink("$outside/secret.csv", "$root/out.csv") or die $!;
symlink($outside, "$root/outdir") or die $!;
symlink('sub/small.csv', "$root/in.csv") or die $!;
symlink('nowhere.csv', "$root/dangling.csv") or die $!;
mkfifo("$root/pipe.csv", 0600) or die $!;

my $denied = 'permission denied to read file';
is_refused('stranger', "file://$root/small.csv", '42501', 'permission denied to read a file of the server',
	'a file for somebody who is no member of pg_read_server_files');
is_refused('reader', "file://$outside/secret.csv", '42501', $denied, 'a file outside of the root');
is_refused('reader', 'file:///etc/passwd', '42501', $denied, 'a file of the system');
is_refused('reader', "file://$root/../outside/secret.csv", '42501', $denied, 'a way out by ".."');
is_refused('reader', "file://$base/files-too/small.csv", '42501', $denied,
	'a directory whose name begins like the root');
is_refused('reader', "file://$root/out.csv", '42501', $denied, 'a symbolic link to a file outside');
is_refused('reader', "file://$root/outdir/secret.csv", '42501', $denied, 'a symbolic link to a directory outside');
is_refused('reader', 'file:///dev/zero', '42501', $denied, 'a device');
is_refused('reader', "file://$root", '42501', $denied, 'the root itself');
is_refused('reader', "file://$root/sub", '42809', '".*" is not a regular file', 'a directory');
is_refused('reader', "file://$root/pipe.csv", '42809', '".*" is not a regular file', 'a pipe');
is_refused('reader', "file://$root/nowhere.csv", 'BA404', 'could not resolve path', 'a file that does not exist');
is_refused('reader', "file://$root/dangling.csv", 'BA404', 'could not resolve path', 'a link to nothing');
is_refused('reader', "file://$root/%73mall.csv", 'BA404', 'could not resolve path', 'a name that is encoded');
is_refused('reader', 'file://small.csv', '22023', 'invalid source URI', 'a path that is not absolute');
is_refused('reader', "FILE://$root/small.csv", '22023', 'unsupported source URI', 'a scheme in capitals');
is_refused('reader', "file://localhost$root/small.csv", '22023', 'invalid source URI', 'a host');
is(value_of($node, 'SELECT count(*) FROM bulk_action.bulk_actions'), 0, 'no action comes of what is refused');

is_applied("file://$root/small.csv", 'a file below the root');
is_applied("file://$root/sub/../sub/./small.csv", '".." that stays below the root');
is_applied("file://$root/in.csv", 'a symbolic link that stays below the root');

# --- between submit and run --------------------------------------------------------------------------

my $swap = qq(mv "$root/small.csv" "$root/small.old");
fails_after('a file that is removed before it is read',
	shell => [ qq(rm "$root/small.csv") ], code => 'BA404', message => qr/^could not resolve path/);
fails_after('a file that has become a link to one outside',
	shell => [ $swap, qq(ln -s "$outside/secret.csv" "$root/small.csv") ],
	code => '42501', message => qr/^$denied/);
fails_after('a file that has become a directory',
	shell => [ $swap, qq(mkdir "$root/small.csv") ], code => '42809', message => qr/is not a regular file$/);
fails_after('a file that has become a pipe',
	shell => [ $swap, qq(mkfifo "$root/small.csv") ], code => '42809', message => qr/is not a regular file$/);
fails_after('a file whose directory has become a link to one outside',
	path => "$root/sub/secret.csv",
	shell => [ qq(mv "$root/sub" "$root/sub.old"), qq(ln -s "$outside" "$root/sub") ],
	code => '42501', message => qr/^$denied/);
fails_after('a file that the server may not read',
	shell => [ qq(chmod 0 "$root/small.csv") ], code => 'BA404',
	message => qr/^could not open file ".*": Permission denied$/);
fails_after('a submitter who is no member of pg_read_server_files any more',
	sql => 'REVOKE pg_read_server_files FROM reader', sql_after => 'GRANT pg_read_server_files TO reader',
	code => '42501', message => qr/^permission denied to read a file of the server$/);
system(qq(rm "$root/sub" && mv "$root/sub.old" "$root/sub")) == 0 or die;

# No worker is left over that has not heard of the change.
$node->append_conf('postgresql.conf', 'bulk_action.idle_timeout = 0');
$node->reload;
wait_for($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'bulk_action worker'");
write_file("$root/small.csv", $small);
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN');
my $id = $session->query_safe("SELECT bulk_action.bulk_action_submit('file://$root/small.csv')");
$node->append_conf('postgresql.conf', "bulk_action.file_root = '$base/other'");
$node->reload;
wait_for($node, "SHOW bulk_action.file_root", expect => "$base/other");
$session->query_safe('COMMIT');
$session->quit;
my $stat = final_stat($node, $id);
is_deeply([ @{$stat}{qw(state error_code total)} ], [ 'failed', '42501', 0 ],
	'a root that was moved before the file is read: the action fails');
$node->append_conf('postgresql.conf', "bulk_action.file_root = ''");
$node->reload;
wait_for($node, "SHOW bulk_action.file_root", expect => '');
is_refused('reader', "file://$root/small.csv", '55000', 'sources on the server\'s file system are not enabled',
	'any file, where there is no root,');
symlink($root, "$base/link") or die $!;
$node->append_conf('postgresql.conf', "bulk_action.file_root = '$base/link/'\nbulk_action.idle_timeout = '10s'");
$node->reload;
wait_for($node, "SHOW bulk_action.file_root", expect => "$base/link/");
is_applied("file://$root/small.csv", 'a root that is itself a symbolic link');

write_file("$root/small.csv", $secret);
there_is_something_to_change();
$id = value_of($node, <<SQL);
BEGIN;
SELECT bulk_action.bulk_action_submit('file://$root/small.csv');
\\! printf 'id,first_name\\n1,small\\n' > "$root/small.new" && mv "$root/small.new" "$root/small.csv"
COMMIT;
SQL
$stat = final_stat($node, $id);
apply_serially($node, content => $small);
is_deeply([ @{$stat}{qw(state total updated)} ], [ 'completed', 1, 1 ],
	'a file that is replaced by another before it is read: the action completes');
same_content($node, 'public.contacts', 'public.contacts_serial', '... with the file that is there when it runs');

# --- during the run ----------------------------------------------------------------------------------

# The file has two segments. A row of the first is locked, so that the second is not read before it is
# released; meanwhile the file is changed.
my $note = 'n' x 400;

sub large
{
	my ($mark) = @_;
	return "id,last_name,notes\n" . join '', map { "$_,$mark $_,$note\n" } 1 .. 5_000;
}

sub fails_during
{
	my ($name, %case) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $path = "$root/large.csv";
	my $mark = $case{mark};
	write_file($path, large($mark));
	my $blocker = $node->background_psql('postgres');
	$blocker->query_safe('BEGIN');
	$blocker->query_safe('SELECT id FROM public.contacts WHERE id = 1 FOR UPDATE');
	my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$path')", as => 'reader');
	wait_for($node, <<SQL, what => 'the first segment to be cut, and the worker to wait for the row');
SELECT s.total > 0 AND NOT s.total_is_final
   AND EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bulk_action worker' AND wait_event_type = 'Lock')
  FROM bulk_action.bulk_action_stat('$id') AS s
SQL
	$case{change}->($path) if $case{change};
	$node->safe_psql('postgres', $case{sql}) if $case{sql};
	$blocker->query_safe('COMMIT');
	$blocker->quit;
	subtest $name => sub {
		my $stat = final_stat($node, $id);
		is_deeply([ @{$stat}{qw(state error_code)} ], [ 'failed', $case{code} ], 'the action fails');
		like($stat->{error_message}, $case{message}, 'it says why');
		ok($stat->{updated} > 1_000 && $stat->{updated} < 4_000 && $stat->{updated} == $stat->{total},
			'what was read before is applied') or diag(explain($stat));
		is(value_of($node, "SELECT count(*) FROM public.contacts WHERE last_name = '$mark ' || id AND notes = '$note'"),
			$stat->{updated}, 'the table has the rows that the statistics tell of');

		# rows are read in order: what is applied is the beginning of the file
		apply_serially($node, mode => 'set',
			content => join '', map { "$_\n" } (split /\n/, large($mark))[ 0 .. $stat->{updated} ]);
		same_content($node, 'public.contacts', 'public.contacts_serial',
			'the table is as plain SQL leaves it with the rows that were read');
	};
	$node->safe_psql('postgres', $case{sql_after}) if $case{sql_after};
	system(qq(rm -rf "$path" "$path.old")) == 0 or die "rm: $?";
	return;
}

fails_during('a file that is replaced while it is read', mark => 'replaced',
	change => sub { write_file("$_[0].new", large('other')); rename("$_[0].new", $_[0]) or die $! },
	code => 'BA412', message => qr/^file ".*" was changed while it was being read$/);
fails_during('a file that is written to while it is read', mark => 'changed',
	change => sub {
		open(my $file, '+<', $_[0]) or die $!;
		seek($file, -20, 2);
		print $file 'other';
		close($file) or die $!;
	},
	code => 'BA412', message => qr/^file ".*" was changed while it was being read$/);
fails_during('a file that is cut off while it is read', mark => 'shorter',
	change => sub { truncate($_[0], 1_500_000) or die $! },
	code => 'BA412', message => qr/^file ".*" was changed while it was being read$/);
fails_during('a file that is removed while it is read', mark => 'removed',
	change => sub { unlink($_[0]) or die $! },
	code => 'BA404', message => qr/: No such file or directory$/);
fails_during('a file that becomes a link to one outside while it is read', mark => 'linked',
	change => sub {
		my ($path) = @_;
		rename($path, "$outside/large.csv") && symlink("$outside/large.csv", $path) or die $!;
	},
	code => '42501', message => qr/^$denied/);
fails_during('a file that becomes a pipe while it is read', mark => 'piped',
	change => sub { rename($_[0], "$_[0].old") && mkfifo($_[0], 0600) or die $! },
	code => '42809', message => qr/is not a regular file$/);
fails_during('a submitter who ceases to be a member of pg_read_server_files while the file is read', mark => 'revoked',
	sql => 'REVOKE pg_read_server_files FROM reader', sql_after => 'GRANT pg_read_server_files TO reader',
	code => '42501', message => qr/^permission denied to read a file of the server$/);

is(value_of($node, "SELECT count(*) FROM public.contacts WHERE first_name = 'secret'"), 0,
	'nothing from outside of the root has come into the table');

$node->stop;
done_testing();
