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
#include "service/clean_text.h"
#include "service/source.h"
#include "stage/source_text.h"

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
			 errmsg("\"%s\" could not be read within %d seconds", clean_text(action->source.uri), PREVIEW_SECONDS),
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
	source->is_whole = (int64) source->length == pin.size;
	source_read(opened, &pin, 0, source->length, source->head);
	MemoryContextDelete(context); /* connections are closed */
}

static void
free_reader(void *reader)
{
	csv_reader_free(reader);
}

static void
free_decoder(void *decoder)
{
	decoder_free(decoder);
}

static void
at_reset(MemoryContextCallbackFunction func, void *arg)
{
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));

	callback->func = func;
	callback->arg = arg;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
}

/* The head as text in UTF-8; of a compressed file much may come out of little. */
static void
decode_head(PreviewSource *source, const Dialect *form)
{
	Decoder       *decoder = decoder_create(form->compression, form->encoding);
	char          *text = palloc(HEAD_BYTES + 1);
	DecoderBuffers buffers = {
		.in = source->head,
		.in_len = source->length,
		.is_final = source->is_whole,
		.out = text,
		.out_len = HEAD_BYTES};
	DecoderStatus status;

	if (decoder == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	at_reset(free_decoder, decoder);
	status = decoder_run(decoder, &buffers);
	if (status == DECODER_NO_MEMORY)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	/* an action would fail by it as a whole, so rows that came out before are not shown */
	if (status == DECODER_ERROR)
		ereport(ERROR,
				(errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
				 errmsg("%s", decoder_error_message(decoder_error(decoder, &(uint64_t){0}))),
				 errhint("Compress and upload the file again.")));
	source->is_whole = status == DECODER_END;
	source->head = text;
	source->length = buffers.out - text;
}

/* How the file is written, and a reader of its text. */
static void
find_dialect(const DialectOptions *options, PreviewSource *source)
{
	static const char *const compressions[] = {
		[COMPRESSION_NONE] = "none",
		[COMPRESSION_GZIP] = "gzip",
		[COMPRESSION_ZSTD] = "zstd"};
	Dialect    form;
	CsvDialect dialect;
	size_t     mark;

	source_text_form(options, source->head, source->length, source->is_whole, &form);
	source->compression = compressions[form.compression];
	source->encoding = form.encoding;
	if (form.compression != COMPRESSION_NONE || !decoder_is_utf8(form.encoding))
		decode_head(source, &form);
	mark = csv_skip_bom(source->head, source->length);
	source->byte_order_mark = mark > 0;
	source->delimiter = dialect_delimiter(options, source->head, source->length);
	dialect_reader(options, source->delimiter, &dialect);
	source->quote = options->no_quote ? '\0' : options->quote != '\0' ? options->quote :
																		'"';
	source->reader = csv_reader_create(&dialect, NULL);
	if (source->reader == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	at_reset(free_reader, source->reader);
	csv_reader_set_input(source->reader, source->head + mark, source->length - mark, source->is_whole, mark, 1,
						 false);
	(void) csv_reader_skip_lines(source->reader, options->skip_lines);
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
	find_dialect(&action->options.file, source);
}
