/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Stands in for the file system until that is there: says so and fails. */
#include "cmd/daemon.h"

#include <errno.h>

int
daemon_run(struct config *cfg, const char *mountpoint, struct daemon_ready *ready)
{
	struct error err;

	(void)cfg;
	(void)error_set(&err, -ENOSYS, "%s: this build has no file system in it", mountpoint);
	return daemon_ready_failed(ready, EXIT_NOT_DONE, &err);
}
