/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * One generation of a file into its object.
 *
 *   settle → choose the key → sync the bytes → claim (durable) → send while nobody writes
 *          → confirm → commit
 *
 *   1. The staged bytes are on the disk before the claim says so, and the claim before the
 *      first byte is sent: after a crash the index knows which keys may hold what, and what
 *      was claimed or STORED is whole here.
 *   2. A generation that is raised meanwhile stops the put; its result is dropped by the
 *      index, which compares.
 *   3. A failure whose end isn't known leaves the key unsettled: the next generation asks
 *      the key first, and takes another when that can't tell.
 */
#include "sync/private.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUSY_WAIT_NS (500 * 1000000LL)

int64_t
retry_time(unsigned attempts)
{
	int64_t wait = NSEC_PER_SEC << (attempts < 4 ? attempts : 4);

	if (wait > 15 * NSEC_PER_SEC)
		wait = 15 * NSEC_PER_SEC;
	return clock_wall_ns() + wait / 2 + (int64_t)(random() % (wait / 2));
}

void
object_from_tag(struct object *o, const struct backend_tag *tag)
{
	o->size = tag->size;
	memcpy(o->sha256, tag->sha256, SHA256_LEN);
	(void)snprintf(o->etag, sizeof(o->etag), "%s", tag->etag);
}

/* What is refused for good: waits for somebody, and is shown. */
static bool
is_final(int r)
{
	return r == -EINVAL || r == -EFBIG || r == -ENOTSUP || r == -ENOENT;
}

static void
upload_failed(struct syncer *s, uint64_t ino, unsigned attempts, int r, const struct error *err)
{
	CLEANUP_FREE char *path = NULL;

	if (attempts == 0 || is_final(r)) {
		(void)index_path(s->ix, ino, &path);
		log_warn("upload of %s (inode %ju): %s%s", path != NULL ? path : "?", (uintmax_t)ino,
		    error_text(err), is_final(r) ? "; it stays here until `tbfs retry`" : "");
	}
	work_failed(s, WORK_UPLOAD, ino, attempts, is_final(r), err);
}

struct upload_job {
	struct syncer *s;
	struct store *store;
	struct node *node;
	struct upload up;
	int fd;
};

static bool
upload_cancelled(void *arg)
{
	const struct upload_job *j = arg;

	return !core_is_current(j->node, j->up.inode.generation) || atomic_load(&j->s->stopping);
}

/* An older generation may be at the key, or on its way there.  0: it is settled, claim again;
 * -EEXIST: take another key. */
static int
settle_key(struct syncer *s, struct store *store, const struct upload *up)
{
	struct backend_tag tag;
	struct error err = { 0 };
	int r = backend_stat(store->backend, up->object.key, &tag, &err);

	if (r < 0 && r != -ENOENT)
		return r;
	/* Without a network a put that isn't there never will be. */
	if ((r == 0 && tag.object_id == up->object.id && tag.generation == up->unsettled) ||
	    strcmp(store->name, "local") == 0)
		return index_upload_settled(s->ix, up->object.id);
	return -EEXIST;
}

/* Claim this generation, whose bytes are on the disk, with a key that is ours alone. */
static int
claim(struct syncer *s, struct store *store, const struct inode *i, const char *key,
    struct upload *ret_up)
{
	const char *name = store->name;
	bool side = false;
	int tries, r;

	for (tries = 0; tries < 3; tries++) {
		r = index_upload_begin(s->ix, i->ino, i->generation, name, key, side, clock_wall_ns(),
		    ret_up);
		if (r < 0 || !ret_up->settle)
			break;
		r = settle_key(s, store, ret_up);
		if (r == -EEXIST)
			side = true;
		else if (r < 0)
			return r;
		r = -EAGAIN;
	}
	return r < 0 ? r : index_sync(s->ix);
}

static int
put(struct upload_job *j, const char *path, struct object *stored, struct error *err)
{
	struct upload *up = &j->up;
	struct object_put call = { .fd = j->fd, .size = up->inode.size,
		.cancelled = upload_cancelled, .cancelled_arg = j,
		.flags = j->s->opt.link ? OBJECT_PUT_MAY_LINK : 0,
		.meta = { .mtime_ns = up->inode.mtime, .mode = up->inode.mode, .uid = up->inode.uid,
			.gid = up->inode.gid, .seq = up->object.seq, .object_id = up->object.id,
			.generation = up->inode.generation, .path = path } };
	struct backend_tag tag;
	bool linked = false;
	int r = backend_put(j->store->backend, up->object.key, &call, &tag, &linked, err);

	if (r < 0)
		return r;
	*stored = up->object;
	object_from_tag(stored, &tag);
	stored->linked = linked;
	return 0;
}

/* The end of a put in the index. */
static void
upload_ended(struct upload_job *j, int r, unsigned attempts, const struct error *err)
{
	struct syncer *s = j->s;

	store_report(j->store, r, err);
	/* Cancelled or refused: nothing new is under the key.  Otherwise that isn't known. */
	if (r == -ECANCELED && strcmp(j->store->name, "local") != 0)
		(void)index_upload_settled(s->ix, j->up.object.id);
	else if (j->up.unsettled == 0 && (r == -ECANCELED || r == -EACCES || r == -ENODEV || r == -ENOSPC ||
	    is_final(r)))
		(void)index_upload_undo(s->ix, j->up.object.id);
	else
		(void)index_upload_uncertain(s->ix, j->up.object.id, clock_wall_ns());
	if (r == -ECANCELED || r == -EINPROGRESS)
		(void)index_work_defer(s->ix, WORK_UPLOAD, j->up.inode.ino,
		    clock_wall_ns() + BUSY_WAIT_NS, WAIT_NONE);
	else
		upload_failed(s, j->up.inode.ino, attempts, r, err);
}

