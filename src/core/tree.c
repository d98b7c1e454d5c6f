/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The tree: making, linking, moving and removing names. */
#include "core/node.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* The processor wants to know: a name or what derivatives show of their original. */
static void
changed(struct core *c, uint64_t ino)
{
	if (c->events.changed != NULL)
		c->events.changed(c->events.arg, ino);
}

static bool
is_reserved_word(const char *name)
{
	return strcmp(name, "meta.json") == 0 || strcmp(name, "thumbs") == 0;
}

/* Is `name` in `parent`, a keep, reserved for what is derived?  The directory thumbs and the file
 * meta.json are; anything else of these names is a user's own, and never taken for derived. */
static bool
is_reserved(struct core *c, uint64_t parent, const char *name, uint32_t mode)
{
	struct keep_path k;
	bool keep;

	if (!(S_ISREG(mode) && strcmp(name, "meta.json") == 0) &&
	    !(S_ISDIR(mode) && strcmp(name, "thumbs") == 0))
		return false;
	if (!c->opt.derive || core_keep_path(c, parent, &k) < 0)
		return false;
	keep = k.rest[0] == '\0';
	keep_path_release(&k);
	return keep;
}

/* Something left this name, or came to it, that derived files may stand in for, or behind. */
static void
derived_gone(struct core *c, uint64_t parent, const char *name, bool derived)
{
	if ((derived || is_reserved_word(name)) && c->events.derived_gone != NULL)
		c->events.derived_gone(c->events.arg, parent, name);
}

/*
 * The first inode of a name: mode, owner, ACL and times.  New entries belong to the
 * caller; a setgid directory hands on its group.
 */
static int
template(struct core *c, uint64_t parent, uint32_t mode, const struct caller *who,
    struct inode *ret_tmpl, struct acl_pair *ret_acl)
{
	int64_t now = clock_wall_ns();
	struct inode dir;
	int r = index_get(c->ix, parent, &dir);

	if (r < 0)
		return r;
	if (dir.nlink == 0)
		return -ENOENT;
	r = acl_inherit(c, parent, who->umask, &mode, ret_acl);
	if (r < 0)
		return r;
	*ret_tmpl = (struct inode){ .mode = mode, .uid = who->uid, .gid = who->gid,
		.atime = now, .mtime = now, .ctime = now, .btime = now };
	if ((dir.mode & S_ISGID) != 0) {
		ret_tmpl->gid = dir.gid;
		if (S_ISDIR(mode))
			ret_tmpl->mode |= S_ISGID;
	}
	if (S_ISREG(mode)) {
		ret_tmpl->state = OBJECT_OPEN;
		ret_tmpl->generation = 1;
	}
	return 0;
}

/* A staged file for a new inode; undone by the caller when it fails. */
static int
stage_new(struct core *c, const struct inode *inode)
{
	int fd = staging_create(c->st, inode->ino);

	if (fd < 0)
		return fd;
	if (S_ISDIR(inode->mode)) {
		(void)close(fd);
		return 0;
	}
	return fd;
}

static void
discard_new(struct core *c, uint64_t parent, const char *name, bool dir)
{
	int64_t now = clock_wall_ns();
	struct inode gone;
	int r = dir ? index_rmdir(c->ix, parent, name, INDEX_RMDIR_EMPTY, now, &gone) :
	    index_unlink(c->ix, parent, name, now, &gone);

	if (r == 0)
		(void)index_reap(c->ix, gone.ino);
}

/* A row with a name, its ACL, and for files and directories the staged file; *ret_fd is
 * wanted for files. */
static int
make(struct core *c, uint64_t parent, const char *name, uint32_t mode, uint64_t rdev,
    const char *target, const struct caller *who, struct inode *ret_inode, int *ret_fd)
{
	struct acl_pair acl = { .access = NULL };
	struct inode tmpl;
	int r = template(c, parent, mode, who, &tmpl, &acl), fd = -1;
	bool made;

	tmpl.rdev = rdev;
	if (r == 0 && is_reserved(c, parent, name, mode))
		tmpl.flags |= INODE_DERIVED;
	if (r == 0 && target != NULL)
		tmpl.size = strlen(target);
	if (r == 0)
		r = index_create(c->ix, parent, name, &tmpl, target, ret_inode);
	made = r == 0;
	if (r == 0)
		r = acl_store(c, ret_inode->ino, &acl);
	acl_pair_release(&acl);
	if (r == 0 && (S_ISREG(mode) || S_ISDIR(mode))) {
		fd = stage_new(c, ret_inode);
		r = fd < 0 ? fd : 0;
	}
	if (r < 0 && made)
		discard_new(c, parent, name, S_ISDIR(mode));
	if (r == 0 && S_ISDIR(mode))
		place_due(c, ret_inode->ino);
	if (r == 0 && ret_fd != NULL)
		*ret_fd = TAKE_FD(fd);
	else if (fd > 0)
		(void)close(fd);
	return r;
}

