/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The daemon's side of `tbfs quota`.  "quota_set" has paths and bytes, files (0: none; left
 * out: as it is); "quota_show" has paths, and its answer quotas: those that hold where a path
 * stands, and those below it, {path, bytes: {used, limit}, files: {used, limit}}.
 */
#include "cmd/serve.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct shown {
	struct daemon *d;
	const char *path;		/* that was asked about, without leading slash */
	struct quota one;		/* the one of this directory, where `wanted` */
	uint64_t wanted;
	json_t *list;
};

static int
find_quota(void *arg, const struct quota *q)
{
	struct shown *s = arg;

	if (q->dir == s->wanted)
		s->one = *q;
	return 0;
}

static int
set_one(struct daemon *d, const json_t *args, const json_t *path, struct error *err)
{
	const json_t *bytes = json_object_get(args, "bytes"), *files = json_object_get(args, "files");
	struct shown s = { 0 };
	struct inode inode;
	int r = serve_resolve(d, path, &inode, err);

	if (r < 0)
		return r;
	s.wanted = inode.ino;
	r = index_quota_each(d->index, find_quota, &s);
	if (bytes != NULL)
		s.one.limit.bytes = json_integer_value(bytes);
	if (files != NULL)
		s.one.limit.files = json_integer_value(files);
	if (r == 0)
		r = index_quota_set(d->index, inode.ino, &s.one.limit);
	return r == 0 ? 0 : error_set(err, r, "%s: %s", json_string_value(path),
	    r == -EINVAL ? "a directory of derived files takes no quota" : strerror(-r));
}

static bool
is_amount(const json_t *v)
{
	return v == NULL || (json_is_integer(v) && json_integer_value(v) >= 0);
}

int
verb_quota_set(void *ctx, struct control_request *req)
{
	const json_t *args = control_args(req), *paths = json_object_get(args, "paths"), *path;
	size_t i;
	int r = 0;

	if (!is_amount(json_object_get(args, "bytes")) || !is_amount(json_object_get(args, "files")))
		return error_set(control_error(req), -EINVAL, "bytes and files are whole numbers");
	json_array_foreach(paths, i, path) {
		r = set_one(ctx, args, path, control_error(req));
		if (r < 0)
			break;
	}
	return r < 0 ? EXIT_NOT_DONE : EXIT_DONE;
}

/* Is one of the two at or below the other? */
static bool
on_one_line(const char *a, const char *b)
{
	size_t n = strlen(a) < strlen(b) ? strlen(a) : strlen(b);
	const char *longer = strlen(a) < strlen(b) ? b : a;

	return strncmp(a, b, n) == 0 && (n == 0 || longer[n] == '/' || longer[n] == '\0');
}

static int
show_quota(void *arg, const struct quota *q)
{
	CLEANUP_FREE char *path = NULL;
	struct shown *s = arg;

	if (index_path(s->d->index, q->dir, &path) < 0 || !on_one_line(path, s->path))
		return 0;
	return json_array_append_new(s->list, json_pack("{s:o, s:{s:I, s:I}, s:{s:I, s:I}}",
	    "path", control_path_encode(path), "bytes", "used", (json_int_t)q->used.bytes, "limit",
	    (json_int_t)q->limit.bytes, "files", "used", (json_int_t)q->used.files, "limit",
	    (json_int_t)q->limit.files));
}

int
verb_quota_show(void *ctx, struct control_request *req)
{
	const json_t *paths = json_object_get(control_args(req), "paths"), *path;
	struct daemon *d = ctx;
	json_t *list = json_array();
	struct inode inode;
	size_t i;
	int r = 0;

	json_array_foreach(paths, i, path) {
		CLEANUP_FREE char *at = NULL;
		struct shown s = { .d = d, .list = list };

		r = serve_resolve(d, path, &inode, control_error(req));
		if (r == 0)
			r = index_path(d->index, inode.ino, &at);
		s.path = at;
		if (r == 0)
			r = index_quota_each(d->index, show_quota, &s);
		if (r < 0)
			break;
	}
	control_answer(req, json_pack("{s:o}", "quotas", list));
	return r < 0 ? EXIT_NOT_DONE : EXIT_DONE;
}
