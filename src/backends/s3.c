/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The S3 backend's operations, but for storing (s3_put.c).
 *
 *   1. A range is read from one version of the object: what takes more than one
 *      request asks for the first one's ETag in the later ones.
 *   2. A copy counts when a HEAD of it shows the source's size and checksum.
 */
#include "backends/s3_client.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GET_MAX = 64 << 20 };		/* bytes of one request */

static struct s3 *
to_s3(struct backend *b)
{
	return (struct s3 *)b;
}

/* ---- reading ---- */

/* Did the answer bring exactly [off, off+len)? */
static int
check_range(struct s3 *s, const char *key, const struct s3_reply *reply, uint64_t off, uint64_t len,
    struct error *err)
{
	uint64_t first, last;
	char range[96];

	if (reply->http.status == 206 && (!s3_http_header(&reply->http, "content-range", range, sizeof(range)) ||
	    sscanf(range, "bytes %" SCNu64 "-%" SCNu64, &first, &last) != 2 || first != off))
		return error_set(err, -EAGAIN, "%s at %s: another range of %.200s came than was asked for", s->name,
		    s->endpoint, key);
	if (reply->http.status != 206 && off != 0)
		return error_set(err, -EIO, "%s at %s does not serve ranges", s->name, s->endpoint);
	if (reply->http.sunk != len)
		return error_set(err, -EIO, "%s at %s: %.200s ends before byte %" PRIu64, s->name, s->endpoint, key,
		    off + len);
	return 0;
}

static int
s3_get(struct backend *b, const char *key, uint64_t off, uint64_t len, int fd, uint64_t fd_off,
    struct error *err)
{
	struct s3 *s = to_s3(b);
	char range[64], etag[96] = "";
	struct s3_pair headers[] = { { "range", range }, { "if-match", etag } };
	struct s3_request req = { .method = "GET", .key = key, .headers = headers, .sink = true,
		.sink_fd = fd };
	struct s3_reply reply = {0};
	struct backend_tag tag;
	uint64_t done = 0;
	int r = s3_check_key(s, key, err);

	if (r == 0 && len == 0)
		return s3_stat(b, key, &tag, err);
	while (r == 0 && done < len) {
		uint64_t n = len - done < GET_MAX ? len - done : GET_MAX;

		(void)snprintf(range, sizeof(range), "bytes=%" PRIu64 "-%" PRIu64, off + done, off + done + n - 1);
		req.header_count = etag[0] != '\0' ? 2 : 1;
		req.sink_off = fd_off + done;
		req.sink_len = n;
		r = s3_send(s, &req, &reply, err);
		if (r == -EEXIST)
			r = error_set(err, -EAGAIN, "%.200s was replaced while it was read", key);
		if (r == 0)
			r = check_range(s, key, &reply, off + done, n, err);
		if (r == 0 && etag[0] == '\0')
			(void)s3_http_header(&reply.http, "etag", etag, sizeof(etag));
		done += n;
	}
	s3_reply_release(&reply);
	return r;
}

/* ---- removing, copying ---- */

static int
s3_remove(struct backend *b, const char *key, struct error *err)
{
	struct s3 *s = to_s3(b);
	struct s3_request req = { .method = "DELETE", .key = key };
	struct s3_reply reply = {0};
	struct error e = {0};
	int r = s3_check_key(s, key, err);

	if (r < 0)
		return r;
	r = s3_send(s, &req, &reply, &e);
	s3_reply_release(&reply);
	if (r == 0 || r == -ENOENT)
		return 0;
	return error_set(err, r, "%s", error_text(&e));
}

static int
copy_whole(struct s3 *s, const char *source, const char *to, const char *etag, struct error *err)
{
	struct s3_pair headers[] = { { "x-amz-copy-source", source }, { "x-amz-metadata-directive", "COPY" },
		{ "x-amz-copy-source-if-match", etag } };
	struct s3_request req = { .method = "PUT", .key = to, .headers = headers, .header_count = 3,
		.root = "CopyObjectResult" };
	struct s3_reply reply = {0};
	int r;

	req.header_count = etag[0] != '\0' ? 3 : 2;
	r = s3_send(s, &req, &reply, err);
	s3_reply_release(&reply);
	return r == -EEXIST ? error_set(err, -EAGAIN, "%.200s changed while it was being copied", source) : r;
}

