/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The directory tree of the local backend: root, parents, temporary files, and
 * how a name appears.
 *
 * Invariants:
 *   1. A name appears by rename from <root>/.tbfs/tmp/<process>/ and is synced
 *      before publish returns.
 *   2. A directory is visible to puts only after it is synced in its parent
 *      (l->dirs): a put that finds its parents there need not sync them again.
 *      probe's syncfs covers what an earlier process made and did not sync.
 *   3. A remove prunes directories it emptied, up to the root.  A put that loses
 *      its parent to that finds ENOENT and makes it again; one that finds an empty
 *      directory in its place removes that.
 *   4. Each process has a temporary directory of its own and holds a flock in it.
 *      One whose lock can be taken belongs to the dead, and probe empties it.  It is made when
 *      something is to be stored: on a full disk objects can still be read and removed.
 *   5. No symbolic link below the root is followed (openat2, Linux 5.6): a link put
 *      there can't lead a write out of the store.
 */
#include "backends/local_store.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { PUBLISH_TRIES = 100 };

int
local_fail(const struct local *l, int code, const char *doing, const char *key, struct error *err)
{
	const char *advice = "";
	int as;

	switch (-code) {
	case ENOSPC: case EDQUOT:
		as = -ENOSPC;
		advice = "; free space on that file system";
		break;
	case EACCES: case EPERM:
		as = -EACCES;
		advice = "; check who owns local.root_path and its mode";
		break;
	case EROFS:
		as = -EACCES;
		advice = "; local.root_path is on a file system mounted read-only";
		break;
	case ENAMETOOLONG:
		as = -EINVAL;
		advice = "; a name there has at most 255 bytes";
		break;
	case ENOTDIR: case EISDIR: case ENOTEMPTY:
		as = -EINVAL;
		advice = "; a name can't be both an object and a directory of objects";
		break;
	case ENOTSUP:
		as = -ENOTSUP;
		advice = "; local.root_path must be on a file system with user extended attributes "
		    "(ext4, XFS, Btrfs, ZFS, NFS 4.2)";
		break;
	case ENOENT: case ENODEV: case EAGAIN: case ECANCELED: case EEXIST: case EINVAL: case EIO:
		as = code;
		break;
	case ENOMEM: case EMFILE: case ENFILE: case EINTR: case EBUSY: case ESTALE: case ETXTBSY:
		as = -EAGAIN;
		break;
	default:
		as = -EIO;
		break;
	}
	return error_set(err, as, "local store %s: %s%s%.200s: %s%s", l->root, doing,
	    key[0] != '\0' ? " " : "", key, strerror(-code), advice);
}

bool
local_is_tmp(const char *key)
{
	size_t len = strlen(LOCAL_TMP);

	return strncmp(key, LOCAL_TMP, len) == 0 && (key[len] == '/' || key[len] == '\0');
}

int
local_open(struct local *l, const char *key, int flags)
{
	struct open_how how = { .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC | O_NOFOLLOW),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };
	long fd;
	int tries = 0;

	/* EAGAIN: a rename somewhere raced with the walk. */
	do {
		fd = syscall(SYS_openat2, l->root_fd, key, &how, sizeof(how));
	} while (fd < 0 && (errno == EINTR || (errno == EAGAIN && ++tries < PUBLISH_TRIES)));
	if (fd < 0 && errno == ENOSYS)
		fd = openat(l->root_fd, key, flags | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : (int)fd;
}

/* ---- temporary files ---- */

void
local_temp_name(struct local *l, struct local_temp *t)
{
	(void)snprintf(t->name, sizeof(t->name), "%ju",
	    (uintmax_t)atomic_fetch_add(&l->serial, 1));
}

