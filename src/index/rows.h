/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_INDEX_ROWS_H
#define TBFS_INDEX_ROWS_H

/*
 * Inode rows in memory, as they are committed; private to src/index/.  Any thread, with or without
 * a connection's lock held.
 */
#include "index/db.h"

struct rows;
struct inode;

/* Follows what the writer changes from here on. */
int rows_new(struct index *ix);
void rows_free(struct index *ix);

/* false: it is to be read from the database, and may be put here with the epoch that is given: one
 * that was changed since then, or is being changed, isn't kept. */
bool rows_get(struct index *ix, uint64_t ino, struct inode *ret_inode, uint64_t *ret_epoch);
void rows_put(struct index *ix, const struct inode *inode, uint64_t epoch);
uint64_t rows_epoch(struct index *ix);
/* The writer's transaction has ended. */
void rows_settled(struct index *ix, bool committed);
/* Something in it was undone: nothing that it did so far is kept. */
void rows_undone(struct index *ix);

#endif
