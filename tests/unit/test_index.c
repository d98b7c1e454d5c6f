/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The index alone: what was answered 0 is there when it is opened again, what failed has
 * left nothing, whoever else was at work and whatever the disk refused.
 */
#include "base/clock.h"
#include "index/index.h"
#include "faulty_vfs.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- an index ---- */

struct rig {
	char dir[64];
	struct index *ix;
	const char *life;
	enum index_end expected;	/* what the next open is to be told */
	bool is_new, recovery_fails;
};

static void
rig_open(struct rig *rig)
{
	struct index_options opt = { .dir = rig->dir, .reserve = 1 << 20, .life = rig->life };
	enum index_end end;
	struct error err = { 0 };

	if (index_open(&opt, &rig->ix, &end, &err) < 0)
		fail_msg("%s", error_text(&err));
	assert_int_equal(end, rig->expected);
	assert_int_equal(index_is_new(rig->ix), rig->is_new);
	if (!rig->recovery_fails) {
		assert_int_equal(index_recovered(rig->ix, rig->life), 0);
		rig->is_new = false;
	}
}

static void
rig_up(struct rig *rig)
{
	atomic_store(&fault_countdown, -1);
	*rig = (struct rig){ .life = "one boot", .expected = INDEX_ENDED_WELL, .is_new = true };
	(void)snprintf(rig->dir, sizeof(rig->dir), "/var/tmp/tbfs-index.XXXXXX");
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

static void
rig_reopen(struct rig *rig)
{
	index_close(rig->ix, true);
	rig_open(rig);
}

static const struct inode file_tmpl = { .mode = S_IFREG | 0644, .state = OBJECT_OPEN,
	.generation = 1, .ctime = 5, .mtime = 5 };
static const struct inode dir_tmpl = { .mode = S_IFDIR | 0755, .ctime = 5, .mtime = 5 };
static const struct quiet quiet = { .now = 1, .due = 2, .limit = 60 };

static uint64_t
rig_dir(struct rig *rig, const char *name)
{
	struct inode dir;

	assert_int_equal(index_create(rig->ix, INDEX_ROOT, name, &dir_tmpl, NULL, &dir), 0);
	return dir.ino;
}

struct listed {
	unsigned n;
	uint64_t last;
};

static bool
listed_one(void *arg, const struct index_entry *e)
{
	struct listed *l = arg;

	assert_true(e->cookie > l->last);
	l->last = e->cookie;
	l->n++;
	return true;
}

static unsigned
rig_count(struct rig *rig, uint64_t dir)
{
	struct listed l = { 0 };

	assert_int_equal(index_readdir(rig->ix, dir, 0, listed_one, &l), 0);
	return l.n;
}

/* ---- many at once ---- */

enum { THREADS = 8, NAMES = 400 };

struct crowd {
	struct rig *rig;
	uint64_t dir;
	unsigned first;
	_Atomic unsigned *made;		/* how often a name was made */
	int wrong;			/* an answer that none of these calls may give; 0: none */
};

/* Every thread makes every name, each beginning elsewhere: one wins, the others are told. */
static void *
crowd_run(void *arg)
{
	struct crowd *c = arg;
	struct inode inode;
	unsigned i;

	for (i = 0; i < NAMES; i++) {
		unsigned n = (c->first + i) % NAMES;
		char name[16];
		int r;

		(void)snprintf(name, sizeof(name), "f%u", n);
		r = index_create(c->rig->ix, c->dir, name, &file_tmpl, NULL, &inode);
		if (r == 0)
			atomic_fetch_add(&c->made[n], 1);
		else if (r != -EEXIST)
			c->wrong = r;
		r = index_lookup(c->rig->ix, c->dir, name, &inode);
		if (r != 0)
			c->wrong = r;
	}
	return NULL;
}

static void
test_a_group_commit_is_many_transactions(void **state)
{
	static _Atomic unsigned made[NAMES];
	struct crowd crowd[THREADS];
	struct index_counts before, after;
	pthread_t threads[THREADS];
	struct rig rig;
	uint64_t dir;
	unsigned i;

	(void)state;
	rig_up(&rig);
	dir = rig_dir(&rig, "d");
	index_counts(rig.ix, &before);
	for (i = 0; i < THREADS; i++) {
		crowd[i] = (struct crowd){ &rig, dir, i * NAMES / THREADS, made, 0 };
		assert_int_equal(pthread_create(&threads[i], NULL, crowd_run, &crowd[i]), 0);
	}
	for (i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	index_counts(rig.ix, &after);
	for (i = 0; i < THREADS; i++)
		assert_int_equal(crowd[i].wrong, 0);
	for (i = 0; i < NAMES; i++)
		assert_int_equal(made[i], 1);
	/* Failed ones commit nothing, and those that met share one. */
	assert_true(after.commits - before.commits <= NAMES);
	assert_int_equal(index_changes(rig.ix) > 0, 1);
	assert_int_equal(rig_count(&rig, dir), NAMES);
	rig_reopen(&rig);
	assert_int_equal(rig_count(&rig, dir), NAMES);
	rig_down(&rig);
}

/* ---- every write refused in turn ---- */

/* What a file goes through; `done` counts the steps that were answered 0. */
static int
life(struct rig *rig, uint64_t dir, unsigned *done)
{
	struct staged_stat staged = { .size = 7, .mtime = 9, .ctime = 9 };
	struct index_renamed renamed;
	struct object stored;
	struct inode inode;
	struct upload up;
	int r = index_create(rig->ix, dir, "a", &file_tmpl, NULL, &inode);

	*done = 0;
	if (r < 0)
		return r;
	*done = 1;
	r = index_mark_flushed(rig->ix, inode.ino, &staged, &quiet);
	if (r < 0)
		return r;
	*done = 2;
	r = index_mark_quiet(rig->ix, inode.ino, inode.generation, true, &staged, &inode);
	if (r < 0)
		return r;
	*done = 3;
	r = index_upload_begin(rig->ix, inode.ino, inode.generation, "local", "d/a", false, 10, &up);
	if (r < 0)
		return r;
	*done = 4;
	stored = up.object;
	stored.size = 7;
	r = index_upload_done(rig->ix, &up, &stored, 11);
	if (r < 0)
		return r;
	*done = 5;
	r = index_rename(rig->ix, dir, "a", dir, "b", 0, &quiet, &renamed);
	if (r < 0)
		return r;
	*done = 6;
	r = index_unlink(rig->ix, dir, "b", 12, &inode);
	if (r < 0)
		return r;
	*done = 7;
	r = index_reap(rig->ix, inode.ino);
	if (r < 0)
		return r;
	*done = 8;
	return index_sync(rig->ix);
}

static void
life_check(struct rig *rig, uint64_t dir, unsigned done)
{
	static const enum object_state states[] = { 0, OBJECT_OPEN, OBJECT_OPEN, OBJECT_DIRTY,
		OBJECT_DIRTY, OBJECT_STORED, OBJECT_STORED };
	struct inode a, b;
	int ra = index_lookup(rig->ix, dir, "a", &a), rb = index_lookup(rig->ix, dir, "b", &b);

	assert_int_equal(ra, done >= 1 && done <= 5 ? 0 : -ENOENT);
	assert_int_equal(rb, done == 6 ? 0 : -ENOENT);
	if (ra == 0 || rb == 0) {
		const struct inode *i = ra == 0 ? &a : &b;

		assert_int_equal(i->state, states[done]);
		assert_int_equal(i->size, done >= 2 ? 7 : 0);
		assert_int_equal(i->object != 0, done >= 5);
	}
}

static void
every_fault(int code, int expected)
{
	long n;

	for (n = 1; ; n++) {
		unsigned done;
		struct rig rig;
		uint64_t dir;
		int r;

		rig_up(&rig);
		dir = rig_dir(&rig, "d");
		fault_code = code;
		atomic_store(&fault_countdown, n);
		r = life(&rig, dir, &done);
		if (atomic_load(&fault_countdown) > 0) {	/* there is no nth call: all are covered */
			assert_int_equal(r, 0);
			rig_down(&rig);
			break;
		}
		atomic_store(&fault_countdown, -1);
		assert_int_equal(r, expected);
		life_check(&rig, dir, done);
		rig_reopen(&rig);			/* which verifies every page */
		life_check(&rig, dir, done);
		rig_down(&rig);
	}
	assert_true(n > 7);		/* a commit is one write, and there are seven */
}

static void
test_every_io_error_leaves_what_was_answered(void **state)
{
	(void)state;
	every_fault(SQLITE_IOERR_WRITE, -EIO);
}

static void
test_every_full_disk_leaves_what_was_answered(void **state)
{
	(void)state;
	every_fault(SQLITE_FULL, -ENOSPC);
}

/* A crowd whose writes are refused now and then: who was told 0 has its file, nobody else. */
static void *
refused_run(void *arg)
{
	struct crowd *c = arg;
	struct inode inode;
	unsigned i;

	for (i = 0; i < NAMES; i++) {
		char name[16];

		if (i % 40 == 7)
			atomic_store(&fault_countdown, 5);
		(void)snprintf(name, sizeof(name), "t%u-%u", c->first, i);
		if (index_create(c->rig->ix, c->dir, name, &file_tmpl, NULL, &inode) == 0)
			atomic_fetch_add(&c->made[c->first * NAMES + i], 1);
	}
	return NULL;
}

static void
test_a_refused_group_is_nobodys(void **state)
{
	static _Atomic unsigned made[THREADS * NAMES];
	struct crowd crowd[THREADS];
	pthread_t threads[THREADS];
	struct inode inode;
	struct rig rig;
	unsigned i, refusals = 0;
	uint64_t dir;

	(void)state;
	rig_up(&rig);
	dir = rig_dir(&rig, "d");
	fault_code = SQLITE_FULL;
	for (i = 0; i < THREADS; i++) {
		crowd[i] = (struct crowd){ &rig, dir, i, made, 0 };
		assert_int_equal(pthread_create(&threads[i], NULL, refused_run, &crowd[i]), 0);
	}
	for (i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	atomic_store(&fault_countdown, -1);
	rig_reopen(&rig);
	for (i = 0; i < THREADS * NAMES; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "t%u-%u", i / NAMES, i % NAMES);
		assert_int_equal(index_lookup(rig.ix, dir, name, &inode), made[i] ? 0 : -ENOENT);
		refusals += !made[i];
	}
	assert_true(refusals > 0);
	rig_down(&rig);
}

/* ---- transactions of many pages ---- */

enum { MANY = 2000 };

/* How many of the directory's files count as derived. */
static unsigned
derived_count(struct rig *rig, uint64_t dir)
{
	struct inode inode;
	char name[16];
	unsigned i, n = 0;

	for (i = 0; i < MANY; i++) {
		(void)snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(index_lookup(rig->ix, dir, name, &inode), 0);
		n += (inode.flags & INODE_DERIVED) != 0;
	}
	return n;
}

/* More than is gathered for one write: whichever of them fails, all of it is done or nothing. */
static void
test_a_large_transaction_is_whole_or_not_at_all(void **state)
{
	struct index_renamed renamed;
	struct inode inode;
	uint64_t dir;
	unsigned i;
	long n;

	(void)state;
	for (n = 1; ; n++) {
		struct rig rig;
		unsigned flags = INDEX_SET_DERIVED | INDEX_NEW_IS_DERIVED;
		int r;

		rig_up(&rig);
		dir = rig_dir(&rig, "d");
		for (i = 0; i < MANY; i++) {
			char name[16];

			(void)snprintf(name, sizeof(name), "f%u", i);
			assert_int_equal(index_create(rig.ix, dir, name, &file_tmpl, NULL, &inode), 0);
		}
		fault_code = SQLITE_FULL;
		atomic_store(&fault_countdown, n);
		r = index_rename(rig.ix, INDEX_ROOT, "d", INDEX_ROOT, "thumbs", flags, &quiet, &renamed);
		if (atomic_load(&fault_countdown) <= 0)
			assert_int_equal(r, -ENOSPC);
		else
			assert_int_equal(r, 0);
		atomic_store(&fault_countdown, -1);
		assert_int_equal(derived_count(&rig, dir), r == 0 ? MANY : 0);
		rig_reopen(&rig);
		assert_int_equal(derived_count(&rig, dir), r == 0 ? MANY : 0);
		rig_down(&rig);
		if (r == 0)
			break;
	}
	assert_true(n > 2);
}

/* ---- derived files ---- */

static void
test_nothing_derived_comes_into_a_removed_directory(void **state)
{
	struct inode tmpl = file_tmpl, new, gone;
	struct rig rig;
	uint64_t dir;

	(void)state;
	rig_up(&rig);
	dir = rig_dir(&rig, "d");
	tmpl.flags = INODE_DERIVED;
	assert_int_equal(index_create_unnamed(rig.ix, &tmpl, &new), 0);
	assert_int_equal(index_rmdir(rig.ix, INDEX_ROOT, "d", INDEX_RMDIR_USER, 7, &gone), 0);
	assert_int_equal(index_link_over(rig.ix, new.ino, dir, "a", 8, &gone), -ENOENT);
	assert_int_equal(index_reap(rig.ix, dir), 0);
	assert_int_equal(index_link_over(rig.ix, new.ino, dir, "a", 8, &gone), -ENOENT);
	assert_int_equal(rig_count(&rig, dir), 0);
	rig_down(&rig);
}

static void
test_removing_takes_derived_files_along(void **state)
{
	struct inode tmpl = dir_tmpl, thumbs, made, file, gone;
	struct rig rig;
	uint64_t dir;

	(void)state;
	rig_up(&rig);
	dir = rig_dir(&rig, "d");
	tmpl.flags = INODE_DERIVED | INODE_MADE;
	assert_int_equal(index_create(rig.ix, dir, "thumbs", &tmpl, NULL, &thumbs), 0);
	assert_int_equal(index_create(rig.ix, thumbs.ino, "a", &tmpl, NULL, &made), 0);
	assert_int_equal(index_rmdir(rig.ix, dir, "thumbs", INDEX_RMDIR_EMPTY, 7, &gone), -ENOTEMPTY);
	/* Put there by somebody, from a backup: derived by its place, but not for us to drop. */
	assert_int_equal(index_create(rig.ix, thumbs.ino, "b", &file_tmpl, NULL, &file), 0);
	assert_int_equal(index_rmdir(rig.ix, dir, "thumbs", INDEX_RMDIR_USER, 7, &gone), -ENOTEMPTY);
	assert_int_equal(index_unlink(rig.ix, thumbs.ino, "b", 7, &gone), 0);
	assert_int_equal(index_rmdir(rig.ix, dir, "thumbs", INDEX_RMDIR_USER, 7, &gone), 0);
	assert_int_equal(index_create(rig.ix, dir, "mine", &file_tmpl, NULL, &file), 0);
	assert_int_equal(index_rmdir(rig.ix, INDEX_ROOT, "d", INDEX_RMDIR_USER, 7, &gone), -ENOTEMPTY);
	rig_down(&rig);
}

/* ---- rows in memory ---- */

enum { CHANGES = 3000 };

struct changing {
	struct rig *rig;
	uint64_t ino;
	_Atomic int64_t said;		/* the mtime that was answered */
	_Atomic bool ended;
	_Atomic unsigned older;		/* rows that nobody may see any more */
	bool refused[CHANGES + 1];
	_Atomic bool seen[CHANGES + 1];
};

static void *
change_run(void *arg)
{
	struct changing *c = arg;
	struct inode to = { 0 }, row;
	int64_t k;

	for (k = 1; k <= CHANGES; k++) {
		if (k % 2 == 1)
			atomic_store(&fault_countdown, 1);
		to.mtime = k;
		if (index_set_attr(c->rig->ix, c->ino, ATTR_MTIME, &to, &row) == 0)
			atomic_store(&c->said, k);
		else
			c->refused[k] = true;
	}
	atomic_store(&c->ended, true);
	return NULL;
}

static void *
look_run(void *arg)
{
	struct changing *c = arg;
	struct inode row;

	while (!atomic_load(&c->ended)) {
		int64_t said = atomic_load(&c->said);

		if (index_get(c->rig->ix, c->ino, &row) != 0 || row.mtime < said)
			atomic_fetch_add(&c->older, 1);
		atomic_store(&c->seen[row.mtime], true);
	}
	return NULL;
}

static void
test_no_row_is_older_than_what_was_answered(void **state)
{
	static struct changing c;
	pthread_t threads[3];
	struct inode tmpl = file_tmpl, inode;
	unsigned i, refused = 0;
	struct rig rig;

	(void)state;
	rig_up(&rig);
	tmpl.mtime = 0;
	assert_int_equal(index_create(rig.ix, INDEX_ROOT, "a", &tmpl, NULL, &inode), 0);
	c.rig = &rig;
	c.ino = inode.ino;
	fault_code = SQLITE_FULL;
	for (i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, i == 0 ? change_run : look_run, &c), 0);
	for (i = 0; i < 3; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	atomic_store(&fault_countdown, -1);
	assert_int_equal(c.older, 0);
	for (i = 1; i <= CHANGES; i++) {
		refused += c.refused[i];
		assert_false(c.refused[i] && c.seen[i]);
	}
	assert_true(refused > CHANGES / 3);
	rig_down(&rig);
}

/* What is answered without a statement is what stands in the database. */
static void
check_row(struct rig *rig, uint64_t ino)
{
	struct index_counts before, after;
	struct inode row, stored;
	char path[128], sql[512];
	sqlite3_stmt *q;
	sqlite3 *db;

	index_counts(rig->ix, &before);
	assert_int_equal(index_get(rig->ix, ino, &row), 0);
	index_counts(rig->ix, &after);
	assert_int_equal(after.statements, before.statements);
	(void)snprintf(path, sizeof(path), "%s/index.db", rig->dir);
	(void)snprintf(sql, sizeof(sql), "SELECT mode, nlink, uid, gid, rdev, size, atime, mtime, ctime, btime,"
	    " flags, state, generation, synced_generation, staged_mtime, object FROM inode WHERE ino=%ju",
	    (uintmax_t)ino);
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "tbfs-log"), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &q, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(q), SQLITE_ROW);
#define COLUMN(n) sqlite3_column_int64(q, n)
	stored = (struct inode){ .ino = ino, .mode = (uint32_t)COLUMN(0), .nlink = (uint32_t)COLUMN(1),
		.uid = (uint32_t)COLUMN(2), .gid = (uint32_t)COLUMN(3), .rdev = (uint64_t)COLUMN(4),
		.size = (uint64_t)COLUMN(5), .atime = COLUMN(6), .mtime = COLUMN(7), .ctime = COLUMN(8),
		.btime = COLUMN(9), .flags = (uint32_t)COLUMN(10), .state = (enum object_state)COLUMN(11),
		.generation = (uint64_t)COLUMN(12), .synced_generation = (uint64_t)COLUMN(13),
		.staged_mtime = COLUMN(14), .object = (uint64_t)COLUMN(15) };
#undef COLUMN
	(void)sqlite3_finalize(q);
	(void)sqlite3_close(db);
	assert_memory_equal(&row, &stored, sizeof(row));
}

