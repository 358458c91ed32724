/*
 * constraints.c
 *		Deferred constraints, statement by statement.
 *
 * Runs deferred constraint triggers now, after each statement, so that they
 * count as part of its rows and a later row with the same key heals nothing.
 * From then on nothing would be deferred in this transaction, and a row might
 * fail for what a trigger of its own makes good, only because others went
 * before it.  So where the database has a constraint that is initially deferred,
 * what can be deferred is, for the rows that come next: then also what is
 * initially immediate, as there is no way back to how it was at first.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_constraint.h"
#include "commands/trigger.h"
#include "nodes/parsenodes.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "stage/constraints.h"

static bool constraints_known = false;
static bool constraints_changed = false; /* since a look at them began */

static void
forget_constraints(Datum arg, int cache, uint32 hash)
{
	constraints_known = false;
	constraints_changed = true;
}

/* Whether any constraint of the database is initially deferred. */
static bool
any_initially_deferred(void)
{
	static bool found;
	static bool registered = false;
	Relation    rel;
	SysScanDesc scan;
	HeapTuple   tuple;

	if (constraints_known)
		return found;
	if (!registered)
		CacheRegisterSyscacheCallback(CONSTROID, forget_constraints, (Datum) 0);
	registered = true;
	found = false;
	constraints_changed = false;
	rel = table_open(ConstraintRelationId, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
		found = ((Form_pg_constraint) GETSTRUCT(tuple))->condeferred;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	constraints_known = !constraints_changed;
	return found;
}

static void
set_constraints(bool deferred)
{
	ConstraintsSetStmt *statement = makeNode(ConstraintsSetStmt);

	statement->deferred = deferred;
	AfterTriggerSetState(statement);
}

void
constraints_check_deferred(void)
{
	set_constraints(false);
	if (any_initially_deferred())
		set_constraints(true);
}

void
constraints_prepare(void)
{
	(void) any_initially_deferred();
}
