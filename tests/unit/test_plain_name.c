/* SPDX-License-Identifier: GPL-3.0-or-later */
/* How meta.json spells names: readable ones as they are, and no two alike. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "processor/plain_name.h"

#include <string.h>

static void
assert_spelt(const char *name, const char *spelling, bool escaped)
{
	CLEANUP_STRBUF struct strbuf b = STRBUF_INIT;

	assert_int_equal(plain_name(name, &b), escaped);
	assert_string_equal(b.data, spelling);
}

static void
test_what_is_utf8_stays(void **state)
{
	static const char *const names[] = { "IMG_1.jpg", "été.jpg", "100%.jpg", "a%20b.jpg", "%C3%A9.jpg",
		"50%25.jpg", "c%ff.jpg", "%", "%F", "sub/é%FF.jpg" };
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_spelt(names[i], names[i], false);
}

static void
test_other_bytes_are_escaped(void **state)
{
	(void)state;
	assert_spelt("c\xff.jpg", "c%FF.jpg", true);
	assert_spelt("50%\xe9.jpg", "50%25%E9.jpg", true);
}

/* Each of these is the spelling of the one before it. */
static void
test_no_two_are_spelt_alike(void **state)
{
	(void)state;
	assert_spelt("c%FF.jpg", "c%25FF.jpg", true);
	assert_spelt("c%25FF.jpg", "c%2525FF.jpg", true);
	assert_spelt("c%2525FF.jpg", "c%252525FF.jpg", true);
}

static void
test_base64(void **state)
{
	static const char *const known[][2] = { { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" },
		{ "\xff\xfe", "//4=" } };
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		CLEANUP_STRBUF struct strbuf b = STRBUF_INIT;

		base64_name(known[i][0], &b);
		assert_string_equal(b.data, known[i][1]);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_utf8_stays),
		cmocka_unit_test(test_other_bytes_are_escaped),
		cmocka_unit_test(test_no_two_are_spelt_alike),
		cmocka_unit_test(test_base64),
	};

	return cmocka_run_group_tests_name("plain_name", tests, NULL, NULL);
}