static void
test_changed_rows_are_in_memory(void **state)
{
	struct staged_stat staged = { .size = 77, .mtime = 9, .atime = 8, .ctime = 9, .dense = true };
	struct inode a, b, was, to = { .mode = 0600, .uid = 3, .gid = 4, .mtime = 11, .ctime = 12 };
	struct index_renamed renamed;
	struct rig rig;
	uint64_t dir;

	(void)state;
	rig_up(&rig);
	dir = rig_dir(&rig, "d");
	check_row(&rig, dir);
	assert_int_equal(index_create(rig.ix, dir, "a", &file_tmpl, NULL, &a), 0);
	assert_int_equal(index_create(rig.ix, dir, "b", &file_tmpl, NULL, &b), 0);
	check_row(&rig, a.ino);
	check_row(&rig, dir);
	assert_int_equal(index_set_attr(rig.ix, a.ino, ATTR_MODE | ATTR_UID | ATTR_GID | ATTR_MTIME | ATTR_CTIME,
	    &to, &was), 0);
	check_row(&rig, a.ino);
	assert_int_equal(index_mark_flushed(rig.ix, a.ino, &staged, &quiet), 0);
	check_row(&rig, a.ino);
	assert_int_equal(index_mark_quiet(rig.ix, a.ino, 1, true, &staged, &was), 0);
	check_row(&rig, a.ino);
	assert_int_equal(index_mark_open(rig.ix, a.ino, &was, &was), 0);
	check_row(&rig, a.ino);
	assert_int_equal(index_link(rig.ix, a.ino, INDEX_ROOT, "link", 20, &was), 0);
	check_row(&rig, a.ino);
	check_row(&rig, INDEX_ROOT);
	assert_int_equal(index_rename(rig.ix, dir, "a", INDEX_ROOT, "b", 0, &quiet, &renamed), 0);
	check_row(&rig, a.ino);
	check_row(&rig, dir);
	/* One that fails half way (the name is taken) leaves them as they were. */
	assert_int_equal(index_create(rig.ix, dir, "b", &file_tmpl, NULL, &was), -EEXIST);
	assert_int_equal(index_xattr_set(rig.ix, b.ino, "user.a", "1", 1, INDEX_XATTR_REPLACE, 30), -ENODATA);
	assert_int_equal(index_get(rig.ix, b.ino, &was), 0);
	assert_int_equal(was.ctime, b.ctime);
	check_row(&rig, b.ino);
	check_row(&rig, dir);
	assert_int_equal(index_unlink(rig.ix, dir, "b", 40, &was), 0);
	check_row(&rig, b.ino);
	assert_int_equal(index_reap(rig.ix, b.ino), 0);
	assert_int_equal(index_get(rig.ix, b.ino, &was), -ENOENT);
	rig_down(&rig);
}

