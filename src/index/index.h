/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_INDEX_INDEX_H
#define TBFS_INDEX_INDEX_H

/*
 * The index: what tbfs knows, and the only truth.  Names, inodes, attributes,
 * objects and work, in one database.  Each function is one transaction: after
 * 0 it survives the death of the daemon, after the next index_sync() a power
 * cut.  Any thread; callers may hold locks below RANK_INDEX.  Nothing outside
 * src/index/ knows that SQLite is behind it.
 *
 * Common errors: -ENOENT, -EEXIST, -ENOTEMPTY, -ENOTDIR, -EISDIR, -EMLINK as
 * POSIX has them; -ENOSPC the state directory is full; -EIO the database failed
 * or is damaged (logged once here, with SQLite's own words).
 *
 * Names are bytes, 1..255, without '/' and NUL.  Times are ns since 1970.
 */
#include "base/digest.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define INDEX_ROOT 1			/* inode number of "/" */
#define INDEX_NAME_MAX 255

struct index;

/* HACKING.md, "The life of a file".  DOOMED is a row with nlink 0. */
enum object_state {
	OBJECT_NONE = 0,		/* not a regular file: nothing to store */
	OBJECT_OPEN = 1,
	OBJECT_DIRTY = 2,
	OBJECT_STORED = 3,
	OBJECT_REMOTE = 4,
};

enum inode_flags {
	INODE_DERIVED = 1 << 0,		/* made by the processor: never processed, goes with its original */
	INODE_TORN = 1 << 1,		/* changed after its last close and never synced when the power or the daemon went */
	INODE_DENSE = 1 << 2,		/* not OPEN: its blocks are what its size needs, and the row has its atime */
	INODE_XATTRS = 1 << 3,		/* it has extended attributes, or had some */
	INODE_MADE = 1 << 4,		/* derived, and made by the processor: nobody put it back from elsewhere */
};

struct inode {
	uint64_t ino;
	uint32_t mode, nlink, uid, gid;
	uint64_t rdev, size;
	int64_t atime, mtime, ctime, btime;
	uint32_t flags;			/* enum inode_flags */
	enum object_state state;
	uint64_t generation;		/* raised before anything can change the bytes */
	uint64_t synced_generation;	/* last one whose bytes an fsync, or an upload, put on the disk */
	int64_t staged_mtime;		/* the staged file's own mtime when `size` was read from it */
	uint64_t object;		/* id of the object with the last stored generation; 0: none */
};

struct index_options {
	const char *dir;		/* state directory */
	uint64_t reserve;		/* bytes set aside so that unlink works on a full disk */
	const char *life;		/* staging_life(): differs when unsynced bytes may have been lost since
					 * the last recovery */
};

/* How the last one who had this index ended. */
enum index_end {
	INDEX_ENDED_WELL,		/* index_close() */
	INDEX_KILLED,			/* the process died; what it had written is there */
	INDEX_POWER_CUT,		/* so did the machine, or the disk was mounted anew: unsynced bytes may be lost */
};

/* Open or create <dir>/index.db.  An older schema is upgraded after a snapshot, a newer one
 * is -EPROTO; a damaged file is -EUCLEAN and set aside, never overwritten. */
int index_open(const struct index_options *opt, struct index **ret_ix, enum index_end *ret_end,
    struct error *err);
/* The staging cache has been brought together with this index: from here on a death is one of
 * this life.  A recovery that fails, or dies, is done again as it was. */
int index_recovered(struct index *ix, const char *life);
/* NULL is fine.  `clean`: what is staged is on the disk, the next start needs no recovery. */
void index_close(struct index *ix, bool clean);

/* Was it created empty, and no recovery has ended since? */
bool index_is_new(const struct index *ix);

/* Make all that was committed so far survive a power cut.  Concurrent calls share one sync. */
int index_sync(struct index *ix);

/* A number that rises with each commit; index_synced(ix, n): are the first n durable? */
uint64_t index_changes(struct index *ix);
bool index_synced(struct index *ix, uint64_t change);

/* Background care: move the WAL into the database when it has grown.  One thread. */
void index_checkpoint(struct index *ix);
/* Write a verified copy to <dir>/snapshots/, keeping the last few; 0 also when nothing changed. */
int index_snapshot(struct index *ix, struct error *err);

struct index_counts {
	uint64_t statements, commits, syncs;
};
void index_counts(struct index *ix, struct index_counts *ret_counts);

/* When a changed file may be uploaded: at `due`, put off by each change and rename, but no
 * longer than `limit` ns after the first of them. */
