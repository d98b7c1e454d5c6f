/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CMD_DAEMON_PRIVATE_H
#define TBFS_CMD_DAEMON_PRIVATE_H

/* The assembled daemon, as its control verbs see it. */
#include "cmd/care.h"
#include "cmd/control.h"
#include "config.h"
#include "core/core.h"
#include "fs/fs.h"
#include "processor/processor.h"
#include "sync/syncer.h"

#include <pthread.h>
#include <stdatomic.h>

struct daemon {
	struct config *cfg;
	const char *mountpoint;
	struct index *index;
	struct staging *staging;
	struct core *core;
	struct stores stores;
	struct syncer *syncer;
	struct processor *processor;
	struct fs *fs;
	struct control_server *control;
	char life[128];			/* staging_life() of this start */
	int64_t started;		/* wall clock ns */
	struct care care;
	pthread_t gone_thread;		/* waits for the end of the mount */
	bool gone_runs;
	_Atomic int64_t drained_at;	/* monotonic ns when `tbfs umount` was told what remains */
};

extern const struct control_verb daemon_verbs[];

/* The backend that the configuration names, and those where objects of former days are. */
int daemon_make_stores(struct daemon *d, struct error *err);
/* The current store answers: what was stored there must be there, if it moved; remember its address. */
int daemon_check_address(struct daemon *d, struct error *err);
/* Is it where it was when it worked last? */
bool daemon_has_old_address(struct daemon *d);
json_t *daemon_status(struct daemon *d);
/* What core is to call; from then on from any thread, until it is freed. */
struct core_events daemon_events(struct daemon *d);
/* Everything stored, or the time is up; what is left in *ret_left. */
int daemon_drain(struct daemon *d, int64_t deadline_mono_ns, struct sync_progress *ret_left);

#endif
