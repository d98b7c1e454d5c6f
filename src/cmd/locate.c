/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Which mount a path is on is read from /proc/self/mountinfo, which asks no
 * file system; everything that touches a mount runs in a child (patience.h).
 */
#include "cmd/locate.h"

#include "base/cleanup.h"
#include "cmd/patience.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

extern char **environ;

/* Copy a field of mountinfo, \ooo undone. */
static void
unescape(const char *from, char *ret, size_t room)
{
	size_t n = 0;

	while (*from != '\0' && n + 1 < room) {
		if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' &&
		    from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
			ret[n++] = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 4;
		} else {
			ret[n++] = *from++;
		}
	}
	ret[n] = '\0';
}

/* proc(5): 36 35 98:0 /root /point options [optional …] - type source superoptions */
static bool
parse_line(char *line, struct locate_mount *ret)
{
	char *rest = line, *field[6], *word;
	int i;

	for (i = 0; i < 6; i++)
		if ((field[i] = strsep(&rest, " ")) == NULL)
			return false;
	while ((word = strsep(&rest, " ")) != NULL && strcmp(word, "-") != 0)
		;
	word = strsep(&rest, " ");
	if (word == NULL)
		return false;
	unescape(field[2], ret->dev, sizeof(ret->dev));
	unescape(field[3], ret->root, sizeof(ret->root));
	unescape(field[4], ret->point, sizeof(ret->point));
	unescape(word, ret->type, sizeof(ret->type));
	word = strsep(&rest, " ");
	unescape(word != NULL ? word : "", ret->source, sizeof(ret->source));
	return true;
}

/* Call fn for each mount until it returns non-zero. */
static void
each_mount(bool (*fn)(void *arg, const struct locate_mount *m), void *arg)
{
	FILE *in = fopen("/proc/self/mountinfo", "re");
	struct locate_mount *m = malloc(sizeof(*m));
	char *line = NULL;
	size_t room = 0;

	while (in != NULL && m != NULL && getline(&line, &room, in) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (parse_line(line, m) && fn(arg, m))
			break;
	}
	free(line);
	free(m);
	if (in != NULL)
		(void)fclose(in);
}

/* Bytes of `point` when path is it or below it, else -1.  "/" has 0. */
static int
match_point(const char *path, const char *point)
{
	size_t n = strcmp(point, "/") == 0 ? 0 : strlen(point);

	if (strncmp(path, point, n) != 0 || (path[n] != '/' && path[n] != '\0'))
		return -1;
	return (int)n;
}

struct search {
	const char *path;
	bool exact;
	int best;
	struct locate_mount *ret;
};

/* Later lines cover earlier ones. */
static bool
search_one(void *arg, const struct locate_mount *m)
{
	struct search *s = arg;
	int n = s->exact && strcmp(s->path, m->point) != 0 ? -1 : match_point(s->path, m->point);

	if (n >= s->best) {
		s->best = n;
		*s->ret = *m;
	}
	return false;
}

static bool
search_mount(const char *path, bool exact, struct locate_mount *ret)
{
	struct search s = { .path = path, .exact = exact, .best = 0, .ret = ret };

	ret->point[0] = ret->type[0] = '\0';
	each_mount(search_one, &s);
	return ret->point[0] != '\0';
}

bool
locate_mount_at(const char *point, struct locate_mount *ret)
{
	return search_mount(point, true, ret);
}

struct count {
	const char *dev;
	unsigned n;
};

static bool
count_one(void *arg, const struct locate_mount *m)
{
	struct count *c = arg;

	c->n += strcmp(m->dev, c->dev) == 0;
	return false;
}

unsigned
locate_count(const char *dev)
{
	struct count c = { .dev = dev };

	each_mount(count_one, &c);
	return c.n;
}

