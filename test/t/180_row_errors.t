# What is a row error, and what is not: for each way in which a row can fail, a file with such rows
# among good ones. Exactly those rows are reported, with the SQLSTATE, message and detail that plain
# SQL gives, one row after the other, each in a transaction of its own; all others are applied.
#
# Every case has its tables three times, each in a schema of its own: for plain SQL, and for two actions,
# one of which applies rows in the order of the file. All actions run at the same time.
use strict;
use warnings;

use BulkAction;
use JSON::PP qw(decode_json);
use Test::More;

my $node = new_node('main', conf => "bulk_action.file_root = '/'\nmax_worker_processes = 12\n");
my $root = $node->basedir;
create_role($node, 'clerk');
$node->safe_psql('postgres', 'GRANT pg_read_server_files TO clerk; CREATE EXTENSION btree_gist');

# --- how a case is run -----------------------------------------------------------------------------

# case(NAME, ...): a case, to be run with all others.
#   ddl     => what makes the table target (with id bigint as its key, if not said otherwise) and fills
#              it, run once in each schema
#   columns => what the file sets, with SQL types that need not be the table's for those it has not got
#   good, bad => sub ($i) { cells }: the i-th row of the file, without the key
#   rows    => 300      how many
#   is_bad  => sub ($i) { which of them are bad }
#   key     => sub ($i) { id of the i-th row }
#   code    => SQLSTATE of the bad ones, column => error_column; or subs of $i
#   tables  => ['target']   that are compared
#   as      => role     who submits
#   message => sub ($message) { what becomes of the message that plain SQL gives }
#   at_commit => 1      the bad rows fail when the transaction commits
my @cases;
sub case { my ($name, %case) = @_; push @cases, { name => $name, %case }; return; }

# First and last row, two neighbours, a whole block of 32 and every second row of two blocks.
sub scattered
{
	my ($i) = @_;
	return $i == 1 || $i == 300 || $i == 100 || $i == 101 || $i > 128 && $i <= 160 || $i > 192 && $i <= 256 && $i % 2;
}

sub value_for
{
	my ($of, $i) = @_;
	return ref $of eq 'CODE' ? $of->($i) : $of;
}

sub write_case
{
	my ($case) = @_;
	my $is_bad = $case->{is_bad} // \&scattered;
	my $key = $case->{key} // sub { $_[0] };
	my $rows = $case->{rows} // 300;
	my $text = csv_line('id', @{ $case->{columns} });
	foreach my $i (1 .. $rows)
	{
		my $bad = $is_bad->($i);
		$text .= csv_line($key->($i), ($bad ? $case->{bad} : $case->{good})->($i));
		push @{ $case->{expected} }, [ $i + 1, value_for($case->{code}, $i), value_for($case->{column}, $i) ] if $bad;
	}
	$case->{file} = write_file("$root/$case->{name}.csv", $text);
	return;
}

sub set_up
{
	my ($case) = @_;
	my $sql = "SET client_min_messages = warning;\n";
	foreach my $variant (qw(serial key file))
	{
		my $schema = "$case->{name}_$variant";
		$sql .= "CREATE SCHEMA $schema; SET search_path = $schema, public;\n$case->{ddl};\n";
		$sql .= "GRANT USAGE ON SCHEMA $schema TO clerk;\n";
		$sql .= "SELECT bulk_action.bulk_action_register_entity('$schema', '$schema.target', '{id}');\n";
		$sql .= "SELECT bulk_action.bulk_action_grant('$schema', 'public');\n";
	}
	$sql .= "SET SESSION AUTHORIZATION $case->{as};\n" if $case->{as};
	foreach my $order (qw(key file))
	{
		my $schema = "$case->{name}_$order";
		$sql .= "SET search_path = $schema, public;\n";
		$sql .= "SELECT bulk_action.bulk_action_submit('file://$case->{file}', entity_type => '$schema',"
		  . " options => '{\"order\": \"$order\", \"skip_unchanged\": false}');\n";
	}
	@{ $case->{id} }{qw(key file)} = (split /\n/, $node->safe_psql('postgres', $sql))[ -2, -1 ];
	return;
}

