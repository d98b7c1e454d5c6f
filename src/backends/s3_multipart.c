/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Objects in parts: uploads above part_size, and server-side copies above what
 * CopyObject takes.
 *
 *	create  →  part 1 … part N, some at once  →  complete
 *	                     └─ any failure, or cancelled ─→ abort
 *
 *   1. Whatever begins is completed or aborted before the call returns; abort waits
 *      until no part is on its way and the store has none, so nothing is left behind (but by a killed
 *      process, a server that is gone or an id that was lost with its answer: give the
 *      bucket a lifecycle rule).
 *   2. One pass over the file gives the hash of the whole (for the metadata, which
 *      goes first) and of each part (signed, checked by the store).
 *   3. The composite checksum (sha256 of the parts' sums, "-N" behind) that complete
 *      answers must be ours; where none comes, a HEAD must show our size and sha256.
 *   4. A repeated complete that finds no upload may follow one whose answer was
 *      lost: then what lies there decides.
 *
 * Threads: part_workers of them for the time of one call; `lock` guards what they
 * share and is not held while a part is sent.
 */
#include "backends/s3_client.h"

#include "backends/meta.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/lock.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MIB = 1 << 20, CHUNK = 256 * 1024, WORKERS_MAX = 64, ABORTS = 5, ABORT_PAUSE_US = 50000 };

struct part {
	uint8_t sum[SHA256_LEN];	/* uploads only */
	char etag[96];			/* from the server */
};

struct upload {
	struct s3 *s;
	const char *key, *id;
	uint64_t size, part_size;
	unsigned count;
	struct part *parts;
	const struct object_put *put;	/* NULL: a copy */
	const char *source, *source_etag;	/* of a copy: x-amz-copy-source */
	struct lock lock;
	unsigned next;			/* lock: the part to be taken next */
	_Atomic bool stop;
	int r;				/* lock: the first failure */
	struct error err;		/* lock */
};

static uint64_t
part_length(const struct upload *up, unsigned i)
{
	uint64_t left = up->size - i * up->part_size;

	return left < up->part_size ? left : up->part_size;
}

/* At least `least`, at most S3_PARTS_MAX parts, whole MiB where that rounds up. */
static void
cut_into_parts(struct upload *up, uint64_t least)
{
	uint64_t size = (up->size + S3_PARTS_MAX - 1) / S3_PARTS_MAX;

	if (size > least)
		size = (size + MIB - 1) / MIB * MIB;
	up->part_size = size > least ? size : least;
	up->count = (unsigned)((up->size + up->part_size - 1) / up->part_size);
}

static bool
is_cancelled(void *arg)
{
	const struct upload *up = arg;

	return up->stop || (up->put != NULL && up->put->cancelled != NULL &&
	    up->put->cancelled(up->put->cancelled_arg));
}

/* ---- invariant 2 ---- */

static int
hash_parts(struct upload *up, uint8_t *ret_sum)
{
	CLEANUP_FREE char *buf = malloc(CHUNK);
	struct digest *whole = digest_new(), *part = digest_new();
	int r = buf == NULL || whole == NULL || part == NULL ? -ENOMEM : 0;
	unsigned i;

	for (i = 0; r == 0 && i < up->count; i++) {
		uint64_t off = i * up->part_size, end = off + part_length(up, i);

		for (; r == 0 && off < end; off += CHUNK) {
			size_t want = end - off < CHUNK ? (size_t)(end - off) : CHUNK;
			ssize_t n = pread_full(up->put->fd, buf, want, off);

			if (is_cancelled(up)) {
				r = -ECANCELED;
			} else if (n < 0 || (size_t)n < want) {
				r = n < 0 ? (int)n : -EIO;
			} else {
				digest_update(whole, buf, want);
				digest_update(part, buf, want);
			}
		}
		digest_final(part, up->parts[i].sum);
	}
	if (r == 0)
		digest_final(whole, ret_sum);
	digest_free(whole);
	digest_free(part);
	return r;
}

static void
composite(const struct upload *up, char ret_text[64])
{
	struct digest *d = digest_new();
	uint8_t sum[SHA256_LEN];
	char base64[S3_BASE64_SHA256];
	unsigned i;

	ret_text[0] = '\0';
	if (d == NULL)
		return;
	for (i = 0; i < up->count; i++)
		digest_update(d, up->parts[i].sum, SHA256_LEN);
	digest_final(d, sum);
	digest_free(d);
	s3_base64(sum, base64);
	(void)snprintf(ret_text, 64, "%s-%u", base64, up->count);
}

/* ---- parts ---- */

static int
send_bytes(struct upload *up, unsigned i, const struct s3_pair *query, struct s3_reply *reply,
    struct error *err)
{
	struct part *p = &up->parts[i];
	char hex[S3_HEX_SHA256], base64[S3_BASE64_SHA256];
	struct s3_pair headers[] = { { "x-amz-checksum-sha256", base64 } };
	struct s3_request req = { .method = "PUT", .key = up->key, .query = query, .query_count = 2,
		.headers = headers, .header_count = 1, .body_fd = up->put->fd,
		.body_off = i * up->part_size, .body_len = part_length(up, i), .cancelled = is_cancelled,
		.cancelled_arg = up };
	int r;

	hex_encode(p->sum, SHA256_LEN, hex);
	s3_base64(p->sum, base64);
	req.payload_hash = s3_payload(up->s, hex);
	r = s3_bytes_changed(reply, up->put, up->key, s3_send(up->s, &req, reply, err), err);
	if (r == 0)
		r = s3_check_sum(up->s, &req, reply, base64, err);
	if (r > 0)
		r = 0;
	if (r == 0 && s3_http_header(&reply->http, "etag", p->etag, sizeof(p->etag)))
		s3_unquote(p->etag);
	return r;
}

static int
copy_bytes(struct upload *up, unsigned i, const struct s3_pair *query, struct s3_reply *reply,
    struct error *err)
{
	uint64_t off = i * up->part_size;
	char range[64];
	struct s3_pair headers[] = { { "x-amz-copy-source", up->source },
		{ "x-amz-copy-source-range", range }, { "x-amz-copy-source-if-match", up->source_etag } };
	struct s3_request req = { .method = "PUT", .key = up->key, .query = query, .query_count = 2,
		.headers = headers, .header_count = 3, .root = "CopyPartResult", .cancelled = is_cancelled,
		.cancelled_arg = up };
	int r;

	(void)snprintf(range, sizeof(range), "bytes=%" PRIu64 "-%" PRIu64, off, off + part_length(up, i) - 1);
	r = s3_send(up->s, &req, reply, err);
	if (r == 0)
		memcpy(up->parts[i].etag, reply->result.etag, sizeof(reply->result.etag));
	return r;
}

static int
send_part(struct upload *up, unsigned i, struct error *err)
{
	char number[12];
	struct s3_pair query[] = { { "partNumber", number }, { "uploadId", up->id } };
	struct s3_reply reply = {0};
	int r;

	(void)snprintf(number, sizeof(number), "%u", i + 1);
	r = up->put != NULL ? send_bytes(up, i, query, &reply, err) : copy_bytes(up, i, query, &reply, err);
	/* It goes into our XML. */
	if (r == 0 && (up->parts[i].etag[0] == '\0' || strpbrk(up->parts[i].etag, "<>&") != NULL))
		r = error_set(err, -EAGAIN, "%s at %s: part %u of %.200s was answered without an ETag", up->s->name,
		    up->s->endpoint, i + 1, up->key);
	s3_reply_release(&reply);
	return r;
}

static void *
part_worker_run(void *arg)
{
	struct upload *up = arg;

	for (;;) {
		struct error err = {0};
		unsigned i;
		int r;

		lock_take(&up->lock);
		i = up->next;
		if (up->next < up->count)
			up->next++;
		lock_drop(&up->lock);
		if (i == up->count || up->stop)
			return NULL;
		r = send_part(up, i, &err);
		if (r == 0)
			continue;
		lock_take(&up->lock);
		if (up->r == 0) {
			up->r = r;
			up->err = err;
		}
		up->stop = true;
		lock_drop(&up->lock);
		return NULL;
	}
}

static int
send_parts(struct upload *up, struct error *err)
{
	unsigned want = up->s->part_workers < up->count ? up->s->part_workers : up->count, n, i;
	pthread_t threads[WORKERS_MAX];

	lock_init(&up->lock, RANK_QUEUE);
	for (n = 0; n + 1 < want && n < WORKERS_MAX; n++)
		if (pthread_create(&threads[n], NULL, part_worker_run, up) != 0)
			break;
	(void)part_worker_run(up);		/* this thread is one of them */
	for (i = 0; i < n; i++)
		(void)pthread_join(threads[i], NULL);
	lock_release(&up->lock);
	return up->r < 0 ? error_set(err, up->r, "%s", error_text(&up->err)) : 0;
}

/* ---- begin and end ---- */

static int
create(struct upload *up, const struct s3_headers *headers, struct s3_reply *reply, struct error *err)
{
	static const struct s3_pair query[] = { { "uploads", NULL } };
	struct s3_request req = { .method = "POST", .key = up->key, .query = query, .query_count = 1,
		.headers = headers->pairs, .header_count = headers->count,
		.root = "InitiateMultipartUploadResult" };
	int r;

	/* Not to be cancelled on its way: an upload whose id never arrives can't be aborted. */
	if (is_cancelled(up))
		return error_set(err, -ECANCELED, "cancelled");
	if (headers->failed)
		return error_set(err, -EINVAL, "%.200s carries more metadata than can be repeated", up->key);
	r = s3_send(up->s, &req, reply, err);
	if (r < 0)
		return r;
	if (reply->result.upload_id == NULL || reply->result.upload_id[0] == '\0')
		return error_set(err, -EAGAIN, "%s at %s: a multipart upload was begun without an id",
		    up->s->name, up->s->endpoint);
	up->id = reply->result.upload_id;
	return 0;
}

static void
write_parts(const struct upload *up, struct strbuf *b)
{
	char base64[S3_BASE64_SHA256];
	unsigned i;

	strbuf_addstr(b, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
	for (i = 0; i < up->count; i++) {
		strbuf_addf(b, "<Part><PartNumber>%u</PartNumber><ETag>\"%s\"</ETag>", i + 1, up->parts[i].etag);
		if (up->put != NULL) {
			s3_base64(up->parts[i].sum, base64);
			strbuf_addf(b, "<ChecksumSHA256>%s</ChecksumSHA256>", base64);
		}
		strbuf_addstr(b, "</Part>");
	}
	strbuf_addstr(b, "</CompleteMultipartUpload>");
}

/* Complete, and check what the store says it has (invariants 3 and 4).  `tag` is what it should be. */
static int
complete(struct upload *up, struct backend_tag *tag, struct error *err)
{
	CLEANUP_STRBUF struct strbuf body = STRBUF_INIT;
	static const struct s3_pair if_absent[] = { { "if-none-match", "*" } };
	struct s3_pair query[] = { { "uploadId", up->id } };
	struct s3_request req = { .method = "POST", .key = up->key, .query = query, .query_count = 1,
		.headers = if_absent, .root = "CompleteMultipartUploadResult" };
	struct s3_reply reply = {0};
	char hex[S3_HEX_SHA256], sums[64], etag[96] = "";
	uint8_t sum[SHA256_LEN];
	bool again;
	int r;

	write_parts(up, &body);
	if (!strbuf_ok(&body))
		return error_set(err, -EAGAIN, "out of memory");
	sha256(body.data, body.len, sum);
	hex_encode(sum, SHA256_LEN, hex);
	req.payload_hash = hex;
	req.body_data = body.data;
	req.body_len = body.len;
	req.header_count = up->put != NULL && (up->put->flags & OBJECT_PUT_IF_ABSENT) ? 1 : 0;
	r = s3_send(up->s, &req, &reply, err);
	again = r == -ENOENT && reply.attempts > 1;
	if (r == -ENOENT && !again)
		r = error_set(err, -EAGAIN, "%s at %s, bucket %s: the multipart upload of %.200s was aborted by "
		    "someone else", up->s->name, up->s->endpoint, up->s->bucket, up->key);
	composite(up, sums);
	if (r == 0)
		memcpy(etag, reply.result.etag, sizeof(etag));
	if (again || (r == 0 && (up->put == NULL || reply.result.sha256[0] == '\0')))
		r = s3_confirm(up->s, up->key, etag, tag, err);
	else if (r == 0 && strcmp(reply.result.sha256, sums) != 0)
		r = error_set(err, -EIO, "%s at %s, bucket %s: %.200s arrived damaged (checksum of its parts)",
		    up->s->name, up->s->endpoint, up->s->bucket, up->key);
	else if (r == 0)
		memcpy(tag->etag, etag, sizeof(etag));
	s3_reply_release(&reply);
	return r;
}

/* One request about the upload as a whole. */
static int
send_about(struct upload *up, const char *method, const char *root)
{
	struct s3_pair query[] = { { "uploadId", up->id } };
	struct s3_request req = { .method = method, .key = up->key, .query = query, .query_count = 1,
		.root = root };
	struct s3_reply reply = {0};
	int r = s3_send(up->s, &req, &reply, NULL);

	s3_reply_release(&reply);
	return r;
}

/* A store may still be at a part whose request was given up, and keep it after the abort: it is
 * asked whether it has the upload, and told again (AbortMultipartUpload in the S3 API reference). */
static void
abort_upload(struct upload *up)
{
	unsigned i;
	int r = 0;

	for (i = 0; r == 0 && i < ABORTS; i++) {
		if (i > 0)
			(void)usleep(ABORT_PAUSE_US << i);
		r = send_about(up, "DELETE", NULL);
		if (r == 0)
			r = send_about(up, "GET", "ListPartsResult");
	}
	if (r != -ENOENT)
		log_warn("%s at %s, bucket %s: parts of %.200s may be left behind (upload %.100s): give the bucket "
		    "a lifecycle rule that aborts incomplete uploads", up->s->name, up->s->endpoint, up->s->bucket,
		    up->key, up->id);
}

static int
run(struct upload *up, const struct s3_headers *headers, struct backend_tag *tag, struct error *err)
{
	struct s3_reply created = {0};
	int r = create(up, headers, &created, err);

	if (r == 0) {
		r = send_parts(up, err);
		/* Parts show nothing before they are completed. */
		if (r == -EINPROGRESS)
			r = error_set(err, -ECANCELED, "cancelled");
		/* The last moment to stop: what complete makes visible can't be taken back. */
		if (r == 0 && is_cancelled(up))
			r = error_set(err, -ECANCELED, "cancelled");
		if (r == 0)
			r = complete(up, tag, err);
		if (r < 0)
			abort_upload(up);
	}
	s3_reply_release(&created);
	return r;
}

int
s3_put_multipart(struct s3 *s, const char *key, const struct object_put *put,
    struct backend_tag *ret_tag, struct error *err)
{
	struct upload up = { .s = s, .key = key, .size = put->size, .put = put };
	CLEANUP_FREE struct part *parts = NULL;
	struct s3_headers headers = {0};
	uint8_t sum[SHA256_LEN];
	int r;

	cut_into_parts(&up, s->part_size);
	up.parts = parts = calloc(up.count, sizeof(*parts));
	if (parts == NULL)
		return error_set(err, -EAGAIN, "out of memory");
	r = hash_parts(&up, sum);
	if (r < 0)
		return error_set(err, r, "reading the file for %.200s: %s", key, strerror(-r));
	meta_to_tag(&put->meta, put->size, sum, ret_tag);
	s3_headers_meta(&headers, &put->meta, sum);
	s3_headers_add(&headers, "x-amz-checksum-algorithm", "SHA256");
	r = run(&up, &headers, ret_tag, err);
	s3_headers_release(&headers);
	return r;
}

/* CopyObject carries the metadata along; here it is repeated from the source's HEAD. */
static void
repeat_headers(struct s3_headers *headers, const struct s3_reply *head)
{
	const char *line = head->http.headers.data, *end;

	for (; line != NULL && (end = strchr(line, '\n')) != NULL; line = end + 1) {
		CLEANUP_STRBUF struct strbuf name = STRBUF_INIT;
		size_t len = (size_t)(end - line);
		char *value;

		if (strncmp(line, "x-amz-meta-", 11) != 0 && strncmp(line, "content-type:", 13) != 0)
			continue;
		strbuf_add(&name, line, len);
		value = strbuf_ok(&name) ? strchr(name.data, ':') : NULL;
		if (value == NULL)
			continue;
		*value++ = '\0';
		s3_headers_add(headers, name.data, value + strspn(value, " \t"));
	}
}

int
s3_copy_multipart(struct s3 *s, const char *from, const char *to, const struct backend_tag *tag,
    const struct s3_reply *head, struct error *err)
{
	uint64_t least = s->copy_limit < (uint64_t)512 * MIB ? s->copy_limit : (uint64_t)512 * MIB;
	struct upload up = { .s = s, .key = to, .size = tag->size, .source = from, .source_etag = tag->etag };
	CLEANUP_FREE struct part *parts = NULL;
	struct s3_headers headers = {0};
	struct backend_tag copied = *tag;
	int r;

	cut_into_parts(&up, least);
	up.parts = parts = calloc(up.count, sizeof(*parts));
	if (parts == NULL)
		return error_set(err, -EAGAIN, "out of memory");
	repeat_headers(&headers, head);
	r = run(&up, &headers, &copied, err);
	s3_headers_release(&headers);
	return r;
}
