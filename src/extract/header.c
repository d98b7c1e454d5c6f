/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a still image says about itself, without a decoder.  A bomb is refused
 * by these numbers, and a truncated file still has its size and EXIF.
 *
 * Each walker moves forward only, by at least one byte a step, and looks at no
 * byte past the end.  No state, no threads.
 */
#include "extract/header.h"

#include "base/bytes.h"

#include <string.h>

/* ITU T.81: SOF0–15 without DHT, JPG and DAC. */
static bool
jpeg_is_sof(unsigned marker)
{
	return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 &&
	    marker != 0xcc;
}

static void
jpeg_segment(unsigned marker, const uint8_t *p, size_t n, struct header *h)
{
	if (jpeg_is_sof(marker) && n >= 6 && h->width == 0) {
		h->height = get_be16(p + 1);
		h->width = get_be16(p + 3);
		h->components = p[5];
		h->progressive = (marker & 3) == 2;
	} else if (marker == 0xe1 && h->exif == NULL && n > 6 && memcmp(p, "Exif\0", 5) == 0) {
		h->exif = p + 6;
		h->exif_len = n - 6;
	} else if (marker == 0xed && h->iptc == NULL && n > 14 &&
	    memcmp(p, "Photoshop 3.0", 14) == 0) {
		h->iptc = p + 14;
		h->iptc_len = n - 14;
	}
}

void
header_jpeg(const uint8_t *data, size_t len, struct header *ret)
{
	size_t i = 2;

	/* Where the scan's data ends is the decoder's to say. */
	*ret = (struct header){ .frames = 1, .ended = true, .whole = true };
	while (i + 4 <= len) {
		unsigned marker = data[i + 1];
		size_t n;

		if (data[i] != 0xff) {
			i++;			/* stray bytes: look for the next marker */
			continue;
		}
		if (marker == 0xff) {
			i++;
			continue;
		}
		if (marker == 0 || marker == 1 || (marker >= 0xd0 && marker <= 0xd8)) {
			i += 2;
			continue;
		}
		if (marker == 0xda || marker == 0xd9)
			return;
		n = get_be16(data + i + 2);
		if (n < 2 || n > len - i - 2)
			return;
		jpeg_segment(marker, data + i + 4, n - 2, ret);
		i += 2 + n;
	}
}

void
header_png(const uint8_t *data, size_t len, struct header *ret)
{
	size_t i = 8;

	*ret = (struct header){ .frames = 1 };
	while (len >= 12 && i <= len - 12) {
		uint32_t n = get_be32(data + i);
		const uint8_t *type = data + i + 4, *p = data + i + 8;

		if (memcmp(type, "IHDR", 4) == 0 && len - i - 8 >= 8) {
			ret->width = get_be32(p);
			ret->height = get_be32(p + 4);
		}
		if (n > len - i - 12)
			return;
		if (memcmp(type, "eXIf", 4) == 0) {
			ret->exif = p;
			ret->exif_len = n;
		}
		if (memcmp(type, "IEND", 4) == 0) {
			ret->ended = ret->whole = true;
			return;
		}
		i += 12 + (size_t)n;
	}
}

static void
webp_chunk(const uint8_t *type, const uint8_t *p, size_t n, struct header *h)
{
	if (memcmp(type, "VP8X", 4) == 0 && n >= 10) {
		h->width = (uint32_t)get_le(p + 4, 3) + 1;
		h->height = (uint32_t)get_le(p + 7, 3) + 1;
	} else if (memcmp(type, "VP8 ", 4) == 0 && n >= 10 && h->width == 0) {
		h->width = get_le16(p + 6) & 0x3fff;
		h->height = get_le16(p + 8) & 0x3fff;
	} else if (memcmp(type, "VP8L", 4) == 0 && n >= 5 && h->width == 0) {
		h->width = (get_le32(p + 1) & 0x3fff) + 1;
		h->height = (get_le32(p + 1) >> 14 & 0x3fff) + 1;
	} else if (memcmp(type, "ANMF", 4) == 0) {
		h->frames++;
	} else if (memcmp(type, "EXIF", 4) == 0 && h->exif == NULL) {
		h->exif = p;
		h->exif_len = n;
	}
}

void
header_webp(const uint8_t *data, size_t len, struct header *ret)
{
	size_t i = 12, riff = len >= 12 ? (size_t)get_le32(data + 4) + 8 : 0;
	/* What follows the container isn't its.  A writer that never came back leaves 0. */
	size_t end = riff > 12 && riff < len ? riff : len;

	*ret = (struct header){ .frames = 0 };
	while (end >= 8 && i <= end - 8) {
		uint32_t n = get_le32(data + i + 4);
		size_t here = end - i - 8;

		webp_chunk(data + i, data + i + 8, n < here ? n : here, ret);
		if (n > here)
			break;
		ret->whole = ret->whole || ret->frames > 0 ||
		    memcmp(data + i, "VP8", 3) == 0;
		i += 8 + (size_t)n + (n & 1);
	}
	/* Writers forget the last byte's padding. */
	ret->ended = i >= end && len >= 12 && riff <= len + 1;
	if (ret->frames == 0)
		ret->frames = 1;
}

/* Skip a chain of sub-blocks; false: the data ends first. */
static bool
gif_skip_blocks(const uint8_t *data, size_t len, size_t *i)
{
	while (*i < len) {
		size_t n = data[*i];

		*i += 1 + n;
		if (n == 0)
			return true;
	}
	return false;
}

void
header_gif(const uint8_t *data, size_t len, struct header *ret)
{
	size_t i = 13;

	*ret = (struct header){ .frames = 0 };
	if (len >= 13) {
		ret->width = get_le16(data + 6);
		ret->height = get_le16(data + 8);
		if ((data[10] & 0x80) != 0)
			i += 3u << ((data[10] & 7) + 1);
	}
	while (i < len && data[i] != 0x3b) {
		if (data[i] == 0x21) {
			i += 2;
		} else if (data[i] == 0x2c && i + 10 < len) {
			unsigned flags = data[i + 9];

			ret->frames++;
			i += 10;
			if ((flags & 0x80) != 0)
				i += 3u << ((flags & 7) + 1);
			i++;			/* LZW code size */
		} else {
			break;
		}
		if (!gif_skip_blocks(data, len, &i))
			break;
		ret->whole = ret->frames > 0;
	}
	ret->ended = i < len && data[i] == 0x3b;
	if (ret->frames == 0)
		ret->frames = 1;
}
