/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Names: directories and what stands in them.
 *
 *   1. nlink of a file is the number of its dentries; of a directory 2 + its
 *      subdirectories.  A directory that was removed has nlink 0 and takes no entries.
 *   2. A dentry keeps its id through a rename within one directory, so that a reader
 *      sees it once; ids rise and are never used again (the sequence of inode numbers).
 *   3. A change of names moves mtime and ctime of the directories concerned, and the
 *      ctime of the inode, except when the entry is derived.
 */
#include "index/rows.h"
#include "index/tree.h"
#include "index/usage.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

void
inode_from(const int64_t *columns, struct inode *ret_inode)
{
	*ret_inode = (struct inode){
		.ino = (uint64_t)columns[0], .mode = (uint32_t)columns[1], .nlink = (uint32_t)columns[2],
		.uid = (uint32_t)columns[3], .gid = (uint32_t)columns[4], .rdev = (uint64_t)columns[5],
		.size = (uint64_t)columns[6], .atime = columns[7], .mtime = columns[8],
		.ctime = columns[9], .btime = columns[10], .flags = (uint32_t)columns[11],
		.state = (enum object_state)columns[12], .generation = (uint64_t)columns[13],
		.synced_generation = (uint64_t)columns[14], .staged_mtime = columns[15],
		.object = (uint64_t)columns[16],
	};
}

void
inode_read(sqlite3_stmt *q, int at, struct inode *ret_inode)
{
	int64_t columns[INODE_COLUMN_COUNT];
	int i;

	for (i = 0; i < INODE_COLUMN_COUNT; i++)
		columns[i] = sqlite3_column_int64(q, at + i);
	inode_from(columns, ret_inode);
}

void
name_read(sqlite3_stmt *q, int at, char *ret_name)
{
	size_t len = (size_t)sqlite3_column_bytes(q, at);

	if (len > INDEX_NAME_MAX)
		len = INDEX_NAME_MAX;
	memcpy(ret_name, sqlite3_column_blob(q, at), len);
	ret_name[len] = '\0';
}

int
inode_load(struct db *db, uint64_t ino, struct inode *ret_inode)
{
	struct index *ix = db->owner;
	sqlite3_stmt *q;
	uint64_t epoch;
	int r;

	if (rows_get(ix, ino, ret_inode, &epoch))
		return 0;
	r = db_row(db, &q, "SELECT " INODE_COLUMNS " FROM inode i WHERE i.ino=?", "i", (int64_t)ino);
	if (r < 0)
		return r;
	inode_read(q, 0, ret_inode);
	db_done(q);
	rows_put(ix, ret_inode, epoch);
	return 0;
}

int
index_get(struct index *ix, uint64_t ino, struct inode *ret_inode)
{
	struct db *db;
	uint64_t epoch;
	int r;

	if (rows_get(ix, ino, ret_inode, &epoch))
		return 0;
	db = db_read(ix);
	r = inode_load(db, ino, ret_inode);
	db_read_done(db);
	return r;
}

int
dentry_find(struct db *db, uint64_t parent, const char *name, struct inode *ret_inode)
{
	uint64_t epoch = rows_epoch(db->owner);
	sqlite3_stmt *q;
	int r = db_row(db, &q, "SELECT " INODE_COLUMNS " FROM dentry d JOIN inode i ON i.ino=d.ino"
	    " WHERE d.parent=? AND d.name=?", "ib", (int64_t)parent, name, (int)strlen(name));

	if (r < 0)
		return r;
	inode_read(q, 0, ret_inode);
	db_done(q);
	rows_put(db->owner, ret_inode, epoch);
	return 0;
}

int
index_lookup(struct index *ix, uint64_t parent, const char *name, struct inode *ret_inode)
{
	struct db *db = db_read(ix);
	int r = dentry_find(db, parent, name, ret_inode);

	db_read_done(db);
	return r;
}

/* ---- pieces of transactions ---- */

