/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CMD_MOUNTPOINT_H
#define TBFS_CMD_MOUNTPOINT_H

/* Can something be mounted there? */
#include "base/error.h"

/* Resolve `path` as mountinfo has it; malloc'd.  -ENOENT, -ENOTDIR, … with a sentence. */
int mountpoint_resolve(const char *path, char **ret_mountpoint, struct error *err);

/*
 * 0 when the (resolved) mountpoint is an empty directory, after taking away what a dead daemon
 * left there.  With a sentence: -EBUSY a live daemon has it, -ETIMEDOUT a hung one, -ENOTEMPTY
 * (names three of the files and what to do), -ENOTDIR, -ENOENT, …
 */
int mountpoint_check(const char *mountpoint, struct error *err);

#endif
