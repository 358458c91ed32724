/*
 * submit.c
 *		bulk_action_submit: takes an action in and returns its id.
 *
 * Everything that can be checked without the network is checked here, where
 * somebody is there to read the error; what can change until the action runs
 * is checked again then.  The function has no SET clause and is SECURITY
 * INVOKER, because the settings and the two roles that it records are those of
 * the caller; only the statements on our own tables run as their owner.
 *
 * An idempotency key makes a repeated submit harmless: the second one returns
 * the id of the first, even if the file or the entity is gone by then.  Two at
 * the same moment meet in the unique index; the later one waits there for the
 * fate of the earlier, and then either finds its row, with a new snapshot, or
 * inserts its own.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "api/action_id.h"
#include "api/entity_type.h"
#include "api/submission.h"
#include "api/submit_account.h"
#include "api/submit_checks.h"
#include "api/submit_limits.h"
#include "api/submit_settings.h"
#include "api/table_columns.h"
#include "base/compat.h"
#include "base/injection.h"
#include "pure/s3_uri.h"
#include "service/bookkeeping.h"
#include "service/clean_text.h"
#include "service/file_path.h"
#include "service/https_options.h"
#include "service/s3_options.h"
#include "service/visibility.h"
#include "service/wake.h"
#include "stage/options.h"
#include "stage/permission.h"

BULK_ACTION_FUNCTION(bulk_action_submit);

#define MAX_SOURCE_BYTES 2048
#define MAX_URL_BYTES    8192 /* its query may have a session token in it */
#define MAX_NAME_BYTES   255
#define MAX_JSON_BYTES   (64 * 1024)

#define S3_URI_SCHEME "s3://"

typedef struct Submission
{
	Oid           user;
	Oid           session_user;
	Datum         settings;     /* text[] */
	char         *source;       /* of a URL what may be shown */
	const char   *source_query; /* of a URL, a credential; NULL: none */
	char         *action_type;
	ActionType    type;
	char         *entity_type;
	Jsonb        *options_json;
	ActionOptions options;
	Jsonb        *metadata;
	char         *account_id;
	char         *idempotency_key; /* NULL: none */
	char         *trace_id;        /* NULL: none */
	pg_uuid_t    *parent_id;       /* NULL: none */
	EntityTarget  target;
	Datum         key_columns;    /* name[], as the entity has them */
	Datum         update_columns; /* name[] */
	bool          all_updatable;  /* update_columns is null */
	char         *server;         /* NULL: a local file */
} Submission;

static Statement entity_read = {
	.sql = "SELECT target, target_schema, target_name, key_columns, update_columns"
		   " FROM bulk_action_internal.entities WHERE entity_type = $1",
	.argtypes = {TEXTOID, InvalidOid},
};

static Statement action_by_key = {
	.sql = "SELECT id, entity_type = $4, source = $5, action_type = $6, options = $7,"
		   " parent_id IS NOT DISTINCT FROM $8"
		   " FROM bulk_action_internal.actions"
		   " WHERE submitted_role = $1 AND account_id = $2 AND idempotency_key = $3",
	.argtypes = {OIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, UUIDOID, InvalidOid},
};

static Statement parent_read = {
	.sql = "SELECT submitted_role, account_id, entity_type FROM bulk_action_internal.actions"
		   " WHERE id = $1",
	.argtypes = {UUIDOID, InvalidOid},
};

static Statement action_insert = {
	.sql = "INSERT INTO bulk_action_internal.actions"
		   " (action_type, entity_type, account_id, metadata, options, source, server, trace_id,"
		   " idempotency_key, submitted_role, submitted_by, session_role, settings, target,"
		   " target_schema, target_name, key_columns, update_columns, parent_id, source_query)"
		   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, "
		   "$18, $19, $20)"
		   " ON CONFLICT (submitted_role, account_id, idempotency_key)"
		   " WHERE idempotency_key IS NOT NULL DO NOTHING"
		   " RETURNING id",
	.argtypes = {TEXTOID, TEXTOID, TEXTOID, JSONBOID, JSONBOID, TEXTOID, NAMEOID, TEXTOID, TEXTOID,
				 OIDOID, NAMEOID, OIDOID, TEXTARRAYOID, REGCLASSOID, NAMEOID, NAMEOID, NAMEARRAYOID,
				 NAMEARRAYOID, UUIDOID, TEXTOID, InvalidOid},
};

