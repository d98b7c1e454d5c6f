/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CMD_LOCATE_H
#define TBFS_CMD_LOCATE_H

/*
 * From a path that a user names to the daemon that serves it: by
 * /proc/self/mountinfo to the mount, by its xattr user.tbfs.control to the socket.
 */
#include "base/error.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#define LOCATE_TYPE "fuse.tbfs"		/* as mountinfo shows our mounts */
#define LOCATE_XATTR "user.tbfs.control"	/* absolute path of the control socket, on any inode */

/* One line of mountinfo, unescaped. */
struct locate_mount {
	char root[PATH_MAX];		/* what of the file system is mounted: "/" unless bind-mounted */
	char point[PATH_MAX];		/* where */
	char type[64];
	char dev[32];			/* of the file system, major:minor */
	char source[256];
};

struct location {
	char *mountpoint;
	char *path;			/* inside the file system: "/", "/circles/12" */
	char *socket;
};

/* Find the daemon for a path.  Follows a symlink only where the link itself isn't on a mount of
 * ours.  Returns within seconds:
 *   -ENOENT    no such file
 *   -ENODEV    exists, but is not on a tbfs mount
 *   -ENOTCONN  on a mount whose daemon is dead; ret->mountpoint is set
 *   -ETIMEDOUT on something that does not answer */
int locate_path(const char *path, struct location *ret, struct error *err);
/* The one tbfs mount there is; -ENODEV when there is none or more than one. */
int locate_only(struct location *ret, struct error *err);
void locate_release(struct location *loc);

/* Resolve symlinks of all but the last component (of that too when it is one): what a mountpoint
 * is called in mountinfo, also when its daemon is dead.  0 or -errno.  May block on a hung mount. */
int locate_resolve(const char *path, char ret_path[PATH_MAX]);
/* The topmost mount exactly at `point`, which is resolved.  False: none. */
bool locate_mount_at(const char *point, struct locate_mount *ret);

/* How many mounts of a file system there are here: more than one where it is bind-mounted. */
unsigned locate_count(const char *dev);

/* Take a mount away: umount2(2), for users fusermount3.  -EBUSY etc., with a sentence. */
int locate_detach(const char *mountpoint, bool lazy, struct error *err);

#endif
