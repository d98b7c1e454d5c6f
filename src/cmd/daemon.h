/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CMD_DAEMON_H
#define TBFS_CMD_DAEMON_H

/*
 * Between `tbfs mount`, which has checked everything that can be checked from
 * outside, and the process that serves the mount.
 */
#include "base/error.h"
#include "config.h"

#include <stdbool.h>

/* Who waits for the mount: a parent at the other end of a pipe, or systemd. */
struct daemon_ready {
	int fd;				/* of the pipe; -1 in the foreground */
	bool told;
	bool log_is_file;		/* the log isn't stderr: a failure goes to both */
};

/*
 * Mount and serve until the mount has gone; returns an exit code.  Called in
 * the process that stays, which has one thread, "/" as working directory, umask
 * 077 and SIGPIPE ignored; other signals are as usual.  cfg is finished, its
 * state_dir exists and is locked (the lock's descriptor stays open until exit);
 * the log is open.  The mountpoint is resolved, a directory, empty, not mounted.
 *
 * When the mount is usable: daemon_ready_ok().  When it can't be made:
 * return daemon_ready_failed(ready, code, &err).
 */
int daemon_run(struct config *cfg, const char *mountpoint, struct daemon_ready *ready);

/* Let `tbfs mount` return 0, tell systemd, let go of the terminal.  -EPIPE: who asked for the
 * mount has been killed meanwhile: unmount and leave. */
int daemon_ready_ok(struct daemon_ready *ready);
/* Let `tbfs mount` print the sentence and exit with the code.  Logs it, returns the code. */
int daemon_ready_failed(struct daemon_ready *ready, enum exit_code code, const struct error *err);

#endif
