/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Objects follow names, and go when nobody needs them.
 *
 * relocate: own the new key → copy on the server, verified → switch in the index → the
 * old key becomes a removal.  After a crash at any step either the old or the new object
 * is the inode's, and the other one's key is still owned by a row that removes it.
 */
#include "sync/private.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

enum { SIDE_AFTER = 4 };	/* tries before a chain of owners is broken by a side key */
#define WAIT_NS (300 * 1000000LL)

static void
relocate_failed(struct syncer *s, uint64_t ino, unsigned attempts, const struct error *err)
{
	if (attempts == 0)
		log_warn("relocation of inode %ju: %s", (uintmax_t)ino, error_text(err));
	work_failed(s, WORK_RELOCATE, ino, attempts, false, err);
}

static void
relocate_copy(struct syncer *s, struct move *m, unsigned attempts)
{
	struct store *store = stores_find(s->stores, m->from.backend);
	struct backend_tag tag;
	struct error err = { 0 };
	int r;

	if (store == NULL)
		r = error_set(&err, -ENODEV, "its store %s is not configured", m->from.backend);
	else
		r = backend_copy(store->backend, m->from.key, m->to.key, &tag, &err);
	if (r == 0 && (tag.size != m->from.size ||
	    (tag.has_sha256 && memcmp(tag.sha256, m->from.sha256, SHA256_LEN) != 0)))
		r = error_set(&err, -EIO, "the copy of %s is not what was stored", m->from.key);
	if (store != NULL)
		store_report(store, r, &err);
	if (r == 0) {
		uint64_t id = m->to.id;
		char key[sizeof(m->to.key)];

		memcpy(key, m->to.key, sizeof(key));
		m->to = m->from;
		m->to.id = id;
		memcpy(m->to.key, key, sizeof(key));
		m->to.linked = false;
		object_from_tag(&m->to, &tag);
		if (!tag.has_sha256)
			memcpy(m->to.sha256, m->from.sha256, SHA256_LEN);
		r = index_relocate_done(s->ix, m, clock_wall_ns());
		if (r < 0)
			(void)log_errno(r, "relocation of inode %ju can't be recorded",
			    (uintmax_t)m->inode.ino);
		return;
	}
	relocate_failed(s, m->inode.ino, attempts, &err);
}

void
relocate_run(struct syncer *s, uint64_t ino, unsigned attempts)
{
	CLEANUP_FREE char *key = NULL;
	struct error err = { 0 };
	struct move m;
	int r = core_natural_key(s->core, ino, &key);

	/* A name that is no key: it makes room for who has the old name now. */
	if (r == 0 || r == -EINVAL)
		r = index_relocate_begin(s->ix, ino, key, attempts >= SIDE_AFTER, clock_wall_ns(), &m);
	if (r == 0)
		r = index_sync(s->ix);
	if (r == 0) {
		relocate_copy(s, &m, attempts);
	} else if (r == -ESTALE) {
		/* It is being changed: its upload goes to the right place. */
		(void)index_work_done(s->ix, WORK_RELOCATE, ino);
	} else if (r == -EBUSY) {
		(void)index_work_defer(s->ix, WORK_RELOCATE, ino, clock_wall_ns() + WAIT_NS, WAIT_KEY);
	} else if (r == -ENOENT) {
		(void)index_work_done(s->ix, WORK_RELOCATE, ino);
	} else if (r != -EALREADY) {
		(void)error_set(&err, r, "it can't be claimed: %s", strerror(-r));
		relocate_failed(s, ino, attempts, &err);
	}
}

void
remove_run(struct syncer *s, uint64_t object, unsigned attempts)
{
	struct error err = { 0 };
	struct store *store;
	struct object o;
	int r = index_remove_begin(s->ix, object, clock_wall_ns(), &o);

	if (r == -ENOENT) {
		(void)index_work_done(s->ix, WORK_REMOVE, object);
		return;
	}
	if (r == -EBUSY) {
		(void)index_work_defer(s->ix, WORK_REMOVE, object, clock_wall_ns() + NSEC_PER_SEC,
		    WAIT_NONE);
		return;
	}
	/* What goes is justified by commits that must survive a power cut first. */
	if (r == 0)
		r = index_sync(s->ix);
	store = r == 0 ? stores_find(s->stores, o.backend) : NULL;
	if (r == 0 && store == NULL)
		r = error_set(&err, -ENODEV, "store %s is not configured", o.backend);
	if (r == 0) {
		r = backend_remove(store->backend, o.key, &err);
		store_report(store, r, &err);
	}
	if (r == 0) {
		(void)index_remove_done(s->ix, object);
		return;
	}
	if (attempts == 0)
		log_warn("removal of object %s: %s", o.key, error_text(&err));
	work_failed(s, WORK_REMOVE, object, attempts, false, &err);
}
