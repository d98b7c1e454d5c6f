/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What is counted below directories, against a walk of the tree: after whatever was renamed,
 * linked, exchanged, refused; and that limits hold to the byte.
 */
#include "index/index.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct rig {
	char dir[64];
	struct index *ix;
	unsigned seed;
};

static const struct inode file_tmpl = { .mode = S_IFREG | 0644, .state = OBJECT_OPEN,
	.generation = 1, .ctime = 5, .mtime = 5 };
static const struct inode dir_tmpl = { .mode = S_IFDIR | 0755, .ctime = 5, .mtime = 5 };
static const struct quiet quiet = { .now = 1, .due = 2, .limit = 60 };

static void
rig_open(struct rig *rig)
{
	struct index_options opt = { .dir = rig->dir, .life = "one boot" };
	struct error err = { 0 };
	enum index_end end;

	if (index_open(&opt, &rig->ix, &end, &err) < 0)
		fail_msg("%s", error_text(&err));
	assert_int_equal(index_recovered(rig->ix, "one boot"), 0);
}

static void
rig_up(struct rig *rig)
{
	*rig = (struct rig){ .dir = "/var/tmp/tbfs-usage.XXXXXX", .seed = 7 };
	assert_non_null(mkdtemp(rig->dir));
	rig_open(rig);
}

static void
rig_down(struct rig *rig)
{
	struct dirent *e;
	DIR *d;

	index_close(rig->ix, true);
	d = opendir(rig->dir);
	while ((e = readdir(d)) != NULL)
		(void)unlinkat(dirfd(d), e->d_name, 0);
	(void)closedir(d);
	assert_int_equal(rmdir(rig->dir), 0);
}

static unsigned
pick(struct rig *rig, unsigned n)
{
	return (unsigned)rand_r(&rig->seed) % n;
}

static uint64_t
make(struct rig *rig, uint64_t parent, const char *name, const struct inode *tmpl)
{
	struct inode i;

	assert_int_equal(index_create(rig->ix, parent, name, tmpl, NULL, &i), 0);
	return i.ino;
}

static void
resize(struct rig *rig, uint64_t ino, uint64_t size)
{
	struct staged_stat st = { .size = size, .mtime = 9 };

	assert_int_equal(index_mark_flushed(rig->ix, ino, &st, &quiet), 0);
}

static void
assert_usage(struct rig *rig, uint64_t dir, int64_t bytes, int64_t files)
{
	struct usage u;

	assert_int_equal(index_usage(rig->ix, dir, &u), 0);
	assert_int_equal(u.bytes, bytes);
	assert_int_equal(u.files, files);
}

/* ---- a walk ---- */

enum { ENTRIES_MAX = 4096 };

struct listing {
	struct inode inodes[ENTRIES_MAX];
	char names[ENTRIES_MAX][16];
	size_t n;
};

static bool
listed(void *arg, const struct index_entry *e)
{
	struct listing *l = arg;

	assert_true(l->n < ENTRIES_MAX);
	(void)snprintf(l->names[l->n], sizeof(l->names[0]), "%s", e->name);
	l->inodes[l->n++] = e->inode;
	return true;
}

/* What is below `dir` by the rules: each inode where its oldest name stands, nothing derived;
 * and that the index says the same there. */
static struct usage
walk(struct rig *rig, uint64_t dir)
{
	struct listing *l = calloc(1, sizeof(*l));
	struct usage sum = { 0 };
	size_t i;

	assert_int_equal(index_readdir(rig->ix, dir, 0, listed, l), 0);
	for (i = 0; i < l->n; i++) {
		const struct inode *e = &l->inodes[i];
		char name[INDEX_NAME_MAX + 1];
		uint64_t parent;

		if (S_ISDIR(e->mode)) {
			struct usage below = walk(rig, e->ino);

			sum.bytes += below.bytes;
			sum.files += below.files;
			continue;
		}
		assert_int_equal(index_place(rig->ix, e->ino, &parent, name), 0);
		if ((e->flags & INODE_DERIVED) != 0 || parent != dir || strcmp(name, l->names[i]) != 0)
			continue;
		sum.bytes += S_ISREG(e->mode) ? (int64_t)e->size : 0;
		sum.files++;
	}
	free(l);
	assert_usage(rig, dir, sum.bytes, sum.files);
	return sum;
}

/* ---- random programs ---- */

enum { DIRS = 12, NAMES = 24, STEPS = 4000, LIMITED = 3 };

struct program {
	struct rig rig;
	uint64_t dirs[DIRS];		/* 0: removed */
	unsigned refused;
};

