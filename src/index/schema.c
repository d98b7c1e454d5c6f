/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The tables, and how a database file comes to have them: made, checked, upgraded.
 *
 *   1. A file that SQLite calls damaged, or that is no database, is never written to.
 *   2. Before an older schema is upgraded a snapshot is made; a newer one is refused.
 */
#include "index/db.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "index/index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
	SCHEMA_VERSION = 4,
	APPLICATION_ID = 0x74626673,	/* "tbfs" */
};

/* What version 2 added; of each 0: no limit. */
#define SCHEMA_2 \
	"CREATE TABLE quota(dir INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, files INTEGER NOT NULL);"

/* In the order of readdir; id is its cookie, never reused, and kept by a rename, which changes
 * the name and nothing else where the directory stays the same. */
#define SCHEMA_DENTRY \
	"CREATE TABLE dentry(parent INTEGER NOT NULL, id INTEGER NOT NULL, name BLOB NOT NULL," \
	" ino INTEGER NOT NULL, PRIMARY KEY(parent, id)) WITHOUT ROWID;" \
	"CREATE UNIQUE INDEX dentry_name ON dentry(parent, name);" \
	"CREATE INDEX dentry_ino ON dentry(ino, id);"	/* the oldest name first */

/* What version 3 changed: INODE_XATTRS, and the key of dentry. */
#define SCHEMA_3 \
	"UPDATE inode SET flags=flags|8 WHERE ino IN (SELECT ino FROM xattr);" \
	"DROP INDEX dentry_order; DROP INDEX dentry_ino; ALTER TABLE dentry RENAME TO dentry_2;" \
	SCHEMA_DENTRY \
	/* Derived files could come into a directory that was removed: they go. */ \
	"INSERT INTO dentry WITH RECURSIVE live(ino) AS (SELECT 1 UNION SELECT d.ino FROM live l" \
	" JOIN dentry_2 d ON d.parent=l.ino JOIN inode i ON i.ino=d.ino WHERE (i.mode & 61440)=16384)" \
	" SELECT d.parent, d.id, d.name, d.ino FROM dentry_2 d JOIN inode i ON i.ino=d.ino" \
	" WHERE (i.flags & 1)=0 OR d.parent IN (SELECT ino FROM live) ORDER BY d.parent, d.id;" \
	"UPDATE inode SET nlink=0 WHERE (flags & 1)<>0 AND nlink>0" \
	" AND NOT EXISTS(SELECT 1 FROM dentry d WHERE d.ino=inode.ino);" \
	"DROP TABLE dentry_2;"

/* A place of derivatives is one original's. */
#define SCHEMA_PLACE "CREATE UNIQUE INDEX derivation_place ON derivation(keep, path);"

/* What version 4 changed: where two said that it is theirs one has it, and all look once more. */
#define SHARED "WHERE (keep, path) IN (SELECT keep, path FROM derivation GROUP BY 1, 2 HAVING count(*)>1);"
#define SCHEMA_4 \
	"INSERT OR IGNORE INTO work(kind,id,since,due,attempts,stuck,error)" \
	" SELECT 6, ino, 0, 0, 0, 0, '' FROM derivation " SHARED \
	"UPDATE derivation SET version=0, json='' " SHARED \
	"DELETE FROM derivation WHERE ino NOT IN (SELECT min(ino) FROM derivation GROUP BY keep, path);" \
	SCHEMA_PLACE

