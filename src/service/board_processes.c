/*
 * board_processes.c
 *		Shared memory: the slots of our processes and the databases they serve.
 *
 * A slot is reserved by whoever launches a process, attached by the process
 * and released by it when it ends.  The generation tells a late starter that
 * its slot was given up; a slot that nobody attached is reclaimed after a
 * while.  A crash of any process re-initialises all of this.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "service/board_private.h"

Board *board = NULL;

static Size
board_size(void)
{
	return add_size(offsetof(Board, slots), mul_size(max_worker_processes, sizeof(ProcessSlot)));
}

void
board_request_shmem(void)
{
	RequestAddinShmemSpace(board_size());
	RequestNamedLWLockTranche("bulk_action", 1);
}

void
board_startup_shmem(void)
{
	bool found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	board = ShmemInitStruct("bulk_action", board_size(), &found);
	if (!found)
	{
		memset(board, 0, board_size());
		board->lock = &GetNamedLWLockTranche("bulk_action")->lock;
		board->launcher_proc_number = NOBODY;
		board->nslots = max_worker_processes;
		(void) markers_load(board->crashed);
	}
	LWLockRelease(AddinShmemInitLock);
}

bool
board_available(void)
{
	return board != NULL;
}

void
board_lock(void)
{
	LWLockAcquire(board->lock, LW_EXCLUSIVE);
}

void
board_unlock(void)
{
	LWLockRelease(board->lock);
}

void
board_wake_slot(int slot)
{
	if (board->slots[slot].info.kind != PROCESS_NONE && board->slots[slot].info.pid != 0)
		SetLatch(compat_proc_latch(board->slots[slot].proc_number));
}

void
board_wake_launcher(void)
{
	if (board->launcher_proc_number != NOBODY)
		SetLatch(compat_proc_latch(board->launcher_proc_number));
}

static void
launcher_detach(int code, Datum arg)
{
	board_lock();
	board->launcher_proc_number = NOBODY;
	board_unlock();
}

void
launcher_attach(void)
{
	board_lock();
	board->launcher_proc_number = compat_my_proc_number();
	board_unlock();
	before_shmem_exit(launcher_detach, (Datum) 0);
}

int
slot_count(void)
{
	return board->nslots;
}

int
slot_reserve(ProcessKind kind, Oid database, Oid session_user, uint32 *generation)
{
	int            slot = -1;
	int            workers = 0;
	DatabaseEntry *entry;

	board_lock();
	entry = board_find_database(database, true);
	for (int i = 0; i < board->nslots; i++)
	{
		ProcessInfo *info = &board->slots[i].info;

		if (info->kind == PROCESS_WORKER)
			workers++;
		else if (info->kind == PROCESS_NONE && slot < 0)
			slot = i;
	}
	if (entry == NULL || entry->blocked_by != 0 ||
		(kind == PROCESS_WORKER && workers >= bulk_action_max_workers) ||
		(kind == PROCESS_COORDINATOR && board_find_coordinator(database) >= 0))
		slot = -1;
	if (slot >= 0)
	{
		ProcessSlot *s = &board->slots[slot];

		memset(s, 0, sizeof(*s));
		s->info.kind = kind;
		s->info.generation = *generation = ++board->next_generation;
		s->info.database = database;
		s->info.session_user = session_user;
		s->info.launched_at = GetCurrentTimestamp();
		if (kind == PROCESS_COORDINATOR)
			entry->starved = true;
	}
	board_unlock();
	return slot;
}

bool
slot_attach(int slot, uint32 generation)
{
	bool           ours;
	ProcessSlot   *s;
	DatabaseEntry *entry;

	if (slot < 0 || slot >= board->nslots)
		return false;
	board_lock();
	s = &board->slots[slot];
	entry = board_find_database(s->info.database, false);
	ours = s->info.kind != PROCESS_NONE && s->info.generation == generation && s->info.pid == 0 &&
		   (entry == NULL || entry->blocked_by == 0);
	if (ours)
	{
		s->proc_number = compat_my_proc_number();
		s->info.pid = MyProcPid;
	}
	else if (s->info.generation == generation)
		s->info.kind = PROCESS_NONE;
	board_unlock();
	return ours;
}

/* Frees a slot with the lock held, and wakes those who may want it or its work. */
static void
free_slot(int slot)
{
	ProcessSlot *s = &board->slots[slot];
	Oid          database = s->info.database;

	if (s->info.kind == PROCESS_COORDINATOR)
		board_drop_wants(database);
	s->info.kind = PROCESS_NONE;
	s->info.pid = 0;
	board_drop_holder(slot);
	for (int i = 0; i < board->nslots; i++)
		if (board->slots[i].info.kind == PROCESS_COORDINATOR)
			board_wake_slot(i);
	if (board_find_coordinator(database) < 0)
		board_wake_launcher();
}

