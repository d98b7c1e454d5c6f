/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The worker pool.
 *
 *	slot		worker		leaves by
 *	idle		none or alive	extract_pool_run takes it
 *	busy		alive		job done → idle; job failed badly → worker killed, idle
 *
 *  1. One job at a time for each slot, one worker at most; a slot belongs to the
 *     thread that took it until it is given back.
 *  2. A worker that broke the protocol, died, overran its deadline or whose job
 *     was cancelled is never used again: it is killed and reaped before the
 *     slot is idle.
 *  3. A file can make its own result bad, never the pool's: extract_pool_run
 *     fails only when no worker can be started (or the daemon is out of memory
 *     or descriptors).
 *  4. A worker is replaced after so many jobs, so that what a file may have left
 *     behind in it is bounded.
 *
 * Threads: any number call extract_pool_run; one more starts workers (worker.c).
 * One lock, RANK_QUEUE, guards what is marked so; it isn't held while a worker
 * is started, fed or waited for.
 */
#include "processor/pool.h"

#include "base/clock.h"
#include "base/frame.h"
#include "base/lock.h"
#include "processor/protocol.h"
#include "processor/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define POOL_WORKERS_MAX 64
#define POOL_NOBODY 65534
#define POOL_GUARDS (EXTRACT_GUARD_USER | EXTRACT_GUARD_CAPS | EXTRACT_GUARD_NO_NEW_PRIVS | \
	EXTRACT_GUARD_RLIMITS | EXTRACT_GUARD_SECCOMP)

struct slot {
	struct worker worker;		/* who took the slot */
	bool busy;			/* lock */
};

struct extract_pool {
	struct lock lock;
	pthread_cond_t changed;		/* a slot is idle, or stopping */
	struct slot *slots;
	unsigned n_slots;
	unsigned jobs_per_worker;
	char *program;
	struct worker_options options;	/* constant after extract_pool_new */
	struct spawner *spawner;
	unsigned guards;		/* lock */
	bool stopping;			/* lock */
};

/* One call of extract_pool_run. */
struct run {
	struct extract_pool *pool;
	struct slot *slot;
	int fd;
	uint64_t size;
	extract_cancel_fn *cancelled;
	void *arg;
};

static unsigned
pool_default_workers(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 1 ? 1 : n > 4 ? 4 : (unsigned)n;
}

static void
pool_set_options(struct extract_pool *p, const struct extract_pool_options *o)
{
	static const struct extract_limits defaults = EXTRACT_LIMITS_DEFAULT;

	p->jobs_per_worker = o->jobs_per_worker > 0 ? o->jobs_per_worker : 256;
	p->options.program = p->program;
	p->options.guards = o->unguarded ? 0 : POOL_GUARDS;
	p->options.start_s = o->start_s > 0 ? o->start_s : 30;
	p->options.hello = (struct extract_hello){
		.version = EXTRACT_WIRE_VERSION,
		.uid = o->uid != 0 ? o->uid : POOL_NOBODY,
		.gid = o->gid != 0 ? o->gid : POOL_NOBODY,
		.parent = (uint32_t)getpid(),
		.limits = o->limits != NULL ? *o->limits : defaults,
	};
}

int
extract_pool_new(const struct extract_pool_options *options, struct extract_pool **ret_pool,
    struct error *err)
{
	const char *program = options->program;
	struct extract_pool *p;
	unsigned n = options->workers > 0 ? options->workers : pool_default_workers(), i;
	int r;

