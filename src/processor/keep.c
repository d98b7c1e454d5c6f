/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * meta.json of a keep: everything that was derived in it, from the index alone, always
 * the same bytes for the same files.  Written beside and renamed over, and only when it
 * would say something new.
 */
#include "processor/plain_name.h"
#include "processor/private.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/strbuf.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct keep_writer {
	json_t *files;
	uint32_t read_bits;		/* what all originals grant */
	uint32_t uid, gid;
	bool same_owner;
	int64_t mtime;			/* of the newest */
	size_t n;
};

/* RFC 3339 with nanoseconds, UTC. */
static void
format_time(int64_t ns, char *ret_text, size_t room)
{
	struct timespec ts = ns_to_timespec(ns);
	char day[32];
	struct tm tm;

	(void)gmtime_r(&ts.tv_sec, &tm);
	(void)strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	(void)snprintf(ret_text, room, "%s.%09ldZ", day, ts.tv_nsec);
}

/* Thumbnails are kept by name: their paths begin with where the original is now. */
static void
complete_thumbs(json_t *entry, const char *path)
{
	json_t *thumbs = json_object_get(entry, "thumbs"), *t;
	size_t i;

	json_array_foreach(thumbs, i, t) {
		CLEANUP_FREE char *full = NULL;

		if (asprintf(&full, "thumbs/%s/%s", path, json_string_value(json_object_get(t, "path"))) > 0)
			(void)json_object_set_new(t, "path", json_string(full));
	}
}

static bool
keep_file_seen(void *arg, const struct keep_file *f)
{
	CLEANUP_STRBUF struct strbuf name = STRBUF_INIT;
	CLEANUP_STRBUF struct strbuf b64 = STRBUF_INIT;
	struct keep_writer *w = arg;
	json_t *derived = json_loads(f->json, 0, NULL), *entry = json_object();
	char mtime[64];

	format_time(f->inode.mtime, mtime, sizeof(mtime));
	(void)json_object_set_new(entry, "size", json_integer((json_int_t)f->inode.size));
	(void)json_object_set_new(entry, "mtime", json_string(mtime));
	(void)json_object_update(entry, derived);
	json_decref(derived);
	if (plain_name(f->path, &name)) {
		base64_name(f->path, &b64);
		(void)json_object_set_new(entry, "name_b64", json_string(b64.data));
	}
	complete_thumbs(entry, name.data);
	(void)json_object_set_new(w->files, name.data, entry);
	w->read_bits &= f->inode.mode;
	if (w->n > 0 && (w->uid != f->inode.uid || w->gid != f->inode.gid))
		w->same_owner = false;
	w->uid = f->inode.uid;
	w->gid = f->inode.gid;
	if (f->inode.mtime > w->mtime)
		w->mtime = f->inode.mtime;
	w->n++;
	return true;
}

/* Does meta.json already say exactly this? */
static bool
is_same(struct processor *p, uint64_t keep, const struct derived_file *f, const char *text, size_t len)
{
	CLEANUP_FREE char *old = NULL;
	struct inode i;
	size_t old_len = 0;
	int fd;

	if (index_lookup(p->ix, keep, f->name, &i) < 0 || (i.flags & INODE_DERIVED) == 0 ||
	    i.size != len || i.mtime != f->mtime || (i.mode & 0777) != f->mode || i.uid != f->uid ||
	    i.gid != f->gid || i.generation != 1)
		return false;
	fd = staging_open(core_staging(p->core), i.ino, O_RDONLY);
	if (fd < 0)
		return false;
	old = malloc(len + 1);
	if (old != NULL)
		old_len = (size_t)pread_full(fd, old, len, 0);
	(void)close(fd);
	return old != NULL && old_len == len && memcmp(old, text, len) == 0;
}

static int
write_meta(struct processor *p, uint64_t keep, const struct keep_writer *w, const char *text)
{
	struct derived_file f = { .keep = keep, .dir_path = "", .name = "meta.json",
		.mode = (w->read_bits & 0444) | 0200, .uid = w->uid, .gid = w->gid, .mtime = w->mtime };
	CLEANUP_CLOSE int fd = -1;
	struct inode dir;
	int r;

	if (!w->same_owner && index_get(p->ix, keep, &dir) == 0) {
		f.uid = dir.uid;
		f.gid = dir.gid;
	}
	if (is_same(p, keep, &f, text, strlen(text)))
		return 0;
	fd = staging_scratch(core_staging(p->core));
	if (fd < 0)
		return fd;
	r = write_full(fd, text, strlen(text));
	return r < 0 ? r : core_derived_put(p->core, &f, fd, KEEP_UPLOAD_DELAY_NS);
}

static char *
meta_text(const struct keep_path *k, json_t *files)
{
	json_t *root = json_pack("{s:i, s:o*, s:o*, s:O}", "version", 1, "circle",
	    json_string(k->circle), "keep", json_string(k->keep), "files", files);
	char *text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(12));

	json_decref(root);
	return text;
}

void
keep_run(struct processor *p, const struct work *work)
{
	struct keep_writer w = { .files = json_object(), .read_bits = 0777, .same_owner = true };
	CLEANUP_FREE char *text = NULL;
	struct keep_path k;
	int r = core_keep_path(p->core, work->id, &k);

	if (r == 0 && k.rest[0] == '\0') {
		r = index_keep_files(p->ix, work->id, keep_file_seen, &w);
		if (r == 0 && w.n == 0)
			r = core_derived_remove(p->core, work->id, "meta.json");
		else if (r == 0 && (text = meta_text(&k, w.files)) == NULL)
			r = -ENOMEM;
		else if (r == 0)
			r = write_meta(p, work->id, &w, text);
	}
	if (r == 0 || r == -ENOENT)
		(void)index_keep_done(p->ix, work->id, work->since);
	else
		(void)log_errno(r, "meta.json of keep %ju can't be written", (uintmax_t)work->id);
	if (r < 0 && r != -ENOENT)
		(void)index_work_defer(p->ix, WORK_KEEP, work->id, clock_wall_ns() + 5 * NSEC_PER_SEC,
		    WAIT_NONE);
	keep_path_release(&k);
	json_decref(w.files);
}
