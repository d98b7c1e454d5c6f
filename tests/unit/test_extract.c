/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Every sample through the real worker, against what exiftool, ffprobe and
 * Pillow say of it (tests/media/manifest.json).
 */
#include "base/digest.h"
#include "processor/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
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

static struct extract_pool *pool;
static json_t *manifest;
static unsigned wrong;

/* Say it and go on: one run shows all that differs. */
#define CHECK(cond, ...) do { \
	if (!(cond)) { \
		wrong++; \
		print_error("%s: ", path); \
		print_error(__VA_ARGS__); \
		print_error("\n"); \
	} \
} while (0)

static int
set_up(void **state)
{
	struct extract_pool_options o = { .program = BUILD_DIR "/tbfs-extract", .workers = 2 };
	struct error err = { 0 };

	(void)state;
#ifdef SANITIZER
	o.unguarded = true;
#endif
	manifest = json_load_file(MEDIA_DIR "/manifest.json", 0, NULL);
	if (manifest == NULL || extract_pool_new(&o, &pool, &err) < 0) {
		print_error("%s\n", error_text(&err));
		return -1;
	}
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	json_decref(manifest);
	extract_pool_free(pool);
	return 0;
}

static struct extract_result
derive(const char *path)
{
	char full[4096];
	struct extract_result r;
	struct error err = { 0 };
	struct stat st;
	int fd;

	(void)snprintf(full, sizeof(full), "%s/%s", MEDIA_DIR, path);
	fd = open(full, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	if (extract_pool_run(pool, fd, (uint64_t)st.st_size, path, NULL, NULL, &r, &err) < 0)
		fail_msg("%s: %s", path, error_text(&err));
	(void)close(fd);
	return r;
}

static const char *
text(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s != NULL ? s : "";
}

static double
number(json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

static bool
same_text(json_t *want, const char *want_key, json_t *got, const char *got_key)
{
	return json_object_get(want, want_key) == NULL ||
	    strcmp(text(want, want_key), text(got, got_key)) == 0;
}

static bool
same_number(json_t *want, const char *want_key, json_t *got, const char *got_key, double by)
{
	return json_object_get(want, want_key) == NULL ||
	    (json_object_get(got, got_key) != NULL &&
	    fabs(number(want, want_key) - number(got, got_key)) <= by);
}

/* "2021:02:03 04:05:06" and "2023-05-09T12:41:46+0100" alike, without fractions. */
static bool
same_date(const char *want, const char *got)
{
	size_t i;

	if (strlen(got) < 19 || strlen(want) < 19)
		return false;
	for (i = 0; i < 19; i++)
		if (want[i] != got[i] && (want[i] >= '0' && want[i] <= '9'))
			return false;
	return true;
}

static bool
is_unsupported(json_t *got)
{
	return strcmp(text(json_object_get(got, "error"), "code"), "unsupported") == 0;
}

static void
check_basics(const char *path, json_t *want, json_t *got)
{
	const char *kind = text(want, "kind");

	if (strcmp(kind, "image") == 0)
		kind = "photo";
	/* ffprobe calls a video without `moov` nothing; it is a video that is broken. */
	if (strcmp(path, "truncated_no_moov.mp4") == 0)
		kind = "video";
	CHECK(same_text(want, "sha256", got, "sha256"), "sha256 %s", text(got, "sha256"));
	CHECK(same_text(want, "mime", got, "mime"), "mime %s", text(got, "mime"));
	CHECK(strcmp(kind, text(got, "kind")) == 0, "kind %s", text(got, "kind"));
	if (!is_unsupported(got)) {
		CHECK(same_number(want, "width", got, "width", 0), "width");
		CHECK(same_number(want, "height", got, "height", 0), "height");
	}
	/* Upright and not said to be anything are one. */
	CHECK(same_number(want, "orientation", got, "orientation", 0) ||
	    (number(want, "orientation") == 1 && json_object_get(got, "orientation") == NULL),
	    "orientation");
	CHECK(same_number(want, "duration", got, "duration", 0.1), "duration %f",
	    number(got, "duration"));
}

static void
check_origin(const char *path, json_t *want, json_t *got)
{
	json_t *camera = json_object_get(got, "camera"), *gps = json_object_get(got, "gps");
	const char *date = text(want, "datetime_original"), *offset = text(want, "offset_original");

	if (date[0] == '\0')
		date = text(want, "creation_time");
	if (date[0] != '\0')
		CHECK(same_date(date, text(got, "taken_at")), "taken_at %s, not %s",
		    text(got, "taken_at"), date);
	if (offset[0] != '\0')
		CHECK(strstr(text(got, "taken_at"), offset) != NULL, "offset");
	CHECK(same_text(want, "make", camera, "make"), "make %s", text(camera, "make"));
	CHECK(same_text(want, "model", camera, "model"), "model %s", text(camera, "model"));
	CHECK(same_number(want, "gps_lat", gps, "lat", 1e-4), "lat");
	CHECK(same_number(want, "gps_lon", gps, "lon", 1e-4), "lon");
	CHECK((json_object_get(want, "gps_lat") != NULL) == (gps != NULL), "gps out of nothing");
	/* An altitude without a position (samsung_micro_video.jpg) is no place. */
	if (json_object_get(want, "gps_lat") != NULL)
		CHECK(same_number(want, "gps_alt", gps, "alt", 0.01), "alt");
}

static void
check_streams(const char *path, json_t *want, json_t *got)
{
	json_t *video = json_object_get(got, "video"), *audio = json_object_get(got, "audio");

	CHECK(same_text(want, "video_codec", video, "codec"), "video %s", text(video, "codec"));
	CHECK(same_text(want, "audio_codec", audio, "codec"), "audio %s", text(audio, "codec"));
	CHECK(same_number(want, "frame_rate", video, "frame_rate", 0.01), "frame_rate %f",
	    number(video, "frame_rate"));
	if (json_object_get(want, "rotation") != NULL) {
		CHECK(same_number(want, "rotation", video, "rotation", 0), "rotation");
		CHECK(same_number(want, "raw_width", video, "width", 0), "coded width");
		CHECK(same_number(want, "raw_height", video, "height", 0), "coded height");
	}
}

static void
check_thumbs(const char *path, json_t *got, const struct extract_result *r)
{
	uint32_t w = (uint32_t)number(got, "width"), h = (uint32_t)number(got, "height");
	unsigned i;

	CHECK(r->n_thumbs == 0 || r->n_thumbs == EXTRACT_THUMBS, "%u thumbs", r->n_thumbs);
	for (i = 0; i < r->n_thumbs; i++) {
		const struct extract_thumb *t = &r->thumbs[i];
		uint32_t side = extract_thumb_sizes[i].side, most = w > h ? w : h;
		double by = most > side ? (double)side / most : 1;

		CHECK(strcmp(t->name, extract_thumb_sizes[i].name) == 0, "name %s", t->name);
		CHECK(fabs(t->width - w * by) <= 1 && fabs(t->height - h * by) <= 1,
		    "%s is %ux%u", t->name, t->width, t->height);
		CHECK((uint64_t)lseek(t->fd, 0, SEEK_END) == t->size, "%s: size", t->name);
	}
}

static void
test_samples_are_what_the_oracle_says(void **state)
{
	json_t *want;
	size_t i;

	(void)state;
	wrong = 0;
	json_array_foreach(json_object_get(manifest, "files"), i, want) {
		const char *path = text(want, "path");
		struct extract_result r = derive(path);
		json_t *got = json_loads(r.json, 0, NULL);

		assert_non_null(got);
		check_basics(path, want, got);
		check_origin(path, want, got);
		check_streams(path, want, got);
		check_thumbs(path, got, &r);
		CHECK(r.n_thumbs > 0 || r.failed || strcmp(r.kind, "audio") == 0 ||
		    strcmp(r.kind, "other") == 0, "neither thumbs nor a reason");
		CHECK(!r.worker_died, "cost a worker: %s", r.json);
		json_decref(got);
		extract_result_release(&r);
	}
	assert_int_equal(wrong, 0);
}

static void
test_bad_files_have_their_reason(void **state)
{
	static const char *const bad[][3] = {
		{ "bomb_40000x40000_1bit.png", "limit", "too-large" },
		{ "bomb_header_only.png", "limit", "too-large" },
		{ "truncated.jpg", "decode", "truncated" },
		{ "samsung_micro_video.jpg", "decode", "truncated" },
		{ "corrupted.heic", "decode", "corrupt" },
		{ "truncated_no_moov.mp4", "video", "truncated" },
		{ "truncated_faststart.mp4", "video", "truncated" },
		{ "hostile_href.svg", "sniff", "unsupported" },
		{ "hostile_entities.svg", "sniff", "unsupported" },
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct extract_result r = derive(bad[i][0]);
		json_t *j = json_loads(r.json, 0, NULL), *e = json_object_get(j, "error");

		if (strcmp(text(e, "stage"), bad[i][1]) != 0 ||
		    strcmp(text(e, "code"), bad[i][2]) != 0)
			fail_msg("%s: %s", bad[i][0], r.json);
		assert_true(r.failed);
		json_decref(j);
		extract_result_release(&r);
	}
}

/* Equal files give equal bytes, whichever worker had them. */
static void
test_results_are_deterministic(void **state)
{
	static const char *const files[] = { "orient_6.jpg", "iphone14pro_dolbyvision.MOV",
		"iphone7plus_orient6_gps.heic", "clip_vp9.webm", "animated.webp" };
	size_t i;
	unsigned t;

	(void)state;
	for (i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		struct extract_result a = derive(files[i]), b = derive(files[i]);

		assert_string_equal(a.json, b.json);
		assert_int_equal(a.n_thumbs, EXTRACT_THUMBS);
		for (t = 0; t < EXTRACT_THUMBS; t++) {
			uint8_t x[SHA256_LEN], y[SHA256_LEN];

			assert_int_equal(a.thumbs[t].size, b.thumbs[t].size);
			assert_int_equal(sha256_fd(a.thumbs[t].fd, 0, a.thumbs[t].size, x), 0);
			assert_int_equal(sha256_fd(b.thumbs[t].fd, 0, b.thumbs[t].size, y), 0);
			assert_memory_equal(x, y, SHA256_LEN);
		}
		extract_result_release(&a);
		extract_result_release(&b);
	}
}

/* The descriptor's offset is the daemon's own. */
static void
test_the_offset_is_left_alone(void **state)
{
	struct extract_result r;
	struct error err = { 0 };
	int fd = open(MEDIA_DIR "/no_exif.jpg", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(lseek(fd, 17, SEEK_SET), 17);
	assert_int_equal(extract_pool_run(pool, fd, 39692, "x", NULL, NULL, &r, &err), 0);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 17);
	extract_result_release(&r);
	(void)close(fd);
}

/* A file that shrank since it was announced is a bad file, not a broken worker. */
static void
test_a_short_file_has_a_reason(void **state)
{
	struct extract_result r;
	struct error err = { 0 };
	int fd = open(MEDIA_DIR "/no_exif.jpg", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(extract_pool_run(pool, fd, 1 << 20, "x", NULL, NULL, &r, &err), 0);
	assert_true(r.failed);
	assert_false(r.worker_died);
	assert_false(r.has_sha256);
	assert_non_null(strstr(r.json, "\"stage\":\"hash\""));
	extract_result_release(&r);
	(void)close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_samples_are_what_the_oracle_says),
		cmocka_unit_test(test_bad_files_have_their_reason),
		cmocka_unit_test(test_results_are_deterministic),
		cmocka_unit_test(test_the_offset_is_left_alone),
		cmocka_unit_test(test_a_short_file_has_a_reason),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
