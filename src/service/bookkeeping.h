/*
 * bookkeeping.h
 *		Statements on the extension's own tables, run as their owner.
 *
 * Between bookkeeping_enter and bookkeeping_leave the current user is the
 * owner of the extension, search_path is pg_catalog, pg_temp and row security
 * is off, so nothing that a user may have set or created takes part in what
 * runs.  An ERROR in between needs no cleaning up: the abort of the
 * (sub)transaction restores user and settings.
 */
#ifndef BULK_ACTION_BOOKKEEPING_H
#define BULK_ACTION_BOOKKEEPING_H

#include "postgres.h"

#include "executor/spi.h"
#include "utils/portal.h"

typedef struct Bookkeeping
{
	Oid saved_user;
	int saved_context;
	int guc_level;
} Bookkeeping;

/* Oid of the extension's pg_extension row's owner; InvalidOid when the extension is not there. */
extern Oid extension_owner(void);

/* Both inside a transaction; errors 42704 if the extension is not installed here. */
extern void bookkeeping_enter(Bookkeeping *state);
extern void bookkeeping_leave(const Bookkeeping *state);

/*
 * A statement on our own tables: static storage, prepared at first use in this
 * process and kept.  argtypes ends with InvalidOid.
 */
#define STATEMENT_MAX_ARGS 28
typedef struct Statement
{
	const char *sql;
	Oid         argtypes[STATEMENT_MAX_ARGS + 1];
	SPIPlanPtr  plan;
} Statement;

/*
 * Runs a statement inside bookkeeping, SPI connected; returns the number of
 * rows processed, results in SPI_tuptable.  nulls as for SPI_execute_plan
 * (NULL: none is null).  A new snapshot is taken for every statement.
 */
extern uint64 statement_run(Statement *statement, Datum *values, const char *nulls);

/*
 * The same for a query that must see what is committed at this moment, whatever
 * the isolation level of the transaction.
 */
extern uint64 statement_run_latest(Statement *statement, Datum *values, const char *nulls);

/*
 * For results of any size, and for STABLE functions: a query that is fetched
 * piece by piece (results in SPI_tuptable, to be freed by the caller), with the
 * snapshot of the query that called.  SPI_cursor_close() ends it.
 */
extern Portal statement_open(Statement *statement, Datum *values, const char *nulls);

/* The same with a snapshot of its own, which sees what the transaction has changed. */
extern Portal statement_open_anew(Statement *statement, Datum *values, const char *nulls);
extern uint64 statement_fetch(Portal portal, long count);

/* Values of the current result; isnull may be NULL where the column is NOT NULL. */
extern Datum statement_value(uint64 row, int column, bool *isnull);

/* A text-like value copied into the current memory context; NULL for SQL NULL. */
extern char *statement_text(uint64 row, int column);

#endif /* BULK_ACTION_BOOKKEEPING_H */
