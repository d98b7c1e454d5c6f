/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * One worker process, seen from the daemon.
 *
 *  1. A pid is ours from posix_spawn until wait4 has returned it: it is killed
 *     by that number only in between, so it can't be somebody else's.
 *  2. The child inherits its end of the socketpair and /dev/null, nothing else:
 *     every other descriptor is closed in the child, whoever opened it without
 *     close-on-exec.  Its environment is made here.
 *  3. The daemon has many threads: posix_spawn does between fork and exec only
 *     what is safe there.
 *  4. Workers are started by one thread of their own.  PR_SET_PDEATHSIG fires
 *     when the thread that made the child exits, and the threads that run jobs
 *     come and go.
 *
 * Threads: the spawner's queue is one place, guarded by its lock; a struct
 * worker belongs to whoever holds the pool's slot.
 */
#include "processor/worker.h"

#include "base/clock.h"
#include "base/frame.h"
#include "base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct spawn_request {
	const char *program;
	int sock;
	pid_t pid;
	int result;
	bool done;
};

struct spawner {
	struct lock lock;
	pthread_cond_t changed;
	pthread_t thread;
	struct spawn_request *request;	/* lock; NULL: none */
	bool stop;			/* lock */
};

/* What a sanitizer build needs to find its options; nothing else of ours is inherited. */
static char *
spawn_keep_env(const char *name, char *room, size_t size)
{
	const char *value = getenv(name);
	int n;

	if (value == NULL)
		return NULL;
	n = snprintf(room, size, "%s=%s", name, value);
	return n > 0 && (size_t)n < size ? room : NULL;
}

static int
spawn_actions(posix_spawn_file_actions_t *a, int sock)
{
	int r = posix_spawn_file_actions_adddup2(a, sock, EXTRACT_WIRE_FD);

	if (r == 0)
		r = posix_spawn_file_actions_addopen(a, 0, "/dev/null", O_RDONLY, 0);
	if (r == 0)
		r = posix_spawn_file_actions_addopen(a, 1, "/dev/null", O_WRONLY, 0);
	/* Set by hand to see what libraries and sanitizers say; else their chatter is lost. */
	if (r == 0 && getenv("TBFS_EXTRACT_STDERR") == NULL)
		r = posix_spawn_file_actions_addopen(a, 2, "/dev/null", O_WRONLY, 0);
	if (r == 0)
		r = posix_spawn_file_actions_addclosefrom_np(a, EXTRACT_WIRE_FD + 1);
	return r;
}

