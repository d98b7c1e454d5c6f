/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CONTRACT_FAKE_H
#define TBFS_CONTRACT_FAKE_H

/*
 * A small HTTP server that gives the answers a good S3 server never gives.  One
 * connection at a time, closed after each answer.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct fake {
	/* The answer to the nth request (from 1): raw bytes, sent as they are; NULL: none, until
	 * the client goes.  Called on the server's thread. */
	const char *(*answer)(struct fake *f, unsigned n, const char *head);
	const char *always;		/* used where answer is NULL */
	char endpoint[64];
	_Atomic unsigned requests;
	_Atomic bool stop;
	char first_head[4096];		/* of the first request */
	int fd;
	pthread_t thread;
};

void fake_start(struct fake *f);
void fake_stop(struct fake *f);

#endif
