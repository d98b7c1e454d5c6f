/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Rename: onto nothing, onto something, or exchange.  One transaction: no reader ever sees
 * neither name, and what goes with it (the replaced inode's end, relocations) is queued in it.
 */
#include "index/tree.h"
#include "index/usage.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

struct rename_call {
	uint64_t parent, newparent;
	const char *name, *newname;
	const struct quiet *quiet;
	int64_t now;
};

/* Would moving directory `dir` below `newparent` make a loop? */
static int
check_loop(struct db *db, uint64_t dir, uint64_t newparent)
{
	int64_t at = (int64_t)newparent;
	int depth, r;

	for (depth = 0; depth < TREE_DEPTH_MAX; depth++) {
		if ((uint64_t)at == dir)
			return -EINVAL;
		if (at == INDEX_ROOT)
			return 0;
		r = db_int(db, &at, "SELECT parent FROM dentry WHERE ino=?", "i", at);
		if (r < 0)
			return r;
	}
	return -ELOOP;
}

/* What a file or directory that moved asks for: its object follows its name. */
static int
moved_work(struct db *db, const struct inode *inode, const struct quiet *quiet)
{
	int r = 0;

	if (S_ISDIR(inode->mode))
		return work_add(db, WORK_EXPAND, inode->ino, quiet->due);
	if (!S_ISREG(inode->mode))
		return 0;
	if (inode->state == OBJECT_OPEN || inode->state == OBJECT_DIRTY)
		r = work_quiet(db, inode->ino, quiet, false);
	if (r == 0 && inode->object != 0)
		r = work_add(db, WORK_RELOCATE, inode->ino, quiet->due);
	return r;
}

/* With a directory goes all that is below. */
static int
set_derived(struct db *db, struct inode *inode, bool derived)
{
	uint32_t flags = inode->flags;

	if (derived != ((flags & INODE_DERIVED) != 0))
		flags = (flags & ~(uint32_t)(INODE_DERIVED | INODE_MADE)) | (derived ? INODE_DERIVED : 0);
	/* Of a file with other names, those say what it is. */
	if (flags == inode->flags || (!S_ISDIR(inode->mode) && inode->nlink > 1))
		return 0;
	inode->flags = flags;
	if (!S_ISDIR(inode->mode))
		return db_run(db, "UPDATE inode SET flags=? WHERE ino=?", "ii", (int64_t)flags,
		    (int64_t)inode->ino);
	/* 17: INODE_DERIVED and INODE_MADE. */
	return db_run(db, TREE_BELOW "UPDATE inode SET flags=(flags&~17)|?2 WHERE ino IN (SELECT ino FROM tree)"
	    " AND (nlink<2 OR (mode & 61440)=16384)", "ii",
	    (int64_t)inode->ino, (int64_t)(derived ? INODE_DERIVED : 0));
}

static int
rename_replace(struct db *db, const struct rename_call *c, const struct inode *src, struct inode *dst)
{
	int r = 0;

	if (S_ISDIR(dst->mode) && !S_ISDIR(src->mode))
		return -EISDIR;
	if (!S_ISDIR(dst->mode) && S_ISDIR(src->mode))
		return -ENOTDIR;
	/* Another's derivatives go by the processor's hand, before others come there. */
	if (S_ISDIR(dst->mode))
		r = empty_dir(db, dst, (dst->flags & INODE_DERIVED) != 0 ? INDEX_RMDIR_EMPTY :
		    INDEX_RMDIR_USER, c->now);
	if (r == 0)
		r = inode_unlinked(db, dst, c->now);
	if (r == 0 && !S_ISDIR(dst->mode) && dst->nlink > 0 && dst->object != 0)
		r = work_add(db, WORK_RELOCATE, dst->ino, c->now);
	return r;
}

/* Within one directory the row and its other index stay where they are. */
static int
dentry_move(struct db *db, const struct rename_call *c)
{
	if (c->parent == c->newparent)
		return db_run(db, "UPDATE dentry SET name=? WHERE parent=? AND name=?", "bib", c->newname,
		    (int)strlen(c->newname), (int64_t)c->parent, c->name, (int)strlen(c->name));
	return db_run(db, "UPDATE dentry SET parent=?, name=? WHERE parent=? AND name=?", "ibib",
	    (int64_t)c->newparent, c->newname, (int)strlen(c->newname), (int64_t)c->parent, c->name,
	    (int)strlen(c->name));
}

static int
rename_move(struct db *db, const struct rename_call *c, struct inode *src, struct inode *dst)
{
	bool dir = S_ISDIR(src->mode), derived = (src->flags & INODE_DERIVED) != 0;
	int gone = dir && dst->ino != 0 ? -1 : 0, r = 0;

	if (dir && c->parent != c->newparent)
		r = check_loop(db, src->ino, c->newparent);
	if (r == 0 && dst->ino != 0)
		r = rename_replace(db, c, src, dst);
	/* A name that was there keeps its place in listings: nobody sees it twice, or not at all. */
	if (r == 0 && dst->ino != 0) {
		r = dentry_point(db, c->newparent, c->newname, src->ino);
		if (r == 0)
			r = dentry_delete(db, c->parent, c->name);
	} else if (r == 0) {
		r = dentry_move(db, c);
	}
	if (r == 0 && !derived) {
		src->ctime = c->now;
		r = db_run(db, "UPDATE inode SET ctime=? WHERE ino=?", "ii", c->now, (int64_t)src->ino);
	}
	if (r == 0)
		r = parent_touch(db, c->newparent,
		    gone + (dir && c->parent != c->newparent ? 1 : 0), c->now, derived);
	if (r == 0 && c->parent != c->newparent)
		r = parent_touch(db, c->parent, dir ? -1 : 0, c->now, derived);
	if (r == 0)
		r = moved_work(db, src, c->quiet);
	return r;
}

static int
rename_exchange(struct db *db, const struct rename_call *c, struct inode *src, struct inode *dst)
{
	int up = (S_ISDIR(dst->mode) ? 1 : 0) - (S_ISDIR(src->mode) ? 1 : 0), r = 0;

	if (S_ISDIR(src->mode))
		r = check_loop(db, src->ino, c->newparent);
	if (r == 0 && S_ISDIR(dst->mode))
		r = check_loop(db, dst->ino, c->parent);
	/* The two rows swap what they point at: no name is ever missing. */
	if (r == 0)
		r = dentry_point(db, c->parent, c->name, dst->ino);
	if (r == 0)
		r = dentry_point(db, c->newparent, c->newname, src->ino);
	if (r == 0)
		r = db_run(db, "UPDATE inode SET ctime=? WHERE ino IN (?,?)", "iii", c->now,
		    (int64_t)src->ino, (int64_t)dst->ino);
	src->ctime = dst->ctime = c->now;
	if (r == 0)
		r = parent_touch(db, c->parent, c->parent == c->newparent ? 0 : up, c->now, false);
	if (r == 0 && c->parent != c->newparent)
		r = parent_touch(db, c->newparent, -up, c->now, false);
	if (r == 0)
		r = moved_work(db, src, c->quiet);
	if (r == 0)
		r = moved_work(db, dst, c->quiet);
	return r;
}

/* ---- what it does to the counts ---- */

/* One of the two inodes, before and after. */
struct party {
	struct inode was, now;
	uint64_t from, to;		/* directories where it counts; 0: nowhere */
	uint64_t counted_from;		/* the same, 0 also when it was derived */
	struct usage usage;		/* of what counts there afterwards */
};

static void
party_after(struct db *db, struct party *p, const struct inode *now, uint64_t named)
{
	bool was_derived = (p->was.flags & INODE_DERIVED) != 0, is_derived = (now->flags & INODE_DERIVED) != 0;

	p->now = *now;
	p->to = usage_place(db, now, named);
	p->usage = usage_of(db, now);
	if (is_derived)
		p->usage = (struct usage){ 0 };
	else if (was_derived && S_ISDIR(now->mode))
		p->usage = usage_if_counted(db, now->ino);
	/* What was derived counted nowhere, also not where it stood. */
	p->counted_from = was_derived ? 0 : p->from;
}

/* Into a tree with a limit only what fits there, less what goes from it. */
static int
party_fits(struct db *db, const struct party *p, const struct party *other)
{
	struct usage more = p->usage;

	if (other->from == p->to && other->to != p->to) {
		more.bytes -= other->usage.bytes;
		more.files -= other->usage.files;
	}
	return p->to == 0 ? 0 : usage_fits(db, p->counted_from, p->to, more);
}

static void
party_counted(struct db *db, const struct party *p)
{
	bool flipped = ((p->was.flags ^ p->now.flags) & INODE_DERIVED) != 0;

	if (flipped && S_ISDIR(p->was.mode)) {
		counted(db, &p->was, p->from, p->to);
		usage_flipped(db, p->was.ino);
	} else if (flipped) {
		counted(db, &p->was, p->from, 0);
		counted(db, &p->now, 0, p->to);
	} else {
		counted(db, &p->was, p->from, p->to);
	}
}

/* All names of a file stay under the same limits: see index_link(). */
static int
names_stay_together(struct db *db, const struct inode *moved, uint64_t from, uint64_t to)
{
	int64_t one;
	int r;

	if (usage_same_limits(db, from, to))
		return 0;
	/* One that was parted before there was a limit may come back. */
	if (!S_ISDIR(moved->mode))
		return moved->nlink > 1 && !usage_same_limits(db, usage_place(db, moved, 0), to) ? -EXDEV : 0;
	r = db_int(db, &one, TREE_BELOW "SELECT 1 FROM tree t JOIN dentry d ON d.parent=t.ino"
	    " JOIN inode i ON i.ino=d.ino WHERE i.nlink>1 AND (i.mode & 61440)<>16384 AND EXISTS"
	    " (SELECT 1 FROM dentry o WHERE o.ino=d.ino AND o.parent NOT IN (SELECT ino FROM tree)) LIMIT 1",
	    "i", (int64_t)moved->ino);
	return r == 0 ? -EXDEV : r == -ENOENT ? 0 : r;
}

/* A directory that a name leaves or comes to; what stands in one of derived files is derived. */
static int
place_check(struct db *db, uint64_t dir, unsigned flag, unsigned *flags)
{
	struct inode row;
	int r = parent_check(db, dir, &row);

	if (r == 0 && (row.flags & INODE_DERIVED) != 0)
		*flags |= flag;
	return r;
}

int
index_rename(struct index *ix, uint64_t parent, const char *name, uint64_t newparent,
    const char *newname, unsigned flags, const struct quiet *quiet,
    struct index_renamed *ret_renamed)
{
	struct rename_call c = { parent, newparent, name, newname, quiet, quiet->now };
	struct inode src, dst = { 0 };
	struct party a = { 0 }, b = { 0 };
	struct db *db = &ix->writer;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = dentry_find(db, parent, name, &src);
	if (r == 0)
		r = place_check(db, newparent, INDEX_NEW_IS_DERIVED, &flags);
	if (r == 0)
		r = place_check(db, parent, INDEX_OLD_IS_DERIVED, &flags);
	if (r == 0) {
		r = dentry_find(db, newparent, newname, &dst);
		if (r == -ENOENT && (flags & INDEX_EXCHANGE) == 0)
			r = 0;
		else if (r == 0 && (flags & INDEX_NOREPLACE) != 0)
			r = -EEXIST;
	}
	if (r == 0) {
		a = (struct party){ .was = src, .from = usage_place(db, &src, parent) };
		b = (struct party){ .was = dst, .from = usage_place(db, &dst, newparent) };
	}
	if (r == 0 && dst.ino != src.ino)
		r = names_stay_together(db, &src, parent, newparent);
	if (r == 0 && dst.ino != src.ino && (flags & INDEX_EXCHANGE) != 0)
		r = names_stay_together(db, &dst, newparent, parent);
	/* Two names of one inode: POSIX says nothing happens. */
	if (r == 0 && dst.ino == src.ino)
		dst.ino = 0;
	else if (r == 0 && (flags & INDEX_EXCHANGE) != 0)
		r = rename_exchange(db, &c, &src, &dst);
	else if (r == 0)
		r = rename_move(db, &c, &src, &dst);
	if (r == 0 && (flags & INDEX_SET_DERIVED) != 0) {
		r = set_derived(db, &src, (flags & INDEX_NEW_IS_DERIVED) != 0);
		if (r == 0 && (flags & INDEX_EXCHANGE) != 0 && dst.ino != 0)
			r = set_derived(db, &dst, (flags & INDEX_OLD_IS_DERIVED) != 0);
	}
	if (r == 0) {
		party_after(db, &a, &src, newparent);
		if (dst.ino != 0)
			party_after(db, &b, &dst, (flags & INDEX_EXCHANGE) != 0 ? parent : 0);
		else
			b = (struct party){ 0 };
		r = party_fits(db, &a, &b);
	}
	if (r == 0)
		r = party_fits(db, &b, &a);
	if (r == 0) {
		party_counted(db, &a);
		party_counted(db, &b);
	}
	r = db_end(ix, r);
	if (r == 0)
		*ret_renamed = (struct index_renamed){ .moved = src, .other = dst,
			.from_derived = (flags & INDEX_OLD_IS_DERIVED) != 0,
			.to_derived = (flags & INDEX_NEW_IS_DERIVED) != 0 };
	return r;
}
