-- Options of servers of bulk_action_https, and what submit says about URLs
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS bulk_action;
RESET client_min_messages;
SET search_path = public, bulk_action;
CREATE ROLE regress_ba_admin;
CREATE ROLE regress_ba_user LOGIN;
GRANT USAGE ON FOREIGN DATA WRAPPER bulk_action_https TO regress_ba_admin;

-- all of them
CREATE SERVER regress_ba_full FOREIGN DATA WRAPPER bulk_action_https OPTIONS (
	host 'files.example.com', port '8443', prefix '/exports/', ca_file '/etc/ssl/partner.pem', allow_private_address 'on');
CREATE SERVER regress_ba_ipv6 FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host '2001:DB8::1');
CREATE USER MAPPING FOR PUBLIC SERVER regress_ba_full;

-- names
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https;
\echo :SQLSTATE
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https OPTIONS (hots 'files.example.com');
\echo :SQLSTATE
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host 'files.example.com', allow_http 'true');
ALTER SERVER regress_ba_full OPTIONS (DROP host);
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_ba_full OPTIONS (password 'hidden');
ALTER FOREIGN DATA WRAPPER bulk_action_https OPTIONS (ADD host 'files.example.com');

-- values
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host '*.example.com');
\echo :SQLSTATE
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host 'https://files.example.com');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host 'files.example.com:443');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host 'user@files.example.com');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host '[2001:db8::1]');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host '');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host 'h', port '0');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host 'h', port '65536');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host 'h', port 'https');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host 'h', port '');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host 'h', prefix 'exports/');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host 'h', prefix '/exports/../');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host 'h', allow_private_address 'maybe');
SET ROLE regress_ba_admin;
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host 'h', ca_file '/etc/ssl/partner.pem');
\echo :SQLSTATE
RESET ROLE;

-- URLs
CREATE TABLE regress_ba_contacts (id bigint PRIMARY KEY, name text);
GRANT SELECT, UPDATE ON regress_ba_contacts TO regress_ba_user;
SELECT bulk_action_register_entity('contact', 'regress_ba_contacts', ARRAY['id']);
SELECT bulk_action_grant('contact', 'regress_ba_user');
GRANT USAGE ON SCHEMA bulk_action TO regress_ba_user;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bulk_action TO regress_ba_user;
SET SESSION AUTHORIZATION regress_ba_user;
SELECT bulk_action_submit('https://files.example.com:8443/exports/a.csv?s=hidden');
\echo :SQLSTATE
SELECT bulk_action_submit('https://files.example.com:8443/exports/a.csv?s=hidden', options => '{"server": "regress_ba_full"}');
\echo :SQLSTATE
RESET SESSION AUTHORIZATION;
GRANT USAGE ON FOREIGN SERVER regress_ba_full TO regress_ba_user;
CREATE SERVER regress_ba_s3 FOREIGN DATA WRAPPER bulk_action_s3;
SET SESSION AUTHORIZATION regress_ba_user;
SELECT bulk_action_submit('https://files.example.com:8443/exports/a.csv?s=hidden', options => '{"server": "regress_ba_s3"}');
\echo :SQLSTATE
SELECT bulk_action_submit('https://files.example.com:8443/exports/a.csv?s=hidden', options => '{"server": "regress_ba_ful"}');
SELECT bulk_action_submit('s3://bucket/key', options => '{"server": "regress_ba_full"}');
SELECT bulk_action_submit('https://other.example.com:8443/exports/a.csv?s=hidden');
\echo :SQLSTATE
SELECT bulk_action_submit('https://other.example.com:8443/exports/a.csv?s=hidden', options => '{"server": "regress_ba_full"}');
\echo :SQLSTATE
SELECT bulk_action_submit('https://files.example.com/exports/a.csv?s=hidden');
SELECT bulk_action_submit('https://files.example.com.:8443/exports/a.csv?s=hidden');
SELECT bulk_action_submit('https://files.example.com:8443/imports/a.csv?s=hidden');
\echo :SQLSTATE
SELECT bulk_action_submit('https://files.example.com:8443/%65xports/a.csv?s=hidden');
SELECT bulk_action_submit('https://files.example.com:8443/exports/../a.csv?s=hidden');
\echo :SQLSTATE
SELECT bulk_action_submit('https://files.example.com:8443/exports/%2E%2e/a.csv?s=hidden');
SELECT bulk_action_submit('https://files.example.com:8443/exports/a.csv?s=hidden#part');
SELECT bulk_action_submit('https://user:hidden@files.example.com:8443/exports/a.csv');
SELECT bulk_action_submit('https://files.example.com:8443@other.example.com/exports/a.csv');
SELECT bulk_action_submit(E'https://files.example.com:8443/exports/a.csv?s=hidden\nHost: x');
SELECT bulk_action_submit('http://files.example.com:8443/exports/a.csv?s=hidden');
SELECT bulk_action_submit('https://files.example.com:8443/exports/a.csv?s=' || repeat('x', 8001));
SELECT bulk_action_submit('https://files.example.com:8443/exports/' || repeat('x', 2000));
SELECT bulk_action_submit('https://files.example.com:8443/exports/a.csv?s=' || repeat('x', 9000));
\echo :SQLSTATE
RESET SESSION AUTHORIZATION;

-- two for the same host
CREATE SERVER regress_ba_all FOREIGN DATA WRAPPER bulk_action_https OPTIONS (host 'Files.Example.COM', port '8443');
GRANT USAGE ON FOREIGN SERVER regress_ba_all TO regress_ba_user;
SET SESSION AUTHORIZATION regress_ba_user;
SELECT bulk_action_submit('https://files.example.com:8443/exports/a.csv?s=hidden');
\echo :SQLSTATE

-- what is stored, what is shown, and what is the same
BEGIN;
SELECT bulk_action_submit('HTTPS://Files.example.com:8443/a.csv?s=hidden', idempotency_key => 'one') AS id \gset
SELECT source FROM bulk_actions WHERE id = :'id';
SELECT source FROM bulk_action_progress WHERE action_id = :'id';
SELECT bulk_action_submit('https://files.example.com:8443/a.csv?s=another', idempotency_key => 'one') = :'id' AS same;
SAVEPOINT s;
SELECT bulk_action_submit('https://files.example.com:8443/b.csv?s=hidden', idempotency_key => 'one');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT bulk_action_submit('https://files.example.com:8443/a.csv', idempotency_key => 'one');
ROLLBACK;
RESET SESSION AUTHORIZATION;

SET client_min_messages = warning;
DROP TABLE regress_ba_contacts;
DROP SERVER regress_ba_full, regress_ba_ipv6, regress_ba_all, regress_ba_s3 CASCADE;
DROP OWNED BY regress_ba_admin, regress_ba_user;
DROP ROLE regress_ba_admin, regress_ba_user;
DROP EXTENSION bulk_action;
