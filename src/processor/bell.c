/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The bell: inotify on the 256 staging directories says which files were closed after
 * writing.  It only shortens the wait: what it misses the sweep finds.  An overflow rings
 * for everything.
 */
#include "processor/private.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

void
ring_add(struct processor *p, uint64_t ino)
{
	ring_at(p, ino, clock_mono_ns() + core_quiet_period(p->core));
}

void
ring_at(struct processor *p, uint64_t ino, int64_t at)
{
	size_t i;

	lock_take(&p->lock);
	for (i = 0; i < p->n_rings && p->rings[i].ino != ino; i++)
		;
	if (i < p->n_rings)
		p->rings[i].at = at;
	else if (p->n_rings < RINGS_MAX)
		p->rings[p->n_rings++] = (struct ring){ ino, at };
	else
		p->settle_all = true;
	(void)pthread_cond_signal(&p->changed);
	lock_drop(&p->lock);
}

static void
bell_events(struct processor *p, const char *buf, size_t len)
{
	size_t at = 0;

	while (at < len) {
		const struct inotify_event *e = (const void *)(buf + at);
		uint64_t ino = e->len > 0 ? staging_name_ino(e->name) : 0;

		at += sizeof(*e) + e->len;
		if ((e->mask & IN_Q_OVERFLOW) != 0) {
			log_warn("inotify lost events: asking for all files that were open");
			lock_take(&p->lock);
			p->settle_all = true;
			(void)pthread_cond_signal(&p->changed);
			lock_drop(&p->lock);
		} else if (ino != 0) {
			ring_add(p, ino);
		}
	}
}

static void *
bell_run(void *arg)
{
	struct processor *p = arg;
	_Alignas(struct inotify_event) char buf[65536];
	struct pollfd fds[2] = { { .fd = p->inotify_fd, .events = POLLIN },
		{ .fd = p->stop_fd, .events = POLLIN } };

	for (;;) {
		ssize_t n;

		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			break;
		if (fds[1].revents != 0)
			break;
		n = read(p->inotify_fd, buf, sizeof(buf));
		if (n > 0)
			bell_events(p, buf, (size_t)n);
	}
	return NULL;
}

int
bell_start(struct processor *p)
{
	char path[4096];
	unsigned i;
	int r;

	p->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	p->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (p->inotify_fd < 0 || p->stop_fd < 0)
		return -errno;
	for (i = 0; i < 256; i++) {
		r = staging_folder_path(core_staging(p->core), i, path, sizeof(path));
		if (r == 0 && inotify_add_watch(p->inotify_fd, path, IN_CLOSE_WRITE | IN_ONLYDIR) < 0)
			r = -errno;
		if (r < 0)
			return r;
	}
	r = -pthread_create(&p->bell_thread, NULL, bell_run, p);
	p->bell_runs = r == 0;
	if (r == 0)
		(void)pthread_setname_np(p->bell_thread, "tbfs-bell");
	return r;
}

void
bell_stop(struct processor *p)
{
	uint64_t one = 1;

	if (p->bell_runs) {
		(void)!write(p->stop_fd, &one, sizeof(one));
		(void)pthread_join(p->bell_thread, NULL);
	}
	if (p->inotify_fd >= 0)
		(void)close(p->inotify_fd);
	if (p->stop_fd >= 0)
		(void)close(p->stop_fd);
}
