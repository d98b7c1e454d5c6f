/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CMD_READY_H
#define TBFS_CMD_READY_H

/* The waiting end of struct daemon_ready. */
#include "cmd/daemon.h"

#include <sys/types.h>

/* Wait for the daemon's word on the pipe; tells failures.  Returns the exit code. */
int ready_wait(int fd, pid_t pid);

#endif
