/*
 * ddl_hook.c
 *		Stops our processes in a database before a command that they would be
 *		in the way of, and lets them in again afterwards.
 *
 * A coordinator or worker is a session like any other.  Left alone it makes
 * these commands wait for five seconds and then fail, or wait for its locks:
 *
 *	command							our processes are kept out of
 *	------------------------------	----------------------------------------
 *	DROP DATABASE					that database
 *	ALTER DATABASE ... RENAME		that database
 *	ALTER DATABASE SET TABLESPACE	that database
 *	CREATE DATABASE ... TEMPLATE	the template
 *	DROP EXTENSION bulk_action,
 *	DROP SCHEMA bulk_action CASCADE,
 *	DROP OWNED BY its owner			this database
 *
 * The block lasts until the end of the transaction (of the subtransaction, if
 * that is rolled back), whichever end it takes: commit, error, cancel, or the
 * death of the session, whose exit aborts its transaction.  So a command that
 * fails, or is rolled back, leaves everything running as before, after a
 * pause.  A kill -9 of the session re-initialises shared memory anyway.
 *
 * ALTER DATABASE SET TABLESPACE commits on its way; that commit does not end
 * the block, because the command still runs.
 *
 * Nobody may stop other people's actions with a command that he is not allowed
 * to run, so what the command itself is going to check is checked here first:
 * owner, CREATEDB, the right to use the template, existing and not yet
 * existing names, no transaction block.  Where such a check fails the command
 * is passed on untouched and raises its own error.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "commands/tablespace.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "process/ddl_hook.h"
#include "service/board.h"
#include "service/bookkeeping.h"

#define EXTENSION_NAME "bulk_action"
#define LEAVE_LIMIT_MS 10000
#define MAX_BLOCKS     8

/* A database that this transaction keeps our processes out of. */
typedef struct DatabaseBlock
{
	Oid              database;
	SubTransactionId subtransaction; /* whose rollback ends it */
	bool             moving;         /* the command commits on its way, and has not returned yet */
	bool             forget;         /* on commit: what the board knew of it is void */
	bool             wake;           /* there was something to do, or may be now */
} DatabaseBlock;

static ProcessUtility_hook_type previous_hook = NULL;
static DatabaseBlock            blocks[MAX_BLOCKS];
static int                      nblocks = 0;
static bool                     callbacks_registered = false;

/* ---- the end of a block ---- */

/*
 * Takes it off the list; the last one moves into its place.  A wake-up that
 * came meanwhile has found the door closed and must be given again.
 */
static void
block_end(int i, bool committed)
{
	DatabaseBlock block = blocks[i];

	blocks[i] = blocks[--nblocks];
	if (committed && block.forget)
		database_forget(block.database);
	else
	{
		database_unblock(block.database);
		block.wake |= database_take_wakeup(block.database);
	}
	if (block.wake)
		database_wake(block.database);
}

/*
 * A database that is gone is not woken.  DROP EXTENSION may have been followed
 * by CREATE EXTENSION, and that by a submit, whose wake-up must not get lost
 * in what is forgotten at commit.
 */
static void
blocks_prepare_commit(void)
{
	for (int i = 0; i < nblocks; i++)
	{
		if (blocks[i].forget)
			blocks[i].wake =
				blocks[i].database == MyDatabaseId && OidIsValid(extension_owner());
	}
}

static void
transaction_ends(XactEvent event, void *arg)
{
	if (nblocks == 0)
		return;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			blocks_prepare_commit();
			break;

		case XACT_EVENT_COMMIT:
			for (int i = nblocks - 1; i >= 0; i--)
			{
				if (!blocks[i].moving)
					block_end(i, true);
			}
			break;

		case XACT_EVENT_ABORT:

			/*
			 * A prepared transaction's end is not seen by this process.  Its
			 * locks keep our processes waiting until then.
			 */
		case XACT_EVENT_PREPARE:
			while (nblocks > 0)
				block_end(nblocks - 1, false);
			break;

		default:
			break;
	}
}

static void
subtransaction_ends(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	for (int i = nblocks - 1; i >= 0; i--)
	{
		if (blocks[i].subtransaction != mine)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			blocks[i].subtransaction = parent;
		else if (event == SUBXACT_EVENT_ABORT_SUB)
			block_end(i, false);
	}
}