/* ---- arguments ---- */

static void
check_size(FunctionCallInfo fcinfo, int argument, const char *name, Size limit)
{
	/* asked without fetching what may be a gigabyte */
	Size size = toast_raw_datum_size(PG_GETARG_DATUM(argument)) - VARHDRSZ;

	if (size > limit)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("value of %s is too long", name),
				 errdetail("It has %zu bytes; %zu are allowed.", size, limit),
				 errhint("Shorten it.")));
}

static void
check_given(FunctionCallInfo fcinfo, int argument, const char *name)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name),
				 errdetail("Only account_id, idempotency_key, trace_id and parent_id may be null."),
				 argument == 0 ?
					 errhint("Give the URI of a file, like s3://bucket/contacts.csv") :
					 errhint("Leave the argument out to have its default.")));
}

static char *
read_text(FunctionCallInfo fcinfo, int argument, const char *name, Size limit)
{
	char *value;

	check_size(fcinfo, argument, name, limit);
	value = text_to_cstring(PG_GETARG_TEXT_PP(argument));
	if (value[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s must not be empty", name),
				 errdetail("The argument is the empty string."),
				 argument == 0 ?
					 errhint("Give the URI of a file, like s3://bucket/contacts.csv") :
					 errhint("Leave the argument out, or give it a value.")));
	return value;
}

static char *
read_optional_text(FunctionCallInfo fcinfo, int argument, const char *name)
{
	return PG_ARGISNULL(argument) ? NULL : read_text(fcinfo, argument, name, MAX_NAME_BYTES);
}

static Jsonb *
read_json(FunctionCallInfo fcinfo, int argument, const char *name)
{
	check_given(fcinfo, argument, name);
	check_size(fcinfo, argument, name, MAX_JSON_BYTES);
	return PG_GETARG_JSONB_P(argument);
}

/* The query of a URL is kept apart from the beginning: no message may have it. */
static void
read_source(FunctionCallInfo fcinfo, Submission *submission)
{
	HttpsUrl url;
	char    *text;

	check_given(fcinfo, 0, "source");
	text = read_text(fcinfo, 0, "source", MAX_URL_BYTES);
	if (!https_url_is_one(text))
	{
		check_size(fcinfo, 0, "source", MAX_SOURCE_BYTES);
		submission->source = text;
		return;
	}
	https_source_parse(text, &url);
	submission->source = palloc(HTTPS_SHOWN_SIZE);
	https_url_show(&url, submission->source);
	submission->source_query = url.query;
}

/* Those that say what a file would do: bulk_action_preview has them too, in the same places. */
static void
read_file_arguments(FunctionCallInfo fcinfo, Submission *submission)
{
	read_source(fcinfo, submission);
	check_given(fcinfo, 1, "action_type");
	submission->action_type = read_text(fcinfo, 1, "action_type", MAX_NAME_BYTES);
	check_given(fcinfo, 2, "entity_type");
	submission->entity_type = read_text(fcinfo, 2, "entity_type", MAX_NAME_BYTES);
	submission->options_json = read_json(fcinfo, 3, "options");
	submission->type = action_type_parse(submission->action_type);
	options_parse(submission->options_json, &submission->options);
	options_check(submission->type, &submission->options);
}

static void
read_arguments(FunctionCallInfo fcinfo, Submission *submission)
{
	read_file_arguments(fcinfo, submission);
	submission->metadata = read_json(fcinfo, 4, "metadata");
	submission->account_id = read_optional_text(fcinfo, 5, "account_id");
	submission->idempotency_key = read_optional_text(fcinfo, 6, "idempotency_key");
	submission->trace_id = read_optional_text(fcinfo, 7, "trace_id");
	submission->parent_id = PG_ARGISNULL(8) ? NULL : PG_GETARG_UUID_P(8);

	submission->account_id = submit_account(submission->account_id, submission->user);
	if (!JB_ROOT_IS_OBJECT(submission->metadata))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("metadata must be a JSON object"),
				 errdetail("It is %s.",
						   JB_ROOT_IS_SCALAR(submission->metadata) ? "a single value" : "an array"),
				 errhint("Write it like {\"note\": \"...\"}, or leave it out.")));
}