void
slot_release(int slot, uint32 generation)
{
	board_lock();
	if (board->slots[slot].info.kind != PROCESS_NONE &&
		board->slots[slot].info.generation == generation)
		free_slot(slot);
	board_unlock();
}

bool
slot_read(int slot, ProcessInfo *info)
{
	board_lock();
	*info = board->slots[slot].info;
	board_unlock();
	return info->kind != PROCESS_NONE;
}

int
slot_reclaim(int limit_ms)
{
	int         n = 0;
	TimestampTz now = GetCurrentTimestamp();

	board_lock();
	for (int i = 0; i < board->nslots; i++)
	{
		ProcessInfo *info = &board->slots[i].info;

		if (info->kind != PROCESS_NONE && info->pid == 0 &&
			TimestampDifferenceExceeds(info->launched_at, now, limit_ms))
		{
			free_slot(i);
			n++;
		}
	}
	board_unlock();
	return n;
}

/* ---- databases ---- */

DatabaseEntry *
board_find_database(Oid database, bool create)
{
	DatabaseEntry *free_entry = NULL;

	for (int i = 0; i < BOARD_MAX_DATABASES; i++)
	{
		DatabaseEntry *entry = &board->databases[i];

		if (entry->oid == database)
			return entry;
		if (free_entry == NULL &&
			(!OidIsValid(entry->oid) ||
			 (!entry->wanted && entry->blocked_by == 0 && board_find_coordinator(entry->oid) < 0)))
			free_entry = entry;
	}
	if (!create || free_entry == NULL)
		return NULL;
	memset(free_entry, 0, sizeof(*free_entry));
	free_entry->oid = database;
	return free_entry;
}

int
board_find_coordinator(Oid database)
{
	for (int i = 0; i < board->nslots; i++)
		if (board->slots[i].info.kind == PROCESS_COORDINATOR &&
			board->slots[i].info.database == database)
			return i;
	return -1;
}

void
database_wake(Oid database)
{
	DatabaseEntry *entry;
	int            coordinator;

	board_lock();
	entry = board_find_database(database, true);
	if (entry != NULL)
		entry->wanted = true;
	else
		board->overflow = true;
	coordinator = board_find_coordinator(database);
	if (coordinator >= 0)
		board_wake_slot(coordinator);
	else
		board_wake_launcher();
	board_unlock();
}

bool
database_take_overflow(void)
{
	bool overflow;

	board_lock();
	overflow = board->overflow;
	board->overflow = false;
	board_unlock();
	return overflow;
}

bool
database_want(Oid database)
{
	DatabaseEntry *entry;

	board_lock();
	entry = board_find_database(database, true);
	if (entry != NULL)
		entry->wanted = true;
	board_unlock();
	return entry != NULL;
}

bool
database_take_wakeup(Oid database)
{
	DatabaseEntry *entry;
	bool           wanted;

	board_lock();
	entry = board_find_database(database, false);
	wanted = entry != NULL && entry->wanted;
	if (wanted)
		entry->wanted = false;
	board_unlock();
	return wanted;
}