struct quiet {
	int64_t now, due, limit;
};

/* ---- names (names.c) ---- */

int index_get(struct index *ix, uint64_t ino, struct inode *ret_inode);
int index_lookup(struct index *ix, uint64_t parent, const char *name, struct inode *ret_inode);

/* New entry with the mode, owner, rdev, times and flags of *tmpl; `target` for a symlink. */
int index_create(struct index *ix, uint64_t parent, const char *name, const struct inode *tmpl,
    const char *target, struct inode *ret_inode);
/* An inode without a name (O_TMPFILE): reaped at the last close unless linked before. */
int index_create_unnamed(struct index *ix, const struct inode *tmpl, struct inode *ret_inode);
/* Give an unnamed derived inode this name, whatever derived file had it (*ret_gone, ino 0: none);
 * -EEXIST: a user's has it.  No times move; its upload is due at `due`. */
int index_link_over(struct index *ix, uint64_t ino, uint64_t parent, const char *name, int64_t due,
    struct inode *ret_gone);
int index_link(struct index *ix, uint64_t ino, uint64_t parent, const char *name, int64_t now,
    struct inode *ret_inode);
/* *ret_inode is the row after it lost this name; nlink 0: reap it when nobody holds it. */
int index_unlink(struct index *ix, uint64_t parent, const char *name, int64_t now,
    struct inode *ret_inode);
/* Whom to tell of each file whose last name went with a directory: inside the transaction, which may still
 * fail; not to call the index. */
void index_on_taken_along(struct index *ix, void (*fn)(void *arg, uint64_t parent, const char *name,
    uint64_t ino), void *arg);
/* For a user a directory that holds nothing but derived files counts as empty and takes them along; one
 * of derived files, those that the processor made, which it goes on doing while `rm -r` is at work. */
enum index_rmdir_how { INDEX_RMDIR_USER, INDEX_RMDIR_EMPTY, INDEX_RMDIR_ALL };
int index_rmdir(struct index *ix, uint64_t parent, const char *name, enum index_rmdir_how how,
    int64_t now, struct inode *ret_inode);

enum index_rename_flags {
	INDEX_NOREPLACE = 1, INDEX_EXCHANGE = 2,
	/* A user's rename: what arrives is derived where the place is, and only there. */
	INDEX_SET_DERIVED = 4,
	/* The name newparent/newname, or parent/name, is one of a derived file; so are all in a
	 * directory that is derived. */
	INDEX_NEW_IS_DERIVED = 8, INDEX_OLD_IS_DERIVED = 16,
};
struct index_renamed {
	struct inode moved;		/* what carries the new name now */
	struct inode other;		/* replaced (nlink one less) or exchanged; ino 0: there was none */
	bool from_derived, to_derived;	/* the places: of derived files */
};
int index_rename(struct index *ix, uint64_t parent, const char *name, uint64_t newparent,
    const char *newname, unsigned flags, const struct quiet *quiet,
    struct index_renamed *ret_renamed);

int index_readlink(struct index *ix, uint64_t ino, char **ret_target);

struct index_entry {
	uint64_t cookie;		/* rises; pass the last one seen to go on */
	const char *name;		/* valid during the call */
	struct inode inode;
};
/* Entries of `dir` with cookie > after, in order of cookie; fn returns false to stop. */
int index_readdir(struct index *ix, uint64_t dir, uint64_t after,
    bool (*fn)(void *arg, const struct index_entry *e), void *arg);
int index_parent(struct index *ix, uint64_t dir, uint64_t *ret_parent);

/* Path of an inode from the root, without leading slash, "" for the root.  Of several names
 * the oldest.  -ENOENT when it has none.  ret_path is malloc'd. */
int index_path(struct index *ix, uint64_t ino, char **ret_path);
/* The oldest name of an inode and where it stands; ret_name holds INDEX_NAME_MAX + 1. */
int index_place(struct index *ix, uint64_t ino, uint64_t *ret_parent, char *ret_name);

/* Inodes without a name: those after `after` whose ctime is before `before`, in order, for the
 * sweep that reaps what nobody holds; or whose ctime is `ctime`: what went with a directory. */
int index_orphans(struct index *ix, int64_t before, uint64_t after, uint64_t *ret_inos,
    size_t max);
int index_orphans_at(struct index *ix, int64_t ctime, uint64_t *ret_inos, size_t max);
/* Delete the row of an inode without a name; its objects and staged bytes become work.  1 when
 * what was derived from it did so too, 0 when there is nothing. */
