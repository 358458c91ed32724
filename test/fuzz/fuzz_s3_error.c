/*
 * fuzz_s3_error.c
 *	  Feeds any bytes to the reader of S3's error bodies.
 *
 * Beyond what the sanitizers see, each result must end with a zero inside its
 * field and hold no control character.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pure/s3_error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(const char *text, size_t room)
{
	if (memchr(text, '\0', room) == NULL)
		abort();
	for (; *text != '\0'; text++)
	{
		if ((unsigned char) *text < ' ' || *text == 0x7F)
			abort();
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	S3Error error;
	bool    found = s3_error_parse((const char *) data, size, &error);

	check(error.code, sizeof(error.code));
	check(error.message, sizeof(error.message));
	check(error.request_id, sizeof(error.request_id));
	if (found != (error.code[0] != '\0'))
		abort();
	return 0;
}
