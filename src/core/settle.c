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
	node_look(c, n, &st, &now);
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
	/* No bell rings for what was closed unchanged, but its name may be another. */
	if (r == 0 && was_open && ret_inode->state == OBJECT_STORED && c->events.derive_queued != NULL)
		c->events.derive_queued(c->events.arg);
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
