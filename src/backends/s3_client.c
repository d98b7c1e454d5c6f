/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * One request to an S3 server: addressed, signed, sent, understood, retried.
 *
 *   1. Each attempt is signed anew, with the time it is sent at.
 *   2. Only what may succeed later is retried: no answer, 5xx, 429, a document that
 *      is cut or not the one expected.  The wait doubles, with full jitter (Brooker,
 *      "Exponential Backoff And Jitter", 2015).  A server that let two deadlines
 *      pass is given up: it hangs, and so would the caller.
 *   3. Where a document is expected (`root`), a 200 that holds another one is a
 *      failure: CompleteMultipartUpload and CopyObject answer before they are done.
 *   4. Neither secret, token nor signature goes into an error text.
 */
#include "backends/s3_client.h"

#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

enum { BACKOFF_FIRST = 100, BACKOFF_MAX = 5000, STEP = 50 };	/* ms */

void
s3_reply_release(struct s3_reply *reply)
{
	s3_http_reply_release(&reply->http);
	free(reply->result.upload_id);
	*reply = (struct s3_reply){0};
}

void
s3_path(const struct s3 *s, const char *key, struct strbuf *b)
{
	strbuf_addch(b, '/');
	if (s->path_style)
		strbuf_addstr(b, s->bucket);
	if (key == NULL)
		return;
	if (s->path_style)
		strbuf_addch(b, '/');
	if (s->prefix[0] != '\0')
		strbuf_addf(b, "%s/", s->prefix);
	strbuf_addstr(b, key);
}

int
s3_check_key(const struct s3 *s, const char *key, struct error *err)
{
	size_t prefix = s->prefix[0] != '\0' ? strlen(s->prefix) + 1 : 0;

	if (strlen(key) + prefix > BACKEND_KEY_MAX)
		return error_set(err, -EINVAL, "%s: with s3.prefix the key \"%.60s…\" is longer than %d bytes",
		    s->name, key, BACKEND_KEY_MAX);
	return 0;
}

void
s3_base64(const uint8_t sum[SHA256_LEN], char ret_text[S3_BASE64_SHA256])
{
	(void)EVP_EncodeBlock((unsigned char *)ret_text, sum, SHA256_LEN);
}

void
s3_unquote(char *text)
{
	size_t len = strlen(text);

	if (len >= 2 && text[0] == '"' && text[len - 1] == '"') {
		memmove(text, text + 1, len - 2);
		text[len - 2] = '\0';
	}
}

/* ---- one attempt ---- */

static void
sign(const struct s3 *s, const struct s3_request *req, const char *path, struct s3_pair *headers,
    size_t *count, char *date, struct strbuf *authorization)
{
	struct s3_identity id = { .access_key = s->access_key, .secret_key = s->secret_key,
		.session_token = s->session_token, .region = s->region, .service = "s3" };
	struct s3_to_sign what = { .method = req->method, .path = path, .query = req->query,
		.query_count = req->query_count, .headers = headers,
		.payload_hash = req->payload_hash != NULL ? req->payload_hash : S3_EMPTY_SHA256 };
	time_t now = (time_t)(clock_wall_ns() / NSEC_PER_SEC);
	size_t n = 0;

	assert(req->header_count + 5 <= S3_PAIRS_MAX);
	s3_date(now, date);
	headers[n++] = (struct s3_pair){ "host", s->host };
	headers[n++] = (struct s3_pair){ "x-amz-content-sha256", what.payload_hash };
	headers[n++] = (struct s3_pair){ "x-amz-date", date };
	if (s->session_token != NULL)
		headers[n++] = (struct s3_pair){ "x-amz-security-token", s->session_token };
	if (req->header_count > 0)
		memcpy(headers + n, req->headers, req->header_count * sizeof(*headers));
	n += req->header_count;
	what.header_count = n;
	s3_sign_header(authorization, &id, &what, now);
	headers[n++] = (struct s3_pair){ "authorization", authorization->data };
	*count = n;
}

