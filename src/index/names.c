/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Names: directories and what stands in them.
 *
 *   1. nlink of a file is the number of its dentries; of a directory 2 + its
 *      subdirectories.  A directory that was removed has nlink 0 and takes no entries.
 *   2. A dentry keeps its id through a rename within one directory, so that a reader
 *      sees it once; ids rise and are never used again.
 *   3. A change of names moves mtime and ctime of the directories concerned, and the
 *      ctime of the inode, except when the entry is derived.
 */
#include "index/db.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "index/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DERIVED_GO_NS (2 * NSEC_PER_SEC)
enum { DEPTH_MAX = 4096 };	/* directories; a longer walk is a damaged tree */

void
inode_read(sqlite3_stmt *q, int at, struct inode *ret_inode)
{
#define COLUMN(n) sqlite3_column_int64(q, at + (n))
	*ret_inode = (struct inode){
		.ino = (uint64_t)COLUMN(0), .mode = (uint32_t)COLUMN(1), .nlink = (uint32_t)COLUMN(2),
		.uid = (uint32_t)COLUMN(3), .gid = (uint32_t)COLUMN(4), .rdev = (uint64_t)COLUMN(5),
		.size = (uint64_t)COLUMN(6), .atime = COLUMN(7), .mtime = COLUMN(8),
		.ctime = COLUMN(9), .btime = COLUMN(10), .flags = (uint32_t)COLUMN(11),
		.state = (enum object_state)COLUMN(12), .generation = (uint64_t)COLUMN(13),
		.synced_generation = (uint64_t)COLUMN(14), .staged_mtime = COLUMN(15),
		.object = (uint64_t)COLUMN(16),
	};
#undef COLUMN
}

int
inode_load(struct db *db, uint64_t ino, struct inode *ret_inode)
{
	sqlite3_stmt *q;
	int r = db_query(db, &q, "SELECT " INODE_COLUMNS " FROM inode i WHERE i.ino=?", "i",
	    (int64_t)ino);

	if (r == 0)
		r = db_step(db, q);
	if (r < 0)
		return r;
	if (r == 0)
		return -ENOENT;
	inode_read(q, 0, ret_inode);
	db_done(q);
	return 0;
}

int
index_get(struct index *ix, uint64_t ino, struct inode *ret_inode)
{
	int r;

	lock_take(&ix->reader.lock);
	r = inode_load(&ix->reader, ino, ret_inode);
	lock_drop(&ix->reader.lock);
	return r;
}

static int
dentry_find(struct db *db, uint64_t parent, const char *name, int64_t *ret_id,
    struct inode *ret_inode)
{
	sqlite3_stmt *q;
	int r = db_query(db, &q, "SELECT d.id," INODE_COLUMNS " FROM dentry d JOIN inode i ON i.ino=d.ino"
	    " WHERE d.parent=? AND d.name=?", "ib", (int64_t)parent, name, (int)strlen(name));

	if (r == 0)
		r = db_step(db, q);
	if (r < 0)
		return r;
	if (r == 0)
		return -ENOENT;
	if (ret_id != NULL)
		*ret_id = sqlite3_column_int64(q, 0);
	inode_read(q, 1, ret_inode);
	db_done(q);
	return 0;
}

int
index_lookup(struct index *ix, uint64_t parent, const char *name, struct inode *ret_inode)
{
	int r;

	lock_take(&ix->reader.lock);
	r = dentry_find(&ix->reader, parent, name, NULL, ret_inode);
	lock_drop(&ix->reader.lock);
	return r;
}

/* ---- pieces of transactions ---- */

static int
inode_insert(struct db *db, const struct inode *i)
{
	return db_run(db, "INSERT INTO inode VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
	    "iiiiiiiiiiiiiiiii", (int64_t)i->ino, (int64_t)i->mode, (int64_t)i->nlink, (int64_t)i->uid,
	    (int64_t)i->gid, (int64_t)i->rdev, (int64_t)i->size, i->atime, i->mtime, i->ctime, i->btime,
	    (int64_t)i->flags, (int64_t)i->state, (int64_t)i->generation,
	    (int64_t)i->synced_generation, i->staged_mtime, (int64_t)i->object);
}

static int
dentry_insert(struct db *db, uint64_t parent, const char *name, uint64_t ino)
{
	return db_run(db, "INSERT INTO dentry(parent,name,ino) VALUES(?,?,?)", "ibi", (int64_t)parent,
	    name, (int)strlen(name), (int64_t)ino);
}

