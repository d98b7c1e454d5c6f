/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_TONEMAP_H
#define TBFS_EXTRACT_TONEMAP_H

/* HDR to what every screen shows. */
#include <stddef.h>
#include <stdint.h>

enum tonemap_curve { TONEMAP_PQ, TONEMAP_HLG };

/* `n` pixels of BT.2020 R'G'B', 16 bits a channel in host order → sRGB, 8 bits. */
void tonemap(enum tonemap_curve curve, const uint16_t *in, size_t n, uint8_t *ret);

#endif
