/*
 * source_report.c
 *		Turns an answer to a request, or the want of one, into an error.
 *
 * The only place that does.  The server's own code stands in the message, its
 * text and request id in the detail, what the caller can do in the hint.  What
 * comes from the network is made fit for the database's encoding first.  No
 * credential gets here: requests are not part of a response.  But a server may
 * repeat the request in what it says, and of an https source the URL is the
 * credential: there its text is left out.
 *
 * Others than S3 may answer with S3's codes, which are then understood, or with
 * anything else, and then the HTTP status counts.
 *
 * Sources: "Error responses", Amazon S3 API Reference, for codes and statuses.
 */
#include "postgres.h"

#include "base/error_codes.h"
#include "pure/s3_error.h"
#include "service/clean_text.h"
#include "service/source_report.h"

#define HINT_TLS_VERIFY \
	"Set the option \"ca_file\" of the foreign server to the PEM file of the authority " \
	"that signed the certificate, and use the host name that it was issued for."
#define HINT_ADDRESS_REFUSED \
	"Set the option \"allow_private_address\" of the foreign server if this endpoint is meant."

/* Codes that say more than their HTTP status does; the hints are for S3. */
static const struct
{
	const char *code;
	int         sqlstate; /* 0: as the status says */
	const char *hint;
} known_codes[] = {
	{"AuthorizationHeaderMalformed", ERRCODE_BULK_ACTION_S3_REDIRECT,
	 "Check the option \"region\" of the foreign server."},
	{"PermanentRedirect", ERRCODE_BULK_ACTION_S3_REDIRECT, NULL},
	{"TemporaryRedirect", ERRCODE_BULK_ACTION_S3_REDIRECT, NULL},
	{"ExpiredToken", ERRCODE_BULK_ACTION_S3_ACCESS_DENIED,
	 "Put fresh temporary credentials into the user mapping."},
	{"TokenRefreshRequired", ERRCODE_BULK_ACTION_S3_ACCESS_DENIED,
	 "Put fresh temporary credentials into the user mapping."},
	{"InvalidToken", ERRCODE_BULK_ACTION_S3_ACCESS_DENIED,
	 "Check the option \"session_token\" of the user mapping."},
	{"InvalidAccessKeyId", ERRCODE_BULK_ACTION_S3_ACCESS_DENIED,
	 "Check the option \"access_key_id\" of the user mapping, and \"session_token\" if the key "
	 "is temporary."},
	{"SignatureDoesNotMatch", ERRCODE_BULK_ACTION_S3_ACCESS_DENIED,
	 "Check the option \"secret_access_key\" of the user mapping."},
	{"RequestTimeTooSkewed", ERRCODE_BULK_ACTION_S3_ACCESS_DENIED,
	 "Check the clock of the database server."},
	{"AccessDenied", ERRCODE_BULK_ACTION_S3_ACCESS_DENIED,
	 "Check the credentials of the user mapping. They need s3:GetObject, for versioned buckets "
	 "s3:GetObjectVersion; without s3:ListBucket, S3 denies access to objects that do not "
	 "exist as well."},
	{"InvalidObjectState", ERRCODE_BULK_ACTION_S3_ACCESS_DENIED,
	 "The object is archived; restore it first."},
	{"NoSuchKey", ERRCODE_BULK_ACTION_SOURCE_NOT_FOUND,
	 "Check the key; upper and lower case differ, and nothing in it is decoded."},
	{"NoSuchVersion", ERRCODE_BULK_ACTION_SOURCE_NOT_FOUND,
	 "The version of the object that was being read has been deleted."},
	{"NoSuchBucket", ERRCODE_BULK_ACTION_SOURCE_NOT_FOUND,
	 "Check the bucket, and the option \"endpoint\" of the foreign server."},
	{"RequestTimeout", ERRCODE_CONNECTION_FAILURE, NULL}};

static int
sqlstate_of_code(const char *code)
{
	for (size_t i = 0; i < lengthof(known_codes); i++)
	{
		if (strcmp(code, known_codes[i].code) == 0)
			return known_codes[i].sqlstate;
	}
	return 0;
}

static const char *
hint_of_code(const char *code)
{
	for (size_t i = 0; i < lengthof(known_codes); i++)
	{
		if (strcmp(code, known_codes[i].code) == 0)
			return known_codes[i].hint;
	}
	return NULL;
}

