/*
 * segment.c
 *		The records of one segment of a source: found, checked, and hashed by key.
 *
 * The key is hashed as its type sees it (01 and 1 are one integer, and UUIDs
 * have no case), because rows with the same key must meet in one lane.  Its
 * input functions may depend on settings such as DateStyle, so this part runs
 * as the submitter with what was captured.  A key that does not convert goes
 * by its line number; the error is found again when the row is applied.
 *
 * Rows stay where they were downloaded until they are written, so the memory
 * is the window, 24 bytes a row and one chunk.  Files that are not CSV with
 * commas are an exception: what goes into the queue is, so that all that comes
 * after this need not know; their rows are written anew.
 *
 * The same records come out every time the segment's bytes are read, so a file
 * can be read twice: first for its keys alone, to find those that occur more
 * than once (duplicates.c), and then for its rows.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "stage/failure.h"
#include "stage/segment.h"

#define KEYS_BETWEEN_RESETS 1000 /* converted keys that are kept in memory */

void *
segment_buffer_realloc(void *pointer, size_t size)
{
	return pointer == NULL ? palloc(size) : repalloc(pointer, size);
}

SegmentParse *
segment_create(CsvReader *reader, bool keys_only)
{
	SegmentParse *parse = palloc0(sizeof(SegmentParse));

	parse->context = CurrentMemoryContext;
	parse->reader = reader;
	parse->keys_only = keys_only;
	parse->keys.realloc_fn = segment_buffer_realloc;
	parse->text.realloc_fn = segment_buffer_realloc;
	parse->max_rows = 4096;
	parse->rows = palloc(sizeof(SegmentRow) * parse->max_rows);
	parse->max_errors = 64;
	parse->errors = palloc(sizeof(RowError) * parse->max_errors);
	return parse;
}

/* ---- records ---- */

const char *
segment_row_text(const SegmentParse *parse, const SegmentRow *row)
{
	return (parse->plain ? parse->window : parse->text.data) + row->offset;
}

int
segment_trimmed(const CsvField *fields, int nfields)
{
	while (nfields > 1 && fields[nfields - 1].len == 0)
		nfields--;
	return nfields;
}

void
segment_pad(CsvRecord *record, int wanted, CsvField **padded)
{
	if (record->nfields > wanted && segment_trimmed(record->fields, record->nfields) <= wanted)
		record->nfields = wanted;
	if (record->nfields >= wanted)
		return;
	if (*padded == NULL)
		*padded = palloc(sizeof(CsvField) * wanted);
	memcpy(*padded, record->fields, sizeof(CsvField) * record->nfields);
	for (int i = record->nfields; i < wanted; i++)
		(*padded)[i] = (CsvField){"", 0, true};
	record->fields = *padded;
	record->nfields = wanted;
}

/* Writes the record anew, as CSV with commas. */
static void
write_record(SegmentParse *parse, SegmentRow *row)
{
	const CsvRecord *record = &parse->record;
	size_t           start = parse->text.len;

	for (int i = 0; i < record->nfields; i++)
	{
		if (i > 0)
			(void) row_buffer_append(&parse->text, ",", 1);
		(void) row_codec_append_cell(&parse->text, &record->fields[i]);
	}
	row->offset = (uint32) start;
	row->length = (uint32) (parse->text.len - start);
}

/*
 * A record as text: bytes that are none in the server's encoding, or were none
 * in the file's, are shown as \xHH.
 */
static char *
printable(const char *raw, size_t length, bool converted)
{
	StringInfoData text;

	initStringInfo(&text);
	for (size_t i = 0; i < length;)
	{
		int bad = converted ? decoder_bad_byte(raw + i, length - i) : -1;
		int width = raw[i] == '\0' ? 0 : Min(pg_mblen(raw + i), (int) (length - i));

		if (bad >= 0)
		{
			appendStringInfo(&text, "\\x%02X", bad);
			width = 2;
		}
		else if (width > 0 && pg_verifymbstr(raw + i, width, true))
			appendBinaryStringInfo(&text, raw + i, width);
		else
		{
			appendStringInfo(&text, "\\x%02X", (unsigned char) raw[i]);
			width = 1;
		}
		i += width;
	}
	return text.data;
}

static void
add_error(SegmentParse *parse, int sqlerrcode, const char *message)
{
	const CsvRecord *record = &parse->record;
	RowError        *error;

	if (parse->keys_only)
		return;
	if (parse->nerrors == parse->max_errors)
	{
		parse->max_errors *= 2;
		parse->errors = repalloc_huge(parse->errors, sizeof(RowError) * parse->max_errors);
	}
	error = &parse->errors[parse->nerrors++];
	memset(error, 0, sizeof(*error));
	error->line = record->line;
	strlcpy(error->code, unpack_sql_state(sqlerrcode), sizeof(error->code));
	error->message = pstrdup(message);
	error->record = printable(record->raw, record->raw_len, parse->encoding != NULL);
	error->record_length = strlen(error->record);
	error->record_altered = !parse->plain || record->error == CSV_READER_ERROR_TOO_LONG ||
							error->record_length != record->raw_len;
}

