/* SPDX-License-Identifier: GPL-3.0-or-later */
/* SQLite's own VFS, with the nth write or sync failing. */
#include "faulty_vfs.h"

#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static sqlite3_vfs faulty, *real;
_Atomic long fault_countdown = -1;
int fault_code;

/* SQLite's own methods, which differ by the kind of file, and ours before them. */
static struct methods {
	sqlite3_io_methods ours;	/* first: a file points here */
	const sqlite3_io_methods *real;
} methods[4];

static const sqlite3_io_methods *
real_methods(const sqlite3_file *f)
{
	return ((const struct methods *)(const void *)f->pMethods)->real;
}

static bool
refused(void)
{
	return atomic_load(&fault_countdown) > 0 && atomic_fetch_sub(&fault_countdown, 1) == 1;
}

static int
faulty_write(sqlite3_file *f, const void *buf, int len, sqlite3_int64 at)
{
	if (!refused())
		return real_methods(f)->xWrite(f, buf, len, at);
	/* As a full disk does: a part of it is there. */
	(void)real_methods(f)->xWrite(f, buf, len / 3 * 2, at);
	return fault_code;
}

static int
faulty_sync(sqlite3_file *f, int flags)
{
	return refused() ? fault_code : real_methods(f)->xSync(f, flags);
}

static int
faulty_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *f, int flags, int *ret_flags)
{
	int rc = real->xOpen(real, name, f, flags, ret_flags);
	size_t i;

	(void)vfs;
	for (i = 0; rc == SQLITE_OK && f->pMethods != NULL; i++) {
		assert_true(i < sizeof(methods) / sizeof(methods[0]));
		if (methods[i].real == NULL) {
			methods[i] = (struct methods){ *f->pMethods, f->pMethods };
			methods[i].ours.xWrite = faulty_write;
			methods[i].ours.xSync = faulty_sync;
		}
		if (methods[i].real == f->pMethods) {
			f->pMethods = &methods[i].ours;
			break;
		}
	}
	return rc;
}

int
faulty_vfs_up(void **state)
{
	(void)state;
	real = sqlite3_vfs_find("unix-excl");
	assert_non_null(real);
	faulty = *real;
	faulty.pNext = NULL;
	faulty.xOpen = faulty_open;
	return sqlite3_vfs_register(&faulty, 0);
}
