/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Where derivatives stand, and how they follow their originals.
 *
 *   1. A place, thumbs/<path>/ of a keep, is one original's from before the first file is there
 *      until the last is gone: the row of its derivation says so.
 *   2. Who is found at that path takes the place from whoever was there before it.
 *   3. Places are looked at and changed by one job at a time, between place_begin() and place_end().
 */
#include "processor/private.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static void
keep_touch(struct processor *p, uint64_t keep)
{
	(void)index_keep_touch(p->ix, keep, clock_wall_ns() + KEEP_DELAY_NS);
}

static void
place_begin(struct processor *p)
{
	lock_take(&p->lock);
	while (p->placing)
		(void)lock_wait(&p->lock, &p->placed, 0);
	p->placing = true;
	lock_drop(&p->lock);
}

void
place_end(struct processor *p)
{
	lock_take(&p->lock);
	p->placing = false;
	(void)pthread_cond_signal(&p->placed);
	lock_drop(&p->lock);
}

int
place_find(struct processor *p, uint64_t ino, struct keep_path *ret_k)
{
	struct inode row;

	if (index_get(p->ix, ino, &row) < 0 || row.nlink == 0 || !S_ISREG(row.mode) ||
	    (row.flags & INODE_DERIVED) != 0 || core_keep_path(p->core, ino, ret_k) < 0)
		return -ENOENT;
	if (strncmp(ret_k->rest, "thumbs/", 7) != 0)
		return 0;
	keep_path_release(ret_k);
	return -ENOENT;
}

int
place_begin_at(struct derive *d)
{
	struct keep_path now;

	place_begin(d->p);
	if (place_find(d->p, d->inode.ino, &now) < 0) {
		place_end(d->p);
		return -ESTALE;
	}
	keep_path_release(&d->at);
	d->at = now;
	return 0;
}

static bool
is_original(struct processor *p, uint64_t ino)
{
	struct keep_path at;

	if (place_find(p, ino, &at) < 0)
		return false;
	keep_path_release(&at);
	return true;
}

static bool
is_at(const struct derive *d, uint64_t keep, const char *path)
{
	return keep == d->at.ino && strcmp(path, d->at.rest) == 0;
}

/* What was derived goes from where it stands. */
static int
withdraw(struct processor *p, const struct derivation *d)
{
	CLEANUP_FREE char *thumbs = NULL;
	int r;

	if (asprintf(&thumbs, "thumbs/%s", d->path) < 0)
		return -ENOMEM;
	r = core_derived_clear(p->core, d->keep, thumbs);
	keep_touch(p, d->keep);
	return r < 0 ? r : index_derived_forget(p->ix, d->ino);
}

/* Whose derivatives stand where this one's belong is elsewhere, or gone: it looks for itself. */
static int
take_place(const struct derive *d)
{
	struct derivation other = { .keep = d->at.ino, .path = d->at.rest };
	struct inode row;
	int r = index_derived_at(d->p->ix, d->at.ino, d->at.rest, &other.ino);

	if (r < 0 || other.ino == d->inode.ino)
		return r == -ENOENT ? 0 : r;
	/* First, or nobody would look if we died in between.  Who is open is looked at when he is quiet. */
	if (index_get(d->p->ix, other.ino, &row) == 0 && row.nlink > 0 && row.state != OBJECT_OPEN)
		r = index_work_add(d->p->ix, WORK_DERIVE, other.ino, clock_wall_ns());
	return r < 0 ? r : withdraw(d->p, &other);
}

/* What was derived from it and stands elsewhere goes. */
static int
leave_place(const struct derive *d)
{
	struct derivation v;
	int r = index_derived_get(d->p->ix, d->inode.ino, &v);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (!is_at(d, v.keep, v.path))
		r = withdraw(d->p, &v);
	derivation_release(&v);
	return r;
}

int
place_claim(const struct derive *d)
{
	int r = leave_place(d);

	if (r == 0)
		r = take_place(d);
	return r < 0 ? r : index_derived_begin(d->p->ix, d->inode.ino, d->at.ino, d->at.rest);
}

