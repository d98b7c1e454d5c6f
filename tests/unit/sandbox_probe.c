/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A planted worker: the real sandbox, and behind it not a decoder but an
 * attacker, who tries the one thing that the JOB frame names.  It answers with
 * the errno it got (0: the thing was done), if it lives to tell.
 */
#include "base/frame.h"
#include "extract/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char buf[FRAME_MAX];

static int
result(long r)
{
	return r < 0 ? errno : 0;
}

static int
try_files(const char *what)
{
	struct stat st;

	if (strcmp(what, "open") == 0)
		return result(syscall(SYS_open, "/etc/passwd", O_RDONLY));
	if (strcmp(what, "openat") == 0)
		return result(openat(AT_FDCWD, "/etc/passwd", O_RDONLY));
	if (strcmp(what, "creat") == 0)
		return result(open("/tmp/tbfs-probe", O_WRONLY | O_CREAT, 0600));
	if (strcmp(what, "proc") == 0)
		return result(open("/proc/self/mem", O_RDWR));
	if (strcmp(what, "stat") == 0)
		return result(stat("/etc/passwd", &st));
	if (strcmp(what, "unlink") == 0)
		return result(unlink("/tmp/tbfs-probe-victim"));
	if (strcmp(what, "chmod") == 0)
		return result(chmod("/tmp/tbfs-probe-victim", 0777));
	if (strcmp(what, "mount") == 0)
		return result(syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, NULL));
	if (strcmp(what, "memfd") == 0)
		return result(memfd_create("x", 0));
	if (strcmp(what, "uring") == 0)
		return result(syscall(SYS_io_uring_setup, 1, buf));
	return -1;
}

static int
try_net(const char *what)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(80),
		.sin_addr = { htonl(INADDR_LOOPBACK) } };
	int pair[2];

	if (strcmp(what, "socket") == 0)
		return result(socket(AF_INET, SOCK_STREAM, 0));
	if (strcmp(what, "unix") == 0)
		return result(socket(AF_UNIX, SOCK_STREAM, 0));
	if (strcmp(what, "connect") == 0)
		return result(connect(EXTRACT_WIRE_FD, (struct sockaddr *)&to, sizeof(to)));
	if (strcmp(what, "socketpair") == 0)
		return result(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	return -1;
}

static int
try_processes(const char *what)
{
	char *argv[] = { (char *)(uintptr_t)"true", NULL };
	pid_t pid;

	if (strcmp(what, "fork") == 0) {
		pid = fork();
		if (pid == 0)
			_exit(0);
		return result(pid);
	}
	if (strcmp(what, "vfork") == 0)
		return result(syscall(SYS_clone, CLONE_VFORK | CLONE_VM | SIGCHLD, 0, 0, 0, 0));
	if (strcmp(what, "clone3") == 0) {
		memset(buf, 0, 128);
		return result(syscall(SYS_clone3, buf, 64));
	}
	if (strcmp(what, "execve") == 0)
		return result(execve("/bin/true", argv, argv + 1));
	if (strcmp(what, "ptrace") == 0)
		return result(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL));
	if (strcmp(what, "vm_readv") == 0)
		return result(syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0));
	if (strcmp(what, "kill") == 0)
		return result(kill(getppid(), SIGTERM));
	if (strcmp(what, "tgkill") == 0)
		return result(syscall(SYS_tgkill, getppid(), getppid(), SIGTERM));
	if (strcmp(what, "setns") == 0)
		return result(unshare(CLONE_NEWUSER));
	return -1;
}

static int
try_rights(const char *what)
{
	struct rlimit more = { 1 << 30, 1 << 30 };

	if (strcmp(what, "setuid") == 0)
		return result(setuid(0));
	if (strcmp(what, "rlimit") == 0)
		return result(setrlimit(RLIMIT_FSIZE, &more));
	if (strcmp(what, "dumpable") == 0)
		return result(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
	if (strcmp(what, "chroot") == 0)
		return result(chroot("/"));
	if (strcmp(what, "bpf") == 0)
		return result(syscall(SYS_bpf, 0, buf, 64));
	if (strcmp(what, "keyctl") == 0)
		return result(syscall(SYS_keyctl, 0, 0));
	if (strcmp(what, "ioctl") == 0)
		return result(syscall(SYS_ioctl, 0, 0x5412, "x"));
	if (strcmp(what, "memory") == 0)
		return mmap(NULL, 600 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0) == MAP_FAILED ? errno : 0;
	return -1;
}

static int
try(const char *what)
{
	static int (*const tries[])(const char *) = {
		try_files, try_net, try_processes, try_rights,
	};
	size_t i;

	if (strcmp(what, "nothing") == 0)
		return 0;
	for (i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
		int e = tries[i](what);

		if (e >= 0)
			return e;
	}
	return 9999;
}

int
main(void)
{
	struct extract_hello hello;
	struct error err = { 0 };
	uint32_t type, guards = 0;
	size_t len;
	int e;

	if (frame_recv(EXTRACT_WIRE_FD, &type, buf, &len, NULL, 0) < 0 || len != sizeof(hello))
		return 1;
	memcpy(&hello, buf, sizeof(hello));
	if (sandbox_enter(&hello, EXTRACT_WIRE_FD, &guards, &err) < 0) {
		(void)frame_send(EXTRACT_WIRE_FD, EXTRACT_REFUSED, err.text, strlen(err.text), -1,
		    0);
		return EXTRACT_EXIT_SANDBOX;
	}
	(void)frame_send(EXTRACT_WIRE_FD, EXTRACT_READY, &guards, sizeof(guards), -1, 0);
	if (frame_recv(EXTRACT_WIRE_FD, &type, buf, &len, NULL, 0) < 0)
		return 1;
	buf[len < 64 ? len : 64] = '\0';
	e = try(buf);
	(void)frame_send(EXTRACT_WIRE_FD, EXTRACT_DONE, &e, sizeof(e), -1, 0);
	return 0;
}
