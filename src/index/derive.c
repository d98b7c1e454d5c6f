/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What was derived from an original, and where it stands: kept here so that meta.json can be
 * written again, and derivatives moved, without decoding anything. */
#include "index/db.h"

#include "base/clock.h"
#include "index/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int
keep_touch(struct db *db, uint64_t keep, int64_t due)
{
	/* `since` is the last touch here: index_keep_done() compares it. */
	return db_run(db, "INSERT INTO work(kind,id,since,due,attempts,stuck,error)"
	    " VALUES(7,?,?,?,0,0,'') ON CONFLICT(kind,id) DO UPDATE SET stuck=0, since=excluded.since,"
	    " due=min(due,excluded.due)", "iii", (int64_t)keep, clock_wall_ns(), due);
}

int
index_keep_touch(struct index *ix, uint64_t keep, int64_t due)
{
	int r = db_begin(ix);

	return r < 0 ? r : db_end(ix, keep_touch(&ix->writer, keep, due));
}

int
index_keep_done(struct index *ix, uint64_t keep, int64_t since)
{
	return db_once(ix, "DELETE FROM work WHERE kind=7 AND id=? AND since=?",
	    "ii", (int64_t)keep, since);
}

int
index_derived_begin(struct index *ix, uint64_t ino, uint64_t keep, const char *path)
{
	/* Version 0 is none of the pipeline's; an entry of meta.json stays until there is a new one. */
	return db_once(ix, "INSERT INTO derivation VALUES(?,0,0,0,?,?,'') ON CONFLICT(ino) DO UPDATE SET"
	    " version=0, keep=excluded.keep, path=excluded.path", "iib", (int64_t)ino, (int64_t)keep, path,
	    (int)strlen(path));
}

int
index_derived_at(struct index *ix, uint64_t keep, const char *path, uint64_t *ret_ino)
{
	struct db *db = db_read(ix);
	int64_t ino = 0;
	int r = db_int(db, &ino, "SELECT ino FROM derivation WHERE keep=? AND path=?", "ib", (int64_t)keep,
	    path, (int)strlen(path));

	db_read_done(db);
	*ret_ino = (uint64_t)ino;
	return r;
}

int
index_derived_set(struct index *ix, const struct derivation *d, int64_t keep_due)
{
	struct db *db = &ix->writer;
	struct inode i;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = inode_load(db, d->ino, &i);
	if (r == 0 && i.generation != d->generation)
		r = -ESTALE;
	if (r == 0)
		r = db_run(db, "INSERT INTO derivation VALUES(?,?,?,?,?,?,?) ON CONFLICT(ino) DO UPDATE SET"
		    " generation=excluded.generation, version=excluded.version, failed=excluded.failed,"
		    " keep=excluded.keep, path=excluded.path, json=excluded.json", "iiiiibs",
		    (int64_t)d->ino, (int64_t)d->generation, (int64_t)d->version, (int64_t)d->failed,
		    (int64_t)d->keep, d->path, (int)strlen(d->path), d->json);
	if (r == 0)
		r = work_done(db, WORK_DERIVE, d->ino);
	if (r == 0)
		r = keep_touch(db, d->keep, keep_due);
	return db_end(ix, r);
}

int
index_derived_get(struct index *ix, uint64_t ino, struct derivation *ret_d)
{
	struct db *db = db_read(ix);
	sqlite3_stmt *q;
	int r;

	r = db_query(db, &q, "SELECT generation, version, failed, keep, path, json FROM derivation"
	    " WHERE ino=?", "i", (int64_t)ino);
	if (r == 0)
		r = db_step(db, q);
	if (r == 1) {
		*ret_d = (struct derivation){
			.ino = ino, .generation = (uint64_t)sqlite3_column_int64(q, 0),
			.version = (unsigned)sqlite3_column_int(q, 1),
			.failed = sqlite3_column_int(q, 2) != 0,
			.keep = (uint64_t)sqlite3_column_int64(q, 3),
			.path = strndup((const char *)sqlite3_column_blob(q, 4),
			    (size_t)sqlite3_column_bytes(q, 4)),
			.json = strdup((const char *)sqlite3_column_text(q, 5)),
		};
		db_done(q);
		r = ret_d->json == NULL || ret_d->path == NULL ? -ENOMEM : 0;
	} else if (r == 0) {
		r = -ENOENT;
	}
	db_read_done(db);
	return r;
}

int
index_derived_moved(struct index *ix, uint64_t ino, uint64_t keep, const char *path)
{
	return db_once(ix, "UPDATE derivation SET keep=?, path=? WHERE ino=?", "ibi",
	    (int64_t)keep, path, (int)strlen(path), (int64_t)ino);
}

