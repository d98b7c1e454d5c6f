/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Thumbnails: one decode, the largest first, each smaller one from the larger.
 *
 *  1. All sizes are encoded before the first is sent: a file has all or none.
 *  2. Nothing of the original's metadata is written: the encoders get an image
 *     made anew from the bare pixels, sRGB by then.  libvips 8.14 writes an EXIF
 *     block of its own into WebP even when told to strip: it is cut out.
 *  3. Equal input gives equal bytes: no dates, no thread-dependent encoders.
 */
#include "extract/thumb.h"

#include "extract/icc.h"
#include "extract/shrink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if VIPS_MAJOR_VERSION > 8 || VIPS_MINOR_VERSION >= 15
#define KEEP_NOTHING "keep", VIPS_FOREIGN_KEEP_NONE
#else
#define KEEP_NOTHING "strip", TRUE
#endif

/* One step of a pipeline: *image becomes the result, the former one is let go. */
static int
step(VipsImage **image, VipsImage *next, int r)
{
	if (r != 0)
		return -1;
	g_object_unref(*image);
	*image = next;
	return 0;
}

/* A new picture that knows nothing but its pixels: 8 bits a channel, copied. */
static VipsImage *
thumb_image(const void *pixels, struct shrink_size size, int bands, VipsInterpretation type)
{
	VipsImage *raw, *image = NULL;

	raw = vips_image_new_from_memory_copy(pixels, (size_t)size.width * (size_t)size.height *
	    (size_t)bands, size.width, size.height, bands, VIPS_FORMAT_UCHAR);
	if (raw == NULL)
		return NULL;
	(void)vips_copy(raw, &image, "interpretation", type, NULL);
	g_object_unref(raw);
	return image;
}

/* By the profile in the file; a profile that doesn't fit the pixels is ignored. */
static void
thumb_apply_profile(VipsImage **image)
{
	VipsImage *next = NULL;
	const void *profile;
	size_t len;

	if (vips_image_get_typeof(*image, VIPS_META_ICC_NAME) == 0 ||
	    vips_image_get_blob(*image, VIPS_META_ICC_NAME, &profile, &len) != 0 ||
	    icc_is_srgb(profile, len))
		return;
	if (vips_icc_transform(*image, &next, "srgb", "embedded", TRUE, "intent",
	    VIPS_INTENT_PERCEPTUAL, "depth", 8, NULL) != 0) {
		vips_error_clear();
		return;
	}
	g_object_unref(*image);
	*image = next;
}

/* Colours that a picture's code points describe.  Alpha, if any, stays as it is. */
static int
thumb_tonemap(VipsImage **image, const struct tonemap *from)
{
	const int bands = (*image)->Bands;
	size_t pixels = (size_t)(*image)->Xsize * (size_t)(*image)->Ysize, i;
	bool wide = (*image)->BandFmt == VIPS_FORMAT_USHORT;
	const void *in = vips_image_get_data(*image);
	uint8_t *out = malloc(pixels * (size_t)bands);
	VipsImage *next;

	if (out == NULL)
		_exit(EXTRACT_EXIT_MEMORY);
	for (i = 0; i < pixels * (size_t)bands; i += (size_t)bands) {
		uint16_t rgb[3];
		int b;

		for (b = 0; b < 3; b++)
			rgb[b] = wide ? ((const uint16_t *)in)[i + (size_t)b] :
			    (uint16_t)(((const uint8_t *)in)[i + (size_t)b] * 257);
		tonemap(from, rgb, 1, out + i);
		for (b = 3; b < bands; b++)
			out[i + (size_t)b] = wide ?
			    (uint8_t)(((const uint16_t *)in)[i + (size_t)b] >> 8) :
			    ((const uint8_t *)in)[i + (size_t)b];
	}
	next = thumb_image(out, (struct shrink_size){ (*image)->Xsize, (*image)->Ysize }, bands,
	    VIPS_INTERPRETATION_sRGB);
	free(out);
	return step(image, next, next == NULL);
}

/* Alpha, if any, is the last band; the colours become sRGB. */
static int
thumb_to_srgb(VipsImage **image, const struct tonemap *from)
{
	VipsImage *next = NULL;

	if (from != NULL && (*image)->Bands >= 3 && ((*image)->BandFmt == VIPS_FORMAT_UCHAR ||
	    (*image)->BandFmt == VIPS_FORMAT_USHORT))
		return thumb_tonemap(image, from);
	thumb_apply_profile(image);
	if ((*image)->Type != VIPS_INTERPRETATION_sRGB || (*image)->Bands < 3) {
		int r = vips_colourspace(*image, &next, VIPS_INTERPRETATION_sRGB, NULL);

		return step(image, next, r);
	}
	return 0;
}