static int
answer(struct core *c, const struct inode *inode, struct attr *ret_attr)
{
	core_remember(c, inode->ino);
	core_fill_attr(c, inode, ret_attr);
	return 0;
}

int
core_mknod(struct core *c, uint64_t parent, const char *name, uint32_t mode, uint64_t rdev,
    const struct caller *who, struct attr *ret_attr)
{
	struct inode inode;
	struct node *n;
	int r = make(c, parent, name, mode, rdev, NULL, who, &inode, NULL);

	if (r < 0)
		return r;
	/* A file made by mknod has no writer that will close it: it is flushed at once. */
	if (S_ISREG(mode) && (n = node_get(c, inode.ino)) != NULL) {
		node_lock(c, n);
		r = node_flush(c, n, true);
		node_unlock(c, n);
		node_put(c, n);
	}
	return r < 0 ? r : answer(c, &inode, ret_attr);
}

int
core_mkdir(struct core *c, uint64_t parent, const char *name, uint32_t mode,
    const struct caller *who, struct attr *ret_attr)
{
	struct inode inode;
	int r = make(c, parent, name, S_IFDIR | (mode & 07777), 0, NULL, who, &inode, NULL);

	return r < 0 ? r : answer(c, &inode, ret_attr);
}

int
core_symlink(struct core *c, uint64_t parent, const char *name, const char *target,
    const struct caller *who, struct attr *ret_attr)
{
	struct caller plain = *who;
	struct inode inode;
	int r;

	plain.umask = 0;
	r = make(c, parent, name, S_IFLNK | 0777, 0, target, &plain, &inode, NULL);
	return r < 0 ? r : answer(c, &inode, ret_attr);
}

/* A file that is about to stand below a limit: what was written to it so far is what counts,
 * also when nobody has closed it yet. */
static void
tell_size(struct core *c, uint64_t ino)
{
	struct node *n = index_has_quotas(c->ix) ? node_find(c, ino) : NULL;

	if (n == NULL)
		return;
	node_lock(c, n);
	if (atomic_load(&n->writers) > 0)
		(void)node_flush(c, n, false);
	node_unlock(c, n);
	node_put(c, n);
}

int
core_link(struct core *c, uint64_t ino, uint64_t parent, const char *name, struct attr *ret_attr)
{
	struct inode inode;
	struct node *n;
	int r;

	tell_size(c, ino);
	r = index_link(c->ix, ino, parent, name, clock_wall_ns(), &inode);
	if (r < 0)
		return r;
	n = node_find(c, ino);
	if (n != NULL) {
		bool was_unnamed;

		lock_take(&c->table_lock);
		was_unnamed = n->unlinked;
		n->unlinked = false;
		lock_drop(&c->table_lock);
		/* O_TMPFILE got its name: now there is something to store. */
		if (was_unnamed) {
			node_lock(c, n);
			atomic_store(&n->change, index_changes(c->ix));
			(void)node_flush(c, n, true);
			node_unlock(c, n);
		}
		node_put(c, n);
	}
	node_touched(c, ino);
	place_due(c, ino);
	return answer(c, &inode, ret_attr);
}

/* One of its names went, or is another's: the oldest may be another now. */
static void
stands_elsewhere(struct core *c, uint64_t ino)
{
	node_touched(c, ino);
	place_due(c, ino);
	changed(c, ino);
}

int
core_unlink(struct core *c, uint64_t parent, const char *name)
{
	struct inode gone;
	int r = index_unlink(c->ix, parent, name, clock_wall_ns(), &gone);

	if (r < 0)
		return r;
	node_unlinked(c, &gone);
	if (gone.nlink > 0)
		stands_elsewhere(c, gone.ino);
	derived_gone(c, parent, name, (gone.flags & INODE_DERIVED) != 0);
	return 0;
}

int
core_rmdir(struct core *c, uint64_t parent, const char *name)
{
	int64_t now = clock_wall_ns();
	struct inode gone;
	int r = index_rmdir(c->ix, parent, name, INDEX_RMDIR_USER, now, &gone);

	if (r < 0)
		return r;
	node_unlinked(c, &gone);
	reap_with_dir(c, now);
	derived_gone(c, parent, name, false);
	return 0;
}

static uint32_t
type_of(struct core *c, uint64_t parent, const char *name)
{
	struct inode i;

	return index_lookup(c->ix, parent, name, &i) == 0 ? i.mode : 0;
}

