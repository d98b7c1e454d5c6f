/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Storing an object, and looking at one.
 *
 *   1. The file is read twice: once to hash it, once to send it.  The hash goes as
 *      x-amz-checksum-sha256, a signed header, which the store checks and keeps.
 *      Until it has answered one, and always at AWS, the payload is signed by the same hash:
 *      every server checks that.  Afterwards it isn't: a second hash of the same bytes takes a
 *      tenth of MinIO's time, which often has the same processors as we have.
 *   2. Stored means confirmed: the answer repeats the checksum, or a HEAD shows the
 *      size and the sha256 that only our own PUT wrote there.  The ETag is no MD5 everywhere
 *      (encryption, multipart, other servers) and is only compared with itself.
 *   3. A single PUT is one request, nothing is asked before.
 */
#include "backends/s3_client.h"

#include "backends/meta.h"
#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

enum { CHUNK = 256 * 1024 };

/* ---- headers ---- */

void
s3_headers_add(struct s3_headers *h, const char *name, const char *value)
{
	struct strbuf *n = &h->text[h->texts], *v;

	/* Host, hash, date, token and authorization need their places too. */
	if (h->count + 6 > S3_PAIRS_MAX || h->texts + 2 > 2 * S3_PAIRS_MAX) {
		h->failed = true;
		return;
	}
	v = n + 1;
	h->texts += 2;
	strbuf_addstr(n, name);
	strbuf_addstr(v, value);
	h->failed |= !strbuf_ok(n) || !strbuf_ok(v);
	h->pairs[h->count++] = (struct s3_pair){ n->data, v->data };
}

static int
add_meta_field(void *arg, const char *name, const char *value)
{
	char full[64];

	(void)snprintf(full, sizeof(full), "x-amz-meta-%s", name);
	s3_headers_add(arg, full, value);
	return 0;
}

void
s3_headers_meta(struct s3_headers *h, const struct object_meta *m, const uint8_t *sum)
{
	s3_headers_add(h, "content-type", m->content_type != NULL ? m->content_type :
	    "application/octet-stream");
	(void)meta_each(m, sum, add_meta_field, h, NULL);
}

void
s3_headers_release(struct s3_headers *h)
{
	size_t i;

	for (i = 0; i < h->texts; i++)
		strbuf_release(&h->text[i]);
	*h = (struct s3_headers){0};
}

/* ---- looking ---- */

static void
parse_checksum(struct s3_reply *reply, struct backend_tag *tag, char *ret_checksum)
{
	unsigned char sum[64];
	char text[64];

	ret_checksum[0] = '\0';
	if (!s3_http_header(&reply->http, "x-amz-checksum-sha256", text, sizeof(text)))
		return;
	strcpy(ret_checksum, text);
	/* A composite of parts ends in "-N" and is no hash of the object. */
	if (strlen(text) != S3_BASE64_SHA256 - 1 ||
	    EVP_DecodeBlock(sum, (unsigned char *)text, S3_BASE64_SHA256 - 1) < SHA256_LEN)
		return;
	memcpy(tag->sha256, sum, SHA256_LEN);
	tag->has_sha256 = true;
}

static void
parse_head(struct s3_reply *reply, struct backend_tag *tag, char *ret_checksum)
{
	static const char prefix[] = "x-amz-meta-";
	char *line = reply->http.headers.data, *end, *colon, text[4096 * 3];

	memset(tag, 0, sizeof(*tag));
	if (s3_http_header(&reply->http, "content-length", text, sizeof(text)))
		tag->size = strtoull(text, NULL, 10);
	if (s3_http_header(&reply->http, "last-modified", text, sizeof(text)) && s3_time(text) != INT64_MIN)
		tag->mtime_ns = s3_time(text);
	if (s3_http_header(&reply->http, "etag", tag->etag, sizeof(tag->etag)))
		s3_unquote(tag->etag);
	for (; line != NULL && (end = strchr(line, '\n')) != NULL; line = end + 1) {
		size_t len = (size_t)(end - line);

		if (strncmp(line, prefix, sizeof(prefix) - 1) != 0 || len >= sizeof(text))
			continue;
		memcpy(text, line, len);
		text[len] = '\0';
		colon = strchr(text, ':');
		if (colon == NULL)
			continue;
		*colon++ = '\0';
		meta_parse(tag, text + sizeof(prefix) - 1, colon + strspn(colon, " \t"));
	}
	parse_checksum(reply, tag, ret_checksum);
}

