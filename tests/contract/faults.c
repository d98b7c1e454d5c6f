/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The backend that misbehaves on request must do so exactly as asked. */
#include "rig.h"

#include "backends/fault.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

#include <errno.h>
#include <string.h>

static void
test_nth_of_an_operation(void **state)
{
	struct error err = {0};

	(void)state;
	rig_put_text("f", "x");
	fault_set(rig.b, "stat:nth=2:EIO,get:every=ENOSPC");
	assert_ok(backend_stat(rig.b, "f", NULL, &err));
	assert_ok(backend_remove(rig.b, "absent", &err));
	assert_fails(backend_stat(rig.b, "f", NULL, &err), -EIO, "by request");
	assert_ok(backend_stat(rig.b, "f", NULL, &err));
	assert_int_equal(backend_get(rig.b, "f", 0, 1, 0, 0, &err), -ENOSPC);
	fault_set(rig.b, "");
}

static void
test_nothing_is_done(void **state)
{
	CLEANUP_CLOSE int fd = rig_text_file("new");
	struct object_put put = rig_object(fd, 3);

	(void)state;
	rig_put_text("f", "old");
	fault_set(rig.b, "nth=1:EAGAIN");
	assert_int_equal(backend_put(rig.b, "f", &put, NULL, NULL, NULL), -EAGAIN);
	fault_set(rig.b, "");
	assert_true(rig_text_is("f", "old"));
}

static void
test_lost_answer(void **state)
{
	CLEANUP_CLOSE int fd = rig_text_file("new");
	struct object_put put = rig_object(fd, 3);
	struct backend_tag tag;

	(void)state;
	rig_put_text("f", "old");
	memset(&tag, 0x33, sizeof(tag));
	fault_set(rig.b, "put:lost=1,remove:lost=1:EIO");
	assert_int_equal(backend_put(rig.b, "f", &put, &tag, NULL, NULL), -EAGAIN);
	assert_int_equal(tag.etag[0], 0x33);
	assert_true(rig_text_is("f", "new"));
	assert_int_equal(backend_remove(rig.b, "f", NULL), -EIO);
	assert_true(rig_absent("f"));
	fault_set(rig.b, "");
}

static void
test_delay_and_cut(void **state)
{
	CLEANUP_CLOSE int fd = rig_file(0, 0);
	int64_t begin;
	char got[8] = "";

	(void)state;
	rig_put_text("f", "1234567");
	fault_set(rig.b, "get:delay=50,get:cut=3");
	begin = clock_mono_ns();
	assert_int_equal(backend_get(rig.b, "f", 0, 7, fd, 0, NULL), -EAGAIN);
	assert_true(clock_mono_ns() - begin >= 50 * 1000000);
	assert_int_equal(pread_full(fd, got, 7, 0), 3);
	assert_string_equal(got, "123");
	fault_set(rig.b, "");
}

static void
test_fail_nth_of_all(void **state)
{
	struct error err = {0};

	(void)state;
	rig_put_text("f", "x");
	fault_fail_nth(rig.b, 3, -ENOSPC);
	assert_ok(backend_stat(rig.b, "f", NULL, &err));
	assert_ok(backend_remove(rig.b, "absent", &err));
	assert_int_equal(backend_copy(rig.b, "f", "g", NULL, &err), -ENOSPC);
	assert_ok(backend_stat(rig.b, "f", NULL, &err));
	assert_true(fault_calls(rig.b) == 4);
	fault_fail_nth(rig.b, 0, 0);
	assert_true(fault_calls(rig.b) == 0);
}

static void
test_bad_specs(void **state)
{
	static const char *const bad[] = { "x", "nth=", "nth=x", "nth=1:EWHAT", "every=", "every=3",
		"write:nth=1", "put:delay=5:EIO", "cut=-1" };
	struct backend *b = NULL;
	struct error err = {0};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_fails(fault_backend_new(rig.b, bad[i], &b, &err), -EINVAL, bad[i]);
	assert_null(b);
}

const struct CMUnitTest *
fault_tests(size_t *ret_count)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nth_of_an_operation),
		cmocka_unit_test(test_nothing_is_done),
		cmocka_unit_test(test_lost_answer),
		cmocka_unit_test(test_delay_and_cut),
		cmocka_unit_test(test_fail_nth_of_all),
		cmocka_unit_test(test_bad_specs),
	};

	*ret_count = sizeof(tests) / sizeof(tests[0]);
	return tests;
}
