/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The scheduler: one thread that asks the index what is due and hands it to workers.
 *
 *   1. What is being done is remembered only here (`flights`): a piece of work is handed
 *      out once at a time, and nothing of an inode beside something else of it.
 *   2. While a store is failing nothing is handed out for it but one attempt now and then.
 *   3. Removals come before uploads: they free keys.
 */
#include "sync/private.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IDLE_NS (60 * NSEC_PER_SEC)
#define COLLECT_EVERY_NS NSEC_PER_SEC	/* what was unlinked is freed in batches */
#define RELEASE_GRACE_NS NSEC_PER_SEC
enum { PATIENT = 4 };		/* attempts for a key before a drain doesn't wait for it */
#define UNRECORDED_US 500000
#define BREATH_US 5000		/* results come in flocks: look once for many */

/* ---- flights ---- */

static struct flight *
flight_find(struct syncer *s, enum work_kind kind, uint64_t id)
{
	/* Uploads and relocations are both of an inode. */
	bool of_inode = kind == WORK_UPLOAD || kind == WORK_RELOCATE;
	size_t i;

	for (i = 0; i < IN_FLIGHT_MAX; i++) {
		struct flight *f = &s->flights[i];

		if (f->id == id && (f->kind == kind ||
		    (of_inode && (f->kind == WORK_UPLOAD || f->kind == WORK_RELOCATE))))
			return f;
	}
	return NULL;
}

void
work_failed(struct syncer *s, enum work_kind kind, uint64_t id, unsigned attempts, bool stuck,
    const struct error *err)
{
	/* What can't be put off (the index takes nothing) would be due again at once. */
	if (index_work_failed(s->ix, kind, id, retry_time(attempts), stuck, error_text(err)) < 0)
		(void)usleep(UNRECORDED_US);
}

static void
expand_run(struct syncer *s, uint64_t dir, unsigned attempts)
{
	struct error err = { 0 };
	int r = index_expand(s->ix, dir, clock_wall_ns());

	if (r == 0)
		return;
	(void)error_set(&err, r, "what is below a renamed directory can't be queued: %s", strerror(-r));
	work_failed(s, WORK_EXPAND, dir, attempts, false, &err);
}

static void
flight_run(void *arg)
{
	struct flight *f = arg;
	struct syncer *s = f->s;

	switch (atomic_load(&s->stopping) ? WORK_FREE : f->kind) {
	case WORK_UPLOAD:
		upload_run(s, f->id, f->attempts);
		break;
	case WORK_RELOCATE:
		relocate_run(s, f->id, f->attempts);
		break;
	case WORK_REMOVE:
		remove_run(s, f->id, f->attempts);
		break;
	case WORK_EXPAND:
		expand_run(s, f->id, f->attempts);
		break;
	default:
		break;
	}
	lock_take(&s->lock);
	f->id = 0;
	s->n_flights--;
	s->asked = 0;
	(void)pthread_cond_broadcast(&s->changed);
	lock_drop(&s->lock);
}

/* Returns false when there is no room for another. */
static bool
launch(struct syncer *s, const struct work *w)
{
	struct flight *f = NULL;
	size_t i;

	lock_take(&s->lock);
	if (s->n_flights == IN_FLIGHT_MAX || s->n_flights >= s->opt.workers * 2) {
		lock_drop(&s->lock);
		return false;
	}
	if (flight_find(s, w->kind, w->id) == NULL) {
		for (i = 0; s->flights[i].id != 0; i++)
			;
		f = &s->flights[i];
		*f = (struct flight){ s, w->kind, w->id, w->attempts };
		s->n_flights++;
	}
	lock_drop(&s->lock);
	if (f != NULL)
		(void)jobq_put(s->workers, flight_run, f);
	return true;
}

/* ---- scheduling ---- */

static const enum work_kind order[] = { WORK_EXPAND, WORK_REMOVE, WORK_RELOCATE, WORK_UPLOAD };

/* Hand out what is due.  Returns when to look again (monotonic ns). */
static int64_t
schedule(struct syncer *s)
{
	int64_t now = clock_wall_ns(), next = IDLE_NS, due;
	int64_t down = store_wait(&s->stores->store[0]);
	struct work work[IN_FLIGHT_MAX];
	size_t k;
	int n, i;

	for (k = 0; k < sizeof(order) / sizeof(order[0]); k++) {
		if (down > 0 && order[k] != WORK_EXPAND) {
			next = down < next ? down : next;
			continue;
		}
		n = index_work_due(s->ix, order[k], now, work, IN_FLIGHT_MAX);
		for (i = 0; i < n; i++)
			if (!launch(s, &work[i]))
				return clock_mono_ns() + NSEC_PER_SEC;
		if (n == 0 && index_work_next(s->ix, order[k], &due) == 0 && due - now < next)
			next = due - now;
	}
	return clock_mono_ns() + next;
}

