/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * One original: what is to be done for it, and doing it.
 *
 *   gone, or no longer in a keep     its derivatives go
 *   derived already, elsewhere       they are moved; nothing is decoded
 *   derived already, here            mode, owner and time follow the original
 *   else                             a worker looks at it
 *
 * A result belongs to the generation that was read: the index drops it when that moved,
 * and a file that fails has its reason in meta.json and keeps nobody waiting.  place.c
 * knows where all that stands.
 */
#include "processor/private.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POOL_RETRY_NS (10 * NSEC_PER_SEC)
#define BUSY_NS (NSEC_PER_SEC / 2)

static bool
derive_cancelled(void *arg)
{
	const struct derive *d = arg;

	return !core_is_current(d->node, d->inode.generation) || atomic_load(&d->p->stopping);
}

/* The bytes of one thumbnail into the staging cache and under its name. */
static int
place_thumb(const struct derive *d, const char *dir, const struct extract_thumb *t)
{
	struct derived_file f = place_like(d);
	CLEANUP_CLOSE int fd = staging_scratch(core_staging(d->p->core));
	int r;

	f.dir_path = dir;
	f.name = t->name;
	if (fd < 0)
		return fd;
	r = copy_range(t->fd, 0, fd, 0, t->size);
	return r < 0 ? r : core_derived_put(d->p->core, &f, fd, 0);
}

/* The entry of meta.json, with what the daemon knows of the thumbnails; path to be completed.
 * `taken`: there is no place for them. */
static char *
complete_json(const struct extract_result *res, bool taken)
{
	json_t *entry = json_loads(res->json, 0, NULL), *thumbs;
	char *text;
	unsigned i;

	if (entry == NULL)
		return NULL;
	if (taken)
		(void)json_object_set_new(entry, "error", json_pack("{s:s, s:s, s:s}", "stage", "store", "code",
		    "taken", "message", "a file that was not derived is where its thumbnails belong"));
	if (res->n_thumbs > 0 && !taken) {
		thumbs = json_array();
		for (i = 0; i < res->n_thumbs; i++) {
			const struct extract_thumb *t = &res->thumbs[i];

			(void)json_array_append_new(thumbs, json_pack("{s:s, s:i, s:i, s:s, s:I}", "path",
			    t->name, "width", (int)t->width, "height", (int)t->height, "mime", t->mime, "size",
			    (json_int_t)t->size));
		}
		(void)json_object_set_new(entry, "thumbs", thumbs);
	}
	text = json_dumps(entry, JSON_COMPACT);
	json_decref(entry);
	return text;
}

static int
commit_here(const struct derive *d, const struct extract_result *res)
{
	struct derivation v = { .ino = d->inode.ino, .generation = d->inode.generation,
		.version = PIPELINE_VERSION, .failed = res->failed, .keep = d->at.ino, .path = d->at.rest };
	CLEANUP_FREE char *dir = NULL;
	bool taken = false;
	unsigned i;
	int r;

	if (asprintf(&dir, "thumbs/%s", d->at.rest) < 0)
		return -ENOMEM;
	r = place_claim(d);
	if (r == 0 && res->n_thumbs == 0)
		r = core_derived_clear(d->p->core, d->at.ino, dir);
	for (i = 0; i < res->n_thumbs && r == 0; i++)
		r = place_thumb(d, dir, &res->thumbs[i]);
	/* A user's own file, which no attempt of ours moves; when it goes, we are told. */
	taken = r == -ENOTDIR || r == -EEXIST;
	if (r < 0 && !taken)
		return r;
	v.failed = v.failed || taken;
	v.json = complete_json(res, taken);
	if (v.json == NULL)
		return -ENOMEM;
	r = index_derived_set(d->p->ix, &v, clock_wall_ns() + KEEP_DELAY_NS);
	free(v.json);
	return r;
}

static int
commit(struct derive *d, const struct extract_result *res)
{
	int r = place_begin_at(d);

	if (r < 0)
		return r;
	r = derive_cancelled(d) ? -ESTALE : commit_here(d, res);
	place_end(d->p);
	if (r == 0)
		place_look_again(d);
	return r;
}

