/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The inodes that somebody holds: the kernel (lookups), an open file, a worker.
 *
 *   1. A node exists while one of its counts is above zero.
 *   2. An inode whose last name went is doomed when its node goes (reap.c): no open file and no
 *      kernel reference can meet a row that was deleted.
 *   3. Locks: the table's for the hash and the counts, one of 64 stripes for a node's
 *      open state.  The table's lock is taken first, and never held while a stripe's is
 *      waited for: pin, drop the table, lock the stripe.
 */
#include "core/node.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t
slot_of(const struct core *c, uint64_t ino)
{
	return (size_t)(ino * 0x9e3779b97f4a7c15ULL >> 20) & (c->slot_count - 1);
}

static void
table_grow(struct core *c)
{
	size_t old = c->slot_count, i;
	struct node **slots = calloc(old * 2, sizeof(*slots)), **was = c->slots;

	if (slots == NULL)
		return;
	c->slots = slots;
	c->slot_count = old * 2;
	for (i = 0; i < old; i++) {
		struct node *n = was[i];

		while (n != NULL) {
			struct node *next = n->next;
			size_t at = slot_of(c, n->ino);

			n->next = slots[at];
			slots[at] = n;
			n = next;
		}
	}
	free(was);
}

static struct node *
table_find(struct core *c, uint64_t ino)
{
	struct node *n;

	for (n = c->slots[slot_of(c, ino)]; n != NULL; n = n->next)
		if (n->ino == ino)
			return n;
	return NULL;
}

static struct node *
table_get(struct core *c, uint64_t ino)
{
	struct node *n = table_find(c, ino);
	size_t at;

	if (n != NULL)
		return n;
	n = calloc(1, sizeof(*n));
	if (n == NULL)
		return NULL;
	n->ino = ino;
	if (c->node_count > c->slot_count)
		table_grow(c);
	at = slot_of(c, ino);
	n->next = c->slots[at];
	c->slots[at] = n;
	c->node_count++;
	return n;
}

/* Drop the node when nobody holds it. */
static void
table_let_go(struct core *c, struct node *n)
{
	struct node **p;

	if (n->pins > 0 || n->lookups > 0)
		return;
	for (p = &c->slots[slot_of(c, n->ino)]; *p != n; p = &(*p)->next)
		;
	*p = n->next;
	c->node_count--;
	if (n->unlinked)
		node_doom(c, n->ino);
	free(n);
}

void
work_queued(struct core *c, int64_t due)
{
	if (c->events.work_queued != NULL)
		c->events.work_queued(c->events.arg, due);
}

struct node *
node_get(struct core *c, uint64_t ino)
{
	struct node *n;

	lock_take(&c->table_lock);
	n = table_get(c, ino);
	if (n != NULL)
		n->pins++;
	lock_drop(&c->table_lock);
	return n;
}

struct node *
node_find(struct core *c, uint64_t ino)
{
	struct node *n;

	lock_take(&c->table_lock);
	n = table_find(c, ino);
	if (n != NULL)
		n->pins++;
	lock_drop(&c->table_lock);
	return n;
}

void
node_put(struct core *c, struct node *n)
{
	lock_take(&c->table_lock);
	n->pins--;
	table_let_go(c, n);
	lock_drop(&c->table_lock);
}

void
core_remember(struct core *c, uint64_t ino)
{
	struct node *n;

	lock_take(&c->table_lock);
	n = table_get(c, ino);
	if (n != NULL)
		n->lookups++;
	lock_drop(&c->table_lock);
}

void
core_forget(struct core *c, uint64_t ino, uint64_t count)
{
	struct node *n;

	lock_take(&c->table_lock);
	n = table_find(c, ino);
	if (n != NULL) {
		n->lookups -= count < n->lookups ? count : n->lookups;
		table_let_go(c, n);
	}
	lock_drop(&c->table_lock);
}

void
node_touched(struct core *c, uint64_t ino)
{
	struct node *n = node_find(c, ino);

	if (n == NULL)
		return;
	atomic_store(&n->change, index_changes(c->ix));
	node_put(c, n);
}

void
node_lock(struct core *c, struct node *n)
{
	lock_take(&c->stripes[n->ino % NODE_STRIPES]);
}

void
node_unlock(struct core *c, struct node *n)
{
	lock_drop(&c->stripes[n->ino % NODE_STRIPES]);
}

/* ---- the core itself ---- */