/* Invariant 2.  `sum` and `copied` are the checksum headers of source and copy. */
static int
check_copy(struct s3 *s, const char *to, const struct backend_tag *tag, const char *sum,
    const struct backend_tag *copied, const char *copied_sum, struct error *err)
{
	bool same = tag->size == copied->size && tag->has_sha256 == copied->has_sha256 &&
	    memcmp(tag->sha256, copied->sha256, SHA256_LEN) == 0;

	/* A composite becomes a whole checksum or other parts: comparable only when both are alike. */
	if (sum[0] != '\0' && copied_sum[0] != '\0' && strchr(sum, '-') == NULL &&
	    strchr(copied_sum, '-') == NULL)
		same = same && strcmp(sum, copied_sum) == 0;
	if (!same)
		return error_set(err, -EIO, "%s at %s, bucket %s: the copy at %.200s differs from its source",
		    s->name, s->endpoint, s->bucket, to);
	return 0;
}

static int
s3_copy(struct backend *b, const char *from, const char *to, struct backend_tag *ret_tag,
    struct error *err)
{
	struct s3 *s = to_s3(b);
	CLEANUP_STRBUF struct strbuf source = STRBUF_INIT;
	struct s3_reply head = {0}, after = {0};
	char sum[64], copied_sum[64];
	struct backend_tag tag;
	int r = s3_check_key(s, from, err);

	if (r == 0)
		r = s3_check_key(s, to, err);
	if (r < 0)
		return r;
	strbuf_addf(&source, "/%s/", s->bucket);
	if (s->prefix[0] != '\0') {
		s3_escape(&source, s->prefix, true);
		strbuf_addch(&source, '/');
	}
	s3_escape(&source, from, true);
	if (!strbuf_ok(&source))
		return error_set(err, -EAGAIN, "out of memory");
	r = s3_head(s, from, &head, &tag, sum, err);
	if (r == 0)
		r = tag.size > s->copy_limit ? s3_copy_multipart(s, source.data, to, &tag, &head, err) :
		    copy_whole(s, source.data, to, tag.etag, err);
	if (r == 0)
		r = s3_head(s, to, &after, ret_tag, copied_sum, err);
	if (r == 0)
		r = check_copy(s, to, &tag, sum, ret_tag, copied_sum, err);
	s3_reply_release(&head);
	s3_reply_release(&after);
	return r;
}

/* ---- listing ---- */

static int
give_page(const struct s3 *s, const struct s3_xml_page *page, backend_list_fn *fn, void *arg)
{
	size_t skip = s->prefix[0] != '\0' ? strlen(s->prefix) + 1 : 0, i;
	int r = 0;

	for (i = 0; r == 0 && i < page->count; i++) {
		const struct s3_xml_object *o = &page->objects[i];

		if (strlen(o->key) > skip && strncmp(o->key, s->prefix, skip > 0 ? skip - 1 : 0) == 0 &&
		    backend_key_ok(o->key + skip))
			r = fn(arg, o->key + skip, o->size, o->mtime_ns);
	}
	return r;
}

static int
s3_list(struct backend *b, const char *prefix, backend_list_fn *fn, void *arg, struct error *err)
{
	struct s3 *s = to_s3(b);
	CLEANUP_STRBUF struct strbuf full = STRBUF_INIT;
	struct s3_pair query[] = { { "list-type", "2" }, { "encoding-type", "url" }, { "prefix", NULL },
		{ "continuation-token", NULL } };
	struct s3_request req = { .method = "GET", .query = query, .root = "ListBucketResult" };
	CLEANUP_FREE char *token = NULL;
	int r;

	strbuf_addf(&full, "%s%s%s", s->prefix, s->prefix[0] != '\0' ? "/" : "", prefix);
	if (!strbuf_ok(&full))
		return error_set(err, -EAGAIN, "out of memory");
	query[2].value = full.data;
	do {
		struct s3_reply reply = {0};
		struct s3_xml_page page = {0};

		query[3].value = token;
		req.query_count = token != NULL ? 4 : 3;
		r = s3_send(s, &req, &reply, err);
		if (r == 0 && s3_xml_list(reply.http.body.data, reply.http.body.len, &page) < 0)
			r = error_set(err, -EAGAIN, "%s at %s, bucket %s: the listing can't be read", s->name,
			    s->endpoint, s->bucket);
		if (r == 0 && token != NULL && page.next_token != NULL && strcmp(token, page.next_token) == 0)
			r = error_set(err, -EIO, "%s at %s, bucket %s: the listing goes in circles", s->name,
			    s->endpoint, s->bucket);
		s3_reply_release(&reply);
		if (r == 0)
			r = give_page(s, &page, fn, arg);
		free(token);
		token = TAKE_PTR(page.next_token);
		s3_xml_page_release(&page);
	} while (r == 0 && token != NULL);
	return r;
}

/* ---- URLs ---- */

