/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CMD_PATIENCE_H
#define TBFS_CMD_PATIENCE_H

/*
 * System calls on a mount whose daemon hangs don't come back, and a process in
 * one of them can't even be killed.  So they are made in a child that is left
 * behind when it takes too long.
 */
#include <stddef.h>
#include <stdio.h>

enum { PATIENCE_S = 10 };

/* Run fn(arg, out) in a child for at most `seconds`.  Returns what fn did (0 or -errno), or
 * -ETIMEDOUT.  What fn wrote to `out` is in *ret_text (malloc'd, NUL-terminated), *ret_len bytes,
 * whatever fn returned; NULL after -ETIMEDOUT.  Only from a process without threads. */
int patience_run(int (*fn)(void *arg, FILE *out), void *arg, int seconds, char **ret_text,
    size_t *ret_len);

/* The nth NUL-terminated field of such a text; "" where there is none. */
const char *patience_field(const char *text, size_t len, size_t n);

#endif