# The same by plain SQL: every cell is converted by itself, so that all that do not convert are known;
# then the row is updated and what is deferred is checked. One transaction per row.
sub serially
{
	my ($case) = @_;
	my @columns = ('id', @{ $case->{columns} });
	my $names = join ', ', map { "\"$_\"" } @columns;
	my $definitions = join ', ', map { "\"$_\" text" } @columns;
	my $probes = join "\n", map { "CREATE TEMP TABLE probe_" . ($_ + 1) . " AS SELECT \"$columns[$_]\" FROM target WITH NO DATA;" } 0 .. $#columns;
	my $quoted = join ', ', map { "'$_'" } @columns;
	my $as = $case->{as} ? "SET SESSION AUTHORIZATION $case->{as};" : '';
	$node->safe_psql('postgres', <<"SQL");
SET search_path = $case->{name}_serial, public;
SET client_min_messages = error;
CREATE TABLE source (n bigint GENERATED ALWAYS AS IDENTITY, $definitions);
\\copy source ($names) FROM '$case->{file}' WITH (FORMAT csv, HEADER)
CREATE TABLE outcome (line bigint, outcome text, code text, columns text, message text);
GRANT ALL ON source, outcome TO PUBLIC;
$as
$probes
DO \$do\$
DECLARE
	columns text[] := ARRAY[$quoted];
	s record;
	assignments text;
	hits bigint; there bigint;
	code text; message text; detail text;
	first_code text; messages text[]; at text[];
BEGIN
	FOR s IN SELECT n, ARRAY[$names] AS cells FROM source ORDER BY n LOOP
		first_code := NULL; messages := '{}'; at := '{}'; assignments := NULL;
		FOR i IN 1 .. array_length(columns, 1) LOOP
			IF s.cells[i] IS NULL THEN
				IF i = 1 THEN
					first_code := '23502'; messages := '{the key is empty}'; at := '{id}';
				END IF;
				CONTINUE;
			END IF;
			BEGIN
				EXECUTE format('INSERT INTO probe_%s VALUES (%L)', i, s.cells[i]);
				IF i > 1 THEN
					assignments := concat_ws(', ', assignments, format('%I = %L', columns[i], s.cells[i]));
				END IF;
			EXCEPTION WHEN OTHERS OR assert_failure THEN
				GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
				first_code := coalesce(first_code, code);
				messages := messages || (message || coalesce(': ' || nullif(detail, ''), ''));
				at := at || columns[i];
			END;
		END LOOP;
		IF first_code IS NOT NULL THEN
			INSERT INTO outcome VALUES (s.n + 1, 'failed', first_code, array_to_string(at, ', '), array_to_string(messages, '; '));
			COMMIT;
			CONTINUE;
		END IF;
		BEGIN
			EXECUTE format('SELECT count(*) FROM target WHERE id = %L', s.cells[1]) INTO there;
			EXECUTE format('UPDATE target SET %s WHERE id = %L', assignments, s.cells[1]);
			GET DIAGNOSTICS hits = ROW_COUNT;
			SET CONSTRAINTS ALL IMMEDIATE;
			INSERT INTO outcome VALUES (s.n + 1, CASE WHEN hits > 0 THEN 'updated' WHEN there > 0 THEN 'unchanged' ELSE 'not_found' END);
		EXCEPTION WHEN OTHERS OR assert_failure THEN
			GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
			INSERT INTO outcome VALUES (s.n + 1, 'failed', code, NULL, message || coalesce(': ' || nullif(detail, ''), ''));
		END;
		COMMIT;
	END LOOP;
END \$do\$;
SQL
	return;
}

# The same for rows that fail at commit, which no block can catch: psql does it, and says how it went.
sub serially_at_commit
{
	my ($case) = @_;
	my $sql = "SET search_path = $case->{name}_serial, public;\nCREATE TABLE outcome (line bigint, outcome text, code text, columns text, message text);\n";
	my $i = 0;
	foreach my $line (split /\n/, read_file($case->{file}))
	{
		next if $i++ == 0;
		my ($id, $v) = split /,/, $line;
		$sql .= <<"SQL";
BEGIN;
UPDATE target SET v = '$v' WHERE id = $id;
SET CONSTRAINTS ALL IMMEDIATE;
COMMIT;
\\if :ERROR
INSERT INTO outcome VALUES ($i, 'failed', :'LAST_ERROR_SQLSTATE', NULL, :'LAST_ERROR_MESSAGE');
\\else
INSERT INTO outcome VALUES ($i, 'updated');
\\endif
SQL
	}
	$node->psql('postgres', $sql, on_error_stop => 0);
	return;
}

