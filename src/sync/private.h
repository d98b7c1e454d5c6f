/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_SYNC_PRIVATE_H
#define TBFS_SYNC_PRIVATE_H

#include "base/jobq.h"
#include "base/lock.h"
#include "sync/syncer.h"

#include <stdatomic.h>

enum { IN_FLIGHT_MAX = 256 };

struct flight {
	struct syncer *s;
	enum work_kind kind;
	uint64_t id;
	unsigned attempts;
};

struct syncer {
	struct syncer_options opt;
	_Atomic uint64_t max_size;	/* that of opt, until it is changed */
	struct core *core;
	struct index *ix;
	struct stores *stores;
	struct jobq *workers;
	pthread_t scheduler;
	struct lock lock;		/* RANK_QUEUE: all below */
	pthread_cond_t changed;
	bool stop;
	int64_t asked;			/* monotonic ns: the scheduler is to look then at the latest; 0: now */
	_Atomic bool stopping;		/* what is under way ends, what waits isn't begun */
	_Atomic int64_t planned;	/* wall clock ns of its next look; INT64_MAX: it isn't asleep */
	struct flight flights[IN_FLIGHT_MAX];	/* id 0: free */
	size_t n_flights;
};

/* One piece of work each; 0 or -errno; they write their own result to the index. */
void upload_run(struct syncer *s, uint64_t ino, unsigned attempts);
void relocate_run(struct syncer *s, uint64_t ino, unsigned attempts);
void remove_run(struct syncer *s, uint64_t object, unsigned attempts);

/* It is tried again later, or, when stuck, on request. */
void work_failed(struct syncer *s, enum work_kind kind, uint64_t id, unsigned attempts, bool stuck,
    const struct error *err);
/* When to try again after `attempts` failures: 1 s, 2 s, 4 s … 15 s, with jitter (wall clock). */
int64_t retry_time(unsigned attempts);
/* `object`'s fields from what the store said. */
void object_from_tag(struct object *o, const struct backend_tag *tag);

#endif