static int
s3_get_url(struct backend *b, const char *key, unsigned expires, char **ret_url, struct error *err)
{
	struct s3 *s = to_s3(b);
	CLEANUP_STRBUF struct strbuf path = STRBUF_INIT;
	struct strbuf url = STRBUF_INIT;
	struct s3_identity id = { .access_key = s->access_key, .secret_key = s->secret_key,
		.session_token = s->session_token, .region = s->region, .service = "s3" };
	struct s3_pair host = { "host", s->host };
	struct s3_to_sign what = { .method = "GET", .headers = &host, .header_count = 1,
		.payload_hash = S3_UNSIGNED_PAYLOAD };
	int r = s3_check_key(s, key, err);

	if (r < 0)
		return r;
	s3_path(s, key, &path);
	if (!strbuf_ok(&path))
		return error_set(err, -EAGAIN, "out of memory");
	what.path = path.data;
	strbuf_addstr(&url, s->base);
	s3_escape(&url, path.data, true);
	strbuf_addch(&url, '?');
	s3_sign_query(&url, &id, &what, (time_t)(clock_wall_ns() / NSEC_PER_SEC), expires);
	if (!strbuf_ok(&url)) {
		strbuf_release(&url);
		return error_set(err, -EAGAIN, "out of memory");
	}
	*ret_url = url.data;
	return 0;
}

/* ---- probing ---- */

static int
make_bucket(struct s3 *s, struct error *err)
{
	CLEANUP_STRBUF struct strbuf body = STRBUF_INIT;
	char hex[S3_HEX_SHA256];
	struct s3_request req = { .method = "PUT", .payload_hash = hex };
	struct s3_reply reply = {0};
	uint8_t sum[SHA256_LEN];
	int r;

	strbuf_addstr(&body, "");
	/* us-east-1 is what no constraint means, and naming it is an error. */
	if (strcmp(s->region, "us-east-1") != 0)
		strbuf_addf(&body, "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
		    "<LocationConstraint>%s</LocationConstraint></CreateBucketConfiguration>", s->region);
	if (!strbuf_ok(&body))
		return error_set(err, -EAGAIN, "out of memory");
	sha256(body.data, body.len, sum);
	hex_encode(sum, SHA256_LEN, hex);
	req.body_data = body.data;
	req.body_len = body.len;
	r = s3_send(s, &req, &reply, err);
	if (strcmp(reply.error.code, "BucketAlreadyOwnedByYou") == 0)
		r = 0;
	s3_reply_release(&reply);
	return r;
}

/* Is the bucket there, and are these credentials good for it?  A listing of one key and not HEAD,
 * because a refused HEAD doesn't say why; both need the same permission. */
static int
find_bucket(struct s3 *s, struct error *err)
{
	static const struct s3_pair query[] = { { "list-type", "2" }, { "max-keys", "1" } };
	struct s3_request req = { .method = "GET", .query = query, .query_count = 2,
		.root = "ListBucketResult" };
	struct s3_reply reply = {0};
	int r = s3_send(s, &req, &reply, err);

	s3_reply_release(&reply);
	return r;
}

static int
try_writing(struct s3 *s, struct error *err)
{
	struct s3_request req = { .method = "PUT" };
	struct s3_reply reply = {0};
	char key[48];
	int r;

	(void)snprintf(key, sizeof(key), ".tbfs/tmp/probe-%016" PRIx64,
	    (uint64_t)arc4random() << 32 | arc4random());
	req.key = key;
	r = s3_send(s, &req, &reply, err);
	if (r == 0) {
		req.method = "DELETE";
		r = s3_send(s, &req, &reply, err);
	}
	s3_reply_release(&reply);
	return r;
}

static int
s3_probe(struct backend *b, struct error *err)
{
	struct s3 *s = to_s3(b);
	struct error e = {0};
	int r = find_bucket(s, &e);

	if (r == -ENODEV && s->create_bucket)
		r = make_bucket(s, &e);
	if (r == 0)
		r = try_writing(s, &e);
	return r == 0 ? 0 : error_set(err, r, "%s", error_text(&e));
}

const struct backend_ops s3_ops = {
	.name = "s3",
	.put = s3_put,
	.get = s3_get,
	.stat = s3_stat,
	.remove = s3_remove,
	.list = s3_list,
	.copy = s3_copy,
	.get_url = s3_get_url,
	.probe = s3_probe,
	.free = s3_free,
};

const struct backend_ops minio_ops = {
	.name = "minio",
	.put = s3_put,
	.get = s3_get,
	.stat = s3_stat,
	.remove = s3_remove,
	.list = s3_list,
	.copy = s3_copy,
	.get_url = s3_get_url,
	.probe = s3_probe,
	.free = s3_free,
};
