/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BACKENDS_S3_H
#define TBFS_BACKENDS_S3_H

/*
 * Objects in S3 or anything that speaks its protocol (MinIO, Ceph RGW, versitygw).
 * Strings are copied; NULL or "" means unset.
 */
#include "backends/backend.h"

struct s3_options {
	const char *name;		/* "s3" or "minio": what status and messages call it */
	const char *endpoint;		/* s3.endpoint: http(s)://host[:port]; unset: https://s3.<region>.amazonaws.com */
	const char *bucket;		/* s3.bucket */
	const char *region;		/* s3.region; unset: us-east-1 */
	const char *access_key, *secret_key, *session_token;
	const char *prefix;		/* s3.prefix: put before every key, without slashes at the ends */
	bool path_style;		/* s3.path_style: http://host/bucket/key */
	bool allow_plaintext;		/* s3.allow_plaintext: http beyond loopback and private addresses */
	bool create_bucket;		/* create_bucket: made (private) by probe when it does not exist */
	const char *ca_file;		/* s3.ca_file: PEM to trust besides the system's; unset: system only */
	unsigned timeout;		/* s3.timeout: seconds without progress before a request is given up; 0: 30 */
	unsigned retries;		/* s3.retries: further attempts inside one call; 0: 4 */
	unsigned part_workers;		/* s3.part_workers: parts of one multipart upload at once; 0: 4 */
};

int s3_backend_new(const struct s3_options *opt, struct backend **ret_b, struct error *err);

#endif
