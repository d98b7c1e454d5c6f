/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * One state directory belongs to one daemon at a time: two with one index and
 * one staging cache would destroy each other's files.  The lock is flock(2) on
 * a file in it: the kernel drops it when the last process that inherited the
 * descriptor has gone, however it died, and the pid in the file is only for
 * people.
 */
#include "cmd/state_dir.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int
make(const char *path)
{
	CLEANUP_FREE char *parent = strdup(path);
	char *slash;
	int r;

	if (parent == NULL)
		return -ENOMEM;
	if (mkdir(path, 0700) == 0 || errno == EEXIST)
		return 0;
	if (errno != ENOENT)
		return -errno;
	slash = strrchr(parent, '/');
	if (slash == NULL || slash == parent)
		return -ENOENT;
	*slash = '\0';
	r = mkdir_parents(AT_FDCWD, parent, 0755);
	if (r < 0)
		return r;
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

int
state_dir_prepare(const char *path, struct error *err)
{
	struct stat st;
	int r = make(path);

	if (r == 0 && stat(path, &st) < 0)
		r = -errno;
	if (r == 0 && !S_ISDIR(st.st_mode))
		r = -ENOTDIR;
	if (r < 0)
		return error_set(err, r, "state directory %s: %s", path, strerror(-r));
	if (st.st_uid != geteuid() && geteuid() != 0)
		return error_set(err, -EPERM, "state directory %s belongs to another user", path);
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return error_set(err, -EPERM, "state directory %s can be written by others: chmod 700 it",
		    path);
	return 0;
}

static int
refuse(int fd, const char *path, int seconds, struct error *err)
{
	char pid[24];
	ssize_t n = pread_full(fd, pid, sizeof(pid) - 1, 0);

	pid[n > 0 ? n : 0] = '\0';
	pid[strspn(pid, "0123456789")] = '\0';
	return error_set(err, -EBUSY, "state directory %s is in use by another mount (pid %s), also after "
	    "%d seconds", path, pid[0] != '\0' ? pid : "unknown", seconds);
}

int
state_dir_lock(const char *path, int seconds, struct error *err)
{
	int64_t until = clock_mono_ns() + seconds * NSEC_PER_SEC;
	CLEANUP_CLOSE int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_CLOSE int fd = -1;
	int r;

	if (dir >= 0)
		fd = openat(dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		r = -errno;
		return error_set(err, r, "state directory %s: %s", path, strerror(-r));
	}
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		r = -errno;
		if (r != -EWOULDBLOCK && r != -EINTR)
			return error_set(err, r, "state directory %s can't be locked: %s", path, strerror(-r));
		if (clock_mono_ns() >= until)
			return refuse(fd, path, seconds, err);
		(void)usleep(100000);
	}
	state_dir_sign(fd);
	return TAKE_FD(fd);
}

void
state_dir_sign(int lock_fd)
{
	char pid[24];
	int n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());

	/* On a full disk the lock still holds; only its sentence has no number. */
	if (ftruncate(lock_fd, 0) == 0)
		(void)pwrite_full(lock_fd, pid, (size_t)n, 0);
}
