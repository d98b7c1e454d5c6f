/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The contract of the local backend: what lies on the disk, links, directories, leftovers. */
#include "rig.h"

#include "backends/local.h"
#include "base/cleanup.h"
#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const char *
in_root(const char *name)
{
	static char path[1200];

	(void)snprintf(path, sizeof(path), "%s/%s", rig.root, name);
	return path;
}

static bool
exists(const char *name)
{
	struct stat st;

	return lstat(in_root(name), &st) == 0;
}

static int
entries(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	int n = 0;

	assert_non_null(dir);
	while ((e = readdir(dir)) != NULL)
		n += e->d_name[0] != '.';
	(void)closedir(dir);
	return n;
}

static void
test_is_a_plain_file(void **state)
{
	struct stat st;

	(void)state;
	rig_put("plain/photo.jpg", 1000, 1);
	assert_int_equal(stat(in_root("plain/photo.jpg"), &st), 0);
	assert_true(st.st_size == 1000);
	assert_int_equal(st.st_mode, 0100640);
	assert_true(st.st_mtim.tv_sec == 1600000000 && st.st_mtim.tv_nsec == 123456789);
	assert_int_equal(st.st_nlink, 1);
}

static void
test_foreign_file(void **state)
{
	CLEANUP_CLOSE int fd = -1;
	struct backend_tag tag;
	struct error err = {0};

	(void)state;
	rig_put("foreign", 1000, 1);
	fd = open(in_root("foreign"), O_WRONLY | O_APPEND);
	assert_int_equal(write_full(fd, "more", 4), 0);
	assert_ok(backend_stat(rig.b, "foreign", &tag, &err));
	assert_true(tag.size == 1004 && !tag.has_sha256);
	assert_ok(backend_copy(rig.b, "foreign", "foreign2", &tag, &err));
	assert_true(tag.size == 1004 && tag.has_sha256);
}

static void
test_remove_prunes(void **state)
{
	struct error err = {0};

	(void)state;
	rig_put_text("prune/a/b/c/x", "x");
	rig_put_text("prune/a/y", "y");
	assert_ok(backend_remove(rig.b, "prune/a/b/c/x", &err));
	assert_false(exists("prune/a/b"));
	assert_true(exists("prune/a/y"));
	assert_ok(backend_remove(rig.b, "prune/a/y", &err));
	assert_false(exists("prune"));
	assert_true(exists(".tbfs/tmp"));
}

static void
test_files_and_directories_collide(void **state)
{
	CLEANUP_CLOSE int fd = rig_text_file("x");
	struct object_put put = rig_object(fd, 1);
	struct error err = {0};

	(void)state;
	rig_put_text("collide/file", "f");
	rig_put_text("collide/dir/x", "x");
	assert_fails(backend_put(rig.b, "collide/file/below", &put, NULL, NULL, &err), -EINVAL, "both");
	assert_fails(backend_put(rig.b, "collide/dir", &put, NULL, NULL, &err), -EINVAL, "both");
	assert_true(rig_text_is("collide/file", "f"));
	assert_true(rig_text_is("collide/dir/x", "x"));
	assert_true(rig_absent("collide/dir"));
	assert_true(rig_absent("collide/file/below"));
	assert_ok(backend_remove(rig.b, "collide/dir", &err));
	assert_ok(backend_remove(rig.b, "collide/file/below", &err));
	assert_true(rig_text_is("collide/dir/x", "x"));
	/* Empty directories that someone left are no obstacle. */
	assert_int_equal(mkdir_parents(AT_FDCWD, in_root("collide/empty/a/b"), 0755), 0);
	assert_int_equal(mkdir_parents(AT_FDCWD, in_root("collide/empty/c"), 0755), 0);
	rig_put_text("collide/empty", "now a file");
	assert_true(rig_text_is("collide/empty", "now a file"));
	assert_int_equal(mkdir_parents(AT_FDCWD, in_root("collide/empty2/a"), 0755), 0);
	put.flags = OBJECT_PUT_IF_ABSENT;
	assert_ok(backend_put(rig.b, "collide/empty2", &put, NULL, NULL, &err));
	assert_fails(backend_put(rig.b, "collide/empty2", &put, NULL, NULL, &err), -EEXIST, "empty2");
}

