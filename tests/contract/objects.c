/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The contract: what happens to an object's bytes and metadata. */
#include "rig.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { MIB = 1 << 20 };

static void
test_put_then_get(void **state)
{
	CLEANUP_CLOSE int fd = rig_file(100000, 1);
	struct object_put put = rig_object(fd, 100000);
	struct backend_tag tag, again;
	struct error err = {0};
	uint8_t sum[SHA256_LEN];
	bool linked = true;

	(void)state;
	put.meta.seq = UINT64_MAX;
	put.meta.object_id = 42;
	put.meta.generation = 7;
	put.meta.path = "circles/a b/\"é\"/100%+.jpg";
	assert_ok(backend_put(rig.b, "a/b.jpg", &put, &tag, &linked, &err));
	assert_false(linked);
	rig_sum(100000, 1, sum);
	assert_true(tag.has_sha256 && tag.size == 100000);
	assert_memory_equal(tag.sha256, sum, SHA256_LEN);
	assert_true(rig_is("a/b.jpg", 100000, 1));
	assert_ok(backend_stat(rig.b, "a/b.jpg", &again, &err));
	assert_true(again.mtime_ns == 1600000000123456789);
	assert_true(again.has_attrs);
	assert_int_equal(again.mode, 0100640);
	assert_int_equal(again.uid, getuid());
	assert_int_equal(again.gid, getgid());
	assert_true(again.seq == UINT64_MAX && again.object_id == 42 && again.generation == 7);
	assert_string_equal(again.path, "circles/a b/\"é\"/100%+.jpg");
	assert_string_equal(again.path, tag.path);
	assert_string_equal(again.etag, tag.etag);
}

static void
test_old_times_and_long_paths(void **state)
{
	CLEANUP_CLOSE int fd = rig_file(10, 1);
	struct object_put put = rig_object(fd, 10);
	struct error err = {0};
	struct backend_tag tag;
	char path[4000];

	(void)state;
	put.meta.mtime_ns = -1500000001;		/* 1.5 s before 1970 */
	memset(path, 'p', sizeof(path));
	path[1000] = '\0';
	put.meta.path = path;
	assert_ok(backend_put(rig.b, "old", &put, NULL, NULL, &err));
	assert_ok(backend_stat(rig.b, "old", &tag, &err));
	assert_true(tag.mtime_ns == -1500000001);
	assert_string_equal(tag.path, path);
	/* 1,000 bytes that take three each are too long for S3's headers: stored, and said so. */
	memset(path, ' ', 1000);
	assert_ok(backend_put(rig.b, "old", &put, &tag, NULL, &err));
	assert_string_equal(tag.path, "");
	assert_ok(backend_stat(rig.b, "old", &tag, &err));
	assert_string_equal(tag.path, "");
	assert_true(tag.mtime_ns == -1500000001 && tag.has_sha256);
}

static void
test_ranges(void **state)
{
	CLEANUP_CLOSE int fd = rig_file(0, 0);
	struct error err = {0};

	(void)state;
	rig_put("ranges", 100000, 2);
	assert_true(rig_range_is("ranges", 0, 1, 2));
	assert_true(rig_range_is("ranges", 99999, 1, 2));
	assert_true(rig_range_is("ranges", 12345, 54321, 2));
	assert_true(rig_range_is("ranges", 500, 0, 2));
	assert_int_equal(backend_get(rig.b, "ranges", 99999, 2, fd, 0, &err), -EIO);
	assert_int_equal(backend_get(rig.b, "ranges", 100000, 1, fd, 0, &err), -EIO);
	assert_int_equal(backend_get(rig.b, "ranges", UINT64_MAX, 1, fd, 0, &err), -EINVAL);
	assert_int_equal(backend_get(rig.b, "ranges", 0, 1, -1, 0, &err), -EINVAL);
}

