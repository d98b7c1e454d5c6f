/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A tree of the directories alone, each with what is at and below it and how much may be: a change
 * walks up, a question looks once.  And the meters.  All under the tree's lock, which the caller
 * holds; usage.c keeps it in step with the database.
 */
#include "index/usage_tree.h"

#include <stdlib.h>

static size_t
slot_of(const struct usage_tree *t, uint64_t ino)
{
	return (size_t)(ino * 0x9e3779b97f4a7c15u >> 20) & (t->dir_slots - 1);
}

struct usage_dir *
usage_find(const struct usage_tree *t, uint64_t dir)
{
	struct usage_dir *d;

	if (t->dir_slots == 0)
		return NULL;
	for (d = t->dirs[slot_of(t, dir)]; d != NULL && d->ino != dir; d = d->next)
		;
	return d;
}

void
usage_each(const struct usage_tree *t, void (*fn)(void *arg, struct usage_dir *d), void *arg)
{
	struct usage_dir *d, *next;
	size_t i;

	for (i = 0; i < t->dir_slots; i++)
		for (d = t->dirs[i]; d != NULL; d = next) {
			next = d->next;
			fn(arg, d);
		}
}

static void
grow(struct usage_tree *t)
{
	size_t slots = t->dir_slots == 0 ? DIR_SLOTS_MIN : t->dir_slots * 2, old = t->dir_slots, i;
	struct usage_dir **dirs = calloc(slots, sizeof(struct usage_dir *)), **was = t->dirs;

	if (dirs == NULL)
		return;
	t->dirs = dirs;
	t->dir_slots = slots;
	for (i = 0; i < old; i++)
		while (was[i] != NULL) {
			struct usage_dir *d = was[i];

			was[i] = d->next;
			d->next = dirs[slot_of(t, d->ino)];
			dirs[slot_of(t, d->ino)] = d;
		}
	free(was);
}

struct usage_dir *
usage_dir_get(struct usage_tree *t, uint64_t ino)
{
	struct usage_dir *d = usage_find(t, ino);

	if (d != NULL)
		return d;
	if (t->dir_count >= t->dir_slots)
		grow(t);
	d = t->dir_slots == 0 ? NULL : calloc(1, sizeof(*d));
	if (d == NULL)
		return NULL;
	d->ino = ino;
	d->next = t->dirs[slot_of(t, ino)];
	t->dirs[slot_of(t, ino)] = d;
	t->dir_count++;
	return d;
}

void
usage_clear(struct usage_tree *t)
{
	size_t i;

	for (i = 0; i < t->dir_slots; i++)
		while (t->dirs[i] != NULL) {
			struct usage_dir *d = t->dirs[i];

			t->dirs[i] = d->next;
			free(d);
		}
	free(t->dirs);
	t->dirs = NULL;
	t->dir_slots = t->dir_count = 0;
	atomic_store(&t->limits, 0);
}

void
usage_dir_drop(struct usage_tree *t, struct usage_dir *d)
{
	struct usage_dir **at = &t->dirs[slot_of(t, d->ino)];

	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	t->dir_count--;
	free(d);
}

void
usage_add(struct usage_dir *at, struct usage more)
{
	for (; at != NULL; at = at->parent) {
		at->total.bytes += more.bytes;
		at->total.files += more.files;
	}
}

static unsigned
depth_of(const struct usage_dir *d)
{
	unsigned depth = 0;

	for (; d != NULL; d = d->parent)
		depth++;
	return depth;
}

/* The nearest directory that is at or above both; NULL: none. */
static const struct usage_dir *
meeting(const struct usage_dir *a, const struct usage_dir *b)
{
	unsigned da = depth_of(a), db = depth_of(b);

	for (; da > db; da--)
		a = a->parent;
	for (; db > da; db--)
		b = b->parent;
	for (; a != b; a = a->parent)
		b = b->parent;
	return a;
}

static bool
over(int64_t total, int64_t more, int64_t limit)
{
	return limit > 0 && more > 0 && more > limit - total;
}

bool
usage_is_over_below(const struct usage_dir *at, const struct usage_dir *other, struct usage more)
{
	const struct usage_dir *common = meeting(at, other);

	for (; at != common; at = at->parent)
		if (over(at->total.bytes, more.bytes, at->limit.bytes) ||
		    over(at->total.files, more.files, at->limit.files))
			return true;
	return false;
}

bool
usage_is_limited_below(const struct usage_dir *at, const struct usage_dir *other)
{
	const struct usage_dir *common = meeting(at, other);

	for (; at != common; at = at->parent)
		if (at->limit.bytes > 0 || at->limit.files > 0)
			return true;
	return false;
}

bool
usage_is_over(const struct usage_dir *at, struct usage more)
{
	return usage_is_over_below(at, NULL, more);
}

unsigned
usage_limits(const struct index *ix)
{
	return ix->usage == NULL ? 0 : atomic_load(&ix->usage->limits);
}

void
usage_limit(struct usage_tree *t, struct usage_dir *d, struct usage limit)
{
	bool had = d->limit.bytes > 0 || d->limit.files > 0, has = limit.bytes > 0 || limit.files > 0;

	d->limit = limit;
	if (has && !had)
		atomic_fetch_add(&t->limits, 1);
	else if (had && !has)
		atomic_fetch_sub(&t->limits, 1);
}

/* ---- meters ---- */

struct usage_meter *
usage_meter(const struct usage_tree *t, uint64_t ino)
{
	struct usage_meter *m = t->meters[ino % METER_SLOTS];

	while (m != NULL && m->ino != ino)
		m = m->next;
	return m;
}

struct usage_meter *
usage_meter_new(struct usage_tree *t, uint64_t ino)
{
	struct usage_meter *m = calloc(1, sizeof(*m));

	if (m == NULL)
		return NULL;
	m->ino = ino;
	m->next = t->meters[ino % METER_SLOTS];
	t->meters[ino % METER_SLOTS] = m;
	return m;
}

void
usage_meter_free(struct usage_tree *t, struct usage_meter *m)
{
	struct usage_meter **at = &t->meters[m->ino % METER_SLOTS];

	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	free(m);
}
