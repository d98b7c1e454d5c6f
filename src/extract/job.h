/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_JOB_H
#define TBFS_EXTRACT_JOB_H

/* One file in the worker's hands: what every part of the extraction shares. */
#include "extract/meta.h"
#include "extract/sniff.h"

struct job {
	int sock;			/* to the daemon */
	int fd;				/* the file, read-only; read by pread alone */
	uint64_t size;
	const struct extract_limits *limits;
	int64_t until_ns;		/* monotonic: give up by yourself before the daemon kills */
	struct sniffed type;
	struct meta meta;
};

/* Say what comes next, so that a death can be told apart. */
void job_stage(const struct job *j, enum extract_stage stage);

/* Send the entry as it is known now; a later one replaces it. */
void job_send_entry(const struct job *j);

/* Send a thumbnail's bytes. */
void job_send_thumb(const struct job *j, unsigned which, uint32_t width, uint32_t height,
    const void *data, size_t len);

/* Hash, sniff and derive one file, and say DONE.  What fails is in its entry. */
void job_run(struct job *j);

/* The lanes.  Each fills j->meta and sends thumbnails. */
void image_extract(struct job *j);
void video_extract(struct job *j);

#endif
