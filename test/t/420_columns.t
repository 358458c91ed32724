# Which column of a file is for which column of the table: renamed, ignored, folded, unknown; and when the
# value of a row that is there is replaced.
use strict;
use warnings;

use BulkAction;
use Test::More;

my $node = new_node('main', conf => "bulk_action.file_root = '/'\n");
create_role($node, 'alice');
$node->safe_psql('postgres', <<'SQL');
GRANT pg_read_server_files TO alice;
CREATE TABLE people (id int PRIMARY KEY, email text, "Phone" text, age int, note varchar(20), tags text[]);
CREATE TABLE ambiguous (id int PRIMARY KEY, name text, "Name" text);
GRANT SELECT (id, email, age), UPDATE ON people TO alice;
SQL
value_of($node, "SELECT bulk_action.bulk_action_register_entity('$_->[0]', '$_->[1]', ARRAY['id'])") foreach [ 'person', 'people' ], [ 'ambiguous', 'ambiguous' ];
value_of($node, "SELECT bulk_action.bulk_action_grant('person', 'alice')");

my $files = 0;

sub submit
{
	my ($content, $options, %option) = @_;
	my $csv = write_file($node->basedir . '/columns' . ++$files . '.csv', $content);
	my $type = $option{type} // 'bulk_update';
	my $entity = $option{entity} // 'person';
	$node->safe_psql('postgres', <<'SQL');
TRUNCATE people, ambiguous;
INSERT INTO people VALUES (1, 'one@x', '111', 10, 'note', '{a}'), (2, NULL, '', NULL, '', NULL), (3, 'three@x', NULL, 30, 'keep', '{}');
INSERT INTO ambiguous VALUES (1, 'a', 'b');
SQL
	my $id = value_of($node, "SELECT bulk_action.bulk_action_submit('file://$csv', action_type => '$type', entity_type => '$entity', options => '$options')", as => $option{as} // 'postgres');
	wait_for($node, "SELECT finished_at IS NOT NULL FROM bulk_action.bulk_actions WHERE id = '$id'");
	return $id;
}

sub becomes
{
	my ($name, $content, $options, $expected, %option) = @_;
	my $id = submit($content, $options, %option);
	is_deeply([ rows_of($node, 'SELECT id, email, "Phone", age, note, tags::text FROM people ORDER BY id') ], $expected, $name)
	  or diag(value_of($node, "SELECT state || ' ' || coalesce(error_message, '') FROM bulk_action.bulk_actions WHERE id = '$id'"));
	return $id;
}

sub fails
{
	my ($name, $content, $options, $code, $like, %option) = @_;
	my $id = submit($content, $options, %option);
	my ($got, @text) = @{ (rows_of($node, "SELECT error_code, error_message, error_detail, error_hint FROM bulk_action.bulk_actions WHERE id = '$id'"))[0] };
	is($got, $code, "$name: code");
	like(join(' / ', map { $_ // '' } @text), $like, "$name: what it says");
}

my @one = (1, 'one@x', '111', 10, 'note', '{a}');
my @two = (2, undef, '', undef, '', undef);
my @three = (3, 'three@x', undef, 30, 'keep', '{}');

becomes('renamed and ignored', "E-Mail,ID,Remarks\nnew\@x,1,whatever\n", '{"columns": {"E-Mail": "email", "ID": "id", "Remarks": null}}',
	[ [ 1, 'new@x', @one[ 2 .. 5 ] ], [@two], [@three] ]);
becomes('two columns change their names', "id,age,note\n1,x,5\n", '{"columns": {"age": "note", "note": "age"}}',
	[ [ @one[ 0 .. 2 ], 5, 'x', '{a}' ], [@two], [@three] ]);
becomes('folded', qq( ID ,EMAIL,"phone "\n1,n,9\n), '{"fold_header": true}', [ [ 1, 'n', '9', @one[ 3 .. 5 ] ], [@two], [@three] ]);
becomes('folded and renamed', qq(Id, e-mail \n1,n\n), '{"fold_header": true, "columns": {"E-MAIL": "email"}}', [ [ 1, 'n', @one[ 2 .. 5 ] ], [@two], [@three] ]);
becomes('unknown ones ignored', "id,emial,age\n1,n,7\n", '{"unknown_columns": "ignore"}', [ [ @one[ 0 .. 2 ], 7, @one[ 4, 5 ] ], [@two], [@three] ]);
becomes('only where there is nothing', "id,email,Phone,age,note,tags\n1,a,b,1,c,{z}\n2,a,b,1,c,{z}\n3,a,b,1,c,{z}\n",
	'{"columns": {"email": {"overwrite": "only_if_empty"}, "Phone": {"column": "Phone", "overwrite": "only_if_empty"}, "age": {"overwrite": "only_if_empty"}, "note": {"overwrite": "only_if_empty"}, "tags": {"overwrite": "only_if_empty"}}}',
	[ [@one], [ 2, 'a', 'b', 1, 'c', '{z}' ], [ 3, 'three@x', 'b', 30, 'keep', '{}' ] ]);
becomes('never, but for new rows', "id,email,note\n1,a,b\n4,c,d\n", '{"columns": {"email": {"overwrite": "never"}}}',
	[ [ 1, 'one@x', '111', 10, 'b', '{a}' ], [@two], [@three], [ 4, 'c', undef, undef, 'd', undef ] ], type => 'bulk_upsert');
my $id = becomes('nothing but never', "id,email\n1,a\n4,c\n", '{"columns": {"email": {"overwrite": "never"}}}',
	[ [@one], [@two], [@three], [ 4, 'c', undef, undef, undef, undef ] ], type => 'bulk_upsert');
is(value_of($node, "SELECT concat_ws(' ', inserted, updated, unchanged) FROM bulk_action.bulk_action_stat('$id')"), '1 0 1', 'what is there is unchanged');
$id = becomes('an unchanged row', "id,email,age\n1,one\@x,10\n2,,\n3,three\@x,31\n5,a,1\n", '{}', [ [@one], [@two], [ @three[ 0 .. 2 ], 31, @three[ 4, 5 ] ] ]);
is(value_of($node, "SELECT concat_ws(' ', updated, unchanged, not_found) FROM bulk_action.bulk_action_stat('$id')"), '1 2 1', 'is counted so');
$id = becomes('a column that may not be read', "id,note\n1,note\n", '{}', [ [@one], [@two], [@three] ], as => 'alice');
is(value_of($node, "SELECT concat_ws(' ', updated, unchanged) FROM bulk_action.bulk_action_stat('$id')"), '1 0', 'is always written');

fails('a misspelt column', "id,emial\n1,n\n", '{}', '42703', qr/column "emial" of the header does not exist.*Perhaps you meant "email"/);
fails('a column that is to be there', "id,email\n1,n\n", '{"columns": {"E-Mail": "email"}}', '42703', qr/the header lacks column "E-Mail"/);
fails('a name that the table has not got', "id,E-Mail\n1,n\n", '{"columns": {"E-Mail": "mail"}, "unknown_columns": "ignore"}', '42703', qr/column "mail" of the header does not exist/);
fails('two for one', "id,email,E-Mail\n1,n,m\n", '{"columns": {"E-Mail": "email"}}', '42701', qr/"email" appears twice/);
fails('the key ignored', "id,email\n1,n\n", '{"columns": {"id": null}}', '42703', qr/lacks key column "id"/);
fails('ambiguous', "ID,NAME\n1,n\n", '{"fold_header": true}', '42702', qr/column "NAME" of the header is ambiguous.*"name" and "Name"/, entity => 'ambiguous');
fails('only_if_empty without SELECT', "id,note\n1,n\n", '{"columns": {"note": {"overwrite": "only_if_empty"}}}', '42501', qr/lacks SELECT on the column/, as => 'alice');
fails('match that is not in the file', "id,age\n1,n\n", '{"match": ["email"]}', '42703', qr/the header lacks column "email".*match/, type => 'bulk_delete');
fails('match without equality', "id,note\n1,n\n", '{"match": ["nothing"]}', '42703', qr/lacks column "nothing"/, type => 'bulk_delete');

# what submit refuses
sub refused
{
	my ($name, $options, $like, $type) = @_;
	$type //= 'bulk_update';
	my (undef, undef, $error) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT bulk_action.bulk_action_submit('file:///tmp/x.csv', action_type => '$type', entity_type => 'person', options => '$options')");
	like($error, qr/22023.*$like/s, $name);
}
refused('an array', '{"columns": ["a"]}', qr/"columns" must not be an array for a file with a header.*an object like/s);
refused('a number', '{"columns": {"a": 1}}', qr/"columns": "a" must not be a number/);
refused('a word that is none', '{"columns": {"a": {"overwrite": "nevr"}}}', qr/must not be "nevr".*Perhaps you meant "never"/s);
refused('a key that is none', '{"columns": {"a": {"colum": "b"}}}', qr/must not be "colum".*Perhaps you meant "column"/s);
refused('no name', '{"columns": {"a": ""}}', qr/is not the name of a column/);
refused('match for an update', '{"match": ["a"]}', qr/"match" does not go with action type "bulk_update"/);
refused('on_conflict for an upsert', '{"on_conflict": "skip"}', qr/"on_conflict" does not go with action type "bulk_upsert"/, 'bulk_upsert');
refused('inserting what is to be deleted', '{"on_missing": "insert"}', qr/"on_missing" must not be "insert" for "bulk_delete"/, 'bulk_delete');
refused('empty for a delete', '{"empty": "null"}', qr/"empty" does not go with action type "bulk_delete"/, 'bulk_delete');
refused('no boolean', '{"skip_unchanged": "no"}', qr/"skip_unchanged" must be a boolean/);

# an insert whose keys the table makes
{
	$node->safe_psql('postgres', 'CREATE TABLE made (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text); CREATE TABLE by_default (id bigint GENERATED BY DEFAULT AS IDENTITY (START 100) PRIMARY KEY, name text)');
	value_of($node, "SELECT bulk_action.bulk_action_register_entity('$_', '$_', ARRAY['id'])") foreach qw(made by_default);
	my $made = submit("name\n" . join('', map { "n$_\n" } 1 .. 2500), '{}', type => 'bulk_insert', entity => 'made');
	is(value_of($node, "SELECT concat_ws(' ', (SELECT inserted FROM bulk_action.bulk_action_stat('$made')), count(*), count(DISTINCT name)) FROM made"), '2500 2500 2500', 'keys of the table\'s making');
	$made = submit("id,name\n,first\n7,second\n,third\n", '{}', type => 'bulk_insert', entity => 'by_default');
	is(value_of($node, "SELECT string_agg(id || name, ' ' ORDER BY id) FROM by_default"), '7second 100first 101third', 'or some of them');
	fails('an identity column that takes no values', "id,name\n1,x\n", '{}', '42703', qr/column "id" of the header may not be set/, type => 'bulk_insert', entity => 'made');
	fails('duplicates without keys', "name\nx\n", '{"duplicates": "last"}', '42703', qr/lacks key column "id"/, type => 'bulk_insert', entity => 'made');
}

done_testing();
