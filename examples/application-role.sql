-- Lets an application submit files, with no more rights than it needs.
--
--   psql -v role=crm_app -v server=uploads -f application-role.sql
--
-- Run it as superuser, in the database that has the extension; the foreign server (see s3.sql), the
-- role and the table public.contacts, registered as the entity contact, are there already. Replace the table and its columns by yours.
\set ON_ERROR_STOP on

-- See the views, and call what an application calls. Registering entities, granting and purging are left
-- to the owner of the tables; in the views every role sees its own actions only.
GRANT USAGE ON SCHEMA bulk_action TO :"role";
GRANT EXECUTE ON FUNCTION
    bulk_action.bulk_action_submit(text, text, text, jsonb, jsonb, text, text, text, uuid),
    bulk_action.bulk_action_stat(uuid),
    bulk_action.bulk_action_error_report(uuid, boolean, bigint, bigint),
    bulk_action.bulk_action_cancel(uuid),
    bulk_action.bulk_action_pause(uuid),
    bulk_action.bulk_action_resume(uuid),
    bulk_action.bulk_action_retry(uuid, jsonb)
TO :"role";
GRANT EXECUTE ON PROCEDURE bulk_action.bulk_action_wait(uuid, interval) TO :"role";

-- Rows are applied with the privileges of the role: it needs SELECT on the key and UPDATE on the
-- columns that its files may set. Row-level security applies as well.
GRANT USAGE ON SCHEMA public TO :"role";
GRANT SELECT (id), UPDATE (first_name, last_name, phone) ON public.contacts TO :"role";

-- That gate stands before it: who may run what on the entity. (As the owner of the table, or superuser.)
SELECT bulk_action.bulk_action_grant('contact', :'role', ARRAY['bulk_update']);

-- The right to read the bucket. Whose credentials are used is a matter of user mappings:
-- CREATE USER MAPPING FOR crm_app SERVER uploads OPTIONS (access_key_id '...', secret_access_key '...');
GRANT USAGE ON FOREIGN SERVER :"server" TO :"role";

-- Workers connect as the role, which therefore needs LOGIN and CONNECT.
SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'role') \gexec
