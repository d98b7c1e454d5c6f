/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The rig of the contract tests; see rig.h. */
#include "rig.h"

#include "backends/fault.h"
#include "backends/local.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/strbuf.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct rig rig;

static const char *
env(const char *name)
{
	const char *value = getenv(name);

	return value != NULL && value[0] != '\0' ? value : NULL;
}

bool
rig_has_s3(void)
{
	return env("TBFS_TEST_S3_ENDPOINT") && env("TBFS_TEST_S3_ACCESS_KEY") &&
	    env("TBFS_TEST_S3_SECRET_KEY") && env("TBFS_TEST_S3_BUCKET");
}

struct s3_options
rig_s3_options(void)
{
	return (struct s3_options){
		.name = "s3", .endpoint = env("TBFS_TEST_S3_ENDPOINT"), .bucket = env("TBFS_TEST_S3_BUCKET"),
		.access_key = env("TBFS_TEST_S3_ACCESS_KEY"), .secret_key = env("TBFS_TEST_S3_SECRET_KEY"),
		.prefix = rig.prefix, .path_style = true, .create_bucket = true,
	};
}

struct backend *
rig_s3_new(const struct s3_options *opt)
{
	struct error err = {0};
	struct backend *b = NULL;

	assert_ok(s3_backend_new(opt, &b, &err));
	return b;
}

static struct backend *
make_local(bool link)
{
	struct local_options opt = { .root_path = rig.root, .link = link };
	struct error err = {0};
	struct backend *b = NULL;

	assert_ok(local_backend_new(&opt, &b, &err));
	return b;
}

