/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Attributes.  While a file is OPEN its staged file owns size, mtime and atime: the
 * kernel writes there without telling us.  Otherwise the row does.  ctime is the later
 * of the row's and the staged mtime, so that only the user's changes move it.
 */
#include "core/node.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define ATIME_STALE_NS (24 * 3600 * NSEC_PER_SEC)	/* relatime moves one that is older in any case */

/* Of 512 bytes, on a disk with blocks of 4 KiB. */
static uint64_t
blocks_for(uint64_t size)
{
	return (size + 4095) / 4096 * 8;
}

void
stat_to_staged(const struct core *c, const struct stat *st, struct staged_stat *ret_staged)
{
	*ret_staged = (struct staged_stat){
		.size = (uint64_t)st->st_size,
		/* The staging disk moves it by its own rules. */
		.atime = c->opt.noatime ? STAGED_ATIME_OMIT : timespec_to_ns(st->st_atim),
		.mtime = timespec_to_ns(st->st_mtim),
		.ctime = timespec_to_ns(st->st_ctim),
		/* Its attributes, ours, may take a block more. */
		.dense = (uint64_t)st->st_blocks == blocks_for((uint64_t)st->st_size) ||
		    (uint64_t)st->st_blocks == blocks_for((uint64_t)st->st_size) + 8,
	};
}

/* While nobody reads it the atime of a dense file is its row's.  Without the node's lock, which may
 * be held for as long as a sync takes: whose last close moves the atime tells the kernel. */
static bool
is_open(struct core *c, uint64_t ino)
{
	struct node *n = node_find(c, ino);
	bool open;

	if (n == NULL)
		return false;
	open = atomic_load(&n->opens) > 0;
	node_put(c, n);
	return open;
}

bool
atime_moves(const struct core *c, const struct inode *row, int64_t now)
{
	if (c->opt.noatime || (c->opt.nodiratime && S_ISDIR(row->mode)))
		return false;
	return row->atime <= row->mtime || row->atime <= row->ctime || now - row->atime >= ATIME_STALE_NS;
}

int64_t
staged_atime(const struct core *c, const struct inode *row, const struct stat *st)
{
	int64_t atime = timespec_to_ns(st->st_atim);
	bool counts = row->state == OBJECT_OPEN ? !c->opt.noatime : atime_moves(c, row, atime);

	return counts && atime > row->atime ? atime : row->atime;
}

bool
core_access_moves(struct core *c, uint64_t ino)
{
	struct inode row;

	return index_get(c->ix, ino, &row) == 0 && atime_moves(c, &row, clock_wall_ns());
}

void
core_accessed(struct core *c, uint64_t ino)
{
	struct inode row, to = { .atime = clock_wall_ns() };

	if (index_get(c->ix, ino, &row) == 0 && atime_moves(c, &row, to.atime))
		(void)index_set_attr(c->ix, ino, ATTR_ATIME, &to, &row);
}

void
core_fill_attr(struct core *c, const struct inode *inode, struct attr *ret_attr)
{
	bool dense = (inode->flags & INODE_DENSE) != 0 && inode->state != OBJECT_OPEN;
	struct stat st;

	*ret_attr = (struct attr){ .inode = *inode };
	if (!S_ISREG(inode->mode)) {
		ret_attr->blocks = S_ISDIR(inode->mode) ? 8 : 0;
		return;
	}
	ret_attr->blocks = blocks_for(inode->size);
	if (inode->state == OBJECT_REMOTE || (dense && !is_open(c, inode->ino)) ||
	    staging_stat(c->st, inode->ino, &st) < 0)
		return;
	if (!dense)
		ret_attr->blocks = (uint64_t)st.st_blocks;
	if (inode->state == OBJECT_OPEN) {
		ret_attr->moving = true;
		ret_attr->inode.size = (uint64_t)st.st_size;
		ret_attr->inode.mtime = timespec_to_ns(st.st_mtim);
		if (ret_attr->inode.mtime != inode->staged_mtime && ret_attr->inode.mtime > inode->ctime)
			ret_attr->inode.ctime = ret_attr->inode.mtime;
	}
	ret_attr->inode.atime = staged_atime(c, inode, &st);
}

bool
core_is_hidden(const struct core *c, const struct inode *inode)
{
	return c->opt.hide_derived && (inode->flags & INODE_DERIVED) != 0;
}

