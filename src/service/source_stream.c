/*
 * source_stream.c
 *		The text of a file that has to be decompressed or converted first.
 *
 * Such a file cannot be read from the middle (but see decoder_can_restart), so a
 * worker keeps the stream of an action from segment to segment, with what was
 * read ahead, and the board gives the action's next segment to the same worker.
 * When another one takes over, it decodes from the beginning, or from the place
 * that was written down, and throws away what comes before its segment: the same
 * bytes come out.
 *
 * A worker may be at several actions in turn.  It keeps their streams, the ones
 * used last, up to STREAMS_BYTES of memory in all; what is beyond is closed, and
 * costs the beginning anew.
 *
 * The decoder is foreign memory: it belongs to the stream's memory context,
 * whose callback frees it.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "service/source_stream.h"

#define STREAMS_MAX   8
#define STREAMS_BYTES ((Size) 6 * 1024 * 1024)
#define PIECE_BYTES   ((int64) 1024 * 1024) /* of one request */
#define PLACES_MAX    64

struct SourceStream
{
	MemoryContext context;
	int64         action_no;
	Decoder      *decoder;
	StreamPlace   begun;    /* where the decoder was */
	int64         offset;   /* of what was read last, or kept */
	int64         decoded;  /* offset up to which there is text */
	int64         raw_next; /* offset up to which there is file */
	char         *ahead;    /* text that was kept */
	char         *rest;     /* file that has not been decoded */
	Size          rest_length;
	bool          ended;
	bool          lent; /* what was read has not been kept */
	uint64        last_used;
	int           nplaces;
	StreamPlace   places[PLACES_MAX]; /* in ascending order, the first not after offset */
};

static SourceStream *kept[STREAMS_MAX];
static char         *piece = NULL;
static uint64        uses = 0;

/* ---- life ---- */

static void
free_decoder(void *arg)
{
	decoder_free(((SourceStream *) arg)->decoder);
}

void
source_stream_close(SourceStream *stream)
{
	for (int i = 0; i < STREAMS_MAX; i++)
		if (kept[i] == stream)
			kept[i] = NULL;
	MemoryContextDelete(stream->context);
}

void
source_streams_close_all(void)
{
	for (int i = 0; i < STREAMS_MAX; i++)
		if (kept[i] != NULL)
			source_stream_close(kept[i]);
}

/* The stream used least recently, but for this one. */
static SourceStream *
oldest_stream(const SourceStream *except)
{
	SourceStream *oldest = NULL;

	for (int i = 0; i < STREAMS_MAX; i++)
		if (kept[i] != NULL && kept[i] != except && (oldest == NULL || kept[i]->last_used < oldest->last_used))
			oldest = kept[i];
	return oldest;
}

static Size
stream_memory(const SourceStream *stream)
{
	return decoder_memory(stream->decoder) + MemoryContextMemAllocated(stream->context, false);
}

/* Puts it among the others, some of which may have to go. */
static void
enlist(SourceStream *stream)
{
	for (;;)
	{
		SourceStream *oldest = oldest_stream(stream);
		Size          total = 0;
		int           place = -1;

		for (int i = 0; i < STREAMS_MAX; i++)
		{
			if (kept[i] == stream)
				place = i;
			else if (kept[i] == NULL)
				place = place < 0 ? i : place;
			else
				total += stream_memory(kept[i]);
		}
		if (place >= 0 && (oldest == NULL || total <= STREAMS_BYTES))
		{
			kept[place] = stream;
			return;
		}
		source_stream_close(oldest);
	}
}

