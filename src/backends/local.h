/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BACKENDS_LOCAL_H
#define TBFS_BACKENDS_LOCAL_H

/*
 * Objects as plain files below a directory: `cp`, `rsync` and backup tools read it.
 * A put goes to <root>/.tbfs/tmp/, is fsynced and renamed over the key.
 */
#include "backends/backend.h"

struct local_options {
	const char *root_path;		/* local.root_path: absolute directory, created if missing and not used */
	bool used;			/* there are objects in it: it isn't made, and one without any isn't it */
	bool link;			/* local.link: hard-link staged files where PUT_MAY_LINK and one file system */
};

int local_backend_new(const struct local_options *opt, struct backend **ret_b, struct error *err);

#endif
