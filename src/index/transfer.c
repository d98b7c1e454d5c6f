/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What goes to the store and away from it: uploads, relocations, removals.  Each begins with
 * a transaction before anything is sent and ends with one that takes the answer in; object.c
 * says who owns which key in between.
 */
#include "index/object.h"

#include "base/cleanup.h"
#include "index/index.h"

#include <errno.h>
#include <string.h>

static bool
on_side(const char *key)
{
	return strncmp(key, ".tbfs/o/", 8) == 0;
}

/* A put of this generation is to be sent there. */
static int
put_begun(struct db *db, uint64_t object, uint64_t generation, int64_t now)
{
	return db_run(db, "UPDATE object SET put_generation=?, begun=? WHERE id=?", "iii",
	    (int64_t)generation, now, (int64_t)object);
}

/* ---- upload ---- */

static int
next_seq(struct db *db, uint64_t *ret_seq)
{
	int64_t seq;
	int r = db_int(db, &seq, "UPDATE meta SET value=value+1 WHERE name='object_seq'"
	    " RETURNING value", "");

	if (r == 0)
		*ret_seq = (uint64_t)seq;
	return r;
}

static int
side_own(struct db *db, const struct inode *i, const char *backend, uint64_t unsettled,
    struct object *ret_object)
{
	int r = i->object == 0 ? -ENOENT : object_load(db, i->object, ret_object);

	/* Where it already has a side key of this backend, it stays there. */
	if (r == 0 && strcmp(ret_object->backend, backend) == 0 && ret_object->id != unsettled &&
	    on_side(ret_object->key) && ret_object->put_generation == 0)
		return 0;
	return object_insert(db, backend, NULL, i->ino, ret_object);
}

int
index_upload_begin(struct index *ix, uint64_t ino, uint64_t generation, const char *backend,
    const char *key, bool side, int64_t now, struct upload *ret_up)
{
	struct upload up = { .settle = false };
	struct db *db = &ix->writer;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = inode_load(db, ino, &up.inode);
	if (r == 0 && (up.inode.state != OBJECT_DIRTY || up.inode.nlink == 0 ||
	    up.inode.generation != generation))
		r = -ESTALE;
	if (r == 0 && up.inode.synced_generation != generation)
		r = db_run(db, "UPDATE inode SET synced_generation=generation WHERE ino=?", "i",
		    (int64_t)ino);
	if (r == 0 && (side || key == NULL))
		r = -EEXIST;
	else if (r == 0)
		r = key_own(db, backend, key, ino, now, &up.object);
	if (r == -EEXIST)
		r = side_own(db, &up.inode, backend, side ? up.object.id : 0, &up.object);
	if (r == 0)
		r = next_seq(db, &up.object.seq);
	if (r == 0) {
		up.unsettled = up.object.put_generation;
		up.settle = up.unsettled != 0 && up.unsettled != up.inode.generation &&
		    now - up.object.begun < SETTLED_AFTER_NS;
	}
	if (r == 0 && !up.settle) {
		up.object.put_generation = up.inode.generation;
		up.object.begun = now;
		r = put_begun(db, up.object.id, up.inode.generation, now);
	}
	r = db_end(ix, r);
	if (r == 0)
		*ret_up = up;
	return r;
}

static int
object_stored(struct db *db, uint64_t id, uint64_t generation, const struct object *o)
{
	return db_run(db, "UPDATE object SET status=2, generation=?, put_generation=0, begun=0, size=?,"
	    " sha256=?, etag=?, seq=?, linked=? WHERE id=?", "iibsiii", (int64_t)generation,
	    (int64_t)o->size, o->sha256, SHA256_LEN, o->etag, (int64_t)o->seq, (int64_t)o->linked,
	    (int64_t)id);
}

/* The inode's object is `id` now; whatever else it had goes. */
static int
inode_point(struct db *db, const struct inode *i, uint64_t id, int64_t now)
{
	int r = db_run(db, "UPDATE inode SET object=? WHERE ino=?", "ii", (int64_t)id, (int64_t)i->ino);

	if (r == 0)
		r = db_run(db, "INSERT INTO work(kind,id,since,due,attempts,stuck,error)"
		    " SELECT 3, id, ?, ?, 0, 0, '' FROM object WHERE ino=? AND id<>? AND status<>3"
		    " ON CONFLICT(kind,id) DO NOTHING", "iiii", now, now, (int64_t)i->ino, (int64_t)id);
	if (r == 0)
		r = db_run(db, "UPDATE object SET status=3 WHERE ino=? AND id<>?", "ii", (int64_t)i->ino,
		    (int64_t)id);
	return r;
}

