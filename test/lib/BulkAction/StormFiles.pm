# BulkAction::StormFiles - the tables of test/storm, and random actions on them.
#
# All randomness here comes from rand() after the caller's srand(): the same seed gives the same files
# and options. Rows are made so that what must become of them does not depend on the order between
# different keys, unless the action has order => file:
#
# - each account has its own keys, those that are not in the table at first, too, and in unique columns its
#   own values
# - the last account is for fickle actions, of which there is at most one per table in a round: what is
#   applied of one that is cancelled, or when one is done that has to be retried, is nobody else's matter
# - a value for a unique column is new, or one that a row has which no file ever touches
# - only an action with order => file takes such values from a small pool, so that rows swap them,
#   collide, and refer to each other
# - a bad row has one thing wrong with it
# - rows that refer to each other by what earlier actions left are deleted with order => file only
# - of a dry run, which judges each chunk as if it came first, no two rows have one key, and none depends on
#   another
#
# Beside each file a plan is written, as COPY's text: what the records are and on which lines they
# begin. The checker reads that, never the CSV.
package BulkAction::StormFiles;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(storm_schema storm_entities storm_action storm_round);

use constant {
	ACCOUNTS => 4,
	FICKLE => 3,             # the account of fickle actions
	CONTACTS => 8_000,       # per account
	ITEMS => 4_000,          # per account
	FIXED => 20,             # rows that no file touches
	FIXED_FROM => 900_001,
	NEW_FROM => 1_000_000,   # keys that are not there at first
	NEW_OF_ACCOUNT => 100_000 };

my %entity = (
	contact => {
		key => [qw(id)],
		columns => [qw(name email age born active note)],
		plain => 'note' },
	item => {
		key => [qw(region num)],
		columns => [qw(code boss amount kind qty ref later_ref note)],
		plain => 'note' });

sub storm_entities { return \%entity }

# The tables, their triggers and their log, in one schema.
sub storm_schema
{
	my ($schema) = @_;
	my $fixed = FIXED;
	my $fixed_from = FIXED_FROM;
	my $contacts = CONTACTS * ACCOUNTS;
	my $items = ITEMS;
	my $last_account = ACCOUNTS - 1;
	return <<"SQL";
CREATE TABLE $schema.ref (id int PRIMARY KEY);
INSERT INTO $schema.ref SELECT generate_series(1, 100);
CREATE TABLE $schema.log (entity text, key text, change text);

CREATE TABLE $schema.contact (
	id     bigint PRIMARY KEY,
	name   varchar(40),
	email  text UNIQUE,
	age    int CHECK (age < 200),
	born   date,
	active boolean,
	note   text
);
INSERT INTO $schema.contact
SELECT i, 'Name ' || i, 'first' || i, i % 90, date '1950-01-01' + (i % 20000)::int, i % 3 = 0, NULL
  FROM generate_series(1, $contacts) AS i
UNION ALL
SELECT $fixed_from - 1 + i, 'Fixed', 'fixed' || i, 1, NULL, NULL, NULL FROM generate_series(1, $fixed) AS i;

CREATE TABLE $schema.item (
	region    text,
	num       int,
	code      text UNIQUE,
	boss      text REFERENCES $schema.item (code),
	amount    numeric(8,2),
	kind      text NOT NULL DEFAULT 'as made',
	qty       int CHECK (qty >= 0),
	ref       int REFERENCES $schema.ref,
	later_ref int REFERENCES $schema.ref DEFERRABLE INITIALLY DEFERRED,
	note      text,
	PRIMARY KEY (region, num)
);
INSERT INTO $schema.item
SELECT 'r' || a, i, 'first' || a || '-' || i, NULL, i, 'kind', i % 10, 1 + i % 100, 1 + i % 100, NULL
  FROM generate_series(0, $last_account) AS a, generate_series(1, $items) AS i
UNION ALL
SELECT 'fixed', i, 'fixed' || i, NULL, 0, 'fixed', 0, 1, 1, NULL FROM generate_series(1, $fixed) AS i;
CREATE INDEX ON $schema.item (boss);
ANALYZE $schema.contact, $schema.item;

-- A value that becomes a NULL.
CREATE FUNCTION $schema.before_item() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	new.kind := nullif(new.kind, 'make it null');
	RETURN new;
END \$\$;
CREATE TRIGGER before_item BEFORE INSERT OR UPDATE ON $schema.item FOR EACH ROW EXECUTE FUNCTION $schema.before_item();

-- Each change is written down, so that one made twice shows even where it sets the same values.
CREATE FUNCTION $schema.after_row() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM public.bulk_action_inject('trigger');
	IF tg_op <> 'DELETE' AND new.note LIKE 'raise %' THEN
		RAISE EXCEPTION 'a trigger does not like it' USING ERRCODE = split_part(new.note, ' ', 2);
	END IF;
	INSERT INTO $schema.log VALUES (tg_table_name, tg_argv[0], md5(concat(old::text, new::text)));
	RETURN NULL;
END \$\$;
CREATE FUNCTION $schema.later_row() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	IF new.note LIKE 'later %' THEN
		RAISE EXCEPTION 'a deferred trigger does not like it' USING ERRCODE = split_part(new.note, ' ', 2);
	END IF;
	RETURN NULL;
END \$\$;
CREATE TRIGGER after_row AFTER INSERT OR UPDATE OR DELETE ON $schema.contact FOR EACH ROW EXECUTE FUNCTION $schema.after_row();
CREATE TRIGGER after_row AFTER INSERT OR UPDATE OR DELETE ON $schema.item FOR EACH ROW EXECUTE FUNCTION $schema.after_row();
CREATE CONSTRAINT TRIGGER later_row AFTER INSERT OR UPDATE ON $schema.contact DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION $schema.later_row();
CREATE CONSTRAINT TRIGGER later_row AFTER INSERT OR UPDATE ON $schema.item DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION $schema.later_row();
SQL
}

