# BulkAction::StormFaults - what test/storm does to the way to S3: faults of a proxy, each of them on the
# requests for the file of one action.
#
# Mild ones pass: whoever asks again, often enough, gets the file. After a harsh one the action may have
# failed for good, until it is retried; only actions of which {may_fail} is set meet those.
package BulkAction::StormFaults;

use strict;
use warnings;

use BulkAction;

# How long S3 is away at most; who tries twice gives up after some twenty seconds.
use constant OUTAGE_SECONDS => 40;

# The server s3 behind a proxy, for these roles.
sub new
{
	my ($class, $node, @roles) = @_;
	my $proxy = new_proxy();
	my $s3 = s3();
	server_for_s3($node, role => $roles[0], endpoint => $proxy->endpoint);
	$node->safe_psql('postgres', <<"SQL") foreach @roles[ 1 .. $#roles ];
CREATE USER MAPPING FOR $_ SERVER s3 OPTIONS (access_key_id '$s3->{access_key_id}', secret_access_key '$s3->{secret_access_key}');
GRANT USAGE ON FOREIGN SERVER s3 TO $_;
SQL
	return bless { proxy => $proxy, armed => {}, fired => {} }, $class;
}

# Each gives a fault for a file of so many bytes.
my @mild = (
	sub { [ 'drop', times => 1 + int rand 3 ] },
	sub { [ 'refuse', times => 1 + int rand 3 ] },
	sub { [ 'refuse', times => 8 ] },         # more than one request bears
	sub { [ 'cut', method => 'GET', bytes => int rand $_[0], times => 1 + int rand 4 ] },
	sub { [ 'reset', method => 'GET', bytes => int rand $_[0], times => 1 + int rand 4 ] },
	sub { [ 'stall', method => 'GET', bytes => int rand $_[0] ] },
	sub { [ 'hold' ] },
	sub { [ 'slow', method => 'GET', bytes => 10_000 + int rand 50_000 ] },
	sub { [ 'header', method => 'GET', set => 'Content-Length:' . int rand 2 * $_[0] ] },
	sub { [ 'status', code => 503, s3code => 'SlowDown', times => 1 + int rand 3 ] },
	sub { [ 'status', code => 503, s3code => 'SlowDown', header => 'Retry-After:1' ] },
	sub { [ 'status', code => 500, s3code => 'InternalError', times => 1 + int rand 3 ] },
	sub { [ 'status', code => 429, s3code => 'TooManyRequests' ] });
my @harsh = (
	sub { [ 'refuse', times => 0 ] },         # until it is let go
	sub { [ 'status', code => 503, s3code => 'SlowDown', times => 0 ] },
	sub { [ 'status', code => 403, s3code => 'AccessDenied', times => 2 ] },
	sub { [ 'status', code => 404, s3code => 'NoSuchKey', times => 2 ] },
	sub { [ 'status', code => 412, s3code => 'PreconditionFailed', times => 2 ] },
	sub { [ 'recode', code => 200, method => 'GET' ] },
	sub { [ 'header', method => 'HEAD', remove => 'ETag' ] },
	sub { [ 'header', method => 'HEAD', set => 'Content-Length:' . ($_[0] + 7) ] },
	sub { [ 'endless', code => 206, method => 'GET', part => 'body' ] });

# What an action that met them may have failed with.
sub codes { return qr/^(08\d\d\d|BA403|BA404|BA412|BA502)\z/ }

# Arms a random fault for one of the actions that read from S3.
sub arm
{
	my ($self, @actions) = @_;
	my @read = grep { $_->{source} eq 's3' } @actions;
	return unless @read;
	my $action = $read[ rand @read ];
	my @faults = $action->{may_fail} && rand() < 0.3 ? @harsh : @mild;
	my ($what, %option) = @{ $faults[ rand @faults ]->(-s $action->{csv}) };
	$option{skip} = int rand 3 if rand() < 0.5;
	$self->arm_for($action, $what, %option);
	return;
}

# arm_for($action, what, option => value, ...): this one; returns its id.
sub arm_for
{
	my ($self, $action, $what, %option) = @_;
	my $id = $self->{proxy}->fault($what, %option, path => "/\Q$action->{name}\E\\.csv");
	$self->{armed}{$id} = $what . ($what eq 'status' ? " $option{code}" : '');
	return $id;
}

# S3 is away for one of the actions, until that has given up, or disarm().
sub begin_outage
{
	my ($self, @actions) = @_;
	my @read = grep { $_->{source} eq 's3' } @actions;
	return unless @read;
	my $action = $read[ rand @read ];
	my $id = $self->arm_for($action, rand() < 0.5 ? ('refuse', times => 0) : ('status', code => 503, s3code => 'SlowDown', times => 0));
	$self->{outage} = { action => $action, id => $id, end => time + OUTAGE_SECONDS };
	return;
}

sub is_outage
{
	my ($self) = @_;
	my $outage = $self->{outage} // return 0;
	return 1 unless ($outage->{action}{code} // '') =~ /^08/ || $outage->{action}{over} || time > $outage->{end};
	$self->{proxy}->clear($outage->{id});
	delete $self->{outage};
	return 0;
}

# What is kept back may go on.
sub let_go
{
	my ($self) = @_;
	$self->{proxy}->release;
	if (rand() < 0.2)
	{
		$self->{proxy}->clear($_) foreach grep { !$self->{outage} || $_ != $self->{outage}{id} } keys %{ $self->{armed} };
	}
	return;
}

# Nothing happens any more; counts what has.
sub disarm
{
	my ($self) = @_;
	$self->{proxy}->clear;
	foreach my $id (keys %{ $self->{armed} })
	{
		my $fired = $self->{proxy}->fired($id);
		$self->{fired}{ $self->{armed}{$id} } += $fired if $fired;
	}
	$self->{armed} = {};
	delete $self->{outage};
	return;
}

1;