/* ---- numbers ---- */

static void
test_numbers_are_never_used_twice(void **state)
{
	struct inode first, second, again;
	struct rig rig;

	(void)state;
	rig_up(&rig);
	assert_int_equal(index_create(rig.ix, INDEX_ROOT, "a", &file_tmpl, NULL, &first), 0);
	assert_int_equal(index_link(rig.ix, first.ino, INDEX_ROOT, "link", 6, &again), 0);
	assert_int_equal(index_create(rig.ix, INDEX_ROOT, "b", &file_tmpl, NULL, &second), 0);
	assert_true(second.ino > first.ino);
	assert_int_equal(index_unlink(rig.ix, INDEX_ROOT, "b", 7, &second), 0);
	assert_int_equal(index_reap(rig.ix, second.ino), 0);
	rig_reopen(&rig);
	assert_int_equal(index_create(rig.ix, INDEX_ROOT, "c", &file_tmpl, NULL, &again), 0);
	assert_true(again.ino > second.ino);
	/* A listing goes by ids: names that came later come later, also other names of old files. */
	assert_int_equal(rig_count(&rig, INDEX_ROOT), 3);
	rig_down(&rig);
}

/* ---- how the last one ended ---- */

/* Open, maybe with a recovery that dies, and end as told. */
static void
live(struct rig *rig, const char *life, enum index_end expected, bool recovery_fails, bool clean)
{
	rig->life = life;
	rig->expected = expected;
	rig->recovery_fails = recovery_fails;
	rig_open(rig);
	index_close(rig->ix, clean);
}

