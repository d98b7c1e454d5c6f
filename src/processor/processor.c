/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The processor's thread: decides what is looked at when.
 *
 *   1. Jobs are rows (WORK_DERIVE, WORK_KEEP) that the index wrote when the file became
 *      quiet; what is remembered here is only what runs now and which bells have rung.
 *   2. A bell waits out the quiet period, then settles its file and asks the index.  The
 *      sweep does the same for everything, now and then; and so does the start.
 *   3. An original is derived by one job at a time.
 */
#include "processor/private.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GONE_DELAY_NS (3 * NSEC_PER_SEC)
#define HELD_NS (2 * NSEC_PER_SEC)	/* longer than any close() takes to be heard of */

struct derive_job {
	struct processor *p;
	uint64_t ino;
	size_t slot;
};

static void
job_run(void *arg)
{
	struct derive_job *j = arg;
	struct processor *p = j->p;

	derive_run(p, j->ino);
	lock_take(&p->lock);
	p->running[j->slot] = 0;
	p->n_running--;
	p->ask = true;
	(void)pthread_cond_broadcast(&p->changed);
	lock_drop(&p->lock);
	free(j);
}

/* False when all workers have enough to do. */
static bool
launch(struct processor *p, uint64_t ino)
{
	struct derive_job *j = malloc(sizeof(*j));
	bool full, known = false;
	size_t i, slot = 0;

	if (j == NULL)
		return false;
	lock_take(&p->lock);
	full = p->n_running >= p->opt.workers * 2 || p->n_running >= JOBS_MAX;
	for (i = 0; i < JOBS_MAX; i++) {
		known = known || p->running[i] == ino;
		if (p->running[i] == 0)
			slot = i;
	}
	if (!full && !known) {
		p->running[slot] = ino;
		p->n_running++;
	}
	lock_drop(&p->lock);
	if (full || known) {
		free(j);
		return !full;
	}
	*j = (struct derive_job){ p, ino, slot };
	(void)jobq_put(p->jobs, job_run, j);
	return true;
}

/* ---- what is due ---- */

/* Bells whose quiet period is over; returns when the next one's is. */
static int64_t
take_rings(struct processor *p, uint64_t *inos, size_t max, size_t *ret_n)
{
	int64_t now = clock_mono_ns(), next = INT64_MAX;
	size_t i = 0, n = 0;

	lock_take(&p->lock);
	while (i < p->n_rings) {
		if (p->rings[i].at <= now && n < max) {
			inos[n++] = p->rings[i].ino;
			p->rings[i] = p->rings[--p->n_rings];
			continue;
		}
		next = p->rings[i].at < next ? p->rings[i].at : next;
		i++;
	}
	lock_drop(&p->lock);
	*ret_n = n;
	return next;
}

/* Derive again, at `due`, what stands below thumbs/: the photo at `path` of the keep, or with
 * `below` all that is in that folder. */
static void
make_again(struct processor *p, const struct keep_path *k, const char *path, bool below, int64_t due)
{
	struct inode original;
	char *full = NULL;

	if (asprintf(&full, "circles/%s/keeps/%s/%s", k->circle, k->keep, path) > 0 &&
	    core_resolve(p->core, full, &original) == 0 && (below || S_ISREG(original.mode)))
		(void)index_derive_again(p->ix, original.ino, due);
	free(full);
}

/* The user wrote over what was derived: it is made again. */
static void
restore_derived(struct processor *p, const struct inode *inode)
{
	int64_t now = clock_wall_ns();
	struct keep_path k;
	char *slash;

	if (inode->generation <= 1 || core_keep_path(p->core, inode->ino, &k) < 0)
		return;
	slash = strrchr(k.rest, '/');
	if (slash != NULL)
		*slash = '\0';
	if (strncmp(k.rest, "thumbs/", 7) == 0)
		make_again(p, &k, k.rest + 7, false, now);
	else
		(void)index_keep_touch(p->ix, k.ino, now);
	keep_path_release(&k);
}

/* thumbs/<path>/<name> is gone: a thumbnail of the photo at `path`, or all of those that stand
 * in a folder. */
static void
thumbs_gone(struct processor *p, const struct keep_path *k, const char *path, const char *name,
    int64_t due)
{
	char *both = NULL;

	make_again(p, k, path, false, due);
	if (asprintf(&both, "%s/%s", path, name) > 0)
		make_again(p, k, both, true, due);
	free(both);
}

void
processor_wake(struct processor *p)
{
	lock_take(&p->lock);
	p->ask = true;
	(void)pthread_cond_signal(&p->changed);
	lock_drop(&p->lock);
}

