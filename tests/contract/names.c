/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The contract: keys and listings. */
#include "rig.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const odd[] = {
	"odd/plain", "odd/two words", "odd/ lead", "odd/trail ", "odd/a+b", "odd/100%", "odd/%41",
	"odd/%2F", "odd/'single'", "odd/\"double\"", "odd/$HOME", "odd/-rf", "odd/a&b=c;d", "odd/?query",
	"odd/#frag", "odd/[x]{y}", "odd/<xml>&amp;", "odd/back\\slash", "odd/colon:at@", "odd/tilde~",
	"odd/*star!", "odd/(p),|^`", "odd/Grüße", "odd/日本語", "odd/🎈", "odd/...", "odd/.hidden",
};

static void
test_odd_names(void **state)
{
	CLEANUP_FREE char *keys = NULL;
	struct error err = {0};
	size_t i, n = sizeof(odd) / sizeof(odd[0]);

	(void)state;
	for (i = 0; i < n; i++)
		rig_put_text(odd[i], odd[i]);
	for (i = 0; i < n; i++)
		if (!rig_text_is(odd[i], odd[i]))
			fail_msg("%s holds something else", odd[i]);
	keys = rig_list("odd/");
	for (i = 0; i < n; i++) {
		char line[64], *at;

		(void)snprintf(line, sizeof(line), "%s\n", odd[i]);
		at = strstr(keys, line);
		if (at == NULL || (at != keys && at[-1] != '\n'))
			fail_msg("%s is not listed in:\n%s", odd[i], keys);
	}
	for (i = 0; i < n; i++)
		assert_ok(backend_remove(rig.b, odd[i], &err));
	free(keys);
	keys = rig_list("odd/");
	assert_string_equal(keys, "");
}

static void
test_longest_key(void **state)
{
	char key[BACKEND_KEY_MAX + 2];
	size_t i, len = BACKEND_KEY_MAX;

	(void)state;
	if (rig.is_s3)
		len -= strlen(rig.prefix) + 1;		/* the limit is S3's: the prefix counts */
	for (i = 0; i < len; i++)
		key[i] = i % 200 == 199 ? '/' : 'k';
	key[len] = '\0';
	rig_put_text(key, "long");
	assert_true(rig_text_is(key, "long"));
	assert_int_equal(backend_remove(rig.b, key, NULL), 0);
	key[len] = 'k';
	key[len + 1] = '\0';
	assert_int_equal(backend_stat(rig.b, key, NULL, NULL), -EINVAL);
}

static void
test_illegal_keys(void **state)
{
	static const char *const bad[] = { "", "/", "/a", "a/", "a//b", ".", "..", "a/./b", "a/../b", "a/..",
		"./a", "\x01", "a\nb", "a\x7f", "\xff", "\xc3", "a\xc3/b", "\xc0\xaf", "\xed\xa0\x80",
		"\xe0\x80\xaf", "\xf4\x90\x80\x80", "\xf0\x80\x80\x80", "\x80" };
	static const char *const good[] = { "a", "...", "a/...", ".a", "..a", "é", "\xf4\x8f\xbf\xbf",
		"\xed\x9f\xbf", "\xef\xbf\xbf", "\xc2\x80" };
	struct error err = {0};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (backend_key_ok(bad[i]))
			fail_msg("\"%s\" passes as a key", bad[i]);
		assert_fails(backend_stat(rig.b, bad[i], NULL, &err), -EINVAL, "not a legal key");
		assert_fails(backend_remove(rig.b, bad[i], &err), -EINVAL, "not a legal key");
		assert_fails(backend_copy(rig.b, "a", bad[i], NULL, &err), -EINVAL, "not a legal key");
	}
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (!backend_key_ok(good[i]))
			fail_msg("\"%s\" is refused as a key", good[i]);
}

static void
test_list_order_and_prefix(void **state)
{
	static const char *const keys[] = { "l/b/x", "l/b.txt", "l/b", "l/a", "l/B", "l/b0", "l/é", "l/b/a/z",
		"l2/x" };
	char *list;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (strcmp(keys[i], "l/b") != 0)	/* locally both can't be */
			rig_put_text(keys[i], "x");
	list = rig_list("l/");
	/* The order of the bytes: 'B' < 'a' < 'b', and "b.txt" < "b/" < "b0". */
	assert_string_equal(list, "l/B\nl/a\nl/b.txt\nl/b/a/z\nl/b/x\nl/b0\nl/é\n");
	free(list);
	list = rig_list("l/b");
	assert_string_equal(list, "l/b.txt\nl/b/a/z\nl/b/x\nl/b0\n");
	free(list);
	list = rig_list("l/b/");
	assert_string_equal(list, "l/b/a/z\nl/b/x\n");
	free(list);
	list = rig_list("l/b/x");
	assert_string_equal(list, "l/b/x\n");
	free(list);
	list = rig_list("l/b/x/");
	assert_string_equal(list, "");
	free(list);
	list = rig_list("nothing/here");
	assert_string_equal(list, "");
	free(list);
	list = rig_list("l2");
	assert_string_equal(list, "l2/x\n");
	free(list);
}

struct seen {
	int left;
	uint64_t size;
	int64_t mtime_ns;
};

static int
stop_after(void *arg, const char *key, uint64_t size, int64_t mtime_ns)
{
	struct seen *s = arg;

	(void)key;
	s->size = size;
	s->mtime_ns = mtime_ns;
	return --s->left == 0 ? 12345 : 0;
}

static void
test_list_stops(void **state)
{
	struct seen s = { .left = 2 };
	struct error err = {0};

	(void)state;
	rig_put_text("stop/1", "x");
	rig_put_text("stop/2", "xyz");
	rig_put_text("stop/3", "x");
	assert_int_equal(backend_list(rig.b, "stop/", stop_after, &s, &err), 12345);
	assert_int_equal(s.left, 0);
	assert_true(s.size == 3);
	assert_true(s.mtime_ns > 1500000000LL * 1000000000);
	assert_string_equal(err.text, "");
}

static void
test_list_many(void **state)
{
	enum { COUNT = 2105 };
	CLEANUP_CLOSE int fd = rig_text_file("x");
	struct object_put put = rig_object(fd, 1);
	struct error err = {0};
	CLEANUP_FREE char *list = NULL;
	char *line, *save = NULL, key[64];
	int i, count = rig.is_s3 ? COUNT : 100;

	(void)state;
	for (i = 0; i < count; i++) {
		(void)snprintf(key, sizeof(key), "many/%05d +é", i);
		assert_ok(backend_put(rig.b, key, &put, NULL, NULL, &err));
	}
	list = rig_list("many/");
	for (i = 0, line = strtok_r(list, "\n", &save); line != NULL;
	    i++, line = strtok_r(NULL, "\n", &save)) {
		(void)snprintf(key, sizeof(key), "many/%05d +é", i);
		assert_string_equal(line, key);
	}
	assert_int_equal(i, count);
}

const struct CMUnitTest *
names_tests(size_t *ret_count)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_odd_names),
		cmocka_unit_test(test_longest_key),
		cmocka_unit_test(test_illegal_keys),
		cmocka_unit_test(test_list_order_and_prefix),
		cmocka_unit_test(test_list_stops),
		cmocka_unit_test(test_list_many),
	};

	*ret_count = sizeof(tests) / sizeof(tests[0]);
	return tests;
}
