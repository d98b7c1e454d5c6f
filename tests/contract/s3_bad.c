/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The contract where the server is bad: down, hanging, cut off, lying, or not S3
 * at all.  No outcome may look like success, or like "there is no such object".
 */
#include "rig.h"

#include "fake.h"
#include "backends/s3_client.h"
#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SECRET "sEcReTsEcReTsEcReTsEcReT"
#define HTML "Content-Type: text/html\r\nContent-Length: 22\r\n\r\n<html>not S3</html>\r\n\r\n"
#define XML "Content-Type: application/xml\r\nConnection: close\r\n\r\n<?xml version=\"1.0\"?>"
#define EMPTY_OK "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

static struct fake *fake;		/* of the running test */
static struct backend *b;

static void
up(struct fake *f)
{
	struct s3_options opt = { .name = "s3", .bucket = "family", .access_key = "AKID",
		.secret_key = SECRET, .path_style = true, .timeout = 1, .retries = 2 };
	struct error err = {0};

	fake = f;
	fake_start(f);
	opt.endpoint = f->endpoint;
	assert_ok(s3_backend_new(&opt, &b, &err));
	((struct s3 *)b)->part_size = 1000;
}

static void
down(void)
{
	backend_free(b);
	fake_stop(fake);
}

static int
memory_file(const char *text)
{
	int fd = memfd_create("contract", 0);

	assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	return fd;
}

static int
put_bytes(size_t size, struct error *err)
{
	char text[5000];
	struct object_put put = { .size = size };
	int r;

	memset(text, 'x', sizeof(text));
	text[size] = '\0';
	put.fd = memory_file(text);
	r = backend_put(b, "k", &put, NULL, NULL, err);
	(void)close(put.fd);
	return r;
}

static int
get_bytes(uint64_t off, uint64_t len, char *ret_text, struct error *err)
{
	int fd = memory_file(""), r;

	r = backend_get(b, "k", off, len, fd, 0, err);
	if (r == 0 && ret_text != NULL) {
		assert_int_equal(pread(fd, ret_text, len, 0), (ssize_t)len);
		ret_text[len] = '\0';
	}
	(void)close(fd);
	return r;
}

/* Each operation against one answer. */
static void
assert_all_fail(const char *answer, int code, const char *part)
{
	struct fake f = { .always = answer };
	struct error err;
	char copy[16];

	up(&f);
	assert_fails(put_bytes(10, &err), code, part);
	assert_non_null(strstr(err.text, f.endpoint));
	assert_non_null(strstr(err.text, "family"));
	assert_null(strstr(err.text, SECRET));
	assert_fails(put_bytes(2500, &err), code, part);
	assert_fails(get_bytes(0, 5, copy, &err), code, part);
	assert_fails(backend_stat(b, "k", NULL, &err), code, part);
	assert_fails(backend_remove(b, "k", &err), code, part);
	assert_fails(backend_copy(b, "k", "l", NULL, &err), code, part);
	assert_fails(backend_list(b, "", NULL, NULL, &err), code, part);
	assert_fails(backend_probe(b, &err), code, part);
	down();
}

static void
test_pages_of_a_proxy(void **state)
{
	(void)state;
	assert_all_fail("HTTP/1.1 404 Not Found\r\n" HTML, -EAGAIN, "is an S3 server");
	assert_all_fail("HTTP/1.1 403 Forbidden\r\n" HTML, -EAGAIN, "is an S3 server");
	assert_all_fail("HTTP/1.1 502 Bad Gateway\r\n" HTML, -EAGAIN, "HTTP 502");
}

/* A 200 that isn't S3's: nothing was stored, nothing was read. */
static void
test_a_200_page(void **state)
{
	struct fake f = { .always = "HTTP/1.1 200 OK\r\n" HTML };
	struct error err;
	char text[64];

	(void)state;
	up(&f);
	assert_int_equal(put_bytes(10, &err), -EAGAIN);
	assert_int_equal(put_bytes(2500, &err), -EAGAIN);
	assert_int_not_equal(get_bytes(5, 5, text, &err), 0);
	assert_int_not_equal(get_bytes(0, 5, text, &err), 0);
	assert_int_equal(backend_copy(b, "k", "l", NULL, &err), -EAGAIN);
	assert_int_equal(backend_list(b, "", NULL, NULL, &err), -EAGAIN);
	assert_int_equal(backend_probe(b, &err), -EAGAIN);
	down();
}

