/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The daemon's side of `tbfs status`; also what SIGUSR1 writes to the log. */
#include "build.h"
#include "cmd/serve.h"

#include "base/clock.h"

#include <errno.h>
#include <unistd.h>

enum { LIST_MAX = 100 };

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
work_path(struct daemon *d, const struct work *w)
{
	struct object o;

	if (w->kind == WORK_REMOVE)
		return index_object_get(d->index, w->id, &o) == 0 ? control_path_encode(o.key) : NULL;
	return serve_path_of(d, w->id);
}

static json_t *
status_failures(struct daemon *d, json_t *ret_stuck)
{
	static const enum work_kind kinds[] = { WORK_UPLOAD, WORK_RELOCATE, WORK_REMOVE, WORK_EXPAND,
		WORK_DERIVE, WORK_KEEP };
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
		json_t *path = serve_path_of(d, l.inos[i]);

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

int
verb_status(void *ctx, struct control_request *req)
{
	json_t *status = daemon_status(ctx);

	if (status == NULL)
		return -EIO;
	control_answer(req, status);
	return EXIT_DONE;
}
