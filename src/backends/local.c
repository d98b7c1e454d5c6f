/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The local backend: objects as plain files below local.root_path.
 *
 * Invariants:
 *   1. An object's bytes are complete, hashed and synced before its name appears;
 *      its directory is synced before put returns (local_tree.c).  What it replaces
 *      is read to its end by whoever has it open.
 *   2. The sha256 is of the bytes in the object: a copy is hashed from the buffer
 *      that is written, a clone (FICLONE) from the clone.
 *   3. A linked object is the staged file's own inode.  Its mode, owner and times
 *      belong to the staging side; this side only sets the xattr.  The caller holds
 *      the bytes still (OBJECT_PUT_MAY_LINK) until backend_unshare() gave the object
 *      an inode of its own: a copy, renamed over the key.
 *
 * Any thread; see local_store.h for the one lock.
 */
#include "backends/local.h"

#include "backends/local_store.h"
#include "backends/meta.h"
#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

enum { CHUNK = 1 << 20 };

static struct local *
to_local(struct backend *b)
{
	return (struct local *)b;
}

/* ---- bytes ---- */

static bool
is_cancelled(const struct object_put *put)
{
	return put != NULL && put->cancelled != NULL && put->cancelled(put->cancelled_arg);
}

/* Copy [0, size) of in to out (-1: nowhere) and hash it on the way (invariant 2). */
static int
copy_hashed(int in, int out, uint64_t size, const struct object_put *put, uint8_t *ret_sum)
{
	CLEANUP_FREE char *buf = malloc(size < CHUNK ? (size_t)size + 1 : CHUNK);
	struct digest *d = digest_new();
	uint64_t off = 0;
	int r = buf == NULL || d == NULL ? -ENOMEM : 0;

	while (r == 0 && off < size) {
		size_t want = size - off < CHUNK ? (size_t)(size - off) : CHUNK;
		ssize_t n = pread_full(in, buf, want, off);

		if (is_cancelled(put))
			r = -ECANCELED;
		else if (n < 0)
			r = (int)n;
		else if ((size_t)n < want)
			r = -EIO;
		else
			digest_update(d, buf, want);
		if (r == 0 && out >= 0)
			r = pwrite_full(out, buf, want, off);
		off += want;
	}
	if (r == 0)
		digest_final(d, ret_sum);
	digest_free(d);
	return r;
}

/* Make out an equal of in: sharing blocks where the file system can. */
static int
fill_temp(int in, int out, uint64_t size, const struct object_put *put, uint8_t *ret_sum)
{
	struct stat st;

	if (size > 0 && fstat(in, &st) == 0 && (uint64_t)st.st_size == size &&
	    ioctl(out, FICLONE, in) == 0)
		return copy_hashed(out, -1, size, put, ret_sum);
	return copy_hashed(in, out, size, put, ret_sum);
}