static void
test_names_too_long_for_a_disk(void **state)
{
	CLEANUP_CLOSE int fd = rig_text_file("x");
	struct object_put put = rig_object(fd, 1);
	struct error err = {0};
	char key[300];

	(void)state;
	memset(key, 'n', 256);
	key[256] = '\0';
	assert_fails(backend_put(rig.b, key, &put, NULL, NULL, &err), -EINVAL, "255 bytes");
	assert_true(rig_absent(key));
	assert_ok(backend_remove(rig.b, key, &err));
}

static void
test_symlinks_are_not_followed(void **state)
{
	CLEANUP_CLOSE int fd = rig_text_file("x");
	struct object_put put = rig_object(fd, 1);
	struct error err = {0};
	char outside[128];

	(void)state;
	(void)snprintf(outside, sizeof(outside), "%s/outside", rig.dir);
	assert_int_equal(mkdir(outside, 0755), 0);
	assert_int_equal(symlink(outside, in_root("away")), 0);
	assert_int_not_equal(backend_put(rig.b, "away/x", &put, NULL, NULL, &err), 0);
	assert_int_equal(entries(outside), 0);
	assert_true(rig_absent("away/x"));
	assert_true(rig_absent("away"));
	assert_int_equal(unlink(in_root("away")), 0);
}

