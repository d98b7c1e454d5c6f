/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The place of an inode, noted beside its staged bytes: what brings it back when the index is lost.
 *
 *   1. It is written when the request that moved it has been answered: nobody waits for it, and
 *      a kill between the two takes it away only from who loses the index as well.
 *   2. What is written is what the index says then, under the lock of the inode's stripe: of two who
 *      write, the last one is right.
 *   3. Writing it moves the staged file's ctime, which otherwise tells that bytes were changed:
 *      that move is ours, and the node is told.
 */
#include "core/node.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

static bool
has_place(const struct inode *inode)
{
	return (S_ISREG(inode->mode) || S_ISDIR(inode->mode)) && inode->state != OBJECT_REMOTE &&
	    inode->ino != INDEX_ROOT;
}

static int
note(struct core *c, const struct inode *inode)
{
	struct staging_place place = { .generation = inode->generation, .mode = inode->mode,
		.uid = inode->uid, .gid = inode->gid, .flags = inode->flags };
	int r;

	/* Were the index lost before its bytes go, they must not come back with it. */
	if (inode->nlink == 0)
		return staging_place_bury(c->st, inode->ino);
	r = index_place(c->ix, inode->ino, &place.parent, place.name);
	return r < 0 ? r : staging_place_write(c->st, inode->ino, &place);
}

static int64_t
staged_ctime(struct core *c, uint64_t ino)
{
	struct stat st;

	return staging_stat(c->st, ino, &st) < 0 ? 0 : timespec_to_ns(st.st_ctim);
}

/* Stripe locked.  What fails costs comfort after the loss of the index, no more. */
static void
note_quietly(struct core *c, struct node *n, const struct inode *inode)
{
	bool untouched = n != NULL && n->flushed.ctime != 0 &&
	    staged_ctime(c, inode->ino) == n->flushed.ctime;
	int r = note(c, inode);

	if (r < 0 && r != -ENOENT)
		(void)log_errno(r, "inode %ju: its place can't be written", (uintmax_t)inode->ino);
	if (untouched)
		n->flushed.ctime = staged_ctime(c, inode->ino);
}

void
place_write(struct core *c, uint64_t ino)
{
	struct lock *stripe = &c->stripes[ino % NODE_STRIPES];
	struct node *n = node_find(c, ino);
	struct inode inode;

	lock_take(stripe);
	if (index_get(c->ix, ino, &inode) == 0 && has_place(&inode))
		note_quietly(c, n, &inode);
	lock_drop(stripe);
	if (n != NULL)
		node_put(c, n);
}

void
place_due(struct core *c, uint64_t ino)
{
	lock_take(&c->places_lock);
	(void)inos_add(&c->places, ino);
	atomic_store(&c->places_due, true);
	lock_drop(&c->places_lock);
}

void
core_write_places(struct core *c)
{
	struct inos due;
	size_t i;

	if (!atomic_load(&c->places_due))
		return;
	lock_take(&c->places_lock);
	due = c->places;
	c->places = (struct inos){ .n = 0 };
	atomic_store(&c->places_due, false);
	lock_drop(&c->places_lock);
	for (i = 0; i < due.n; i++)
		place_write(c, due.inos[i]);
	free(due.inos);
}