void
processor_derived_gone(struct processor *p, uint64_t parent, const char *name)
{
	/* Not while `rm -r` is still at work. */
	int64_t due = clock_wall_ns() + GONE_DELAY_NS;
	struct keep_path k;

	if (core_keep_path(p->core, parent, &k) < 0)
		return;
	if (strncmp(k.rest, "thumbs/", 7) == 0)
		thumbs_gone(p, &k, k.rest + 7, name, due);
	else if (strcmp(k.rest, "thumbs") == 0)
		make_again(p, &k, name, true, due);
	else if (k.rest[0] == '\0' && strcmp(name, "thumbs") == 0)
		make_again(p, &k, "", true, due);
	else if (k.rest[0] == '\0' && strcmp(name, "meta.json") == 0)
		(void)index_keep_touch(p->ix, k.ino, due);
	keep_path_release(&k);
	processor_wake(p);
}

static void
answer_ring(struct processor *p, uint64_t ino)
{
	int64_t now = clock_wall_ns();
	struct inode inode;
	struct work w;
	int r;

	/* Its quiet period may have begun anew with a rename; a temporary name waits for one, and
	 * rings again then. */
	if (index_work_get(p->ix, WORK_UPLOAD, ino, &w) == 0 && w.due > now) {
		if (w.due - now <= core_quiet_period(p->core))
			ring_at(p, ino, clock_mono_ns() + w.due - now);
		return;
	}
	r = core_settle(p->core, ino, &inode);
	if (r == -EBUSY)
		ring_add(p, ino);
	else if (r == 0 && (inode.flags & INODE_DERIVED) != 0)
		restore_derived(p, &inode);
}

/* After a start, a sweep or lost events: settle all that is open and quiet. */
static void
sweep(struct processor *p)
{
	struct inode inodes[128];
	uint64_t after = 0;
	int n, i;

	while ((n = index_list_state(p->ix, OBJECT_OPEN, after, inodes, 128)) > 0) {
		for (i = 0; i < n; i++) {
			struct work w;
			struct inode now;

			/* Not before its quiet period is over. */
			if (index_work_get(p->ix, WORK_UPLOAD, inodes[i].ino, &w) == 0 &&
			    w.due <= clock_wall_ns())
				(void)core_settle(p->core, inodes[i].ino, &now);
		}
		after = inodes[n - 1].ino;
	}
}

/* Hand out what the index says is due; returns when to look again. */
static int64_t
hand_out(struct processor *p)
{
	int64_t now = clock_wall_ns(), next = INT64_MAX, due;
	struct work work[JOBS_MAX];
	int n, i;

	n = index_work_due(p->ix, WORK_KEEP, now, work, JOBS_MAX);
	for (i = 0; i < n; i++)
		keep_run(p, &work[i]);
	n = index_work_due(p->ix, WORK_DERIVE, now, work, JOBS_MAX);
	for (i = 0; i < n; i++)
		if (!launch(p, work[i].id))
			break;
	if (index_work_next(p->ix, WORK_KEEP, &due) == 0)
		next = clock_mono_ns() + (due > now ? due - now : 0);
	if (n == 0 && index_work_next(p->ix, WORK_DERIVE, &due) == 0 && due > now &&
	    clock_mono_ns() + due - now < next)
		next = clock_mono_ns() + due - now;
	return next;
}

static void
look(struct processor *p, bool all, int64_t *ret_next)
{
	uint64_t inos[256];
	int64_t next;
	size_t n, i;

	if (all)
		sweep(p);
	do {
		next = take_rings(p, inos, 256, &n);
		for (i = 0; i < n; i++)
			answer_ring(p, inos[i]);
	} while (n == 256);
	*ret_next = hand_out(p);
	if (next < *ret_next)
		*ret_next = next;
}

static void *
processor_run(void *arg)
{
	struct processor *p = arg;
	int64_t next_sweep = 0;
	bool all = true;

	lock_take(&p->lock);
	while (!p->stop) {
		int64_t next;

		p->ask = false;
		lock_drop(&p->lock);
		look(p, all, &next);
		if (all && p->opt.sweep_interval > 0)
			next_sweep = clock_mono_ns() + p->opt.sweep_interval;
		lock_take(&p->lock);
		all = false;
		if (p->opt.sweep_interval > 0 && next_sweep < next)
			next = next_sweep;
		/* Without inotify nothing happens between two sweeps. */
		if (!p->opt.inotify && p->opt.sweep_interval > 0 && p->n_running == 0)
			next = next_sweep;
		while (!p->stop && !p->ask && !p->settle_all && clock_mono_ns() < next &&
		    lock_wait(&p->lock, &p->changed, next == INT64_MAX ? 0 : next) == 0) {
			size_t i;

			for (i = 0; i < p->n_rings; i++)
				if (p->rings[i].at < next)
					next = p->rings[i].at;
		}
		all = p->settle_all || (p->opt.sweep_interval > 0 && clock_mono_ns() >= next_sweep);
		p->settle_all = false;
	}
	lock_drop(&p->lock);
	return NULL;
}

/* ---- life ---- */