/* When the path isn't the key (any more), the object has to follow. */
static int
follow_path(struct db *db, uint64_t ino, const char *key, int64_t now)
{
	CLEANUP_FREE char *path = NULL;
	int r = path_load(db, ino, &path);

	if (r == -ENOENT)
		return 0;
	if (r < 0 || strcmp(path, key) == 0)
		return r;
	return work_add(db, WORK_RELOCATE, ino, now);
}

int
index_upload_done(struct index *ix, const struct upload *up, const struct object *stored,
    int64_t now)
{
	uint64_t generation = up->inode.generation;
	struct db *db = &ix->writer;
	struct inode i;
	int r = db_begin(ix), current = 0;

	if (r < 0)
		return r;
	r = object_stored(db, up->object.id, generation, stored);
	if (r == 0)
		r = inode_load(db, up->inode.ino, &i);
	if (r == -ENOENT) {
		r = object_discard(db, up->object.id, now);
		return db_end(ix, r);
	}
	if (r == 0)
		r = inode_point(db, &i, up->object.id, now);
	if (r == 0)
		r = follow_path(db, i.ino, up->object.key, now);
	if (r == 0 && i.generation == generation && i.state == OBJECT_DIRTY) {
		current = 1;
		r = db_run(db, "UPDATE inode SET state=3, synced_generation=generation WHERE ino=?", "i",
		    (int64_t)i.ino);
		if (r == 0)
			r = work_done(db, WORK_UPLOAD, i.ino);
	}
	r = db_end(ix, r);
	return r < 0 ? r : current;
}

int
index_upload_undo(struct index *ix, uint64_t object)
{
	struct db *db = &ix->writer;
	struct object o;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = object_load(db, object, &o);
	/* A key that never held anything is free again; an adopted one (it has a seq) still
	 * holds what its former owner put there. */
	if (r == 0 && o.status == OBJECT_PUTTING && o.seq == 0)
		r = db_run(db, "DELETE FROM object WHERE id=?", "i", (int64_t)object);
	else if (r == 0)
		r = db_run(db, "UPDATE object SET put_generation=0,"
		    " begun=CASE WHEN status=2 THEN 0 ELSE begun END WHERE id=?", "i", (int64_t)object);
	return db_end(ix, r == -ENOENT ? 0 : r);
}

int
index_upload_settled(struct index *ix, uint64_t object)
{
	return db_once(ix, "UPDATE object SET put_generation=0, seq=max(seq,1),"
	    " begun=CASE WHEN status=3 THEN begun ELSE 0 END WHERE id=?", "i", (int64_t)object);
}

int
index_upload_uncertain(struct index *ix, uint64_t object, int64_t now)
{
	return db_once(ix, "UPDATE object SET begun=? WHERE put_generation<>0 AND id=?", "ii", now,
	    (int64_t)object);
}

int
index_uploads_cut_off(struct index *ix, const char *ours, int64_t now)
{
	return db_once(ix, "UPDATE object SET begun=CASE WHEN backend=? THEN 1 ELSE ? END"
	    " WHERE put_generation<>0", "si", ours, now);
}

/* ---- relocate ---- */

/* Does the owner of the key want the one we have?  Then one of us must step aside. */
static bool
is_swap(struct db *db, const struct object *owner, const struct object *mine)
{
	CLEANUP_FREE char *path = NULL;

	return owner->id != 0 && path_load(db, owner->ino, &path) == 0 && strcmp(path, mine->key) == 0;
}

static int
relocate_target(struct db *db, struct move *m, const char *key, bool force_side, int64_t now)
{
	int r = key == NULL ? -EEXIST : key_own(db, m->from.backend, key, m->inode.ino, now, &m->to);

	if (r != -EEXIST)
		return r;
	if (key != NULL && (on_side(m->from.key) || !(force_side || is_swap(db, &m->to, &m->from))))
		return -EBUSY;
	return object_insert(db, m->from.backend, NULL, m->inode.ino, &m->to);
}

