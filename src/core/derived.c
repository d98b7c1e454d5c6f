/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Derived files: written by the processor beside what the user keeps.  They are inodes
 * like any other, marked INODE_DERIVED, and making or replacing one never moves the
 * times of the keep.  meta.json and thumbs/ of a keep are reserved for them: what a user
 * writes there (a restore, `cp -a` of a keep) is accepted, and derived again.  A user's
 * file called thumbs, or directory called meta.json, stays: then there is no place for ours.
 */
#include "core/node.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void
tell(struct core *c, uint64_t parent, const char *name)
{
	if (c->events.entry_changed != NULL)
		c->events.entry_changed(c->events.arg, parent, name, false);
}

/* Who may enter can read what is in it: read bits become search bits too. */
static uint32_t
dir_mode(uint32_t file_mode)
{
	uint32_t mode = file_mode & 0777u;

	return S_IFDIR | 0700 | mode | (mode & 0444u) >> 2;
}

/* A derived file or directory goes. */
static int
remove_entry(struct core *c, uint64_t parent, const char *name)
{
	int64_t now = clock_wall_ns();
	struct inode gone;
	int r = index_lookup(c->ix, parent, name, &gone);

	if (r == 0 && (gone.flags & INODE_DERIVED) == 0)
		r = -EEXIST;
	if (r == 0)
		r = S_ISDIR(gone.mode) ? index_rmdir(c->ix, parent, name, INDEX_RMDIR_ALL, now, &gone) :
		    index_unlink(c->ix, parent, name, now, &gone);
	if (r < 0)
		return r;
	node_unlinked(c, &gone);
	if (S_ISDIR(gone.mode))
		reap_with_dir(c, now);
	tell(c, parent, name);
	return 0;
}

static int
make_dir(struct core *c, uint64_t parent, const char *name, const struct derived_file *f,
    struct inode *ret_dir)
{
	struct inode tmpl = { .mode = dir_mode(f->mode), .uid = f->uid, .gid = f->gid,
		.flags = INODE_DERIVED | INODE_MADE, .atime = f->mtime, .mtime = f->mtime, .ctime = f->mtime,
		.btime = f->mtime };
	int fd, r = index_lookup(c->ix, parent, name, ret_dir);

	if (r == 0 && !S_ISDIR(ret_dir->mode)) {
		/* What stands below thumbs/ is in our place. */
		r = (ret_dir->flags & INODE_DERIVED) == 0 ? -ENOTDIR : remove_entry(c, parent, name);
		r = r == 0 ? -ENOENT : r;
	}
	if (r != -ENOENT)
		return r;
	r = index_create(c->ix, parent, name, &tmpl, NULL, ret_dir);
	if (r == -EEXIST)
		return index_lookup(c->ix, parent, name, ret_dir);
	if (r < 0)
		return r;
	fd = staging_create(c->st, ret_dir->ino);
	if (fd >= 0)
		(void)close(fd);
	place_write(c, ret_dir->ino);
	tell(c, parent, name);
	return 0;
}

static int
make_dirs(struct core *c, const struct derived_file *f, uint64_t *ret_dir)
{
	char name[INDEX_NAME_MAX + 1];
	const char *path = f->dir_path;
	struct inode dir = { .ino = f->keep };
	int r = 0;

	while (r == 0 && *path != '\0') {
		size_t n = strcspn(path, "/");

		if (n > INDEX_NAME_MAX)
			return -ENAMETOOLONG;
		memcpy(name, path, n);
		name[n] = '\0';
		r = make_dir(c, dir.ino, name, f, &dir);
		path += n + (path[n] == '/' ? 1 : 0);
	}
	*ret_dir = dir.ino;
	return r;
}

/* The bytes of fd as the staged file of `ino`, with the time they are to show. */
static int
stage_bytes(struct core *c, int fd, uint64_t ino, int64_t mtime, struct stat *ret_stat)
{
	struct timespec times[2] = { ns_to_timespec(mtime), ns_to_timespec(mtime) };

	if (futimens(fd, times) < 0 || fstat(fd, ret_stat) < 0)
		return -errno;
	return staging_adopt(c->st, fd, ino);
}

