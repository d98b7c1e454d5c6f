/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * After a start: what the index says against what the staging cache holds.
 *
 *  row                          staged file               becomes
 *  OPEN, DIRTY                  as at the last commit     OPEN, upload queued
 *  OPEN, DIRTY, synced          differs                   OPEN with what is there
 *  OPEN, DIRTY, never synced    power cut                 OPEN and torn; not uploaded over a stored one
 *  the same, has an object      the object's bytes        OPEN
 *  DIRTY, never synced, old     power cut, as committed   OPEN: the kernel has written it back long ago
 *  OPEN, DIRTY, has an object   missing                   REMOTE, torn: the last stored bytes
 *  any                          missing, but another one has its place: that takes the name
 *  OPEN, DIRTY, no object       missing                   row dropped
 *  STORED                       differs, power cut        REMOTE: the object is the truth
 *  STORED                       differs, else             OPEN with a new generation
 *  STORED                       missing                   REMOTE
 *  none, the index is new       exists                    restored by its place, or lost+found
 *  none, the daemon only died   exists                    the same: the index has lost its last commits
 *  none, power cut              exists                    lost+found
 *  none, unlinked               exists                    removed
 *  REMOTE                       exists                    staged file freed
 *
 * When only the daemon died, what was written is there: a file that was being written has
 * the bytes that its writer was told of, as on any disk, and is not torn.
 *
 * Inode numbers are given out only below a durable limit, so a staged file without a row
 * can't be taken for a new file's.
 */
#include "core/node.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BATCH = 256 };

/* By then the kernel has written back what nobody changes any more (half a minute by default). */
#define WRITTEN_BACK_NS (300 * NSEC_PER_SEC)

static int
queue_upload(struct core *c, const struct inode *inode, const struct stat *st)
{
	struct quiet quiet = quiet_for(c, NULL);
	struct staged_stat staged;

	stat_to_staged(c, st, &staged);
	/* utimensat() after the last flush must not be undone by the staged file's time. */
	if (staged.mtime == inode->staged_mtime)
		staged.mtime = inode->mtime;
	return index_mark_flushed(c->ix, inode->ino, &staged, &quiet);
}

/*
 * Rows whose staged bytes aren't there.  Bytes are freed only after the commit that says so
 * is on the disk (invariant 2); so such a row is older than what the disk holds, and what
 * took its name since is found by its place.
 */
struct missing {
	struct inode *rows;
	size_t n, room;
};

static int
missing_add(struct missing *m, const struct inode *inode)
{
	if (m->n == m->room) {
		size_t room = m->room ? m->room * 2 : 64;
		struct inode *rows = realloc(m->rows, room * sizeof(*rows));

		if (rows == NULL)
			return -ENOMEM;
		m->rows = rows;
		m->room = room;
	}
	m->rows[m->n++] = *inode;
	return 0;
}

static bool
missing_take(struct missing *m, uint64_t ino)
{
	size_t i;

	for (i = 0; i < m->n; i++) {
		if (m->rows[i].ino == ino) {
			m->rows[i] = m->rows[--m->n];
			return true;
		}
	}
	return false;
}

/* The name parent/name is a missing row's: free it for who has it by its place.  1 done, 0 it
 * is somebody else's or nobody's. */
static int
missing_yield(struct core *c, struct missing *m, uint64_t parent, const char *name)
{
	struct inode row, gone;
	int r = m->n == 0 ? -ENOENT : index_lookup(c->ix, parent, name, &row);

	if (r == -ENOENT || (r == 0 && !missing_take(m, row.ino)))
		return 0;
	if (r == 0)
		r = index_unlink(c->ix, parent, name, clock_wall_ns(), &gone);
	return r < 0 ? r : 1;
}

/* What nobody replaced: the stored bytes where there are some, else the row goes. */
static int
missing_end(struct core *c, const struct inode *inode, struct recovery *rec)
{
	uint64_t parent;
	char name[INDEX_NAME_MAX + 1];
	struct inode gone;

	if (inode->object != 0) {
		rec->rehydrate++;
		return inode->state == OBJECT_STORED ?
		    index_mark_remote(c->ix, inode->ino, inode->generation) :
		    index_mark_lost(c->ix, inode->ino);
	}
	rec->dropped++;
	while (index_place(c->ix, inode->ino, &parent, name) == 0) {
		int r = index_unlink(c->ix, parent, name, clock_wall_ns(), &gone);

		if (r < 0)
			return r;
		if (inode->synced_generation == inode->generation)
			log_err("inode %ju, %s: its staged bytes are gone; a later change that the index no "
			    "longer knows removed them, or the disk lost them", (uintmax_t)inode->ino, name);
	}
	return 0;
}

