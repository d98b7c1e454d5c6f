/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The system calls that a worker has left.
 *
 *  1. An allow list: memory, threads, clocks, and reading and writing what is
 *     open already.  Anything else kills the process.
 *  2. Calls that libraries make to probe their surroundings (open a font, stat
 *     a module, name a thread, ask for a limit) are refused with an errno
 *     instead, so that they do without.
 *  3. Threads, but no processes: clone() must ask for CLONE_THREAD; clone3(),
 *     whose arguments a filter can't see, doesn't exist (ENOSYS), and the C
 *     library then uses clone().
 *  4. Signals only to itself (abort()).
 *
 * The filter is set for all threads at once.
 */
#include "extract/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

#define CALL(name) SCMP_SYS(name)

static const int calls_allowed[] = {
	/* memory */
	CALL(brk), CALL(mmap), CALL(munmap), CALL(mremap), CALL(mprotect), CALL(madvise),
	/* threads of this process */
	CALL(futex), CALL(set_robust_list), CALL(rseq), CALL(sched_yield), CALL(gettid),
	CALL(getpid), CALL(exit), CALL(exit_group), CALL(sched_getaffinity), CALL(getcpu),
	CALL(getuid), CALL(geteuid), CALL(getgid), CALL(getegid), CALL(getppid),
	/* signals it gets */
	CALL(rt_sigaction), CALL(rt_sigprocmask), CALL(rt_sigreturn), CALL(sigaltstack),
	CALL(restart_syscall),
	/* clocks and chance */
	CALL(clock_gettime), CALL(clock_getres), CALL(gettimeofday), CALL(time),
	CALL(nanosleep), CALL(clock_nanosleep), CALL(times), CALL(getrusage), CALL(getrandom),
	/* what is open already */
	CALL(read), CALL(readv), CALL(pread64), CALL(preadv), CALL(lseek), CALL(write),
	CALL(writev), CALL(recvmsg), CALL(sendmsg), CALL(poll), CALL(ppoll), CALL(close),
};

/* Refused with EACCES: there are no files here. */
static const int calls_no_files[] = {
	CALL(open), CALL(openat), CALL(openat2), CALL(creat), CALL(stat), CALL(lstat),
	CALL(fstat), CALL(newfstatat), CALL(statx), CALL(access), CALL(faccessat),
	CALL(faccessat2), CALL(readlink), CALL(readlinkat), CALL(getcwd), CALL(statfs),
	CALL(fstatfs), CALL(getdents64), CALL(unlink), CALL(unlinkat), CALL(mkdir),
	CALL(mkdirat), CALL(umask), CALL(rename), CALL(renameat), CALL(renameat2), CALL(memfd_create),
};

/* Refused with EPERM: harmless questions and wishes. */
static const int calls_no_wishes[] = {
	CALL(ioctl), CALL(uname), CALL(sysinfo), CALL(prlimit64), CALL(getrlimit),
	CALL(setrlimit), CALL(sched_setaffinity), CALL(sched_getparam), CALL(sched_setparam),
	CALL(sched_getscheduler), CALL(sched_setscheduler), CALL(sched_getattr),
	CALL(sched_setattr), CALL(setpriority), CALL(getpriority), CALL(mbind),
	CALL(set_mempolicy), CALL(get_mempolicy), CALL(membarrier), CALL(dup), CALL(eventfd2),
	CALL(pipe2),
};

static int
filter_add_all(scmp_filter_ctx ctx, uint32_t action, const int *calls, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		int r = seccomp_rule_add(ctx, action, calls[i], 0);

		/* A call that this architecture doesn't have needs no rule. */
		if (r < 0 && r != -EDOM && r != -EINVAL)
			return r;
	}
	return 0;
}

static int
filter_add_clone(scmp_filter_ctx ctx)
{
	const scmp_datum_t thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
	    CLONE_THREAD;
	int r;

	/* Flags are the first argument of clone() on every architecture but s390. */
	r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, CALL(clone), 1,
	    SCMP_A0(SCMP_CMP_MASKED_EQ, thread, thread));
	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), CALL(clone3), 0);
	return r;
}

/* What is allowed with some arguments only. */
static int
filter_add_narrow(scmp_filter_ctx ctx)
{
	int r = filter_add_clone(ctx);

	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, CALL(tgkill), 1,
		    SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, CALL(fcntl), 1,
		    SCMP_A1(SCMP_CMP_EQ, F_GETFL));
	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, CALL(fcntl), 1,
		    SCMP_A1(SCMP_CMP_EQ, F_GETFD));
	/* Thread and mapping names: refused, politely. */
	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), CALL(prctl), 1,
		    SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), CALL(prctl), 1,
		    SCMP_A0(SCMP_CMP_EQ, PR_SET_VMA));
	return r;
}

int
sandbox_filter(struct error *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r;

	if (ctx == NULL)
		return error_set(err, -ENOMEM, "seccomp: out of memory");
	r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	if (r == 0)
		r = filter_add_all(ctx, SCMP_ACT_ALLOW, calls_allowed,
		    sizeof(calls_allowed) / sizeof(calls_allowed[0]));
	if (r == 0)
		r = filter_add_all(ctx, SCMP_ACT_ERRNO(EACCES), calls_no_files,
		    sizeof(calls_no_files) / sizeof(calls_no_files[0]));
	if (r == 0)
		r = filter_add_all(ctx, SCMP_ACT_ERRNO(EPERM), calls_no_wishes,
		    sizeof(calls_no_wishes) / sizeof(calls_no_wishes[0]));
	if (r == 0)
		r = filter_add_narrow(ctx);
	if (r == 0)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	if (r < 0)
		return error_set(err, r, "seccomp: %s", strerror(-r));
	return 0;
}
