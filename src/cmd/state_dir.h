/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CMD_STATE_DIR_H
#define TBFS_CMD_STATE_DIR_H

/* The state directory before the daemon has it: made, judged, locked. */
#include "base/error.h"

enum { STATE_LOCK_S = 10 };

/* Make `path` (0700) with its parents (0755) where it is missing, and see that it is a directory
 * of ours that nobody else can write to.  -errno with a sentence. */
int state_dir_prepare(const char *path, struct error *err);

/* Take <path>/lock, waiting up to `seconds` for another mount to leave.  Returns a descriptor
 * that holds the lock as long as it or a copy of it (fork) is open.  -EBUSY names the holder. */
int state_dir_lock(const char *path, int seconds, struct error *err);

/* Write this process's pid into the lock file, for the sentence that others get. */
void state_dir_sign(int lock_fd);

#endif
