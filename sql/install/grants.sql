-- Whoever may use the schema sees his own actions in the views. What starts or changes something
-- is for those to whom the operator has granted it.
GRANT SELECT ON bulk_action.bulk_actions, bulk_action.bulk_action_stats, bulk_action.bulk_action_errors,
	bulk_action.bulk_action_superseded_rows, bulk_action.bulk_action_dead_letters, bulk_action.bulk_action_progress,
	bulk_action_internal.action_statistics TO PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA bulk_action FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA bulk_action_internal FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('bulk_action_internal.entities', '');