int
local_temp_new(struct local *l, struct local_temp *t)
{
	local_temp_name(l, t);
	t->fd = openat(l->tmp_fd, t->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return t->fd < 0 ? -errno : 0;
}

void
local_temp_drop(struct local *l, struct local_temp *t)
{
	if (t->fd >= 0)
		(void)close(t->fd);
	t->fd = -1;
	if (t->name[0] != '\0')
		(void)unlinkat(l->tmp_fd, t->name, 0);
	t->name[0] = '\0';
}

static void
empty_dir(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (dir == NULL) {
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	while ((e = readdir(dir)) != NULL)
		(void)unlinkat(dir_fd, e->d_name, 0);
	(void)closedir(dir);
}

/* Invariant 4: remove `name` below .tbfs/tmp if nobody holds its lock. */
static void
reap_one(int all_fd, const char *name)
{
	CLEANUP_CLOSE int dir_fd = openat(all_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	CLEANUP_CLOSE int lock_fd = -1;

	if (dir_fd < 0)
		return;
	lock_fd = openat(dir_fd, "lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (lock_fd < 0 && errno != ENOENT)
		return;
	if (lock_fd >= 0 && flock(lock_fd, LOCK_EX | LOCK_NB) < 0)
		return;
	/* Without a lock file it's empty or being born: rmdir tells, and the newborn tries again. */
	if (lock_fd >= 0)
		empty_dir(dir_fd);
	(void)unlinkat(all_fd, name, AT_REMOVEDIR);
}

static void
reap_dead(int all_fd)
{
	int fd = openat(all_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (dir == NULL) {
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	while ((e = readdir(dir)) != NULL)
		if (e->d_name[0] != '.')
			reap_one(all_fd, e->d_name);
	(void)closedir(dir);
}

/* Make our own temporary directory and lock it. */
static int
own_tmp(struct local *l, int all_fd)
{
	int tries;

	for (tries = 0; tries < PUBLISH_TRIES; tries++) {
		CLEANUP_CLOSE int dir_fd = -1;
		CLEANUP_CLOSE int lock_fd = -1;
		struct stat st;

		(void)snprintf(l->tmp_id, sizeof(l->tmp_id), "%d-%jx-%d", (int)getpid(),
		    (uintmax_t)clock_wall_ns(), tries);
		if (mkdirat(all_fd, l->tmp_id, 0700) < 0)
			return -errno;
		dir_fd = openat(all_fd, l->tmp_id, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir_fd >= 0)
			lock_fd = openat(dir_fd, "lock", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (lock_fd < 0 && errno == ENOENT)
			continue;
		if (lock_fd < 0) {
			int r = -errno;

			(void)unlinkat(all_fd, l->tmp_id, AT_REMOVEDIR);
			return r;
		}
		/* A prober that was quicker takes it away. */
		if (flock(lock_fd, LOCK_EX | LOCK_NB) < 0 || fstat(lock_fd, &st) < 0 || st.st_nlink == 0)
			continue;
		l->tmp_fd = TAKE_FD(dir_fd);
		l->lock_fd = TAKE_FD(lock_fd);
		return 0;
	}
	return -EAGAIN;
}

static int
open_root(struct local *l, bool create, struct error *err)
{
	int r;

	l->root_fd = open(l->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (l->root_fd >= 0)
		return 0;
	if (errno != ENOENT)
		return local_fail(l, errno == ENOTDIR ? -EINVAL : -errno, "opening the directory", "", err);
	if (!create || l->used)
		return error_set(err, -ENODEV, "local store: the directory %s (local.root_path) does not "
		    "exist%s", l->root, l->used ? ", but there are objects in it: is its disk mounted?" : "");
	r = mkdir_parents(AT_FDCWD, l->root, 0755);
	if (r < 0)
		return local_fail(l, r, "making the directory", "", err);
	l->root_fd = open(l->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return l->root_fd >= 0 ? 0 : local_fail(l, -errno, "opening the directory", "", err);
}

/* Does the directory hold nothing but what `but` names (NULL at its end)?  Also one that isn't there. */
static int
holds_only(int root_fd, const char *name, const char *const but[])
{
	int fd = openat(root_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 1;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e = NULL;
	size_t i;

	if (dir == NULL) {
		r = errno == ENOENT ? 1 : -errno;
		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	while (r == 1 && (errno = 0, e = readdir(dir)) != NULL) {
		for (i = 0; but[i] != NULL && strcmp(e->d_name, but[i]) != 0; i++)
			;
		r = but[i] != NULL;
	}
	if (r == 1 && errno != 0)
		r = -errno;
	(void)closedir(dir);
	return r;
}

/* Has nothing ever been stored there?  A new disk has lost+found; temporary files may be left. */
static int
is_blank(int root_fd)
{
	static const char *const nothing[] = { ".", "..", NULL };
	static const char *const at_top[] = { ".", "..", "lost+found", ".tbfs", NULL };
	int r = holds_only(root_fd, ".", at_top);

	if (r == 1)
		r = holds_only(root_fd, "lost+found", nothing);
	return r == 1 ? holds_only(root_fd, ".tbfs/o", nothing) : r;
}

/* The mountpoint of a disk that isn't mounted is a directory like any other. */
static int
check_used(struct local *l, struct error *err)
{
	int r = is_blank(l->root_fd);

	return r < 0 ? local_fail(l, r, "reading the directory", "", err) : r == 0 ? 0 :
	    error_set(err, -ENODEV, "local store: %s is empty, but there are objects in it: is its disk "
	    "mounted? If they are lost, put any file there, and it is used again", l->root);
}

static int
become_ready(struct local *l, bool create, struct error *err)
{
	int r = open_root(l, create, err);

	if (r == 0 && l->used && (r = check_used(l, err)) < 0) {
		(void)close(l->root_fd);
		l->root_fd = -1;
	}
	if (r == 0 && syncfs(l->root_fd) < 0) {		/* invariant 2 */
		r = local_fail(l, -errno, "syncing", "", err);
		(void)close(l->root_fd);
		l->root_fd = -1;
	}
	return r;
}

int
local_ready(struct local *l, bool create, struct error *err)
{
	int r = 0;

	if (!l->ready) {
		(void)pthread_rwlock_wrlock(&l->dirs);
		if (!l->ready) {
			r = become_ready(l, create, err);
			l->ready = r == 0;
		}
		(void)pthread_rwlock_unlock(&l->dirs);
	}
	if (r == 0 && create) {
		CLEANUP_CLOSE int all_fd = openat(l->root_fd, LOCAL_TMP,
		    O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (all_fd >= 0)
			reap_dead(all_fd);
	}
	return r;
}

static int
make_tmp(struct local *l)
{
	CLEANUP_CLOSE int all_fd = -1;
	int r;

	if (mkdirat(l->root_fd, ".tbfs", 0700) < 0 && errno != EEXIST)
		return -errno;
	if (mkdirat(l->root_fd, LOCAL_TMP, 0700) < 0 && errno != EEXIST)
		return -errno;
	/* Objects lie below .tbfs, too (invariant 2). */
	r = fsync_dirat(l->root_fd, ".");
	if (r < 0)
		return r;
	all_fd = openat(l->root_fd, LOCAL_TMP, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return all_fd < 0 ? -errno : own_tmp(l, all_fd);
}

int
local_tmp_ready(struct local *l, struct error *err)
{
	int r = 0;

	if (l->has_tmp)
		return 0;
	(void)pthread_rwlock_wrlock(&l->dirs);
	if (!l->has_tmp) {
		r = make_tmp(l);
		l->has_tmp = r == 0;
	}
	(void)pthread_rwlock_unlock(&l->dirs);
	return r < 0 ? local_fail(l, r, "making .tbfs/tmp", "", err) : 0;
}

/* ---- names ---- */

/* mkdir -p of `dir` below the root, each level synced.  Under the write lock of l->dirs. */
static int
make_parents(struct local *l, const char *dir)
{
	char path[BACKEND_KEY_MAX + 1];
	size_t at;

	for (at = 0; ; at++) {
		char above[BACKEND_KEY_MAX + 1] = ".";
		const char *slash;
		int r;

		at += strcspn(dir + at, "/");
		memcpy(path, dir, at);
		path[at] = '\0';
		if (mkdirat(l->root_fd, path, 0755) == 0) {
			slash = strrchr(path, '/');
			if (slash != NULL) {
				memcpy(above, path, (size_t)(slash - path));
				above[slash - path] = '\0';
			}
			r = fsync_dirat(l->root_fd, above);
			if (r < 0)
				return r;
		} else if (errno != EEXIST) {
			return -errno;
		}
		if (dir[at] == '\0')
			return 0;
	}
}

/* Open the directory of `key`, with `make` also where there is none yet.  *ret_base is the last component,
 * inside key. */
static int
open_parent(struct local *l, const char *key, bool make, const char **ret_base)
{
	char dir[BACKEND_KEY_MAX + 1] = ".";
	const char *slash = strrchr(key, '/');
	int fd, r;

	*ret_base = slash == NULL ? key : slash + 1;
	if (slash != NULL) {
		memcpy(dir, key, (size_t)(slash - key));
		dir[slash - key] = '\0';
	}
	(void)pthread_rwlock_rdlock(&l->dirs);
	fd = local_open(l, dir, O_RDONLY | O_DIRECTORY);
	(void)pthread_rwlock_unlock(&l->dirs);
	if (fd != -ENOENT || !make)
		return fd;
	(void)pthread_rwlock_wrlock(&l->dirs);
	r = make_parents(l, dir);
	fd = r < 0 ? r : local_open(l, dir, O_RDONLY | O_DIRECTORY);
	(void)pthread_rwlock_unlock(&l->dirs);
	return fd;
}

/* Remove a directory that holds nothing but empty directories.  `depth` bounds the recursion: a
 * key has at most 512 components. */
static int
remove_empty_tree(int parent_fd, const char *name, int depth)
{
	DIR *dir;
	struct dirent *e;
	int fd, r = 0;

	if (unlinkat(parent_fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return 0;
	if (errno != ENOTEMPTY && errno != EEXIST)
		return -errno;
	fd = depth == 0 ? -1 : openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		if (fd >= 0)
			(void)close(fd);
		return -ENOTEMPTY;
	}
	while (r == 0 && (e = readdir(dir)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		r = e->d_type != DT_DIR && e->d_type != DT_UNKNOWN ? -ENOTEMPTY :
		    remove_empty_tree(fd, e->d_name, depth - 1);
	}
	(void)closedir(dir);
	if (r == 0 && unlinkat(parent_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		r = -errno;
	return r == -ENOTDIR ? -ENOTEMPTY : r;
}

/* Not every file system, nor every kernel, has the flags of renameat2(). */
static bool
lacks_flag(int e)
{
	return e == EINVAL || e == ENOSYS;
}

static int
rename_if_absent(int from_fd, const char *from, int to_fd, const char *to)
{
	if (renameat2(from_fd, from, to_fd, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (!lacks_flag(errno))
		return -errno;
	/* NFS has no RENAME_NOREPLACE; a link does not replace either. */
	if (linkat(from_fd, from, to_fd, to, 0) < 0)
		return -errno;
	(void)unlinkat(from_fd, from, 0);
	return 0;
}

static int
publish_once(struct local *l, struct local_temp *t, const char *key, bool if_absent)
{
	const char *base;
	CLEANUP_CLOSE int parent_fd = open_parent(l, key, true, &base);
	struct stat st;
	int r;

	if (parent_fd < 0)
		return parent_fd;
	if (if_absent)
		r = rename_if_absent(l->tmp_fd, t->name, parent_fd, base);
	else
		r = renameat(l->tmp_fd, t->name, parent_fd, base) < 0 ? -errno : 0;
	if (r == -EISDIR || r == -EEXIST) {
		if (fstatat(parent_fd, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return errno == ENOENT && r == -EISDIR ? -ENOENT : r;
		if (!S_ISDIR(st.st_mode))
			return r;
		r = remove_empty_tree(parent_fd, base, BACKEND_KEY_MAX / 2);
		return r < 0 ? r : -ENOENT;		/* once more */
	}
	if (r < 0)
		return r;
	/* Renaming one of two links of a file over the other leaves both (POSIX). */
	(void)unlinkat(l->tmp_fd, t->name, 0);
	t->name[0] = '\0';
	return fsync(parent_fd) < 0 ? -errno : 0;
}

int
local_publish(struct local *l, struct local_temp *t, const char *key, bool if_absent)
{
	int r = -EAGAIN, tries;

	for (tries = 0; tries < PUBLISH_TRIES; tries++) {
		r = publish_once(l, t, key, if_absent);
		if (r != -ENOENT)
			return r;
	}
	return -EAGAIN;
}

int
local_replace(struct local *l, struct local_temp *t, const char *key, const struct stat *was)
{
	const char *base;
	CLEANUP_CLOSE int parent_fd = open_parent(l, key, false, &base);
	struct stat st;
	int r = parent_fd < 0 ? parent_fd : 0;

	if (r == 0 && renameat2(l->tmp_fd, t->name, parent_fd, base, RENAME_EXCHANGE) < 0) {
		if (lacks_flag(errno))
			return local_publish(l, t, key, false);
		r = -errno;
	}
	if (r < 0)
		/* Removed, and something else may be there: it is to stay so. */
		return r == -ENOENT || r == -ENOTDIR ? 0 : r;
	/* What stood there has the temporary name now.  Another object goes back. */
	if (fstatat(l->tmp_fd, t->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino != was->st_ino)
		(void)renameat2(l->tmp_fd, t->name, parent_fd, base, RENAME_EXCHANGE);
	return fsync(parent_fd) < 0 ? -errno : 0;
}

void
local_prune(struct local *l, const char *key)
{
	char dir[BACKEND_KEY_MAX + 1];
	char *slash;

	strcpy(dir, key);
	while ((slash = strrchr(dir, '/')) != NULL) {
		*slash = '\0';
		if (unlinkat(l->root_fd, dir, AT_REMOVEDIR) < 0 && errno != ENOENT)
			return;
	}
}
