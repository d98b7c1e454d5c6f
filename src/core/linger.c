/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Files that went with their directory, and which the kernel goes on to know.
 *
 * A directory that holds nothing but what was derived is removed with all of it.  The kernel hears of
 * the directory alone.  Where a file below it was open, or being looked up, its name stays in memory until
 * that is short; so long the inode is not forgotten, and its object stays.  So the kernel is told of
 * each such name, now and then, until it has forgotten the inode.
 */
#include "core/node.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

struct linger {
	struct linger *next;
	uint64_t parent, ino;
	unsigned told;
	char name[];
};

static void
linger_push(struct core *c, struct linger *l)
{
	lock_take(&c->places_lock);
	l->next = c->lingering;
	c->lingering = l;
	lock_drop(&c->places_lock);
}

static struct linger *
linger_take_all(struct core *c)
{
	struct linger *all;

	lock_take(&c->places_lock);
	all = c->lingering;
	c->lingering = NULL;
	lock_drop(&c->places_lock);
	return all;
}

void
linger_add(void *core, uint64_t parent, const char *name, uint64_t ino)
{
	size_t len = strlen(name) + 1;
	struct linger *l = malloc(sizeof(*l) + len);

	/* Without memory: a remount frees it. */
	if (l == NULL)
		return;
	l->told = 0;
	l->parent = parent;
	l->ino = ino;
	memcpy(l->name, name, len);
	linger_push(core, l);
}

/* It was added before its transaction ended: that may have failed, or not have been seen yet. */
static bool
is_gone(struct core *c, const struct linger *l)
{
	struct inode row;

	return index_get(c->ix, l->ino, &row) < 0 || row.nlink == 0 || l->told < 2;
}

void
core_tell_lingering(struct core *c)
{
	struct linger *l, *next;
	bool some = false;

	for (l = linger_take_all(c); l != NULL; l = next) {
		struct node *n = node_find(c, l->ino);

		next = l->next;
		if (n == NULL || c->events.entry_changed == NULL || !is_gone(c, l)) {
			free(l);
		} else {
			c->events.entry_changed(c->events.arg, l->parent, l->name, true);
			l->told++;
			linger_push(c, l);
			some = true;
		}
		if (n != NULL)
			node_put(c, n);
	}
	if (some)
		work_queued(c, clock_wall_ns() + NSEC_PER_SEC);
}

void
linger_free(struct core *c)
{
	struct linger *l, *next;

	for (l = linger_take_all(c); l != NULL; l = next) {
		next = l->next;
		free(l);
	}
}
