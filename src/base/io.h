/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BASE_IO_H
#define TBFS_BASE_IO_H

/*
 * Whole reads and writes, and what makes a name durable.  All retry EINTR and
 * short counts; all return 0 (or a count where said) or -errno.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

int write_full(int fd, const void *buf, size_t len);
int pwrite_full(int fd, const void *buf, size_t len, uint64_t off);

/* Read up to len bytes; returns the count, short only at the end of the file. */
ssize_t read_full(int fd, void *buf, size_t len);
ssize_t pread_full(int fd, void *buf, size_t len, uint64_t off);

/* Copy `len` bytes between files at the same or other offsets (copy_file_range, else a
 * buffer).  -EIO when the source ends early. */
int copy_range(int in, uint64_t off_in, int out, uint64_t off_out, uint64_t len);

/* fsync the directory `path` below dirfd, so that names in it survive a power cut. */
int fsync_dirat(int dirfd, const char *path);

/* mkdir -p `path` below dirfd with `mode` for each new level. */
int mkdir_parents(int dirfd, const char *path, mode_t mode);

/* Whole small file into a malloc'd, NUL-terminated buffer; -EFBIG above `max` bytes. */
int read_file(int dirfd, const char *path, size_t max, char **ret_text, size_t *ret_len);

#endif