/* Are the staged bytes those of the object? */
static bool
is_objects(struct core *c, uint64_t ino, const struct object *object)
{
	CLEANUP_CLOSE int fd = staging_open(c->st, ino, O_RDONLY);
	uint8_t sum[SHA256_LEN];
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size == object->size &&
	    sha256_fd(fd, 0, object->size, sum) == 0 && memcmp(sum, object->sha256, SHA256_LEN) == 0;
}

/*
 * After a power cut: may the bytes of this generation, which nobody synced, be a mixture?  Those
 * that were written in place may be lost although size and time survived.  Only the checksum of
 * an object tells that the file is still what was stored, whatever its time says, and its age
 * that it is on the disk.
 */
static bool
is_doubtful(struct core *c, const struct inode *inode, const struct recovery *rec, bool differs)
{
	struct object object;

	if (inode->object != 0 && index_object_get(c->ix, inode->object, &object) == 0)
		return !is_objects(c, inode->ino, &object);
	return differs || inode->state != OBJECT_DIRTY ||
	    inode->ctime > rec->newest - WRITTEN_BACK_NS;
}

/* OPEN or DIRTY when the daemon went. */
static int
recover_unstored(struct core *c, const struct inode *inode, struct recovery *rec)
{
	struct inode was, row;
	struct stat st;
	bool differs;
	int r = staging_stat(c->st, inode->ino, &st);

	if (r == -ENOENT)
		return missing_add(rec->missing, inode);
	if (r < 0)
		return r;
	rec->open++;
	differs = (uint64_t)st.st_size != inode->size ||
	    timespec_to_ns(st.st_mtim) != inode->staged_mtime;
	if (inode->state == OBJECT_DIRTY)
		r = differs ? index_mark_open(c->ix, inode->ino, &was, &row) : 0;
	if (r == 0 && (inode->state == OBJECT_OPEN || differs))
		r = queue_upload(c, inode, &st);
	if (r == 0 && (inode->flags & INODE_TORN) != 0)
		r = index_mark_torn(c->ix, inode->ino);
	if (r == 0 && rec->power_cut && inode->synced_generation != inode->generation &&
	    inode->staged_mtime != 0 && is_doubtful(c, inode, rec, differs)) {
		rec->torn++;
		r = index_mark_torn(c->ix, inode->ino);
	}
	if (r == 0 && inode->state == OBJECT_DIRTY && !differs)
		r = index_work_add(c->ix, WORK_UPLOAD, inode->ino, clock_wall_ns());
	return r;
}

static int
recover_stored(struct core *c, const struct inode *inode, struct recovery *rec)
{
	struct inode was, row;
	struct stat st;
	int r = staging_stat(c->st, inode->ino, &st);

	if (r == -ENOENT)
		return missing_add(rec->missing, inode);
	if (r < 0)
		return r;
	if ((uint64_t)st.st_size == inode->size && timespec_to_ns(st.st_mtim) == inode->staged_mtime)
		return 0;
	if (rec->power_cut) {
		/* Leaving STORED is synced before a byte can change: the object is the truth, and what
		 * is here never reached the disk whole. */
		rec->rehydrate++;
		r = staging_remove(c->st, inode->ino);
		return r < 0 ? r : index_mark_remote(c->ix, inode->ino, inode->generation);
	}
	r = index_mark_open(c->ix, inode->ino, &was, &row);
	return r < 0 ? r : queue_upload(c, inode, &st);
}

static int
recover_state(struct core *c, enum object_state state, struct recovery *rec,
    int (*one)(struct core *, const struct inode *, struct recovery *))
{
	struct inode inodes[BATCH];
	uint64_t after = 0;
	int n, i, r = 0;

	while (r >= 0 && (n = index_list_state(c->ix, state, after, inodes, BATCH)) > 0) {
		for (i = 0; i < n && r >= 0; i++)
			r = one(c, &inodes[i], rec);
		after = inodes[n - 1].ino;
	}
	return r;
}

