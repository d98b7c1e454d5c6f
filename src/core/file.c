/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Open files, and the rule that keeps uploads honest:
 *
 *   1. Whatever can change bytes first calls node_raise(): the row's generation rises
 *      and its state becomes OPEN, before anything is opened, truncated or answered.
 *      A STORED row's change is synced first: after a power cut nobody takes the new
 *      bytes for the stored ones.
 *   2. A file that is OPEN stays so until it is quiet (settle.c), however often it is
 *      opened in between; so a raise happens once a change, not once an open.
 *   3. flush() commits what the staged file looks like; a flush that finds nothing new
 *      costs one stat.
 */
#include "core/node.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A write in the tick of the last one may leave all times as they were: a file whose bytes
 * are younger than this when it is opened counts as changed. */
#define RACY_NS 20000000LL

int
node_load(struct core *c, struct node *n, struct inode *ret_inode)
{
	int r = index_get(c->ix, n->ino, ret_inode);

	if (r < 0)
		return r;
	if (!n->known) {
		n->known = true;
		n->changed = ret_inode->state == OBJECT_OPEN || ret_inode->state == OBJECT_DIRTY;
		atomic_store(&n->change, index_changes(c->ix));
		atomic_store(&n->generation, ret_inode->generation);
	}
	return 0;
}

/* The object may share its blocks with the staged file: give it its own. */
static int
break_link(struct core *c, const struct inode *inode)
{
	struct object object;
	struct error err = { 0 };
	int r;

	if (inode->object == 0)
		return 0;
	r = index_object_get(c->ix, inode->object, &object);
	/* Another's by now: the row is read anew. */
	if (r < 0 || !object.linked || object.ino != inode->ino)
		return r == -ENOENT ? 0 : r;
	if (c->fetcher.unshare == NULL)
		return -EIO;
	r = c->fetcher.unshare(c->fetcher.arg, &object, &err);
	if (r < 0) {
		return r == -ENOSPC ? r : core_eio(c, inode->ino, "its object %s can't be given its own blocks: "
		    "%s", object.key, error_text(&err));
	}
	return index_object_linked(c->ix, &object, false);
}

/* Node locked.  -EAGAIN: the row's object is linked to the staged file. */
static int
raise_locked(struct core *c, struct node *n)
{
	struct inode inode, was;
	struct object object;
	struct stat st;
	int r = node_load(c, n, &inode);

	if (r < 0 || inode.state == OBJECT_OPEN)
		return r;
	/* What is stored is not given up for a file that isn't there: the next mount fetches it. */
	if (inode.state != OBJECT_REMOTE && staging_stat(c->st, n->ino, &st) == -ENOENT)
		return -ENODATA;
	if (inode.state == OBJECT_REMOTE)
		return core_eio(c, n->ino, "it is to change, but its bytes aren't here");
	if (inode.object != 0 && index_object_get(c->ix, inode.object, &object) == 0 && object.linked)
		return -EAGAIN;
	/* The staged file owns the time from here on: it must have it before the row says so. */
	if (inode.mtime != inode.staged_mtime) {
		struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, ns_to_timespec(inode.mtime) };

		(void)staging_set_times(c->st, n->ino, times);
	}
	r = index_mark_open(c->ix, n->ino, &was, &inode);
	if (r < 0)
		return r;
	/* From here on an upload of the former generation is refused its next byte. */
	atomic_store(&n->generation, inode.generation);
	n->queued = false;
	/* What the index vouches for, stored or synced, it no longer does, before a byte can change. */
	if (was.state == OBJECT_STORED || was.synced_generation == was.generation) {
		r = index_sync(c->ix);
		if (r < 0)
			return r;
	}
	n->changed = was.state != OBJECT_STORED;
	if (!n->changed && staging_stat(c->st, n->ino, &st) == 0) {
		stat_to_staged(c, &st, &n->flushed);
		n->changed = clock_wall_ns() - n->flushed.mtime < RACY_NS;
	}
	return 1;
}