/* The directory gained or lost an entry; `links`: by how much its nlink moves. */
static int
parent_touch(struct db *db, uint64_t parent, int links, int64_t now, bool derived)
{
	if (derived)
		return links == 0 ? 0 : db_run(db, "UPDATE inode SET nlink=nlink+? WHERE ino=?", "ii",
		    (int64_t)links, (int64_t)parent);
	return db_run(db, "UPDATE inode SET nlink=nlink+?, mtime=?, ctime=? WHERE ino=?", "iiii",
	    (int64_t)links, now, now, (int64_t)parent);
}

static int
parent_check(struct db *db, uint64_t parent)
{
	struct inode dir;
	int r = inode_load(db, parent, &dir);

	if (r < 0)
		return r;
	if (!S_ISDIR(dir.mode))
		return -ENOTDIR;
	return dir.nlink == 0 ? -ENOENT : 0;
}

/* A name of `inode` went: one link less, and for a directory none at all. */
static int
inode_unlinked(struct db *db, struct inode *inode, int64_t now)
{
	inode->nlink = S_ISDIR(inode->mode) ? 0 : inode->nlink - 1;
	inode->ctime = now;
	return db_run(db, "UPDATE inode SET nlink=?, ctime=? WHERE ino=?", "iii",
	    (int64_t)inode->nlink, now, (int64_t)inode->ino);
}

/* ---- create, link ---- */

int
index_create(struct index *ix, uint64_t parent, const char *name, const struct inode *tmpl,
    const char *target, struct inode *ret_inode)
{
	struct db *db = &ix->writer;
	struct inode new = *tmpl;
	bool dir = S_ISDIR(tmpl->mode);
	int r;

	r = ino_allocate(ix, &new.ino);
	if (r < 0)
		return r;
	new.nlink = dir ? 2 : 1;
	r = db_begin(ix);
	if (r < 0)
		return r;
	r = parent_check(db, parent);
	if (r == 0)
		r = dentry_insert(db, parent, name, new.ino);
	if (r == 0)
		r = inode_insert(db, &new);
	if (r == 0 && target != NULL)
		r = db_run(db, "INSERT INTO symlink VALUES(?,?)", "ib", (int64_t)new.ino, target,
		    (int)strlen(target));
	if (r == 0)
		r = parent_touch(db, parent, dir ? 1 : 0, new.ctime, (new.flags & INODE_DERIVED) != 0);
	r = db_end(ix, r);
	if (r == 0)
		*ret_inode = new;
	return r;
}

int
index_create_unnamed(struct index *ix, const struct inode *tmpl, struct inode *ret_inode)
{
	struct inode new = *tmpl;
	int r = ino_allocate(ix, &new.ino);

	if (r < 0)
		return r;
	new.nlink = 0;
	r = db_begin(ix);
	if (r < 0)
		return r;
	r = db_end(ix, inode_insert(&ix->writer, &new));
	if (r == 0)
		*ret_inode = new;
	return r;
}

int
index_link(struct index *ix, uint64_t ino, uint64_t parent, const char *name, int64_t now,
    struct inode *ret_inode)
{
	struct db *db = &ix->writer;
	struct inode inode;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = parent_check(db, parent);
	if (r == 0)
		r = inode_load(db, ino, &inode);
	if (r == 0 && inode.nlink >= 65000)
		r = -EMLINK;
	if (r == 0)
		r = dentry_insert(db, parent, name, ino);
	if (r == 0)
		r = db_run(db, "UPDATE inode SET nlink=nlink+1, ctime=? WHERE ino=?", "ii", now,
		    (int64_t)ino);
	if (r == 0)
		r = parent_touch(db, parent, 0, now, false);
	r = db_end(ix, r);
	if (r < 0)
		return r;
	inode.nlink++;
	inode.ctime = now;
	*ret_inode = inode;
	return 0;
}

int
index_link_over(struct index *ix, uint64_t ino, uint64_t parent, const char *name, int64_t due,
    struct inode *ret_gone)
{
	struct inode gone = { 0 };
	struct db *db = &ix->writer;
	int64_t id;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = parent_check(db, parent);
	if (r == 0)
		r = dentry_find(db, parent, name, &id, &gone);
	if (r == 0 && S_ISDIR(gone.mode))
		r = -EISDIR;
	if (r == 0)
		r = inode_unlinked(db, &gone, gone.ctime);
	if (r == 0)
		r = db_run(db, "UPDATE dentry SET ino=? WHERE id=?", "ii", (int64_t)ino, id);
	else if (r == -ENOENT)
		r = dentry_insert(db, parent, name, ino);
	if (r == 0 && db_change(db, "UPDATE inode SET nlink=1 WHERE ino=?", "i", (int64_t)ino) != 1)
		r = -ENOENT;
	if (r == 0)
		r = work_add(db, WORK_UPLOAD, ino, due);
	r = db_end(ix, r);
	if (r == 0)
		*ret_gone = gone;
	return r;
}

