/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tbfs-extract: the process in which untrusted bytes are parsed.
 *
 * Started by the daemon with one end of a socketpair as descriptor 3 and
 * nothing else (base/extract_wire.h says what is spoken).  It loads its
 * libraries, enters the sandbox for good, and then takes one file at a time
 * until the socket closes.  Without the sandbox it refuses to work.
 */
#include "base/clock.h"
#include "base/frame.h"
#include "extract/job.h"
#include "extract/libs.h"
#include "extract/sandbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char main_buf[FRAME_MAX];

static int
main_refuse(const struct error *err)
{
	(void)frame_send(EXTRACT_WIRE_FD, EXTRACT_REFUSED, err->text, strlen(err->text), -1, 0);
	return EXTRACT_EXIT_SANDBOX;
}

static int
main_hello(struct extract_hello *ret)
{
	uint32_t type;
	size_t len;
	int r = frame_recv(EXTRACT_WIRE_FD, &type, main_buf, &len, NULL, 0);

	if (r < 0)
		return r;
	if (type != EXTRACT_HELLO || len != sizeof(*ret))
		return -EPROTO;
	memcpy(ret, main_buf, sizeof(*ret));
	return ret->version == EXTRACT_WIRE_VERSION ? 0 : -EPROTO;
}

static int
main_take_job(const struct extract_limits *limits)
{
	struct extract_job wire;
	struct job *j;
	uint32_t type;
	size_t len;
	int fd, r;

	r = frame_recv(EXTRACT_WIRE_FD, &type, main_buf, &len, &fd, 0);
	if (r < 0)
		return r;
	if (type != EXTRACT_JOB || len != sizeof(wire) || fd < 0)
		return -EPROTO;
	memcpy(&wire, main_buf, sizeof(wire));
	j = calloc(1, sizeof(*j));
	if (j == NULL)
		_exit(EXTRACT_EXIT_MEMORY);
	j->sock = EXTRACT_WIRE_FD;
	j->fd = fd;
	j->size = wire.size;
	j->limits = limits;
	/* Nine tenths of the daemon's deadline: time to say why. */
	j->until_ns = clock_mono_ns() + NSEC_PER_SEC *
	    (int64_t)(limits->deadline_s + wire.size / EXTRACT_HASH_RATE) * 9 / 10;
	job_run(j);
	free(j);
	(void)close(fd);
	return 0;
}

int
main(void)
{
	struct extract_ready ready = { .version = EXTRACT_WIRE_VERSION };
	struct extract_hello hello;
	struct error err = { 0 };
	int r = main_hello(&hello);

	if (r == -ENOTSOCK || r == -EBADF)
		(void)!write(2, "tbfs-extract is started by tbfs, not by hand\n", 45);
	if (r < 0)
		return 2;
	r = libs_init(&err);
	if (r == 0)
		r = sandbox_enter(&hello, EXTRACT_WIRE_FD, &ready.guards, &err);
	if (r < 0)
		return main_refuse(&err);
	r = frame_send(EXTRACT_WIRE_FD, EXTRACT_READY, &ready, sizeof(ready), -1, 0);
	while (r == 0)
		r = main_take_job(&hello.limits);
	return r == -EPIPE ? 0 : 1;
}