static void
test_a_recovery_that_fails_is_done_again(void **state)
{
	struct rig rig;

	(void)state;
	rig_up(&rig);
	index_close(rig.ix, false);
	live(&rig, "one boot", INDEX_KILLED, false, false);
	live(&rig, "another boot", INDEX_POWER_CUT, true, true);
	live(&rig, "another boot", INDEX_POWER_CUT, true, false);
	live(&rig, "another boot", INDEX_POWER_CUT, false, true);
	live(&rig, "another boot", INDEX_ENDED_WELL, false, true);
	rig.recovery_fails = false;
	rig_open(&rig);
	rig_down(&rig);
}

static bool
count_work(void *arg, const struct work *w)
{
	(void)w;
	++*(unsigned *)arg;
	return true;
}

/* Who waits for a key tries again and again, but nothing has failed. */
static void
test_waiting_is_no_failure(void **state)
{
	struct index_status status;
	unsigned failed = 0;
	struct rig rig;

	(void)state;
	rig_up(&rig);
	assert_int_equal(index_work_add(rig.ix, WORK_RELOCATE, 7, 1), 0);
	assert_int_equal(index_work_defer(rig.ix, WORK_RELOCATE, 7, 2, WAIT_KEY), 0);
	assert_int_equal(index_work_each(rig.ix, WORK_RELOCATE, true, count_work, &failed), 0);
	assert_int_equal(index_status(rig.ix, &status), 0);
	assert_int_equal(failed + status.failing, 0);
	assert_int_equal(index_work_failed(rig.ix, WORK_RELOCATE, 7, 3, false, "no disk"), 0);
	assert_int_equal(index_work_each(rig.ix, WORK_RELOCATE, true, count_work, &failed), 0);
	assert_int_equal(index_status(rig.ix, &status), 0);
	assert_int_equal(failed + status.failing, 2);
	/* The disk is there again, but somebody else has the key. */
	assert_int_equal(index_work_defer(rig.ix, WORK_RELOCATE, 7, 2, WAIT_KEY), 0);
	assert_int_equal(index_status(rig.ix, &status), 0);
	assert_int_equal(status.failing, 0);
	rig_down(&rig);
}