int
node_raise(struct core *c, struct node *n)
{
	size_t stripe = n->ino % NODE_STRIPES;
	struct inode inode;
	int r;

	node_lock(c, n);
	/* `raising` stops an upload that might link the file to its object. */
	atomic_fetch_add(&n->raising, 1);
	for (;;) {
		while (n->linking)
			(void)lock_wait(&c->stripes[stripe], &c->linked[stripe], 0);
		r = raise_locked(c, n);
		if (r != -EAGAIN)
			break;
		/* One breaks the link: the bytes that it copies would change under another. */
		n->linking = true;
		node_unlock(c, n);
		r = index_get(c->ix, n->ino, &inode);
		if (r == 0)
			r = break_link(c, &inode);
		core_link_end(c, n);
		node_lock(c, n);
		if (r < 0)
			break;
	}
	atomic_fetch_sub(&n->raising, 1);
	return r;
}

void
node_look(struct core *c, struct node *n, const struct stat *st, struct staged_stat *ret_now)
{
	stat_to_staged(c, st, ret_now);
	if (ret_now->ctime != n->flushed.ctime || ret_now->mtime != n->flushed.mtime)
		n->changed = true;
}

static bool
same_staged(const struct staged_stat *a, const struct staged_stat *b)
{
	return a->size == b->size && a->mtime == b->mtime && a->ctime == b->ctime;
}

int
node_flush(struct core *c, struct node *n, bool force)
{
	char name[INDEX_NAME_MAX + 1];
	struct staged_stat now;
	struct quiet quiet;
	uint64_t parent;
	struct stat st;
	int r = staging_stat(c->st, n->ino, &st);

	if (r < 0)
		return r;
	node_look(c, n, &st, &now);
	if (!force && same_staged(&now, &n->flushed))
		return 0;
	quiet = quiet_for(c, index_place(c->ix, n->ino, &parent, name) == 0 ? name : NULL);
	r = index_mark_flushed(c->ix, n->ino, &now, &quiet);
	if (r < 0)
		return r;
	n->queued = true;
	atomic_store(&n->change, index_changes(c->ix));
	n->flushed = now;
	place_due(c, n->ino);
	work_queued(c, quiet.due);
	return 0;
}

/* ---- handles ---- */

static bool
wants_write(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;
}

int
handle_new(struct core *c, const struct inode *inode, int flags, int fd, struct handle **ret_handle)
{
	struct handle *h = calloc(1, sizeof(*h));
	struct node *n = h == NULL ? NULL : node_get(c, inode->ino);

	if (n == NULL) {
		free(h);
		(void)close(fd);
		return -ENOMEM;
	}
	*h = (struct handle){ .ino = inode->ino, .node = n, .fd = fd, .flags = flags,
		.writer = wants_write(flags), .kill_priv = (inode->mode & (S_ISUID | S_ISGID)) != 0 };
	node_lock(c, n);
	n->known = true;
	n->changed = true;
	atomic_store(&n->change, index_changes(c->ix));
	atomic_store(&n->generation, inode->generation);
	atomic_fetch_add(&n->opens, 1);
	if (h->writer && atomic_fetch_add(&n->writers, 1) == 0)
		atomic_store(&n->writer_since, clock_wall_ns());
	node_unlock(c, n);
	h->metered = h->writer && index_meter_begin(c->ix, h->ino) > 0;
	*ret_handle = h;
	return 0;
}

enum core_wait
core_open_waits(struct core *c, uint64_t ino, int flags)
{
	struct inode inode;

	if (index_get(c->ix, ino, &inode) < 0)
		return WAITS_FOR_NOTHING;
	if (inode.state == OBJECT_REMOTE)
		return WAITS_FOR_STORE;
	/* Leaving what is stored or synced is itself synced, and there may be a link to break. */
	return wants_write(flags) && (inode.state == OBJECT_STORED || (flags & O_DSYNC) != 0 ||
	    (inode.state == OBJECT_DIRTY && inode.synced_generation == inode.generation)) ?
	    WAITS_FOR_DISK : WAITS_FOR_NOTHING;
}