static void
derive(struct derive *d)
{
	struct processor *p = d->p;
	struct extract_result res = { .json = NULL };
	struct error err = { 0 };
	int fd = core_open_generation(p->core, d->node, d->inode.generation), r;
	struct handle *h;

	/* Only in the store: an open fetches it. */
	if (fd == -ENOENT && core_open(p->core, d->inode.ino, O_RDONLY, &h) == 0) {
		core_release(p->core, h);
		fd = core_open_generation(p->core, d->node, d->inode.generation);
	}
	if (fd == -EBUSY || fd == -ESTALE) {
		(void)index_work_defer(p->ix, WORK_DERIVE, d->inode.ino, clock_wall_ns() + BUSY_NS,
		    WAIT_NONE);
		return;
	}
	if (fd < 0) {
		(void)index_work_failed(p->ix, WORK_DERIVE, d->inode.ino, clock_wall_ns(), true,
		    "its staged bytes can't be opened");
		return;
	}
	r = extract_pool_run(p->pool, fd, d->inode.size, d->at.rest, derive_cancelled, d, &res, &err);
	(void)close(fd);
	if (r == 0) {
		r = commit(d, &res);
		/* It, or its folder, is gone. */
		if (r == -ENOENT)
			r = -ESTALE;
		if (r < 0 && r != -ESTALE)
			(void)error_set(&err, r, "its derivatives can't be kept: %s", strerror(-r));
		extract_result_release(&res);
	}
	if (r == -ECANCELED || r == -ESTALE) {
		/* Changed meanwhile: its next quiet moment asks again. */
		(void)index_work_defer(p->ix, WORK_DERIVE, d->inode.ino, clock_wall_ns() + BUSY_NS,
		    WAIT_NONE);
	} else if (r < 0) {
		log_err("%s: %s", d->at.rest, error_text(&err));
		(void)index_work_failed(p->ix, WORK_DERIVE, d->inode.ino, clock_wall_ns() + POOL_RETRY_NS,
		    false, error_text(&err));
	}
}

static const char *
last_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == NULL ? path : slash + 1;
}

/* With a temporary name: its time is up, or `tbfs sync --derived` asks for it. */
static bool
has_waited(struct processor *p, uint64_t ino)
{
	struct work w;

	return index_work_get(p->ix, WORK_DERIVE, ino, &w) == 0 && w.wait == WAIT_RENAME;
}

void
derive_run(struct processor *p, uint64_t ino)
{
	struct derive d = { .p = p };
	int r = core_settle(p->core, ino, &d.inode);

	if ((r == 0 || r == -EBUSY) && d.inode.nlink == 0) {
		(void)index_derive_unnamed(p->ix, ino);
		return;
	}
	if (r == -EBUSY) {
		(void)index_work_defer(p->ix, WORK_DERIVE, ino, clock_wall_ns() + BUSY_NS, WAIT_WRITER);
		return;
	}
	if (place_find(p, ino, &d.at) < 0) {
		place_forget(p, ino);
		return;
	}
	if (r < 0) {
		keep_path_release(&d.at);
		(void)index_work_failed(p->ix, WORK_DERIVE, ino, clock_wall_ns() + POOL_RETRY_NS, r == -ENOENT,
		    "its staged bytes can't be looked at");
		return;
	}
	if (policy_is_temporary(last_name(d.at.rest)) && !has_waited(p, ino)) {
		(void)index_work_defer(p->ix, WORK_DERIVE, ino, clock_wall_ns() +
		    core_temp_delay(p->core), WAIT_RENAME);
	} else if (!place_follow(&d)) {
		d.node = core_pin(p->core, ino);
		if (d.node != NULL)
			derive(&d);
		core_unpin(p->core, d.node);
	}
	keep_path_release(&d.at);
}

/* ---- what getxattr says ---- */

static ssize_t
answer(const char *text, void *buf, size_t room)
{
	size_t len = strlen(text);

	if (room == 0)
		return (ssize_t)len;
	if (len > room)
		return -ERANGE;
	memcpy(buf, text, len);
	return (ssize_t)len;
}

ssize_t
processor_getxattr(struct processor *p, uint64_t ino, const char *what, void *buf, size_t room)
{
	bool progress = strcmp(what, "progress") == 0;
	struct derivation d;
	struct work w;
	ssize_t n = -ENODATA;
	json_t *entry;
	const char *value;

	if (!progress && strcmp(what, "mime") != 0 && strcmp(what, "verdict") != 0 &&
	    strcmp(what, "error") != 0)
		return -ENODATA;
	if (progress && index_work_get(p->ix, WORK_DERIVE, ino, &w) == 0)
		return answer("pending", buf, room);
	if (index_derived_get(p->ix, ino, &d) < 0)
		return -ENODATA;
	if (d.json[0] == '\0') {
		n = -ENODATA;
	} else if (progress) {
		n = answer(d.failed ? "failed" : "done", buf, room);
	} else {
		entry = json_loads(d.json, 0, NULL);
		value = json_string_value(strcmp(what, "error") == 0 ?
		    json_object_get(json_object_get(entry, what), "message") :
		    json_object_get(entry, what));
		if (value != NULL)
			n = answer(value, buf, room);
		json_decref(entry);
	}
	derivation_release(&d);
	return n;
}