# --- random values -----------------------------------------------------------------------------------

sub one_of { return $_[ int rand @_ ] }
sub chance { return rand() < $_[0] }

my @texts = (
	'plain', 'O"Neil, "x"', "two\nlines", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", '', ' blanks ', '\\N', 'NULL',
	"a\r\nb", '=1+1', "tab\there", 'x' x 300, "''", '""', ',', "\n");

sub text { return $_[0]{plain} || chance(0.7) ? "text $_[0]{uid}-$_[0]{n}" : one_of(@texts) }

# A value for a unique column.
sub unique
{
	my ($row) = @_;
	return $row->{pool} && chance(0.6) ? "pool$row->{account}-" . int rand 30 : "new $row->{uid}-$row->{n}";
}

sub number
{
	my ($max) = @_;
	my $number = int rand $max;
	return chance(0.1) ? "00$number" : $number;
}

# What is put into a column: good values, and bad ones.
my %values = (
	name => [ sub { substr(text($_[0]), 0, 12) =~ s/[\x80-\xFF].*//sr }, sub { 'x' x 41 } ],
	email => [ \&unique, sub { 'fixed' . (1 + int rand FIXED) } ],
	age => [ sub { number(200) }, sub { one_of('abc', '500', '99999999999', '', '1.5', '200') } ],
	born => [ sub { sprintf '%04d-%02d-%02d', 1900 + rand 100, 1 + rand 12, 1 + rand 28 },
		sub { one_of('2024-13-45', 'yesteryear', '') } ],
	active => [ sub { one_of(qw(t f true no 1 0)) }, sub { one_of('maybe', '') } ],
	note => [ \&text, sub { one_of('raise', 'later') . ' ' . one_of(qw(P0001 ZZ123 22012 XX001 BA999 23505 99999 42P01)) } ],
	code => [ \&unique, sub { 'fixed' . (1 + int rand FIXED) } ],
	boss => [ sub { $_[0]{pool} && chance(0.7) ? "pool$_[0]{account}-" . int rand 30 : 'fixed' . (1 + int rand FIXED) },
		sub { 'nobody' } ],
	amount => [ sub { sprintf '%d.%02d', rand 1000, rand 100 }, sub { one_of('1e9', 'much', '') } ],
	kind => [ \&text, sub { 'make it null' } ],
	qty => [ sub { number(1000) }, sub { one_of('-1', 'few', '2147483648') } ],
	ref => [ sub { 1 + int rand 100 }, sub { one_of('101', 'x') } ],
	later_ref => [ sub { 1 + int rand 100 }, sub { one_of('0', 'x') } ]);

# Keys that are none: cells, by entity.
my %bad_key = (
	contact => [ ['x'], [undef], [''], ['99999999999999999999'], ['1.0'] ],
	item => [ [ 'r0', 'x' ], [ undef, 1 ], [ 'r0', undef ], [ 'r0', '' ], [ 'r0', '2147483648' ], [ undef, undef ] ]);

sub key_of
{
	my ($entity, $account, $span, $new) = @_;
	my $is_new = chance($new);
	if ($entity eq 'contact')
	{
		my $id = ($is_new ? NEW_FROM + $account * NEW_OF_ACCOUNT : $account * CONTACTS + 1) + int rand $span;
		return (chance(0.05) ? one_of("00$id", "+$id", " $id", "$id ") : $id);
	}
	my $num = ($is_new ? NEW_FROM : 1) + int rand $span;
	return (chance(0.01) ? one_of("R$account", "r$account ", " $account") : "r$account", chance(0.05) ? one_of("0$num", "+$num", "$num ") : $num);
}

# --- files ---------------------------------------------------------------------------------------------

sub csv_cell
{
	my ($cell, $row) = @_;
	return '' unless defined $cell;
	return $cell unless $cell eq '' || $cell =~ /[",\r\n]/ || (!$row->{plain} && chance(0.05));
	return '"' . ($cell =~ s/"/""/gr) . '"';
}

sub plan_cell
{
	my ($cell) = @_;
	return '\N' unless defined $cell;
	return $cell =~ s/([\\\t\r\n])/{ "\\" => "\\\\", "\t" => "\\t", "\r" => "\\r", "\n" => "\\n" }->{$1}/ger;
}

# A record that must be refused: its raw text, its SQLSTATE, and whether it is when the file is read ('t') or
# only when its neighbours are applied ('f').
sub broken_record
{
	my (@cells) = @_;
	my $key = 1 + int rand 50;
	my $kind = int rand 7;
	return (join(',', 'less', @cells[ 2 .. $#cells ]), '22P04', 'f') if $kind == 0;
	return (join(',', @cells, 'more'), '22P04', 'f') if $kind == 1;
	return (qq($key,st"ray) . ',' x (@cells - 2), '22P04', 't') if $kind == 2;
	return (qq($key,"open\nand closed"here), '22P04', 't') if $kind == 3;
	return (qq($key,"quoted" ) . ',' x (@cells - 2), '22P04', 't') if $kind == 4;
	return ("$key,caf\xE9" . ',' x (@cells - 2), '22021', 't') if $kind == 5;
	return ("$key,nul\0" . ',' x (@cells - 2), '22021', 't');
}

# Compresses a file, which keeps its name.
sub compress
{
	my ($file, $program) = @_;
	system("$program -q -c '$file' >'$file.new'") == 0 && rename("$file.new", $file) or die "$program $file";
	return;
}

# storm_action(%options): one random action: writes path.csv and path.plan; returns what it is.
#   path => ...   uid => a number   sizes => [rows, ...]   and to fix what is random otherwise:
#   entity => name   account => number   source => 'file' or 's3'   type => 'bulk_...'   dry => boolean
#   bad => share of bad rows   span => keys   choose => { options }
#   fickle => 'cancel' (to be cancelled once a share of its rows, {cancel_at}, has been tried), or 'retry'
#   (fails of too many bad rows until it is retried with a greater budget)
sub storm_action
{
	my (%fixed) = @_;
	my $name = $fixed{entity} // one_of(sort keys %entity);
	my $entity = $entity{$name};
	my $fickle = $fixed{fickle} // '';
	# of an action that is cancelled the checker finds out by its updates what has been done
	my $type = $fixed{type} // ($fickle eq 'cancel' ? 'bulk_update' : one_of(('bulk_update') x 3, qw(bulk_insert bulk_upsert bulk_delete)));
	my $account = $fickle ? FICKLE : $fixed{account} // int rand FICKLE;
	my %option;
	my ($duplicates, $order, $priority) =
	  (one_of(undef, qw(all last first error)), one_of(undef, qw(key file)), one_of(undef, -3 .. 3));
	$option{duplicates} = $duplicates if defined $duplicates;
	$option{order} = $order if defined $order;
	$option{priority} = $priority if defined $priority;
	my $skip = one_of(undef, undef, qw(true false));
	$option{skip_unchanged} = $skip if defined $skip && $type =~ /update|upsert/;
	my $conflict = one_of(undef, qw(error skip update));
	$option{on_conflict} = $conflict if defined $conflict && $type eq 'bulk_insert';
	$option{order} = 'file' if $type eq 'bulk_delete' && $name eq 'item';
	if ($fixed{dry} // (!$fickle && ($option{order} // 'key') eq 'key' && chance(0.15)))
	{
		$option{dry_run} = 'true';
		$option{order} = 'key';
		$option{duplicates} = one_of(qw(last first error));
	}
	%option = %{ $fixed{choose} } if $fixed{choose};
	$option{max_errors} = int rand 21 if $fickle eq 'retry';
	my $pool = ($option{order} // 'key') eq 'file';

	my $max = $name eq 'contact' ? CONTACTS : ITEMS;
	my $rows = one_of(@{ $fixed{sizes} });
	my $span = $fixed{span} // one_of(5, 200, $max, $max, $max);
	my $bad = $fixed{bad} // ($fickle eq 'retry' ? one_of(0.03, 0.1, 0.3) : one_of(0, 0.001, 0.01, 0.01, 0.1));
	my $keep = one_of(0, 0.1, 0.6);
	my $blank = one_of(0, 0, 0.01);
	my $eol = one_of("\n", "\n", "\r\n");
	my $new = $type eq 'bulk_update' ? 0.02 : 0.5;
	# what else than the key a file of rows to delete has, nobody looks at
	my $doomed = !$fixed{choose} && !defined $fixed{dry} && !$fickle && $type ne 'bulk_delete' && chance(0.06);

	# the header: the key anywhere, some of the columns
	my @columns = grep { chance(0.6) } @{ $entity->{columns} };
	@columns = ($entity->{plain}) unless @columns;
	# who is somebody's boss cannot lose his code; in no order, both must not change
	@columns = grep { $_ ne 'boss' } @columns if !$pool && grep { $_ eq 'code' } @columns;
	my @header = (@{ $entity->{key} }, @columns);
	for (my $i = @header; --$i > 0;)
	{
		my $j = int rand($i + 1);
		@header[ $i, $j ] = @header[ $j, $i ];
	}
	my @file_header = $doomed ? (@header, 'no such column') : @header;

	open(my $csv, '>:raw', "$fixed{path}.csv") or die "$fixed{path}.csv: $!";
	open(my $plan, '>:raw', "$fixed{path}.plan") or die "$fixed{path}.plan: $!";
	my $line = 1;
	my $write = sub {
		my $raw = $_[0] . $eol;
		print $csv $raw;
		my $breaks = () = $raw =~ /\r\n|\r|\n/g;
		$line += $breaks;
	};
	my @all = (@{ $entity->{key} }, @{ $entity->{columns} });
	print $csv "\xEF\xBB\xBF" if chance(0.1);
	$write->(join ',', @file_header);

	# towards the end a quote may open that never closes: no quote comes after it
	my $open_at = chance(0.2) ? $rows - int rand 30 : -1;
	my $plain = 0;
	foreach my $n (1 .. $rows)
	{
		my %row = (uid => $fixed{uid}, n => $n, account => $account, pool => $pool, plain => $plain);
		if ($n == $open_at)
		{
			$plain = 1;
			print $plan join("\t", $line, '22P04', 't', ('\N') x @all), "\n" unless $doomed;
			$write->('7,"open' . ',' x (@header - 2));
			next;
		}
		my %cell;
		@cell{ @{ $entity->{key} } } = key_of($name, $account, $span, $new);
		my $nothing = chance(0.01);
		foreach my $column (@columns)
		{
			$cell{$column} = $values{$column}[0]->(\%row) unless $nothing || ($keep && chance($keep));
		}
		$cell{$_} = undef foreach grep { $plain && ($cell{$_} // 'x') =~ /^\z|["\r\n,]/ } @columns;
		if (!$plain && chance($bad))
		{
			my $kind = int rand 6;
			if ($kind == 0)
			{
				my ($raw, @why) = broken_record(map { csv_cell($_, \%row) } @cell{@header});
				print $plan join("\t", $line, @why, ('\N') x @all), "\n" unless $doomed;
				$write->($raw);
				next;
			}
			if ($kind == 1) { @cell{ @{ $entity->{key} } } = @{ one_of(@{ $bad_key{$name} }) } }
			else
			{
				my $column = one_of(@columns);
				$cell{$column} = $values{$column}[1]->(\%row);
			}
		}
		$cell{region} = 'no region' if $plain && exists $cell{region} && $cell{region} eq '';
		$write->('') if $blank && chance($blank);
		print $plan join("\t", $line, '\N', 'f', map { plan_cell($_) } @cell{@all}), "\n" unless $doomed;
		$write->(join ',', map { csv_cell($_, \%row) } @cell{@header});
	}
	close($csv) or die "$fixed{path}.csv: $!";
	close($plan) or die "$fixed{path}.plan: $!";
	compress("$fixed{path}.csv", one_of('gzip', 'zstd')) if chance(0.3);
	return {
		entity => $name, type => $type, account => "account$account", role => one_of(qw(storm_one storm_two)), options => \%option,
		rows => $rows, header => \@header, csv => "$fixed{path}.csv", plan => "$fixed{path}.plan", doomed => $doomed,
		fickle => $fickle, cancel_at => $fixed{cancel_at} // (chance(0.15) ? 0 : rand), source => $fixed{source} // one_of(qw(file s3)) };
}

# storm_round(%options): all that the seed decides of a round: { actions, strikes, impatient }.
#   path => ...   round => number   first => 1 (the round has one of everything)   source => 'file', 's3' or
#   'both'   wanted => [ what is to be fixed for storm_action, for each action ]   and what is for all of them
#
# In an impatient round the server gives up soon, so that any action may fail for trouble that passes. A
# retry puts it at the end of its stream, so each has a stream of its own.
sub storm_round
{
	my (%fixed) = @_;
	my ($path, $round, $first, $source, $wanted) = delete @fixed{qw(path round first source wanted)};
	my @sizes = ((1) x 1, 2, 40, 999, 1001, (3_000) x 3, (8_000) x 4, (20_000) x 2, 60_000);
	my $impatient = !$first && chance(0.2);
	my @streams = map { my $account = $_; map { { entity => $_, account => $account } } sort keys %entity } 0 .. FICKLE - 1;
	my @fickle = grep { $first || chance(0.4) } sort keys %entity;
	my $n = $first ? 1 : @fickle ? int rand 4 : 1 + int rand 4;
	@sizes = (8_000) if $first;
	my @wanted = map { $impatient ? splice(@streams, int rand @streams, 1) : {} } 1 .. ($n > 3 && $impatient ? 3 : $n);
	foreach my $i (0 .. $#fickle)
	{
		my $kind = $first ? (qw(cancel retry))[$i] : one_of(qw(cancel cancel retry));
		push @wanted, { entity => $fickle[$i], fickle => $kind,
			sizes => $kind eq 'cancel' ? [ 8_000, 20_000, 20_000, 60_000 ] : [ 1_001, 3_000, 8_000, 20_000 ],
			$first ? (source => 's3', type => 'bulk_update', sizes => [ $kind eq 'cancel' ? 30_000 : 8_000 ], $kind eq 'cancel' ? (cancel_at => 0) : ()) : () };
	}
	push @wanted, (map { { type => $_, dry => 0, sizes => [3_000] } } qw(bulk_insert bulk_upsert bulk_delete)), { entity => 'contact', dry => 1, sizes => [3_000] } if $first;
	@wanted = @$wanted if $wanted;
	my @actions;
	while (@wanted)
	{
		my ($wanted) = splice(@wanted, int rand @wanted, 1);
		my $n = @actions;
		push @actions, storm_action(sizes => \@sizes, %fixed, %$wanted, path => "$path/$round-$n", uid => $round * 10 + $n,
			$source ne 'both' ? (source => $source) : ());
	}
	# what is submitted last, and cancelled as soon as it is seen, cannot be done before
	@actions = ((grep { $_->{fickle} ne 'cancel' } @actions), grep { $_->{fickle} eq 'cancel' } @actions) if $first;
	return { actions => \@actions, strikes => $first ? 20 : int rand 30, impatient => $impatient };
}

1;