static SourceStream *
open_stream(const StreamSource *of, const StreamPlace *restart)
{
	MemoryContext          context;
	MemoryContextCallback *callback;
	SourceStream          *stream;

	context = AllocSetContextCreate(TopMemoryContext, "bulk_action stream", ALLOCSET_SMALL_SIZES);
	callback = MemoryContextAllocZero(context, sizeof(MemoryContextCallback));
	stream = MemoryContextAllocZero(context, sizeof(SourceStream));
	stream->context = context;
	callback->func = free_decoder;
	callback->arg = stream;
	MemoryContextRegisterResetCallback(context, callback);
	stream->action_no = of->action_no;
	stream->begun = *restart;
	stream->offset = stream->decoded = restart->offset;
	stream->raw_next = restart->raw_offset;
	stream->places[stream->nplaces++] = *restart;
	enlist(stream);
	stream->decoder = decoder_create(of->compression, of->encoding);
	if (stream->decoder == NULL)
	{
		source_stream_close(stream);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not begin to decode a file in \"%s\"", of->encoding),
				 errdetail("There is no memory, or the server does not know the encoding any more."),
				 errhint("iconv -l lists the encodings that the server knows.")));
	}
	return stream;
}

/* The action's stream, if it stands at the offset. */
static SourceStream *
find_stream(int64 action_no, int64 offset)
{
	for (int i = 0; i < STREAMS_MAX; i++)
	{
		if (kept[i] == NULL || kept[i]->action_no != action_no)
			continue;
		if (!kept[i]->lent && kept[i]->offset == offset)
			return kept[i];
		source_stream_close(kept[i]);
		return NULL;
	}
	return NULL;
}

/* ---- decoding ---- */

static void
decoding_failed(const SourceStream *stream)
{
	uint64       offset;
	DecoderError error = decoder_error(stream->decoder, &offset);
	bool         too_much = error == DECODER_ERROR_RATIO || error == DECODER_ERROR_WINDOW;

	offset += stream->begun.raw_offset;
	ereport(ERROR,
			(errcode(too_much ? ERRCODE_PROGRAM_LIMIT_EXCEEDED : ERRCODE_BAD_COPY_FILE_FORMAT),
			 errmsg("%s", decoder_error_message(error)),
			 error == DECODER_ERROR_RATIO ?
				 errdetail("After %llu bytes it has become more than %d times as large, and more than %d MiB.",
						   (unsigned long long) offset, DECODER_RATIO, (int) (DECODER_FREE_BYTES / (1024 * 1024))) :
			 error == DECODER_ERROR_WINDOW ?
				 errdetail("No more than %d MiB are allowed.", 1 << (DECODER_ZSTD_WINDOW_LOG - 20)) :
				 errdetail("That is at byte %llu of the file.", (unsigned long long) offset),
			 error == DECODER_ERROR_RATIO  ? errhint("Submit it without compression if that is what it should be.") :
			 error == DECODER_ERROR_WINDOW ? errhint("Compress it without --ultra and --long.") :
											 errhint("Upload it again, complete and with nothing behind it.")));
}

/* Notes that decoding can begin here, if it can. */
static void
note_place(SourceStream *stream)
{
	uint64 in_offset;

	if (!decoder_can_restart(stream->decoder, &in_offset) || stream->nplaces == PLACES_MAX)
		return;
	stream->places[stream->nplaces].offset = stream->decoded;
	stream->places[stream->nplaces++].raw_offset = stream->begun.raw_offset + (int64) in_offset;
}

/* Up to so many bytes of text, all that there are still if fewer. */
static int64
decode(SourceStream *stream, const StreamSource *of, char *buffer, int64 size)
{
	DecoderBuffers b = {.out = buffer, .out_len = size};

	while (!stream->ended && b.out_len >= DECODER_ROOM)
	{
		Size          before = b.out_len;
		Size          in_before;
		DecoderStatus status;

		CHECK_FOR_INTERRUPTS();
		if (stream->rest_length == 0 && stream->raw_next < of->pin.size)
		{
			int64 length = Min(PIECE_BYTES, of->pin.size - stream->raw_next);

			source_read(of->source, &of->pin, stream->raw_next, length, piece);
			stream->raw_next += length;
			stream->rest = piece;
			stream->rest_length = length;
		}
		b.in = stream->rest;
		b.in_len = in_before = stream->rest_length;
		b.is_final = stream->raw_next == of->pin.size;
		status = decoder_run(stream->decoder, &b);
		stream->rest = unconstify(char *, b.in);
		stream->rest_length = b.in_len;
		stream->decoded += before - b.out_len;
		if (status == DECODER_ERROR)
			decoding_failed(stream);
		if (status == DECODER_NO_MEMORY)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
		stream->ended = status == DECODER_END;
		if (!stream->ended && before == b.out_len && in_before == b.in_len && b.is_final)
			elog(ERROR, "decoder makes no progress");
		note_place(stream);
	}
	return size - b.out_len;
}