/* Why did this HEAD fail?  Its answer has no body: a listing of the key, which has one, tells a
 * missing object from a missing bucket, wrong credentials or something that isn't S3 at all. */
static int
ask_further(struct s3 *s, const char *key, int r, struct error *err)
{
	CLEANUP_STRBUF struct strbuf path = STRBUF_INIT;
	struct s3_pair query[] = { { "list-type", "2" }, { "max-keys", "1" }, { "prefix", NULL } };
	struct s3_request req = { .method = "GET", .query = query, .query_count = 3,
		.root = "ListBucketResult" };
	struct s3_reply reply = {0};
	struct error e = {0};
	int why;

	strbuf_addf(&path, "%s%s%s", s->prefix, s->prefix[0] != '\0' ? "/" : "", key);
	if (!strbuf_ok(&path))
		return error_set(err, -EAGAIN, "out of memory");
	query[2].value = path.data;
	why = s3_send(s, &req, &reply, &e);
	s3_reply_release(&reply);
	if (why == 0)
		return r;
	/* Credentials that may read but not list are an S3 server's answer as well. */
	if (r == -ENOENT && why == -EACCES)
		return r;
	return error_set(err, why, "%s", error_text(&e));
}

int
s3_head(struct s3 *s, const char *key, struct s3_reply *reply, struct backend_tag *ret_tag,
    char ret_checksum[64], struct error *err)
{
	static const struct s3_pair headers[] = { { "x-amz-checksum-mode", "ENABLED" } };
	struct s3_request req = { .method = "HEAD", .key = key, .headers = headers, .header_count = 1 };
	char checksum[64];
	int r = s3_send(s, &req, reply, err);

	if (r < 0 && reply->http.status / 100 >= 3)
		return r == -EAGAIN && reply->http.status >= 500 ? r : ask_further(s, key, r, err);
	if (r < 0)
		return r;
	parse_head(reply, ret_tag, ret_checksum != NULL ? ret_checksum : checksum);
	return 0;
}

int
s3_stat(struct backend *b, const char *key, struct backend_tag *ret_tag, struct error *err)
{
	struct s3 *s = (struct s3 *)b;
	struct s3_reply reply = {0};
	int r = s3_check_key(s, key, err);

	if (r == 0)
		r = s3_head(s, key, &reply, ret_tag, NULL, err);
	s3_reply_release(&reply);
	return r;
}

int
s3_confirm(struct s3 *s, const char *key, const char *etag, struct backend_tag *tag, struct error *err)
{
	struct s3_reply reply = {0};
	struct backend_tag seen;
	bool same;
	int r = s3_head(s, key, &reply, &seen, NULL, err);

	s3_reply_release(&reply);
	if (r == -ENOENT)
		return error_set(err, -EAGAIN, "%s at %s, bucket %s: %.200s was stored and is not there", s->name,
		    s->endpoint, s->bucket, key);
	if (r < 0)
		return r;
	same = !tag->has_sha256 ||
	    (seen.has_sha256 && memcmp(seen.sha256, tag->sha256, SHA256_LEN) == 0);
	if (!same || seen.size != tag->size || seen.generation != tag->generation ||
	    (etag[0] != '\0' && strcmp(etag, seen.etag) != 0))
		return error_set(err, -EAGAIN, "%s at %s, bucket %s: what lies at %.200s is not what was stored "
		    "there", s->name, s->endpoint, s->bucket, key);
	strcpy(tag->etag, seen.etag);
	return 0;
}

/* ---- storing ---- */

const char *
s3_payload(const struct s3 *s, const char *hex)
{
	return s->checks_sums && !s->is_aws ? S3_UNSIGNED_PAYLOAD : hex;
}