int
rig_up(void **state)
{
	struct error err = {0};
	const char *base = env("TBFS_TEST_DIR");
	struct backend *inner;

	rig = (struct rig){ .kind = *state };
	(void)snprintf(rig.dir, sizeof(rig.dir), "%.40s/tbfs-contract.XXXXXX", base ? base : "/var/tmp");
	if (mkdtemp(rig.dir) == NULL)
		return -1;
	(void)snprintf(rig.root, sizeof(rig.root), "%s/store/root", rig.dir);
	(void)snprintf(rig.prefix, sizeof(rig.prefix), "contract-%d-%jd", (int)getpid(),
	    (intmax_t)clock_wall_ns());
	rig.links = strcmp(rig.kind, "local-link") == 0;
	if (strcmp(rig.kind, "fault") == 0) {
		inner = make_local(false);
		assert_ok(fault_backend_new(inner, NULL, &rig.b, &err));
	} else if (strcmp(rig.kind, "s3") == 0) {
		struct s3_options opt = rig_s3_options();

		rig.b = rig_s3_new(&opt);
		rig.is_s3 = true;
	} else {
		rig.b = make_local(rig.links);
	}
	assert_ok(backend_probe(rig.b, &err));
	return 0;
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

int
rig_down(void **state)
{
	CLEANUP_FREE char *keys = NULL;
	char *key, *save = NULL;

	(void)state;
	if (rig.is_s3) {
		keys = rig_list("");
		for (key = strtok_r(keys, "\n", &save); key != NULL; key = strtok_r(NULL, "\n", &save))
			(void)backend_remove(rig.b, key, NULL);
	}
	backend_free(rig.b);
	return nftw(rig.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- bytes ---- */

void
rig_fill(unsigned seed, uint64_t off, void *buf, size_t len)
{
	uint8_t *p = buf;
	size_t i;

	for (i = 0; i < len; i++) {
		uint64_t at = off + i, x = (at >> 3) * 0x9e3779b97f4a7c15u + seed;

		x ^= x >> 29;
		x *= 0xbf58476d1ce4e5b9u;
		p[i] = (uint8_t)(x >> (8 * (at & 7)));
	}
}

int
rig_file(uint64_t size, unsigned seed)
{
	static uint8_t buf[1 << 16];
	char path[96];
	uint64_t off;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/file.XXXXXX", rig.dir);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	for (off = 0; off < size; off += sizeof(buf)) {
		size_t n = size - off < sizeof(buf) ? (size_t)(size - off) : sizeof(buf);

		rig_fill(seed, off, buf, n);
		assert_int_equal(pwrite_full(fd, buf, n, off), 0);
	}
	return fd;
}

int
rig_text_file(const char *text)
{
	int fd = rig_file(0, 0);

	assert_int_equal(pwrite_full(fd, text, strlen(text), 0), 0);
	return fd;
}

void
rig_sum(uint64_t size, unsigned seed, uint8_t ret_sum[SHA256_LEN])
{
	CLEANUP_CLOSE int fd = rig_file(size, seed);

	assert_int_equal(sha256_fd(fd, 0, size, ret_sum), 0);
}

struct object_put
rig_object(int fd, uint64_t size)
{
	return (struct object_put){ .fd = fd, .size = size,
		.meta = { .mtime_ns = 1600000000123456789, .mode = 0100640, .uid = getuid(), .gid = getgid(),
		    .content_type = "image/jpeg" } };
}

void
rig_put(const char *key, uint64_t size, unsigned seed)
{
	CLEANUP_CLOSE int fd = rig_file(size, seed);
	struct object_put put = rig_object(fd, size);
	struct error err = {0};

	assert_ok(backend_put(rig.b, key, &put, NULL, NULL, &err));
}

void
rig_put_text(const char *key, const char *text)
{
	CLEANUP_CLOSE int fd = rig_text_file(text);
	struct object_put put = rig_object(fd, strlen(text));
	struct error err = {0};

	assert_ok(backend_put(rig.b, key, &put, NULL, NULL, &err));
}

bool
rig_range_is(const char *key, uint64_t off, uint64_t len, unsigned seed)
{
	enum { BEFORE = 7, CHUNK = 1 << 16 };
	CLEANUP_CLOSE int fd = rig_file(0, 0);
	CLEANUP_FREE uint8_t *got = malloc(CHUNK), *want = malloc(CHUNK);
	struct error err = {0};
	struct stat st;
	uint64_t done;
	int r = backend_get(rig.b, key, off, len, fd, BEFORE, &err);

	if (r < 0) {
		print_message("get %s: %s\n", key, error_text(&err));
		return false;
	}
	if (fstat(fd, &st) < 0 || (len > 0 && (uint64_t)st.st_size != len + BEFORE))
		return false;
	for (done = 0; done < len; done += CHUNK) {
		size_t n = len - done < CHUNK ? (size_t)(len - done) : CHUNK;

		if (pread_full(fd, got, n, BEFORE + done) != (ssize_t)n)
			return false;
		rig_fill(seed, off + done, want, n);
		if (memcmp(got, want, n) != 0)
			return false;
	}
	return true;
}

bool
rig_is(const char *key, uint64_t size, unsigned seed)
{
	struct backend_tag tag;
	uint8_t sum[SHA256_LEN];
	struct error err = {0};

	if (backend_stat(rig.b, key, &tag, &err) < 0) {
		print_message("stat %s: %s\n", key, error_text(&err));
		return false;
	}
	rig_sum(size, seed, sum);
	return tag.size == size && tag.has_sha256 && memcmp(tag.sha256, sum, SHA256_LEN) == 0 &&
	    rig_range_is(key, 0, size, seed);
}

bool
rig_text_is(const char *key, const char *text)
{
	CLEANUP_CLOSE int fd = rig_file(0, 0);
	char got[256] = "";
	struct backend_tag tag;

	return backend_stat(rig.b, key, &tag, NULL) == 0 && tag.size == strlen(text) &&
	    backend_get(rig.b, key, 0, tag.size, fd, 0, NULL) == 0 &&
	    pread_full(fd, got, sizeof(got) - 1, 0) == (ssize_t)strlen(text) && strcmp(got, text) == 0;
}

bool
rig_absent(const char *key)
{
	return backend_stat(rig.b, key, NULL, NULL) == -ENOENT;
}

static int
collect(void *arg, const char *key, uint64_t size, int64_t mtime_ns)
{
	(void)size, (void)mtime_ns;
	strbuf_addstr(arg, key);
	strbuf_addch(arg, '\n');
	return 0;
}

char *
rig_list(const char *prefix)
{
	struct strbuf keys = STRBUF_INIT;
	struct error err = {0};

	strbuf_addstr(&keys, "");
	assert_ok(backend_list(rig.b, prefix, collect, &keys, &err));
	assert_true(strbuf_ok(&keys));
	return keys.data;
}
