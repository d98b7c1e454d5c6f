/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What is declared and not built yet. */
#include "backends/s3.h"

#include <errno.h>

int
s3_backend_new(const struct s3_options *opt, struct backend **ret_b, struct error *err)
{
	(void)opt, (void)ret_b;
	return error_set(err, -ENOTSUP, "not in this build");
}
