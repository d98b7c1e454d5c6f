/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_INDEX_TREE_H
#define TBFS_INDEX_TREE_H

/*
 * Pieces of the transactions that change names; private to src/index/.  All run inside one of
 * the writer, and return 0 or -errno.
 */
#include "index/db.h"
#include "index/index.h"

enum { TREE_DEPTH_MAX = 65536 };	/* directories; a longer walk is taken for a damaged tree: deeper is not stored */

int inode_insert(struct db *db, const struct inode *i);
/* A name of `inode` went: one link less, and for a directory none at all. */
int inode_unlinked(struct db *db, struct inode *inode, int64_t now);

/* The inode that has this name. */
int dentry_find(struct db *db, uint64_t parent, const char *name, struct inode *ret_inode);
/* `id` is a number from sequence_next() that no other dentry has: an inode's first name takes
 * the inode's own. */
int dentry_insert(struct db *db, uint64_t parent, const char *name, uint64_t id, uint64_t ino);
/* Let the name stand for another inode; it keeps its id. */
int dentry_point(struct db *db, uint64_t parent, const char *name, uint64_t ino);
int dentry_delete(struct db *db, uint64_t parent, const char *name);
/* Where an inode stands, by its oldest name. */
int place_load(struct db *db, uint64_t ino, uint64_t *ret_parent, char *ret_name);

/* Is it a directory that takes entries?  Its row. */
int parent_check(struct db *db, uint64_t parent, struct inode *ret_dir);
/* The directory gained or lost an entry; `links`: by how much its nlink moves. */
int parent_touch(struct db *db, uint64_t parent, int links, int64_t now, bool derived);
/* `inode` as it was counted in directory `from` and now is in `to` (0: nowhere). */
void counted(struct db *db, const struct inode *inode, uint64_t from, uint64_t to);
/* A directory that is to go must be empty, or becomes so. */
int empty_dir(struct db *db, const struct inode *dir, enum index_rmdir_how how, int64_t now);

#endif
