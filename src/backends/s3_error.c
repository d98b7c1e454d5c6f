/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a refusal by an S3 server means: one of backend.h's codes and a sentence
 * that names the server, the bucket and, where it helps, the key of the
 * configuration to change.
 *
 *   1. Only an answer in S3's own form is believed for good: a 404 or 403 page of
 *      some proxy is -EAGAIN, it says nothing about the object.
 *   2. What the server wrote goes into a sentence only as its short code and message,
 *      bounded: an S3 error may carry what was signed.
 */
#include "backends/s3_client.h"

#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SKEW_MAX = 15 * 60 };		/* seconds, S3's own bound */

static const struct {
	const char *code;
	int as;
	const char *advice;
} known[] = {
	{ "NoSuchKey", -ENOENT, "there is no such object" },
	{ "NoSuchVersion", -ENOENT, "there is no such object" },
	{ "NoSuchUpload", -ENOENT, "there is no such multipart upload" },
	{ "NoSuchBucket", -ENODEV, "the bucket does not exist: check s3.bucket, or set create_bucket=yes" },
	{ "InvalidAccessKeyId", -EACCES, "the access key is not known there: check s3.access_key" },
	{ "XAdminUserNotFound", -EACCES, "the access key is not known there: check s3.access_key" },
	{ "SignatureDoesNotMatch", -EACCES, "the secret does not belong to the access key: check s3.secret_key" },
	{ "InvalidToken", -EACCES, "the session token is not valid: check s3.session_token" },
	{ "ExpiredToken", -EACCES, "the session token has expired: renew s3.session_token" },
	{ "AccessDenied", -EACCES, "these credentials may not do that: check the policy of s3.access_key" },
	{ "AccountProblem", -EACCES, "the account has a problem" },
	{ "AllAccessDisabled", -EACCES, "all access is disabled" },
	{ "PreconditionFailed", -EEXIST, "there is an object already" },
	{ "InvalidRange", -EIO, "the object ends before the range that was asked for" },
	{ "BadDigest", -EAGAIN, "the bytes changed on their way" },
	{ "XAmzContentSHA256Mismatch", -EAGAIN, "the bytes changed on their way" },
	{ "XAmzContentChecksumMismatch", -EAGAIN, "the bytes changed on their way" },
	{ "IncompleteBody", -EAGAIN, "the body was cut" },
	{ "RequestTimeout", -EAGAIN, "the server waited too long for the body" },
	{ "OperationAborted", -EAGAIN, "another operation on it is going on" },
	{ "ConditionalRequestConflict", -EAGAIN, "another operation on it is going on" },
	/* versitygw, also when it prunes that directory at this moment; core never asks for a real one. */
	{ "ExistingObjectIsDirectory", -EAGAIN, "a directory lies, or lay, where the object belongs" },
	{ "SlowDown", -EAGAIN, "the server asks to slow down" },
	{ "XMinioStorageFull", -ENOSPC, "the store is full" },
	{ "XMinioAdminBucketQuotaExceeded", -ENOSPC, "the bucket's quota is used up" },
	{ "QuotaExceeded", -ENOSPC, "the quota is used up" },
	{ "InsufficientStorage", -ENOSPC, "the store is full" },
	{ "EntityTooLarge", -EINVAL, "the object is larger than the store takes" },
	{ "KeyTooLongError", -EINVAL, "the key is longer than the store takes" },
	{ "NotImplemented", -ENOTSUP, "this server can't do that" },
};

static int
say(const struct s3 *s, int code, const char *method, const char *key, const char *what,
    const struct s3_xml_error *e, struct error *err)
{
	bool server = e->code[0] != '\0';

	return error_set(err, code, "%s at %s, bucket %s: %s%s%.160s: %s%s%s%s%s%s", s->name, s->endpoint,
	    s->bucket, method, key != NULL ? " " : "", key != NULL ? key : "", what, server ? " (" : "",
	    e->code, e->message[0] != '\0' ? ": " : "", e->message, server ? ")" : "");
}

