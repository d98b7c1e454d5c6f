/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The fake server; see fake.h. */
#include "fake.h"

#include "base/io.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TICK = 50 };			/* ms */

static bool
readable(struct fake *f, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	while (!f->stop)
		if (poll(&p, 1, TICK) > 0)
			return true;
	return false;
}

/* Read head and body of a request; false if the client went away. */
static bool
read_request(struct fake *f, int fd, char *head, size_t room)
{
	char buf[8192], *end = NULL, *at;
	size_t len = 0, body, want = 0;

	while (end == NULL && len + 1 < room) {
		ssize_t n;

		if (!readable(f, fd) || (n = read(fd, head + len, room - 1 - len)) <= 0)
			return false;
		len += (size_t)n;
		head[len] = '\0';
		end = strstr(head, "\r\n\r\n");
	}
	if (end == NULL)
		return false;
	body = len - (size_t)(end + 4 - head);
	end[4] = '\0';
	at = strcasestr(head, "\r\ncontent-length:");
	if (at != NULL)
		want = strtoul(at + 17, NULL, 10);
	while (body < want) {
		ssize_t n;

		if (!readable(f, fd) || (n = read(fd, buf, sizeof(buf))) <= 0)
			return false;
		body += (size_t)n;
	}
	return true;
}

static void
serve_one(struct fake *f, int fd)
{
	char head[4096], byte;
	const char *answer;
	unsigned n;

	if (!read_request(f, fd, head, sizeof(head)))
		return;
	n = ++f->requests;
	if (n == 1)
		strcpy(f->first_head, head);
	answer = f->answer != NULL ? f->answer(f, n, head) : f->always;
	if (answer != NULL)
		(void)send(fd, answer, strlen(answer), MSG_NOSIGNAL);
	else if (readable(f, fd))
		(void)!read(fd, &byte, 1);	/* the client gave up */
}

static void *
fake_run(void *arg)
{
	struct fake *f = arg;

	while (readable(f, f->fd)) {
		int fd = accept(f->fd, NULL, NULL);

		if (fd < 0)
			continue;
		serve_one(f, fd);
		(void)shutdown(fd, SHUT_WR);
		(void)close(fd);
	}
	return NULL;
}

void
fake_start(struct fake *f)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);

	f->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (f->fd < 0 || bind(f->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(f->fd, 16) < 0 ||
	    getsockname(f->fd, (struct sockaddr *)&addr, &len) < 0 ||
	    pthread_create(&f->thread, NULL, fake_run, f) != 0)
		abort();
	(void)snprintf(f->endpoint, sizeof(f->endpoint), "http://127.0.0.1:%d", ntohs(addr.sin_port));
}

void
fake_stop(struct fake *f)
{
	f->stop = true;
	(void)pthread_join(f->thread, NULL);
	(void)close(f->fd);
}
