/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A job, from the descriptor to DONE: hash, sniff, then the lane of its type.
 * The hash comes first and the entry is sent before anything is decoded, so
 * that a file which kills its worker still has both.
 */
#include "extract/job.h"

#include "base/digest.h"
#include "base/frame.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* The daemon is gone or doesn't listen: nobody is left to work for. */
static void
job_send(const struct job *j, uint32_t type, const void *data, size_t len)
{
	if (frame_send(j->sock, type, data, len, -1, 0) < 0)
		_exit(1);
}

void
job_stage(const struct job *j, enum extract_stage stage)
{
	uint32_t n = stage;

	job_send(j, EXTRACT_STAGE, &n, sizeof(n));
}

void
job_send_entry(const struct job *j)
{
	struct strbuf b = STRBUF_INIT;

	meta_emit(&j->meta, &b);
	if (!strbuf_ok(&b))
		_exit(EXTRACT_EXIT_MEMORY);
	job_send(j, EXTRACT_ENTRY, b.data, b.len);
	strbuf_release(&b);
}

void
job_send_thumb(const struct job *j, unsigned which, uint32_t width, uint32_t height,
    const void *data, size_t len)
{
	struct extract_thumb_head head = {
		.which = which, .width = width, .height = height, .size = len,
	};
	const char *p = data;

	job_send(j, EXTRACT_THUMB, &head, sizeof(head));
	while (len > 0) {
		size_t n = len < FRAME_MAX ? len : FRAME_MAX;

		job_send(j, EXTRACT_DATA, p, n);
		p += n;
		len -= n;
	}
}

static bool
job_hash(struct job *j)
{
	uint8_t sum[SHA256_LEN];
	int r;

	job_stage(j, EXTRACT_AT_HASH);
	r = sha256_fd(j->fd, 0, j->size, sum);
	if (r < 0) {
		meta_fail(&j->meta, EXTRACT_AT_HASH, "io", "can't read the file: %s", strerror(-r));
		return false;
	}
	job_send(j, EXTRACT_SUM, sum, sizeof(sum));
	return true;
}

static void
job_derive(struct job *j)
{
	int r;

	job_stage(j, EXTRACT_AT_SNIFF);
	r = sniff(j->fd, &j->meta, &j->type);
	if (r == -ENOMEM)
		_exit(EXTRACT_EXIT_MEMORY);
	if (r < 0) {
		meta_fail(&j->meta, EXTRACT_AT_SNIFF, "io", "can't read the file: %s", strerror(-r));
		return;
	}
	job_send_entry(j);
	if (j->type.family == SNIFF_AV)
		video_extract(j);
	else if (j->type.family == SNIFF_UNSUPPORTED)
		meta_fail(&j->meta, EXTRACT_AT_SNIFF, "unsupported", "%s isn't decoded",
		    j->meta.mime);
	else if (j->type.family != SNIFF_OTHER)
		image_extract(j);
}

void
job_run(struct job *j)
{
	if (job_hash(j))
		job_derive(j);
	job_send_entry(j);
	job_send(j, EXTRACT_DONE, NULL, 0);
}