/* A server may go on with what a dead client sent; a directory doesn't. */
static void
test_what_was_cut_off_is_settled_where_there_is_no_server(void **state)
{
	static const char *const backends[] = { "local", "minio" };
	struct staged_stat staged = { .size = 7, .mtime = 9, .ctime = 9 };
	int64_t now = 1000 * NSEC_PER_SEC;
	struct inode inode;
	struct upload up;
	struct rig rig;
	uint64_t dir;
	size_t i;

	(void)state;
	rig_up(&rig);
	dir = rig_dir(&rig, "d");
	for (i = 0; i < 2; i++) {
		assert_int_equal(index_create(rig.ix, dir, backends[i], &file_tmpl, NULL, &inode), 0);
		assert_int_equal(index_mark_flushed(rig.ix, inode.ino, &staged, &quiet), 0);
		assert_int_equal(index_mark_quiet(rig.ix, inode.ino, 1, true, &staged, &inode), 0);
		assert_int_equal(index_upload_begin(rig.ix, inode.ino, 1, backends[i], backends[i], false, now, &up), 0);
		assert_false(up.settle);
		assert_int_equal(index_uploads_cut_off(rig.ix, "local", now), 0);
		assert_int_equal(index_mark_open(rig.ix, inode.ino, &inode, &inode), 0);
		assert_int_equal(index_mark_quiet(rig.ix, inode.ino, 2, true, &staged, &inode), 0);
		assert_int_equal(index_upload_begin(rig.ix, inode.ino, 2, backends[i], backends[i], false, now, &up), 0);
		assert_int_equal(up.settle, i == 1);
	}
	rig_down(&rig);
}

