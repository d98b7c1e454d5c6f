/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Listing the local store in the order S3 has: the bytes of the whole key.
 *
 * A directory's entries are sorted with a slash after each directory's name, so
 * that "a.txt" comes before "a/b" as '.' does before '/'; walking them depth
 * first then gives the order of the full keys.  Memory is one directory's names
 * a level.  What comes and goes during the walk may or may not be seen.
 */
#include "backends/local_store.h"

#include "base/clock.h"
#include "base/strbuf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct walk {
	struct local *l;
	const char *prefix;
	size_t prefix_len;
	backend_list_fn *fn;
	void *arg;
	struct error *err;
	char path[BACKEND_KEY_MAX + 2];	/* of the directory being read, with a slash at its end */
	size_t len;
};

struct names {
	char **name;
	size_t count, room;
};

static void
names_release(struct names *n)
{
	size_t i;

	for (i = 0; i < n->count; i++)
		free(n->name[i]);
	free(n->name);
}

static int
names_add(struct names *n, const char *name, bool is_dir)
{
	size_t len = strlen(name);
	char *copy;

	if (n->count == n->room) {
		size_t room = n->room ? 2 * n->room : 64;
		char **more = realloc(n->name, room * sizeof(*more));

		if (more == NULL)
			return -ENOMEM;
		n->name = more;
		n->room = room;
	}
	copy = malloc(len + 2);
	if (copy == NULL)
		return -ENOMEM;
	memcpy(copy, name, len + 1);
	if (is_dir)
		memcpy(copy + len, "/", 2);
	n->name[n->count++] = copy;
	return 0;
}

static int
names_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Can a key below w->path + name begin with the prefix, or the prefix with it? */
static bool
may_match(const struct walk *w, const char *name, bool is_dir)
{
	char full[2 * BACKEND_KEY_MAX];
	size_t len = w->len + strlen(name);

	if (len > BACKEND_KEY_MAX)
		return false;
	memcpy(full, w->path, w->len);
	strcpy(full + w->len, name);
	if (is_dir) {
		strcpy(full + len++, "/");
		if (strcmp(full, LOCAL_TMP "/") == 0)
			return false;
	}
	if (len >= w->prefix_len)
		return strncmp(full, w->prefix, w->prefix_len) == 0;
	return is_dir && strncmp(full, w->prefix, len) == 0;
}

/* Is this entry a directory?  -ENOENT for what is neither that nor a regular file. */
static int
entry_kind(int dir_fd, const struct dirent *e)
{
	struct stat st;

	if (e->d_type == DT_DIR || e->d_type == DT_REG)
		return e->d_type == DT_DIR;
	if (e->d_type != DT_UNKNOWN)
		return -ENOENT;
	if (fstatat(dir_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? 1 : S_ISREG(st.st_mode) ? 0 : -ENOENT;
}

static int
read_names(struct walk *w, struct names *n)
{
	int fd = local_open(w->l, w->len == 0 ? "." : w->path, O_RDONLY | O_DIRECTORY);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	int r = 0;

	if (dir == NULL) {
		r = fd < 0 ? fd : -errno;
		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	errno = 0;
	while (r == 0 && (e = readdir(dir)) != NULL) {
		int is_dir;

		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
			is_dir = entry_kind(fd, e);
			if (is_dir >= 0 && may_match(w, e->d_name, is_dir))
				r = names_add(n, e->d_name, is_dir);
		}
		errno = 0;
	}
	if (r == 0 && errno != 0)
		r = -errno;
	(void)closedir(dir);
	if (n->count > 1)
		qsort(n->name, n->count, sizeof(*n->name), names_compare);
	return r;
}

static int
give_object(struct walk *w)
{
	struct stat st;

	if (!backend_key_ok(w->path))
		return 0;
	if (fstatat(w->l->root_fd, w->path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 :
		    local_fail(w->l, -errno, "listing", w->path, w->err);
	return w->fn(w->arg, w->path, (uint64_t)st.st_size, timespec_to_ns(st.st_mtim));
}

/* Depth is bounded: each level adds two bytes at least to a path of BACKEND_KEY_MAX. */
static int
walk_dir(struct walk *w)
{
	struct names names = { .name = NULL };
	size_t len = w->len, i;
	int r;

	r = read_names(w, &names);
	if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
		r = 0;				/* gone since its parent was read */
	else if (r < 0)
		r = local_fail(w->l, r, "listing", w->path, w->err);
	for (i = 0; r == 0 && i < names.count; i++) {
		size_t more = strlen(names.name[i]);

		memcpy(w->path + len, names.name[i], more + 1);
		w->len = len + more;
		r = names.name[i][more - 1] == '/' ? walk_dir(w) : give_object(w);
	}
	w->len = len;
	w->path[len] = '\0';
	names_release(&names);
	return r;
}

int
local_list(struct backend *b, const char *prefix, backend_list_fn *fn, void *arg, struct error *err)
{
	struct walk w = { .l = (struct local *)b, .prefix = prefix, .prefix_len = strlen(prefix),
		.fn = fn, .arg = arg, .err = err };
	const char *slash = strrchr(prefix, '/');
	int r;

	r = local_ready(w.l, false, err);
	if (r < 0)
		return r;
	/* Begin in the deepest directory that the prefix names, if it is one that can hold keys. */
	if (slash != NULL) {
		char dir[BACKEND_KEY_MAX + 1];

		memcpy(dir, prefix, (size_t)(slash - prefix));
		dir[slash - prefix] = '\0';
		if (!backend_key_ok(dir) || local_is_tmp(dir))
			return 0;
		w.len = (size_t)(slash - prefix) + 1;
		memcpy(w.path, prefix, w.len);
	}
	return walk_dir(&w);
}