int index_reap(struct index *ix, uint64_t ino);
/* The same for each of these that has no name, in one transaction; 0, or none of them. */
int index_reap_many(struct index *ix, const uint64_t *inos, size_t n, bool *ret_derived);

/* Numbers up to this one are taken. */
void index_ino_above(struct index *ix, uint64_t ino);
/* Put a staged file or directory back whose row was lost: with this inode number under
 * parent/name, or under a name of its own in lost+found where that place is taken. */
int index_restore(struct index *ix, const struct inode *inode, uint64_t parent, const char *name);

/* ---- attributes (attr.c) ---- */

enum index_attr {
	ATTR_MODE = 1 << 0, ATTR_UID = 1 << 1, ATTR_GID = 1 << 2,
	ATTR_ATIME = 1 << 3, ATTR_MTIME = 1 << 4, ATTR_CTIME = 1 << 5,
};
/* Set the attributes named by mask from *to. */
int index_set_attr(struct index *ix, uint64_t ino, unsigned mask, const struct inode *to,
    struct inode *ret_inode);

enum index_xattr_flags { INDEX_XATTR_CREATE = 1, INDEX_XATTR_REPLACE = 2 };
enum { INDEX_XATTR_LIST_MAX = 65536 };	/* bytes of all names of an inode, each with its NUL: as the kernel's */
/* -ENOSPC: there would be more names than can be listed. */
int index_xattr_set(struct index *ix, uint64_t ino, const char *name, const void *value, size_t len,
    unsigned flags, int64_t now);
/* Returns the length; copies it when room is enough; -ERANGE, -ENODATA. */
ssize_t index_xattr_get(struct index *ix, uint64_t ino, const char *name, void *buf, size_t room);
ssize_t index_xattr_list(struct index *ix, uint64_t ino, char *buf, size_t room);
int index_xattr_remove(struct index *ix, uint64_t ino, const char *name, int64_t now);

/* ---- the life of a file (life.c) ---- */

/* Something may change the bytes: generation + 1, state OPEN.  *ret_was is the row before; the
 * caller gives the staged file the row's mtime, which it owns from now on.
 * When that was STORED or REMOTE the caller must index_sync() before the bytes can change. */
int index_mark_open(struct index *ix, uint64_t ino, struct inode *ret_was, struct inode *ret_inode);

/* What the staged file looks like now. */
#define STAGED_ATIME_OMIT INT64_MIN	/* as UTIME_OMIT: the row's stays */
struct staged_stat {
	uint64_t size;
	int64_t atime, mtime, ctime;	/* its ctime is tbfs's own business, no user's */
	bool dense;			/* as INODE_DENSE */
};
/* A writer closed (or synced): remember it, and queue the upload.  The row's ctime moves only
 * when the bytes did, which the staged mtime tells. */
int index_mark_flushed(struct index *ix, uint64_t ino, const struct staged_stat *st,
    const struct quiet *quiet);
int index_mark_synced(struct index *ix, uint64_t ino, uint64_t generation);
/* Quiet: OPEN of this generation becomes DIRTY, or what it was before when !changed, as is what was derived
 * from it; its derivation is queued.  -ESTALE when the generation moved. */
int index_mark_quiet(struct index *ix, uint64_t ino, uint64_t generation, bool changed,
    const struct staged_stat *st, struct inode *ret_inode);
int index_mark_torn(struct index *ix, uint64_t ino);
/* The latest ctime of all; 0 of an empty index. */
int index_newest_change(struct index *ix, int64_t *ret_ctime);
/* What is torn at or below `dir` is to be stored as it is.  Returns how many. */
int index_accept_torn(struct index *ix, uint64_t dir);
/* The staged bytes of what was not stored are lost: back to the last stored ones, torn. */
int index_mark_lost(struct index *ix, uint64_t ino);
int index_mark_remote(struct index *ix, uint64_t ino, uint64_t generation);
int index_mark_whole(struct index *ix, uint64_t ino, uint64_t generation, int64_t staged_mtime);

/* All regular files in the given state with ino > after, in order of ino; up to max. */
int index_list_state(struct index *ix, enum object_state state, uint64_t after,
    struct inode *ret_inodes, size_t max);

/* ---- work (work.c) ---- */

