/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Objects own keys.
 *
 *   1. A row owns (backend, key) from before its PUT until its DELETE is confirmed.
 *   2. Nobody owns a key whose prefix is owned, nor one with something owned below it:
 *      in a directory tree both can't exist.
 *   3. An object whose removal has not begun may be adopted by the inode that now has its
 *      name: the PUT replaces it, no DELETE is sent.
 *   4. So may one of an inode that has no name any more but is open still: its bytes are staged.
 *   5. put_generation != 0 means a PUT was sent and its end isn't known.  Until it is, only
 *      the same generation may go there again.
 *
 *  status    begun  put_generation   means
 *  PUTTING   yes    g                first PUT under way, or unknown after a crash
 *  KEPT      no     0                holds `generation`
 *  KEPT      yes    g                being overwritten by g
 *  REMOVING  no     0                waits for its DELETE; may be adopted
 *  REMOVING  yes    0                DELETE sent
 *  REMOVING  any    g                a PUT may still arrive: DELETE waits
 */
#include "index/object.h"

#include "index/index.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define OBJECT_COLUMNS "id,status,backend,key,ino,generation,put_generation,size,sha256,etag,seq," \
	"linked,begun"

static void
object_read(sqlite3_stmt *q, struct object *o)
{
	*o = (struct object){
		.id = (uint64_t)sqlite3_column_int64(q, 0),
		.status = (enum object_status)sqlite3_column_int(q, 1),
		.ino = (uint64_t)sqlite3_column_int64(q, 4),
		.generation = (uint64_t)sqlite3_column_int64(q, 5),
		.put_generation = (uint64_t)sqlite3_column_int64(q, 6),
		.size = (uint64_t)sqlite3_column_int64(q, 7),
		.seq = (uint64_t)sqlite3_column_int64(q, 10),
		.linked = sqlite3_column_int(q, 11) != 0,
		.begun = sqlite3_column_int64(q, 12),
	};
	(void)snprintf(o->backend, sizeof(o->backend), "%s", (const char *)sqlite3_column_text(q, 2));
	(void)snprintf(o->key, sizeof(o->key), "%s", (const char *)sqlite3_column_text(q, 3));
	(void)snprintf(o->etag, sizeof(o->etag), "%s", (const char *)sqlite3_column_text(q, 9));
	if (sqlite3_column_bytes(q, 8) == SHA256_LEN)
		memcpy(o->sha256, sqlite3_column_blob(q, 8), SHA256_LEN);
}

int
object_load(struct db *db, uint64_t id, struct object *ret_object)
{
	sqlite3_stmt *q;
	int r = db_row(db, &q, "SELECT " OBJECT_COLUMNS " FROM object WHERE id=?", "i", (int64_t)id);

	if (r < 0)
		return r;
	object_read(q, ret_object);
	db_done(q);
	return 0;
}

static int
object_at(struct db *db, const char *backend, const char *key, struct object *ret_object)
{
	sqlite3_stmt *q;
	int r = db_row(db, &q, "SELECT " OBJECT_COLUMNS " FROM object WHERE backend=? AND key=?", "ss",
	    backend, key);

	if (r < 0)
		return r;
	object_read(q, ret_object);
	db_done(q);
	return 0;
}

int
index_object_get(struct index *ix, uint64_t id, struct object *ret_object)
{
	struct db *db = db_read(ix);
	int r = object_load(db, id, ret_object);

	db_read_done(db);
	return r;
}

int
index_has_stored(struct index *ix, uint64_t ino)
{
	struct db *db = db_read(ix);
	int64_t one;
	int r = db_int(db, &one, "SELECT 1 FROM object WHERE ino=? AND (status=2 OR put_generation<>0)"
	    " LIMIT 1", "i", (int64_t)ino);

	db_read_done(db);
	return r == 0 ? 1 : r == -ENOENT ? 0 : r;
}

