/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What travels with an object of the local backend.
 *
 * It is one xattr, `user.tbfs.meta`: lines `name=value` as meta.h spells them,
 * and `size`.  A copied object also gets the file's mtime, and its mode and owner
 * where we may, so that `rsync -a` of the root is a backup one can use; set-id
 * bits are left out.
 *
 *   1. An object whose size is not the one in its xattr was written by someone
 *      else: it is served, without a checksum.
 *   2. A file system without user xattrs is refused by probe and put (-ENOTSUP).
 *      Sidecar files would do, but would not change together with the name.
 */
#include "backends/local_store.h"

#include "backends/meta.h"
#include "base/clock.h"
#include "base/strbuf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define META_XATTR "user.tbfs.meta"

enum { XATTR_MAX = 4096 };

static int
field_to_line(void *arg, const char *name, const char *value)
{
	strbuf_addf(arg, "%s=%s\n", name, value);
	return 0;
}

int
local_meta_set(int fd, const struct object_meta *m, uint64_t size, const uint8_t *sum)
{
	CLEANUP_STRBUF struct strbuf text = STRBUF_INIT;

	(void)meta_each(m, sum, field_to_line, &text, NULL);
	strbuf_addf(&text, "size=%" PRIu64 "\n", size);
	if (!strbuf_ok(&text))
		return -ENOMEM;
	return fsetxattr(fd, META_XATTR, text.data, text.len, 0) < 0 ? -errno : 0;
}

static void
parse_meta(char *text, struct backend_tag *tag)
{
	char *line, *save = NULL;
	uint64_t size = UINT64_MAX;

	for (line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
		char *eq = strchr(line, '=');

		if (eq == NULL)
			continue;
		*eq = '\0';
		if (strcmp(line, "size") == 0)
			size = strtoull(eq + 1, NULL, 10);
		else
			meta_parse(tag, line, eq + 1);
	}
	if (size != tag->size)			/* invariant 4 */
		tag->has_sha256 = false;
}

int
local_meta_tag(int fd, const struct stat *st, struct backend_tag *ret_tag)
{
	char text[XATTR_MAX + 1];
	ssize_t n;

	memset(ret_tag, 0, sizeof(*ret_tag));
	ret_tag->size = (uint64_t)st->st_size;
	ret_tag->mtime_ns = timespec_to_ns(st->st_mtim);
	n = fgetxattr(fd, META_XATTR, text, XATTR_MAX);
	if (n < 0 && (errno == ENODATA || errno == ENOTSUP || errno == ERANGE))
		return 0;
	if (n < 0)
		return -errno;
	text[n] = '\0';
	parse_meta(text, ret_tag);
	return 0;
}

int
local_set_attributes(int fd, uint32_t mode, uint32_t uid, uint32_t gid, int64_t mtime_ns)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, ns_to_timespec(mtime_ns) };

	if (mode != 0) {
		bool given = fchown(fd, uid, gid) == 0;

		mode &= 0777;
		if (!given || geteuid() != 0)
			mode |= 0600;
		if (fchmod(fd, mode) < 0)
			return -errno;
	}
	return futimens(fd, times) < 0 ? -errno : 0;
}

int
local_meta_copy(int from, int to)
{
	char text[XATTR_MAX];
	ssize_t n = fgetxattr(from, META_XATTR, text, sizeof(text));

	if (n < 0)
		return errno == ENODATA || errno == ENOTSUP || errno == ERANGE ? 0 : -errno;
	return fsetxattr(to, META_XATTR, text, (size_t)n, 0) < 0 ? -errno : 0;
}
