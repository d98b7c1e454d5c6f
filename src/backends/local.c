/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Objects as files below a directory.
 *
 *   1. An object appears by rename from .tbfs/tmp/ after its bytes are synced, so a reader
 *      sees the old one or the new one; the names are synced before put returns.
 *   2. What travels with it stands in one extended attribute, user.tbfs: text, a line each.
 *   3. A linked object shares its inode with the staged file; it is told apart by nothing
 *      but its link count, and unshare gives it an inode of its own.
 *   4. Directories are made by a put and removed by the remove that empties them; whoever
 *      finds its parent gone makes it again.
 */
#include "backends/local.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/strbuf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define TMP_DIR ".tbfs/tmp"
#define META_XATTR "user.tbfs"

enum { CHUNK = 1 << 20, TRIES = 16, META_ROOM = 8192 };

struct local {
	struct backend b;
	int root;			/* O_PATH-like descriptor of root_path; -1 until probed */
	char *path;
	bool link;
	_Atomic uint64_t serial;	/* of temporary names */
};

static struct local *
to_local(struct backend *b)
{
	return (struct local *)b;
}

static int
fail(struct local *l, int code, const char *what, const char *key, struct error *err)
{
	const char *hint = code == -ENOSPC ? ": the disk is full" : code == -EROFS ?
	    ": it is mounted read-only" : "";

	return error_set(err, code, "%s %s in %s: %s%s", what, key, l->path, strerror(-code), hint);
}

static void
temp_name(struct local *l, char *ret_name, size_t room)
{
	(void)snprintf(ret_name, room, TMP_DIR "/%d-%ju", (int)getpid(),
	    (uintmax_t)atomic_fetch_add(&l->serial, 1));
}

/* ---- metadata ---- */

static int
meta_write(int fd, const struct object_meta *m, const uint8_t *sum)
{
	CLEANUP_STRBUF struct strbuf text = STRBUF_INIT;
	char hex[SHA256_LEN * 2 + 1];

	hex_encode(sum, SHA256_LEN, hex);
	strbuf_addf(&text, "sha256=%s\nmtime=%jd\nmode=%u\nuid=%u\ngid=%u\nseq=%ju\nid=%ju\n"
	    "generation=%ju\n", hex, (intmax_t)m->mtime_ns, m->mode, m->uid, m->gid, (uintmax_t)m->seq,
	    (uintmax_t)m->object_id, (uintmax_t)m->generation);
	/* Last, because it may hold anything. */
	if (m->path != NULL)
		strbuf_addf(&text, "path=%s", m->path);
	if (!strbuf_ok(&text))
		return -ENOMEM;
	return fsetxattr(fd, META_XATTR, text.data, text.len, 0) < 0 ? -errno : 0;
}

static void
meta_parse(char *text, struct backend_tag *tag)
{
	char *path = strstr(text, "\npath="), *line, *save = NULL;

	if (path != NULL) {
		(void)snprintf(tag->path, sizeof(tag->path), "%s", path + 6);
		*path = '\0';
	}
	for (line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
		char *value = strchr(line, '=');

		if (value == NULL)
			continue;
		*value++ = '\0';
		if (strcmp(line, "sha256") == 0)
			tag->has_sha256 = hex_decode(value, tag->sha256, SHA256_LEN) == 0;
		else if (strcmp(line, "mtime") == 0)
			tag->mtime_ns = strtoll(value, NULL, 10);
		else if (strcmp(line, "mode") == 0)
			tag->mode = (uint32_t)strtoul(value, NULL, 10);
		else if (strcmp(line, "uid") == 0)
			tag->uid = (uint32_t)strtoul(value, NULL, 10);
		else if (strcmp(line, "gid") == 0)
			tag->gid = (uint32_t)strtoul(value, NULL, 10);
		else if (strcmp(line, "seq") == 0)
			tag->seq = strtoull(value, NULL, 10);
		else if (strcmp(line, "id") == 0)
			tag->object_id = strtoull(value, NULL, 10);
		else if (strcmp(line, "generation") == 0)
			tag->generation = strtoull(value, NULL, 10);
	}
	tag->has_attrs = true;
}