int
index_has_objects(struct index *ix, const char *backend)
{
	int64_t one;
	int r;

	lock_take(&ix->reader.lock);
	r = db_int(&ix->reader, &one, "SELECT 1 FROM object WHERE backend=? LIMIT 1", "s", backend);
	lock_drop(&ix->reader.lock);
	return r == 0 ? 1 : r == -ENOENT ? 0 : r;
}

bool
index_backend_used(struct index *ix, const char *backend)
{
	int64_t one;
	int r;

	lock_take(&ix->reader.lock);
	r = db_int(&ix->reader, &one, "SELECT 1 FROM meta WHERE name='used:'||?", "s", backend);
	lock_drop(&ix->reader.lock);
	return r == 0;
}

int
index_mark_backend_used(struct index *ix, const char *backend, const char *address)
{
	return db_once(ix, "INSERT INTO meta VALUES('used:'||?,?)"
	    " ON CONFLICT(name) DO UPDATE SET value=excluded.value", "ss", backend, address);
}

int
index_backend_address(struct index *ix, const char *backend, char **ret_address)
{
	sqlite3_stmt *q;
	int r;

	lock_take(&ix->reader.lock);
	/* Older indexes only knew that it was used: 1. */
	r = db_row(&ix->reader, &q, "SELECT value FROM meta WHERE name='used:'||? AND value<>1", "s",
	    backend);
	if (r == 0) {
		*ret_address = strdup((const char *)sqlite3_column_text(q, 0));
		r = *ret_address == NULL ? -ENOMEM : 0;
		db_done(q);
	}
	lock_drop(&ix->reader.lock);
	return r;
}

int
index_object_ends(struct index *ix, const char *backend, struct object ret_objects[2])
{
	static const char *const asked[] = {
		"SELECT min(id) FROM object WHERE status=2 AND backend=?",
		"SELECT max(id) FROM object WHERE status=2 AND backend=?",
	};
	int64_t id;
	int i, r = 0;

	for (i = 0; i < 2 && r == 0; i++) {
		lock_take(&ix->reader.lock);
		r = db_int(&ix->reader, &id, asked[i], "s", backend);
		lock_drop(&ix->reader.lock);
		if (r == 0)
			r = index_object_get(ix, (uint64_t)id, &ret_objects[i]);
	}
	return r == -ENOENT ? 0 : r < 0 ? r : 2;
}