/* What is to be done, one row each: (kind, id) is unique. */
enum work_kind {
	WORK_UPLOAD = 1,		/* id = inode: settle it, then store it */
	WORK_RELOCATE = 2,		/* id = inode: its object's key isn't its path */
	WORK_REMOVE = 3,		/* id = object: delete it in the backend */
	WORK_EXPAND = 4,		/* id = directory that was renamed: relocate what is below */
	WORK_FREE = 5,			/* id = inode: unlink its staged file */
	WORK_DERIVE = 6,		/* id = inode: make thumbnails and metadata */
	WORK_KEEP = 7,			/* id = keep directory: write its meta.json */
};

/* What a piece of work waits for that no attempt of ours brings nearer. */
enum work_wait {
	WAIT_NONE = 0,
	WAIT_WRITER = 1,		/* somebody has it open, or mapped, for writing */
	WAIT_KEY = 2,			/* another object owns the key */
	WAIT_RENAME = 3,		/* its name is a temporary one */
};

struct work {
	enum work_kind kind;
	uint64_t id;
	int64_t since;			/* wall clock ns when it was queued first */
	int64_t due;			/* wall clock ns */
	unsigned attempts;
	bool stuck;			/* will not succeed without somebody: shown, kept, retried on request */
	enum work_wait wait;
	char error[256];		/* last failure, "" if none */
};

int index_work_add(struct index *ix, enum work_kind kind, uint64_t id, int64_t due);
int index_work_get(struct index *ix, enum work_kind kind, uint64_t id, struct work *ret_work);
/* Up to max rows of a kind with due <= now (INT64_MAX: all) that are not stuck, oldest first. */
int index_work_due(struct index *ix, enum work_kind kind, int64_t now, struct work *ret_work,
    size_t max);
/* When the next row of a kind is due; -ENOENT: there is none. */
int index_work_next(struct index *ix, enum work_kind kind, int64_t *ret_due);
int index_work_done(struct index *ix, enum work_kind kind, uint64_t id);
int index_work_done_many(struct index *ix, const struct work *work, size_t n);
/* The upload of a file that is stored, or gone, is not needed; of any other it stays. */
int index_upload_needless(struct index *ix, uint64_t ino);
int index_upload_all(struct index *ix);
/* Not now.  Waiting for a key counts as an attempt. */
int index_work_defer(struct index *ix, enum work_kind kind, uint64_t id, int64_t due,
    enum work_wait wait);
int index_work_failed(struct index *ix, enum work_kind kind, uint64_t id, int64_t due, bool stuck,
    const char *error);
/* Due now, not stuck, attempts 0: what failed of what lies at or below `dir` (INDEX_ROOT: all of
 * it).  Returns how many. */
int index_work_retry(struct index *ix, enum work_kind kind, uint64_t dir);
int index_work_each(struct index *ix, enum work_kind kind, bool failed_only,
    bool (*fn)(void *arg, const struct work *w), void *arg);

/* The same for what lies at or below `dir` (INDEX_ROOT: everywhere): fn sees each row; and
 * `hurry` makes them due now, with failed_too also those that wait after a failure.  Objects' removals belong to nobody's subtree but the root's. */
int index_work_below(struct index *ix, enum work_kind kind, uint64_t dir,
    bool (*fn)(void *arg, const struct work *w), void *arg);
int index_work_hurry(struct index *ix, enum work_kind kind, uint64_t dir, bool failed_too);

struct index_status {
	struct { uint64_t count, bytes; } state[OBJECT_REMOTE + 1];
	uint64_t work[WORK_KEEP + 1], stuck, failing;
	int64_t oldest_unstored;	/* wall clock ns of the oldest change not stored; 0: none */
};
int index_status(struct index *ix, struct index_status *ret_status);

/* ---- what is below a directory, and how much may be (usage.c, quota.c) ---- */

/* Files are all that are no directories, an inode with several names once, where the oldest
 * stands; bytes are the sizes of the regular ones.  What is derived doesn't count. */
struct usage {
	int64_t bytes, files;
};
int index_usage(struct index *ix, uint64_t dir, struct usage *ret_usage);

/* A directory's limits: each 0 when there is none. */
struct quota {
	uint64_t dir;
	struct usage limit, used;
};
int index_quota_set(struct index *ix, uint64_t dir, const struct usage *limit);
int index_quota_each(struct index *ix, int (*fn)(void *arg, const struct quota *q), void *arg);
/* Does any directory have a limit? */
bool index_has_quotas(const struct index *ix);
/* What still fits where an inode stands, for bytes and files each as the tightest limit has it;
 * -ENOENT there is none. */
int index_quota_room(struct index *ix, uint64_t ino, struct quota *ret_room);

