/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BACKENDS_FAULT_H
#define TBFS_BACKENDS_FAULT_H

/*
 * Wraps a backend and makes it misbehave on request: for tests, and for the
 * hidden option `fault=` of a mount.  Owns `inner`.
 *
 * spec: comma-separated; each applies to every call unless `op:` limits it, as in
 * "put:nth=3:EAGAIN,get:delay=200,put:lost=2":
 *   nth=N:ERRNO    the Nth matching call fails (counted from 1) and does nothing
 *   every=ERRNO    each matching call fails and does nothing
 *   lost=N:ERRNO   the Nth matching call is carried out, then reported as failed
 *   delay=MS       each matching call first waits
 *   cut=N          a get delivers only the first N bytes, then fails with EAGAIN
 */
#include "backends/backend.h"

int fault_backend_new(struct backend *inner, const char *spec, struct backend **ret_b,
    struct error *err);

/* Matching is over all operations here; n counts from 1; 0 disarms. */
void fault_fail_nth(struct backend *b, uint64_t n, int code);
uint64_t fault_calls(struct backend *b);	/* calls since the last fault_fail_nth() */
void fault_set(struct backend *b, const char *spec);	/* replace the spec; aborts on a bad one */

#endif
