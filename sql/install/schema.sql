-- bulk_action: what callers may see. bulk_action_internal: everything else.
CREATE SCHEMA bulk_action_internal;
COMMENT ON SCHEMA bulk_action_internal IS 'bulk_action: queue and bookkeeping; not for direct use';
