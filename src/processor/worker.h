/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_PROCESSOR_WORKER_H
#define TBFS_PROCESSOR_WORKER_H

/* One worker process: start, hand-shake, kill, reap.  The pool decides when. */
#include "base/error.h"
#include "base/extract_wire.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

struct spawner;

struct worker {
	pid_t pid;		/* 0: not running */
	int sock;		/* -1: not running */
	unsigned jobs;		/* begun */
	uint32_t guards;	/* EXTRACT_GUARD_… it reported */
};

#define WORKER_INIT { .pid = 0, .sock = -1 }

/* How a worker ended. */
struct worker_end {
	int status;		/* as waitpid gives it */
	bool killed;		/* by us, while it was alive */
	long peak_kib;		/* largest resident set */
};

struct worker_options {
	const char *program;
	struct extract_hello hello;
	uint32_t guards;	/* those that must be in force */
	unsigned start_s;
};

/* The thread that starts workers: they get PDEATHSIG, which follows the *thread* that made
 * them, so it has to be one that lives as long as the pool. */
int spawner_new(struct spawner **ret_spawner);
void spawner_free(struct spawner *sp);

/*
 * Start a worker and wait until its sandbox is entered.  `stop` is polled.
 * -ECANCELED, -ETIMEDOUT, -EPERM (it refuses to work unguarded), -EPROTO or
 * what starting the program gave, with a sentence.  No lock held.
 */
int worker_start(struct worker *w, struct spawner *sp, const struct worker_options *options,
    bool (*stop)(void *arg), void *arg, struct error *err);

/* Wait for a frame until the monotonic `until_ns`, at most 50 ms: 1 readable, 0 not yet,
 * -ETIMEDOUT. */
int worker_wait(const struct worker *w, int64_t until_ns);

/* Let the worker use `cpu_s` more seconds of CPU from now on; best effort. */
void worker_grant_cpu(const struct worker *w, uint32_t cpu_s);

/* Kill and reap; nothing for one that doesn't run.  ret_end may be NULL. */
void worker_stop(struct worker *w, struct worker_end *ret_end);

#endif
