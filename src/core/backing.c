/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Who moves a handle's bytes.  A handle holds a descriptor only where the daemon does; with
 * passthrough the kernel has its own, registered once for all open handles of an inode.
 *
 *   1. What is registered is a read-only descriptor: any other would make the staged file look as
 *      if it had a writer for as long as it has readers.
 *   2. The id is given back when the last handle that was opened with it goes.
 */
#include "core/node.h"

#include <fcntl.h>
#include <unistd.h>

/* Open handles begin with a read-only descriptor. */
int
core_backing_take(struct core *c, struct handle *h, int32_t (*take)(void *arg, int fd), void *arg,
    int32_t *ret_id)
{
	struct node *n = h->node;
	int32_t id = 0;
	int fd = -1;

	node_lock(c, n);
	if (n->backing != 0) {
		n->backing_users++;
		id = n->backing;
	} else if (atomic_load(&n->opens) == 1 && take != NULL) {
		id = take(arg, h->fd);
		if (id > 0) {
			n->backing = id;
			n->backing_users = 1;
		}
	}
	node_unlock(c, n);
	h->backed = id > 0;
	if (h->metered || (id <= 0 && h->writer)) {
		fd = staging_open(c->st, n->ino, O_RDWR);
		if (fd < 0)
			return fd;
	}
	if (id > 0 || h->writer) {
		(void)close(h->fd);
		h->fd = fd;
	}
	/* Our own looks leave the atime alone; what a client reads through us moves it. */
	if (h->fd >= 0 && (h->flags & O_NOATIME) == 0)
		(void)fcntl(h->fd, F_SETFL, 0);
	*ret_id = id > 0 ? id : 0;
	return 0;
}

int32_t
core_backing_drop(struct core *c, struct handle *h)
{
	struct node *n = h->node;
	int32_t id = 0;

	if (!h->backed)
		return 0;
	h->backed = false;
	node_lock(c, n);
	if (n->backing != 0 && --n->backing_users == 0) {
		id = n->backing;
		n->backing = 0;
	}
	node_unlock(c, n);
	return id;
}
