/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A child for the calls that may never return.  It gives up its standard
 * descriptors, so that nobody who reads our output waits for it as well.
 */
#include "cmd/patience.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/strbuf.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TEXT_MAX = 1 << 20 };

static void
child_run(int (*fn)(void *arg, FILE *out), void *arg, int fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), result;
	char *text = NULL;
	size_t len = 0;
	FILE *out;

	if (null >= 0) {
		(void)dup2(null, STDIN_FILENO);
		(void)dup2(null, STDOUT_FILENO);
		(void)dup2(null, STDERR_FILENO);
	}
	out = open_memstream(&text, &len);
	if (out == NULL)
		_exit(1);
	result = fn(arg, out);
	(void)fclose(out);
	if (write_full(fd, &result, sizeof(result)) < 0 || write_full(fd, text, len) < 0)
		_exit(1);
	_exit(0);
}

/* Read to the end or to the time; -ETIMEDOUT, -EIO. */
static int
collect(int fd, int64_t until, struct strbuf *b)
{
	char chunk[4096];

	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int64_t left = until - clock_mono_ns();
		ssize_t n;

		if (left <= 0)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)(left / 1000000) + 1) <= 0)
			continue;
		n = read(fd, chunk, sizeof(chunk));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 || b->len < sizeof(int) ? -EIO : 0;
		strbuf_add(b, chunk, (size_t)n);
		if (!strbuf_ok(b) || b->len > TEXT_MAX)
			return -ENOMEM;
	}
}

int
patience_run(int (*fn)(void *arg, FILE *out), void *arg, int seconds, char **ret_text,
    size_t *ret_len)
{
	CLEANUP_STRBUF struct strbuf b = STRBUF_INIT;
	int pipe_fd[2], r, result;
	pid_t pid;

	*ret_text = NULL;
	*ret_len = 0;
	if (pipe2(pipe_fd, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		(void)close(pipe_fd[0]);
		child_run(fn, arg, pipe_fd[1]);
	}
	(void)close(pipe_fd[1]);
	r = pid < 0 ? -errno : collect(pipe_fd[0], clock_mono_ns() + seconds * NSEC_PER_SEC, &b);
	(void)close(pipe_fd[0]);
	if (pid > 0) {
		if (r < 0)
			(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, r == -ETIMEDOUT ? WNOHANG : 0);
	}
	if (r < 0)
		return r;
	memcpy(&result, b.data, sizeof(result));
	*ret_len = b.len - sizeof(result);
	memmove(b.data, b.data + sizeof(result), *ret_len + 1);
	*ret_text = TAKE_PTR(b.data);
	return result;
}

const char *
patience_field(const char *text, size_t len, size_t n)
{
	const char *p = text, *end = text + len;

	for (; n > 0 && p < end; n--)
		p += strlen(p) + 1;
	return text != NULL && p < end ? p : "";
}
