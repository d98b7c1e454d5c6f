/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Reading the tree: listings, where an inode stands, its path, a symlink's target. */
#include "index/tree.h"

#include "base/cleanup.h"
#include "base/strbuf.h"

#include <errno.h>
#include <string.h>

int
index_readlink(struct index *ix, uint64_t ino, char **ret_target)
{
	struct db *db = db_read(ix);
	sqlite3_stmt *q;
	int r;

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
	db_read_done(db);
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

		name_read(q, 1, name);
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

int
place_load(struct db *db, uint64_t ino, uint64_t *ret_parent, char *ret_name)
{
	sqlite3_stmt *q;
	int r = db_row(db, &q, "SELECT parent, name FROM dentry WHERE ino=? ORDER BY id LIMIT 1", "i",
	    (int64_t)ino);

	if (r < 0)
		return r;
	*ret_parent = (uint64_t)sqlite3_column_int64(q, 0);
	name_read(q, 1, ret_name);
	db_done(q);
	return 0;
}

static void
turn(char *text, size_t len)
{
	size_t i;

	for (i = 0; i < len / 2; i++) {
		char c = text[i];

		text[i] = text[len - 1 - i];
		text[len - 1 - i] = c;
	}
}

int
path_load(struct db *db, uint64_t ino, char **ret_path)
{
	CLEANUP_STRBUF struct strbuf path = STRBUF_INIT;
	char name[INDEX_NAME_MAX + 1];
	int depth, r;

	/* From its end to its beginning, each name backwards: so it is turned once. */
	for (depth = 0; ino != INDEX_ROOT; depth++) {
		r = depth < TREE_DEPTH_MAX ? place_load(db, ino, &ino, name) : -ELOOP;
		if (r < 0)
			return r;
		if (depth > 0)
			strbuf_addch(&path, '/');
		turn(name, strlen(name));
		strbuf_addstr(&path, name);
	}
	strbuf_add(&path, "", 0);
	if (!strbuf_ok(&path))
		return -ENOMEM;
	turn(path.data, path.len);
	*ret_path = TAKE_PTR(path.data);
	return 0;
}

int
index_place(struct index *ix, uint64_t ino, uint64_t *ret_parent, char *ret_name)
{
	struct db *db = db_read(ix);
	int r = place_load(db, ino, ret_parent, ret_name);

	db_read_done(db);
	return r;
}

int
index_path(struct index *ix, uint64_t ino, char **ret_path)
{
	struct db *db = db_read(ix);
	int r = path_load(db, ino, ret_path);

	db_read_done(db);
	return r;
}

int
index_parent(struct index *ix, uint64_t dir, uint64_t *ret_parent)
{
	int64_t parent = INDEX_ROOT;
	int r = 0;

	if (dir != INDEX_ROOT) {
		struct db *db = db_read(ix);

		r = db_int(db, &parent, "SELECT parent FROM dentry WHERE ino=?", "i", (int64_t)dir);
		db_read_done(db);
	}
	if (r == 0)
		*ret_parent = (uint64_t)parent;
	return r;
}