/* Is an OPEN file sure to stay as it is until somebody opens it for writing?  Asked of the
 * kernel once after each writer: a mapping may live on. */
static bool
is_still(struct core *c, uint64_t ino)
{
	struct node *n = node_find(c, ino);
	bool still;
	int fd;

	if (n == NULL)
		return false;
	node_lock(c, n);
	if (atomic_load(&n->writers) == 0 && !n->still &&
	    (fd = staging_open(c->st, ino, O_RDONLY)) >= 0) {
		n->still = staging_is_quiet(fd) == 0;
		(void)close(fd);
	}
	still = n->still;
	node_unlock(c, n);
	node_put(c, n);
	return still;
}

/* Asked before it is looked at: who opens it for writing afterwards tells the kernel. */
static void
fill_still(struct core *c, const struct inode *inode, struct attr *ret_attr)
{
	bool still = inode->state == OBJECT_OPEN && is_still(c, inode->ino);

	core_fill_attr(c, inode, ret_attr);
	ret_attr->moving = ret_attr->moving && !still;
}

int
core_getattr(struct core *c, uint64_t ino, struct attr *ret_attr)
{
	struct inode inode;
	int r = index_get(c->ix, ino, &inode);

	if (r == 0)
		fill_still(c, &inode, ret_attr);
	return r;
}

void
core_entry(struct core *c, const struct inode *inode, struct attr *ret_attr)
{
	core_remember(c, inode->ino);
	fill_still(c, inode, ret_attr);
}

int
core_lookup(struct core *c, uint64_t parent, const char *name, struct attr *ret_attr)
{
	struct inode inode;
	int r = index_lookup(c->ix, parent, name, &inode);

	if (r == 0)
		core_entry(c, &inode, ret_attr);
	return r;
}

int
core_lookup_handle(struct core *c, uint64_t ino, struct attr *ret_attr)
{
	struct inode inode;
	int r = index_get(c->ix, ino, &inode);

	if (r == 0 && inode.nlink == 0)
		r = -ENOENT;
	if (r == 0)
		core_entry(c, &inode, ret_attr);
	return r;
}

/* ---- truncate by path ---- */

static int
truncate_staged(struct core *c, struct node *n, uint64_t size)
{
	int fd, r;

	r = node_raise(c, n);
	if (r >= 0) {
		fd = staging_open(c->st, n->ino, O_WRONLY);
		r = fd == -ENOENT ? -ENODATA : fd;
		if (fd >= 0) {
			r = ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
			(void)close(fd);
		}
	}
	if (r == 0) {
		n->changed = true;
		if (atomic_load(&n->writers) == 0)
			r = node_flush(c, n, true);
	}
	node_unlock(c, n);
	return r;
}

static int
set_size(struct core *c, uint64_t ino, uint64_t size)
{
	bool metered = index_meter_begin(c->ix, ino) > 0;
	struct node *n = node_get(c, ino);
	struct inode inode;
	struct stat st;
	int r = n == NULL ? -ENOMEM : metered ? index_meter_grow(c->ix, ino, size) : 0;

	if (r == 0)
		r = index_get(c->ix, ino, &inode);
	if (r == 0 && inode.state == OBJECT_REMOTE)
		r = node_hydrate(c, &inode);
	if (r == 0)
		r = truncate_staged(c, n, size);
	if (metered && staging_stat(c->st, ino, &st) == 0)
		index_meter_cut(c->ix, ino, (uint64_t)st.st_size);
	if (metered)
		index_meter_end(c->ix, ino);
	if (n != NULL)
		node_put(c, n);
	return r == -ENODATA ? core_eio(c, ino, "its staged file is missing") : r;
}

/* ---- times ---- */

/* While the staged file owns the times, they are set there as well, so that the next flush
 * finds what the user wanted. */
static int
set_staged_times(struct core *c, const struct inode *row, unsigned set, const struct inode *to)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_OMIT } };

	if (!S_ISREG(row->mode) || row->state == OBJECT_REMOTE)
		return 0;
	if ((set & SET_ATIME) != 0)
		times[0] = ns_to_timespec(to->atime);
	if ((set & SET_MTIME) != 0 && row->state == OBJECT_OPEN)
		times[1] = ns_to_timespec(to->mtime);
	if (times[0].tv_nsec == UTIME_OMIT && times[1].tv_nsec == UTIME_OMIT)
		return 0;
	return staging_set_times(c->st, row->ino, times);
}

