/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The daemon's side of the verbs about single files: `tbfs info`, `tbfs retry`, `tbfs url`. */
#include "cmd/serve.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { URL_DEFAULT = 3600, URL_MAX = 604800 };

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

int
verb_info(void *ctx, struct control_request *req)
{
	const json_t *paths = json_object_get(control_args(req), "paths"), *path;
	struct daemon *d = ctx;
	struct inode inode;
	json_t *list = json_array();
	size_t i;
	int r = 0;

	json_array_foreach(paths, i, path) {
		r = serve_resolve(d, path, &inode, control_error(req));
		if (r < 0)
			break;
		(void)json_array_append_new(list, info_of(d, path, &inode));
	}
	control_answer(req, json_pack("{s:o}", "files", list));
	return r < 0 ? EXIT_NOT_DONE : EXIT_DONE;
}

int
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
		r = serve_resolve(d, path, &inode, control_error(req));
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
	int r = serve_resolve(d, path, &inode, err);

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

int
verb_url(void *ctx, struct control_request *req)
{
	const json_t *args = control_args(req), *paths = json_object_get(args, "paths"), *path;
	double expires = serve_number(args, "expires_s", URL_DEFAULT);
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
