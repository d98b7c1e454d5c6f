/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The daemon's end of a job.
 *
 *  1. Nothing a worker says is believed: frame types have an order, counts and
 *     lengths a bound, thumbnails a fixed list of names, types and sizes, and
 *     the JSON is rebuilt from the fields we know (entry.c).
 *  2. The worker holds no descriptor that can be written: bytes come as frames
 *     and the daemon writes them to memfds of its own.
 *  3. A result has all its thumbnails or none.
 *
 * No threads, no locks: an intake lives on the stack of extract_pool_run.
 */
#include "processor/protocol.h"

#include "base/digest.h"
#include "base/io.h"
#include "processor/entry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Three thumbnails of EXTRACT_THUMB_MAX in whole frames, and some talk. */
#define INTAKE_FRAMES_MAX 4096

void
intake_init(struct intake *in)
{
	unsigned i;

	*in = (struct intake){ .filling = -1, .stage = EXTRACT_AT_WORKER };
	for (i = 0; i < EXTRACT_THUMBS; i++)
		in->thumbs[i].fd = -1;
}

static void
intake_drop_thumbs(struct intake *in)
{
	unsigned i;

	for (i = 0; i < EXTRACT_THUMBS; i++) {
		if (in->thumbs[i].fd >= 0)
			(void)close(in->thumbs[i].fd);
		in->thumbs[i].fd = -1;
	}
}

void
intake_release(struct intake *in)
{
	intake_drop_thumbs(in);
	free(in->entry);
	intake_init(in);
}

static int
intake_thumb(struct intake *in, const void *data, size_t len, struct error *err)
{
	struct extract_thumb_head head;
	const struct extract_thumb_size *size;
	struct extract_thumb *t;

	if (len != sizeof(head))
		return error_set(err, -EPROTO, "thumbnail head of %zu bytes", len);
	memcpy(&head, data, sizeof(head));
	if (in->filling >= 0 || head.which >= EXTRACT_THUMBS || in->thumbs[head.which].fd >= 0)
		return error_set(err, -EPROTO, "unexpected thumbnail %u", head.which);
	size = &extract_thumb_sizes[head.which];
	if (head.width == 0 || head.height == 0 || head.width > size->side ||
	    head.height > size->side || head.size == 0 || head.size > EXTRACT_THUMB_MAX)
		return error_set(err, -EPROTO, "%s of %ux%u and %ju bytes", size->name, head.width,
		    head.height, (uintmax_t)head.size);
	t = &in->thumbs[head.which];
	t->fd = memfd_create(size->name, MFD_CLOEXEC);
	if (t->fd < 0)
		return error_set(err, -errno, "memfd: %s", strerror(errno));
	(void)snprintf(t->name, sizeof(t->name), "%s", size->name);
	(void)snprintf(t->mime, sizeof(t->mime), "%s", size->mime);
	t->width = head.width;
	t->height = head.height;
	t->size = 0;
	in->filling = (int)head.which;
	in->missing = head.size;
	return 0;
}

/* The first bytes are what the name promises: a client is never given anything else. */
static bool
intake_signature(unsigned which, const uint8_t *p, size_t len)
{
	if (strcmp(extract_thumb_sizes[which].mime, "image/jpeg") == 0)
		return len >= 3 && memcmp(p, "\xff\xd8\xff", 3) == 0;
	return len >= 12 && memcmp(p, "RIFF", 4) == 0 && memcmp(p + 8, "WEBP", 4) == 0;
}

static int
intake_data(struct intake *in, const void *data, size_t len, struct error *err)
{
	struct extract_thumb *t;
	int r;

	if (in->filling < 0 || len == 0 || len > in->missing)
		return error_set(err, -EPROTO, "%zu bytes that belong to no thumbnail", len);
	t = &in->thumbs[in->filling];
	if (t->size == 0 && !intake_signature((unsigned)in->filling, data, len))
		return error_set(err, -EPROTO, "%s isn't %s", t->name, t->mime);
	r = pwrite_full(t->fd, data, len, t->size);
	if (r < 0)
		return error_set(err, r, "memfd: %s", strerror(-r));
	t->size += len;
	in->missing -= len;
	if (in->missing == 0)
		in->filling = -1;
	return 0;
}

