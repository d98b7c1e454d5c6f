/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The end of inodes that nobody needs any more.
 *
 *   1. When the node of an inode without a name goes, the inode is doomed.  It is reaped in flocks
 *      (core_reap()), by those who schedule and who wait: a request that lets go of an
 *      inode costs no commit.
 *   2. What is without a name and not doomed (the daemon died, memory was short) the sweep finds.
 *   3. Staged bytes go when their rows are durably gone.
 *   4. Where space is short, whoever needs some, or asks how much there is, waits for that.
 */
#include "core/node.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <unistd.h>

enum { REAP_AT_ONCE = 64, SWEEP_AT_ONCE = 256 };

#define PLENTY_BYTES (64ULL << 20)	/* less is short */
#define FORGET_WAIT_US 1000		/* the kernel's FORGET is on its way */
enum { FORGET_WAITS = 20, FREE_WAITS = 300 };

/* An inode may be without a name for the moment between being made and being linked. */
#define ORPHAN_AGE_NS (60 * NSEC_PER_SEC)

void
node_doom(struct core *c, uint64_t ino)
{
	/* The scheduler may have planned to sleep for a minute. */
	if (c->doomed.n == 0)
		work_queued(c, clock_wall_ns() + NSEC_PER_SEC);
	(void)inos_add(&c->doomed, ino);
}

static int
reap_flock(struct core *c, const uint64_t *inos, size_t n)
{
	bool derived[REAP_AT_ONCE];
	size_t i;
	int r = index_reap_many(c->ix, inos, n, derived);

	for (i = 0; r == 0 && c->events.changed != NULL && i < n; i++)
		if (derived[i])
			c->events.changed(c->events.arg, inos[i]);
	return r;
}

bool
core_reap(struct core *c)
{
	struct inos d;
	size_t at, n;
	int r = 0;

	/* One at a time: when this returns, what was doomed before is reaped. */
	lock_take(&c->table_lock);
	while (c->reaping)
		(void)lock_wait(&c->table_lock, &c->reaped, 0);
	d = c->doomed;
	c->doomed = (struct inos){ .inos = NULL };
	c->reaping = d.n > 0;
	lock_drop(&c->table_lock);
	if (d.n == 0)
		return false;
	for (at = 0; at < d.n; at += n) {
		n = d.n - at < REAP_AT_ONCE ? d.n - at : REAP_AT_ONCE;
		r = reap_flock(c, d.inos + at, n);
		if (r < 0)
			break;
	}
	if (r < 0 && !c->reap_failed)
		(void)log_errno(r, "removed files can't be reaped now");
	lock_take(&c->table_lock);
	/* The next one tries again. */
	for (; at < d.n; at++)
		node_doom(c, d.inos[at]);
	c->reap_failed = r < 0;
	c->reaping = false;
	(void)pthread_cond_broadcast(&c->reaped);
	lock_drop(&c->table_lock);
	free(d.inos);
	if (r == 0)
		work_queued(c, 0);
	return true;
}

bool
node_is_unlinked(struct core *c, const struct node *n)
{
	bool unlinked;

	lock_take(&c->table_lock);
	unlinked = n->unlinked;
	lock_drop(&c->table_lock);
	return unlinked;
}

void
node_given_up(struct core *c, uint64_t ino)
{
	struct stat st;

	if (staging_stat(c->st, ino, &st) == 0)
		atomic_fetch_add(&c->given_up, (uint64_t)st.st_blocks * 512);
}

static void
came_back(struct core *c, uint64_t bytes)
{
	uint64_t had = atomic_load(&c->given_up);

	while (!atomic_compare_exchange_weak(&c->given_up, &had, had > bytes ? had - bytes : 0))
		;
}

static void
without_name(struct core *c, uint64_t ino)
{
	struct node *n = node_get(c, ino);
	bool known;

	if (n == NULL)
		return;
	lock_take(&c->table_lock);
	known = n->unlinked;
	n->unlinked = true;
	lock_drop(&c->table_lock);
	if (!known)
		place_due(c, ino);
	if (!known && atomic_load(&n->opens) == 0)
		node_given_up(c, ino);
	node_put(c, n);
}

/* The same for one that was without a name when it was listed: O_TMPFILE may have got one. */
static void
still_without_name(struct core *c, uint64_t ino)
{
	struct node *n = node_get(c, ino);
	struct inode row;

	if (n == NULL)
		return;
	lock_take(&c->table_lock);
	if (index_get(c->ix, ino, &row) == 0 && row.nlink == 0)
		n->unlinked = true;
	lock_drop(&c->table_lock);
	node_put(c, n);
}

void
node_unlinked(struct core *c, const struct inode *inode)
{
	if (inode->nlink == 0)
		without_name(c, inode->ino);
}

void
reap_with_dir(struct core *c, int64_t ctime)
{
	uint64_t inos[1024];
	int n = index_orphans_at(c->ix, ctime, inos, 1024), i;

	for (i = 0; i < n; i++)
		without_name(c, inos[i]);
	if (n > 0)
		work_queued(c, clock_wall_ns() + NSEC_PER_SEC);
}

static void
sweep(struct core *c, int64_t before)
{
	uint64_t inos[SWEEP_AT_ONCE], after = 0;
	int n, i;

	do {
		n = index_orphans(c->ix, before, after, inos, SWEEP_AT_ONCE);
		for (i = 0; i < n; i++)
			still_without_name(c, after = inos[i]);
	} while (n == SWEEP_AT_ONCE);
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

	sweep(c, at_start ? INT64_MAX : clock_wall_ns() - ORPHAN_AGE_NS);
	(void)core_reap(c);
	while ((n = index_work_due(c->ix, WORK_FREE, INT64_MAX, work, 512)) > 0) {
		/* The commits that took the rows away must be on the disk before the bytes go. */
		if (index_sync(c->ix) < 0)
			return;
		for (i = 0; i < n; i++) {
			struct stat st;
			bool there = staging_stat(c->st, work[i].id, &st) == 0;
			int r = staging_remove(c->st, work[i].id);

			if (r == 0 && there)
				came_back(c, (uint64_t)st.st_blocks * 512);
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

/* ---- space that is on its way back ---- */

static bool
is_short(struct core *c, uint64_t coming, uint64_t *ret_available)
{
	struct staging_space space;

	if (staging_space(c->st, &space) < 0)
		return false;
	*ret_available = space.available;
	return space.available < PLENTY_BYTES || coming > space.available / 8;
}

void
core_make_room(struct core *c)
{
	uint64_t coming = atomic_load(&c->given_up), before;
	struct staging_space now;
	int i;

	if (coming == 0 || !is_short(c, coming, &before))
		return;
	for (i = 0; i < FORGET_WAITS && !core_reap(c); i++)
		(void)usleep(FORGET_WAIT_US);
	core_collect(c, false);
	/* An object may share the blocks: the scheduler was told of it.  A large one goes piece by piece, and
	 * others may take some of it meanwhile. */
	for (i = 0; i < FREE_WAITS && staging_space(c->st, &now) == 0 &&
	    now.available < before + coming - coming / 8; i++)
		(void)usleep(FORGET_WAIT_US);
	/* What didn't come by now (somebody holds it by a path) nobody waits for again. */
	came_back(c, coming);
}
