/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Entering the sandbox, in an order in which each step still can be made:
 *
 *	 1. one thread, no descriptor but the socket
 *	 2. as root: own network, IPC and mount namespaces, an empty root
 *	 3. as root: no supplementary groups, empty bounding set, gid, uid
 *	 4. no capability in any set, not dumpable, dies with the daemon
 *	 5. no_new_privs
 *	 6. landlock without a single rule: no file, no TCP, no signal outwards
 *	 7. rlimits
 *	 8. the system call filter (seccomp.c)
 *
 * Steps 2 and 6 are best effort (containers forbid the one, old kernels lack
 * the other); all others must hold, and are checked afterwards by asking the
 * kernel, or the worker refuses to work.
 *
 * RLIMIT_NPROC isn't used: it counts the processes of a user on the whole
 * machine and would forbid the threads that libvips needs; step 8 forbids
 * processes.  In a sanitizer build the limits on memory and step 8 are left
 * out (the sanitizer's runtime needs both) and the guards say so.
 */
#include "extract/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANDBOX_SANITIZER 1
#else
#define SANDBOX_SANITIZER 0
#endif

/* Landlock as later kernels know it; older headers lack the fields. */
struct landlock_rules {
	uint64_t fs, net, scoped;
};

static int
sandbox_count_threads(void)
{
	DIR *d = opendir("/proc/self/task");
	int n = 0;

	if (d == NULL)
		return -errno;
	while (readdir(d) != NULL)
		n++;
	(void)closedir(d);
	return n - 2;
}

/* The root of a daemon that was started in a chroot is no mount point, which changing roots
 * needs; and without that the worker would keep a copy of every mount of the machine.
 * Entering the mount namespace again begins at its own root (setns(2)). */
static bool
sandbox_leave_chroot(void)
{
	int fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC), r;

	if (fd < 0)
		return false;
	r = setns(fd, CLONE_NEWNS);
	(void)close(fd);
	return r == 0;
}

/* An empty file system as root, that nobody else sees.  What was mounted is let go of: a copy
 * of the host's mounts would keep them, and with them the daemon's own, from ever ending. */
static bool
sandbox_empty_root(void)
{
	if (unshare(CLONE_NEWNS) < 0 || !sandbox_leave_chroot() ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY,
	    "size=4k,nr_inodes=2,mode=555") < 0)
		return false;
	/* Both roots at one place, then the old one detached (pivot_root(2), NOTES). */
	return chdir("/tmp") == 0 && syscall(SYS_pivot_root, ".", ".") == 0 &&
	    umount2(".", MNT_DETACH) == 0 && chdir("/") == 0;
}

static int
sandbox_drop_user(const struct extract_hello *hello, struct error *err)
{
	int cap;

	if (hello->uid == 0 || hello->gid == 0)
		return error_set(err, -EINVAL, "won't parse files as root");
	for (cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return error_set(err, -errno, "bounding set: %s", strerror(errno));
	if (setgroups(0, NULL) < 0 ||
	    setresgid(hello->gid, hello->gid, hello->gid) < 0 ||
	    setresuid(hello->uid, hello->uid, hello->uid) < 0)
		return error_set(err, -errno, "can't become user %u: %s", hello->uid,
		    strerror(errno));
	return 0;
}

static int
sandbox_drop_caps(struct error *err)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2], now[2];

	memset(none, 0, sizeof(none));
	memset(now, 0xff, sizeof(now));
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capset, &head, none) < 0 || syscall(SYS_capget, &head, now) < 0)
		return error_set(err, -errno, "capabilities: %s", strerror(errno));
	if (memcmp(none, now, sizeof(none)) != 0)
		return error_set(err, -EPERM, "capabilities are left");
	if (getuid() == 0 || geteuid() == 0 || getgid() == 0 || getegid() == 0)
		return error_set(err, -EPERM, "still root");
	return 0;
}