/* Throws away what comes before the offset. */
static void
skip_to(SourceStream *stream, const StreamSource *of, int64 offset, char *buffer, int64 size)
{
	while (stream->decoded < offset && !stream->ended)
	{
		int64 wanted = Min(size, offset - stream->decoded + (int64) DECODER_ROOM);
		int64 start = stream->decoded;
		int64 length;

		stream->places[0] = stream->places[stream->nplaces - 1];
		stream->nplaces = 1;
		length = decode(stream, of, buffer, wanted);
		if (start + length > offset)
		{
			/* a few bytes too many */
			stream->ahead = MemoryContextAlloc(stream->context, start + length - offset);
			memcpy(stream->ahead, buffer + (offset - start), start + length - offset);
		}
	}
	if (stream->decoded < offset)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the file is shorter than when it was read before")));
	stream->offset = offset;
}

SourceStream *
source_stream_read(const StreamSource *of, int64 offset, const StreamPlace *restart, char *buffer, int64 size,
				   int64 *length, bool *is_final)
{
	SourceStream *stream = find_stream(of->action_no, offset);

	if (piece == NULL)
		piece = MemoryContextAlloc(TopMemoryContext, PIECE_BYTES);
	if (stream == NULL)
	{
		stream = open_stream(of, restart);
		stream->lent = true;
		skip_to(stream, of, offset, buffer, size);
	}
	else if (stream->rest_length > 0)
	{
		memcpy(piece, stream->rest, stream->rest_length);
		pfree(stream->rest);
		stream->rest = piece;
	}
	stream->lent = true;
	stream->last_used = ++uses;
	*length = stream->decoded - stream->offset;
	if (*length > size)
		elog(ERROR, "stream has more than there is room for");
	if (*length > 0)
	{
		memcpy(buffer, stream->ahead, *length);
		pfree(stream->ahead);
		stream->ahead = NULL;
	}
	*length += decode(stream, of, buffer + *length, size - *length);
	*is_final = stream->ended;
	return stream;
}

StreamPlace
source_stream_place(const SourceStream *stream, int64 offset)
{
	StreamPlace place = stream->places[0];

	for (int i = 1; i < stream->nplaces && stream->places[i].offset <= offset; i++)
		place = stream->places[i];
	return place;
}

int64
source_stream_raw_offset(const SourceStream *stream)
{
	return stream->raw_next - (int64) stream->rest_length;
}

void
source_stream_keep(SourceStream *stream, int64 offset, const char *buffer)
{
	int64 length = stream->decoded - offset;
	int   first = 0;
	char *rest = NULL;

	if (length > 0)
	{
		stream->ahead = MemoryContextAllocHuge(stream->context, length);
		memcpy(stream->ahead, buffer + (offset - stream->offset), length);
	}
	if (stream->rest_length > 0)
	{
		rest = MemoryContextAlloc(stream->context, stream->rest_length);
		memcpy(rest, stream->rest, stream->rest_length);
	}
	stream->rest = rest;
	while (first + 1 < stream->nplaces && stream->places[first + 1].offset <= offset)
		first++;
	stream->nplaces -= first;
	memmove(stream->places, stream->places + first, sizeof(StreamPlace) * stream->nplaces);
	stream->offset = offset;
	stream->lent = false;
	enlist(stream);
}