/* ---- unlink, rmdir ---- */

static int
dentry_delete(struct db *db, int64_t id)
{
	return db_run(db, "DELETE FROM dentry WHERE id=?", "i", id);
}

/* Remove everything below a directory that holds only derived entries; -ENOTEMPTY when
 * something else is there.  Their rows stay with nlink 0 until they are reaped. */
static int
remove_derived(struct db *db, uint64_t dir, int64_t now, unsigned depth)
{
	sqlite3_stmt *q;
	struct inode child;
	int64_t id = 0;
	int r;

	if (depth > DEPTH_MAX)
		return -ELOOP;
	for (;;) {
		r = db_query(db, &q, "SELECT d.id," INODE_COLUMNS " FROM dentry d JOIN inode i ON i.ino=d.ino"
		    " WHERE d.parent=? LIMIT 1", "i", (int64_t)dir);
		if (r == 0)
			r = db_step(db, q);
		if (r <= 0)
			return r;
		id = sqlite3_column_int64(q, 0);
		inode_read(q, 1, &child);
		db_done(q);
		r = 0;
		if ((child.flags & INODE_DERIVED) == 0)
			return -ENOTEMPTY;
		if (S_ISDIR(child.mode))
			r = remove_derived(db, child.ino, now, depth + 1);
		if (r == 0)
			r = dentry_delete(db, id);
		if (r == 0)
			r = inode_unlinked(db, &child, now);
		if (r < 0)
			return r;
	}
}

/* A directory that is to go must be empty, or becomes so. */
static int
empty_dir(struct db *db, const struct inode *dir, enum index_rmdir_how how, int64_t now)
{
	bool derived = (dir->flags & INODE_DERIVED) != 0;
	int64_t one;
	int r;

	if (how == INDEX_RMDIR_ALL || (how == INDEX_RMDIR_USER && !derived))
		return remove_derived(db, dir->ino, now, 0);
	r = db_int(db, &one, "SELECT 1 FROM dentry WHERE parent=? LIMIT 1", "i", (int64_t)dir->ino);
	return r == 0 ? -ENOTEMPTY : r == -ENOENT ? 0 : r;
}

int
index_unlink(struct index *ix, uint64_t parent, const char *name, int64_t now,
    struct inode *ret_inode)
{
	struct db *db = &ix->writer;
	struct inode inode;
	int64_t id;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = dentry_find(db, parent, name, &id, &inode);
	if (r == 0 && S_ISDIR(inode.mode))
		r = -EISDIR;
	if (r == 0)
		r = dentry_delete(db, id);
	if (r == 0)
		r = inode_unlinked(db, &inode, now);
	/* It lives on under another name: so must its object. */
	if (r == 0 && inode.nlink > 0 && inode.object != 0)
		r = work_add(db, WORK_RELOCATE, inode.ino, now);
	if (r == 0)
		r = parent_touch(db, parent, 0, now, (inode.flags & INODE_DERIVED) != 0);
	r = db_end(ix, r);
	if (r == 0)
		*ret_inode = inode;
	return r;
}

int
index_rmdir(struct index *ix, uint64_t parent, const char *name, enum index_rmdir_how how,
    int64_t now, struct inode *ret_inode)
{
	struct db *db = &ix->writer;
	struct inode inode;
	int64_t id;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = dentry_find(db, parent, name, &id, &inode);
	if (r == 0 && !S_ISDIR(inode.mode))
		r = -ENOTDIR;
	if (r == 0)
		r = empty_dir(db, &inode, how, now);
	if (r == 0)
		r = dentry_delete(db, id);
	if (r == 0)
		r = inode_unlinked(db, &inode, now);
	if (r == 0)
		r = parent_touch(db, parent, -1, now, (inode.flags & INODE_DERIVED) != 0);
	r = db_end(ix, r);
	if (r == 0)
		*ret_inode = inode;
	return r;
}

/* ---- rename ---- */