int
inode_insert(struct db *db, const struct inode *i)
{
	return db_run(db, "INSERT INTO inode VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
	    "iiiiiiiiiiiiiiiii", (int64_t)i->ino, (int64_t)i->mode, (int64_t)i->nlink, (int64_t)i->uid,
	    (int64_t)i->gid, (int64_t)i->rdev, (int64_t)i->size, i->atime, i->mtime, i->ctime, i->btime,
	    (int64_t)i->flags, (int64_t)i->state, (int64_t)i->generation,
	    (int64_t)i->synced_generation, i->staged_mtime, (int64_t)i->object);
}

int
dentry_insert(struct db *db, uint64_t parent, const char *name, uint64_t id, uint64_t ino)
{
	return db_run(db, "INSERT INTO dentry VALUES(?,?,?,?)", "iibi", (int64_t)parent, (int64_t)id, name,
	    (int)strlen(name), (int64_t)ino);
}

int
dentry_point(struct db *db, uint64_t parent, const char *name, uint64_t ino)
{
	return db_run(db, "UPDATE dentry SET ino=? WHERE parent=? AND name=?", "iib", (int64_t)ino,
	    (int64_t)parent, name, (int)strlen(name));
}

int
dentry_delete(struct db *db, uint64_t parent, const char *name)
{
	return db_run(db, "DELETE FROM dentry WHERE parent=? AND name=?", "ib", (int64_t)parent, name,
	    (int)strlen(name));
}

int
parent_touch(struct db *db, uint64_t parent, int links, int64_t now, bool derived)
{
	if (derived)
		return links == 0 ? 0 : db_run(db, "UPDATE inode SET nlink=nlink+? WHERE ino=?", "ii",
		    (int64_t)links, (int64_t)parent);
	return db_run(db, "UPDATE inode SET nlink=nlink+?, mtime=?, ctime=? WHERE ino=?", "iiii",
	    (int64_t)links, now, now, (int64_t)parent);
}

int
parent_check(struct db *db, uint64_t parent, struct inode *ret_dir)
{
	int r = inode_load(db, parent, ret_dir);

	if (r < 0)
		return r;
	if (!S_ISDIR(ret_dir->mode))
		return -ENOTDIR;
	return ret_dir->nlink == 0 ? -ENOENT : 0;
}

int
inode_unlinked(struct db *db, struct inode *inode, int64_t now)
{
	inode->nlink = S_ISDIR(inode->mode) ? 0 : inode->nlink - 1;
	inode->ctime = now;
	return db_run(db, "UPDATE inode SET nlink=?, ctime=? WHERE ino=?", "iii",
	    (int64_t)inode->nlink, now, (int64_t)inode->ino);
}

void
counted(struct db *db, const struct inode *inode, uint64_t from, uint64_t to)
{
	if (S_ISDIR(inode->mode))
		usage_dir_moved(db, inode->ino, to);
	else
		usage_moved(db, inode, from, to);
}

/* ---- create, link ---- */

int
index_create(struct index *ix, uint64_t parent, const char *name, const struct inode *tmpl,
    const char *target, struct inode *ret_inode)
{
	struct db *db = &ix->writer;
	struct inode new = *tmpl, parent_row;
	bool dir = S_ISDIR(tmpl->mode);
	int r;

	r = sequence_next(ix, &new.ino);
	if (r < 0)
		return r;
	new.nlink = dir ? 2 : 1;
	r = db_begin_growing(ix);
	if (r < 0)
		return r;
	r = parent_check(db, parent, &parent_row);
	/* What stands in a directory of derived files is derived. */
	if (r == 0)
		new.flags |= parent_row.flags & INODE_DERIVED;
	if (r == 0)
		r = dentry_insert(db, parent, name, new.ino, new.ino);
	/* A name that is taken is that before it is one too many. */
	if (r == 0)
		r = usage_fits(db, 0, parent, usage_of(db, &new));
	if (r == 0)
		r = inode_insert(db, &new);
	if (r == 0 && target != NULL)
		r = db_run(db, "INSERT INTO symlink VALUES(?,?)", "ib", (int64_t)new.ino, target,
		    (int)strlen(target));
	if (r == 0)
		r = parent_touch(db, parent, dir ? 1 : 0, new.ctime, (new.flags & INODE_DERIVED) != 0);
	if (r == 0)
		counted(db, &new, 0, parent);
	r = db_end(ix, r);
	if (r == 0)
		*ret_inode = new;
	return r;
}