/* Names and sizes that would exceed a limit are refused with -EDQUOT by index_create(),
 * index_link() and index_rename().  For bytes that are about to be written: between these two
 * an inode is metered, 1, or 0 when no limit is above it. */
int index_meter_begin(struct index *ix, uint64_t ino);
void index_meter_end(struct index *ix, uint64_t ino);
/* A metered file is to grow to `size`; -EDQUOT.  It has been cut, or hasn't grown after all. */
int index_meter_grow(struct index *ix, uint64_t ino, uint64_t size);
void index_meter_cut(struct index *ix, uint64_t ino, uint64_t size);

/* ---- objects (object.c, transfer.c) ---- */

enum object_status {
	OBJECT_PUTTING = 1,		/* owned; nothing confirmed yet */
	OBJECT_KEPT = 2,		/* holds `generation` */
	OBJECT_REMOVING = 3,
};

struct object {
	uint64_t id;
	enum object_status status;
	char backend[64];
	char key[1025];
	uint64_t ino;
	uint64_t generation;		/* the one it holds, confirmed */
	uint64_t put_generation;	/* in flight, or its end is unknown; 0: none */
	uint64_t size;
	uint8_t sha256[SHA256_LEN];
	char etag[96];
	uint64_t seq;
	bool linked;			/* shares its blocks with the staged file */
	int64_t begun;			/* wall clock ns when put_generation or the removal was sent; 0: not */
};

struct upload {
	struct object object;		/* where this generation goes */
	struct inode inode;
	bool settle;			/* the key may still receive an older generation: ask it first */
	uint64_t unsettled;		/* that generation */
};

/* Claim an inode for upload: DIRTY at this moment, its key owned, the put recorded as begun
 * (durable with the next index_sync()).  `key` is where it belongs; NULL, or owned by somebody
 * else, or `side`: the object gets a key of its own, .tbfs/o/<id>.
 * The caller has synced the bytes of this generation.
 * -ESTALE not DIRTY (any more), or another generation; -EBUSY the key is being removed: come
 * back. */
int index_upload_begin(struct index *ix, uint64_t ino, uint64_t generation, const char *backend,
    const char *key, bool side, int64_t now, struct upload *ret_up);
/* The object holds this generation.  Returns 1 when the inode is STORED by it, 0 when it had
 * moved on (the object then waits for the next). */
int index_upload_done(struct index *ix, const struct upload *up, const struct object *stored,
    int64_t now);
/* The put is known not to have happened (or to have been cancelled before its end). */
int index_upload_undo(struct index *ix, uint64_t object);

/* Does a store hold bytes of this inode, or may it, since a put has begun?  1, 0 or -errno. */
int index_has_stored(struct index *ix, uint64_t ino);
/* Is anything stored in this backend, or still to be removed there?  1, 0 or -errno. */
int index_has_objects(struct index *ix, const char *backend);
/* Has this backend ever worked for this index? */
bool index_backend_used(struct index *ix, const char *backend);
/* It works, and is at this address: what of its configuration says where the objects are. */
int index_mark_backend_used(struct index *ix, const char *backend, const char *address);
/* Where it was when it worked last; -ENOENT.  malloc'd. */
int index_backend_address(struct index *ix, const char *backend, char **ret_address);
/* The first and the last object that are stored there: 2, or 0 when there is none. */
int index_object_ends(struct index *ix, const char *backend, struct object ret_objects[2]);
/* No put is under way any more, but the key may hold what one of them left: it stays ours, to be
 * overwritten or removed. */
int index_upload_settled(struct index *ix, uint64_t object);
/* A put ended without an answer: until it is settled, count from now. */
int index_upload_uncertain(struct index *ix, uint64_t object, int64_t now);
/* We died: so did whatever was under way, but for what a server may still do.  In the backend `ours`
 * there is no server. */
int index_uploads_cut_off(struct index *ix, const char *ours, int64_t now);
int index_object_get(struct index *ix, uint64_t id, struct object *ret_object);

struct move {
	struct object from, to;
	struct inode inode;
};
/* Claim a relocation to `key`: a new object row that owns it; or, with force_side, to break a swap or
 * where the path is no key (NULL), a side key.  -EALREADY it is where it belongs, and the work row is
 * done; -ESTALE it isn't stored now; -EBUSY the key is owned by somebody who will leave. */
int index_relocate_begin(struct index *ix, uint64_t ino, const char *key, bool force_side,
    int64_t now, struct move *ret_move);