sub compare
{
	my ($case, $order) = @_;
	my $id = $case->{id}{$order};
	$node->safe_psql('postgres', "CALL bulk_action.bulk_action_wait('$id', '2 minutes')");
	my $all = decode_json(value_of($node, <<"SQL"));
SELECT json_build_object(
	'stat', (SELECT json_build_array(state, error_message, total, updated, not_found, failed, unchanged, unprocessed)
	           FROM bulk_action.bulk_action_stat('$id')),
	'serial', (SELECT json_build_array('completed', NULL, count(*), count(*) FILTER (WHERE outcome = 'updated'),
	             count(*) FILTER (WHERE outcome = 'not_found'), count(*) FILTER (WHERE outcome = 'failed'),
	             count(*) FILTER (WHERE outcome = 'unchanged'), 0)
	             FROM $case->{name}_serial.outcome),
	'errors', (SELECT coalesce(json_agg(json_build_array(line, error_code, error_message) ORDER BY line), '[]')
	             FROM bulk_action.bulk_action_errors WHERE action_id = '$id'),
	'serial_errors', (SELECT coalesce(json_agg(json_build_array(line, code, message) ORDER BY line), '[]')
	             FROM $case->{name}_serial.outcome WHERE outcome = 'failed'),
	'columns', (SELECT coalesce(json_agg(json_build_array(line, error_code, error_column) ORDER BY line), '[]')
	             FROM bulk_action.bulk_action_errors WHERE action_id = '$id'))
SQL
	is_deeply($all->{stat}, $all->{serial}, 'as many rows as by plain SQL') or diag(explain([ $all->{stat}, $all->{serial} ]));
	# rows lie elsewhere
	$_->[2] =~ s/references tuple \K\(\d+,\d+\)/somewhere/ foreach @{ $all->{errors} }, @{ $all->{serial_errors} };
	$_->[2] = $case->{message}->($_->[2]) foreach $case->{message} ? @{ $all->{serial_errors} } : ();
	is_deeply($all->{errors}, $all->{serial_errors}, 'the same rows fail for the same reason');
	is_deeply($all->{columns}, $case->{expected} // [], 'those that were made to fail, with the column at fault');
	same_content($node, "$case->{name}_$order.$_", "$case->{name}_serial.$_") foreach @{ $case->{tables} // ['target'] };
	return;
}

# --- conversion ------------------------------------------------------------------------------------

# Each bad row has another combination of bad cells; all of them are reported.
my @typed = (
	[ a => 'integer', '7', 'seven' ], [ b => 'date', '2024-02-29', '2023-02-29' ],
	[ c => 'numeric(4,2)', '99.99', '100' ], [ d => 'varchar(3)', 'abc', 'abcd' ],
	[ e => 'boolean', 'yes', 'perhaps' ], [ f => 'uuid', '3a200770-1180-414d-8a44-b6b9f24557fa', '3a20' ]);
my $combination = sub { 1 + $_[0] % 63 };
case('conversion',
	ddl => 'CREATE TABLE target (id bigint PRIMARY KEY, ' . join(', ', map { "$_->[0] $_->[1]" } @typed)
	  . '); INSERT INTO target SELECT generate_series(1, 300)',
	columns => [ map { $_->[0] } @typed ],
	good => sub { map { $_->[2] } @typed },
	bad => sub { my ($i) = @_; map { $typed[$_][ $combination->($i) & 1 << $_ ? 3 : 2 ] } 0 .. $#typed },
	code => sub { my ($i) = @_; (qw(22P02 22008 22003 22001 22P02 22P02))[ (grep { $combination->($i) & 1 << $_ } 0 .. 5)[0] ] },
	column => sub { my ($i) = @_; join ', ', map { $typed[$_][0] } grep { $combination->($i) & 1 << $_ } 0 .. 5 });

my @types = (
	[ json => 'json', '{"a": 1}', '{a: 1}', '22P02' ], [ jsonb => 'jsonb', '[1]', '[1', '22P02' ],
	[ xml => 'xml', '<a/>', '<a>', '2200N' ], [ mood => 'mood', 'happy', 'cross', '22P02' ],
	[ array => 'integer[]', '{1,2}', '{1,b}', '22P02' ], [ open => 'integer[]', '{}', '{1', '22P02' ],
	[ pair => 'pair', '(1,a)', '(b,a)', '22P02' ], [ arity => 'pair', '(1,a)', '(1,a,b)', '22P02' ],
	[ bytes => 'bytea', '\x00ff', '\x0g', '22023' ], [ inet => 'inet', '::1', '1.2.3.4.5', '22P02' ],
	[ range => 'int4range', '[1,5)', '[5,1)', '22000' ], [ bits => 'bit(3)', '101', '1010', '22026' ],
	[ names => 'varchar(3)[]', '{abc}', '{abc,abcd}', '22001' ], [ point => 'point', '(1,2)', '(1)', '22P02' ],
	[ time => 'timestamptz', '2024-01-01 00:00+00', '2024-13-01', '22008' ], [ small => 'smallint', '1', '32768', '22003' ],
	[ float => 'float8', '1e10', '1e999', '22003' ], [ span => 'interval', '1 day', '1 dog', '22007' ],
	[ class => 'regclass', 'pg_class', 'no_such_table', '42P01' ], [ role => 'regrole', 'clerk', 'nobody_at_all', '42704' ],
	[ search => 'tsquery', 'a & b', 'a & & b', '42601' ],
	[ even => 'even', '2', '3', '23514' ], [ four => 'four', '4', '6', '23514' ], [ three => 'four', '4', '3', '23514' ],
	[ evens => 'even[]', '{2,4}', '{2,5}', '23514' ], [ set => 'nonempty', '{1}', '{}', '23514' ],
	[ holder => 'holder', '(2,x)', '(3,x)', '23514' ], [ judged => 'judged', 'x', 'raise', 'P0001' ],
	[ assert => 'judged', 'x', 'assert', 'P0004' ], [ divide => 'judged', 'x', 'divide', '22012' ]);
case('types',
	ddl => <<'SQL' . 'CREATE TABLE target (id bigint PRIMARY KEY, ' . join(', ', map { "\"$_->[0]\" $_->[1]" } @types)
CREATE TYPE mood AS ENUM ('happy', 'sad');
CREATE TYPE pair AS (a integer, b text);
CREATE DOMAIN even AS integer CHECK (value % 2 = 0);
CREATE DOMAIN four AS even CHECK (value % 4 = 0);
CREATE DOMAIN nonempty AS integer[] CHECK (cardinality(value) > 0);
CREATE TYPE holder AS (a even, b text);
CREATE FUNCTION judge(v text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF v = 'raise' THEN RAISE 'no %', v USING DETAIL = 'It is forbidden.'; END IF;
	ASSERT v IS DISTINCT FROM 'assert', 'not asserted';
	RETURN v <> 'divide' OR 1 / (length(v) - 6) = 0;
END $$;
CREATE DOMAIN judged AS text CHECK (judge(value));
SQL
	  . '); INSERT INTO target SELECT generate_series(1, 300)',
	columns => [ map { $_->[0] } @types ],
	good => sub { map { $_->[2] } @types },
	bad => sub { my ($i) = @_; map { $types[$_][ $_ == $i % @types ? 3 : 2 ] } 0 .. $#types },
	code => sub { $types[ $_[0] % @types ][4] },
	column => sub { $types[ $_[0] % @types ][0] });

# Keys that are empty or do not convert, alone or with another cell.
my @keys = ([ 'x', '22P02', 'id' ], [ undef, '23502', 'id' ], [ '', '22P02', 'id' ], [ -1, '23514', 'id' ]);
case('keys',
	ddl => <<'SQL',
CREATE DOMAIN positive AS bigint CHECK (value > 0);
CREATE TABLE target (id positive PRIMARY KEY, v integer);
INSERT INTO target SELECT generate_series(1, 300);
SQL
	columns => ['v'], key => sub { scattered($_[0]) ? $keys[ $_[0] % 4 ][0] : $_[0] },
	good => sub { $_[0] }, bad => sub { $_[0] % 3 ? 'y' : 1 },
	code => sub { $keys[ $_[0] % 4 ][1] }, column => sub { $_[0] % 3 ? 'id, v' : 'id' });

# --- constraints -----------------------------------------------------------------------------------

# A table with v text to be set to 'new N', and one that is violated by 'bad'.
sub simple
{
	my ($name, $ddl, %case) = @_;
	case($name, ddl => $ddl, columns => ['v'], good => sub { "new $_[0]" }, bad => sub { 'bad' }, %case);
	return;
}
my $table = 'CREATE TABLE target (id bigint PRIMARY KEY, v text);';
my $fill = "INSERT INTO target SELECT i, 'old ' || i FROM generate_series(1, 300) AS i;";

simple('check_column', "$table $fill ALTER TABLE target ADD CONSTRAINT fine CHECK (v <> 'bad')", code => '23514', column => 'v');
simple('check_table', "$table $fill ALTER TABLE target ADD CHECK (v <> 'bad' OR id < 0)", code => '23514');
simple('not_null', <<"SQL", code => '23502', column => 'v');
$table $fill ALTER TABLE target ALTER v SET NOT NULL;
CREATE FUNCTION nullify() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.v := nullif(new.v, ''bad''); RETURN new; END';
CREATE TRIGGER nullify BEFORE UPDATE ON target FOR EACH ROW EXECUTE FUNCTION nullify();
SQL
simple('not_null_domain', <<"SQL", code => '23502');
CREATE DOMAIN given AS text NOT NULL;
CREATE TABLE target (id bigint PRIMARY KEY, v given); $fill
CREATE FUNCTION nullify() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.v := nullif(new.v, ''bad''); RETURN new; END';
CREATE TRIGGER nullify BEFORE UPDATE ON target FOR EACH ROW EXECUTE FUNCTION nullify();
SQL
foreach my $kind ([ '', '' ], [ '_initially_immediate', 'DEFERRABLE' ], [ '_deferred', 'DEFERRABLE INITIALLY DEFERRED' ])
{
	my ($suffix, $when) = @$kind;
	simple("uniqueness$suffix", "$table $fill INSERT INTO target VALUES (0, 'bad'); ALTER TABLE target ADD UNIQUE (v) $when",
		code => '23505', column => 'v');
	simple("foreign_key$suffix", <<"SQL", code => '23503', column => 'v');
CREATE TABLE known (v text PRIMARY KEY);
INSERT INTO known SELECT x || i FROM generate_series(1, 300) AS i, unnest('{"old ", "new "}'::text[]) AS x;
$table $fill ALTER TABLE target ADD FOREIGN KEY (v) REFERENCES known $when;
SQL
	case("referenced$suffix",
		ddl => <<"SQL",
CREATE TABLE target (id bigint PRIMARY KEY, v text UNIQUE); $fill
CREATE TABLE child (v text REFERENCES target (v) $when);
INSERT INTO child SELECT v FROM target WHERE id IN (1, 300, 100, 101) OR id BETWEEN 129 AND 160;
SQL
		is_bad => sub { my ($i) = @_; $i == 1 || $i == 300 || $i == 100 || $i == 101 || $i > 128 && $i <= 160 },
		columns => ['v'], good => sub { "new $_[0]" }, bad => sub { "new $_[0]" }, code => '23503', column => 'v');
	case("exclusion$suffix",
		ddl => <<"SQL",
CREATE TABLE target (id bigint PRIMARY KEY, room integer, during tsrange);
INSERT INTO target SELECT i, i, '[2024-01-01,2024-02-01)' FROM generate_series(0, 300) AS i;
ALTER TABLE target ADD EXCLUDE USING gist (room WITH =, during WITH &&) $when;
SQL
		columns => [qw(room during)],
		good => sub { ($_[0] + 1000, '[2024-01-15,2024-03-01)') },
		bad => sub { (0, '[2024-01-31,2024-03-01)') },
		code => '23P01');
	case("exclusion_of_one$suffix",
		ddl => <<"SQL",
CREATE TABLE target (id bigint PRIMARY KEY, v int4range);
INSERT INTO target SELECT i, int4range(10 * i, 10 * i + 5) FROM generate_series(0, 300) AS i;
ALTER TABLE target ADD EXCLUDE USING gist (v WITH &&) $when;
SQL
		columns => ['v'],
		good => sub { sprintf '[%d,%d]', 10 * $_[0] + 2, 10 * $_[0] + 6 },
		bad => sub { '[-10,3]' },
		code => '23P01', column => 'v');
}

# What a deferred constraint forgives: the row to refer to is made by a trigger of the same row, after
# the constraint would have been checked. Rows next to one that fails are forgiven the same.
simple('deferred_and_repaired', <<"SQL", code => '23514', column => 'v', tables => [qw(target known)]);
CREATE TABLE known (v text PRIMARY KEY);
INSERT INTO known SELECT 'old ' || i FROM generate_series(1, 300) AS i;
$table $fill ALTER TABLE target ADD FOREIGN KEY (v) REFERENCES known DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE target ADD CHECK (v <> 'bad');
CREATE FUNCTION repair() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO known VALUES (new.v); RETURN NULL; END';
CREATE TRIGGER repair AFTER UPDATE ON target FOR EACH ROW EXECUTE FUNCTION repair();
SQL

# --- generated columns, indexes, partitions, policies --------------------------------------------------

sub number
{
	my ($name, $ddl, %case) = @_;
	case($name,
		ddl => "CREATE TABLE target (id bigint PRIMARY KEY, v integer $ddl; INSERT INTO target SELECT i, i FROM generate_series(1, 300) AS i",
		columns => ['v'], good => sub { $_[0] + 1 }, bad => sub { 0 }, %case);
	return;
}
number('generated', ', g integer GENERATED ALWAYS AS (100 / v) STORED)', code => '22012');
number('generated_check', ', g integer GENERATED ALWAYS AS (v * 2) STORED CHECK (g > 0))', code => '23514', column => 'g');
number('generated_not_null', ', g integer GENERATED ALWAYS AS (nullif(v, 0)) STORED NOT NULL)', code => '23502', column => 'g');
number('index_expression', '); CREATE INDEX ON target ((100 / v))', code => '22012');
number('index_predicate', '); CREATE INDEX ON target (id) WHERE 100 / v > 5', code => '22012');
number('all_rows', 'CHECK (v <> 0))', code => '23514', column => 'v', is_bad => sub { 1 }, rows => 200);
simple('index_row_size', "$table $fill CREATE INDEX ON target (v)", code => '54000', column => 'v',
	bad => sub { srand($_[0]); join '', map { chr(33 + int rand 90) =~ s/[",]/x/r } 1 .. 4000 });

# Where a trigger moves the row: to another partition, or to where there is none.
my $partitions = <<'SQL';
CREATE TABLE target (id bigint PRIMARY KEY, v text CHECK (v <> 'check'), u text NOT NULL DEFAULT '') PARTITION BY RANGE (id);
CREATE TABLE low PARTITION OF target FOR VALUES FROM (1) TO (1000);
CREATE TABLE high (v text CONSTRAINT target_v_check CHECK (v <> 'check'), id bigint NOT NULL, dropped text, u text NOT NULL DEFAULT '');
ALTER TABLE high DROP dropped;
ALTER TABLE target ATTACH PARTITION high FOR VALUES FROM (1000) TO (2000);
CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF new.v = 'move' THEN new.id := new.id + 1000; END IF;
	IF new.v = 'nowhere' THEN new.id := new.id + 5000; END IF;
	IF new.v = 'null' THEN new.u := NULL; END IF;
	RETURN new;
END $$;
CREATE TRIGGER move BEFORE UPDATE ON target FOR EACH ROW EXECUTE FUNCTION move();
INSERT INTO target SELECT i, 'old' FROM generate_series(1, 300) AS i;
INSERT INTO target SELECT i + 1400, 'old' FROM generate_series(1, 300) AS i;
SQL
case('partitions',
	ddl => $partitions, columns => ['v'], rows => 600, key => sub { $_[0] <= 300 ? $_[0] : $_[0] + 1100 },
	is_bad => sub { scattered($_[0] % 300) },
	good => sub { $_[0] % 5 || $_[0] > 300 ? "new $_[0]" : 'move' },
	bad => sub { (qw(nowhere check null))[ $_[0] % 3 ] },
	code => sub { (qw(23514 23514 23502))[ $_[0] % 3 ] },
	column => sub { (undef, 'v', 'u')[ $_[0] % 3 ] });
case('one_partition',
	ddl => <<'SQL',
CREATE TABLE whole (id bigint, v text) PARTITION BY LIST (v);
CREATE TABLE target PARTITION OF whole FOR VALUES IN ('a', 'b');
CREATE TABLE other PARTITION OF whole FOR VALUES IN ('c');
ALTER TABLE target ADD PRIMARY KEY (id);
INSERT INTO target SELECT i, 'a' FROM generate_series(1, 300) AS i;
SQL
	columns => ['v'], good => sub { 'b' }, bad => sub { 'c' }, code => '23514');

simple('policy', <<"SQL", as => 'clerk', code => '42501');
$table $fill
ALTER TABLE target ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON target FOR SELECT USING (id % 7 <> 0);
CREATE POLICY set ON target FOR UPDATE USING (id % 7 <> 0) WITH CHECK (v <> 'bad');
GRANT SELECT, UPDATE ON target TO clerk;
SQL
# a row that the policy hides is not found, whatever it would be set to
$cases[-1]{is_bad} = sub { $_[0] % 7 && scattered($_[0]) };

# A trigger may lack a privilege that the submitter does not need for the target.
simple('privilege_of_trigger', <<"SQL", as => 'clerk', code => '42501');
$table $fill
CREATE TABLE secret (v text);
GRANT SELECT, UPDATE ON target TO clerk;
CREATE FUNCTION leak() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO secret VALUES (new.v); RETURN new; END';
CREATE TRIGGER leak BEFORE UPDATE ON target FOR EACH ROW WHEN (new.v = 'bad') EXECUTE FUNCTION leak();
SQL

# --- triggers --------------------------------------------------------------------------------------

# Whatever SQLSTATE PostgreSQL knows, and some that it does not, but for those that stand for passing
# trouble (failure.c); raised before or after the row, after the statement, or deferred.
my @codes = grep { !/^(?:08|53|58)|^(?:40001|40P01|55P03|57014|57P01)$/ }
  map { /^([0-9A-Z]{5}) +[EW] / ? $1 : () } split /\n/, read_file($node->config_data('--sharedir') . '/errcodes.txt');
cmp_ok(scalar @codes, '>', 150, 'many SQLSTATEs are known');
push @codes, qw(BA403 ZZ999 P9999);
my @moments = qw(before after statement deferred);
my $raised = sub { $codes[ ($_[0] / 3) % @codes ] };
case('raised',
	ddl => <<'SQL' . "INSERT INTO target SELECT i, 'old' FROM generate_series(1, 990) AS i;",
CREATE TABLE target (id bigint PRIMARY KEY, v text);
CREATE FUNCTION raised(v text, moment text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF v LIKE moment || ' %' THEN
		RAISE EXCEPTION USING ERRCODE = split_part(v, ' ', 2), MESSAGE = 'raised ' || v, DETAIL = 'a detail', HINT = 'a hint';
	END IF;
END $$;
CREATE FUNCTION of_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM raised(new.v, tg_argv[0]); RETURN new; END $$;
CREATE FUNCTION of_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM raised(n.v, 'statement') FROM n; RETURN NULL; END $$;
CREATE TRIGGER a BEFORE UPDATE ON target FOR EACH ROW EXECUTE FUNCTION of_row('before');
CREATE TRIGGER b AFTER UPDATE ON target FOR EACH ROW EXECUTE FUNCTION of_row('after');
CREATE TRIGGER c AFTER UPDATE ON target REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION of_statement();
CREATE CONSTRAINT TRIGGER d AFTER UPDATE ON target DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION of_row('deferred');
SQL
	columns => ['v'], rows => 990, is_bad => sub { $_[0] % 3 == 0 },
	good => sub { "new $_[0]" }, bad => sub { my ($i) = @_; $moments[ ($i / 3 + int($i / 3 / @codes)) % 4 ] . ' ' . $raised->($i) },
	code => $raised);

# Errors that are made, not raised.
my @made = (
	[ table => '42P01' ], [ column => '42703' ], [ function => '42883' ], [ commit => '2D000' ], [ recursion => '54001' ],
	[ alter => '55006' ], [ same_row => '27000' ], [ cast => '22P02' ], [ strict => 'P0002' ], [ syntax => '42601' ],
	[ other_table => '23502' ], [ other_check => '23514' ], [ named => 'P0001', 'some_column' ], [ named_table => 'P0001' ]);
case('made',
	ddl => <<'SQL' . $fill,
CREATE TABLE target (id bigint PRIMARY KEY, v text);
CREATE TABLE audit (w text NOT NULL, x integer CHECK (x > 0));
CREATE FUNCTION make() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	CASE new.v
		WHEN 'table' THEN EXECUTE 'SELECT FROM no_such_table';
		WHEN 'column' THEN EXECUTE 'SELECT no_such_column FROM target';
		WHEN 'function' THEN PERFORM no_such_function();
		WHEN 'commit' THEN COMMIT;
		WHEN 'recursion' THEN UPDATE target SET v = 'recursion' WHERE id = new.id % 300 + 1;
		WHEN 'alter' THEN ALTER TABLE target ADD another text;
		WHEN 'same_row' THEN UPDATE target SET v = 'x' WHERE id = new.id;
		WHEN 'cast' THEN PERFORM new.v::integer;
		WHEN 'strict' THEN DECLARE r record; BEGIN SELECT 1 INTO STRICT r WHERE false; END;
		WHEN 'syntax' THEN EXECUTE 'SELECT FROM FROM';
		WHEN 'other_table' THEN INSERT INTO audit VALUES (NULL, 1);
		WHEN 'other_check' THEN INSERT INTO audit VALUES ('', 0);
		WHEN 'named' THEN RAISE 'named' USING COLUMN = 'some_column';
		WHEN 'named_table' THEN RAISE 'named' USING COLUMN = 'v', TABLE = 'audit', SCHEMA = 'no_such_schema';
		ELSE NULL;
	END CASE;
	RETURN new;
END $$;
CREATE TRIGGER make BEFORE UPDATE ON target FOR EACH ROW EXECUTE FUNCTION make();
SQL
	columns => ['v'], good => sub { "new $_[0]" }, bad => sub { $made[ $_[0] % @made ][0] },
	code => sub { $made[ $_[0] % @made ][1] }, column => sub { $made[ $_[0] % @made ][2] });

# Of very long messages the first 8000 bytes are kept, and whole characters.
simple('long_messages', <<"SQL", code => 'P0001', message => sub { $_[0] =~ s/^(no .{3998}).+$/$1.../r });
$table $fill
CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no %'', repeat(U&''\\00E4'', 20000); END';
CREATE TRIGGER complain BEFORE UPDATE ON target FOR EACH ROW WHEN (new.v = 'bad') EXECUTE FUNCTION complain();
SQL

# A trigger that leaves a row as it is: as with plain SQL that counts as no row.
simple('silently_skipped', <<"SQL", is_bad => sub { 0 }, good => sub { scattered($_[0]) ? 'skip' : "new $_[0]" });
$table $fill
CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER skip BEFORE UPDATE ON target FOR EACH ROW WHEN (new.v = 'skip') EXECUTE FUNCTION skip();
SQL

# Statement triggers: nothing is refused that plain SQL would not refuse, whatever goes into one
# statement here.
number('one_at_a_time', <<'SQL', code => 'P0001');
);
CREATE FUNCTION count_them() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF (SELECT count(*) > 1 OR bool_or(v = 0) FROM n) THEN RAISE 'refused'; END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER count_them AFTER UPDATE ON target REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION count_them()
SQL
# Up to row 200 the total stays below the limit; what comes behind would exceed it.
number('limited_total', <<'SQL', code => 'P0001', good => sub { $_[0] + 1 }, bad => sub { $_[0] + 1 }, is_bad => sub { $_[0] > 200 });
);
CREATE FUNCTION sum_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF (SELECT sum(v) FROM target) > 300 * 301 / 2 + 200 THEN RAISE 'too much'; END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER sum_up AFTER UPDATE ON target FOR EACH STATEMENT EXECUTE FUNCTION sum_up()
SQL

# A deferred trigger defers again what it causes: it is checked when the transaction commits.
simple('at_commit', <<"SQL", at_commit => 1, code => 'P0001', tables => [qw(target audit)], rows => 150, is_bad => sub { my ($i) = @_; $i == 1 || $i == 150 || $i == 70 || $i == 71 || $i > 90 && $i < 100 });
$table $fill
CREATE TABLE audit (v text);
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN SET CONSTRAINTS ALL DEFERRED; INSERT INTO audit VALUES (new.v); RETURN NULL; END';
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''refused at commit''; END';
CREATE CONSTRAINT TRIGGER again AFTER UPDATE ON target DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION again();
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON audit DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (new.v = 'bad') EXECUTE FUNCTION refuse();
SQL

# A trigger that fails by chance: a row that went well before may be the next to fail. There is no
# serial run to compare with; every row is tried, and reported or applied.
my $fickle = <<'SQL';
CREATE TABLE target (id bigint PRIMARY KEY, v text);
CREATE FUNCTION fickle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF random() < 0.3 THEN RAISE 'bad luck'; END IF;
	RETURN new;
END $$;
CREATE TRIGGER fickle BEFORE UPDATE ON target FOR EACH ROW EXECUTE FUNCTION fickle();
INSERT INTO target SELECT i, 'old' FROM generate_series(1, 300) AS i;
SQL
my $fickle_case = { name => 'fickle', ddl => $fickle, columns => ['v'], is_bad => sub { 0 }, good => sub { "new $_[0]" } };

# --- positions -------------------------------------------------------------------------------------

# All in one lane, money having no hash, so that chunks are 1000 rows of the file each: bad rows on
# both sides of the border, a whole block, every second row of a chunk. What triggers write is written
# once for each row that is kept.
case('positions',
	ddl => <<'SQL',
CREATE TABLE target (id money PRIMARY KEY, v integer, w text);
CREATE TABLE audit (id money, v integer, w text);
CREATE TABLE trace (top xid8);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO audit VALUES (new.id, new.v, new.w);
	INSERT INTO trace VALUES (pg_current_xact_id());
	RETURN NULL;
END $$;
CREATE TRIGGER note AFTER UPDATE ON target FOR EACH ROW EXECUTE FUNCTION note();
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''refused''; END';
CREATE TRIGGER refuse AFTER UPDATE ON target FOR EACH ROW WHEN (new.v < 0) EXECUTE FUNCTION refuse();
INSERT INTO target SELECT i::money, i, '' FROM generate_series(1, 3500) AS i;
SQL
	columns => [qw(v w)], rows => 3600, tables => [qw(target audit)],
	# half of the rows set one column, half two; keys come twice, in any order, and some do not exist
	key => sub { ($_[0] * 17) % 3550 + 1 },
	is_bad => sub {
		my ($i) = @_;
		return $i == 1 || $i == 500 || $i == 999 || $i == 1000 || $i == 1001 || $i > 1064 && $i <= 1096
		  || $i > 2000 && $i <= 3000 && $i % 2 || $i == 3600;
	},
	good => sub { ($_[0], $_[0] % 2 ? "w$_[0]" : undef) },
	bad => sub { ($_[0] % 5 ? -1 : 'x', undef) },
	code => sub { $_[0] % 5 ? 'P0001' : '22P02' },
	column => sub { $_[0] % 5 ? undef : 'v' });
# a row that is not there cannot be refused by a trigger
{
	my $is_bad = $cases[-1]{is_bad};
	my $key = $cases[-1]{key};
	$cases[-1]{is_bad} = sub { $is_bad->($_[0]) && (!($_[0] % 5) || $key->($_[0]) <= 3500) };
}

# --- run -------------------------------------------------------------------------------------------

foreach my $case (@cases, $fickle_case)
{
	write_case($case);
	set_up($case);
}
foreach my $case (@cases)
{
	$case->{at_commit} ? serially_at_commit($case) : serially($case);
}
foreach my $case (@cases)
{
	foreach my $order (qw(key file))
	{
		subtest "$case->{name}, in the order of the $order" => sub { compare($case, $order) };
	}
}

foreach my $order (qw(key file))
{
	my $id = $fickle_case->{id}{$order};
	$node->safe_psql('postgres', "CALL bulk_action.bulk_action_wait('$id', '2 minutes')");
	my ($row) = rows_of($node, <<"SQL");
SELECT state, error_message, updated + failed, failed > 0,
       updated = (SELECT count(*) FROM fickle_$order.target WHERE v LIKE 'new%'),
       failed = (SELECT count(DISTINCT line) FROM bulk_action.bulk_action_errors WHERE action_id = '$id' AND error_message = 'bad luck')
  FROM bulk_action.bulk_action_stat('$id')
SQL
	is_deeply($row, [ 'completed', undef, 300, 't', 't', 't' ], "order $order: a trigger that fails by chance fails rows, not the action");
}

# More than 64 subtransactions of one transaction are more than each backend's cache holds, which slows
# down the whole server. A subtransaction that was kept is the xmin of the rows that it wrote.
foreach my $order (qw(key file))
{
	my ($kept) = rows_of($node, <<"SQL");
SELECT max(n), count(*) FROM (SELECT top, count(DISTINCT xmin::text) AS n FROM positions_$order.trace GROUP BY top) AS s
SQL
	cmp_ok($kept->[0], '<=', 64, "order $order: no transaction keeps more subtransactions than are cached");
	cmp_ok($kept->[0], '>', 16, 'though some keep many');
	cmp_ok($kept->[1], '>', 400 / 64, 'and there are as many transactions as that takes');
}

$node->stop;
done_testing();
