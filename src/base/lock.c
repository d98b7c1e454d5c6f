/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/lock.h"

#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef NDEBUG
enum { RANK_STEPS = 8 };	/* rank / 10 is a slot */
static __thread unsigned char held[RANK_STEPS];

static void
rank_take(enum lock_rank rank)
{
	int i;

	for (i = (int)rank / 10; i < RANK_STEPS; i++) {
		if (held[i]) {
			fprintf(stderr, "lock order: rank %d taken while %d is held\n", (int)rank, i * 10);
			abort();
		}
	}
	held[rank / 10] = 1;
}

static void
rank_drop(enum lock_rank rank)
{
	assert(held[rank / 10]);
	held[rank / 10] = 0;
}

void
lock_assert_none(void)
{
	int i;

	for (i = 0; i < RANK_STEPS; i++)
		assert(!held[i]);
}
#else
static void rank_take(enum lock_rank rank) { (void)rank; }
static void rank_drop(enum lock_rank rank) { (void)rank; }
void lock_assert_none(void) { }
#endif

void
lock_init(struct lock *l, enum lock_rank rank)
{
	(void)pthread_mutex_init(&l->mutex, NULL);
	l->rank = rank;
}

void
lock_release(struct lock *l)
{
	(void)pthread_mutex_destroy(&l->mutex);
}

void
lock_take(struct lock *l)
{
	rank_take(l->rank);
	(void)pthread_mutex_lock(&l->mutex);
}

bool
lock_try(struct lock *l)
{
	if (pthread_mutex_trylock(&l->mutex) != 0)
		return false;
	rank_take(l->rank);
	return true;
}

void
lock_drop(struct lock *l)
{
	rank_drop(l->rank);
	(void)pthread_mutex_unlock(&l->mutex);
}

void
lock_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(cond, &attr);
	(void)pthread_condattr_destroy(&attr);
}

int
lock_wait(struct lock *l, pthread_cond_t *cond, long long until_ns)
{
	struct timespec until = ns_to_timespec(until_ns);

	if (until_ns == 0)
		return -pthread_cond_wait(cond, &l->mutex);
	return -pthread_cond_timedwait(cond, &l->mutex, &until);
}