static void
test_refusals(void **state)
{
	(void)state;
	assert_all_fail("HTTP/1.1 403 Forbidden\r\n" XML "<Error><Code>SignatureDoesNotMatch</Code><Message>no"
	    "</Message><StringToSign>xyz</StringToSign></Error>", -EACCES, "s3.secret_key");
	assert_all_fail("HTTP/1.1 403 Forbidden\r\n" XML "<Error><Code>InvalidAccessKeyId</Code></Error>", -EACCES,
	    "s3.access_key");
	assert_all_fail("HTTP/1.1 404 Not Found\r\n" XML "<Error><Code>NoSuchBucket</Code></Error>", -ENODEV,
	    "s3.bucket");
	assert_all_fail("HTTP/1.1 301 Moved\r\nx-amz-bucket-region: eu-west-3\r\nLocation: http://127.0.0.1:1/\r\n"
	    XML "<Error><Code>PermanentRedirect</Code></Error>", -EACCES, "s3.region=eu-west-3");
	assert_all_fail("HTTP/1.1 400 Bad\r\n" XML "<Error><Code>AuthorizationHeaderMalformed</Code>"
	    "<Region>us-west-2</Region></Error>", -EACCES, "s3.region=us-west-2");
	assert_all_fail("HTTP/1.1 507 Full\r\n" XML "<Error><Code>XMinioStorageFull</Code></Error>", -ENOSPC,
	    "full");
	assert_all_fail("HTTP/1.1 503 Slow\r\n" XML "<Error><Code>SlowDown</Code></Error>", -EAGAIN, "slow down");
	assert_all_fail("HTTP/1.1 429 Slow\r\n" XML "<Error><Code>Whatever</Code></Error>", -EAGAIN, "HTTP 429");
}

static void
test_clock_skew(void **state)
{
	char answer[512], date[64];
	time_t then = time(NULL) - 3600;
	struct tm tm;

	(void)state;
	(void)gmtime_r(&then, &tm);
	(void)strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	(void)snprintf(answer, sizeof(answer), "HTTP/1.1 403 Forbidden\r\nDate: %s\r\n" XML
	    "<Error><Code>RequestTimeTooSkewed</Code></Error>", date);
	assert_all_fail(answer, -EACCES, "seconds ahead of the server's");
}

/* ---- retries ---- */

static const char *
third_time_lucky(struct fake *f, unsigned n, const char *head)
{
	(void)f, (void)head;
	return n < 3 ? "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n" :
	    "HTTP/1.1 206 OK\r\nContent-Length: 5\r\nContent-Range: bytes 2-6/10\r\n\r\nhello";
}

static void
test_retries(void **state)
{
	struct fake f = { .answer = third_time_lucky };
	struct error err = {0};
	char text[16];

	(void)state;
	up(&f);
	assert_ok(get_bytes(2, 5, text, &err));
	assert_string_equal(text, "hello");
	assert_int_equal(f.requests, 3);
	assert_true(b->requests == 3);
	down();
}

