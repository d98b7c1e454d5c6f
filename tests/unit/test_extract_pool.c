/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The pool against workers that crash, hang, eat memory and lie: each costs its
 * own file's result, and the next file is derived as if nothing had been.
 */
#include "base/clock.h"
#include "processor/pool.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define FAKE BUILD_DIR "/fake_extract"

static const struct extract_limits limits = {
	.memory_bytes = 64 << 20, .text_bytes = 4096, .cpu_s = 1, .deadline_s = 5,
};

static struct extract_pool *
pool_up(unsigned workers)
{
	struct extract_pool_options o = {
		.program = FAKE, .workers = workers, .limits = &limits, .unguarded = true,
	};
	struct extract_pool *pool;
	struct error err = { 0 };

	if (extract_pool_new(&o, &pool, &err) < 0)
		fail_msg("%s", error_text(&err));
	return pool;
}

static int
file_with(const char *text)
{
	int fd = memfd_create("job", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	return fd;
}

static struct extract_result
run(struct extract_pool *pool, const char *what)
{
	struct extract_result r;
	struct error err = { 0 };
	int fd = file_with(what);

	if (extract_pool_run(pool, fd, strlen(what), what, NULL, NULL, &r, &err) < 0)
		fail_msg("%s: %s", what, error_text(&err));
	(void)close(fd);
	return r;
}

static void
assert_error(const struct extract_result *r, const char *what, const char *stage,
    const char *code)
{
	json_t *j = json_loads(r->json, 0, NULL), *e = json_object_get(j, "error");

	if (e == NULL || strcmp(json_string_value(json_object_get(e, "stage")), stage) != 0 ||
	    strcmp(json_string_value(json_object_get(e, "code")), code) != 0)
		fail_msg("%s: %s instead of %s/%s", what, r->json, stage, code);
	assert_true(r->failed);
	assert_int_equal(r->n_thumbs, 0);
	json_decref(j);
}

static void
test_a_bad_worker_costs_one_result(void **state)
{
	static const char *const bad[][3] = {
		{ "segv", "decode", "crashed" },
		{ "exit", "decode", "crashed" },
		{ "close", "decode", "crashed" },
		{ "memory", "decode", "memory" },
		{ "spin", "decode", "timeout" },
		{ "text", "worker", "protocol" },
		{ "babble bytes", "decode", "protocol" },
		{ "babble type", "decode", "protocol" },
		{ "babble stages", "decode", "protocol" },
		{ "babble huge", "decode", "protocol" },
		{ "babble wide", "decode", "protocol" },
		{ "babble which", "decode", "protocol" },
		{ "babble more", "decode", "protocol" },
		{ "babble signature", "decode", "protocol" },
		{ "babble early", "decode", "protocol" },
		{ "babble descriptor", "decode", "protocol" },
	};
	struct extract_pool *pool = pool_up(1);
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct extract_result r = run(pool, bad[i][0]);

		assert_error(&r, bad[i][0], bad[i][1], bad[i][2]);
		extract_result_release(&r);
		r = run(pool, "good");
		assert_false(r.failed);
		assert_string_equal(r.kind, "photo");
		extract_result_release(&r);
	}
	extract_pool_free(pool);
}

static void
test_a_hung_worker_is_killed_at_the_deadline(void **state)
{
	struct extract_pool *pool = pool_up(1);
	int64_t start = clock_mono_ns();
	struct extract_result r = run(pool, "hang");
	double s = (double)(clock_mono_ns() - start) / NSEC_PER_SEC;

	(void)state;
	assert_error(&r, "hang", "decode", "timeout");
	assert_true(s > 4.5 && s < 10);
	extract_result_release(&r);
	extract_pool_free(pool);
}

/* What was known before the crash stays. */
static void
test_a_crash_keeps_hash_and_header(void **state)
{
	struct extract_pool *pool = pool_up(1);
	struct extract_result r = run(pool, "segv");

	(void)state;
	assert_true(r.has_sha256);
	assert_int_equal(r.sha256[0], 0xab);
	assert_true(r.worker_died);
	assert_string_equal(r.mime, "image/png");
	assert_non_null(strstr(r.json, "\"width\":7"));
	extract_result_release(&r);
	extract_pool_free(pool);
}

static void
test_lies_are_not_carried_over(void **state)
{
	struct extract_pool *pool = pool_up(1);
	struct extract_result r = run(pool, "lie");

	(void)state;
	assert_string_equal(r.json, "{\"sha256\":\"ab0000000000000000000000000000000000000000000000"
	    "0000000000000000\",\"mime\":\"image/jpeg\",\"kind\":\"photo\",\"camera\":{"
	    "\"model\":\"fine\"},\"gps\":{\"alt\":3}}");
	extract_result_release(&r);
	extract_pool_free(pool);
}

