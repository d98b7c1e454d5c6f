/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BACKENDS_BACKEND_H
#define TBFS_BACKENDS_BACKEND_H

/*
 * What every place that keeps objects must be able to do.
 *   - 0 or -errno; -EAGAIN alone means "the same call may succeed later"
 *     (network down, 5xx, throttled, deadline passed).
 *   - any thread, any number at once; the caller holds no lock.
 *   - `key` is valid UTF-8, 1..1024 bytes, without leading slash, empty, "." or
 *     ".." components.  `fd` stays the caller's.
 *   - outputs are written on success only, `err` on failure only.
 * Callers use the backend_* wrappers: they check arguments and results and count.
 *
 * Errors, the same from every backend:
 *   -ENOENT    no such object (get, stat, copy; remove of an absent object is 0)
 *   -ENODEV    no such bucket / root
 *   -EACCES    not let in: credentials, permission, the clock, the wrong region
 *   -EAGAIN    transient
 *   -ENOSPC    the store is full
 *   -ECANCELED cancelled by the caller's flag: nothing of it will arrive
 *   -EINPROGRESS cancelled likewise, but too late: what was sent may still be stored
 *   -EIO       the bytes are not what they must be (checksum, short)
 *   -ENOTSUP   this backend has no such operation
 *   -EEXIST    put with OBJECT_PUT_IF_ABSENT over an existing object
 *   -EINVAL    refused for good: key too long, object too large, …; err explains
 */
#include "base/digest.h"
#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct backend;

enum { BACKEND_KEY_MAX = 1024 };	/* bytes of a key, S3's own limit */
enum { BACKEND_URL_MAX = 604800 };	/* seconds a presigned URL may last, S3's own limit */

/* What travels with an object: as x-amz-meta-* headers in S3, as user.tbfs.* xattrs locally. */
struct object_meta {
	int64_t mtime_ns;		/* file's mtime, ns since 1970        (x-amz-meta-mtime: seconds.nnnnnnnnn) */
	uint32_t mode, uid, gid;	/* as rclone and s3fs read them: decimal (x-amz-meta-mode, -uid, -gid) */
	uint64_t seq;			/* tbfs-seq: rises with every stored generation of the whole store */
	uint64_t object_id;		/* tbfs-id */
	uint64_t generation;		/* tbfs-generation of the inode */
	/* tbfs-path: the plain path, only where the key isn't the path; NULL else.  It travels
	 * percent-escaped; one that doesn't fit into the 2 KB of S3's metadata is left out, and the
	 * tag then says "": whoever puts checks that and keeps such a path in a sidecar. */
	const char *path;
	const char *content_type;	/* NULL: application/octet-stream */
};

/* What is known of a stored object. */
struct backend_tag {
	uint64_t size;			/* bytes */
	uint8_t sha256[SHA256_LEN];	/* of the whole object's bytes */
	bool has_sha256;		/* false: the store did not tell (foreign object) */
	char etag[96];			/* the store's own tag, without quotes; "" if none */
	int64_t mtime_ns;		/* as in object_meta; the store's time for foreign objects */
	uint32_t mode, uid, gid;	/* 0 where the object carries none */
	bool has_attrs;			/* mode, uid, gid were there */
	uint64_t seq, object_id, generation;	/* 0 where absent */
	char path[4096];		/* tbfs-path unescaped; "" if absent */
};

enum object_put_flags {
	OBJECT_PUT_IF_ABSENT = 1 << 0,	/* -EEXIST instead of replacing */
	OBJECT_PUT_MAY_LINK = 1 << 1,	/* fd's file will not change before backend_unshare(): local may hard-link it */
};

/* One put: everything but where.  The bytes are [0, size) of fd. */
struct object_put {
	int fd;
	uint64_t size;
	unsigned flags;			/* enum object_put_flags */
	struct object_meta meta;
	/* Checked after each read of fd and before bytes are handed on; true ends with -ECANCELED
	 * and nothing visible under the key.  NULL: never cancelled.  Called from several threads at
	 * once (parts of a multipart upload), without locks; must be quick. */
	bool (*cancelled)(void *arg);
	void *cancelled_arg;
};