/* Would moving directory `dir` below `newparent` make a loop? */
static int
check_loop(struct db *db, uint64_t dir, uint64_t newparent)
{
	int64_t at = (int64_t)newparent;
	int depth, r;

	for (depth = 0; depth < DEPTH_MAX; depth++) {
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

static int
rename_replace(struct db *db, const struct inode *src, struct inode *dst, int64_t dst_id, int64_t now)
{
	int r = 0;

	if (S_ISDIR(dst->mode) && !S_ISDIR(src->mode))
		return -EISDIR;
	if (!S_ISDIR(dst->mode) && S_ISDIR(src->mode))
		return -ENOTDIR;
	if (S_ISDIR(dst->mode))
		r = empty_dir(db, dst, INDEX_RMDIR_USER, now);
	if (r == 0)
		r = dentry_delete(db, dst_id);
	if (r == 0)
		r = inode_unlinked(db, dst, now);
	if (r == 0 && !S_ISDIR(dst->mode) && dst->nlink > 0 && dst->object != 0)
		r = work_add(db, WORK_RELOCATE, dst->ino, now);
	return r;
}

struct rename_call {
	uint64_t parent, newparent;
	const char *name, *newname;
	const struct quiet *quiet;
	int64_t now;
};

static int
rename_move(struct db *db, const struct rename_call *c, struct inode *src, int64_t src_id,
    struct inode *dst, int64_t dst_id)
{
	bool dir = S_ISDIR(src->mode), derived = (src->flags & INODE_DERIVED) != 0;
	int gone = dir && dst->ino != 0 ? -1 : 0, r = 0;

	if (dir && c->parent != c->newparent)
		r = check_loop(db, src->ino, c->newparent);
	if (r == 0 && dst->ino != 0)
		r = rename_replace(db, src, dst, dst_id, c->now);
	if (r == 0)
		r = db_run(db, "UPDATE dentry SET parent=?, name=? WHERE id=?", "ibi",
		    (int64_t)c->newparent, c->newname, (int)strlen(c->newname), src_id);
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
rename_exchange(struct db *db, const struct rename_call *c, struct inode *src, int64_t src_id,
    struct inode *dst, int64_t dst_id)
{
	int up = (S_ISDIR(dst->mode) ? 1 : 0) - (S_ISDIR(src->mode) ? 1 : 0), r = 0;

	if (S_ISDIR(src->mode))
		r = check_loop(db, src->ino, c->newparent);
	if (r == 0 && S_ISDIR(dst->mode))
		r = check_loop(db, dst->ino, c->parent);
	/* The two rows swap what they point at: no name is ever missing. */
	if (r == 0)
		r = db_run(db, "UPDATE dentry SET ino=? WHERE id=?", "ii", (int64_t)dst->ino, src_id);
	if (r == 0)
		r = db_run(db, "UPDATE dentry SET ino=? WHERE id=?", "ii", (int64_t)src->ino, dst_id);
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

int
index_rename(struct index *ix, uint64_t parent, const char *name, uint64_t newparent,
    const char *newname, unsigned flags, const struct quiet *quiet,
    struct index_renamed *ret_renamed)
{
	struct rename_call c = { parent, newparent, name, newname, quiet, quiet->now };
	struct inode src, dst = { 0 };
	struct db *db = &ix->writer;
	int64_t src_id, dst_id = 0;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = dentry_find(db, parent, name, &src_id, &src);
	if (r == 0)
		r = parent_check(db, newparent);
	if (r == 0) {
		r = dentry_find(db, newparent, newname, &dst_id, &dst);
		if (r == -ENOENT && (flags & INDEX_EXCHANGE) == 0)
			r = 0;
		else if (r == 0 && (flags & INDEX_NOREPLACE) != 0)
			r = -EEXIST;
	}
	/* Two names of one inode: POSIX says nothing happens. */
	if (r == 0 && dst.ino == src.ino)
		dst.ino = 0;
	else if (r == 0 && (flags & INDEX_EXCHANGE) != 0)
		r = rename_exchange(db, &c, &src, src_id, &dst, dst_id);
	else if (r == 0)
		r = rename_move(db, &c, &src, src_id, &dst, dst_id);
	r = db_end(ix, r);
	if (r == 0)
		*ret_renamed = (struct index_renamed){ .moved = src, .other = dst };
	return r;
}

/* ---- reading ---- */

int
index_readlink(struct index *ix, uint64_t ino, char **ret_target)
{
	struct db *db = &ix->reader;
	sqlite3_stmt *q;
	int r;

	lock_take(&db->lock);
	r = db_query(db, &q, "SELECT target FROM symlink WHERE ino=?", "i", (int64_t)ino);
	if (r == 0)
		r = db_step(db, q);
	if (r == 1) {
		*ret_target = strndup(sqlite3_column_blob(q, 0), (size_t)sqlite3_column_bytes(q, 0));
		db_done(q);
		r = *ret_target == NULL ? -ENOMEM : 0;
	} else if (r == 0) {
		r = -EINVAL;
	}
	lock_drop(&db->lock);
	return r;
}

int
index_readdir(struct index *ix, uint64_t dir, uint64_t after,
    bool (*fn)(void *arg, const struct index_entry *e), void *arg)
{
	struct db *db = &ix->reader;
	sqlite3_stmt *q;
	int r;

	lock_take(&db->lock);
	r = db_query(db, &q, "SELECT d.id, d.name," INODE_COLUMNS " FROM dentry d"
	    " JOIN inode i ON i.ino=d.ino WHERE d.parent=? AND d.id>? ORDER BY d.id", "ii",
	    (int64_t)dir, (int64_t)after);
	while (r == 0 && (r = db_step(db, q)) == 1) {
		char name[INDEX_NAME_MAX + 1];
		struct index_entry e = { .cookie = (uint64_t)sqlite3_column_int64(q, 0), .name = name };
		size_t len = (size_t)sqlite3_column_bytes(q, 1);

		if (len > INDEX_NAME_MAX)
			len = INDEX_NAME_MAX;
		memcpy(name, sqlite3_column_blob(q, 1), len);
		name[len] = '\0';
		inode_read(q, 2, &e.inode);
		if (!fn(arg, &e)) {
			db_done(q);
			r = 0;
			break;
		}
		r = 0;
	}
	lock_drop(&db->lock);
	return r;
}

static int
place_load(struct db *db, uint64_t ino, uint64_t *ret_parent, char *ret_name)
{
	sqlite3_stmt *q;
	size_t len;
	int r = db_query(db, &q, "SELECT parent, name FROM dentry WHERE ino=? ORDER BY id LIMIT 1", "i",
	    (int64_t)ino);

	if (r == 0)
		r = db_step(db, q);
	if (r < 0)
		return r;
	if (r == 0)
		return -ENOENT;
	*ret_parent = (uint64_t)sqlite3_column_int64(q, 0);
	len = (size_t)sqlite3_column_bytes(q, 1);
	if (len > INDEX_NAME_MAX)
		len = INDEX_NAME_MAX;
	memcpy(ret_name, sqlite3_column_blob(q, 1), len);
	ret_name[len] = '\0';
	db_done(q);
	return 0;
}

int
path_load(struct db *db, uint64_t ino, char **ret_path)
{
	CLEANUP_STRBUF struct strbuf path = STRBUF_INIT;
	char name[INDEX_NAME_MAX + 1];
	int depth, r;

	for (depth = 0; ino != INDEX_ROOT; depth++) {
		CLEANUP_STRBUF struct strbuf longer = STRBUF_INIT;

		r = depth < DEPTH_MAX ? place_load(db, ino, &ino, name) : -ELOOP;
		if (r < 0)
			return r;
		strbuf_addstr(&longer, name);
		if (depth > 0) {
			strbuf_addch(&longer, '/');
			strbuf_add(&longer, path.data, path.len);
		}
		strbuf_reset(&path);
		strbuf_add(&path, longer.data, longer.len);
		if (!strbuf_ok(&longer))
			return -ENOMEM;
	}
	strbuf_add(&path, "", 0);
	if (!strbuf_ok(&path))
		return -ENOMEM;
	*ret_path = TAKE_PTR(path.data);
	return 0;
}

int
index_place(struct index *ix, uint64_t ino, uint64_t *ret_parent, char *ret_name)
{
	int r;

	lock_take(&ix->reader.lock);
	r = place_load(&ix->reader, ino, ret_parent, ret_name);
	lock_drop(&ix->reader.lock);
	return r;
}

int
index_path(struct index *ix, uint64_t ino, char **ret_path)
{
	int r;

	lock_take(&ix->reader.lock);
	r = path_load(&ix->reader, ino, ret_path);
	lock_drop(&ix->reader.lock);
	return r;
}

int
index_parent(struct index *ix, uint64_t dir, uint64_t *ret_parent)
{
	int64_t parent = INDEX_ROOT;
	int r = 0;

	if (dir != INDEX_ROOT) {
		lock_take(&ix->reader.lock);
		r = db_int(&ix->reader, &parent, "SELECT parent FROM dentry WHERE ino=?", "i", (int64_t)dir);
		lock_drop(&ix->reader.lock);
	}
	if (r == 0)
		*ret_parent = (uint64_t)parent;
	return r;
}

/* ---- the end of an inode, and its return ---- */

static int
read_inos(struct db *db, sqlite3_stmt *q, uint64_t *ret_inos, size_t max)
{
	size_t n = 0;
	int r = 0;

	while (n < max && (r = db_step(db, q)) == 1)
		ret_inos[n++] = (uint64_t)sqlite3_column_int64(q, 0);
	if (n == max)
		db_done(q);
	return r < 0 ? r : (int)n;
}

int
index_orphans(struct index *ix, int64_t before, uint64_t *ret_inos, size_t max)
{
	struct db *db = &ix->reader;
	sqlite3_stmt *q;
	int r;

	lock_take(&db->lock);
	r = db_query(db, &q, "SELECT ino FROM inode WHERE nlink=0 AND ctime<? LIMIT ?", "ii", before,
	    (int64_t)max);
	if (r == 0)
		r = read_inos(db, q, ret_inos, max);
	lock_drop(&db->lock);
	return r;
}

int
index_orphans_at(struct index *ix, int64_t ctime, uint64_t *ret_inos, size_t max)
{
	struct db *db = &ix->reader;
	sqlite3_stmt *q;
	int r;

	lock_take(&db->lock);
	r = db_query(db, &q, "SELECT ino FROM inode WHERE nlink=0 AND ctime=? LIMIT ?", "ii", ctime,
	    (int64_t)max);
	if (r == 0)
		r = read_inos(db, q, ret_inos, max);
	lock_drop(&db->lock);
	return r;
}

static int
reap_objects(struct db *db, uint64_t ino, int64_t now)
{
	int r;

	r = db_run(db, "INSERT INTO work(kind,id,since,due,attempts,stuck,error)"
	    " SELECT 3, id, ?, ?, 0, 0, '' FROM object WHERE ino=?"
	    " ON CONFLICT(kind,id) DO UPDATE SET due=excluded.due, stuck=0", "iii", now, now,
	    (int64_t)ino);
	if (r == 0)
		r = db_run(db, "UPDATE object SET status=3 WHERE ino=?", "i", (int64_t)ino);
	return r;
}

int
index_reap(struct index *ix, uint64_t ino)
{
	struct db *db = &ix->writer;
	int64_t now = clock_wall_ns(), id = (int64_t)ino;
	struct inode inode;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = inode_load(db, ino, &inode);
	if (r == 0 && inode.nlink != 0)
		r = -EBUSY;
	if (r == 0)
		r = reap_objects(db, ino, now);
	if (r == 0)
		r = db_run(db, "DELETE FROM xattr WHERE ino=?", "i", id);
	if (r == 0 && S_ISLNK(inode.mode))
		r = db_run(db, "DELETE FROM symlink WHERE ino=?", "i", id);
	if (r == 0)
		r = db_run(db, "DELETE FROM work WHERE id=? AND kind IN (1,2,4,6,7)", "i", id);
	/* What was derived from it goes by the processor's hand, when `rm -r` has had its turn. */
	if (r == 0)
		r = db_run(db, "INSERT INTO work(kind,id,since,due,attempts,stuck,error)"
		    " SELECT 6, ino, ?, ?, 0, 0, '' FROM derivation WHERE ino=?", "iii", now,
		    now + DERIVED_GO_NS, id);
	if (r == 0)
		r = db_run(db, "DELETE FROM inode WHERE ino=?", "i", id);
	if (r == 0 && (S_ISREG(inode.mode) || S_ISDIR(inode.mode)))
		r = work_add(db, WORK_FREE, ino, now);
	return db_end(ix, r);
}

void
index_ino_above(struct index *ix, uint64_t ino)
{
	if (atomic_load(&ix->next_ino) <= ino)
		atomic_store(&ix->next_ino, ino + 1);
}

int
index_restore(struct index *ix, const struct inode *inode, uint64_t parent, const char *name)
{
	struct db *db = &ix->writer;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = parent_check(db, parent);
	if (r == 0)
		r = dentry_insert(db, parent, name, inode->ino);
	if (r == 0)
		r = inode_insert(db, inode);
	if (r == 0)
		r = parent_touch(db, parent, S_ISDIR(inode->mode) ? 1 : 0, inode->ctime, true);
	return db_end(ix, r);
}