static int
attempt(struct s3 *s, const struct s3_request *req, struct s3_reply *reply, struct error *err)
{
	CLEANUP_STRBUF struct strbuf path = STRBUF_INIT;
	CLEANUP_STRBUF struct strbuf url = STRBUF_INIT;
	CLEANUP_STRBUF struct strbuf authorization = STRBUF_INIT;
	struct s3_pair headers[S3_PAIRS_MAX];
	struct s3_http_request http = { .method = req->method, .headers = headers,
		.body_fd = req->body_data != NULL || req->body_len == 0 ? -1 : req->body_fd,
		.body_data = req->body_data, .body_off = req->body_off, .body_len = req->body_len,
		.sink_fd = req->sink ? req->sink_fd : -1, .sink_off = req->sink_off, .sink_len = req->sink_len,
		.cancelled = req->cancelled, .cancelled_arg = req->cancelled_arg };
	char date[S3_DATE_LEN];
	int r;

	s3_path(s, req->key, &path);
	if (!strbuf_ok(&path))
		return error_set(err, -EAGAIN, "out of memory");
	strbuf_addstr(&url, s->base);
	s3_escape(&url, path.data, true);
	if (req->query_count > 0) {
		strbuf_addch(&url, '?');
		s3_query(&url, req->query, req->query_count);
	}
	sign(s, req, path.data, headers, &http.header_count, date, &authorization);
	if (!strbuf_ok(&url) || !strbuf_ok(&authorization))
		return error_set(err, -EAGAIN, "out of memory");
	http.url = url.data;
	atomic_fetch_add(&s->b.requests, 1);
	r = s3_http_send(s->http, &http, &reply->http, err);
	if (r == 0 && reply->http.status / 100 == 2) {
		atomic_fetch_add(&s->b.bytes_out, req->body_len);
		atomic_fetch_add(&s->b.bytes_in, reply->http.sunk);
	}
	return r;
}

/* An answer came: is it the one that was hoped for? */
static int
understand(struct s3 *s, const struct s3_request *req, struct s3_reply *reply, struct error *err)
{
	const struct strbuf *body = &reply->http.body;
	bool good = reply->http.status / 100 == 2;

	if (good && req->root == NULL)
		return 0;
	free(reply->result.upload_id);
	reply->result = (struct s3_xml_result){0};
	reply->error = (struct s3_xml_error){0};
	if (good && s3_xml_result(body->data, body->len, &reply->result) == 0 &&
	    strcmp(reply->result.root, req->root) == 0)
		return 0;
	(void)s3_xml_error(body->data, body->len, &reply->error);
	return s3_explain(s, &reply->http, &reply->error, req->method, req->key, err);
}

/* ---- attempts ---- */

static bool
is_cancelled(const struct s3_request *req)
{
	return req->cancelled != NULL && req->cancelled(req->cancelled_arg);
}

/* Wait before attempt n+1; true if cancelled meanwhile. */
static bool
back_off(const struct s3_request *req, unsigned n)
{
	unsigned bound = n > 6 ? BACKOFF_MAX : BACKOFF_FIRST << (n - 1);
	unsigned left = arc4random_uniform((bound < BACKOFF_MAX ? bound : BACKOFF_MAX) + 1);

	while (left > 0) {
		unsigned now = left < STEP ? left : STEP;
		struct timespec ts = ns_to_timespec((int64_t)now * 1000000);

		if (is_cancelled(req))
			return true;
		(void)nanosleep(&ts, NULL);
		left -= now;
	}
	return is_cancelled(req);
}

/* A file that changed between hashing and sending changes nothing by being sent again. */
static bool
is_digest_refusal(const struct s3_xml_error *e)
{
	return strcmp(e->code, "BadDigest") == 0 || strcmp(e->code, "XAmzContentSHA256Mismatch") == 0 ||
	    strcmp(e->code, "XAmzContentChecksumMismatch") == 0;
}

int
s3_bytes_changed(const struct s3_reply *reply, const struct object_put *put, const char *key, int r,
    struct error *err)
{
	if (r != -EAGAIN || !is_digest_refusal(&reply->error))
		return r;
	if (put->cancelled != NULL && put->cancelled(put->cancelled_arg))
		return error_set(err, -ECANCELED, "cancelled");
	return error_set(err, -EAGAIN, "%.200s changed while it was being stored", key);
}

int
s3_send(struct s3 *s, const struct s3_request *req, struct s3_reply *reply, struct error *err)
{
	struct error e;
	unsigned timeouts = 0;
	int r;

	s3_reply_release(reply);
	for (;;) {
		e = (struct error){0};
		reply->attempts++;
		r = attempt(s, req, reply, &e);
		if (r == 0) {
			r = understand(s, req, reply, err);
			if (r != -EAGAIN || is_digest_refusal(&reply->error))
				return r;
		} else {
			timeouts += reply->http.timed_out;
			(void)error_set(err, r, "%s at %s, bucket %s: %s%s%.160s: %s", s->name, s->endpoint, s->bucket,
			    req->method, req->key != NULL ? " " : "", req->key != NULL ? req->key : "", error_text(&e));
			if (r == -ECANCELED && reply->attempts > 1)
				r = -EINPROGRESS;
			if (r != -EAGAIN)
				return r;
		}
		if (reply->attempts > s->retries || timeouts > 1)
			return r;
		if (back_off(req, reply->attempts))
			return error_set(err, -EINPROGRESS, "cancelled after an attempt whose end isn't known");
	}
}
