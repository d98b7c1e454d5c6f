/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The daemon's side of `tbfs sync` and `tbfs umount`: wait until all is stored, and say what isn't. */
#include "cmd/serve.h"

#include "base/clock.h"

#include <errno.h>
#include <string.h>

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
	double s = serve_number(control_args(req), "timeout_s", otherwise_s);
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
		(void)error_set(err, r, "%ju files are open for writing%s%s", (uintmax_t)left->busy,
		    left->path[0] != '\0' ? ", for one " : "", left->path);
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

/* A wait that was broken off because its time was up says so. */
static int
ended(const struct control_request *req, int r)
{
	return r == -ECANCELED ? control_cancelled(req) : r;
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
		r = ended(req, processor_drain(d->processor, ino, end, watch_derived, &w));
	if (r < 0)
		return error_set(control_error(req), r, "not all is derived: %s", r == -EBUSY ?
		    "files are open or mapped for writing" : r == -ETIMEDOUT ? "the time is up" : strerror(-r));
	if (derived)
		fs_entries_told(d->fs);
	r = ended(req, syncer_drain(d->syncer, ino, end, watch_progress, &w, &left));
	if (r < 0)
		explain(r, &left, control_error(req));
	return r;
}

int
verb_sync(void *ctx, struct control_request *req)
{
	const json_t *args = control_args(req), *paths = json_object_get(args, "paths"), *path;
	bool derived = json_is_true(json_object_get(args, "derived"));
	struct daemon *d = ctx;
	struct inode inode;
	struct error first = { 0 };
	size_t i;
	int r, worst = 0;

	/* One that can't be stored holds up no other. */
	json_array_foreach(paths, i, path) {
		r = serve_resolve(d, path, &inode, control_error(req));
		if (r == 0)
			r = sync_one(d, req, inode.ino, derived);
		if (r < 0 && worst == 0) {
			first = *control_error(req);
			worst = r;
		}
		if (r == -ECANCELED)
			break;
	}
	if (worst < 0)
		*control_error(req) = first;
	return worst < 0 ? EXIT_NOT_DONE : EXIT_DONE;
}

int
verb_umount(void *ctx, struct control_request *req)
{
	struct daemon *d = ctx;
	struct watch w = { .req = req };
	struct index_status st = { .stuck = 0 };
	struct sync_progress left;
	json_int_t files, bytes;
	int r;

	r = ended(req, syncer_drain(d->syncer, INDEX_ROOT,
	    deadline(req, (double)d->cfg->drain_timeout / 1e9), watch_progress, &w, &left));
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