static int
thumb_turn(VipsImage **image, unsigned orientation)
{
	static const VipsAngle angles[9] = {
		[3] = VIPS_ANGLE_D180, [5] = VIPS_ANGLE_D90, [6] = VIPS_ANGLE_D90,
		[7] = VIPS_ANGLE_D270, [8] = VIPS_ANGLE_D270,
	};
	VipsImage *next = NULL;
	int r;

	if (orientation < 2 || orientation > 8)
		return 0;
	if (angles[orientation] != VIPS_ANGLE_D0) {
		r = vips_rot(*image, &next, angles[orientation], NULL);
		if (step(image, next, r) != 0)
			return -1;
	}
	if (orientation == 4)
		r = vips_flip(*image, &next, VIPS_DIRECTION_VERTICAL, NULL);
	else if (orientation == 2 || orientation == 5 || orientation == 7)
		r = vips_flip(*image, &next, VIPS_DIRECTION_HORIZONTAL, NULL);
	else
		return 0;
	return step(image, next, r);
}

/* The pixels in an image that knows nothing else. */
static int
thumb_bare(VipsImage **image)
{
	struct shrink_size size = { (*image)->Xsize, (*image)->Ysize };
	VipsImage *next;
	size_t len;
	void *pixels = vips_image_write_to_memory(*image, &len);

	if (pixels == NULL)
		return -1;
	next = thumb_image(pixels, size, (*image)->Bands, VIPS_INTERPRETATION_sRGB);
	g_free(pixels);
	return step(image, next, next == NULL);
}

/* The profile goes along: it is applied to few pixels rather than many. */
static VipsImage *
thumb_wrap(const uint8_t *pixels, struct shrink_size size, const VipsImage *like)
{
	VipsImage *image = thumb_image(pixels, size, like->Bands, like->Type);
	const void *profile;
	size_t len;

	if (image != NULL &&
	    vips_image_get_typeof((VipsImage *)(uintptr_t)like, VIPS_META_ICC_NAME) != 0 &&
	    vips_image_get_blob(like, VIPS_META_ICC_NAME, &profile, &len) == 0)
		vips_image_set_blob_copy(image, VIPS_META_ICC_NAME, profile, len);
	return image;
}

/* *image, in memory, at the size asked for.  Alpha has to be weighed in: libvips does. */
static int
thumb_shrink(VipsImage **image, int side)
{
	struct shrink_size from = { (*image)->Xsize, (*image)->Ysize };
	struct shrink_size to = shrink_fit(from, side);
	VipsImage *small = NULL, *next;
	uint8_t *pixels;

	if (from.width == to.width && from.height == to.height)
		return 0;
	if ((*image)->BandFmt == VIPS_FORMAT_UCHAR && !vips_image_hasalpha(*image) &&
	    (*image)->Bands <= 4) {
		pixels = shrink((const uint8_t *)vips_image_get_data(*image), from,
		    (*image)->Bands, to);
		if (pixels == NULL)
			_exit(EXTRACT_EXIT_MEMORY);
		next = thumb_wrap(pixels, to, *image);
		free(pixels);
		return step(image, next, next == NULL);
	}
	if (vips_thumbnail_image(*image, &small, side, "height", side, "size", VIPS_SIZE_DOWN,
	    "no_rotate", TRUE, NULL) != 0)
		return -1;
	next = vips_image_copy_memory(small);
	g_object_unref(small);
	return step(image, next, next == NULL);
}

/* Decode into memory; only now do errors of the file show. */
static int
thumb_prepare(VipsImage *picture, const struct tonemap *from, unsigned orientation,
    VipsImage **ret)
{
	VipsImage *image = vips_image_copy_memory(picture), *next = NULL;
	int r;

	if (image == NULL)
		return -1;
	r = thumb_shrink(&image, (int)extract_thumb_sizes[EXTRACT_THUMBS - 1].side);
	if (r == 0)
		r = thumb_to_srgb(&image, from);
	if (r == 0 && image->BandFmt != VIPS_FORMAT_UCHAR) {
		r = vips_cast(image, &next, VIPS_FORMAT_UCHAR, NULL);
		r = step(&image, next, r);
	}
	if (r == 0 && image->Bands > 4) {
		r = vips_extract_band(image, &next, 0, "n", 4, NULL);
		r = step(&image, next, r);
	}
	if (r == 0)
		r = thumb_turn(&image, orientation);
	if (r == 0)
		r = thumb_bare(&image);
	if (r != 0) {
		g_object_unref(image);
		return -1;
	}
	*ret = image;
	return 0;
}

static int
thumb_encode_jpeg(VipsImage *image, int quality, void **ret, size_t *ret_len)
{
	VipsArrayDouble *white = vips_array_double_newv(3, 255.0, 255.0, 255.0);
	VipsImage *flat = NULL;
	int r;

	if (vips_image_hasalpha(image)) {
		r = vips_flatten(image, &flat, "background", white, NULL);
	} else {
		flat = image;
		g_object_ref(flat);
		r = 0;
	}
	vips_area_unref(VIPS_AREA(white));
	if (r != 0)
		return -1;
	r = vips_jpegsave_buffer(flat, ret, ret_len, "Q", quality, "interlace", TRUE,
	    "optimize_coding", TRUE, KEEP_NOTHING, NULL);
	g_object_unref(flat);
	return r;
}

static size_t
webp_chunk_size(const uint8_t *p)
{
	size_t n = (size_t)p[4] | (size_t)p[5] << 8 | (size_t)p[6] << 16 | (size_t)p[7] << 24;

	return 8 + n + (n & 1);
}