int
core_rename(struct core *c, uint64_t parent, const char *name, uint64_t newparent,
    const char *newname, unsigned flags)
{
	/* Looked for only where the answer matters. */
	bool reserved = is_reserved_word(name) || is_reserved_word(newname);
	uint32_t mode = reserved ? type_of(c, parent, name) : 0;
	struct quiet quiet = quiet_for(c, newname);
	struct index_renamed done;
	struct inode moved;
	int r;

	if (parent != newparent && index_has_quotas(c->ix) &&
	    index_lookup(c->ix, parent, name, &moved) == 0 && S_ISREG(moved.mode))
		tell_size(c, moved.ino);
	flags |= INDEX_SET_DERIVED;
	if (is_reserved(c, newparent, newname, mode))
		flags |= INDEX_NEW_IS_DERIVED;
	/* What comes back in an exchange is of its own type. */
	if (reserved && (flags & INDEX_EXCHANGE) != 0)
		mode = type_of(c, newparent, newname);
	if (is_reserved(c, parent, name, mode))
		flags |= INDEX_OLD_IS_DERIVED;
	r = index_rename(c->ix, parent, name, newparent, newname, flags, &quiet, &done);
	if (r < 0)
		return r;
	node_touched(c, done.moved.ino);
	place_due(c, done.moved.ino);
	if (done.other.ino != 0) {
		node_unlinked(c, &done.other);
		if (S_ISDIR(done.other.mode) && done.other.nlink == 0)
			reap_with_dir(c, quiet.now);
		if ((flags & INDEX_EXCHANGE) != 0 || done.other.nlink > 0)
			stands_elsewhere(c, done.other.ino);
	}
	/* What was derived there is to come back, and what was put there is to be derived over. */
	derived_gone(c, parent, name, done.from_derived);
	derived_gone(c, newparent, newname, done.to_derived);
	changed(c, done.moved.ino);
	work_queued(c, quiet.due);
	return 0;
}

int
core_readlink(struct core *c, uint64_t ino, char **ret_target)
{
	return index_readlink(c->ix, ino, ret_target);
}

/* ---- files that are made open (see file.c for the rest) ---- */

/*
 * Whoever asks for a new file of a reserved name gets none: Django then takes another for an upload
 * called meta.json, which it finds there when it looks again.  But for tools that put back what
 * was there: cp -a, mv and tar open it for themselves alone and give it its mode later.
 */
static int
may_take(struct core *c, uint64_t parent, const char *name, uint32_t mode)
{
	if ((mode & 077) == 0 || !is_reserved(c, parent, name, S_IFREG))
		return 0;
	if (c->events.meta_wanted != NULL)
		c->events.meta_wanted(c->events.arg, parent);
	return -EEXIST;
}

int
core_create(struct core *c, uint64_t parent, const char *name, uint32_t mode, int flags,
    const struct caller *who, struct handle **ret_handle, struct attr *ret_attr)
{
	CLEANUP_CLOSE int fd = -1;
	struct inode inode;
	int r;

	r = (flags & O_EXCL) != 0 ? may_take(c, parent, name, mode) : 0;
	if (r < 0)
		return r;
	r = make(c, parent, name, S_IFREG | (mode & 07777), 0, NULL, who, &inode, &fd);

	if (r < 0)
		return r;
	core_remember(c, inode.ino);
	r = handle_new(c, &inode, flags, TAKE_FD(fd), ret_handle);
	if (r < 0) {
		core_forget(c, inode.ino, 1);
		(void)core_unlink(c, parent, name);
		return r;
	}
	core_fill_attr(c, &inode, ret_attr);
	/* Nothing can be mapped before something was written, and what writes through the kernel
	 * makes it ask again. */
	ret_attr->moving = false;
	return r;
}

int
core_tmpfile(struct core *c, uint64_t parent, uint32_t mode, int flags,
    const struct caller *who, struct handle **ret_handle, struct attr *ret_attr)
{
	struct acl_pair acl = { .access = NULL };
	struct inode tmpl, inode;
	int r = template(c, parent, S_IFREG | (mode & 07777), who, &tmpl, &acl), fd = -1;

	if (r == 0)
		r = index_create_unnamed(c->ix, &tmpl, &inode);
	if (r == 0)
		r = acl_store(c, inode.ino, &acl);
	acl_pair_release(&acl);
	if (r < 0)
		return r;
	core_remember(c, inode.ino);
	node_unlinked(c, &inode);
	fd = staging_create(c->st, inode.ino);
	if (fd < 0) {
		core_forget(c, inode.ino, 1);
		return fd;
	}
	place_due(c, inode.ino);
	r = handle_new(c, &inode, flags, fd, ret_handle);
	if (r < 0)
		core_forget(c, inode.ino, 1);
	*ret_attr = (struct attr){ .inode = inode, .moving = true };
	return r;
}
