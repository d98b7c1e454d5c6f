/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BACKENDS_S3_CLIENT_H
#define TBFS_BACKENDS_S3_CLIENT_H

/*
 * Shared by the files of the S3 backend only: s3_new.c (making one), s3.c (operations), s3_put.c (storing),
 * s3_multipart.c (in parts), s3_client.c (one signed, retried request) and
 * s3_error.c (what a refusal means).
 */
#include "backends/backend.h"
#include "backends/s3_http.h"
#include "backends/s3_xml.h"

#define S3_EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

enum { S3_PARTS_MAX = 10000, S3_BASE64_SHA256 = 45, S3_HEX_SHA256 = 2 * SHA256_LEN + 1 };

struct s3 {
	struct backend b;
	char *name;			/* "s3" or "minio" */
	char *endpoint;			/* as messages call it: scheme://host[:port] */
	char *base;			/* what URLs begin with: endpoint, bucket as a host where not path style */
	char *host;			/* the Host header of that */
	char *bucket, *region, *access_key, *secret_key, *session_token, *prefix;
	bool path_style, create_bucket;
	unsigned timeout, retries, part_workers;
	uint64_t part_size;		/* single PUT up to this; parts at least as large.  Tests lower it. */
	uint64_t copy_limit;		/* CopyObject up to this, in parts above */
	bool is_aws;
	_Atomic bool checks_sums;	/* it answered a PUT with our own checksum: see s3_payload() */
	struct s3_http *http;
};

/* s3.c; "minio" has a name of its own, so that whoever prints ops->name prints what the user wrote. */
extern const struct backend_ops s3_ops, minio_ops;
void s3_free(struct backend *b);

/* One request; zero means unset. */
struct s3_request {
	const char *method;
	const char *key;		/* without prefix; NULL: the bucket itself */
	const struct s3_pair *query;
	size_t query_count;
	const struct s3_pair *headers;	/* besides host, date, payload hash and token; all are signed */
	size_t header_count;
	const char *payload_hash;	/* NULL: of nothing */
	int body_fd;			/* used where body_len > 0 and body_data is NULL */
	const void *body_data;
	uint64_t body_off, body_len;
	bool sink;			/* the answer's body goes to sink_fd */
	int sink_fd;
	uint64_t sink_off, sink_len;
	const char *root;		/* the answer must be this XML document, or it is a failure */
	bool (*cancelled)(void *arg);
	void *cancelled_arg;
};

struct s3_reply {
	struct s3_http_reply http;
	struct s3_xml_error error;	/* of the last attempt */
	struct s3_xml_result result;	/* where `root` was asked for */
	unsigned attempts;		/* > 1: an earlier one may have been carried out */
};

void s3_reply_release(struct s3_reply *reply);

/* Send, retry what may succeed later (back-off with full jitter), and answer 0 for a 2xx; else
 * a code of backend.h and a sentence.  reply is released first and holds the last attempt. */
int s3_send(struct s3 *s, const struct s3_request *req, struct s3_reply *reply, struct error *err);

/* The path of a key (NULL: of the bucket) on the server, plain. */
void s3_path(const struct s3 *s, const char *key, struct strbuf *b);
/* Bytes that a key may have here, its prefix taken off. */
int s3_check_key(const struct s3 *s, const char *key, struct error *err);

/* What this refusal means: code and sentence.  `what` is e.g. "PUT a/b.jpg". */
int s3_explain(const struct s3 *s, const struct s3_http_reply *http, const struct s3_xml_error *e,
    const char *method, const char *key, struct error *err);

/* HEAD of an object into a tag.  A 404 is believed only from an S3 server with this bucket. */
int s3_stat(struct backend *b, const char *key, struct backend_tag *ret_tag, struct error *err);
/* The same, with the raw checksum header ("" if absent; may be NULL) and the reply. */
int s3_head(struct s3 *s, const char *key, struct s3_reply *reply, struct backend_tag *ret_tag,
    char ret_checksum[64], struct error *err);

/* The headers of an object that is being stored. */
struct s3_headers {
	struct s3_pair pairs[S3_PAIRS_MAX];
	size_t count;
	struct strbuf text[2 * S3_PAIRS_MAX];	/* names and values */
	size_t texts;
	bool failed;
};
void s3_headers_add(struct s3_headers *h, const char *name, const char *value);	/* value is kept */
void s3_headers_meta(struct s3_headers *h, const struct object_meta *m, const uint8_t *sum);
void s3_headers_release(struct s3_headers *h);

int s3_put(struct backend *b, const char *key, const struct object_put *put,
    struct backend_tag *ret_tag, bool *ret_linked, struct error *err);
int s3_put_multipart(struct s3 *s, const char *key, const struct object_put *put,
    struct backend_tag *ret_tag, struct error *err);
int s3_copy_multipart(struct s3 *s, const char *from, const char *to, const struct backend_tag *tag,
    const struct s3_reply *head, struct error *err);
/* After storing without a checksum in the answer: is what lies there what was sent? */
int s3_confirm(struct s3 *s, const char *key, const char *etag, struct backend_tag *tag,
    struct error *err);
/* Mark a refusal that means "the bytes changed between hashing and sending". */
int s3_bytes_changed(const struct s3_reply *reply, const struct object_put *put, const char *key,
    int r, struct error *err);

/* What to sign as the payload of bytes that go with x-amz-checksum-sha256.  `hex` is their hash. */
const char *s3_payload(const struct s3 *s, const char *hex);
/* Compare the checksum that the answer repeats with ours: 1 if it is, 0 if the answer has none (and
 * the payload was signed), -EIO if it is another, -EAGAIN if nothing vouches for the bytes. */
int s3_check_sum(struct s3 *s, const struct s3_request *req, const struct s3_reply *reply,
    const char *base64, struct error *err);

void s3_base64(const uint8_t sum[SHA256_LEN], char ret_text[S3_BASE64_SHA256]);
/* An ETag header or element without its quotes. */
void s3_unquote(char *text);

#endif
