/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The thumbnails as pictures: decoded again, they aren't flat or green, all
 * eight orientations look the same way up, and no metadata has come along.
 */
#include "processor/pool.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <vips/vips.h>

static struct extract_pool *pool;

static int
set_up(void **state)
{
	struct extract_pool_options o = { .program = BUILD_DIR "/tbfs-extract", .workers = 1 };
	struct error err = { 0 };

	(void)state;
#ifdef SANITIZER
	o.unguarded = true;
#endif
	if (vips_init("test_extract_thumbs") != 0 || extract_pool_new(&o, &pool, &err) < 0) {
		print_error("%s\n", error_text(&err));
		return -1;
	}
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	extract_pool_free(pool);
	return 0;
}

/* Thumbnail number `which` of a sample, decoded, in sRGB without alpha. */
static VipsImage *
thumb_of(const char *name, unsigned which)
{
	char path[4096];
	struct extract_result r;
	struct error err = { 0 };
	VipsImage *image, *memory;
	struct stat st;
	void *bytes;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", MEDIA_DIR, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	if (extract_pool_run(pool, fd, (uint64_t)st.st_size, name, NULL, NULL, &r, &err) < 0)
		fail_msg("%s: %s", name, error_text(&err));
	(void)close(fd);
	if (r.n_thumbs != EXTRACT_THUMBS)
		fail_msg("%s: %s", name, r.json);
	bytes = malloc(r.thumbs[which].size);
	assert_non_null(bytes);
	assert_int_equal(pread(r.thumbs[which].fd, bytes, r.thumbs[which].size, 0),
	    (ssize_t)r.thumbs[which].size);
	image = vips_image_new_from_buffer(bytes, r.thumbs[which].size, "", NULL);
	if (image == NULL)
		fail_msg("%s: %s: %s", name, r.thumbs[which].name, vips_error_buffer());
	assert_int_equal(image->Xsize, r.thumbs[which].width);
	assert_int_equal(image->Ysize, r.thumbs[which].height);
	memory = vips_image_copy_memory(image);
	assert_non_null(memory);
	g_object_unref(image);
	free(bytes);
	extract_result_release(&r);
	return memory;
}

static double
band_mean(VipsImage *image, int band)
{
	VipsImage *one = NULL;
	double mean;

	assert_int_equal(vips_extract_band(image, &one, band, NULL), 0);
	assert_int_equal(vips_avg(one, &mean, NULL), 0);
	g_object_unref(one);
	return mean;
}

static void
test_thumbs_are_neither_flat_nor_green(void **state)
{
	static const char *const samples[] = { "orient_6.jpg", "cmyk.jpg", "progressive.jpg",
		"rgb16.png", "lzw.tif", "animated.gif", "animated.webp", "canon7d_exif.webp",
		"iphone7plus_orient6_gps.heic", "photo_8bit.avif", "h264_aac.mp4",
		"hevc_hvc1.mov", "iphone14pro_dolbyvision.MOV", "old_phone_h263.3gp",
		"clip_vp9.webm", "clip.mkv" };
	size_t i;
	unsigned t;

	(void)state;
	for (i = 0; i < sizeof(samples) / sizeof(samples[0]); i++)
		for (t = 0; t < EXTRACT_THUMBS; t++) {
			VipsImage *image = thumb_of(samples[i], t);
			double deviation, red = band_mean(image, 0), green = band_mean(image, 1);
			double blue = band_mean(image, 2);

			assert_int_equal(vips_deviate(image, &deviation, NULL), 0);
			if (deviation < 10 || (green > 1.6 * red && green > 1.6 * blue))
				fail_msg("%s: deviation %.1f, mean %.0f %.0f %.0f", samples[i],
				    deviation, red, green, blue);
			g_object_unref(image);
		}
}

static double
difference(VipsImage *a, VipsImage *b)
{
	VipsImage *minus = NULL, *abs = NULL;
	double mean;

	assert_int_equal(vips_subtract(a, b, &minus, NULL), 0);
	assert_int_equal(vips_abs(minus, &abs, NULL), 0);
	assert_int_equal(vips_avg(abs, &mean, NULL), 0);
	g_object_unref(minus);
	g_object_unref(abs);
	return mean;
}

/* The pictures differ in the digit in their middle only. */
static void
test_orientations_end_upright(void **state)
{
	VipsImage *first = thumb_of("orient_1.jpg", 0);
	char name[32];
	int i;

	(void)state;
	for (i = 2; i <= 8; i++) {
		VipsImage *image;

		(void)snprintf(name, sizeof(name), "orient_%d.jpg", i);
		image = thumb_of(name, 0);
		assert_int_equal(image->Xsize, first->Xsize);
		assert_int_equal(image->Ysize, first->Ysize);
		assert_true(difference(image, first) < 6);
		g_object_unref(image);
	}
	g_object_unref(first);
}

static void
test_no_metadata_comes_along(void **state)
{
	static const char *const samples[] = { "gps_NE_berlin.jpg", "orient_6.jpg",
		"canon7d_exif.webp", "iphone7_gps_NW.heic", "gps_NW_real.jpg" };
	static const char *const fields[] = { VIPS_META_EXIF_NAME, VIPS_META_XMP_NAME,
		VIPS_META_IPTC_NAME, VIPS_META_ICC_NAME };
	size_t i, f;
	unsigned t;

	(void)state;
	for (i = 0; i < sizeof(samples) / sizeof(samples[0]); i++)
		for (t = 0; t < EXTRACT_THUMBS; t++) {
			VipsImage *image = thumb_of(samples[i], t);

			for (f = 0; f < sizeof(fields) / sizeof(fields[0]); f++)
				assert_int_equal(vips_image_get_typeof(image, fields[f]), 0);
			g_object_unref(image);
		}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_thumbs_are_neither_flat_nor_green),
		cmocka_unit_test(test_orientations_end_upright),
		cmocka_unit_test(test_no_metadata_comes_along),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
