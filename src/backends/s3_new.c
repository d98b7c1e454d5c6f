/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Making an S3 backend from its options.
 *
 *   1. What can't work is refused here, with the option's name; no request is sent.
 *   2. Unencrypted http goes to loopback and private addresses only, unless told
 *      otherwise: literal addresses are refused here, names when they are connected
 *      to (s3_http.c).
 *   3. Afterwards nothing of struct s3 changes but counters and the pool of connections.
 */
#include "backends/s3.h"

#include "backends/s3_client.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#define GIB ((uint64_t)1 << 30)

enum { MIB = 1 << 20, TIMEOUT = 30, RETRIES = 4, PART_WORKERS = 4 };

static void
forget(char *secret)
{
	if (secret != NULL)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

void
s3_free(struct backend *b)
{
	struct s3 *s = (struct s3 *)b;

	s3_http_free(s->http);
	free(s->name);
	free(s->endpoint);
	free(s->base);
	free(s->host);
	free(s->bucket);
	free(s->region);
	free(s->access_key);
	free(s->prefix);
	forget(s->secret_key);
	forget(s->session_token);
	free(s);
}

static bool
is_set(const char *text)
{
	return text != NULL && text[0] != '\0';
}

static bool
bucket_name_ok(const char *name)
{
	size_t len = strlen(name), i;

	for (i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && strchr(".-_", name[i]) == NULL)
			return false;
	return len >= 3 && len <= 63 && name[0] != '.' && name[len - 1] != '.' && strstr(name, "..") == NULL;
}

/* A prefix that is set is a key of its own kind, and leaves room for keys. */
static int
check_options(const struct s3_options *opt, struct error *err)
{
	if (!is_set(opt->bucket) || !bucket_name_ok(opt->bucket))
		return error_set(err, -EINVAL, "s3.bucket \"%.80s\" is no bucket's name (3 to 63 letters, digits, "
		    "dots, hyphens)", is_set(opt->bucket) ? opt->bucket : "");
	if (!is_set(opt->access_key) || !is_set(opt->secret_key))
		return error_set(err, -EINVAL, "s3.access_key and s3.secret_key must both be set");
	if (strpbrk(opt->access_key, "\r\n \t") != NULL || (is_set(opt->session_token) &&
	    strpbrk(opt->session_token, "\r\n \t") != NULL))
		return error_set(err, -EINVAL, "s3.access_key and s3.session_token have no blanks in them");
	if (is_set(opt->region) && strpbrk(opt->region, "/ <>&\r\n\t") != NULL)
		return error_set(err, -EINVAL, "s3.region \"%.80s\" is no region's name", opt->region);
	if (is_set(opt->prefix) && (!backend_key_ok(opt->prefix) || strlen(opt->prefix) > 512))
		return error_set(err, -EINVAL, "s3.prefix \"%.80s\" must be a path without slashes at its ends, of at "
		    "most 512 bytes", opt->prefix);
	return 0;
}

/* Take the endpoint apart: scheme and host[:port], nothing else. */
static int
set_endpoint(struct s3 *s, const char *endpoint, bool allow_plaintext, struct error *err)
{
	char *scheme = NULL, *host = NULL, *port = NULL, *path = NULL, *user = NULL, *query = NULL;
	CURLU *u = curl_url();
	bool ok, plain, virtual;
	int r = 0;

	ok = u != NULL && curl_url_set(u, CURLUPART_URL, endpoint, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
	    (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);
	(void)(u != NULL && curl_url_get(u, CURLUPART_PORT, &port, CURLU_NO_DEFAULT_PORT));
	(void)(u != NULL && curl_url_get(u, CURLUPART_PATH, &path, 0));
	(void)(u != NULL && curl_url_get(u, CURLUPART_USER, &user, 0));
	(void)(u != NULL && curl_url_get(u, CURLUPART_QUERY, &query, 0));
	plain = ok && strcmp(scheme, "http") == 0;
	/* A certificate's wildcard covers one label: buckets with dots go into the path. */
	s->is_aws = ok && strstr(host, ".amazonaws.com") != NULL;
	virtual = !s->path_style && (plain || strchr(s->bucket, '.') == NULL);
	s->path_style = !virtual;
	if (!ok || user != NULL || query != NULL || (path != NULL && strcmp(path, "/") != 0))
		/* Not repeated in the message: someone may have put credentials there. */
		r = error_set(err, -EINVAL, "s3.endpoint must be http://host[:port] or https://host[:port], without "
		    "user, path or query");
	else if (plain && !allow_plaintext && s3_http_address_private(host) == 0)
		r = error_set(err, -EINVAL, "s3.endpoint http://%.100s is neither loopback nor private: use https, "
		    "or set s3.allow_plaintext=yes", host);
	else if (asprintf(&s->endpoint, "%s://%s%s%s", scheme, host, port ? ":" : "", port ? port : "") < 0 ||
	    asprintf(&s->host, "%s%s%s%s%s", virtual ? s->bucket : "", virtual ? "." : "", host,
	    port ? ":" : "", port ? port : "") < 0 ||
	    asprintf(&s->base, "%s://%s", scheme, s->host) < 0)
		r = error_set(err, -EAGAIN, "out of memory");
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_free(path);
	curl_free(user);
	curl_free(query);
	curl_url_cleanup(u);
	return r;
}

static int
set_options(struct s3 *s, const struct s3_options *opt, struct error *err)
{
	struct s3_http_options http = { .ca_file = is_set(opt->ca_file) ? opt->ca_file : NULL,
		.plain_private_only = !opt->allow_plaintext };
	char amazon[160];
	int r;

	s->name = strdup(is_set(opt->name) ? opt->name : "s3");
	s->bucket = strdup(opt->bucket);
	s->region = strdup(is_set(opt->region) ? opt->region : "us-east-1");
	s->access_key = strdup(opt->access_key);
	s->secret_key = strdup(opt->secret_key);
	s->session_token = is_set(opt->session_token) ? strdup(opt->session_token) : NULL;
	s->prefix = strdup(is_set(opt->prefix) ? opt->prefix : "");
	s->path_style = opt->path_style;
	s->create_bucket = opt->create_bucket;
	s->timeout = opt->timeout > 0 ? opt->timeout : TIMEOUT;
	s->retries = opt->retries > 0 ? opt->retries : RETRIES;
	s->part_workers = opt->part_workers > 0 ? opt->part_workers : PART_WORKERS;
	s->part_size = 16 * MIB;
	s->copy_limit = 5 * GIB;
	if (!s->name || !s->bucket || !s->region || !s->access_key || !s->secret_key || !s->prefix)
		return error_set(err, -EAGAIN, "out of memory");
	(void)snprintf(amazon, sizeof(amazon), "https://s3.%.100s.amazonaws.com", s->region);
	r = set_endpoint(s, is_set(opt->endpoint) ? opt->endpoint : amazon, opt->allow_plaintext, err);
	http.timeout = s->timeout;
	return r < 0 ? r : s3_http_new(&http, &s->http, err);
}

int
s3_backend_new(const struct s3_options *opt, struct backend **ret_b, struct error *err)
{
	struct s3 *s;
	int r = check_options(opt, err);

	if (r < 0)
		return r;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return error_set(err, -EAGAIN, "out of memory");
	s->b.ops = is_set(opt->name) && strcmp(opt->name, "minio") == 0 ? &minio_ops : &s3_ops;
	r = set_options(s, opt, err);
	if (r < 0) {
		s3_free(&s->b);
		return r;
	}
	*ret_b = &s->b;
	return 0;
}
