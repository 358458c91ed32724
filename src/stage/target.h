/*
 * target.h
 *		The target table as one file sees it: which field goes to which column,
 *		how cells become values, and how keys are compared.
 */
#ifndef BULK_ACTION_TARGET_H
#define BULK_ACTION_TARGET_H

#include "postgres.h"

#include "access/attnum.h"
#include "fmgr.h"
#include "storage/lockdefs.h"
#include "utils/sortsupport.h"

#include "pure/csv_reader.h"
#include "stage/jobs.h"

/* What one field of the file is for. */
typedef struct TargetColumn
{
	AttrNumber attnum; /* 0: the field is ignored */
	int        place;  /* from 1, among the fields that are not */
	char      *name;
	Oid        type; /* the column's own type, a domain for example */
	int32      typmod;
	Oid        collation;
	FmgrInfo   input;
	Oid        input_param;
	bool       is_key;
	bool       is_match;   /* bulk_delete: must have the value in the file */
	bool       is_string;  /* its empty string counts as empty */
	bool       readable;   /* the submitter may read it */
	Oid        equality;   /* with is_match */
	Oid        inequality; /* by which images differ; InvalidOid: there is none */
	Overwrite  overwrite;

	const ColumnFormat *format;  /* NULL: the input function's own */
	const char         *ignored; /* why, if the field is */
} TargetColumn;

/* What is done with a row whose key is in the table. */
typedef enum FoundRow
{
	FOUND_UPDATE,
	FOUND_DELETE,
	FOUND_SKIP,
	FOUND_ERROR /* it is inserted all the same, and the unique index says no */
} FoundRow;

/* What a cell of the file means. */
typedef enum CellMeaning
{
	CELL_VALUE,
	CELL_NULL,
	CELL_NOTHING /* the column is left alone */
} CellMeaning;

/* One column of the key, as its unique index compares it. */
typedef struct TargetKey
{
	char    *name;
	int      field;    /* of the file; -1: rows are inserted with keys of the table's making */
	Oid      equality; /* operators of the index's operator family */
	Oid      less;
	Oid      family;
	Oid      collation;
	FmgrInfo hash; /* extended hash procedure that agrees with equality */
	bool     hashable;

	SortSupportData order; /* the index's */
} TargetKey;

typedef struct Target
{
	Oid           relid;
	char         *qualified_name; /* quoted */
	bool          partitioned;
	bool          row_security;
	bool          dry_run;
	bool          row_by_row; /* order => file, and rows may depend on each other */
	FoundRow      found;
	OnMissing     on_missing;
	bool          skip_unchanged;
	bool          fires_per_statement; /* an UPDATE of no row is noticed too */
	bool          has_match;           /* bulk_delete: there are columns that must match */
	EmptyCell     empty;
	const char   *null_token; /* NULL: none */
	int           nfields;
	TargetColumn *columns; /* one per field of the file */
	int           nkeys;
	TargetKey    *keys;
	bool          hashable;      /* all key columns are: the file can have several lanes */
	char         *key_signature; /* how keys are compared and hashed */
	uint64        row_shape;     /* of the types of its columns: equal for equal ones */
} Target;

/*
 * Finds the target of an action and matches the header of its file with it.
 * Run as the submitter.  Keeps the lock on the table until the end of the
 * transaction: RowExclusiveLock to change it, AccessShareLock to look.  Every
 * reason why no row of this file can be applied (table dropped or renamed,
 * column missing or unknown, privilege lacking) is an error; nothing about a
 * single row is.
 */
extern Target *target_open(const Action *action, const CsvField *header, int nfields, LOCKMODE lock);

/*
 * The same for who wants to know how far it came: *place is set before anything
 * fails, and has what was found by then.
 */
extern Target *target_open_at(Target **place, const Action *action, const CsvField *header, int nfields,
							  LOCKMODE lock);

/*
 * Raises an error unless the target's name stands for the registered table.
 * The lock keeps the table's own name, but its schema can be renamed, and
 * another take its place, at any moment.
 */
extern void target_check_name(const Action *action);

/* Checks once more what may have been revoked since target_open; raises an error if so. */
extern void target_check_privileges(const Target *target);

/*
 * The column that a constraint of the target is about, if the error is one of a
 * constraint over a single column; else NULL.  PostgreSQL names the column only
 * for NOT NULL.
 */
extern char *target_column_of_error(const Target *target, const ErrorData *error);

/* "a, b": the key columns. */
extern char *target_key_names(const Target *target);

/* What the cell means for this column. */
extern CellMeaning target_cell_meaning(const Target *target, const TargetColumn *column, const CsvField *cell);

/*
 * A cell's value, or that of NULL, which a domain may refuse; raises the input
 * function's error.  Run as the submitter.
 */
extern Datum target_convert(TargetColumn *column, const char *cell);

/* Mixes the hashes of a key's values; values in the order of keys. */
extern uint64 target_hash_key(Target *target, const Datum *values);

/* No user's code converts or hashes keys, nor does anything that looks at tables. */
extern bool target_keys_are_builtin(const Target *target);

/* Orders two keys as the index does. */
extern int target_compare_keys(Target *target, const Datum *left, const Datum *right);

#endif /* BULK_ACTION_TARGET_H */
