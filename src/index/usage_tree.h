/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_INDEX_USAGE_TREE_H
#define TBFS_INDEX_USAGE_TREE_H

/* The counts of usage.h as they stand in memory: private to usage*.c. */
#include "index/usage.h"

enum { METER_SLOTS = 1024, DIR_SLOTS_MIN = 1024 };

struct usage_tree {
	struct lock lock;		/* RANK_USAGE: all of it */
	_Atomic bool lost;		/* to be counted anew */
	bool touched;			/* by the transaction that is open (writer.lock) */
	_Atomic unsigned limits;	/* directories that have one */
	struct usage_dir **dirs;
	size_t dir_slots, dir_count;
	struct usage_meter *meters[METER_SLOTS];
};

/* The directory, made when it is new; NULL without memory. */
struct usage_dir *usage_dir_get(struct usage_tree *t, uint64_t ino);
void usage_dir_drop(struct usage_tree *t, struct usage_dir *d);
void usage_clear(struct usage_tree *t);	/* but for the meters */
/* As usage_is_over(), but for what is at or above `other` too (NULL: nothing). */
bool usage_is_over_below(const struct usage_dir *at, const struct usage_dir *other, struct usage more);
/* Has one of the same a limit? */
bool usage_is_limited_below(const struct usage_dir *at, const struct usage_dir *other);

#endif
