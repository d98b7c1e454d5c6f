/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BASE_BYTES_H
#define TBFS_BASE_BYTES_H

/* Numbers in files, big- and little-endian, of 1 to 8 bytes.  The caller has seen that they
 * are there. */
#include <stdint.h>

static inline uint64_t
get_be(const uint8_t *p, unsigned bytes)
{
	uint64_t n = 0;

	while (bytes-- > 0)
		n = n << 8 | *p++;
	return n;
}

static inline uint64_t
get_le(const uint8_t *p, unsigned bytes)
{
	uint64_t n = 0;

	while (bytes-- > 0)
		n = n << 8 | p[bytes];
	return n;
}

static inline uint32_t
get_be16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t
get_be32(const uint8_t *p)
{
	return get_be16(p) << 16 | get_be16(p + 2);
}

static inline uint32_t
get_le16(const uint8_t *p)
{
	return (uint32_t)p[1] << 8 | p[0];
}

static inline uint32_t
get_le32(const uint8_t *p)
{
	return get_le16(p + 2) << 16 | get_le16(p);
}

#endif