	if (program == NULL)
		program = PKGLIBEXECDIR "/tbfs-extract";
	if (n > POOL_WORKERS_MAX)
		return error_set(err, -EINVAL, "%u workers: at most %d", n, POOL_WORKERS_MAX);
	if (access(program, X_OK) < 0)
		return error_set(err, -errno, "can't run %s: %s", program, strerror(errno));
	p = calloc(1, sizeof(*p));
	if (p == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	lock_init(&p->lock, RANK_QUEUE);
	lock_cond_init(&p->changed);
	p->program = strdup(program);
	p->slots = calloc(n, sizeof(*p->slots));
	r = p->program == NULL || p->slots == NULL ? -ENOMEM : spawner_new(&p->spawner);
	if (r < 0) {
		extract_pool_free(p);
		return error_set(err, r, "worker pool: %s", strerror(-r));
	}
	for (i = 0; i < n; i++)
		p->slots[i].worker = (struct worker)WORKER_INIT;
	p->n_slots = n;
	pool_set_options(p, options);
	*ret_pool = p;
	return 0;
}

void
extract_pool_free(struct extract_pool *p)
{
	unsigned i;

	if (p == NULL)
		return;
	lock_take(&p->lock);
	p->stopping = true;
	(void)pthread_cond_broadcast(&p->changed);
	for (i = 0; i < p->n_slots; i++)
		while (p->slots[i].busy)
			(void)lock_wait(&p->lock, &p->changed, 0);
	lock_drop(&p->lock);
	for (i = 0; i < p->n_slots; i++)
		worker_stop(&p->slots[i].worker, NULL);
	spawner_free(p->spawner);
	(void)pthread_cond_destroy(&p->changed);
	lock_release(&p->lock);
	free(p->slots);
	free(p->program);
	free(p);
}

unsigned
extract_pool_guards(struct extract_pool *p)
{
	unsigned guards;

	lock_take(&p->lock);
	guards = p->guards;
	lock_drop(&p->lock);
	return guards;
}

static bool
run_stopped(void *arg)
{
	struct run *run = arg;
	bool stopping;

	lock_take(&run->pool->lock);
	stopping = run->pool->stopping;
	lock_drop(&run->pool->lock);
	return stopping || (run->cancelled != NULL && run->cancelled(run->arg));
}

/* An idle slot, one with a living worker if there is any; lock held. */
static struct slot *
pool_idle_slot(struct extract_pool *p)
{
	struct slot *found = NULL;
	unsigned i;

	for (i = 0; i < p->n_slots; i++) {
		if (p->slots[i].busy)
			continue;
		if (p->slots[i].worker.pid > 0)
			return &p->slots[i];
		if (found == NULL)
			found = &p->slots[i];
	}
	return found;
}

static int
run_take_slot(struct run *run)
{
	struct extract_pool *p = run->pool;

	while (!run_stopped(run)) {
		lock_take(&p->lock);
		run->slot = p->stopping ? NULL : pool_idle_slot(p);
		if (run->slot != NULL)
			run->slot->busy = true;
		else
			(void)lock_wait(&p->lock, &p->changed, clock_mono_ns() + 50000000);
		lock_drop(&p->lock);
		if (run->slot != NULL)
			return 0;
	}
	return -ECANCELED;
}

static void
run_give_slot(struct run *run)
{
	struct extract_pool *p = run->pool;

	lock_take(&p->lock);
	if (run->slot->worker.pid > 0)
		p->guards = run->slot->worker.guards;
	run->slot->busy = false;
	(void)pthread_cond_broadcast(&p->changed);
	lock_drop(&p->lock);
}

/* Hand the job over: to the worker that is there, or to a new one if that one is gone. */
static int
run_send_job(struct run *run, struct error *err)
{
	struct worker *w = &run->slot->worker;
	const struct worker_options *o = &run->pool->options;
	struct extract_job job = { .size = run->size };
	int tries, r = -EPIPE;

	if (w->pid > 0 && w->jobs >= run->pool->jobs_per_worker)
		worker_stop(w, NULL);
	for (tries = 0; tries < 2; tries++) {
		if (w->pid <= 0) {
			r = worker_start(w, run->pool->spawner, o, run_stopped, run, err);
			if (r < 0)
				return r;
		}
		worker_grant_cpu(w, o->hello.limits.cpu_s +
		    (uint32_t)(run->size / EXTRACT_HASH_RATE));
		r = frame_send(w->sock, EXTRACT_JOB, &job, sizeof(job), run->fd, MSG_DONTWAIT);
		if (r == 0) {
			w->jobs++;
			return 0;
		}
		worker_stop(w, NULL);
	}
	return error_set(err, r, "can't hand a job to %s: %s", o->program, strerror(-r));
}

/* Receive until done.  0; -EPIPE it died, -ETIMEDOUT, -EPROTO, -ECANCELED; else our own. */
static int
run_receive(struct run *run, struct intake *in, struct error *err)
{
	const struct extract_limits *limits = &run->pool->options.hello.limits;
	int64_t until = clock_mono_ns() + NSEC_PER_SEC *
	    (int64_t)(limits->deadline_s + run->size / EXTRACT_HASH_RATE);
	char buf[FRAME_MAX];

	while (!in->done) {
		uint32_t type;
		size_t len;
		int r;

		if (run_stopped(run))
			return error_set(err, -ECANCELED, "cancelled");
		r = worker_wait(&run->slot->worker, until);
		if (r == 0)
			continue;
		if (r > 0)
			r = frame_recv(run->slot->worker.sock, &type, buf, &len, NULL,
			    MSG_DONTWAIT);
		if (r == -EAGAIN)
			continue;
		if (r == 0)
			r = intake_frame(in, type, buf, len, err);
		else
			(void)error_set(err, r, "%s", r == -EPROTO ? "a broken frame" :
			    strerror(-r));
		if (r < 0)
			return r;
	}
	return 0;
}

/* What a worker's end says about the file it had. */
static void
run_judge_death(const struct run *run, const struct worker_end *end, struct intake_failure *f)
{
	uint64_t memory = run->pool->options.hello.limits.memory_bytes;
	int sig = WIFSIGNALED(end->status) ? WTERMSIG(end->status) : 0;

	if (sig == SIGXCPU) {
		f->code = "timeout";
		(void)snprintf(f->message, sizeof(f->message), "more than %u s of CPU time",
		    run->pool->options.hello.limits.cpu_s);
	} else if ((sig == SIGKILL && !end->killed) ||
	    (uint64_t)end->peak_kib * 1024 > memory - memory / 4 ||
	    (WIFEXITED(end->status) && WEXITSTATUS(end->status) == EXTRACT_EXIT_MEMORY)) {
		f->code = "memory";
		(void)snprintf(f->message, sizeof(f->message),
		    "needs more than the %ju MiB a worker may use", (uintmax_t)(memory >> 20));
	} else if (sig == SIGSYS) {
		f->code = "crashed";
		(void)snprintf(f->message, sizeof(f->message),
		    "the worker tried what its sandbox forbids");
	} else if (sig != 0) {
		f->code = "crashed";
		(void)snprintf(f->message, sizeof(f->message), "the worker died of signal %d",
		    sig);
	} else {
		f->code = "crashed";
		(void)snprintf(f->message, sizeof(f->message), "the worker ended with %d",
		    WEXITSTATUS(end->status));
	}
}

/* A socket closes before its process is a zombie: give it a moment to say how it died, but
 * not for ever, as it may have closed the socket and live. */
static void
run_await_death(const struct worker *w)
{
	const struct timespec nap = { .tv_nsec = 2000000 };
	siginfo_t info;
	int i;

	for (i = 0; i < 500; i++) {
		info.si_pid = 0;
		if (waitid(P_PID, (id_t)w->pid, &info, WEXITED | WNOWAIT | WNOHANG) < 0 ||
		    info.si_pid != 0)
			return;
		(void)nanosleep(&nap, NULL);
	}
}

/* Turn a failed reception into the file's failure; -errno when it isn't the file's. */
static int
run_judge(struct run *run, int r, const struct intake *in, const struct error *why,
    struct intake_failure *f, struct error *err)
{
	struct worker_end end = { .status = 0 };

