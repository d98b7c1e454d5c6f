/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CMD_CARE_H
#define TBFS_CMD_CARE_H

/* A thread that looks after the index: checkpoints, snapshots. */
#include "base/lock.h"
#include "config.h"
#include "index/index.h"

#include <pthread.h>

struct care {
	struct index *index;
	const struct config *cfg;	/* asked each time: it can be reloaded */
	pthread_t thread;
	bool runs;
	struct lock lock;		/* RANK_QUEUE */
	pthread_cond_t stopped;
	bool stop;			/* lock */
};

/* 0 or -errno of pthread_create(3). */
int care_start(struct care *care, struct index *ix, const struct config *cfg);
/* Waits for a snapshot that is being made.  One that was never started (all zero) is fine. */
void care_stop(struct care *care);

#endif