/* The SQLSTATE of an answer that came in full. */
static int
sqlstate_of_answer(int status, const char *code)
{
	int sqlstate = sqlstate_of_code(code);

	/* 501 is a function that the server lacks, and will lack next time too */
	if (status == 408 || status == 429 || (status >= 500 && status != 501))
		return ERRCODE_CONNECTION_FAILURE;
	if (sqlstate != 0 && status >= 300)
		return sqlstate;
	if (status >= 300 && status < 400)
		return ERRCODE_BULK_ACTION_S3_REDIRECT;
	if (status == 401 || status == 403)
		return ERRCODE_BULK_ACTION_S3_ACCESS_DENIED;
	if (status == 404)
		return ERRCODE_BULK_ACTION_SOURCE_NOT_FOUND;
	if (status == 412)
		return ERRCODE_BULK_ACTION_SOURCE_REPLACED;
	if (status >= 400)
		return ERRCODE_BULK_ACTION_S3_BAD_REQUEST;
	return ERRCODE_BULK_ACTION_S3_BAD_ANSWER;
}

/* The SQLSTATE of an answer that did not come, or not in full. */
static int
sqlstate_of_failure(HttpFailure failure)
{
	switch (failure)
	{
		case HTTP_FAILURE_RESOLVE:
		case HTTP_FAILURE_CONNECT:
		case HTTP_FAILURE_TLS:
			return ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION;
		case HTTP_FAILURE_TLS_VERIFY:
			return ERRCODE_BULK_ACTION_TLS_VERIFY;
		case HTTP_FAILURE_REFUSED_ADDRESS:
			return ERRCODE_BULK_ACTION_ADDRESS_REFUSED;
		case HTTP_FAILURE_TOO_LONG:
			return ERRCODE_BULK_ACTION_S3_BAD_ANSWER;
		case HTTP_NO_FAILURE:
		case HTTP_FAILURE_RESET:
		case HTTP_FAILURE_TIMEOUT:
		case HTTP_FAILURE_OTHER:
			break;
	}
	return ERRCODE_CONNECTION_FAILURE;
}

static const char *
failure_reason(HttpFailure failure)
{
	switch (failure)
	{
		case HTTP_FAILURE_RESOLVE:
			return "could not resolve the host name";
		case HTTP_FAILURE_CONNECT:
			return "could not connect";
		case HTTP_FAILURE_TLS:
			return "TLS handshake failed";
		case HTTP_FAILURE_TLS_VERIFY:
			return "the server's certificate cannot be verified";
		case HTTP_FAILURE_RESET:
			return "the connection was lost";
		case HTTP_FAILURE_TIMEOUT:
			return "the connection timed out";
		case HTTP_FAILURE_REFUSED_ADDRESS:
			return "the endpoint's address is not a public one";
		case HTTP_FAILURE_TOO_LONG:
			return "the answer is longer than asked for";
		case HTTP_NO_FAILURE:
		case HTTP_FAILURE_OTHER:
			break;
	}
	return "the request failed";
}

/* What to do, by SQLSTATE and kind of source. */
static const struct
{
	int         sqlstate;
	const char *s3;
	const char *https;
} hints[] = {
	{ERRCODE_BULK_ACTION_S3_REDIRECT,
	 "Check the options \"region\" and \"endpoint\" of the foreign server.",
	 "Redirects are not followed: submit the URL of the file itself."},
	{ERRCODE_BULK_ACTION_S3_BAD_REQUEST,
	 "Check the options of server and user mapping, \"session_token\" among them.",
	 "Check that the URL is complete, or get a new one."},
	{ERRCODE_BULK_ACTION_SOURCE_REPLACED,
	 "Submit the file again; do not overwrite an object that is being read.",
	 "Submit the file again; it must not be overwritten while it is being read."},
	{ERRCODE_BULK_ACTION_S3_ACCESS_DENIED,
	 "Check the options of the user mapping, and the policies of the bucket.",
	 "A presigned URL must be one for GET, complete, and not have expired: get a new one and submit it."},
	{ERRCODE_BULK_ACTION_SOURCE_NOT_FOUND,
	 "Check bucket and key, and the option \"endpoint\" of the foreign server.",
	 "Check the URL; the file must stay where it is until the action has ended."},
	{ERRCODE_BULK_ACTION_TLS_VERIFY, HINT_TLS_VERIFY, HINT_TLS_VERIFY},
	{ERRCODE_BULK_ACTION_ADDRESS_REFUSED, HINT_ADDRESS_REFUSED, HINT_ADDRESS_REFUSED},
	{ERRCODE_BULK_ACTION_S3_BAD_ANSWER,
	 "Check that the option \"endpoint\" of the foreign server names an S3 server, and "
	 "that no proxy alters its answers.",
	 "The server must serve byte ranges (Range) and tell versions of the file apart by a strong ETag, as S3 "
	 "does; have the file put where that is so."}};

