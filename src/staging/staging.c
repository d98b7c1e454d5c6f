/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Staged files.
 *
 *   1. A staged file's name is its inode number, which is never used twice; so a
 *      descriptor or a path can't mean another file later.
 *   2. Removing one is final: callers do it only after the commit that justifies it
 *      was synced.
 *   3. Quiet is what the kernel says: a read lease is granted only while no descriptor
 *      and no mapping can write.  The lease is given back at once.
 */
#include "staging/staging.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

struct staging {
	int dirfd;			/* <state_dir>/data */
	char *path;
	const char *xattr;		/* trusted.tbfs needs CAP_SYS_ADMIN; user.tbfs without */
};

enum { NAME_ROOM = 32, PLACE_ROOM = 512 };

static void
staged_name(uint64_t ino, char *ret_name)
{
	(void)snprintf(ret_name, NAME_ROOM, "%02x/%ju", (unsigned)(ino & 0xff), (uintmax_t)ino);
}

int
staging_open_dir(const char *state_dir, struct staging **ret_st, struct error *err)
{
	struct staging *st = calloc(1, sizeof(*st));
	unsigned i;
	int r = 0;

	if (st == NULL)
		return -ENOMEM;
	st->dirfd = -1;
	st->xattr = geteuid() == 0 ? "trusted.tbfs" : "user.tbfs";
	if (asprintf(&st->path, "%s/data", state_dir) < 0) {
		free(st);
		return -ENOMEM;
	}
	r = mkdir_parents(AT_FDCWD, st->path, 0700);
	if (r == 0) {
		st->dirfd = open(st->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = st->dirfd < 0 ? -errno : 0;
	}
	for (i = 0; i < 256 && r == 0; i++) {
		char name[4];

		(void)snprintf(name, sizeof(name), "%02x", i);
		if (mkdirat(st->dirfd, name, 0700) < 0 && errno != EEXIST)
			r = -errno;
	}
	if (r == 0)
		r = fsync(st->dirfd) < 0 ? -errno : 0;
	if (r < 0) {
		(void)error_set(err, r, "the staging cache %s can't be made: %s", st->path, strerror(-r));
		staging_close_dir(st);
		return r;
	}
	*ret_st = st;
	return 0;
}

void
staging_close_dir(struct staging *st)
{
	if (st == NULL)
		return;
	if (st->dirfd >= 0)
		(void)close(st->dirfd);
	free(st->path);
	free(st);
}

/* Mounts are numbered since Linux 6.8 with numbers that are not used again (statx(2)). */
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000U
#endif

void
staging_life(const char *state_dir, char *ret_life, size_t room)
{
	CLEANUP_FREE char *boot = NULL;
	struct statx stx = { 0 };

	(void)read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 256, &boot, NULL);
	if (boot != NULL)
		boot[strcspn(boot, "\n")] = '\0';
	(void)statx(AT_FDCWD, state_dir, 0, STATX_MNT_ID_UNIQUE, &stx);
	(void)snprintf(ret_life, room, "%s %ju %u:%u", boot != NULL ? boot : "?",
	    (stx.stx_mask & STATX_MNT_ID_UNIQUE) != 0 ? (uintmax_t)stx.stx_mnt_id : 0,
	    stx.stx_dev_major, stx.stx_dev_minor);
}

int
staging_folder_path(const struct staging *st, unsigned low_byte, char *ret_path, size_t room)
{
	int n = snprintf(ret_path, room, "%s/%02x", st->path, low_byte & 0xff);

	return n < 0 || (size_t)n >= room ? -ENAMETOOLONG : 0;
}

uint64_t
staging_name_ino(const char *name)
{
	char *end;
	uint64_t ino = strtoull(name, &end, 10);

	return *end == '\0' && end != name ? ino : 0;
}

