/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The daemon's side of the verbs about files: `tbfs info`, `tbfs retry`. */
#include "cmd/serve.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

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

/* At or below `inode`; how many. */
static json_int_t
retry_below(struct daemon *d, uint64_t ino)
{
	static const enum work_kind kinds[] = { WORK_UPLOAD, WORK_RELOCATE, WORK_REMOVE, WORK_DERIVE,
		WORK_KEEP };
	json_int_t count = 0;
	size_t k;
	int r;

	for (k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		/* Removals are objects', which are below nothing. */
		if (kinds[k] == WORK_REMOVE && ino != INDEX_ROOT)
			continue;
		r = index_work_retry(d->index, kinds[k], ino);
		count += r > 0 ? r : 0;
	}
	r = index_derive_retry(d->index, ino);
	count += r > 0 ? r : 0;
	/* Being named: what is torn is taken as it is.  That is never meant of all there is. */
	r = ino == INDEX_ROOT ? 0 : index_accept_torn(d->index, ino);
	return count + (r > 0 ? r : 0);
}

int
verb_retry(void *ctx, struct control_request *req)
{
	const json_t *paths = json_object_get(control_args(req), "paths"), *path;
	struct daemon *d = ctx;
	struct inode inode;
	json_int_t count = 0;
	size_t i;
	int r = 0;

	json_array_foreach(paths, i, path) {
		r = serve_resolve(d, path, &inode, control_error(req));
		if (r < 0)
			break;
		count += retry_below(d, inode.ino);
	}
	syncer_wake(d->syncer, 0);
	if (d->processor != NULL)
		processor_wake(d->processor);
	control_answer(req, json_pack("{s:I}", "retried", count));
	return r < 0 ? EXIT_NOT_DONE : EXIT_DONE;
}