/* The server's clock minus ours in seconds, 0 where it can't be told. */
static long long
skew(const struct s3_http_reply *http)
{
	char date[64];
	int64_t ns;

	if (!s3_http_header(http, "date", date, sizeof(date)))
		return 0;
	ns = s3_time(date);
	return ns == INT64_MIN ? 0 : (long long)((ns - clock_wall_ns()) / NSEC_PER_SEC);
}

static bool
is_skewed(const struct s3_http_reply *http, const struct s3_xml_error *e)
{
	long long by = skew(http);

	if (strcmp(e->code, "RequestTimeTooSkewed") == 0)
		return true;
	return http->status == 403 && (by > SKEW_MAX || by < -SKEW_MAX);
}

static int
explain_skew(const struct s3 *s, const struct s3_http_reply *http, const struct s3_xml_error *e,
    const char *method, const char *key, struct error *err)
{
	long long by = skew(http);
	char what[160];

	if (by == 0)
		(void)snprintf(what, sizeof(what), "this machine's clock and the server's differ by more than "
		    "15 minutes: set the clock");
	else
		(void)snprintf(what, sizeof(what), "this machine's clock is %lld seconds %s the server's: set the "
		    "clock", llabs(by), by > 0 ? "behind" : "ahead of");
	return say(s, -EACCES, method, key, what, e, err);
}

/* 301, 307 and AuthorizationHeaderMalformed: the bucket lives elsewhere. */
static int
explain_region(const struct s3 *s, const struct s3_http_reply *http, const struct s3_xml_error *e,
    const char *method, const char *key, struct error *err)
{
	char region[64], what[256];

	if (!s3_http_header(http, "x-amz-bucket-region", region, sizeof(region)))
		(void)snprintf(region, sizeof(region), "%s", e->region);
	if (region[0] != '\0')
		(void)snprintf(what, sizeof(what), "the bucket is in region %s, not %s: set s3.region=%s (and "
		    "s3.endpoint, if it names a region)", region, s->region, region);
	else
		(void)snprintf(what, sizeof(what), "the server sends us elsewhere (HTTP %ld): check s3.endpoint "
		    "and s3.region", http->status);
	return say(s, -EACCES, method, key, what, e, err);
}

static bool
is_elsewhere(const struct s3_http_reply *http, const struct s3_xml_error *e)
{
	return http->status / 100 == 3 || strcmp(e->code, "AuthorizationHeaderMalformed") == 0 ||
	    strcmp(e->code, "PermanentRedirect") == 0 ||
	    strcmp(e->code, "IllegalLocationConstraintException") == 0;
}

int
s3_explain(const struct s3 *s, const struct s3_http_reply *http, const struct s3_xml_error *e,
    const char *method, const char *key, struct error *err)
{
	char what[128];
	size_t i;

	if (is_elsewhere(http, e) && http->status != 304)
		return explain_region(s, http, e, method, key, err);
	if (is_skewed(http, e))
		return explain_skew(s, http, e, method, key, err);
	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(e->code, known[i].code) == 0)
			return say(s, known[i].as, method, key, known[i].advice, e, err);
	if (http->status == 507)
		return say(s, -ENOSPC, method, key, "the store is full", e, err);
	(void)snprintf(what, sizeof(what), "HTTP %ld%s", http->status, http->status == 503 ||
	    http->status == 429 ? ", the server asks to slow down" : "");
	if (http->status >= 500 || http->status == 429 || http->status / 100 == 2)
		return say(s, -EAGAIN, method, key, what, e, err);
	/* A HEAD has no body to tell an S3 server by: its caller asks further. */
	if (strcmp(method, "HEAD") == 0 && http->status == 404)
		return say(s, -ENOENT, method, key, "there is no such object", e, err);
	if (strcmp(method, "HEAD") == 0 && http->status == 412)
		return say(s, -EEXIST, method, key, what, e, err);
	if (e->code[0] == '\0') {			/* invariant 1 */
		(void)snprintf(what, sizeof(what), "HTTP %ld without an S3 error: check that s3.endpoint is an "
		    "S3 server", http->status);
		return say(s, -EAGAIN, method, key, what, e, err);
	}
	return say(s, http->status == 401 || http->status == 403 ? -EACCES : -EINVAL, method, key, what, e,
	    err);
}