static void
test_absent(void **state)
{
	CLEANUP_CLOSE int fd = rig_file(0, 0);
	struct backend_tag tag;
	struct error err = {0};

	(void)state;
	memset(&tag, 0x55, sizeof(tag));
	assert_fails(backend_stat(rig.b, "nowhere/x", &tag, &err), -ENOENT, "nowhere/x");
	assert_int_equal(tag.etag[0], 0x55);			/* untouched on failure */
	assert_fails(backend_get(rig.b, "nowhere/x", 0, 1, fd, 0, &err), -ENOENT, "nowhere/x");
	assert_fails(backend_get(rig.b, "nowhere/x", 0, 0, fd, 0, &err), -ENOENT, "nowhere/x");
	assert_fails(backend_copy(rig.b, "nowhere/x", "y", NULL, &err), -ENOENT, "nowhere/x");
	err = (struct error){0};
	assert_ok(backend_remove(rig.b, "nowhere/x", &err));
	assert_ok(backend_unshare(rig.b, "nowhere/x", &err));
	assert_string_equal(err.text, "");			/* untouched on success */
}

static void
test_overwrite_and_remove(void **state)
{
	struct error err = {0};

	(void)state;
	rig_put("over", 5000, 3);
	rig_put("over", 3000, 4);
	assert_true(rig_is("over", 3000, 4));
	assert_ok(backend_remove(rig.b, "over", &err));
	assert_true(rig_absent("over"));
	assert_ok(backend_remove(rig.b, "over", &err));
}

static void
test_sizes(void **state)
{
	static const uint64_t sizes[] = { 0, 1, 4095, 4096, 16 * MIB, 16 * MIB + 1, 40 * MIB };
	struct error err = {0};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		rig_put("size", sizes[i], (unsigned)i);
		assert_true(rig_is("size", sizes[i], (unsigned)i));
	}
	assert_true(rig_range_is("size", 16 * MIB - 5, 10, 6));	/* across parts */
	assert_ok(backend_remove(rig.b, "size", &err));
}

static void
test_short_file(void **state)
{
	CLEANUP_CLOSE int fd = rig_file(1000, 5);
	struct object_put put = rig_object(fd, 1001);
	struct error err = {0};

	(void)state;
	assert_int_equal(backend_put(rig.b, "short", &put, NULL, NULL, &err), -EIO);
	assert_true(rig_absent("short"));
	/* More bytes than asked for are left alone. */
	put.size = 999;
	assert_ok(backend_put(rig.b, "short", &put, NULL, NULL, &err));
	assert_true(rig_is("short", 999, 5));
}

/* ---- cancelling ---- */

struct cancel {
	_Atomic int left;		/* calls until it says yes */
};

static bool
cancel_after(void *arg)
{
	struct cancel *c = arg;

	return c->left-- <= 0;
}

/* Cancel at the 1st, 2nd, … question: the old object stays each time, until none is left. */
static void
cancel_everywhere(const char *key, uint64_t size)
{
	CLEANUP_CLOSE int fd = rig_file(size, 8);
	struct object_put put = rig_object(fd, size);
	struct error err = {0};
	int n, r, step = 1;

	rig_put(key, 1000, 7);
	for (n = 0; ; n += step) {
		struct cancel c = { n };

		put.cancelled = cancel_after;
		put.cancelled_arg = &c;
		r = backend_put(rig.b, key, &put, NULL, NULL, &err);
		if (r == 0)
			break;
		if (r != -ECANCELED)
			fail_msg("cancelled at question %d: %d: %s", n, r, error_text(&err));
		assert_true(rig_is(key, 1000, 7));
		step = n > 8 ? n / 2 : 1;
	}
	assert_true(n > 1);			/* it did ask */
	assert_true(rig_is(key, size, 8));
	assert_ok(backend_remove(rig.b, key, &err));
}

static void
test_cancel(void **state)
{
	(void)state;
	cancel_everywhere("cancel/small", 3 * MIB);
}

static void
test_cancel_large(void **state)
{
	(void)state;
	cancel_everywhere("cancel/large", 33 * MIB);
}

/* ---- conditional ---- */