int
processor_new(const struct processor_options *opt, struct processor **ret_p, struct error *err)
{
	struct processor *p = calloc(1, sizeof(*p));
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct extract_pool_options pool = { .program = opt->program, .uid = opt->uid,
		.gid = opt->gid, .limits = &opt->limits };
	int r;

	if (p == NULL)
		return -ENOMEM;
	p->opt = *opt;
	p->core = opt->core;
	p->ix = core_index(opt->core);
	p->inotify_fd = p->stop_fd = -1;
	lock_init(&p->lock, RANK_QUEUE);
	lock_cond_init(&p->changed);
	lock_cond_init(&p->placed);
	if (p->opt.workers == 0)
		p->opt.workers = cpus < 1 ? 1 : cpus > 4 ? 4 : (unsigned)cpus;
	pool.workers = p->opt.workers;
	r = extract_pool_new(&pool, &p->pool, err);
	if (r == 0)
		r = jobq_new("tbfs-derive", p->opt.workers * 2, JOBS_MAX, &p->jobs);
	if (r == 0 && opt->inotify) {
		r = bell_start(p);
		if (r < 0)
			(void)error_set(err, r, "inotify can't be used (%s): raise "
			    "fs.inotify.max_user_watches, or set inotify=off", strerror(-r));
	}
	if (r == 0) {
		int n = index_derive_outdated(p->ix, PIPELINE_VERSION);

		if (n > 0)
			log_info("%d files are derived again: this version does it differently", n);
		r = -pthread_create(&p->thread, NULL, processor_run, p);
		p->thread_runs = r == 0;
	}
	if (r < 0) {
		processor_free(p);
		return r;
	}
	(void)pthread_setname_np(p->thread, "tbfs-process");
	*ret_p = p;
	return 0;
}

void
processor_free(struct processor *p)
{
	if (p == NULL)
		return;
	atomic_store(&p->stopping, true);
	lock_take(&p->lock);
	p->stop = true;
	(void)pthread_cond_broadcast(&p->changed);
	lock_drop(&p->lock);
	bell_stop(p);
	if (p->thread_runs)
		(void)pthread_join(p->thread, NULL);
	/* Jobs see `stopping` and end; then nobody uses the pool. */
	jobq_free(p->jobs);
	extract_pool_free(p->pool);
	lock_release(&p->lock);
	(void)pthread_cond_destroy(&p->changed);
	(void)pthread_cond_destroy(&p->placed);
	free(p);
}

void
processor_changed(struct processor *p, uint64_t ino)
{
	struct derivation d;
	struct inode inode;
	struct keep_path k;
	int r = index_get(p->ix, ino, &inode);

	if (r == -ENOENT) {
		/* Gone: the index has queued what that asks for. */
	} else if (r < 0 || (inode.flags & INODE_DERIVED) != 0) {
		return;
	} else if (S_ISDIR(inode.mode)) {
		(void)index_derive_below(p->ix, ino, clock_wall_ns());
	} else if (S_ISREG(inode.mode) && inode.state != OBJECT_OPEN) {
		if (index_derived_get(p->ix, ino, &d) == 0) {
			derivation_release(&d);
		} else if (core_keep_path(p->core, ino, &k) == 0) {
			keep_path_release(&k);
		} else {
			return;
		}
		(void)index_work_add(p->ix, WORK_DERIVE, ino, clock_wall_ns());
	} else if (S_ISREG(inode.mode) && p->opt.inotify) {
		ring_add(p, ino);
		return;
	} else {
		return;
	}
	if (p->opt.inotify)
		processor_wake(p);
}

/* ---- waiting for it ---- */

/* What is stuck is not waited for. */
static bool
count_one(void *arg, const struct work *w)
{
	if (!w->stuck)
		++*(uint64_t *)arg;
	return true;
}

int
processor_drain(struct processor *p, uint64_t dir, int64_t deadline_mono_ns,
    bool (*progress)(void *arg, uint64_t remaining), void *arg)
{
	int64_t moved = clock_mono_ns();
	bool keeps_hurried = false;
	uint64_t was_open = 0;

	for (;;) {
		uint64_t open = 0, remaining = 0;

		(void)core_reap(p->core);
		lock_take(&p->lock);
		p->settle_all = true;
		(void)pthread_cond_signal(&p->changed);
		lock_drop(&p->lock);
		(void)index_work_hurry(p->ix, WORK_UPLOAD, dir, false);
		(void)index_work_hurry(p->ix, WORK_DERIVE, dir, false);
		(void)index_derive_left_below(p->ix, dir, &open, &remaining);
		if (remaining + open == 0 && !keeps_hurried) {
			(void)index_work_hurry(p->ix, WORK_KEEP, INDEX_ROOT, false);
			keeps_hurried = true;
		}
		(void)index_work_below(p->ix, WORK_KEEP, INDEX_ROOT, count_one, &remaining);
		if (remaining + open == 0)
			return 0;
		if (!progress(arg, remaining + open))
			return -ECANCELED;
		/* Only open files are left, which are settled as soon as nobody holds or maps them. */
		if (remaining > 0 || open != was_open)
			moved = clock_mono_ns();
		else if (clock_mono_ns() - moved > HELD_NS)
			return -EBUSY;
		was_open = open;
		if (clock_mono_ns() >= deadline_mono_ns)
			return -ETIMEDOUT;
		(void)usleep(remaining > 100 ? 200000 : 50000);
	}
}