int
locate_resolve(const char *path, char ret_path[PATH_MAX])
{
	CLEANUP_FREE char *copy = strdup(path);
	char parent[PATH_MAX], *slash, *leaf;
	struct stat st;
	size_t n;

	if (copy == NULL)
		return -ENOMEM;
	for (n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
		copy[n - 1] = '\0';
	slash = strrchr(copy, '/');
	leaf = slash != NULL ? slash + 1 : copy;
	if (*leaf == '\0' || strcmp(leaf, ".") == 0 || strcmp(leaf, "..") == 0 ||
	    (lstat(copy, &st) == 0 && S_ISLNK(st.st_mode)))
		return realpath(copy, ret_path) == NULL ? -errno : 0;
	if (slash != NULL)
		*slash = '\0';
	if (realpath(slash == NULL ? "." : slash == copy ? "/" : copy, parent) == NULL)
		return -errno;
	if (snprintf(ret_path, PATH_MAX, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, leaf) >= PATH_MAX)
		return -ENAMETOOLONG;
	return 0;
}

/* The link itself, not what it points to. */
static int
resolve_link(const char *path, char ret_path[PATH_MAX])
{
	CLEANUP_FREE char *copy = strdup(path);
	char parent[PATH_MAX], *slash;
	struct stat st;

	if (copy == NULL || lstat(path, &st) < 0 || !S_ISLNK(st.st_mode))
		return -EINVAL;
	slash = strrchr(copy, '/');
	if (slash != NULL)
		*slash = '\0';
	if (realpath(slash == NULL ? "." : slash == copy ? "/" : copy, parent) == NULL)
		return -errno;
	if (snprintf(ret_path, PATH_MAX, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent,
	    slash == NULL ? path : slash + 1) >= PATH_MAX)
		return -ENAMETOOLONG;
	return 0;
}

static bool
is_ours(const char *path, struct locate_mount *ret)
{
	return search_mount(path, false, ret) && strcmp(ret->type, LOCATE_TYPE) == 0;
}

/* In the child: mountpoint, path inside, socket, as three fields. */
static int
find(void *arg, FILE *out)
{
	const char *path = arg;
	char full[PATH_MAX], socket[PATH_MAX];
	struct locate_mount m;
	struct stat st;
	ssize_t n;
	int r;

	if (resolve_link(path, full) < 0 || !is_ours(full, &m)) {
		r = locate_resolve(path, full);
		if (r < 0)
			return r;
		if (!is_ours(full, &m))
			return lstat(full, &st) < 0 ? -errno : -ENODEV;
	}
	(void)fprintf(out, "%s%c%s%s%c", m.point, 0, strcmp(m.root, "/") == 0 ? "" : m.root,
	    full + match_point(full, m.point), 0);
	if (lstat(full, &st) < 0)
		return -errno;
	n = getxattr(m.point, LOCATE_XATTR, socket, sizeof(socket) - 1);
	if (n < 0) {
		r = errno == ENOENT ? -EIO : -errno;
		/* Unmounted this moment: another directory was asked. */
		return is_ours(full, &m) ? r : -ENODEV;
	}
	(void)fwrite(socket, 1, (size_t)n, out);
	(void)fputc(0, out);
	return 0;
}

static int
explain(int code, const char *path, const struct location *loc, struct error *err)
{
	const char *m = loc->mountpoint != NULL && loc->mountpoint[0] != '\0' ? loc->mountpoint : path;

	switch (code) {
	case -ENODEV:
		return error_set(err, code, "%s is not on a tbfs mount", path);
	case -ENOTCONN:
	case -ECONNABORTED:
		return error_set(err, -ENOTCONN,
		    "the daemon of %s is dead: `tbfs mount` mounts it again, `tbfs umount` takes it away", m);
	case -ETIMEDOUT:
		return error_set(err, code, "%s does not answer: its daemon hangs", path);
	case -ENODATA:
	case -EOPNOTSUPP:
		return error_set(err, code, "the daemon of %s does not tell its control socket", m);
	default:
		return error_set(err, code, "%s: %s", path, strerror(-code));
	}
}

int
locate_path(const char *path, struct location *ret, struct error *err)
{
	CLEANUP_FREE char *text = NULL, *copy = strdup(path);
	size_t len = 0;
	int r;

	memset(ret, 0, sizeof(*ret));
	if (copy == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	r = patience_run(find, copy, PATIENCE_S, &text, &len);
	ret->mountpoint = strdup(patience_field(text, len, 0));
	ret->path = strdup(patience_field(text, len, 1));
	ret->socket = strdup(patience_field(text, len, 2));
	if (ret->mountpoint == NULL || ret->path == NULL || ret->socket == NULL)
		r = -ENOMEM;
	if (r == 0 && ret->path[0] == '\0') {
		free(ret->path);
		ret->path = strdup("/");
		r = ret->path == NULL ? -ENOMEM : 0;
	}
	return r < 0 ? explain(r, path, ret, err) : 0;
}

struct only {
	int count;
	char point[PATH_MAX];
};

static bool
count_ours(void *arg, const struct locate_mount *m)
{
	struct only *only = arg;

	if (strcmp(m->type, LOCATE_TYPE) == 0 && strcmp(m->point, only->point) != 0) {
		only->count++;
		memcpy(only->point, m->point, sizeof(only->point));
	}
	return false;
}

int
locate_only(struct location *ret, struct error *err)
{
	struct only only = {0};

	memset(ret, 0, sizeof(*ret));
	each_mount(count_ours, &only);
	if (only.count == 0)
		return error_set(err, -ENODEV, "there is no tbfs mount here");
	if (only.count > 1)
		return error_set(err, -ENODEV, "there are %d tbfs mounts here: name one", only.count);
	return locate_path(only.point, ret, err);
}

void
locate_release(struct location *loc)
{
	free(loc->mountpoint);
	free(loc->path);
	free(loc->socket);
	memset(loc, 0, sizeof(*loc));
}

static int
run_fusermount(const char *mountpoint, bool lazy, struct error *err)
{
	char *argv[] = { (char *)(uintptr_t)"fusermount3", (char *)(uintptr_t)(lazy ? "-uzq" : "-uq"),
		(char *)(uintptr_t)"--", (char *)(uintptr_t)mountpoint, NULL };
	int status, r;
	pid_t pid;

	r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (r != 0)
		return error_set(err, -r, "fusermount3 can't be run: %s", strerror(r));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return error_set(err, -errno, "fusermount3: %s", strerror(errno));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return error_set(err, -EBUSY, "%s is in use (or not yours): close what is open on it, "
		    "or use --lazy", mountpoint);
	return 0;
}

int
locate_detach(const char *mountpoint, bool lazy, struct error *err)
{
	int r;

	if (umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	r = -errno;
	if (r == -EPERM)
		return run_fusermount(mountpoint, lazy, err);
	if (r == -EBUSY)
		return error_set(err, r, "%s is in use: close what is open on it, or use --lazy", mountpoint);
	return error_set(err, r, "%s can't be detached: %s", mountpoint, strerror(-r));
}
