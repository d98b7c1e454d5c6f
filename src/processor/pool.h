/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_PROCESSOR_POOL_H
#define TBFS_PROCESSOR_POOL_H

/*
 * A pool of sandboxed workers that turn a media file into its entry of
 * meta.json and its thumbnails.  A worker that crashes, hangs, runs out of
 * memory or talks nonsense is killed and replaced; the file then has a result
 * that says so.  Nothing of this can fail another file.
 */
#include "base/error.h"
#include "base/extract_wire.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct extract_pool;

struct extract_pool_options {
	const char *program;		/* NULL: $(pkglibexecdir)/tbfs-extract */
	unsigned workers;		/* 0: one for each CPU, at most 4 */
	uid_t uid;			/* of the workers when the daemon is root; 0: nobody */
	gid_t gid;			/* 0: nogroup */
	const struct extract_limits *limits;	/* NULL: EXTRACT_LIMITS_DEFAULT */
	unsigned jobs_per_worker;	/* a worker is replaced after so many; 0: 256 */
	unsigned start_s;		/* a worker must be ready in so many seconds; 0: 30 */
	bool unguarded;			/* tests only: accept a worker that reports no sandbox */
};

struct extract_thumb {
	char name[32];			/* "256.webp", "720.webp", "1600.jpg" */
	char mime[32];
	uint32_t width, height;
	uint64_t size;
	int fd;				/* memfd at offset 0; extract_result_release closes it
					 * unless the caller took it and set -1 */
};

struct extract_result {
	char *json;			/* malloc'd object: the entry without size, mtime, thumbs */
	struct extract_thumb thumbs[EXTRACT_THUMBS];
	unsigned n_thumbs;		/* all three, or none */
	uint8_t sha256[32];
	bool has_sha256;		/* false: the worker died before it had read the file */
	char mime[128];			/* never empty */
	char kind[8];			/* photo, video, audio, other */
	bool failed;			/* json has "error": not, or not wholly, derived */
	bool worker_died;		/* the failure cost a worker: try the file again rarely */
};

/* Polled every 50 ms while a job waits or runs: true ends it. */
typedef bool extract_cancel_fn(void *arg);

/* Starts no worker yet.  -EINVAL, -ENOENT, -EACCES with a sentence: the program can't be run. */
int extract_pool_new(const struct extract_pool_options *options, struct extract_pool **ret_pool,
    struct error *err);

/*
 * Derive one file: `size` bytes of `fd` (readable, a regular file; its offset
 * isn't used).  `name` is only for messages.  Any thread, no lock held; blocks
 * until a worker is free and the job is done, at most the limits' deadline
 * from then on.  0 also when the *file* is bad (ret->failed); the caller
 * releases *ret.  -ECANCELED when cancelled or when the pool is being freed;
 * other -errno when the pool itself failed (no worker can be started).
 */
int extract_pool_run(struct extract_pool *pool, int fd, uint64_t size, const char *name,
    extract_cancel_fn *cancelled, void *arg, struct extract_result *ret, struct error *err);

/* The EXTRACT_GUARD_… of the worker that was started last; 0 before the first. */
unsigned extract_pool_guards(struct extract_pool *pool);

/* Takes NULL-ed and released results. */
void extract_result_release(struct extract_result *r);

/* Cancels what runs, kills the workers and waits for each by its pid. */
void extract_pool_free(struct extract_pool *pool);

#endif
