-- bulk_action_set_limits, bulk_action_clear_limits and the view bulk_action_limits: arguments, who may,
-- and what is seen. What the limits do is in test/t/330_limits.t.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS bulk_action;
RESET client_min_messages;
SET search_path = public, bulk_action;
CREATE ROLE regress_ba_limited LOGIN;
CREATE ROLE regress_ba_group;
CREATE ROLE regress_ba_gone;
GRANT regress_ba_group TO regress_ba_limited;
GRANT USAGE ON SCHEMA bulk_action TO regress_ba_limited;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA bulk_action TO regress_ba_limited;
CREATE VIEW configured AS
	SELECT * FROM bulk_action_internal.limits ORDER BY kind, name;

-- what works
SELECT bulk_action_set_limits('account', 'acme', submissions_per_minute => 10, concurrent_actions => 2,
	queued_actions => 20, rows_per_second => 5000, max_bytes => 5000000000, max_rows => 10000000000);
SELECT bulk_action_set_limits('account', max_rows => 1000);
SELECT bulk_action_set_limits('role', 'regress_ba_limited', queued_actions => 7);
SELECT bulk_action_set_limits('role', 'regress_ba_group', queued_actions => 8);
SELECT bulk_action_set_limits('role', 'regress_ba_gone', queued_actions => 9);
SELECT bulk_action_set_limits('role', NULL, submissions_per_minute => 100);
SELECT bulk_action_set_limits('account', 'exempt');
SELECT * FROM configured;

-- a call says all of them
SELECT bulk_action_set_limits('account', 'acme', queued_actions => 3);
SELECT bulk_action_set_limits('account', max_rows => 2000);
SELECT * FROM configured WHERE kind = 'account';

-- what does not
SELECT bulk_action_set_limits(NULL, 'acme');
\echo :SQLSTATE
SELECT bulk_action_set_limits('tenant', 'acme');
\echo :SQLSTATE
SELECT bulk_action_set_limits('account', '');
SELECT bulk_action_set_limits('account', repeat('x', 256));
SELECT bulk_action_set_limits('role', 'regress_ba_nobody');
\echo :SQLSTATE
SELECT bulk_action_set_limits('account', 'acme', submissions_per_minute => 0);
\echo :SQLSTATE
SELECT bulk_action_set_limits('account', 'acme', concurrent_actions => -1);
SELECT bulk_action_set_limits('account', 'acme', queued_actions => 0);
SELECT bulk_action_set_limits('account', 'acme', rows_per_second => 0);
SELECT bulk_action_set_limits('account', 'acme', max_bytes => 0);
SELECT bulk_action_set_limits('account', 'acme', max_rows => -9223372036854775808);
SELECT bulk_action_clear_limits(NULL);
SELECT bulk_action_clear_limits('tenant');
BEGIN READ ONLY;
SELECT bulk_action_set_limits('account', 'acme');
ROLLBACK;

-- who may
SET ROLE regress_ba_limited;
SELECT bulk_action_set_limits('role', 'regress_ba_limited');
\echo :SQLSTATE
SELECT bulk_action_clear_limits('role', 'regress_ba_limited');
\echo :SQLSTATE
TABLE bulk_action_internal.limits;
RESET ROLE;
SET bulk_action.admin_role = 'regress_ba_group';
SET ROLE regress_ba_limited;
SELECT bulk_action_set_limits('account', 'by admin', queued_actions => 1);
SELECT count(*) > 0 AS sees_others FROM bulk_action_limits WHERE name = 'acme';
SELECT bulk_action_clear_limits('account', 'by admin');
RESET ROLE;
RESET bulk_action.admin_role;

-- who sees what: everybody his roles, his accounts and those for all
DROP ROLE regress_ba_gone;
SELECT bulk_action_set_limits('account', 'regress_ba_limited', max_rows => 5);
SELECT kind, name, is_default, submissions_per_minute, submitted_last_minute, queued_actions, waiting, running, max_rows
FROM bulk_action_limits ORDER BY kind, name;
SET ROLE regress_ba_limited;
SELECT kind, name, is_default, submissions_per_minute, submitted_last_minute, queued_actions, waiting, running, max_rows
FROM bulk_action_limits ORDER BY kind, name;
RESET ROLE;
SELECT bulk_action_clear_limits('role', 'regress_ba_limited');
SELECT bulk_action_clear_limits('account', 'regress_ba_limited');
SET ROLE regress_ba_limited;
SELECT kind, name, is_default, submissions_per_minute, queued_actions, max_rows FROM bulk_action_limits ORDER BY kind, name;
RESET ROLE;

-- taking them back, those of a role that is gone too
SELECT bulk_action_clear_limits('role', 'regress_ba_gone');
SELECT bulk_action_clear_limits('role', 'regress_ba_gone');
SELECT bulk_action_clear_limits('role', 'regress_ba_group');
SELECT bulk_action_clear_limits('role');
SELECT bulk_action_clear_limits('account');
SELECT bulk_action_clear_limits('account', 'acme');
SELECT * FROM configured;
SELECT bulk_action_clear_limits('account', 'exempt');
SELECT count(*) FROM bulk_action_limits;

DROP VIEW configured;
REVOKE ALL ON SCHEMA bulk_action FROM regress_ba_limited;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA bulk_action FROM regress_ba_limited;
DROP ROLE regress_ba_limited, regress_ba_group;
