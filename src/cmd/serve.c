/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The daemon's side of the verbs: their table, and what they share. */
#include "cmd/serve.h"

#include "base/cleanup.h"

#include <errno.h>
#include <string.h>

int
serve_resolve(struct daemon *d, const json_t *text, struct inode *ret_inode, struct error *err)
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

double
serve_number(const json_t *args, const char *name, double otherwise)
{
	const json_t *v = json_object_get(args, name);

	return json_is_number(v) ? json_number_value(v) : otherwise;
}

json_t *
serve_path_of(struct daemon *d, uint64_t ino)
{
	CLEANUP_FREE char *path = NULL;

	return index_path(d->index, ino, &path) == 0 ? control_path_encode(path) : NULL;
}

const struct control_verb daemon_verbs[] = {
	{ "status", verb_status },
	{ "sync", verb_sync },
	{ "umount", verb_umount },
	{ "info", verb_info },
	{ "retry", verb_retry },
	{ "quota_set", verb_quota_set },
	{ "quota_show", verb_quota_show },
	{ NULL, NULL },
};