static void
test_temporary_files_are_ours(void **state)
{
	struct local_options opt = { .root_path = rig.root };
	char tmp[128], dead[160];
	struct backend *other = NULL;
	struct error err = {0};
	CLEANUP_CLOSE int fd = -1;
	int before;

	(void)state;
	(void)snprintf(tmp, sizeof(tmp), "%s/.tbfs/tmp", rig.root);
	before = entries(tmp);
	assert_int_equal(before, 1);				/* that of rig.b */
	assert_fails(backend_stat(rig.b, ".tbfs/tmp/x", NULL, &err), -EINVAL, "temporary");
	/* What a killed process leaves: a lock file that nobody holds. */
	(void)snprintf(dead, sizeof(dead), "%s/4711-x", tmp);
	assert_int_equal(mkdir(dead, 0700), 0);
	(void)strcat(dead, "/lock");
	fd = open(dead, O_RDWR | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_int_equal(close(TAKE_FD(fd)), 0);
	strcpy(strrchr(dead, '/'), "/1");
	fd = open(dead, O_RDWR | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_ok(local_backend_new(&opt, &other, &err));
	assert_ok(backend_probe(other, &err));
	assert_int_equal(entries(tmp), 2);			/* rig.b's stays, the dead one's goes */
	rig_put_text("still/works", "x");
	backend_free(other);
	assert_int_equal(entries(tmp), 1);
}

static void
test_nothing_is_left_behind(void **state)
{
	CLEANUP_FREE char *list = NULL;
	char tmp[128], ours[512];
	struct dirent *e;
	DIR *dir;

	(void)state;
	/* After all of the other tests: only the lock is in our temporary directory. */
	(void)snprintf(tmp, sizeof(tmp), "%s/.tbfs/tmp", rig.root);
	dir = opendir(tmp);
	while ((e = readdir(dir)) != NULL)
		if (e->d_name[0] != '.')
			(void)snprintf(ours, sizeof(ours), "%s/%s", tmp, e->d_name);
	(void)closedir(dir);
	assert_int_equal(entries(ours), 1);
	list = rig_list("");
	assert_null(strstr(list, "tmp/"));
	rig_put_text(".tbfs/attr/1", "sidecar");
	free(list);
	list = rig_list(".tbfs/");
	assert_string_equal(list, ".tbfs/attr/1\n");
}

static void
test_no_urls(void **state)
{
	struct error err = {0};
	char *url = NULL;

	(void)state;
	assert_fails(backend_get_url(rig.b, "x", 60, &url, &err), -ENOTSUP, "presigned");
	assert_null(url);
	assert_int_equal(backend_get_url(rig.b, "x", 0, &url, &err), -EINVAL);
	assert_int_equal(backend_get_url(rig.b, "x", 604801, &url, &err), -EINVAL);
}

static void
test_bad_roots(void **state)
{
	struct local_options opt = { .root_path = "relative" };
	CLEANUP_CLOSE int fd = rig_text_file("x");
	struct object_put put = rig_object(fd, 1);
	struct backend *b = NULL;
	struct error err = {0};
	char path[128];

	(void)state;
	assert_fails(local_backend_new(&opt, &b, &err), -EINVAL, "absolute");
	(void)snprintf(path, sizeof(path), "%s/unmounted", rig.dir);
	opt.root_path = path;
	assert_ok(local_backend_new(&opt, &b, &err));
	/* Only probe makes the root: an unplugged disk isn't an empty store. */
	assert_fails(backend_put(b, "x", &put, NULL, NULL, &err), -ENODEV, "local.root_path");
	assert_fails(backend_stat(b, "x", NULL, &err), -ENODEV, "unmounted");
	assert_ok(backend_probe(b, &err));
	assert_ok(backend_put(b, "x", &put, NULL, NULL, &err));
	backend_free(b);
	(void)strcat(path, "/x");			/* a file */
	assert_ok(local_backend_new(&opt, &b, &err));
	assert_fails(backend_probe(b, &err), -EINVAL, path);
	backend_free(b);
	opt.root_path = "/proc/tbfs";
	assert_ok(local_backend_new(&opt, &b, &err));
	assert_int_not_equal(backend_probe(b, &err), 0);
	backend_free(b);
}

/* ---- links ---- */

static void
test_link_and_unshare(void **state)
{
	CLEANUP_CLOSE int fd = rig_file(50000, 31);
	struct object_put put = rig_object(fd, 50000);
	struct backend_tag tag;
	struct error err = {0};
	struct stat staged, object;
	bool linked = !rig.links;

	(void)state;
	assert_int_equal(fchmod(fd, 0604), 0);
	put.flags = OBJECT_PUT_MAY_LINK;
	assert_ok(backend_put(rig.b, "link/a", &put, &tag, &linked, &err));
	assert_int_equal(linked, rig.links);
	assert_int_equal(fstat(fd, &staged), 0);
	assert_int_equal(stat(in_root("link/a"), &object), 0);
	assert_int_equal(staged.st_ino == object.st_ino, rig.links);
	assert_int_equal(staged.st_mode, 0100604);		/* the staging side owns it */
	assert_true(rig_is("link/a", 50000, 31));
	/* The same file again, over itself. */
	assert_ok(backend_put(rig.b, "link/a", &put, NULL, &linked, &err));
	assert_true(rig_is("link/a", 50000, 31));
	assert_int_equal(fstat(fd, &staged), 0);
	assert_int_equal(staged.st_nlink, rig.links ? 2 : 1);
	/* Apart, and then the staged file changes. */
	assert_ok(backend_unshare(rig.b, "link/a", &err));
	assert_ok(backend_unshare(rig.b, "link/a", &err));
	assert_int_equal(pwrite_full(fd, "changed", 7, 0), 0);
	assert_int_equal(fstat(fd, &staged), 0);
	assert_int_equal(staged.st_nlink, 1);
	assert_true(rig_is("link/a", 50000, 31));
	assert_ok(backend_stat(rig.b, "link/a", &tag, &err));
	assert_int_equal(tag.mode, 0100640);
	assert_true(tag.mtime_ns == 1600000000123456789);
}

static void *
unshare_it(void *arg)
{
	struct error err = {0};

	*(int *)arg = backend_unshare(rig.b, "link/gone", &err);
	return NULL;
}

/* Who is about to write to a file that is being removed must not bring its object back. */
static void
test_what_is_removed_while_it_is_unshared_stays_removed(void **state)
{
	CLEANUP_CLOSE int fd = rig_file(300000, 31);
	struct object_put put = rig_object(fd, 300000);
	struct error err = {0};
	pthread_t thread;
	int i, r;

	(void)state;
	put.flags = OBJECT_PUT_MAY_LINK;
	for (i = 0; i < 100; i++) {
		assert_ok(backend_put(rig.b, "link/gone", &put, NULL, NULL, &err));
		assert_int_equal(pthread_create(&thread, NULL, unshare_it, &r), 0);
		(void)usleep((useconds_t)(i * 20));
		assert_ok(backend_remove(rig.b, "link/gone", &err));
		assert_int_equal(pthread_join(thread, NULL), 0);
		assert_int_equal(r, 0);
		assert_int_equal(backend_stat(rig.b, "link/gone", NULL, &err), -ENOENT);
	}
}

static void
test_link_broken_too_late(void **state)
{
	CLEANUP_CLOSE int fd = rig_file(5000, 32);
	struct object_put put = rig_object(fd, 5000);
	struct error err = {0};

	(void)state;
	if (!rig.links)
		return;		/* nothing is shared: nothing can be broken too late */
	put.flags = OBJECT_PUT_MAY_LINK;
	assert_ok(backend_put(rig.b, "link/late", &put, NULL, NULL, &err));
	assert_int_equal(pwrite_full(fd, "changed", 7, 0), 0);
	assert_fails(backend_unshare(rig.b, "link/late", &err), -EIO, "link/late");
	assert_fails(backend_copy(rig.b, "link/late", "link/copy", NULL, &err), -EIO, "damaged");
	assert_true(rig_absent("link/copy"));
}

static void
test_link_of_unlinked_and_longer_files(void **state)
{
	CLEANUP_CLOSE int fd = open(rig.dir, O_TMPFILE | O_RDWR, 0600);
	CLEANUP_CLOSE int longer = rig_file(2000, 33);
	struct object_put put = rig_object(longer, 1000);
	struct error err = {0};
	bool linked = true;

	(void)state;
	put.flags = OBJECT_PUT_MAY_LINK;
	assert_ok(backend_put(rig.b, "link/longer", &put, NULL, &linked, &err));
	assert_false(linked);
	assert_true(rig_is("link/longer", 1000, 33));
	if (fd < 0)
		skip();
	assert_int_equal(pwrite_full(fd, "temporary", 9, 0), 0);
	put.fd = fd;
	put.size = 9;
	assert_ok(backend_put(rig.b, "link/tmpfile", &put, NULL, &linked, &err));
	assert_true(rig_text_is("link/tmpfile", "temporary"));
}

const struct CMUnitTest *
local_tests(size_t *ret_count)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_is_a_plain_file),
		cmocka_unit_test(test_foreign_file),
		cmocka_unit_test(test_remove_prunes),
		cmocka_unit_test(test_files_and_directories_collide),
		cmocka_unit_test(test_names_too_long_for_a_disk),
		cmocka_unit_test(test_symlinks_are_not_followed),
		cmocka_unit_test(test_temporary_files_are_ours),
		cmocka_unit_test(test_no_urls),
		cmocka_unit_test(test_bad_roots),
		cmocka_unit_test(test_link_and_unshare),
		cmocka_unit_test(test_what_is_removed_while_it_is_unshared_stays_removed),
		cmocka_unit_test(test_link_broken_too_late),
		cmocka_unit_test(test_link_of_unlinked_and_longer_files),
		cmocka_unit_test(test_nothing_is_left_behind),
	};

	*ret_count = sizeof(tests) / sizeof(tests[0]);
	return tests;
}