static int
sandbox_bind_to_parent(const struct extract_hello *hello, struct error *err)
{
	/* After the change of user, which clears it. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ||
	    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return error_set(err, -errno, "prctl: %s", strerror(errno));
	if ((uint32_t)getppid() != hello->parent)
		return error_set(err, -ESRCH, "the daemon is gone");
	return 0;
}

static bool
sandbox_landlock(void)
{
	struct landlock_rules rules = { .fs = (1u << 13) - 1 };
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	size_t size = sizeof(rules.fs);
	long fd;
	bool done;

	if (abi < 1)
		return false;
	if (abi >= 2)
		rules.fs |= 1u << 13;		/* refer */
	if (abi >= 3)
		rules.fs |= 1u << 14;		/* truncate */
	if (abi >= 5)
		rules.fs |= 1u << 15;		/* ioctl on devices */
	if (abi >= 4) {
		rules.net = 3;			/* bind and connect TCP */
		size = 2 * sizeof(uint64_t);
	}
	if (abi >= 6) {
		rules.scoped = 3;		/* abstract sockets, signals */
		size = sizeof(rules);
	}
	fd = syscall(SYS_landlock_create_ruleset, &rules, size, 0);
	if (fd < 0)
		return false;
	done = syscall(SYS_landlock_restrict_self, (int)fd, 0) == 0;
	(void)close((int)fd);
	return done;
}

/* What the process has mapped already: its libraries aren't part of a job's memory. */
static uint64_t
sandbox_mapped(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f == NULL)
		return 1ull << 30;
	if (fscanf(f, "%lu", &pages) != 1)
		pages = (1ul << 30) / 4096;
	(void)fclose(f);
	return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int
sandbox_rlimits(const struct extract_hello *hello, uint64_t mapped, struct error *err)
{
	const uint64_t memory = hello->limits.memory_bytes;
	/* RLIMIT_CPU is the daemon's to set, job by job: a worker lives for many. */
	const struct { int which; uint64_t value; } limits[] = {
		{ RLIMIT_CORE, 0 }, { RLIMIT_FSIZE, 0 }, { RLIMIT_NOFILE, 8 },
		{ RLIMIT_MEMLOCK, 0 }, { RLIMIT_MSGQUEUE, 0 }, { RLIMIT_NICE, 0 },
		{ RLIMIT_RTPRIO, 0 },
		{ RLIMIT_AS, mapped + memory }, { RLIMIT_DATA, mapped + memory },
	};
	size_t i, n = sizeof(limits) / sizeof(limits[0]);

	if (SANDBOX_SANITIZER)
		n -= 2;
	for (i = 0; i < n; i++) {
		struct rlimit l = { limits[i].value, limits[i].value };

		if (setrlimit(limits[i].which, &l) < 0)
			return error_set(err, -errno, "rlimit %d: %s", limits[i].which,
			    strerror(errno));
	}
	return 0;
}

static int
sandbox_alone(int sock, struct error *err)
{
	int n = sandbox_count_threads();

	if (n < 0)
		return error_set(err, n, "/proc/self/task: %s", strerror(-n));
	if (n != 1 && !SANDBOX_SANITIZER)
		return error_set(err, -EBUSY, "%d threads before the sandbox", n);
	if (sock != EXTRACT_WIRE_FD)
		return error_set(err, -EBADF, "the socket is %d", sock);
	if (!SANDBOX_SANITIZER &&
	    syscall(SYS_close_range, EXTRACT_WIRE_FD + 1, ~0u, 0) < 0 && errno != ENOSYS)
		return error_set(err, -errno, "close_range: %s", strerror(errno));
	return 0;
}

int
sandbox_enter(const struct extract_hello *hello, int sock, uint32_t *ret_guards,
    struct error *err)
{
	uint32_t guards = 0;
	uint64_t mapped = sandbox_mapped();
	int r = sandbox_alone(sock, err);

	if (r < 0)
		return r;
	if (chdir("/") < 0)
		return error_set(err, -errno, "chdir: %s", strerror(errno));
	if (geteuid() == 0) {
		guards |= unshare(CLONE_NEWNET | CLONE_NEWIPC) == 0 ? EXTRACT_GUARD_NO_NET : 0;
		guards |= sandbox_empty_root() ? EXTRACT_GUARD_EMPTY_ROOT : 0;
		r = sandbox_drop_user(hello, err);
	}
	if (r == 0)
		r = sandbox_drop_caps(err);
	if (r == 0)
		r = sandbox_bind_to_parent(hello, err);
	if (r < 0)
		return r;
	guards |= EXTRACT_GUARD_USER | EXTRACT_GUARD_CAPS | EXTRACT_GUARD_NO_NEW_PRIVS;
	guards |= sandbox_landlock() ? EXTRACT_GUARD_LANDLOCK : 0;
	r = sandbox_rlimits(hello, mapped, err);
	if (r < 0)
		return r;
	if (!SANDBOX_SANITIZER) {
		r = sandbox_filter(err);
		if (r < 0)
			return r;
		guards |= EXTRACT_GUARD_SECCOMP | EXTRACT_GUARD_RLIMITS;
	}
	*ret_guards = guards;
	return 0;
}
