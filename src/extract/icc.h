/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_ICC_H
#define TBFS_EXTRACT_ICC_H

/* ICC profiles (ICC.1), as far as a thumbnail needs to know them. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Does the profile mean sRGB, so that there is nothing to convert? */
bool icc_is_srgb(const uint8_t *profile, size_t len);

#endif
