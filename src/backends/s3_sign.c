/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Signing, Signature Version 4.
 *
 * A request is written down in its canonical form (method, escaped path, sorted
 * query, sorted headers, payload hash), the hash of that is signed with a key
 * derived from the secret, the day, the region and the service.  S3 escapes the
 * path once and keeps its slashes.  libcurl 7.88's own signer is not used: it
 * signs unsorted queries, UTF-8 keys and several x-amz-meta- headers wrong.
 *
 * The secret leaves this file only as a signature.  No state, no locks.
 */
#include "backends/s3_sign.h"

#include "base/digest.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

enum { HEX_LEN = 2 * SHA256_LEN + 1 };

void
s3_escape(struct strbuf *b, const char *text, bool keep_slash)
{
	static const char digits[] = "0123456789ABCDEF";
	const char *p;

	for (p = text; *p != '\0'; p++) {
		unsigned char c = (unsigned char)*p;

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
		    c == '.' || c == '_' || c == '~' || (c == '/' && keep_slash)) {
			strbuf_addch(b, (char)c);
		} else {
			char hex[3] = { '%', digits[c >> 4], digits[c & 15] };

			strbuf_add(b, hex, sizeof(hex));
		}
	}
}

/* "name=value" by name, then by value: an '=' ends the name, so it sorts before all else. */
static int
compare_lines(const void *a, const void *b)
{
	const char *x = *(char *const *)a, *y = *(char *const *)b;

	while (*x == *y && *x != '\0')
		x++, y++;
	return (*x == '=' ? 1 : (unsigned char)*x) - (*y == '=' ? 1 : (unsigned char)*y);
}

void
s3_query(struct strbuf *b, const struct s3_pair *query, size_t count)
{
	struct strbuf line[S3_PAIRS_MAX] = {0};
	char *sorted[S3_PAIRS_MAX];
	size_t i, n = 0;

	for (i = 0; i < count && i < S3_PAIRS_MAX; i++) {
		s3_escape(&line[i], query[i].name, false);
		strbuf_addch(&line[i], '=');
		s3_escape(&line[i], query[i].value == NULL ? "" : query[i].value, false);
		if (strbuf_ok(&line[i]))
			sorted[n++] = line[i].data;
		else
			b->failed = true;
	}
	qsort(sorted, n, sizeof(sorted[0]), compare_lines);
	for (i = 0; i < n; i++) {
		if (i > 0)
			strbuf_addch(b, '&');
		strbuf_addstr(b, sorted[i]);
	}
	for (i = 0; i < S3_PAIRS_MAX; i++)
		strbuf_release(&line[i]);
}

void
s3_date(time_t when, char ret_date[S3_DATE_LEN])
{
	struct tm tm;

	(void)gmtime_r(&when, &tm);
	(void)strftime(ret_date, S3_DATE_LEN, "%Y%m%dT%H%M%SZ", &tm);
}

static int
compare_pairs(const void *a, const void *b)
{
	return strcmp(((const struct s3_pair *)a)->name, ((const struct s3_pair *)b)->name);
}

/* The headers' values trimmed, inner runs of blanks made one. */
static void
add_value(struct strbuf *b, const char *value)
{
	const char *p;
	bool blank = false, begun = false;

	for (p = value; *p != '\0'; p++) {
		if (*p == ' ' || *p == '\t') {
			blank = true;
			continue;
		}
		if (blank && begun)
			strbuf_addch(b, ' ');
		blank = false;
		begun = true;
		strbuf_addch(b, *p);
	}
}

static void
add_signed_names(struct strbuf *b, const struct s3_to_sign *what)
{
	struct s3_pair sorted[S3_PAIRS_MAX];
	size_t i;

	memcpy(sorted, what->headers, what->header_count * sizeof(sorted[0]));
	qsort(sorted, what->header_count, sizeof(sorted[0]), compare_pairs);
	for (i = 0; i < what->header_count; i++) {
		if (i > 0)
			strbuf_addch(b, ';');
		strbuf_addstr(b, sorted[i].name);
	}
}

static void
canonical_request(struct strbuf *b, const struct s3_to_sign *what, const char *query)
{
	struct s3_pair sorted[S3_PAIRS_MAX];
	size_t i;

	strbuf_addf(b, "%s\n", what->method);
	s3_escape(b, what->path, true);
	strbuf_addf(b, "\n%s\n", query);
	memcpy(sorted, what->headers, what->header_count * sizeof(sorted[0]));
	qsort(sorted, what->header_count, sizeof(sorted[0]), compare_pairs);
	for (i = 0; i < what->header_count; i++) {
		strbuf_addf(b, "%s:", sorted[i].name);
		add_value(b, sorted[i].value);
		strbuf_addch(b, '\n');
	}
	strbuf_addch(b, '\n');
	add_signed_names(b, what);
	strbuf_addf(b, "\n%s", what->payload_hash);
}