static void
upload_claimed(struct upload_job *j, const char *path, unsigned attempts)
{
	bool link = j->s->opt.link && strcmp(j->store->name, "local") == 0;
	uint64_t generation = j->up.inode.generation;
	struct error err = { 0 };
	struct object stored;
	int r;

	r = link ? core_link_begin(j->s->core, j->node, generation) : 0;
	if (r < 0) {
		r = -ECANCELED;
		link = false;
	} else {
		r = put(j, path, &stored, &err);
	}
	if (r == 0) {
		store_report(j->store, 0, NULL);
		r = index_upload_done(j->s->ix, &j->up, &stored, clock_wall_ns());
		if (r < 0) {
			/* Nobody would know of the link: break it while nobody can write. */
			if (stored.linked)
				(void)backend_unshare(j->store->backend, j->up.object.key, NULL);
			(void)error_set(&err, r, "its upload can't be recorded: %s", strerror(-r));
			upload_failed(j->s, j->up.inode.ino, attempts, r, &err);
		}
	} else {
		upload_ended(j, r, attempts, &err);
	}
	if (link)
		core_link_end(j->s->core, j->node);
}

/* Is there a reason not to send it at all?  -EAGAIN deferred, others final. */
static int
check(struct syncer *s, const struct inode *i, struct error *err)
{
	uint64_t max_size = atomic_load(&s->max_size);

	if ((i->flags & INODE_TORN) != 0 && index_has_stored(s->ix, i->ino) != 0)
		return error_set(err, -EINVAL, "torn: it changed after its last close when the daemon or "
		    "the power went; look at it and write it anew, or store it as it is with `tbfs retry`");
	if (max_size != 0 && i->size > max_size)
		return error_set(err, -EFBIG, "larger than upload.max_size (%ju bytes): it stays local",
		    (uintmax_t)max_size);
	return 0;
}

/* Push one generation of a file to its store.  Runs on a worker, no lock held. */
void
upload_run(struct syncer *s, uint64_t ino, unsigned attempts)
{
	struct upload_job j = { .s = s, .store = &s->stores->store[0], .fd = -1 };
	CLEANUP_FREE char *key = NULL;
	CLEANUP_FREE char *path = NULL;
	struct error err = { 0 };
	struct inode inode;
	int r = core_settle(s->core, ino, &inode);

	if (r == -EBUSY) {
		(void)index_work_defer(s->ix, WORK_UPLOAD, ino, clock_wall_ns() +
		    core_quiet_period(s->core) + BUSY_WAIT_NS / 10, WAIT_WRITER);
		return;
	}
	if ((r == -ENOENT && index_get(s->ix, ino, &inode) == -ENOENT) ||
	    (r == 0 && (inode.state != OBJECT_DIRTY || inode.nlink == 0))) {
		(void)index_upload_needless(s->ix, ino);
		return;
	}
	if (r == -ENOENT)
		(void)error_set(&err, r, "its staged file is missing");
	if (r == 0)
		r = check(s, &inode, &err);
	if (r == 0)
		r = core_natural_key(s->core, ino, &key);
	if (r == -EINVAL && err.text[0] == '\0')
		r = index_path(s->ix, ino, &path);
	if (r == -ENOENT && err.text[0] == '\0') {
		/* Its last name went this moment. */
		(void)index_upload_needless(s->ix, ino);
		return;
	}
	if (r < 0) {
		if (err.text[0] == '\0')
			(void)error_set(&err, r, "%s", strerror(-r));
		upload_failed(s, ino, attempts, r, &err);
		return;
	}
	j.node = core_pin(s->core, ino);
	j.fd = j.node == NULL ? -ENOMEM : core_open_generation(s->core, j.node, inode.generation);
	r = j.fd < 0 ? j.fd : core_sync_bytes(s->core, j.node, j.fd);
	if (r < 0)
		(void)error_set(&err, r, "its staged file can't be opened or synced: %s", strerror(-r));
	else
		r = claim(s, j.store, &inode, key, &j.up);
	if (r == 0) {
		/* Where the key isn't the path, the path travels with the object. */
		if (path == NULL && (key == NULL || strcmp(key, j.up.object.key) != 0))
			(void)index_path(s->ix, ino, &path);
		upload_claimed(&j, path, attempts);
	} else if (r == -EBUSY || r == -ESTALE) {
		(void)index_work_defer(s->ix, WORK_UPLOAD, ino, clock_wall_ns() + BUSY_WAIT_NS, WAIT_NONE);
	} else {
		if (err.text[0] == '\0')
			(void)error_set(&err, r, "it can't be claimed: %s", strerror(-r));
		upload_failed(s, ino, attempts, r == -EINVAL ? -EIO : r, &err);
	}
	if (j.fd >= 0)
		(void)close(j.fd);
	core_unpin(s->core, j.node);
}
