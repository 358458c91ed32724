/*
 * bookkeeping.c
 *		Statements on the extension's own tables, run as their owner.
 *
 * User code that ran earlier in the same transaction (a trigger of the target
 * table, say) may have set search_path so that operators of its own shadow
 * those of pg_catalog, or row_security, or transaction_read_only.  All
 * bookkeeping therefore runs in a GUC nest level of its own with forced
 * settings, with qualified names, and with plans prepared under it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "service/bookkeeping.h"

/*
 * The extension is found by its row in pg_extension, never by the name of a
 * schema, which anyone could create.
 */
Oid
extension_owner(void)
{
	Relation    rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple   tuple;
	Oid         owner = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("bulk_action"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return owner;
}

static void
force_setting(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void
bookkeeping_enter(Bookkeeping *state)
{
	Oid owner = extension_owner();

	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"bulk_action\" is not installed in this database"),
				 errhint("Run CREATE EXTENSION bulk_action.")));

	GetUserIdAndSecContext(&state->saved_user, &state->saved_context);
	state->guc_level = NewGUCNestLevel();
	force_setting("search_path", "pg_catalog, pg_temp");
	force_setting("row_security", "off");
	SetUserIdAndSecContext(owner, state->saved_context | SECURITY_LOCAL_USERID_CHANGE);
}

void
bookkeeping_leave(const Bookkeeping *state)
{
	AtEOXact_GUC(false, state->guc_level);
	SetUserIdAndSecContext(state->saved_user, state->saved_context);
}

static SPIPlanPtr
prepared(Statement *statement)
{
	SPIPlanPtr plan;
	int        nargs = 0;

	if (statement->plan != NULL)
		return statement->plan;
	while (OidIsValid(statement->argtypes[nargs]))
		nargs++;
	plan = SPI_prepare(statement->sql, nargs, statement->argtypes);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", statement->sql,
			 SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	statement->plan = plan;
	return plan;
}

uint64
statement_run(Statement *statement, Datum *values, const char *nulls)
{
	MemoryContext context = CurrentMemoryContext;
	int           result;

	result = SPI_execute_plan(prepared(statement), values, nulls, false, 0);
	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", statement->sql, SPI_result_code_string(result));
	MemoryContextSwitchTo(context); /* SPI leaves us in a context of its own */
	return SPI_processed;
}

uint64
statement_run_latest(Statement *statement, Datum *values, const char *nulls)
{
	MemoryContext context = CurrentMemoryContext;
	int           result;

	result = SPI_execute_snapshot(prepared(statement), values, nulls, GetLatestSnapshot(), InvalidSnapshot,
								  true, false, 0);
	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", statement->sql, SPI_result_code_string(result));
	MemoryContextSwitchTo(context);
	return SPI_processed;
}

/* SPI leaves us in a context of its own, which does not outlive SPI_finish. */
static Portal
open_cursor(Statement *statement, Datum *values, const char *nulls, bool read_only)
{
	MemoryContext context = CurrentMemoryContext;
	Portal        portal = SPI_cursor_open(NULL, prepared(statement), values, nulls, read_only);

	MemoryContextSwitchTo(context);
	return portal;
}

Portal
statement_open(Statement *statement, Datum *values, const char *nulls)
{
	return open_cursor(statement, values, nulls, true);
}

Portal
statement_open_anew(Statement *statement, Datum *values, const char *nulls)
{
	return open_cursor(statement, values, nulls, false);
}

uint64
statement_fetch(Portal portal, long count)
{
	MemoryContext context = CurrentMemoryContext;

	SPI_cursor_fetch(portal, true, count);
	MemoryContextSwitchTo(context);
	return SPI_processed;
}

Datum
statement_value(uint64 row, int column, bool *isnull)
{
	bool  null;
	Datum value;

	Assert(row < SPI_tuptable->numvals);
	value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &null);
	if (isnull != NULL)
		*isnull = null;
	else if (null)
		elog(ERROR, "unexpected null in column %d of \"%s\"", column,
			 NameStr(TupleDescAttr(SPI_tuptable->tupdesc, column - 1)->attname));
	return value;
}

char *
statement_text(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}
