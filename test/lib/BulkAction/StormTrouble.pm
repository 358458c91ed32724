# BulkAction::StormTrouble - what test/storm does to a server: kills of processes from outside, and at
# named points from inside; and queries that get through all the same.
package BulkAction::StormTrouble;

use strict;
use warnings;

use BulkAction;
use IPC::Run ();
use POSIX ();

# Where which error makes sense: passing trouble in the stages, which try again; anything in processes
# that start anew, and in a client.
my @passing = ('error 58030', 'error 40001', 'error 53100', 'error 55P03');

sub new
{
	my ($class, $node) = @_;
	return bless {
		node => $node, points => [ injection_points(), 'trigger' ], armed => {}, strikes => {},
		fired => {}, restarts => 0, polls => 0, pollers => [], mismatches => [] }, $class;
}

# --- queries that get through ----------------------------------------------------------------------------

# One try; (exit status of psql, output, error).
sub try_query
{
	my ($self, $sql) = @_;
	my ($out, $err) = ('', '');
	# from a file: a psql that cannot connect reads no standard input
	my $file = write_file($self->{node}->basedir . '/query.sql', "SET client_min_messages = warning;\n$sql");
	IPC::Run::run(
		[ $self->{node}->installed_command('psql'), '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $self->{node}->connstr('postgres'), '-f', $file ],
		'>', \$out, '2>', \$err);
	my $status = $? >> 8;
	chomp $out;
	return ($status, $out, $err);
}

# Until it succeeds, whatever is being done to the server; dies of an error that is the query's own. So
# it must be one that can be run again.
sub query
{
	my ($self, $sql) = @_;
	my $result;
	wait_until(
		sub {
			my ($status, $out, $err) = $self->try_query($sql);
			$result = $out;
			return 1 if $status == 0;
			die "psql: $err\n$sql" unless $status == 2
			  || $err =~ /injected (fatal )?error|terminating connection|canceling statement|connection to server|server closed/;
			$self->keep_up;
			return 0;
		},
		what => 'a query to succeed', timeout => 240);
	return $result;
}

# --- the server --------------------------------------------------------------------------------------------

sub postmaster_pid
{
	my ($self) = @_;
	open(my $file, '<', $self->{node}->data_dir . '/postmaster.pid') or return;
	my $pid = <$file>;
	return defined $pid && $pid =~ /^(\d+)/ ? $1 : undef;
}

# Starts the server if it is down: after the death of a postmaster, as soon as its last child has gone.
sub keep_up
{
	my ($self) = @_;
	my $node = $self->{node};
	my $pid = $self->postmaster_pid;
	return if defined $pid && kill(0, $pid);
	# forgets the postmaster that is gone
	$node->stop('immediate', fail_ok => 1);
	my ($out, $err);
	wait_until(
		sub {
			IPC::Run::run(
				[ $node->installed_command('pg_ctl'), '-w', '-D', $node->data_dir, '-l', $node->logfile, 'start' ],
				'>', \$out, '2>', \$err);
			return $? == 0;
		},
		what => 'the server to start again', last => sub { "$out$err" });
	$node->_update_pid(1);
	$self->{restarts}++;
	return;
}

# --- from outside --------------------------------------------------------------------------------------------

sub pid_like
{
	my ($self, $type) = @_;
	my (undef, $out) = $self->try_query(
		"SELECT pid FROM pg_stat_activity WHERE backend_type = '$type' AND pid <> pg_backend_pid()");
	my @pids = grep { /^\d+\z/ } split /\n/, $out;
	return @pids ? $pids[ rand @pids ] : undef;
}

my %type = (
	worker => 'bulk_action worker', coordinator => 'bulk_action coordinator', launcher => 'bulk_action launcher',
	client => 'client backend');

# What is done how often.
my @strikes = (
	([ 'inject' ]) x 44, ([ 'terminate', 'worker' ]) x 12, ([ 'cancel', 'worker' ]) x 12, ([ 'kill', 'worker' ]) x 5,
	([ 'terminate', 'coordinator' ]) x 6, ([ 'kill', 'coordinator' ]) x 2, ([ 'cancel', 'coordinator' ]) x 2,
	([ 'terminate', 'launcher' ]) x 1, ([ 'kill', 'launcher' ]) x 1,
	([ 'terminate', 'client' ]) x 3, ([ 'cancel', 'client' ]) x 2, ([ 'kill', 'client' ]) x 2,
	([ 'stop', 'immediate' ]) x 2, ([ 'stop', 'fast' ]) x 2, ([ 'kill', 'postmaster' ]) x 2);

sub strike
{
	my ($self) = @_;
	my ($how, $whom) = @{ $strikes[ rand @strikes ] };
	return $self->arm if $how eq 'inject';
	my $name = "$how $whom";
	if ($how eq 'stop')
	{
		$self->{node}->stop($whom, fail_ok => 1);
		$self->keep_up;
	}
	elsif ($whom eq 'postmaster')
	{
		my $pid = $self->postmaster_pid;
		return unless defined $pid && kill('KILL', $pid);
		# until it is a process no more
		wait_until(sub { !kill(0, $pid) }, what => 'the postmaster to die');
		$self->keep_up;
	}
	else
	{
		my $pid = $self->pid_like($type{$whom}) // return;
		return unless kill({ kill => 'KILL', terminate => 'TERM', cancel => 'INT' }->{$how}, $pid);
	}
	$self->{strikes}{$name}++;
	return;
}

# --- from inside ---------------------------------------------------------------------------------------------

# Arms a point that is not armed, this one or a random one.
sub arm
{
	my ($self, $wanted) = @_;
	my @free = grep { !$self->{armed}{$_} && $_ eq ($wanted // $_) } @{ $self->{points} };
	return unless @free;
	my $point = $free[ rand @free ];
	my @errors = $point =~ /^(applier|chunker|trigger)/ ? @passing : ('error');
	my @what = (('kill') x 3, 'abort', ('terminate') x 3, ('cancel') x 2, 'fatal', 'postmaster', (@errors) x (@errors > 1 ? 1 : 4));
	my $what = $what[ rand @what ];
	$self->{armed}{$point} = $what;
	inject($self->{node}, $point, $what);
	return;
}

# Counts what has happened.
sub look_at_points
{
	my ($self) = @_;
	foreach my $point (grep { is_injected($self->{node}, $_) } sort keys %{ $self->{armed} })
	{
		my $what = delete $self->{armed}{$point};
		$self->{fired}{$point}++;
		$self->{strikes}{ 'injected ' . ($what =~ s/ .*//r) }++;
	}
	return;
}

# Nothing happens any more.
sub disarm
{
	my ($self) = @_;
	$self->look_at_points;
	foreach my $point (sort keys %{ $self->{armed} })
	{
		delete $self->{armed}{$point} if unlink($self->{node}->data_dir . "/injection/$point");
	}
	$self->look_at_points;
	return;
}

# --- the accounting --------------------------------------------------------------------------------------------

my $polls_per_run = 400;

# Two sessions that look at the statistics all the time; started again when something has ended them.
sub keep_polling
{
	my ($self) = @_;
	my $node = $self->{node};
	my $script = $node->basedir . '/poll.sql';
	write_file($script, <<'SQL' x $polls_per_run) unless -e $script;
SELECT 'polled', count(*), string_agg(s::text, ' and ') FILTER (WHERE s.total <> s.updated + s.inserted + s.deleted
       + s.unchanged + s.not_found + s.superseded + s.failed + s.unprocessed)
  FROM bulk_action.bulk_actions AS a, LATERAL bulk_action.bulk_action_stat(a.id) AS s
 WHERE a.state IN ('queued', 'running') OR a.finished_at > now() - interval '2 seconds';
SELECT 'paused' FROM pg_sleep(0.005);
SQL
	foreach my $n (0, 1)
	{
		my $poller = $self->{pollers}[$n];
		if ($poller)
		{
			next if waitpid($poller->{pid}, POSIX::WNOHANG) == 0;
			$self->take_polls($poller);
		}
		$poller = { out => $node->basedir . "/poll.$n.out" };
		$poller->{pid} = fork() // die "fork: $!";
		if ($poller->{pid} == 0)
		{
			open(STDOUT, '>', $poller->{out});
			open(STDERR, '>', '/dev/null');
			{ exec($node->installed_command('psql'), '-XqAt', '-d', $node->connstr('postgres'), '-f', $script) }
			POSIX::_exit(127);
		}
		$self->{pollers}[$n] = $poller;
	}
	return;
}

sub take_polls
{
	my ($self, $poller) = @_;
	my $text = read_file($poller->{out});
	while ($text =~ /^polled\|(\d+)\|(.*)$/mg)
	{
		$self->{polls} += $1;
		push @{ $self->{mismatches} }, $2 if $2 ne '';
	}
	return;
}

sub stop_polling
{
	my ($self) = @_;
	foreach my $poller (splice @{ $self->{pollers} })
	{
		kill('TERM', $poller->{pid});
		waitpid($poller->{pid}, 0);
		$self->take_polls($poller);
	}
	return;
}

1;
