/*
 * copies.c
 *		bulk_action_adopt: a copy of a database takes over the original's actions.
 *
 * What an action belongs to is recorded when it is submitted, as system
 * identifier and database: a restored, cloned or copied database differs in
 * one of them, a standby that was promoted in neither.  The coordinator pauses
 * what belongs elsewhere (process/copies.c); here the operator says that this
 * database is the one that shall go on with it.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "service/bookkeeping.h"
#include "service/wake.h"
#include "stage/jobs.h"

BULK_ACTION_FUNCTION(bulk_action_this_database);
BULK_ACTION_FUNCTION(bulk_action_adopt);

Datum
bulk_action_this_database(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId)));
}

Datum
bulk_action_adopt(PG_FUNCTION_ARGS)
{
	Bookkeeping bookkeeping;
	int64       adopted;

	PreventCommandIfReadOnly("bulk_action_adopt()");
	if (!database_ownercheck(MyDatabaseId, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of database %s", get_database_name(MyDatabaseId)),
				 errdetail("Adopting lets the actions of all roles go on."),
				 errhint("Have the owner of the database or a superuser call it.")));

	SPI_connect();
	bookkeeping_enter(&bookkeeping);
	adopted = jobs_request_adoption();
	bookkeeping_leave(&bookkeeping);
	SPI_finish();

	if (adopted > 0)
		wake_after_commit();
	PG_RETURN_INT64(adopted);
}