int
segment_unreadable(CsvReaderStatus status, const CsvRecord *record, const char *encoding, const char **message)
{
	*message = record->message;
	if (status != CSV_READER_BAD_RECORD)
	{
		if (pg_verifymbstr(record->raw, (int) record->raw_len, true))
			return 0;
		*message = psprintf("the row has bytes that are not valid %s", encoding);
		return ERRCODE_CHARACTER_NOT_IN_REPERTOIRE;
	}
	return record->error == CSV_READER_ERROR_NUL_BYTE ? ERRCODE_CHARACTER_NOT_IN_REPERTOIRE :
		   record->error == CSV_READER_ERROR_TOO_LONG ? ERRCODE_PROGRAM_LIMIT_EXCEEDED :
														ERRCODE_BAD_COPY_FILE_FORMAT;
}

/* The row's key columns as text; false if it has none: it takes no part in comparing keys. */
static bool
take_keys(SegmentParse *parse, SegmentRow *row)
{
	const Target    *target = parse->target;
	const CsvRecord *record = &parse->record;
	CsvField         cells[INDEX_MAX_KEYS];

	if (record->nfields != target->nfields)
		return false;
	for (int i = 0; i < target->nkeys; i++)
	{
		const TargetColumn *column = &target->columns[target->keys[i].field];

		cells[i] = record->fields[target->keys[i].field];
		if (target_cell_meaning(target, column, &cells[i]) != CELL_VALUE)
			return false;
		cells[i].is_null = false;
	}
	row->offset = (uint32) parse->keys.len;
	(void) row_codec_append(&parse->keys, record->line, cells, target->nkeys);
	row->length = (uint32) (parse->keys.len - row->offset);
	return true;
}

static void
add_row(SegmentParse *parse, uint64 hash)
{
	const CsvRecord *record = &parse->record;
	SegmentRow      *row;

	if (parse->nrows == parse->max_rows)
	{
		parse->max_rows *= 2;
		parse->rows = repalloc_huge(parse->rows, sizeof(SegmentRow) * parse->max_rows);
	}
	row = &parse->rows[parse->nrows];
	row->line = record->line;
	row->hash = hash;
	if (parse->keys_only)
	{
		if (!take_keys(parse, row))
			return;
	}
	else if (parse->plain)
	{
		row->offset = (uint32) (record->raw - parse->window);
		row->length = (uint32) record->raw_len;
	}
	else
		write_record(parse, row);
	parse->nrows++;
}

/* Converts the key and hashes it; an input function may raise an error. */
static uint64
hash_key(SegmentParse *parse)
{
	Target          *target = parse->target;
	const CsvRecord *record = &parse->record;
	Datum            values[INDEX_MAX_KEYS];

	if (!target->hashable)
		return 0;
	if (record->nfields != target->nfields)
		return record->line;
	for (int i = 0; i < target->nkeys; i++)
	{
		int field = target->keys[i].field;

		if (field < 0 ||
			target_cell_meaning(target, &target->columns[field], &record->fields[field]) != CELL_VALUE)
			return record->line;
		values[i] = target_convert(&target->columns[field], record->fields[field].data);
	}
	return target_hash_key(target, values);
}

/* Parses until the segment is full, its bytes are used up, or a key does not convert. */
static void
parse_records(SegmentParse *parse, MemoryContext key_context)
{
	CsvRecord *record = &parse->record;

	while (parse->seen < SEGMENT_ROWS && parse->text.len < SEGMENT_TEXT_BYTES)
	{
		CsvReaderStatus status = csv_reader_next(parse->reader, record);
		const char     *message;
		int             code;
		uint64          hash;

		if (status == CSV_READER_NO_MEMORY)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
		parse->ended = status == CSV_READER_END;
		if (status == CSV_READER_END || status == CSV_READER_NEED_MORE)
			return;
		parse->seen++;
		code = segment_unreadable(status, record, parse->encoding != NULL ? parse->encoding : GetDatabaseEncodingName(),
								  &message);
		if (code != 0)
			add_error(parse, code, message);
		else
		{
			if (parse->pad)
				segment_pad(&parse->record, parse->target->nfields, &parse->padded);
			parse->in_record = true;
			MemoryContextSwitchTo(key_context);
			hash = hash_key(parse);
			MemoryContextSwitchTo(parse->context);
			parse->in_record = false;
			add_row(parse, hash);
			if (parse->seen % KEYS_BETWEEN_RESETS == 0)
				MemoryContextReset(key_context);
		}
		if ((int64) record->end_offset >= parse->row_limit_offset)
			return;
	}
}

/* Conversions run in subtransactions as in row_batch.c. */
void
segment_parse(SegmentParse *parse)
{
	Subtransaction frame;
	MemoryContext  key_context = AllocSetContextCreate(parse->context, "keys", ALLOCSET_DEFAULT_SIZES);
	volatile bool  done = false;

	while (!done)
	{
		subtransaction_begin(&frame, parse->context);
		PG_TRY();
		{
			parse_records(parse, key_context);
			subtransaction_end(&frame, !parse->target->dry_run); /* checks of domains may have done something */
			done = true;
		}
		PG_CATCH();
		{
			ErrorData *error = failure_catch_row_error(&frame);

			if (!parse->in_record)
				ReThrowError(error);
			FreeErrorData(error);
			parse->in_record = false;
			/* Its error is found again when it is applied; with it, it is like no other row. */
			if (!parse->keys_only)
				add_row(parse, parse->record.line);
			done = (int64) parse->record.end_offset >= parse->row_limit_offset;
		}
		PG_END_TRY();
	}
	MemoryContextDelete(key_context);
}
