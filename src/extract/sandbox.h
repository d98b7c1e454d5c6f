/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_SANDBOX_H
#define TBFS_EXTRACT_SANDBOX_H

/* The walls around everything that parses untrusted bytes. */
#include "base/error.h"
#include "base/extract_wire.h"

/*
 * Enter the sandbox for good.  Called once, with one thread, after every
 * library, module and table is loaded and before the first byte of a file is
 * looked at; `sock` is the only descriptor that is kept besides 0, 1, 2.
 * ret_guards receives EXTRACT_GUARD_… that are in force; the first five always
 * are.  -errno with a sentence: the caller must end the process.
 */
int sandbox_enter(const struct extract_hello *hello, int sock, uint32_t *ret_guards,
    struct error *err);

/* The system call filter alone (seccomp.c); part of sandbox_enter. */
int sandbox_filter(struct error *err);

#endif
