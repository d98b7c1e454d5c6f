/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_HEADER_H
#define TBFS_EXTRACT_HEADER_H

/* Headers of still images, read before any decoder sees the file. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct header {
	uint32_t width, height;		/* as stored; 0: unknown */
	uint32_t frames;		/* 1 unless it is an animation */
	unsigned components;		/* JPEG */
	bool progressive;		/* JPEG: decoded whole, however small the result */
	bool ended;			/* all the data is there that the format announces */
	bool whole;			/* … or at least the first frame's */
	const uint8_t *exif;		/* into the data given; NULL: none */
	size_t exif_len;
	const uint8_t *iptc;
	size_t iptc_len;
};

/* Each fills what it finds, up to where the data is damaged. */
void header_jpeg(const uint8_t *data, size_t len, struct header *ret);
void header_png(const uint8_t *data, size_t len, struct header *ret);
void header_webp(const uint8_t *data, size_t len, struct header *ret);
void header_gif(const uint8_t *data, size_t len, struct header *ret);

#endif
