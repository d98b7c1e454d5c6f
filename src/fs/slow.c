/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Requests that wait leave the loop: those for the local disk and those for a store, which may be
 * down, apart from each other.
 */
#include "fs/private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct slow {
	struct core *core;
	fuse_req_t req;
	void (*fn)(fuse_req_t req, const void *arg);
	max_align_t arg[];
};

static void
slow_run(void *arg)
{
	struct slow *s = arg;

	s->fn(s->req, s->arg);
	core_write_places(s->core);
	free(s);
}

void
answer(fuse_req_t req, enum core_wait wait, void (*fn)(fuse_req_t req, const void *arg),
    const void *arg, size_t size)
{
	struct fs *fs = req_fs(req);
	struct jobq *q = wait == WAITS_FOR_STORE ? fs->remote : fs->slow;
	struct slow *s = wait == WAITS_FOR_NOTHING ? NULL : malloc(sizeof(*s) + size);

	if (s != NULL) {
		*s = (struct slow){ .core = fs->core, .req = req, .fn = fn };
		if (size > 0)
			memcpy(s->arg, arg, size);
		if (jobq_put(q, slow_run, s) == 0)
			return;
		free(s);
	}
	/* The loop never waits for a store. */
	if (wait == WAITS_FOR_STORE)
		reply(req, -EAGAIN);
	else
		fn(req, arg);
}