/* ---- staged files without a row ---- */

struct lost {
	struct core *c;
	struct inos inos;
	struct recovery *rec;
};

/* A row whose staged file has moved on: to the name of a missing one, or, when the index is
 * behind, to a free one. */
static int
follow_place(struct core *c, const struct recovery *rec, const struct inode *inode)
{
	struct quiet quiet = quiet_for(c, NULL);
	char name[INDEX_NAME_MAX + 1];
	struct staging_place place;
	struct index_renamed done;
	uint64_t parent;
	int r;

	if (staging_place_read(c->st, inode->ino, &place) < 0 || place.mode == 0 ||
	    index_place(c->ix, inode->ino, &parent, name) < 0 ||
	    (parent == place.parent && strcmp(name, place.name) == 0))
		return 0;
	r = missing_yield(c, rec->missing, place.parent, place.name);
	if (r < 0 || (r == 0 && !rec->behind))
		return r;
	/* Which of a hard link's names is noted doesn't say that it was renamed. */
	if (r == 0 && !S_ISDIR(inode->mode) && inode->nlink > 1)
		return 0;
	r = index_rename(c->ix, parent, name, place.parent, place.name, INDEX_NOREPLACE, &quiet, &done);
	return r == -EEXIST || r == -ENOENT || r == -EINVAL ? 0 : r;
}

static int
follow_one(void *arg, uint64_t ino)
{
	const struct lost *l = arg;
	struct inode inode;

	return index_get(l->c->ix, ino, &inode) < 0 ? 0 : follow_place(l->c, l->rec, &inode);
}

static int
collect_lost(void *arg, uint64_t ino)
{
	struct lost *l = arg;
	struct inode inode;
	struct work work;
	int r = index_get(l->c->ix, ino, &inode);

	index_ino_above(l->c->ix, ino);
	if (r == 0 && l->rec->missing->n > 0)
		r = follow_place(l->c, l->rec, &inode);
	if (r == 0 && inode.state == OBJECT_REMOTE) {
		l->rec->freed++;
		return index_work_add(l->c->ix, WORK_FREE, ino, clock_wall_ns());
	}
	if (r != -ENOENT)
		return r;
	/* Its row is gone on purpose: the bytes only wait to be freed. */
	if (index_work_get(l->c->ix, WORK_FREE, ino, &work) == 0)
		return 0;
	return inos_add(&l->inos, ino);
}

static int
lost_and_found(struct core *c, uint64_t *ret_ino)
{
	struct caller root = { .umask = 077 };
	struct inode dir;
	struct attr attr;
	int r = index_lookup(c->ix, INDEX_ROOT, "lost+found", &dir);

	if (r == 0) {
		*ret_ino = dir.ino;
		return 0;
	}
	r = core_mkdir(c, INDEX_ROOT, "lost+found", 0700, &root, &attr);
	if (r == 0) {
		core_forget(c, attr.inode.ino, 1);
		*ret_ino = attr.inode.ino;
	}
	return r;
}

static void
lost_inode(const struct staging_place *place, uint64_t ino, const struct stat *st,
    struct inode *ret_inode)
{
	int64_t mtime = timespec_to_ns(st->st_mtim);

	*ret_inode = (struct inode){ .ino = ino, .mode = place->mode, .uid = place->uid,
		.gid = place->gid, .flags = place->flags & INODE_DERIVED, .nlink = 1,
		.size = (uint64_t)st->st_size, .mtime = mtime, .ctime = mtime, .btime = mtime,
		.atime = timespec_to_ns(st->st_atim), .staged_mtime = mtime,
		.generation = place->generation + 1, .state = OBJECT_OPEN };
	if (S_ISDIR(ret_inode->mode))
		*ret_inode = (struct inode){ .ino = ino, .mode = place->mode, .uid = place->uid,
			.gid = place->gid, .flags = ret_inode->flags, .nlink = 2, .mtime = mtime,
			.ctime = mtime, .btime = mtime, .atime = mtime };
}