int
core_new(const struct core_options *opt, struct core **ret_core)
{
	struct core *c = calloc(1, sizeof(*c));
	size_t i;

	if (c == NULL)
		return -ENOMEM;
	c->opt = *opt;
	core_set_quiet(c, opt->quiet_period, opt->temp_delay);
	c->ix = opt->index;
	c->st = opt->staging;
	c->control_path = opt->control_path != NULL ? strdup(opt->control_path) : NULL;
	c->slot_count = 4096;
	c->slots = calloc(c->slot_count, sizeof(*c->slots));
	if (c->slots == NULL) {
		free(c->control_path);
		free(c);
		return -ENOMEM;
	}
	lock_init(&c->table_lock, RANK_TABLE);
	lock_cond_init(&c->reaped);
	lock_init(&c->places_lock, RANK_QUEUE);
	index_on_taken_along(c->ix, linger_add, c);
	for (i = 0; i < NODE_STRIPES; i++) {
		lock_init(&c->stripes[i], RANK_OBJECT);
		lock_cond_init(&c->linked[i]);
	}
	*ret_core = c;
	return 0;
}

void
core_free(struct core *c)
{
	size_t i;

	if (c == NULL)
		return;
	core_write_places(c);
	index_on_taken_along(c->ix, NULL, NULL);
	linger_free(c);
	for (i = 0; i < c->slot_count; i++) {
		while (c->slots[i] != NULL) {
			struct node *n = c->slots[i];

			c->slots[i] = n->next;
			free(n);
		}
	}
	free(c->slots);
	free(c->doomed.inos);
	free(c->places.inos);
	lock_release(&c->table_lock);
	(void)pthread_cond_destroy(&c->reaped);
	lock_release(&c->places_lock);
	for (i = 0; i < NODE_STRIPES; i++) {
		lock_release(&c->stripes[i]);
		(void)pthread_cond_destroy(&c->linked[i]);
	}
	free(c->control_path);
	free(c);
}

void
core_set_fetcher(struct core *c, const struct fetcher *fetcher)
{
	c->fetcher = *fetcher;
}

void
core_set_events(struct core *c, const struct core_events *events)
{
	c->events = *events;
}

struct index *
core_index(struct core *c)
{
	return c->ix;
}

struct staging *
core_staging(struct core *c)
{
	return c->st;
}

int64_t
core_quiet_period(const struct core *c)
{
	return atomic_load(&c->quiet_period);
}

int64_t
core_temp_delay(const struct core *c)
{
	return atomic_load(&c->temp_delay);
}

void
core_set_quiet(struct core *c, int64_t quiet_period, int64_t temp_delay)
{
	atomic_store(&c->quiet_period, quiet_period);
	atomic_store(&c->temp_delay, temp_delay);
}

struct node *
core_pin(struct core *c, uint64_t ino)
{
	struct node *n = node_get(c, ino);
	struct inode inode;

	if (n == NULL)
		return NULL;
	node_lock(c, n);
	if (!n->known)
		(void)node_load(c, n, &inode);
	node_unlock(c, n);
	return n;
}

void
core_unpin(struct core *c, struct node *n)
{
	if (n != NULL)
		node_put(c, n);
}

bool
core_is_current(const struct node *n, uint64_t generation)
{
	return atomic_load(&n->generation) == generation && atomic_load(&n->raising) == 0;
}

void
core_each_open(struct core *c, int64_t since,
    void (*fn)(void *arg, uint64_t ino, int64_t since), void *arg)
{
	size_t i;

	lock_take(&c->table_lock);
	for (i = 0; i < c->slot_count; i++) {
		const struct node *n;

		for (n = c->slots[i]; n != NULL; n = n->next)
			if (atomic_load(&n->writers) > 0 && atomic_load(&n->writer_since) < since)
				fn(arg, n->ino, atomic_load(&n->writer_since));
	}
	lock_drop(&c->table_lock);
}

struct open_files {
	uint64_t inos[256];
	size_t n;
};

static void
collect_open(void *arg, uint64_t ino, int64_t since)
{
	struct open_files *o = arg;

	(void)since;
	if (o->n < sizeof(o->inos) / sizeof(o->inos[0]))
		o->inos[o->n++] = ino;
}

static bool
is_below(struct core *c, uint64_t ino, uint64_t dir)
{
	char name[INDEX_NAME_MAX + 1];

	while (ino != dir && ino != INDEX_ROOT)
		if (index_place(c->ix, ino, &ino, name) < 0)
			return false;
	return ino == dir;
}

int
core_eio(struct core *c, uint64_t ino, const char *fmt, ...)
{
	CLEANUP_FREE char *path = NULL;
	char why[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	log_err("%s (inode %ju): %s", index_path(c->ix, ino, &path) == 0 ? path : "unnamed",
	    (uintmax_t)ino, why);
	return -EIO;
}

uint64_t
core_count_writers(struct core *c, uint64_t dir, uint64_t *ret_one)
{
	struct open_files open = { .n = 0 };
	uint64_t count = 0;
	size_t i;

	core_each_open(c, INT64_MAX, collect_open, &open);
	for (i = 0; i < open.n; i++) {
		if (!is_below(c, open.inos[i], dir))
			continue;
		*ret_one = open.inos[i];
		count++;
	}
	return count;
}