/* Until then, or until somebody asks for an earlier look; the lock is held. */
static void
sleep_until(struct syncer *s, int64_t until)
{
	int64_t now, end;

	for (;;) {
		now = clock_mono_ns();
		end = s->asked < until ? s->asked : until;
		if (s->stop || end <= now)
			break;
		atomic_store(&s->planned, clock_wall_ns() + end - now);
		(void)lock_wait(&s->lock, &s->changed, end);
	}
	atomic_store(&s->planned, INT64_MAX);
}

static void *
scheduler_run(void *arg)
{
	struct syncer *s = arg;
	int64_t collected = 0;
	bool busy;

	lock_take(&s->lock);
	while (!s->stop) {
		int64_t until;
		bool more;

		/* What is asked for from here on counts for the next look. */
		s->asked = INT64_MAX;
		lock_drop(&s->lock);
		/* Of what the processor took away. */
		core_write_places(s->core);
		/* First, so that the key of what was replaced is free for what is there now. */
		more = core_reap(s->core);
		until = schedule(s);
		if (clock_mono_ns() - collected > COLLECT_EVERY_NS) {
			core_collect(s->core, false);
			core_tell_lingering(s->core);
			collected = clock_mono_ns();
		} else {
			more = true;
		}
		if (more && until > collected + COLLECT_EVERY_NS)
			until = collected + COLLECT_EVERY_NS;
		lock_take(&s->lock);
		sleep_until(s, until);
		busy = s->n_flights > 0;
		if (busy && !s->stop) {
			lock_drop(&s->lock);
			(void)usleep(BREATH_US);
			lock_take(&s->lock);
		}
	}
	lock_drop(&s->lock);
	return NULL;
}

void
syncer_wake(struct syncer *s, int64_t due)
{
	int64_t now = clock_wall_ns(), when = due <= now ? 0 : clock_mono_ns() + due - now;

	if (due >= atomic_load(&s->planned))
		return;
	lock_take(&s->lock);
	s->asked = when < s->asked ? when : s->asked;
	(void)pthread_cond_broadcast(&s->changed);
	lock_drop(&s->lock);
}

int
syncer_new(const struct syncer_options *opt, struct syncer **ret_s)
{
	struct syncer *s = calloc(1, sizeof(*s));
	int r;

	if (s == NULL)
		return -ENOMEM;
	s->opt = *opt;
	syncer_set_max_size(s, opt->max_size);
	s->core = opt->core;
	s->ix = core_index(opt->core);
	s->stores = opt->stores;
	atomic_store(&s->planned, INT64_MAX);
	lock_init(&s->lock, RANK_QUEUE);
	lock_cond_init(&s->changed);
	r = jobq_new("tbfs-sync", opt->workers, IN_FLIGHT_MAX, &s->workers);
	if (r == 0)
		r = -pthread_create(&s->scheduler, NULL, scheduler_run, s);
	if (r < 0) {
		jobq_free(s->workers);
		lock_release(&s->lock);
		free(s);
		return r;
	}
	(void)pthread_setname_np(s->scheduler, "tbfs-schedule");
	*ret_s = s;
	return 0;
}

void
syncer_set_max_size(struct syncer *s, uint64_t max_size)
{
	atomic_store(&s->max_size, max_size);
}

void
syncer_stop(struct syncer *s)
{
	if (s == NULL)
		return;
	atomic_store(&s->stopping, true);
	lock_take(&s->lock);
	s->stop = true;
	(void)pthread_cond_broadcast(&s->changed);
	lock_drop(&s->lock);
	(void)pthread_join(s->scheduler, NULL);
	jobq_free(s->workers);
}

void
syncer_free(struct syncer *s)
{
	if (s == NULL)
		return;
	lock_release(&s->lock);
	(void)pthread_cond_destroy(&s->changed);
	free(s);
}

/* ---- draining ---- */

/* The way that work takes: what one of these ends can begin another further down.  Counted in
 * this order nothing is missed that moves on meanwhile. */
static const enum work_kind flow[] = { WORK_EXPAND, WORK_UPLOAD, WORK_RELOCATE, WORK_REMOVE };

struct drain_look {
	struct sync_progress p;
	uint64_t in_use;		/* uploads that a writer or a mapping holds up */
	uint64_t waiting;		/* relocations whose key isn't given up */
	uint64_t sample;
};

static bool
drain_count(void *arg, const struct work *w)
{
	struct drain_look *l = arg;

	l->p.remaining++;
	if (w->stuck)
		l->p.stuck++;
	else if (w->wait == WAIT_WRITER)
		l->in_use++;
	else if (w->wait == WAIT_KEY && w->attempts > PATIENT)
		l->waiting++;
	if (l->sample == 0 || w->stuck) {
		l->sample = w->kind == WORK_REMOVE ? 0 : w->id;
		(void)snprintf(l->p.error, sizeof(l->p.error), "%s", w->error);
	}
	return true;
}

