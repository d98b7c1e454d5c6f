/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Opening and closing the index, and what holds while it is open: how the last one ended, a
 * reserve for its log, numbers.
 *
 *   1. Inode numbers and dentry ids come from one counter whose limit is durable before a number
 *      below it is given out, so that none is used twice, not even after a power cut.
 *   2. The log keeps its file, and the blocks set aside for it, while a connection is open.
 *   3. The database has blocks for what it may grow to by the next commits, or nothing is made that
 *      would have it grow: the log can always be moved into it and begun anew, so that on a full
 *      disk removing never ends.
 */
#include "index/db.h"

#include "base/log.h"
#include "index/index.h"
#include "index/rows.h"
#include "index/usage.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	SEQUENCE_BLOCK = 65536,		/* numbers reserved at a time */
	CHECKPOINT_BYTES = 16 << 20,	/* size of the log that asks for a checkpoint */
	GROW_BYTES = 1 << 20,
	RESERVE_PAGES = 2048,		/* that the database may grow by before it is seen to again */
};

/* Numbers up to the limit in meta may have been given out before: start above it. */
static int
sequence_reserve(struct index *ix, uint64_t limit)
{
	int r;

	r = db_begin(ix);
	if (r == 0)
		r = db_end(ix, db_run(&ix->writer, "UPDATE meta SET value=max(value,?)"
		    " WHERE name='sequence_limit'", "i", (int64_t)limit));
	if (r == 0)
		r = index_sync(ix);
	if (r == 0 && atomic_load(&ix->sequence_limit) < limit)
		atomic_store(&ix->sequence_limit, limit);
	return r;
}

int
sequence_next(struct index *ix, uint64_t *ret_number)
{
	uint64_t number = atomic_fetch_add(&ix->sequence, 1);

	while (number >= atomic_load(&ix->sequence_limit)) {
		int r = sequence_reserve(ix, number + SEQUENCE_BLOCK);

		if (r < 0)
			return r;
	}
	*ret_number = number;
	return 0;
}

/*
 * Blocks for the log beyond its end: on a full disk commits still find room, so that unlink
 * and truncate can make some.  The log keeps its file and its blocks while it is open.
 */
static int
count_frames(void *arg, sqlite3 *h, const char *name, int frames)
{
	struct index *ix = arg;

	(void)h;
	(void)name;
	/* A commit of so many frames makes the database no more pages longer.  When the log begins anew, a
	 * checkpoint has cut the database to what it needs. */
	ix->unreserved += frames > ix->wal_frames ? frames - ix->wal_frames : RESERVE_PAGES;
	ix->wal_frames = frames;
	return SQLITE_OK;
}

bool
index_has_room(struct index *ix)
{
	sqlite3_int64 size;
	int pages = 0;

	if (ix->unreserved < RESERVE_PAGES / 2 && !ix->no_room)
		return true;
	/* On a file of chunks the hint allocates blocks, as a checkpoint does when it begins. */
	if (pragma_int(ix->writer.handle, "PRAGMA page_count", &pages) < 0)
		return false;
	size = ((sqlite3_int64)pages + RESERVE_PAGES) * DB_PAGE_BYTES;
	ix->no_room = sqlite3_file_control(ix->writer.handle, NULL, SQLITE_FCNTL_SIZE_HINT, &size) != SQLITE_OK;
	if (!ix->no_room)
		ix->unreserved = 0;
	return !ix->no_room;
}

static void
set_reserve(struct index *ix, uint64_t bytes)
{
	int chunk = GROW_BYTES;

	(void)sqlite3_wal_hook(ix->writer.handle, count_frames, ix);
	/* The database too grows ahead of its need. */
	(void)sqlite3_file_control(ix->writer.handle, NULL, SQLITE_FCNTL_CHUNK_SIZE, &chunk);
	(void)sqlite3_file_control(ix->maintenance, NULL, SQLITE_FCNTL_CHUNK_SIZE, &chunk);
	ix->wal_limit = (int)(bytes / LOG_FRAME_BYTES * 3 / 4 < INT_MAX ? bytes / LOG_FRAME_BYTES * 3 / 4 : INT_MAX);
	if (bytes > 0 && fallocate(ix->wal_fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes) < 0)
		log_warn("%s: no reserve of %ju bytes can be set aside (%s): on a full disk nothing can "
		    "be removed", ix->dir, (uintmax_t)bytes, strerror(errno));
}

static int
open_connections(struct index *ix, const char *path, const struct index_options *opt,
    enum index_end *ret_end, struct error *err)
{
	const char *life = opt->life != NULL ? opt->life : "";
	int64_t clean = 0, same = 0, limit = 0, fresh = 0;
	char wal[4200];
	int r;