/* Called for each object of a listing in key order; non-zero ends it and is returned. */
typedef int backend_list_fn(void *arg, const char *key, uint64_t size, int64_t mtime_ns);

struct backend_ops {
	const char *name;		/* value of `backend =` in the configuration */

	/* Store the bytes.  Readers see the old object or the new one, never a mix.  The tag's
	 * size and sha256 are of the bytes that were read from fd and confirmed by the store;
	 * *ret_linked is true when the object now shares its blocks with fd's file. */
	int (*put)(struct backend *b, const char *key, const struct object_put *put,
	    struct backend_tag *ret_tag, bool *ret_linked, struct error *err);
	/* Copy [off, off+len) into fd at fd_off, all of one version of the object.  -ENOENT if
	 * absent, -EIO if the object ends before off+len; after a failure the range of fd is
	 * undefined. */
	int (*get)(struct backend *b, const char *key, uint64_t off, uint64_t len, int fd,
	    uint64_t fd_off, struct error *err);
	int (*stat)(struct backend *b, const char *key, struct backend_tag *ret_tag, struct error *err);
	int (*remove)(struct backend *b, const char *key, struct error *err);
	/* All objects whose key begins with prefix ("" = all), recursively.  Foreign names that are
	 * no legal key are left out.  An error of the backend comes with a sentence in *err, a value
	 * of fn without. */
	int (*list)(struct backend *b, const char *prefix, backend_list_fn *fn, void *arg,
	    struct error *err);
	/* Server-side copy with its metadata; the copy is verified (size and checksum). */
	int (*copy)(struct backend *b, const char *from, const char *to, struct backend_tag *ret_tag,
	    struct error *err);
	/* A URL that reads the object for `expires` seconds (1..604800).  ret_url is malloc'd. */
	int (*get_url)(struct backend *b, const char *key, unsigned expires, char **ret_url,
	    struct error *err);
	/* Break a link made by OBJECT_PUT_MAY_LINK: afterwards the object has blocks of its own.
	 * 0 also when there is none.  May be NULL. */
	int (*unshare)(struct backend *b, const char *key, struct error *err);
	/* Can the store be reached and written to?  Creates root or bucket where told to. */
	int (*probe)(struct backend *b, struct error *err);
	void (*free)(struct backend *b);
};

enum backend_call { CALL_PUT, CALL_GET, CALL_STAT, CALL_REMOVE, CALL_LIST, CALL_COPY, CALL_URL,
	CALL_UNSHARE, CALL_PROBE, CALL_COUNT };

struct backend {
	const struct backend_ops *ops;
	_Atomic uint64_t calls[CALL_COUNT];	/* by wrapper, for status, metrics and tests */
	_Atomic uint64_t failures[CALL_COUNT];
	_Atomic uint64_t requests;		/* HTTP requests sent (s3), counted by the backend itself */
	_Atomic uint64_t bytes_out, bytes_in;	/* bodies */
};

/* Wrappers: check the key, forbid held locks, count, and check that outputs fit the contract. */
int backend_put(struct backend *b, const char *key, const struct object_put *put,
    struct backend_tag *ret_tag, bool *ret_linked, struct error *err);
int backend_get(struct backend *b, const char *key, uint64_t off, uint64_t len, int fd,
    uint64_t fd_off, struct error *err);
int backend_stat(struct backend *b, const char *key, struct backend_tag *ret_tag, struct error *err);
int backend_remove(struct backend *b, const char *key, struct error *err);
int backend_list(struct backend *b, const char *prefix, backend_list_fn *fn, void *arg,
    struct error *err);
int backend_copy(struct backend *b, const char *from, const char *to, struct backend_tag *ret_tag,
    struct error *err);
int backend_get_url(struct backend *b, const char *key, unsigned expires, char **ret_url,
    struct error *err);
int backend_unshare(struct backend *b, const char *key, struct error *err);
int backend_probe(struct backend *b, struct error *err);
void backend_free(struct backend *b);	/* NULL is fine */

/* Is this text a legal key for every backend?  UTF-8, 1..1024 bytes, no leading or trailing slash,
 * no empty, "." or ".." components, no control characters (< 0x20, 0x7f: S3's XML can't carry them). */
bool backend_key_ok(const char *key);

#endif
