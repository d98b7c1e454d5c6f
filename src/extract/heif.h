/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_HEIF_H
#define TBFS_EXTRACT_HEIF_H

/* What a HEIF or AVIF file says of its primary picture's colours. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The code points (ITU-T H.273) of the `nclx` colour box that belongs to the
 * primary item.  False: it has none, or an ICC profile, which goes before.
 */
bool heif_colour(const uint8_t *data, size_t len, unsigned *ret_primaries,
    unsigned *ret_transfer);

#endif
