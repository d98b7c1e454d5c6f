/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_PROCESSOR_PRIVATE_H
#define TBFS_PROCESSOR_PRIVATE_H

#include "base/jobq.h"
#include "base/lock.h"
#include "processor/pool.h"
#include "processor/processor.h"

#include <stdatomic.h>

enum {
	PIPELINE_VERSION = 2,		/* of what the workers make: a new one derives again */
	RINGS_MAX = 8192,
	WRITTEN_MAX = 64,
	JOBS_MAX = 64,
};

#define KEEP_DELAY_NS 1000000000LL	/* meta.json is written at most once a second … */
#define KEEP_UPLOAD_DELAY_NS (10 * 1000000000LL)	/* … and uploaded when its keep was quiet so long */

/* A closed file that waits for its quiet period. */
struct ring {
	uint64_t ino;
	int64_t at;			/* monotonic ns */
};

/* A meta.json that was written not long ago. */
struct written {
	uint64_t keep;
	int64_t at;			/* monotonic ns */
};

struct processor {
	struct processor_options opt;
	struct core *core;
	struct index *ix;
	struct extract_pool *pool;
	struct jobq *jobs;
	pthread_t thread, bell_thread;
	bool thread_runs, bell_runs;
	int inotify_fd, stop_fd;
	_Atomic bool stopping;
	struct written written[WRITTEN_MAX];	/* processor's thread */
	struct lock lock;		/* RANK_QUEUE: all below */
	pthread_cond_t changed;
	bool stop;
	bool ask;			/* the index has work that is due */
	bool settle_all;		/* events were lost, or somebody waits: everything open is asked */
	struct ring rings[RINGS_MAX];	/* unordered */
	size_t n_rings;
	uint64_t running[JOBS_MAX];	/* originals being derived; 0: free */
	size_t n_running;
	bool placing;			/* a job is at the places of derivatives */
	pthread_cond_t placed;		/* it no longer is */
};

/* bell.c */
int bell_start(struct processor *p);
void bell_stop(struct processor *p);
void ring_add(struct processor *p, uint64_t ino);	/* after a quiet period */
void ring_at(struct processor *p, uint64_t ino, int64_t at);	/* monotonic ns */

/* One original that is looked at. */
struct derive {
	struct processor *p;
	struct node *node;
	struct inode inode;
	struct keep_path at;		/* where it is */
};

/* place.c.  Where an original is, in its keep; -ENOENT: it is gone, in none, or where derivatives stand. */
int place_find(struct processor *p, uint64_t ino, struct keep_path *ret_at);
/* Nobody else is at the places until place_end(), and d->at is where the original is now; -ESTALE: it is in
 * no keep any more, and nothing was begun. */
int place_begin_at(struct derive *d);
void place_end(struct processor *p);
/* Between the two: the place is this original's, and it has no other; what stands there is its own. */
int place_claim(const struct derive *d);
/* A derived file as its original, but for its name. */
struct derived_file place_like(const struct derive *d);
/* False when it is to be derived: it never was, has changed, or what was derived can't be moved.  Else that is
 * where it belongs, or the original in no keep any more, and its work row still due. */
bool place_follow(struct derive *d);
/* What was derived from it goes, unless it came back; ends its work. */
void place_forget(struct processor *p, uint64_t ino);
/* After the work: it may have moved again, or changed hands; what was queued for that went with the row
 * that is done. */
void place_look_again(const struct derive *d);

/* derive.c: carry out the derivation of one original, or find that there is nothing to do. */
void derive_run(struct processor *p, uint64_t ino);

/* keep.c: write meta.json of a keep. */
void keep_run(struct processor *p, const struct work *w);

#endif