int
core_derived_put(struct core *c, const struct derived_file *f, int fd, int64_t upload_delay)
{
	int64_t now = clock_wall_ns();
	struct inode tmpl = { .mode = S_IFREG | (f->mode & 0777u), .uid = f->uid, .gid = f->gid,
		.flags = INODE_DERIVED | INODE_MADE, .atime = f->mtime, .mtime = f->mtime, .ctime = now, .btime = now,
		.generation = 1, .state = OBJECT_DIRTY, .staged_mtime = f->mtime };
	struct inode new, gone;
	struct stat st;
	uint64_t dir;
	int r = make_dirs(c, f, &dir);

	if (r < 0)
		return r;
	if (fstat(fd, &st) < 0)
		return -errno;
	tmpl.size = (uint64_t)st.st_size;
	r = index_create_unnamed(c->ix, &tmpl, &new);
	if (r == 0)
		r = stage_bytes(c, fd, new.ino, f->mtime, &st);
	if (r == 0)
		r = index_link_over(c->ix, new.ino, dir, f->name, now + upload_delay, &gone);
	if (r == -EISDIR && remove_entry(c, dir, f->name) == 0)
		r = index_link_over(c->ix, new.ino, dir, f->name, now + upload_delay, &gone);
	if (r < 0) {
		(void)index_reap(c->ix, new.ino);
		return r;
	}
	if (gone.ino != 0)
		node_unlinked(c, &gone);
	place_write(c, new.ino);
	tell(c, dir, f->name);
	work_queued(c, now + upload_delay);
	return 0;
}

/* Parent and name of a path below a keep. */
static int
find_parent(struct core *c, uint64_t keep, const char *path, uint64_t *ret_parent,
    const char **ret_name)
{
	struct inode dir = { .ino = keep };
	int r = 0;

	for (;;) {
		char name[INDEX_NAME_MAX + 1];
		size_t n = strcspn(path, "/");

		if (n > INDEX_NAME_MAX)
			return -ENAMETOOLONG;
		if (path[n] == '\0')
			break;
		memcpy(name, path, n);
		name[n] = '\0';
		r = index_lookup(c->ix, dir.ino, name, &dir);
		if (r < 0)
			return r;
		path += n + 1;
	}
	*ret_parent = dir.ino;
	*ret_name = path;
	return 0;
}

/* The same, and what is there. */
static int
find_entry(struct core *c, uint64_t keep, const char *path, uint64_t *ret_parent, const char **ret_name,
    struct inode *ret_inode)
{
	int r = find_parent(c, keep, path, ret_parent, ret_name);

	return r < 0 ? r : index_lookup(c->ix, *ret_parent, *ret_name, ret_inode);
}

int
core_derived_remove(struct core *c, uint64_t keep, const char *path)
{
	const char *name;
	uint64_t parent;
	int r = find_parent(c, keep, path, &parent, &name);

	if (r == 0)
		r = remove_entry(c, parent, name);
	return r == -ENOENT || r == -ENOTDIR ? 0 : r;
}

int
core_derived_rename(struct core *c, const struct derived_file *to, uint64_t keep, const char *from)
{
	struct quiet quiet = quiet_for(c, NULL);
	struct index_renamed done;
	uint64_t parent, newparent;
	struct inode moved;
	const char *name;
	int r = find_entry(c, keep, from, &parent, &name, &moved);

	if (r == 0 && (moved.flags & INODE_DERIVED) == 0)
		r = -EEXIST;
	if (r == 0)
		r = make_dirs(c, to, &newparent);
	if (r == 0)
		r = index_rename(c->ix, parent, name, newparent, to->name, 0, &quiet, &done);
	if (r < 0)
		return r;
	if (done.other.ino != 0)
		node_unlinked(c, &done.other);
	place_write(c, moved.ino);
	tell(c, parent, name);
	tell(c, newparent, to->name);
	return 0;
}

