/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/jobq.h"

#include "base/lock.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct job {
	void (*fn)(void *arg);
	void *arg;
};

struct jobq {
	struct lock lock;		/* RANK_QUEUE: all below */
	pthread_cond_t filled, emptied;
	struct job *ring;
	size_t bound, first, count;
	unsigned running, n_threads;
	bool stop;
	pthread_t threads[];
};

static void *
jobq_run(void *arg)
{
	struct jobq *q = arg;

	lock_take(&q->lock);
	for (;;) {
		struct job job;

		while (q->count == 0 && !q->stop)
			(void)lock_wait(&q->lock, &q->filled, 0);
		if (q->count == 0)
			break;
		job = q->ring[q->first];
		q->first = (q->first + 1) % q->bound;
		q->count--;
		q->running++;
		lock_drop(&q->lock);
		job.fn(job.arg);
		lock_take(&q->lock);
		q->running--;
		if (q->count == 0 && q->running == 0)
			(void)pthread_cond_broadcast(&q->emptied);
	}
	lock_drop(&q->lock);
	return NULL;
}

int
jobq_new(const char *name, unsigned threads, size_t bound, struct jobq **ret_q)
{
	struct jobq *q = calloc(1, sizeof(*q) + threads * sizeof(q->threads[0]));
	char title[16];
	int r = 0;

	if (q == NULL)
		return -ENOMEM;
	lock_init(&q->lock, RANK_QUEUE);
	lock_cond_init(&q->filled);
	lock_cond_init(&q->emptied);
	q->bound = bound;
	q->ring = calloc(bound, sizeof(*q->ring));
	if (q->ring == NULL)
		r = -ENOMEM;
	for (; r == 0 && q->n_threads < threads; q->n_threads++) {
		r = -pthread_create(&q->threads[q->n_threads], NULL, jobq_run, q);
		if (r < 0)
			break;
		(void)strncpy(title, name, sizeof(title) - 1);
		title[sizeof(title) - 1] = '\0';
		(void)pthread_setname_np(q->threads[q->n_threads], title);
	}
	if (r < 0) {
		jobq_free(q);
		return r;
	}
	*ret_q = q;
	return 0;
}

int
jobq_put(struct jobq *q, void (*fn)(void *arg), void *arg)
{
	int r = 0;

	lock_take(&q->lock);
	if (q->count == q->bound) {
		r = -EAGAIN;
	} else {
		q->ring[(q->first + q->count++) % q->bound] = (struct job){ fn, arg };
		(void)pthread_cond_signal(&q->filled);
	}
	lock_drop(&q->lock);
	return r;
}

size_t
jobq_load(struct jobq *q)
{
	size_t n;

	lock_take(&q->lock);
	n = q->count + q->running;
	lock_drop(&q->lock);
	return n;
}

void
jobq_wait_idle(struct jobq *q)
{
	lock_take(&q->lock);
	while (q->count > 0 || q->running > 0)
		(void)lock_wait(&q->lock, &q->emptied, 0);
	lock_drop(&q->lock);
}

void
jobq_free(struct jobq *q)
{
	unsigned i;

	if (q == NULL)
		return;
	lock_take(&q->lock);
	q->stop = true;
	(void)pthread_cond_broadcast(&q->filled);
	lock_drop(&q->lock);
	for (i = 0; i < q->n_threads; i++)
		(void)pthread_join(q->threads[i], NULL);
	lock_release(&q->lock);
	(void)pthread_cond_destroy(&q->filled);
	(void)pthread_cond_destroy(&q->emptied);
	free(q->ring);
	free(q);
}
