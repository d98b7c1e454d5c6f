/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Connections, statements, transactions.
 *
 * There are three connections: the writer, behind one lock; a reader, behind
 * another, which sees what was committed last and is never held up by a writer's
 * commit or sync; and one for maintenance.  The database is this process's alone
 * (log_vfs.c).  Ordinary commits are synchronous=NORMAL:
 * they go to the write-ahead log and reach the disk with the next sync, in order.
 */
#include "index/db.h"

#include "base/log.h"
#include "index/index.h"
#include "index/rows.h"
#include "index/usage.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int
db_errno(struct db *db, const char *sql)
{
	int code = sqlite3_extended_errcode(db->handle);

	switch (code & 0xff) {
	case SQLITE_OK:
	case SQLITE_ROW:
	case SQLITE_DONE:
		return 0;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_CONSTRAINT:
		return -EEXIST;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_IOERR:
		if (sqlite3_system_errno(db->handle) == ENOSPC)
			return -ENOSPC;
		break;
	default:
		break;
	}
	log_err("index: %s (%d) in: %.120s", sqlite3_errmsg(db->handle), code, sql);
	return -EIO;
}

int
db_connect(const char *path, sqlite3 **ret_handle, struct error *err)
{
	int r = 0;

	if (sqlite3_open_v2(path, ret_handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
	    SQLITE_OPEN_NOMUTEX, LOG_VFS) != SQLITE_OK)
		r = error_set(err, sqlite3_errcode(*ret_handle) == SQLITE_CANTOPEN ? -EACCES : -EIO,
		    "index %s can't be opened: %s", path, sqlite3_errmsg(*ret_handle));
	(void)sqlite3_busy_timeout(*ret_handle, 10000);
	return r;
}

int
db_open(struct db *db, struct index *owner, const char *path, struct error *err)
{
	int r = db_connect(path, &db->handle, err);

	db->owner = owner;
	lock_init(&db->lock, RANK_INDEX);
	(void)sqlite3_extended_result_codes(db->handle, 1);
	return r;
}

void
db_close(struct db *db)
{
	size_t i;

	if (db->handle == NULL)
		return;
	for (i = 0; i < DB_STATEMENTS; i++)
		(void)sqlite3_finalize(db->cache[i].stmt);
	(void)sqlite3_close_v2(db->handle);
	db->handle = NULL;
	lock_release(&db->lock);
}

static int
db_prepare(struct db *db, const char *sql, sqlite3_stmt **ret_q)
{
	size_t at = ((uintptr_t)sql >> 3) % DB_STATEMENTS, i;

	for (i = 0; i < DB_STATEMENTS; i++, at = (at + 1) % DB_STATEMENTS) {
		if (db->cache[at].sql == sql) {
			*ret_q = db->cache[at].stmt;
			return 0;
		}
		if (db->cache[at].sql == NULL)
			break;
	}
	if (i == DB_STATEMENTS)
		return -ENOMEM;
	if (sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT,
	    &db->cache[at].stmt, NULL) != SQLITE_OK)
		return db_errno(db, sql);
	db->cache[at].sql = sql;
	*ret_q = db->cache[at].stmt;
	return 0;
}

static int
db_bind(struct db *db, sqlite3_stmt **ret_q, const char *sql, const char *fmt, va_list ap)
{
	sqlite3_stmt *q = NULL;
	int i, r = db_prepare(db, sql, &q);

	if (r < 0)
		return r;
	for (i = 1; *fmt != '\0'; fmt++, i++) {
		const void *blob;

		switch (*fmt) {
		case 'i':
			(void)sqlite3_bind_int64(q, i, va_arg(ap, int64_t));
			break;
		case 's':
			(void)sqlite3_bind_text(q, i, va_arg(ap, const char *), -1, SQLITE_STATIC);
			break;
		default:
			blob = va_arg(ap, const void *);
			(void)sqlite3_bind_blob(q, i, blob, va_arg(ap, int), SQLITE_STATIC);
			break;
		}
	}
	atomic_fetch_add_explicit(&db->owner->statements, 1, memory_order_relaxed);
	*ret_q = q;
	return 0;
}

int
db_step(struct db *db, sqlite3_stmt *q)
{
	int rc = sqlite3_step(q), r;

	if (rc == SQLITE_ROW)
		return 1;
	r = rc == SQLITE_DONE ? 0 : db_errno(db, sqlite3_sql(q));
	/* The rows that it had changed before it failed are as they were. */
	if (r < 0 && db == &db->owner->writer)
		rows_undone(db->owner);
	db_done(q);
	return r;
}

void
db_done(sqlite3_stmt *q)
{
	(void)sqlite3_reset(q);
	(void)sqlite3_clear_bindings(q);
}