/* ---- idempotency ---- */

static void
append_if(StringInfo list, bool condition, const char *word)
{
	if (condition)
		appendStringInfo(list, "%s%s", list->len > 0 ? ", " : "", word);
}

/* The action submitted with the same key before; an error if it is not the same action. */
static bool
find_by_key(const Submission *submission, pg_uuid_t *id)
{
	Datum          values[8];
	StringInfoData different;

	values[0] = ObjectIdGetDatum(submission->user);
	values[1] = CStringGetTextDatum(submission->account_id);
	values[2] = CStringGetTextDatum(submission->idempotency_key);
	values[3] = CStringGetTextDatum(submission->entity_type);
	values[4] = CStringGetTextDatum(submission->source);
	values[5] = CStringGetTextDatum(submission->action_type);
	values[6] = JsonbPGetDatum(submission->options_json);
	values[7] = UUIDPGetDatum(submission->parent_id);
	if (statement_run(&action_by_key, values, submission->parent_id == NULL ? "       n" : NULL) == 0)
		return false;
	*id = *DatumGetUUIDP(statement_value(0, 1, NULL));

	initStringInfo(&different);
	append_if(&different, !DatumGetBool(statement_value(0, 2, NULL)), "entity_type");
	append_if(&different, !DatumGetBool(statement_value(0, 3, NULL)), "source");
	append_if(&different, !DatumGetBool(statement_value(0, 4, NULL)), "action_type");
	append_if(&different, !DatumGetBool(statement_value(0, 5, NULL)), "options");
	append_if(&different, !DatumGetBool(statement_value(0, 6, NULL)), "parent_id");
	if (different.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("idempotency key \"%s\" belongs to another bulk action",
						clean_text(submission->idempotency_key)),
				 errdetail("What differs: %s.", different.data),
				 errhint("Repeat the submission exactly to get its id again, or use a new key for "
						 "a new one.")));
	return true;
}

/* ---- parent ---- */

static void
check_same(const Submission *submission, const char *name, const char *parent, const char *own)
{
	if (strcmp(parent, own) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s differs from that of parent action \"%s\"", name,
						action_id_text(submission->parent_id)),
				 errdetail("It is \"%s\"; that of the parent is \"%s\".", clean_text(own), clean_text(parent)),
				 errhint("The parent is the action whose error report is submitted: give the same "
						 "entity_type and account_id as there, or no parent_id.")));
}

/* An action that the user may see, of the same stream. */
static void
check_parent(const Submission *submission)
{
	Datum values[1] = {UUIDPGetDatum(submission->parent_id)};

	if (statement_run(&parent_read, values, NULL) == 0 ||
		!visibility_may_see(submission->user, DatumGetObjectId(statement_value(0, 1, NULL)),
							statement_value(0, 2, NULL)))
		action_unknown(submission->parent_id);
	check_same(submission, "entity_type", statement_text(0, 3), submission->entity_type);
	check_same(submission, "account_id", statement_text(0, 2), submission->account_id);
}

/* ---- entity and source ---- */

static void
read_entity(Submission *submission)
{
	EntityTarget *target = &submission->target;
	Datum         values[1] = {CStringGetTextDatum(submission->entity_type)};

	if (statement_run(&entity_read, values, NULL) == 0)
		entity_type_unknown(submission->entity_type);

	target->entity_type = submission->entity_type;
	target->table = DatumGetObjectId(statement_value(0, 1, NULL));
	target->schema = statement_text(0, 2);
	target->name = statement_text(0, 3);
	submission->key_columns = statement_value(0, 4, NULL);
	target->key_columns =
		column_list_read(submission->key_columns, NAMEOID, &target->key_count);
	submission->update_columns = statement_value(0, 5, &submission->all_updatable);
	target->update_count = -1;
	if (!submission->all_updatable)
		target->update_columns =
			column_list_read(submission->update_columns, NAMEOID, &target->update_count);
}