int
index_create_unnamed(struct index *ix, const struct inode *tmpl, struct inode *ret_inode)
{
	struct inode new = *tmpl;
	int r = sequence_next(ix, &new.ino);

	if (r < 0)
		return r;
	new.nlink = 0;
	r = db_begin_growing(ix);
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
	struct inode inode, dir;
	uint64_t id;
	int r = sequence_next(ix, &id);

	if (r == 0)
		r = db_begin_growing(ix);
	if (r < 0)
		return r;
	r = parent_check(db, parent, &dir);
	if (r == 0)
		r = inode_load(db, ino, &inode);
	if (r == 0 && inode.nlink >= 65000)
		r = -EMLINK;
	/* All names of a file are under the same limits, as with the project quotas of ext4: whichever
	 * goes, what counts stays. */
	if (r == 0 && inode.nlink > 0 && usage_limits(ix) > 0 &&
	    !usage_same_limits(db, usage_place(db, &inode, 0), parent))
		r = -EXDEV;
	if (r == 0)
		r = dentry_insert(db, parent, name, id, ino);
	/* Another name of what has one counts nowhere; one that was unnamed begins to. */
	if (r == 0 && inode.nlink == 0)
		r = usage_fits(db, 0, parent, usage_of(db, &inode));
	if (r == 0)
		r = db_run(db, "UPDATE inode SET nlink=nlink+1, ctime=? WHERE ino=?", "ii", now,
		    (int64_t)ino);
	if (r == 0)
		r = parent_touch(db, parent, 0, now, false);
	if (r == 0 && inode.nlink == 0)
		counted(db, &inode, 0, parent);
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
	struct inode gone = { 0 }, dir;
	struct db *db = &ix->writer;
	int r = db_begin_growing(ix);

	if (r < 0)
		return r;
	r = parent_check(db, parent, &dir);
	if (r < 0)
		return db_end(ix, r);
	r = dentry_find(db, parent, name, &gone);
	/* What a user made there is his. */
	if (r == 0 && (gone.flags & INODE_DERIVED) == 0)
		r = -EEXIST;
	if (r == 0 && S_ISDIR(gone.mode))
		r = -EISDIR;
	if (r == 0)
		r = inode_unlinked(db, &gone, gone.ctime);
	if (r == 0)
		r = dentry_point(db, parent, name, ino);
	else if (r == -ENOENT)
		r = dentry_insert(db, parent, name, ino, ino);
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

/* 0, or -ENOTEMPTY: something below doesn't have this flag. */
static int
only_with(struct db *db, uint64_t dir, enum inode_flags flag)
{
	int64_t one;
	int r = db_int(db, &one, TREE_BELOW "SELECT 1 FROM tree t JOIN inode i ON i.ino=t.ino"
	    " WHERE (i.flags & ?2)=0 AND i.ino<>?1 LIMIT 1", "ii", (int64_t)dir, (int64_t)flag);

	return r == 0 ? -ENOTEMPTY : r == -ENOENT ? 0 : r;
}

/* -ENOENT: the directory is empty. */
static int
first_entry(struct db *db, uint64_t dir, char *ret_name, struct inode *ret_inode)
{
	sqlite3_stmt *q;
	int r = db_row(db, &q, "SELECT d.name," INODE_COLUMNS " FROM dentry d"
	    " JOIN inode i ON i.ino=d.ino WHERE d.parent=? LIMIT 1", "i", (int64_t)dir);

	if (r < 0)
		return r;
	name_read(q, 0, ret_name);
	inode_read(q, 1, ret_inode);
	db_done(q);
	return 0;
}

/* Remove everything below a directory, which may be deep.  The rows stay with nlink 0 until they
 * are reaped. */
static int
remove_derived(struct db *db, uint64_t top, int64_t now)
{
	char name[INDEX_NAME_MAX + 1];
	uint64_t dir = top;
	struct inode gone;
	int depth = 0, r = 0;

	while (r == 0) {
		r = first_entry(db, dir, name, &gone);
		if (r == 0 && S_ISDIR(gone.mode)) {
			dir = gone.ino;
			r = ++depth > TREE_DEPTH_MAX ? -ELOOP : 0;
			continue;
		}
		if (r == -ENOENT && dir == top)
			return 0;
		if (r == -ENOENT) {	/* empty by now: it goes itself */
			r = --depth < 0 ? -ELOOP : inode_load(db, dir, &gone);
			if (r == 0)
				r = place_load(db, dir, &dir, name);
		}
		if (r == 0)
			r = dentry_delete(db, dir, name);
		if (r == 0)
			r = inode_unlinked(db, &gone, now);
		if (r == 0)
			counted(db, &gone, dir, 0);
		if (r == 0 && !S_ISDIR(gone.mode) && gone.nlink == 0 && db->owner->taken_along != NULL)
			db->owner->taken_along(db->owner->taken_along_arg, dir, name, gone.ino);
	}
	return r;
}

void
index_on_taken_along(struct index *ix, void (*fn)(void *arg, uint64_t parent, const char *name, uint64_t ino),
    void *arg)
{
	ix->taken_along = fn;
	ix->taken_along_arg = arg;
}

int
empty_dir(struct db *db, const struct inode *dir, enum index_rmdir_how how, int64_t now)
{
	bool derived = (dir->flags & INODE_DERIVED) != 0;
	int64_t one;
	int r;

	if (how != INDEX_RMDIR_EMPTY) {
		r = only_with(db, dir->ino, derived && how == INDEX_RMDIR_USER ? INODE_MADE : INODE_DERIVED);
		return r == 0 ? remove_derived(db, dir->ino, now) : r;
	}
	r = db_int(db, &one, "SELECT 1 FROM dentry WHERE parent=? LIMIT 1", "i", (int64_t)dir->ino);
	return r == 0 ? -ENOTEMPTY : r == -ENOENT ? 0 : r;
}

int
index_unlink(struct index *ix, uint64_t parent, const char *name, int64_t now,
    struct inode *ret_inode)
{
	struct db *db = &ix->writer;
	struct inode inode;
	uint64_t counted_in = 0;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = dentry_find(db, parent, name, &inode);
	if (r == 0 && S_ISDIR(inode.mode))
		r = -EISDIR;
	if (r == 0) {
		counted_in = usage_place(db, &inode, parent);
		r = dentry_delete(db, parent, name);
	}
	if (r == 0)
		r = inode_unlinked(db, &inode, now);
	/* It lives on under another name: so must its object. */
	if (r == 0 && inode.nlink > 0 && inode.object != 0)
		r = work_add(db, WORK_RELOCATE, inode.ino, now);
	if (r == 0)
		r = parent_touch(db, parent, 0, now, (inode.flags & INODE_DERIVED) != 0);
	if (r == 0)
		counted(db, &inode, counted_in, usage_place(db, &inode, 0));
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
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = dentry_find(db, parent, name, &inode);
	if (r == 0 && !S_ISDIR(inode.mode))
		r = -ENOTDIR;
	if (r == 0)
		r = empty_dir(db, &inode, how, now);
	if (r == 0)
		r = dentry_delete(db, parent, name);
	if (r == 0)
		r = inode_unlinked(db, &inode, now);
	if (r == 0)
		r = parent_touch(db, parent, -1, now, (inode.flags & INODE_DERIVED) != 0);
	if (r == 0)
		counted(db, &inode, parent, 0);
	r = db_end(ix, r);
	if (r == 0)
		*ret_inode = inode;
	return r;
}