int
db_query(struct db *db, sqlite3_stmt **ret_q, const char *sql, const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = db_bind(db, ret_q, sql, fmt, ap);
	va_end(ap);
	return r;
}

/* How many rows changed. */
static int
change(struct db *db, const char *sql, const char *fmt, va_list ap)
{
	sqlite3_stmt *q = NULL;
	int r = db_bind(db, &q, sql, fmt, ap);

	if (r == 0)
		r = db_step(db, q);
	if (r < 0)
		return r;
	if (r > 0)
		db_done(q);
	return sqlite3_changes(db->handle);
}

int
db_change(struct db *db, const char *sql, const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = change(db, sql, fmt, ap);
	va_end(ap);
	return r;
}

int
db_run(struct db *db, const char *sql, const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = change(db, sql, fmt, ap);
	va_end(ap);
	return r < 0 ? r : 0;
}

int
db_once(struct index *ix, const char *sql, const char *fmt, ...)
{
	va_list ap;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	va_start(ap, fmt);
	r = change(&ix->writer, sql, fmt, ap);
	va_end(ap);
	return db_end(ix, r < 0 ? r : 0);
}

static int
db_bind_row(struct db *db, sqlite3_stmt **ret_q, const char *sql, const char *fmt, va_list ap)
{
	int r = db_bind(db, ret_q, sql, fmt, ap);

	if (r == 0)
		r = db_step(db, *ret_q);
	return r < 0 ? r : r == 0 ? -ENOENT : 0;
}

int
db_row(struct db *db, sqlite3_stmt **ret_q, const char *sql, const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = db_bind_row(db, ret_q, sql, fmt, ap);
	va_end(ap);
	return r;
}

int
db_rows(struct db *db, sqlite3_stmt *q, size_t max,
    void (*read)(sqlite3_stmt *q, void *rows, size_t n), void *rows)
{
	size_t n = 0;
	int r = 0;

	while (n < max && (r = db_step(db, q)) == 1)
		read(q, rows, n++);
	if (r == 1)
		db_done(q);
	return r < 0 ? r : (int)n;
}

int
db_int(struct db *db, int64_t *ret_value, const char *sql, const char *fmt, ...)
{
	sqlite3_stmt *q = NULL;
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = db_bind_row(db, &q, sql, fmt, ap);
	va_end(ap);
	if (r < 0)
		return r;
	*ret_value = sqlite3_column_int64(q, 0);
	db_done(q);
	return 0;
}

struct db *
db_read(struct index *ix)
{
	if (lock_try(&ix->writer.lock)) {
		/* What a group has not committed yet is nobody's to see. */
		if (ix->group_size == 0)
			return &ix->writer;
		lock_drop(&ix->writer.lock);
	}
	lock_take(&ix->reader.lock);
	return &ix->reader;
}

void
db_read_done(struct db *db)
{
	lock_drop(&db->lock);
}

/* ---- transactions ---- */

/*
 * Group commit.  Writing a commit to the log costs more than most transactions, so those that
 * wait for the lock join the one that is open: each is a savepoint in it, undone alone when it
 * fails, and the last one commits for all.  Nobody returns before that commit, so to callers
 * each is a transaction of its own; where nobody waits, it is one.
 */
enum { GROUP_MAX = 64 };

struct group_member {
	struct group_member *next;
	sem_t committed;
	int result;
};

