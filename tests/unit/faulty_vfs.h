/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_TESTS_FAULTY_VFS_H
#define TBFS_TESTS_FAULTY_VFS_H

/* A disk that refuses, for what SQLite writes through "unix-excl". */
#include <stdatomic.h>

extern _Atomic long fault_countdown;	/* the call that makes it 0 fails; < 0: none does */
extern int fault_code;			/* how: SQLITE_FULL, SQLITE_IOERR_WRITE */

/* Stand in for the VFS; a set-up function of cmocka, before anything is opened. */
int faulty_vfs_up(void **state);

#endif
