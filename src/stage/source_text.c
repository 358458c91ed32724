/*
 * source_text.c
 *		The text of a source: how the file is written, its text in pieces, and
 *		its header.
 *
 * Files in UTF-8 that are not compressed are read as they stand, by Range from
 * where the next segment begins; offsets are bytes of the file.  Others are
 * decoded (source_stream.c), and offsets are bytes of what comes out.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "pure/dialect.h"
#include "pure/error_report.h"
#include "stage/source_text.h"

#define HEADER_HINT \
	"The first line must name the columns. Other encodings than UTF-8, characters that separate and quote fields, " \
	"and lines before the header are options."

bool
source_text_is_decoded(const SourceState *state)
{
	return state->compression != COMPRESSION_NONE || !decoder_is_utf8(state->encoding);
}

/* ---- reading ---- */

static void
is_foreign(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
			 errmsg("the file is not text"),
			 errdetail("It is %s.", what),
			 errhint("Export it as CSV; it may be compressed by gzip or zstd.")));
}

void
source_text_form(const DialectOptions *options, const char *data, int64 length, bool is_whole, Dialect *found)
{
	switch (dialect_detect(options, data, (size_t) length, is_whole, found))
	{
		case DIALECT_OK:
			break;
		case DIALECT_FOREIGN:
			is_foreign(dialect_foreign(data, (size_t) length));
			break;
		case DIALECT_NO_MEMORY:
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("could not begin to read the file"),
					 errdetail("There is no memory, or the server does not know its encoding any more."),
					 errhint("iconv -l lists the encodings that the server knows.")));
	}
}

static void
find_form(const ActionSession *session, SourceState *state, const SourceText *text)
{
	Dialect found;

	source_text_form(&session->action->options.file, text->data, text->length, text->is_final, &found);
	state->compression = found.compression;
	state->encoding = pstrdup(found.encoding);
}

static void
read_plain(const ActionSession *session, const SourceState *state, const SourcePin *pin, SourceText *text)
{
	text->length = Min(text->size, state->size - state->next_offset);
	text->is_final = state->next_offset + text->length >= state->size;
	text->stream = NULL;
	source_read(session->source, pin, state->next_offset, text->length, text->data);
}

void
source_text_read(const ActionSession *session, SourceState *state, SourceText *text)
{
	SourcePin pin = {.size = state->size, .etag = state->etag, .version_id = state->version_id};

	if (state->encoding == NULL || !source_text_is_decoded(state))
		read_plain(session, state, &pin, text);
	if (state->encoding == NULL)
		find_form(session, state, text);
	if (source_text_is_decoded(state))
	{
		StreamSource of = {
			.action_no = session->action->action_no,
			.source = session->source,
			.pin = pin,
			.compression = state->compression,
			.encoding = state->encoding};

		text->stream = source_stream_read(&of, state->next_offset, &state->restart, text->data, text->size,
										  &text->length, &text->is_final);
	}
}

void
source_text_note_place(const SourceText *text, SourceState *state, int64 next_offset)
{
	if (text->stream == NULL)
	{
		state->raw_offset = state->restart.offset = state->restart.raw_offset = next_offset;
		return;
	}
	state->restart = source_stream_place(text->stream, next_offset);
	state->raw_offset = Min(source_stream_raw_offset(text->stream), state->size);
}

void
source_text_keep(SourceText *text, const SourceState *state)
{
	if (text->stream == NULL)
		return;
	if (state->at_end)
		source_stream_close(text->stream);
	else if (state->next_offset > 0)
		source_stream_keep(text->stream, state->next_offset, text->data);
	text->stream = NULL;
}

/* ---- records ---- */

CsvReader *
source_text_reader(const ActionSession *session, SourceState *state, const SourceText *text)
{
	static CsvReader     *reader = NULL;
	static CsvDialect     present;
	const DialectOptions *options = &session->action->options.file;
	CsvDialect            wanted;

	if (state->delimiter == '\0')
		state->delimiter = dialect_delimiter(options, text->data, text->length);
	dialect_reader(options, state->delimiter, &wanted);
	if (reader != NULL &&
		(present.delimiter != wanted.delimiter || present.quote != wanted.quote ||
		 present.no_quote != wanted.no_quote || present.comment != wanted.comment))
	{
		csv_reader_free(reader);
		reader = NULL;
	}
	if (reader == NULL && (reader = csv_reader_create(&wanted, NULL)) == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	present = wanted;
	return reader;
}

CsvField *
source_text_names(const ActionOptions *options)
{
	CsvField *cells = palloc(sizeof(CsvField) * options->nnames);

	for (int i = 0; i < options->nnames; i++)
	{
		cells[i].data = options->names[i] != NULL ? options->names[i] : psprintf(ERROR_REPORT_IGNORED "%d", i + 1);
		cells[i].len = strlen(cells[i].data);
		cells[i].is_null = false;
	}
	return cells;
}

/* Reads the header at the start of the file. */
static void
read_header(SegmentParse *parse, bool as_it_stands, RowBuffer *header)
{
	CsvReaderStatus status = csv_reader_next(parse->reader, &parse->record);
	int             nfields = parse->record.nfields;

	if (status == CSV_READER_END)
		ereport(ERROR,
				(errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
				 errmsg("the file is empty"),
				 errdetail("There is nothing but blank lines, comments and lines that are skipped."),
				 errhint("Its first line must name the columns.")));
	if (status != CSV_READER_RECORD ||
		!pg_verifymbstr(parse->record.raw, (int) parse->record.raw_len, true))
		ereport(ERROR,
				(errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
				 errmsg("the header of the file cannot be read"),
				 errdetail("%s.", status == CSV_READER_BAD_RECORD ? parse->record.message :
																	"it is not a complete line of valid text"),
				 errhint(HEADER_HINT)));
	if (as_it_stands)
	{
		(void) row_buffer_append(header, parse->record.raw, parse->record.raw_len);
		return;
	}
	if (parse->pad)
		nfields = segment_trimmed(parse->record.fields, nfields);
	(void) dialect_append_header(header, parse->record.fields, nfields);
}

void
source_text_header(ActionSession *session, SegmentParse *parse, SourceState *state)
{
	const ActionOptions *options = &session->action->options;
	RowBuffer            header = {.realloc_fn = segment_buffer_realloc};

	if (!csv_reader_skip_lines(parse->reader, options->file.skip_lines))
		ereport(ERROR,
				(errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
				 errmsg("the header of the file cannot be read"),
				 errdetail("The first %d lines, which option \"skip_lines\" passes, are too long.",
						   options->file.skip_lines),
				 errhint(HEADER_HINT)));
	if (options->file.no_header)
		(void) dialect_append_header(&header, source_text_names(options), options->nnames);
	else
		read_header(parse, parse->plain && options->file.delimiter == '\0', &header);
	state->header = pnstrdup(header.data, header.len);
	action_session_set_header(session, state->header, header.len, state->key_signature);
}
