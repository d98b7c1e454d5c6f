/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The database file: its tables, how it is opened, upgraded, checked, kept small
 * and copied.
 *
 *   1. A file that SQLite calls damaged, or that is no database, is never written
 *      to: opening it fails and names the last verified snapshot.
 *   2. Before an older schema is upgraded a snapshot is made; a newer one is refused.
 *   3. Inode numbers and dentry ids come from one counter whose limit is durable before a
 *      number below it is given out, so that none is used twice, not even after a power cut.
 */
#include "index/db.h"

#include "base/clock.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "index/index.h"
#include "index/usage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	SCHEMA_VERSION = 2,
	APPLICATION_ID = 0x74626673,	/* "tbfs" */
	SEQUENCE_BLOCK = 65536,		/* numbers reserved at a time */
	CHECKPOINT_BYTES = 16 << 20,	/* size of the log that asks for a checkpoint */
	PAGE_BYTES = 1024,		/* rows are small: a commit writes whole pages to the log */
	FRAME_BYTES = PAGE_BYTES + 24,	/* of a page in the log */
	GROW_BYTES = 1 << 20,
	SNAPSHOTS_KEPT = 6,
};

/* What version 2 added; of each 0: no limit. */
#define SCHEMA_2 \
	"CREATE TABLE quota(dir INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, files INTEGER NOT NULL);"

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
	/* id: the readdir cookie, never reused; a rename keeps it. */
	"CREATE TABLE dentry(parent INTEGER NOT NULL, name BLOB NOT NULL, id INTEGER NOT NULL,"
	" ino INTEGER NOT NULL, PRIMARY KEY(parent, name)) WITHOUT ROWID;"
	"CREATE INDEX dentry_order ON dentry(parent, id);"
	"CREATE INDEX dentry_ino ON dentry(ino);"
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
	SCHEMA_2
	"INSERT INTO meta VALUES('object_seq',0),('sequence_limit',2),('clean',1),('life',''),('fresh',1);";

static int
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

/* The newest file in snapshots/, for messages; "none" when there is none. */
static void
newest_snapshot(const struct index *ix, char *ret_name, size_t room)
{
	char path[4096];
	struct dirent *e;
	DIR *d;

	(void)snprintf(ret_name, room, "none");
	(void)snprintf(path, sizeof(path), "%s/snapshots", ix->dir);
	d = opendir(path);
	if (d == NULL)
		return;
	while ((e = readdir(d)) != NULL)
		if (strncmp(e->d_name, "index-", 6) == 0 && strstr(e->d_name, ".db") != NULL &&
		    strstr(e->d_name, ".tmp") == NULL &&
		    (strcmp(ret_name, "none") == 0 || strcmp(e->d_name, ret_name) > 0))
			(void)snprintf(ret_name, room, "%s", e->d_name);
	(void)closedir(d);
}

static int
damaged(const struct index *ix, const char *what, struct error *err)
{
	char name[256];

	newest_snapshot(ix, name, sizeof(name));
	return error_set(err, -EUCLEAN, "the index %s/index.db is damaged (%s) and is left as it is; "
	    "the last verified snapshot is %s%s; set the file aside and restore from it",
	    ix->dir, what, strcmp(name, "none") == 0 ? "" : "snapshots/", name);
}

static int
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

/* quick_check walks every page: what is served was seen whole. */
static int
schema_verify(struct index *ix, sqlite3 *h, struct error *err)
{
	char words[200] = "";
	sqlite3_stmt *q;
	bool ok = false;

	if (sqlite3_prepare_v2(h, "PRAGMA quick_check(1)", -1, &q, NULL) != SQLITE_OK)
		return damaged(ix, sqlite3_errmsg(h), err);
	if (sqlite3_step(q) == SQLITE_ROW) {
		(void)snprintf(words, sizeof(words), "%s", (const char *)sqlite3_column_text(q, 0));
		ok = strcmp(words, "ok") == 0;
	} else {
		(void)snprintf(words, sizeof(words), "%s", sqlite3_errmsg(h));
	}
	(void)sqlite3_finalize(q);
	return ok ? 0 : damaged(ix, words, err);
}

/* ---- snapshots ---- */