/*
 * Leave a still's chunks alone in a WebP file of our own encoder (WebP container
 * specification): pixels, alpha, and the extended header only where there is
 * alpha.  Returns the new length.
 */
static size_t
webp_bare(uint8_t *p, size_t len)
{
	size_t in = 12, out = 12, n;

	while (len >= 20 && in <= len - 8) {
		bool extended = memcmp(p + in, "VP8X", 4) == 0;

		n = webp_chunk_size(p + in);
		if (n > len - in)
			return len;
		if (extended)
			p[in + 8] &= 0x10;
		if ((extended && p[in + 8] != 0) || memcmp(p + in, "VP8 ", 4) == 0 ||
		    memcmp(p + in, "VP8L", 4) == 0 || memcmp(p + in, "ALPH", 4) == 0) {
			memmove(p + out, p + in, n);
			out += n;
		}
		in += n;
	}
	for (n = 0; n < 4; n++)
		p[4 + n] = (uint8_t)((out - 8) >> 8 * n);
	return out;
}

static int
thumb_encode(VipsImage *image, const struct extract_thumb_size *size, void **ret,
    size_t *ret_len)
{
	if (strcmp(size->mime, "image/jpeg") == 0)
		return thumb_encode_jpeg(image, size->quality, ret, ret_len);
	if (vips_webpsave_buffer(image, ret, ret_len, "Q", size->quality, "effort", 2,
	    KEEP_NOTHING, NULL) != 0)
		return -1;
	*ret_len = webp_bare(*ret, *ret_len);
	return 0;
}

struct encoded {
	void *data;
	size_t len;
	uint32_t width, height;
};

static int
thumb_encode_all(VipsImage **image, struct encoded out[EXTRACT_THUMBS])
{
	int i;

	for (i = EXTRACT_THUMBS - 1; i >= 0; i--) {
		const struct extract_thumb_size *size = &extract_thumb_sizes[i];

		if (thumb_shrink(image, (int)size->side) != 0 ||
		    thumb_encode(*image, size, &out[i].data, &out[i].len) != 0)
			return -1;
		out[i].width = (uint32_t)(*image)->Xsize;
		out[i].height = (uint32_t)(*image)->Ysize;
	}
	return 0;
}

/* libjpeg goes on after damage with a warning, and fills with gray what is missing. */
static const char *
thumb_warning(void)
{
	const char *text = vips_error_buffer();

	return strstr(text, "remature end") != NULL ? "truncated" :
	    strstr(text, "Corrupt JPEG data") != NULL ? "corrupt" : NULL;
}

int
thumb_send_all(struct job *j, VipsImage *picture, const struct tonemap *from,
    unsigned orientation)
{
	struct encoded out[EXTRACT_THUMBS] = { { NULL } };
	const char *warning;
	VipsImage *image;
	unsigned i;
	int r;

	if (thumb_prepare(picture, from, orientation, &image) != 0)
		return -1;
	warning = thumb_warning();
	if (warning != NULL) {
		meta_fail(&j->meta, EXTRACT_AT_DECODE, warning, "%s", vips_error_buffer());
		vips_error_clear();
		if (strcmp(warning, "truncated") == 0) {
			g_object_unref(image);
			return 0;
		}
	}
	job_stage(j, EXTRACT_AT_THUMB);
	r = thumb_encode_all(&image, out);
	g_object_unref(image);
	for (i = 0; i < EXTRACT_THUMBS; i++) {
		if (r == 0)
			job_send_thumb(j, i, out[i].width, out[i].height, out[i].data,
			    out[i].len);
		g_free(out[i].data);
	}
	return r;
}

/* What vips and the libraries below it say → our codes.  The first match decides. */
static const char *
thumb_error_code(const char *text)
{
	static const char *const codes[][2] = {
		{ "marker", "corrupt" },
		{ "premature", "truncated" }, { "truncated", "truncated" },
		{ "Premature", "truncated" }, { "end of", "truncated" },
		{ "End of", "truncated" }, { "EOF", "truncated" },
		{ "Seek error", "truncated" }, { "out of data", "truncated" },
		{ "Read error", "truncated" }, { "short read", "truncated" },
		{ "not enough data", "truncated" },
		{ "out of memory", "memory" }, { "emory", "memory" },
		{ "too large", "too-large" }, { "too big", "too-large" },
		{ "xceed", "too-large" }, { "limit", "too-large" },
		{ "nsupported", "unsupported" }, { "not supported", "unsupported" },
		{ "not implemented", "unsupported" }, { "not configured", "unsupported" },
		{ "not a known", "unsupported" },
	};
	size_t i;

	for (i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (strstr(text, codes[i][0]) != NULL)
			return codes[i][1];
	return "corrupt";
}

void
thumb_fail(struct job *j, enum extract_stage stage)
{
	const char *text = vips_error_buffer();

	meta_fail(&j->meta, stage, thumb_error_code(text), "%s",
	    text[0] != '\0' ? text : "can't be decoded");
	vips_error_clear();
}