/* The entity, which the submitter must be allowed to use so. */
static void
find_entity(Submission *submission)
{
	read_entity(submission);
	permission_check(submission->entity_type,
					 action_types[options_effective_type(submission->type, &submission->options)],
					 submission->target.table, submission->user);
}

static void
check_s3_source(Submission *submission)
{
	S3Uri uri;
	char  error[S3_URI_ERROR_SIZE];

	if (!s3_uri_parse(submission->source, &uri, error, sizeof(error)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid source URI \"%s\"", clean_text(submission->source)),
				 errdetail("%c%s.", pg_toupper(error[0]), error + 1),
				 errhint("Write it like s3://bucket/directory/contacts.csv")));
	submission->server =
		s3_server_for(uri.bucket, uri.key, submission->options.server, submission->user);
}

static void
check_https_source(Submission *submission)
{
	HttpsUrl url;

	https_source_parse(submission->source, &url);
	submission->server = https_server_for(&url, submission->options.server, submission->user);
}

/* Other URIs may well have a credential in them: no more than the scheme is repeated. */
static void
check_source(Submission *submission)
{
	const char *source = submission->source;

	if (pg_strncasecmp(source, S3_URI_SCHEME, strlen(S3_URI_SCHEME)) == 0)
		check_s3_source(submission);
	else if (https_url_is_one(source))
		check_https_source(submission);
	else if (strncmp(source, FILE_URI_SCHEME, strlen(FILE_URI_SCHEME)) == 0)
	{
		if (submission->options.server != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"server\" does not go with a %s source", FILE_URI_SCHEME),
					 errdetail("Files of the server are not read through a foreign server."),
					 errhint("Leave the option out.")));
		(void) file_path_resolve(source);
	}
	else
	{
		size_t scheme = strcspn(source, ":");

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unsupported source URI"),
				 source[scheme] == ':' && scheme <= 16 ? errdetail("Its scheme is \"%s\"; the "
																   "supported ones are \"s3\", "
																   "\"https\" and \"file\".",
																   clean_text(pnstrdup(source, scheme))) :
														 errdetail("It has no scheme; the "
																   "supported ones are \"s3\", "
																   "\"https\" and \"file\"."),
				 errhint("Give the URI of a file, like s3://bucket/contacts.csv")));
	}
}

/* ---- the row ---- */

