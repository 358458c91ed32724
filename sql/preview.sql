-- What bulk_action_preview and option formats refuse before anything is read.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS bulk_action;
RESET client_min_messages;
SET search_path = public, bulk_action;
CREATE TABLE regress_ba_dates (id int PRIMARY KEY, d date, n numeric);
SELECT bulk_action_register_entity('regress_ba_dates', 'regress_ba_dates', ARRAY['id']);
CREATE FUNCTION refused(options jsonb, rows int DEFAULT 20, OUT code text, OUT message text, OUT detail text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM bulk_action_preview('s3://regress-ba-none/x.csv', entity_type => 'regress_ba_dates', options => options, rows => rows);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
END $$;
\x
SELECT * FROM refused('{"formats": {"date": "DD.MM.YY"}}');
SELECT * FROM refused('{"formats": {"date": "YYYYMMDDTHH24:MI"}}');
SELECT * FROM refused('{"formats": {"timestamp": 7}}');
SELECT * FROM refused('{"formats": {"decimal": ";"}}');
SELECT * FROM refused('{"formats": {"grouping": "_"}}');
SELECT * FROM refused('{"formats": {"decimal": ",", "grouping": ","}}');
SELECT * FROM refused('{"formats": {"boolean": "lenint"}}');
SELECT * FROM refused('{"formats": {"decimals": ","}}');
SELECT * FROM refused('{"formats": ["date"]}');
SELECT * FROM refused('{"columns": {"d": {"format": "Mon DD"}}}');
SELECT * FROM refused('{"columns": {"d": {"format": "DD.MM.YYYY", "grouping": "."}}}');
SELECT * FROM refused('{"columns": {"n": {"grouping": "\u0007"}}}');
SELECT * FROM refused('{"dry_run": "true"}');
SELECT * FROM refused('{"dryrun": true}');
SELECT * FROM refused('{}', -1);
SELECT * FROM refused('{}', 1001);
SELECT * FROM refused('{}', NULL);
SELECT * FROM refused(NULL);
-- these are good: what is missing is the server
SELECT * FROM refused('{"formats": {"date": "YYYY-MM-DD", "timestamp": "MM/DD/YYYY HH24:MI[:SS]", "decimal": ",", "grouping": "''", "boolean": "strict"}, "dry_run": false}');
SELECT * FROM refused('{"columns": {"n": {"grouping": " "}, "d": {"column": "d", "format": "DDMMYYYY"}}}', 0);
\x
SELECT bulk_action_unregister_entity('regress_ba_dates');
DROP FUNCTION refused;
DROP TABLE regress_ba_dates;
SET client_min_messages = warning;
DROP EXTENSION bulk_action CASCADE;
