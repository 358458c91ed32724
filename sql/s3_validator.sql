-- Options of servers and user mappings of bulk_action_s3
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS bulk_action;
RESET client_min_messages;
CREATE ROLE regress_ba_admin;
GRANT USAGE ON FOREIGN DATA WRAPPER bulk_action_s3 TO regress_ba_admin;

-- all of them
CREATE SERVER regress_ba_full FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (
	endpoint 'https://s3.example.com:9000', region 'eu-central-1', bucket 'imports', prefix 'contacts/',
	addressing 'path', ca_file '/etc/ssl/s3.pem', allow_http 'false', allow_private_address 'on');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_ba_full OPTIONS (
	access_key_id 'AKIDEXAMPLE', secret_access_key 'secret/with+signs=', session_token 'token==');
CREATE SERVER regress_ba_none FOREIGN DATA WRAPPER bulk_action_s3;
CREATE USER MAPPING FOR PUBLIC SERVER regress_ba_none;

-- names
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (endpont 'https://s3.example.com');
\echo :SQLSTATE
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (access_key_id 'x');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_ba_none OPTIONS (acces_key_id 'x');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_ba_none OPTIONS (bucket 'imports');
ALTER FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (ADD region 'us-east-1');
CREATE FOREIGN TABLE regress_ba_table (a integer) SERVER regress_ba_none OPTIONS (key 'x');

-- values
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (endpoint 's3.example.com');
\echo :SQLSTATE
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (endpoint 'https://s3.example.com/bucket');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (endpoint 'https://user:secret@s3.example.com');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (endpoint '');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (region '');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (region 'us/east');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (bucket 'Imports');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (bucket 's3://imports');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (prefix '');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (addressing 'host');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (ca_file 's3.pem');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (allow_http 'maybe');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (allow_private_address '');

-- options that must agree
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (endpoint 'http://s3.example.com');
\echo :SQLSTATE
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (
	endpoint 'https://192.0.2.1', addressing 'virtual');
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (
	endpoint 'http://127.0.0.1:9000', allow_http 'true');
ALTER SERVER regress_ba OPTIONS (DROP allow_http);
ALTER SERVER regress_ba OPTIONS (SET endpoint 'https://127.0.0.1:9000', DROP allow_http);
DROP SERVER regress_ba;

-- credentials: in pairs, and never repeated in a message
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_ba_none OPTIONS (access_key_id 'AKIDEXAMPLE');
\echo :SQLSTATE
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_ba_none OPTIONS (secret_access_key 'hidden');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_ba_none OPTIONS (session_token 'hidden');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_ba_none OPTIONS (
	access_key_id 'AKIDEXAMPLE', secret_access_key E'hidden\r\nX-Header: 1');

-- a file of the server only by those who may read it
SET ROLE regress_ba_admin;
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (ca_file '/etc/ssl/s3.pem');
\echo :SQLSTATE
CREATE SERVER regress_ba FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (bucket 'imports');
RESET ROLE;
GRANT pg_read_server_files TO regress_ba_admin;
SET ROLE regress_ba_admin;
ALTER SERVER regress_ba OPTIONS (ADD ca_file '/etc/ssl/s3.pem');
RESET ROLE;

SET client_min_messages = warning;
DROP SERVER regress_ba, regress_ba_full, regress_ba_none CASCADE;
DROP OWNED BY regress_ba_admin;
DROP ROLE regress_ba_admin;
DROP EXTENSION bulk_action;