int
staging_create(struct staging *st, uint64_t ino)
{
	char name[NAME_ROOM];
	int fd;

	staged_name(ino, name);
	fd = openat(st->dirfd, name, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

int
staging_open(struct staging *st, uint64_t ino, int flags)
{
	char name[NAME_ROOM];
	int fd;

	staged_name(ino, name);
	fd = openat(st->dirfd, name, flags | O_CLOEXEC | O_NOATIME);
	if (fd < 0 && errno == EPERM)
		fd = openat(st->dirfd, name, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int
staging_stat(struct staging *st, uint64_t ino, struct stat *ret_stat)
{
	char name[NAME_ROOM];

	staged_name(ino, name);
	return fstatat(st->dirfd, name, ret_stat, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

int
staging_remove(struct staging *st, uint64_t ino)
{
	char name[NAME_ROOM];

	staged_name(ino, name);
	return unlinkat(st->dirfd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

int
staging_set_times(struct staging *st, uint64_t ino, const struct timespec times[2])
{
	char name[NAME_ROOM];

	staged_name(ino, name);
	return utimensat(st->dirfd, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

int
staging_sync_name(struct staging *st, uint64_t ino)
{
	char name[4];

	(void)snprintf(name, sizeof(name), "%02x", (unsigned)(ino & 0xff));
	return fsync_dirat(st->dirfd, name);
}

int
staging_sync_all(struct staging *st)
{
	return syncfs(st->dirfd) < 0 ? -errno : 0;
}

int
staging_scratch(struct staging *st)
{
	int fd = openat(st->dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : fd;
}

int
staging_adopt(struct staging *st, int fd, uint64_t ino)
{
	char from[64], name[NAME_ROOM];

	(void)snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
	staged_name(ino, name);
	return linkat(AT_FDCWD, from, st->dirfd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

int
staging_is_quiet(int fd)
{
	if (fcntl(fd, F_SETLEASE, F_RDLCK) < 0)
		return errno == EAGAIN ? -EBUSY : -errno;
	return fcntl(fd, F_SETLEASE, F_UNLCK) < 0 ? -errno : 0;
}

/* ---- places ---- */

static void
staged_path(const struct staging *st, uint64_t ino, char *ret_path, size_t room)
{
	char name[NAME_ROOM];

	staged_name(ino, name);
	(void)snprintf(ret_path, room, "%s/%s", st->path, name);
}

int
staging_place_write(struct staging *st, uint64_t ino, const struct staging_place *place)
{
	char path[4096 + NAME_ROOM], text[PLACE_ROOM];
	int n;

	staged_path(st, ino, path, sizeof(path));
	/* The name comes last: it may hold anything but NUL. */
	n = snprintf(text, sizeof(text), "1 %ju %ju %o %u %u %u %s", (uintmax_t)place->parent,
	    (uintmax_t)place->generation, place->mode, place->uid, place->gid, place->flags,
	    place->name);
	return setxattr(path, st->xattr, text, (size_t)n, 0) < 0 ? -errno : 0;
}

int
staging_place_bury(struct staging *st, uint64_t ino)
{
	struct staging_place none = { .mode = 0 };

	return staging_place_write(st, ino, &none);
}

int
staging_place_read(struct staging *st, uint64_t ino, struct staging_place *ret_place)
{
	char path[4096 + NAME_ROOM], text[PLACE_ROOM + 1];
	uintmax_t parent, generation;
	int at = 0;
	ssize_t n;

	staged_path(st, ino, path, sizeof(path));
	n = getxattr(path, st->xattr, text, PLACE_ROOM);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	if (sscanf(text, "1 %ju %ju %o %u %u %u%n", &parent, &generation, &ret_place->mode,
	    &ret_place->uid, &ret_place->gid, &ret_place->flags, &at) != 6 || text[at] != ' ')
		return -EBADMSG;
	ret_place->parent = parent;
	ret_place->generation = generation;
	(void)snprintf(ret_place->name, sizeof(ret_place->name), "%s", text + at + 1);
	return 0;
}

static int
scan_folder(struct staging *st, const char *name, int (*fn)(void *arg, uint64_t ino), void *arg)
{
	int fd = openat(st->dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	struct dirent *e;
	DIR *d;

	if (fd < 0)
		return -errno;
	d = fdopendir(fd);
	if (d == NULL) {
		(void)close(fd);
		return -ENOMEM;
	}
	while (r == 0 && (e = readdir(d)) != NULL) {
		uint64_t ino = e->d_name[0] == '.' ? 0 : staging_name_ino(e->d_name);

		if (ino != 0)
			r = fn(arg, ino);
	}
	(void)closedir(d);
	return r;
}

int
staging_scan(struct staging *st, int (*fn)(void *arg, uint64_t ino), void *arg)
{
	unsigned i;
	int r = 0;

	for (i = 0; i < 256 && r == 0; i++) {
		char name[4];

		(void)snprintf(name, sizeof(name), "%02x", i);
		r = scan_folder(st, name, fn, arg);
	}
	return r;
}

int
staging_space(struct staging *st, struct staging_space *ret_space)
{
	struct statvfs vfs;

	if (fstatvfs(st->dirfd, &vfs) < 0)
		return -errno;
	*ret_space = (struct staging_space){
		.total = (uint64_t)vfs.f_blocks * vfs.f_frsize,
		.available = (uint64_t)vfs.f_bavail * vfs.f_frsize,
		.files = vfs.f_files, .files_free = vfs.f_ffree,
	};
	return 0;
}
