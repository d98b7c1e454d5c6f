/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The client end of the control socket.  Nothing here waits for ever: connect
 * does not block, and a daemon that sends no sign of life is given up.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "cmd/control.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static int
explain_connect(int code, const char *path, struct error *err)
{
	switch (code) {
	case -ENOENT:
	case -ECONNREFUSED:
		return error_set(err, code, "no daemon listens at %s", path);
	case -EAGAIN:
		return error_set(err, code, "the daemon at %s does not answer", path);
	case -EACCES:
		return error_set(err, code,
		    "not allowed: this needs root, the mounting user, or a member of control.group");
	default:
		return error_set(err, code, "%s: %s", path, strerror(-code));
	}
}

int
control_connect(const char *path, struct control_client *ret_c, struct error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	CLEANUP_CLOSE int dir = control_socket_dir(path, addr.sun_path, sizeof(addr.sun_path));
	CLEANUP_CLOSE int fd = -1;
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (dir < 0)
		return explain_connect(dir, path, err);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return explain_connect(-errno, path, err);
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
		return explain_connect(-errno, path, err);
	ret_c->pid = 0;
	ret_c->pidfd = -1;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.pid > 0) {
		ret_c->pid = cred.pid;
		ret_c->pidfd = (int)syscall(SYS_pidfd_open, cred.pid, 0);
	}
	ret_c->fd = TAKE_FD(fd);
	return 0;
}

void
control_disconnect(struct control_client *c)
{
	if (c->fd >= 0)
		(void)close(c->fd);
	if (c->pidfd >= 0)
		(void)close(c->pidfd);
	c->fd = c->pidfd = -1;
}

struct answer {
	char *data;
	size_t len, room;
	size_t scanned;			/* no newline before this */
	int64_t until;			/* monotonic ns */
};

static int
wait_for(int fd, short events, int64_t until)
{
	struct pollfd p = { .fd = fd, .events = events };
	int64_t left = until - clock_mono_ns();

	if (left <= 0)
		return -ETIMEDOUT;
	(void)poll(&p, 1, (int)(left / 1000000) + 1);
	return 0;
}

/* A server that refuses may have closed before it read: then its answer tells why. */
static int
send_request(int fd, const json_t *request)
{
	char *text = json_dumps(request, JSON_COMPACT);
	int64_t until = clock_mono_ns() + CONTROL_SILENCE_S * NSEC_PER_SEC;
	size_t done = 0, len;
	int r = 0;

	if (text == NULL)
		return -ENOMEM;
	len = strlen(text);
	text[len++] = '\n';
	while (done < len && r == 0) {
		ssize_t n = send(fd, text + done, len - done, MSG_NOSIGNAL);

		if (n >= 0)
			done += (size_t)n;
		else if (errno == EAGAIN)
			r = wait_for(fd, POLLOUT, until);
		else if (errno != EINTR)
			break;
	}
	free(text);
	return r;
}

static int
receive_more(int fd, struct answer *a)
{
	ssize_t n;
	int r;

	if (a->room - a->len < 4096) {
		size_t room = a->room == 0 ? 65536 : a->room * 2;
		char *data = a->len > CONTROL_ANSWER_MAX ? NULL : realloc(a->data, room);

		if (data == NULL)
			return a->len > CONTROL_ANSWER_MAX ? -EMSGSIZE : -ENOMEM;
		a->data = data;
		a->room = room;
	}
	n = recv(fd, a->data + a->len, a->room - a->len - 1, 0);
	if (n == 0)
		return -ECONNRESET;
	if (n < 0) {
		if (errno == EAGAIN || errno == EINTR) {
			r = wait_for(fd, POLLIN, a->until);
			return r;
		}
		return -errno;
	}
	a->len += (size_t)n;
	a->until = clock_mono_ns() + CONTROL_SILENCE_S * NSEC_PER_SEC;
	return 0;
}

/* The next line as JSON, the caller's. */
static int
receive_line(int fd, struct answer *a, json_t **ret_line)
{
	char *end;
	int r;

	for (;;) {
		end = a->len > a->scanned ? memchr(a->data + a->scanned, '\n', a->len - a->scanned) : NULL;
		if (end != NULL)
			break;
		a->scanned = a->len;
		r = receive_more(fd, a);
		if (r < 0)
			return r;
	}
	*ret_line = json_loadb(a->data, (size_t)(end - a->data), 0, NULL);
	a->len -= (size_t)(end + 1 - a->data);
	memmove(a->data, end + 1, a->len);
	a->scanned = 0;
	if (!json_is_object(*ret_line)) {
		json_decref(*ret_line);
		return -EPROTO;
	}
	return 0;
}

static int
explain(int code, struct error *err)
{
	switch (code) {
	case -ETIMEDOUT:
		return error_set(err, code, "the daemon has not answered for %d seconds", CONTROL_SILENCE_S);
	case -ECONNRESET:
	case -EPIPE:
		return error_set(err, -ECONNRESET, "the daemon went away before it answered");
	case -EPROTO:
		return error_set(err, code, "the daemon's answer can't be understood");
	default:
		return error_set(err, code, "control socket: %s", strerror(-code));
	}
}

/* The last line's verdict. */
static int
conclude(json_t *line, json_t **ret_answer, struct error *err)
{
	int code = (int)json_integer_value(json_object_get(line, "exit"));
	const char *text = json_string_value(json_object_get(line, "error"));

	if (code != EXIT_DONE)
		(void)error_set(err, -EIO, "%s", text != NULL ? text : "not done");
	if (ret_answer != NULL)
		*ret_answer = line;
	else
		json_decref(line);
	return code;
}

int
control_ask(struct control_client *c, const json_t *request, control_line_fn *fn, void *arg,
    json_t **ret_answer, struct error *err)
{
	struct answer a = { .until = clock_mono_ns() + CONTROL_SILENCE_S * NSEC_PER_SEC };
	json_t *line;
	int r;

	r = send_request(c->fd, request);
	while (r == 0) {
		r = receive_line(c->fd, &a, &line);
		if (r < 0)
			break;
		if (json_object_get(line, "exit") != NULL) {
			r = conclude(line, ret_answer, err);
			free(a.data);
			return r;
		}
		if (fn != NULL && json_object_size(line) > 0)
			fn(arg, line);
		json_decref(line);
	}
	free(a.data);
	return explain(r, err);
}

int
control_call(const char *path, const json_t *request, control_line_fn *fn, void *arg,
    json_t **ret_answer, struct error *err)
{
	struct control_client c;
	int r;

	r = control_connect(path, &c, err);
	if (r < 0)
		return r;
	r = control_ask(&c, request, fn, arg, ret_answer, err);
	control_disconnect(&c);
	return r;
}