/* For a session that ends between two transactions of one command. */
static void
session_ends(int code, Datum arg)
{
	while (nblocks > 0)
		block_end(nblocks - 1, false);
}

/* ---- the beginning of a block ---- */

static DatabaseBlock *
block_find(Oid database)
{
	for (int i = 0; i < nblocks; i++)
	{
		if (blocks[i].database == database)
			return &blocks[i];
	}
	return NULL;
}

/* Whether there is, or was launched, a process of ours. */
static bool
processes_in(Oid database)
{
	for (int slot = 0; slot < slot_count(); slot++)
	{
		ProcessInfo info;

		if (slot_read(slot, &info) && info.database == database)
			return true;
	}
	return false;
}

/*
 * It is on the list before anybody is stopped, so that an interrupt in the
 * middle finds it.  If our processes do not leave within the limit the command
 * goes on and says itself what is in its way.
 */
static DatabaseBlock *
block_begin(Oid database, bool forget)
{
	DatabaseBlock *block = block_find(database);

	if (!callbacks_registered)
	{
		RegisterXactCallback(transaction_ends, NULL);
		RegisterSubXactCallback(subtransaction_ends, NULL);
		on_shmem_exit(session_ends, (Datum) 0);
		callbacks_registered = true;
	}
	if (block == NULL && nblocks == MAX_BLOCKS)
		return NULL;
	if (block == NULL)
	{
		block = &blocks[nblocks++];
		memset(block, 0, sizeof(*block));
		block->database = database;
		block->subtransaction = GetCurrentSubTransactionId();
	}
	block->forget |= forget;
	block->wake |= processes_in(database) || database_take_wakeup(database);
	(void) database_block(database, LEAVE_LIMIT_MS);
	return block_find(database);
}

/* ---- who may run which command on a database ---- */

static bool
may_create_databases(void)
{
	HeapTuple tuple;
	bool      result;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	ReleaseSysCache(tuple);
	return result;
}

static bool
is_template(Oid database)
{
	HeapTuple tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool      result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return result;
}

/* The database, if it is another one and the user owns it. */
static Oid
owned_database(const char *name)
{
	Oid database = get_database_oid(name, true);

	if (!OidIsValid(database) || database == MyDatabaseId ||
		!database_ownercheck(database, GetUserId()))
		return InvalidOid;
	return database;
}

