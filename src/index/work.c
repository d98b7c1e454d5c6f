/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The durable queue.  A row says that something is to be done; it goes with the
 * transaction that did it.  Who is doing what at this moment is not written here:
 * that is for the syncer and the processor to know, and forgotten when they die.
 */
#include "index/db.h"

#include "base/clock.h"
#include "index/index.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int
work_add(struct db *db, int kind, uint64_t id, int64_t due)
{
	return db_run(db, "INSERT INTO work(kind,id,since,due,attempts,stuck,error)"
	    " VALUES(?,?,?,?,0,0,'') ON CONFLICT(kind,id) DO UPDATE SET"
	    " due=min(due,excluded.due), stuck=0", "iiii", (int64_t)kind, (int64_t)id,
	    clock_wall_ns(), due);
}

int
work_quiet(struct db *db, uint64_t ino, const struct quiet *quiet, bool add)
{
	if (add)
		return db_run(db, "INSERT INTO work(kind,id,since,due,attempts,stuck,error)"
		    " VALUES(1,?,?,?,0,0,'') ON CONFLICT(kind,id) DO UPDATE SET stuck=0, attempts=0, wait=0,"
		    " error='', due=max(excluded.since, min(excluded.due, since+?))", "iiii", (int64_t)ino,
		    quiet->now, quiet->due, quiet->limit);
	return db_run(db, "UPDATE work SET due=max(?, min(?, since+?)) WHERE kind=1 AND id=?", "iiii",
	    quiet->now, quiet->due, quiet->limit, (int64_t)ino);
}

int
upload_keep(struct db *db, uint64_t ino, int64_t due)
{
	return db_run(db, "INSERT INTO work(kind,id,since,due,attempts,stuck,error)"
	    " VALUES(1,?,?,?,0,0,'') ON CONFLICT(kind,id) DO NOTHING", "iii", (int64_t)ino, due, due);
}

int
work_done(struct db *db, int kind, uint64_t id)
{
	return db_run(db, "DELETE FROM work WHERE kind=? AND id=?", "ii", (int64_t)kind, (int64_t)id);
}

/* Whoever thinks that a file needs no upload may be late: it was opened again since. */
int
index_upload_needless(struct index *ix, uint64_t ino)
{
	return db_once(ix, "DELETE FROM work WHERE kind=1 AND id=?1 AND NOT EXISTS"
	    " (SELECT 1 FROM inode WHERE ino=?1 AND state IN (1,2) AND nlink>0)", "i", (int64_t)ino);
}

/* Every file that isn't stored has its work row. */
int
index_upload_all(struct index *ix)
{
	int64_t now = clock_wall_ns();

	return db_once(ix, "INSERT OR IGNORE INTO work(kind,id,since,due,attempts,"
	    "stuck,error) SELECT 1, ino, ?, ?, 0, 0, '' FROM inode WHERE state IN (1,2) AND nlink>0",
	    "ii", now, now);
}

int
index_work_add(struct index *ix, enum work_kind kind, uint64_t id, int64_t due)
{
	int r = db_begin(ix);

	return r < 0 ? r : db_end(ix, work_add(&ix->writer, (int)kind, id, due));
}

int
index_work_done(struct index *ix, enum work_kind kind, uint64_t id)
{
	int r = db_begin(ix);

	return r < 0 ? r : db_end(ix, work_done(&ix->writer, (int)kind, id));
}

int
index_work_done_many(struct index *ix, const struct work *work, size_t n)
{
	size_t i;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	for (i = 0; i < n && r == 0; i++)
		r = work_done(&ix->writer, (int)work[i].kind, work[i].id);
	return db_end(ix, r);
}

int
index_work_defer(struct index *ix, enum work_kind kind, uint64_t id, int64_t due,
    enum work_wait wait)
{
	return db_once(ix, "UPDATE work SET due=?, wait=?, error='', attempts=attempts+?"
	    " WHERE kind=? AND id=?", "iiiii", due, (int64_t)wait, (int64_t)(wait == WAIT_KEY),
	    (int64_t)kind, (int64_t)id);
}

