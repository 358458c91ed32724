-- Nobody is meant to read the internal tables; but members of pg_read_all_data may, and whoever a
-- superuser grants it. They see no more there than the views would show them: of results the rows of
-- their own actions, of the queue nothing. The owner of the tables, as whom views and workers read
-- and write them, is not bound by policies.
CREATE VIEW bulk_action_internal.visible_actions WITH (security_barrier) AS
SELECT a.action_no
FROM bulk_action_internal.actions AS a
WHERE bulk_action_internal.may_see(a.submitted_role, a.account_id);
COMMENT ON VIEW bulk_action_internal.visible_actions IS 'numbers of the caller''s actions, for policies';
GRANT SELECT ON bulk_action_internal.visible_actions TO PUBLIC;
GRANT EXECUTE ON FUNCTION bulk_action_internal.may_see(oid, text), bulk_action_internal.is_admin() TO PUBLIC;

CREATE POLICY visible ON bulk_action_internal.actions FOR SELECT
	USING (bulk_action_internal.may_see(submitted_role, account_id));
CREATE POLICY visible ON bulk_action_internal.stats FOR SELECT
	USING (action_no IN (SELECT v.action_no FROM bulk_action_internal.visible_actions AS v));
CREATE POLICY visible ON bulk_action_internal.errors FOR SELECT
	USING (action_no IN (SELECT v.action_no FROM bulk_action_internal.visible_actions AS v));
CREATE POLICY visible ON bulk_action_internal.superseded FOR SELECT
	USING (action_no IN (SELECT v.action_no FROM bulk_action_internal.visible_actions AS v));
CREATE POLICY visible ON bulk_action_internal.dead_letters FOR SELECT
	USING (action_no IN (SELECT v.action_no FROM bulk_action_internal.visible_actions AS v));

-- Every table with rows of actions, so that none is forgotten; partitions have policies of their own.
DO $$
DECLARE
	of_actions regclass;
BEGIN
	FOR of_actions IN
		SELECT c.oid FROM pg_catalog.pg_class AS c
		JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'action_no'
		WHERE c.relnamespace = 'bulk_action_internal'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p')
	LOOP
		EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', of_actions);
	END LOOP;
END
$$;
