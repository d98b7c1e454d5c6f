/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The server end of the control socket.
 *
 * Threads: one accepts, and one a connection handles it (at most
 * CONTROL_HANDLERS).  The accepting thread alone opens, joins and closes the
 * slots' descriptors; it never waits for a client.  It also watches every
 * running connection, so that a client that goes away cancels its request, and
 * sends the signs of life by which a client tells a busy daemon from a hung one.
 *
 * Invariants:
 *  1. A slot's fd stays open until its handler has ended: no reuse under it.
 *  2. A line is written whole or the connection counts as broken: two writers
 *     (handler, signs of life) take write_lock around a line.
 *  3. Nothing a client does or omits holds a thread for longer than
 *     CONTROL_READ_S + the verb + CONTROL_WRITE_S.
 *  4. No verb runs for a peer that was not let in.
 */
#include "cmd/control_private.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Is it a member of the group, by its supplementary ones too? */
static bool
peer_in_group(int fd, gid_t own, gid_t group)
{
	CLEANUP_FREE gid_t *groups = NULL;
	socklen_t len = 0;
	size_t i;

	if (own == group)
		return true;
	/* The first call tells the size by ERANGE. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) < 0 && errno != ERANGE)
		return false;
	groups = malloc(len > 0 ? len : 1);
	if (groups == NULL || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
		return false;
	for (i = 0; i < len / sizeof(gid_t); i++)
		if (groups[i] == group)
			return true;
	return false;
}

static bool
peer_allowed(const struct control_server *s, int fd)
{
	struct ucred peer = { .pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1 };
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
	    (peer.uid == 0 || peer.uid == s->opt.owner ||
	    (s->opt.group != (gid_t)-1 && peer_in_group(fd, peer.gid, s->opt.group))))
		return true;
	log_warn("control: user %u (pid %d) is not let in", (unsigned)peer.uid, (int)peer.pid);
	return false;
}

/* Answer without a handler: a line that an empty socket always has room for. */
static void
refuse(int fd, const char *why)
{
	char line[256];
	int n = snprintf(line, sizeof(line), "{\"exit\":1,\"error\":\"%s\"}\n", why);

	(void)control_send(fd, line, (size_t)n, 0);
	(void)close(fd);
}

static struct control_request *
free_slot(struct control_server *s)
{
	int i;

	for (i = 0; i < CONTROL_HANDLERS; i++)
		if (atomic_load(&s->slots[i].state) == SLOT_FREE)
			return &s->slots[i];
	return NULL;
}

static void
start_request(struct control_server *s, int fd)
{
	struct control_request *req;

	if (!peer_allowed(s, fd)) {
		refuse(fd, "not allowed: this needs root, the mounting user, or a member of control.group");
		return;
	}
	req = free_slot(s);
	if (req == NULL) {
		refuse(fd, "the daemon is busy with as many requests as it takes at once; try again");
		return;
	}
	req->fd = fd;
	req->gone = false;
	req->deadline = 0;
	memset(&req->error, 0, sizeof(req->error));
	atomic_store(&req->cancelled, false);
	atomic_store(&req->state, SLOT_RUNNING);
	if (pthread_create(&req->thread, NULL, control_handler_run, req) != 0) {
		refuse(fd, "the daemon can't start a thread");
		atomic_store(&req->state, SLOT_FREE);
	}
}

static void
accept_all(struct control_server *s)
{
	for (;;) {
		int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0 && errno == EINTR)
			continue;
		if (fd < 0) {
			if (errno != EAGAIN)	/* no descriptors or memory: don't spin */
				(void)usleep(100000);
			return;
		}
		start_request(s, fd);
	}
}

/* Join what has ended.  Returns how many are still running. */
static int
reap(struct control_server *s)
{
	int i, running = 0;

	for (i = 0; i < CONTROL_HANDLERS; i++) {
		struct control_request *req = &s->slots[i];
		enum slot_state state = atomic_load(&req->state);

		if (state == SLOT_RUNNING)
			running++;
		if (state != SLOT_ENDED)
			continue;
		(void)pthread_join(req->thread, NULL);
		(void)close(req->fd);
		atomic_store(&req->state, SLOT_FREE);
	}
	return running;
}

static void
send_alive(struct control_server *s)
{
	int i;

	for (i = 0; i < CONTROL_HANDLERS; i++) {
		struct control_request *req = &s->slots[i];
		ssize_t n;

		if (atomic_load(&req->state) != SLOT_RUNNING || !atomic_load(&req->working) || req->gone)
			continue;
		if (pthread_mutex_trylock(&req->write_lock) != 0)
			continue;	/* it is being written to: sign enough */
		n = send(req->fd, "{}\n", 3, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0 && n < 3)	/* invariant 2 */
			atomic_store(&req->cancelled, true);
		pthread_mutex_unlock(&req->write_lock);
	}
}