static void
test_retries_end(void **state)
{
	struct fake f = { .always = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n" };
	struct error err;

	(void)state;
	up(&f);
	assert_fails(backend_remove(b, "k", &err), -EAGAIN, "HTTP 503");
	assert_int_equal(f.requests, 3);		/* 1 + retries */
	down();
}

static void
test_unreachable(void **state)
{
	struct fake f = {0};
	struct error err;

	(void)state;
	up(&f);
	fake_stop(&f);
	assert_fails(backend_stat(b, "k", NULL, &err), -EAGAIN, f.endpoint);
	assert_true(b->requests == 3);
	backend_free(b);
}

static void
test_hanging(void **state)
{
	struct fake f = {0};
	struct error err;
	int64_t begin = clock_mono_ns();

	(void)state;
	up(&f);					/* no progress for 1 s is enough, twice */
	assert_int_equal(get_bytes(0, 5, NULL, &err), -EAGAIN);
	assert_true(clock_mono_ns() - begin < 8 * NSEC_PER_SEC);
	assert_int_equal(f.requests, 2);
	down();
}

static bool
cancel_later(void *arg)
{
	return clock_mono_ns() > *(int64_t *)arg;
}

static void
test_cancel_while_hanging(void **state)
{
	struct fake f = {0};
	struct error err;
	int64_t begin = clock_mono_ns(), end = begin + NSEC_PER_SEC / 5;
	struct object_put put = { .size = 3, .cancelled = cancel_later, .cancelled_arg = &end };

	(void)state;
	up(&f);
	put.fd = memory_file("abc");
	/* All of it is on its way: what becomes of it isn't known. */
	assert_int_equal(backend_put(b, "k", &put, NULL, NULL, &err), -EINPROGRESS);
	assert_true(clock_mono_ns() - begin < 3 * NSEC_PER_SEC);
	(void)close(put.fd);
	down();
}

/* ---- answers that lie ---- */

static const char *
cut_then_whole(struct fake *f, unsigned n, const char *head)
{
	(void)f, (void)head;
	return n == 1 ? "HTTP/1.1 206 OK\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/5\r\n\r\nhel" :
	    "HTTP/1.1 206 OK\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/5\r\n\r\nHELLO";
}

static void
test_cut_answer(void **state)
{
	struct fake f = { .answer = cut_then_whole };
	struct error err = {0};
	char text[16];

	(void)state;
	up(&f);
	assert_ok(get_bytes(0, 5, text, &err));
	assert_string_equal(text, "HELLO");
	down();
	f = (struct fake){ .always = "HTTP/1.1 206 OK\r\nContent-Length: 5\r\n"
		"Content-Range: bytes 0-4/5\r\n\r\nhel" };
	up(&f);
	assert_int_equal(get_bytes(0, 5, text, &err), -EAGAIN);
	down();
}

static void
test_wrong_ranges(void **state)
{
	static const struct {
		const char *answer;
		int code;
	} cases[] = {
		{ "HTTP/1.1 206 OK\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/9\r\n\r\nhello", -EAGAIN },
		{ "HTTP/1.1 206 OK\r\nContent-Length: 5\r\n\r\nhello", -EAGAIN },
		{ "HTTP/1.1 206 OK\r\nContent-Length: 3\r\nContent-Range: bytes 2-4/5\r\n\r\nllo", -EIO },
		{ "HTTP/1.1 206 OK\r\nContent-Length: 9\r\nContent-Range: bytes 2-10/99\r\n\r\n123456789", -EAGAIN },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", -EIO },
		{ "HTTP/1.1 416 No\r\n" XML "<Error><Code>InvalidRange</Code></Error>", -EIO },
		{ "HTTP/1.1 404 No\r\n" XML "<Error><Code>NoSuchKey</Code></Error>", -ENOENT },
	};
	struct error err;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fake f = { .always = cases[i].answer };
		int r;

		up(&f);
		r = get_bytes(2, 5, NULL, &err);
		if (r != cases[i].code)
			fail_msg("case %zu: %d instead of %d: %s", i, r, cases[i].code, err.text);
		down();
	}
}

