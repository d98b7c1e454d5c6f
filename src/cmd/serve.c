/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The daemon's side of the verbs. */
#include "build.h"
#include "cmd/daemon_private.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/digest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LIST_MAX = 100, URL_DEFAULT = 3600, URL_MAX = 604800 };

/* ---- arguments ---- */

/* A path of the request: relative to the mount, percent-escaped. */
static int
resolve(struct daemon *d, const json_t *text, struct inode *ret_inode, struct error *err)
{
	CLEANUP_FREE char *path = NULL;
	int r;

	if (!json_is_string(text))
		return error_set(err, -EINVAL, "a path must be a string");
	r = control_path_decode(json_string_value(text), &path);
	if (r == 0)
		r = core_resolve(d->core, path[0] == '/' ? path + 1 : path, ret_inode);
	if (r < 0)
		return error_set(err, r, "%s: %s", path != NULL ? path : json_string_value(text),
		    strerror(-r));
	return 0;
}

static double
number(const json_t *args, const char *name, double otherwise)
{
	const json_t *v = json_object_get(args, name);

	return json_is_number(v) ? json_number_value(v) : otherwise;
}

/* ---- status ---- */

static const char *const state_names[] = { "none", "open", "dirty", "stored", "remote" };

struct failures {
	struct daemon *d;
	json_t *list;
	struct work work[LIST_MAX];
	size_t n;
};

static bool
failure_seen(void *arg, const struct work *w)
{
	struct failures *f = arg;

	if (f->n < LIST_MAX)
		f->work[f->n++] = *w;
	return f->n < LIST_MAX;
}

static json_t *
path_of(struct daemon *d, uint64_t ino)
{
	CLEANUP_FREE char *path = NULL;

	return index_path(d->index, ino, &path) == 0 ? control_path_encode(path) : NULL;
}

static json_t *
work_path(struct daemon *d, const struct work *w)
{
	struct object o;

	if (w->kind == WORK_REMOVE)
		return index_object_get(d->index, w->id, &o) == 0 ? control_path_encode(o.key) : NULL;
	return path_of(d, w->id);
}

static json_t *
status_failures(struct daemon *d, json_t *ret_stuck)
{
	static const enum work_kind kinds[] = { WORK_UPLOAD, WORK_RELOCATE, WORK_REMOVE };
	struct failures f = { .d = d };
	json_t *list = json_array();
	int64_t now = clock_wall_ns();
	size_t i;

	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		(void)index_work_each(d->index, kinds[i], true, failure_seen, &f);
	for (i = 0; i < f.n; i++) {
		const struct work *w = &f.work[i];
		json_t *path = work_path(d, w);

		if (path == NULL)
			path = json_null();
		if (w->stuck)
			(void)json_array_append(ret_stuck, path);
		(void)json_array_append_new(list, json_pack("{s:o, s:s, s:i, s:f}", "path", path,
		    "error", w->error, "attempts", (int)w->attempts, "next_try_s",
		    w->stuck || w->due < now ? 0.0 : (double)(w->due - now) / 1e9));
	}
	return list;
}

static json_t *
status_backends(struct daemon *d)
{
	json_t *list = json_array();
	size_t i, k;

	for (i = 0; i < d->stores.n; i++) {
		static const char *const calls[] = { "put", "get", "stat", "remove", "list", "copy", "url",
			"unshare", "probe" };
		struct store *st = &d->stores.store[i];
		json_t *counts = json_object(), *entry;

		for (k = 0; k < CALL_COUNT; k++)
			(void)json_object_set_new(counts, calls[k],
			    json_integer((json_int_t)atomic_load(&st->backend->calls[k])));
		lock_take(&st->lock);
		entry = json_pack("{s:s, s:b, s:s, s:I, s:o, s:I, s:I}", "name", st->name,
		    "healthy", st->failures == 0, "last_error", st->failures == 0 ? "" : st->last_error,
		    "requests", (json_int_t)atomic_load(&st->backend->requests), "calls", counts,
		    "bytes_out", (json_int_t)atomic_load(&st->backend->bytes_out), "bytes_in",
		    (json_int_t)atomic_load(&st->backend->bytes_in));
		lock_drop(&st->lock);
		(void)json_array_append_new(list, entry);
	}
	return list;
}

struct long_open {
	uint64_t inos[LIST_MAX];
	int64_t since[LIST_MAX];
	size_t n;
};

static void
long_open_seen(void *arg, uint64_t ino, int64_t since)
{
	struct long_open *l = arg;

	if (l->n < LIST_MAX) {
		l->inos[l->n] = ino;
		l->since[l->n++] = since;
	}
}

