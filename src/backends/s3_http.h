/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BACKENDS_S3_HTTP_H
#define TBFS_BACKENDS_S3_HTTP_H

/*
 * One HTTP exchange at a time, many threads, connections kept: libcurl behind a
 * pool of handles.  Knows nothing of S3.
 */
#include "backends/s3_sign.h"
#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct s3_http;				/* the pool */

struct s3_http_options {
	const char *ca_file;		/* PEM to trust besides the system's; NULL: none */
	bool plain_private_only;	/* refuse http to addresses beyond loopback and private ranges */
	unsigned timeout;		/* seconds without progress */
};

struct s3_http_request {
	const char *method, *url;
	const struct s3_pair *headers;
	size_t header_count;
	/* The body: [body_off, body_off+body_len) of body_fd, or of body_data. */
	int body_fd;			/* -1: body_data */
	const void *body_data;
	uint64_t body_off, body_len;
	/* Where the body of a 2xx answer goes, at most sink_len bytes; -1: into reply->body. */
	int sink_fd;
	uint64_t sink_off, sink_len;
	bool (*cancelled)(void *arg);	/* as in struct object_put; NULL: never */
	void *cancelled_arg;
};

struct s3_http_reply {
	long status;			/* 0: no answer */
	struct strbuf headers;		/* "name: value\n" each, names in lower case */
	struct strbuf body;		/* bounded; of errors, or all where there is no sink */
	uint64_t sunk;			/* bytes that reached the sink */
	bool timed_out;			/* the failure was a deadline that passed */
};

void s3_http_reply_release(struct s3_http_reply *reply);
/* Value of a header (name in lower case) into buf; false if it is absent or too long. */
bool s3_http_header(const struct s3_http_reply *reply, const char *name, char *ret_value, size_t room);

int s3_http_new(const struct s3_http_options *opt, struct s3_http **ret_h, struct error *err);
void s3_http_free(struct s3_http *h);

/* Send and wait for the whole answer, whatever its status: 0.  Without one: -EAGAIN (network,
 * deadline), -ECANCELED, -EACCES (TLS, refused address), or the local error of reading body_fd
 * (-EIO when it is short) or writing sink_fd; *err says which.  reply is released first. */
int s3_http_send(struct s3_http *h, const struct s3_http_request *req, struct s3_http_reply *reply,
    struct error *err);

/* Is this literal address (or "localhost") loopback or private?  -EINVAL: it is a name. */
int s3_http_address_private(const char *host);

#endif
