/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Stills: header, limits, EXIF, and only then a decoder.
 *
 *  1. Sizes come from the header (header.c, exif.c; for HEIC, AVIF and BigTIFF
 *     from their libraries'), and what they say is over the limits isn't decoded.
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
#include "extract/heif.h"
#include "extract/thumb.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>

struct image {
	const uint8_t *data;
	size_t len;
	struct header header;
	VipsImage *opened;		/* by the decoder, where its header was needed; or NULL */
	struct tonemap from;		/* its colours, if they need more than a profile */
	bool has_from;
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

/* What the decoder's own header says; the picture stays open. */
static bool
image_open(struct job *j, struct image *im, int r)
{
	if (r != 0) {
		thumb_fail(j, EXTRACT_AT_DECODE);
		return false;
	}
	im->header.width = (uint32_t)im->opened->Xsize;
	im->header.height = (uint32_t)im->opened->Ysize;
	im->header.frames = 1;
	im->header.ended = im->header.whole = true;
	return true;
}

/* HEIC and AVIF: libheif's size is as displayed. */
static bool
image_read_heif(struct job *j, struct image *im)
{
	void *data = (void *)(uintptr_t)im->data;
	unsigned primaries, transfer;
	const void *exif;
	size_t exif_len;

	job_stage(j, EXTRACT_AT_DECODE);
	/* Sequential: of what is large libvips would make a copy on disk otherwise. */
	if (!image_open(j, im, vips_heifload_buffer(data, im->len, &im->opened, "access",
	    VIPS_ACCESS_SEQUENTIAL, "fail_on", VIPS_FAIL_ON_ERROR, NULL)))
		return false;
	image_set_size(&j->meta, im->header.width, im->header.height, false);
	if (vips_image_get_typeof(im->opened, VIPS_META_EXIF_NAME) != 0 &&
	    vips_image_get_blob(im->opened, VIPS_META_EXIF_NAME, &exif, &exif_len) == 0)
		image_read_exif(j, exif, exif_len);
	if (heif_colour(im->data, im->len, &primaries, &transfer))
		im->has_from = tonemap_needed(primaries, transfer, &im->from);
	return true;
}

static void
image_set_raw(struct meta *m, bool dng)
{
	static const char *const makers[][2] = {
		{ "NIKON", "image/x-nikon-nef" }, { "SONY", "image/x-sony-arw" },
		{ "PENTAX", "image/x-pentax-pef" }, { "SAMSUNG", "image/x-samsung-srw" },
	};
	size_t i;

	if (dng)
		(void)snprintf(m->mime, sizeof(m->mime), "image/x-adobe-dng");
	for (i = 0; i < sizeof(makers) / sizeof(makers[0]) && !dng; i++)
		if (strncasecmp(m->make, makers[i][0], strlen(makers[i][0])) == 0)
			(void)snprintf(m->mime, sizeof(m->mime), "%s", makers[i][1]);
	meta_fail(m, EXTRACT_AT_SNIFF, "unsupported", "a camera's raw file isn't decoded");
}

/* The directory is often the last thing in the file. */
static bool
image_read_tiff(struct job *j, struct image *im)
{
	void *data = (void *)(uintptr_t)im->data;
	struct exif_picture picture = { .width = 0 };
	bool known;
	int turn;

	job_stage(j, EXTRACT_AT_EXIF);
	known = exif_read(im->data, im->len, j->limits->text_bytes, &j->meta, &picture);
	if (known) {
		image_set_size(&j->meta, picture.width, picture.height,
		    j->meta.orientation >= 5);
		if (picture.raw) {
			image_set_raw(&j->meta, picture.dng);
			return false;
		}
		if (picture.width == 0)
			return true;		/* neither ended nor whole: said so */
	}
	job_stage(j, EXTRACT_AT_DECODE);
	if (!image_open(j, im, vips_tiffload_buffer(data, im->len, &im->opened, "access",
	    VIPS_ACCESS_SEQUENTIAL, "fail_on", VIPS_FAIL_ON_ERROR, NULL)))
		return false;
	/* A BigTIFF file: libvips says 1 where the file says nothing. */
	if (!known && vips_image_get_int(im->opened, VIPS_META_ORIENTATION, &turn) == 0 &&
	    turn > 1 && turn <= 8)
		j->meta.orientation = (unsigned)turn;
	image_set_size(&j->meta, im->header.width, im->header.height, j->meta.orientation >= 5);
	return true;
}

/* False: there is nothing to go on with, and the reason is noted. */
static bool
image_read_header(struct job *j, struct image *im)
{
	struct header *h = &im->header;

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
	case SNIFF_HEIF:
		return image_read_heif(j, im);
	default:
		return image_read_tiff(j, im);
	}
	if (h->exif != NULL)
		image_read_exif(j, h->exif, h->exif_len);
	if (h->iptc != NULL)
		exif_read_iptc(h->iptc, h->iptc_len, &j->meta);
	image_set_size(&j->meta, h->width, h->height, j->meta.orientation >= 5);
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

/* JPEG decodes at a half, a quarter or an eighth for less than the whole costs. */
static int
image_decode_jpeg(const struct image *im, uint32_t side, VipsImage **ret)
{
	uint32_t w = im->header.width, h = im->header.height, most = w > h ? w : h;
	uint32_t least = w > h ? h : w, by = 1;

	/* A line thinner than the divisor would be decoded to nothing. */
	while (by < 8 && most / (2 * by) >= side && least / (2 * by) >= 1)
		by *= 2;
	return vips_jpegload_buffer((void *)(uintptr_t)im->data, im->len, ret, "shrink", (int)by,
	    "access", VIPS_ACCESS_SEQUENTIAL, "fail_on", VIPS_FAIL_ON_ERROR, NULL);
}

/* libvips' thumbnailer would take code points for sRGB, and 32 bits a channel for 8. */
static int
image_shrink_opened(const struct image *im, int side, VipsImage **ret)
{
	const VipsImage *in = im->opened;
	int most = in->Xsize > in->Ysize ? in->Xsize : in->Ysize;
	VipsImage *bytes = NULL;
	int r;

	if (im->has_from)
		return vips_resize(im->opened, ret, most > side ? (double)side / most : 1, NULL);
	r = in->BandFmt == VIPS_FORMAT_UINT ? vips_msb(im->opened, &bytes, NULL) :
	    vips_copy(im->opened, &bytes, NULL);
	if (r == 0)
		r = vips_thumbnail_image(bytes, ret, side, "height", side, "size",
		    VIPS_SIZE_DOWN, "no_rotate", TRUE, NULL);
	g_clear_object(&bytes);
	return r;
}

/* A lazy picture not far above the largest thumbnail's size, in the file's own colours. */
static int
image_decode(const struct job *j, const struct image *im, VipsImage **ret)
{
	int side = (int)extract_thumb_sizes[EXTRACT_THUMBS - 1].side;
	void *data = (void *)(uintptr_t)im->data;

	if (j->type.family == SNIFF_JPEG)
		return image_decode_jpeg(im, (uint32_t)side, ret);
	if (im->opened != NULL)
		return image_shrink_opened(im, side, ret);
	return vips_thumbnail_buffer(data, im->len, ret, side, "height", side, "size",
	    VIPS_SIZE_DOWN, "no_rotate", TRUE, "fail_on", VIPS_FAIL_ON_ERROR, NULL);
}

static void
image_send_thumbs(struct job *j, const struct image *im, unsigned orientation)
{
	VipsImage *picture = NULL;

	if (image_decode(j, im, &picture) != 0 || thumb_send_all(j, picture,
	    im->has_from ? &im->from : NULL, orientation) != 0)
		thumb_fail(j, EXTRACT_AT_DECODE);
	g_clear_object(&picture);
}

static void
image_derive(struct job *j, struct image *im)
{
	bool heif = j->type.family == SNIFF_HEIF;

	if (!image_read_header(j, im) || !image_within_limits(j, &im->header))
		return;
	job_send_entry(j);
	job_stage(j, EXTRACT_AT_DECODE);
	vips_error_clear();
	/* Decoders fill up with black what a truncated file lacks. */
	if (im->header.whole)
		image_send_thumbs(j, im, heif ? 1 : j->meta.orientation);
	if (!im->header.ended || !im->header.whole)
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
	g_clear_object(&im.opened);
	vips_error_clear();
	(void)munmap(map, im.len);
}