	if (r == -EPIPE)
		run_await_death(&run->slot->worker);
	worker_stop(&run->slot->worker, &end);
	f->stage = in->stage;
	if (r == -EPIPE) {
		run_judge_death(run, &end, f);
	} else if (r == -ETIMEDOUT) {
		f->code = "timeout";
		(void)snprintf(f->message, sizeof(f->message), "not done in %u s",
		    run->pool->options.hello.limits.deadline_s);
	} else if (r == -EPROTO) {
		f->code = "protocol";
		(void)snprintf(f->message, sizeof(f->message), "the worker broke the protocol: %s",
		    error_text(why));
	} else {
		return error_set(err, r, "%s", error_text(why));
	}
	return 0;
}

int
extract_pool_run(struct extract_pool *pool, int fd, uint64_t size, const char *name,
    extract_cancel_fn *cancelled, void *arg, struct extract_result *ret, struct error *err)
{
	struct run run = { pool, NULL, fd, size, cancelled, arg };
	struct intake_failure failure = { .code = NULL };
	struct error why = { 0 };
	struct intake in;
	int r;

	lock_assert_none();
	r = run_take_slot(&run);
	if (r < 0)
		return error_set(err, r, "%s: cancelled", name);
	intake_init(&in);
	r = run_send_job(&run, err);
	if (r == 0) {
		r = run_receive(&run, &in, &why);
		if (r < 0)
			r = run_judge(&run, r, &in, &why, &failure, err);
	}
	if (r == 0)
		r = intake_finish(&in, &failure, &pool->options.hello.limits, ret);
	if (r == 0)
		ret->worker_died = failure.code != NULL;
	run_give_slot(&run);
	intake_release(&in);
	return r;
}

void
extract_result_release(struct extract_result *r)
{
	unsigned i;

	for (i = 0; i < r->n_thumbs; i++)
		if (r->thumbs[i].fd >= 0)
			(void)close(r->thumbs[i].fd);
	free(r->json);
	*r = (struct extract_result){ .json = NULL };
}
