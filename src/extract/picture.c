/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * From a decoder's frame to RGB.  The matrix and the range are taken from the
 * frame, because a wrong guess gives green faces; where the frame says
 * nothing, 720 lines and more are BT.709, fewer BT.601, as players do.
 */
#include "extract/picture.h"

#include "extract/tonemap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <libavutil/imgutils.h>
#include <libavutil/mem.h>
#include <libswscale/swscale.h>

static int
picture_matrix(const AVFrame *frame)
{
	switch (frame->colorspace) {
	case AVCOL_SPC_BT709:
		return SWS_CS_ITU709;
	case AVCOL_SPC_FCC:
		return SWS_CS_FCC;
	case AVCOL_SPC_BT470BG:
	case AVCOL_SPC_SMPTE170M:
		return SWS_CS_ITU601;
	case AVCOL_SPC_SMPTE240M:
		return SWS_CS_SMPTE240M;
	case AVCOL_SPC_BT2020_NCL:
	case AVCOL_SPC_BT2020_CL:
		return SWS_CS_BT2020;
	default:
		if (frame->color_primaries == AVCOL_PRI_BT2020)
			return SWS_CS_BT2020;
		return frame->height >= 720 ? SWS_CS_ITU709 : SWS_CS_ITU601;
	}
}

static bool
picture_full_range(const AVFrame *frame)
{
	return frame->color_range == AVCOL_RANGE_JPEG || frame->format == AV_PIX_FMT_YUVJ420P ||
	    frame->format == AV_PIX_FMT_YUVJ422P || frame->format == AV_PIX_FMT_YUVJ444P ||
	    frame->format == AV_PIX_FMT_YUVJ440P;
}

static struct SwsContext *
picture_scaler(const AVFrame *frame, int width, int height, enum AVPixelFormat format, int flags)
{
	struct SwsContext *s = sws_getContext(frame->width, frame->height,
	    (enum AVPixelFormat)frame->format, width, height, format, flags, NULL, NULL, NULL);

	/* Formats without a matrix (RGB, gray) refuse this, rightly. */
	if (s != NULL)
		(void)sws_setColorspaceDetails(s, sws_getCoefficients(picture_matrix(frame)),
		    picture_full_range(frame), sws_getCoefficients(SWS_CS_DEFAULT), 1, 0,
		    1 << 16, 1 << 16);
	return s;
}

static int
picture_scale(const AVFrame *frame, int width, int height, enum AVPixelFormat format, int flags,
    uint8_t *out, int stride)
{
	struct SwsContext *s = picture_scaler(frame, width, height, format, flags);
	uint8_t *planes[4] = { out };
	int strides[4] = { stride }, r;

	if (s == NULL)
		return AVERROR(ENOSYS);
	r = sws_scale(s, (const uint8_t *const *)frame->data, frame->linesize, 0, frame->height,
	    planes, strides);
	sws_freeContext(s);
	return r < 0 ? r : 0;
}

int
picture_sketch(const AVFrame *frame, int width, int height, uint8_t *ret)
{
	return picture_scale(frame, width, height, AV_PIX_FMT_RGB24, SWS_POINT | SWS_BITEXACT,
	    ret, 3 * width);
}

double
picture_square_width(int width, AVRational aspect)
{
	double a = aspect.num > 0 && aspect.den > 0 ? av_q2d(aspect) : 1;

	return a > 0.05 && a < 20 ? width * a : width;
}

/* As displayed, with square pixels, within side × side. */
static void
picture_fit(const AVFrame *frame, AVRational aspect, int side, int *ret_width, int *ret_height)
{
	double w = picture_square_width(frame->width, aspect), h = frame->height, most;

	most = w > h ? w : h;
	if (most > side) {
		w *= side / most;
		h *= side / most;
	}
	*ret_width = w < 1 ? 1 : (int)(w + 0.5);
	*ret_height = h < 1 ? 1 : (int)(h + 0.5);
}

int
picture_convert(const AVFrame *frame, AVRational aspect, int side, uint8_t **ret_pixels,
    int *ret_width, int *ret_height)
{
	struct tonemap from;
	bool wider = tonemap_needed(frame->color_primaries, frame->color_trc, &from);
	const int flags = SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_BITEXACT;
	int w, h, bytes, stride, y, r;
	uint8_t *wide, *pixels;

	picture_fit(frame, aspect, side, &w, &h);
	bytes = wider ? 6 : 3;
	/* Room after each line: the scaler writes whole vectors. */
	stride = (bytes * w + 63) / 64 * 64;
	wide = av_malloc((size_t)stride * (size_t)h + 64);
	pixels = av_malloc(3 * (size_t)w * (size_t)h);
	r = wide == NULL || pixels == NULL ? AVERROR(ENOMEM) : 0;
	if (r == 0)
		r = picture_scale(frame, w, h, wider ? AV_PIX_FMT_RGB48 : AV_PIX_FMT_RGB24, flags,
		    wide, stride);
	for (y = 0; r == 0 && y < h; y++) {
		const uint8_t *line = wide + (size_t)stride * (size_t)y;
		uint8_t *out = pixels + 3 * (size_t)w * (size_t)y;

		if (wider)
			tonemap(&from, (const uint16_t *)(const void *)line, (size_t)w, out);
		else
			memcpy(out, line, 3 * (size_t)w);
	}
	av_free(wide);
	if (r < 0) {
		av_free(pixels);
		return r;
	}
	*ret_pixels = pixels;
	*ret_width = w;
	*ret_height = h;
	return 0;
}