/* Will its upload not come by itself?  Then its last object is what the store keeps of it. */
static bool
is_stuck(struct db *db, uint64_t ino)
{
	int64_t one;

	return db_int(db, &one, "SELECT 1 FROM work WHERE kind=1 AND id=? AND stuck<>0", "i",
	    (int64_t)ino) == 0;
}

int
index_relocate_begin(struct index *ix, uint64_t ino, const char *key, bool force_side,
    int64_t now, struct move *ret_move)
{
	struct db *db = &ix->writer;
	struct move m = { .to = { .id = 0 } };
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = inode_load(db, ino, &m.inode);
	if (r == 0 && m.inode.object == 0)
		r = -ESTALE;
	if (r == 0)
		r = object_load(db, m.inode.object, &m.from);
	if (r == 0 && (key != NULL ? strcmp(m.from.key, key) == 0 : on_side(m.from.key))) {
		/* It is where it belongs; what an earlier move had begun elsewhere goes. */
		r = inode_point(db, &m.inode, m.inode.object, now);
		if (r == 0)
			r = work_done(db, WORK_RELOCATE, ino);
		r = db_end(ix, r);
		return r < 0 ? r : -EALREADY;
	}
	if (r == 0 && (m.from.put_generation != 0 || m.from.status != OBJECT_KEPT ||
	    !(m.inode.state == OBJECT_STORED || m.inode.state == OBJECT_REMOTE || is_stuck(db, ino))))
		r = -ESTALE;
	if (r == 0)
		r = relocate_target(db, &m, key, force_side, now);
	if (r == -EBUSY && m.to.id != 0 && m.to.ino != ino) {
		/* Whoever has the key is to look whether it still belongs there. */
		r = db_end(ix, work_add(db, WORK_RELOCATE, m.to.ino, now));
		return r < 0 ? r : -EBUSY;
	}
	if (r == 0)
		r = put_begun(db, m.to.id, m.from.generation, now);
	r = db_end(ix, r);
	if (r == 0)
		*ret_move = m;
	return r;
}

int
index_relocate_done(struct index *ix, const struct move *move, int64_t now)
{
	struct db *db = &ix->writer;
	struct inode i;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = object_stored(db, move->to.id, move->from.generation, &move->to);
	if (r == 0)
		r = inode_load(db, move->inode.ino, &i);
	if (r == 0 && i.object == move->from.id) {
		r = inode_point(db, &i, move->to.id, now);
		if (r == 0)
			r = work_done(db, WORK_RELOCATE, i.ino);
		if (r == 0)
			r = follow_path(db, i.ino, move->to.key, now);
	} else if (r == 0 || r == -ENOENT) {
		r = object_discard(db, move->to.id, now);
	}
	return db_end(ix, r);
}

int
index_expand(struct index *ix, uint64_t dir, int64_t due)
{
	struct db *db = &ix->writer;
	int r = db_begin_growing(ix);

	if (r < 0)
		return r;
	r = db_run(db, TREE_BELOW "INSERT INTO work(kind,id,since,due,attempts,stuck,error)"
	    " SELECT 2, i.ino, ?, ?, 0, 0, '' FROM tree t JOIN inode i ON i.ino=t.ino WHERE i.object<>0"
	    " ON CONFLICT(kind,id) DO UPDATE SET due=excluded.due", "iii", (int64_t)dir, due, due);
	if (r == 0)
		r = work_done(db, WORK_EXPAND, dir);
	return db_end(ix, r);
}

/* ---- remove ---- */

int
index_remove_begin(struct index *ix, uint64_t object, int64_t now, struct object *ret_object)
{
	struct db *db = &ix->writer;
	struct object o;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = object_load(db, object, &o);
	if (r == 0 && o.status != OBJECT_REMOVING)
		r = -ENOENT;
	if (r == 0 && o.put_generation != 0 && now - o.begun < SETTLED_AFTER_NS)
		r = -EBUSY;
	if (r == 0)
		r = db_run(db, "UPDATE object SET begun=?, put_generation=0 WHERE id=?", "ii", now,
		    (int64_t)object);
	r = db_end(ix, r);
	if (r == 0)
		*ret_object = o;
	return r;
}

int
index_remove_done(struct index *ix, uint64_t object)
{
	struct db *db = &ix->writer;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = db_run(db, "DELETE FROM object WHERE id=? AND status=3", "i", (int64_t)object);
	if (r == 0)
		r = work_done(db, WORK_REMOVE, object);
	return db_end(ix, r);
}
