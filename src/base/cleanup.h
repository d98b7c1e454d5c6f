/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BASE_CLEANUP_H
#define TBFS_BASE_CLEANUP_H

/*
 * Scoped cleanup.  A function uses these or `goto`, never both.
 *
 *	CLEANUP_CLOSE int fd = -1;
 *	CLEANUP_FREE char *path = NULL;
 */
#include <stdlib.h>
#include <unistd.h>

static inline void
cleanup_closep(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

static inline void
cleanup_freep(void *p)
{
	free(*(void **)p);
}

#define CLEANUP_CLOSE __attribute__((cleanup(cleanup_closep)))
#define CLEANUP_FREE __attribute__((cleanup(cleanup_freep)))

/* Hand an owned value on and disarm its cleanup. */
#define TAKE_FD(fd) ({ int take_fd_ = (fd); (fd) = -1; take_fd_; })
#define TAKE_PTR(p) ({ __typeof__(p) take_p_ = (p); (p) = NULL; take_p_; })

#endif
