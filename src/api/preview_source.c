/*
 * preview_source.c
 *		The beginning of a file, read in the caller's session.
 *
 * Everywhere else nothing waits for the network with a transaction open,
 * because a snapshot that is held meanwhile keeps vacuum from its work.  Here
 * somebody waits for the answer, and has a transaction in any case.  So it is
 * bounded: a few requests for the first 2 MiB, and half a minute, after which
 * the session is interrupted like by a cancel, wherever it waits.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timeout.h"

#include "api/preview_source.h"
#include "service/source.h"

/* A header of any length that is allowed, and what follows an ordinary one. */
#define HEAD_BYTES ((int64) (1024 * 1024 + CSV_READER_DEFAULT_MAX_RECORD + CSV_READER_LOOKAHEAD))

static volatile sig_atomic_t timed_out = false;

static void
give_up(void)
{
	timed_out = true;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

static void
report_timeout(const Action *action)
{
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("\"%s\" could not be read within %d seconds", action->source.uri, PREVIEW_SECONDS),
			 errdetail("A preview waits no longer than that, because it runs in the caller's transaction."),
			 errhint("Try again, or submit the file with option dry_run: workers try for longer.")));
}

static void
read_head(const Action *action, PreviewSource *source)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bulk_action preview source",
												  ALLOCSET_SMALL_SIZES);
	Source       *opened = source_open(&action->source, GetUserId(), context);
	SourcePin     pin;

	source_pin(opened, &pin);
	source->size = pin.size;
	source->length = (size_t) Min(pin.size, HEAD_BYTES);
	source->head = palloc(source->length + 1);
	source_read(opened, &pin, 0, source->length, source->head);
	MemoryContextDelete(context); /* connections are closed */
}

static void
free_reader(void *reader)
{
	csv_reader_free(reader);
}

/* How the file is written. */
static void
find_dialect(PreviewSource *source)
{
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	size_t                 mark = csv_skip_bom(source->head, source->length);

	source->compression = "none";
	source->encoding = "UTF8";
	source->byte_order_mark = mark > 0;
	source->delimiter = ',';
	source->quote = '"';
	source->reader = csv_reader_create(NULL, NULL);
	if (source->reader == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	callback->func = free_reader;
	callback->arg = source->reader;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	csv_reader_set_input(source->reader, source->head + mark, source->length - mark,
						 (int64) source->length == source->size, mark, 1, false);
}

void
preview_source_read(const Action *action, PreviewSource *source)
{
	static TimeoutId timeout = MAX_TIMEOUTS;

	if (timeout == MAX_TIMEOUTS)
		timeout = RegisterTimeout(USER_TIMEOUT, give_up);
	memset(source, 0, sizeof(*source));
	timed_out = false;
	PG_TRY();
	{
		enable_timeout_after(timeout, PREVIEW_SECONDS * 1000);
		read_head(action, source);
		disable_timeout(timeout, false);
		CHECK_FOR_INTERRUPTS(); /* it may have been set off in the last moment */
	}
	PG_CATCH();
	{
		disable_timeout(timeout, false);
		if (timed_out && geterrcode() == ERRCODE_QUERY_CANCELED)
		{
			FlushErrorState();
			report_timeout(action);
		}
		PG_RE_THROW();
	}
	PG_END_TRY();
	find_dialect(source);
}
