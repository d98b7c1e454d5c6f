/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The life of a file: OPEN → DIRTY → STORED → REMOTE and back, as HACKING.md
 * draws it.  Every change of state is made here or in object.c, by generation:
 * what was computed from an older one is refused with -ESTALE.
 */
#include "index/db.h"

#include "base/clock.h"
#include "index/index.h"
#include "index/usage.h"

#include <errno.h>
#include <string.h>

int
index_mark_open(struct index *ix, uint64_t ino, struct inode *ret_was, struct inode *ret_inode)
{
	struct db *db = &ix->writer;
	struct inode i;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = inode_load(db, ino, &i);
	if (r == 0 && i.state == OBJECT_NONE)
		r = -EINVAL;
	if (r == 0)
		r = db_run(db, "UPDATE inode SET state=1, generation=generation+1, staged_mtime=mtime,"
		    " flags=flags&~16 WHERE ino=?", "i", (int64_t)ino);
	r = db_end(ix, r);
	if (r < 0)
		return r;
	*ret_was = i;
	i.staged_mtime = i.mtime;
	i.flags &= ~(uint32_t)INODE_MADE;	/* what is in it is the user's now */
	i.state = OBJECT_OPEN;
	i.generation++;
	*ret_inode = i;
	return 0;
}

/* `state` and `flags` are what the row has now: naming a column that an index covers costs a
 * write of that index, also when nothing moves. */
static int
flushed(struct db *db, struct inode *i, const struct staged_stat *st, enum object_state state,
    uint32_t flags)
{
	if (st->mtime != i->staged_mtime && st->mtime > i->ctime)
		i->ctime = st->mtime;
	i->size = st->size;
	i->mtime = i->staged_mtime = st->mtime;
	i->atime = st->atime != STAGED_ATIME_OMIT ? st->atime : i->atime;
	if (state == i->state && flags == i->flags)
		return db_run(db, "UPDATE inode SET size=?, mtime=?, staged_mtime=?, atime=?, ctime=?"
		    " WHERE ino=?", "iiiiii", (int64_t)i->size, i->mtime, i->staged_mtime, i->atime,
		    i->ctime, (int64_t)i->ino);
	return db_run(db, "UPDATE inode SET size=?, mtime=?, staged_mtime=?, atime=?, ctime=?, state=?,"
	    " flags=? WHERE ino=?", "iiiiiiii", (int64_t)i->size, i->mtime, i->staged_mtime, i->atime,
	    i->ctime, (int64_t)i->state, (int64_t)i->flags, (int64_t)i->ino);
}

int
index_mark_flushed(struct index *ix, uint64_t ino, const struct staged_stat *st,
    const struct quiet *quiet)
{
	struct db *db = &ix->writer;
	struct inode i, was;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = inode_load(db, ino, &i);
	if (r == 0) {
		uint32_t flags = i.flags;

		was = i;

		/* Who writes it anew makes it whole; who only looks doesn't. */
		if (st->mtime != i.staged_mtime || st->size != i.size)
			i.flags &= ~(uint32_t)INODE_TORN;
		r = flushed(db, &i, st, i.state, flags);
	}
	if (r == 0 && i.nlink > 0)
		r = work_quiet(db, ino, quiet, true);
	if (r == 0)
		usage_resized(db, &was, i.size);
	return db_end(ix, r);
}

int
index_mark_synced(struct index *ix, uint64_t ino, uint64_t generation)
{
	return db_once(ix, "UPDATE inode SET synced_generation=? WHERE ino=?"
	    " AND generation=?", "iii", (int64_t)generation, (int64_t)ino, (int64_t)generation);
}

/* Nothing was changed since this generation was opened: the object's bytes are still these, and what was
 * derived from them. */
static int
unchanged(struct db *db, struct inode *i)
{
	int r = db_run(db, "UPDATE derivation SET generation=?1 WHERE ino=?2 AND generation="
	    "(SELECT generation FROM object WHERE id=?3)", "iii", (int64_t)i->generation, (int64_t)i->ino,
	    (int64_t)i->object);

	if (r == 0)
		r = db_run(db, "UPDATE object SET generation=? WHERE id=?", "ii", (int64_t)i->generation,
		    (int64_t)i->object);

	if (r == 0)
		r = work_done(db, WORK_UPLOAD, i->ino);
	/* It may have been renamed while it was open. */
	if (r == 0)
		r = work_add(db, WORK_RELOCATE, i->ino, clock_wall_ns());
	return r;
}

