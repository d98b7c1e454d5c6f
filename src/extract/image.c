/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Stills: header, limits, EXIF, and only then a decoder.
 *
 *  1. Sizes come from the header (header.c, exif.c; for HEIC and AVIF from
 *     libheif's), and what they say is over the limits isn't decoded.
 *  2. The orientation is applied once, by thumb.c, from the same EXIF that is
 *     reported; libvips is told not to.  HEIC and AVIF are the exception: their
 *     own `irot` and `imir` are authoritative and libheif has applied them.
 *  3. A file that can't be decoded to its end has a reason and no thumbnails;
 *     what its header and EXIF say stays.
 *
 * The file is mapped, not read: decoders take it from memory, and the
 * descriptor's offset, which the daemon shares, never moves.
 */
#include "extract/exif.h"
#include "extract/header.h"
#include "extract/thumb.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

struct image {
	const uint8_t *data;
	size_t len;
	struct header header;
};

/* Width × height as displayed. */
static void
image_set_size(struct meta *m, uint32_t width, uint32_t height, bool turned)
{
	m->width = turned ? height : width;
	m->height = turned ? width : height;
}

static void
image_read_exif(struct job *j, const uint8_t *data, size_t len)
{
	job_stage(j, EXTRACT_AT_EXIF);
	if (len <= j->limits->exif_bytes)
		(void)exif_read(data, len, j->limits->text_bytes, &j->meta, NULL);
}

static void
image_read_header(struct job *j, struct image *im)
{
	struct header *h = &im->header;
	uint32_t size[2];

	switch (j->type.family) {
	case SNIFF_JPEG:
		header_jpeg(im->data, im->len, h);
		break;
	case SNIFF_PNG:
		header_png(im->data, im->len, h);
		break;
	case SNIFF_WEBP:
		header_webp(im->data, im->len, h);
		break;
	case SNIFF_GIF:
		header_gif(im->data, im->len, h);
		break;
	default:
		job_stage(j, EXTRACT_AT_EXIF);
		if (exif_read(im->data, im->len, j->limits->text_bytes, &j->meta, size)) {
			h->width = size[0];
			h->height = size[1];
		}
		h->frames = 1;
		/* The directory is often the last thing in the file. */
		h->ended = h->whole = h->width > 0;
	}
	if (h->exif != NULL)
		image_read_exif(j, h->exif, h->exif_len);
	if (h->iptc != NULL)
		exif_read_iptc(h->iptc, h->iptc_len, &j->meta);
	image_set_size(&j->meta, h->width, h->height, j->meta.orientation >= 5);
}

/* HEIC and AVIF: libheif's header gives the size as displayed and the EXIF block. */
static bool
image_read_heif(struct job *j, struct image *im)
{
	VipsImage *image = NULL;
	const void *exif;
	size_t exif_len;

	if (vips_heifload_buffer((void *)(uintptr_t)im->data, im->len, &image, NULL) != 0) {
		thumb_fail(j, EXTRACT_AT_DECODE);
		return false;
	}
	im->header.width = (uint32_t)image->Xsize;
	im->header.height = (uint32_t)image->Ysize;
	im->header.frames = 1;
	im->header.ended = im->header.whole = true;
	image_set_size(&j->meta, im->header.width, im->header.height, false);
	if (vips_image_get_typeof(image, VIPS_META_EXIF_NAME) != 0 &&
	    vips_image_get_blob(image, VIPS_META_EXIF_NAME, &exif, &exif_len) == 0)
		image_read_exif(j, exif, exif_len);
	g_object_unref(image);
	return true;
}

static bool
image_within_limits(struct job *j, const struct header *h)
{
	const struct extract_limits *l = j->limits;
	uint64_t pixels = (uint64_t)h->width * h->height;

	if (pixels > l->still_pixels)
		meta_fail(&j->meta, EXTRACT_AT_LIMIT, "too-large", "%u x %u pixels, more than"
		    " %ju", h->width, h->height, (uintmax_t)l->still_pixels);
	else if (h->frames > 1 && pixels > 0 && h->frames > l->animation_pixels / pixels)
		meta_fail(&j->meta, EXTRACT_AT_LIMIT, "too-large", "%u frames of %u x %u pixels,"
		    " more than %ju in all", h->frames, h->width, h->height,
		    (uintmax_t)l->animation_pixels);
	else if (h->progressive && pixels * h->components * 2 > l->memory_bytes / 4 * 3)
		meta_fail(&j->meta, EXTRACT_AT_LIMIT, "memory", "a progressive JPEG of %u x %u"
		    " pixels is decoded whole", h->width, h->height);
	else
		return true;
	return false;
}

/* A lazy picture not far above the largest thumbnail's size, in the file's own colours.
 * JPEG decodes at a half, a quarter or an eighth for less than the whole costs. */
static int
image_decode(const struct job *j, const struct image *im, VipsImage **ret)
{
	int side = (int)extract_thumb_sizes[EXTRACT_THUMBS - 1].side, by = 1;
	void *data = (void *)(uintptr_t)im->data;
	uint32_t w = im->header.width, h = im->header.height, most = w > h ? w : h;
	uint32_t least = w > h ? h : w;

	if (j->type.family != SNIFF_JPEG)
		return vips_thumbnail_buffer(data, im->len, ret, side, "height", side, "size",
		    VIPS_SIZE_DOWN, "no_rotate", TRUE, "fail_on", VIPS_FAIL_ON_ERROR, NULL);
	/* A line thinner than the divisor would be decoded to nothing. */
	while (by < 8 && most / (2 * (uint32_t)by) >= (uint32_t)side &&
	    least / (2 * (uint32_t)by) >= 1)
		by *= 2;
	return vips_jpegload_buffer(data, im->len, ret, "shrink", by, "access",
	    VIPS_ACCESS_SEQUENTIAL, "fail_on", VIPS_FAIL_ON_ERROR, NULL);
}

static void
image_send_thumbs(struct job *j, const struct image *im, unsigned orientation)
{
	VipsImage *picture = NULL;

	if (image_decode(j, im, &picture) != 0 || thumb_send_all(j, picture, orientation) != 0)
		thumb_fail(j, EXTRACT_AT_DECODE);
	g_clear_object(&picture);
}

static void
image_derive(struct job *j, struct image *im)
{
	bool heif = j->type.family == SNIFF_HEIF;

	if (heif) {
		if (!image_read_heif(j, im))
			return;
	} else {
		image_read_header(j, im);
	}
	if (!image_within_limits(j, &im->header))
		return;
	job_send_entry(j);
	job_stage(j, EXTRACT_AT_DECODE);
	vips_error_clear();
	/* Decoders fill up with black what a truncated file lacks. */
	if (im->header.whole)
		image_send_thumbs(j, im, heif ? 1 : j->meta.orientation);
	if (!im->header.ended)
		meta_cut_short(&j->meta, EXTRACT_AT_DECODE, "the file ends too early");
}

void
image_extract(struct job *j)
{
	struct image im = { .len = (size_t)j->size };
	void *map;

	if (j->size > j->limits->memory_bytes / 2) {
		meta_fail(&j->meta, EXTRACT_AT_LIMIT, "too-large", "a still of %ju bytes",
		    (uintmax_t)j->size);
		return;
	}
	map = mmap(NULL, im.len, PROT_READ, MAP_PRIVATE, j->fd, 0);
	if (map == MAP_FAILED) {
		meta_fail(&j->meta, EXTRACT_AT_DECODE, "memory", "can't map the file: %s",
		    strerror(errno));
		return;
	}
	im.data = map;
	image_derive(j, &im);
	vips_error_clear();
	(void)munmap(map, im.len);
}
