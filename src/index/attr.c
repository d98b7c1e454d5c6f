/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Attributes and extended attributes of an inode. */
#include "index/db.h"
#include "index/index.h"

#include <errno.h>
#include <string.h>

int
index_set_attr(struct index *ix, uint64_t ino, unsigned mask, const struct inode *to,
    struct inode *ret_inode)
{
	struct db *db = &ix->writer;
	struct inode i;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = inode_load(db, ino, &i);
	if (r == 0) {
		i.mode = (mask & ATTR_MODE) != 0 ? (i.mode & ~07777u) | (to->mode & 07777u) : i.mode;
		i.uid = (mask & ATTR_UID) != 0 ? to->uid : i.uid;
		i.gid = (mask & ATTR_GID) != 0 ? to->gid : i.gid;
		i.atime = (mask & ATTR_ATIME) != 0 ? to->atime : i.atime;
		i.mtime = (mask & ATTR_MTIME) != 0 ? to->mtime : i.mtime;
		i.ctime = (mask & ATTR_CTIME) != 0 ? to->ctime : i.ctime;
		/* While the staged file owns the time, it was set there as well. */
		if ((mask & ATTR_MTIME) != 0 && i.state == OBJECT_OPEN)
			i.staged_mtime = to->mtime;
		r = db_run(db, "UPDATE inode SET mode=?, uid=?, gid=?, atime=?, mtime=?, ctime=?,"
		    " staged_mtime=? WHERE ino=?", "iiiiiiii", (int64_t)i.mode, (int64_t)i.uid, (int64_t)i.gid,
		    i.atime, i.mtime, i.ctime, i.staged_mtime, (int64_t)ino);
	}
	r = db_end(ix, r);
	if (r == 0)
		*ret_inode = i;
	return r;
}

/* `flag`: INODE_XATTRS, or 0. */
static int
touched(struct db *db, uint64_t ino, int64_t now, unsigned flag)
{
	int r = db_change(db, "UPDATE inode SET ctime=?, flags=flags|? WHERE ino=?", "iii", now, (int64_t)flag,
	    (int64_t)ino);

	return r < 0 ? r : r == 0 ? -ENOENT : 0;
}

/* Most inodes never had any: their row says so. */
static bool
has_none(struct index *ix, uint64_t ino)
{
	struct inode row;

	return index_get(ix, ino, &row) == 0 && (row.flags & INODE_XATTRS) == 0;
}

/* More names than a listing can hold could never be listed, nor copied. */
static int
name_fits(struct db *db, uint64_t ino, const char *name)
{
	int64_t others = 0;
	int r = db_int(db, &others, "SELECT total(length(CAST(name AS BLOB)) + 1) FROM xattr WHERE ino=?", "i",
	    (int64_t)ino);

	return r < 0 ? r : others + (int64_t)strlen(name) + 1 > INDEX_XATTR_LIST_MAX ? -ENOSPC : 0;
}

/* What has the inode of this name? */
enum { HAS_NO_XATTRS, HAS_OTHERS, HAS_ANOTHER_VALUE, HAS_THIS_VALUE };

static int
compare(struct db *db, uint64_t ino, const char *name, const void *value, size_t len)
{
	sqlite3_stmt *q;
	struct inode i;
	bool same;
	int r = inode_load(db, ino, &i);

	if (r < 0 || (i.flags & INODE_XATTRS) == 0)
		return r < 0 ? r : HAS_NO_XATTRS;
	r = db_row(db, &q, "SELECT value FROM xattr WHERE ino=? AND name=?", "is", (int64_t)ino, name);
	if (r < 0)
		return r == -ENOENT ? HAS_OTHERS : r;
	same = (size_t)sqlite3_column_bytes(q, 0) == len &&
	    (len == 0 || memcmp(sqlite3_column_blob(q, 0), value, len) == 0);
	db_done(q);
	return same ? HAS_THIS_VALUE : HAS_ANOTHER_VALUE;
}

int
index_xattr_set(struct index *ix, uint64_t ino, const char *name, const void *value, size_t len,
    unsigned flags, int64_t now)
{
	struct db *db = &ix->writer;
	int r = db_begin_growing(ix), has;

	if (r < 0)
		return r;
	has = compare(db, ino, name, value, len);
	if (has < 0)
		r = has;
	else if (has >= HAS_ANOTHER_VALUE && (flags & INDEX_XATTR_CREATE) != 0)
		r = -EEXIST;
	else if (has < HAS_ANOTHER_VALUE && (flags & INDEX_XATTR_REPLACE) != 0)
		r = -ENODATA;
	else if (has == HAS_OTHERS)
		r = name_fits(db, ino, name);
	/* What it has already moves no time, as on ext4. */
	if (r < 0 || has == HAS_THIS_VALUE)
		return db_end(ix, r);
	r = touched(db, ino, now, INODE_XATTRS);
	if (r == 0)
		r = db_run(db, "INSERT INTO xattr VALUES(?,?,?) ON CONFLICT(ino,name)"
		    " DO UPDATE SET value=excluded.value", "isb", (int64_t)ino, name,
		    len > 0 ? value : "", (int)len);
	return db_end(ix, r);
}

ssize_t
index_xattr_get(struct index *ix, uint64_t ino, const char *name, void *buf, size_t room)
{
	struct db *db;
	sqlite3_stmt *q;
	ssize_t len;
	int r;

	if (has_none(ix, ino))
		return -ENODATA;
	db = db_read(ix);
	r = db_query(db, &q, "SELECT value FROM xattr WHERE ino=? AND name=?", "is", (int64_t)ino, name);
	if (r == 0)
		r = db_step(db, q);
	len = r == 0 ? -ENODATA : r;
	if (r == 1) {
		len = sqlite3_column_bytes(q, 0);
		if (room > 0 && (size_t)len > room)
			len = -ERANGE;
		else if (room > 0 && len > 0)
			memcpy(buf, sqlite3_column_blob(q, 0), (size_t)len);
		db_done(q);
	}
	db_read_done(db);
	return len;
}

ssize_t
index_xattr_list(struct index *ix, uint64_t ino, char *buf, size_t room)
{
	struct db *db;
	sqlite3_stmt *q;
	size_t len = 0;
	int r;

	if (has_none(ix, ino))
		return 0;
	db = db_read(ix);
	r = db_query(db, &q, "SELECT name FROM xattr WHERE ino=?", "i", (int64_t)ino);
	while (r == 0 && (r = db_step(db, q)) == 1) {
		size_t n = (size_t)sqlite3_column_bytes(q, 0) + 1;

		r = 0;
		if (room > 0 && len + n > room) {
			db_done(q);
			r = -ERANGE;
			break;
		}
		if (room > 0)
			memcpy(buf + len, sqlite3_column_text(q, 0), n);
		len += n;
	}
	db_read_done(db);
	return r < 0 ? r : (ssize_t)len;
}

int
index_xattr_remove(struct index *ix, uint64_t ino, const char *name, int64_t now)
{
	struct db *db = &ix->writer;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = db_change(db, "DELETE FROM xattr WHERE ino=? AND name=?", "is", (int64_t)ino, name);
	if (r == 0)
		r = -ENODATA;
	if (r > 0)
		r = touched(db, ino, now, 0);
	return db_end(ix, r);
}
