/*
 * csv_fields.h
 *	  The fields of one CSV record, from its lines.
 */
#ifndef BULK_ACTION_CSV_FIELDS_H
#define BULK_ACTION_CSV_FIELDS_H

#include "pure/csv_reader.h"

#include <csv.h>

typedef struct CsvFields
{
	CsvAllocator      allocator;
	CsvDialect        dialect;
	struct csv_parser parser;
	size_t            parser_block;

	CsvField *fields; /* they stand one after the other in text */
	int       n;
	char     *text;
	size_t    text_len;
	size_t    text_cap;
	bool      row_done; /* the record ended with the last line that was parsed */
	bool      too_many; /* it has more than dialect.max_fields */
} CsvFields;

typedef enum CsvParsed
{
	CSV_PARSED,
	CSV_PARSED_STRAY_QUOTE,
	CSV_PARSED_NO_MEMORY
} CsvParsed;

/* False: no memory.  The dialect has no member left that is to take its default. */
extern bool csv_fields_init(CsvFields *fields, const CsvDialect *dialect, const CsvAllocator *allocator);

extern void csv_fields_free(CsvFields *fields);

/* A new record begins. */
extern void csv_fields_begin(CsvFields *fields);

/* Forgets a record of which lines were parsed. */
extern void csv_fields_restart(CsvFields *fields);

/*
 * Makes room for the fields of a record of which so many bytes will have been
 * parsed; false: no memory.  To be called before each line.
 */
extern bool csv_fields_reserve(CsvFields *fields, size_t parsed);

/* The fields of a record that is one line without a quote; len without its line end. */
extern void csv_fields_split(CsvFields *fields, const char *line, size_t len);

/* Parses the record's next line, its line end included. */
extern CsvParsed csv_fields_parse(CsvFields *fields, const char *line, size_t len);

/* The input ends with the line parsed last; false: a quote is open. */
extern bool csv_fields_end(CsvFields *fields);

#endif /* BULK_ACTION_CSV_FIELDS_H */