static const char schema_sql[] =
	"CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;"
	"CREATE TABLE inode("
	" ino INTEGER PRIMARY KEY, mode INTEGER NOT NULL, nlink INTEGER NOT NULL,"
	" uid INTEGER NOT NULL, gid INTEGER NOT NULL, rdev INTEGER NOT NULL, size INTEGER NOT NULL,"
	" atime INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL, btime INTEGER NOT NULL,"
	" flags INTEGER NOT NULL, state INTEGER NOT NULL, generation INTEGER NOT NULL,"
	" synced_generation INTEGER NOT NULL, staged_mtime INTEGER NOT NULL, object INTEGER NOT NULL);"
	"CREATE INDEX inode_state ON inode(state, ino) WHERE state IN (1,2);"
	"CREATE INDEX inode_orphan ON inode(ino) WHERE nlink=0;"
	"CREATE TABLE symlink(ino INTEGER PRIMARY KEY, target BLOB NOT NULL);"
	"CREATE TABLE xattr(ino INTEGER NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL,"
	" PRIMARY KEY(ino, name)) WITHOUT ROWID;"
	SCHEMA_DENTRY
	"CREATE TABLE object(id INTEGER PRIMARY KEY AUTOINCREMENT, status INTEGER NOT NULL,"
	" backend TEXT NOT NULL, key TEXT NOT NULL, ino INTEGER NOT NULL, generation INTEGER NOT NULL,"
	" put_generation INTEGER NOT NULL, size INTEGER NOT NULL, sha256 BLOB, etag TEXT NOT NULL,"
	" seq INTEGER NOT NULL, linked INTEGER NOT NULL, begun INTEGER NOT NULL);"
	"CREATE UNIQUE INDEX object_key ON object(backend, key);"
	"CREATE INDEX object_ino ON object(ino);"
	"CREATE INDEX object_begun ON object(id) WHERE begun<>0;"
	"CREATE TABLE work(kind INTEGER NOT NULL, id INTEGER NOT NULL, since INTEGER NOT NULL,"
	" due INTEGER NOT NULL,"
	" attempts INTEGER NOT NULL, stuck INTEGER NOT NULL, error TEXT NOT NULL,"
	" wait INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(kind, id)) WITHOUT ROWID;"
	"CREATE INDEX work_due ON work(kind, due) WHERE stuck=0;"
	"CREATE TABLE derivation(ino INTEGER PRIMARY KEY, generation INTEGER NOT NULL,"
	" version INTEGER NOT NULL, failed INTEGER NOT NULL, keep INTEGER NOT NULL, path BLOB NOT NULL,"
	" json TEXT NOT NULL);"
	SCHEMA_PLACE
	SCHEMA_2
	"INSERT INTO meta VALUES('object_seq',0),('sequence_limit',2),('clean',1),('life',''),('fresh',1);";

int
run_script(const struct index *ix, sqlite3 *h, const char *sql, struct error *err)
{
	char *message = NULL;
	int r = 0;

	if (sqlite3_exec(h, sql, NULL, NULL, &message) != SQLITE_OK) {
		r = (sqlite3_errcode(h) & 0xff) == SQLITE_FULL ? -ENOSPC : -EIO;
		(void)error_set(err, r, "the index in %s can't be set up: %s", ix->dir, message);
	}
	sqlite3_free(message);
	return r;
}

static int
schema_create(struct index *ix, struct error *err)
{
	sqlite3 *h = ix->writer.handle;
	char root[512];
	int64_t now = clock_wall_ns();
	int r;

	(void)snprintf(root, sizeof(root),
	    "PRAGMA application_id=%d; PRAGMA user_version=%d;"
	    "INSERT INTO inode VALUES(1,16877,2,0,0,0,0,%jd,%jd,%jd,%jd,0,0,0,0,0,0);",
	    APPLICATION_ID, SCHEMA_VERSION, (intmax_t)now, (intmax_t)now, (intmax_t)now, (intmax_t)now);
	r = run_script(ix, h, "BEGIN IMMEDIATE;", err);
	if (r == 0)
		r = run_script(ix, h, schema_sql, err);
	if (r == 0)
		r = run_script(ix, h, root, err);
	if (r == 0)
		r = run_script(ix, h, "COMMIT;", err);
	return r;
}

int
pragma_int(sqlite3 *h, const char *sql, int *ret_value)
{
	sqlite3_stmt *q;
	int rc;

	if (sqlite3_prepare_v2(h, sql, -1, &q, NULL) != SQLITE_OK)
		return -EIO;
	rc = sqlite3_step(q);
	if (rc == SQLITE_ROW)
		*ret_value = sqlite3_column_int(q, 0);
	(void)sqlite3_finalize(q);
	return rc == SQLITE_ROW ? 0 : -EIO;
}