static int
tag_read(int fd, struct backend_tag *ret_tag)
{
	char text[META_ROOM + 1];
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) < 0)
		return -errno;
	*ret_tag = (struct backend_tag){ .size = (uint64_t)st.st_size,
		.mtime_ns = timespec_to_ns(st.st_mtim) };
	n = fgetxattr(fd, META_XATTR, text, META_ROOM);
	if (n > 0) {
		text[n] = '\0';
		meta_parse(text, ret_tag);
	}
	return 0;
}

/* ---- names ---- */

static void
parent_of(const char *key, char *ret_dir, size_t room)
{
	const char *slash = strrchr(key, '/');

	(void)snprintf(ret_dir, room, "%.*s", slash == NULL ? 1 : (int)(slash - key),
	    slash == NULL ? "." : key);
}

/* Make the parents of a key and sync each directory that got a new name. */
static int
make_parents(struct local *l, const char *key)
{
	char dir[1100], above[1100];
	size_t i;

	for (i = 0; key[i] != '\0'; i++) {
		if (key[i] != '/')
			continue;
		(void)snprintf(dir, sizeof(dir), "%.*s", (int)i, key);
		if (mkdirat(l->root, dir, 0755) == 0) {
			parent_of(dir, above, sizeof(above));
			(void)fsync_dirat(l->root, above);
		} else if (errno != EEXIST) {
			return -errno;
		}
	}
	return 0;
}

/* Remove empty directories from here up to the root; a leftover empty tree at `key` too. */
static void
prune(struct local *l, const char *key)
{
	char dir[1100];

	parent_of(key, dir, sizeof(dir));
	while (strcmp(dir, ".") != 0 && strcmp(dir, ".tbfs") != 0 &&
	    unlinkat(l->root, dir, AT_REMOVEDIR) == 0) {
		char above[1100];

		parent_of(dir, above, sizeof(above));
		memcpy(dir, above, sizeof(dir));
	}
}

/* Put `tmp` at the key; parents are made as needed, also again when a remove took them. */
static int
rename_over(struct local *l, const char *tmp, const char *key)
{
	char dir[1100];
	int tries, r;

	for (tries = 0; tries < TRIES; tries++) {
		if (renameat(l->root, tmp, l->root, key) == 0) {
			parent_of(key, dir, sizeof(dir));
			r = fsync_dirat(l->root, dir);
			return r == -ENOENT ? 0 : r;
		}
		if (errno == ENOENT)
			r = make_parents(l, key);
		else if (errno == EISDIR)
			r = unlinkat(l->root, key, AT_REMOVEDIR) < 0 ? -errno : 0;
		else
			r = -errno;
		if (r < 0 && r != -ENOENT)
			return r;
	}
	return -EAGAIN;
}

/* ---- put ---- */

static int
copy_hashed(const struct object_put *put, int out, uint8_t *ret_sum)
{
	CLEANUP_FREE char *buf = malloc(CHUNK);
	struct digest *d = digest_new();
	uint64_t off = 0;
	int r = buf == NULL || d == NULL ? -ENOMEM : 0;

	while (r == 0 && off < put->size) {
		size_t want = put->size - off < CHUNK ? (size_t)(put->size - off) : CHUNK;
		ssize_t n = pread_full(put->fd, buf, want, off);

		if (put->cancelled != NULL && put->cancelled(put->cancelled_arg))
			r = -ECANCELED;
		else if (n < 0)
			r = (int)n;
		else if ((size_t)n < want)
			r = -EIO;
		else if (out >= 0)
			r = pwrite_full(out, buf, (size_t)n, off);
		if (r == 0) {
			digest_update(d, buf, (size_t)n);
			off += (uint64_t)n;
		}
	}
	if (r == 0)
		digest_final(d, ret_sum);
	digest_free(d);
	return r;
}

