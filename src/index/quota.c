/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Limits on what is at and below a directory.  They are rows of the database; whether something
 * fits is asked of the counts in memory (usage.c), under one lock with the change it allows, so
 * that no two writers share the last byte.
 *
 * A row's size is that of the last flush.  While somebody writes through the daemon, the file has
 * a meter: a size that is charged before the bytes go to the staged file, and that counts instead.
 */
#include "index/usage.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

int
index_usage(struct index *ix, uint64_t dir, struct usage *ret_usage)
{
	struct usage_tree *t = usage_lock(ix);
	const struct usage_dir *d;

	if (t == NULL)
		return -EIO;
	d = usage_find(t, dir);
	/* Nothing that counts is in a directory of derived files. */
	*ret_usage = d != NULL ? d->total : (struct usage){ 0 };
	usage_unlock(t);
	return 0;
}

/* ---- limits ---- */

bool
index_has_quotas(const struct index *ix)
{
	return usage_limits(ix) > 0;
}

int
index_quota_set(struct index *ix, uint64_t dir, const struct usage *limit)
{
	bool none = limit->bytes == 0 && limit->files == 0;
	struct db *db = &ix->writer;
	struct usage_tree *t;
	struct inode inode;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = inode_load(db, dir, &inode);
	if (r == 0 && !S_ISDIR(inode.mode))
		r = -ENOTDIR;
	if (r == 0 && inode.nlink == 0)
		r = -ENOENT;
	if (r == 0 && (inode.flags & INODE_DERIVED) != 0)
		r = -EINVAL;
	if (r == 0)
		r = none ? db_run(db, "DELETE FROM quota WHERE dir=?", "i", (int64_t)dir) :
		    db_run(db, "INSERT INTO quota VALUES(?,?,?) ON CONFLICT(dir)"
		    " DO UPDATE SET bytes=excluded.bytes, files=excluded.files", "iii", (int64_t)dir,
		    limit->bytes, limit->files);
	r = db_end(ix, r);
	if (r < 0)
		return r;
	t = usage_lock(ix);
	if (t != NULL) {
		struct usage_dir *d = usage_find(t, dir);

		if (d != NULL)
			usage_limit(t, d, *limit);
		usage_unlock(t);
	}
	return index_sync(ix);
}

struct quotas {
	struct quota *list;
	size_t n, room;
};

static void
collect(void *arg, struct usage_dir *d)
{
	struct quotas *q = arg;

	if ((d->limit.bytes > 0 || d->limit.files > 0) && q->n < q->room)
		q->list[q->n++] = (struct quota){ .dir = d->ino, .limit = d->limit, .used = d->total };
}

int
index_quota_each(struct index *ix, int (*fn)(void *arg, const struct quota *q), void *arg)
{
	struct usage_tree *t = usage_lock(ix);
	struct quotas q = { 0 };
	size_t i;
	int r = 0;

	if (t == NULL)
		return -EIO;
	q.room = usage_limits(ix);
	q.list = calloc(q.room + 1, sizeof(*q.list));
	if (q.list != NULL)
		usage_each(t, collect, &q);
	usage_unlock(t);
	if (q.list == NULL)
		return -ENOMEM;
	for (i = 0; i < q.n && r == 0; i++)
		r = fn(arg, &q.list[i]);
	free(q.list);
	return r;
}

static void
tighten(int64_t used, int64_t limit, int64_t *used_io, int64_t *limit_io)
{
	if (limit > 0 && (*limit_io == 0 || limit - used < *limit_io - *used_io)) {
		*limit_io = limit;
		*used_io = used;
	}
}

static uint64_t
directory_of(struct index *ix, uint64_t ino)
{
	char name[INDEX_NAME_MAX + 1];
	struct inode inode;
	uint64_t parent = 0;

	if (index_get(ix, ino, &inode) < 0)
		return 0;
	if (S_ISDIR(inode.mode))
		return ino;
	return index_place(ix, ino, &parent, name) < 0 ? 0 : parent;
}

