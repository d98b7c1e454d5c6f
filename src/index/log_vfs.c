/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * How SQLite reaches the disk: its own "unix-excl" (locks and the index of the log are in our
 * memory, no system calls), but for the write-ahead log, whose writes are gathered.  SQLite writes
 * each frame of a commit in two pieces, header and page, of which a small transaction has a
 * dozen; here a commit is one write.
 *
 *   1. What is gathered is contiguous, and is on its way before the write of a frame that ends
 *      a transaction returns (file format, 4.1: its header says so): only then does SQLite
 *      let other connections see the commit.
 *   2. Only what is written for the first time is gathered.  After a transaction that didn't fit
 *      into memory SQLite mends checksums, header by header, and a commit may end with those.
 *   3. Whatever else the log is asked for (reads, size, truncation, sync) comes after it.
 *   4. A write that fails undoes the transaction: what was gathered is dropped, as it would be of
 *      no use without the rest.
 */
#include "index/db.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { GATHER_BYTES = 32 * LOG_FRAME_BYTES };

struct log_file {
	sqlite3_file file;		/* what SQLite sees; first */
	bool ends;			/* the page that comes ends a transaction */
	sqlite3_int64 end;		/* of what was ever written, since the log began anew */
	sqlite3_int64 at;		/* where what is gathered belongs */
	int len;
	unsigned char *gathered;	/* GATHER_BYTES */
	sqlite3_int64 below[];		/* unix-excl's file, of its szOsFile bytes */
};

static sqlite3_vfs *below_vfs;
static sqlite3_vfs log_vfs;

static sqlite3_file *
below(sqlite3_file *f)
{
	return (sqlite3_file *)((struct log_file *)f)->below;
}

/* Write what is gathered, and let `f` do the rest itself. */
static int
settle(sqlite3_file *f)
{
	struct log_file *l = (struct log_file *)f;
	int len = l->len;

	l->len = 0;
	return len == 0 ? SQLITE_OK : below(f)->pMethods->xWrite(below(f), l->gathered, len, l->at);
}

static int
log_write(sqlite3_file *f, const void *buf, int n, sqlite3_int64 at)
{
	struct log_file *l = (struct log_file *)f;
	bool ends = l->ends, again = at < l->end;
	int rc = SQLITE_OK;

	/* The size of the database after a commit; 0 in other frames. */
	l->ends = n == LOG_HEADER_BYTES && get_be32((const unsigned char *)buf + 4) != 0;
	if (at == 0 || at + n > l->end)
		l->end = at + n;
	if (again || at != l->at + l->len || n > GATHER_BYTES - l->len)
		rc = settle(f);
	if (rc != SQLITE_OK)
		return rc;
	if (again || n > GATHER_BYTES)
		return below(f)->pMethods->xWrite(below(f), buf, n, at);
	if (l->len == 0)
		l->at = at;
	memcpy(l->gathered + l->len, buf, (size_t)n);
	l->len += n;
	return ends ? settle(f) : SQLITE_OK;
}

static int
log_close(sqlite3_file *f)
{
	int rc = settle(f), closed = below(f)->pMethods->xClose(below(f));

	free(((struct log_file *)f)->gathered);
	return rc != SQLITE_OK ? rc : closed;
}

static int
log_read(sqlite3_file *f, void *buf, int n, sqlite3_int64 at)
{
	/* No other answer to a read has SQLite undo all of the transaction. */
	return settle(f) != SQLITE_OK ? SQLITE_IOERR_WRITE :
	    below(f)->pMethods->xRead(below(f), buf, n, at);
}

static int
log_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	int rc = settle(f);

	return rc != SQLITE_OK ? rc : below(f)->pMethods->xTruncate(below(f), size);
}

static int
log_sync(sqlite3_file *f, int flags)
{
	int rc = settle(f);

	return rc != SQLITE_OK ? rc : below(f)->pMethods->xSync(below(f), flags);
}

static int
log_size(sqlite3_file *f, sqlite3_int64 *ret_size)
{
	int rc = settle(f);

	return rc != SQLITE_OK ? rc : below(f)->pMethods->xFileSize(below(f), ret_size);
}

static int
log_lock(sqlite3_file *f, int how)
{
	return below(f)->pMethods->xLock(below(f), how);
}

static int
log_unlock(sqlite3_file *f, int how)
{
	return below(f)->pMethods->xUnlock(below(f), how);
}

static int
log_is_reserved(sqlite3_file *f, int *ret_reserved)
{
	return below(f)->pMethods->xCheckReservedLock(below(f), ret_reserved);
}

static int
log_control(sqlite3_file *f, int op, void *arg)
{
	return below(f)->pMethods->xFileControl(below(f), op, arg);
}

static int
log_sector_size(sqlite3_file *f)
{
	return below(f)->pMethods->xSectorSize(below(f));
}

static int
log_characteristics(sqlite3_file *f)
{
	return below(f)->pMethods->xDeviceCharacteristics(below(f));
}

static const sqlite3_io_methods log_methods = {
	.iVersion = 1,
	.xClose = log_close,
	.xRead = log_read,
	.xWrite = log_write,
	.xTruncate = log_truncate,
	.xSync = log_sync,
	.xFileSize = log_size,
	.xLock = log_lock,
	.xUnlock = log_unlock,
	.xCheckReservedLock = log_is_reserved,
	.xFileControl = log_control,
	.xSectorSize = log_sector_size,
	.xDeviceCharacteristics = log_characteristics,
};

/* Only the log is ours; any other file is unix-excl's own. */
static int
vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *ret_flags)
{
	struct log_file *l = (struct log_file *)f;
	int rc;

	(void)vfs;
	if ((flags & SQLITE_OPEN_WAL) == 0)
		return below_vfs->xOpen(below_vfs, name, f, flags, ret_flags);
	*l = (struct log_file){ .gathered = malloc(GATHER_BYTES) };
	if (l->gathered == NULL)
		return SQLITE_NOMEM;
	rc = below_vfs->xOpen(below_vfs, name, below(f), flags, ret_flags);
	if (rc == SQLITE_OK)
		l->file.pMethods = &log_methods;
	else
		free(l->gathered);
	return rc;
}

int
log_vfs_register(struct error *err)
{
	if (below_vfs != NULL)
		return 0;
	/* Counting what it allocates takes a lock each time, and nobody asks. */
	(void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	below_vfs = sqlite3_vfs_find("unix-excl");
	if (below_vfs == NULL)
		return error_set(err, -ENOSYS, "this SQLite has no \"unix-excl\"");
	/* Its own methods look at no other field of it. */
	log_vfs = *below_vfs;
	log_vfs.zName = LOG_VFS;
	log_vfs.szOsFile = (int)sizeof(struct log_file) + below_vfs->szOsFile;
	log_vfs.xOpen = vfs_open;
	return sqlite3_vfs_register(&log_vfs, 0) == SQLITE_OK ? 0 : -ENOMEM;
}
