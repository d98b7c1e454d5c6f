/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_SHRINK_H
#define TBFS_EXTRACT_SHRINK_H

/* Make a picture smaller. */
#include <stdint.h>

struct shrink_size {
	int width, height;
};

/* `from` fitted into side × side, never enlarged, at least one pixel. */
struct shrink_size shrink_fit(struct shrink_size from, int side);

/*
 * Bicubic, 8 bits a channel, `bands` channels without alpha interleaved
 * (1–4), no padding.  `to` isn't larger than `from` in any direction.  The
 * caller frees the result; NULL: out of memory.
 */
uint8_t *shrink(const uint8_t *in, struct shrink_size from, int bands, struct shrink_size to);

#endif