/* Node locked, raised if it had to be.  -ENODATA: its staged file is missing. */
static int
open_locked(struct core *c, struct node *n, int flags)
{
	bool writer = wants_write(flags);
	int fd = (flags & O_TRUNC) != 0 ? staging_open(c->st, n->ino, O_WRONLY | O_TRUNC) : -1;

	if (fd >= 0)
		(void)close(fd);
	if (fd >= 0 || (flags & O_TRUNC) == 0)
		fd = staging_open(c->st, n->ino, O_RDONLY);
	if (fd < 0)
		return fd == -ENOENT ? -ENODATA : fd;
	if (writer && atomic_fetch_add(&n->writers, 1) == 0)
		atomic_store(&n->writer_since, clock_wall_ns());
	n->changed = n->changed || (flags & O_TRUNC) != 0;
	n->still = n->still && !writer;
	atomic_fetch_add(&n->opens, 1);
	return fd;
}

int
core_open(struct core *c, uint64_t ino, int flags, struct handle **ret_handle)
{
	struct handle *h = calloc(1, sizeof(*h));
	struct node *n = node_get(c, ino);
	struct inode inode;
	bool still = false, raised = false;
	int r = h == NULL || n == NULL ? -ENOMEM : index_get(c->ix, ino, &inode);

	if (r == 0 && !S_ISREG(inode.mode))
		r = S_ISDIR(inode.mode) ? -EISDIR : -ENXIO;
	if (r == 0 && inode.state == OBJECT_REMOTE)
		r = node_hydrate(c, &inode);
	if (r == 0) {
		if (wants_write(flags)) {
			r = node_raise(c, n);
			raised = r > 0;
			still = raised || n->still;
		} else {
			node_lock(c, n);
			r = node_load(c, n, &inode);
		}
		if (r >= 0)
			r = open_locked(c, n, flags);
		node_unlock(c, n);
	}
	if (r == -ENODATA)
		r = core_eio(c, ino, "its staged file is missing");
	if (r < 0) {
		/* Nobody will close it: it is settled like any other that was changed. */
		if (raised)
			(void)index_work_add(c->ix, WORK_UPLOAD, ino, clock_wall_ns() + core_quiet_period(c));
		if (n != NULL)
			node_put(c, n);
		free(h);
		return r;
	}
	*h = (struct handle){ .ino = ino, .node = n, .fd = r, .flags = flags,
		.writer = wants_write(flags), .was_still = still,
		.kill_priv = (inode.mode & (S_ISUID | S_ISGID)) != 0 };
	h->metered = h->writer && index_meter_begin(c->ix, ino) > 0;
	/* As long as it is now, which the row may not know yet. */
	core_measure(c, h);
	*ret_handle = h;
	return 0;
}

int
core_flush(struct core *c, struct handle *h)
{
	int r;

	if (!h->writer)
		return 0;
	node_lock(c, h->node);
	r = node_flush(c, h->node, false);
	node_unlock(c, h->node);
	return r;
}

/* Make a new staged file's name durable, once. */
static int
sync_name(struct core *c, struct node *n)
{
	int r = n->named ? 0 : staging_sync_name(c->st, n->ino);

	if (r == 0)
		n->named = true;
	return r;
}

int
core_sync_bytes(struct core *c, struct node *n, int fd)
{
	int r = fsync(fd) < 0 ? -errno : 0;

	node_lock(c, n);
	if (r == 0)
		r = sync_name(c, n);
	node_unlock(c, n);
	return r;
}

