/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_INDEX_DB_H
#define TBFS_INDEX_DB_H

/*
 * One SQLite connection, its prepared statements and its lock: what the other
 * files of the index are written with.  Private to src/index/.
 *
 * Statements are cached by the address of their SQL literal, so the SQL stands
 * where it is used.  Bindings are given by a format: i int64_t, s text (or NULL),
 * b blob (pointer, int length).  Any number of bindings; each conversion one or
 * two arguments.
 */
#include "base/error.h"
#include "base/lock.h"

#include <sqlite3.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
	DB_STATEMENTS = 256,
	DB_PAGE_BYTES = 1024,		/* rows are small: a commit writes whole pages to the log */
	LOG_HEADER_BYTES = 24,		/* before each of them there */
	LOG_FRAME_BYTES = LOG_HEADER_BYTES + DB_PAGE_BYTES,
};

struct index;
struct quiet;
struct rows;
struct usage_tree;

struct db {
	sqlite3 *handle;
	struct lock lock;		/* RANK_INDEX: the connection and all below */
	struct {
		const char *sql;
		sqlite3_stmt *stmt;
	} cache[DB_STATEMENTS];
	struct index *owner;
};

/* log_vfs.c: what connections reach the disk through.  To be registered before the
 * first. */
#define LOG_VFS "tbfs-log"
int log_vfs_register(struct error *err);

/* A bare connection, closed by the caller, also after a failure. */
int db_connect(const char *path, sqlite3 **ret_handle, struct error *err);
int db_open(struct db *db, struct index *owner, const char *path, struct error *err);
void db_close(struct db *db);

/* Run a statement without result rows.  Returns 0 or -errno. */
int db_run(struct db *db, const char *sql, const char *fmt, ...);
/* The same; returns how many rows changed. */
int db_change(struct db *db, const char *sql, const char *fmt, ...);
/* Begin a query; then db_step: 1 a row, 0 no more (the statement is reset), -errno. */
int db_query(struct db *db, sqlite3_stmt **ret_q, const char *sql, const char *fmt, ...);
int db_step(struct db *db, sqlite3_stmt *q);
void db_done(sqlite3_stmt *q);
/* One row: read it, then db_done(); -ENOENT when there is none. */
int db_row(struct db *db, sqlite3_stmt **ret_q, const char *sql, const char *fmt, ...);
/* What q gives, up to `max` rows, each read into rows[n].  How many, or -errno. */
int db_rows(struct db *db, sqlite3_stmt *q, size_t max,
    void (*read)(sqlite3_stmt *q, void *rows, size_t n), void *rows);
/* One integer; -ENOENT when there is no row. */
int db_int(struct db *db, int64_t *ret_value, const char *sql, const char *fmt, ...);

/* The inodes at and below ?1, as tree(ino). */
#define TREE_BELOW "WITH RECURSIVE tree(ino) AS (SELECT ?1 UNION" \
	" SELECT d.ino FROM tree t JOIN dentry d ON d.parent=t.ino) "

/* A connection for a short look, locked: the writer where it is free, whose cached pages its own
 * commits leave valid, else the reader. */
struct db *db_read(struct index *ix);
void db_read_done(struct db *db);

/* Writer: take the lock and begin a transaction; end it and drop the lock.  db_end() keeps what
 * was done since db_begin() when r >= 0, else undoes it; returns r, or the commit's failure.
 * Whoever waits for the lock meanwhile shares the commit (see db.c). */
int db_begin(struct index *ix);
int db_end(struct index *ix, int r);
/* The same for what makes the database larger: -ENOSPC when it can't become so. */
int db_begin_growing(struct index *ix);
/* open.c: is there room for it to grow?  In a transaction. */
bool index_has_room(struct index *ix);

/* A transaction of one statement. */
int db_once(struct index *ix, const char *sql, const char *fmt, ...);

/* -errno for the connection's last SQLite error; logs damage and disk errors once. */
int db_errno(struct db *db, const char *sql);