/* A new file of one name whose put is under way, or stored beside. */
static uint64_t
upload_to(struct rig *rig, uint64_t dir, const char *name, const char *key, bool done)
{
	struct staged_stat staged = { .size = 7, .mtime = 9, .ctime = 9 };
	struct object stored = { .size = 7, .linked = true };
	struct inode inode;
	struct upload up;

	assert_int_equal(index_create(rig->ix, dir, name, &file_tmpl, NULL, &inode), 0);
	assert_int_equal(index_mark_flushed(rig->ix, inode.ino, &staged, &quiet), 0);
	assert_int_equal(index_mark_quiet(rig->ix, inode.ino, 1, true, &staged, &inode), 0);
	assert_int_equal(index_upload_begin(rig->ix, inode.ino, 1, "local", key, false, 10, &up), 0);
	if (done)
		assert_int_equal(index_upload_done(rig->ix, &up, &stored, 10), 1);
	return inode.ino;
}

/* Whose work row stayed was asked again at once, for as long as its first upload didn't get through. */
static void
test_who_owns_a_key_without_being_stored_is_asked_once(void **state)
{
	uint64_t dir, first, second;
	struct work work;
	struct move move;
	struct rig rig;

	(void)state;
	rig_up(&rig);
	dir = rig_dir(&rig, "d");
	first = upload_to(&rig, dir, "moved", "d/a", false);
	second = upload_to(&rig, dir, "a", "d/a", true);
	assert_int_equal(index_relocate_begin(rig.ix, second, "d/a", false, 20, &move), -EBUSY);
	assert_int_equal(index_work_get(rig.ix, WORK_RELOCATE, first, &work), 0);
	/* -ESTALE ends the row; -EALREADY would mean that it is done already. */
	assert_int_equal(index_relocate_begin(rig.ix, first, "d/moved", false, 20, &move), -ESTALE);
	rig_down(&rig);
}

/* It may be open for long.  Whoever was at work on its object then has nothing to say of the new one. */
static void
test_who_has_no_name_gives_up_its_key(void **state)
{
	uint64_t dir, first, second;
	struct object was, now;
	struct inode inode;
	struct rig rig;

	(void)state;
	rig_up(&rig);
	dir = rig_dir(&rig, "d");
	first = upload_to(&rig, dir, "a", "d/a", true);
	assert_int_equal(index_get(rig.ix, first, &inode), 0);
	assert_int_equal(index_object_get(rig.ix, inode.object, &was), 0);
	assert_int_equal(index_unlink(rig.ix, dir, "a", 15, &inode), 0);
	second = upload_to(&rig, dir, "a", "d/a", true);
	assert_int_equal(index_get(rig.ix, first, &inode), 0);
	assert_int_equal(inode.object, 0);
	assert_int_equal(inode.state, OBJECT_DIRTY);
	assert_int_equal(index_get(rig.ix, second, &inode), 0);
	assert_int_equal(inode.object, was.id);
	assert_int_equal(index_object_linked(rig.ix, &was, false), 0);
	assert_int_equal(index_object_get(rig.ix, inode.object, &now), 0);
	assert_string_equal(now.key, "d/a");
	assert_true(now.linked);
	assert_int_equal(index_object_linked(rig.ix, &now, false), 0);
	assert_int_equal(index_object_get(rig.ix, inode.object, &now), 0);
	assert_false(now.linked);
	rig_down(&rig);
}

