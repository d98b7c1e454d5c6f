/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * How the daemon tells that it is ready, or why not.  `tbfs mount` waits on a
 * pipe for one struct verdict; its end without one means that the daemon died.
 */
#include "cmd/ready.h"

#include "base/io.h"
#include "base/log.h"
#include "build.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

struct verdict {
	int code;			/* enum exit_code */
	char text[512];
};

/* The first word counts.  -EPIPE when nobody waits for it any more. */
static int
tell(struct daemon_ready *ready, const struct verdict *verdict)
{
	int r = 0;

	if (ready->told)
		return 0;
	ready->told = true;
	if (ready->fd >= 0) {
		r = write_full(ready->fd, verdict, sizeof(*verdict));
		(void)close(ready->fd);
		ready->fd = -1;
	}
	return r;
}

static void
leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return;
	(void)dup2(null, STDIN_FILENO);
	(void)dup2(null, STDOUT_FILENO);
	(void)dup2(null, STDERR_FILENO);
	if (null > STDERR_FILENO)
		(void)close(null);
}

int
daemon_ready_ok(struct daemon_ready *ready)
{
	struct verdict verdict = { .code = EXIT_DONE };
	bool background = ready->fd >= 0;
	int r = tell(ready, &verdict);

	if (r < 0)
		return -EPIPE;
	if (background)
		leave_terminal();
#ifdef HAVE_SYSTEMD
	(void)sd_notifyf(0, "READY=1\nMAINPID=%ld", (long)getpid());
#endif
	return 0;
}

int
daemon_ready_failed(struct daemon_ready *ready, enum exit_code code, const struct error *err)
{
	struct verdict verdict = { .code = (int)code };
	bool background = ready->fd >= 0;

	(void)snprintf(verdict.text, sizeof(verdict.text), "%s", error_text(err));
	if (!background)
		(void)fprintf(stderr, "tbfs: %s\n", verdict.text);
	if (ready->log_is_file)
		log_err("not mounted: %s", verdict.text);
	(void)tell(ready, &verdict);
	return (int)code;
}

int
ready_wait(int fd, pid_t pid)
{
	struct verdict verdict;
	ssize_t n = read_full(fd, &verdict, sizeof(verdict));
	int status;

	if (n == (ssize_t)sizeof(verdict)) {
		verdict.text[sizeof(verdict.text) - 1] = '\0';
		if (verdict.code != EXIT_DONE)
			(void)fprintf(stderr, "tbfs: %s\n", verdict.text);
		return verdict.code;
	}
	if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status))
		(void)fprintf(stderr, "tbfs: the daemon died while starting: %s\n",
		    strsignal(WTERMSIG(status)));
	else
		(void)fprintf(stderr, "tbfs: the daemon ended while starting\n");
	return EXIT_NOT_DONE;
}
