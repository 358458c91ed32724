# Random actions while processes and the server die at random, against plain SQL: test/storm, for
# BULK_ACTION_STORM_MINUTES (2), with the seed BULK_ACTION_STORM_SEED (random). And that its checker
# notices what is wrong.
use strict;
use warnings;

use BulkAction;
use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use Test::More;

my $minutes = $ENV{BULK_ACTION_STORM_MINUTES} // 2;
my $seed = $ENV{BULK_ACTION_STORM_SEED} // int rand 1_000_000;
my $storm = dirname(__FILE__) . '/../storm';

sub run_storm
{
	my @arguments = @_;
	note("test/storm @arguments");
	my $output = '';
	my $ok = IPC::Run::run([ $^X, $storm, @arguments ], '>', \$output, '2>&1');
	return ($ok, $output);
}

my ($ok, $output) = run_storm('--self-test', '--seed', $seed);
ok($ok, 'the checker notices everything that is falsified') or diag($output);
like($output, qr/^self-test: the checker noticed all [1-9]\d* lies$/m, 'and there was something to notice');

($ok, $output) = run_storm('--verbose', '--minutes', $minutes, '--seed', $seed);
ok($ok, "the storm of seed $seed: everything is as plain SQL makes it") or diag($output);
note($output);
like($output, qr/^no difference: [1-9]\d* rounds, [1-9]\d* actions/m, 'and there was something to compare');
my ($polls) = $output =~ /(\d+) polls of the counts/;
cmp_ok($polls // 0, '>', 100, 'the counts were looked at while it went on');
like($output, qr/^kills: .*\d/m, 'somebody was killed');
like($output, qr/^requests: .*\b$_ [1-9]/m, "$_ was asked for, and noted") foreach qw(pause resume cancel retry);
like($output, qr/^actions: .*\b$_ [1-9]/m, "actions were $_") foreach qw(cancelled completed);
like($output, qr/^completed of each type: .*\b$_ [1-9]/m, "$_ was among them") foreach qw(bulk_update bulk_insert bulk_upsert bulk_delete dry_run);
like($output, qr/^retried after: .*\bBA422 [1-9]/m, 'among them one that had more errors than may be');
like($output, qr/^faults of S3: .*\bdrop [1-9]/m, 'S3 was not always there');
my ($faults) = $output =~ /^faults of S3: (.*)/m;
cmp_ok(scalar(() = ($faults // '') =~ / [1-9]\d*(?:,|\z)/g), '>=', 2, 'in more than one way');

done_testing();