static void
test_an_index_is_new_until_a_recovery_ended(void **state)
{
	struct rig rig = { .life = "one boot", .dir = "/var/tmp/tbfs-index.XXXXXX", .is_new = true };

	(void)state;
	assert_non_null(mkdtemp(rig.dir));
	live(&rig, "one boot", INDEX_ENDED_WELL, true, true);
	live(&rig, "one boot", INDEX_POWER_CUT, true, true);
	live(&rig, "one boot", INDEX_POWER_CUT, false, true);
	assert_false(rig.is_new);
	live(&rig, "one boot", INDEX_ENDED_WELL, false, true);
	rig.expected = INDEX_ENDED_WELL;
	rig_open(&rig);
	rig_down(&rig);
}

/* ---- schema ---- */

/* Run SQL on the file, while nobody has it. */
static void
on_file(struct rig *rig, const char *name, const char *sql, int *ret_value)
{
	char path[256];
	sqlite3_stmt *q;
	sqlite3 *h;

	(void)snprintf(path, sizeof(path), "%s/%s", rig->dir, name);
	assert_int_equal(sqlite3_open(path, &h), SQLITE_OK);
	if (ret_value == NULL) {
		assert_int_equal(sqlite3_exec(h, sql, NULL, NULL, NULL), SQLITE_OK);
	} else {
		assert_int_equal(sqlite3_prepare_v2(h, sql, -1, &q, NULL), SQLITE_OK);
		assert_int_equal(sqlite3_step(q), SQLITE_ROW);
		*ret_value = sqlite3_column_int(q, 0);
		(void)sqlite3_finalize(q);
	}
	assert_int_equal(sqlite3_close(h), SQLITE_OK);
}

