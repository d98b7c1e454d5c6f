/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Care for the index while it is in use: its log is moved into the database now and then, a snapshot
 * is made.
 */
#include "cmd/care.h"

#include "base/clock.h"
#include "base/log.h"

#define CARE_EVERY_NS (2 * NSEC_PER_SEC)

static void *
care_run(void *arg)
{
	struct care *care = arg;
	int64_t snapshot_at = clock_mono_ns() + care->cfg->snapshot_interval;
	struct error err = { 0 };

	lock_take(&care->lock);
	while (!care->stop) {
		(void)lock_wait(&care->lock, &care->stopped, clock_mono_ns() + CARE_EVERY_NS);
		lock_drop(&care->lock);
		index_checkpoint(care->index);
		if (care->cfg->snapshot_interval > 0 && clock_mono_ns() > snapshot_at) {
			if (index_snapshot(care->index, &err) < 0)
				log_err("%s", error_text(&err));
			snapshot_at = clock_mono_ns() + care->cfg->snapshot_interval;
		}
		lock_take(&care->lock);
	}
	lock_drop(&care->lock);
	return NULL;
}

int
care_start(struct care *care, struct index *ix, const struct config *cfg)
{
	int r;

	*care = (struct care){ .index = ix, .cfg = cfg };
	lock_init(&care->lock, RANK_QUEUE);
	lock_cond_init(&care->stopped);
	r = -pthread_create(&care->thread, NULL, care_run, care);
	care->runs = r == 0;
	return r;
}

void
care_stop(struct care *care)
{
	if (!care->runs)
		return;
	lock_take(&care->lock);
	care->stop = true;
	(void)pthread_cond_signal(&care->stopped);
	lock_drop(&care->lock);
	(void)pthread_join(care->thread, NULL);
	care->runs = false;
}
