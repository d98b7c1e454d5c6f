/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_THUMB_H
#define TBFS_EXTRACT_THUMB_H

/* The three thumbnails of a picture.  Only image.c, poster.c and thumb.c know libvips. */
#include "extract/job.h"
#include "extract/tonemap.h"

#include <vips/vips.h>

/*
 * Bring a decoded picture to the largest size, turn it upright by an EXIF
 * orientation, convert it to 8-bit sRGB (`from` tells what it is, NULL: its
 * profile does), and send all sizes.  The pixels are
 * asked for here: a lazy decoder's errors show up in this call.  0 or -1 with
 * vips' error buffer set; then no thumbnail has been sent.  A picture that is
 * known to be damaged has its error noted; one that isn't complete has no
 * thumbnails then.
 */
int thumb_send_all(struct job *j, VipsImage *picture, const struct tonemap *from,
    unsigned orientation);

/* Note vips' error as the file's and empty the buffer. */
void thumb_fail(struct job *j, enum extract_stage stage);

#endif
