/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_TONEMAP_H
#define TBFS_EXTRACT_TONEMAP_H

/* HDR and wide colours to what every screen shows. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tonemap_curve { TONEMAP_SDR, TONEMAP_PQ, TONEMAP_HLG };
enum tonemap_primaries { TONEMAP_BT709, TONEMAP_BT2020, TONEMAP_P3 };

struct tonemap {
	enum tonemap_curve curve;
	enum tonemap_primaries primaries;
};

/* By ITU-T H.273's code points (FFmpeg's are the same).  False: as good as sRGB, there is
 * nothing to do. */
bool tonemap_needed(unsigned primaries, unsigned transfer, struct tonemap *ret);

/* `n` pixels of R'G'B', 16 bits a channel in host order → sRGB, 8 bits. */
void tonemap(const struct tonemap *from, const uint16_t *in, size_t n, uint8_t *ret);

#endif