void
place_forget(struct processor *p, uint64_t ino)
{
	struct derivation d;

	place_begin(p);
	if (is_original(p, ino)) {
		place_end(p);
		return;			/* it came back: this job's row is due */
	}
	if (index_derived_get(p->ix, ino, &d) == 0) {
		(void)withdraw(p, &d);
		derivation_release(&d);
	}
	place_end(p);
	(void)index_work_done(p->ix, WORK_DERIVE, ino);
	/* Or since; what was queued for that went with the row. */
	if (is_original(p, ino))
		(void)index_work_add(p->ix, WORK_DERIVE, ino, clock_wall_ns());
}

void
place_look_again(const struct derive *d)
{
	const struct inode *i = &d->inode;
	struct keep_path now = { .rest = NULL };
	struct inode row;

	if (index_get(d->p->ix, i->ino, &row) < 0)
		return;
	if (place_find(d->p, i->ino, &now) < 0 || !is_at(d, now.ino, now.rest) ||
	    row.generation != i->generation || row.mode != i->mode || row.uid != i->uid || row.gid != i->gid ||
	    row.mtime != i->mtime)
		(void)index_work_add(d->p->ix, WORK_DERIVE, i->ino, clock_wall_ns());
	keep_path_release(&now);
}

struct derived_file
place_like(const struct derive *d)
{
	return (struct derived_file){ .keep = d->at.ino, .mode = d->inode.mode & 0666, .uid = d->inode.uid,
		.gid = d->inode.gid, .mtime = d->inode.mtime };
}

static bool
has_thumbs(const struct derivation *v)
{
	json_t *entry = json_loads(v->json, 0, NULL);
	bool some = json_array_size(json_object_get(entry, "thumbs")) > 0;

	json_decref(entry);
	return some;
}

static int
move(const struct derive *d, const struct derivation *v)
{
	struct derived_file f = place_like(d);
	CLEANUP_FREE char *from = NULL;
	CLEANUP_FREE char *to = NULL;
	char *slash;
	int r;

	if (asprintf(&from, "thumbs/%s", v->path) < 0 || asprintf(&to, "thumbs/%s", d->at.rest) < 0)
		return -ENOMEM;
	slash = strrchr(to, '/');
	*slash = '\0';
	f.dir_path = to;
	f.name = slash + 1;
	/* Another's would move along. */
	r = index_derived_below(d->p->ix, v->keep, v->path) != 0 ? -ENOTEMPTY : take_place(d);
	if (r == 0)
		r = core_derived_rename(d->p->core, &f, v->keep, from);
	if (r < 0 && (r != -ENOENT || has_thumbs(v)))
		return r;
	(void)core_derived_remove_empty(d->p->core, v->keep, from);
	if (v->keep != d->at.ino)
		keep_touch(d->p, v->keep);
	return index_derived_moved(d->p->ix, v->ino, d->at.ino, d->at.rest);
}

static bool
follow_here(const struct derive *d)
{
	struct derived_file f = place_like(d);
	CLEANUP_FREE char *dir = NULL;
	struct derivation v;
	bool ok;

	if (asprintf(&dir, "thumbs/%s", d->at.rest) < 0 || index_derived_get(d->p->ix, d->inode.ino, &v) < 0)
		return false;
	ok = v.version == PIPELINE_VERSION && v.generation == d->inode.generation &&
	    (is_at(d, v.keep, v.path) || move(d, &v) == 0);
	derivation_release(&v);
	if (!ok)
		return false;
	f.dir_path = dir;
	(void)core_derived_attrs(d->p->core, &f);
	keep_touch(d->p, d->at.ino);
	(void)index_work_done(d->p->ix, WORK_DERIVE, d->inode.ino);
	return true;
}

bool
place_follow(struct derive *d)
{
	bool done;

	if (place_begin_at(d) < 0)
		return true;		/* this job's row is still there, and due */
	done = follow_here(d);
	place_end(d->p);
	if (done)
		place_look_again(d);
	return done;
}