bool
caller_is_outsider(const struct caller *who, uint32_t gid)
{
	return who->uid != 0 && who->gid != gid &&
	    (who->has_group == NULL || !who->has_group(who->arg, gid));
}

/* setuid and setgid as they remain after `who` changed owner or bytes: setgid without the group's
 * x bit, once for mandatory locks, only who belongs to the group may keep. */
static uint32_t
without_privilege(const struct inode *row, const struct caller *who)
{
	uint32_t mode = row->mode & ~(uint32_t)S_ISUID;

	if ((mode & S_ISGID) != 0 && ((mode & S_IXGRP) != 0 || caller_is_outsider(who, row->gid)))
		mode &= ~(uint32_t)S_ISGID;
	return mode;
}

static bool
has_writers(struct core *c, uint64_t ino)
{
	struct node *n = node_find(c, ino);
	bool has = n != NULL && atomic_load(&n->writers) > 0;

	if (n != NULL)
		node_put(c, n);
	return has;
}

int
core_setattr(struct core *c, uint64_t ino, unsigned set, const struct inode *to,
    const struct caller *who, struct attr *ret_attr)
{
	int64_t now = clock_wall_ns();
	struct inode row, new = *to;
	struct node *n = NULL;
	uint32_t stripped;
	unsigned mask = 0;
	int r = index_get(c->ix, ino, &row);

	if (r < 0)
		return r;
	if ((set & SET_SIZE) != 0) {
		if (!S_ISREG(row.mode))
			return S_ISDIR(row.mode) ? -EISDIR : -EINVAL;
		r = set_size(c, ino, to->size);
		if (r == 0)
			r = index_get(c->ix, ino, &row);
	}
	if (r == 0 && (set & SET_MODE) != 0)
		r = acl_chmod_inode(c, ino, to->mode);
	if (r < 0)
		return r;
	stripped = row.mode;
	if ((set & (SET_UID | SET_GID | SET_KILL_PRIV)) != 0 && (set & SET_MODE) == 0 && !S_ISDIR(row.mode))
		stripped = without_privilege(&row, who);
	if (stripped != row.mode) {
		/* The kernel asks for the same after a write and for chown(-1, -1). */
		if (set == SET_KILL_PRIV && who->uid != 0 && who->uid != row.uid && !has_writers(c, ino))
			return -EPERM;
		new.mode = stripped;
		mask |= ATTR_MODE;
	}
	mask |= (set & SET_MODE) != 0 ? ATTR_MODE : 0u;
	mask |= (set & SET_UID) != 0 ? ATTR_UID : 0u;
	mask |= (set & SET_GID) != 0 ? ATTR_GID : 0u;
	mask |= (set & SET_ATIME) != 0 ? ATTR_ATIME : 0u;
	mask |= (set & SET_MTIME) != 0 ? ATTR_MTIME : 0u;
	/* What asks for nothing else (a write, chown to who has it already) moves the ctime. */
	if (mask == 0 && set != SET_KILL_PRIV)
		return core_getattr(c, ino, ret_attr);
	new.ctime = now;
	/* Who owns the times, row or staged file, must not change between the two. */
	if (S_ISREG(row.mode) && (set & (SET_ATIME | SET_MTIME)) != 0 && (n = node_get(c, ino)) != NULL) {
		node_lock(c, n);
		r = index_get(c->ix, ino, &row);
	}
	/* Who puts the time back after a write in the same tick must not make it look unwritten. */
	if (r == 0 && n != NULL && (set & SET_MTIME) != 0 && row.state == OBJECT_OPEN)
		n->changed = true;
	if (r == 0)
		r = set_staged_times(c, &row, set, to);
	if (r == 0)
		r = index_set_attr(c->ix, ino, mask | ATTR_CTIME, &new, &row);
	if (n != NULL) {
		node_unlock(c, n);
		node_put(c, n);
	}
	if (r < 0)
		return r;
	node_touched(c, ino);
	if ((mask & (ATTR_MODE | ATTR_UID | ATTR_GID)) != 0)
		place_due(c, ino);
	if (S_ISREG(row.mode) && (mask & ~(unsigned)ATTR_ATIME) != 0 && c->events.changed != NULL)
		c->events.changed(c->events.arg, ino);
	core_fill_attr(c, &row, ret_attr);
	return 0;
}