int
core_derived_remove_empty(struct core *c, uint64_t keep, const char *path)
{
	CLEANUP_FREE char *dir = strdup(path);
	struct inode gone;
	const char *name;
	uint64_t parent;
	char *slash;
	int r = dir == NULL ? -ENOMEM : 0;

	while (r == 0 && (slash = strrchr(dir, '/')) != NULL) {
		*slash = '\0';
		r = find_entry(c, keep, dir, &parent, &name, &gone);
		if (r == 0 && (gone.flags & INODE_DERIVED) == 0)
			return 0;
		if (r == 0)
			r = index_rmdir(c->ix, parent, name, INDEX_RMDIR_EMPTY, clock_wall_ns(), &gone);
		if (r == 0) {
			node_unlinked(c, &gone);
			tell(c, parent, name);
		}
		/* What isn't there keeps nothing above it. */
		r = r == -ENOENT ? 0 : r;
	}
	return r == -ENOTEMPTY ? 0 : r;
}

enum { LOOK_MAX = 16 };	/* more than the derived files of one original */

struct look {
	struct {
		struct inode inode;
		char name[INDEX_NAME_MAX + 1];
	} files[LOOK_MAX];
	size_t n;
};

static bool
look_seen(void *arg, const struct index_entry *e)
{
	struct look *l = arg;

	if ((e->inode.flags & INODE_DERIVED) != 0 && S_ISREG(e->inode.mode)) {
		l->files[l->n].inode = e->inode;
		(void)snprintf(l->files[l->n++].name, sizeof(l->files->name), "%s", e->name);
	}
	return l->n < LOOK_MAX;
}

/* The derived files that stand in one directory. */
static int
look_into(struct core *c, uint64_t keep, const char *dir_path, struct look *ret_look, uint64_t *ret_dir)
{
	struct inode dir;
	const char *name;
	uint64_t parent;
	int r = find_entry(c, keep, dir_path, &parent, &name, &dir);

	ret_look->n = 0;
	if (r < 0)
		return r;
	*ret_dir = dir.ino;
	return index_readdir(c->ix, dir.ino, 0, look_seen, ret_look);
}

int
core_derived_clear(struct core *c, uint64_t keep, const char *dir_path)
{
	CLEANUP_FREE char *inside = NULL;
	struct look l;
	uint64_t dir;
	size_t i;
	int r;

	do {
		r = look_into(c, keep, dir_path, &l, &dir);
		for (i = 0; i < l.n && (r == 0 || r == -ENOENT); i++)
			r = remove_entry(c, dir, l.files[i].name);
	} while (r == 0 && l.n == LOOK_MAX);
	if (r < 0 && r != -ENOENT && r != -ENOTDIR)
		return r;
	if (asprintf(&inside, "%s/", dir_path) < 0)
		return -ENOMEM;
	return core_derived_remove_empty(c, keep, inside);
}

int
core_derived_attrs(struct core *c, const struct derived_file *f)
{
	struct inode to = { .mode = f->mode & 0777, .uid = f->uid, .gid = f->gid, .mtime = f->mtime };
	struct inode row;
	struct look l;
	uint64_t dir;
	size_t i;
	int r = look_into(c, f->keep, f->dir_path, &l, &dir);

	for (i = 0; i < l.n && r == 0; i++) {
		const struct inode *was = &l.files[i].inode;

		if ((was->mode & 0777) == to.mode && was->uid == to.uid && was->gid == to.gid &&
		    was->mtime == to.mtime)
			continue;
		to.ctime = clock_wall_ns();
		r = index_set_attr(c->ix, was->ino, ATTR_MODE | ATTR_UID | ATTR_GID | ATTR_MTIME | ATTR_CTIME,
		    &to, &row);
		if (c->events.attr_changed != NULL)
			c->events.attr_changed(c->events.arg, was->ino);
	}
	return r == -ENOENT ? 0 : r;
}
