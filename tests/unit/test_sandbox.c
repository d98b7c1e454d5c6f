/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the sandbox takes away, tried from inside by a planted worker
 * (sandbox_probe.c): each attempt must end in an errno or in SIGSYS.  As root
 * all of it is tried twice: started as root, and as an ordinary user.
 */
#include "base/frame.h"
#include "extract/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define NOBODY 65534

static char buf[FRAME_MAX];

struct probe {
	pid_t pid;
	int sock;
	uint32_t first;			/* type of its first frame */
	uint32_t guards;
};

static struct probe
probe_start(bool as_user, uint32_t uid, uint32_t parent)
{
	struct extract_hello hello = { .version = EXTRACT_WIRE_VERSION, .uid = uid, .gid = NOBODY,
		.parent = parent, .limits = EXTRACT_LIMITS_DEFAULT };
	struct probe p = { .pid = 0 };
	int socks[2];
	size_t len;

	hello.limits.memory_bytes = 256 << 20;
	assert_int_equal(frame_pair(socks), 0);
	p.pid = fork();
	assert_true(p.pid >= 0);
	if (p.pid == 0) {
		if (as_user && (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 ||
		    setuid(NOBODY) < 0))
			_exit(3);
		if (dup2(socks[1], EXTRACT_WIRE_FD) < 0)
			_exit(3);
		(void)execl(BUILD_DIR "/sandbox_probe", "sandbox_probe", (char *)NULL);
		_exit(3);
	}
	(void)close(socks[1]);
	p.sock = socks[0];
	assert_int_equal(frame_send(p.sock, EXTRACT_HELLO, &hello, sizeof(hello), -1, 0), 0);
	if (frame_recv(p.sock, &p.first, buf, &len, NULL, 0) == 0 &&
	    p.first == EXTRACT_READY && len == sizeof(p.guards))
		memcpy(&p.guards, buf, len);
	return p;
}

static int
probe_end(struct probe *p)
{
	int status;

	(void)close(p->sock);
	assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
	return status;
}

/* The errno of an attempt, -SIGSYS when it died of it. */
static int
attempt(bool as_user, const char *what)
{
	struct probe p = probe_start(as_user, NOBODY, (uint32_t)getpid());
	uint32_t type;
	size_t len;
	int e = -1, status;

	if (p.first != EXTRACT_READY)
		fail_msg("%s: no sandbox: %.80s", what, buf);
	assert_int_equal(frame_send(p.sock, EXTRACT_JOB, what, strlen(what), -1, 0), 0);
	if (frame_recv(p.sock, &type, buf, &len, NULL, 0) == 0 && len == sizeof(e))
		memcpy(&e, buf, sizeof(e));
	status = probe_end(&p);
	if (WIFSIGNALED(status))
		return -WTERMSIG(status);
	return e;
}

static void
try_everything(bool as_user)
{
	static const char *const all[] = {
		"open", "openat", "creat", "proc", "stat", "unlink", "chmod", "mount", "memfd",
		"uring", "socket", "unix", "connect", "socketpair", "fork", "vfork", "clone3",
		"execve", "ptrace", "vm_readv", "kill", "tgkill", "setns", "setuid", "rlimit",
		"dumpable", "chroot", "bpf", "keyctl", "ioctl", "memory",
	};
	int victim = open("/tmp/tbfs-probe-victim", O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
	size_t i;

	assert_true(victim >= 0);
	(void)close(victim);
	assert_int_equal(attempt(as_user, "nothing"), 0);
	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		int e = attempt(as_user, all[i]);

		if (e <= 0 && e != -SIGSYS)
			fail_msg("%s: %d", all[i], e);
		if (e == 9999)
			fail_msg("%s isn't tried", all[i]);
	}
	assert_int_equal(access("/tmp/tbfs-probe-victim", F_OK), 0);
	assert_int_equal(access("/tmp/tbfs-probe", F_OK), -1);
	(void)unlink("/tmp/tbfs-probe-victim");
}

static void
test_everything_is_denied(void **state)
{
	(void)state;
	try_everything(false);
}

static void
test_everything_is_denied_to_a_user(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	try_everything(true);
}

static void
test_guards_are_in_force(void **state)
{
	struct probe p = probe_start(false, NOBODY, (uint32_t)getpid());
	const uint32_t must = EXTRACT_GUARD_USER | EXTRACT_GUARD_CAPS |
	    EXTRACT_GUARD_NO_NEW_PRIVS | EXTRACT_GUARD_RLIMITS | EXTRACT_GUARD_SECCOMP;
	char path[64], status[4096];
	FILE *f;
	size_t n;

	(void)state;
	assert_int_equal(p.guards & must, must);
	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)p.pid);
	f = fopen(path, "re");
	assert_non_null(f);
	n = fread(status, 1, sizeof(status) - 1, f);
	status[n] = '\0';
	(void)fclose(f);
	assert_non_null(strstr(status, "CapEff:\t0000000000000000"));
	assert_non_null(strstr(status, "CapPrm:\t0000000000000000"));
	assert_non_null(strstr(status, "Seccomp:\t2"));
	assert_non_null(strstr(status, "NoNewPrivs:\t1"));
	if (geteuid() == 0) {
		assert_non_null(strstr(status, "CapBnd:\t0000000000000000"));
		assert_non_null(strstr(status, "Uid:\t65534\t65534\t65534\t65534"));
		assert_non_null(strstr(status, "Groups:\t \n"));
	}
	(void)probe_end(&p);
}

static void
test_it_will_not_work_as_root(void **state)
{
	struct probe p;
	int status;

	(void)state;
	if (geteuid() != 0)
		skip();
	p = probe_start(false, 0, (uint32_t)getpid());
	assert_int_equal(p.first, EXTRACT_REFUSED);
	status = probe_end(&p);
	assert_int_equal(WEXITSTATUS(status), EXTRACT_EXIT_SANDBOX);
}

static void
test_it_will_not_outlive_its_parent(void **state)
{
	struct probe p = probe_start(false, NOBODY, 1 << 22 | 4711);
	int status;

	(void)state;
	assert_int_equal(p.first, EXTRACT_REFUSED);
	status = probe_end(&p);
	assert_int_equal(WEXITSTATUS(status), EXTRACT_EXIT_SANDBOX);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_everything_is_denied),
		cmocka_unit_test(test_everything_is_denied_to_a_user),
		cmocka_unit_test(test_guards_are_in_force),
		cmocka_unit_test(test_it_will_not_work_as_root),
		cmocka_unit_test(test_it_will_not_outlive_its_parent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