static void
test_damaged_on_the_way(void **state)
{
	struct fake f = { .always = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: \"x\"\r\nx-amz-checksum-sha256: "
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n" };
	struct error err;

	(void)state;
	up(&f);
	assert_fails(put_bytes(10, &err), -EIO, "damaged");
	down();
	/* Stored, they say, without a word of what; and then it isn't there as it was sent. */
	f = (struct fake){ .always = EMPTY_OK };
	up(&f);
	assert_fails(put_bytes(10, &err), -EAGAIN, "not what was stored");
	assert_int_equal(f.requests, 2);
	assert_null(strstr(f.first_head, SECRET));
	assert_non_null(strstr(f.first_head, "PUT /family/k HTTP/1.1\r\n"));
	down();
}

static void
test_changed_while_sent(void **state)
{
	struct fake f = { .always = "HTTP/1.1 400 Bad\r\n" XML
		"<Error><Code>XAmzContentSHA256Mismatch</Code></Error>" };
	struct error err;

	(void)state;
	up(&f);
	assert_fails(put_bytes(10, &err), -EAGAIN, "changed while");
	assert_int_equal(f.requests, 1);		/* the same bytes again would not help */
	down();
}

/* Repeats the checksum of the first PUT only. */
static const char *
forget_checksums(struct fake *f, unsigned n, const char *head)
{
	static char answer[256];
	const char *sum = strcasestr(head, "x-amz-checksum-sha256: ");

	(void)f;
	if (n == 3)			/* signed again: the server has said enough about the bytes */
		assert_null(strstr(head, "UNSIGNED-PAYLOAD"));
	if (n == 2)
		assert_non_null(strstr(head, "UNSIGNED-PAYLOAD"));
	if (n > 1 || sum == NULL)
		return EMPTY_OK;
	assert_null(strstr(head, "UNSIGNED-PAYLOAD"));
	(void)snprintf(answer, sizeof(answer), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%.67s\r\n\r\n", sum);
	return answer;
}

static void
test_unsigned_only_while_checked(void **state)
{
	struct fake f = { .answer = forget_checksums };
	struct error err = {0};

	(void)state;
	up(&f);
	assert_ok(put_bytes(10, &err));
	assert_fails(put_bytes(10, &err), -EAGAIN, "without its checksum");
	assert_fails(put_bytes(10, &err), -EAGAIN, "not what was stored");
	assert_int_equal(f.requests, 1 + 1 + 2);
	down();
}

/* S3 answers 200 to a copy and a complete before it knows: the error stands in the body. */
static const char *
error_in_a_200(struct fake *f, unsigned n, const char *head)
{
	(void)f;
	if (strncmp(head, "HEAD", 4) == 0)
		return "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: \"a\"\r\n\r\n";
	if (strstr(head, "?uploads=") != NULL)
		return "HTTP/1.1 200 OK\r\n" XML "<InitiateMultipartUploadResult><UploadId>u</UploadId>"
		    "</InitiateMultipartUploadResult>";
	if (strstr(head, "partNumber=") != NULL)
		return "HTTP/1.1 200 OK\r\nETag: \"p\"\r\nContent-Length: 0\r\n\r\n";
	if (strncmp(head, "DELETE", 6) == 0)
		return "HTTP/1.1 204 OK\r\n\r\n";
	/* A part came in after the first abort. */
	if (strncmp(head, "GET", 3) == 0 && n < 11)
		return "HTTP/1.1 200 OK\r\n" XML "<ListPartsResult><UploadId>u</UploadId></ListPartsResult>";
	if (strncmp(head, "GET", 3) == 0)
		return "HTTP/1.1 404 No\r\n" XML "<Error><Code>NoSuchUpload</Code></Error>";
	return "HTTP/1.1 200 OK\r\n" XML "<Error><Code>InternalError</Code><Message>sorry</Message></Error>";
}

static void
test_error_in_a_200(void **state)
{
	struct fake f = { .answer = error_in_a_200 };
	struct error err;

	(void)state;
	up(&f);
	assert_fails(backend_copy(b, "k", "l", NULL, &err), -EAGAIN, "InternalError");
	assert_int_equal(f.requests, 1 + 3);		/* HEAD, and three attempts */
	f.requests = 0;
	assert_fails(put_bytes(2500, &err), -EAGAIN, "InternalError");
	/* Begin, parts, three completes, and abort until it is gone. */
	assert_int_equal(f.requests, 1 + 3 + 3 + 2 + 2);
	down();
}

static void
test_bad_listings(void **state)
{
	static const char *const bad[] = {
		"",
		"<ListBucketResult><Contents><Key>a</Key></Contents>",
		"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
		"<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
		"<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>%zz</Key></Contents>"
		    "</ListBucketResult>",
		"<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><ListBucketResult><Contents>"
		    "<Key>&b;</Key></Contents></ListBucketResult>",
		"<a><a><a><a><a><a><a><a><a><a></a></a></a></a></a></a></a></a></a></a>",
	};
	struct error err;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char answer[600];
		struct fake f = { .always = answer };
		int r;

		(void)snprintf(answer, sizeof(answer), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s", bad[i]);
		up(&f);
		r = backend_list(b, "", NULL, NULL, &err);
		if (r != -EAGAIN)
			fail_msg("%s: %d", bad[i], r);
		down();
	}
}

const struct CMUnitTest *
s3_bad_tests(size_t *ret_count)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages_of_a_proxy),
		cmocka_unit_test(test_a_200_page),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_clock_skew),
		cmocka_unit_test(test_retries),
		cmocka_unit_test(test_retries_end),
		cmocka_unit_test(test_unreachable),
		cmocka_unit_test(test_hanging),
		cmocka_unit_test(test_cancel_while_hanging),
		cmocka_unit_test(test_cut_answer),
		cmocka_unit_test(test_wrong_ranges),
		cmocka_unit_test(test_damaged_on_the_way),
		cmocka_unit_test(test_changed_while_sent),
		cmocka_unit_test(test_unsigned_only_while_checked),
		cmocka_unit_test(test_error_in_a_200),
		cmocka_unit_test(test_bad_listings),
	};

	*ret_count = sizeof(tests) / sizeof(tests[0]);
	return tests;
}