static void
prune_snapshots(const char *dir)
{
	struct dirent **names;
	int n = scandir(dir, &names, NULL, alphasort), i, keep = 0;

	for (i = n - 1; i >= 0; i--) {
		if (strncmp(names[i]->d_name, "index-", 6) == 0 && ++keep > SNAPSHOTS_KEPT) {
			char path[4400];

			(void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
			(void)unlink(path);
		}
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

static int
copy_database(struct index *ix, sqlite3 *from, const char *to, struct error *err)
{
	sqlite3_backup *b;
	sqlite3 *h = NULL;
	int r = 0;

	if (sqlite3_open(to, &h) != SQLITE_OK) {
		r = error_set(err, -EIO, "snapshot %s can't be written: %s", to, sqlite3_errmsg(h));
	} else {
		b = sqlite3_backup_init(h, "main", from, "main");
		if (b == NULL || sqlite3_backup_step(b, -1) != SQLITE_DONE)
			r = error_set(err, -EIO, "snapshot %s: %s", to, sqlite3_errmsg(h));
		if (b != NULL)
			(void)sqlite3_backup_finish(b);
		if (r == 0)
			r = schema_verify(ix, h, err);
	}
	(void)sqlite3_close(h);
	return r;
}

/* A verified copy of what the connection `from` sees. */
static int
snapshot_write(struct index *ix, sqlite3 *from, struct error *err)
{
	char dir[4096], tmp[4200], path[4200], stamp[32];
	CLEANUP_CLOSE int fd = -1;
	time_t now = time(NULL);
	struct tm tm;
	int r;

	(void)snprintf(dir, sizeof(dir), "%s/snapshots", ix->dir);
	r = mkdir_parents(AT_FDCWD, dir, 0700);
	if (r < 0)
		return error_set(err, r, "%s can't be made: %s", dir, strerror(-r));
	(void)strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ", gmtime_r(&now, &tm));
	(void)snprintf(path, sizeof(path), "%s/index-%s.db", dir, stamp);
	(void)snprintf(tmp, sizeof(tmp), "%s/index-%s.db.tmp", dir, stamp);
	(void)unlink(tmp);
	r = copy_database(ix, from, tmp, err);
	if (r == 0) {
		fd = open(tmp, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || fsync(fd) < 0 || rename(tmp, path) < 0)
			r = error_set(err, -errno, "snapshot %s: %s", path, strerror(errno));
	}
	if (r < 0) {
		(void)unlink(tmp);
		return r;
	}
	(void)fsync_dirat(AT_FDCWD, dir);
	prune_snapshots(dir);
	return 0;
}

int
index_snapshot(struct index *ix, struct error *err)
{
	uint64_t changes = atomic_load(&ix->changes);
	int r = changes == ix->snapshot_changes ? 0 : snapshot_write(ix, ix->maintenance, err);

	if (r == 0)
		ix->snapshot_changes = changes;
	return r;
}

/* ---- setting up ---- */

/* From the version that is its place to the next. */
static const char *const upgrades[SCHEMA_VERSION] = { [1] = SCHEMA_2 };

/* One transaction, after a copy that can be gone back to. */
static int
schema_upgrade(struct index *ix, int version, struct error *err)
{
	sqlite3 *h = ix->writer.handle;
	char sql[64];
	int r;

	if (version < 1)
		return damaged(ix, "it has no version", err);
	r = snapshot_write(ix, h, err);
	if (r == 0)
		r = run_script(ix, h, "BEGIN IMMEDIATE;", err);
	for (; r == 0 && version < SCHEMA_VERSION; version++)
		r = run_script(ix, h, upgrades[version], err);
	(void)snprintf(sql, sizeof(sql), "PRAGMA user_version=%d; COMMIT;", SCHEMA_VERSION);
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
	char page[64];

	/* The first statement that reads the file tells whether it is a database at all. */
	if (pragma_int(h, "SELECT count(*) FROM sqlite_schema", &tables) < 0)
		return damaged(ix, sqlite3_errmsg(h), err);
	(void)pragma_int(h, "PRAGMA user_version", &version);
	(void)pragma_int(h, "PRAGMA application_id", &id);
	if (tables > 0 && id != APPLICATION_ID)
		return damaged(ix, "it is another program's database", err);
	if (version > SCHEMA_VERSION)
		return error_set(err, -EPROTO, "the index %s/index.db has schema %d, this tbfs knows "
		    "up to %d: install the newer tbfs", ix->dir, version, SCHEMA_VERSION);
	if (tables > 0) {
		r = schema_verify(ix, h, err);
		if (r < 0)
			return r;
	}
	(void)snprintf(page, sizeof(page), "PRAGMA page_size=%d;", PAGE_BYTES);
	r = tables > 0 ? 0 : run_script(ix, h, page, err);
	if (r == 0)
		r = run_script(ix, h, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
		    "PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=-16384; PRAGMA temp_store=MEMORY;", err);
	if (r == 0 && tables == 0)
		r = schema_create(ix, err);
	else if (r == 0 && version < SCHEMA_VERSION)
		r = schema_upgrade(ix, version, err);
	return r;
}

/* Numbers up to the limit in meta may have been given out before: start above it. */
static int
sequence_reserve(struct index *ix, uint64_t limit)
{
	int r;

	r = db_begin(ix);
	if (r == 0)
		r = db_end(ix, db_run(&ix->writer, "UPDATE meta SET value=max(value,?)"
		    " WHERE name='sequence_limit'", "i", (int64_t)limit));
	if (r == 0)
		r = index_sync(ix);
	if (r == 0 && atomic_load(&ix->sequence_limit) < limit)
		atomic_store(&ix->sequence_limit, limit);
	return r;
}

int
sequence_next(struct index *ix, uint64_t *ret_number)
{
	uint64_t number = atomic_fetch_add(&ix->sequence, 1);

	while (number >= atomic_load(&ix->sequence_limit)) {
		int r = sequence_reserve(ix, number + SEQUENCE_BLOCK);

		if (r < 0)
			return r;
	}
	*ret_number = number;
	return 0;
}

/*
 * Blocks for the log beyond its end: on a full disk commits still find room, so that unlink
 * and truncate can make some.  The log keeps its file and its blocks while it is open.
 */
static int
count_frames(void *arg, sqlite3 *h, const char *name, int frames)
{
	struct index *ix = arg;

	(void)h;
	(void)name;
	ix->wal_frames = frames;
	return SQLITE_OK;
}

static void
set_reserve(struct index *ix, uint64_t bytes)
{
	int chunk = GROW_BYTES;

	(void)sqlite3_wal_hook(ix->writer.handle, count_frames, ix);
	/* The database too grows ahead of its need. */
	(void)sqlite3_file_control(ix->writer.handle, NULL, SQLITE_FCNTL_CHUNK_SIZE, &chunk);
	(void)sqlite3_file_control(ix->maintenance, NULL, SQLITE_FCNTL_CHUNK_SIZE, &chunk);
	ix->wal_limit = (int)(bytes / FRAME_BYTES * 3 / 4 < INT_MAX ? bytes / FRAME_BYTES * 3 / 4 : INT_MAX);
	if (bytes > 0 && fallocate(ix->wal_fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes) < 0)
		log_warn("%s: no reserve of %ju bytes can be set aside (%s): on a full disk nothing can "
		    "be removed", ix->dir, (uintmax_t)bytes, strerror(errno));
}

static int
open_connections(struct index *ix, const char *path, const struct index_options *opt,
    enum index_end *ret_end, struct error *err)
{
	const char *life = opt->life != NULL ? opt->life : "";
	int64_t clean = 0, same = 0, limit = 0, fresh = 0;
	char wal[4200];
	int r;

	/* The log and its index take the database's mode. */
	r = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (r < 0)
		return error_set(err, -errno, "the index %s can't be opened: %s", path, strerror(errno));
	(void)close(r);
	r = db_open(&ix->writer, ix, path, err);
	if (r == 0)
		r = schema_setup(ix, err);
	if (r == 0)
		r = db_open(&ix->reader, ix, path, err);
	if (r == 0)
		r = run_script(ix, ix->reader.handle, "PRAGMA query_only=ON;", err);
	if (r == 0)
		r = db_connect(path, &ix->maintenance, err);
	if (r < 0)
		return r;
	lock_take(&ix->writer.lock);
	r = db_int(&ix->writer, &clean, "SELECT value FROM meta WHERE name='clean'", "");
	if (r == 0)
		r = db_int(&ix->writer, &limit, "SELECT value FROM meta WHERE name='sequence_limit'", "");
	if (r == 0)
		r = db_int(&ix->writer, &same, "SELECT value=? FROM meta WHERE name='life'", "s", life);
	if (r == 0)
		r = db_int(&ix->writer, &fresh, "SELECT value FROM meta WHERE name='fresh'", "");
	if (r == 0)
		r = db_run(&ix->writer, "UPDATE meta SET value=0 WHERE name='clean'", "");
	lock_drop(&ix->writer.lock);
	if (r < 0)
		return error_set(err, r, "the index %s can't be read or written: %s", path, strerror(-r));
	/* There is a log now, and it keeps its file as long as a connection is open. */
	(void)snprintf(wal, sizeof(wal), "%s-wal", path);
	ix->wal_fd = open(wal, O_RDWR | O_CLOEXEC);
	if (ix->wal_fd < 0)
		return error_set(err, -errno, "the index's log %s can't be opened: %s", wal, strerror(errno));
	set_reserve(ix, opt->reserve);
	*ret_end = clean != 0 ? INDEX_ENDED_WELL : same != 0 ? INDEX_KILLED : INDEX_POWER_CUT;
	atomic_store(&ix->sequence, (uint64_t)limit);
	ix->is_new = fresh != 0;
	return index_sync(ix);
}

int
index_recovered(struct index *ix, const char *life)
{
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = db_run(&ix->writer, "UPDATE meta SET value=? WHERE name='life'", "s", life);
	if (r == 0)
		r = db_run(&ix->writer, "UPDATE meta SET value=0 WHERE name='fresh'", "");
	r = db_end(ix, r);
	if (r == 0)
		r = index_sync(ix);
	if (r == 0)
		r = usage_start(ix);
	ix->recovered = r == 0;
	return r;
}

int
index_open(const struct index_options *opt, struct index **ret_ix, enum index_end *ret_end,
    struct error *err)
{
	struct index *ix = calloc(1, sizeof(*ix));
	char path[4096];
	int r;

	if (ix == NULL)
		return -ENOMEM;
	(void)sqlite3_initialize();
	ix->wal_fd = -1;
	lock_init(&ix->sync_lock, RANK_QUEUE);
	lock_cond_init(&ix->sync_cond);
	ix->dir = strdup(opt->dir);
	(void)snprintf(path, sizeof(path), "%s/index.db", opt->dir);
	r = open_connections(ix, path, opt, ret_end, err);
	if (r < 0) {
		db_close(&ix->reader);
		db_close(&ix->writer);
		(void)sqlite3_close_v2(ix->maintenance);
		if (ix->wal_fd >= 0)
			(void)close(ix->wal_fd);
		free(ix->dir);
		free(ix);
		return r;
	}
	*ret_ix = ix;
	return 0;
}

void
index_close(struct index *ix, bool clean)
{
	if (ix == NULL)
		return;
	if (clean && ix->recovered && index_sync(ix) == 0) {
		lock_take(&ix->writer.lock);
		(void)db_run(&ix->writer, "UPDATE meta SET value=1 WHERE name='clean'", "");
		lock_drop(&ix->writer.lock);
		(void)index_sync(ix);
	}
	usage_stop(ix);
	(void)close(ix->wal_fd);
	(void)sqlite3_close_v2(ix->maintenance);
	db_close(&ix->reader);
	db_close(&ix->writer);
	lock_release(&ix->sync_lock);
	(void)pthread_cond_destroy(&ix->sync_cond);
	free(ix->dir);
	free(ix);
}

bool
index_is_new(const struct index *ix)
{
	return ix->is_new;
}

void
index_checkpoint(struct index *ix)
{
	char path[4096];
	struct stat st;

	(void)snprintf(path, sizeof(path), "%s/index.db-wal", ix->dir);
	if (stat(path, &st) < 0 || st.st_size < CHECKPOINT_BYTES)
		return;
	(void)sqlite3_wal_checkpoint_v2(ix->maintenance, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
}

