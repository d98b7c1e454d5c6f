/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_INDEX_USAGE_H
#define TBFS_INDEX_USAGE_H

/*
 * How many files, and bytes, are at and below each directory; private to src/index/.
 *
 * A transaction that changes names or sizes says so: the functions that take a struct db.  None
 * of them fails; what they can't keep up with, and a transaction that fails afterwards, has it
 * counted anew before anybody asks.
 */
#include "index/db.h"
#include "index/index.h"

struct usage_tree;

/* A directory that users see. */
struct usage_dir {
	uint64_t ino;
	struct usage_dir *parent;	/* NULL: the root */
	struct usage_dir *next;		/* same slot */
	struct usage total;		/* at and below it */
	struct usage limit;		/* of each 0: none */
};

/* An inode whose size is charged before its row has it. */
struct usage_meter {
	uint64_t ino, dir;		/* where it counts; 0: nowhere (any more) */
	struct usage_meter *next;	/* same slot */
	int64_t size;			/* what counts instead of the row's */
	unsigned users;
};

/* Count what the database holds, and follow it from now on. */
int usage_start(struct index *ix);
void usage_stop(struct index *ix);
/* The tree no longer follows the database: count anew before it is asked again. */
void usage_forget(struct index *ix);
/* Do so if that is needed.  Writer locked, between transactions. */
void usage_refresh(struct index *ix);

/* ---- in a transaction ---- */

/* It ended; by db_end(). */
void usage_ended(struct index *ix, bool failed);

/* Where an inode counts: in `named` (0: not known) when that is where its only name stands.
 * 0: nowhere. */
uint64_t usage_place(struct db *db, const struct inode *inode, uint64_t named);
/* `inode` counted in directory `from` and now counts in `to`. */
void usage_moved(struct db *db, const struct inode *inode, uint64_t from, uint64_t to);
/* The size of the row will be this. */
void usage_resized(struct db *db, const struct inode *inode, uint64_t size);
void usage_dir_moved(struct db *db, uint64_t dir, uint64_t parent);	/* also a new one; 0: it lost its name */
void usage_dir_gone(struct db *db, uint64_t dir);		/* so did its row */
/* All below `dir` became derived, or is no longer. */
void usage_flipped(struct db *db, uint64_t dir);
/* What would count if nothing below `dir` were derived. */
struct usage usage_if_counted(struct db *db, uint64_t dir);
/* What counts where `inode` stands: of a directory, all that is below. */
struct usage usage_of(struct db *db, const struct inode *inode);
/* 0, or -EDQUOT: so much more in directory `to` would be over a limit.  Where it comes from
 * `from` it is no more to the directories above both; 0: from nowhere. */
int usage_fits(struct db *db, uint64_t from, uint64_t to, struct usage more);
/* Is what counts in one of these directories under the same limits in the other? */
bool usage_same_limits(struct db *db, uint64_t a, uint64_t b);

/* ---- the tree itself, for quota.c ---- */

/* Counted and locked (RANK_USAGE); NULL: it can't be counted. */
struct usage_tree *usage_lock(struct index *ix);
void usage_lock_tree(struct usage_tree *t);	/* as it is: for who has the writer locked */
void usage_unlock(struct usage_tree *t);
struct usage_dir *usage_find(const struct usage_tree *t, uint64_t dir);
void usage_each(const struct usage_tree *t, void (*fn)(void *arg, struct usage_dir *d), void *arg);
void usage_add(struct usage_dir *at, struct usage more);
/* Would so much more be over a limit of `at` or of a directory above? */
bool usage_is_over(const struct usage_dir *at, struct usage more);
/* How many directories have a limit; without a lock. */
unsigned usage_limits(const struct index *ix);
void usage_limit(struct usage_tree *t, struct usage_dir *d, struct usage limit);
struct usage_meter *usage_meter(const struct usage_tree *t, uint64_t ino);
struct usage_meter *usage_meter_new(struct usage_tree *t, uint64_t ino);
void usage_meter_free(struct usage_tree *t, struct usage_meter *m);

#endif