struct index {
	struct db writer, reader;
	_Atomic unsigned waiting;	/* in db_begin(), for the writer's lock */
	unsigned group_size;		/* transactions that share the one that is open; writer.lock */
	struct group_member *group;	/* who waits for its commit; writer.lock */
	sqlite3 *maintenance;		/* checkpoints and snapshots; one thread */
	int wal_fd;			/* the write-ahead log, to sync it */
	_Atomic bool derive_off;	/* nobody derives: don't queue it */
	_Atomic bool broken;		/* a sync failed */
	int wal_frames;			/* in the log after the last commit; writer.lock */
	int unreserved;			/* pages that it may have grown by since there was room; writer.lock */
	bool no_room;			/* the last time it was looked for; writer.lock */
	int wal_limit;			/* frames that fit into the log's reserve, with a rest; 0: no reserve */
	struct rows *rows;
	struct usage_tree *usage;	/* NULL until the index is recovered */
	void (*taken_along)(void *arg, uint64_t parent, const char *name, uint64_t ino);
	void *taken_along_arg;
	char *dir;
	char aside[64];			/* name that the database gets, as it is damaged; "": it isn't */
	bool is_new;			/* no recovery has ended yet since it was made */
	bool recovered;			/* this time's has */
	_Atomic uint64_t sequence, sequence_limit;	/* next number; what is reserved durably in meta (writer.lock) */
	_Atomic uint64_t statements, commits, syncs;
	_Atomic uint64_t changes;	/* commits so far */
	_Atomic uint64_t synced;	/* of those, durable */
	struct lock sync_lock;		/* RANK_QUEUE: the three below */
	pthread_cond_t sync_cond;
	bool syncing;
	uint64_t sync_done;		/* rounds ended */
	int sync_result;
	uint64_t snapshot_changes;	/* `changes` at the last snapshot; maintenance thread */
};

/* Columns of an inode row, in the order of the table, as inode_read() wants them from column `at` on. */
#define INODE_COLUMNS "i.ino,i.mode,i.nlink,i.uid,i.gid,i.rdev,i.size,i.atime,i.mtime,i.ctime," \
	"i.btime,i.flags,i.state,i.generation,i.synced_generation,i.staged_mtime,i.object"
enum { INODE_COLUMN_COUNT = 17 };
struct inode;
void inode_from(const int64_t *columns, struct inode *ret_inode);
void inode_read(sqlite3_stmt *q, int at, struct inode *ret_inode);
/* A name column; ret_name holds INDEX_NAME_MAX + 1. */
void name_read(sqlite3_stmt *q, int at, char *ret_name);

/* Inside a transaction of the writer. */
int inode_load(struct db *db, uint64_t ino, struct inode *ret_inode);
int work_add(struct db *db, int kind, uint64_t id, int64_t due);
/* Put an upload off, and with `add` queue it if it isn't. */
int work_quiet(struct db *db, uint64_t ino, const struct quiet *quiet, bool add);
/* It has an upload: the one that is queued, with its time, or this. */
int upload_keep(struct db *db, uint64_t ino, int64_t due);
int work_done(struct db *db, int kind, uint64_t id);
/* A number for an inode or a dentry that was never given out before, not even before a power
 * cut.  Outside of a transaction. */
int sequence_next(struct index *ix, uint64_t *ret_number);

int path_load(struct db *db, uint64_t ino, char **ret_path);

/* schema.c */
int schema_setup(struct index *ix, struct error *err);
int pragma_int(sqlite3 *h, const char *sql, int *ret_value);
/* quick_check walks every page: what is served was seen whole.  -EUCLEAN, and SQLite's words. */
int schema_verify(sqlite3 *h, char *ret_words, size_t room);
int run_script(const struct index *ix, sqlite3 *h, const char *sql, struct error *err);

/* snapshot.c */

/* A verified copy of what the connection `from` sees. */
int snapshot_write(struct index *ix, sqlite3 *from, struct error *err);
/* The database is damaged: -EUCLEAN, with what can be done; it is set aside when it is closed. */
int index_damaged(struct index *ix, const char *what, struct error *err);
void index_set_aside(const struct index *ix);
/* -EUCLEAN: a damaged one was, and there is none in its place. */
int index_refuse_set_aside(struct index *ix, struct error *err);

#endif
