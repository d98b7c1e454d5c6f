/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The end of an inode, and its return.  An inode whose last name went keeps its row (nlink 0)
 * while somebody holds it; reaping turns its objects and staged bytes into work and deletes the
 * row.  What is found without a row is put back by its place.
 */
#include "index/tree.h"
#include "index/usage.h"

#include "base/clock.h"

#include <errno.h>
#include <sys/stat.h>

#define DERIVED_GO_NS (2 * NSEC_PER_SEC)

static void
ino_read(sqlite3_stmt *q, void *rows, size_t n)
{
	((uint64_t *)rows)[n] = (uint64_t)sqlite3_column_int64(q, 0);
}

static int
orphans(struct index *ix, const char *sql, int64_t ctime, uint64_t after, uint64_t *ret_inos,
    size_t max)
{
	struct db *db = &ix->reader;
	sqlite3_stmt *q;
	int r;

	lock_take(&db->lock);
	r = db_query(db, &q, sql, "ii", ctime, (int64_t)after);
	if (r == 0)
		r = db_rows(db, q, max, ino_read, ret_inos);
	lock_drop(&db->lock);
	return r;
}

int
index_orphans(struct index *ix, int64_t before, uint64_t after, uint64_t *ret_inos, size_t max)
{
	return orphans(ix, "SELECT ino FROM inode WHERE nlink=0 AND ctime<? AND ino>? ORDER BY ino", before,
	    after, ret_inos, max);
}

int
index_orphans_at(struct index *ix, int64_t ctime, uint64_t *ret_inos, size_t max)
{
	return orphans(ix, "SELECT ino FROM inode WHERE nlink=0 AND ctime=? AND ino>?", ctime, 0, ret_inos,
	    max);
}

static int
reap_objects(struct db *db, uint64_t ino, int64_t now)
{
	int r;

	r = db_run(db, "INSERT INTO work(kind,id,since,due,attempts,stuck,error)"
	    " SELECT 3, id, ?, ?, 0, 0, '' FROM object WHERE ino=?"
	    " ON CONFLICT(kind,id) DO UPDATE SET due=excluded.due, stuck=0", "iii", now, now,
	    (int64_t)ino);
	if (r == 0)
		r = db_run(db, "UPDATE object SET status=3 WHERE ino=?", "i", (int64_t)ino);
	return r;
}

/* 1: something was derived from it. */
static int
reap_one(struct db *db, uint64_t ino, int64_t now)
{
	int64_t id = (int64_t)ino;
	struct inode inode;
	int r = inode_load(db, ino, &inode), derived;

	if (r == 0 && inode.nlink != 0)
		r = -EBUSY;
	if (r == 0)
		r = reap_objects(db, ino, now);
	if (r == 0 && (inode.flags & INODE_XATTRS) != 0)
		r = db_run(db, "DELETE FROM xattr WHERE ino=?", "i", id);
	if (r == 0 && S_ISLNK(inode.mode))
		r = db_run(db, "DELETE FROM symlink WHERE ino=?", "i", id);
	if (r == 0 && S_ISDIR(inode.mode)) {
		usage_dir_gone(db, ino);
		r = db_run(db, "DELETE FROM quota WHERE dir=?", "i", id);
	}
	if (r == 0)
		r = db_run(db, "DELETE FROM work WHERE id=? AND kind IN (1,2,4,6,7)", "i", id);
	/* What was derived from it goes by the processor's hand, when `rm -r` has had its turn. */
	if (r == 0)
		r = db_change(db, "INSERT INTO work(kind,id,since,due,attempts,stuck,error)"
		    " SELECT 6, ino, ?, ?, 0, 0, '' FROM derivation WHERE ino=?", "iii", now,
		    now + DERIVED_GO_NS, id);
	derived = r;
	if (r >= 0)
		r = db_run(db, "DELETE FROM inode WHERE ino=?", "i", id);
	if (r == 0 && (S_ISREG(inode.mode) || S_ISDIR(inode.mode)))
		r = work_add(db, WORK_FREE, ino, now);
	return r < 0 ? r : derived;
}

int
index_reap(struct index *ix, uint64_t ino)
{
	int r = db_begin(ix);

	return r < 0 ? r : db_end(ix, reap_one(&ix->writer, ino, clock_wall_ns()));
}

int
index_reap_many(struct index *ix, const uint64_t *inos, size_t n, bool *ret_derived)
{
	int64_t now = clock_wall_ns();
	int r = db_begin(ix), one = 0;
	size_t i;

	if (r < 0)
		return r;
	for (i = 0; i < n && one >= 0; i++) {
		one = reap_one(&ix->writer, inos[i], now);
		ret_derived[i] = one > 0;
		/* Linked again, or reaped by somebody else. */
		if (one == -EBUSY || one == -ENOENT)
			one = 0;
	}
	return db_end(ix, one < 0 ? one : 0);
}

void
index_ino_above(struct index *ix, uint64_t ino)
{
	if (atomic_load(&ix->sequence) <= ino)
		atomic_store(&ix->sequence, ino + 1);
}

int
index_restore(struct index *ix, const struct inode *inode, uint64_t parent, const char *name)
{
	struct db *db = &ix->writer;
	struct inode dir;
	uint64_t id;
	int r = sequence_next(ix, &id);

	if (r == 0)
		r = db_begin(ix);
	if (r < 0)
		return r;
	r = parent_check(db, parent, &dir);
	if (r == 0)
		r = dentry_insert(db, parent, name, id, inode->ino);
	if (r == 0)
		r = inode_insert(db, inode);
	if (r == 0)
		r = parent_touch(db, parent, S_ISDIR(inode->mode) ? 1 : 0, inode->ctime, true);
	return db_end(ix, r);
}
