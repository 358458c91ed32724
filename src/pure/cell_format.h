/*
 * cell_format.h
 *	  Dates, numbers and truth values as people write them, made into what
 *	  PostgreSQL's input functions take for one thing only.
 *
 * Text in, text out; nothing is guessed.  A format says in which order a date
 * has its parts, and what is the decimal sign of a number; what does not fit it
 * is an error and no other way to read it is tried.
 *
 *	  dates		DD, MM and YYYY in the order DMY, MDY or YMD, with the same sign
 *				out of . / - between them, or none; then possibly a blank (or T)
 *				and HH24:MI, HH24:MI:SS or HH24:MI[:SS].  Where there are signs
 *				between them, a leading zero of day, month and hour may be
 *				missing.  A year has four digits.
 *	  numbers	a sign, digits, a decimal sign and digits, an exponent.  Grouping
 *				may be left out, but not be halfway there: one to three digits,
 *				the first no zero, then threes.
 *	  booleans	a list of words, in any case
 *
 * Lengths are bytes.  Errors are values.
 */
#ifndef BULK_ACTION_CELL_FORMAT_H
#define BULK_ACTION_CELL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>

typedef enum CellFormatKind
{
	CELL_FORMAT_NONE = 0,
	CELL_FORMAT_DATE,
	CELL_FORMAT_NUMBER,
	CELL_FORMAT_BOOLEAN
} CellFormatKind;

typedef enum CellDateOrder
{
	CELL_DATE_DMY,
	CELL_DATE_MDY,
	CELL_DATE_YMD
} CellDateOrder;

typedef enum CellSeconds
{
	CELL_SECONDS_NONE,
	CELL_SECONDS_OPTIONAL,
	CELL_SECONDS_REQUIRED
} CellSeconds;

typedef struct CellFormat
{
	CellFormatKind kind;

	/* dates */
	CellDateOrder order;
	char          separator; /* between day, month and year; 0: none */
	char          time_sign; /* between date and time; 0: there is no time */
	CellSeconds   seconds;

	/* numbers */
	char decimal;  /* . or , */
	char grouping; /* . , ' or a blank, which stand for their typographic relatives too; 0: none */
} CellFormat;

/* What is wrong with a cell. */
typedef enum CellFormatStatus
{
	CELL_FORMAT_OK,
	CELL_FORMAT_MISFIT,  /* not of this format */
	CELL_FORMAT_NO_DATE, /* of the format, but there is no such day or time */
} CellFormatStatus;

/* Room for the result of a cell of so many bytes, with its terminating zero. */
#define CELL_FORMAT_SIZE(length) ((length) + 24)

/* Reads a pattern like DD.MM.YYYY HH24:MI[:SS]; false if it is none of the set. */
extern bool cell_format_parse_date(const char *pattern, CellFormat *format);

/* decimal and grouping (NULL: none) as one sign each; false for anything else, and for two that are the same. */
extern bool cell_format_parse_number(const char *decimal, const char *grouping, CellFormat *format);

/*
 * Converts a cell: to an ISO date, with its time; to a number with a point and
 * nothing else; to true or false.  out has CELL_FORMAT_SIZE(length) bytes.
 */
extern CellFormatStatus cell_format_apply(const CellFormat *format, const char *cell, size_t length, char *out);

/* The words that are true and false, for messages and documents; end with NULL. */
extern const char *const cell_format_true[];
extern const char *const cell_format_false[];

#endif /* BULK_ACTION_CELL_FORMAT_H */
