/*
 * error_codes.h
 *		SQLSTATEs of this extension, class BA.
 *
 * Conditions that PostgreSQL has a code for use PostgreSQL's.  Transient
 * trouble with S3 is always class 08: whoever catches it tries again.  Class
 * BA is for conditions that come back however often one tries.
 *
 * code		condition
 * -------	----------------------------------------------------------------
 * BA301	S3 redirects elsewhere: wrong region or endpoint
 * BA400	S3 refuses the request for any other reason (other 4xx)
 * BA403	access denied, wrong signature, expired or invalid credentials
 * BA404	no such key, bucket, version or file
 * BA408	bulk_action_wait gave up: the action goes on
 * BA409	a row that was to be deleted has other values in the columns that must match (row)
 * BA412	the object was replaced while it was being read
 * BA413	the file is larger than a limit of account or role allows
 * BA422	more rows of the file failed than max_errors allows
 * BA423	the action belongs to the database that this one was copied from
 * BA429	a limit of account or role does not allow another action at present
 * BA495	the server's TLS certificate cannot be verified
 * BA496	the endpoint resolves to an address that may not be connected to
 * BA497	the endpoint is http and the server does not allow it
 * BA502	the answer is not one of an S3 server, or contradicts the request
 */
#ifndef BULK_ACTION_ERROR_CODES_H
#define BULK_ACTION_ERROR_CODES_H

#include "postgres.h"

#define ERRCODE_BULK_ACTION_S3_REDIRECT      MAKE_SQLSTATE('B', 'A', '3', '0', '1')
#define ERRCODE_BULK_ACTION_S3_BAD_REQUEST   MAKE_SQLSTATE('B', 'A', '4', '0', '0')
#define ERRCODE_BULK_ACTION_S3_ACCESS_DENIED MAKE_SQLSTATE('B', 'A', '4', '0', '3')
#define ERRCODE_BULK_ACTION_SOURCE_NOT_FOUND MAKE_SQLSTATE('B', 'A', '4', '0', '4')
#define ERRCODE_BULK_ACTION_WAIT_TIMEOUT     MAKE_SQLSTATE('B', 'A', '4', '0', '8')
#define ERRCODE_BULK_ACTION_ROW_DIFFERS      MAKE_SQLSTATE('B', 'A', '4', '0', '9')
#define ERRCODE_BULK_ACTION_SOURCE_REPLACED  MAKE_SQLSTATE('B', 'A', '4', '1', '2')
#define ERRCODE_BULK_ACTION_FILE_TOO_LARGE   MAKE_SQLSTATE('B', 'A', '4', '1', '3')
#define ERRCODE_BULK_ACTION_TOO_MANY_ERRORS  MAKE_SQLSTATE('B', 'A', '4', '2', '2')
#define ERRCODE_BULK_ACTION_COPIED           MAKE_SQLSTATE('B', 'A', '4', '2', '3')
#define ERRCODE_BULK_ACTION_TOO_MANY         MAKE_SQLSTATE('B', 'A', '4', '2', '9')
#define ERRCODE_BULK_ACTION_TLS_VERIFY       MAKE_SQLSTATE('B', 'A', '4', '9', '5')
#define ERRCODE_BULK_ACTION_ADDRESS_REFUSED  MAKE_SQLSTATE('B', 'A', '4', '9', '6')
#define ERRCODE_BULK_ACTION_HTTP_REFUSED     MAKE_SQLSTATE('B', 'A', '4', '9', '7')
#define ERRCODE_BULK_ACTION_S3_BAD_ANSWER    MAKE_SQLSTATE('B', 'A', '5', '0', '2')

#endif /* BULK_ACTION_ERROR_CODES_H */
