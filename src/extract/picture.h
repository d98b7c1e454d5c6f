/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_PICTURE_H
#define TBFS_EXTRACT_PICTURE_H

/* Decoded video frames as RGB. */
#include <stdbool.h>
#include <stdint.h>

#include <libavutil/frame.h>

/* How wide `width` pixels are shown whose width : height is `aspect`, in square pixels; as many
 * where that is a container's nonsense. */
double picture_square_width(int width, AVRational aspect);

/*
 * The frame in sRGB, 3 bytes a pixel without padding, not turned: square
 * pixels, fitted into side × side, never enlarged.  The caller frees
 * *ret_pixels (av_free).  0 or FFmpeg's error.
 */
int picture_convert(const AVFrame *frame, AVRational aspect, int side, uint8_t **ret_pixels,
    int *ret_width, int *ret_height);

/* The frame in `width` × `height` RGB, fast and rough, into ret (3 bytes a pixel). */
int picture_sketch(const AVFrame *frame, int width, int height, uint8_t *ret);

#endif