	/* The log and its index take the database's mode. */
	r = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (r < 0)
		return error_set(err, -errno, "the index %s can't be opened: %s", path, strerror(errno));
	(void)close(r);
	r = db_open(&ix->writer, ix, path, err);
	if (r == 0)
		r = schema_setup(ix, err);
	if (r == 0)
		r = rows_new(ix);
	if (r == 0)
		r = db_open(&ix->reader, ix, path, err);
	if (r == 0)
		r = run_script(ix, ix->reader.handle, "PRAGMA query_only=ON;", err);
	if (r == 0)
		r = db_connect(path, &ix->maintenance, err);
	if (r < 0)
		return r;
	lock_take(&ix->writer.lock);
	r = db_int(&ix->writer, &clean, "SELECT value FROM meta WHERE name='clean'", "");
	if (r == 0)
		r = db_int(&ix->writer, &limit, "SELECT value FROM meta WHERE name='sequence_limit'", "");
	if (r == 0)
		r = db_int(&ix->writer, &same, "SELECT value=? FROM meta WHERE name='life'", "s", life);
	if (r == 0)
		r = db_int(&ix->writer, &fresh, "SELECT value FROM meta WHERE name='fresh'", "");
	if (r == 0)
		r = db_run(&ix->writer, "UPDATE meta SET value=0 WHERE name='clean'", "");
	lock_drop(&ix->writer.lock);
	if (r < 0)
		return error_set(err, r, "the index %s can't be read or written: %s", path, strerror(-r));
	/* There is a log now, and it keeps its file as long as a connection is open. */
	(void)snprintf(wal, sizeof(wal), "%s-wal", path);
	ix->wal_fd = open(wal, O_RDWR | O_CLOEXEC);
	if (ix->wal_fd < 0)
		return error_set(err, -errno, "the index's log %s can't be opened: %s", wal, strerror(errno));
	set_reserve(ix, opt->reserve);
	*ret_end = clean != 0 ? INDEX_ENDED_WELL : same != 0 ? INDEX_KILLED : INDEX_POWER_CUT;
	atomic_store(&ix->sequence, (uint64_t)limit);
	ix->is_new = fresh != 0;
	return index_sync(ix);
}

int
index_recovered(struct index *ix, const char *life)
{
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = db_run(&ix->writer, "UPDATE meta SET value=? WHERE name='life'", "s", life);
	if (r == 0)
		r = db_run(&ix->writer, "UPDATE meta SET value=0 WHERE name='fresh'", "");
	r = db_end(ix, r);
	if (r == 0)
		r = index_sync(ix);
	if (r == 0)
		r = usage_start(ix);
	ix->recovered = r == 0;
	return r;
}

int
index_open(const struct index_options *opt, struct index **ret_ix, enum index_end *ret_end,
    struct error *err)
{
	struct index *ix = calloc(1, sizeof(*ix));
	char path[4096];
	int r;

	if (ix == NULL)
		return -ENOMEM;
	ix->wal_fd = -1;
	lock_init(&ix->sync_lock, RANK_QUEUE);
	lock_cond_init(&ix->sync_cond);
	ix->dir = strdup(opt->dir);
	(void)snprintf(path, sizeof(path), "%s/index.db", opt->dir);
	r = log_vfs_register(err);
	if (r == 0)
		r = index_refuse_set_aside(ix, err);
	if (r == 0)
		r = open_connections(ix, path, opt, ret_end, err);
	if (r < 0) {
		db_close(&ix->reader);
		rows_free(ix);
		db_close(&ix->writer);
		(void)sqlite3_close_v2(ix->maintenance);
		if (ix->wal_fd >= 0)
			(void)close(ix->wal_fd);
		if (ix->aside[0] != '\0')
			index_set_aside(ix);
		free(ix->dir);
		free(ix);
		return r;
	}
	*ret_ix = ix;
	return 0;
}

void
index_close(struct index *ix, bool clean)
{
	if (ix == NULL)
		return;
	if (clean && ix->recovered && index_sync(ix) == 0) {
		lock_take(&ix->writer.lock);
		(void)db_run(&ix->writer, "UPDATE meta SET value=1 WHERE name='clean'", "");
		lock_drop(&ix->writer.lock);
		(void)index_sync(ix);
	}
	usage_stop(ix);
	(void)close(ix->wal_fd);
	(void)sqlite3_close_v2(ix->maintenance);
	db_close(&ix->reader);
	rows_free(ix);
	db_close(&ix->writer);
	lock_release(&ix->sync_lock);
	(void)pthread_cond_destroy(&ix->sync_cond);
	free(ix->dir);
	free(ix);
}

bool
index_is_new(const struct index *ix)
{
	return ix->is_new;
}

void
index_checkpoint(struct index *ix)
{
	char path[4096];
	struct stat st;

	(void)snprintf(path, sizeof(path), "%s/index.db-wal", ix->dir);
	if (stat(path, &st) < 0 || st.st_size < CHECKPOINT_BYTES)
		return;
	(void)sqlite3_wal_checkpoint_v2(ix->maintenance, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
}