/* 0, or -errno: a byte of the database or its log can't be read from the disk now. */
static int
read_all(const struct index *ix)
{
	static const char *const parts[] = { "", "-wal" };
	char path[4200], buf[65536];
	size_t i;

	for (i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		CLEANUP_CLOSE int fd = -1;
		ssize_t n;

		(void)snprintf(path, sizeof(path), "%s/index.db%s", ix->dir, parts[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			continue;
		do
			n = fd < 0 ? -1 : read(fd, buf, sizeof(buf));
		while (n > 0);
		if (n < 0)
			return -errno;
	}
	return 0;
}

/* SQLite calls it damaged.  It does so too when the disk fails for a moment, or there is no
 * memory: then it stays where it is. */
static int
refuse(struct index *ix, int code, const char *words, struct error *err)
{
	int r = (code & 0xff) == SQLITE_NOMEM ? -ENOMEM : read_all(ix);

	if (r < 0)
		return error_set(err, r, "the index %s/index.db can't be read (%s): %s", ix->dir, strerror(-r),
		    words);
	return index_damaged(ix, words, err);
}

int
schema_verify(sqlite3 *h, char *ret_words, size_t room)
{
	sqlite3_stmt *q;
	bool ok = false;

	if (sqlite3_prepare_v2(h, "PRAGMA quick_check(1)", -1, &q, NULL) != SQLITE_OK) {
		(void)snprintf(ret_words, room, "%s", sqlite3_errmsg(h));
		return -EUCLEAN;
	}
	if (sqlite3_step(q) == SQLITE_ROW) {
		(void)snprintf(ret_words, room, "%s", (const char *)sqlite3_column_text(q, 0));
		ok = strcmp(ret_words, "ok") == 0;
	} else {
		(void)snprintf(ret_words, room, "%s", sqlite3_errmsg(h));
	}
	(void)sqlite3_finalize(q);
	return ok ? 0 : -EUCLEAN;
}

/* From the version that is its place to the next. */
static const char *const upgrades[SCHEMA_VERSION] = { [1] = SCHEMA_2, [2] = SCHEMA_3, [3] = SCHEMA_4 };

/* One transaction, after a copy that can be gone back to. */
static int
schema_upgrade(struct index *ix, int version, struct error *err)
{
	sqlite3 *h = ix->writer.handle;
	char sql[64];
	int r;

	if (version < 1)
		return error_set(err, -EPROTO, "the index %s/index.db has schema %d, which no tbfs ever made",
		    ix->dir, version);
	r = snapshot_write(ix, h, err);
	/* All of it need not fit into memory; there is no savepoint in it to undo. */
	if (r == 0)
		r = run_script(ix, h, "PRAGMA cache_spill=ON; BEGIN IMMEDIATE;", err);
	for (; r == 0 && version < SCHEMA_VERSION; version++)
		r = run_script(ix, h, upgrades[version], err);
	(void)snprintf(sql, sizeof(sql), "PRAGMA user_version=%d; COMMIT; PRAGMA cache_spill=OFF;", SCHEMA_VERSION);
	if (r == 0)
		r = run_script(ix, h, sql, err);
	if (r == 0)
		log_info("the index has schema %d now; what it was is in %s/snapshots", SCHEMA_VERSION, ix->dir);
	return r;
}

int
schema_setup(struct index *ix, struct error *err)
{
	sqlite3 *h = ix->writer.handle;
	int version = 0, id = 0, tables = 0, r;
	char page[64], words[200];

	/* The first statement that reads the file tells whether it is a database at all. */
	if (pragma_int(h, "SELECT count(*) FROM sqlite_schema", &tables) < 0)
		return refuse(ix, sqlite3_errcode(h), sqlite3_errmsg(h), err);
	(void)pragma_int(h, "PRAGMA user_version", &version);
	(void)pragma_int(h, "PRAGMA application_id", &id);
	if (tables > 0 && id != APPLICATION_ID)
		return index_damaged(ix, "it is another program's database", err);
	if (version > SCHEMA_VERSION)
		return error_set(err, -EPROTO, "the index %s/index.db has schema %d, this tbfs knows "
		    "up to %d: install the newer tbfs", ix->dir, version, SCHEMA_VERSION);
	if (tables > 0 && schema_verify(h, words, sizeof(words)) < 0)
		return refuse(ix, sqlite3_errcode(h), words, err);
	(void)snprintf(page, sizeof(page), "PRAGMA page_size=%d;", DB_PAGE_BYTES);
	r = tables > 0 ? 0 : run_script(ix, h, page, err);
	if (r == 0)
		r = run_script(ix, h, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
		    "PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=-16384; PRAGMA temp_store=MEMORY;"
		    /* What is written before its transaction ends is written again then, and in 3.40 with
		     * wrong checksums when a savepoint was undone in between: nothing is. */
		    "PRAGMA cache_spill=OFF;"
		    /* Debian's overwrites what is deleted: a removed file's bytes aren't, nor need its name be. */
		    "PRAGMA secure_delete=OFF;", err);
	if (r == 0 && tables == 0)
		r = schema_create(ix, err);
	else if (r == 0 && version < SCHEMA_VERSION)
		r = schema_upgrade(ix, version, err);
	return r;
}
