/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_EXIF_H
#define TBFS_EXTRACT_EXIF_H

/* EXIF (CIPA DC-008, TIFF 6.0) and the date of IPTC-IIM. */
#include "extract/meta.h"

#include <stddef.h>

/* What a TIFF structure says of its picture. */
struct exif_picture {
	uint32_t width, height;		/* as stored; 0: unknown */
	bool raw;			/* a camera's raw file: the first page is but a preview */
	bool dng;
};

/*
 * Read camera, date, position and orientation out of a TIFF structure of
 * `len` bytes: an EXIF block (with or without its "Exif\0\0") or a whole TIFF
 * file.  `text_bytes` bounds each text.  What is damaged is absent.  Returns
 * false if this is no TIFF structure at all (BigTIFF is none).  ret may be NULL.
 */
bool exif_read(const uint8_t *data, size_t len, uint32_t text_bytes, struct meta *m,
    struct exif_picture *ret);

/* Photoshop's image resources (the APP13 segment after its name): IPTC's date, if the file
 * has no better one. */
void exif_read_iptc(const uint8_t *data, size_t len, struct meta *m);

#endif