static json_t *
status_long_open(struct daemon *d)
{
	int64_t now = clock_wall_ns();
	struct long_open l = { .n = 0 };
	json_t *list = json_array();
	size_t i;

	core_each_open(d->core, now - 86400 * NSEC_PER_SEC, long_open_seen, &l);
	for (i = 0; i < l.n; i++) {
		json_t *path = path_of(d, l.inos[i]);

		(void)json_array_append_new(list, json_pack("{s:o, s:f}", "path",
		    path != NULL ? path : json_null(), "age_s", (double)(now - l.since[i]) / 1e9));
	}
	return list;
}

static json_t *
status_files(const struct index_status *st)
{
	json_t *files = json_object();
	int i;

	for (i = OBJECT_OPEN; i <= OBJECT_REMOTE; i++)
		(void)json_object_set_new(files, state_names[i], json_pack("{s:I, s:I}", "count",
		    (json_int_t)st->state[i].count, "bytes", (json_int_t)st->state[i].bytes));
	return files;
}

static json_t *
status_counts(struct daemon *d)
{
	struct index_counts ic;
	struct fs_counts fc = { 0 };

	index_counts(d->index, &ic);
	if (d->fs != NULL)
		fs_get_counts(d->fs, &fc);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "fuse_requests", (json_int_t)fc.requests,
	    "passthrough_opens", (json_int_t)fc.passthrough_opens, "daemon_opens",
	    (json_int_t)fc.daemon_opens, "sql_statements", (json_int_t)ic.statements, "sql_commits",
	    (json_int_t)ic.commits, "sql_syncs", (json_int_t)ic.syncs);
}

json_t *
daemon_status(struct daemon *d)
{
	struct staging_space space = { 0 };
	struct index_status st;
	json_t *stuck = json_array(), *failures;
	int64_t now = clock_wall_ns();

	if (index_status(d->index, &st) < 0) {
		json_decref(stuck);
		return NULL;
	}
	(void)staging_space(d->staging, &space);
	failures = status_failures(d, stuck);
	return json_pack("{s:s, s:i, s:s, s:f, s:o, s:f, s:{s:I,s:I,s:I,s:I}, s:{s:I,s:o}, s:o, s:o,"
	    " s:{s:I,s:I}, s:{s:I,s:I}, s:o, s:o, s:b, s:f}",
	    "mountpoint", d->mountpoint, "pid", (int)getpid(), "version", PACKAGE_VERSION,
	    "uptime_s", (double)(now - d->started) / 1e9, "files", status_files(&st),
	    "oldest_unstored_s", st.oldest_unstored == 0 ? 0.0 :
		(double)(now - st.oldest_unstored) / 1e9,
	    "queue", "upload", (json_int_t)st.work[WORK_UPLOAD], "remove",
	    (json_int_t)st.work[WORK_REMOVE], "relocate",
	    (json_int_t)(st.work[WORK_RELOCATE] + st.work[WORK_EXPAND]), "derive",
	    (json_int_t)st.work[WORK_DERIVE],
	    "stuck", "count", (json_int_t)st.stuck, "paths", stuck,
	    "failures", failures, "backends", status_backends(d),
	    "derive", "pending", (json_int_t)(st.work[WORK_DERIVE] + st.work[WORK_KEEP]), "failed",
	    (json_int_t)index_derive_failed(d->index),
	    "space", "total", (json_int_t)space.total, "available", (json_int_t)space.available,
	    "open_files_older_than_1d", status_long_open(d), "counts", status_counts(d),
	    "passthrough", fs_has_passthrough(d->fs), "alert_age_s", (double)d->cfg->alert_age / 1e9);
}

static int
verb_status(void *ctx, struct control_request *req)
{
	json_t *status = daemon_status(ctx);

	if (status == NULL)
		return -EIO;
	control_answer(req, status);
	return EXIT_DONE;
}

/* ---- sync and umount ---- */

struct watch {
	struct control_request *req;
	int64_t next;			/* monotonic ns of the next line */
	uint64_t most;
};

static bool
watch_progress(void *arg, const struct sync_progress *p)
{
	struct watch *w = arg;
	int64_t now = clock_mono_ns();

	if (control_cancelled(w->req) != 0)
		return false;
	if (p->remaining > w->most)
		w->most = p->remaining;
	if (now < w->next)
		return true;
	w->next = now + NSEC_PER_SEC / 5;
	return control_progress(w->req, json_pack("{s:I, s:I}", "files_done",
	    (json_int_t)(w->most - p->remaining), "files_total", (json_int_t)w->most)) == 0;
}

static bool
watch_derived(void *arg, uint64_t remaining)
{
	struct sync_progress p = { .remaining = remaining };

	return watch_progress(arg, &p);
}

