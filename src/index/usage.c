/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What is below each directory, kept in memory (usage_tree.c) in step with the database.  It says
 * nothing that this doesn't: it is counted from there at the start, and again when it lost track
 * (a commit that failed, no memory).
 *
 *   1. A file counts once, where the oldest of its names stands (index_place()).
 *   2. What is derived does not count, and neither do directories: a quota is about what users
 *      put there, and must not depend on when the processor gets round to it.
 *   3. The tree changes with the writer's lock held, in the order of the transactions, and one
 *      that fails after it told of a change has it counted anew; but for a meter's size, which is
 *      charged when bytes are about to be written.
 */
#include "index/usage_tree.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- counting ---- */

static bool
counts(const struct inode *inode)
{
	return !S_ISDIR(inode->mode) && (inode->flags & INODE_DERIVED) == 0;
}

static struct usage
own(const struct usage_tree *t, const struct inode *inode)
{
	const struct usage_meter *m = usage_meter(t, inode->ino);

	if (!counts(inode))
		return (struct usage){ 0 };
	return (struct usage){ .files = 1,
		.bytes = !S_ISREG(inode->mode) ? 0 : m != NULL ? m->size : (int64_t)inode->size };
}

static int
count_dirs(struct usage_tree *t, struct db *db)
{
	sqlite3_stmt *q;
	int r = usage_dir_get(t, INDEX_ROOT) == NULL ? -ENOMEM : 0;

	if (r == 0)
		r = db_query(db, &q, "SELECT d.ino, d.parent FROM inode i JOIN dentry d ON d.ino=i.ino"
		    " WHERE (i.mode & 61440)=16384", "");
	while (r == 0 && (r = db_step(db, q)) == 1) {
		struct usage_dir *d = usage_dir_get(t, (uint64_t)sqlite3_column_int64(q, 0));
		struct usage_dir *parent = usage_dir_get(t, (uint64_t)sqlite3_column_int64(q, 1));

		r = d == NULL || parent == NULL ? -ENOMEM : 0;
		if (r == 0)
			d->parent = parent;
		else
			db_done(q);
	}
	return r;
}

static bool
is_oldest_name(struct db *db, uint64_t ino, int64_t id)
{
	int64_t oldest = id;

	(void)db_int(db, &oldest, "SELECT min(id) FROM dentry WHERE ino=?", "i", (int64_t)ino);
	return oldest == id;
}

/* Each name of a file that counts, from a query of its parent, its id and its inode. */
static int
count_names(struct usage_tree *t, struct db *db, sqlite3_stmt *q, int r)
{
	while (r == 0 && (r = db_step(db, q)) == 1) {
		struct usage_dir *d = usage_find(t, (uint64_t)sqlite3_column_int64(q, 0));
		struct usage_meter *m;
		struct inode inode;

		inode_read(q, 2, &inode);
		r = 0;
		if (inode.nlink > 1 && !is_oldest_name(db, inode.ino, sqlite3_column_int64(q, 1)))
			continue;
		usage_add(d, own(t, &inode));
		m = usage_meter(t, inode.ino);
		if (m != NULL)
			m->dir = (uint64_t)sqlite3_column_int64(q, 0);
	}
	return r;
}

static int
count_files(struct usage_tree *t, struct db *db)
{
	sqlite3_stmt *q;
	int r = db_query(db, &q, "SELECT d.parent, d.id," INODE_COLUMNS " FROM dentry d"
	    " JOIN inode i ON i.ino=d.ino WHERE (i.mode & 61440)<>16384 AND (i.flags & 1)=0", "");

	return count_names(t, db, q, r);
}

static int
count_limits(struct usage_tree *t, struct db *db)
{
	sqlite3_stmt *q;
	int r = db_query(db, &q, "SELECT dir, bytes, files FROM quota", "");

	while (r == 0 && (r = db_step(db, q)) == 1) {
		struct usage_dir *d = usage_find(t, (uint64_t)sqlite3_column_int64(q, 0));
		struct usage limit = { sqlite3_column_int64(q, 1), sqlite3_column_int64(q, 2) };

		r = 0;
		if (d != NULL)
			usage_limit(t, d, limit);
	}
	return r;
}

static int
count(struct index *ix)
{
	struct usage_tree *t = ix->usage;
	struct db *db = &ix->writer;
	size_t i;
	int r;

	lock_take(&t->lock);
	usage_clear(t);
	for (i = 0; i < METER_SLOTS; i++) {
		struct usage_meter *m;

		for (m = t->meters[i]; m != NULL; m = m->next)
			m->dir = 0;
	}
	r = count_dirs(t, db);
	if (r == 0)
		r = count_files(t, db);
	if (r == 0)
		r = count_limits(t, db);
	atomic_store(&t->lost, r < 0);
	lock_drop(&t->lock);
	return r;
}

