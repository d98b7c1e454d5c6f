/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "backends/fault.h"
#include "backends/s3.h"
#include <errno.h>
int s3_backend_new(const struct s3_options *opt, struct backend **ret_b, struct error *err)
{ (void)opt; (void)ret_b; return error_set(err, -ENOTSUP, "not in this build"); }
int fault_backend_new(struct backend *inner, const char *spec, struct backend **ret_b, struct error *err)
{ (void)inner; (void)spec; (void)ret_b; return error_set(err, -ENOTSUP, "not in this build"); }