/* Is a prefix of the key owned, or something below it?  1 yes, 0 no. */
static int
key_crossed(struct db *db, const char *backend, const char *key)
{
	char part[1025], below[1027];
	size_t i, len = strlen(key);
	int64_t one;
	int r;

	(void)snprintf(part, sizeof(part), "%s", key);
	for (i = len; i-- > 0;) {
		if (part[i] != '/')
			continue;
		part[i] = '\0';
		r = db_int(db, &one, "SELECT 1 FROM object WHERE backend=? AND key=?", "ss", backend, part);
		if (r != -ENOENT)
			return r < 0 ? r : 1;
	}
	/* '0' follows '/' in ASCII. */
	(void)snprintf(part, sizeof(part), "%s", key);
	(void)snprintf(below, sizeof(below), "%s/", part);
	r = db_int(db, &one, "SELECT 1 FROM object WHERE backend=? AND key>? AND key<?||'0' LIMIT 1",
	    "sss", backend, below, part);
	return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

int
object_insert(struct db *db, const char *backend, const char *key, uint64_t ino,
    struct object *ret_object)
{
	char side[64];
	uint64_t id;
	int r;

	r = db_run(db, "INSERT INTO object(status,backend,key,ino,generation,put_generation,size,etag,seq,"
	    "linked,begun) VALUES(1,?,?,?,0,0,0,'',0,0,0)", "ssi", backend,
	    key != NULL ? key : ".tbfs/o/new", (int64_t)ino);
	if (r < 0)
		return r;
	id = (uint64_t)sqlite3_last_insert_rowid(db->handle);
	if (key == NULL) {
		(void)snprintf(side, sizeof(side), ".tbfs/o/%ju", (uintmax_t)id);
		r = db_run(db, "UPDATE object SET key=? WHERE id=?", "si", side, (int64_t)id);
	}
	return r < 0 ? r : object_load(db, id, ret_object);
}

int
object_discard(struct db *db, uint64_t id, int64_t now)
{
	int r = db_run(db, "UPDATE object SET status=3 WHERE id=?", "i", (int64_t)id);

	return r < 0 ? r : work_add(db, WORK_REMOVE, id, now);
}

/* Take over an object that waits for its removal. */
static int
object_adopt(struct db *db, struct object *o, uint64_t ino)
{
	int r = db_run(db, "UPDATE object SET status=1, ino=?, generation=0 WHERE id=?", "ii",
	    (int64_t)ino, (int64_t)o->id);

	o->status = OBJECT_PUTTING;
	o->ino = ino;
	o->generation = 0;
	return r < 0 ? r : work_done(db, WORK_REMOVE, o->id);
}

/* Its owner was unlinked, and is open for who reads what is staged: then it waits for its removal. */
static int
let_go(struct db *db, struct object *o, int64_t now)
{
	struct inode owner;
	int r = inode_load(db, o->ino, &owner);

	if (r < 0 || owner.nlink > 0 || owner.state == OBJECT_REMOTE || owner.object != o->id)
		return r == -ENOENT ? 0 : r;
	/* What is stored has an object. */
	r = db_run(db, "UPDATE inode SET object=0, state=CASE state WHEN 3 THEN 2 ELSE state END WHERE ino=?",
	    "i", (int64_t)o->ino);
	o->status = OBJECT_REMOVING;
	return r < 0 ? r : object_discard(db, o->id, now);
}

int
key_own(struct db *db, const char *backend, const char *key, uint64_t ino, int64_t now,
    struct object *ret_object)
{
	int r = object_at(db, backend, key, ret_object);

	if (r == -ENOENT) {
		ret_object->id = 0;
		r = key_crossed(db, backend, key);
		if (r != 0)
			return r < 0 ? r : -EEXIST;
		return object_insert(db, backend, key, ino, ret_object);
	}
	if (r == 0 && ret_object->status == OBJECT_KEPT && ret_object->put_generation == 0 && ret_object->ino != ino)
		r = let_go(db, ret_object, now);
	if (r < 0)
		return r;
	if (ret_object->status != OBJECT_REMOVING)
		return ret_object->ino == ino ? 0 : -EEXIST;
	if (ret_object->put_generation == 0 && ret_object->begun == 0)
		return object_adopt(db, ret_object, ino);
	return now - ret_object->begun < SETTLED_AFTER_NS / 10 ? -EBUSY : -EEXIST;
}

static void
object_read_nth(sqlite3_stmt *q, void *rows, size_t n)
{
	object_read(q, (struct object *)rows + n);
}

int
index_objects_begun(struct index *ix, uint64_t after, struct object *ret_objects, size_t max)
{
	struct db *db = &ix->reader;
	sqlite3_stmt *q;
	int r;

	lock_take(&db->lock);
	r = db_query(db, &q, "SELECT " OBJECT_COLUMNS " FROM object WHERE begun<>0 AND id>?"
	    " ORDER BY id LIMIT ?", "ii", (int64_t)after, (int64_t)max);
	if (r == 0)
		r = db_rows(db, q, max, object_read_nth, ret_objects);
	lock_drop(&db->lock);
	return r;
}

int
index_object_linked(struct index *ix, const struct object *o, bool linked)
{
	return db_once(ix, "UPDATE object SET linked=? WHERE id=? AND ino=?", "iii", (int64_t)linked,
	    (int64_t)o->id, (int64_t)o->ino);
}