static const char *
hint_of_sqlstate(SourceKind kind, int sqlstate)
{
	for (size_t i = 0; i < lengthof(hints); i++)
	{
		if (hints[i].sqlstate == sqlstate)
			return kind == SOURCE_S3 ? hints[i].s3 : hints[i].https;
	}
	if (ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_CONNECTION_EXCEPTION)
		return kind == SOURCE_S3 ?
				   "S3 or the way to it has trouble; several attempts failed. Try again later." :
				   "The server or the way to it has trouble; several attempts failed. Try again later.";
	return NULL;
}

bool
source_is_transient(const HttpResponse *response)
{
	int sqlstate;

	if (response->failure != HTTP_NO_FAILURE)
		sqlstate = sqlstate_of_failure(response->failure);
	else
	{
		S3Error error;

		s3_error_parse(response->error_body, response->error_body_length, &error);
		sqlstate = sqlstate_of_answer(response->status, error.code);
	}
	return ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_CONNECTION_EXCEPTION;
}

/* An answer came, and it is not the one that was asked for. */
static void
report_answer(SourceKind kind, const char *uri, const HttpResponse *response)
{
	S3Error     error;
	char        status[32];
	const char *request_id = response->request_id;
	const char *hint;
	int         sqlstate;

	s3_error_parse(response->error_body, response->error_body_length, &error);
	sqlstate = sqlstate_of_answer(response->status, error.code);
	if (request_id[0] == '\0')
		request_id = error.request_id;
	if (kind == SOURCE_HTTPS)
		error.message[0] = '\0';
	hint = kind == SOURCE_S3 ? hint_of_code(error.code) : NULL;
	if (hint == NULL)
		hint = hint_of_sqlstate(kind, sqlstate);
	if (kind == SOURCE_S3 && sqlstate == ERRCODE_BULK_ACTION_S3_REDIRECT && response->bucket_region[0] != '\0')
		hint = psprintf("The bucket is in region \"%s\": set the option \"region\" of the foreign "
						"server, and \"endpoint\" if it has one.",
						clean_text(response->bucket_region));

	snprintf(status, sizeof(status), "%sHTTP status %d",
			 response->status < 300 ? "unexpected " : "", response->status);
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("could not read \"%s\": %s", uri,
					error.code[0] != '\0' ? clean_text(error.code) : status),
			 errdetail("HTTP status %d, request id %s.%s%s", response->status,
					   request_id[0] != '\0' ? clean_text(request_id) : "unknown",
					   error.message[0] != '\0' ? " S3 says: " : "",
					   clean_text(error.message)),
			 hint != NULL ? errhint("%s", hint) : 0));
}

void
source_report_error(SourceKind kind, const char *uri, const HttpResponse *response)
{
	int         sqlstate;
	const char *hint;

	if (response->failure == HTTP_NO_FAILURE)
		report_answer(kind, uri, response);

	sqlstate = sqlstate_of_failure(response->failure);
	hint = hint_of_sqlstate(kind, sqlstate);
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("could not read \"%s\": %s", uri, failure_reason(response->failure)),
			 errdetail("%s.", clean_text(response->failure_text)),
			 hint != NULL ? errhint("%s", hint) : 0));
	pg_unreachable();
}

void
source_report_replaced(SourceKind kind, const char *uri)
{
	ereport(ERROR,
			(errcode(ERRCODE_BULK_ACTION_SOURCE_REPLACED),
			 errmsg("could not read \"%s\": the object was replaced", uri),
			 errdetail("Its size or ETag is no longer what it was when reading began."),
			 errhint("%s", hint_of_sqlstate(kind, ERRCODE_BULK_ACTION_SOURCE_REPLACED))));
	pg_unreachable();
}

void
source_report_bad_answer(SourceKind kind, const char *uri, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_BULK_ACTION_S3_BAD_ANSWER),
			 errmsg("could not read \"%s\": unexpected answer", uri),
			 errdetail("%s", detail),
			 errhint("%s", hint_of_sqlstate(kind, ERRCODE_BULK_ACTION_S3_BAD_ANSWER))));
	pg_unreachable();
}