static int64_t
deadline(const struct control_request *req, double otherwise_s)
{
	double s = number(control_args(req), "timeout_s", otherwise_s);
	int64_t end = control_deadline(req);

	if (end != 0)
		return end;
	return s < 0 || s > 1e8 ? INT64_MAX : clock_mono_ns() + (int64_t)(s * 1e9);
}

/* What keeps a drain from its end, as a sentence. */
static void
explain(int r, const struct sync_progress *left, struct error *err)
{
	const char *error = left->error[0] != '\0' ? left->error : NULL;

	if (r == -EBUSY)
		(void)error_set(err, r, "%ju files are open for writing", (uintmax_t)left->busy);
	else if (r == -ETIMEDOUT)
		(void)error_set(err, r, "%ju remain after the time given%s%s%s%s", (uintmax_t)left->remaining,
		    left->path[0] != '\0' ? ", for one " : "", left->path, error ? ": " : "",
		    error ? error : "");
	else if (r == -EIO)
		(void)error_set(err, r, "%ju can't be stored, for one %s: %s", (uintmax_t)left->stuck,
		    left->path, error ? error : "unknown");
	else
		(void)error_set(err, r, "not done: %s", strerror(-r));
}

static int
sync_one(struct daemon *d, struct control_request *req, uint64_t ino, bool derived)
{
	struct watch w = { .req = req };
	struct sync_progress left;
	int64_t end = deadline(req, -1);
	int r = 0;

	/* What is derived is to be stored too: first the one, then the other. */
	if (derived && d->processor != NULL)
		r = processor_drain(d->processor, ino, end, watch_derived, &w);
	if (r < 0)
		return error_set(control_error(req), r, "not all is derived: %s", r == -EBUSY ?
		    "files are open or mapped for writing" : strerror(-r));
	if (derived)
		fs_entries_told(d->fs);
	r = syncer_drain(d->syncer, ino, end, watch_progress, &w, &left);
	if (r < 0)
		explain(r, &left, control_error(req));
	return r;
}

static int
verb_sync(void *ctx, struct control_request *req)
{
	const json_t *args = control_args(req), *paths = json_object_get(args, "paths"), *path;
	bool derived = json_is_true(json_object_get(args, "derived"));
	struct daemon *d = ctx;
	struct inode inode;
	size_t i;
	int r = 0;

	if (json_array_size(paths) == 0)
		r = sync_one(d, req, INDEX_ROOT, derived);
	json_array_foreach(paths, i, path) {
		r = resolve(d, path, &inode, control_error(req));
		if (r == 0)
			r = sync_one(d, req, inode.ino, derived);
		if (r < 0)
			break;
	}
	return r < 0 ? EXIT_NOT_DONE : EXIT_DONE;
}

static int
verb_umount(void *ctx, struct control_request *req)
{
	struct daemon *d = ctx;
	struct watch w = { .req = req };
	struct index_status st = { .stuck = 0 };
	struct sync_progress left;
	json_int_t files, bytes;
	int r;

	r = syncer_drain(d->syncer, INDEX_ROOT, deadline(req, (double)d->cfg->drain_timeout / 1e9),
	    watch_progress, &w, &left);
	(void)index_status(d->index, &st);
	files = (json_int_t)(st.state[OBJECT_OPEN].count + st.state[OBJECT_DIRTY].count);
	bytes = (json_int_t)(st.state[OBJECT_OPEN].bytes + st.state[OBJECT_DIRTY].bytes);
	control_answer(req, json_pack("{s:{s:I, s:I}}", "remaining", "files", files, "bytes", bytes));
	/* The caller detaches now: what could be stored is, and isn't waited for again. */
	atomic_store(&d->drained_at, clock_mono_ns());
	if (r < 0)
		explain(r, &left, control_error(req));
	return r < 0 ? EXIT_NOT_DONE : EXIT_DONE;
}

/* ---- info, retry, url ---- */

static void
add_xattr(struct daemon *d, json_t *o, uint64_t ino, const char *what)
{
	char name[64], value[4096];
	ssize_t n;

	(void)snprintf(name, sizeof(name), "user.tbfs.%s", what);
	n = core_getxattr(d->core, ino, name, value, sizeof(value) - 1);
	if (n < 0)
		return;
	value[n] = '\0';
	(void)json_object_set_new(o, what, control_path_encode(value));
}

static json_t *
info_of(struct daemon *d, const json_t *path, const struct inode *inode)
{
	static const char *const whats[] = { "state", "backend", "key", "sha256", "mime", "verdict",
		"progress", "error" };
	struct attr attr;
	json_t *o;
	size_t i;

	if (core_getattr(d->core, inode->ino, &attr) < 0)
		return json_null();
	o = json_pack("{s:O, s:I, s:I, s:I}", "path", path, "inode", (json_int_t)inode->ino, "size",
	    (json_int_t)attr.inode.size, "generation", (json_int_t)attr.inode.generation);
	for (i = 0; i < sizeof(whats) / sizeof(whats[0]); i++)
		add_xattr(d, o, inode->ino, whats[i]);
	return o;
}

