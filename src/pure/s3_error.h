/*
 * s3_error.h
 *		Reads the XML body of an S3 error answer.
 *
 * Source of the format: "Error responses", Amazon S3 API Reference.  This is
 * no XML parser: it looks for three elements and takes their text, because it
 * must cope with servers that send something near XML, or HTML, or nothing.
 *
 * Pure C11, allocates nothing, accepts any bytes of any length.
 */
#ifndef BULK_ACTION_S3_ERROR_H
#define BULK_ACTION_S3_ERROR_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Each text ends with a zero, is empty where the body has none, and is
 * truncated at a character boundary where the body has more.  It contains no
 * control characters: runs of blanks, line breaks and controls are one space.
 * Valid UTF-8 stays so; what is not is not repaired.
 */
typedef struct S3Error
{
	char code[64]; /* NoSuchKey, AccessDenied, ... */
	char message[512];
	char request_id[128];
} S3Error;

/* Returns whether a code was found; fills what it found in any case. */
extern bool s3_error_parse(const char *body, size_t length, S3Error *error);

#endif /* BULK_ACTION_S3_ERROR_H */