static void
set_text(Datum *value, char *null, const char *text)
{
	*null = text == NULL ? 'n' : ' ';
	*value = text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

static Datum
make_name(const char *text)
{
	Name name = palloc0(sizeof(NameData));

	namestrcpy(name, text);
	return NameGetDatum(name);
}

/* False: another action has the same idempotency key. */
static bool
insert_action(const Submission *submission, pg_uuid_t *id)
{
	Datum values[20];
	char  nulls[21] = "                    ";

	values[0] = CStringGetTextDatum(submission->action_type);
	values[1] = CStringGetTextDatum(submission->entity_type);
	values[2] = CStringGetTextDatum(submission->account_id);
	values[3] = JsonbPGetDatum(submission->metadata);
	values[4] = JsonbPGetDatum(submission->options_json);
	values[5] = CStringGetTextDatum(submission->source);
	values[6] = submission->server != NULL ? make_name(submission->server) : (Datum) 0;
	nulls[6] = submission->server != NULL ? ' ' : 'n';
	set_text(&values[7], &nulls[7], submission->trace_id);
	set_text(&values[8], &nulls[8], submission->idempotency_key);
	values[9] = ObjectIdGetDatum(submission->user);
	values[10] = make_name(GetUserNameFromId(submission->user, false));
	values[11] = ObjectIdGetDatum(submission->session_user);
	values[12] = submission->settings;
	values[13] = ObjectIdGetDatum(submission->target.table);
	values[14] = make_name(submission->target.schema);
	values[15] = make_name(submission->target.name);
	values[16] = submission->key_columns;
	values[17] = submission->update_columns;
	nulls[17] = submission->all_updatable ? 'n' : ' ';
	values[18] = UUIDPGetDatum(submission->parent_id);
	nulls[18] = submission->parent_id == NULL ? 'n' : ' ';
	set_text(&values[19], &nulls[19], submission->source_query);

	if (statement_run(&action_insert, values, nulls) == 0)
		return false;
	*id = *DatumGetUUIDP(statement_value(0, 1, NULL));
	return true;
}

/*
 * Waits for its turn where there are limits, and sees that they are kept.  True
 * if the action was submitted meanwhile by somebody else.
 */
static bool
pass_limits(const Submission *submission, pg_uuid_t *id)
{
	SubmitLimits limits;

	if (!submit_limits_lock(submission->user, submission->account_id, &limits))
		return false;
	if (submission->idempotency_key != NULL && find_by_key(submission, id))
		return true;
	submit_limits_check(&limits);
	return false;
}

/*
 * Finds or makes the action.  Two rounds do unless the row that was in the way
 * was purged a moment later.
 */
static pg_uuid_t
store_action(const Submission *submission)
{
	Bookkeeping bookkeeping;
	pg_uuid_t   id;

	bookkeeping_enter(&bookkeeping);
	while (!pass_limits(submission, &id) && !insert_action(submission, &id))
	{
		if (find_by_key(submission, &id))
			break;
		CHECK_FOR_INTERRUPTS();
	}
	bookkeeping_leave(&bookkeeping);
	return id;
}

Datum
bulk_action_submit(PG_FUNCTION_ARGS)
{
	Submission submission = {
		.user = GetUserId(),
		.session_user = GetSessionUserId(),
		.settings = submit_settings_capture(),
	};
	Bookkeeping bookkeeping;
	pg_uuid_t  *result = palloc(sizeof(pg_uuid_t));
	bool        known;

	PreventCommandIfReadOnly("bulk_action_submit()");
	submitter_check(submission.user, submission.session_user);
	read_arguments(fcinfo, &submission);

	SPI_connect();
	bookkeeping_enter(&bookkeeping);
	known = submission.idempotency_key != NULL && find_by_key(&submission, result);
	if (!known)
	{
		if (submission.parent_id != NULL)
			check_parent(&submission);
		find_entity(&submission);
	}
	bookkeeping_leave(&bookkeeping);

	if (!known)
	{
		entity_target_check(&submission.target, submission.type, &submission.options, submission.user);
		check_source(&submission);
		*result = store_action(&submission);
		INJECTION("submit-inserted");
		wake_after_commit();
	}
	SPI_finish();
	PG_RETURN_UUID_P(result);
}

Action *
submission_for_preview(FunctionCallInfo fcinfo)
{
	Submission    submission = {.user = GetUserId(), .session_user = GetSessionUserId()};
	Action       *action = palloc0(sizeof(Action));
	Bookkeeping   bookkeeping;
	MemoryContext context = CurrentMemoryContext;

	submitter_check(submission.user, submission.session_user);
	read_file_arguments(fcinfo, &submission);

	SPI_connect();
	MemoryContextSwitchTo(context);
	bookkeeping_enter(&bookkeeping);
	find_entity(&submission);
	bookkeeping_leave(&bookkeeping);
	SPI_finish();
	entity_target_check(&submission.target, submission.type, &submission.options, submission.user);
	check_source(&submission);

	action->entity_type = submission.entity_type;
	action->source.uri = submission.source;
	action->source.query = submission.source_query;
	action->source.server = submission.server;
	action->submitter.role = submission.user;
	action->submitter.session_role = submission.session_user;
	action->target = submission.target.table;
	action->target_schema = pstrdup(submission.target.schema);
	action->target_name = pstrdup(submission.target.name);
	action->nkeys = submission.target.key_count;
	action->key_columns = submission.target.key_columns;
	action->nupdates = submission.target.update_count;
	action->update_columns = submission.target.update_columns;
	action->type = submission.type;
	action->options = submission.options;
	return action;
}