/* A second name for the staged file, below .tbfs/tmp.  -EXDEV and others: it can't be linked. */
static int
link_temp(struct local *l, int fd, struct local_temp *t)
{
	char self[40];

	(void)snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	local_temp_name(l, t);
	if (linkat(AT_FDCWD, self, l->tmp_fd, t->name, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	t->name[0] = '\0';
	return -errno;
}

/* ---- operations ---- */

static int
check_key(struct local *l, const char *key, struct error *err)
{
	if (local_is_tmp(key))
		return error_set(err, -EINVAL, "local store %s: %s is kept for temporary files", l->root,
		    LOCAL_TMP);
	return local_ready(l, false, err);
}

static int
check_new_key(struct local *l, const char *key, struct error *err)
{
	int r = check_key(l, key, err);

	return r < 0 ? r : local_tmp_ready(l, err);
}

/* Open the object under key and say what it is.  A directory is no object. */
static int
open_object(struct local *l, const char *key, struct stat *ret_st)
{
	int fd = local_open(l, key, O_RDONLY | O_NONBLOCK | O_NOCTTY);

	if (fd == -ENOTDIR || fd == -ELOOP || fd == -ENXIO || fd == -ENAMETOOLONG)
		return -ENOENT;
	if (fd < 0)
		return fd;
	if (fstat(fd, ret_st) < 0 || !S_ISREG(ret_st->st_mode)) {
		(void)close(fd);
		return -ENOENT;
	}
	/* It may be the staged file as well, whose atime is the user's. */
	(void)fcntl(fd, F_SETFL, O_NOATIME);
	return fd;
}

static int
fill_linked(struct local *l, const struct object_put *put, uint8_t *ret_sum, struct local_temp *t)
{
	int r = link_temp(l, put->fd, t);

	if (r == 0)
		r = copy_hashed(put->fd, -1, put->size, put, ret_sum);
	if (r == 0)
		r = local_meta_set(put->fd, &put->meta, put->size, ret_sum);
	if (r == 0 && fsync(put->fd) < 0)
		r = -errno;
	return r;
}

static int
fill_copied(struct local *l, const struct object_put *put, uint8_t *ret_sum, struct local_temp *t)
{
	const struct object_meta *m = &put->meta;
	int r = local_temp_new(l, t);

	if (r == 0)
		r = fill_temp(put->fd, t->fd, put->size, put, ret_sum);
	if (r == 0)
		r = local_meta_set(t->fd, m, put->size, ret_sum);
	if (r == 0)
		r = local_set_attributes(t->fd, m->mode, m->uid, m->gid, m->mtime_ns);
	if (r == 0 && fsync(t->fd) < 0)
		r = -errno;
	return r;
}

/* Can this file be an object as it is?  Not when it is longer than the bytes to store. */
static bool
can_link(const struct local *l, const struct object_put *put)
{
	struct stat st, tmp;

	return l->link && (put->flags & OBJECT_PUT_MAY_LINK) && fstat(put->fd, &st) == 0 &&
	    S_ISREG(st.st_mode) && (uint64_t)st.st_size == put->size &&
	    fstat(l->tmp_fd, &tmp) == 0 && st.st_dev == tmp.st_dev;
}

static int
local_put(struct backend *b, const char *key, const struct object_put *put,
    struct backend_tag *ret_tag, bool *ret_linked, struct error *err)
{
	struct local *l = to_local(b);
	struct local_temp t = { .fd = -1 };
	uint8_t sum[SHA256_LEN];
	bool linked;
	int r = check_new_key(l, key, err);

	if (r < 0)
		return r;
	if (is_cancelled(put))
		return -ECANCELED;
	linked = can_link(l, put);
	if (linked) {
		r = fill_linked(l, put, sum, &t);
		/* Another mount of it, too many links, not our file: bytes can always be copied. */
		if (r == -EXDEV || r == -EPERM || r == -EMLINK || r == -ENOENT || r == -EOPNOTSUPP) {
			local_temp_drop(l, &t);
			linked = false;
		}
	}
	if (!linked)
		r = fill_copied(l, put, sum, &t);
	if (r == 0 && is_cancelled(put))
		r = -ECANCELED;
	if (r == 0)
		r = local_publish(l, &t, key, put->flags & OBJECT_PUT_IF_ABSENT);
	local_temp_drop(l, &t);
	if (r < 0)
		return local_fail(l, r, "storing", key, err);
	atomic_fetch_add(&b->bytes_out, put->size);
	meta_to_tag(&put->meta, put->size, sum, ret_tag);
	*ret_linked = linked;
	return 0;
}

static int
local_get(struct backend *b, const char *key, uint64_t off, uint64_t len, int fd, uint64_t fd_off,
    struct error *err)
{
	struct local *l = to_local(b);
	CLEANUP_CLOSE int in = -1;
	struct stat st;
	int r = check_key(l, key, err);

	if (r < 0)
		return r;
	in = open_object(l, key, &st);
	if (in < 0)
		return local_fail(l, in, "reading", key, err);
	if (off + len > (uint64_t)st.st_size)
		return error_set(err, -EIO, "local store %s: %.200s has %ju bytes, asked for %ju at %ju",
		    l->root, key, (uintmax_t)st.st_size, (uintmax_t)len, (uintmax_t)off);
	r = len == 0 ? 0 : copy_range(in, off, fd, fd_off, len);
	if (r < 0)
		return local_fail(l, r, "reading", key, err);
	atomic_fetch_add(&b->bytes_in, len);
	return 0;
}

static int
local_stat(struct backend *b, const char *key, struct backend_tag *ret_tag, struct error *err)
{
	struct local *l = to_local(b);
	CLEANUP_CLOSE int fd = -1;
	struct stat st;
	int r = check_key(l, key, err);

	if (r < 0)
		return r;
	fd = open_object(l, key, &st);
	r = fd < 0 ? fd : local_meta_tag(fd, &st, ret_tag);
	return r < 0 ? local_fail(l, r, "looking up", key, err) : 0;
}

static int
local_remove(struct backend *b, const char *key, struct error *err)
{
	struct local *l = to_local(b);
	char dir[BACKEND_KEY_MAX + 1] = ".";
	CLEANUP_CLOSE int dir_fd = -1;
	const char *slash = strrchr(key, '/');
	int r = check_key(l, key, err);

	if (r < 0)
		return r;
	if (slash != NULL) {
		memcpy(dir, key, (size_t)(slash - key));
		dir[slash - key] = '\0';
	}
	dir_fd = local_open(l, dir, O_RDONLY | O_DIRECTORY);
	if (dir_fd == -ENOENT || dir_fd == -ENOTDIR || dir_fd == -ELOOP || dir_fd == -ENAMETOOLONG)
		return 0;
	if (dir_fd < 0)
		return local_fail(l, dir_fd, "removing", key, err);
	if (unlinkat(dir_fd, slash == NULL ? key : slash + 1, 0) < 0 && errno != ENOENT &&
	    errno != EISDIR && errno != ENAMETOOLONG)
		return local_fail(l, -errno, "removing", key, err);
	/* Also when it was absent: an earlier removal may not have been synced. */
	if (fsync(dir_fd) < 0)
		return local_fail(l, -errno, "removing", key, err);
	local_prune(l, key);
	return 0;
}

/* Copy the open object `in` with all that travels with it to `key`, checking its checksum.  `own`: only
 * where that is its own key still; NULL: over whatever is there. */
static int
duplicate(struct local *l, int in, const struct backend_tag *tag, const char *key, const struct stat *own,
    uint8_t *ret_sum)
{
	struct local_temp t = { .fd = -1 };
	int r = local_temp_new(l, &t);

	if (r == 0)
		r = fill_temp(in, t.fd, tag->size, NULL, ret_sum);
	if (r == 0 && tag->has_sha256 && memcmp(ret_sum, tag->sha256, SHA256_LEN) != 0)
		r = -EIO;
	if (r == 0)
		r = local_meta_copy(in, t.fd);
	if (r == 0)
		r = local_set_attributes(t.fd, tag->mode, tag->uid, tag->gid, tag->mtime_ns);
	if (r == 0 && fsync(t.fd) < 0)
		r = -errno;
	if (r == 0)
		r = own != NULL ? local_replace(l, &t, key, own) : local_publish(l, &t, key, false);
	local_temp_drop(l, &t);
	return r;
}

static int
local_copy(struct backend *b, const char *from, const char *to, struct backend_tag *ret_tag,
    struct error *err)
{
	struct local *l = to_local(b);
	CLEANUP_CLOSE int in = -1;
	uint8_t sum[SHA256_LEN];
	struct stat st;
	int r = check_key(l, from, err);

	if (r == 0)
		r = check_new_key(l, to, err);
	if (r < 0)
		return r;
	in = open_object(l, from, &st);
	r = in < 0 ? in : local_meta_tag(in, &st, ret_tag);
	if (r == 0)
		r = duplicate(l, in, ret_tag, to, NULL, sum);
	if (r == -EIO)
		return error_set(err, r, "local store %s: %.200s is damaged: its bytes are not those of its "
		    "checksum, or can't be read; it was not copied", l->root, from);
	if (r < 0)
		return local_fail(l, r, "copying", from, err);
	memcpy(ret_tag->sha256, sum, SHA256_LEN);
	ret_tag->has_sha256 = true;
	return 0;
}

static int
local_unshare(struct backend *b, const char *key, struct error *err)
{
	struct local *l = to_local(b);
	CLEANUP_CLOSE int in = -1;
	struct backend_tag tag;
	uint8_t sum[SHA256_LEN];
	struct stat st;
	int r = check_key(l, key, err);

	if (r < 0)
		return r;
	in = open_object(l, key, &st);
	if (in == -ENOENT || (in >= 0 && st.st_nlink < 2))
		return 0;
	r = local_tmp_ready(l, err);
	if (r < 0)
		return r;
	r = in < 0 ? in : local_meta_tag(in, &st, &tag);
	if (r == 0)
		r = duplicate(l, in, &tag, key, &st, sum);
	if (r == -EIO)
		return error_set(err, r, "local store %s: the staged file that %.200s is linked to was "
		    "changed before the link was broken, or can't be read", l->root, key);
	return r < 0 ? local_fail(l, r, "unsharing", key, err) : 0;
}

static int
local_get_url(struct backend *b, const char *key, unsigned expires, char **ret_url,
    struct error *err)
{
	(void)b, (void)key, (void)expires, (void)ret_url;
	return error_set(err, -ENOTSUP, "the local backend has no URLs of its own: they come with access "
	    "control, from the service in front of it; s3 and minio have presigned ones");
}

static int
local_probe(struct backend *b, struct error *err)
{
	struct local *l = to_local(b);
	struct local_temp t = { .fd = -1 };
	struct object_meta meta = {0};
	uint8_t sum[SHA256_LEN] = {0};
	int r = local_ready(l, true, err);

	if (r == 0)
		r = local_tmp_ready(l, err);
	if (r < 0)
		return r;
	r = local_temp_new(l, &t);
	if (r == 0)
		r = local_meta_set(t.fd, &meta, 0, sum);
	local_temp_drop(l, &t);
	return r < 0 ? local_fail(l, r, "trying to write", "", err) : 0;
}

static void
local_free(struct backend *b)
{
	struct local *l = to_local(b);

	if (l->has_tmp) {
		char dir[sizeof(LOCAL_TMP) + sizeof(l->tmp_id) + 1];

		(void)snprintf(dir, sizeof(dir), "%s/%s", LOCAL_TMP, l->tmp_id);
		(void)unlinkat(l->tmp_fd, "lock", 0);
		(void)unlinkat(l->root_fd, dir, AT_REMOVEDIR);
		(void)close(l->tmp_fd);
		(void)close(l->lock_fd);
	}
	if (l->ready)
		(void)close(l->root_fd);
	(void)pthread_rwlock_destroy(&l->dirs);
	free(l->root);
	free(l);
}

static const struct backend_ops local_ops = {
	.name = "local",
	.put = local_put,
	.get = local_get,
	.stat = local_stat,
	.remove = local_remove,
	.list = local_list,
	.copy = local_copy,
	.get_url = local_get_url,
	.unshare = local_unshare,
	.probe = local_probe,
	.free = local_free,
};

int
local_backend_new(const struct local_options *opt, struct backend **ret_b, struct error *err)
{
	struct local *l;

	if (opt->root_path == NULL || opt->root_path[0] != '/')
		return error_set(err, -EINVAL, "local.root_path must be an absolute directory, not \"%s\"",
		    opt->root_path == NULL ? "" : opt->root_path);
	l = calloc(1, sizeof(*l));
	if (l == NULL)
		return error_set(err, -EAGAIN, "out of memory");
	l->root = strdup(opt->root_path);
	if (l->root == NULL) {
		free(l);
		return error_set(err, -EAGAIN, "out of memory");
	}
	l->b.ops = &local_ops;
	l->used = opt->used;
	l->link = opt->link;
	l->root_fd = l->tmp_fd = l->lock_fd = -1;
	(void)pthread_rwlock_init(&l->dirs, NULL);
	*ret_b = &l->b;
	return 0;
}