int
index_work_failed(struct index *ix, enum work_kind kind, uint64_t id, int64_t due, bool stuck,
    const char *error)
{
	return db_once(ix, "UPDATE work SET due=?, stuck=?, error=?,"
	    " wait=0, attempts=attempts+1 WHERE kind=? AND id=?", "iisii", due, (int64_t)stuck, error,
	    (int64_t)kind, (int64_t)id);
}

int
index_work_retry(struct index *ix, enum work_kind kind, uint64_t dir)
{
	struct db *db = &ix->writer;
	int64_t now = clock_wall_ns();
	int r = db_begin(ix);

	if (r < 0)
		return r;
	if (dir == INDEX_ROOT)
		r = db_change(db, "UPDATE work SET due=?, stuck=0, wait=0, attempts=0, error='' WHERE kind=?"
		    " AND (stuck<>0 OR attempts>0)", "ii", now, (int64_t)kind);
	else
		r = db_change(db, TREE_BELOW "UPDATE work SET due=?2, stuck=0, wait=0, attempts=0, error='' WHERE kind=?3"
		    " AND (stuck<>0 OR attempts>0) AND id IN (SELECT ino FROM tree)", "iii", (int64_t)dir, now,
		    (int64_t)kind);
	return db_end(ix, r);
}

#define WORK_COLUMNS "kind,id,since,due,attempts,stuck,error,wait"

static void
work_read(sqlite3_stmt *q, struct work *ret_work)
{
	*ret_work = (struct work){
		.kind = (enum work_kind)sqlite3_column_int(q, 0),
		.id = (uint64_t)sqlite3_column_int64(q, 1),
		.since = sqlite3_column_int64(q, 2),
		.due = sqlite3_column_int64(q, 3),
		.attempts = (unsigned)sqlite3_column_int64(q, 4),
		.stuck = sqlite3_column_int(q, 5) != 0,
		.wait = (enum work_wait)sqlite3_column_int(q, 7),
	};
	(void)snprintf(ret_work->error, sizeof(ret_work->error), "%s",
	    (const char *)sqlite3_column_text(q, 6));
}

int
index_work_get(struct index *ix, enum work_kind kind, uint64_t id, struct work *ret_work)
{
	struct db *db = db_read(ix);
	sqlite3_stmt *q;
	int r;

	r = db_query(db, &q, "SELECT " WORK_COLUMNS " FROM work WHERE kind=? AND id=?", "ii",
	    (int64_t)kind, (int64_t)id);
	if (r == 0)
		r = db_step(db, q);
	if (r == 1) {
		work_read(q, ret_work);
		db_done(q);
		r = 0;
	} else if (r == 0) {
		r = -ENOENT;
	}
	db_read_done(db);
	return r;
}

static void
work_read_nth(sqlite3_stmt *q, void *rows, size_t n)
{
	work_read(q, (struct work *)rows + n);
}

int
index_work_due(struct index *ix, enum work_kind kind, int64_t now, struct work *ret_work,
    size_t max)
{
	struct db *db = &ix->reader;
	sqlite3_stmt *q;
	int r;

	lock_take(&db->lock);
	r = db_query(db, &q, "SELECT " WORK_COLUMNS " FROM work WHERE kind=? AND stuck=0 AND due<=?"
	    " ORDER BY due LIMIT ?", "iii", (int64_t)kind, now, (int64_t)max);
	if (r == 0)
		r = db_rows(db, q, max, work_read_nth, ret_work);
	lock_drop(&db->lock);
	return r;
}

int
index_work_next(struct index *ix, enum work_kind kind, int64_t *ret_due)
{
	int r;

	lock_take(&ix->reader.lock);
	r = db_int(&ix->reader, ret_due, "SELECT due FROM work WHERE kind=? AND stuck=0"
	    " ORDER BY due LIMIT 1", "i", (int64_t)kind);
	lock_drop(&ix->reader.lock);
	return r;
}

/* fn runs while the reader's lock is held: it must not call the index. */
static int
work_visit(struct db *db, sqlite3_stmt *q, bool (*fn)(void *arg, const struct work *w), void *arg)
{
	struct work w;
	int r;

	while ((r = db_step(db, q)) == 1) {
		work_read(q, &w);
		if (!fn(arg, &w)) {
			db_done(q);
			return 0;
		}
	}
	return r;
}