/* Put one back: 1 done, 0 its parent isn't there (yet). */
static int
restore_one(struct core *c, struct recovery *rec, uint64_t ino, bool last_chance)
{
	bool by_place = index_is_new(c->ix) || rec->behind;
	struct staging_place place = { .mode = S_IFREG | 0600 };
	struct inode inode, parent;
	struct stat st;
	uint64_t found;
	char name[300];
	int r = staging_stat(c->st, ino, &st), p;

	if (r < 0)
		return r;
	p = staging_place_read(c->st, ino, &place);
	if (p == 0 && place.mode == 0) {
		r = staging_remove(c->st, ino);
		return r < 0 ? r : 1;
	}
	lost_inode(&place, ino, &st, &inode);
	/* Names come back when the index is lost or behind; beside one that knows better they don't,
	 * unless the bytes of who has the name are gone. */
	r = p == 0 ? missing_yield(c, rec->missing, place.parent, place.name) : 0;
	if (r < 0)
		return r;
	if (p == 0 && (r > 0 || by_place) && index_get(c->ix, place.parent, &parent) == 0) {
		r = index_restore(c->ix, &inode, place.parent, place.name);
		if (r == 0)
			return 1;
		if (r != -EEXIST && r != -ENOTDIR && r != -ENOENT)
			return r;
	}
	if (!last_chance && by_place)
		return 0;
	r = lost_and_found(c, &found);
	(void)snprintf(name, sizeof(name), "%ju", (uintmax_t)ino);
	if (r == 0)
		r = index_restore(c->ix, &inode, found, name);
	return r < 0 ? r : 1;
}

static int
restore_lost(struct core *c, struct lost *l)
{
	bool progress = true;
	size_t left = l->inos.n, i;
	int r;

	/* Parents first: go round as long as something finds its place. */
	while (left > 0) {
		size_t before = left;

		for (i = 0; i < l->inos.n; i++) {
			if (l->inos.inos[i] == 0)
				continue;
			r = restore_one(c, l->rec, l->inos.inos[i], !progress);
			if (r < 0)
				return r;
			if (r == 0)
				continue;
			l->inos.inos[i] = 0;
			l->rec->restored++;
			left--;
		}
		progress = left < before;
	}
	return 0;
}

int
core_recover(struct core *c, enum index_end end, struct recovery *ret_recovery,
    struct error *err)
{
	struct missing missing = { .rows = NULL };
	struct recovery rec = { .power_cut = end == INDEX_POWER_CUT, .missing = &missing };
	struct lost lost = { .c = c, .rec = &rec };
	size_t i;
	int r;

	r = rec.power_cut ? index_newest_change(c->ix, &rec.newest) : 0;
	if (r >= 0)
		r = recover_state(c, OBJECT_OPEN, &rec, recover_unstored);
	if (r >= 0)
		r = recover_state(c, OBJECT_DIRTY, &rec, recover_unstored);
	if (r >= 0 && end != INDEX_ENDED_WELL)
		r = recover_state(c, OBJECT_STORED, &rec, recover_stored);
	if (r >= 0 && (end != INDEX_ENDED_WELL || index_is_new(c->ix) || missing.n > 0))
		r = staging_scan(c->st, collect_lost, &lost);
	/* No power failed, so nothing of what was committed can be missing from the index, unless
	 * somebody cut its log off. */
	rec.behind = end == INDEX_KILLED && !index_is_new(c->ix) && lost.inos.n > 0;
	if (rec.behind)
		log_err("the index has lost its last changes (its log is damaged): %zu files that it doesn't "
		    "know are put back by what is noted beside their bytes", lost.inos.n);
	if (r >= 0)
		r = restore_lost(c, &lost);
	if (r >= 0 && rec.behind)
		r = staging_scan(c->st, follow_one, &lost);
	for (i = 0; i < missing.n && r >= 0; i++)
		r = missing_end(c, &missing.rows[i], &rec);
	missing.n = 0;
	if (r >= 0 && rec.restored > 0)
		r = recover_state(c, OBJECT_OPEN, &rec, recover_unstored);
	free(missing.rows);
	free(lost.inos.inos);
	rec.missing = NULL;
	if (r < 0)
		return error_set(err, r, "index and staging cache can't be brought together: %s",
		    strerror(-r));
	core_collect(c, true);
	*ret_recovery = rec;
	return 0;
}
