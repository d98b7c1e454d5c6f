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
		f.mtime = w->n > 0 ? w->mtime : dir.mtime;
	}
	if (is_same(p, keep, &f, text, strlen(text)))
		return 0;
	fd = staging_scratch(core_staging(p->core));
	if (fd < 0)
		return fd;
	r = write_full(fd, text, strlen(text));
	return r < 0 ? r : core_derived_put(p->core, &f, fd, KEEP_UPLOAD_DELAY_NS);
}

/* As files' names are: readable, and with <key>_b64 beside where that is not the name itself. */
static void
add_name(json_t *root, const char *key, const char *name)
{
	CLEANUP_STRBUF struct strbuf plain = STRBUF_INIT;
	CLEANUP_STRBUF struct strbuf b64 = STRBUF_INIT;
	char b64_key[32];

	(void)snprintf(b64_key, sizeof(b64_key), "%s_b64", key);
	if (plain_name(name, &plain)) {
		base64_name(name, &b64);
		(void)json_object_set_new(root, b64_key, json_string(b64.data));
	}
	(void)json_object_set_new(root, key, json_string(plain.data));
}

static char *
meta_text(const struct keep_path *k, json_t *files)
{
	json_t *root = json_pack("{s:i}", "version", 1);
	char *text;

	add_name(root, "circle", k->circle);
	add_name(root, "keep", k->keep);
	(void)json_object_set(root, "files", files);
	text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(12));
	json_decref(root);
	return text;
}

/* Bring meta.json of a keep up to date; where nothing is derived there is none, unless `even_empty`. */
static int
keep_write(struct processor *p, uint64_t keep, bool even_empty)
{
	struct keep_writer w = { .files = json_object(), .read_bits = 0777, .same_owner = true };
	CLEANUP_FREE char *text = NULL;
	struct keep_path k;
	int r = core_keep_path(p->core, keep, &k);

	if (r == 0 && k.rest[0] == '\0') {
		r = index_keep_files(p->ix, keep, keep_file_seen, &w);
		w.same_owner = w.same_owner && w.n > 0;
		if (r == 0 && w.n == 0 && !even_empty)
			r = core_derived_remove(p->core, keep, "meta.json");
		else if (r == 0 && (text = meta_text(&k, w.files)) == NULL)
			r = -ENOMEM;
		else if (r == 0)
			r = write_meta(p, keep, &w, text);
	}
	keep_path_release(&k);
	json_decref(w.files);
	return r;
}

/* When this keep's was last written, monotonic ns, as far as that is remembered; and that it is now. */
static int64_t
written_at(struct processor *p, uint64_t keep, bool now)
{
	struct written *oldest = &p->written[0];
	size_t i;

	for (i = 0; i < WRITTEN_MAX; i++) {
		if (p->written[i].keep == keep) {
			oldest = &p->written[i];
			break;
		}
		if (p->written[i].at < oldest->at)
			oldest = &p->written[i];
	}
	if (now)
		*oldest = (struct written){ keep, clock_mono_ns() };
	return oldest->keep == keep ? oldest->at : 0;
}

void
keep_run(struct processor *p, const struct work *work)
{
	int64_t wait = written_at(p, work->id, false) + KEEP_DELAY_NS - clock_mono_ns();
	int r;

	/* However much somebody hurries. */
	if (wait > 0) {
		(void)index_work_defer(p->ix, WORK_KEEP, work->id, clock_wall_ns() + wait, WAIT_NONE);
		return;
	}
	(void)written_at(p, work->id, true);
	r = keep_write(p, work->id, false);
	if (r == 0 || r == -ENOENT) {
		(void)index_keep_done(p->ix, work->id, work->since);
	} else if (r == -EISDIR || r == -EEXIST) {
		/* Until that goes, of which we are told. */
		(void)index_work_failed(p->ix, WORK_KEEP, work->id, clock_wall_ns(), true,
		    "meta.json can't be written: something that was not derived has the name");
	} else {
		(void)log_errno(r, "meta.json of keep %ju can't be written", (uintmax_t)work->id);
		(void)index_work_defer(p->ix, WORK_KEEP, work->id, clock_wall_ns() + 5 * NSEC_PER_SEC,
		    WAIT_NONE);
	}
}

void
processor_meta_wanted(struct processor *p, uint64_t keep)
{
	(void)keep_write(p, keep, true);
}