/* A copy that failed leaves the claim as it is: the next try finds and repeats it. */
/* The copy is confirmed: switch and remove the source.  `tag` fields come in move->to. */
int index_relocate_done(struct index *ix, const struct move *move, int64_t now);

/* Mark a removal as begun; -ENOENT nothing to remove; -EBUSY somebody is writing to the key. */
int index_remove_begin(struct index *ix, uint64_t object, int64_t now, struct object *ret_object);
int index_remove_done(struct index *ix, uint64_t object);

/* After a restart: what was begun and has no known end. */
int index_objects_begun(struct index *ix, uint64_t after, struct object *ret_objects, size_t max);
/* The object shares its blocks with the staged file of o->ino, or may; or it doesn't any more.  Nothing is
 * said of another's. */
int index_object_linked(struct index *ix, const struct object *o, bool linked);
/* Queue the relocation of every stored file below `dir`; ends the work row of `dir`. */
int index_expand(struct index *ix, uint64_t dir, int64_t due);

/* ---- derivation (derive.c) ---- */

struct derivation {
	uint64_t ino;			/* the original */
	uint64_t generation;		/* what was derived */
	unsigned version;		/* of the pipeline */
	bool failed;
	uint64_t keep;			/* where its derivatives stand: below this keep, */
	char *path;			/* in thumbs/<path>/; malloc'd */
	char *json;			/* its entry in meta.json without size and mtime, or ""; malloc'd */
};
/* The place, where nobody else's derivatives stand, is this original's from now on: whatever it has
 * elsewhere must be gone.  It counts as derived when index_derived_set() says so. */
int index_derived_begin(struct index *ix, uint64_t ino, uint64_t keep, const char *path);
/* Whose place it is; -ENOENT: nobody's. */
int index_derived_at(struct index *ix, uint64_t keep, const char *path, uint64_t *ret_ino);
/* Remember what was derived from this generation, and that the keep's meta.json is to be
 * written at `keep_due`; -ESTALE when the generation moved. */
int index_derived_set(struct index *ix, const struct derivation *d, int64_t keep_due);
int index_derived_get(struct index *ix, uint64_t ino, struct derivation *ret_d);
/* The derivatives have moved with their original. */
int index_derived_moved(struct index *ix, uint64_t ino, uint64_t keep, const char *path);
/* Are there places below this one?  1 yes, 0 no: a file's name may become a directory's. */
int index_derived_below(struct index *ix, uint64_t keep, const char *path);
/* The derivatives are gone, or are to be made again. */
int index_derived_forget(struct index *ix, uint64_t ino);
/* It has no name any more: what was derived from it is the business of its reaping, which leaves
 * `rm -r` the time to get there first. */
int index_derive_unnamed(struct index *ix, uint64_t ino);
/* How many originals could not be derived. */
uint64_t index_derive_failed(struct index *ix);
void derivation_release(struct derivation *d);

/* The keep's meta.json is to be written; index_keep_done() ends that unless it was asked for
 * again since. */
int index_keep_touch(struct index *ix, uint64_t keep, int64_t due);
int index_keep_done(struct index *ix, uint64_t keep, int64_t since);

struct keep_file {
	const char *path;		/* below the keep; valid during the call */
	struct inode inode;
	const char *json;
};
/* Originals of a keep that have been derived, in order of path. */
int index_keep_files(struct index *ix, uint64_t keep,
    bool (*fn)(void *arg, const struct keep_file *f), void *arg);

/* Queue the derivation of every original at or below `dir`, except what is known to be
 * where it belongs already; returns how many. */
int index_derive_below(struct index *ix, uint64_t dir, int64_t due);
/* There is a processor, or there is none: then nothing is queued for it, and when there is one
 * again all that became quiet meanwhile is. */
int index_derive_switch(struct index *ix, bool on);
/* What is not derived at or below `dir`: files that are open for writing, or not quiet yet; and derivations to be
 * done, or under way, of others.  Without what is stuck. */
int index_derive_left_below(struct index *ix, uint64_t dir, uint64_t *ret_open, uint64_t *ret_waiting);
/* Queue what could not be derived at or below `top`; how many. */
int index_derive_retry(struct index *ix, uint64_t top);
/* The derivatives of what is at or below `top` are gone: queue it, to be decoded again. */
int index_derive_again(struct index *ix, uint64_t top, int64_t due);
/* The pipeline has this version now: queue every original whose bytes are here and that was
 * derived by another; how many. */
int index_derive_outdated(struct index *ix, unsigned version);

#endif
