/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What stat, open and permission checks ask for again and again is answered without a statement.
 *
 *   1. What is kept is the committed row, and nobody is changing it: SQLite tells of each row
 *      that a statement of the writer changes (sqlite3_update_hook), which takes it out.
 *   2. Epochs count the writer's transactions.  A slot remembers the one in which a row of it was
 *      changed last; what was read in that epoch or before may be older than the change, or
 *      undone with it, and isn't kept.
 *   3. A slot for each of the low bits of an inode's number: those that were made together don't
 *      push each other out, and it never grows.
 */
#include "index/rows.h"

#include "index/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_SLOTS = 32768 };

struct row_slot {
	uint64_t changed_in;		/* epoch */
	struct inode row;		/* ino 0: none */
};

struct rows {
	struct lock lock;		/* RANK_ROWS */
	uint64_t epoch;
	struct row_slot slots[ROW_SLOTS];
};

static void
row_changed(void *arg, int op, const char *database, const char *table, sqlite3_int64 ino)
{
	struct rows *rows = arg;
	struct row_slot *s = &rows->slots[(uint64_t)ino % ROW_SLOTS];

	(void)op;
	(void)database;
	if (strcmp(table, "inode") != 0)
		return;
	lock_take(&rows->lock);
	s->changed_in = rows->epoch;
	s->row.ino = 0;
	lock_drop(&rows->lock);
}

int
rows_new(struct index *ix)
{
	struct rows *rows = calloc(1, sizeof(*rows));

	if (rows == NULL)
		return -ENOMEM;
	lock_init(&rows->lock, RANK_ROWS);
	rows->epoch = 1;
	ix->rows = rows;
	(void)sqlite3_update_hook(ix->writer.handle, row_changed, rows);
	return 0;
}

void
rows_free(struct index *ix)
{
	if (ix->rows == NULL)
		return;
	(void)sqlite3_update_hook(ix->writer.handle, NULL, NULL);
	lock_release(&ix->rows->lock);
	free(ix->rows);
	ix->rows = NULL;
}

bool
rows_get(struct index *ix, uint64_t ino, struct inode *ret_inode, uint64_t *ret_epoch)
{
	struct rows *rows = ix->rows;
	const struct row_slot *s = &rows->slots[ino % ROW_SLOTS];
	bool found;

	lock_take(&rows->lock);
	found = ino != 0 && s->row.ino == ino;
	if (found)
		*ret_inode = s->row;
	*ret_epoch = rows->epoch;
	lock_drop(&rows->lock);
	return found;
}

uint64_t
rows_epoch(struct index *ix)
{
	uint64_t epoch;

	lock_take(&ix->rows->lock);
	epoch = ix->rows->epoch;
	lock_drop(&ix->rows->lock);
	return epoch;
}

void
rows_put(struct index *ix, const struct inode *inode, uint64_t epoch)
{
	struct rows *rows = ix->rows;
	struct row_slot *s = &rows->slots[inode->ino % ROW_SLOTS];

	lock_take(&rows->lock);
	if (s->changed_in < epoch)
		s->row = *inode;
	lock_drop(&rows->lock);
}

void
rows_settled(struct index *ix)
{
	lock_take(&ix->rows->lock);
	ix->rows->epoch++;
	lock_drop(&ix->rows->lock);
}