static int
spawn_attributes(posix_spawnattr_t *a)
{
	sigset_t none, all;
	int r;

	(void)sigemptyset(&none);
	(void)sigfillset(&all);
	r = posix_spawnattr_setflags(a,
	    POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	if (r == 0)
		r = posix_spawnattr_setpgroup(a, 0);
	if (r == 0)
		r = posix_spawnattr_setsigmask(a, &none);
	if (r == 0)
		r = posix_spawnattr_setsigdefault(a, &all);
	return r;
}

static int
spawn_now(const char *program, int sock, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	char path[] = "PATH=/usr/bin:/bin", tz[] = "TZ=UTC", lc[] = "LC_ALL=C.UTF-8";
	char arena[] = "MALLOC_ARENA_MAX=2", asan[512], ubsan[512];
	char name[] = "tbfs-extract";
	char *argv[] = { name, NULL };
	char *env[8] = { path, tz, lc, arena };
	size_t n = 4;
	int r;

	env[n] = spawn_keep_env("ASAN_OPTIONS", asan, sizeof(asan));
	n += env[n] != NULL;
	env[n] = spawn_keep_env("UBSAN_OPTIONS", ubsan, sizeof(ubsan));
	r = posix_spawn_file_actions_init(&actions);
	if (r != 0)
		return -r;
	r = posix_spawnattr_init(&attr);
	if (r == 0) {
		r = spawn_actions(&actions, sock);
		if (r == 0)
			r = spawn_attributes(&attr);
		if (r == 0)
			r = posix_spawn(ret_pid, program, &actions, &attr, argv, env);
		(void)posix_spawnattr_destroy(&attr);
	}
	(void)posix_spawn_file_actions_destroy(&actions);
	return -r;
}

static void *
spawner_run(void *arg)
{
	struct spawner *sp = arg;

	lock_take(&sp->lock);
	while (!sp->stop) {
		struct spawn_request *q = sp->request;

		if (q == NULL || q->done) {
			(void)lock_wait(&sp->lock, &sp->changed, 0);
			continue;
		}
		lock_drop(&sp->lock);
		q->result = spawn_now(q->program, q->sock, &q->pid);
		lock_take(&sp->lock);
		q->done = true;
		(void)pthread_cond_broadcast(&sp->changed);
	}
	lock_drop(&sp->lock);
	return NULL;
}

int
spawner_new(struct spawner **ret_spawner)
{
	struct spawner *sp = calloc(1, sizeof(*sp));
	int r;

	if (sp == NULL)
		return -ENOMEM;
	lock_init(&sp->lock, RANK_QUEUE);
	lock_cond_init(&sp->changed);
	r = pthread_create(&sp->thread, NULL, spawner_run, sp);
	if (r != 0) {
		lock_release(&sp->lock);
		(void)pthread_cond_destroy(&sp->changed);
		free(sp);
		return -r;
	}
	*ret_spawner = sp;
	return 0;
}

void
spawner_free(struct spawner *sp)
{
	if (sp == NULL)
		return;
	lock_take(&sp->lock);
	sp->stop = true;
	(void)pthread_cond_broadcast(&sp->changed);
	lock_drop(&sp->lock);
	(void)pthread_join(sp->thread, NULL);
	(void)pthread_cond_destroy(&sp->changed);
	lock_release(&sp->lock);
	free(sp);
}

static int
spawner_spawn(struct spawner *sp, const char *program, int sock, pid_t *ret_pid)
{
	struct spawn_request q = { .program = program, .sock = sock };

	lock_take(&sp->lock);
	while (sp->request != NULL)
		(void)lock_wait(&sp->lock, &sp->changed, 0);
	sp->request = &q;
	(void)pthread_cond_broadcast(&sp->changed);
	while (!q.done)
		(void)lock_wait(&sp->lock, &sp->changed, 0);
	sp->request = NULL;
	(void)pthread_cond_broadcast(&sp->changed);
	lock_drop(&sp->lock);
	if (q.result == 0)
		*ret_pid = q.pid;
	return q.result;
}

int
worker_wait(const struct worker *w, int64_t until_ns)
{
	struct pollfd p = { .fd = w->sock, .events = POLLIN };
	int64_t left = (until_ns - clock_mono_ns()) / 1000000;
	int n;

	if (left <= 0)
		return -ETIMEDOUT;
	n = poll(&p, 1, left < 50 ? (int)left + 1 : 50);
	if (n < 0 && errno != EINTR)
		return -errno;
	return n > 0;
}

void
worker_grant_cpu(const struct worker *w, uint32_t cpu_s)
{
	struct rlimit limit = { .rlim_max = RLIM_INFINITY };
	struct timespec used;
	clockid_t clock;

	if (clock_getcpuclockid(w->pid, &clock) != 0 || clock_gettime(clock, &used) < 0)
		return;
	limit.rlim_cur = (rlim_t)used.tv_sec + cpu_s + 1;
	(void)prlimit(w->pid, RLIMIT_CPU, &limit, NULL);
}

void
worker_stop(struct worker *w, struct worker_end *ret_end)
{
	struct worker_end end = { .status = 0 };
	struct rusage usage = { .ru_maxrss = 0 };
	pid_t pid;

	if (w->sock >= 0)
		(void)close(w->sock);
	w->sock = -1;
	if (w->pid <= 0)
		return;
	do
		pid = wait4(w->pid, &end.status, WNOHANG, &usage);
	while (pid < 0 && errno == EINTR);
	if (pid == 0) {
		end.killed = true;
		(void)kill(w->pid, SIGKILL);
		do
			pid = wait4(w->pid, &end.status, 0, &usage);
		while (pid < 0 && errno == EINTR);
	}
	end.peak_kib = usage.ru_maxrss;
	w->pid = 0;
	w->jobs = 0;
	if (ret_end != NULL)
		*ret_end = end;
}

/* Judge the worker's first frame. */
static int
worker_greet(struct worker *w, const struct worker_options *o, struct error *err)
{
	char buf[FRAME_MAX];
	struct extract_ready ready;
	uint32_t type;
	size_t len;
	int r = frame_recv(w->sock, &type, buf, &len, NULL, MSG_DONTWAIT);

	if (r == -EAGAIN)
		return r;
	if (r < 0)
		return error_set(err, r, "%s ended before it was ready", o->program);
	if (type == EXTRACT_REFUSED)
		return error_set(err, -EPERM, "%s refuses to work: %.*s", o->program,
		    len < 400 ? (int)len : 400, buf);
	if (type != EXTRACT_READY || len != sizeof(ready))
		return error_set(err, -EPROTO, "%s speaks another protocol", o->program);
	memcpy(&ready, buf, sizeof(ready));
	if (ready.version != EXTRACT_WIRE_VERSION)
		return error_set(err, -EPROTO, "%s speaks protocol %u, not %u: install both from"
		    " one build", o->program, ready.version, EXTRACT_WIRE_VERSION);
	if ((ready.guards & o->guards) != o->guards)
		return error_set(err, -EPERM, "%s isn't sandboxed (guards %#x of %#x)", o->program,
		    ready.guards, o->guards);
	w->guards = ready.guards;
	return 0;
}

static int
worker_handshake(struct worker *w, const struct worker_options *o, bool (*stop)(void *arg),
    void *arg, struct error *err)
{
	int64_t until = clock_mono_ns() + (int64_t)o->start_s * NSEC_PER_SEC;
	int r = frame_send(w->sock, EXTRACT_HELLO, &o->hello, sizeof(o->hello), -1, MSG_DONTWAIT);

	if (r < 0)
		return error_set(err, r, "%s ended at its start", o->program);
	for (;;) {
		if (stop != NULL && stop(arg))
			return error_set(err, -ECANCELED, "cancelled");
		r = worker_wait(w, until);
		if (r == -ETIMEDOUT)
			return error_set(err, r, "%s isn't ready after %u s", o->program,
			    o->start_s);
		if (r < 0)
			return error_set(err, r, "waiting for %s: %s", o->program, strerror(-r));
		if (r > 0)
			r = worker_greet(w, o, err);
		else
			r = -EAGAIN;
		if (r != -EAGAIN)
			return r;
	}
}

int
worker_start(struct worker *w, struct spawner *sp, const struct worker_options *options,
    bool (*stop)(void *arg), void *arg, struct error *err)
{
	int socks[2], r;

	lock_assert_none();
	r = frame_pair(socks);
	if (r < 0)
		return error_set(err, r, "socketpair: %s", strerror(-r));
	*w = (struct worker){ .pid = 0, .sock = socks[0] };
	r = spawner_spawn(sp, options->program, socks[1], &w->pid);
	(void)close(socks[1]);
	if (r < 0)
		(void)error_set(err, r, "can't start %s: %s", options->program, strerror(-r));
	else
		r = worker_handshake(w, options, stop, arg, err);
	if (r < 0)
		worker_stop(w, NULL);
	return r;
}
