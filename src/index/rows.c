/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What stat, open and permission checks ask for again and again is answered without a statement.
 *
 *   1. What is kept is the committed row, and nobody is changing it: SQLite tells of each row
 *      that a statement of the writer changes (sqlite3_preupdate_hook), which takes it out.
 *   2. What it is changed to waits until the transaction is committed, and is kept then.
 *   3. Epochs count the writer's transactions.  A slot remembers the one in which a row of it was
 *      changed last; what was read in that epoch or before may be older than the change, or
 *      undone with it, and isn't kept.
 *   4. A slot for each of the low bits of an inode's number: those that were made together don't
 *      push each other out, and it never grows.
 */
#define SQLITE_ENABLE_PREUPDATE_HOOK	/* as the library was built: configure looks */
#include "index/rows.h"

#include "index/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	ROW_SLOTS = 32768,
	ROWS_WAIT = 64,			/* more rows of one transaction are read again */
};

struct row_slot {
	uint64_t changed_in;		/* epoch */
	struct inode row;		/* ino 0: none */
};

struct rows {
	struct lock lock;		/* RANK_ROWS */
	uint64_t epoch;
	struct inode waiting[ROWS_WAIT];	/* as the open transaction leaves them */
	size_t waiting_count;
	struct row_slot slots[ROW_SLOTS];
};

static struct row_slot *
slot_of(struct rows *rows, uint64_t ino)
{
	return &rows->slots[ino % ROW_SLOTS];
}

static void
wait_for_commit(struct rows *rows, const struct inode *row)
{
	if (rows->waiting_count < ROWS_WAIT)
		rows->waiting[rows->waiting_count++] = *row;
}

static void
drop_waiting(struct rows *rows, uint64_t ino)
{
	size_t i;

	for (i = 0; i < rows->waiting_count; i++)
		if (rows->waiting[i].ino == ino)
			rows->waiting[i--] = rows->waiting[--rows->waiting_count];
}

/* What the statement makes of the row. */
static bool
new_row(sqlite3 *db, sqlite3_int64 ino, struct inode *ret_row)
{
	int64_t columns[INODE_COLUMN_COUNT] = { ino };
	sqlite3_value *value;
	int i;

	for (i = 1; i < INODE_COLUMN_COUNT; i++) {
		if (sqlite3_preupdate_new(db, i, &value) != SQLITE_OK)
			return false;
		columns[i] = sqlite3_value_int64(value);
	}
	inode_from(columns, ret_row);
	return true;
}

static void
row_changes(void *arg, sqlite3 *db, int op, const char *database, const char *table,
    sqlite3_int64 ino, sqlite3_int64 new_ino)
{
	struct rows *rows = arg;
	struct inode row;
	bool stays;

	(void)database;
	(void)new_ino;
	if (strcmp(table, "inode") != 0)
		return;
	stays = op != SQLITE_DELETE && new_row(db, new_ino, &row);
	lock_take(&rows->lock);
	slot_of(rows, (uint64_t)ino)->changed_in = rows->epoch;
	slot_of(rows, (uint64_t)ino)->row.ino = 0;
	drop_waiting(rows, (uint64_t)ino);
	if (stays)
		wait_for_commit(rows, &row);
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
	(void)sqlite3_preupdate_hook(ix->writer.handle, row_changes, rows);
	return 0;
}

void
rows_free(struct index *ix)
{
	if (ix->rows == NULL)
		return;
	(void)sqlite3_preupdate_hook(ix->writer.handle, NULL, NULL);
	lock_release(&ix->rows->lock);
	free(ix->rows);
	ix->rows = NULL;
}

bool
rows_get(struct index *ix, uint64_t ino, struct inode *ret_inode, uint64_t *ret_epoch)
{
	struct rows *rows = ix->rows;
	const struct row_slot *s = slot_of(rows, ino);
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
	struct row_slot *s = slot_of(rows, inode->ino);

	lock_take(&rows->lock);
	if (s->changed_in < epoch)
		s->row = *inode;
	lock_drop(&rows->lock);
}

void
rows_undone(struct index *ix)
{
	lock_take(&ix->rows->lock);
	ix->rows->waiting_count = 0;
	lock_drop(&ix->rows->lock);
}

void
rows_settled(struct index *ix, bool committed)
{
	struct rows *rows = ix->rows;
	size_t i;

	lock_take(&rows->lock);
	for (i = 0; committed && i < rows->waiting_count; i++)
		slot_of(rows, rows->waiting[i].ino)->row = rows->waiting[i];
	rows->waiting_count = 0;
	rows->epoch++;
	lock_drop(&rows->lock);
}