static void
put_if_absent(uint64_t size)
{
	CLEANUP_CLOSE int fd = rig_file(size, 9);
	struct object_put put = rig_object(fd, size);
	struct backend_tag tag;
	struct error err = {0};

	put.flags = OBJECT_PUT_IF_ABSENT;
	put.meta.object_id = 5;
	put.meta.generation = 1;
	put.meta.seq = 77;
	assert_ok(backend_put(rig.b, "absent", &put, NULL, NULL, &err));
	assert_true(rig_is("absent", size, 9));
	/* The very same generation again: its first answer was lost. */
	assert_ok(backend_put(rig.b, "absent", &put, &tag, NULL, &err));
	assert_true(tag.size == size && tag.object_id == 5);
	put.meta.object_id = 6;
	assert_int_equal(backend_put(rig.b, "absent", &put, NULL, NULL, &err), -EEXIST);
	assert_true(err.text[0] != '\0');
	assert_ok(backend_stat(rig.b, "absent", &tag, &err));
	assert_true(tag.object_id == 5);
	assert_ok(backend_remove(rig.b, "absent", &err));
	assert_ok(backend_put(rig.b, "absent", &put, NULL, NULL, &err));
	assert_ok(backend_remove(rig.b, "absent", &err));
}

static void
test_put_if_absent(void **state)
{
	(void)state;
	put_if_absent(1000);
	put_if_absent(17 * MIB);
}

/* ---- copy ---- */

static void
test_copy(void **state)
{
	CLEANUP_CLOSE int fd = rig_file(70000, 11);
	struct object_put put = rig_object(fd, 70000);
	struct backend_tag tag, stat;
	struct error err = {0};

	(void)state;
	put.meta.object_id = 9;
	put.meta.seq = 10;
	put.meta.path = "é/x";
	assert_ok(backend_put(rig.b, "copy/é + %41 from", &put, NULL, NULL, &err));
	assert_ok(backend_copy(rig.b, "copy/é + %41 from", "copied/to", &tag, &err));
	assert_true(rig_is("copied/to", 70000, 11));
	assert_true(rig_is("copy/é + %41 from", 70000, 11));
	assert_ok(backend_stat(rig.b, "copied/to", &stat, &err));
	assert_true(stat.object_id == 9 && stat.seq == 10 && stat.mode == 0100640);
	assert_true(stat.mtime_ns == 1600000000123456789);
	assert_string_equal(stat.path, "é/x");
	assert_true(tag.object_id == 9 && tag.has_sha256 && tag.size == 70000);
	/* Over an existing object. */
	rig_put("copied/to", 10, 12);
	assert_ok(backend_copy(rig.b, "copy/é + %41 from", "copied/to", &tag, &err));
	assert_true(rig_is("copied/to", 70000, 11));
	assert_int_equal(backend_copy(rig.b, "copied/to", "copied/to", NULL, &err), -EINVAL);
	rig_put("copied/large", 17 * MIB, 13);
	assert_ok(backend_copy(rig.b, "copied/large", "copied/large2", NULL, &err));
	assert_true(rig_is("copied/large2", 17 * MIB, 13));
}

/* ---- many at once ---- */

struct reader {
	_Atomic bool stop;
	int mixes, reads;
};

static void *
read_over_and_over(void *arg)
{
	enum { SIZE = 200000 };
	struct reader *rd = arg;
	CLEANUP_CLOSE int fd = rig_file(0, 0);
	CLEANUP_FREE uint8_t *got = malloc(SIZE), *one = malloc(SIZE), *two = malloc(SIZE);

	rig_fill(21, 0, one, SIZE);
	rig_fill(22, 0, two, SIZE);
	while (!rd->stop) {
		if (backend_get(rig.b, "atomic", 0, SIZE, fd, 0, NULL) < 0)
			continue;
		rd->reads++;
		if (pread_full(fd, got, SIZE, 0) != SIZE ||
		    (memcmp(got, one, SIZE) != 0 && memcmp(got, two, SIZE) != 0))
			rd->mixes++;
	}
	return NULL;
}

static void
test_overwrite_is_atomic(void **state)
{
	struct reader rd = {0};
	struct error err = {0};
	CLEANUP_CLOSE int one = rig_file(200000, 21);
	CLEANUP_CLOSE int two = rig_file(200000, 22);
	pthread_t thread;
	int i;

	(void)state;
	rig_put("atomic", 200000, 21);
	assert_int_equal(pthread_create(&thread, NULL, read_over_and_over, &rd), 0);
	for (i = 0; i < 60; i++) {
		struct object_put put = rig_object(i & 1 ? one : two, 200000);

		assert_ok(backend_put(rig.b, "atomic", &put, NULL, NULL, &err));
	}
	rd.stop = true;
	(void)pthread_join(thread, NULL);
	assert_true(rd.reads > 0);
	assert_int_equal(rd.mixes, 0);
}

