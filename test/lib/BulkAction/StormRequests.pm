# BulkAction::StormRequests - what test/storm asks for while actions run: pause, resume, cancel and retry,
# at random moments; and whether all of them have come to their end.
package BulkAction::StormRequests;

use strict;
use warnings;

use BulkAction::StormFaults;

# What an impatient server may give up with: workers that were interrupted or ended, crashes.
my $ended = qr/^(57014|57P0[12])\z/;

sub new
{
	my ($class, $query) = @_;
	$query->(<<'SQL');
CREATE FUNCTION public.storm_ask(what text, id uuid, max_errors jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE noted boolean;
BEGIN
	IF what = 'retry' THEN
		RETURN bulk_action.bulk_action_retry(id, max_errors);
	END IF;
	EXECUTE format('SELECT bulk_action.bulk_action_%s($1)', what) INTO noted USING id;
	RETURN noted;
EXCEPTION WHEN object_not_in_prerequisite_state THEN
	RETURN false;  -- it is not as it was seen any more
END $$;
SQL
	return bless { query => $query, counts => { map { $_ => 0 } qw(pause resume cancel retry) }, failures => {} }, $class;
}

# begin($pausing, @actions): those that are looked after from now on; whether they are paused, too.
sub begin
{
	my ($self, $pausing, @actions) = @_;
	@$self{qw(pausing actions)} = ($pausing, \@actions);
	# in vain, but it may be tried
	$_->{retries} = $_->{doomed} ? int rand 3 : 0 foreach @actions;
	return;
}

# How they stand; dies of a failure that must not be. True if all have ended as they may, and nothing that
# was asked for is still to be acted upon.
sub look
{
	my ($self) = @_;
	my $ids = join ', ', map { "'$_->{id}'" } @{ $self->{actions} };
	my ($events, @lines) = split /\n/, $self->{query}->(<<"SQL");
SELECT count(*) FROM bulk_action_internal.events;
SELECT a.id, a.state, coalesce(a.error_code, ''), s.total - s.unprocessed,
       (SELECT string_agg(e.kind, ' ') FROM bulk_action_internal.events AS e JOIN bulk_action_internal.actions AS i USING (action_no)
         WHERE i.id = a.id), a.error_message
  FROM bulk_action.bulk_actions AS a, LATERAL bulk_action.bulk_action_stat(a.id) AS s WHERE id IN ($ids);
SQL
	my %line = map { /^(\S{36})\|(.*)/ ? ($1 => $2) : () } @lines;
	my $all_over = $events eq '0';
	foreach my $action (@{ $self->{actions} })
	{
		@$action{qw(state code tried pending message)} = split /\|/, $line{ $action->{id} }, 5;
		$action->{over} = $action->{state} =~ /^(completed|cancelled)\z/ || is_hopeless($action);
		$all_over &&= $action->{over};
		die "action $action->{id} failed: $action->{code} $action->{message}\n"
		  if $action->{state} eq 'failed' && !is_hopeless($action) && !may_have_failed($action);
		die "action $action->{id} was cancelled, which nobody has asked for\n"
		  if $action->{state} eq 'cancelled' && !$action->{cancels};
	}
	return $all_over;
}

sub is_hopeless { return $_[0]{doomed} && $_[0]{state} eq 'failed' && $_[0]{code} eq '42703' }

sub may_have_failed
{
	my ($action) = @_;
	return 1 if $action->{fickle} eq 'retry' && $action->{code} eq 'BA422';
	return 1 if $action->{may_fail} && $action->{source} eq 's3' && $action->{code} =~ BulkAction::StormFaults::codes();
	return $action->{impatient} && ($action->{code} =~ $ended || $action->{message} =~ /^injected error at /);
}

# go_on($stormy): looks, and asks for what is to be asked for; what look() says. When the storm is over,
# whatever keeps an action from its end is seen to at once.
sub go_on
{
	my ($self, $stormy) = @_;
	my $all_over = $self->look;
	my @wanted;
	foreach my $action (@{ $self->{actions} })
	{
		my ($state, $over) = @$action{qw(state over)};
		my $want = sub { push @wanted, [ $action, @_ ] };
		if ($action->{fickle} eq 'cancel' && !$over && $action->{tried} >= $action->{cancel_at} * $action->{rows}
			&& (!$action->{cancels} || rand() < 0.2))
		{
			$want->('cancel');
		}
		if ($state eq 'failed' && $action->{pending} !~ /retry/ && (!$over || $action->{retries}-- > 0) && (!$stormy || rand() < 0.3))
		{
			# with a budget that is hardly greater it fails again
			my $budget = $stormy && rand() < 0.3 ? $action->{options}{max_errors} + int rand 50 : 1_000_000;
			$want->('retry', $action->{fickle} eq 'retry' ? $budget : undef);
		}
		next if $over || $state eq 'failed' || !$self->{pausing};
		# the first one for certain
		$want->('pause') if $stormy && (!$self->{counts}{pause} || rand() < 0.1);
		# a pause may have been asked for that nobody has acted upon
		$want->('resume') if !$stormy || rand() < 0.3;
	}
	$self->ask(@wanted) if @wanted;
	return $all_over && !@wanted;
}

# Each wanted: action, what, max_errors. Counts what was noted, if it was not before.
sub ask
{
	my ($self, @wanted) = @_;
	my @noted = split /\n/, $self->{query}->(join '', map {
		my ($action, $what, $budget) = @$_;
		my $max_errors = defined $budget ? "'$budget'" : 'NULL';
		"SELECT public.storm_ask('$what', '$action->{id}', $max_errors);\n"
	} @wanted);
	foreach my $n (0 .. $#wanted)
	{
		my ($action, $what) = @{ $wanted[$n] };
		# noted perhaps although the answer was lost, and then asked for again
		$action->{cancels}++ if $what eq 'cancel';
		next if $noted[$n] ne 't' || $action->{pending} =~ /\b$what\b/;
		$self->{counts}{$what}++;
		$self->{failures}{ $action->{code} }++ if $what eq 'retry';
	}
	return;
}

1;
