# What CREATE EXTENSION leaves is safe to call for anybody and found by nobody's path, and it does not
# settle in what others have prepared for it.
use strict;
use warnings;

use BulkAction;
use File::Basename qw(dirname);
use File::Spec;
use Test::More;

my $top = dirname(dirname(dirname(File::Spec->rel2abs(__FILE__))));
my $node = new_node('main');
my $ours = "p.pronamespace IN ('bulk_action'::regnamespace, 'bulk_action_internal'::regnamespace)";

# --- functions ------------------------------------------------------------------------------------------------

cmp_ok(value_of($node, "SELECT count(*) FROM pg_proc AS p WHERE $ours"), '>', 10, 'there are functions');
is(value_of($node, "SELECT string_agg(p.oid::regprocedure::text, ', ') FROM pg_proc AS p WHERE $ours AND prosecdef"), '', 'none is SECURITY DEFINER');
is(value_of($node, "SELECT string_agg(p.oid::regprocedure::text, ', ' ORDER BY p.oid) FROM pg_proc AS p WHERE $ours AND has_function_privilege('public', p.oid, 'EXECUTE')"),
	'bulk_action_internal.may_see(oid,text), bulk_action_internal.is_admin()', 'none is for everybody but those by which policies and views ask about their reader');
# In C there are no names to be looked up; a body in SQL is parsed once, with the path of the install script.
is(value_of($node, <<SQL), '', 'none looks names up in the path of its caller');
SELECT string_agg(p.oid::regprocedure::text, ', ') FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
 WHERE $ours AND l.lanname <> 'c' AND prosqlbody IS NULL
   AND NOT coalesce(proconfig \@> ARRAY['search_path=pg_catalog, pg_temp'], false)
SQL
is(value_of($node, <<SQL), '', 'none takes arguments of any type, so that none is called with what it does not expect');
SELECT string_agg(p.oid::regprocedure::text, ', ') FROM pg_proc AS p
 WHERE $ours AND (provariadic <> 0 OR EXISTS (
   SELECT FROM unnest(proargtypes) AS a (type) JOIN pg_type AS t ON t.oid = a.type WHERE t.typtype = 'p'))
SQL
is(value_of($node, "SELECT string_agg(proname, ', ') FROM (SELECT proname FROM pg_proc AS p WHERE p.pronamespace = 'bulk_action'::regnamespace GROUP BY proname HAVING count(*) > 1) AS s"),
	'', 'none is overloaded');
is(value_of($node, <<'SQL'), '', 'there is no trigger, rule or policy by others on the internal tables');
SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class AS c
 WHERE relnamespace = 'bulk_action_internal'::regnamespace AND relkind IN ('r', 'p')
   AND (EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid) OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid)
     OR EXISTS (SELECT FROM pg_constraint WHERE conrelid = c.oid AND condeferrable))
SQL
is(value_of($node, <<'SQL'), '', 'nobody but the owner may write, or create, anywhere');
SELECT string_agg(what, ', ') FROM (
  SELECT c.oid::regclass::text AS what, a.* FROM pg_class AS c, aclexplode(c.relacl) AS a
   WHERE relnamespace IN ('bulk_action'::regnamespace, 'bulk_action_internal'::regnamespace) AND grantee <> relowner
  UNION ALL
  SELECT nspname, a.* FROM pg_namespace, aclexplode(nspacl) AS a WHERE nspname LIKE 'bulk\_action%' AND grantee <> nspowner
  UNION ALL
  SELECT fdwname, a.* FROM pg_foreign_data_wrapper, aclexplode(fdwacl) AS a WHERE grantee <> fdwowner
) AS granted WHERE privilege_type NOT IN ('SELECT') OR what LIKE 'bulk\_action%' AND what NOT LIKE '%.%'
SQL

# --- the files -----------------------------------------------------------------------------------------------------