int
db_begin(struct index *ix)
{
	int r;

	atomic_fetch_add(&ix->waiting, 1);
	lock_take(&ix->writer.lock);
	atomic_fetch_sub(&ix->waiting, 1);
	usage_refresh(ix);
	if (ix->group_size > 0) {
		r = db_run(&ix->writer, "SAVEPOINT member", "");
		return r < 0 ? db_end(ix, r) : 0;
	}
	/* The log stays within its reserve, so that the next commits find room on a full disk. */
	if (ix->wal_limit > 0 && ix->wal_frames > ix->wal_limit)
		(void)sqlite3_wal_checkpoint_v2(ix->writer.handle, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	r = db_run(&ix->writer, "BEGIN IMMEDIATE", "");
	if (r < 0)
		lock_drop(&ix->writer.lock);
	return r;
}

int
db_begin_growing(struct index *ix)
{
	int r = db_begin(ix);

	return r < 0 || index_has_room(ix) ? r : db_end(ix, -ENOSPC);
}

/* Undo what this member did.  -errno: the whole transaction is given up. */
static int
group_undo(struct index *ix, int r)
{
	struct db *db = &ix->writer;

	rows_undone(ix);
	if (ix->group_size > 0 && db_run(db, "ROLLBACK TO member", "") == 0 &&
	    db_run(db, "RELEASE member", "") == 0)
		return 0;
	return r;
}

/* End the transaction that is open, for all its members; r < 0: it is lost already. */
static int
group_commit(struct index *ix, int r)
{
	struct group_member *m = ix->group;
	struct db *db = &ix->writer;

	if (r == 0)
		r = db_run(db, "COMMIT", "");
	if (r < 0 && !sqlite3_get_autocommit(db->handle))
		(void)db_run(db, "ROLLBACK", "");
	if (r == 0) {
		atomic_fetch_add(&ix->changes, ix->group_size);
		atomic_fetch_add_explicit(&ix->commits, 1, memory_order_relaxed);
	} else {
		usage_forget(ix);
	}
	rows_settled(ix, r == 0);
	ix->group = NULL;
	ix->group_size = 0;
	while (m != NULL) {
		struct group_member *next = m->next;	/* m is gone once it is told */

		m->result = r;
		(void)sem_post(&m->committed);
		m = next;
	}
	return r;
}

int
db_end(struct index *ix, int r)
{
	struct group_member me;
	int lost = 0;

	usage_ended(ix, r < 0);
	if (r < 0)
		lost = group_undo(ix, r);
	else if (ix->group_size > 0)
		lost = db_run(&ix->writer, "RELEASE member", "");
	if (r >= 0)
		ix->group_size++;
	/* One that failed alone has lost it all: where nothing is lost, something is to commit. */
	if (lost < 0 || atomic_load(&ix->waiting) == 0 || ix->group_size >= GROUP_MAX) {
		lost = group_commit(ix, lost);
		lock_drop(&ix->writer.lock);
		return lost < 0 ? lost : r;
	}
	/* Somebody waits for the lock, and will end it for us.  One that failed waits too: it may
	 * have failed over what another member did (-EEXIST), which nobody can see yet. */
	me.next = ix->group;
	(void)sem_init(&me.committed, 0, 0);
	ix->group = &me;
	lock_drop(&ix->writer.lock);
	while (sem_wait(&me.committed) < 0)
		;
	(void)sem_destroy(&me.committed);
	return me.result < 0 ? me.result : r;
}

/* ---- durability ---- */

/*
 * A commit has written its frames to the write-ahead log before it returns, and a log that
 * begins anew was synced into the database before (SQLite's file format, 4.4 and 4.5).  So
 * syncing the log's file makes every commit so far durable, just as a FULL commit would,
 * and nobody who commits meanwhile has to wait for the disk.
 */
static int
sync_log(struct index *ix)
{
	uint64_t seen = atomic_load(&ix->changes);

	atomic_fetch_add_explicit(&ix->syncs, 1, memory_order_relaxed);
	/* After a failed sync the kernel forgets what it could not write: never trust the next. */
	if (!atomic_load(&ix->broken) && fdatasync(ix->wal_fd) < 0) {
		log_err("index: the write-ahead log in %s can't be synced: %s; nothing is durable until "
		    "tbfs is mounted again", ix->dir, strerror(errno));
		atomic_store(&ix->broken, true);
	}
	if (atomic_load(&ix->broken))
		return -EIO;
	if (atomic_load(&ix->synced) < seen)
		atomic_store(&ix->synced, seen);
	return 0;
}

int
index_sync(struct index *ix)
{
	uint64_t want;
	int r;

	lock_take(&ix->sync_lock);
	/* A round that has begun may have missed our commit: wait for the one after it. */
	want = ix->sync_done + (ix->syncing ? 2 : 1);
	while (ix->sync_done < want && ix->syncing)
		(void)lock_wait(&ix->sync_lock, &ix->sync_cond, 0);
	if (ix->sync_done >= want) {
		r = ix->sync_result;
		lock_drop(&ix->sync_lock);
		return r;
	}
	ix->syncing = true;
	lock_drop(&ix->sync_lock);
	r = sync_log(ix);
	lock_take(&ix->sync_lock);
	ix->syncing = false;
	ix->sync_done++;
	ix->sync_result = r;
	(void)pthread_cond_broadcast(&ix->sync_cond);
	lock_drop(&ix->sync_lock);
	return r;
}

uint64_t
index_changes(struct index *ix)
{
	return atomic_load(&ix->changes);
}

bool
index_synced(struct index *ix, uint64_t change)
{
	return atomic_load(&ix->synced) >= change;
}

void
index_counts(struct index *ix, struct index_counts *ret_counts)
{
	ret_counts->statements = atomic_load(&ix->statements);
	ret_counts->commits = atomic_load(&ix->commits);
	ret_counts->syncs = atomic_load(&ix->syncs);
}