static const char *
option_text(List *options, const char *name)
{
	ListCell *cell;

	foreach(cell, options)
	{
		DefElem *option = (DefElem *) lfirst(cell);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return NULL;
}

static Oid
database_of_rename(const RenameStmt *statement)
{
	if (statement->renameType != OBJECT_DATABASE || !may_create_databases() ||
		OidIsValid(get_database_oid(statement->newname, true)))
		return InvalidOid;
	return owned_database(statement->subname);
}

static Oid
database_of_move(const AlterDatabaseStmt *statement)
{
	const char *tablespace = option_text(statement->options, "tablespace");
	Oid         oid;

	if (tablespace == NULL)
		return InvalidOid;
	oid = get_tablespace_oid(tablespace, true);
	if (!OidIsValid(oid) || tablespace_aclcheck(oid, GetUserId(), ACL_CREATE) != ACLCHECK_OK)
		return InvalidOid;
	return owned_database(statement->dbname);
}

/*
 * Anyone with CREATEDB may copy what is marked as a template, else its owner.
 * No process of ours is ever started in what is marked.
 */
static Oid
database_of_copy(const CreatedbStmt *statement)
{
	const char *template = option_text(statement->options, "template");
	Oid database = get_database_oid(template != NULL ? template : "template1", true);

	if (!OidIsValid(database) || !may_create_databases() ||
		OidIsValid(get_database_oid(statement->dbname, true)) ||
		(is_template(database) ?
			 !processes_in(database) :
			 !database_ownercheck(database, GetUserId())))
		return InvalidOid;
	return database;
}

/* ---- DROP EXTENSION and what amounts to it ---- */

/* Its row in pg_extension; false if it is not installed in this database. */
static bool
find_extension(Oid *extension, Oid *schema)
{
	Relation    rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple   tuple;
	bool        found;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(EXTENSION_NAME));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		*extension = ((Form_pg_extension) GETSTRUCT(tuple))->oid;
		*schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

static bool
drops_extension(const DropStmt *statement, Oid extension)
{
	ListCell *cell;

	foreach(cell, statement->objects)
	{
		if (strcmp(strVal(lfirst(cell)), EXTENSION_NAME) == 0)
			return extension_ownercheck(extension, GetUserId());
	}
	return false;
}

static bool
drops_schema(const DropStmt *statement, Oid schema)
{
	ListCell *cell;

	if (statement->behavior != DROP_CASCADE)
		return false;
	foreach(cell, statement->objects)
	{
		if (get_namespace_oid(strVal(lfirst(cell)), true) == schema)
			return namespace_ownercheck(schema, GetUserId());
	}
	return false;
}

static bool
drops_owner(const DropOwnedStmt *statement)
{
	ListCell *cell;

	foreach(cell, statement->roles)
	{
		Oid role = get_rolespec_oid(lfirst_node(RoleSpec, cell), true);

		if (OidIsValid(role) && role == extension_owner())
			return has_privs_of_role(GetUserId(), role);
	}
	return false;
}

static bool
ends_extension(const Node *statement)
{
	Oid extension;
	Oid schema;

	if (!find_extension(&extension, &schema))
		return false;
	if (IsA(statement, DropOwnedStmt))
		return drops_owner((const DropOwnedStmt *) statement);
	if (((const DropStmt *) statement)->removeType == OBJECT_EXTENSION)
		return drops_extension((const DropStmt *) statement, extension);
	return drops_schema((const DropStmt *) statement, schema);
}

/* ---- the hook ---- */

/* The database that our processes must leave for this command; InvalidOid: none. */
static Oid
database_to_block(const Node *statement, bool top_level, bool *forget)
{
	*forget = false;
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			*forget = true;
			if (IsInTransactionBlock(top_level))
				return InvalidOid;
			return owned_database(((const DropdbStmt *) statement)->dbname);

		case T_RenameStmt:
			return database_of_rename((const RenameStmt *) statement);

		case T_AlterDatabaseStmt:
			if (IsInTransactionBlock(top_level))
				return InvalidOid;
			return database_of_move((const AlterDatabaseStmt *) statement);

		case T_CreatedbStmt:
			if (IsInTransactionBlock(top_level))
				return InvalidOid;
			return database_of_copy((const CreatedbStmt *) statement);

		case T_DropStmt:
		{
			ObjectType type = ((const DropStmt *) statement)->removeType;

			if (type != OBJECT_EXTENSION && type != OBJECT_SCHEMA)
				return InvalidOid;
			*forget = true;
			return ends_extension(statement) ? MyDatabaseId : InvalidOid;
		}

		case T_DropOwnedStmt:
			*forget = true;
			return ends_extension(statement) ? MyDatabaseId : InvalidOid;

		default:
			return InvalidOid;
	}
}

static void
ddl_hook(PlannedStmt *planned, const char *query, bool read_only_tree,
		 ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
		 DestReceiver *destination, QueryCompletion *completion)
{
	Oid            database = InvalidOid;
	bool           forget = false;
	DatabaseBlock *block = NULL;

	if (board_available() && !IsBinaryUpgrade && !RecoveryInProgress())
		database = database_to_block(planned->utilityStmt, context == PROCESS_UTILITY_TOPLEVEL,
									 &forget);
	if (OidIsValid(database))
		block = block_begin(database, forget);
	if (block != NULL)
		block->moving = IsA(planned->utilityStmt, AlterDatabaseStmt);

	if (previous_hook != NULL)
		previous_hook(planned, query, read_only_tree, context, params, environment, destination,
					  completion);
	else
		standard_ProcessUtility(planned, query, read_only_tree, context, params, environment,
								destination, completion);

	/* the list may have moved meanwhile */
	block = OidIsValid(database) ? block_find(database) : NULL;
	if (block != NULL)
		block->moving = false;
}

void
ddl_hook_install(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = ddl_hook;
}