int
s3_check_sum(struct s3 *s, const struct s3_request *req, const struct s3_reply *reply,
    const char *base64, struct error *err)
{
	char text[96];

	if (s3_http_header(&reply->http, "x-amz-checksum-sha256", text, sizeof(text))) {
		if (strcmp(text, base64) != 0)
			return error_set(err, -EIO, "%s at %s, bucket %s: %.200s arrived damaged (checksum %.64s)",
			    s->name, s->endpoint, s->bucket, req->key, text);
		s->checks_sums = true;
		return 1;
	}
	if (strcmp(req->payload_hash, S3_UNSIGNED_PAYLOAD) != 0)
		return 0;
	/* Another server behind the same name?  From now on the payload is signed again. */
	s->checks_sums = false;
	return error_set(err, -EAGAIN, "%s at %s, bucket %s: %.200s was answered without its checksum", s->name,
	    s->endpoint, s->bucket, req->key);
}

static int
hash(const struct object_put *put, uint8_t *ret_sum)
{
	CLEANUP_FREE char *buf = malloc(CHUNK);
	struct digest *d = digest_new();
	uint64_t off = 0;
	int r = buf == NULL || d == NULL ? -ENOMEM : 0;

	while (r == 0 && off < put->size) {
		size_t want = put->size - off < CHUNK ? (size_t)(put->size - off) : CHUNK;
		ssize_t n = pread_full(put->fd, buf, want, off);

		if (put->cancelled != NULL && put->cancelled(put->cancelled_arg))
			r = -ECANCELED;
		else if (n < 0 || (size_t)n < want)
			r = n < 0 ? (int)n : -EIO;
		else
			digest_update(d, buf, want);
		off += want;
	}
	if (r == 0)
		digest_final(d, ret_sum);
	digest_free(d);
	return r;
}

static int
put_single(struct s3 *s, const char *key, const struct object_put *put, struct backend_tag *tag,
    struct error *err)
{
	struct s3_request req = { .method = "PUT", .key = key, .body_fd = put->fd, .body_len = put->size,
		.cancelled = put->cancelled, .cancelled_arg = put->cancelled_arg };
	char hex[S3_HEX_SHA256], base64[S3_BASE64_SHA256];
	struct s3_headers headers = {0};
	struct s3_reply reply = {0};
	int r;

	hex_encode(tag->sha256, SHA256_LEN, hex);
	s3_base64(tag->sha256, base64);
	s3_headers_meta(&headers, &put->meta, tag->sha256);
	s3_headers_add(&headers, "x-amz-checksum-sha256", base64);
	if (put->flags & OBJECT_PUT_IF_ABSENT)
		s3_headers_add(&headers, "if-none-match", "*");
	req.payload_hash = s3_payload(s, hex);
	req.headers = headers.pairs;
	req.header_count = headers.count;
	r = headers.failed ? error_set(err, -EAGAIN, "out of memory") : s3_send(s, &req, &reply, err);
	r = s3_bytes_changed(&reply, put, key, r, err);
	if (r == 0 && s3_http_header(&reply.http, "etag", tag->etag, sizeof(tag->etag)))
		s3_unquote(tag->etag);
	if (r == 0)
		r = s3_check_sum(s, &req, &reply, base64, err);
	if (r == 0)
		r = s3_confirm(s, key, tag->etag, tag, err);
	else if (r > 0)
		r = 0;
	s3_headers_release(&headers);
	s3_reply_release(&reply);
	return r;
}

int
s3_put(struct backend *b, const char *key, const struct object_put *put,
    struct backend_tag *ret_tag, bool *ret_linked, struct error *err)
{
	struct s3 *s = (struct s3 *)b;
	uint8_t sum[SHA256_LEN];
	int r = s3_check_key(s, key, err);

	if (r < 0)
		return r;
	*ret_linked = false;
	if (put->cancelled != NULL && put->cancelled(put->cancelled_arg))
		return error_set(err, -ECANCELED, "cancelled");
	if (put->size > s->part_size)
		return s3_put_multipart(s, key, put, ret_tag, err);
	r = hash(put, sum);
	if (r < 0)
		return error_set(err, r, "reading the file for %.200s: %s", key, strerror(-r));
	meta_to_tag(&put->meta, put->size, sum, ret_tag);
	return put_single(s, key, put, ret_tag, err);
}
