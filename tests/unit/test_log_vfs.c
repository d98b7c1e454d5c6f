/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The log's writes, gathered: whatever SQLite does (transactions that don't fit into memory,
 * savepoints, checkpoints beside), a commit that was answered is in the files, which are
 * looked at as a killed process would leave them; and one that was refused has left nothing.
 */
#include "index/db.h"
#include "index/index.h"

#include "faulty_vfs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { ROWS = 1500 };

struct rig {
	char dir[64], path[96], copy[96];
	sqlite3 *db, *other;
};

static sqlite3 *
open_db(const char *path, const char *vfs)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs), 0);
	return db;
}

static int64_t
number(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *q;
	int64_t n;

	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &q, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(q), SQLITE_ROW);
	n = sqlite3_column_int64(q, 0);
	(void)sqlite3_finalize(q);
	return n;
}

static void
good(sqlite3 *db)
{
	sqlite3_stmt *q;

	assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check(1)", -1, &q, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(q), SQLITE_ROW);
	assert_string_equal((const char *)sqlite3_column_text(q, 0), "ok");
	(void)sqlite3_finalize(q);
}

static int
run(sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

/* `spill`: transactions that don't fit into a few pages of memory are written before they end.  The
 * index has that switched off: SQLite 3.40 gets checksums wrong where a savepoint is undone then. */
static void
rig_up(struct rig *rig, bool spill)
{
	struct error err = { 0 };

	atomic_store(&fault_countdown, -1);
	(void)snprintf(rig->dir, sizeof(rig->dir), "/var/tmp/tbfs-log.XXXXXX");
	assert_non_null(mkdtemp(rig->dir));
	(void)snprintf(rig->path, sizeof(rig->path), "%s/t.db", rig->dir);
	(void)snprintf(rig->copy, sizeof(rig->copy), "%s/copy.db", rig->dir);
	assert_int_equal(log_vfs_register(&err), 0);
	rig->db = open_db(rig->path, LOG_VFS);
	assert_int_equal(run(rig->db, spill ? "PRAGMA cache_spill=ON" : "PRAGMA cache_spill=OFF"), SQLITE_OK);
	assert_int_equal(run(rig->db, "PRAGMA page_size=1024; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
	    "PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=-64;"
	    "CREATE TABLE t(a INTEGER PRIMARY KEY, b INTEGER UNIQUE, c BLOB); CREATE TABLE n(v);"
	    "INSERT INTO n VALUES(0)"), SQLITE_OK);
	assert_int_equal(run(rig->db, "WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM k"
	    " WHERE i<1500) INSERT INTO t SELECT i, i, zeroblob(100) FROM k"), SQLITE_OK);
	rig->other = open_db(rig->path, LOG_VFS);
}

static void
rig_down(struct rig *rig)
{
	char command[160];

	(void)sqlite3_close(rig->other);
	(void)sqlite3_close(rig->db);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", rig->dir);
	assert_int_equal(system(command), 0);
}

/* What the index itself goes by. */
static void
test_the_index_writes_nothing_before_a_transaction_ends(void **state)
{
	char dir[64] = "/var/tmp/tbfs-log.XXXXXX", command[96];
	struct index_options opt = { .dir = dir, .life = "one boot" };
	enum index_end end;
	struct error err = { 0 };
	struct index *ix;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(index_open(&opt, &ix, &end, &err), 0);
	assert_int_equal(number(ix->writer.handle, "PRAGMA cache_spill"), 0);
	index_close(ix, true);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	assert_int_equal(system(command), 0);
}

/* The files as they are at this moment, opened by a SQLite that knows nothing of us. */
static sqlite3 *
as_killed(const struct rig *rig)
{
	char command[512];

	(void)snprintf(command, sizeof(command), "cd '%s' && rm -f copy.db* && cp t.db copy.db &&"
	    " cp t.db-wal copy.db-wal", rig->dir);
	assert_int_equal(system(command), 0);
	return open_db(rig->copy, NULL);
}

static void
same_as_killed(const struct rig *rig)
{
	static const char *const questions[] = { "SELECT v FROM n", "SELECT count(*) FROM t",
		"SELECT sum(a*b) FROM t", "SELECT sum(length(c)*a) FROM t" };
	sqlite3 *copy = as_killed(rig);
	size_t i;

	good(copy);
	for (i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
		int64_t n = number(rig->db, questions[i]);

		assert_int_equal(number(copy, questions[i]), n);
		assert_int_equal(number(rig->other, questions[i]), n);
	}
	(void)sqlite3_close(copy);
}

/* One of the things that a transaction may do. */
static int
step(sqlite3 *db, int v, bool savepoints)
{
	char sql[200];
	int from = rand() % ROWS, many = rand() % 3 == 0 ? ROWS : rand() % 50;

	switch (rand() % (savepoints ? 6 : 5)) {
	case 0:
		(void)snprintf(sql, sizeof(sql), "UPDATE t SET b=b+%d WHERE a BETWEEN %d AND %d", ROWS * 10, from,
		    from + many);
		break;
	case 1:
		(void)snprintf(sql, sizeof(sql), "UPDATE t SET c=zeroblob(%d) WHERE a BETWEEN %d AND %d",
		    90 + rand() % 40, from, from + many);
		break;
	case 2:
		(void)snprintf(sql, sizeof(sql), "DELETE FROM t WHERE a BETWEEN %d AND %d", from, from + 20);
		break;
	case 3:
		(void)snprintf(sql, sizeof(sql), "INSERT OR IGNORE INTO t VALUES(%d, %d, zeroblob(100))", from,
		    -v - 1);
		break;
	case 5:
		return run(db, "SAVEPOINT member; UPDATE t SET b=b-100000000; ROLLBACK TO member; RELEASE member");
	default:
		return run(db, "SELECT sum(length(c)) FROM t");
	}
	return run(db, sql);
}

static void
answered(bool spill)
{
	struct rig rig;
	char sql[64];
	int v, i;

	rig_up(&rig, spill);
	srand(1);
	for (v = 1; v <= 150; v++) {
		assert_int_equal(run(rig.db, "BEGIN IMMEDIATE"), SQLITE_OK);
		for (i = rand() % 6; i >= 0; i--)
			(void)step(rig.db, v, !spill);
		(void)snprintf(sql, sizeof(sql), "UPDATE n SET v=%d", v);
		assert_int_equal(run(rig.db, sql), SQLITE_OK);
		assert_int_equal(run(rig.db, rand() % 5 == 0 ? "ROLLBACK" : "COMMIT"), SQLITE_OK);
		same_as_killed(&rig);
		if (rand() % 10 == 0)
			assert_int_equal(run(rig.other, "PRAGMA wal_checkpoint(PASSIVE)"), SQLITE_OK);
	}
	good(rig.db);
	rig_down(&rig);
}

static void
test_what_was_answered_is_in_the_files(void **state)
{
	(void)state;
	answered(false);
}

static void
test_so_is_what_did_not_fit_into_memory(void **state)
{
	(void)state;
	answered(true);
}

static void
refused_at(int code, bool spill)
{
	unsigned refused = 0, answered = 0;
	struct rig rig;
	char sql[64];
	int v, i;

	rig_up(&rig, spill);
	srand(2);
	for (v = 1; v <= 250; v++) {
		int rc = run(rig.db, "BEGIN IMMEDIATE");

		fault_code = code;
		atomic_store(&fault_countdown, v % 4 == 0 ? -1 : 1 + rand() % (spill ? 40 : 6));
		for (i = rand() % 6; rc == SQLITE_OK && i >= 0; i--) {
			rc = spill ? SQLITE_OK : run(rig.db, "SAVEPOINT member");
			/* As a group does it: who fails undoes what is his, and the others go on. */
			if (rc == SQLITE_OK && step(rig.db, v, !spill) != SQLITE_OK && !spill)
				rc = run(rig.db, "ROLLBACK TO member");
		}
		/* SQLite may have undone all of it. */
		if (sqlite3_get_autocommit(rig.db))
			rc = SQLITE_ABORT;
		(void)snprintf(sql, sizeof(sql), "UPDATE n SET v=%d", v);
		if (rc == SQLITE_OK)
			rc = run(rig.db, sql);
		if (rc == SQLITE_OK)
			rc = run(rig.db, "COMMIT");
		atomic_store(&fault_countdown, -1);
		if (!sqlite3_get_autocommit(rig.db))
			(void)run(rig.db, "ROLLBACK");
		if (rc == SQLITE_OK) {
			answered++;
			assert_int_equal(number(rig.db, "SELECT v FROM n"), v);
		} else {
			refused++;
			assert_true(number(rig.db, "SELECT v FROM n") < v);
		}
		same_as_killed(&rig);
	}
	good(rig.db);
	assert_true(refused > 10);
	assert_true(answered > 10);
	rig_down(&rig);
}

static void
test_what_a_full_disk_refuses_leaves_nothing(void **state)
{
	(void)state;
	refused_at(SQLITE_FULL, false);
	refused_at(SQLITE_FULL, true);
}

static void
test_what_a_bad_disk_refuses_leaves_nothing(void **state)
{
	(void)state;
	refused_at(SQLITE_IOERR_WRITE, false);
	refused_at(SQLITE_IOERR_WRITE, true);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_index_writes_nothing_before_a_transaction_ends),
		cmocka_unit_test(test_what_was_answered_is_in_the_files),
		cmocka_unit_test(test_so_is_what_did_not_fit_into_memory),
		cmocka_unit_test(test_what_a_full_disk_refuses_leaves_nothing),
		cmocka_unit_test(test_what_a_bad_disk_refuses_leaves_nothing),
	};

	return cmocka_run_group_tests(tests, faulty_vfs_up, NULL);
}
