/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The contract of the S3 backend against a real server. */
#include "rig.h"

#include "backends/s3_client.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <curl/curl.h>

enum { MIB = 1 << 20 };

static uint64_t
requests_since(uint64_t *mark)
{
	uint64_t before = *mark;

	*mark = rig.b->requests;
	return *mark - before;
}

static void
test_request_counts(void **state)
{
	CLEANUP_CLOSE int fd = rig_file(0, 0);
	CLEANUP_FREE char *list = NULL;
	struct error err = {0};
	uint64_t mark = rig.b->requests;

	(void)state;
	rig_put("count/small", 20000, 1);
	assert_int_equal(requests_since(&mark), 1);
	rig_put("count/large", 40 * MIB, 2);
	assert_int_equal(requests_since(&mark), 1 + 3 + 1);
	assert_ok(backend_get(rig.b, "count/small", 10, 1000, fd, 0, &err));
	assert_int_equal(requests_since(&mark), 1);
	assert_ok(backend_stat(rig.b, "count/small", NULL, &err));
	assert_int_equal(requests_since(&mark), 1);
	assert_true(rig_absent("count/none"));
	assert_int_equal(requests_since(&mark), 2);	/* a HEAD doesn't tell which is missing */
	list = rig_list("count/");
	assert_int_equal(requests_since(&mark), 1);
	assert_ok(backend_copy(rig.b, "count/small", "count/copy", NULL, &err));
	assert_int_equal(requests_since(&mark), 3);
	assert_ok(backend_remove(rig.b, "count/copy", &err));
	assert_int_equal(requests_since(&mark), 1);
	assert_ok(backend_unshare(rig.b, "count/small", &err));
	assert_int_equal(requests_since(&mark), 0);
}

static void
test_wrong_credentials(void **state)
{
	struct s3_options opt = rig_s3_options();
	struct error err = {0};
	struct backend *b;

	(void)state;
	opt.secret_key = "wrong-secret-wrong-secret";
	b = rig_s3_new(&opt);
	assert_fails(backend_probe(b, &err), -EACCES, "s3.secret_key");
	assert_null(strstr(err.text, opt.secret_key));
	assert_fails(backend_stat(b, "x", NULL, &err), -EACCES, "s3.secret_key");
	backend_free(b);
	opt = rig_s3_options();
	opt.access_key = "NOBODY";
	b = rig_s3_new(&opt);
	assert_fails(backend_probe(b, &err), -EACCES, "s3.access_key");
	assert_fails(backend_remove(b, "x", &err), -EACCES, "s3.access_key");
	backend_free(b);
}

static void
test_missing_bucket(void **state)
{
	CLEANUP_CLOSE int fd = rig_file(3, 1);
	struct object_put put = rig_object(fd, 3);
	struct s3_options opt = rig_s3_options();
	struct error err = {0};
	struct backend *b;
	char name[64];

	(void)state;
	(void)snprintf(name, sizeof(name), "absent-%jd", (intmax_t)clock_wall_ns());
	opt.bucket = name;
	opt.create_bucket = false;
	b = rig_s3_new(&opt);
	assert_fails(backend_probe(b, &err), -ENODEV, name);
	assert_fails(backend_put(b, "x", &put, NULL, NULL, &err), -ENODEV, "s3.bucket");
	assert_fails(backend_get(b, "x", 0, 1, fd, 0, &err), -ENODEV, "s3.bucket");
	assert_fails(backend_stat(b, "x", NULL, &err), -ENODEV, "s3.bucket");
	assert_fails(backend_remove(b, "x", &err), -ENODEV, "s3.bucket");
	assert_fails(backend_list(b, "", NULL, NULL, &err), -ENODEV, "s3.bucket");
	assert_fails(backend_copy(b, "x", "y", NULL, &err), -ENODEV, "s3.bucket");
	backend_free(b);
	opt.create_bucket = true;
	b = rig_s3_new(&opt);
	assert_ok(backend_probe(b, &err));
	assert_ok(backend_probe(b, &err));
	assert_ok(backend_put(b, "x", &put, NULL, NULL, &err));
	assert_ok(backend_remove(b, "x", &err));
	backend_free(b);
}

/* ---- multipart ---- */

static void
assert_no_uploads(void)
{
	static const struct s3_pair query[] = { { "uploads", NULL } };
	struct s3_request req = { .method = "GET", .query = query, .query_count = 1,
		.root = "ListMultipartUploadsResult" };
	struct s3_reply reply = {0};
	struct error err = {0};

	assert_ok(s3_send((struct s3 *)rig.b, &req, &reply, &err));
	if (strstr(reply.http.body.data, "<Upload>") != NULL)
		fail_msg("left behind: %.500s", reply.http.body.data);
	s3_reply_release(&reply);
}

struct count {
	_Atomic int asked;
	int fd, at;
};

