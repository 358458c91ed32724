/*
 * compat.h
 *		Every difference between PostgreSQL 15 and 18 that this extension
 *		meets, in one place: no other file looks at PG_VERSION_NUM.
 */
#ifndef BULK_ACTION_COMPAT_H
#define BULK_ACTION_COMPAT_H

#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/memutils.h"

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "bulk_action supports PostgreSQL 15 to 18"
#endif

/*
 * The library is built with hidden visibility, which PostgreSQL's own
 * PGDLLEXPORT knows about from 16 on.
 */
#if PG_VERSION_NUM < 160000
#undef PGDLLEXPORT
#define PGDLLEXPORT __attribute__((visibility("default")))
#endif

/* Declares a function that SQL calls. */
#define BULK_ACTION_FUNCTION(name) \
	extern PGDLLEXPORT Datum name(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(name)

/*
 * Ownership and privileges: 16 replaced one function per kind of object by one
 * for all, and split membership in a role from the right to SET ROLE to it.
 */
#if PG_VERSION_NUM >= 160000
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_tablespace.h"

#define relation_ownercheck(relation, role) object_ownercheck(RelationRelationId, relation, role)
#define database_ownercheck(database, role) object_ownercheck(DatabaseRelationId, database, role)
#define extension_ownercheck(extension, role) \
	object_ownercheck(ExtensionRelationId, extension, role)
#define namespace_ownercheck(schema, role) object_ownercheck(NamespaceRelationId, schema, role)
#define namespace_aclcheck(schema, role, mode) \
	object_aclcheck(NamespaceRelationId, schema, role, mode)
#define database_aclcheck(database, role, mode) \
	object_aclcheck(DatabaseRelationId, database, role, mode)
#define server_aclcheck(server, role, mode) \
	object_aclcheck(ForeignServerRelationId, server, role, mode)
#define tablespace_aclcheck(tablespace, role, mode) \
	object_aclcheck(TableSpaceRelationId, tablespace, role, mode)
#define can_set_role(member, role) member_can_set_role(member, role)
#else
#define relation_ownercheck(relation, role)     pg_class_ownercheck(relation, role)
#define database_ownercheck(database, role)     pg_database_ownercheck(database, role)
#define extension_ownercheck(extension, role)   pg_extension_ownercheck(extension, role)
#define namespace_ownercheck(schema, role)      pg_namespace_ownercheck(schema, role)
#define namespace_aclcheck(schema, role, mode)  pg_namespace_aclcheck(schema, role, mode)
#define database_aclcheck(database, role, mode) pg_database_aclcheck(database, role, mode)
#define server_aclcheck(server, role, mode)     pg_foreign_server_aclcheck(server, role, mode)
#define tablespace_aclcheck(tablespace, role, mode) \
	pg_tablespace_aclcheck(tablespace, role, mode)
#define can_set_role(member, role) is_member_of_role(member, role)
#endif

/* 17 has the setting transaction_timeout. */
#define COMPAT_HAS_TRANSACTION_TIMEOUT (PG_VERSION_NUM >= 170000)

/* A process's number, by which others find its latch. */
#if PG_VERSION_NUM >= 170000
#define compat_my_proc_number()   ((int) MyProcNumber)
#define compat_proc_latch(number) (&GetPGProcByNumber(number)->procLatch)
#else
#define compat_my_proc_number()   (MyProc->pgprocno)
#define compat_proc_latch(number) (&ProcGlobal->allProcs[number].procLatch)
#endif

/*
 * A WaitEventSet that lasts until FreeWaitEventSet().  Version 17 ties it to a
 * resource owner instead of a memory context; none means that nobody else
 * frees it.
 */
static inline WaitEventSet *
bulk_action_create_wait_event_set(int nevents)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, nevents);
#else
	return CreateWaitEventSet(TopMemoryContext, nevents);
#endif
}

#include "catalog/pg_authid.h"
#include "common/jsonapi.h"
#include "mb/pg_wchar.h"
#include "utils/fmgrprotos.h"
#include "utils/guc_tables.h"
#include "utils/jsonb.h"
#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#include "varatt.h"
#endif

/*
 * Parses JSON, false if it is none.  (15 has no soft errors, but its parser
 * can be asked beforehand.)
 */
static inline bool
jsonb_parse(char *text, Jsonb **result)
{
	Datum value;
#if PG_VERSION_NUM >= 160000
	ErrorSaveContext failure = {T_ErrorSaveContext};

	if (!DirectInputFunctionCallSafe(jsonb_in, text, InvalidOid, -1, (Node *) &failure, &value))
		return false;
#else
	JsonLexContext *lexer =
		makeJsonLexContextCstringLen(text, strlen(text), GetDatabaseEncoding(), true);

	if (pg_parse_json(lexer, &nullSemAction) != JSON_SUCCESS)
		return false;
	value = DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
#endif
	*result = DatumGetJsonbP(value);
	return true;
}

/* All settings that there are; the list is allocated from 16 on. */
static inline struct config_generic **
compat_settings(int *n)
{
#if PG_VERSION_NUM >= 160000
	return get_guc_variables(n);
#else
	*n = GetNumConfigOptions();
	return get_guc_variables();
#endif
}

/*
 * datconnlimit of a database whose DROP DATABASE was interrupted; has a name
 * of its own (DATCONNLIMIT_INVALID_DB) only in newer minor versions.
 */
#define COMPAT_INVALID_DATABASE (-2)

#endif /* BULK_ACTION_COMPAT_H */
