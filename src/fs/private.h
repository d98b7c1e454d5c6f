/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_FS_PRIVATE_H
#define TBFS_FS_PRIVATE_H

/* What the files of src/fs/ share. */
#define FUSE_USE_VERSION 314
#include "base/jobq.h"
#include "base/lock.h"
#include "core/core.h"
#include "fs/fs.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdatomic.h>

enum {
	NOTES_MAX = 4096,
	KERNEL_TIMEOUT = 3600,		/* s for which the kernel may keep names and attributes */
};

/* This entry of a directory changed. */
struct note {
	uint64_t parent;
	char *name;
};

enum { LOOP_THREADS = 8 };

/* The threads that serve requests (loop.c). */
struct loops {
	_Atomic uint64_t turn;		/* odd: the reader serves a request */
	_Atomic bool alarmed;		/* the watch will look */
	_Atomic bool watch_ends;
	int alarm;			/* timerfd; 0: not started */
	int fd;				/* of /dev/fuse: our own, since the session's is closed under us when a
					 * user unmounts */
	int64_t look_ns;
	pthread_t watch, threads[LOOP_THREADS];
	bool watch_runs;
	unsigned n;
	struct lock lock;		/* RANK_QUEUE: what follows */
	pthread_cond_t changed;
	bool vacant;			/* somebody is to read */
	bool ended;			/* there is nothing to read any more */
};

struct fs {
	struct core *core;
	struct fuse_session *se;
	char *mountpoint;
	enum fs_passthrough want_passthrough;
	_Atomic bool passthrough;	/* negotiated, and works */
	uint64_t init_unique;		/* of the INIT request; loop threads, one after the other */
	bool direct_mmap;		/* what is opened with direct_io can be mapped; set by INIT */
	struct loops loops;
	pthread_t notifier;
	bool notifier_runs;
	struct jobq *slow, *remote;	/* requests that wait for the disk, and for a store */
	_Atomic uint64_t requests, passthrough_opens, daemon_opens;
	struct lock note_lock;		/* RANK_QUEUE: what follows */
	pthread_cond_t noted;
	struct note notes[NOTES_MAX];
	size_t note_first, note_count;
	uint64_t notes_put, notes_sent;	/* ever */
	bool stop;
};

static inline struct fs *
req_fs(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static inline struct core *
req_core(fuse_req_t req)
{
	return req_fs(req)->core;
}

static inline struct handle *
fi_handle(const struct fuse_file_info *fi)
{
	return (struct handle *)(uintptr_t)fi->fh;
}

/* attr.c: struct caller's has_group, of a request. */
bool req_has_group(void *req, uint32_t gid);

static inline struct caller
req_caller(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct caller){ .uid = ctx->uid, .gid = ctx->gid, .umask = ctx->umask,
		.has_group = req_has_group, .arg = req };
}

/* 0 or -errno.  Descriptors that ran out were ours, not the caller's. */
static inline void
reply(fuse_req_t req, int r)
{
	(void)fuse_reply_err(req, r == -EMFILE ? ENFILE : r < 0 ? -r : 0);
}

/* loop.c */
int loops_start(struct fs *fs);
void loops_wait(struct fs *fs);
/* Also those of a start that failed, once the mount is gone. */
void loops_free(struct fs *fs);
/* The request that this thread serves will take long: another reads meanwhile. */
void loop_step_aside(struct fs *fs);
/* The next request; as read(2). */
ssize_t loop_read(struct fs *fs, void *buf, size_t len);

/* slow.c */

/* Have fn answer the request: at once, or with a copy of the `size` bytes at arg where waiting
 * holds up nobody.  EAGAIN when too many wait for a store already. */
void answer(fuse_req_t req, enum core_wait wait, void (*fn)(fuse_req_t req, const void *arg),
    const void *arg, size_t size);

/* attr.c */
double attr_timeout(const struct attr *attr);
void attr_to_stat(const struct attr *attr, struct stat *ret_st);
void attr_to_entry(const struct attr *attr, struct fuse_entry_param *ret_e);
void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set,
    struct fuse_file_info *fi);
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
    int flags);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
void op_statfs(fuse_req_t req, fuse_ino_t ino);

/* statx.c: answer a request if it is a STATX; false: it is another. */
bool statx_answer(struct fs *fs, const void *request);

/* tree.c */
extern const struct fuse_lowlevel_ops tree_ops;
int check_name(const char *name);

/* dir.c */
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
    struct fuse_file_info *fi);
void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);

/* file.c */
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
    struct fuse_file_info *fi);
void op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi);
void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
    struct fuse_file_info *fi);
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
    struct fuse_file_info *fi);
void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
    unsigned flags, const void *in, size_t in_size, size_t out_size);
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
    struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out,
    size_t len, int flags);

/* passthrough.c */
int passthrough_attach(struct fs *fs);
int passthrough_begin(struct fs *fs, struct handle *h, int32_t *ret_backing);
void passthrough_end(struct fs *fs, struct handle *h);
void passthrough_reply_open(fuse_req_t req, const struct fuse_file_info *fi, int32_t backing,
    bool noflush);
void passthrough_reply_create(fuse_req_t req, const struct fuse_entry_param *e,
    const struct fuse_file_info *fi, int32_t backing);

#endif