int
index_mark_quiet(struct index *ix, uint64_t ino, uint64_t generation, bool changed,
    const struct staged_stat *st, struct inode *ret_inode)
{
	struct db *db = &ix->writer;
	struct inode i, was;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = inode_load(db, ino, &i);
	was = i;
	if (r == 0 && (i.generation != generation || i.state != OBJECT_OPEN))
		r = -ESTALE;
	if (r == 0) {
		bool stored = !changed && i.object != 0;
		uint32_t flags = i.flags;

		i.state = stored ? OBJECT_STORED : OBJECT_DIRTY;
		i.flags = (flags & ~(uint32_t)INODE_DENSE) | (st->dense ? INODE_DENSE : 0u);
		r = flushed(db, &i, st, OBJECT_OPEN, flags);
		if (r == 0 && stored)
			r = unchanged(db, &i);
		else if (r == 0)
			r = upload_keep(db, ino, clock_wall_ns());
		/* Of what didn't change the name, or the mode, may have. */
		if (r == 0 && (i.flags & INODE_DERIVED) == 0 && !atomic_load(&ix->derive_off))
			r = work_add(db, WORK_DERIVE, ino, clock_wall_ns());
	}
	if (r == 0)
		usage_resized(db, &was, i.size);
	r = db_end(ix, r);
	if (r == 0)
		*ret_inode = i;
	return r;
}

static int
set_where_generation(struct index *ix, const char *sql, int64_t value, uint64_t ino,
    uint64_t generation)
{
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = db_change(&ix->writer, sql, "iii", value, (int64_t)ino, (int64_t)generation);
	return db_end(ix, r == 0 ? -ESTALE : r < 0 ? r : 0);
}

int
index_mark_torn(struct index *ix, uint64_t ino)
{
	return db_once(ix, "UPDATE inode SET flags=flags|2 WHERE ino=?", "i", (int64_t)ino);
}

int
index_accept_torn(struct index *ix, uint64_t dir)
{
	int r = db_begin(ix);

	return r < 0 ? r : db_end(ix, db_change(&ix->writer, TREE_BELOW "UPDATE inode SET flags=flags&~2"
	    " WHERE (flags & 2)<>0 AND ino IN (SELECT ino FROM tree)", "i", (int64_t)dir));
}

int
index_mark_lost(struct index *ix, uint64_t ino)
{
	struct db *db = &ix->writer;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = db_run(db, "UPDATE inode SET state=4, flags=flags|2,"
	    " size=(SELECT o.size FROM object o WHERE o.id=inode.object),"
	    " generation=generation+1 WHERE ino=? AND object<>0", "i", (int64_t)ino);
	if (r == 0)
		r = db_run(db, "UPDATE object SET generation=(SELECT generation FROM inode WHERE ino=?1)"
		    " WHERE id=(SELECT object FROM inode WHERE ino=?1)", "i", (int64_t)ino);
	/* What stands in its place is of the bytes that are lost. */
	if (r == 0)
		r = db_run(db, "UPDATE derivation SET version=0, failed=0, json='' WHERE ino=?", "i", (int64_t)ino);
	if (r == 0)
		r = work_done(db, WORK_UPLOAD, ino);
	return db_end(ix, r);
}

int
index_mark_remote(struct index *ix, uint64_t ino, uint64_t generation)
{
	return set_where_generation(ix, "UPDATE inode SET state=?"
	    " WHERE ino=? AND generation=? AND state IN (3,4)", OBJECT_REMOTE, ino, generation);
}

int
index_mark_whole(struct index *ix, uint64_t ino, uint64_t generation, int64_t staged_mtime)
{
	return set_where_generation(ix, "UPDATE inode SET state=3, staged_mtime=?"
	    " WHERE ino=? AND generation=? AND state=4", staged_mtime, ino, generation);
}

static void
inode_read_nth(sqlite3_stmt *q, void *rows, size_t n)
{
	inode_read(q, 0, (struct inode *)rows + n);
}

int
index_list_state(struct index *ix, enum object_state state, uint64_t after,
    struct inode *ret_inodes, size_t max)
{
	struct db *db = &ix->reader;
	sqlite3_stmt *q;
	int r;

	lock_take(&db->lock);
	r = db_query(db, &q, "SELECT " INODE_COLUMNS " FROM inode i WHERE i.state=? AND i.ino>?"
	    " ORDER BY i.ino LIMIT ?", "iii", (int64_t)state, (int64_t)after, (int64_t)max);
	if (r == 0)
		r = db_rows(db, q, max, inode_read_nth, ret_inodes);
	lock_drop(&db->lock);
	return r;
}

int
index_newest_change(struct index *ix, int64_t *ret_ctime)
{
	int r;

	lock_take(&ix->reader.lock);
	r = db_int(&ix->reader, ret_ctime, "SELECT max(ctime) FROM inode", "");
	lock_drop(&ix->reader.lock);
	return r;
}
