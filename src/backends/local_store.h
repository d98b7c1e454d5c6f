/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BACKENDS_LOCAL_STORE_H
#define TBFS_BACKENDS_LOCAL_STORE_H

/*
 * Shared by the files of the local backend only: the directory tree
 * (local_tree.c), its listing (local_list.c), metadata (local_meta.c) and the
 * operations (local.c).
 */
#include "backends/backend.h"

#include <pthread.h>
#include <sys/stat.h>

#define LOCAL_TMP ".tbfs/tmp"

struct local {
	struct backend b;
	char *root;			/* absolute path */
	bool used;			/* as in struct local_options */
	bool link;
	/* Whoever sees a directory has seen it synced: made and synced under the write lock, opened
	 * under the read lock.  Not a ranked lock: it belongs to this backend and is held over I/O. */
	pthread_rwlock_t dirs;
	_Atomic bool ready;		/* root_fd is set, and never changes from then on */
	int root_fd;
	_Atomic bool has_tmp;		/* so are these */
	int tmp_fd;			/* <root>/.tbfs/tmp/<tmp_id>: ours alone */
	int lock_fd;			/* .../lock, flocked as long as we live */
	char tmp_id[40];
	_Atomic uint64_t serial;	/* of temporary files */
};

/* A file that is being made: in tmp_fd under `name`, until published or dropped. */
struct local_temp {
	int fd;				/* -1: none */
	char name[24];
};

/* One sentence and a code of backend.h's list for a failed system call. */
int local_fail(const struct local *l, int code, const char *doing, const char *key,
    struct error *err);

/* The root is there; with `create` it is made (probe only) and what dead processes left is
 * removed. */
int local_ready(struct local *l, bool create, struct error *err);
/* And a directory for temporary files, which storing takes. */
int local_tmp_ready(struct local *l, struct error *err);

/* Is this key one of our own temporary files'? */
bool local_is_tmp(const char *key);

/* openat() below the root without following symbolic links.  A descriptor or -errno. */
int local_open(struct local *l, const char *key, int flags);

int local_temp_new(struct local *l, struct local_temp *t);	/* 0 or -errno */
void local_temp_name(struct local *l, struct local_temp *t);	/* only choose the name */
void local_temp_drop(struct local *l, struct local_temp *t);	/* close and remove; none is fine */

/* Rename the temporary file over the key (if_absent: only where nothing is, -EEXIST else), making
 * parents, and sync the names.  The temporary name is gone on success. */
int local_publish(struct local *l, struct local_temp *t, const char *key, bool if_absent);

/* The same over a key only while the file `was` stands there: what was removed meanwhile stays so, and
 * what was put stays too (0). */
int local_replace(struct local *l, struct local_temp *t, const char *key, const struct stat *was);

/* Remove directories above the key that have become empty. */
void local_prune(struct local *l, const char *key);

/* local_meta.c: the object's xattr; its tag, given its fstat; the same xattr on another file. */
int local_meta_set(int fd, const struct object_meta *m, uint64_t size, const uint8_t *sum);
int local_meta_tag(int fd, const struct stat *st, struct backend_tag *ret_tag);
int local_meta_copy(int from, int to);

/* What a copy shows to others.  Only root can give a file away, and only root reads a file whose
 * owner can't: for others that stays ours and readable.  mode 0: only the mtime. */
int local_set_attributes(int fd, uint32_t mode, uint32_t uid, uint32_t gid, int64_t mtime_ns);

int local_list(struct backend *b, const char *prefix, backend_list_fn *fn, void *arg,
    struct error *err);

#endif