my @manifest = grep { length } map { s/\s*(#.*)?\z//r } split /\n/, read_file("$top/sql/install/manifest");
is_deeply([ sort @manifest ], [ sort map { s{.*/}{}r } glob "$top/sql/install/*.sql" ], 'the manifest names every file');
foreach my $file (@manifest)
{
	my $sql = read_file("$top/sql/install/$file") =~ s/--[^\n]*//gr;
	unlike($sql, qr/\bOR\s+REPLACE\b|\bIF\s+NOT\s+EXISTS\b/i, "$file adopts nothing that is there already");
	unlike($sql, qr/SECURITY\s+DEFINER/i, 'nor does it lend privileges');
	unlike($sql, qr/^\s*CREATE\s+(?:UNLOGGED\s+)?(?:TABLE|VIEW|FUNCTION|PROCEDURE|SEQUENCE|DOMAIN|TYPE)\s+(?!bulk_action(?:_internal)?\.)/mi, 'and names the schema of what it creates');
	is(join(', ', $sql =~ /\b(?<!epoch )(?:FROM|JOIN|INTO|UPDATE)\s+(?!LATERAL|ROWS\b|STRICT\b|PUBLIC\b)(?!(?:bulk_action\w*|pg_catalog)\.|pg_catalog\b)([a-z_]+)/g), '', 'and of what it reads');
}

# --- what others have prepared ----------------------------------------------------------------------------------------

$node->safe_psql('postgres', 'CREATE ROLE mallory LOGIN');
my $n = 0;

sub prepared
{
	my ($name, $sql, $detail) = @_;
	my $db = 'prepared' . ++$n;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'GRANT CREATE ON DATABASE ' . $db . ' TO mallory');
	$node->safe_psql($db, $sql);
	my (undef, undef, $error) = $node->psql($db, 'CREATE EXTENSION bulk_action');
	if (!defined $detail)
	{
		is($error, '', "$name: it is installed");
		return;
	}
	like($error, $detail, "$name: it is not installed, and says why");
	is(value_of($node, "SELECT count(*) FROM pg_extension WHERE extname = 'bulk_action'", db => $db), 0, 'nothing of it is there');
	$node->safe_psql($db, "SET client_min_messages = warning; RESET SESSION AUTHORIZATION; DROP SCHEMA IF EXISTS bulk_action CASCADE; DROP SCHEMA IF EXISTS bulk_action_internal CASCADE; CREATE EXTENSION bulk_action");
	is(value_of($node, "SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'bulk_action'", db => $db), 'postgres', 'with the schema out of the way it is');
}
my $as = 'SET SESSION AUTHORIZATION mallory;';
prepared('a schema of somebody', "$as CREATE SCHEMA bulk_action", qr/schema "bulk_action" exists already.*DETAIL:  Its owner, mallory, is no superuser.*HINT:  DROP/s);
prepared('a schema where others may create', 'CREATE SCHEMA bulk_action; GRANT CREATE ON SCHEMA bulk_action TO mallory', qr/exists already.*DETAIL:  Others may create objects in it/s);
prepared('a planted function', "CREATE SCHEMA bulk_action; CREATE FUNCTION bulk_action.bulk_action_cancel(text) RETURNS boolean LANGUAGE sql AS 'SELECT true'", qr/exists already.*DETAIL:  It contains objects: function bulk_action_cancel\(text\)/s);
prepared('a planted operator', <<'SQL', qr/exists already.*DETAIL:  It contains objects/s);
CREATE SCHEMA bulk_action;
CREATE FUNCTION bulk_action.equal(bigint, numeric) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR bulk_action.= (LEFTARG = bigint, RIGHTARG = numeric, FUNCTION = bulk_action.equal);
SQL
prepared('the inner schema', "$as CREATE SCHEMA bulk_action_internal", qr/schema "bulk_action_internal" already exists/);
prepared('an empty schema of a superuser, as pg_dump restores it', 'CREATE SCHEMA bulk_action; GRANT USAGE ON SCHEMA bulk_action TO mallory');
prepared('functions of the same names on the path', 'GRANT ALL ON SCHEMA public TO mallory;' . $as
	  . "CREATE FUNCTION public.count(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint'; CREATE FUNCTION public.coalesce(bigint, integer) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint'");

done_testing();
