/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_SYNC_STORES_H
#define TBFS_SYNC_STORES_H

/*
 * The backends of a mount by name: the one that new objects go to, and those that old
 * objects are still in.  Also remembers how each is doing, so that a store that is
 * down is asked now and then instead of by every worker.
 */
#include "backends/backend.h"
#include "base/lock.h"

enum { STORES_MAX = 4 };

struct store {
	const char *name;		/* value of `backend =`; what the rows of objects say */
	struct backend *backend;
	struct lock lock;		/* RANK_QUEUE: the rest */
	unsigned failures;		/* in a row */
	int64_t retry_at;		/* monotonic ns: nobody asks before */
	int64_t failed_since;		/* wall clock ns; 0: healthy */
	char last_error[256];
};

struct stores {
	struct store store[STORES_MAX];
	size_t n;			/* store[0] is the current one */
};

void stores_init(struct stores *s);
void stores_release(struct stores *s);	/* frees the backends */
int stores_add(struct stores *s, const char *name, struct backend *b);	/* name: static */
struct store *stores_find(struct stores *s, const char *name);	/* NULL: not configured */

/* Tell how a call ended; -EAGAIN, -EACCES, -ENODEV and -ENOSPC are the store's failures. */
void store_report(struct store *st, int r, const struct error *err);
/* 0, or how many ns to wait until it may be asked again. */
int64_t store_wait(struct store *st);

#endif
