/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BACKENDS_S3_SIGN_H
#define TBFS_BACKENDS_S3_SIGN_H

/*
 * AWS Signature Version 4: "Authenticating Requests: Using the Authorization
 * Header" and "Using Query Parameters" in the S3 API reference.  Pure functions.
 */
#include "base/strbuf.h"

#include <stddef.h>
#include <time.h>

enum { S3_PAIRS_MAX = 32 };		/* headers or query parameters of one request */
enum { S3_DATE_LEN = 17 };		/* "20130524T000000Z" and a NUL */

#define S3_UNSIGNED_PAYLOAD "UNSIGNED-PAYLOAD"

/* A header (name in lower case) or a query parameter; both plain, not escaped. */
struct s3_pair {
	const char *name, *value;
};

struct s3_identity {
	const char *access_key, *secret_key;
	const char *session_token;	/* NULL: none */
	const char *region, *service;	/* "us-east-1", "s3" */
};

struct s3_to_sign {
	const char *method;
	const char *path;		/* plain UTF-8, begins with a slash */
	const struct s3_pair *query;
	size_t query_count;		/* <= S3_PAIRS_MAX, as are the headers */
	const struct s3_pair *headers;	/* those to be signed; "host" always, each name once */
	size_t header_count;
	const char *payload_hash;	/* hex sha256 of the body, or S3_UNSIGNED_PAYLOAD */
};

/* Percent-encode all but A-Z a-z 0-9 - . _ ~ (and '/' where told). */
void s3_escape(struct strbuf *b, const char *text, bool keep_slash);
/* The parameters escaped, sorted and joined: the same text is signed and sent. */
void s3_query(struct strbuf *b, const struct s3_pair *query, size_t count);

/* x-amz-date of a moment. */
void s3_date(time_t when, char ret_date[S3_DATE_LEN]);

/* Append the value of the Authorization header; x-amz-date is among the headers. */
void s3_sign_header(struct strbuf *b, const struct s3_identity *id, const struct s3_to_sign *what,
    time_t when);
/* Append the whole query string, signature included; its headers are usually only "host". */
void s3_sign_query(struct strbuf *b, const struct s3_identity *id, const struct s3_to_sign *what,
    time_t when, unsigned expires);

#endif