static unsigned
count_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d) != NULL)
		n++;
	(void)closedir(d);
	return n;
}

static void
test_nothing_leaks(void **state)
{
	unsigned before = count_descriptors(), i;
	struct extract_pool *pool = pool_up(2);

	(void)state;
	for (i = 0; i < 20; i++) {
		struct extract_result r = run(pool, i % 2 ? "segv" : "babble more");

		extract_result_release(&r);
	}
	extract_pool_free(pool);
	assert_int_equal(count_descriptors(), before);
	/* No child is left either. */
	errno = 0;
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static bool
cancel_after(void *arg)
{
	return clock_mono_ns() > *(int64_t *)arg;
}

static void
test_cancel_ends_a_job_soon(void **state)
{
	struct extract_pool *pool = pool_up(1);
	int64_t start = clock_mono_ns(), until = start + NSEC_PER_SEC / 5;
	struct extract_result r;
	struct error err = { 0 };
	int fd = file_with("hang");

	(void)state;
	assert_int_equal(extract_pool_run(pool, fd, 4, "hang", cancel_after, &until, &r, &err),
	    -ECANCELED);
	assert_true(clock_mono_ns() - start < 2 * NSEC_PER_SEC);
	(void)close(fd);
	r = run(pool, "good");
	assert_false(r.failed);
	extract_result_release(&r);
	extract_pool_free(pool);
}

struct crowd {
	struct extract_pool *pool;
	atomic_uint good, bad;
};

static void *
crowd_run(void *arg)
{
	struct crowd *c = arg;
	unsigned i;

	for (i = 0; i < 25; i++) {
		struct extract_result r = run(c->pool, i % 5 == 0 ? "segv" : "good");

		if (r.failed)
			atomic_fetch_add(&c->bad, 1);
		else
			atomic_fetch_add(&c->good, 1);
		extract_result_release(&r);
	}
	return NULL;
}

static void
test_many_threads_share_few_workers(void **state)
{
	struct crowd c = { .pool = pool_up(2) };
	pthread_t threads[8];
	unsigned i;

	(void)state;
	for (i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd_run, &c), 0);
	for (i = 0; i < 8; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	extract_pool_free(c.pool);
	assert_int_equal(atomic_load(&c.bad), 8 * 5);
	assert_int_equal(atomic_load(&c.good), 8 * 20);
}

static void
test_a_worker_that_is_not_guarded_is_refused(void **state)
{
	struct extract_pool_options o = { .program = FAKE, .workers = 1, .limits = &limits };
	struct extract_pool *pool;
	struct extract_result r;
	struct error err = { 0 };
	int fd = file_with("good");

	(void)state;
	assert_int_equal(extract_pool_new(&o, &pool, &err), 0);
	assert_int_equal(extract_pool_run(pool, fd, 4, "good", NULL, NULL, &r, &err), -EPERM);
	assert_non_null(strstr(err.text, "sandbox"));
	extract_pool_free(pool);
	(void)close(fd);
}

static void
test_a_program_that_can_not_work_is_said(void **state)
{
	struct extract_pool_options o = { .program = "/nowhere/tbfs-extract", .unguarded = true };
	struct extract_pool *pool;
	struct extract_result r;
	struct error err = { 0 };
	int fd = file_with("good");

	(void)state;
	assert_int_equal(extract_pool_new(&o, &pool, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/nowhere/tbfs-extract"));
	o.program = "/bin/false";
	assert_int_equal(extract_pool_new(&o, &pool, &err), 0);
	assert_true(extract_pool_run(pool, fd, 4, "good", NULL, NULL, &r, &err) < 0);
	assert_non_null(strstr(err.text, "/bin/false"));
	extract_pool_free(pool);
	(void)close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_bad_worker_costs_one_result),
		cmocka_unit_test(test_a_hung_worker_is_killed_at_the_deadline),
		cmocka_unit_test(test_a_crash_keeps_hash_and_header),
		cmocka_unit_test(test_lies_are_not_carried_over),
		cmocka_unit_test(test_nothing_leaks),
		cmocka_unit_test(test_cancel_ends_a_job_soon),
		cmocka_unit_test(test_many_threads_share_few_workers),
		cmocka_unit_test(test_a_worker_that_is_not_guarded_is_refused),
		cmocka_unit_test(test_a_program_that_can_not_work_is_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
