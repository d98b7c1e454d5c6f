/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_SYNC_SYNCER_H
#define TBFS_SYNC_SYNCER_H

/*
 * The write-back syncer: takes work from the index when it is due, one operation an
 * inode or key at a time, and carries it out on the stores.
 */
#include "core/core.h"
#include "sync/stores.h"

struct syncer;

struct syncer_options {
	struct core *core;
	struct stores *stores;
	unsigned workers;
	uint64_t max_size;		/* larger files are stuck with EFBIG; 0: no limit */
	bool link;			/* the local store may link staged files */
};

/* Begins to work at once. */
int syncer_new(const struct syncer_options *opt, struct syncer **ret_s);
/* There is work at that wall clock ns (0: now).  Any thread, cheap. */
void syncer_wake(struct syncer *s, int64_t due);
void syncer_set_max_size(struct syncer *s, uint64_t max_size);
/* Waits for what is under way; from then on a wake wakes nobody. */
void syncer_stop(struct syncer *s);
void syncer_free(struct syncer *s);		/* after that */

/* Wait until everything at or below `dir` (of which the quiet period is skipped) is in its
 * store; of the root also removals and relocations.  0; -EBUSY something is open for writing;
 * -EIO something is stuck or fails; -ETIMEDOUT; -ECANCELED.  `progress` is called about ten
 * times a second with what remains. */
struct sync_progress {
	uint64_t remaining, stuck, busy;
	char path[512], error[256];	/* of one that is stuck, busy or failing */
};
int syncer_drain(struct syncer *s, uint64_t dir, int64_t deadline_mono_ns,
    bool (*progress)(void *arg, const struct sync_progress *p), void *arg,
    struct sync_progress *ret_left);

/* The core's way to cold bytes. */
void syncer_fetcher(struct syncer *s, struct fetcher *ret_fetcher);

#endif