static int
put_link(struct local *l, const struct object_put *put, const char *tmp, uint8_t *ret_sum)
{
	char from[64];
	int r;

	(void)snprintf(from, sizeof(from), "/proc/self/fd/%d", put->fd);
	if (linkat(AT_FDCWD, from, l->root, tmp, AT_SYMLINK_FOLLOW) < 0)
		return -errno;
	r = copy_hashed(put, -1, ret_sum);
	if (r == 0)
		r = meta_write(put->fd, &put->meta, ret_sum);
	if (r == 0)
		r = fsync(put->fd) < 0 ? -errno : 0;
	return r;
}

static void
apply_attrs(int fd, const struct object_meta *m)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, ns_to_timespec(m->mtime_ns) };

	/* For whoever reads the tree with other tools; what counts is in the attribute. */
	if (geteuid() == 0 && fchown(fd, m->uid, m->gid) < 0)
		return;
	(void)fchmod(fd, m->mode & 0777);
	(void)futimens(fd, times);
}

static int
put_copy(struct local *l, const struct object_put *put, const char *tmp, uint8_t *ret_sum)
{
	CLEANUP_CLOSE int out = openat(l->root, tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int r;

	if (out < 0)
		return -errno;
	r = copy_hashed(put, out, ret_sum);
	if (r == 0)
		r = meta_write(out, &put->meta, ret_sum);
	if (r == 0) {
		apply_attrs(out, &put->meta);
		r = fsync(out) < 0 ? -errno : 0;
	}
	return r;
}

static int
local_put(struct backend *b, const char *key, const struct object_put *put,
    struct backend_tag *ret_tag, bool *ret_linked, struct error *err)
{
	struct local *l = to_local(b);
	uint8_t sum[SHA256_LEN];
	bool linked = l->link && (put->flags & OBJECT_PUT_MAY_LINK) != 0;
	struct stat st;
	char tmp[64];
	int r = -EXDEV;

	temp_name(l, tmp, sizeof(tmp));
	if ((put->flags & OBJECT_PUT_IF_ABSENT) != 0 &&
	    fstatat(l->root, key, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
		return fail(l, -EEXIST, "object", key, err);
	if (linked)
		r = put_link(l, put, tmp, sum);
	if (r == -EXDEV || r == -EPERM || r == -EMLINK) {
		linked = false;
		r = put_copy(l, put, tmp, sum);
	}
	if (r == 0 && put->cancelled != NULL && put->cancelled(put->cancelled_arg))
		r = -ECANCELED;
	if (r == 0)
		r = rename_over(l, tmp, key);
	/* Renaming one link over another of the same file does nothing: the name stays. */
	(void)unlinkat(l->root, tmp, 0);
	if (r == -ECANCELED)
		return error_set(err, r, "%s: cancelled", key);
	if (r < 0)
		return fail(l, r == -ENOTDIR || r == -ENOTEMPTY ? -EINVAL : r, "object", key, err);
	*ret_tag = (struct backend_tag){ .size = put->size, .has_sha256 = true, .has_attrs = true,
		.mtime_ns = put->meta.mtime_ns, .mode = put->meta.mode, .uid = put->meta.uid,
		.gid = put->meta.gid, .seq = put->meta.seq, .object_id = put->meta.object_id,
		.generation = put->meta.generation };
	memcpy(ret_tag->sha256, sum, SHA256_LEN);
	*ret_linked = linked;
	atomic_fetch_add_explicit(&b->bytes_out, put->size, memory_order_relaxed);
	return 0;
}

/* ---- the rest ---- */

static int
open_object(struct local *l, const char *key, struct error *err)
{
	int fd = openat(l->root, key, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), r;
	struct stat st;

	if (fd < 0)
		return fail(l, errno == ENOTDIR ? -ENOENT : -errno, "object", key, err);
	r = fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -ENOENT;
	if (r < 0) {
		(void)close(fd);
		return fail(l, r, "object", key, err);
	}
	return fd;
}

static int
local_get(struct backend *b, const char *key, uint64_t off, uint64_t len, int fd, uint64_t fd_off,
    struct error *err)
{
	struct local *l = to_local(b);
	CLEANUP_CLOSE int in = open_object(l, key, err);
	int r;

	if (in < 0)
		return in;
	r = copy_range(in, off, fd, fd_off, len);
	if (r < 0)
		return fail(l, r, "object", key, err);
	atomic_fetch_add_explicit(&b->bytes_in, len, memory_order_relaxed);
	return 0;
}

static int
local_stat(struct backend *b, const char *key, struct backend_tag *ret_tag, struct error *err)
{
	struct local *l = to_local(b);
	CLEANUP_CLOSE int fd = open_object(l, key, err);
	int r;

	if (fd < 0)
		return fd;
	r = tag_read(fd, ret_tag);
	return r < 0 ? fail(l, r, "object", key, err) : 0;
}

static int
local_remove(struct backend *b, const char *key, struct error *err)
{
	struct local *l = to_local(b);
	char dir[1100];

	if (unlinkat(l->root, key, 0) < 0 && errno != ENOENT && errno != ENOTDIR && errno != EISDIR)
		return fail(l, -errno, "object", key, err);
	parent_of(key, dir, sizeof(dir));
	(void)fsync_dirat(l->root, dir);
	prune(l, key);
	return 0;
}

static int
local_copy(struct backend *b, const char *from, const char *to, struct backend_tag *ret_tag,
    struct error *err)
{
	struct local *l = to_local(b);
	CLEANUP_CLOSE int in = open_object(l, from, err);
	struct backend_tag tag;
	struct object_put put = { .fd = in };
	struct object_meta meta;
	uint8_t sum[SHA256_LEN];
	char tmp[64];
	int r;

	if (in < 0)
		return in;
	r = tag_read(in, &tag);
	if (r < 0)
		return fail(l, r, "object", from, err);
	meta = (struct object_meta){ .mtime_ns = tag.mtime_ns, .mode = tag.mode, .uid = tag.uid,
		.gid = tag.gid, .seq = tag.seq, .object_id = tag.object_id, .generation = tag.generation };
	put.size = tag.size;
	put.meta = meta;
	temp_name(l, tmp, sizeof(tmp));
	r = put_copy(l, &put, tmp, sum);
	if (r == 0 && tag.has_sha256 && memcmp(sum, tag.sha256, SHA256_LEN) != 0)
		r = -EIO;
	if (r == 0)
		r = rename_over(l, tmp, to);
	(void)unlinkat(l->root, tmp, 0);
	if (r < 0)
		return fail(l, r == -ENOTDIR || r == -ENOTEMPTY ? -EINVAL : r, "copy to", to, err);
	memcpy(tag.sha256, sum, SHA256_LEN);
	tag.has_sha256 = true;
	*ret_tag = tag;
	return 0;
}

static int
local_unshare(struct backend *b, const char *key, struct error *err)
{
	struct local *l = to_local(b);
	CLEANUP_CLOSE int fd = open_object(l, key, err);
	struct backend_tag tag;
	struct stat st;

	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) == 0 && st.st_nlink <= 1)
		return 0;
	return local_copy(b, key, key, &tag, err);
}

static int
local_get_url(struct backend *b, const char *key, unsigned expires, char **ret_url,
    struct error *err)
{
	(void)b;
	(void)expires;
	(void)ret_url;
	return error_set(err, -ENOTSUP, "%s: the local backend has no URLs (s3 and minio have)", key);
}

/* ---- list ---- */

struct listing {
	struct local *l;
	const char *prefix;
	backend_list_fn *fn;
	void *arg;
};

/* Names of a directory in the order of the keys below them: a directory's name counts with
 * its slash. */
static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int
read_names(int fd, char ***ret_names, size_t *ret_n)
{
	char **names = NULL;
	size_t n = 0, room = 0;
	DIR *d = fdopendir(fd);
	struct dirent *e;

	if (d == NULL) {
		(void)close(fd);
		return -ENOMEM;
	}
	while ((e = readdir(d)) != NULL) {
		struct stat st;
		char *name = NULL;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
		    fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
			continue;
		if (n == room) {
			char **more = realloc(names, (room ? room * 2 : 64) * sizeof(*names));

			if (more == NULL)
				break;
			names = more;
			room = room ? room * 2 : 64;
		}
		if (asprintf(&name, "%s%s", e->d_name, S_ISDIR(st.st_mode) ? "/" : "") < 0)
			break;
		names[n++] = name;
	}
	(void)closedir(d);
	if (n > 0)
		qsort(names, n, sizeof(*names), compare_names);
	*ret_names = names;
	*ret_n = n;
	return 0;
}

static int list_dir(const struct listing *g, const char *dir);

static int
list_one(const struct listing *g, const char *dir, const char *name)
{
	CLEANUP_FREE char *key = NULL;
	size_t len, want = strlen(g->prefix);
	struct stat st;

	if (asprintf(&key, "%s%s", dir, name) < 0)
		return -ENOMEM;
	len = strlen(key);
	if (strcmp(key, TMP_DIR "/") == 0 || strncmp(key, g->prefix, len < want ? len : want) != 0)
		return 0;
	if (key[len - 1] == '/')
		return list_dir(g, key);
	if (len < want || fstatat(g->l->root, key, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return g->fn(g->arg, key, (uint64_t)st.st_size, timespec_to_ns(st.st_mtim));
}

static int
list_dir(const struct listing *g, const char *dir)
{
	int fd = openat(g->l->root, dir[0] == '\0' ? "." : dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;
	char **names = NULL;
	size_t n = 0, i;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	r = read_names(fd, &names, &n);
	for (i = 0; i < n; i++) {
		if (r == 0)
			r = list_one(g, dir, names[i]);
		free(names[i]);
	}
	free(names);
	return r;
}

static int
local_list(struct backend *b, const char *prefix, backend_list_fn *fn, void *arg, struct error *err)
{
	struct listing g = { to_local(b), prefix, fn, arg };
	int r = list_dir(&g, "");

	if (r < 0)
		(void)fail(to_local(b), r, "listing", prefix, err);
	return r;
}

/* ---- life ---- */

static void
clear_temporaries(struct local *l)
{
	int fd = openat(l->root, TMP_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (d == NULL) {
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	while ((e = readdir(d)) != NULL)
		if (e->d_name[0] != '.')
			(void)unlinkat(dirfd(d), e->d_name, 0);
	(void)closedir(d);
}

static int
local_probe(struct backend *b, struct error *err)
{
	struct local *l = to_local(b);
	CLEANUP_CLOSE int fd = -1;
	int r = l->root >= 0 ? 0 : mkdir_parents(AT_FDCWD, l->path, 0755);
	char tmp[64];

	if (r == 0 && l->root < 0) {
		l->root = open(l->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = l->root < 0 ? -errno : 0;
	}
	if (r == 0)
		r = mkdir_parents(l->root, TMP_DIR, 0700);
	if (r == 0) {
		clear_temporaries(l);
		temp_name(l, tmp, sizeof(tmp));
		fd = openat(l->root, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		r = fd < 0 ? -errno : 0;
	}
	if (r == 0) {
		r = fsetxattr(fd, META_XATTR, "", 0, 0) < 0 ? -errno : 0;
		(void)unlinkat(l->root, tmp, 0);
		if (r == -EOPNOTSUPP)
			return error_set(err, -EINVAL, "local.root_path %s is on a file system without "
			    "extended attributes: choose another", l->path);
	}
	if (r < 0)
		return error_set(err, r, "local.root_path %s can't be used: %s", l->path, strerror(-r));
	return 0;
}

static void
local_free(struct backend *b)
{
	struct local *l = to_local(b);

	if (l->root >= 0)
		(void)close(l->root);
	free(l->path);
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
		return error_set(err, -EINVAL, "local.root_path must be an absolute path");
	l = calloc(1, sizeof(*l));
	if (l == NULL)
		return -ENOMEM;
	l->b.ops = &local_ops;
	l->root = -1;
	l->path = strdup(opt->root_path);
	l->link = opt->link;
	*ret_b = &l->b;
	return 0;
}