bool
database_leave(Oid database, int slot, uint32 generation)
{
	DatabaseEntry *entry;
	bool           leave;

	board_lock();
	entry = board_find_database(database, false);
	leave = entry == NULL || !entry->wanted;
	if (leave && board->slots[slot].info.generation == generation)
	{
		if (entry != NULL)
			entry->starved = false;
		free_slot(slot);
	}
	board_unlock();
	return leave;
}

void
database_put_off(Oid database, int delay_ms)
{
	DatabaseEntry *entry;

	board_lock();
	entry = board_find_database(database, true);
	if (entry != NULL)
	{
		entry->wanted = true;
		entry->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay_ms);
	}
	board_unlock();
}

Oid
database_next_unserved(TimestampTz *next_due)
{
	Oid         found = InvalidOid;
	TimestampTz now = GetCurrentTimestamp();

	*next_due = 0;
	board_lock();
	for (int i = 0; i < BOARD_MAX_DATABASES; i++)
	{
		/* Begin each time behind the one served last. */
		DatabaseEntry *entry = &board->databases[(board->last_database + 1 + i) % BOARD_MAX_DATABASES];

		if (!OidIsValid(entry->oid) || !entry->wanted || entry->blocked_by != 0 ||
			board_find_coordinator(entry->oid) >= 0)
			continue;
		if (entry->not_before > now)
		{
			if (*next_due == 0 || entry->not_before < *next_due)
				*next_due = entry->not_before;
			continue;
		}
		found = entry->oid;
		board->last_database = entry - board->databases;
		break;
	}
	board_unlock();
	return found;
}

void
database_set_starved(Oid database, bool starved)
{
	DatabaseEntry *entry;

	board_lock();
	entry = board_find_database(database, false);
	if (entry != NULL && entry->starved != starved)
	{
		entry->starved = starved;
		if (!starved)
			board_wake_launcher();
	}
	board_unlock();
}

bool
database_any_starved(void)
{
	bool starved = false;

	board_lock();
	for (int i = 0; i < BOARD_MAX_DATABASES; i++)
		if (OidIsValid(board->databases[i].oid) && board->databases[i].starved &&
			board_find_coordinator(board->databases[i].oid) >= 0)
			starved = true;
	board_unlock();
	return starved;
}

static bool
anyone_there(Oid database)
{
	for (int i = 0; i < board->nslots; i++)
		if (board->slots[i].info.kind != PROCESS_NONE && board->slots[i].info.database == database)
			return true;
	return false;
}

bool
database_block(Oid database, int limit_ms)
{
	TimestampTz    start = GetCurrentTimestamp();
	DatabaseEntry *entry;
	bool           gone;

	board_lock();
	entry = board_find_database(database, true);
	if (entry != NULL)
		entry->blocked_by = MyProcPid;
	board_unlock();
	if (entry == NULL)
		return false;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		board_lock();
		for (int i = 0; i < board->nslots; i++)
		{
			ProcessInfo *info = &board->slots[i].info;

			if (info->kind != PROCESS_NONE && info->database == database && info->pid != 0)
				kill(info->pid, SIGTERM);
		}
		gone = !anyone_there(database);
		board_unlock();
		if (gone || TimestampDifferenceExceeds(start, GetCurrentTimestamp(), limit_ms))
			return gone;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10L,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

void
database_unblock(Oid database)
{
	DatabaseEntry *entry;

	board_lock();
	entry = board_find_database(database, false);
	if (entry != NULL && entry->blocked_by == MyProcPid)
		entry->blocked_by = 0;
	board_unlock();
}

void
database_forget(Oid database)
{
	DatabaseEntry *entry;

	board_lock();
	entry = board_find_database(database, false);
	if (entry != NULL)
		memset(entry, 0, sizeof(*entry));
	board_forget_database_actions(database);
	board_unlock();
	crashed_forget(database);
}
