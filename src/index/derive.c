/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What was derived from an original: kept here so that meta.json can be written again
 * without decoding anything. */
#include "index/db.h"

#include "index/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int
index_derived_set(struct index *ix, const struct derivation *d)
{
	struct db *db = &ix->writer;
	struct inode i;
	int r = db_begin(ix);

	if (r < 0)
		return r;
	r = inode_load(db, d->ino, &i);
	if (r == 0 && i.generation != d->generation)
		r = -ESTALE;
	if (r == 0)
		r = db_run(db, "INSERT INTO derivation VALUES(?,?,?,?,?) ON CONFLICT(ino) DO UPDATE SET"
		    " generation=excluded.generation, version=excluded.version, failed=excluded.failed,"
		    " json=excluded.json", "iiiis", (int64_t)d->ino, (int64_t)d->generation,
		    (int64_t)d->version, (int64_t)d->failed, d->json);
	if (r == 0)
		r = work_done(db, WORK_DERIVE, d->ino);
	return db_end(ix, r);
}

int
index_derived_get(struct index *ix, uint64_t ino, struct derivation *ret_d)
{
	struct db *db = &ix->reader;
	sqlite3_stmt *q;
	int r;

	lock_take(&db->lock);
	r = db_query(db, &q, "SELECT generation, version, failed, json FROM derivation WHERE ino=?", "i",
	    (int64_t)ino);
	if (r == 0)
		r = db_step(db, q);
	if (r == 1) {
		*ret_d = (struct derivation){
			.ino = ino, .generation = (uint64_t)sqlite3_column_int64(q, 0),
			.version = (unsigned)sqlite3_column_int(q, 1),
			.failed = sqlite3_column_int(q, 2) != 0,
			.json = strdup((const char *)sqlite3_column_text(q, 3)),
		};
		db_done(q);
		r = ret_d->json == NULL ? -ENOMEM : 0;
	} else if (r == 0) {
		r = -ENOENT;
	}
	lock_drop(&db->lock);
	return r;
}

void
derivation_release(struct derivation *d)
{
	free(d->json);
	d->json = NULL;
}
