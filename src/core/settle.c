/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * When a file has become quiet, and who may read its bytes then.
 *
 * A file leaves OPEN only when the kernel grants a read lease on its staged file: it
 * refuses one while any descriptor or writable mapping exists, those of passthrough and
 * those that outlived RELEASE included.  The test and the change of state happen under
 * the node's lock, which every open for writing takes first.
 */
#include "core/node.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static int
settle_locked(struct core *c, struct node *n, struct inode *inode, bool *ret_was_open)
{
	struct staged_stat now;
	CLEANUP_CLOSE int fd = -1;
	struct stat st;
	int r = node_load(c, n, inode);

	*ret_was_open = r == 0 && inode->state == OBJECT_OPEN;
	if (!*ret_was_open)
		return r;
	if (atomic_load(&n->writers) > 0)
		return -EBUSY;
	fd = staging_open(c->st, n->ino, O_RDONLY);
	if (fd < 0)
		return fd;
	r = staging_is_quiet(fd);
	if (r < 0)
		return r;
	if (fstat(fd, &st) < 0)
		return -errno;
	stat_to_staged(&st, &now);
	if (now.ctime != n->base_ctime || now.mtime != n->flushed.mtime)
		n->changed = true;
	return index_mark_quiet(c->ix, n->ino, inode->generation, n->changed, &now, inode);
}

int
core_settle(struct core *c, uint64_t ino, struct inode *ret_inode)
{
	struct node *n = node_get(c, ino);
	bool was_open;
	int r;

	if (n == NULL)
		return -ENOMEM;
	node_lock(c, n);
	r = settle_locked(c, n, ret_inode, &was_open);
	node_unlock(c, n);
	node_put(c, n);
	if (r == 0 && was_open && c->events.attr_changed != NULL)
		c->events.attr_changed(c->events.arg, ino);
	return r;
}

int
core_open_generation(struct core *c, struct node *n, uint64_t generation)
{
	int fd = staging_open(c->st, n->ino, O_RDONLY), r;

	if (fd < 0)
		return fd;
	node_lock(c, n);
	r = atomic_load(&n->generation) == generation ? staging_is_quiet(fd) : -ESTALE;
	node_unlock(c, n);
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	return fd;
}

int
core_link_begin(struct core *c, struct node *n, uint64_t generation)
{
	int r = 0;

	node_lock(c, n);
	if (!core_is_current(n, generation))
		r = -ESTALE;
	else
		n->linking = true;
	node_unlock(c, n);
	return r;
}

void
core_link_end(struct core *c, struct node *n)
{
	node_lock(c, n);
	n->linking = false;
	(void)pthread_cond_broadcast(&c->linked[n->ino % NODE_STRIPES]);
	node_unlock(c, n);
}

/* ---- what nobody needs any more ---- */

/* An inode may be without a name for the moment between being made and being linked. */
#define ORPHAN_AGE_NS (60 * NSEC_PER_SEC)

static void
let_go(struct core *c, const uint64_t *inos, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		struct inode gone = { .ino = inos[i], .nlink = 0 };

		node_unlinked(c, &gone);
	}
}

static void
reap_orphans(struct core *c, int64_t before)
{
	uint64_t inos[256];

	let_go(c, inos, index_orphans(c->ix, before, inos, 256));
}

void
reap_with_dir(struct core *c, int64_t ctime)
{
	uint64_t inos[1024];

	let_go(c, inos, index_orphans_at(c->ix, ctime, inos, 1024));
}

/* Sync each folder that one of these was in, once. */
static int
sync_folders(struct core *c, const struct work *work, int n)
{
	bool done[256] = { false };
	int i, r = 0;

	for (i = 0; i < n && r == 0; i++) {
		if (!done[work[i].id & 0xff])
			r = staging_sync_name(c->st, work[i].id);
		done[work[i].id & 0xff] = true;
	}
	return r;
}

void
core_collect(struct core *c, bool at_start)
{
	struct work work[512];
	int n, i;

	reap_orphans(c, at_start ? INT64_MAX : clock_wall_ns() - ORPHAN_AGE_NS);
	core_reap(c);
	while ((n = index_work_due(c->ix, WORK_FREE, INT64_MAX, work, 512)) > 0) {
		/* The commits that took the rows away must be on the disk before the bytes go. */
		if (index_sync(c->ix) < 0)
			return;
		for (i = 0; i < n; i++) {
			int r = staging_remove(c->st, work[i].id);

			if (r < 0)
				(void)log_errno(r, "staged file %ju can't be removed",
				    (uintmax_t)work[i].id);
		}
		/* And they must be gone on the disk before the row that says so goes: a staged file
		 * without any row is taken for a lost one. */
		if (sync_folders(c, work, n) < 0 || index_work_done_many(c->ix, work, (size_t)n) < 0)
			return;
	}
}