static void
name_of(struct program *p, char ret_name[16])
{
	unsigned n = pick(&p->rig, NAMES);

	(void)snprintf(ret_name, 16, n % 4 == 0 ? "d%u" : "f%u", n);
}

static uint64_t
dir_of(struct program *p)
{
	uint64_t dir = p->dirs[pick(&p->rig, DIRS)];

	return dir == 0 ? INDEX_ROOT : dir;
}

static void
note_dirs(struct program *p, const struct inode *made, uint64_t gone)
{
	size_t i;

	for (i = 0; i < DIRS; i++) {
		if (p->dirs[i] == gone && gone != 0)
			p->dirs[i] = 0;
		if (p->dirs[i] == 0 && made != NULL && S_ISDIR(made->mode)) {
			p->dirs[i] = made->ino;
			made = NULL;
		}
	}
}

static void
step_create(struct program *p, const char *name)
{
	struct inode tmpl = name[0] == 'd' ? dir_tmpl : file_tmpl, i;
	uint64_t parent = dir_of(p);
	struct inode dir;
	int r;

	assert_int_equal(index_get(p->rig.ix, parent, &dir), 0);
	tmpl.flags = dir.flags & INODE_DERIVED;
	r = index_create(p->rig.ix, parent, name, &tmpl, NULL, &i);
	p->refused += r == -EDQUOT;
	if (r == 0)
		note_dirs(p, &i, 0);
	if (r == 0 && S_ISREG(i.mode))
		resize(&p->rig, i.ino, pick(&p->rig, 1000));
}

static void
step_remove(struct program *p, const char *name)
{
	uint64_t parent = dir_of(p);
	struct inode i;

	if (name[0] == 'f' && index_unlink(p->rig.ix, parent, name, 8, &i) == 0 && i.nlink == 0)
		assert_int_equal(index_reap(p->rig.ix, i.ino) >= 0, 1);
	if (name[0] == 'd' && index_rmdir(p->rig.ix, parent, name, INDEX_RMDIR_USER, 8, &i) == 0) {
		note_dirs(p, NULL, i.ino);
		assert_int_equal(index_reap(p->rig.ix, i.ino) >= 0, 1);
	}
}

/* Every third one makes derived what it moves, or the other way round. */
static void
step_rename(struct program *p, const char *name, const char *newname)
{
	unsigned flags = pick(&p->rig, 3) == 0 ? INDEX_EXCHANGE : 0;
	struct index_renamed done;
	int r;

	if (pick(&p->rig, 3) == 0)
		flags |= INDEX_SET_DERIVED | (pick(&p->rig, 2) ? INDEX_NEW_IS_DERIVED : 0) |
		    (pick(&p->rig, 2) ? INDEX_OLD_IS_DERIVED : 0);
	r = index_rename(p->rig.ix, dir_of(p), name, dir_of(p), newname, flags, &quiet, &done);
	p->refused += r == -EDQUOT;
	if (r == 0 && (flags & INDEX_EXCHANGE) == 0 && done.other.ino != 0 && done.other.nlink == 0) {
		note_dirs(p, NULL, done.other.ino);
		assert_int_equal(index_reap(p->rig.ix, done.other.ino) >= 0, 1);
	}
}

static void
step_link(struct program *p, const char *name, const char *newname)
{
	uint64_t parent = dir_of(p);
	struct inode i;

	if (index_lookup(p->rig.ix, parent, name, &i) == 0 && S_ISREG(i.mode))
		(void)index_link(p->rig.ix, i.ino, dir_of(p), newname, 8, &i);
}

static void
step_resize(struct program *p, const char *name)
{
	struct inode i;

	if (index_lookup(p->rig.ix, dir_of(p), name, &i) == 0 && S_ISREG(i.mode))
		resize(&p->rig, i.ino, pick(&p->rig, 1000));
}

static void
test_counts_are_what_a_walk_finds(void **state)
{
	struct usage limit = { .bytes = 4000, .files = 6 };
	struct program p = { 0 };
	unsigned i;

	(void)state;
	rig_up(&p.rig);
	for (i = 0; i < LIMITED; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "d%u", i * 4);
		p.dirs[i] = make(&p.rig, INDEX_ROOT, name, &dir_tmpl);
		assert_int_equal(index_quota_set(p.rig.ix, p.dirs[i], &limit), 0);
	}
	for (i = 0; i < STEPS; i++) {
		char name[16], newname[16];

		name_of(&p, name);
		name_of(&p, newname);
		switch (pick(&p.rig, 6)) {
		case 0: case 1: step_create(&p, name); break;
		case 2: step_remove(&p, name); break;
		case 3: step_rename(&p, name, newname); break;
		case 4: step_link(&p, name, newname); break;
		default: step_resize(&p, name); break;
		}
		if (i % 50 == 0)
			(void)walk(&p.rig, INDEX_ROOT);
		if (i % 1000 == 999) {
			index_close(p.rig.ix, true);
			rig_open(&p.rig);
			(void)walk(&p.rig, INDEX_ROOT);
		}
	}
	/* A limit that nothing ever met would prove little. */
	assert_true(p.refused > 0);
	rig_down(&p.rig);
}