int
index_work_each(struct index *ix, enum work_kind kind, bool failed_only,
    bool (*fn)(void *arg, const struct work *w), void *arg)
{
	struct db *db = &ix->reader;
	sqlite3_stmt *q;
	int r;

	lock_take(&db->lock);
	r = db_query(db, &q, "SELECT " WORK_COLUMNS " FROM work WHERE kind=?"
	    " AND (?=0 OR (attempts>0 AND error<>'') OR stuck<>0) ORDER BY since", "ii", (int64_t)kind,
	    (int64_t)failed_only);
	if (r == 0)
		r = work_visit(db, q, fn, arg);
	lock_drop(&db->lock);
	return r;
}

int
index_work_below(struct index *ix, enum work_kind kind, uint64_t dir,
    bool (*fn)(void *arg, const struct work *w), void *arg)
{
	struct db *db = &ix->reader;
	sqlite3_stmt *q;
	int r;

	if (dir == INDEX_ROOT)
		return index_work_each(ix, kind, false, fn, arg);
	lock_take(&db->lock);
	r = db_query(db, &q, TREE_BELOW "SELECT " WORK_COLUMNS " FROM work WHERE kind=?2"
	    " AND id IN (SELECT ino FROM tree)", "ii", (int64_t)dir, (int64_t)kind);
	if (r == 0)
		r = work_visit(db, q, fn, arg);
	lock_drop(&db->lock);
	return r;
}

int
index_work_hurry(struct index *ix, enum work_kind kind, uint64_t dir, bool failed_too)
{
	struct db *db = &ix->writer;
	int64_t now = clock_wall_ns();
	int r = db_begin(ix);

	if (r < 0)
		return r;
	if (dir == INDEX_ROOT)
		r = db_change(db, "UPDATE work SET due=? WHERE kind=? AND stuck=0 AND due>?"
		    " AND (attempts=0 OR ?)", "iiii", now, (int64_t)kind, now, (int64_t)failed_too);
	else
		r = db_change(db, TREE_BELOW "UPDATE work SET due=?2 WHERE kind=?3 AND stuck=0 AND due>?2"
		    " AND (attempts=0 OR ?4) AND id IN (SELECT ino FROM tree)", "iiii", (int64_t)dir, now,
		    (int64_t)kind, (int64_t)failed_too);
	return db_end(ix, r);
}

static int
status_states(struct db *db, struct index_status *st)
{
	sqlite3_stmt *q;
	int r = db_query(db, &q, "SELECT state, count(*), total(size) FROM inode"
	    " WHERE state<>0 AND nlink>0 GROUP BY state", "");

	while (r == 0 && (r = db_step(db, q)) == 1) {
		int state = sqlite3_column_int(q, 0);

		if (state >= 0 && state <= OBJECT_REMOTE) {
			st->state[state].count = (uint64_t)sqlite3_column_int64(q, 1);
			st->state[state].bytes = (uint64_t)sqlite3_column_double(q, 2);
		}
		r = 0;
	}
	return r;
}

int
index_status(struct index *ix, struct index_status *ret_status)
{
	struct index_status st = { .oldest_unstored = 0 };
	struct db *db = &ix->reader;
	sqlite3_stmt *q;
	int r;

	lock_take(&db->lock);
	r = status_states(db, &st);
	if (r == 0)
		r = db_query(db, &q, "SELECT kind, count(*), sum(stuck), sum(attempts>0 AND error<>''), min(since)"
		    " FROM work GROUP BY kind", "");
	while (r == 0 && (r = db_step(db, q)) == 1) {
		int kind = sqlite3_column_int(q, 0);

		if (kind > 0 && kind <= WORK_KEEP)
			st.work[kind] = (uint64_t)sqlite3_column_int64(q, 1);
		st.stuck += (uint64_t)sqlite3_column_int64(q, 2);
		st.failing += (uint64_t)sqlite3_column_int64(q, 3);
		if (kind == WORK_UPLOAD)
			st.oldest_unstored = sqlite3_column_int64(q, 4);
		r = 0;
	}
	lock_drop(&db->lock);
	if (r == 0)
		*ret_status = st;
	return r;
}