int
index_derived_below(struct index *ix, uint64_t keep, const char *path)
{
	struct db *db = db_read(ix);
	int64_t one;
	/* '0' follows '/' in ASCII. */
	int r = db_int(db, &one, "SELECT 1 FROM derivation WHERE keep=?1 AND path>CAST(?2||'/' AS BLOB)"
	    " AND path<CAST(?2||'0' AS BLOB) LIMIT 1", "ib", (int64_t)keep, path, (int)strlen(path));

	db_read_done(db);
	return r == 0 ? 1 : r == -ENOENT ? 0 : r;
}

int
index_derived_forget(struct index *ix, uint64_t ino)
{
	return db_once(ix, "DELETE FROM derivation WHERE ino=?", "i", (int64_t)ino);
}

int
index_derive_unnamed(struct index *ix, uint64_t ino)
{
	/* Where the row is gone, the work is what its reaping asked for. */
	return db_once(ix, "DELETE FROM work WHERE kind=6 AND id=?1"
	    " AND EXISTS(SELECT 1 FROM inode WHERE ino=?1 AND nlink=0)", "i", (int64_t)ino);
}

void
derivation_release(struct derivation *d)
{
	free(d->path);
	free(d->json);
	d->path = d->json = NULL;
}

uint64_t
index_derive_failed(struct index *ix)
{
	int64_t n = 0;

	lock_take(&ix->reader.lock);
	(void)db_int(&ix->reader, &n, "SELECT count(*) FROM derivation WHERE failed<>0", "");
	lock_drop(&ix->reader.lock);
	return (uint64_t)n;
}

/* fn runs while the reader's lock is held: it must not call the index. */
int
index_keep_files(struct index *ix, uint64_t keep,
    bool (*fn)(void *arg, const struct keep_file *f), void *arg)
{
	struct db *db = &ix->reader;
	sqlite3_stmt *q;
	int r;

	lock_take(&db->lock);
	r = db_query(db, &q, "WITH RECURSIVE tree(ino,path,dir) AS (SELECT ?, '', 1 UNION ALL"
	    " SELECT d.ino, t.path || CASE t.path WHEN '' THEN '' ELSE '/' END || CAST(d.name AS TEXT),"
	    " n.mode&61440=16384 FROM tree t JOIN dentry d ON d.parent=t.ino"
	    " JOIN inode n ON n.ino=d.ino WHERE t.dir AND n.flags&1=0)"
	    " SELECT t.path, v.json," INODE_COLUMNS " FROM tree t JOIN derivation v ON v.ino=t.ino"
	    " JOIN inode i ON i.ino=t.ino WHERE v.json<>'' ORDER BY t.path", "i", (int64_t)keep);
	while (r == 0 && (r = db_step(db, q)) == 1) {
		struct keep_file f = { .path = (const char *)sqlite3_column_text(q, 0),
			.json = (const char *)sqlite3_column_text(q, 1) };

		inode_read(q, 2, &f.inode);
		r = 0;
		if (!fn(arg, &f)) {
			db_done(q);
			break;
		}
	}
	lock_drop(&db->lock);
	return r;
}

int
index_derive_below(struct index *ix, uint64_t dir, int64_t due)
{
	struct db *db = &ix->writer;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = db_change(db, TREE_BELOW "INSERT INTO work(kind,id,since,due,attempts,stuck,error)"
	    " SELECT 6, i.ino, ?, ?, 0, 0, '' FROM tree t JOIN inode i ON i.ino=t.ino"
	    " WHERE i.state IN (2,3) AND i.flags&1=0"
	    " ON CONFLICT(kind,id) DO UPDATE SET due=min(due,excluded.due)", "iii", (int64_t)dir,
	    clock_wall_ns(), due);
	return db_end(ix, r);
}

int
index_derive_left_below(struct index *ix, uint64_t dir, uint64_t *ret_open, uint64_t *ret_waiting)
{
#define OPEN_FILES "SELECT count(*) FROM inode WHERE state=1 AND flags&1=0 AND nlink>0"
#define WAITING "SELECT count(*) FROM work w LEFT JOIN inode i ON i.ino=w.id WHERE w.kind=6 AND w.stuck=0" \
	" AND i.state IS NOT 1"
	struct db *db = &ix->reader;
	sqlite3_stmt *q;
	int r;

	lock_take(&db->lock);
	/* In one look: a file goes from the one to the other, and back. */
	if (dir == INDEX_ROOT)
		r = db_row(db, &q, "SELECT (" OPEN_FILES "), (" WAITING ")", "");
	else
		r = db_row(db, &q, TREE_BELOW "SELECT (" OPEN_FILES " AND ino IN (SELECT ino FROM tree)),"
		    " (" WAITING " AND w.id IN (SELECT ino FROM tree))", "i", (int64_t)dir);
	if (r == 0) {
		*ret_open = (uint64_t)sqlite3_column_int64(q, 0);
		*ret_waiting = (uint64_t)sqlite3_column_int64(q, 1);
		db_done(q);
	}
	lock_drop(&db->lock);
	return r;
}