void
usage_refresh(struct index *ix)
{
	int r;

	if (ix->usage == NULL || !atomic_load(&ix->usage->lost))
		return;
	r = count(ix);
	if (r < 0)
		log_err("index: what is below the directories can't be counted (%s): quotas do not hold",
		    strerror(-r));
}

void
usage_forget(struct index *ix)
{
	if (ix->usage != NULL)
		atomic_store(&ix->usage->lost, true);
}

int
usage_start(struct index *ix)
{
	int r;

	ix->usage = calloc(1, sizeof(*ix->usage));
	if (ix->usage == NULL)
		return -ENOMEM;
	lock_init(&ix->usage->lock, RANK_USAGE);
	lock_take(&ix->writer.lock);
	r = count(ix);
	lock_drop(&ix->writer.lock);
	return r;
}

void
usage_stop(struct index *ix)
{
	size_t i;

	if (ix->usage == NULL)
		return;
	usage_clear(ix->usage);
	for (i = 0; i < METER_SLOTS; i++)
		while (ix->usage->meters[i] != NULL)
			usage_meter_free(ix->usage, ix->usage->meters[i]);
	lock_release(&ix->usage->lock);
	free(ix->usage);
	ix->usage = NULL;
}

struct usage_tree *
usage_lock(struct index *ix)
{
	struct usage_tree *t = ix->usage;

	if (t == NULL)
		return NULL;
	if (atomic_load(&t->lost)) {
		lock_take(&ix->writer.lock);
		usage_refresh(ix);
		lock_drop(&ix->writer.lock);
	}
	lock_take(&t->lock);
	return t;
}

void
usage_lock_tree(struct usage_tree *t)
{
	lock_take(&t->lock);
}

void
usage_unlock(struct usage_tree *t)
{
	lock_drop(&t->lock);
}

/* ---- in a transaction ---- */

void
usage_ended(struct index *ix, bool failed)
{
	struct usage_tree *t = ix->usage;

	if (t == NULL || !t->touched)
		return;
	t->touched = false;
	if (failed)
		atomic_store(&t->lost, true);
}

static void
touch(struct usage_tree *t)
{
	lock_take(&t->lock);
	t->touched = true;
}

uint64_t
usage_place(struct db *db, const struct inode *inode, uint64_t named)
{
	int64_t dir = 0;

	if (named != 0 && (inode->nlink == 1 || S_ISDIR(inode->mode)))
		return named;
	if (inode->nlink > 0)
		(void)db_int(db, &dir, "SELECT parent FROM dentry WHERE ino=? ORDER BY id LIMIT 1", "i",
		    (int64_t)inode->ino);
	return (uint64_t)dir;
}

void
usage_moved(struct db *db, const struct inode *inode, uint64_t from, uint64_t to)
{
	struct usage_tree *t = db->owner->usage;
	struct usage_meter *m;
	struct usage u;

	if (t == NULL || from == to || !counts(inode))
		return;
	touch(t);
	u = own(t, inode);
	usage_add(usage_find(t, to), u);
	usage_add(usage_find(t, from), (struct usage){ -u.bytes, -u.files });
	m = usage_meter(t, inode->ino);
	if (m != NULL)
		m->dir = to;
	lock_drop(&t->lock);
}

void
usage_resized(struct db *db, const struct inode *inode, uint64_t size)
{
	struct usage_tree *t = db->owner->usage;
	struct usage more = { 0 };
	struct usage_meter *m;
	uint64_t dir = 0;

	if (t == NULL || !counts(inode) || inode->nlink == 0)
		return;
	touch(t);
	m = usage_meter(t, inode->ino);
	/* What is charged already stays so while it is metered: bytes may be under way. */
	if (m != NULL && m->size < (int64_t)size) {
		more.bytes = (int64_t)size - m->size;
		m->size = (int64_t)size;
		dir = m->dir;
	} else if (m == NULL) {
		more.bytes = (int64_t)size - (int64_t)inode->size;
	}
	if (more.bytes != 0 && dir == 0)
		dir = usage_place(db, inode, 0);
	if (more.bytes != 0)
		usage_add(usage_find(t, dir), more);
	lock_drop(&t->lock);
}

