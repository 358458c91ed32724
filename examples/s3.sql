-- A whole round with a file in S3: bucket, table, entity, submit, wait, look.
--
--   psql -v endpoint=https://s3.eu-central-1.amazonaws.com -v region=eu-central-1 -v bucket=uploads \
--        -v key=contacts.csv -v access_key_id=... -v secret_access_key=... -v local=false -f s3.sql
--
-- Run it as superuser, in a database of its own with bulk_action preloaded. The object must be a CSV
-- file with the header id,email,first_name,age. local=true accepts an endpoint like
-- http://127.0.0.1:9000 (no TLS, a private address), which is for tests.
\set ON_ERROR_STOP on

CREATE EXTENSION IF NOT EXISTS bulk_action;
SET search_path = public, bulk_action;

CREATE SERVER uploads FOREIGN DATA WRAPPER bulk_action_s3 OPTIONS (
    endpoint :'endpoint', region :'region', bucket :'bucket',
    allow_http :'local', allow_private_address :'local');
CREATE USER MAPPING FOR CURRENT_USER SERVER uploads OPTIONS (
    access_key_id :'access_key_id', secret_access_key :'secret_access_key');

CREATE TABLE contacts (
    id         bigint PRIMARY KEY,
    email      text UNIQUE,
    first_name text,
    age        int CHECK (age >= 0)
);
INSERT INTO contacts
SELECT i, 'contact' || i || '@example.com', 'First' || i, 18 + i % 70
  FROM generate_series(1, 100000) AS i;

-- What files may set; without the list, every column but the key.
SELECT bulk_action_register_entity('contact', 'contacts', ARRAY['id'], ARRAY['first_name', 'age', 'email']);

SELECT bulk_action_submit('s3://' || :'bucket' || '/' || :'key') AS id \gset
CALL bulk_action_wait(:'id');

SELECT * FROM bulk_action_stat(:'id') \gx
SELECT line, error_code, error_column, error_message
  FROM bulk_action_errors WHERE action_id = :'id' ORDER BY line LIMIT 10;