int
index_derive_outdated(struct index *ix, unsigned version)
{
	int64_t now = clock_wall_ns(), last;
	struct db *db = &ix->writer;
	int r = db_begin(ix), n = 0;

	if (r < 0)
		return r;
	r = db_int(db, &last, "SELECT value FROM meta WHERE name='pipeline'", "");
	if (r == -ENOENT || (r == 0 && last != (int64_t)version)) {
		r = n = db_change(db, "INSERT INTO work(kind,id,since,due,attempts,stuck,error)"
		    " SELECT 6, v.ino, ?, ?, 0, 0, '' FROM derivation v JOIN inode i ON i.ino=v.ino"
		    " WHERE v.version<>? AND i.state IN (2,3) ON CONFLICT(kind,id) DO UPDATE SET"
		    " stuck=0, due=excluded.due", "iii", now, now, (int64_t)version);
		if (r >= 0)
			r = db_run(db, "INSERT OR REPLACE INTO meta VALUES('pipeline',?)", "i",
			    (int64_t)version);
	}
	r = db_end(ix, r < 0 ? r : 0);
	return r < 0 ? r : n;
}

int
index_derive_switch(struct index *ix, bool on)
{
	struct db *db = &ix->writer;
	int64_t gap = 0;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	atomic_store(&ix->derive_off, !on);
	r = db_int(db, &gap, "SELECT 1 FROM meta WHERE name='not_derived'", "");
	r = r == -ENOENT ? 0 : r;
	/* Of those that are gone the rows stay: their derivatives are to go when there is a processor. */
	if (r == 0 && !on)
		r = db_run(db, "DELETE FROM work WHERE kind=6 AND id IN (SELECT ino FROM inode)", "");
	if (r == 0 && !on)
		r = db_run(db, "INSERT OR IGNORE INTO meta VALUES('not_derived',1)", "");
	else if (r == 0 && gap != 0)
		r = db_run(db, "DELETE FROM meta WHERE name='not_derived'", "");
	r = db_end(ix, r);
	return r == 0 && on && gap != 0 ? index_derive_below(ix, INDEX_ROOT, clock_wall_ns()) : r;
}

int
index_derive_retry(struct index *ix, uint64_t top)
{
	struct db *db = &ix->writer;
	int64_t now = clock_wall_ns();
	int r = db_begin(ix), n = 0;

	if (r < 0)
		return r;
	r = db_run(db, TREE_BELOW "UPDATE derivation SET version=0 WHERE failed<>0"
	    " AND ino IN (SELECT ino FROM tree)", "i", (int64_t)top);
	if (r == 0)
		r = n = db_change(db, TREE_BELOW "INSERT INTO work(kind,id,since,due,attempts,stuck,error)"
		    " SELECT 6, v.ino, ?, ?, 0, 0, '' FROM tree t JOIN derivation v ON v.ino=t.ino"
		    " WHERE v.failed<>0 ON CONFLICT(kind,id) DO NOTHING", "iii", (int64_t)top, now, now);
	r = db_end(ix, r < 0 ? r : 0);
	return r < 0 ? r : n;
}

int
index_derive_again(struct index *ix, uint64_t top, int64_t due)
{
	struct db *db = &ix->writer;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	/* Version 0 is none of the pipeline's; the entry stays until there is a new one. */
	r = db_run(db, TREE_BELOW "UPDATE derivation SET version=0 WHERE ino IN (SELECT ino FROM tree)", "i",
	    (int64_t)top);
	if (r == 0)
		r = db_run(db, TREE_BELOW "INSERT INTO work(kind,id,since,due,attempts,stuck,error)"
		    " SELECT 6, v.ino, ?, ?, 0, 0, '' FROM tree t JOIN derivation v ON v.ino=t.ino WHERE 1"
		    " ON CONFLICT(kind,id) DO UPDATE SET due=min(due,excluded.due)", "iii", (int64_t)top,
		    clock_wall_ns(), due);
	return db_end(ix, r);
}
