/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_INDEX_OBJECT_H
#define TBFS_INDEX_OBJECT_H

/* The table of objects and keys, for transfer.c; the writer's lock is held. */
#include "index/db.h"

/* A PUT or DELETE that was sent longer ago than this has ended, whatever we heard of it. */
#define SETTLED_AFTER_NS (30 * 1000000000LL)

struct object;

/* 0, or -ENOENT. */
int object_load(struct db *db, uint64_t id, struct object *ret_object);

/* A new row that owns the key, or with NULL the side key that its id gives. */
int object_insert(struct db *db, const char *backend, const char *key, uint64_t ino,
    struct object *ret_object);

/* Have it removed. */
int object_discard(struct db *db, uint64_t id, int64_t now);

/*
 * Own `key` for this inode: its own row, an adopted one, or a new one.  -EEXIST when somebody
 * else owns it or crosses it (*ret_object is the owner where there is one row), -EBUSY when
 * its removal is under way.
 */
int key_own(struct db *db, const char *backend, const char *key, uint64_t ino, int64_t now,
    struct object *ret_object);

#endif