enum { EACH = 8 };

struct putter {
	int number, failed;
	struct error err;		/* of the first failure */
};

static void
note(struct putter *p, int r, const struct error *err)
{
	if (r != 0 && p->failed++ == 0)
		p->err = *err;
}

static void *
put_many(void *arg)
{
	struct putter *p = arg;
	struct error err = {0};
	uint8_t buf[3000];
	char path[96], key[64];
	int i;

	for (i = 0; i < EACH; i++) {
		CLEANUP_CLOSE int fd = -1;
		struct object_put put;

		(void)snprintf(path, sizeof(path), "%s/par.XXXXXX", rig.dir);
		fd = mkstemp(path);
		(void)unlink(path);
		rig_fill((unsigned)(100 * p->number + i), 0, buf, sizeof(buf));
		(void)pwrite_full(fd, buf, sizeof(buf), 0);
		put = rig_object(fd, sizeof(buf));
		(void)snprintf(key, sizeof(key), "par/%d/%d/x", i % 3, p->number * EACH + i);
		note(p, backend_put(rig.b, key, &put, NULL, NULL, &err), &err);
		/* Others make what this prunes. */
		(void)snprintf(key, sizeof(key), "par/shared/%d/y%d", i, p->number);
		note(p, backend_put(rig.b, key, &put, NULL, NULL, &err), &err);
		note(p, backend_remove(rig.b, key, &err), &err);
	}
	return NULL;
}

static void
test_parallel_puts(void **state)
{
	enum { THREADS = 8 };
	struct putter putters[THREADS];
	pthread_t threads[THREADS];
	CLEANUP_FREE char *keys = NULL;
	char key[64], *p;
	int i, count = 0;

	(void)state;
	for (i = 0; i < THREADS; i++) {
		putters[i] = (struct putter){ .number = i };
		assert_int_equal(pthread_create(&threads[i], NULL, put_many, &putters[i]), 0);
	}
	for (i = 0; i < THREADS; i++)
		(void)pthread_join(threads[i], NULL);
	for (i = 0; i < THREADS; i++)
		if (putters[i].failed > 0)
			fail_msg("%d failures, the first: %s", putters[i].failed, error_text(&putters[i].err));
	for (i = 0; i < THREADS * EACH; i += 7) {
		(void)snprintf(key, sizeof(key), "par/%d/%d/x", (i % EACH) % 3, i);
		assert_true(rig_is(key, 3000, (unsigned)(100 * (i / EACH) + i % EACH)));
	}
	keys = rig_list("par/");
	for (p = keys; *p != '\0'; p++)
		count += *p == '\n';
	assert_int_equal(count, THREADS * EACH);
}

static void
test_counts(void **state)
{
	struct error err = {0};
	uint64_t calls = rig.b->calls[CALL_STAT], failures = rig.b->failures[CALL_STAT];
	uint64_t out = rig.b->bytes_out;

	(void)state;
	rig_put_text("counted", "12345");
	assert_ok(backend_stat(rig.b, "counted", NULL, &err));
	assert_int_equal(backend_stat(rig.b, "uncounted", NULL, NULL), -ENOENT);
	assert_true(rig.b->calls[CALL_STAT] == calls + 2);
	assert_true(rig.b->failures[CALL_STAT] == failures + 1);
	if (strcmp(rig.kind, "fault") != 0)
		assert_true(rig.b->bytes_out == out + 5);
}

const struct CMUnitTest *
objects_tests(size_t *ret_count)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_put_then_get),
		cmocka_unit_test(test_old_times_and_long_paths),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_absent),
		cmocka_unit_test(test_overwrite_and_remove),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_short_file),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_cancel_large),
		cmocka_unit_test(test_put_if_absent),
		cmocka_unit_test(test_copy),
		cmocka_unit_test(test_overwrite_is_atomic),
		cmocka_unit_test(test_parallel_puts),
		cmocka_unit_test(test_counts),
	};

	*ret_count = sizeof(tests) / sizeof(tests[0]);
	return tests;
}