int
index_quota_room(struct index *ix, uint64_t ino, struct quota *ret_room)
{
	struct quota room = { 0 };
	const struct usage_dir *d;
	struct usage_tree *t;

	if (usage_limits(ix) == 0)
		return -ENOENT;
	room.dir = directory_of(ix, ino);
	t = usage_lock(ix);
	if (t == NULL)
		return -EIO;
	for (d = usage_find(t, room.dir); d != NULL; d = d->parent) {
		tighten(d->total.bytes, d->limit.bytes, &room.used.bytes, &room.limit.bytes);
		tighten(d->total.files, d->limit.files, &room.used.files, &room.limit.files);
	}
	usage_unlock(t);
	if (room.limit.bytes == 0 && room.limit.files == 0)
		return -ENOENT;
	*ret_room = room;
	return 0;
}

/* ---- meters ---- */

static bool
is_limited(const struct usage_dir *d)
{
	while (d != NULL && d->limit.bytes == 0)
		d = d->parent;
	return d != NULL;
}

/* The row and its place can't change while the writer is locked. */
int
index_meter_begin(struct index *ix, uint64_t ino)
{
	struct db *db = &ix->writer;
	struct usage_meter *m;
	struct usage_tree *t;
	struct inode inode;
	uint64_t dir;
	int r;

	if (usage_limits(ix) == 0)
		return 0;
	lock_take(&db->lock);
	usage_refresh(ix);
	t = ix->usage;
	r = inode_load(db, ino, &inode);
	if (r == 0 && (inode.flags & INODE_DERIVED) == 0) {
		dir = usage_place(db, &inode, 0);
		usage_lock_tree(t);
		m = usage_meter(t, ino);
		if (m == NULL && is_limited(usage_find(t, dir))) {
			m = usage_meter_new(t, ino);
			r = m == NULL ? -ENOMEM : 0;
			if (m != NULL) {
				m->dir = dir;
				m->size = (int64_t)inode.size;
			}
		}
		if (m != NULL) {
			m->users++;
			r = 1;
		}
		usage_unlock(t);
	}
	lock_drop(&db->lock);
	return r;
}

/* Set what counts for a meter. */
static void
set_size(struct usage_tree *t, struct usage_meter *m, int64_t size)
{
	usage_add(usage_find(t, m->dir), (struct usage){ .bytes = size - m->size });
	m->size = size;
}

void
index_meter_end(struct index *ix, uint64_t ino)
{
	struct db *db = &ix->writer;
	struct usage_tree *t = ix->usage;
	struct usage_meter *m;
	struct inode inode;

	lock_take(&db->lock);
	if (inode_load(db, ino, &inode) < 0)
		inode.size = 0;
	usage_lock_tree(t);
	m = usage_meter(t, ino);
	if (m != NULL && --m->users == 0) {
		/* From here on the row's size counts. */
		set_size(t, m, (int64_t)inode.size);
		usage_meter_free(t, m);
	}
	usage_unlock(t);
	lock_drop(&db->lock);
}

int
index_meter_grow(struct index *ix, uint64_t ino, uint64_t size)
{
	struct usage_tree *t = usage_lock(ix);
	struct usage_meter *m = t == NULL ? NULL : usage_meter(t, ino);
	int r = 0;

	if (m != NULL && m->size < (int64_t)size) {
		if (usage_is_over(usage_find(t, m->dir), (struct usage){ .bytes = (int64_t)size - m->size }))
			r = -EDQUOT;
		else
			set_size(t, m, (int64_t)size);
	}
	if (t != NULL)
		usage_unlock(t);
	return r;
}

void
index_meter_cut(struct index *ix, uint64_t ino, uint64_t size)
{
	struct usage_tree *t = usage_lock(ix);
	struct usage_meter *m = t == NULL ? NULL : usage_meter(t, ino);

	if (m != NULL)
		set_size(t, m, (int64_t)size);
	if (t != NULL)
		usage_unlock(t);
}