/* The row and the name of what was just synced become durable too, once a generation. */
static int
sync_row(struct core *c, struct node *n, bool writer)
{
	uint64_t generation, change;
	struct inode row;
	int r = 0;

	node_lock(c, n);
	generation = atomic_load(&n->generation);
	change = atomic_load(&n->change);
	/* A reader's fsync covers what others wrote and closed. */
	if (!writer && n->synced_generation != generation)
		writer = index_get(c->ix, n->ino, &row) == 0 && row.synced_generation != generation &&
		    (row.state == OBJECT_OPEN || row.state == OBJECT_DIRTY);
	if (writer && n->synced_generation != generation) {
		r = sync_name(c, n);
		if (r == 0)
			r = node_flush(c, n, true);
		if (r == 0)
			r = index_mark_synced(c->ix, n->ino, generation);
		change = index_changes(c->ix);
	}
	node_unlock(c, n);
	if (r == 0 && !index_synced(c->ix, change))
		r = index_sync(c->ix);
	if (r == 0 && writer) {
		node_lock(c, n);
		if (atomic_load(&n->generation) == generation)
			n->synced_generation = generation;
		node_unlock(c, n);
	}
	return r;
}

int
core_fsync(struct core *c, struct handle *h, bool datasync)
{
	int fd = core_handle_fd(c, h, O_RDONLY), r;

	if (fd < 0)
		return fd;
	r = (datasync ? fdatasync(fd) : fsync(fd)) < 0 ? -errno : 0;
	(void)close(fd);
	if (r == -EIO)
		return core_eio(c, h->ino, "the disk can't sync its bytes");
	return r < 0 ? r : sync_row(c, h->node, h->writer);
}

int
core_fsyncdir(struct core *c)
{
	return index_sync(c->ix);
}

/* The last reader goes: where reading has moved the atime, the row is to have it, since nobody looks
 * at the staged file of a dense one.  Node locked; true when it was moved. */
static bool
keep_atime(struct core *c, struct node *n)
{
	struct inode row, read = { 0 };
	struct stat st;

	if (index_get(c->ix, n->ino, &row) < 0 || (row.flags & INODE_DENSE) == 0 ||
	    row.state == OBJECT_OPEN || staging_stat(c->st, n->ino, &st) < 0)
		return false;
	read.atime = staged_atime(c, &row, &st);
	return read.atime > row.atime && index_set_attr(c->ix, n->ino, ATTR_ATIME, &read, &row) == 0;
}

void
core_release(struct core *c, struct handle *h)
{
	struct node *n = h->node;
	bool moved = false, last;

	node_lock(c, n);
	/* Bytes may have come after the last flush: mapped stores, a descriptor sent elsewhere. */
	if (h->writer) {
		(void)node_flush(c, n, atomic_load(&n->writers) == 1 && !n->queued);
		atomic_fetch_sub(&n->writers, 1);
	}
	last = atomic_fetch_sub(&n->opens, 1) == 1;
	if (last && !h->writer)
		moved = keep_atime(c, n);
	node_unlock(c, n);
	if (last && node_is_unlinked(c, n))
		node_given_up(c, n->ino);
	/* An answer that is on its way may have the old one. */
	if (moved && c->events.attr_changed != NULL)
		c->events.attr_changed(c->events.arg, h->ino);
	if (h->metered)
		index_meter_end(c->ix, h->ino);
	if (h->fd >= 0)
		(void)close(h->fd);
	free(h);
	node_put(c, n);
}

int
core_handle_fd(struct core *c, struct handle *h, int mode)
{
	if (h->fd >= 0) {
		int fd = fcntl(h->fd, F_DUPFD_CLOEXEC, 0);

		return fd < 0 ? -errno : fd;
	}
	return staging_open(c->st, h->ino, mode);
}

int
core_grow(struct core *c, struct handle *h, uint64_t end)
{
	return h->metered ? index_meter_grow(c->ix, h->ino, end) : 0;
}

void
core_measure(struct core *c, struct handle *h)
{
	struct stat st;

	if (h->metered && staging_stat(c->st, h->ino, &st) == 0)
		index_meter_cut(c->ix, h->ino, (uint64_t)st.st_size);
}

void
core_written(struct core *c, struct handle *h, const struct caller *who)
{
	struct attr attr;

	if (!h->kill_priv || who->uid == 0)
		return;
	h->kill_priv = false;
	(void)core_setattr(c, h->ino, SET_KILL_PRIV, &(struct inode){ .ino = h->ino }, who, &attr);
}
