/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The threads that serve requests.
 *
 *   1. One of them reads from /dev/fuse, and serves what it reads itself: to wake another costs more
 *      than most requests do.  Before it sleeps it looks for some microseconds more, since a
 *      client that has its answer will ask the next thing, and to wake a thread of a CPU that
 *      idles costs most of all.
 *   2. What takes long holds up nobody: it steps aside (loop_step_aside()) when that is known
 *      before, else the watch has another read.  The watch looks each millisecond, while
 *      there are requests.
 *   3. `turn` is even while the reader waits for a request and odd while it serves one; it only
 *      rises.  Whoever moves it from odd to even ends a turn: the reader itself, which goes
 *      on reading, or who takes the reading away from it.
 */
#include "fs/private.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define LOOK_NS 20000			/* for the next request, before sleeping */
#define WATCH_NS 1000000

static __thread uint64_t my_turn;	/* odd: this thread serves a request of it; 0: it doesn't read */

/* ---- who reads ---- */

static void
let_read(struct loops *l)
{
	lock_take(&l->lock);
	l->vacant = true;
	(void)pthread_cond_signal(&l->changed);
	lock_drop(&l->lock);
}

/* Wait to be the reader; false: there is nothing to read any more. */
static bool
become_reader(struct loops *l)
{
	bool ended;

	lock_take(&l->lock);
	while (!l->vacant && !l->ended)
		(void)lock_wait(&l->lock, &l->changed, 0);
	l->vacant = false;
	ended = l->ended;
	lock_drop(&l->lock);
	return !ended;
}

static bool
end_turn(struct loops *l, uint64_t turn)
{
	return atomic_compare_exchange_strong(&l->turn, &turn, turn + 1);
}

void
loop_step_aside(struct fs *fs)
{
	if (my_turn != 0 && end_turn(&fs->loops, my_turn))
		let_read(&fs->loops);
	my_turn = 0;
}

/* ---- the watch ---- */

static void
set_alarm(struct loops *l)
{
	const struct itimerspec in = { .it_value = { .tv_nsec = WATCH_NS } };

	atomic_store(&l->alarmed, true);
	(void)timerfd_settime(l->alarm, 0, &in, NULL);
}

static void *
watch_run(void *arg)
{
	struct loops *l = arg;
	uint64_t last = 0, fired;

	while (read(l->alarm, &fired, sizeof(fired)) == (ssize_t)sizeof(fired) &&
	    !atomic_load(&l->watch_ends)) {
		uint64_t turn;

		/* In this order: who begins a turn after this one was read sets it again. */
		atomic_store(&l->alarmed, false);
		turn = atomic_load(&l->turn);
		if (turn == last && turn % 2 == 1 && end_turn(l, turn))
			let_read(l);
		if (turn != last || turn % 2 == 1)
			set_alarm(l);
		last = turn;
	}
	return NULL;
}

/* ---- reading ---- */

ssize_t
loop_read(struct fs *fs, void *buf, size_t len)
{
	int fd = fs->loops.fd;
	int64_t until = clock_mono_ns() + fs->loops.look_ns;
	ssize_t n;

	while ((n = read(fd, buf, len)) < 0 && errno == EAGAIN)
		if (clock_mono_ns() >= until) {
			struct pollfd p = { .fd = fd, .events = POLLIN };

			(void)poll(&p, 1, -1);
		}
	return n;
}

/* Read and serve until another reads; false: there is nothing to read any more. */
static bool
serve(struct fs *fs, struct fuse_buf *buf)
{
	struct loops *l = &fs->loops;

	do {
		int n;

		do
			n = fuse_session_receive_buf(fs->se, buf);
		while (n == -EINTR || n == -EAGAIN);
		if (n <= 0) {
			if (n < 0 && n != -ENODEV)
				(void)log_errno(n, "reading from /dev/fuse");
			fuse_session_exit(fs->se);
			return false;
		}
		my_turn = atomic_fetch_add(&l->turn, 1) + 1;
		if (!atomic_load(&l->alarmed))
			set_alarm(l);
		if (!statx_answer(fs, buf->mem))
			fuse_session_process_buf(fs->se, buf);
		core_write_places(fs->core);
		lock_assert_none();
	} while (my_turn != 0 && end_turn(l, my_turn));
	my_turn = 0;
	return true;
}

static void *
loop_run(void *arg)
{
	struct fs *fs = arg;
	struct loops *l = &fs->loops;
	struct fuse_buf buf = { .mem = NULL };
	bool more = true;

	while (more && !fuse_session_exited(fs->se) && become_reader(l))
		more = serve(fs, &buf);
	lock_take(&l->lock);
	l->ended = true;
	(void)pthread_cond_broadcast(&l->changed);
	lock_drop(&l->lock);
	free(buf.mem);
	return NULL;
}

/* ---- begin and end ---- */

int
loops_start(struct fs *fs)
{
	struct loops *l = &fs->loops;
	int r;

	lock_init(&l->lock, RANK_QUEUE);
	lock_cond_init(&l->changed);
	l->vacant = true;
	/* Where there is but one CPU, the client has no other to ask from. */
	l->look_ns = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? LOOK_NS : 0;
	l->alarm = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	/* By dup(): ThreadSanitizer then knows that what is read there follows what was written. */
	l->fd = dup(fuse_session_fd(fs->se));
	if (l->alarm < 0 || l->fd < 0 || fcntl(l->fd, F_SETFD, FD_CLOEXEC) < 0 ||
	    fcntl(l->fd, F_SETFL, fcntl(l->fd, F_GETFL) | O_NONBLOCK) < 0)
		return -errno;
	r = -pthread_create(&l->watch, NULL, watch_run, l);
	l->watch_runs = r == 0;
	while (r == 0 && l->n < LOOP_THREADS) {
		r = -pthread_create(&l->threads[l->n], NULL, loop_run, fs);
		if (r == 0)
			(void)pthread_setname_np(l->threads[l->n++], "tbfs-fuse");
	}
	return r;
}

void
loops_wait(struct fs *fs)
{
	struct loops *l = &fs->loops;

	while (l->n > 0)
		(void)pthread_join(l->threads[--l->n], NULL);
}

void
loops_free(struct fs *fs)
{
	struct loops *l = &fs->loops;

	loops_wait(fs);
	if (l->watch_runs) {
		atomic_store(&l->watch_ends, true);
		set_alarm(l);
		(void)pthread_join(l->watch, NULL);
	}
	if (l->alarm == 0)
		return;
	(void)close(l->alarm);
	lock_release(&l->lock);
	(void)pthread_cond_destroy(&l->changed);
}
