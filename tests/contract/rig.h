/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CONTRACT_RIG_H
#define TBFS_CONTRACT_RIG_H

/*
 * What the contract tests stand on: one backend under test, files with known
 * bytes, and short calls that fail the test with the backend's own sentence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "backends/backend.h"
#include "backends/s3.h"

struct rig {
	const char *kind;		/* "local", "local-link", "fault", "s3" */
	struct backend *b;
	char dir[64];			/* temporary directory of this run */
	char root[96];			/* local: the store */
	char prefix[64];		/* s3: s3.prefix */
	bool is_s3, links;
};

extern struct rig rig;

/* cmocka group fixtures: make and remove rig.b. */
int rig_up(void **state);
int rig_down(void **state);

/* False, with a message, where no S3 server is given by TBFS_TEST_S3_*. */
bool rig_has_s3(void);
struct s3_options rig_s3_options(void);
struct backend *rig_s3_new(const struct s3_options *opt);

/* An open file with `size` bytes that follow from the seed. */
int rig_file(uint64_t size, unsigned seed);
int rig_text_file(const char *text);
/* The bytes at `off` of such a file. */
void rig_fill(unsigned seed, uint64_t off, void *buf, size_t len);
void rig_sum(uint64_t size, unsigned seed, uint8_t ret_sum[SHA256_LEN]);

struct object_put rig_object(int fd, uint64_t size);	/* with some metadata */
/* Store such bytes under key; fails the test if the backend does. */
void rig_put(const char *key, uint64_t size, unsigned seed);
void rig_put_text(const char *key, const char *text);
/* Does [off, off+len) of the object hold the bytes of the seed's file? */
bool rig_range_is(const char *key, uint64_t off, uint64_t len, unsigned seed);
bool rig_is(const char *key, uint64_t size, unsigned seed);
bool rig_text_is(const char *key, const char *text);
bool rig_absent(const char *key);
/* Keys below prefix, joined with '\n' (malloc'd). */
char *rig_list(const char *prefix);

#define assert_ok(call) do { \
	int ok_r_ = (call); \
	if (ok_r_ != 0) \
		fail_msg("%s: %d: %s", #call, ok_r_, error_text(&err)); \
} while (0)

/* The call fails with `want` and a sentence that holds `part`. */
#define assert_fails(call, want, part) do { \
	int fails_r_; \
	err = (struct error){0}; \
	fails_r_ = (call); \
	if (fails_r_ != (want) || err.code != (want) || strstr(err.text, (part)) == NULL) \
		fail_msg("%s: %d instead of %d: %s", #call, fails_r_, (want), err.text); \
} while (0)

/* The groups, each in a file of its own; *ret_count entries. */
const struct CMUnitTest *objects_tests(size_t *ret_count);
const struct CMUnitTest *names_tests(size_t *ret_count);
const struct CMUnitTest *local_tests(size_t *ret_count);
const struct CMUnitTest *fault_tests(size_t *ret_count);
const struct CMUnitTest *s3_tests(size_t *ret_count);
const struct CMUnitTest *s3_bad_tests(size_t *ret_count);
const struct CMUnitTest *s3_options_tests(size_t *ret_count);

#endif
