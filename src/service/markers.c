/*
 * markers.c
 *		What workers were at when the server crashed.
 *
 * A file of records of one size in pg_stat_tmp, which base backups leave out:
 * first those that are left from crashes, until they are taken up, then one for
 * each worker slot.  Workers write their own record with one pwrite() each
 * time; the postmaster reads the file when it sets up shared memory, at which
 * moment there are no workers, and begins it anew.
 *
 * Nothing here raises an error.  Without the file the extension works as long
 * as nothing crashes, so trouble with it goes to the log, once per process.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"

#include "service/board.h"
#include "service/markers.h"

#define MARKERS_PATH  PG_STAT_TMP_DIR "/bulk_action.markers"
#define MARKERS_MAGIC 0x62614d32

/* 64 bytes: a record does not straddle pages, so a write of it is not torn by the death of its process. */
typedef union MarkerRecord
{
	struct
	{
		uint32 magic; /* anything else: nothing is in flight */
		Marker marker;
	} r;
	char fill[64];
} MarkerRecord;

StaticAssertDecl(sizeof(MarkerRecord) == 64, "a marker's record has 64 bytes");

static int  marker_file = -1;
static bool complained = false;

static void
complain(const char *what)
{
	if (!complained)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not %s file \"%s\": %m", what, MARKERS_PATH),
				 errdetail("After a crash of the server bulk_action will not know what was being applied.")));
	complained = true;
}

static bool
open_file(void)
{
	if (marker_file < 0)
	{
		marker_file = BasicOpenFile(MARKERS_PATH, O_RDWR | PG_BINARY);
		if (marker_file < 0)
			complain("open");
		else
			ReserveExternalFD();
	}
	return marker_file >= 0;
}

static void
write_record(int index, const MarkerRecord *record)
{
	if (open_file() &&
		pwrite(marker_file, record, sizeof(*record), (off_t) index * sizeof(*record)) != sizeof(*record))
		complain("write");
}

static void
erase_record(int index)
{
	static const MarkerRecord nothing;

	write_record(index, &nothing);
}

void
markers_set(const Task *task, MarkerKind kind, int number)
{
	MarkerRecord record;

	memset(&record, 0, sizeof(record));
	record.r.magic = MARKERS_MAGIC;
	/* one by one, so that what is between them stays zero */
	record.r.marker.kind = kind;
	record.r.marker.alone = task->alone;
	record.r.marker.database = MyDatabaseId;
	record.r.marker.action_no = task->action_no;
	record.r.marker.lane = task->lane;
	record.r.marker.number = number;
	write_record(MARKERS_MAX + task->slot, &record);
}

void
markers_clear(int slot)
{
	erase_record(MARKERS_MAX + slot);
}

/* Its worker may end it meanwhile: then a marker is left over, which charges nobody with anything. */
void
markers_not_alone(int slot)
{
	MarkerRecord record;
	off_t        offset = (off_t) (MARKERS_MAX + slot) * sizeof(record);

	if (!open_file() || pread(marker_file, &record, sizeof(record), offset) != sizeof(record) ||
		record.r.magic != MARKERS_MAGIC || !record.r.marker.alone)
		return;
	record.r.marker.alone = false;
	write_record(MARKERS_MAX + slot, &record);
}

void
markers_forget(int index)
{
	erase_record(index);
}

static int
read_markers(Marker *crashed)
{
	FILE        *file = AllocateFile(MARKERS_PATH, PG_BINARY_R);
	MarkerRecord record;
	int          n = 0;

	if (file == NULL)
	{
		if (errno != ENOENT)
			complain("open");
		return 0;
	}
	while (n < MARKERS_MAX && fread(&record, sizeof(record), 1, file) == 1)
		if (record.r.magic == MARKERS_MAGIC)
			crashed[n++] = record.r.marker;
	if (ferror(file))
		complain("read");
	FreeFile(file);
	return n;
}

/* Its full length, so that a worker never needs more space on the disk. */
static void
write_markers(const Marker *crashed, int n)
{
	FILE *file = AllocateFile(MARKERS_PATH, PG_BINARY_W);
	bool  written = file != NULL;

	for (int i = 0; written && i < MARKERS_MAX + max_worker_processes; i++)
	{
		MarkerRecord record;

		memset(&record, 0, sizeof(record));
		if (i < n)
		{
			record.r.magic = MARKERS_MAGIC;
			record.r.marker = crashed[i];
		}
		written = fwrite(&record, sizeof(record), 1, file) == 1;
	}
	if (!written)
		complain("write");
	if (file != NULL && FreeFile(file) != 0)
		complain("write");
}

int
markers_load(Marker *crashed)
{
	int n = read_markers(crashed);

	write_markers(crashed, n);
	return n;
}