/* Sleep until there is something to do, and note who hung up. */
static void
watch(struct control_server *s)
{
	struct pollfd p[CONTROL_HANDLERS + 2];
	uint64_t count;
	int i;

	p[0] = (struct pollfd){ .fd = s->wake_fd, .events = POLLIN };
	p[1] = (struct pollfd){ .fd = atomic_load(&s->stopping) ? -1 : s->listen_fd, .events = POLLIN };
	for (i = 0; i < CONTROL_HANDLERS; i++) {
		const struct control_request *req = &s->slots[i];
		bool live = atomic_load(&req->state) == SLOT_RUNNING && !req->gone;

		/* POLLHUP comes unasked, and only when both directions are closed. */
		p[i + 2] = (struct pollfd){ .fd = live ? req->fd : -1 };
	}
	(void)poll(p, CONTROL_HANDLERS + 2, 1000);
	if (p[0].revents != 0)
		(void)!read(s->wake_fd, &count, sizeof(count));
	for (i = 0; i < CONTROL_HANDLERS; i++) {
		if (p[i + 2].revents & (POLLHUP | POLLERR)) {
			s->slots[i].gone = true;
			atomic_store(&s->slots[i].cancelled, true);
		}
	}
}

static void *
server_run(void *arg)
{
	struct control_server *s = arg;
	int64_t alive = clock_mono_ns() + CONTROL_ALIVE_S * NSEC_PER_SEC;
	int i;

	while (!atomic_load(&s->stopping)) {
		watch(s);
		(void)reap(s);
		accept_all(s);
		if (clock_mono_ns() >= alive) {
			send_alive(s);
			alive = clock_mono_ns() + CONTROL_ALIVE_S * NSEC_PER_SEC;
		}
	}
	for (i = 0; i < CONTROL_HANDLERS; i++) {
		atomic_store(&s->slots[i].cancelled, true);
		if (atomic_load(&s->slots[i].state) == SLOT_RUNNING)
			(void)shutdown(s->slots[i].fd, SHUT_RD);
	}
	while (reap(s) > 0)
		watch(s);
	return NULL;
}

/* ---- start and stop ---- */

/* Let the group search the socket's directory. */
static int
open_directory(const struct control_server *s)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", s->dir_fd);
	if (chown(path, (uid_t)-1, s->opt.group) < 0 || chmod(path, 0710) < 0)
		return -errno;
	return 0;
}

static int
listen_on(struct control_server *s, struct error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	bool group = s->opt.group != (gid_t)-1;
	int r;

	s->dir_fd = control_socket_dir(s->path, addr.sun_path, sizeof(addr.sun_path));
	if (s->dir_fd < 0)
		return error_set(err, s->dir_fd, "control socket %s: %s", s->path, strerror(-s->dir_fd));
	s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->listen_fd < 0) {
		r = -errno;
		return error_set(err, r, "control socket: %s", strerror(-r));
	}
	(void)unlink(addr.sun_path);
	if (bind(s->listen_fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    chmod(addr.sun_path, group ? 0660 : 0600) < 0 ||
	    (group && chown(addr.sun_path, (uid_t)-1, s->opt.group) < 0) ||
	    listen(s->listen_fd, CONTROL_HANDLERS) < 0) {
		r = -errno;
		return error_set(err, r, "control socket %s: %s", s->path, strerror(-r));
	}
	r = group ? open_directory(s) : 0;
	if (r < 0)
		return error_set(err, r, "%s can't be opened to control.group: %s", s->path, strerror(-r));
	return 0;
}

/* Signals are for the main thread; handlers inherit this thread's mask. */
static int
start_thread(struct control_server *s)
{
	sigset_t all, old;
	int r;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&s->thread, NULL, server_run, s);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

static void
server_free(struct control_server *s)
{
	int i;

	for (i = 0; i < CONTROL_HANDLERS; i++)
		(void)pthread_mutex_destroy(&s->slots[i].write_lock);
	if (s->listen_fd >= 0)
		(void)close(s->listen_fd);
	if (s->wake_fd >= 0)
		(void)close(s->wake_fd);
	if (s->dir_fd >= 0)
		(void)close(s->dir_fd);
	free(s->path);
	free(s);
}

int
control_start(const struct control_options *opt, struct control_server **ret_s, struct error *err)
{
	struct control_server *s = calloc(1, sizeof(*s));
	int i, r;

	if (s == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	s->opt = *opt;
	s->dir_fd = s->listen_fd = -1;
	for (i = 0; i < CONTROL_HANDLERS; i++) {
		s->slots[i].server = s;
		(void)pthread_mutex_init(&s->slots[i].write_lock, NULL);
	}
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->path = strdup(opt->path);
	if (s->wake_fd < 0 || s->path == NULL)
		r = error_set(err, -ENOMEM, "control socket: out of memory or descriptors");
	else
		r = listen_on(s, err);
	if (r == 0) {
		r = start_thread(s);
		if (r < 0)
			(void)error_set(err, r, "control socket: %s", strerror(-r));
	}
	if (r < 0) {
		server_free(s);
		return r;
	}
	*ret_s = s;
	return 0;
}

void
control_stop(struct control_server *s)
{
	if (s == NULL)
		return;
	atomic_store(&s->stopping, true);
	control_wake(s);
	(void)pthread_join(s->thread, NULL);
	(void)unlink(s->path);
	server_free(s);
}