static void
scope(struct strbuf *b, const struct s3_identity *id, const char *date)
{
	strbuf_addf(b, "%.8s/%s/%s/aws4_request", date, id->region, id->service);
}

/* The signature of a request whose query string is already complete. */
static void
signature(const struct s3_identity *id, const struct s3_to_sign *what, const char *query,
    const char *date, char ret_hex[HEX_LEN])
{
	CLEANUP_STRBUF struct strbuf request = STRBUF_INIT;
	CLEANUP_STRBUF struct strbuf text = STRBUF_INIT;
	CLEANUP_STRBUF struct strbuf secret = STRBUF_INIT;
	uint8_t sum[SHA256_LEN], key[SHA256_LEN];
	char hex[HEX_LEN];

	canonical_request(&request, what, query);
	strbuf_addf(&text, "AWS4-HMAC-SHA256\n%s\n", date);
	scope(&text, id, date);
	strbuf_addf(&secret, "AWS4%s", id->secret_key);
	ret_hex[0] = '\0';
	if (!strbuf_ok(&request) || !strbuf_ok(&text) || !strbuf_ok(&secret))
		return;
	sha256(request.data, request.len, sum);
	hex_encode(sum, SHA256_LEN, hex);
	strbuf_addf(&text, "\n%s", hex);
	hmac_sha256(secret.data, secret.len, date, 8, key);
	hmac_sha256(key, SHA256_LEN, id->region, strlen(id->region), key);
	hmac_sha256(key, SHA256_LEN, id->service, strlen(id->service), key);
	hmac_sha256(key, SHA256_LEN, "aws4_request", strlen("aws4_request"), key);
	hmac_sha256(key, SHA256_LEN, text.data, text.len, sum);
	OPENSSL_cleanse(secret.data, secret.len);
	OPENSSL_cleanse(key, sizeof(key));
	if (strbuf_ok(&text))
		hex_encode(sum, SHA256_LEN, ret_hex);
}

void
s3_sign_header(struct strbuf *b, const struct s3_identity *id, const struct s3_to_sign *what,
    time_t when)
{
	CLEANUP_STRBUF struct strbuf query = STRBUF_INIT;
	char date[S3_DATE_LEN], hex[HEX_LEN];

	s3_date(when, date);
	strbuf_addstr(&query, "");
	s3_query(&query, what->query, what->query_count);
	if (!strbuf_ok(&query)) {
		b->failed = true;
		return;
	}
	signature(id, what, query.data, date, hex);
	strbuf_addf(b, "AWS4-HMAC-SHA256 Credential=%s/", id->access_key);
	scope(b, id, date);
	strbuf_addstr(b, ", SignedHeaders=");
	add_signed_names(b, what);
	strbuf_addf(b, ", Signature=%s", hex);
}

void
s3_sign_query(struct strbuf *b, const struct s3_identity *id, const struct s3_to_sign *what,
    time_t when, unsigned expires)
{
	CLEANUP_STRBUF struct strbuf credential = STRBUF_INIT;
	CLEANUP_STRBUF struct strbuf names = STRBUF_INIT;
	CLEANUP_STRBUF struct strbuf seconds = STRBUF_INIT;
	CLEANUP_STRBUF struct strbuf query = STRBUF_INIT;
	struct s3_pair pairs[S3_PAIRS_MAX];
	char date[S3_DATE_LEN], hex[HEX_LEN];
	size_t n = what->query_count;

	s3_date(when, date);
	strbuf_addf(&credential, "%s/", id->access_key);
	scope(&credential, id, date);
	add_signed_names(&names, what);
	strbuf_addf(&seconds, "%u", expires);
	if (!strbuf_ok(&credential) || !strbuf_ok(&names) || !strbuf_ok(&seconds) ||
	    n + 6 > S3_PAIRS_MAX) {
		b->failed = true;
		return;
	}
	if (n > 0)
		memcpy(pairs, what->query, n * sizeof(pairs[0]));
	pairs[n++] = (struct s3_pair){ "X-Amz-Algorithm", "AWS4-HMAC-SHA256" };
	pairs[n++] = (struct s3_pair){ "X-Amz-Credential", credential.data };
	pairs[n++] = (struct s3_pair){ "X-Amz-Date", date };
	pairs[n++] = (struct s3_pair){ "X-Amz-Expires", seconds.data };
	pairs[n++] = (struct s3_pair){ "X-Amz-SignedHeaders", names.data };
	if (id->session_token != NULL)
		pairs[n++] = (struct s3_pair){ "X-Amz-Security-Token", id->session_token };
	s3_query(&query, pairs, n);
	if (!strbuf_ok(&query)) {
		b->failed = true;
		return;
	}
	signature(id, what, query.data, date, hex);
	strbuf_addf(b, "%s&X-Amz-Signature=%s", query.data, hex);
}