void
usage_dir_moved(struct db *db, uint64_t dir, uint64_t parent)
{
	struct usage_tree *t = db->owner->usage;
	struct usage_dir *d, *to;

	if (t == NULL)
		return;
	touch(t);
	to = usage_find(t, parent);
	d = usage_dir_get(t, dir);
	if (d == NULL || (to == NULL && parent != 0)) {
		atomic_store(&t->lost, true);
	} else if (d->parent != to) {
		usage_add(d->parent, (struct usage){ -d->total.bytes, -d->total.files });
		usage_add(to, d->total);
		d->parent = to;
	}
	lock_drop(&t->lock);
}

void
usage_dir_gone(struct db *db, uint64_t dir)
{
	struct usage_tree *t = db->owner->usage;
	struct usage_dir *d;

	if (t == NULL)
		return;
	touch(t);
	d = usage_find(t, dir);
	if (d != NULL) {
		usage_limit(t, d, (struct usage){ 0 });
		usage_dir_drop(t, d);
	}
	lock_drop(&t->lock);
}

/* What is counted below `top` and its directories goes, and is counted again. */
static int
recount(struct usage_tree *t, struct db *db, uint64_t top)
{
	struct usage_dir *d = usage_find(t, top);
	sqlite3_stmt *q;
	int r;

	if (d == NULL)
		return -ENOENT;
	usage_add(d->parent, (struct usage){ -d->total.bytes, -d->total.files });
	r = db_query(db, &q, TREE_BELOW "SELECT t.ino FROM tree t JOIN inode i ON i.ino=t.ino"
	    " WHERE (i.mode & 61440)=16384", "i", (int64_t)top);
	while (r == 0 && (r = db_step(db, q)) == 1) {
		d = usage_find(t, (uint64_t)sqlite3_column_int64(q, 0));
		if (d != NULL)
			d->total = (struct usage){ 0 };
		r = 0;
	}
	if (r == 0)
		r = db_query(db, &q, TREE_BELOW "SELECT d.parent, d.id," INODE_COLUMNS " FROM tree t"
		    " JOIN dentry d ON d.parent=t.ino JOIN inode i ON i.ino=d.ino"
		    " WHERE (i.mode & 61440)<>16384 AND (i.flags & 1)=0", "i", (int64_t)top);
	return count_names(t, db, q, r);
}

void
usage_flipped(struct db *db, uint64_t dir)
{
	struct usage_tree *t = db->owner->usage;

	if (t == NULL)
		return;
	touch(t);
	if (recount(t, db, dir) < 0)
		atomic_store(&t->lost, true);
	lock_drop(&t->lock);
}

struct usage
usage_if_counted(struct db *db, uint64_t dir)
{
	struct usage u = { 0 };
	sqlite3_stmt *q;

	/* An inode that counts elsewhere, by an older name, is among them: refused too early, if at all. */
	if (db_row(db, &q, TREE_BELOW "SELECT total(CASE WHEN (i.mode & 61440)=32768 THEN i.size ELSE 0 END),"
	    " count(*) FROM tree t JOIN inode i ON i.ino=t.ino WHERE (i.mode & 61440)<>16384", "i",
	    (int64_t)dir) < 0)
		return u;
	u.bytes = (int64_t)sqlite3_column_double(q, 0);
	u.files = sqlite3_column_int64(q, 1);
	db_done(q);
	return u;
}

struct usage
usage_of(struct db *db, const struct inode *inode)
{
	struct usage_tree *t = db->owner->usage;
	struct usage u = { 0 };

	if (t == NULL)
		return u;
	lock_take(&t->lock);
	if (S_ISDIR(inode->mode)) {
		const struct usage_dir *d = usage_find(t, inode->ino);

		if (d != NULL)
			u = d->total;
	} else {
		u = own(t, inode);
	}
	lock_drop(&t->lock);
	return u;
}

bool
usage_same_limits(struct db *db, uint64_t a, uint64_t b)
{
	struct usage_tree *t = db->owner->usage;
	const struct usage_dir *one, *other;
	bool same;

	if (a == b || usage_limits(db->owner) == 0)
		return true;
	lock_take(&t->lock);
	one = usage_find(t, a);
	other = usage_find(t, b);
	same = !usage_is_limited_below(one, other) && !usage_is_limited_below(other, one);
	lock_drop(&t->lock);
	return same;
}

int
usage_fits(struct db *db, uint64_t from, uint64_t to, struct usage more)
{
	struct usage_tree *t = db->owner->usage;
	bool over;

	if (usage_limits(db->owner) == 0)
		return 0;
	lock_take(&t->lock);
	over = usage_is_over_below(usage_find(t, to), usage_find(t, from), more);
	lock_drop(&t->lock);
	return over ? -EDQUOT : 0;
}
