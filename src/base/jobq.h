/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BASE_JOBQ_H
#define TBFS_BASE_JOBQ_H

/* A bounded queue of jobs and the threads that run them. */
#include <stddef.h>

struct jobq;

int jobq_new(const char *name, unsigned threads, size_t bound, struct jobq **ret_q);
/* Run fn(arg) on one of the threads.  -EAGAIN when `bound` jobs wait already. */
int jobq_put(struct jobq *q, void (*fn)(void *arg), void *arg);
size_t jobq_load(struct jobq *q);	/* jobs waiting and running */
void jobq_wait_idle(struct jobq *q);
void jobq_free(struct jobq *q);		/* runs what is queued, then ends the threads; NULL is fine */

#endif
