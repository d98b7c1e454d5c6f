/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_PROCESSOR_PROTOCOL_H
#define TBFS_PROCESSOR_PROTOCOL_H

/* What one job brought in so far, frame by frame; each is checked before it is kept. */
#include "processor/pool.h"

struct intake {
	struct extract_thumb thumbs[EXTRACT_THUMBS];	/* by index; fd -1: absent */
	char *entry;			/* latest JSON text, or NULL */
	size_t entry_len;
	uint8_t sum[32];
	bool has_sum;
	bool done;
	unsigned frames;		/* received, bounded */
	int filling;			/* thumbnail that DATA belongs to, or -1 */
	uint64_t missing;		/* its bytes still to come */
	enum extract_stage stage;	/* last announced */
};

/* Why a job has no proper end; code NULL: it has one. */
struct intake_failure {
	const char *code;		/* "crashed", "timeout", … */
	enum extract_stage stage;
	char message[256];
};

void intake_init(struct intake *in);
void intake_release(struct intake *in);

/* Take one frame.  -EPROTO with a sentence: the worker is to be killed; -ENOMEM and other
 * -errno of the daemon's own. */
int intake_frame(struct intake *in, uint32_t type, const void *data, size_t len,
    struct error *err);

/* Turn what came into a result and forget it.  -ENOMEM only. */
int intake_finish(struct intake *in, const struct intake_failure *failure,
    const struct extract_limits *limits, struct extract_result *ret);

#endif
