/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BASE_DIGEST_H
#define TBFS_BASE_DIGEST_H

/* SHA-256 (FIPS 180-4) over OpenSSL's EVP: the checksum of everything tbfs stores. */
#include <stddef.h>
#include <stdint.h>

#define SHA256_LEN 32

struct digest;			/* one running hash; one thread at a time */

struct digest *digest_new(void);	/* NULL: out of memory */
void digest_free(struct digest *d);
void digest_update(struct digest *d, const void *data, size_t len);
void digest_final(struct digest *d, uint8_t ret_sum[SHA256_LEN]);	/* then ready for the next */

/* Bytes in one go. */
void sha256(const void *data, size_t len, uint8_t ret_sum[SHA256_LEN]);

/* [off, off+len) of fd by pread; -EIO when the file ends early. */
int sha256_fd(int fd, uint64_t off, uint64_t len, uint8_t ret_sum[SHA256_LEN]);

/* HMAC-SHA256 (RFC 2104). */
void hmac_sha256(const void *key, size_t key_len, const void *data, size_t len,
    uint8_t ret_sum[SHA256_LEN]);

/* Lower-case hex and a NUL: ret_text holds 2 * len + 1. */
void hex_encode(const void *data, size_t len, char *ret_text);
/* Exactly 2 * len hex digits; -EINVAL otherwise. */
int hex_decode(const char *text, void *ret_data, size_t len);

#endif