static void
drain_look(struct syncer *s, uint64_t dir, struct drain_look *l)
{
	CLEANUP_FREE char *path = NULL;
	uint64_t writer = 0;
	size_t k;

	*l = (struct drain_look){ .sample = 0 };
	for (k = 0; k < sizeof(flow) / sizeof(flow[0]); k++)
		if (flow[k] == WORK_UPLOAD || dir == INDEX_ROOT)
			(void)index_work_below(s->ix, flow[k], dir, drain_count, l);
	l->p.busy = core_count_writers(s->core, dir, &writer);
	/* One that failed tells more than one that is only open. */
	if (l->p.error[0] == '\0' && writer != 0)
		l->sample = writer;
	if (l->sample != 0 && index_path(s->ix, l->sample, &path) == 0)
		(void)snprintf(l->p.path, sizeof(l->p.path), "%s", path);
	if (l->p.busy < l->in_use)
		l->p.busy = l->in_use;
}

static void
drain_hurry(struct syncer *s, uint64_t dir, bool failed_too)
{
	size_t k;

	for (k = 0; k < sizeof(flow) / sizeof(flow[0]); k++)
		if (flow[k] == WORK_UPLOAD || dir == INDEX_ROOT)
			(void)index_work_hurry(s->ix, flow[k], dir, failed_too);
	syncer_wake(s, 0);
}

int
syncer_drain(struct syncer *s, uint64_t dir, int64_t deadline_mono_ns,
    bool (*progress)(void *arg, const struct sync_progress *p), void *arg,
    struct sync_progress *ret_left)
{
	int64_t begun = clock_mono_ns(), hurried = 0;
	struct drain_look l;
	uint64_t held;
	bool first = true;
	int r = index_upload_all(s->ix);

	if (r < 0)
		return r;
	for (;; first = false) {
		(void)core_reap(s->core);
		drain_look(s, dir, &l);
		held = l.p.busy + l.p.stuck + (l.p.busy + l.p.stuck > 0 ? l.waiting : 0);
		/* close() returns before the kernel releases the file: give it a moment. */
		if (l.p.busy > 0 && l.p.remaining <= held)
			r = clock_mono_ns() - begun > RELEASE_GRACE_NS ? -EBUSY : -EINPROGRESS;
		else if (l.p.remaining == 0)
			r = index_sync(s->ix);		/* a power cut leaves it said */
		else if (l.p.remaining <= held)
			r = -EIO;
		else
			r = -EINPROGRESS;
		if (r == -EINPROGRESS && clock_mono_ns() >= deadline_mono_ns)
			r = -ETIMEDOUT;
		else if (progress != NULL && !progress(arg, &l.p))
			r = -ECANCELED;
		if (r != -EINPROGRESS)
			break;
		/* Looking costs a walk over the work and hurrying a commit: seldom, by the clock. */
		if (first || clock_mono_ns() - hurried > NSEC_PER_SEC / 2) {
			drain_hurry(s, dir, first);
			hurried = clock_mono_ns();
		}
		(void)usleep(l.p.remaining > 100 ? 100000 : 20000);
	}
	*ret_left = l.p;
	return r;
}

/* ---- cold bytes ---- */

static int
fetch(void *arg, const struct object *object, int fd, struct error *err)
{
	struct syncer *s = arg;
	struct store *store = stores_find(s->stores, object->backend);
	uint8_t sum[SHA256_LEN];
	int tries, r;

	if (store == NULL)
		return error_set(err, -ENODEV, "its store %s is not configured", object->backend);
	for (tries = 0; tries < 2; tries++) {
		r = backend_get(store->backend, object->key, 0, object->size, fd, 0, err);
		store_report(store, r, err);
		if (r < 0)
			return r;
		r = sha256_fd(fd, 0, object->size, sum);
		if (r == 0 && memcmp(sum, object->sha256, SHA256_LEN) == 0)
			return 0;
	}
	return error_set(err, -EIO, "%s in store %s is not what was stored there (checksum)",
	    object->key, object->backend);
}

static int
unshare_object(void *arg, const struct object *object, struct error *err)
{
	struct syncer *s = arg;
	struct store *store = stores_find(s->stores, object->backend);

	if (store == NULL)
		return error_set(err, -ENODEV, "its store %s is not configured", object->backend);
	return backend_unshare(store->backend, object->key, err);
}

static int
url(void *arg, const struct object *object, unsigned expires, char **ret_url, struct error *err)
{
	struct syncer *s = arg;
	struct store *store = stores_find(s->stores, object->backend);

	if (store == NULL)
		return error_set(err, -ENODEV, "its store %s is not configured", object->backend);
	return backend_get_url(store->backend, object->key, expires, ret_url, err);
}

void
syncer_fetcher(struct syncer *s, struct fetcher *ret_fetcher)
{
	*ret_fetcher = (struct fetcher){ s, fetch, unshare_object, url };
}