/* Changes the file at one of the questions. */
static bool
change_file(void *arg)
{
	struct count *c = arg;

	if (++c->asked == c->at)
		(void)!pwrite(c->fd, "changed", 7, 100);
	return false;
}

/* A file that changes between hashing and sending is never stored as something in between. */
static void
test_changes_while_stored(void **state)
{
	static const uint64_t sizes[] = { 1 * MIB, 34 * MIB };
	struct error err;
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		CLEANUP_CLOSE int fd = rig_file(sizes[i], 3);
		struct count c = { .fd = fd, .at = 1 + (int)((sizes[i] + 256 * 1024 - 1) / (256 * 1024)) };
		struct object_put put = rig_object(fd, sizes[i]);

		put.cancelled = change_file;
		put.cancelled_arg = &c;
		assert_int_equal(backend_put(rig.b, "changing", &put, NULL, NULL, &err), -EAGAIN);
		if (strstr(err.text, "changed while") == NULL)
			fail_msg("%s", err.text);
		assert_true(rig_absent("changing"));
	}
	assert_no_uploads();
}

static void
test_nothing_in_parts_is_left(void **state)
{
	(void)state;
	/* The cancelled uploads of the other tests went before. */
	assert_no_uploads();
}

static void
test_copy_in_parts(void **state)
{
	CLEANUP_CLOSE int fd = rig_file(12 * MIB, 4);
	struct object_put put = rig_object(fd, 12 * MIB);
	struct s3 *s = (struct s3 *)rig.b;
	uint64_t limit = s->copy_limit;
	struct backend_tag tag;
	struct error err = {0};

	(void)state;
	put.meta.object_id = 3;
	put.meta.path = "ü/x";
	assert_ok(backend_put(rig.b, "parts/from +é", &put, NULL, NULL, &err));
	s->copy_limit = 5 * MIB;
	assert_ok(backend_copy(rig.b, "parts/from +é", "parts/to", &tag, &err));
	s->copy_limit = limit;
	assert_true(rig_is("parts/to", 12 * MIB, 4));
	assert_true(tag.object_id == 3 && tag.mode == 0100640 && tag.mtime_ns == 1600000000123456789);
	assert_string_equal(tag.path, "ü/x");
	assert_no_uploads();
}

/* ---- URLs ---- */

static size_t
take_bytes(char *buf, size_t size, size_t n, void *arg)
{
	strbuf_add(arg, buf, size * n);
	return size * n;
}

static long
fetch(const char *url, struct strbuf *body)
{
	CURL *c = curl_easy_init();
	long status = 0;

	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_bytes);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, body);
	if (curl_easy_perform(c) == CURLE_OK)
		(void)curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_cleanup(c);
	return status;
}

static void
test_urls(void **state)
{
	static const char key[] = "url/Grüße + 100%/it's \"here\"?.txt";
	CLEANUP_STRBUF struct strbuf body = STRBUF_INIT;
	CLEANUP_FREE char *url = NULL, *expired = NULL, *plain = NULL;
	struct timespec ts = { .tv_sec = 2, .tv_nsec = 200000000 };
	struct error err = {0};

	(void)state;
	rig_put_text(key, "by URL");
	assert_ok(backend_get_url(rig.b, key, 60, &url, &err));
	assert_int_equal(fetch(url, &body), 200);
	assert_string_equal(body.data, "by URL");
	plain = strdup(url);
	*strchr(plain, '?') = '\0';
	assert_int_equal(fetch(plain, &body), 403);
	url[strlen(url) - 1] ^= 1;
	assert_int_equal(fetch(url, &body), 403);
	assert_ok(backend_get_url(rig.b, key, 1, &expired, &err));
	(void)nanosleep(&ts, NULL);
	assert_int_equal(fetch(expired, &body), 403);
}

static void
test_prefix(void **state)
{
	struct s3_options opt = rig_s3_options();
	struct backend *b, *with = rig.b;
	char key[128];

	(void)state;
	rig_put_text("below/x", "prefixed");
	opt.prefix = NULL;
	b = rig_s3_new(&opt);
	(void)snprintf(key, sizeof(key), "%s/below/x", rig.prefix);
	rig.b = b;
	assert_true(rig_text_is(key, "prefixed"));
	rig.b = with;
	backend_free(b);
}

const struct CMUnitTest *
s3_tests(size_t *ret_count)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_request_counts),
		cmocka_unit_test(test_wrong_credentials),
		cmocka_unit_test(test_missing_bucket),
		cmocka_unit_test(test_changes_while_stored),
		cmocka_unit_test(test_copy_in_parts),
		cmocka_unit_test(test_nothing_in_parts_is_left),
		cmocka_unit_test(test_urls),
		cmocka_unit_test(test_prefix),
	};

	*ret_count = sizeof(tests) / sizeof(tests[0]);
	return tests;
}