static int
intake_entry(struct intake *in, const void *data, size_t len, struct error *err)
{
	char *text;

	if (len == 0 || len > EXTRACT_ENTRY_MAX)
		return error_set(err, -EPROTO, "entry of %zu bytes", len);
	text = malloc(len);
	if (text == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	memcpy(text, data, len);
	free(in->entry);
	in->entry = text;
	in->entry_len = len;
	return 0;
}

static int
intake_stage(struct intake *in, const void *data, size_t len, struct error *err)
{
	uint32_t stage;

	if (len != sizeof(stage))
		return error_set(err, -EPROTO, "stage of %zu bytes", len);
	memcpy(&stage, data, sizeof(stage));
	if (stage >= EXTRACT_STAGES)
		return error_set(err, -EPROTO, "stage %u", stage);
	in->stage = stage;
	return 0;
}

int
intake_frame(struct intake *in, uint32_t type, const void *data, size_t len, struct error *err)
{
	if (++in->frames > INTAKE_FRAMES_MAX)
		return error_set(err, -EPROTO, "too many frames");
	switch (type) {
	case EXTRACT_STAGE:
		return intake_stage(in, data, len, err);
	case EXTRACT_SUM:
		if (len != sizeof(in->sum) || in->has_sum)
			return error_set(err, -EPROTO, "checksum of %zu bytes", len);
		memcpy(in->sum, data, len);
		in->has_sum = true;
		return 0;
	case EXTRACT_ENTRY:
		return intake_entry(in, data, len, err);
	case EXTRACT_THUMB:
		return intake_thumb(in, data, len, err);
	case EXTRACT_DATA:
		return intake_data(in, data, len, err);
	case EXTRACT_DONE:
		if (in->filling >= 0 || in->entry == NULL)
			return error_set(err, -EPROTO, "ended halfway");
		in->done = true;
		return 0;
	default:
		return error_set(err, -EPROTO, "frame of type %u", type);
	}
}

static void
intake_hand_thumbs(struct intake *in, struct extract_result *ret)
{
	unsigned i, n = 0;

	for (i = 0; i < EXTRACT_THUMBS; i++)
		n += in->thumbs[i].fd >= 0;
	if (n == EXTRACT_THUMBS) {
		memcpy(ret->thumbs, in->thumbs, sizeof(in->thumbs));
		ret->n_thumbs = n;
		for (i = 0; i < EXTRACT_THUMBS; i++)
			in->thumbs[i].fd = -1;
	}
	intake_drop_thumbs(in);
}

int
intake_finish(struct intake *in, const struct intake_failure *failure,
    const struct extract_limits *limits, struct extract_result *ret)
{
	struct extract_result result = { .json = NULL };
	struct intake_failure own = *failure;
	struct entry_options o = { .sum = in->has_sum ? in->sum : NULL, .limits = limits };
	int r;

	if (own.code == NULL && in->entry != NULL && !entry_valid(in->entry, in->entry_len)) {
		own = (struct intake_failure){ .code = "protocol", .stage = EXTRACT_AT_WORKER };
		(void)snprintf(own.message, sizeof(own.message), "the worker's entry isn't JSON");
	}
	if (own.code != NULL) {
		o.stage = extract_stage_name(own.stage);
		o.code = own.code;
		o.message = own.message;
		intake_drop_thumbs(in);
	}
	r = entry_build(in->entry, in->entry_len, &o, &result);
	if (r < 0)
		return r;
	if (in->has_sum) {
		memcpy(result.sha256, in->sum, sizeof(result.sha256));
		result.has_sha256 = true;
	}
	intake_hand_thumbs(in, &result);
	*ret = result;
	return 0;
}
