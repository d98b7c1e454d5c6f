/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The contract of s3_backend_new: what can't work is refused by name, before any request. */
#include "rig.h"

#include "backends/s3_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECRET "sEcReTsEcReTsEcReTsEcReT"

static struct backend *b;

static void
refused(const struct s3_options *change, const char *part)
{
	struct s3_options opt = *change;
	struct error err;

	if (opt.bucket == NULL)
		opt.bucket = "family";
	if (opt.access_key == NULL)
		opt.access_key = "AKID";
	opt.secret_key = SECRET;
	assert_fails(s3_backend_new(&opt, &b, &err), -EINVAL, part);
	assert_null(strstr(err.text, SECRET));
}

static void
test_options(void **state)
{
	struct s3_options opt = { .bucket = "family", .access_key = "AKID", .secret_key = SECRET };
	struct error err = {0};
	char *url;

	(void)state;
	refused(&(struct s3_options){ .bucket = "a/b" }, "s3.bucket");
	refused(&(struct s3_options){ .bucket = "" }, "s3.bucket");
	refused(&(struct s3_options){ .access_key = "" }, "s3.access_key");
	refused(&(struct s3_options){ .prefix = "/x" }, "s3.prefix");
	refused(&(struct s3_options){ .endpoint = "ftp://x" }, "s3.endpoint");
	refused(&(struct s3_options){ .endpoint = "minio:9000" }, "s3.endpoint");
	refused(&(struct s3_options){ .endpoint = "http://u:" SECRET "@127.0.0.1" }, "s3.endpoint");
	refused(&(struct s3_options){ .endpoint = "http://127.0.0.1/path" }, "s3.endpoint");
	refused(&(struct s3_options){ .endpoint = "https://x", .ca_file = "/nonexistent" }, "s3.ca_file");
	/* Unencrypted beyond the private network, however the address is written. */
	refused(&(struct s3_options){ .endpoint = "http://8.8.8.8:9000" }, "s3.allow_plaintext");
	refused(&(struct s3_options){ .endpoint = "http://134744072" }, "s3.allow_plaintext");
	refused(&(struct s3_options){ .endpoint = "http://[2001:db8::1]:9000" }, "s3.allow_plaintext");
	refused(&(struct s3_options){ .endpoint = "http://172.32.0.1" }, "s3.allow_plaintext");
	opt.endpoint = "http://8.8.8.8";
	opt.allow_plaintext = true;
	assert_ok(s3_backend_new(&opt, &b, &err));
	backend_free(b);
	assert_int_equal(s3_http_address_private("172.31.255.255"), 1);
	assert_int_equal(s3_http_address_private("[::1]"), 1);
	assert_int_equal(s3_http_address_private("[fd00::1]"), 1);
	assert_int_equal(s3_http_address_private("[::ffff:8.8.8.8]"), 0);
	assert_int_equal(s3_http_address_private("minio"), -EINVAL);
	/* What is left unset. */
	opt.endpoint = NULL;
	opt.region = "eu-west-1";
	assert_ok(s3_backend_new(&opt, &b, &err));
	assert_ok(backend_get_url(b, "a b", 60, &url, &err));
	assert_int_equal(strncmp(url, "https://family.s3.eu-west-1.amazonaws.com/a%20b?X-Amz-", 54), 0);
	assert_null(strstr(url, SECRET));
	free(url);
	backend_free(b);
}

const struct CMUnitTest *
s3_options_tests(size_t *ret_count)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options),
	};

	*ret_count = sizeof(tests) / sizeof(tests[0]);
	return tests;
}
