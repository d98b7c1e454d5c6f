/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * One request: read, run, answered.  Runs on its handler's thread; the essay is
 * in control.c.
 */
#include "cmd/control_private.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

const json_t *
control_args(const struct control_request *req)
{
	return req->args;
}

int64_t
control_deadline(const struct control_request *req)
{
	return req->deadline;
}

struct error *
control_error(struct control_request *req)
{
	return &req->error;
}

int
control_cancelled(const struct control_request *req)
{
	if (atomic_load(&req->cancelled))
		return -ECANCELED;
	if (req->deadline != 0 && clock_mono_ns() >= req->deadline)
		return -ETIMEDOUT;
	return 0;
}

void
control_wake(struct control_server *s)
{
	uint64_t one = 1;

	(void)!write(s->wake_fd, &one, sizeof(one));
}

int
control_send(int fd, const char *data, size_t len, int64_t until)
{
	while (len > 0) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		struct pollfd p = { .fd = fd, .events = POLLOUT };
		int64_t left;

		if (n >= 0) {
			data += n;
			len -= (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -EPIPE;
		left = until - clock_mono_ns();
		if (until == 0 || left <= 0)
			return -ETIMEDOUT;
		(void)poll(&p, 1, (int)(left / 1000000) + 1);
	}
	return 0;
}

static int
send_json(struct control_request *req, const json_t *line)
{
	char *text = json_dumps(line, JSON_COMPACT);
	size_t len;
	int r;

	if (text == NULL)
		return -ENOMEM;
	len = strlen(text);
	text[len++] = '\n';		/* in the place of the NUL */
	pthread_mutex_lock(&req->write_lock);
	r = control_send(req->fd, text, len, clock_mono_ns() + CONTROL_WRITE_S * NSEC_PER_SEC);
	if (r < 0)
		atomic_store(&req->cancelled, true);
	pthread_mutex_unlock(&req->write_lock);
	free(text);
	return r;
}

int
control_progress(struct control_request *req, json_t *line)
{
	int r = line == NULL ? -ENOMEM : atomic_load(&req->cancelled) ? -EPIPE : send_json(req, line);

	json_decref(line);
	return r;
}

void
control_answer(struct control_request *req, json_t *answer)
{
	json_decref(req->answer);
	req->answer = answer;
}

/* The request line, without its newline, malloc'd. */
static int
read_line(struct control_request *req, char **ret_line)
{
	int64_t until = clock_mono_ns() + CONTROL_READ_S * NSEC_PER_SEC;
	size_t len = 0, room = 4096;
	CLEANUP_FREE char *line = malloc(room);

	if (line == NULL)
		return -ENOMEM;
	for (;;) {
		struct pollfd p = { .fd = req->fd, .events = POLLIN };
		int64_t left = until - clock_mono_ns();
		char *end, *more;
		ssize_t n;

		if (left <= 0 || atomic_load(&req->cancelled))
			return left <= 0 ? -ETIMEDOUT : -ECANCELED;
		if (poll(&p, 1, (int)(left / 1000000) + 1) <= 0)
			continue;
		n = recv(req->fd, line + len, room - len - 1, MSG_DONTWAIT);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return -ECANCELED;
		end = memchr(line + len, '\n', (size_t)n);
		len += (size_t)n;
		if (end != NULL) {
			*end = '\0';
			*ret_line = TAKE_PTR(line);
			return 0;
		}
		if (len > CONTROL_REQUEST_MAX)
			return -EMSGSIZE;
		if (room - len > 1)
			continue;
		more = realloc(line, room * 2);
		if (more == NULL)
			return -ENOMEM;
		line = more;
		room *= 2;
	}
}

static int
read_request(struct control_request *req)
{
	CLEANUP_FREE char *line = NULL;
	const json_t *timeout;
	json_error_t why;
	double seconds;
	int r;

	r = read_line(req, &line);
	if (r == -ETIMEDOUT)
		return error_set(&req->error, r, "no request came within %d seconds", CONTROL_READ_S);
	if (r == -EMSGSIZE)
		return error_set(&req->error, -EINVAL, "the request is longer than %d bytes",
		    CONTROL_REQUEST_MAX);
	if (r < 0)
		return r;
	req->args = json_loads(line, JSON_REJECT_DUPLICATES, &why);
	if (!json_is_object(req->args))
		return error_set(&req->error, -EINVAL, "the request is not a JSON object");
	timeout = json_object_get(req->args, "timeout_s");
	seconds = timeout != NULL ? json_number_value(timeout) : 0;
	if (timeout != NULL && (!json_is_number(timeout) || seconds < 0 || seconds > 1e8))
		return error_set(&req->error, -EINVAL, "timeout_s is a number of seconds");
	if (timeout != NULL)
		req->deadline = clock_mono_ns() + (int64_t)(seconds * 1e9);
	return 0;
}

static int
run_verb(struct control_request *req)
{
	const struct control_server *s = req->server;
	const char *name = json_string_value(json_object_get(req->args, "verb"));
	const struct control_verb *v;

	if (name == NULL)
		return error_set(&req->error, -EINVAL, "the request names no verb");
	for (v = s->opt.verbs; v->name != NULL; v++)
		if (strcmp(v->name, name) == 0)
			break;
	if (v->name == NULL)
		return error_set(&req->error, -EINVAL, "this daemon knows no verb '%.40s'", name);
	return v->run(s->opt.ctx, req);
}

static void
send_last(struct control_request *req, int result)
{
	json_t *last = req->answer != NULL ? req->answer : json_object();
	int code = result >= 0 ? result : result == -EINVAL ? EXIT_USAGE : EXIT_NOT_DONE;

	req->answer = NULL;
	(void)json_object_set_new(last, "exit", json_integer(code));
	if (code != EXIT_DONE && (result < 0 || req->error.text[0] != '\0')) {
		if (req->error.code == 0)
			req->error.code = result;
		(void)json_object_set_new(last, "error", control_path_encode(error_text(&req->error)));
	}
	(void)send_json(req, last);
	json_decref(last);
}

void *
control_handler_run(void *arg)
{
	struct control_request *req = arg;
	int r = read_request(req);

	if (r == 0) {
		atomic_store(&req->working, true);
		r = run_verb(req);
		atomic_store(&req->working, false);
	}
	send_last(req, r);
	json_decref(req->args);
	req->args = NULL;
	atomic_store(&req->state, SLOT_ENDED);
	control_wake(req->server);
	return NULL;
}
