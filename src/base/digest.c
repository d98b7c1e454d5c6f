/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/digest.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

struct digest {
	EVP_MD_CTX *ctx;
};

struct digest *
digest_new(void)
{
	struct digest *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return NULL;
	d->ctx = EVP_MD_CTX_new();
	if (d->ctx == NULL || EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL) != 1) {
		digest_free(d);
		return NULL;
	}
	return d;
}

void
digest_free(struct digest *d)
{
	if (d == NULL)
		return;
	EVP_MD_CTX_free(d->ctx);
	free(d);
}

void
digest_update(struct digest *d, const void *data, size_t len)
{
	(void)EVP_DigestUpdate(d->ctx, data, len);
}

void
digest_final(struct digest *d, uint8_t ret_sum[SHA256_LEN])
{
	(void)EVP_DigestFinal_ex(d->ctx, ret_sum, NULL);
	(void)EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL);
}

void
sha256(const void *data, size_t len, uint8_t ret_sum[SHA256_LEN])
{
	(void)EVP_Digest(data, len, ret_sum, NULL, EVP_sha256(), NULL);
}

int
sha256_fd(int fd, uint64_t off, uint64_t len, uint8_t ret_sum[SHA256_LEN])
{
	enum { CHUNK = 256 * 1024 };
	CLEANUP_FREE char *buf = malloc(CHUNK);
	struct digest *d = digest_new();
	int r = 0;

	if (buf == NULL || d == NULL)
		r = -ENOMEM;
	while (r == 0 && len > 0) {
		size_t want = len < CHUNK ? (size_t)len : CHUNK;
		ssize_t n = pread_full(fd, buf, want, off);

		if (n < 0) {
			r = (int)n;
		} else if ((size_t)n < want) {
			r = -EIO;
		} else {
			digest_update(d, buf, (size_t)n);
			off += (uint64_t)n;
			len -= (uint64_t)n;
		}
	}
	if (r == 0)
		digest_final(d, ret_sum);
	digest_free(d);
	return r;
}

void
hmac_sha256(const void *key, size_t key_len, const void *data, size_t len,
    uint8_t ret_sum[SHA256_LEN])
{
	(void)HMAC(EVP_sha256(), key, (int)key_len, data, len, ret_sum, NULL);
}

void
hex_encode(const void *data, size_t len, char *ret_text)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *p = data;
	size_t i;

	for (i = 0; i < len; i++) {
		*ret_text++ = digits[p[i] >> 4];
		*ret_text++ = digits[p[i] & 15];
	}
	*ret_text = '\0';
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -EINVAL;
}

int
hex_decode(const char *text, void *ret_data, size_t len)
{
	uint8_t *out = ret_data;
	size_t i;

	if (strlen(text) != 2 * len)
		return -EINVAL;
	for (i = 0; i < len; i++) {
		int hi = hex_digit(text[2 * i]), lo = hex_digit(text[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return -EINVAL;
		out[i] = (uint8_t)(hi << 4 | lo);
	}
	return 0;
}
