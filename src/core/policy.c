/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What names mean: which are on their way somewhere else, which can be keys, and
 * which lie in a keep.
 */
#include "core/node.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <errno.h>
#include <fnmatch.h>
#include <string.h>

enum { KEY_MAX = 1024 };
#define QUIET_LIMIT_FACTOR 30		/* 2 s of quiet: at most 60 s in all */

bool
policy_is_temporary(const char *name)
{
	/* rsync's .NAME.XXXXXX, Django's tmpXXXX.upload.ext, and the common suffixes. */
	static const char *const patterns[] = {
		".*.??????", "tmp*.upload.*", "tmp*.upload", "*.part", "*.tmp", ".~*",
	};
	size_t i;

	for (i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
		if (fnmatch(patterns[i], name, 0) == 0)
			return true;
	return false;
}

/* Length of the UTF-8 sequence at p (RFC 3629), 0 when it is none. */
static size_t
utf8_length(const unsigned char *p)
{
	unsigned need = *p < 0x80 ? 0 : *p >= 0xc2 && *p < 0xe0 ? 1 : *p >= 0xe0 && *p < 0xf0 ? 2 :
	    *p >= 0xf0 && *p < 0xf5 ? 3 : 4, i;

	if (need == 4)
		return 0;
	for (i = 1; i <= need; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) ||
	    (*p == 0xf4 && p[1] > 0x8f))
		return 0;
	return need + 1;
}

bool
policy_key_ok(const char *path)
{
	const unsigned char *p = (const unsigned char *)path;
	size_t len = strlen(path);

	/* .tbfs/ is ours. */
	if (len == 0 || len > KEY_MAX || strncmp(path, ".tbfs/", 6) == 0 || strcmp(path, ".tbfs") == 0)
		return false;
	while (*p != '\0') {
		size_t n = utf8_length(p);

		if (n == 0 || *p < 0x20 || *p == 0x7f)
			return false;
		p += n;
	}
	return true;
}

int
core_natural_key(struct core *c, uint64_t ino, char **ret_key)
{
	CLEANUP_FREE char *path = NULL;
	int r = index_path(c->ix, ino, &path);

	if (r < 0)
		return r;
	if (!policy_key_ok(path))
		return -EINVAL;
	*ret_key = TAKE_PTR(path);
	return 0;
}

struct quiet
quiet_for(const struct core *c, const char *name)
{
	int64_t now = clock_wall_ns();

	if (name != NULL && policy_is_temporary(name))
		return (struct quiet){ now, now + core_temp_delay(c), core_temp_delay(c) };
	return (struct quiet){ now, now + core_quiet_period(c),
	    core_quiet_period(c) * QUIET_LIMIT_FACTOR };
}

/* ---- keeps ---- */

/* circles/<circle>/keeps/<keep>/<rest> */
static bool
split_keep(const char *path, struct keep_path *k, size_t *ret_keep_len)
{
	const char *circle, *keeps, *keep, *rest;

	if (strncmp(path, "circles/", 8) != 0)
		return false;
	circle = path + 8;
	keeps = strchr(circle, '/');
	if (keeps == NULL || keeps == circle || strncmp(keeps, "/keeps/", 7) != 0)
		return false;
	keep = keeps + 7;
	rest = strchr(keep, '/');
	if (rest == NULL)
		rest = keep + strlen(keep);
	if (rest == keep)
		return false;
	(void)memcpy(k->circle, circle, (size_t)(keeps - circle));
	k->circle[keeps - circle] = '\0';
	(void)memcpy(k->keep, keep, (size_t)(rest - keep));
	k->keep[rest - keep] = '\0';
	k->rest = strdup(*rest == '/' ? rest + 1 : rest);
	*ret_keep_len = (size_t)(rest - path);
	return k->rest != NULL;
}

int
core_keep_path(struct core *c, uint64_t ino, struct keep_path *ret_path)
{
	CLEANUP_FREE char *path = NULL;
	struct inode keep;
	size_t len;
	int r = index_path(c->ix, ino, &path);

	*ret_path = (struct keep_path){ .ino = 0 };
	if (r < 0)
		return r;
	if (!split_keep(path, ret_path, &len))
		return -ENOENT;
	path[len] = '\0';
	r = core_resolve(c, path, &keep);
	if (r == 0 && !S_ISDIR(keep.mode))
		r = -ENOENT;
	if (r < 0) {
		keep_path_release(ret_path);
		return r;
	}
	ret_path->ino = keep.ino;
	return 0;
}

void
keep_path_release(struct keep_path *p)
{
	free(p->rest);
	p->rest = NULL;
}

int
core_resolve(struct core *c, const char *path, struct inode *ret_inode)
{
	char name[INDEX_NAME_MAX + 1];
	int r = index_get(c->ix, INDEX_ROOT, ret_inode);

	while (r == 0 && *path != '\0') {
		size_t n = strcspn(path, "/");

		if (n > INDEX_NAME_MAX)
			return -ENAMETOOLONG;
		if (n > 0) {
			memcpy(name, path, n);
			name[n] = '\0';
			r = index_lookup(c->ix, ret_inode->ino, name, ret_inode);
		}
		path += n;
		while (*path == '/')
			path++;
	}
	return r;
}
