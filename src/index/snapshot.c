/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Copies of the database to go back to, and what becomes of one that is damaged.
 *
 *   1. A copy counts once it was read again whole, and is on the disk.
 *   2. A damaged database is set aside under a name of its own, as it is, and nothing is begun in
 *      its place: that is for somebody to decide who has read which snapshot there is.
 */
#include "index/db.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "index/index.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SNAPSHOTS_KEPT = 6 };

static void
stamp(char ret_text[32])
{
	time_t now = time(NULL);
	struct tm tm;

	(void)strftime(ret_text, 32, "%Y%m%dT%H%M%SZ", gmtime_r(&now, &tm));
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

static const char aside_prefix[] = "index.db.damaged-";

/* What to do now, in one sentence. */
static int
advise(const struct index *ix, const char *what, const char *aside, struct error *err)
{
	char name[256];
	bool none;

	newest_snapshot(ix, name, sizeof(name));
	none = strcmp(name, "none") == 0;
	return error_set(err, -EUCLEAN, "%s: it is set aside as %s/%s; the last verified snapshot is %s%s: %s"
	    "move the damaged one out of %s to begin with what the staged files say of their names", what,
	    ix->dir, aside, none ? "" : "snapshots/", name,
	    none ? "" : "copy that to index.db and mount, or ", ix->dir);
}

int
index_damaged(struct index *ix, const char *what, struct error *err)
{
	char text[300], now[32];

	stamp(now);
	(void)snprintf(ix->aside, sizeof(ix->aside), "%s%s", aside_prefix, now);
	(void)snprintf(text, sizeof(text), "the index %.180s/index.db is damaged (%.80s)", ix->dir, what);
	return advise(ix, text, ix->aside, err);
}

void
index_set_aside(const struct index *ix)
{
	static const char *const parts[] = { "", "-wal", "-shm" };
	char from[4200], to[4400];
	size_t i;

	for (i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		(void)snprintf(from, sizeof(from), "%s/index.db%s", ix->dir, parts[i]);
		(void)snprintf(to, sizeof(to), "%s/%s%s", ix->dir, ix->aside, parts[i]);
		(void)rename(from, to);
	}
	(void)fsync_dirat(AT_FDCWD, ix->dir);
}

int
index_refuse_set_aside(struct index *ix, struct error *err)
{
	char path[4200];
	struct dirent *e;
	int r = 0;
	DIR *d;

	(void)snprintf(path, sizeof(path), "%s/index.db", ix->dir);
	if (access(path, F_OK) == 0 || (d = opendir(ix->dir)) == NULL)
		return 0;
	while (r == 0 && (e = readdir(d)) != NULL)
		if (strncmp(e->d_name, aside_prefix, sizeof(aside_prefix) - 1) == 0 &&
		    strchr(e->d_name, 'Z') != NULL && strchr(e->d_name, 'Z')[1] == '\0')
			r = advise(ix, "there is no index, and a damaged one", e->d_name, err);
	(void)closedir(d);
	return r;
}

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
copy_database(sqlite3 *from, const char *to, struct error *err)
{
	sqlite3_backup *b;
	sqlite3 *h = NULL;
	char words[200];
	int r = 0;

	if (sqlite3_open(to, &h) != SQLITE_OK) {
		r = error_set(err, -EIO, "snapshot %s can't be written: %s", to, sqlite3_errmsg(h));
	} else {
		b = sqlite3_backup_init(h, "main", from, "main");
		if (b == NULL || sqlite3_backup_step(b, -1) != SQLITE_DONE)
			r = error_set(err, -EIO, "snapshot %s: %s", to, sqlite3_errmsg(h));
		if (b != NULL)
			(void)sqlite3_backup_finish(b);
		if (r == 0 && schema_verify(h, words, sizeof(words)) < 0)
			r = error_set(err, -EIO, "snapshot %s is not what was copied: %s", to, words);
	}
	(void)sqlite3_close(h);
	return r;
}

int
snapshot_write(struct index *ix, sqlite3 *from, struct error *err)
{
	char dir[4096], tmp[4200], path[4200], now[32];
	CLEANUP_CLOSE int fd = -1;
	int r;

	(void)snprintf(dir, sizeof(dir), "%s/snapshots", ix->dir);
	r = mkdir_parents(AT_FDCWD, dir, 0700);
	if (r < 0)
		return error_set(err, r, "%s can't be made: %s", dir, strerror(-r));
	stamp(now);
	(void)snprintf(path, sizeof(path), "%s/index-%s.db", dir, now);
	(void)snprintf(tmp, sizeof(tmp), "%s/index-%s.db.tmp", dir, now);
	(void)unlink(tmp);
	r = copy_database(from, tmp, err);
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
