/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Signature Version 4 against AWS's own vectors: the aws-sig-v4-test-suite
 * (service "service", 20150830T123600Z) and the examples of the S3 API reference
 * ("Signature Calculations for the Authorization Header" and "Authenticating
 * Requests: Using Query Parameters", 20130524T000000Z).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "backends/s3_sign.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define TOKEN "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfI" \
    "eoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSX" \
    "Dvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOL" \
    "n9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="

static const struct s3_identity suite = { .access_key = "AKIDEXAMPLE",
	.secret_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", .region = "us-east-1", .service = "service" };
static const struct s3_identity docs = { .access_key = "AKIAIOSFODNN7EXAMPLE",
	.secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", .region = "us-east-1", .service = "s3" };

enum { SUITE_TIME = 1440938160, DOCS_TIME = 1369353600 };

static void
assert_signature(const struct s3_identity *id, const struct s3_to_sign *what, time_t when,
    const char *signature)
{
	CLEANUP_STRBUF struct strbuf b = STRBUF_INIT;
	char *at;

	s3_sign_header(&b, id, what, when);
	assert_true(strbuf_ok(&b));
	at = strstr(b.data, "Signature=");
	assert_non_null(at);
	assert_string_equal(at + strlen("Signature="), signature);
}

static void
suite_case(const char *method, const char *path, const struct s3_pair *query, size_t n,
    const char *signature)
{
	static const struct s3_pair headers[] = {
		{ "x-amz-date", "20150830T123600Z" }, { "host", "example.amazonaws.com" } };
	struct s3_to_sign what = { .method = method, .path = path, .query = query, .query_count = n,
		.headers = headers, .header_count = 2, .payload_hash = EMPTY };

	assert_signature(&suite, &what, SUITE_TIME, signature);
}

static void
test_suite(void **state)
{
	static const struct s3_pair order[] = { { "Param2", "value2" }, { "Param1", "value1" } };
	static const struct s3_pair utf8[] = { { "ሴ", "bar" } };

	(void)state;
	suite_case("GET", "/", NULL, 0, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
	suite_case("POST", "/", NULL, 0, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
	suite_case("GET", "/ሴ", NULL, 0,
	    "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85");
	suite_case("GET", "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", NULL, 0,
	    "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f");
	suite_case("GET", "/", order, 2,
	    "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
	suite_case("GET", "/", utf8, 1,
	    "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04");
}

static void
test_suite_session_token(void **state)
{
	static const struct s3_pair headers[] = { { "x-amz-date", "20150830T123600Z" },
		{ "x-amz-security-token", TOKEN }, { "host", "example.amazonaws.com" } };
	struct s3_to_sign what = { .method = "POST", .path = "/", .headers = headers, .header_count = 3,
		.payload_hash = EMPTY };

	(void)state;
	assert_signature(&suite, &what, SUITE_TIME,
	    "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead");
}

static void
test_docs_get_object(void **state)
{
	static const struct s3_pair headers[] = { { "host", "examplebucket.s3.amazonaws.com" },
		{ "range", "bytes=0-9" }, { "x-amz-content-sha256", EMPTY }, { "x-amz-date", "20130524T000000Z" } };
	struct s3_to_sign what = { .method = "GET", .path = "/test.txt", .headers = headers,
		.header_count = 4, .payload_hash = EMPTY };
	CLEANUP_STRBUF struct strbuf b = STRBUF_INIT;

	(void)state;
	s3_sign_header(&b, &docs, &what, DOCS_TIME);
	assert_string_equal(b.data, "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/"
	    "aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature="
	    "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

static void
test_docs_put_object(void **state)
{
	static const char hash[] = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
	static const struct s3_pair headers[] = { { "x-amz-storage-class", "REDUCED_REDUNDANCY" },
		{ "host", "examplebucket.s3.amazonaws.com" }, { "date", "Fri, 24 May 2013 00:00:00 GMT" },
		{ "x-amz-content-sha256", hash }, { "x-amz-date", "20130524T000000Z" } };
	struct s3_to_sign what = { .method = "PUT", .path = "/test$file.text", .headers = headers,
		.header_count = 5, .payload_hash = hash };

	(void)state;
	assert_signature(&docs, &what, DOCS_TIME,
	    "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

static void
test_docs_queries(void **state)
{
	static const struct s3_pair headers[] = { { "host", "examplebucket.s3.amazonaws.com" },
		{ "x-amz-content-sha256", EMPTY }, { "x-amz-date", "20130524T000000Z" } };
	static const struct s3_pair lifecycle[] = { { "lifecycle", NULL } };
	static const struct s3_pair list[] = { { "prefix", "J" }, { "max-keys", "2" } };
	struct s3_to_sign what = { .method = "GET", .path = "/", .headers = headers, .header_count = 3,
		.query = lifecycle, .query_count = 1, .payload_hash = EMPTY };

	(void)state;
	assert_signature(&docs, &what, DOCS_TIME,
	    "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
	what.query = list;
	what.query_count = 2;
	assert_signature(&docs, &what, DOCS_TIME,
	    "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void
test_docs_presigned(void **state)
{
	static const struct s3_pair headers[] = { { "host", "examplebucket.s3.amazonaws.com" } };
	struct s3_to_sign what = { .method = "GET", .path = "/test.txt", .headers = headers,
		.header_count = 1, .payload_hash = S3_UNSIGNED_PAYLOAD };
	struct s3_identity with_token = docs;
	CLEANUP_STRBUF struct strbuf b = STRBUF_INIT;

	(void)state;
	s3_sign_query(&b, &docs, &what, DOCS_TIME, 86400);
	assert_string_equal(b.data, "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="
	    "AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&"
	    "X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature="
	    "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
	with_token.session_token = "a/b+c=";
	strbuf_reset(&b);
	s3_sign_query(&b, &with_token, &what, DOCS_TIME, 60);
	assert_non_null(strstr(b.data, "&X-Amz-Security-Token=a%2Fb%2Bc%3D&X-Amz-SignedHeaders=host&"));
}

static void
test_escape(void **state)
{
	CLEANUP_STRBUF struct strbuf b = STRBUF_INIT;

	(void)state;
	s3_escape(&b, "a/b c+d%é~", true);
	assert_string_equal(b.data, "a/b%20c%2Bd%25%C3%A9~");
	strbuf_reset(&b);
	s3_escape(&b, "a/*'", false);
	assert_string_equal(b.data, "a%2F%2A%27");
}

static void
test_header_values_are_trimmed(void **state)
{
	static const struct s3_pair loose[] = { { "host", "h" }, { "x-amz-meta-a", "  one   two " } };
	static const struct s3_pair tight[] = { { "host", "h" }, { "x-amz-meta-a", "one two" } };
	struct s3_to_sign what = { .method = "GET", .path = "/", .headers = loose, .header_count = 2,
		.payload_hash = EMPTY };
	CLEANUP_STRBUF struct strbuf a = STRBUF_INIT;
	CLEANUP_STRBUF struct strbuf b = STRBUF_INIT;

	(void)state;
	s3_sign_header(&a, &docs, &what, DOCS_TIME);
	what.headers = tight;
	s3_sign_header(&b, &docs, &what, DOCS_TIME);
	assert_string_equal(a.data, b.data);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_suite),
		cmocka_unit_test(test_suite_session_token),
		cmocka_unit_test(test_docs_get_object),
		cmocka_unit_test(test_docs_put_object),
		cmocka_unit_test(test_docs_queries),
		cmocka_unit_test(test_docs_presigned),
		cmocka_unit_test(test_escape),
		cmocka_unit_test(test_header_values_are_trimmed),
	};

	return cmocka_run_group_tests_name("sign", tests, NULL, NULL);
}