/* ---- limits ---- */

static void
test_a_tree_is_full_to_the_byte(void **state)
{
	struct usage limit = { .bytes = 100, .files = 2 };
	struct inode i;
	struct rig rig;
	uint64_t dir, sub, file, other;
	struct quota room;

	(void)state;
	rig_up(&rig);
	dir = make(&rig, INDEX_ROOT, "q", &dir_tmpl);
	sub = make(&rig, dir, "sub", &dir_tmpl);
	assert_int_equal(index_quota_room(rig.ix, sub, &room), -ENOENT);
	assert_int_equal(index_quota_set(rig.ix, dir, &limit), 0);
	file = make(&rig, sub, "a", &file_tmpl);
	assert_int_equal(index_meter_begin(rig.ix, file), 1);
	assert_int_equal(index_meter_grow(rig.ix, file, 60), 0);
	other = make(&rig, dir, "b", &file_tmpl);
	assert_int_equal(index_create(rig.ix, dir, "c", &file_tmpl, NULL, &i), -EDQUOT);
	/* A name that is taken is that first. */
	assert_int_equal(index_create(rig.ix, dir, "b", &file_tmpl, NULL, &i), -EEXIST);
	assert_int_equal(index_meter_begin(rig.ix, other), 1);
	assert_int_equal(index_meter_grow(rig.ix, other, 41), -EDQUOT);
	assert_int_equal(index_meter_grow(rig.ix, other, 40), 0);
	assert_int_equal(index_meter_grow(rig.ix, file, 50), 0);
	assert_usage(&rig, dir, 100, 2);
	/* Charged, but no row knows it yet: both places count it. */
	assert_int_equal(index_quota_room(rig.ix, file, &room), 0);
	assert_int_equal(room.used.bytes, 100);
	resize(&rig, file, 60);
	index_meter_cut(rig.ix, other, 0);
	assert_usage(&rig, dir, 60, 2);
	/* What is metered moves with what is charged. */
	assert_int_equal(index_meter_grow(rig.ix, other, 30), 0);
	{
		struct index_renamed done;

		assert_int_equal(index_rename(rig.ix, dir, "b", INDEX_ROOT, "b", 0, &quiet, &done), 0);
	}
	assert_usage(&rig, dir, 60, 1);
	assert_usage(&rig, INDEX_ROOT, 90, 2);
	/* At the end it is the row that counts, which never heard of the 30. */
	index_meter_end(rig.ix, other);
	index_meter_end(rig.ix, file);
	assert_usage(&rig, INDEX_ROOT, 60, 2);
	rig_down(&rig);
}

static void
test_a_limit_stays_with_its_directory(void **state)
{
	struct usage limit = { .files = 1 }, none = { 0 };
	struct index_renamed done;
	struct inode i;
	struct rig rig;
	uint64_t dir;

	(void)state;
	rig_up(&rig);
	dir = make(&rig, INDEX_ROOT, "q", &dir_tmpl);
	assert_int_equal(index_quota_set(rig.ix, dir, &limit), 0);
	assert_int_equal(index_rename(rig.ix, INDEX_ROOT, "q", INDEX_ROOT, "p", 0, &quiet, &done), 0);
	index_close(rig.ix, true);
	rig_open(&rig);
	(void)make(&rig, dir, "a", &file_tmpl);
	assert_int_equal(index_create(rig.ix, dir, "b", &file_tmpl, NULL, &i), -EDQUOT);
	/* One that takes another's place is none more. */
	(void)make(&rig, INDEX_ROOT, "a", &file_tmpl);
	assert_int_equal(index_rename(rig.ix, INDEX_ROOT, "a", dir, "b", 0, &quiet, &done), -EDQUOT);
	assert_int_equal(index_rename(rig.ix, INDEX_ROOT, "a", dir, "a", 0, &quiet, &done), 0);
	assert_int_equal(index_quota_set(rig.ix, dir, &none), 0);
	(void)make(&rig, dir, "b", &file_tmpl);
	assert_int_equal(index_quota_set(rig.ix, 999, &limit), -ENOENT);
	rig_down(&rig);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts_are_what_a_walk_finds),
		cmocka_unit_test(test_a_tree_is_full_to_the_byte),
		cmocka_unit_test(test_a_limit_stays_with_its_directory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