/* The only snapshot becomes <dir>/snapshot, which goes with the directory. */
static void
take_snapshot(struct rig *rig)
{
	char dir[128], from[512], to[128];
	struct dirent *e;
	int n = 0;
	DIR *d;

	(void)snprintf(dir, sizeof(dir), "%s/snapshots", rig->dir);
	(void)snprintf(to, sizeof(to), "%s/snapshot", rig->dir);
	d = opendir(dir);
	assert_non_null(d);
	while ((e = readdir(d)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		(void)snprintf(from, sizeof(from), "%s/%s", dir, e->d_name);
		n++;
	}
	(void)closedir(d);
	assert_int_equal(n, 1);
	assert_int_equal(rename(from, to), 0);
	assert_int_equal(rmdir(dir), 0);
}

static void
test_an_older_schema_is_upgraded_after_a_snapshot(void **state)
{
	struct usage limit = { .files = 1 };
	struct derivation derived;
	struct inode inode;
	uint64_t original;
	struct work work;
	struct rig rig;
	char value[8];
	int number;

	(void)state;
	rig_up(&rig);
	assert_int_equal(index_create(rig.ix, INDEX_ROOT, "a", &file_tmpl, NULL, &inode), 0);
	assert_int_equal(index_xattr_set(rig.ix, inode.ino, "user.a", "1", 1, 0, 7), 0);
	index_close(rig.ix, true);
	on_file(&rig, "index.db", "DROP TABLE quota; UPDATE inode SET flags=0; DROP INDEX derivation_place;"
	    "DROP INDEX dentry_name; DROP INDEX dentry_ino; ALTER TABLE dentry RENAME TO dentry_3;"
	    "CREATE TABLE dentry(parent INTEGER NOT NULL, name BLOB NOT NULL, id INTEGER NOT NULL,"
	    " ino INTEGER NOT NULL, PRIMARY KEY(parent, name)) WITHOUT ROWID;"
	    "CREATE INDEX dentry_order ON dentry(parent, id); CREATE INDEX dentry_ino ON dentry(ino);"
	    "INSERT INTO dentry SELECT parent, name, id, ino FROM dentry_3; DROP TABLE dentry_3;"
	    /* What an older one left: a derived file in a directory that was removed. */
	    "INSERT INTO inode SELECT 900, mode, 1, uid, gid, rdev, size, atime, mtime, ctime, btime, 1,"
	    " state, generation, synced_generation, staged_mtime, 0 FROM inode WHERE ino<>1;"
	    "INSERT INTO inode SELECT 901, 16877, 2, uid, gid, rdev, size, atime, mtime, ctime, btime, 1,"
	    " 0, 0, 0, 0, 0 FROM inode WHERE ino=1;"
	    "INSERT INTO dentry VALUES(800, 'thumbs', 901, 901); INSERT INTO dentry VALUES(901, 'lost', 900, 900);"
	    /* Two originals whose derivatives stood at one place, and one by itself. */
	    "INSERT INTO derivation VALUES(910, 1, 1, 0, 1, CAST('a.jpg' AS BLOB), '{}');"
	    "INSERT INTO derivation VALUES(911, 1, 1, 0, 1, CAST('a.jpg' AS BLOB), '{}');"
	    "INSERT INTO derivation VALUES(912, 1, 1, 0, 1, CAST('b.jpg' AS BLOB), '{}');"
	    "PRAGMA user_version=1", NULL);
	rig_open(&rig);
	take_snapshot(&rig);
	on_file(&rig, "snapshot", "PRAGMA user_version", &number);
	assert_int_equal(number, 1);
	on_file(&rig, "snapshot", "SELECT count(*) FROM dentry", &number);
	assert_int_equal(number, 3);
	assert_int_equal(index_get(rig.ix, 900, &inode), 0);
	assert_int_equal(inode.nlink, 0);
	assert_int_equal(index_get(rig.ix, 901, &inode), 0);
	assert_int_equal(inode.nlink, 0);
	assert_int_equal(index_derived_at(rig.ix, 1, "a.jpg", &original), 0);
	assert_int_equal(original, 910);
	assert_int_equal(index_derived_get(rig.ix, 910, &derived), 0);
	assert_int_equal(derived.version, 0);
	assert_string_equal(derived.json, "");
	derivation_release(&derived);
	assert_int_equal(index_derived_get(rig.ix, 911, &derived), -ENOENT);
	assert_int_equal(index_work_get(rig.ix, WORK_DERIVE, 910, &work), 0);
	assert_int_equal(index_work_get(rig.ix, WORK_DERIVE, 911, &work), 0);
	assert_int_equal(index_derived_at(rig.ix, 1, "b.jpg", &original), 0);
	assert_int_equal(original, 912);
	/* What the new one knows works, and what the old one held is there. */
	assert_int_equal(index_lookup(rig.ix, INDEX_ROOT, "a", &inode), 0);
	assert_int_equal(index_xattr_get(rig.ix, inode.ino, "user.a", value, sizeof(value)), 1);
	assert_int_equal(index_quota_set(rig.ix, INDEX_ROOT, &limit), 0);
	rig_reopen(&rig);
	assert_int_equal(index_create(rig.ix, INDEX_ROOT, "b", &file_tmpl, NULL, &inode), -EDQUOT);
	rig_down(&rig);
}

static void
test_a_schema_that_is_not_ours_is_refused(void **state)
{
	struct index_options opt = { .life = "one boot" };
	struct error err = { 0 };
	char sql[64];
	enum index_end end;
	struct rig rig;
	int ours;

	(void)state;
	rig_up(&rig);
	index_close(rig.ix, true);
	opt.dir = rig.dir;
	on_file(&rig, "index.db", "PRAGMA user_version", &ours);
	on_file(&rig, "index.db", "PRAGMA user_version=1000", NULL);
	assert_int_equal(index_open(&opt, &rig.ix, &end, &err), -EPROTO);
	on_file(&rig, "index.db", "PRAGMA user_version=0", NULL);
	assert_int_equal(index_open(&opt, &rig.ix, &end, &err), -EPROTO);
	(void)snprintf(sql, sizeof(sql), "PRAGMA user_version=%d", ours);
	on_file(&rig, "index.db", sql, NULL);
	rig_open(&rig);
	rig_down(&rig);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_group_commit_is_many_transactions),
		cmocka_unit_test(test_every_io_error_leaves_what_was_answered),
		cmocka_unit_test(test_every_full_disk_leaves_what_was_answered),
		cmocka_unit_test(test_a_refused_group_is_nobodys),
		cmocka_unit_test(test_a_large_transaction_is_whole_or_not_at_all),
		cmocka_unit_test(test_nothing_derived_comes_into_a_removed_directory),
		cmocka_unit_test(test_removing_takes_derived_files_along),
		cmocka_unit_test(test_no_row_is_older_than_what_was_answered),
		cmocka_unit_test(test_changed_rows_are_in_memory),
		cmocka_unit_test(test_numbers_are_never_used_twice),
		cmocka_unit_test(test_a_recovery_that_fails_is_done_again),
		cmocka_unit_test(test_waiting_is_no_failure),
		cmocka_unit_test(test_what_was_cut_off_is_settled_where_there_is_no_server),
		cmocka_unit_test(test_who_owns_a_key_without_being_stored_is_asked_once),
		cmocka_unit_test(test_who_has_no_name_gives_up_its_key),
		cmocka_unit_test(test_an_index_is_new_until_a_recovery_ended),
		cmocka_unit_test(test_an_older_schema_is_upgraded_after_a_snapshot),
		cmocka_unit_test(test_a_schema_that_is_not_ours_is_refused),
	};

	return cmocka_run_group_tests(tests, faulty_vfs_up, NULL);
}
