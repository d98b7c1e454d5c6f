/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BASE_LOCK_H
#define TBFS_BASE_LOCK_H

/*
 * Ranked locks: a thread takes them in rising rank, never two of one rank, and
 * holds none across backend calls, file data I/O, fork, a FUSE reply or notify
 * (lock_assert_none() says so at those places).  Checked unless NDEBUG.
 */
#include <pthread.h>
#include <stdbool.h>

enum lock_rank {
	RANK_TABLE = 10,	/* core: the table of inodes in memory */
	RANK_OBJECT = 20,	/* core: one inode's open state */
	RANK_INDEX = 30,	/* the database connections */
	RANK_USAGE = 40,	/* index: what is counted below each directory */
	RANK_QUEUE = 50,	/* job queues, worker pools */
	RANK_ROWS = 60,		/* index: rows in memory */
};

struct lock {
	pthread_mutex_t mutex;
	enum lock_rank rank;
};

void lock_init(struct lock *l, enum lock_rank rank);
void lock_release(struct lock *l);
void lock_take(struct lock *l);
bool lock_try(struct lock *l);		/* take it if it is free now */
void lock_drop(struct lock *l);

/* Wait on cond with l taken, until signalled or the monotonic time `until_ns` (0: no limit).
 * The condition must come from lock_cond_init().  Returns 0 or -ETIMEDOUT. */
int lock_wait(struct lock *l, pthread_cond_t *cond, long long until_ns);
void lock_cond_init(pthread_cond_t *cond);

/* Abort if this thread holds any ranked lock. */
void lock_assert_none(void);

#endif
