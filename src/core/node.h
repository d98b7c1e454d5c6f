/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CORE_NODE_H
#define TBFS_CORE_NODE_H

/* The table of inodes in memory: private to src/core/. */
#include "base/lock.h"
#include "core/core.h"

enum { NODE_STRIPES = 64 };

/*
 * An inode that the kernel knows, that is open, or that is being worked on.  It
 * lives while any of its counts is above zero; what it forgets when it goes is only
 * ever a reason to do something once more.
 */
struct node {
	uint64_t ino;
	struct node *next;		/* table_lock */
	uint64_t lookups;		/* table_lock */
	unsigned pins;			/* table_lock */
	bool unlinked;			/* table_lock: nlink was seen to be 0 */
	/* The rest: the object lock of its stripe. */
	_Atomic unsigned opens, writers;	/* handles; raised under the lock */
	bool known;			/* what follows was read from the index */
	bool changed;			/* the bytes may differ from the last stored generation */
	bool named;			/* the staged file's name is durable */
	bool queued;			/* an upload was queued since the last raise */
	bool still;			/* a lease was granted since the last writer: nobody can change it */
	bool linking;			/* the staged file is being linked to its object, or the link broken */
	_Atomic unsigned raising;	/* somebody waits for that to end, to change the bytes */
	uint64_t synced_generation;	/* its row says durably that an fsync covered it */
	_Atomic uint64_t generation;	/* 0: not read yet */
	_Atomic int64_t writer_since;	/* wall clock ns */
	struct staged_stat flushed;	/* as it was when the row was told, or opened; ctime is the staged one */
	_Atomic uint64_t change;	/* last index change of its row or names */
	int32_t backing;		/* id of the registered descriptor; 0: none */
	unsigned backing_users;
};

struct inos {
	uint64_t *inos;			/* the owner frees them */
	size_t n, room;
};
int inos_add(struct inos *l, uint64_t ino);

struct core {
	struct core_options opt;	/* but for the two that can change: */
	_Atomic int64_t quiet_period, temp_delay;
	char *control_path;
	struct index *ix;
	struct staging *st;
	struct fetcher fetcher;
	struct core_events events;
	struct lock table_lock;		/* RANK_TABLE */
	struct node **slots;		/* table_lock */
	size_t slot_count, node_count;	/* table_lock */
	struct inos doomed;		/* table_lock: to be reaped */
	bool reaping;			/* table_lock: somebody is at it */
	bool reap_failed;		/* the last time; who is at it */
	pthread_cond_t reaped;
	_Atomic uint64_t given_up;	/* bytes of staged files that nobody needs, but which are still there */
	struct lock places_lock;	/* RANK_QUEUE */
	struct inos places;		/* places_lock: whose place is to be written */
	_Atomic bool places_due;	/* there are some */
	struct linger *lingering;	/* places_lock: what went and the kernel may still know */
	struct lock stripes[NODE_STRIPES];	/* RANK_OBJECT */
	pthread_cond_t linked[NODE_STRIPES];	/* a node of the stripe stopped linking */
};

/* Get and pin; never NULL but for -ENOMEM. */
struct node *node_get(struct core *c, uint64_t ino);
/* The node if there is one, pinned. */
struct node *node_find(struct core *c, uint64_t ino);
/* Unpin; an unlinked inode is to be reaped when this was the last to hold it. */
void node_put(struct core *c, struct node *n);
void node_lock(struct core *c, struct node *n);
void node_unlock(struct core *c, struct node *n);
/* A name of the inode went.  When it was the last, it is reaped once nobody holds it. */
void node_unlinked(struct core *c, const struct inode *inode);
/* Its node goes, and it has no name: to be reaped.  table_lock is held. */
void node_doom(struct core *c, uint64_t ino);
/* The kernel is told of it: one lookup. */
void core_remember(struct core *c, uint64_t ino);
/* The row as a client sees it; `moving` wherever it may be. */
void core_fill_attr(struct core *c, const struct inode *inode, struct attr *ret_attr);
/* Its row or names were changed: the next fsync covers that. */
void node_touched(struct core *c, uint64_t ino);
bool node_is_unlinked(struct core *c, const struct node *n);
/* Nobody needs its staged bytes any more. */
void node_given_up(struct core *c, uint64_t ino);
/* What went at this moment together with a directory (derived files): nobody else tells. */
void reap_with_dir(struct core *c, int64_t ctime);

/* linger.c: this name went with its directory; an index's callback. */
void linger_add(void *core, uint64_t parent, const char *name, uint64_t ino);
void linger_free(struct core *c);
/* Read what a fresh node doesn't know yet; node locked. */
int node_load(struct core *c, struct node *n, struct inode *ret_inode);

/* A writer is about to change the bytes: generation rule.  1 it was raised, 0 it was OPEN already.
 * Returns with the node locked (also on failure); may sync, and wait for a link to be broken. */
int node_raise(struct core *c, struct node *n);
/* The bytes of a REMOTE inode into the staging cache; may take long. */
int node_hydrate(struct core *c, const struct inode *inode);
/* What the staged file looks like by `st`; that it was changed since it was looked at last is
 * remembered.  Node locked. */
void node_look(struct core *c, struct node *n, const struct stat *st, struct staged_stat *ret_now);
/* Remember what the staged file looks like; queue the upload.  Node locked. */
int node_flush(struct core *c, struct node *n, bool force);

/* Tell the syncer that something is due then (0: now). */
void work_queued(struct core *c, int64_t due);
struct quiet quiet_for(const struct core *c, const char *name);
/* Would reading at `now` move the row's atime? */
bool atime_moves(const struct core *c, const struct inode *row, int64_t now);
/* The row's atime, or the staged file's where reading moved it.  On the staging disk relatime goes by
 * the staged ctime, which moves with what is no user's business: a link to the object, the place. */
int64_t staged_atime(const struct core *c, const struct inode *row, const struct stat *st);
void stat_to_staged(const struct core *c, const struct stat *st, struct staged_stat *ret_staged);

/* place.c: its place has changed, or it has none any more; core_write_places() follows. */
void place_due(struct core *c, uint64_t ino);
/* Write it now. */
void place_write(struct core *c, uint64_t ino);

/* A handle for an inode that was just made; takes fd. */
int handle_new(struct core *c, const struct inode *inode, int flags, int fd,
    struct handle **ret_handle);

/* acl.c: POSIX ACLs as the kernel encodes them (linux/posix_acl_xattr.h). */
struct acl_pair {
	void *access, *inherit;		/* for a new inode; NULL: none */
	size_t access_len, inherit_len;
};
/* What a new entry of `parent` gets: *mode is completed (umask or default ACL). */
int acl_inherit(struct core *c, uint64_t parent, uint32_t umask, uint32_t *mode,
    struct acl_pair *ret_acl);
int acl_store(struct core *c, uint64_t ino, const struct acl_pair *acl);
void acl_pair_release(struct acl_pair *acl);
/* The access ACL follows a chmod. */
int acl_chmod_inode(struct core *c, uint64_t ino, uint32_t mode);
/* An access ACL is being set: *ret_mode gets its permission bits; *ret_minimal: the mode says
 * it all, nothing is to be stored. */
int acl_to_mode(const void *value, size_t len, uint32_t *ret_mode, bool *ret_minimal);

#endif
