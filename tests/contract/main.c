/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * One contract, every backend: `test-backend [KIND…]`.
 *
 * Without arguments all kinds are tried: local, local-link (objects are hard
 * links of what was put), fault (the injecting wrapper over local) and s3.  s3
 * takes its server from TBFS_TEST_S3_ENDPOINT, _ACCESS_KEY, _SECRET_KEY and
 * _BUCKET (tests/contract/with-server sets them) and is skipped without;
 * its answers that a good server never gives come from a server of our own (bad).
 */
#include "rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef const struct CMUnitTest *tests_fn(size_t *ret_count);

static tests_fn *const local_groups[] = { objects_tests, names_tests, local_tests, NULL };
static tests_fn *const fault_groups[] = { objects_tests, names_tests, local_tests, fault_tests, NULL };
static tests_fn *const s3_groups[] = { objects_tests, names_tests, s3_tests, NULL };
static tests_fn *const bad_groups[] = { s3_bad_tests, s3_options_tests, NULL };

static const struct kind {
	const char *name;
	tests_fn *const *groups;
	bool needs_server, own_rig;
} kinds[] = {
	{ "local", local_groups, false, false },
	{ "local-link", local_groups, false, false },
	{ "fault", fault_groups, false, false },
	{ "bad", bad_groups, false, true },
	{ "s3", s3_groups, true, false },
};

enum { TESTS_MAX = 128 };

static struct {
	const struct kind *kind;
} current;

static int
up(void **state)
{
	*state = (void *)(uintptr_t)current.kind->name;
	return rig_up(state);
}

static int
run(const struct kind *kind)
{
	static struct CMUnitTest all[TESTS_MAX];
	tests_fn *const *group;
	size_t count = 0, n;

	if (kind->needs_server && !rig_has_s3()) {
		print_message("[  SKIPPED ] %s: no server: run it by tests/contract/with-server, or set "
		    "TBFS_TEST_S3_ENDPOINT, _ACCESS_KEY, _SECRET_KEY and _BUCKET\n", kind->name);
		return 0;
	}
	for (group = kind->groups; *group != NULL; group++) {
		const struct CMUnitTest *tests = (*group)(&n);

		memcpy(all + count, tests, n * sizeof(*tests));
		count += n;
	}
	current.kind = kind;
	return _cmocka_run_group_tests(kind->name, all, count, kind->own_rig ? NULL : up,
	    kind->own_rig ? NULL : rig_down);
}

int
main(int argc, char **argv)
{
	int failed = 0, arg, found;
	size_t i;

	for (i = 0; argc == 1 && i < sizeof(kinds) / sizeof(kinds[0]); i++)
		failed += run(&kinds[i]);
	for (arg = 1; arg < argc; arg++) {
		for (found = 0, i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
			if (strcmp(kinds[i].name, argv[arg]) == 0) {
				failed += run(&kinds[i]);
				found = 1;
			}
		}
		if (!found) {
			fprintf(stderr, "no kind of backend is called \"%s\"\n", argv[arg]);
			return 2;
		}
	}
	return failed != 0;
}
