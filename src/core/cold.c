/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Bytes that are only in the backend come back into a staged file: whole, on the disk, and with
 * the time that the row has, before the row says that they are here.
 */
#include "core/node.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int
node_hydrate(struct core *c, const struct inode *inode)
{
	struct object object;
	struct error err = { 0 };
	struct stat st;
	int fd, r = index_object_get(c->ix, inode->object, &object);

	if (r < 0)
		return core_eio(c, inode->ino, "its bytes are not here, and it has no object");
	fd = staging_scratch(c->st);
	if (fd < 0)
		return fd;
	r = c->fetcher.fetch == NULL ? -EIO : c->fetcher.fetch(c->fetcher.arg, &object, fd, &err);
	if (r < 0) {
		r = r == -ENOSPC ? r : core_eio(c, inode->ino, "its object %s can't be fetched: %s", object.key,
		    error_text(&err));
	}
	if (r == 0) {
		struct timespec times[2] = { ns_to_timespec(inode->atime), ns_to_timespec(inode->mtime) };

		(void)futimens(fd, times);
		/* It is STORED from here on, which a power cut must not make a lie. */
		r = fsync(fd) < 0 ? -errno : staging_adopt(c->st, fd, inode->ino);
	}
	if (r == -EEXIST)
		r = 0;
	if (r == 0)
		r = staging_stat(c->st, inode->ino, &st);
	(void)close(fd);
	if (r == 0)
		r = index_mark_whole(c->ix, inode->ino, inode->generation, timespec_to_ns(st.st_mtim));
	return r == -ESTALE ? 0 : r;
}