static int
verb_info(void *ctx, struct control_request *req)
{
	const json_t *paths = json_object_get(control_args(req), "paths"), *path;
	struct daemon *d = ctx;
	struct inode inode;
	json_t *list = json_array();
	size_t i;
	int r = 0;

	json_array_foreach(paths, i, path) {
		r = resolve(d, path, &inode, control_error(req));
		if (r < 0)
			break;
		(void)json_array_append_new(list, info_of(d, path, &inode));
	}
	control_answer(req, json_pack("{s:o}", "files", list));
	return r < 0 ? EXIT_NOT_DONE : EXIT_DONE;
}

static int
verb_retry(void *ctx, struct control_request *req)
{
	static const enum work_kind kinds[] = { WORK_UPLOAD, WORK_RELOCATE, WORK_REMOVE, WORK_DERIVE };
	const json_t *paths = json_object_get(control_args(req), "paths"), *path;
	struct daemon *d = ctx;
	struct inode inode;
	json_int_t count = 0;
	size_t i, k;
	int r = 0;

	for (k = 0; json_array_size(paths) == 0 && k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		r = index_work_retry(d->index, kinds[k], 0);
		count += r > 0 ? r : 0;
	}
	json_array_foreach(paths, i, path) {
		r = resolve(d, path, &inode, control_error(req));
		if (r < 0)
			return EXIT_NOT_DONE;
		/* Being told to: what is torn is taken as it is. */
		(void)index_accept_torn(d->index, inode.ino);
		for (k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
			if (kinds[k] == WORK_REMOVE)
				continue;
			r = index_work_retry(d->index, kinds[k], inode.ino);
			count += r > 0 ? r : 0;
		}
	}
	syncer_wake(d->syncer, 0);
	control_answer(req, json_pack("{s:I}", "retried", count));
	return EXIT_DONE;
}

/* May the one who asks read this file?  What the mode bits say; the kernel asks no one here. */
static bool
may_read(const struct control_peer *peer, const struct inode *inode)
{
	size_t i;

	if (peer->uid == 0)
		return true;
	if (peer->uid == inode->uid)
		return (inode->mode & S_IRUSR) != 0;
	if (peer->gid == inode->gid)
		return (inode->mode & S_IRGRP) != 0;
	for (i = 0; i < peer->group_count; i++)
		if (peer->groups[i] == inode->gid)
			return (inode->mode & S_IRGRP) != 0;
	return (inode->mode & S_IROTH) != 0;
}

static int
url_of(struct daemon *d, struct control_request *req, const json_t *path, unsigned expires,
    json_t *list)
{
	struct error *err = control_error(req);
	CLEANUP_FREE char *url = NULL;
	struct fetcher fetcher;
	struct object object;
	struct inode inode;
	int r = resolve(d, path, &inode, err);

	if (r < 0)
		return r;
	if (!may_read(control_peer(req), &inode))
		return error_set(err, -EACCES, "%s: you may not read it", json_string_value(path));
	if (inode.object == 0 || index_object_get(d->index, inode.object, &object) < 0 ||
	    (inode.state != OBJECT_STORED && inode.state != OBJECT_REMOTE))
		return error_set(err, -ENODATA, "%s is not in a store yet: `tbfs sync` it first",
		    json_string_value(path));
	syncer_fetcher(d->syncer, &fetcher);
	r = fetcher.url(fetcher.arg, &object, expires, &url, err);
	if (r == 0)
		(void)json_array_append_new(list, json_string(url));
	return r;
}

static int
verb_url(void *ctx, struct control_request *req)
{
	const json_t *args = control_args(req), *paths = json_object_get(args, "paths"), *path;
	double expires = number(args, "expires_s", URL_DEFAULT);
	json_t *list = json_array();
	size_t i;
	int r = 0;

	if (expires < 1 || expires > URL_MAX) {
		json_decref(list);
		return error_set(control_error(req), -EINVAL, "--expires takes 1 to %d seconds", URL_MAX);
	}
	json_array_foreach(paths, i, path) {
		r = url_of(ctx, req, path, (unsigned)expires, list);
		if (r < 0)
			break;
	}
	control_answer(req, json_pack("{s:o}", "urls", list));
	return r < 0 ? EXIT_NOT_DONE : EXIT_DONE;
}

const struct control_verb daemon_verbs[] = {
	{ "status", verb_status },
	{ "sync", verb_sync },
	{ "umount", verb_umount },
	{ "info", verb_info },
	{ "retry", verb_retry },
	{ "url", verb_url },
	{ NULL, NULL },
};
